/* core/wal_census.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_census.h"

#define MIB (1u << 20)
#define S16 (16 * MIB)

static struct wal_census *c;

static void begin(uint32_t segment_size)
{
    struct err err = ERR_INIT;
    c = wal_census_new(segment_size, &err);
    assert_non_null(c);
}

static bool try_add(const char *name, struct err *err)
{
    struct wal_name n = wal_name_parse(name);
    return wal_census_add(c, &n, 100, 7, err);
}

static void add(const char *name)
{
    struct err err = ERR_INIT;
    if (!try_add(name, &err))
        fail_msg("%s: %s", name, err.text);
}

/* Segments FIRST to LAST of TLI. */
static void add_range(uint32_t tli, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        char name[WAL_NAME_MAX];
        wal_census_name(c, tli, i, name);
        add(name);
    }
}

static void add_history(const char *name, const char *text)
{
    struct err err = ERR_INIT;
    struct wal_history h;
    assert_true(wal_history_parse(name, text, strlen(text), &h, &err));
    assert_true(wal_census_take_history(c, &h, &err));
    assert_null(h.of);
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

static void assert_missing(uint32_t tli, uint64_t first, uint64_t last, const char *wanted)
{
    struct err err = ERR_INIT;
    struct wal_ranges out = {.of = NULL};
    const struct wal_range range = {.tli = tli, .first = first, .last = last};
    assert_true(wal_census_missing(c, &range, &out, &err));
    assert_ranges(&out, wanted);
    wal_ranges_free(&out);
}

static void assert_way(uint32_t tli, uint64_t start, uint64_t stop, uint32_t to_tli,
                       const char *within, const char *after)
{
    struct err err = ERR_INIT;
    struct wal_way way;
    assert_true(wal_census_way(c, tli, start, stop, &way, &err));
    assert_ranges(&way.within, within);
    assert_ranges(&way.after, after);
    assert_int_equal(way.to_tli, to_tli);
    wal_way_free(&way);
}

static void numbers_and_names(void **state)
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
        uint64_t number;
        begin(cases[i].size);
        assert_true(wal_census_number(c, &n, &number));
        assert_int_equal(number, cases[i].number);
        wal_census_name(c, 1, number, name);
        assert_string_equal(name, cases[i].name);
        wal_census_free(c);
    }
}

static void timelines(void **state)
{
    (void)state;
    begin(S16);
    assert_null(wal_census_newest(c));
    add("0000000100000000000000FE");
    add("0000000100000000000000FF");
    add("0000000100000000000000FF.00000028.backup");
    add("000000010000000000000100"); /* of a cluster with smaller segments */
    add("000000010000000100000000"); /* no gap: the next number */
    add("000000010000000100000003");
    add("000000010000000100000004.partial");
    add("000000010000000100000006");
    add("00000002.history");
    add("000000020000000100000006");
    add("archive_command");
    assert_int_equal(c->count, 2);
    assert_int_equal(c->strange, 1);
    assert_int_equal(c->segments, 6);
    assert_int_equal(c->stored_bytes, 1100);
    assert_int_equal(c->gaps, 2);
    assert_int_equal(c->missing, 4);
    const struct wal_timeline *one = wal_census_find(c, 1);
    assert_int_equal(one->first, 254);
    assert_int_equal(one->last, 262);
    assert_int_equal(one->count, 5);
    assert_int_equal(one->stored_bytes, 500);
    assert_int_equal(one->last_s, 7);
    assert_ranges(&one->missing, "1:257-258 1:260-261");
    assert_int_equal(wal_ranges_segments(&one->missing), 4);
    const struct wal_timeline *two = wal_census_newest(c);
    assert_ptr_equal(two, wal_census_find(c, 2));
    assert_int_equal(two->first, 262);
    assert_int_equal(two->count, 1);
    assert_ranges(&two->missing, "");
    assert_null(wal_census_find(c, 3));
    wal_census_free(c);
}

