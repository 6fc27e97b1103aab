/* core/waiter.c and core/call.c: everything that waits can be ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "core/waiter.h"

#define LIMIT_MS 60000 /* a generous upper bound */

static struct cancel cancel;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond;
static bool condition; /* lock */

static int set_up(void **state)
{
    (void)state;
    cancel_init(&cancel);
    waiter_cond_init(&cond);
    condition = false;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cancel_destroy(&cancel);
    pthread_cond_destroy(&cond);
    return 0;
}

/* ---- cancel ---- */

static void count(void *arg)
{
    ++*(int *)arg;
}

static void test_cancel(void **state)
{
    (void)state;
    int a = 0, b = 0, c = 0;
    struct cancel_watch wa, wb, wc;
    assert_false(cancel_fired(&cancel));
    assert_false(cancel_fired(NULL));
    cancel_watch(&cancel, &wa, count, &a);
    cancel_watch(&cancel, &wb, count, &b);
    cancel_watch(&cancel, &wc, count, &c);
    cancel_unwatch(&cancel, &wb); /* from the middle of the list */
    assert_int_equal(a + b + c, 0);
    cancel_fire(&cancel);
    cancel_fire(&cancel);
    assert_true(cancel_fired(&cancel));
    assert_int_equal(a, 1); /* once */
    assert_int_equal(b, 0);
    assert_int_equal(c, 1);
    cancel_watch(&cancel, &wb, count, &b); /* too late: at once */
    assert_int_equal(b, 1);
    cancel_unwatch(&cancel, &wa);
    cancel_unwatch(&cancel, &wb);
    cancel_unwatch(&cancel, &wc);
    cancel_watch(NULL, &wa, count, &a);
    cancel_unwatch(NULL, &wa);
    assert_int_equal(a, 1);
}

static void *fire_later(void *arg)
{
    cancel_sleep_ms(NULL, *(int *)arg);
    cancel_fire(&cancel);
    return NULL;
}

static void test_sleeping(void **state)
{
    (void)state;
    int64_t t0 = now_ms();
    assert_true(cancel_sleep_ms(NULL, 30));
    assert_true(now_ms() - t0 >= 30);
    t0 = now_ms();
    assert_true(cancel_sleep_ms(&cancel, 30));
    assert_true(now_ms() - t0 >= 30);
    assert_true(cancel_sleep_ms(&cancel, 0));
    pthread_t thread;
    int after_ms = 30;
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &after_ms), 0);
    t0 = now_ms();
    assert_false(cancel_sleep_ms(&cancel, 10 * LIMIT_MS));
    assert_true(now_ms() - t0 < LIMIT_MS);
    pthread_join(thread, NULL);
    assert_false(cancel_sleep_ms(&cancel, 10 * LIMIT_MS));
    assert_false(cancel_sleep_ms(&cancel, 0));
}

/* ---- call ---- */

static void test_alive(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct call call = CALL_INIT;
    assert_true(call_alive(&call, "x", &err));
    assert_int_equal(call_left_ms(&call), INT64_MAX);
    call.deadline_ms = now_ms() + LIMIT_MS;
    assert_true(call_alive(&call, "x", &err));
    assert_in_range(call_left_ms(&call), 1, LIMIT_MS);
    call.deadline_ms = now_ms();
    assert_false(call_alive(&call, "the work", &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "the work"));
    assert_int_equal(call_left_ms(&call), 0);
    call.deadline_ms = 0;
    assert_int_equal(call_left_ms(&call), 0);
    call.cancel = &cancel;
    cancel_fire(&cancel);
    assert_false(call_alive(&call, "x", &err));
    assert_int_equal(err.code, ERR_CANCELLED); /* who cancelled hears of that, not of a deadline */
}

static void test_progress(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct progress progress = {.limit_ms = LIMIT_MS, .last_ms = now_ms()};
    struct call call = {.deadline_ms = DEADLINE_NONE, .progress = &progress};
    assert_true(call_alive(&call, "x", &err));
    assert_in_range(call_left_ms(&call), 1, LIMIT_MS);
    progress.last_ms = now_ms() - LIMIT_MS - 1;
    assert_false(call_alive(&call, "the work", &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "the work"));
    assert_int_equal(call_left_ms(&call), 0);
    call_progress(&call);
    assert_true(call_alive(&call, "x", &err));
    /* progress does not move a deadline */
    call.deadline_ms = now_ms() - 1;
    call_progress(&call);
    assert_false(call_alive(&call, "x", &err));
    assert_int_equal(call_left_ms(&call), 0);
    call.progress = NULL;
    call_progress(&call);
}

