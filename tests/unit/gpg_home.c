#include "gpg_home.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUF_LIMIT ((size_t)64 << 20)

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "test set-up failed: %s\n", what);
    abort();
}

void test_home_make(struct test_home *home)
{
    (void)snprintf(home->path, sizeof(home->path), "/tmp/walefs-test.XXXXXX");
    must(mkdtemp(home->path) != NULL, "mkdtemp");
    /* else each protected key costs a second to make */
    static const char conf[] = "s2k-count 65536\n";
    test_write_file(home, "gpg-agent.conf", conf, sizeof(conf) - 1);
}

void test_home_remove(struct test_home *home)
{
    char command[512];
    (void)snprintf(command, sizeof(command),
                   "gpgconf --homedir %s --kill all >/dev/null 2>&1; gpgconf --homedir %s "
                   "--remove-socketdir >/dev/null 2>&1; rm -rf %s",
                   home->path, home->path, home->path);
    must(system(command) == 0, "removing the home");
}

int test_gpg(const struct test_home *home, const char *args_fmt, ...)
{
    char args[2048], command[4096];
    va_list ap;
    va_start(ap, args_fmt);
    (void)vsnprintf(args, sizeof(args), args_fmt, ap);
    va_end(ap);
    (void)snprintf(command, sizeof(command),
                   "gpg --homedir %s --batch --yes -q --no-tty --trust-model always "
                   "--pinentry-mode loopback %s >%s/gpg.log 2>&1 </dev/null",
                   home->path, args, home->path);
    return system(command);
}

void test_key_ext(const struct test_home *home, const char *user_id, const char *extra,
                  const char *algo, const char *expire)
{
    must(test_gpg(home, "%s --quick-gen-key '%s' %s %s %s", extra, user_id, algo,
                  strcmp(algo, "future-default") == 0 ? "default" : "sign", expire) == 0,
         "making a key");
}

void test_key(const struct test_home *home, const char *user_id, const char *passphrase)
{
    char extra[128];
    (void)snprintf(extra, sizeof(extra), "--passphrase '%s'", passphrase);
    test_key_ext(home, user_id, extra, "future-default", "never");
}

void test_fpr(const struct test_home *home, const char *user_id, char out[64])
{
    char command[512], line[512];
    (void)snprintf(command, sizeof(command), "gpg --homedir %s --with-colons -k '%s' 2>/dev/null",
                   home->path, user_id);
    FILE *f = popen(command, "r");
    must(f != NULL, "popen");
    out[0] = '\0';
    while (fgets(line, sizeof(line), f) != NULL) {
        if (out[0] == '\0' && strncmp(line, "fpr:::::::::", 12) == 0)
            (void)snprintf(out, 64, "%.*s", (int)strcspn(line + 12, ":"), line + 12);
    }
    must(pclose(f) == 0 && out[0] != '\0', "finding a fingerprint");
}

void test_copy_public(const struct test_home *from, const struct test_home *to, const char *user_id)
{
    must(test_gpg(from, "-o %s/public.gpg --export '%s'", from->path, user_id) == 0, "export");
    must(test_gpg(to, "--import %s/public.gpg", from->path) == 0, "import");
}

void test_write_file(const struct test_home *home, const char *name, const void *data, size_t n)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", home->path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    must(fd >= 0 && write(fd, data, n) == (ssize_t)n && close(fd) == 0, "writing a file");
}

void test_read_file(const struct test_home *home, const char *name, struct buf *out)
{
    char path[256], part[65536];
    (void)snprintf(path, sizeof(path), "%s/%s", home->path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, "opening a file");
    ssize_t n;
    while ((n = read(fd, part, sizeof(part))) > 0)
        must(buf_append(out, part, (size_t)n), "reading a file");
    must(n == 0 && close(fd) == 0, "reading a file");
}

struct openpgp_options test_options(const struct test_home *home)
{
    return (struct openpgp_options){
        .home = home->path, .stall_timeout_ms = 60000, .max_processes = 4, .writable = true};
}

struct openpgp *test_openpgp(const struct test_home *home, const char *recipient,
                             const char *passphrase, struct err *err)
{
    struct openpgp_options options = test_options(home);
    struct secret secret = SECRET_INIT;
    if (recipient != NULL) {
        options.recipients = &recipient;
        options.recipient_count = 1;
    }
    if (passphrase != NULL) {
        must(secret_set(&secret, passphrase, strlen(passphrase), err), "secret_set");
        options.passphrase = &secret;
    }
    struct openpgp *pgp = openpgp_new(&options, err);
    secret_free(&secret);
    return pgp;
}

static bool sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct test_sink *s = (struct test_sink *)self;
    must(buf_append(&s->got, data, n), "sink memory");
    if (s->got.len >= s->fail_at)
        return err_set(err, ERR_NO_SPACE, "sink broke");
    return true;
}

static bool sink_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

void test_sink_init(struct test_sink *s)
{
    *s = (struct test_sink){.base = {.write = sink_write, .finish = sink_finish},
                            .got = BUF_INIT(BUF_LIMIT),
                            .fail_at = SIZE_MAX};
}

char *test_bytes(size_t n, unsigned seed)
{
    unsigned char *bytes = malloc(n + 8);
    must(bytes != NULL, "memory");
    uint64_t x = seed + 88172645463325252u;
    for (size_t i = 0; i < n; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(bytes + i, &x, 8);
    }
    return (char *)bytes;
}

static bool whole(struct openpgp *pgp, bool encrypt, const void *in, size_t n, struct buf *out,
                  struct err *err)
{
    static const struct call endless = CALL_INIT;
    struct test_sink sink;
    test_sink_init(&sink);
    struct source *src = source_mem(in, n, err);
    must(src != NULL && openpgp_reserve(pgp, OPENPGP_FOREGROUND, &endless, err), "reserve");
    bool ok = encrypt ? openpgp_encrypt(pgp, src, &sink.base, &endless, err)
                      : openpgp_decrypt(pgp, src, &sink.base, &endless, err);
    openpgp_release(pgp);
    source_close(src);
    *out = sink.got;
    return ok;
}

bool test_encrypt(struct openpgp *pgp, const void *plain, size_t n, struct buf *out,
                  struct err *err)
{
    return whole(pgp, true, plain, n, out, err);
}

bool test_decrypt(struct openpgp *pgp, const void *coded, size_t n, struct buf *out,
                  struct err *err)
{
    return whole(pgp, false, coded, n, out, err);
}

size_t test_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    must(dir != NULL, "/proc/self/fd");
    size_t n = 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static bool is_gpg_of(const char *pid, const char *home)
{
    char path[300], args[8192];
    (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, args, sizeof(args) - 1);
    close(fd);
    if (n <= 0 || strcmp(args, "gpg-agent") == 0)
        return false;
    args[n] = '\0';
    size_t len = strlen(home);
    for (const char *arg = args; arg < args + n; arg += strlen(arg) + 1) {
        if (strncmp(arg, home, len) == 0 && (arg[len] == '\0' || arg[len] == '/'))
            return true;
    }
    return false;
}

size_t test_gpg_count(const char *home)
{
    DIR *dir = opendir("/proc");
    must(dir != NULL, "/proc");
    size_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0]) && is_gpg_of(entry->d_name, home))
            n++;
    }
    closedir(dir);
    return n;
}

size_t test_gpg_count_settled(const char *home)
{
    size_t n = 0;
    for (int i = 0; i < 1000; i++) {
        n = test_gpg_count(home);
        if (n == 0)
            return 0;
        cancel_sleep_ms(NULL, 10);
    }
    return n;
}
