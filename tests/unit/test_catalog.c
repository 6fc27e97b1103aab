/* Which base backups there are, what belongs to one, and deleting it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalog.h"
#include "core/log.h"
#include "mem_store.h"

#define A "base_000000010000000000000002_00000040"
#define B "base_000000010000000000000004_00000040"
#define C "base_000000020000000000000003_00000040"
#define TEMP "walefs-tmp-0123456789abcdef0123456789abcdef"

static struct mem_store *mem;
static struct store *store;
static struct err err;
static const struct call endless = CALL_INIT;

static int begin(void **state)
{
    (void)state;
    mem = mem_store_new();
    store = mem_base(mem);
    err = (struct err)ERR_INIT;
    return 0;
}

static int end(void **state)
{
    (void)state;
    assert_int_equal(mem_open_bodies(mem), 0);
    store->ops->free(store);
    return 0;
}

static void put(const char *key, const char *text)
{
    mem_set(mem, key, text, strlen(text), NULL, 0);
}

static void sentinel(const char *name, const char *text)
{
    char key[256];
    (void)snprintf(key, sizeof(key), BACKUP_PREFIX "%s" BACKUP_SENTINEL_SUFFIX, name);
    put(key, text);
}

static void partition(const char *name, const char *rest)
{
    char key[256];
    (void)snprintf(key, sizeof(key), BACKUP_PREFIX "%s/%s", name, rest);
    put(key, "some bytes");
}

static struct catalog *load(struct catalog *previous)
{
    struct catalog *c = catalog_load(store, previous, NULL, &endless, &err);
    if (c == NULL)
        fail_msg("%s", err.text);
    return c;
}

static void complete_and_incomplete(void **state)
{
    (void)state;
    sentinel(A, "{}");
    partition(A, "tar_partitions/part_00000001.tar.lzo");
    partition(B, "tar_partitions/part_00000001.tar.lzo");
    partition(TEMP, "tar_partitions/part_00000001.tar.lzo");
    sentinel(C, "{}"); /* without partitions: it is listed, and reading it will say what is wrong */
    put("basebackups_005/readme.txt", "x");
    put("basebackups_005/other/x", "x");
    put("basebackups_005/base_x_backup_stop_sentinel.json", "{}");
    put("basebackups_005/" TEMP BACKUP_SENTINEL_SUFFIX, "{}");
    put("wal_005/" A "/x", "x");
    struct catalog *c = load(NULL);
    assert_int_equal(c->count, 2);
    assert_string_equal(c->backups[0].info.name, A);
    assert_string_equal(c->backups[1].info.name, C);
    assert_int_equal(c->incomplete_count, 2);
    assert_int_equal(c->damaged_count, 0);
    assert_non_null(catalog_find_incomplete(c, B));
    assert_non_null(catalog_find_incomplete(c, TEMP));
    assert_null(catalog_find_incomplete(c, A));
    assert_non_null(catalog_find(c, A));
    assert_null(catalog_find(c, B));
    catalog_unref(c);
}

static void an_empty_archive(void **state)
{
    (void)state;
    struct catalog *c = load(NULL);
    assert_int_equal(c->count + c->incomplete_count, 0);
    assert_null(catalog_latest(c));
    assert_null(catalog_find_label(c, ""));
    catalog_unref(c);
}

/* Timeline 2 may begin at an older position than where timeline 1 went on to. */
static void latest_goes_by_timeline_and_position(void **state)
{
    (void)state;
    sentinel(C, "{}");
    sentinel(B, "{}");
    sentinel(A, "{}"); /* stored last */
    struct catalog *c = load(NULL);
    assert_string_equal(catalog_latest(c)->info.name, C);
    assert_string_equal(c->backups[0].info.name, A);
    catalog_unref(c);
    struct backup_info x = {.name = "a", .start = {1, 5}, .stored_s = 9}, y = x;
    strcpy(y.name, "b");
    assert_true(backup_newer(&y, &x) && !backup_newer(&x, &y));
    x.stored_s = 10;
    assert_true(backup_newer(&x, &y) && !backup_newer(&y, &x));
    y.start.lsn = 6;
    assert_true(backup_newer(&y, &x));
    x.start.tli = 2;
    assert_true(backup_newer(&x, &y));
    assert_false(backup_newer(&x, &x));
}

