/* core/pool.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "core/call.h"
#include "core/pool.h"
#include "wait_for.h"

static struct pool *new_pool(unsigned max_threads, uint32_t idle_ms)
{
    struct err err = ERR_INIT;
    struct pool *p = pool_new(max_threads, idle_ms, &err);
    assert_non_null(p);
    return p;
}

static void submit(struct pool *p, pool_job *job, void *arg)
{
    struct err err = ERR_INIT;
    assert_true(pool_submit(p, job, arg, &err));
}

static size_t threads(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

struct gate {
    struct cancel open; /* fired: jobs may end */
    _Atomic unsigned inside, done, most;
};

static void blocking_job(void *arg)
{
    struct gate *g = arg;
    unsigned now = ++g->inside;
    unsigned most = g->most;
    while (now > most && !atomic_compare_exchange_weak(&g->most, &most, now)) {
    }
    (void)cancel_sleep_ms(&g->open, 10 * LIMIT_MS);
    g->inside--;
    g->done++;
}

static void quick_job(void *arg)
{
    ++*(_Atomic unsigned *)arg;
}

static void test_thousands(void **state)
{
    (void)state;
    _Atomic unsigned count = 0;
    struct pool *p = new_pool(8, 1000);
    for (int i = 0; i < 20000; i++)
        submit(p, quick_job, (void *)&count);
    pool_free(p);
    assert_int_equal(count, 20000);
}

static void test_free_waits(void **state)
{
    (void)state;
    struct gate g = {.inside = 0};
    cancel_init(&g.open);
    struct pool *p = new_pool(2, 1000);
    for (int i = 0; i < 6; i++)
        submit(p, blocking_job, &g);
    WAIT_FOR(g.inside == 2);
    cancel_fire(&g.open);
    pool_free(p);
    assert_int_equal(g.done, 6); /* also those that had not begun */
    cancel_destroy(&g.open);
    pool_free(NULL);
    pool_free(new_pool(4, 1000));
}

/* A job that is stuck never keeps another from being run, up to the limit. */
static void test_grows_while_jobs_block(void **state)
{
    (void)state;
    struct gate g = {.inside = 0};
    _Atomic unsigned quick = 0;
    cancel_init(&g.open);
    struct pool *p = new_pool(32, 1000);
    for (unsigned i = 1; i <= 31; i++) {
        submit(p, blocking_job, &g);
        WAIT_FOR(g.inside == i);
        submit(p, quick_job, (void *)&quick);
        WAIT_FOR(quick == i);
    }
    submit(p, blocking_job, &g);
    WAIT_FOR(g.inside == 32);
    submit(p, quick_job, (void *)&quick); /* the limit: this one waits */
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(quick, 31);
    cancel_fire(&g.open);
    WAIT_FOR(quick == 32);
    pool_free(p);
    assert_int_equal(g.most, 32);
    cancel_destroy(&g.open);
}

/* As many as there may be threads, whether these have started or not. */
static void test_now_or_not_at_all(void **state)
{
    (void)state;
    struct gate g = {.inside = 0};
    struct err err = ERR_INIT;
    _Atomic unsigned quick = 0;
    cancel_init(&g.open);
    struct pool *p = new_pool(32, 1000);
    for (unsigned i = 0; i < 32; i++)
        assert_true(pool_submit_now(p, blocking_job, &g, &err));
    assert_false(pool_submit_now(p, quick_job, (void *)&quick, &err));
    assert_int_equal(err.code, ERR_BUSY);
    cancel_fire(&g.open);
    WAIT_FOR(pool_submit_now(p, quick_job, (void *)&quick, &err));
    WAIT_FOR(quick == 1);
    pool_free(p);
    cancel_destroy(&g.open);
}

/* The same when they come all at once, with idle threads about to take them or to end. */
static void test_bursts(void **state)
{
    (void)state;
    struct pool *p = new_pool(16, 1);
    for (int round = 0; round < 200; round++) {
        struct gate g = {.inside = 0};
        _Atomic unsigned quick = 0;
        cancel_init(&g.open);
        for (int i = 0; i < 15; i++)
            submit(p, blocking_job, &g);
        submit(p, quick_job, (void *)&quick);
        WAIT_FOR(quick == 1);
        WAIT_FOR(g.inside == 15);
        cancel_fire(&g.open);
        WAIT_FOR(g.done == 15);
        cancel_sleep_ms(NULL, round % 4);
        cancel_destroy(&g.open);
    }
    pool_free(p);
}

static size_t threads_at_start;

static void test_shrinks(void **state)
{
    (void)state;
    size_t before = threads_at_start;
    WAIT_FOR(threads() == before); /* those of earlier pools may be about to end */
    struct gate g = {.inside = 0};
    cancel_init(&g.open);
    struct pool *p = new_pool(32, 20);
    assert_int_equal(threads(), before); /* none before there is work */
    for (int i = 0; i < 20; i++)
        submit(p, blocking_job, &g);
    WAIT_FOR(g.inside == 20);
    assert_int_equal(threads(), before + 20);
    cancel_fire(&g.open);
    WAIT_FOR(threads() == before);
    _Atomic unsigned quick = 0;
    submit(p, quick_job, (void *)&quick); /* and grows again */
    WAIT_FOR(quick == 1);
    pool_free(p);
    cancel_destroy(&g.open);
}

static pthread_key_t key;
static _Atomic unsigned keyed, destroyed;

static void slow_destructor(void *value)
{
    (void)value;
    cancel_sleep_ms(NULL, 50);
    destroyed++;
}

static void keyed_job(void *arg)
{
    pthread_setspecific(key, arg);
    keyed++;
    cancel_sleep_ms(NULL, 20);
}

