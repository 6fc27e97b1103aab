/* Back-off: how long, how often, and what ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/retry.h"

static uint32_t drawn;

ssize_t getrandom(void *buf, size_t n, unsigned flags)
{
    if (n != sizeof(drawn)) /* not ours */
        return syscall(SYS_getrandom, buf, n, flags);
    memcpy(buf, &drawn, sizeof(drawn));
    return (ssize_t)n;
}

static void test_delays(void **state)
{
    (void)state;
    struct retry r;
    retry_init(&r, 10);
    static const uint32_t limits[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    for (unsigned i = 0; i < 8; i++) {
        r.tries = i + 1;
        /* full jitter: anything from nothing to the limit */
        assert_int_equal(retry_delay_ms(&r, 0, 0), 0);
        assert_int_equal(retry_delay_ms(&r, 0, limits[i]), limits[i]);
        for (uint32_t random = 1; random > 0 && random < UINT32_MAX / 3; random *= 3)
            assert_true(retry_delay_ms(&r, 0, random) <= limits[i]);
    }
    r.tries = 4000000000u;
    assert_true(retry_delay_ms(&r, 0, 12345678) <= 5000);
}

static void test_retry_after(void **state)
{
    (void)state;
    struct retry r;
    retry_init(&r, 10);
    r.tries = 1;
    assert_int_equal(retry_delay_ms(&r, 7000, 0), 7000);
    assert_int_equal(retry_delay_ms(&r, 50, 100), 100);
    assert_int_equal(retry_delay_ms(&r, 3600 * 1000, 0), RETRY_AFTER_MAX_MS);
}

static void test_tries_are_bounded(void **state)
{
    (void)state;
    struct retry r;
    struct call call = CALL_INIT;
    struct err err = ERR_INIT;
    retry_init(&r, 3);
    r.base_ms = 1;
    err_set(&err, ERR_UNAVAILABLE, "gone");
    assert_true(retry_again(&r, &call, &err));
    assert_true(retry_again(&r, &call, &err));
    assert_false(retry_again(&r, &call, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_string_equal(err.text, "gone (tried 3 times)");
    retry_init(&r, 1);
    err_set(&err, ERR_UNAVAILABLE, "gone");
    assert_false(retry_again(&r, &call, &err));
    assert_string_equal(err.text, "gone");
}

/* What cannot end before the deadline is not begun; the cause stays the cause. */
static void test_deadline(void **state)
{
    (void)state;
    struct retry r;
    struct err err = ERR_INIT;
    retry_init(&r, 100);
    struct call call = {.deadline_ms = now_ms() + 15000};
    err_set(&err, ERR_THROTTLED, "slow down");
    err.retry_after_ms = 20000;
    int64_t start = now_ms();
    assert_false(retry_again(&r, &call, &err));
    assert_true(now_ms() - start < 10000);
    assert_int_equal(err.code, ERR_THROTTLED);
    call.deadline_ms = now_ms() - 1;
    err.retry_after_ms = 0;
    assert_false(retry_again(&r, &call, &err));
    assert_int_equal(err.code, ERR_THROTTLED);
}

/* Each wait is drawn anew: what does not fit before the deadline gives up at once. */
static void test_drawn(void **state)
{
    (void)state;
    static const struct {
        uint32_t random;
        bool again;
    } draws[] = {{20000, false}, {0, true}, {20000, false}};
    for (size_t i = 0; i < 3; i++) {
        struct retry r;
        struct err err = ERR_INIT;
        const struct call call = {.deadline_ms = now_ms() + 15000};
        retry_init(&r, 3);
        r.base_ms = r.cap_ms = 30000;
        drawn = draws[i].random;
        err_set(&err, ERR_UNAVAILABLE, "gone");
        assert_int_equal(retry_again(&r, &call, &err), draws[i].again);
    }
}

static void *fire(void *arg)
{
    cancel_sleep_ms(NULL, 50);
    cancel_fire(arg);
    return NULL;
}

static void test_cancel(void **state)
{
    (void)state;
    struct retry r;
    struct cancel cancel;
    struct err err = ERR_INIT;
    pthread_t thread;
    cancel_init(&cancel);
    retry_init(&r, 100);
    struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    err_set(&err, ERR_THROTTLED, "slow down");
    err.retry_after_ms = 20000;
    int64_t start = now_ms();
    assert_int_equal(pthread_create(&thread, NULL, fire, &cancel), 0);
    assert_false(retry_again(&r, &call, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_true(now_ms() - start < 10000);
    pthread_join(thread, NULL);
    err_set(&err, ERR_UNAVAILABLE, "gone");
    assert_false(retry_again(&r, &call, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    cancel_destroy(&cancel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_tries_are_bounded),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_drawn),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
