/* fs/fuse_server.c and fs/fuse_io.c with a real mount: how it begins and ends, and promise 6. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "core/log.h"
#include "fuse_env.h"

#define MIB (1u << 20)
#define SEG "000000010000000000000002"
#define SEG2 "000000010000000000000003"
#define SEG3 "000000010000000000000004"

/* Until so many calls hang in the store. */
static void await_hanging(unsigned n)
{
    for (unsigned i = 0; mem_hanging(env.mem) < n; i++) {
        if (i == USE_PATIENCE_MS)
            fail_msg("only %u of %u calls have come to the store", mem_hanging(env.mem), n);
        (void)usleep(1000);
    }
}

static void await_none(void)
{
    for (unsigned i = 0; mem_hanging(env.mem) > 0; i++) {
        assert_true(i < USE_PATIENCE_MS);
        (void)usleep(1000);
    }
}

static struct use *start(const char *path, use_fn *fn)
{
    struct use *u = use_new(&env, path, NULL);
    use_start(u, fn);
    return u;
}

/* Somebody who archives SEG and hangs in the close. */
static struct use *hanging_writer(use_fn *fn)
{
    struct use *u = use_new(&env, "wal/" SEG, NULL);
    test_segment(u->data, MIB, SEG, 1);
    u->size = MIB;
    mem_hang(env.mem, MEM_PUT);
    use_start(u, fn);
    await_hanging(1);
    return u;
}

static bool is_archived(void)
{
    return mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1);
}

/* ---- the mount itself ---- */

static void the_mount_is_as_it_was_asked_for(void **state)
{
    (void)state;
    struct fuse_env_config config = fuse_env_defaults();
    config.server.source = "s3://bucket/a,suid\\b";
    config.server.read_only = config.server.no_exec = config.server.allow_other = true;
    fuse_env_mount(&env, &config);
    const char *line = fuse_env_mounted(&env);
    assert_non_null(line);
    const char *type = strstr(line, " - ");
    assert_non_null(type);
    assert_non_null(strstr(type, " fuse.walefs "));
    assert_non_null(strstr(type, " s3://bucket/a,suid\\134b ")); /* as proc(5) escapes it */
    assert_non_null(strstr(type, "default_permissions"));
    assert_non_null(strstr(type, "allow_other"));
    static const char *const flags[] = {"ro", "nosuid", "nodev", "noexec", "noatime"};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        const char *at = strstr(line, flags[i]);
        if (at == NULL || at > type)
            fail_msg("not %s: %s", flags[i], line);
    }
    assert_int_equal(use_run("", use_stat), 0);
    assert_int_equal(use_run("wal/" SEG, use_write), EROFS);
}

static void it_is_private_and_writable_by_default(void **state)
{
    (void)state;
    const char *line = fuse_env_mounted(&env);
    assert_non_null(line);
    assert_null(strstr(line, "allow_other"));
    assert_null(strstr(line, "noexec"));
    assert_null(strstr(line, "ro,"));
}