/* And not by the name, in whose order the store lists, where the sentinel knows better. */
static void the_order_is_that_of_the_positions(void **state)
{
    (void)state;
    sentinel(A, "{\"walefs\": {\"timeline\": 2, \"start_lsn\": \"0/3000028\"}}");
    sentinel(B, "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"0/2000028\"}}");
    sentinel(C, "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"0/1000028\"}}");
    struct catalog *c = load(NULL);
    assert_string_equal(c->backups[0].info.name, C);
    assert_string_equal(c->backups[1].info.name, B);
    assert_string_equal(catalog_latest(c)->info.name, A);
    catalog_unref(c);
}

static void of_one_label_the_newest(void **state)
{
    (void)state;
    sentinel(A, "{\"walefs\": {\"label\": \"nightly\"}}");
    sentinel(B, "{\"walefs\": {\"label\": \"nightly\"}}");
    struct catalog *c = load(NULL);
    assert_string_equal(catalog_find_label(c, "nightly")->info.name, B);
    assert_null(catalog_find_label(c, "other"));
    assert_null(catalog_find_label(c, ""));
    catalog_unref(c);
}

static void a_damaged_sentinel_is_told_from_a_missing_one(void **state)
{
    (void)state;
    char advice[CATALOG_ADVICE_MAX];
    sentinel(A, "{\"spec\"");
    sentinel(B, "{}");
    partition(C, "tar_partitions/part_00000001.tar.lzo");
    struct catalog *c = load(NULL);
    assert_int_equal(c->count, 1);
    assert_int_equal(c->incomplete_count, 2);
    assert_int_equal(c->damaged_count, 1);
    assert_true(catalog_find_incomplete(c, A)->damaged);
    assert_false(catalog_find_incomplete(c, C)->damaged);
    catalog_damaged_advice(catalog_find_incomplete(c, A), advice);
    catalog_unref(c);
    assert_non_null(strstr(advice, "restore basebackups_005/" A BACKUP_SENTINEL_SUFFIX " "));
    assert_int_equal(advice[strlen(advice) - 1], 'p'); /* whole */
}

static void the_segment_size_is_that_of_the_newest(void **state)
{
    (void)state;
    sentinel(A, "{\"walefs\": {\"segment_size\": 1048576}}");
    sentinel(B, "{\"walefs\": {\"segment_size\": 4194304}}");
    sentinel(C, "{}"); /* does not know */
    struct catalog *c = load(NULL);
    assert_int_equal(archive_segment_size(16 << 20, c), 16 << 20);
    assert_int_equal(archive_segment_size(0, c), 4 << 20);
    assert_int_equal(archive_segment_size(0, NULL), 0);
    assert_int_equal(archive_segment_size(1 << 20, NULL), 1 << 20);
    catalog_unref(c);
}

static void only_what_changed_is_read(void **state)
{
    (void)state;
    sentinel(A, "{\"spec\": {\"tablespaces\": [\"16384\"], \"16384\": {\"loc\": \"/t\"}},"
                " \"walefs\": {\"label\": \"one\", \"partition_sha256\": [\"aa\"]}}");
    sentinel(B, "{}");
    struct catalog *first = load(NULL);
    unsigned gets = mem_calls(mem, MEM_GET);
    struct catalog *second = load(first);
    assert_int_equal(mem_calls(mem, MEM_GET), gets);
    catalog_unref(first); /* the second owns what it took over */
    const struct backup_info *a = &catalog_find(second, A)->info;
    assert_string_equal(a->label, "one");
    assert_string_equal(a->tablespaces[0].location, "/t");
    assert_string_equal(a->partition_sha256[0], "aa");
    sentinel(A, "{\"walefs\": {\"label\": \"two\"}}");
    struct catalog *third = load(second);
    assert_int_equal(mem_calls(mem, MEM_GET), gets + 1);
    assert_string_equal(catalog_find(third, A)->info.label, "two");
    assert_string_equal(catalog_find(second, A)->info.label, "one"); /* a snapshot stays */
    catalog_unref(second);
    catalog_unref(third);
}

