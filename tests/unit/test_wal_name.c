/* core/wal_name.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/wal_name.h"

#define MIB (1u << 20)

static void check(const char *name, enum wal_kind kind, uint32_t tli, uint32_t log, uint32_t seg)
{
    struct wal_name n = wal_name_parse(name);
    assert_int_equal(n.kind, kind);
    assert_int_equal(n.tli, tli);
    assert_int_equal(n.log, log);
    assert_int_equal(n.seg, seg);
}

static void test_names_of_postgresql(void **state)
{
    (void)state;
    check("000000010000000000000002", WAL_SEGMENT, 1, 0, 2);
    check("FFFFFFFFFFFFFFFFFFFFFFFF", WAL_SEGMENT, UINT32_MAX, UINT32_MAX, UINT32_MAX);
    check("0000000A0000000B0000000C", WAL_SEGMENT, 10, 11, 12);
    check("0000000A0000000B0000000C.partial", WAL_PARTIAL, 10, 11, 12);
    check("0000000A0000000B0000000C.00000028.backup", WAL_LABEL, 10, 11, 12);
    check("0000000A0000000B0000000C.ABCDEF09.backup", WAL_LABEL, 10, 11, 12);
    check("0000000A.history", WAL_HISTORY, 10, 0, 0);
}

static void test_all_else(void **state)
{
    (void)state;
    static const char *const names[] = {"",
                                        ".",
                                        "..",
                                        "0",
                                        "00000001",
                                        "00000001000000000000000",
                                        "0000000100000000000000020",
                                        "00000001000000000000000a",
                                        "00000001000000000000000G",
                                        "00000001000000000000000 ",
                                        " 00000001000000000000000",
                                        "+0000001000000000000000A",
                                        "0x0000010000000000000002",
                                        "000000010000000000000002\n",
                                        "000000010000000000000002.",
                                        "000000010000000000000002.lzo",
                                        "000000010000000000000002.PARTIAL",
                                        "000000010000000000000002.partial.",
                                        "000000010000000000000002.partial.tmp",
                                        "000000010000000000000002partial",
                                        "000000010000000000000002.backup",
                                        "000000010000000000000002.0000002.backup",
                                        "000000010000000000000002.000000028.backup",
                                        "000000010000000000000002.0000002g.backup",
                                        "000000010000000000000002.00000028.backup.x",
                                        "000000010000000000000002.00000028_backup",
                                        "000000010000000000000002_00000028.backup",
                                        "0000000A.History",
                                        "0000000A.history.tmp",
                                        "0000000A.histor",
                                        "0000000a.history",
                                        "000000A.history",
                                        "00000000A.history",
                                        "0000000A000000.history",
                                        "0000000A0000000B0000000C.history",
                                        "archtemp.000000010000000000000002.17.42",
                                        ".000000010000000000000002.Ab3xYz",
                                        "\xff\xff\xff\xff\xff\xff\xff\xff"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        check(names[i], WAL_OTHER, 0, 0, 0);
    char long_name[4096];
    memset(long_name, '0', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    check(long_name, WAL_OTHER, 0, 0, 0);
    for (size_t n = 0; n < 80; n++) { /* nothing is read behind the end */
        char exact[80];
        memset(exact, '0', n);
        exact[n] = '\0';
        if (n != 24)
            check(exact, WAL_OTHER, 0, 0, 0);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    for (uint64_t size = MIB; size <= 1024u * MIB; size *= 2) {
        assert_true(wal_segment_size_valid(size));
        assert_false(wal_segment_size_valid(size - 1));
        assert_false(wal_segment_size_valid(size + 1));
        assert_false(wal_segment_size_valid(size + size / 2));
    }
    static const uint64_t wrong[] = {
        0, 1, 512 * 1024, UINT64_C(2) << 30, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(wal_segment_size_valid(wrong[i]));
}

static void check_next(const char *name, uint32_t size, const char *next)
{
    char out[WAL_NAME_MAX] = "unchanged";
    struct wal_name n = wal_name_parse(name);
    assert_int_equal(wal_name_next(&n, size, out), next != NULL);
    if (next != NULL)
        assert_string_equal(out, next);
}