static void what_cannot_be_mounted_on_is_said(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const struct fuse_server_options options = {.mountpoint = "/nonexistent/mount",
                                                .source = "memory"};
    assert_null(fuse_server_new(&options, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_non_null(strstr(err.text, "cannot mount on /nonexistent/mount"));
    fuse_server_free(NULL);
}

/* A server that never ran leaves no mount behind. */
static void freed_before_it_runs(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fuse_env_config config = fuse_env_defaults();
    fuse_env_mount(&env, &config); /* for its fs */
    fuse_server_stop(env.server);
    fuse_env_join(&env);
    fuse_server_free(env.server);
    assert_null(fuse_env_mounted(&env));
    const struct fuse_server_options options = {.fs = env.fs,
                                                .pool = env.requests,
                                                .local_pool = env.local,
                                                .mountpoint = env.dir,
                                                .source = "memory"};
    env.server = fuse_server_new(&options, &err);
    assert_non_null(env.server);
    assert_non_null(fuse_env_mounted(&env));
}

/* By mount(8), or a container's engine: who made it unmounts it. */
static void a_mount_that_was_made_by_another(void **state)
{
    (void)state;
    char options[128], name[32];
    struct fuse_env_config config = fuse_env_defaults();
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    assert_int_equal(mount("other", env.dir, "fuse.walefs", MS_NOSUID | MS_NODEV, options), 0);
    (void)snprintf(name, sizeof(name), "/dev/fd/%d", fd);
    config.server.mountpoint = name;
    fuse_env_mount(&env, &config);
    assert_int_equal(use_run("wal", use_list), 0);
    fuse_server_stop(env.server);
    fuse_env_join(&env);
    assert_non_null(fuse_env_mounted(&env));
    assert_int_equal(umount2(env.dir, MNT_DETACH), 0);
}

/* ---- nothing blocks the mount ---- */

/* A few threads of requests, all of which hang on the store: what needs no store is answered. */
static void a_hung_store_leaves_the_rest_working(void **state)
{
    (void)state;
    struct fuse_env_config config = fuse_env_defaults();
    char path[64];
    struct use *waiting[12];
    config.request_threads = 4;
    fuse_env_mount(&env, &config);
    mem_hang(env.mem, MEM_ANY);
    for (unsigned i = 0; i < 12; i++) {
        (void)snprintf(path, sizeof(path), "wal/0000000100000000000000%02X", i + 16);
        waiting[i] = start(path, use_read);
        await_hanging(i < 6 ? i + 1 : 6); /* both direct threads, then the pool's */
    }
    assert_int_equal(use_run("", use_list), 0);
    assert_int_equal(use_run("status", use_list), 0);
    assert_int_equal(use_run("status/summary", use_read), 0);
    assert_int_equal(use_run("status/metrics", use_read), 0);
    assert_int_equal(use_run("status/log", use_stat), 0);
    for (unsigned i = 0; i < 12; i++)
        assert_false(use_ended(waiting[i]));
    mem_heal(env.mem);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(use_wait(waiting[i]), ENOENT);
}

/* fuse_io.c: the kernel must be told that lookups in one directory may go on beside each other. */
static void lookups_in_one_directory_do_not_wait_for_each_other(void **state)
{
    (void)state;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    mem_hang(env.mem, MEM_HEAD);
    struct use *a = start("wal/0000000100000000000000AA", use_stat);
    await_hanging(1);
    struct use *b = start("wal/0000000100000000000000BB", use_stat);
    await_hanging(2);
    mem_heal(env.mem);
    assert_int_equal(use_wait(a), ENOENT);
    assert_int_equal(use_wait(b), ENOENT);
}

static void cached_reads_go_on_during_an_outage(void **state)
{
    (void)state;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    assert_int_equal(use_run("wal/" SEG, use_read), 0);
    mem_hang(env.mem, MEM_ANY);
    struct use *waiting = start("wal/" SEG2, use_read);
    await_hanging(1);
    assert_int_equal(use_run("wal/" SEG, use_read), 0);
    assert_false(use_ended(waiting));
}

/* ---- signals ---- */

static void on_signal(int number)
{
    (void)number;
}

/* A process that handles SIGINT, and is interrupted by it. */
static int interruptible(struct use *u, use_fn *fn)
{
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    return fn(u);
}

static int read_interruptibly(struct use *u)
{
    return interruptible(u, use_read);
}

static int list_interruptibly(struct use *u)
{
    return interruptible(u, use_list);
}

static int write_interruptibly(struct use *u)
{
    return interruptible(u, use_write);
}

static void a_signal_ends_what_waits(void **state)
{
    (void)state;
    const struct {
        const char *path;
        enum mem_op op;
        use_fn *fn;
    } cases[] = {{"wal/" SEG3, MEM_HEAD, read_interruptibly}, /* a look-up */
                 {"wal/" SEG, MEM_GET, read_interruptibly},   /* an open */
                 {"wal", MEM_LIST, list_interruptibly}};
    mem_archive_segment(env.mem, SEG2, MIB, 1);
    assert_int_equal(use_run("wal/" SEG2, use_read), 0); /* the size of segments is known */
    mem_archive_segment(env.mem, SEG, MIB, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        await_none(); /* what the one before has given up */
        mem_hang(env.mem, cases[i].op);
        struct use *u = start(cases[i].path, cases[i].fn);
        await_hanging(1);
        assert_false(use_ended(u));
        use_signal(u, SIGINT);
        assert_int_equal(use_wait(u), EINTR);
        mem_heal(env.mem);
    }
}

/* What is answered a moment later goes on. On a machine that stands still it is no moment. */
static void a_handled_signal_leaves_a_short_wait_alone(void **state)
{
    (void)state;
    int result = EINTR;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    for (int i = 0; i < 10 && result == EINTR; i++) {
        await_none();
        mem_hang(env.mem, MEM_HEAD);
        struct use *u = start("wal/" SEG, read_interruptibly);
        await_hanging(1);
        use_signal(u, SIGINT);
        assert_int_equal(use_run("status", use_list), 0); /* which comes behind the interrupt */
        mem_heal(env.mem);
        result = use_wait(u);
    }
    assert_int_equal(result, 0);
}

static void a_kill_ends_what_waits(void **state)
{
    (void)state;
    mem_hang(env.mem, MEM_ANY);
    struct use *u = start("wal/" SEG, use_read);
    await_hanging(1);
    use_signal(u, SIGKILL);
    assert_int_equal(use_wait(u), USE_KILLED);
}

/* A signal that its process handles must not make an archiving fail... */
static void a_handled_signal_leaves_a_close_alone(void **state)
{
    (void)state;
    struct use *u = hanging_writer(write_interruptibly);
    use_signal(u, SIGINT);
    assert_int_equal(use_run("status", use_list), 0); /* which comes behind the interrupt */
    assert_int_equal(use_run("wal", use_list), 0);
    assert_false(use_ended(u));
    mem_heal(env.mem);
    assert_int_equal(use_wait(u), 0);
    assert_true(is_archived());
}

/* What a writer that has gone had written is shown until its release, which nobody waits for, has
 * come. */
static void await_absent(const char *path)
{
    for (unsigned i = 0; use_run(path, use_stat) == 0; i++)
        assert_true(i < USE_PATIENCE_MS);
    assert_int_equal(use_run(path, use_stat), ENOENT);
}

/* ... and who is killed does not hold the mount up. */
static void a_killed_writers_close_ends(void **state)
{
    (void)state;
    struct use *u = hanging_writer(use_write);
    use_signal(u, SIGKILL);
    assert_int_equal(use_wait(u), USE_KILLED);
    mem_heal(env.mem);
    await_absent("wal/" SEG);
    assert_int_equal(mem_count(env.mem), 0);
}

static int write_and_stay(struct use *u)
{
    int fd = open(u->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, u->data, u->size) != (ssize_t)u->size)
        return errno;
    use_step(u, 1);
    _exit((int)u->flags);
}

/* Promise 2, with what a real process's end looks like to the mount. */
static void who_fails_publishes_nothing(void **state)
{
    (void)state;
    static const int ends[] = {-SIGKILL, -SIGTERM, 1, 0};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct use *u = use_new(&env, "wal/" SEG, NULL);
        test_segment(u->data, MIB, SEG, 1);
        u->size = MIB;
        u->flags = ends[i];
        use_start(u, write_and_stay);
        use_await(u, 1);
        if (ends[i] < 0)
            use_signal(u, -ends[i]);
        else
            use_allow(u, 1);
        (void)use_wait(u);
        if (ends[i] != 0)
            await_absent("wal/" SEG);
        assert_int_equal(is_archived(), ends[i] == 0); /* its close has been answered */
    }
}

