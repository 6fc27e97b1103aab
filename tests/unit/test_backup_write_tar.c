/* core/backup_write_tar.c: where the members of a stream go, and which do not go anywhere. What is
 * refused: test_backup_write.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "backup_env.h"
#include "core/log.h"

static struct backup_env env;
static struct err err;

static int set_up(void **state)
{
    (void)state;
    backup_env_begin(&env, "label tablespace", NULL, NULL, 2);
    backup_env_run(&env, "rm cluster/pg_tblspc/16384 && rm -rf cluster/pg_wal && "
                         "chown -R 4711:4712 cluster && tar -C cluster -cf base.tar .");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backup_env_end(&env);
    return 0;
}

static void give_up(struct backup_write *w)
{
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_int_equal(backup_env_count(&env), 0);
}

/* pg_basebackup makes up pg_wal.tar, with owners of its own choice. */
static void wal_belongs_to_the_clusters_owner(void **state)
{
    (void)state;
    backup_env_run(&env, "mkdir wal && echo x > wal/000000010000000000000002 && "
                         "chown -R 1:1 wal && tar -C wal -cf pg_wal.tar .");
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
    assert_ok(backup_env_tar(&env, w, "pg_wal.tar", "pg_wal", &err), &err);
    const struct member *wal = backup_write_find(w, "pg_wal/000000010000000000000002");
    assert_non_null(wal);
    assert_int_equal(wal->uid, 4711);
    assert_int_equal(wal->gid, 4712);
    const struct member *dir = backup_write_find(w, "pg_wal");
    assert_non_null(dir);
    assert_int_equal(dir->type, MEMBER_DIR);
    assert_int_equal(dir->uid, 4711);
    give_up(w);
}

/* A tablespace's tar has no directory for what is in it. */
static void a_tablespace_gets_its_directory(void **state)
{
    (void)state;
    backup_env_run(&env, "cd cluster.16384 && chown -R 4711:4712 . && tar -cf ../16384.tar *");
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "16384.tar", "pg_tblspc/16384", &err), &err);
    const struct member *dir = backup_write_find(w, "pg_tblspc/16384");
    assert_non_null(dir);
    assert_int_equal(dir->type, MEMBER_DIR);
    assert_int_equal(dir->mode, 0700);
    assert_int_equal(dir->uid, 4711);
    assert_non_null(backup_write_find(w, "pg_tblspc/16384/PG_15_202209061"));
    assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
    assert_ok(backup_env_commit(w, &err), &err);
    backup_write_free(w);
}

/* A prefix keeps a stream in its place, whatever it holds. */
static void a_stream_stays_below_its_prefix(void **state)
{
    static const char *const transforms[] = {"../../x", "/x", "a/../../../x"};
    (void)state;
    for (size_t i = 0; i < sizeof(transforms) / sizeof(transforms[0]); i++) {
        backup_env_run(&env, "echo x > f && tar -P --transform='s,^f$,%s,' -cf odd.tar f",
                       transforms[i]);
        struct backup_write *w = backup_env_writer(&env);
        assert_false(backup_env_tar(&env, w, "odd.tar", "pg_tblspc/16384", &err));
        assert_int_equal(err.code, ERR_INVALID);
        give_up(w);
    }
}

/* Sockets of a running server, which tar takes with it or not. */
static void what_is_no_file_is_left_out(void **state)
{
    (void)state;
    backup_env_run(&env, "mkfifo cluster/fifo && mknod cluster/null c 1 3 && "
                         "tar -C cluster -cf base.tar . && rm cluster/fifo cluster/null");
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
    assert_null(backup_write_find(w, "fifo"));
    assert_null(backup_write_find(w, "null"));
    assert_non_null(backup_write_find(w, "base/1/1255"));
    give_up(w);
}

static void a_path_that_is_too_long_is_refused(void **state)
{
    char prefix[BACKUP_PATH_MAX];
    (void)state;
    memset(prefix, 'd', sizeof(prefix));
    for (size_t i = 100; i < sizeof(prefix); i += 100)
        prefix[i] = '/';
    prefix[sizeof(prefix) - 2] = '\0';
    struct backup_write *w = backup_env_writer(&env);
    assert_false(backup_env_tar(&env, w, "base.tar", prefix, &err));
    env_assert_error(&err, ERR_INVALID, "too long");
    assert_false(backup_env_tar(&env, w, "base.tar", "", &err)); /* nothing follows a failure */
    env_assert_error(&err, ERR_INVALID, "too long");
    give_up(w);
}

/* A reader that fails is not a damaged stream. */
static ssize_t broken_read(struct source *self, void *buf, size_t n, struct err *e)
{
    (void)self;
    (void)buf;
    (void)n;
    err_set(e, ERR_CANCELLED, "interrupted by its reader");
    return -1;
}

static void a_reader_that_fails_is_the_reason(void **state)
{
    struct source broken = {.read = broken_read};
    (void)state;
    struct backup_write *w = backup_env_writer(&env);
    assert_false(backup_write_tar(w, &broken, "", &err));
    env_assert_error(&err, ERR_CANCELLED, "by its reader");
    give_up(w);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        T(wal_belongs_to_the_clusters_owner),  T(a_tablespace_gets_its_directory),
        T(a_stream_stays_below_its_prefix),    T(what_is_no_file_is_left_out),
        T(a_path_that_is_too_long_is_refused), T(a_reader_that_fails_is_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
