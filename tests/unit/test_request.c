/* fs/request.c: requests are interrupted one by one, or all when the mount ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "core/log.h"
#include "fs/request.h"

static struct request_table table;

static int set_up(void **state)
{
    (void)state;
    request_table_init(&table);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    request_table_destroy(&table);
    return 0;
}

static bool fired(const struct request *r)
{
    return cancel_fired(&r->cancel);
}

static void test_interrupt(void **state)
{
    (void)state;
    struct request a, b, c;
    request_begin(&table, &a, WORK_LOOKUP, false);
    request_begin(&table, &b, WORK_LOOKUP, false);
    request_begin(&table, &c, WORK_LOOKUP, false);
    assert_true(a.number != b.number && b.number != c.number && a.number != c.number);
    assert_ptr_equal(b.call.cancel, &b.cancel);
    request_interrupt(&table, b.number, false);
    assert_true(!fired(&a) && fired(&b) && !fired(&c));
    uint64_t gone = b.number;
    request_end(&table, &b);
    request_interrupt(&table, gone, true); /* answered already */
    request_interrupt(&table, 0, true);
    request_interrupt(&table, UINT64_MAX, true);
    assert_true(!fired(&a) && !fired(&c));
    struct request d; /* numbers are not used again */
    request_begin(&table, &d, WORK_LOOKUP, false);
    request_interrupt(&table, gone, true);
    assert_false(fired(&d));
    request_end(&table, &a); /* the list stays whole whatever is taken out of it */
    request_interrupt(&table, c.number, false);
    assert_true(fired(&c) && !fired(&d));
    request_end(&table, &d);
    request_end(&table, &c);
    assert_true(LIST_EMPTY(&table.requests));
}

static void test_publishing_is_interrupted_by_death_only(void **state)
{
    (void)state;
    struct request r;
    request_begin(&table, &r, WORK_LOOKUP, true);
    request_interrupt(&table, r.number, false);
    assert_false(fired(&r));
    request_interrupt(&table, r.number, true);
    assert_true(fired(&r));
    request_end(&table, &r);
}

struct worker {
    pthread_t thread;
    bool publishing;
    int64_t work_ms;
    bool cancelled;
    _Atomic bool begun;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct request r;
    request_begin(&table, &r, WORK_LOOKUP, w->publishing);
    w->begun = true;
    w->cancelled = !cancel_sleep_ms(r.call.cancel, w->work_ms);
    request_end(&table, &r);
    return NULL;
}

static void worker_start(struct worker *w)
{
    assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
    while (!w->begun)
        cancel_sleep_ms(NULL, 1);
}

static void test_stop(void **state)
{
    (void)state;
    struct worker reader = {.work_ms = 60000};
    struct worker writer = {.publishing = true, .work_ms = 300};
    worker_start(&reader);
    worker_start(&writer);
    int64_t t0 = now_ms();
    request_stop_all(&table, 50000); /* as long as the writer needs, no longer */
    assert_true(now_ms() - t0 < 40000);
    pthread_join(reader.thread, NULL);
    pthread_join(writer.thread, NULL);
    assert_true(reader.cancelled);
    assert_false(writer.cancelled);
    /* who comes now is cancelled at once */
    struct request late;
    request_begin(&table, &late, WORK_LOOKUP, true);
    assert_true(fired(&late));
    request_end(&table, &late);
    request_begin(&table, &late, WORK_LOOKUP, false);
    assert_true(fired(&late));
    request_end(&table, &late);
}

static void test_stop_ends_with_the_grace(void **state)
{
    (void)state;
    struct worker writer = {.publishing = true, .work_ms = 60000};
    worker_start(&writer);
    int64_t t0 = now_ms();
    request_stop_all(&table, 100);
    int64_t took = now_ms() - t0;
    assert_true(took >= 100 && took < 30000);
    pthread_join(writer.thread, NULL);
    assert_true(writer.cancelled);
}

static void test_stop_without_requests(void **state)
{
    (void)state;
    int64_t t0 = now_ms();
    request_stop_all(&table, 60000);
    assert_true(now_ms() - t0 < 30000);
}

/* ---- many ---- */

static void *churn(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3000; i++) {
        struct request r;
        request_begin(&table, &r, WORK_LOOKUP, i % 2 == 0);
        request_interrupt(&table, r.number > 3 ? r.number - 3 : 1, true);
        request_end(&table, &r);
    }
    return NULL;
}

static void test_many(void **state)
{
    (void)state;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_true(LIST_EMPTY(&table.requests));
    assert_int_equal(table.next_number, 8 * 3000 + 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_interrupt),
        T(test_publishing_is_interrupted_by_death_only),
        T(test_stop),
        T(test_stop_ends_with_the_grace),
        T(test_stop_without_requests),
        T(test_many),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