/* The same names are a gap, or none, or strange, as the segment size is. */
static void gaps_depend_on_the_segment_size(void **state)
{
    static const struct {
        uint32_t size;
        uint64_t missing, strange;
    } cases[] = {{64 * MIB, 0, 0}, {S16, 192, 0}, {MIB, 4032, 0}, {128 * MIB, 0, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(cases[i].size);
        add("00000001000000000000003F");
        add("000000010000000100000000");
        assert_int_equal(c->missing, cases[i].missing);
        assert_int_equal(c->strange, cases[i].strange);
        wal_census_free(c);
    }
}

static void without_a_size_no_gap_is_told(void **state)
{
    char name[WAL_NAME_MAX];
    (void)state;
    begin(0);
    add("000000010000000000000001");
    add("000000010000000000000009");
    assert_int_equal(c->gaps, 0);
    assert_int_equal(wal_census_newest(c)->count, 2);
    wal_census_name(c, 1, wal_census_newest(c)->last, name);
    assert_string_equal(name, "000000010000000000000009");
    wal_census_free(c);
}

static void a_disordered_listing_is_refused(void **state)
{
    static const char *const wrong[] = {"000000020000000000000004", "000000020000000000000005",
                                        "000000010000000000000009"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct err err = ERR_INIT;
        begin(S16);
        add("000000020000000000000005");
        assert_false(try_add(wrong[i], &err));
        assert_int_equal(err.code, ERR_INVALID);
        wal_census_free(c);
    }
}

/* Many timelines and many gaps: what grows has to hold all. */
static void many_timelines_and_gaps(void **state)
{
    (void)state;
    begin(S16);
    for (uint32_t tli = 1; tli <= 200; tli++)
        for (uint64_t n = 0; n < 100; n += 2)
            add_range(tli, n, n);
    assert_int_equal(c->count, 200);
    for (uint32_t tli = 1; tli <= 200; tli++)
        assert_int_equal(wal_ranges_segments(&wal_census_find(c, tli)->missing), 49);
    assert_int_equal(c->gaps, 200 * 49);
    wal_census_free(c);
}

/* Ten million segments are as cheap as ten; a gap at every other one is refused in the end. */
static void memory_goes_with_the_gaps(void **state)
{
    struct err err = ERR_INIT;
    struct wal_name n = {.kind = WAL_SEGMENT, .tli = 1};
    (void)state;
    begin(S16);
    for (uint32_t i = 0; i < 10000000; i++) {
        n.log = i >> 8;
        n.seg = i & 0xFF;
        if (i % 1000000 != 500000)
            assert_true(wal_census_add(c, &n, 1, 1, &err));
    }
    assert_int_equal(c->segments, 9999990);
    assert_int_equal(c->timelines[0].missing.count, 10);
    assert_true(c->timelines[0].missing.capacity <= 16);
    uint32_t i = 10000001;
    bool ok = true;
    for (; ok; i += 2) {
        n.log = i >> 8;
        n.seg = i & 0xFF;
        ok = wal_census_add(c, &n, 1, 1, &err);
    }
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(c->gaps + c->count, CENSUS_MOST);
    wal_census_free(c);
}

static void missing(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 10, 14);
    add_range(1, 17, 17);
    add_range(1, 20, 25);
    assert_missing(1, 10, 14, "");
    assert_missing(1, 20, 25, "");
    assert_missing(1, 15, 15, "1:15-15");
    assert_missing(1, 10, 25, "1:15-16 1:18-19");
    assert_missing(1, 16, 18, "1:16-16 1:18-18");
    assert_missing(1, 8, 11, "1:8-9");
    assert_missing(1, 24, 27, "1:26-27");
    assert_missing(1, 5, 30, "1:5-9 1:15-16 1:18-19 1:26-30");
    assert_missing(1, 1, 9, "1:1-9");
    assert_missing(1, 26, 30, "1:26-30");
    assert_missing(2, 3, 4, "2:3-4");
    assert_missing(1, 5, 4, "");
    wal_census_free(c);
}

static void way_on_one_timeline(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 3, 5);
    add_range(1, 8, 9);
    assert_way(1, 4ull * S16 + 40, 0, 1, "", "1:6-7");
    assert_way(1, 9ull * S16, 0, 1, "", "");
    /* up to the end of the backup it is the backup that is lost */
    assert_way(1, 4ull * S16, 6ull * S16, 1, "", "1:6-7"); /* ends with the last byte of 5 */
    assert_way(1, 4ull * S16, 6ull * S16 + 1, 1, "1:6-6", "1:7-7");
    assert_way(1, 2ull * S16, 8ull * S16, 1, "1:2-2 1:6-7", "");
    assert_way(1, 9ull * S16, 11ull * S16 + 1, 1, "1:10-11", "");
    assert_way(1, 10ull * S16, 0, 1, "1:10-10", "");
    assert_way(2, 3ull * S16, 0, 2, "2:3-3", ""); /* nothing of it is there */
    wal_census_free(c);
}

/* 1 is left in the middle of segment 5 for 2, that at the very start of segment 8 for 4. */
static void with_timelines(void)
{
    begin(S16);
    add_range(1, 2, 9); /* went on for a while after it was left */
    add_range(2, 5, 7);
    add_range(3, 6, 7); /* a dead end */
    add_range(4, 8, 12);
    add_history("00000004.history",
                "1\t0/5000100\tno recovery target specified\n2\t0/8000000\tx\n");
}

