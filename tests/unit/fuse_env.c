#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse_env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"
#include "gpg_home.h"

#define MIB (1u << 20)
#define USES 48u

static struct use *uses; /* shared by all processes */
static unsigned uses_taken;
static int forker = -1; /* a socket to the process that forks */
static bool may_mount;

/* ---- the process that forks users ---- */

struct order {
    unsigned slot;
    use_fn *fn; /* the same address in a process that was forked */
};

static void forker_main(int socket)
{
    struct order order;
    (void)signal(SIGCHLD, SIG_IGN); /* nobody waits for users: they have a pidfd */
    while (recv(socket, &order, sizeof(order), 0) == (ssize_t)sizeof(order)) {
        pid_t pid = fork();
        if (pid == 0) {
            close(socket);
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            uses[order.slot].result = order.fn(&uses[order.slot]);
            _exit(0);
        }
        if (send(socket, &pid, sizeof(pid), 0) < 0)
            break;
    }
    _exit(0);
}

static bool start_forker(void)
{
    int pair[2];
    uses =
        mmap(NULL, USES * sizeof(*uses), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (uses == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        forker_main(pair[1]);
    }
    close(pair[1]);
    forker = pair[0];
    return pid > 0;
}

int fuse_env_main(const struct CMUnitTest *tests, size_t n)
{
    (void)signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    may_mount = access("/dev/fuse", R_OK | W_OK) == 0 && unshare(CLONE_NEWNS) == 0 &&
                mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if (!start_forker())
        return 1;
    int failed = _cmocka_run_group_tests("fuse", tests, n, NULL, NULL);
    close(forker);
    return failed;
}

/* ---- the mount ---- */

struct fuse_env_config fuse_env_defaults(void)
{
    return (struct fuse_env_config){.fs = {.uid = getuid(),
                                           .gid = getgid(),
                                           .hard = true,
                                           .soft_timeout_ms = 300,
                                           .write_timeout_ms = 600000,
                                           .cache_dir = "/var/tmp",
                                           .cache_bytes = 64 * MIB,
                                           .partition_bytes = 5 * MIB},
                                    .server = {.source = "memory", .grace_ms = 20000},
                                    .request_threads = 64};
}

void fuse_env_store(struct fuse_env *e)
{
    memset(e, 0, sizeof(*e));
    e->fds_before = test_open_fds();
    e->mem = mem_store_new();
    strcpy(e->dir, "/tmp/walefs-fuse.XXXXXX");
    assert_non_null(mkdtemp(e->dir));
}

static void *serve(void *arg)
{
    struct fuse_env *e = arg;
    struct err err = ERR_INIT;
    bool ok = fuse_server_run(e->server, &err);
    if (!ok)
        log_error("%s", err.text);
    return ok ? e : NULL;
}

void fuse_env_mount(struct fuse_env *e, const struct fuse_env_config *config)
{
    struct err err = ERR_INIT;
    struct fs_options options = config->fs;
    struct fuse_server_options server = config->server;
    if (!may_mount)
        fail_msg("/dev/fuse is missing, or this user may not mount");
    e->pgp = test_plain_pgp();
    e->work = pool_new(32, 1000, &err);
    e->requests = pool_new(config->request_threads, 1000, &err);
    e->local = pool_new(4, 1000, &err);
    options.store = mem_base(e->mem);
    options.pgp = e->pgp;
    options.pool = e->work;
    e->fs = fs_new(&options, &err);
    assert_non_null(e->fs);
    server.fs = e->fs;
    server.pool = e->requests;
    server.local_pool = e->local;
    if (server.mountpoint == NULL)
        server.mountpoint = e->dir;
    e->server = fuse_server_new(&server, &err);
    if (e->server == NULL)
        fail_msg("%s", err.text);
    e->running = pthread_create(&e->thread, NULL, serve, e) == 0;
    assert_true(e->running);
}

void fuse_env_join(struct fuse_env *e)
{
    void *result = NULL;
    assert_int_equal(pthread_join(e->thread, &result), 0);
    e->running = false;
    assert_ptr_equal(result, e);
}

static void end_users(void)
{
    for (unsigned i = 0; i < uses_taken; i++)
        use_signal(&uses[i], SIGKILL);
    for (unsigned i = 0; i < uses_taken; i++)
        (void)use_wait(&uses[i]);
    uses_taken = 0;
}

void fuse_env_end(struct fuse_env *e)
{
    mem_heal(e->mem);
    end_users();
    if (e->running) {
        fuse_server_stop(e->server);
        fuse_env_join(e);
    }
    if (e->fs != NULL)
        fs_stop(e->fs);
    pool_free(e->requests);
    pool_free(e->local);
    pool_free(e->work);
    fuse_server_free(e->server);
    fs_free(e->fs);
    if (e->pgp != NULL)
        openpgp_free(e->pgp);
    assert_int_equal(mem_open_bodies(e->mem), 0);
    mem_base(e->mem)->ops->free(mem_base(e->mem));
    assert_null(fuse_env_mounted(e));
    assert_int_equal(rmdir(e->dir), 0);
    assert_int_equal(test_open_fds(), e->fds_before);
}

const char *fuse_env_mounted(const struct fuse_env *e)
{
    static char line[4096];
    char where[64];
    bool found = false;
    (void)snprintf(where, sizeof(where), " %s ", e->dir);
    FILE *f = fopen("/proc/self/mountinfo", "re");
    assert_non_null(f);
    while (!found && fgets(line, sizeof(line), f) != NULL)
        found = strstr(line, where) != NULL;
    (void)fclose(f);
    return found ? line : NULL;
}

/* ---- of one test ---- */

struct fuse_env env;

int fuse_store_only(void **state)
{
    (void)state;
    fuse_env_store(&env);
    return 0;
}

int fuse_begin(void **state)
{
    const struct fuse_env_config config = fuse_env_defaults();
    (void)fuse_store_only(state);
    fuse_env_mount(&env, &config);
    return 0;
}

int fuse_end(void **state)
{
    (void)state;
    fuse_env_end(&env);
    return 0;
}

/* ---- users ---- */

static void below(const struct fuse_env *e, char *out, size_t cap, const char *path)
{
    int n = snprintf(out, cap, "%s%s%s", e->dir, path[0] == '\0' ? "" : "/", path);
    assert_true(n > 0 && (size_t)n < cap);
}

struct use *use_new(const struct fuse_env *e, const char *path, const char *other)
{
    assert_true(uses_taken < USES);
    struct use *u = &uses[uses_taken++];
    u->flags = 0;
    u->size = 0;
    u->reached = u->allowed = 0;
    u->result = USE_KILLED;
    u->pidfd = -1;
    below(e, u->path, sizeof(u->path), path);
    below(e, u->other, sizeof(u->other), other == NULL ? "" : other);
    return u;
}

void use_start(struct use *u, use_fn *fn)
{
    const struct order order = {.slot = (unsigned)(u - uses), .fn = fn};
    pid_t pid = -1;
    u->result = USE_KILLED;
    assert_int_equal(send(forker, &order, sizeof(order), 0), sizeof(order));
    assert_int_equal(recv(forker, &pid, sizeof(pid), 0), sizeof(pid));
    assert_true(pid > 0);
    u->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(u->pidfd >= 0 || errno == ESRCH); /* it has ended already */
}

static bool ended_within(const struct use *u, int wait_ms)
{
    struct pollfd p = {.fd = u->pidfd, .events = POLLIN};
    return u->pidfd < 0 || poll(&p, 1, wait_ms) == 1;
}

bool use_ended(const struct use *u)
{
    return ended_within(u, 0);
}

int use_wait(struct use *u)
{
    if (!ended_within(u, USE_PATIENCE_MS))
        fail_msg("a user of %s does not end", u->path);
    if (u->pidfd >= 0)
        close(u->pidfd);
    u->pidfd = -1;
    return u->result;
}

void use_signal(const struct use *u, int signal_number)
{
    if (u->pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, u->pidfd, signal_number, NULL, 0);
}

int use_run(const char *path, use_fn *fn)
{
    struct use *u = use_new(&env, path, NULL);
    use_start(u, fn);
    int result = use_wait(u);
    uses_taken--;
    return result;
}

void use_step(struct use *u, int step)
{
    u->reached = step;
    while (u->allowed < step)
        (void)usleep(500);
}

void use_await(const struct use *u, int step)
{
    for (unsigned i = 0; u->reached < step; i++) {
        if (i == USE_PATIENCE_MS * 2 || use_ended(u))
            fail_msg("a user of %s does not come to step %d: %d", u->path, step, u->result);
        (void)usleep(500);
    }
}

void use_allow(struct use *u, int step)
{
    u->allowed = step;
}

/* ---- what users do ---- */

static int errno_of(bool ok)
{
    return ok ? 0 : errno;
}

int use_stat(struct use *u)
{
    return errno_of(lstat(u->path, &u->st) == 0);
}

int use_unlink(struct use *u)
{
    return errno_of(unlink(u->path) == 0);
}

int use_rename(struct use *u)
{
    return errno_of(rename(u->path, u->other) == 0);
}

int use_read(struct use *u)
{
    ssize_t n = 1;
    int fd = open(u->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    for (u->size = 0; n > 0 && u->size < USE_BYTES; u->size += (size_t)(n > 0 ? n : 0))
        n = read(fd, u->data + u->size, USE_BYTES - u->size);
    int result = errno_of(n >= 0);
    return close(fd) == 0 ? result : errno;
}

int use_write(struct use *u)
{
    int fd = open(u->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | u->flags, 0600);
    if (fd < 0)
        return errno;
    for (size_t done = 0; done < u->size;) {
        ssize_t n = write(fd, u->data + done, u->size - done);
        if (n < 0) {
            int result = errno;
            (void)close(fd);
            return result;
        }
        done += (size_t)n;
    }
    return errno_of(close(fd) == 0);
}

static char type_of(const struct dirent *d)
{
    return d->d_type == DT_DIR ? 'd' : d->d_type == DT_LNK ? 'l' : d->d_type == DT_REG ? '-' : '?';
}

int use_list(struct use *u)
{
    struct dirent **names;
    int n = scandir(u->path, &names, NULL, alphasort);
    if (n < 0)
        return errno;
    u->size = 0;
    u->data[0] = '\0';
    for (int i = 0; i < n && u->size < USE_BYTES; i++)
        u->size += (size_t)snprintf(u->data + u->size, USE_BYTES - u->size, "%c %s\n",
                                    type_of(names[i]), names[i]->d_name);
    return 0; /* the process ends: what scandir made ends with it */
}
