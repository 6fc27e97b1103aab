/* core/human.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/human.h"

static void ages(void **state)
{
    static const struct {
        int64_t s;
        const char *text;
    } cases[] = {{-5, "0 seconds"}, {0, "0 seconds"},     {119, "119 seconds"}, {120, "2 minutes"},
                 {7300, "2 hours"}, {172799, "47 hours"}, {200000, "2 days"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[HUMAN_MAX];
        human_age(cases[i].s, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void sizes(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 bytes"},
                 {1023, "1023 bytes"},
                 {1024, "1.0 KiB"},
                 {UINT64_C(3) << 29, "1.5 GiB"},
                 {UINT64_C(300) << 20, "300 MiB"},
                 {UINT64_MAX, "16384 PiB"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[HUMAN_MAX];
        human_bytes(cases[i].bytes, text);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ages), cmocka_unit_test(sizes)};
    return cmocka_run_group_tests_name("human", tests, NULL, NULL);
}
