#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/wal_history.h"

#define NAME "00000004.history"

static size_t parse(const char *text, struct wal_history_entry *out, size_t cap)
{
    struct err err = ERR_INIT;
    size_t n = wal_history_parse(NAME, text, strlen(text), out, cap, &err);
    assert_int_equal(err.code, n == 0 ? ERR_INVALID : ERR_NONE);
    if (n == 0)
        assert_non_null(strstr(err.text, NAME));
    return n;
}

static void test_entries(void **state)
{
    (void)state;
    struct wal_history_entry e[4];
    assert_int_equal(parse("# comment\n\n1\t0/3000000\tno recovery target\n"
                           "  3\tA/B0000001\tbefore 2000-01-01\n",
                           e, 4),
                     2);
    assert_int_equal(e[0].tli, 1);
    assert_int_equal(e[0].lsn, 0x3000000);
    assert_int_equal(e[1].tli, 3);
    assert_int_equal(e[1].lsn, UINT64_C(0xAB0000001));
    assert_int_equal(parse("1\t0/1\tx\n2\t0/2\tx\n3\t0/3", e, 2), 2); /* the last ones */
    assert_int_equal(e[0].tli, 2);
    assert_int_equal(e[1].tli, 3);
}

static void test_what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "# only a comment\n",
                                      "one\n",
                                      "1\t0\tx\n",
                                      "4\t0/1\tits own timeline\n",
                                      "2\t0/1\tx\n1\t0/2\tfalling\n",
                                      "1\t0/1\tx\n1\t0/2\ttwice\n"};
    struct wal_history_entry e[4];
    struct err err = ERR_INIT;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse(bad[i], e, 4), 0);
    assert_int_equal(wal_history_parse(NAME, "1\t0/1\tx\0", 8, e, 4, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_what_is_none),
    };
    return cmocka_run_group_tests_name("wal_history", tests, NULL, NULL);
}
