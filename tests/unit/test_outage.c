#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log_ring.h"
#include "core/outage.h"

#define HOUR_MS (3600 * 1000)

static char *log_text(void)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    log_ring_print(out);
    fclose(out);
    return text;
}

/* A failure each 100 ms for six hours: ten lines, then fewer and fewer, then six an hour. */
static void test_lines_become_rare(void **state)
{
    (void)state;
    struct outage o = OUTAGE_INIT("it works again");
    unsigned lines = 0, in_last_hour = 0;
    uint64_t held_back, told = 0, failures = 0;
    for (int64_t t = 1000; t < 6 * HOUR_MS; t += 100, failures++) {
        if (!outage_log(&o, ERR_TIMEOUT, t, &held_back))
            continue;
        assert_true(failures >= OUTAGE_BURST || held_back == 0);
        lines++;
        in_last_hour += t >= 5 * HOUR_MS;
        told += held_back;
    }
    assert_in_range(lines, 40, 60);
    assert_in_range(in_last_hour, 5, 7);
    assert_true(told + lines + o.codes[ERR_TIMEOUT].held_back == failures);
    outage_over(&o, 6 * HOUR_MS);
    char *text = log_text();
    assert_non_null(strstr(text, "info: it works again after 21599 s; "));
    assert_non_null(strstr(text, " messages like those above were held back\n"));
    free(text);
    assert_false(o.down);
}

/* What fails now and then is no outage, but is not logged each time for ever either. */
static void test_now_and_then(void **state)
{
    (void)state;
    struct outage o = OUTAGE_INIT("now and then");
    unsigned lines = 0;
    uint64_t held_back;
    for (int64_t t = 0; t < HOUR_MS; t += 2000) {
        lines += outage_log(&o, ERR_TIMEOUT, t, &held_back);
        outage_over(&o, t + 1000);
    }
    assert_in_range(lines, 12, 30);
    char *text = log_text();
    assert_null(strstr(text, "now and then"));
    free(text);
}

static void test_after_a_calm_time_it_is_news(void **state)
{
    (void)state;
    struct outage o = OUTAGE_INIT("x");
    uint64_t held_back;
    int64_t t = 0;
    for (unsigned i = 0; i < 100; i++)
        (void)outage_log(&o, ERR_TIMEOUT, t++, &held_back);
    assert_false(outage_log(&o, ERR_TIMEOUT, t++, &held_back));
    outage_over(&o, t);
    t += OUTAGE_LONGEST_MS + 1000;
    for (unsigned i = 0; i < OUTAGE_BURST; i++)
        assert_true(outage_log(&o, ERR_TIMEOUT, t++, &held_back));
    assert_false(outage_log(&o, ERR_TIMEOUT, t, &held_back));
}

static void test_codes_do_not_hide_each_other(void **state)
{
    (void)state;
    struct outage o = OUTAGE_INIT("both are over");
    uint64_t held_back;
    int64_t t = 0;
    for (; t < 60000; t++)
        (void)outage_log(&o, ERR_UNAVAILABLE, t, &held_back);
    assert_true(outage_log(&o, ERR_NO_SPACE, t, &held_back));
    assert_int_equal(held_back, 0);
    outage_over(&o, t); /* one line for all */
    char *text = log_text();
    assert_non_null(strstr(text, "both are over after 60 s; "));
    size_t lines = 0;
    for (const char *p = text; (p = strstr(p, "both are over")) != NULL; p++)
        lines++;
    free(text);
    assert_int_equal(lines, 1);
}

static void test_the_line(void **state)
{
    (void)state;
    struct outage o = OUTAGE_INIT("x");
    struct err err = ERR_INIT;
    err_set(&err, ERR_TIMEOUT, "no answer");
    const struct log_details details = {.path = "wal/x", .err = &err};
    for (unsigned i = 0; i < OUTAGE_BURST; i++)
        assert_true(outage_failure(&o, LOG_LEVEL_WARN, &details, "waiting"));
    assert_false(outage_failure(&o, LOG_LEVEL_WARN, &details, "waiting"));
    o.codes[ERR_TIMEOUT].next_ms = 0;
    assert_true(outage_failure(&o, LOG_LEVEL_WARN, &details, "waiting"));
    char *text = log_text();
    assert_non_null(strstr(text, "warning: waiting: no answer path=wal/x error=timeout\n"));
    assert_non_null(strstr(text, "waiting: no answer (1 such messages were held back) path=wal/x"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_become_rare),
        cmocka_unit_test(test_now_and_then),
        cmocka_unit_test(test_after_a_calm_time_it_is_news),
        cmocka_unit_test(test_codes_do_not_hide_each_other),
        cmocka_unit_test(test_the_line),
    };
    log_setup(0, 0, LOG_LEVEL_INFO);
    return cmocka_run_group_tests_name("outage", tests, NULL, NULL);
}
