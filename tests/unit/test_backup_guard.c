/* core/backup_guard.c: of two who write a backup of one name, at most one has it, and neither
 * touches what is the other's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backup_env.h"
#include "core/catalog.h"

#define GUARD BACKUP_DIR "/tar_partitions/walefs-writing.lzo"
#define PART BACKUP_DIR "/tar_partitions/part_00000000.tar.lzo"
#define SENTINEL BACKUP_DIR BACKUP_SENTINEL_SUFFIX
#define RIVALS "This backup is being written by walefs: 00000000000000000000000000000000\n"

static struct backup_env env;

static int set_up(void **state)
{
    (void)state;
    backup_env_begin(&env, "label", NULL, NULL, 2);
    backup_env_run(&env, "tar -C cluster -cf base.tar .");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backup_env_end(&env);
    return 0;
}

/* Past the faults: what another host does. */
static void rival_puts(const char *key, const char *text)
{
    env_put(env.files.store, key, text, strlen(text));
}

/* What a rival does once, when OP is called for KEY. */
struct moment {
    const char *op, *key;
    const char *const *puts; /* keys, up to a NULL */
    bool over;
};

static void on_call(void *arg, const char *op, const char *key)
{
    struct moment *m = arg;
    if (m->over || strcmp(op, m->op) != 0 || strcmp(key, m->key) != 0)
        return;
    m->over = true;
    for (size_t i = 0; m->puts[i] != NULL; i++)
        rival_puts(m->puts[i], RIVALS);
}

static void no_more_moments(void)
{
    fault_set_hook(env.faults, NULL, NULL);
}

/* Writes the cluster, which must fail with TEXT. What is stored then is exactly KEYS. */
static void is_refused(struct moment *m, const char *text, const char *const *keys)
{
    struct err err = ERR_INIT;
    struct backup_write *w = backup_env_writer(&env);
    if (m != NULL)
        fault_set_hook(env.faults, on_call, m);
    bool ok = backup_env_tar(&env, w, "base.tar", "", &err) && backup_env_commit(w, &err);
    no_more_moments();
    assert_false(ok);
    assert_true(m == NULL || m->over);
    env_assert_error(&err, ERR_EXISTS, text);
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    const struct store_list all = {.prefix = BACKUP_PREFIX};
    env_assert_list(env.files.store, all, keys);
}

static void a_complete_backup_is_not_joined(void **state)
{
    (void)state;
    rival_puts(SENTINEL, "{}");
    rival_puts(PART, "theirs");
    is_refused(NULL, "pg_switch_wal", ENV_LIST(PART, SENTINEL));
    env_assert_content(env.files.store, PART, "theirs", 6);
}

static void an_incomplete_backup_is_not_joined(void **state)
{
    (void)state;
    rival_puts(PART, "theirs");
    is_refused(NULL, "rmdir", ENV_LIST(PART));
    env_assert_content(env.files.store, PART, "theirs", 6);
}

/* A guard alone: its writer has just begun, or has died. */
static void a_guarded_name_is_not_taken(void **state)
{
    (void)state;
    rival_puts(GUARD, RIVALS);
    is_refused(NULL, "is being written", ENV_LIST(GUARD));
    env_assert_content(env.files.store, GUARD, RIVALS, strlen(RIVALS));
}

static void a_guard_that_begins_as_ours_is_not_ours(void **state)
{
    (void)state;
    rival_puts(GUARD, "This backup is being written by walefs: ");
    is_refused(NULL, "is being written", ENV_LIST(GUARD));
}

/* Both have looked, and found nothing. */
static void the_first_guard_wins(void **state)
{
    struct moment m = {.op = "put", .key = GUARD, .puts = ENV_LIST(GUARD, PART)};
    (void)state;
    is_refused(&m, "is being written", ENV_LIST(PART, GUARD));
    env_assert_content(env.files.store, GUARD, RIVALS, strlen(RIVALS));
}

/* The rival ends, and removes its guard, between our look and our guard: the second look tells. */
static void a_rival_that_ends_meanwhile_is_seen(void **state)
{
    struct moment m = {.op = "put", .key = GUARD, .puts = ENV_LIST(PART, SENTINEL)};
    (void)state;
    is_refused(&m, "pg_switch_wal", ENV_LIST(PART, SENTINEL));
    env_assert_content(env.files.store, PART, RIVALS, strlen(RIVALS));
}