static void way_over_timelines(void **state)
{
    (void)state;
    with_timelines();
    assert_way(1, 0x2000028, 0, 4, "", "");
    assert_way(1, 0x1000028, 0x1000100, 4, "1:1-1", "");
    assert_way(1, 0x5000028, 0, 4, "", "");
    assert_way(2, 0x6000028, 0, 4, "", "");
    assert_way(4, 0x9000028, 0, 4, "", "");
    assert_way(4, 0xE000028, 0, 4, "4:14-14", "");
    /* behind the switch, at its start or at its end, or on a timeline of which no history tells:
     * it stays on its own */
    assert_way(1, 0x5000200, 0, 1, "", "");
    assert_way(1, 0x4000028, 0x5000200, 1, "", "");
    assert_way(3, 0x6000028, 0, 3, "", "");
    wal_census_free(c);
}

static void way_with_gaps_at_a_switch(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 10, 18); /* 19 never came */
    add_range(2, 21, 25); /* nor did 20, in which timeline 1 was left */
    add_history("00000002.history", "1\t0/14000100\tpromoted\n");
    assert_int_equal(c->gaps, 0);
    assert_way(1, 12ull * S16, 0, 2, "", "1:19-19 2:20-20");
    wal_census_free(c);
}

/* A segment of the old timeline that was not full when that was left never comes. */
static void backup_that_ends_in_the_segment_of_a_switch(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 2, 4);
    add_range(2, 5, 7);
    add_history("00000002.history", "1\t0/5000100\tpromoted\n");
    assert_way(1, 0x4000028, 0x5000080, 2, "", "");
    assert_way(1, 0x5000028, 0x5000080, 2, "", "");
    assert_way(1, 0x1000028, 0x5000080, 2, "1:1-1", "");
    wal_census_free(c);
}

/* The target has archived nothing yet: what is there has to reach up to its beginning. */
static void way_to_a_new_timeline(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 2, 3);
    add_history("00000002.history", "1\t0/5000100\tpromoted\n");
    assert_way(1, 0x2000028, 0, 1, "", "1:4-4");
    wal_census_free(c);
}

/* 1 was left for 2, that for 3, and once more for 4: the newest to which a history leads counts. */
static void any_number_of_histories(void **state)
{
    (void)state;
    begin(S16);
    add_range(1, 2, 4);
    add_range(2, 5, 8);
    add_range(3, 9, 9);
    add_range(3, 11, 12); /* a dead end with a gap */
    add_range(4, 7, 9);
    add_history("00000004.history", "1\t0/5000000\tx\n2\t0/7000000\tx\n");
    assert_true(wal_census_has_ancestor(c, 2));
    assert_false(wal_census_has_ancestor(c, 3));
    assert_false(wal_census_has_ancestor(c, 4));
    add_history("00000003.history", "1\t0/5000000\tx\n2\t0/9000000\tx\n"); /* in any order */
    assert_int_equal(c->histories[0].tli, 3);
    assert_int_equal(c->histories[1].tli, 4);
    assert_way(1, 0x2000028, 0, 4, "", "");
    assert_way(2, 0x6000028, 0x6000100, 4, "", "");
    assert_way(2, 0x7000028, 0x7000100, 3, "", "3:10-10"); /* behind the switch to 4 */
    assert_way(3, 0x9000028, 0, 3, "", "3:10-10");
    for (unsigned tli = 5; tli < 200; tli++) {
        char name[WAL_NAME_MAX];
        (void)snprintf(name, sizeof(name), "%08X.history", tli);
        add_history(name, "3\t0/9000000\tx\n");
    }
    assert_way(3, 0x9000028, 0, 3, "", "3:10-10");
    wal_census_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_names),
        cmocka_unit_test(timelines),
        cmocka_unit_test(gaps_depend_on_the_segment_size),
        cmocka_unit_test(without_a_size_no_gap_is_told),
        cmocka_unit_test(a_disordered_listing_is_refused),
        cmocka_unit_test(many_timelines_and_gaps),
        cmocka_unit_test(memory_goes_with_the_gaps),
        cmocka_unit_test(missing),
        cmocka_unit_test(way_on_one_timeline),
        cmocka_unit_test(way_over_timelines),
        cmocka_unit_test(way_with_gaps_at_a_switch),
        cmocka_unit_test(backup_that_ends_in_the_segment_of_a_switch),
        cmocka_unit_test(way_to_a_new_timeline),
        cmocka_unit_test(any_number_of_histories),
    };
    return cmocka_run_group_tests_name("wal_census", tests, NULL, NULL);
}
