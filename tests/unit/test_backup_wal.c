/* core/backup_wal.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "core/backup_wal.h"
#include "index_env.h"

#define MIB (1u << 20)

static struct wal_census *c;

/* Segments FIRST to LAST of timeline 1. */
static void begin(uint32_t segment_size, uint64_t first, uint64_t last)
{
    struct err err = ERR_INIT;
    c = wal_census_new(segment_size, &err);
    assert_non_null(c);
    for (uint64_t i = first; i <= last; i++) {
        char name[WAL_NAME_MAX];
        wal_census_name(c, 1, i, name);
        struct wal_name n = wal_name_parse(name);
        assert_true(wal_census_add(c, &n, 1, 1, &err));
    }
}

/* How many segments are missing within the backup, and behind it; -1: cannot be told. */
static void assert_lacks(const struct backup_info *info, int64_t within, int64_t after)
{
    struct err err = ERR_INIT;
    struct wal_way way;
    bool known;
    assert_true(backup_wal_way(c, info, &way, &known, &err));
    assert_int_equal(known, within >= 0);
    if (known) {
        assert_int_equal(wal_ranges_segments(&way.within), within);
        assert_int_equal(wal_ranges_segments(&way.after), after);
    }
    wal_way_free(&way);
    wal_census_free(c);
}

static void position_of_walefs(void **state)
{
    struct backup_info info = {.start = {1, 4ull * MIB + 40},
                               .stop = {1, 7ull * MIB},
                               .start_sure = true,
                               .segment_size = MIB,
                               .by_walefs = true};
    (void)state;
    begin(MIB, 4, 9);
    assert_lacks(&info, 0, 0);
    begin(MIB, 5, 9);
    assert_lacks(&info, 1, 0);
    begin(MIB, 4, 5);
    assert_lacks(&info, 1, 0); /* 6 */
}

/* WAL-E's say segments and offsets, which are another place with other segments. */
static void position_of_a_name(void **state)
{
    char segment[] = "000000010000000100000002", offset[] = "00000100";
    struct backup_info info = {.name = "base_000000010000000100000001_00000040",
                               .stop_segment = segment,
                               .stop_offset = offset};
    (void)state;
    assert_true(backup_name_parse(info.name, 16 * MIB, &info.start));
    assert_true(backup_name_parse("base_000000010000000100000002_00000100", 16 * MIB, &info.stop));
    begin(64 * MIB, 65, 66);
    assert_lacks(&info, 0, 0);
    begin(64 * MIB, 65, 65);
    assert_lacks(&info, 1, 0);
    begin(16 * MIB, 257, 258);
    assert_lacks(&info, 0, 0);
}

static void what_cannot_be_told(void **state)
{
    char nothing[] = "";
    struct backup_info info = {.name = "x", .stop_segment = nothing, .stop_offset = nothing};
    (void)state;
    begin(MIB, 1, 2);
    assert_lacks(&info, -1, 0);
    info.start = (struct backup_position){1, MIB};
    info.start_sure = true;
    begin(0, 1, 2);
    assert_lacks(&info, -1, 0);
    begin(MIB, 1, 2);
    assert_lacks(&info, 0, 0);
}

#define PG_WAL_3 "pg_wal/000000010000000000000003"
#define DONE_3 "pg_wal/archive_status/000000010000000000000003.done"

/* How many of segments 2 to 5 of timeline 1 are missing in a backup of PATHS, of 1 MiB each. */
static void assert_lacks_inside(const char *paths, uint64_t missing)
{
    struct err err = ERR_INIT;
    const struct backup_objects none = {.count = 0};
    const struct wal_range all = {.tli = 1, .first = 2, .last = 5};
    struct wal_way way = {.to_tli = 1};
    struct backup_index *index = index_env_make(&none, paths, MIB);
    struct wal_census *inside = backup_wal_of_index(index, MIB, &err);
    assert_non_null(inside);
    assert_true(wal_ranges_add(&way.within, &all, &err));
    assert_true(backup_wal_take_inside(&way, inside, &err));
    if (wal_ranges_segments(&way.within) != missing)
        fail_msg("%s: %u", paths, (unsigned)wal_ranges_segments(&way.within));
    wal_way_free(&way);
    wal_census_free(inside);
    backup_index_free(index);
}

static void wal_inside(void **state)
{
    (void)state;
    assert_lacks_inside("PG_VERSION", 4);
    assert_lacks_inside("PG_VERSION " PG_WAL_3, 3);
    assert_lacks_inside("pg_xlog/000000010000000000000003", 3);
    assert_lacks_inside("pg_wal/000000010000000000000005 " PG_WAL_3
                        " pg_wal/000000010000000000000002 pg_wal/000000010000000000000004 "
                        "pg_wal/000000010000000000000009",
                        0);
    assert_lacks_inside("pg_wal/000000020000000000000003 x/" PG_WAL_3 " " PG_WAL_3 ".partial", 4);
    assert_lacks_inside(PG_WAL_3 " pg_xlog/000000010000000000000003", 3);
}

/* Of a cluster that ran meanwhile, copied by hand: what was not full may be anything. */
static void wal_inside_a_copy(void **state)
{
    (void)state;
    assert_lacks_inside("backup_label " PG_WAL_3, 4);
    assert_lacks_inside("backup_label " PG_WAL_3 " " DONE_3, 3);
    assert_lacks_inside(
        "backup_label " PG_WAL_3 " pg_wal/archive_status/000000010000000000000003.ready", 3);
    assert_lacks_inside("backup_label backup_manifest " PG_WAL_3, 3);
}

static void wal_inside_of_another_size(void **state)
{
    struct err err = ERR_INIT;
    const struct backup_objects none = {.count = 0};
    struct backup_index *index = index_env_make(&none, PG_WAL_3, MIB - 1);
    (void)state;
    struct wal_census *inside = backup_wal_of_index(index, MIB, &err);
    assert_int_equal(inside->segments, 0);
    wal_census_free(inside);
    backup_index_free(index);
}

/* WAL-E leaves pg_wal out. */
static void who_may_have_wal_inside(void **state)
{
    struct backup_info info = {.by_walefs = true};
    struct wal_way way = {.within = {.count = 1}};
    (void)state;
    assert_true(backup_wal_may_be_inside(&info, &way));
    info.by_walefs = false;
    assert_false(backup_wal_may_be_inside(&info, &way));
    info.by_walefs = true;
    way.within.count = 0;
    assert_false(backup_wal_may_be_inside(&info, &way));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(position_of_walefs),      cmocka_unit_test(position_of_a_name),
        cmocka_unit_test(what_cannot_be_told),     cmocka_unit_test(wal_inside),
        cmocka_unit_test(wal_inside_a_copy),       cmocka_unit_test(wal_inside_of_another_size),
        cmocka_unit_test(who_may_have_wal_inside),
    };
    return cmocka_run_group_tests_name("backup_wal", tests, NULL, NULL);
}
