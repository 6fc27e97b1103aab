#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs/survey.h"

/* The store: counts what it is asked, hangs until it is let go, or fails. */
static struct world {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hang;   /* lock */
    bool fail;   /* lock */
    int value;   /* lock: what it tells */
    int asked;   /* lock */
    int hanging; /* lock */
    int slow_ms; /* lock */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
static atomic_int results;
static struct pool *pool;
static struct survey *survey;

static void wake(void *arg)
{
    (void)arg;
    pthread_cond_broadcast(&world.changed);
}

static void *make(void *arg, const struct call *call, struct err *err)
{
    struct cancel_watch watch;
    int *result = NULL;
    assert_ptr_equal(arg, &world);
    cancel_watch(call->cancel, &watch, wake, NULL);
    pthread_mutex_lock(&world.lock);
    world.asked++;
    int value = world.value, slow_ms = world.slow_ms;
    world.hanging++;
    pthread_cond_broadcast(&world.changed);
    while (world.hang && !cancel_fired(call->cancel)) {
        struct timespec soon;
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 20000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&world.changed, &world.lock, &soon);
    }
    world.hanging--;
    bool fail = world.fail;
    pthread_mutex_unlock(&world.lock);
    cancel_unwatch(call->cancel, &watch);
    cancel_sleep_ms(call->cancel, slow_ms);
    if (fail || cancel_fired(call->cancel)) {
        err_set(err, ERR_UNAVAILABLE, "the store is down");
        return NULL;
    }
    result = malloc(sizeof(*result));
    *result = value;
    atomic_fetch_add(&results, 1);
    return result;
}

static void free_result(void *result)
{
    atomic_fetch_sub(&results, 1);
    free(result);
}

static int begin(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const struct survey_options options = {.arg = &world, .make = make, .free_result = free_result};
    struct survey_options with_pool = options;
    world.hang = world.fail = false;
    world.value = world.asked = world.slow_ms = 0;
    pool = pool_new(4, 50, &err);
    with_pool.pool = pool;
    survey = survey_new(&with_pool, &err);
    return survey == NULL;
}

static int end(void **state)
{
    (void)state;
    survey_stop(survey);
    pool_free(pool);
    survey_free(survey);
    assert_int_equal(atomic_load(&results), 0);
    return 0;
}

static void tell(int value, bool hang, bool fail)
{
    pthread_mutex_lock(&world.lock);
    world.value = value;
    world.hang = hang;
    world.fail = fail;
    pthread_cond_broadcast(&world.changed);
    pthread_mutex_unlock(&world.lock);
}

/* One of the numbers, which the pool's threads change. */
static int look(const int *number)
{
    pthread_mutex_lock(&world.lock);
    int value = *number;
    pthread_mutex_unlock(&world.lock);
    return value;
}

/* -1: nothing known. */
static int get(int64_t patience_ms, bool *stale, struct err *err)
{
    const struct call call = {.deadline_ms = now_ms() + patience_ms};
    struct survey_result *r = survey_get(survey, now_us(), stale, &call, err);
    int value = r == NULL ? -1 : *(int *)r->data;
    survey_result_unref(r);
    return value;
}

#define LONG_MS 20000

static void test_each_look_is_fresh(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool stale;
    for (int i = 0; i < 200; i++) {
        tell(i, false, false);
        assert_int_equal(get(LONG_MS, &stale, &err), i);
        assert_false(stale);
    }
    assert_int_equal(look(&world.asked), 200);
}

static void test_a_hung_store(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool stale;
    tell(1, true, false);
    assert_int_equal(get(50, &stale, &err), -1);
    assert_true(stale);
    assert_int_equal(err.code, ERR_TIMEOUT);
    tell(1, false, false);
    assert_int_equal(get(LONG_MS, &stale, &err), 1);
    tell(2, true, false);
    assert_int_equal(get(50, &stale, &err), 1);
    assert_true(stale);
    assert_int_equal(get(50, &stale, &err), 1); /* one that hangs is not joined by another */
    assert_true(look(&world.hanging) <= 1);
    tell(3, false, false); /* the run began before this was so: another one follows it */
    assert_int_equal(get(LONG_MS, &stale, &err), 3);
    assert_false(stale);
}

static void test_a_failing_store(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool stale;
    tell(1, false, true);
    assert_int_equal(get(LONG_MS, &stale, &err), -1); /* at once */
    assert_true(stale);
    assert_string_equal(err.text, "the store is down");
    assert_int_equal(look(&world.asked), 1);
    tell(2, false, false);
    assert_int_equal(get(LONG_MS, &stale, &err), 2);
    tell(3, false, true);
    assert_int_equal(get(LONG_MS, &stale, &err), 2);
    assert_true(stale);
    assert_string_equal(err.text, "the store is down");
}

/* What takes long goes on without those who have asked, and then does for a while. */
static void test_what_takes_long(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool stale;
    world.slow_ms = 1100;
    tell(1, false, false);
    assert_int_equal(get(10, &stale, &err), -1);
    assert_int_equal(get(LONG_MS, &stale, &err), 1);
    assert_false(stale);
    int asked = look(&world.asked);
    tell(2, false, false);
    assert_int_equal(get(LONG_MS, &stale, &err), 1);
    assert_true(stale);
    assert_non_null(strstr(err.text, "takes 1 s"));
    assert_int_equal(look(&world.asked), asked);
}

static void test_peeking_never_waits(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool stale;
    tell(5, true, false);
    assert_null(survey_peek(survey, LONG_MS));
    assert_null(survey_peek(survey, LONG_MS));
    tell(6, false, false);
    assert_int_equal(get(LONG_MS, &stale, &err), 6);
    int asked = look(&world.asked);
    struct survey_result *r = survey_peek(survey, LONG_MS);
    assert_int_equal(*(int *)r->data, 6);
    survey_result_unref(r);
    assert_int_equal(look(&world.asked), asked); /* young enough */
}

/* The end comes while somebody waits. */
static void *wait_long(void *arg)
{
    bool stale;
    struct err err = ERR_INIT;
    (void)arg;
    (void)get(LONG_MS, &stale, &err);
    return NULL;
}

static void test_the_end(void **state)
{
    (void)state;
    pthread_t t;
    tell(1, true, false);
    assert_int_equal(pthread_create(&t, NULL, wait_long, NULL), 0);
    pthread_mutex_lock(&world.lock);
    while (world.hanging == 0)
        pthread_cond_wait(&world.changed, &world.lock);
    pthread_mutex_unlock(&world.lock);
    survey_stop(survey);
    pthread_join(t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_look_is_fresh, begin, end),
        cmocka_unit_test_setup_teardown(test_a_hung_store, begin, end),
        cmocka_unit_test_setup_teardown(test_a_failing_store, begin, end),
        cmocka_unit_test_setup_teardown(test_what_takes_long, begin, end),
        cmocka_unit_test_setup_teardown(test_peeking_never_waits, begin, end),
        cmocka_unit_test_setup_teardown(test_the_end, begin, end),
    };
    return cmocka_run_group_tests_name("survey", tests, NULL, NULL);
}
