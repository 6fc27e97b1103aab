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

static struct wal_census *c;

static void begin(uint32_t segment_size)
{
    struct err err = ERR_INIT;
    c = wal_census_new(segment_size, &err);
    assert_non_null(c);
}

static bool add(const char *name)
{
    struct wal_name n = wal_name_parse(name);
    struct err err = ERR_INIT;
    assert_int_not_equal(n.kind, WAL_OTHER);
    return wal_census_add(c, &n, 100, 7, &err);
}

/* Segments FIRST to LAST of TLI. */
static void add_range(uint32_t tli, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        char name[WAL_NAME_MAX];
        wal_census_name(c, tli, i, name);
        assert_true(add(name));
    }
}

static void test_no_gap(void **state)
{
    (void)state;
    begin(16 * MIB);
    assert_true(add("0000000100000000000000FE"));
    assert_true(add("0000000100000000000000FE.00000028.backup"));
    assert_true(add("0000000100000000000000FF"));
    assert_true(add("000000010000000100000000")); /* the next number: 256 in each 4 GiB */
    assert_true(add("000000010000000100000001.partial"));
    const struct wal_timeline *t = wal_census_newest(c);
    assert_int_equal(t->count, 3);
    assert_int_equal(t->missing, 0);
    assert_int_equal(t->gap_count, 0);
    assert_int_equal(t->stored_bytes, 300);
    assert_int_equal(t->last_s, 7);
    assert_int_equal(t->range.first, 0xFE);
    assert_int_equal(t->range.last, 0x100);
    assert_int_equal(c->segments, 3);
    assert_int_equal(c->labels, 1);
    assert_int_equal(c->partials, 1);
    assert_int_equal(c->stored_bytes, 500);
    wal_census_free(c);
}

