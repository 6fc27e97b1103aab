#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/log_ring.h"

static char *printed(void)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    log_ring_print(out);
    fclose(out);
    return text;
}

static void test_lines_come_back_in_order(void **state)
{
    (void)state;
    log_ring_add(LOG_CLASS_OTHER, "one", 3, 0);
    log_ring_add(LOG_CLASS_ERROR, "two, cut", 3, 1764093600);
    char *text = printed();
    assert_string_equal(text, "1970-01-01T00:00:00Z one\n2025-11-25T18:00:00Z two\n");
    free(text);
}

/* Lines of all lengths, far more than there is room for: what is shown are the last ones, whole. */
static void test_the_oldest_go_first(void **state)
{
    (void)state;
    char line[4000];
    unsigned next = 0;
    for (unsigned i = 0; i < 3000; i++) {
        int n = snprintf(line, sizeof(line), "line %u ", i);
        size_t len = (size_t)n + i * 37 % 2500;
        memset(line + n, 'x', len - (size_t)n);
        log_ring_add(LOG_CLASS_OTHER, line, len, 0);
    }
    char *text = printed();
    assert_true(strlen(text) < LOG_RING_BYTES + 64 * 1024);
    assert_true(strlen(text) > LOG_RING_BYTES / 2);
    for (const char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
        unsigned number;
        assert_int_equal(sscanf(p, "1970-01-01T00:00:00Z line %u x", &number), 1);
        assert_true(next == 0 || number == next);
        next = number + 1;
    }
    assert_int_equal(next, 3000);
    free(text);
}

static void test_the_last_hour_is_counted(void **state)
{
    (void)state;
    const int64_t now = 1000000;
    for (int64_t s = now - 7200; s <= now; s += 60) /* each minute for two hours */
        log_ring_add(LOG_CLASS_ERROR, "e", 1, s);
    log_ring_add(LOG_CLASS_WARNING, "w", 1, now);
    assert_int_equal(log_ring_last_hour(LOG_CLASS_ERROR, now), LOG_RING_MINUTES);
    assert_int_equal(log_ring_last_hour(LOG_CLASS_WARNING, now), 1);
    assert_int_equal(log_ring_last_hour(LOG_CLASS_ERROR, now + 1800), 30);
    assert_int_equal(log_ring_last_hour(LOG_CLASS_ERROR, now + 7200), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_come_back_in_order),
        cmocka_unit_test(test_the_oldest_go_first),
        cmocka_unit_test(test_the_last_hour_is_counted),
    };
    return cmocka_run_group_tests_name("log_ring", tests, NULL, NULL);
}
