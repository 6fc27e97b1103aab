#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/store_file.h"
#include "tests/unit/store_env.h"

const struct call env_forever = CALL_INIT;

const char *env_need(const char *name)
{
    const char *value = getenv(name);
    if (getenv("WALEFS_TEST_S3") == NULL || value == NULL)
        fail_msg("%s is not set: start a server with tests/lib/radosgw.sh start DIR and source "
                 "DIR/env",
                 name);
    return value;
}

/* ---- credentials that do not change ---- */

struct fixed {
    const char *id, *secret, *token;
    struct aws_cred *cred;
    struct fixed *next;
};

static struct fixed *all_fixed;

static bool fetch_fixed(void *arg, const struct call *call, struct aws_keys *out, struct err *err)
{
    const struct fixed *f = arg;
    (void)call;
    return secret_set(&out->id, f->id, strlen(f->id), err) &&
           secret_set(&out->secret, f->secret, strlen(f->secret), err) &&
           (f->token == NULL || secret_set(&out->token, f->token, strlen(f->token), err));
}

static void free_fixed(void)
{
    while (all_fixed != NULL) {
        struct fixed *f = all_fixed;
        all_fixed = f->next;
        aws_cred_free(f->cred);
        free(f);
    }
}

struct aws_cred *env_cred(const char *id, const char *secret, const char *token)
{
    struct err err = ERR_INIT;
    struct fixed *f = malloc(sizeof(*f));
    assert_non_null(f);
    *f = (struct fixed){.id = id, .secret = secret, .token = token, .next = all_fixed};
    const struct aws_source source = {.fetch = fetch_fixed, .arg = f};
    f->cred = aws_cred_new(&source, &err);
    assert_non_null(f->cred);
    if (all_fixed == NULL)
        (void)atexit(free_fixed);
    all_fixed = f;
    return f->cred;
}

struct store_s3_options env_s3_options(enum store_kind kind, const char *prefix)
{
    bool tls = kind == STORE_S3_TLS;
    return (struct store_s3_options){
        .bucket = env_need("WALEFS_TEST_BUCKET"),
        .prefix = prefix,
        .region = getenv("AWS_REGION"),
        .endpoint = env_need(tls ? "WALEFS_TEST_ENDPOINT_TLS" : "WALEFS_TEST_ENDPOINT"),
        .path_style = true,
        .ca_file = tls ? env_need("WALEFS_TEST_CA") : NULL,
        .cred = env_cred(env_need("AWS_ACCESS_KEY_ID"), env_need("AWS_SECRET_ACCESS_KEY"), NULL),
        .connect_timeout_ms = 5000,
        .stall_timeout_ms = 20000,
        .request_timeout_ms = 20000,
        .max_attempts = 4,
        .max_connections = 8,
    };
}

void store_env_begin(struct store_env *env, enum store_kind kind)
{
    static unsigned counter;
    struct err err = ERR_INIT;
    *env = (struct store_env){.kind = kind};
    if (kind == STORE_DIRECTORY) {
        (void)snprintf(env->dir, sizeof(env->dir), "/tmp/walefs-store-XXXXXX");
        assert_non_null(mkdtemp(env->dir));
        env->store = store_file_new(env->dir, &err);
    } else {
        (void)snprintf(env->prefix, sizeof(env->prefix), "unit/%d-%u", (int)getpid(), ++counter);
        struct store_s3_options options = env_s3_options(kind, env->prefix);
        env->store = store_s3_new(&options, &err);
    }
    if (env->store == NULL)
        fail_msg("no store: %s", err.text);
}

static bool remove_page(void *arg, const struct store_page *page, struct err *err)
{
    struct store *store = arg;
    const char **keys = calloc(page->count + 1, sizeof(*keys));
    if (keys == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < page->count; i++)
        keys[i] = page->entries[i].key;
    bool ok = store->ops->remove(store, keys, page->count, &env_forever, err);
    free(keys);
    return ok;
}

bool env_empty(struct store *store, struct err *err)
{
    const struct store_list all = {.prefix = ""};
    return store_list_each(store, &all, remove_page, store, &env_forever, err);
}