/* ---- the end ---- */

static void stopped_while_nothing_goes_on(void **state)
{
    (void)state;
    assert_int_equal(use_run("wal", use_list), 0);
    fuse_server_stop(env.server);
    assert_null(fuse_env_mounted(&env));
    fuse_env_join(&env);
    fuse_server_stop(env.server); /* once more: nothing */
}

/* Who waits for the store is answered, not left to whoever closes the device. */
static void readers_are_cancelled_at_the_end(void **state)
{
    (void)state;
    struct use *readers[8];
    mem_hang(env.mem, MEM_ANY);
    for (unsigned i = 0; i < 8; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "wal/0000000100000000000000%02X", i + 16);
        readers[i] = start(path, use_read);
    }
    await_hanging(8);
    fuse_server_stop(env.server);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(use_wait(readers[i]), EINTR);
    fuse_env_join(&env);
    assert_null(fuse_env_mounted(&env));
}

static void *stop(void *arg)
{
    fuse_server_stop(arg);
    return NULL;
}

/* What is being archived may finish, and its close is answered truly. */
static void an_archiving_may_finish(void **state)
{
    (void)state;
    pthread_t thread;
    struct use *writer = hanging_writer(use_write);
    mem_hang(env.mem, MEM_HEAD);
    struct use *reader = start("wal/" SEG2, use_read);
    await_hanging(2);
    assert_int_equal(pthread_create(&thread, NULL, stop, env.server), 0);
    assert_int_equal(use_wait(reader), EINTR); /* the end has begun */
    assert_false(use_ended(writer));
    assert_int_equal(mem_count(env.mem), 0);
    mem_heal(env.mem);
    assert_int_equal(use_wait(writer), 0);
    assert_true(is_archived());
    assert_int_equal(pthread_join(thread, NULL), 0);
    fuse_env_join(&env);
}