/* What libraries free when a thread ends has been freed when pool_free returns, and not only when
 * the thread has done its work: they free it once more when the program exits. */
static void test_free_waits_for_the_very_end_of_threads(void **state)
{
    (void)state;
    keyed = destroyed = 0;
    assert_int_equal(pthread_key_create(&key, slow_destructor), 0);
    struct pool *p = new_pool(8, 1); /* some end before, some with the pool */
    for (unsigned i = 0; i < 8; i++)
        submit(p, keyed_job, p);
    WAIT_FOR(keyed == 8);
    cancel_sleep_ms(NULL, 60);
    for (unsigned i = 0; i < 4; i++)
        submit(p, keyed_job, p);
    size_t before = threads();
    pool_free(p);
    assert_true(before > threads_at_start);
    assert_int_equal(threads(), threads_at_start);
    assert_true(destroyed > 0);
    pthread_key_delete(key);
}

/* Idle threads end with the pool, however long they might have idled. */
static void test_free_does_not_wait_for_idleness(void **state)
{
    (void)state;
    _Atomic unsigned quick = 0;
    struct pool *p = new_pool(4, 10 * LIMIT_MS);
    submit(p, quick_job, (void *)&quick);
    WAIT_FOR(quick == 1);
    int64_t t0 = now_ms();
    pool_free(p);
    assert_true(now_ms() - t0 < LIMIT_MS);
}

struct order {
    pthread_mutex_t lock;
    int next;
    bool wrong;
};

struct numbered {
    struct order *order;
    int number;
};

static void numbered_job(void *arg)
{
    struct numbered *n = arg;
    pthread_mutex_lock(&n->order->lock);
    n->order->wrong = n->order->wrong || n->order->next != n->number;
    n->order->next++;
    pthread_mutex_unlock(&n->order->lock);
}

static void test_order(void **state)
{
    (void)state;
    struct order order = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static struct numbered n[500];
    struct pool *p = new_pool(1, 1000);
    for (int i = 0; i < 500; i++) {
        n[i] = (struct numbered){.order = &order, .number = i};
        submit(p, numbered_job, &n[i]);
    }
    pool_free(p);
    assert_int_equal(order.next, 500);
    assert_false(order.wrong);
}

struct chain {
    struct pool *pool;
    _Atomic unsigned left;
};

static void chain_job(void *arg)
{
    struct chain *c = arg;
    struct err err = ERR_INIT;
    if (--c->left > 0)
        (void)pool_submit(c->pool, chain_job, c, &err);
}

/* Jobs that submit jobs, also while the pool is being freed. */
static void test_chains(void **state)
{
    (void)state;
    struct chain c = {.left = 5000};
    c.pool = new_pool(4, 1000);
    submit(c.pool, chain_job, &c);
    pool_free(c.pool);
    assert_int_equal(c.left, 0);
}

static void mask_job(void *arg)
{
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    *(_Atomic int *)arg = sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGINT) == 1 &&
                          sigismember(&now, SIGUSR1) == 1;
}

static void test_signals_are_the_main_threads(void **state)
{
    (void)state;
    sigset_t before, after;
    _Atomic int blocked = -1;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    struct pool *p = new_pool(1, 1000);
    submit(p, mask_job, (void *)&blocked);
    pool_free(p);
    assert_int_equal(blocked, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int i = 1; i < NSIG; i++)
        assert_int_equal(sigismember(&after, i), sigismember(&before, i));
}

static void test_no_thread_at_all(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    _Atomic unsigned count = 0;
    struct pool *p = new_pool(0, 1000);
    assert_false(pool_submit(p, quick_job, (void *)&count, &err));
    assert_int_not_equal(err.code, ERR_NONE);
    pool_free(p);
    assert_int_equal(count, 0);
}

struct submitter {
    pthread_t thread;
    struct pool *pool;
    _Atomic unsigned *count;
};

static void *submit_many(void *arg)
{
    struct submitter *s = arg;
    struct err err = ERR_INIT;
    for (int i = 0; i < 1000; i++)
        if (!pool_submit(s->pool, quick_job, (void *)s->count, &err))
            return s;
    return NULL;
}

static void test_many_submitters(void **state)
{
    (void)state;
    _Atomic unsigned count = 0;
    struct pool *p = new_pool(6, 1);
    struct submitter s[6];
    for (int i = 0; i < 6; i++) {
        s[i] = (struct submitter){.pool = p, .count = &count};
        assert_int_equal(pthread_create(&s[i].thread, NULL, submit_many, &s[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        void *failed;
        pthread_join(s[i].thread, &failed);
        assert_null(failed);
    }
    pool_free(p);
    assert_int_equal(count, 6000);
}

static void *ends_at_once(void *arg)
{
    return arg;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousands),
        cmocka_unit_test(test_free_waits),
        cmocka_unit_test(test_grows_while_jobs_block),
        cmocka_unit_test(test_now_or_not_at_all),
        cmocka_unit_test(test_bursts),
        cmocka_unit_test(test_shrinks),
        cmocka_unit_test(test_free_waits_for_the_very_end_of_threads),
        cmocka_unit_test(test_free_does_not_wait_for_idleness),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_signals_are_the_main_threads),
        cmocka_unit_test(test_no_thread_at_all),
        cmocka_unit_test(test_many_submitters),
    };
    /* with a sanitizer's own thread, which comes with the first one */
    pthread_t first;
    if (pthread_create(&first, NULL, ends_at_once, NULL) == 0)
        pthread_join(first, NULL);
    threads_at_start = threads();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