static void clean_up(struct store *store)
{
    struct err err = ERR_INIT;
    if (!env_empty(store, &err))
        print_error("cleaning up: %s\n", err.text);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void env_remove_tree(const char *dir)
{
    if (strncmp(dir, "/tmp/", 5) == 0)
        (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void store_env_end(struct store_env *env)
{
    if (env->store == NULL)
        return;
    if (env->kind != STORE_DIRECTORY)
        clean_up(env->store);
    env->store->ops->free(env->store);
    env->store = NULL;
    if (env->dir[0] != '\0')
        env_remove_tree(env->dir);
}

static pid_t spawn(char *const argv[], int *out)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test must not leave it behind */
        dup2(fds[1], STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    *out = fds[0];
    return pid;
}

void env_radosgw(const char *verb)
{
    char *argv[] = {(char *)(uintptr_t) "tests/lib/radosgw.sh", (char *)(uintptr_t)verb,
                    (char *)(uintptr_t)env_need("WALEFS_TEST_RADOSGW"), NULL};
    int out, status = 0;
    pid_t pid = spawn(argv, &out);
    close(out);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void read_line(int fd, char *line, size_t cap)
{
    size_t n = 0;
    while (n + 1 < cap && read(fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = '\0';
}

void script_begin(struct script *s, const char *steps)
{
    char path[96], line[64];
    (void)snprintf(s->dir, sizeof(s->dir), "/tmp/walefs-script-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    (void)snprintf(path, sizeof(path), "%s/steps", s->dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(steps, f) >= 0);
    assert_int_equal(fclose(f), 0);
    char *argv[] = {(char *)(uintptr_t) "python3",
                    (char *)(uintptr_t) "tests/lib/s3_script_server.py", path, NULL};
    s->pid = spawn(argv, &s->out);
    read_line(s->out, line, sizeof(line));
    s->port = (unsigned)strtoul(line, NULL, 10);
    if (s->port == 0)
        fail_msg("the scripted server did not start: %s", line);
}

static int end_server(struct script *s, char *verdict, size_t cap)
{
    int status = -1;
    kill(s->pid, SIGTERM);
    read_line(s->out, verdict, cap);
    close(s->out);
    while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR) {
    }
    env_remove_tree(s->dir);
    return status;
}

void script_end(struct script *s)
{
    char verdict[1024];
    if (end_server(s, verdict, sizeof(verdict)) != 0 || strcmp(verdict, "ok") != 0)
        fail_msg("scripted server: %s", verdict);
}

void script_drop(struct script *s)
{
    char verdict[1024];
    (void)end_server(s, verdict, sizeof(verdict));
}

void deaf_begin(struct deaf *d)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(addr);
    d->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(d->listener, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(d->listener, 0), 0);
    assert_int_equal(getsockname(d->listener, (struct sockaddr *)&addr, &len), 0);
    d->port = ntohs(addr.sin_port);
    for (size_t i = 0; i < sizeof(d->queued) / sizeof(d->queued[0]); i++) {
        d->queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(d->queued[i], (struct sockaddr *)&addr, len);
    }
}

void deaf_end(struct deaf *d)
{
    for (size_t i = 0; i < sizeof(d->queued) / sizeof(d->queued[0]); i++)
        close(d->queued[i]);
    close(d->listener);
}

struct store *script_store(const struct script *s, unsigned max_attempts)
{
    return script_store_within(s, max_attempts, 1500);
}

struct store *script_store_within(const struct script *s, unsigned max_attempts,
                                  uint32_t request_timeout_ms)
{
    struct err err = ERR_INIT;
    char endpoint[64];
    (void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", s->port);
    const struct store_s3_options options = {
        .bucket = "bucket",
        .prefix = "p",
        .endpoint = endpoint,
        .path_style = true,
        .region = "us-east-1",
        .cred = env_cred("AKTEST", "secret", NULL),
        .connect_timeout_ms = 1000,
        .stall_timeout_ms = 600,
        .request_timeout_ms = request_timeout_ms,
        .max_attempts = max_attempts,
        .max_connections = 4,
    };
    struct store *store = store_s3_new(&options, &err);
    if (store == NULL)
        fail_msg("no store: %s", err.text);
    return store;
}

ssize_t script_read_all(struct store *s, char out[64], struct err *err)
{
    struct store_info info;
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, err);
    if (src == NULL)
        return -1;
    ssize_t n = source_read_full(src, out, 64, err);
    if (n < 0) {
        struct err again = ERR_INIT;
        char c;
        assert_int_equal(src->read(src, &c, 1, &again), -1); /* a failure stays one */
    }
    source_close(src);
    return n;
}

bool script_put_hello(struct store *s, bool only_if_absent, struct err *err)
{
    const struct store_put put = {.body = {.mem = "hello", .size = 5},
                                  .only_if_absent = only_if_absent};
    return s->ops->put(s, "key", &put, NULL, &env_forever, err);
}

void env_assert_error(const struct err *err, enum err_code code, const char *text)
{
    if (err->code != code)
        fail_msg("%s instead of %s: %s", err_name(err->code), err_name(code), err->text);
    if (text != NULL && strstr(err->text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, err->text);
    if (strchr(err->text, '\n') != NULL)
        fail_msg("more than one line: %s", err->text);
}

void env_put(struct store *store, const char *key, const void *data, size_t n)
{
    const struct call call = CALL_INIT;
    struct err err = ERR_INIT;
    const struct store_put put = {.body = {.mem = data, .size = n}};
    if (!store->ops->put(store, key, &put, NULL, &call, &err))
        fail_msg("put %s: %s", key, err.text);
}

char *env_get(struct store *store, const char *key, size_t *n)
{
    const struct call call = CALL_INIT;
    struct err err = ERR_INIT;
    struct store_info info;
    struct source *src = store->ops->get(store, key, 0, UINT64_MAX, &info, &call, &err);
    if (src == NULL)
        fail_msg("get %s: %s", key, err.text);
    char *data = malloc((size_t)info.size + 1);
    assert_non_null(data);
    ssize_t got = source_read_full(src, data, (size_t)info.size + 1, &err);
    if (got < 0)
        fail_msg("get %s: %s", key, err.text);
    assert_int_equal(got, info.size);
    source_close(src);
    *n = (size_t)got;
    return data;
}

char *env_bytes(size_t n, unsigned seed)
{
    char *data = malloc(n + 1);
    assert_non_null(data);
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (char)(x >> 24);
    }
    return data;
}

enum store_kind env_kind;

const char *env_dir(const struct store *store)
{
    return store->url + strlen("file://localhost");
}

int env_setup(void **state)
{
    struct store_env env;
    store_env_begin(&env, env_kind);
    *state = env.store;
    return 0;
}

int env_teardown(void **state)
{
    struct store_env env = {.store = *state, .kind = env_kind};
    if (env_kind == STORE_DIRECTORY)
        (void)snprintf(env.dir, sizeof(env.dir), "%s", env_dir(env.store));
    store_env_end(&env);
    return 0;
}

int env_run(const struct CMUnitTest *tests, size_t n)
{
    static const char *const names[] = {"directory", "S3", "S3 over TLS"};
    int failed = 0;
    for (int i = STORE_DIRECTORY; i <= STORE_S3_TLS; i++) {
        env_kind = (enum store_kind)i;
        failed += _cmocka_run_group_tests(names[i], tests, n, NULL, NULL);
    }
    return failed;
}

void env_assert_content(struct store *s, const char *key, const void *data, size_t n)
{
    size_t got;
    char *copy = env_get(s, key, &got);
    assert_int_equal(got, n);
    assert_memory_equal(copy, data, n);
    free(copy);
}

void env_assert_absent(struct store *s, const char *key)
{
    struct err err = ERR_INIT;
    struct store_info info;
    assert_false(s->ops->head(s, key, &info, &env_forever, &err));
    env_assert_error(&err, ERR_ABSENT, NULL);
    assert_non_null(strstr(err.text, key));
    assert_null(s->ops->get(s, key, 0, UINT64_MAX, &info, &env_forever, &err));
    env_assert_error(&err, ERR_ABSENT, NULL);
}

/* Lists through all pages and compares with the NULL-ended WANTED; a trailing '/' is a prefix. */
void env_assert_list(struct store *s, struct store_list list, const char *const *wanted)
{
    size_t at = 0, pages = 0;
    char *token = NULL;
    bool more = true;
    while (more) {
        struct store_page page;
        struct err err = ERR_INIT;
        list.token = token;
        assert_ok(s->ops->list(s, &list, &page, &env_forever, &err), &err);
        if (list.max_keys > 0)
            assert_true(page.count <= list.max_keys);
        for (size_t i = 0; i < page.count; i++, at++) {
            const struct store_entry *e = &page.entries[i];
            if (wanted[at] == NULL)
                fail_msg("unexpected %s", e->key);
            assert_string_equal(e->key, wanted[at]);
            bool prefix = wanted[at][strlen(wanted[at]) - 1] == '/';
            assert_int_equal(e->is_prefix, prefix);
            assert_true(prefix || e->etag[0] != '\0');
            assert_true(prefix || llabs((long long)e->mtime_s - time(NULL)) < 300);
        }
        free(token);
        token = page.next == NULL ? NULL : strdup(page.next);
        more = page.more;
        assert_true(more == (token != NULL));
        store_page_free(&page);
        assert_true(++pages < 100);
    }
    if (wanted[at] != NULL)
        fail_msg("%s is missing", wanted[at]);
}

#define ENV_LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