static void an_archiving_that_does_not_finish_is_given_up(void **state)
{
    (void)state;
    struct fuse_env_config config = fuse_env_defaults();
    config.server.grace_ms = 100;
    fuse_env_mount(&env, &config);
    struct use *writer = hanging_writer(use_write);
    fuse_server_stop(env.server);
    assert_int_equal(use_wait(writer), EINTR);
    fuse_env_join(&env);
    mem_heal(env.mem);
    assert_int_equal(mem_count(env.mem), 0);
}

static void unmounted_by_another(void **state)
{
    (void)state;
    assert_int_equal(use_run("wal", use_list), 0);
    assert_int_equal(umount2(env.dir, 0), 0);
    fuse_env_join(&env);
    assert_null(fuse_env_mounted(&env));
    /* what is mounted there next is somebody else's */
    assert_int_equal(mount("next", env.dir, "tmpfs", 0, NULL), 0);
    fuse_server_stop(env.server);
    fuse_server_free(env.server);
    env.server = NULL;
    assert_non_null(fuse_env_mounted(&env));
    assert_int_equal(umount2(env.dir, 0), 0);
}

/* umount -l: who has something open goes on, and the server with him. */
static void detached_while_it_is_used(void **state)
{
    (void)state;
    struct use *writer = hanging_writer(use_write);
    assert_int_equal(umount2(env.dir, 0), -1);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(umount2(env.dir, MNT_DETACH), 0);
    mem_heal(env.mem);
    assert_int_equal(use_wait(writer), 0);
    assert_true(is_archived());
    fuse_env_join(&env);
}

/* umount -f: the connection is broken off, which ends both sides. */
static void aborted(void **state)
{
    (void)state;
    mem_hang(env.mem, MEM_ANY);
    struct use *reader = start("wal/" SEG, use_read);
    await_hanging(1);
    (void)umount2(env.dir, MNT_FORCE);
    assert_int_not_equal(use_wait(reader), 0);
    assert_int_not_equal(reader->result, ENOENT); /* promise 4 */
    fuse_env_join(&env);
    await_none(); /* nobody waits for the store any more */
    if (fuse_env_mounted(&env) != NULL)
        assert_int_equal(umount2(env.dir, MNT_DETACH), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FUSE_TEST_STORE_ONLY(the_mount_is_as_it_was_asked_for),
        FUSE_TEST(it_is_private_and_writable_by_default),
        FUSE_TEST_STORE_ONLY(what_cannot_be_mounted_on_is_said),
        FUSE_TEST_STORE_ONLY(freed_before_it_runs),
        FUSE_TEST_STORE_ONLY(a_mount_that_was_made_by_another),
        FUSE_TEST_STORE_ONLY(a_hung_store_leaves_the_rest_working),
        FUSE_TEST(lookups_in_one_directory_do_not_wait_for_each_other),
        FUSE_TEST(cached_reads_go_on_during_an_outage),
        FUSE_TEST(a_signal_ends_what_waits),
        FUSE_TEST(a_handled_signal_leaves_a_short_wait_alone),
        FUSE_TEST(a_kill_ends_what_waits),
        FUSE_TEST(a_handled_signal_leaves_a_close_alone),
        FUSE_TEST(a_killed_writers_close_ends),
        FUSE_TEST(who_fails_publishes_nothing),
        FUSE_TEST(stopped_while_nothing_goes_on),
        FUSE_TEST(readers_are_cancelled_at_the_end),
        FUSE_TEST(an_archiving_may_finish),
        FUSE_TEST_STORE_ONLY(an_archiving_that_does_not_finish_is_given_up),
        FUSE_TEST(unmounted_by_another),
        FUSE_TEST(detached_while_it_is_used),
        FUSE_TEST(aborted),
    };
    return fuse_env_main(tests, sizeof(tests) / sizeof(tests[0]));
}
