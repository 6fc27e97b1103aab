/* core/wal_gaps.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/wal_gaps.h"

#define MIB (1u << 20)
#define S16 (16 * MIB)

static void add(struct wal_timelines *t, const char *name)
{
    struct err err = ERR_INIT;
    if (!wal_timelines_add(t, name, 10, &err))
        fail_msg("%s: %s", name, err.text);
}

static void add_range(struct wal_timelines *t, uint32_t tli, uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        char name[WAL_NAME_MAX];
        wal_name_of_number(tli, n, t->segment_size, name);
        add(t, name);
    }
}

static void assert_ranges(const struct wal_ranges *r, const char *wanted)
{
    char text[1024] = "";
    for (size_t i = 0; i < r->count; i++) {
        size_t n = strlen(text);
        (void)snprintf(text + n, sizeof(text) - n, "%s%u:%llu-%llu", i == 0 ? "" : " ",
                       r->of[i].tli, (unsigned long long)r->of[i].first,
                       (unsigned long long)r->of[i].last);
    }
    assert_string_equal(text, wanted);
}

static void assert_missing(const struct wal_timelines *t, uint32_t tli, uint64_t first,
                           uint64_t last, const char *wanted)
{
    struct err err = ERR_INIT;
    struct wal_ranges out = {.of = NULL};
    const struct wal_range needed = {.tli = tli, .first = first, .last = last};
    assert_true(wal_missing(t, &needed, &out, &err));
    assert_ranges(&out, wanted);
    wal_ranges_free(&out);
}

static void assert_path(const struct wal_timelines *t, const struct wal_history *history,
                        uint32_t tli, uint64_t lsn, enum wal_path wanted, const char *ranges)
{
    struct err err = ERR_INIT;
    struct wal_ranges out = {.of = NULL};
    assert_int_equal(wal_path_find(t, history, tli, lsn, &out, &err), wanted);
    assert_ranges(&out, ranges);
    wal_ranges_free(&out);
}

static void test_numbers_and_names(void **state)
{
    static const struct {
        uint32_t size;
        const char *name;
        uint64_t number;
    } cases[] = {{S16, "000000010000000000000001", 1},
                 {S16, "0000000100000000000000FF", 255},
                 {S16, "000000010000000100000000", 256},
                 {MIB, "000000010000000000000FFF", 4095},
                 {MIB, "000000010000000100000000", 4096},
                 {1024 * MIB, "000000010000000200000003", 11},
                 {S16, "00000001FFFFFFFF000000FF", (UINT64_C(1) << 40) - 1}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[WAL_NAME_MAX];
        struct wal_name n = wal_name_parse(cases[i].name);
        assert_int_equal(wal_number_of_name(&n, cases[i].size), cases[i].number);
        wal_name_of_number(1, cases[i].number, cases[i].size, name);
        assert_string_equal(name, cases[i].name);
        assert_int_equal(wal_number_of_lsn(cases[i].number * cases[i].size + 5, cases[i].size),
                         cases[i].number);
    }
}

static void test_timelines(void **state)
{
    struct wal_timelines t;
    (void)state;
    wal_timelines_init(&t, S16);
    add(&t, "0000000100000000000000FE");
    add(&t, "0000000100000000000000FF");
    add(&t, "0000000100000000000000FF.00000028.backup");
    add(&t, "000000010000000000000100"); /* of a cluster with smaller segments */
    add(&t, "000000010000000100000000"); /* no gap: the next number */
    add(&t, "000000010000000100000003");
    add(&t, "000000010000000100000004.partial");
    add(&t, "000000010000000100000006");
    add(&t, "00000002.history");
    add(&t, "000000020000000100000006");
    add(&t, "archive_command");
    assert_int_equal(t.count, 2);
    assert_int_equal(t.foreign, 1);
    const struct wal_timeline *one = wal_timelines_find(&t, 1);
    assert_int_equal(one->first, 254);
    assert_int_equal(one->last, 262);
    assert_int_equal(one->count, 5);
    assert_int_equal(one->bytes, 50);
    assert_ranges(&one->missing, "1:257-258 1:260-261");
    assert_int_equal(wal_ranges_segments(&one->missing), 4);
    const struct wal_timeline *two = wal_timelines_find(&t, 2);
    assert_int_equal(two->first, 262);
    assert_int_equal(two->count, 1);
    assert_ranges(&two->missing, "");
    assert_null(wal_timelines_find(&t, 3));
    wal_timelines_free(&t);
    assert_int_equal(t.count, 0);
}

static void test_order_matters(void **state)
{
    static const char *const wrong[] = {"000000020000000000000004", "000000020000000000000005",
                                        "000000010000000000000009"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct err err = ERR_INIT;
        struct wal_timelines t;
        wal_timelines_init(&t, S16);
        add(&t, "000000020000000000000005");
        assert_false(wal_timelines_add(&t, wrong[i], 0, &err));
        assert_int_equal(err.code, ERR_INVALID);
        wal_timelines_free(&t);
    }
}