/* Somebody stores a sentinel of that name in spite of the guard: it and all below stays. */
static void a_foreign_sentinel_is_kept(void **state)
{
    struct moment m = {.op = "put", .key = SENTINEL, .puts = ENV_LIST(SENTINEL)};
    (void)state;
    is_refused(&m, "exists already",
               ENV_LIST(BACKUP_DIR "/extended_version.txt", PART,
                        BACKUP_DIR "/tar_partitions/" BACKUP_INDEX_NAME, GUARD, SENTINEL));
    env_assert_content(env.files.store, SENTINEL, RIVALS, strlen(RIVALS));
}

/* rmdir of what looked like a dead writer's, on another host: this writer's end says so, and what
 * has been written there since is not touched. */
static void a_name_that_was_lost_is_given_up(void **state)
{
    static const char *const guards[] = {NULL, RIVALS};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct err err = ERR_INIT;
        struct backup_write *w = backup_env_writer(&env);
        assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
        assert_ok(backup_delete(env.files.store, BACKUP_NAME, &env_forever, &err), &err);
        rival_puts(PART, "theirs");
        if (guards[i] != NULL)
            rival_puts(GUARD, guards[i]);
        assert_false(backup_env_commit(w, &err));
        env_assert_error(&err, ERR_EXISTS, "removed by somebody");
        backup_write_abort(w, &env_forever);
        backup_write_free(w);
        assert_false(backup_env_has(&env, SENTINEL));
        assert_int_equal(backup_env_has(&env, GUARD), guards[i] != NULL);
        assert_true(backup_env_has(&env, PART));
        assert_ok(backup_delete(env.files.store, BACKUP_NAME, &env_forever, &err), &err);
    }
}

/* What was stored is another by the end: no backup, and nothing of it is left. */
static void a_partition_that_changes_is_noticed(void **state)
{
    struct err err = ERR_INIT;
    struct moment m = {
        .op = "put", .key = BACKUP_DIR "/extended_version.txt", .puts = ENV_LIST(PART)};
    (void)state;
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
    fault_set_hook(env.faults, on_call, &m);
    assert_false(backup_env_commit(w, &err));
    no_more_moments();
    env_assert_error(&err, ERR_CORRUPT, "as they were stored");
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_int_equal(backup_env_count(&env), 0);
}

/* One more partition than was written would be restored with the others. */
static void a_partition_too_many_is_noticed(void **state)
{
    struct err err = ERR_INIT;
    (void)state;
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "base.tar", "", &err), &err);
    rival_puts(BACKUP_DIR "/tar_partitions/part_00000001.tar.lzo", "theirs");
    assert_false(backup_env_commit(w, &err));
    env_assert_error(&err, ERR_CORRUPT, "as they were stored");
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_false(backup_env_has(&env, SENTINEL));
    assert_false(backup_env_has(&env, PART));
}

/* After its rival has given up, the name is free. */
static void a_name_that_was_given_up_is_taken(void **state)
{
    struct err err = ERR_INIT;
    (void)state;
    struct backup_write *first = backup_env_writer(&env), *second = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, first, "base.tar", "", &err), &err);
    assert_false(backup_env_tar(&env, second, "base.tar", "", &err));
    assert_int_equal(err.code, ERR_EXISTS);
    backup_write_abort(second, &env_forever);
    backup_write_free(second);
    assert_true(backup_env_has(&env, GUARD));
    backup_write_abort(first, &env_forever);
    backup_write_free(first);
    assert_int_equal(backup_env_count(&env), 0);
    struct backup_write *third = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, third, "base.tar", "", &err), &err);
    assert_ok(backup_env_commit(third, &err), &err);
    assert_false(backup_env_member(third, "late", MEMBER_FILE, "x", &err));
    env_assert_error(&err, ERR_DENIED, "complete");
    assert_false(backup_env_commit(third, &err));
    env_assert_error(&err, ERR_DENIED, "complete");
    backup_write_abort(third, &env_forever);
    backup_write_free(third);
    (void)backup_env_check(&env, "cluster");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_complete_backup_is_not_joined),
        T(an_incomplete_backup_is_not_joined),
        T(a_guarded_name_is_not_taken),
        T(a_guard_that_begins_as_ours_is_not_ours),
        T(the_first_guard_wins),
        T(a_rival_that_ends_meanwhile_is_seen),
        T(a_foreign_sentinel_is_kept),
        T(a_name_that_was_lost_is_given_up),
        T(a_partition_that_changes_is_noticed),
        T(a_partition_too_many_is_noticed),
        T(a_name_that_was_given_up_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
