#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/wal_history.h"

#define NAME "00000004.history"

static void test_entries(void **state)
{
    (void)state;
    static const char text[] = "# comment\n\n1\t0/3000000\tno recovery target\n"
                               "  3\tA/B0000001\tbefore 2000-01-01\n";
    struct err err = ERR_INIT;
    struct wal_history h;
    assert_true(wal_history_parse(NAME, text, sizeof(text) - 1, &h, &err));
    assert_int_equal(h.tli, 4);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.of[0].tli, 1);
    assert_int_equal(h.of[0].end, 0x3000000);
    assert_int_equal(h.of[1].tli, 3);
    assert_int_equal(h.of[1].end, UINT64_C(0xAB0000001));
    wal_history_free(&h);
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
    for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = ERR_INIT;
        struct wal_history h;
        bool nul = i == sizeof(bad) / sizeof(bad[0]);
        assert_false(wal_history_parse(NAME, nul ? "1\t0/1\tx\0" : bad[i], nul ? 8 : strlen(bad[i]),
                                       &h, &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.text, NAME));
        assert_int_equal(h.count, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_what_is_none),
    };
    return cmocka_run_group_tests_name("wal_history", tests, NULL, NULL);
}