/* Many timelines and many gaps: what grows has to hold all. */
static void test_many(void **state)
{
    struct wal_timelines t;
    (void)state;
    wal_timelines_init(&t, S16);
    for (uint32_t tli = 1; tli <= 50; tli++)
        for (uint64_t n = 0; n < 100; n += 2)
            add_range(&t, tli, n, n);
    assert_int_equal(t.count, 50);
    for (size_t i = 0; i < t.count; i++)
        assert_int_equal(wal_ranges_segments(&t.of[i].missing), 49);
    wal_timelines_free(&t);
}

static void test_missing(void **state)
{
    struct wal_timelines t;
    (void)state;
    wal_timelines_init(&t, S16);
    add_range(&t, 1, 10, 14);
    add_range(&t, 1, 17, 17);
    add_range(&t, 1, 20, 25);
    assert_missing(&t, 1, 10, 14, "");
    assert_missing(&t, 1, 20, 25, "");
    assert_missing(&t, 1, 15, 15, "1:15-15");
    assert_missing(&t, 1, 10, 25, "1:15-16 1:18-19");
    assert_missing(&t, 1, 16, 18, "1:16-16 1:18-18");
    assert_missing(&t, 1, 8, 11, "1:8-9");
    assert_missing(&t, 1, 24, 27, "1:26-27");
    assert_missing(&t, 1, 5, 30, "1:5-9 1:15-16 1:18-19 1:26-30");
    assert_missing(&t, 1, 1, 9, "1:1-9");
    assert_missing(&t, 1, 26, 30, "1:26-30");
    assert_missing(&t, 2, 3, 4, "2:3-4");
    wal_timelines_free(&t);
}

static void test_path_on_one_timeline(void **state)
{
    struct wal_timelines t;
    (void)state;
    wal_timelines_init(&t, S16);
    add_range(&t, 1, 3, 9);
    assert_path(&t, NULL, 1, 4ull * S16 + 40, WAL_PATH_OK, "1:4-9");
    assert_path(&t, NULL, 1, 9ull * S16, WAL_PATH_OK, "1:9-9");
    assert_path(&t, NULL, 1, 10ull * S16, WAL_PATH_OK, "");
    assert_path(&t, NULL, 2, 3ull * S16, WAL_PATH_OK, "");
    wal_timelines_free(&t);
}

/* 1 is left in the middle of segment 5 for 2, that at the very start of segment 8 for 4. */
static void test_path_over_timelines(void **state)
{
    static const char text[] = "1\t0/5000100\tno recovery target specified\n2\t0/8000000\tx\n";
    struct wal_history h;
    struct err err = ERR_INIT;
    struct wal_timelines t;
    (void)state;
    assert_true(wal_history_parse("00000004.history", text, sizeof(text) - 1, &h, &err));
    assert_int_equal(h.tli, 4);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.of[1].end, 0x8000000);
    wal_timelines_init(&t, S16);
    add_range(&t, 1, 2, 9); /* went on for a while after it was left */
    add_range(&t, 2, 5, 7);
    add_range(&t, 3, 6, 7); /* a dead end */
    add_range(&t, 4, 8, 12);
    assert_path(&t, &h, 1, 0x2000028, WAL_PATH_OK, "1:2-4 2:5-7 4:8-12");
    assert_path(&t, &h, 1, 0x5000028, WAL_PATH_OK, "2:5-7 4:8-12");
    assert_path(&t, &h, 2, 0x6000028, WAL_PATH_OK, "2:6-7 4:8-12");
    assert_path(&t, &h, 4, 0x9000028, WAL_PATH_OK, "4:9-12");
    /* behind the switch, or on a timeline that the history does not know: not on this way */
    assert_path(&t, &h, 1, 0x5000200, WAL_PATH_ELSEWHERE, "");
    assert_path(&t, &h, 3, 0x6000028, WAL_PATH_ELSEWHERE, "");
    wal_history_free(&h);
    wal_timelines_free(&t);
}

/* The target has archived nothing yet: what is there has to reach up to its beginning. */
static void test_path_to_a_new_timeline(void **state)
{
    static const char text[] = "1\t0/5000100\tpromoted\n";
    struct wal_history h;
    struct err err = ERR_INIT;
    struct wal_timelines t;
    (void)state;
    assert_true(wal_history_parse("00000002.history", text, sizeof(text) - 1, &h, &err));
    wal_timelines_init(&t, S16);
    add_range(&t, 1, 2, 4);
    assert_path(&t, &h, 1, 0x2000028, WAL_PATH_OK, "1:2-4");
    wal_history_free(&h);
    wal_timelines_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_and_names),
        cmocka_unit_test(test_timelines),
        cmocka_unit_test(test_order_matters),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_path_on_one_timeline),
        cmocka_unit_test(test_path_over_timelines),
        cmocka_unit_test(test_path_to_a_new_timeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