static void test_next(void **state)
{
    (void)state;
    check_next("000000010000000000000002", 16 * MIB, "000000010000000000000003");
    check_next("0000000100000000000000FE", 16 * MIB, "0000000100000000000000FF");
    check_next("0000000100000000000000FF", 16 * MIB, "000000010000000100000000");
    check_next("0000000100000000000000FF", MIB, "000000010000000000000100");
    check_next("000000010000000000000FFF", MIB, "000000010000000100000000");
    check_next("000000010000000000000003", 1024 * MIB, "000000010000000100000000");
    check_next("000000010000000000000002", 1024 * MIB, "000000010000000000000003");
    check_next("0000000A0000000F0000003F", 64 * MIB, "0000000A0000001000000000");
    /* numbers that do not exist with that size */
    check_next("000000010000000000000100", 16 * MIB, NULL);
    check_next("000000010000000000000004", 1024 * MIB, NULL);
    check_next("0000000100000000FFFFFFFF", MIB, NULL);
    /* the end of WAL */
    check_next("00000001FFFFFFFF000000FE", 16 * MIB, "00000001FFFFFFFF000000FF");
    check_next("00000001FFFFFFFF000000FF", 16 * MIB, NULL);
    check_next("00000001FFFFFFFF00000FFF", MIB, NULL);
    check_next("00000001FFFFFFFF00000003", 1024 * MIB, NULL);
}

/* Counting through one log file gives as many names as it has segments. */
static void test_next_counts(void **state)
{
    (void)state;
    for (uint32_t size = MIB; size <= 1024 * MIB; size *= 2) {
        char name[WAL_NAME_MAX] = "000000010000000000000000";
        uint32_t count = 0;
        struct wal_name n = wal_name_parse(name);
        while (n.log == 0) {
            assert_int_equal(n.kind, WAL_SEGMENT);
            assert_int_equal(n.seg, count);
            assert_true(wal_name_next(&n, size, name));
            n = wal_name_parse(name);
            count++;
        }
        assert_int_equal((uint64_t)count * size, UINT64_C(1) << 32);
        assert_int_equal(n.seg, 0);
    }
}

static void test_keys(void **state)
{
    (void)state;
    static const char *const names[] = {
        "000000010000000000000002", "000000010000000000000002.partial",
        "000000010000000000000002.00000028.backup", "00000002.history"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char key[128], expected[128], back[WAL_NAME_MAX];
        (void)snprintf(expected, sizeof(expected), "wal_005/%s.lzo", names[i]);
        assert_true(wal_key_of_name(names[i], key, sizeof(key)));
        assert_string_equal(key, expected);
        assert_true(wal_name_of_key(key, back));
        assert_string_equal(back, names[i]);
        size_t n = strlen(expected);
        assert_true(wal_key_of_name(names[i], key, n + 1));
        assert_false(wal_key_of_name(names[i], key, n));
        assert_false(wal_key_of_name(names[i], key, 1));
    }
}

static void test_foreign_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "",
        "wal_005/",
        "wal_005/.lzo",
        "wal_005/lzo",
        ".lzo",
        "wal_005.lzo",
        "wal_005/000000010000000000000002",
        "wal_005/000000010000000000000002.lz4",
        "wal_005/000000010000000000000002.LZO",
        "wal_005/000000010000000000000002.lzo.lzo",
        "wal_005/000000010000000000000002.lzo/",
        "wal_005//000000010000000000000002.lzo",
        "wal_005/x/000000010000000000000002.lzo",
        "wal_005/../000000010000000000000002.lzo",
        "WAL_005/000000010000000000000002.lzo",
        "wal_004/000000010000000000000002.lzo",
        "/wal_005/000000010000000000000002.lzo",
        "wal_005/00000001000000000000000a.lzo",
        "wal_005/000000010000000000000002\n.lzo",
        "000000010000000000000002.lzo",
        "basebackups_005/base_000000010000000000000002_00000040_backup_stop_sentinel.json"};
    char name[WAL_NAME_MAX];
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        assert_false(wal_name_of_key(keys[i], name));
    char key[2048];
    (void)snprintf(key, sizeof(key), "wal_005/%01000d.lzo", 0);
    assert_false(wal_name_of_key(key, name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_postgresql),
        cmocka_unit_test(test_all_else),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_next_counts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_foreign_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