/* A backup that could not be read is never taken for one that is not there. */
static void a_failing_store_is_an_error(void **state)
{
    (void)state;
    sentinel(A, "{}");
    sentinel(B, "{}");
    mem_fail(mem, MEM_LIST, 1, 1, ERR_UNAVAILABLE);
    assert_null(catalog_load(store, NULL, NULL, &endless, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    mem_heal(mem);
    mem_fail(mem, MEM_GET, 2, 1, ERR_FORBIDDEN);
    assert_null(catalog_load(store, NULL, NULL, &endless, &err));
    assert_int_equal(err.code, ERR_FORBIDDEN);
    mem_heal(mem);
    mem_fail(mem, MEM_READ, 1, 1, ERR_UNAVAILABLE);
    assert_null(catalog_load(store, NULL, NULL, &endless, &err));
    mem_heal(mem);
    catalog_unref(load(NULL));
}

/* Where reading takes longer than a call may, the next one goes on. */
static void what_was_read_before_a_failure_is_kept(void **state)
{
    (void)state;
    enum { BACKUPS = 20 };
    for (unsigned i = 0; i < BACKUPS; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "base_%024X_%08u", i, 40);
        sentinel(name, "{}");
    }
    struct catalog *so_far = NULL;
    mem_fail(mem, MEM_GET, BACKUPS - 1, 1, ERR_TIMEOUT);
    assert_null(catalog_load(store, NULL, &so_far, &endless, &err));
    assert_non_null(so_far);
    assert_in_range(so_far->count, BACKUPS - 9, BACKUPS - 1); /* eight at once */
    unsigned gets = mem_calls(mem, MEM_GET);
    struct catalog *c = load(so_far);
    assert_int_equal(mem_calls(mem, MEM_GET) - gets, BACKUPS - so_far->count);
    assert_int_equal(c->count, BACKUPS);
    catalog_unref(so_far);
    catalog_unref(c);
}

static void delete_on_get(void *arg, enum mem_op op, const char *key)
{
    (void)arg;
    if (op == MEM_GET && strstr(key, A) != NULL)
        mem_delete(mem, key);
}

static void deleted_while_it_is_listed(void **state)
{
    (void)state;
    sentinel(A, "{}");
    sentinel(B, "{}");
    mem_set_hook(mem, delete_on_get, NULL);
    struct catalog *c = load(NULL);
    mem_set_hook(mem, NULL, NULL);
    assert_int_equal(c->count, 1);
    assert_null(catalog_find(c, A));
    catalog_unref(c);
}

static void hundreds_over_many_pages(void **state)
{
    (void)state;
    mem_page_size(mem, 7);
    for (unsigned i = 0; i < 256; i++) {
        char name[BACKUP_NAME_MAX];
        (void)snprintf(name, sizeof(name), "base_0000000100000000%08X_00000040", i);
        sentinel(name, "{}");
        partition(name, "tar_partitions/part_00000001.tar.lzo");
    }
    struct catalog *c = load(NULL);
    assert_int_equal(c->count, 256);
    assert_int_equal(c->incomplete_count, 0);
    for (size_t i = 1; i < c->count; i++)
        assert_true(backup_newer(&c->backups[i].info, &c->backups[i - 1].info));
    catalog_unref(c);
}

/* ---- objects ---- */

static void partitions_in_the_order_of_their_numbers(void **state)
{
    (void)state;
    mem_page_size(mem, 3);
    partition(A, "tar_partitions/part_00000002.tar.lzo");
    partition(A, "tar_partitions/part_00000010.tar.lzo");
    partition(A, "tar_partitions/part_00000001.tar.lzo");
    partition(A, "tar_partitions/part_100000000.tar.lzo");
    partition(A, "tar_partitions/part_.tar.lzo");
    partition(A, "tar_partitions/part_1x.tar.lzo");
    partition(A, "tar_partitions/part_4294967295.tar.lzo");
    partition(A, "tar_partitions/part_99999999999999999999999.tar.lzo");
    partition(A, "tar_partitions/walefs-index.lzo");
    partition(A, "extended_version.txt");
    partition(A "0", "tar_partitions/part_00000003.tar.lzo"); /* of a longer name */
    struct backup_objects o;
    assert_true(backup_objects_load(store, A, &o, &endless, &err));
    assert_int_equal(o.count, 10);
    assert_int_equal(o.partition_count, 4);
    static const unsigned numbers[] = {1, 2, 10, 100000000};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(o.objects[i].number, numbers[i]);
    for (size_t i = 4; i < o.count; i++)
        assert_int_equal(o.objects[i].number, UINT32_MAX);
    assert_int_equal(o.size, 10 * strlen("some bytes"));
    backup_objects_free(&o);
    mem_fail(mem, MEM_LIST, 2, 1, ERR_UNAVAILABLE);
    assert_false(backup_objects_load(store, A, &o, &endless, &err));
    mem_heal(mem);
}

static unsigned removals;
static bool sentinel_first;

static void watch_removal(void *arg, enum mem_op op, const char *key)
{
    (void)arg;
    if (op != MEM_REMOVE)
        return;
    if (removals++ == 0)
        sentinel_first = strstr(key, BACKUP_SENTINEL_SUFFIX) != NULL;
}

static void deleted_sentinel_first(void **state)
{
    (void)state;
    sentinel(A, "{}");
    partition(A, "tar_partitions/part_00000001.tar.lzo");
    partition(A, "tar_partitions/walefs-index.lzo");
    partition(A, "extended_version.txt");
    sentinel(B, "{}");
    partition(B, "tar_partitions/part_00000001.tar.lzo");
    removals = 0;
    mem_set_hook(mem, watch_removal, NULL);
    assert_true(backup_delete(store, A, &endless, &err));
    mem_set_hook(mem, NULL, NULL);
    assert_true(sentinel_first);
    assert_int_equal(mem_count(mem), 2);
    assert_true(backup_delete(store, A, &endless, &err)); /* what is gone is gone */
}

/* At whichever call it ends, what is left is whole or incomplete, and can be deleted again. */
static void interrupted_anywhere_it_is_never_broken_and_complete(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth < 8; nth++) {
        sentinel(A, "{}");
        partition(A, "tar_partitions/part_00000001.tar.lzo");
        partition(A, "tar_partitions/part_00000002.tar.lzo");
        mem_fail(mem, MEM_REMOVE, nth, 1, ERR_UNAVAILABLE);
        bool ok = backup_delete(store, A, &endless, &err);
        mem_heal(mem);
        struct catalog *c = load(NULL);
        struct backup_objects o;
        assert_true(backup_objects_load(store, A, &o, &endless, &err));
        assert_true(catalog_find(c, A) == NULL || o.count == 2);
        assert_true(!ok || o.count == 0);
        backup_objects_free(&o);
        catalog_unref(c);
        assert_true(backup_delete(store, A, &endless, &err));
        assert_int_equal(mem_count(mem), 0);
    }
}