/* ---- waiter ---- */

struct setter {
    int after_ms;
    bool fire;
};

static void *set_later(void *arg)
{
    struct setter *s = arg;
    cancel_sleep_ms(NULL, s->after_ms);
    if (s->fire) {
        cancel_fire(&cancel);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    condition = true;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static bool wait_for_condition(const struct call *call)
{
    struct waiter w;
    waiter_begin(&w, call, &lock, &cond);
    pthread_mutex_lock(&lock);
    while (!condition && waiter_wait(&w)) {
    }
    bool met = condition;
    pthread_mutex_unlock(&lock);
    waiter_end(&w);
    return met;
}

static void check_wait(struct setter setter, int64_t deadline_ms, bool met)
{
    pthread_t thread;
    const struct call call = {.cancel = &cancel, .deadline_ms = deadline_ms};
    assert_int_equal(pthread_create(&thread, NULL, set_later, &setter), 0);
    int64_t t0 = now_ms();
    assert_int_equal(wait_for_condition(&call), met);
    assert_true(now_ms() - t0 < LIMIT_MS);
    pthread_join(thread, NULL);
}

static void test_wakes(void **state)
{
    (void)state;
    check_wait((struct setter){.after_ms = 0}, DEADLINE_NONE, true);
    condition = false;
    check_wait((struct setter){.after_ms = 50}, DEADLINE_NONE, true);
    condition = false;
    check_wait((struct setter){.after_ms = 50}, now_ms() + 10 * LIMIT_MS, true);
}

static void test_cancel_ends_the_wait(void **state)
{
    (void)state;
    check_wait((struct setter){.after_ms = 50, .fire = true}, DEADLINE_NONE, false);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    assert_false(wait_for_condition(&call)); /* and stays fired */
    condition = true;
    assert_true(wait_for_condition(&call)); /* what is there already is taken */
}

static void test_deadline_ends_the_wait(void **state)
{
    (void)state;
    int64_t t0 = now_ms();
    const struct call call = {.cancel = &cancel, .deadline_ms = t0 + 50};
    assert_false(wait_for_condition(&call));
    assert_true(now_ms() - t0 >= 50);
    const struct call without = {.deadline_ms = now_ms() + 20}; /* no cancel at all */
    assert_false(wait_for_condition(&without));
}

static _Atomic bool moving;

static void *make_progress(void *arg)
{
    while (moving) {
        call_progress(arg);
        cancel_sleep_ms(NULL, 5);
    }
    return NULL;
}

static void test_progress_prolongs_the_wait(void **state)
{
    (void)state;
    pthread_t thread;
    struct progress progress = {.limit_ms = 2000, .last_ms = now_ms()};
    struct call call = {.deadline_ms = DEADLINE_NONE, .progress = &progress};
    moving = true;
    assert_int_equal(pthread_create(&thread, NULL, make_progress, &call), 0);
    pthread_t other;
    struct setter setter = {.after_ms = 3000};
    assert_int_equal(pthread_create(&other, NULL, set_later, &setter), 0);
    assert_true(wait_for_condition(&call)); /* longer than the limit */
    moving = false;
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
    condition = false;
    int64_t t0 = now_ms();
    progress.limit_ms = 50;
    call_progress(&call);
    assert_false(wait_for_condition(&call));
    assert_true(now_ms() - t0 >= 50);
}

/* No wake-up is lost however closely cancel and wait meet. */
static void *wait_in_thread(void *arg)
{
    return wait_for_condition(arg) ? arg : NULL;
}

static void test_no_lost_wake_up(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        pthread_t threads[2];
        struct cancel c;
        cancel_init(&c);
        const struct call call = {.cancel = &c, .deadline_ms = DEADLINE_NONE};
        for (int k = 0; k < 2; k++)
            assert_int_equal(pthread_create(&threads[k], NULL, wait_in_thread, (void *)&call), 0);
        cancel_fire(&c);
        for (int k = 0; k < 2; k++)
            pthread_join(threads[k], NULL);
        cancel_destroy(&c);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_cancel),
        T(test_sleeping),
        T(test_alive),
        T(test_progress),
        T(test_wakes),
        T(test_cancel_ends_the_wait),
        T(test_deadline_ends_the_wait),
        T(test_progress_prolongs_the_wait),
        T(test_no_lost_wake_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
