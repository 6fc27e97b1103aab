/* core/backup_commit.c and core/backup_abort.c over a store of which each call fails once, before
 * or after it was done: a backup is complete or not there, and what an abort could not remove is
 * incomplete at most. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "backup_env.h"
#include "core/catalog.h"

#define SENTINEL BACKUP_DIR BACKUP_SENTINEL_SUFFIX

static struct backup_env env;

static int set_up(void **state)
{
    (void)state;
    backup_env_begin_tars(&env);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backup_env_end(&env);
    return 0;
}

static void empty_the_store(void)
{
    struct err err = ERR_INIT;
    assert_ok(env_empty(env.files.store, &err), &err);
    assert_int_equal(backup_env_count(&env), 0);
}

static void assert_whole(void)
{
    struct backup_objects objects;
    struct err err = ERR_INIT;
    assert_true(backup_env_has(&env, SENTINEL));
    assert_ok(backup_objects_load(env.files.store, BACKUP_NAME, &objects, &env_forever, &err),
              &err);
    assert_int_equal(objects.partition_count, 1);
    backup_objects_free(&objects);
}

/* Tries to write TAR while call NTH fails; false when it took fewer calls. */
static bool write_with(const char *tar, unsigned nth, enum fault fault)
{
    struct err err = ERR_INIT;
    struct backup_write *w = backup_env_writer(&env);
    fault_at(env.faults, nth, fault);
    bool ok = backup_env_tar(&env, w, tar, "", &err) && backup_env_commit(w, &err);
    bool happened = fault_happened(env.faults);
    fault_at(env.faults, 0, FAULT_BEFORE);
    if (!happened)
        assert_true(ok);
    if (!ok && err.code != ERR_UNAVAILABLE)
        fail_msg("%s, call %u, fault %d: %s", tar, nth, (int)fault, err.text);
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    if (ok)
        assert_whole();
    else if (backup_env_count(&env) != 0)
        fail_msg("%s, call %u, fault %d leaves something behind", tar, nth, (int)fault);
    empty_the_store();
    return happened;
}

static void each_call_fails_once(const char *tar, enum fault fault)
{
    unsigned nth = 1;
    while (write_with(tar, nth, fault)) {
        nth++;
    }
    assert_true(nth > 12);
}

static void a_backup_is_whole_or_not_there(void **state)
{
    (void)state;
    each_call_fails_once("label.tar", FAULT_BEFORE);
    each_call_fails_once("label.tar", FAULT_AFTER);
}

static void nor_is_one_that_was_stored_before_it_had_a_name(void **state)
{
    (void)state;
    each_call_fails_once("stopped.tar", FAULT_BEFORE);
    each_call_fails_once("stopped.tar", FAULT_AFTER);
}

/* A conditional put that is tried again finds what it has stored itself. */
static void a_lost_answer_is_no_rival(void **state)
{
    (void)state;
    each_call_fails_once("label.tar", FAULT_RETRY);
    each_call_fails_once("stopped.tar", FAULT_RETRY);
}

/* ---- an abort that fails, too ---- */

/* The number of the call that stores the sentinel. */
static void note_sentinel(void *arg, const char *op, const char *key)
{
    unsigned *number = arg;
    if (strcmp(op, "put") == 0 && strcmp(key, SENTINEL) == 0)
        *number = fault_calls(env.faults);
}

static unsigned sentinels_call(const char *tar)
{
    struct err err = ERR_INIT;
    unsigned number = 0;
    struct backup_write *w = backup_env_writer(&env);
    fault_at(env.faults, 0, FAULT_BEFORE);
    fault_set_hook(env.faults, note_sentinel, &number);
    assert_ok(backup_env_tar(&env, w, tar, "", &err) && backup_env_commit(w, &err), &err);
    fault_set_hook(env.faults, NULL, NULL);
    backup_write_free(w);
    empty_the_store();
    assert_true(number > 0);
    return number;
}

/* The answer to the sentinel's put is lost, so that it is there; then call NTH of the abort fails.
 * False when the abort took fewer calls. */
static bool abort_with(const char *tar, unsigned sentinel, unsigned nth, enum fault fault)
{
    struct err err = ERR_INIT;
    struct backup_write *w = backup_env_writer(&env);
    fault_at(env.faults, sentinel, FAULT_AFTER);
    assert_false(backup_env_tar(&env, w, tar, "", &err) && backup_env_commit(w, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_true(backup_env_has(&env, SENTINEL));
    fault_at(env.faults, nth, fault);
    backup_write_abort(w, &env_forever);
    bool happened = fault_happened(env.faults);
    fault_at(env.faults, 0, FAULT_BEFORE);
    backup_write_free(w);
    if (backup_env_has(&env, SENTINEL))
        assert_whole();
    if (!happened)
        assert_int_equal(backup_env_count(&env), 0);
    empty_the_store();
    return happened;
}

static void what_an_abort_leaves_is_no_half_backup(void **state)
{
    static const char *const tars[] = {"label.tar", "stopped.tar"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        unsigned sentinel = sentinels_call(tars[i]), nth = 1;
        while (abort_with(tars[i], sentinel, nth, FAULT_BEFORE) &&
               abort_with(tars[i], sentinel, nth, FAULT_AFTER))
            nth++;
        assert_true(nth > 5);
    }
}

/* A store that cannot be reached any more does not keep an abort. */
static void an_abort_is_bounded_by_its_call(void **state)
{
    struct err err = ERR_INIT;
    struct cancel cancel;
    const struct call over = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    (void)state;
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "label.tar", "", &err), &err);
    cancel_init(&cancel);
    cancel_fire(&cancel);
    backup_write_abort(w, &over);
    assert_false(backup_env_commit(w, &err)); /* it was given up all the same */
    env_assert_error(&err, ERR_CANCELLED, "given up");
    assert_false(backup_env_member(w, "late", MEMBER_FILE, "x", &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    backup_write_free(w);
    assert_false(backup_env_has(&env, SENTINEL));
    cancel_destroy(&cancel);
}

/* A writer that is freed without either end has stored no backup. */
static void freeing_is_no_commit(void **state)
{
    struct err err = ERR_INIT;
    (void)state;
    struct backup_write *w = backup_env_writer(&env);
    assert_ok(backup_env_tar(&env, w, "label.tar", "", &err), &err);
    backup_write_free(w);
    backup_write_free(NULL);
    assert_false(backup_env_has(&env, SENTINEL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_backup_is_whole_or_not_there),  T(nor_is_one_that_was_stored_before_it_had_a_name),
        T(a_lost_answer_is_no_rival),       T(what_an_abort_leaves_is_no_half_backup),
        T(an_abort_is_bounded_by_its_call), T(freeing_is_no_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