/* The same names are a gap, or none, or strange, as the segment size is. */
static void test_gaps_depend_on_the_segment_size(void **state)
{
    (void)state;
    static const struct {
        uint32_t size;
        uint64_t missing, strange;
    } cases[] = {{64 * MIB, 0, 0}, {16 * MIB, 192, 0}, {MIB, 4032, 0}, {128 * MIB, 0, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(cases[i].size);
        assert_true(add("00000001000000000000003F"));
        assert_true(add("000000010000000100000000"));
        assert_int_equal(wal_census_newest(c)->missing, cases[i].missing);
        assert_int_equal(c->strange, cases[i].strange);
        wal_census_free(c);
    }
}

static void test_without_a_size_no_gap_is_told(void **state)
{
    (void)state;
    struct wal_way way;
    begin(0);
    assert_true(add("000000010000000000000001"));
    assert_true(add("000000010000000000000009"));
    assert_int_equal(wal_census_newest(c)->missing, 0);
    assert_int_equal(wal_census_newest(c)->count, 2);
    char name[WAL_NAME_MAX];
    wal_census_name(c, 1, wal_census_newest(c)->range.last, name);
    assert_string_equal(name, "000000010000000000000009");
    assert_false(wal_census_way(c, 1, 1, &way));
    wal_census_free(c);
}

static void test_many_gaps_are_counted_and_the_last_kept(void **state)
{
    (void)state;
    struct wal_range gap;
    begin(16 * MIB);
    for (uint64_t i = 0; i <= 1000; i++)
        add_range(1, 3 * i, 3 * i); /* two of three are missing */
    const struct wal_timeline *t = wal_census_newest(c);
    assert_int_equal(t->missing, 2000);
    assert_int_equal(t->gap_count, 1000);
    assert_int_equal(t->gaps_kept, CENSUS_GAPS);
    assert_int_equal(t->gaps[CENSUS_GAPS - 1].first, 2998);
    assert_int_equal(t->gaps[CENSUS_GAPS - 1].last, 2999);
    assert_int_equal(wal_census_missing(c, 1, 2990, 3000, &gap), 7); /* but 91, 94, 97 */
    assert_true(wal_census_missing(c, 1, 0, 3000, &gap) >
                0); /* never none, if gaps are forgotten */
    wal_census_free(c);
}

static void test_a_disordered_listing_is_refused(void **state)
{
    (void)state;
    begin(16 * MIB);
    assert_true(add("000000020000000000000005"));
    assert_false(add("000000020000000000000005"));
    assert_false(add("000000020000000000000004"));
    assert_false(add("000000010000000000000006"));
    wal_census_free(c);
}

static void test_timelines_are_bounded(void **state)
{
    (void)state;
    begin(16 * MIB);
    for (uint32_t tli = 1; tli <= CENSUS_TIMELINES + 10; tli++)
        add_range(tli, 1, 2);
    assert_int_equal(c->count, CENSUS_TIMELINES);
    assert_int_equal(c->older, 10);
    assert_int_equal(wal_census_newest(c)->tli, CENSUS_TIMELINES + 10);
    assert_null(wal_census_find(c, 10));
    assert_non_null(wal_census_find(c, 11));
    assert_int_equal(c->segments, 2 * (CENSUS_TIMELINES + 10));
    wal_census_free(c);
}

static void test_missing_of_a_range(void **state)
{
    (void)state;
    struct wal_range gap;
    begin(16 * MIB);
    add_range(1, 10, 19);
    add_range(1, 23, 30);
    assert_int_equal(wal_census_missing(c, 1, 10, 19, &gap), 0);
    assert_int_equal(wal_census_missing(c, 1, 12, 25, &gap), 3);
    assert_int_equal(gap.first, 20);
    assert_int_equal(gap.last, 22);
    assert_int_equal(wal_census_missing(c, 1, 21, 21, &gap), 1);
    assert_int_equal(wal_census_missing(c, 1, 5, 35, &gap), 5 + 3 + 5);
    assert_int_equal(gap.first, 5);
    assert_int_equal(gap.last, 9);
    assert_int_equal(wal_census_missing(c, 1, 31, 40, &gap), 10);
    assert_int_equal(wal_census_missing(c, 2, 3, 4, &gap), 2);
    assert_int_equal(wal_census_missing(c, 1, 5, 4, &gap), 0);
    wal_census_free(c);
}

/* Timeline 2 began in segment 20 of timeline 1, timeline 4 in segment 31 of timeline 2. */
static void with_timelines(void)
{
    begin(16 * MIB);
    add_range(1, 10, 25); /* went on after the switch */
    add_range(2, 20, 30);
    add_range(3, 26, 28); /* another branch */
    add_range(4, 31, 40);
    c->ancestors[0] = (struct wal_switch){1, UINT64_C(20) * 16 * MIB + 4711};
    c->ancestors[1] = (struct wal_switch){2, UINT64_C(31) * 16 * MIB + 1};
    c->ancestor_count = 2;
}

static void test_the_way_over_timelines(void **state)
{
    (void)state;
    struct wal_way way;
    with_timelines();
    assert_true(wal_census_way(c, 1, 12, &way));
    assert_int_equal(way.missing, 0);
    assert_int_equal(way.to_tli, 4);
    assert_int_equal(way.to, 40);
    assert_true(wal_census_way(c, 2, 20, &way));
    assert_int_equal(way.missing, 0);
    assert_true(wal_census_way(c, 4, 35, &way));
    assert_int_equal(way.missing, 0);
    assert_true(wal_census_way(c, 3, 26, &way)); /* not an ancestor: along its own timeline */
    assert_int_equal(way.missing, 0);
    assert_int_equal(way.to_tli, 3);
    assert_true(wal_census_way(c, 1, 5, &way));
    assert_int_equal(way.missing, 5);
    assert_int_equal(way.first_gap.first, 5);
    assert_int_equal(way.first_gap_tli, 1);
    assert_true(wal_census_way(c, 4, 45, &way)); /* its first segment is not there yet */
    assert_int_equal(way.missing, 1);
    assert_false(wal_census_way(c, 9, 1, &way));
    wal_census_free(c);
}

static void test_what_is_missing_around_a_switch(void **state)
{
    (void)state;
    struct wal_way way;
    begin(16 * MIB);
    add_range(1, 10, 18); /* 19 never came */
    add_range(2, 21, 25); /* nor did 20, in which timeline 1 was left */
    c->ancestors[0] = (struct wal_switch){1, UINT64_C(20) * 16 * MIB + 4711};
    c->ancestor_count = 1;
    assert_int_equal(wal_census_find(c, 1)->missing + wal_census_find(c, 2)->missing, 0);
    assert_true(wal_census_way(c, 1, 12, &way));
    assert_int_equal(way.missing, 2);
    assert_int_equal(way.first_gap.first, 19);
    assert_int_equal(way.first_gap_tli, 1);
    wal_census_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gap),
        cmocka_unit_test(test_gaps_depend_on_the_segment_size),
        cmocka_unit_test(test_without_a_size_no_gap_is_told),
        cmocka_unit_test(test_many_gaps_are_counted_and_the_last_kept),
        cmocka_unit_test(test_a_disordered_listing_is_refused),
        cmocka_unit_test(test_timelines_are_bounded),
        cmocka_unit_test(test_missing_of_a_range),
        cmocka_unit_test(test_the_way_over_timelines),
        cmocka_unit_test(test_what_is_missing_around_a_switch),
    };
    return cmocka_run_group_tests_name("wal_census", tests, NULL, NULL);
}
