#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "core/call.h"

static void count_wake(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_now_moves_forward(void **state)
{
    (void)state;
    int64_t before = now_ms();
    assert_true(before >= 0);
    assert_true(cancel_sleep_ms(NULL, 20));
    int64_t slept = now_ms() - before;
    assert_true(slept >= 19 && slept < 5000);
}

static void test_fire(void **state)
{
    (void)state;
    struct cancel c;
    cancel_init(&c);
    assert_false(cancel_fired(&c));
    assert_false(cancel_fired(NULL));
    cancel_fire(&c);
    assert_true(cancel_fired(&c));
    cancel_fire(&c);
    assert_true(cancel_fired(&c));
    cancel_destroy(&c);
}

static void test_watchers(void **state)
{
    (void)state;
    struct cancel c;
    struct cancel_watch w[4];
    atomic_int woken[4] = {0, 0, 0, 0};
    cancel_init(&c);
    for (size_t i = 0; i < 4; i++)
        cancel_watch(&c, &w[i], count_wake, &woken[i]);
    cancel_unwatch(&c, &w[1]); /* in the middle of the list, */
    cancel_unwatch(&c, &w[3]); /* and at its end */
    cancel_fire(&c);
    cancel_fire(&c); /* at most once */
    assert_int_equal(woken[0], 1);
    assert_int_equal(woken[1], 0);
    assert_int_equal(woken[2], 1);
    assert_int_equal(woken[3], 0);
    cancel_unwatch(&c, &w[0]);
    cancel_unwatch(&c, &w[2]);

    /* fired already: at once */
    cancel_watch(&c, &w[1], count_wake, &woken[1]);
    assert_int_equal(woken[1], 1);
    cancel_unwatch(&c, &w[1]);
    cancel_destroy(&c);

    cancel_watch(NULL, &w[0], count_wake, &woken[0]);
    cancel_unwatch(NULL, &w[0]);
    assert_int_equal(woken[0], 1);
}

struct firing {
    struct cancel *cancel;
    int64_t after_ms;
};

static void *fire_later(void *arg)
{
    struct firing *f = arg;
    cancel_sleep_ms(NULL, f->after_ms);
    cancel_fire(f->cancel);
    return NULL;
}

static void test_sleep(void **state)
{
    (void)state;
    struct cancel c;
    cancel_init(&c);
    int64_t start = now_ms();
    assert_true(cancel_sleep_ms(&c, 30));
    assert_true(now_ms() - start >= 29);
    assert_true(cancel_sleep_ms(&c, 0));

    struct firing firing = {.cancel = &c, .after_ms = 50};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &firing), 0);
    start = now_ms();
    assert_false(cancel_sleep_ms(&c, 60000));
    assert_true(now_ms() - start < 10000);
    assert_int_equal(pthread_join(thread, NULL), 0);

    start = now_ms();
    assert_false(cancel_sleep_ms(&c, 60000)); /* fired before */
    assert_true(now_ms() - start < 10000);
    cancel_destroy(&c);
}

static void *watch_and_unwatch(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        struct cancel_watch w;
        atomic_int woken = 0; /* gone after unwatch: a late wake would be seen by a sanitizer */
        cancel_watch(arg, &w, count_wake, &woken);
        cancel_unwatch(arg, &w);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct cancel c;
    cancel_init(&c);
    pthread_t threads[5];
    struct firing firing = {.cancel = &c, .after_ms = 1};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, watch_and_unwatch, &c), 0);
    assert_int_equal(pthread_create(&threads[4], NULL, fire_later, &firing), 0);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(cancel_fired(&c));
    cancel_destroy(&c);
}

static void test_alive(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct cancel c;
    cancel_init(&c);
    struct call call = CALL_INIT;
    assert_true(call_alive(&call, "work", &err));
    assert_int_equal(call_left_ms(&call), INT64_MAX);
    call.cancel = &c;
    call.deadline_ms = now_ms() + 60000;
    assert_true(call_alive(&call, "work", &err));
    int64_t left = call_left_ms(&call);
    assert_true(left > 50000 && left <= 60000);
    assert_int_equal(err.code, ERR_NONE);

    call.deadline_ms = now_ms() - 5;
    assert_false(call_alive(&call, "reading base_1", &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "reading base_1"));
    assert_int_equal(call_left_ms(&call), 0);

    cancel_fire(&c); /* says more than the deadline */
    assert_false(call_alive(&call, "reading base_1", &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_non_null(strstr(err.text, "reading base_1"));
    cancel_destroy(&c);
}

static void test_progress(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct progress progress = {.limit_ms = 60000};
    struct call call = CALL_INIT;
    call.progress = &progress;
    atomic_store(&progress.last_ms, now_ms() - 30000);
    assert_true(call_alive(&call, "writing", &err));
    int64_t left = call_left_ms(&call);
    assert_true(left > 20000 && left <= 30000);
    call_progress(&call);
    assert_true(call_left_ms(&call) > 50000);

    atomic_store(&progress.last_ms, now_ms() - 60001);
    assert_int_equal(call_left_ms(&call), 0);
    assert_false(call_alive(&call, "writing", &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "writing"));
    call_progress(&call);
    assert_true(call_alive(&call, "writing", &err));

    /* whichever comes first */
    call.deadline_ms = now_ms() + 5000;
    assert_true(call_left_ms(&call) <= 5000);
    call.deadline_ms = now_ms() + 500000;
    left = call_left_ms(&call);
    assert_true(left > 50000 && left <= 60000);

    struct call without = CALL_INIT;
    call_progress(&without);
    assert_int_equal(call_left_ms(&without), INT64_MAX);
}

/* The clock ticks between any two looks at it: asked all the time while deadlines pass. */
static void test_deadline_passing_while_asked(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++) {
        struct err err = ERR_INIT;
        struct call call = CALL_INIT;
        call.deadline_ms = now_ms() + 2;
        while (call_alive(&call, "work", &err)) {
        }
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_int_equal(call_left_ms(&call), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_now_moves_forward),
        cmocka_unit_test(test_fire),
        cmocka_unit_test(test_watchers),
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_deadline_passing_while_asked),
    };
    return cmocka_run_group_tests_name("call", tests, NULL, NULL);
}