static void only_backups_are_deleted(void **state)
{
    static const char *const bad[] = {"", ".", "..", "base_x", "../wal_005", A "/..", "LATEST"};
    (void)state;
    put("wal_005/x.lzo", "x");
    unsigned calls = mem_calls(mem, MEM_ANY);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(backup_delete(store, bad[i], &endless, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    assert_int_equal(mem_calls(mem, MEM_ANY), calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(complete_and_incomplete, begin, end),
        cmocka_unit_test_setup_teardown(an_empty_archive, begin, end),
        cmocka_unit_test_setup_teardown(latest_goes_by_timeline_and_position, begin, end),
        cmocka_unit_test_setup_teardown(the_order_is_that_of_the_positions, begin, end),
        cmocka_unit_test_setup_teardown(of_one_label_the_newest, begin, end),
        cmocka_unit_test_setup_teardown(a_damaged_sentinel_is_told_from_a_missing_one, begin, end),
        cmocka_unit_test_setup_teardown(the_segment_size_is_that_of_the_newest, begin, end),
        cmocka_unit_test_setup_teardown(only_what_changed_is_read, begin, end),
        cmocka_unit_test_setup_teardown(a_failing_store_is_an_error, begin, end),
        cmocka_unit_test_setup_teardown(what_was_read_before_a_failure_is_kept, begin, end),
        cmocka_unit_test_setup_teardown(deleted_while_it_is_listed, begin, end),
        cmocka_unit_test_setup_teardown(hundreds_over_many_pages, begin, end),
        cmocka_unit_test_setup_teardown(partitions_in_the_order_of_their_numbers, begin, end),
        cmocka_unit_test_setup_teardown(deleted_sentinel_first, begin, end),
        cmocka_unit_test_setup_teardown(interrupted_anywhere_it_is_never_broken_and_complete, begin,
                                        end),
        cmocka_unit_test_setup_teardown(only_backups_are_deleted, begin, end),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
