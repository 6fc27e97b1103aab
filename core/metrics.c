#include "core/metrics.h"

#include <stdatomic.h>
#include <time.h>

const int64_t metrics_bucket_us[METRICS_BUCKETS - 1] = {
    100, 500, 2500, 10000, 50000, 250000, 1000000, 5000000, 20000000, 60000000};

/* Nothing is ordered by these: each is a number of its own. */
#define ADD(counter, n) atomic_fetch_add_explicit(&(counter), (n), memory_order_relaxed)
#define LOOK(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

static struct {
    _Atomic uint64_t outcome[ERR_CODES];
    _Atomic uint64_t bucket[METRICS_BUCKETS];
    _Atomic uint64_t sum_us;
} works[WORK_KINDS];
static _Atomic uint64_t counts[COUNT_KINDS];
static _Atomic int64_t moments[MOMENT_KINDS];

void metrics_work(enum metric_work work, enum err_code outcome, int64_t took_us)
{
    unsigned i = 0;
    while (i + 1 < METRICS_BUCKETS && took_us > metrics_bucket_us[i])
        i++;
    ADD(works[work].outcome[outcome], 1);
    ADD(works[work].bucket[i], 1);
    ADD(works[work].sum_us, took_us > 0 ? (uint64_t)took_us : 0);
}

void metrics_add(enum metric_count what, uint64_t n)
{
    ADD(counts[what], n);
}

void metrics_mark(enum metric_moment moment)
{
    atomic_store_explicit(&moments[moment], (int64_t)time(NULL), memory_order_relaxed);
}

uint64_t metrics_count(enum metric_count what)
{
    return LOOK(counts[what]);
}

uint64_t metrics_work_count(enum metric_work work, enum err_code outcome)
{
    return LOOK(works[work].outcome[outcome]);
}

int64_t metrics_moment(enum metric_moment moment)
{
    return LOOK(moments[moment]);
}

void metrics_durations(enum metric_work work, struct metrics_durations *out)
{
    for (unsigned i = 0; i < METRICS_BUCKETS; i++)
        out->bucket[i] = LOOK(works[work].bucket[i]);
    out->sum_us = LOOK(works[work].sum_us);
}
