#include "fs/survey.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "core/log.h"
#include "core/waiter.h"

/* A run that took longer than this, as the one before it did, which a store that was away for a
 * while does not explain, is expensive: its result does for ten times as long, or for a minute. */
#define EXPENSIVE_MS 1000
#define REST 10
#define REST_MAX_MS 60000

struct survey {
    struct survey_options opt;
    struct cancel stop;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t ended;
    bool running;
    uint64_t runs;        /* that have ended */
    struct err last_err;  /* of the last run; ERR_NONE when it went well */
    int64_t run_begun_us; /* of the run under way or the last one */
    struct survey_result *result;
};

struct survey *survey_new(const struct survey_options *options, struct err *err)
{
    struct survey *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->opt = *options;
    cancel_init(&s->stop);
    pthread_mutex_init(&s->lock, NULL);
    waiter_cond_init(&s->ended);
    return s;
}

void survey_stop(struct survey *s)
{
    if (s != NULL)
        cancel_fire(&s->stop);
}

void survey_free(struct survey *s)
{
    if (s == NULL)
        return;
    survey_result_unref(s->result);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
    cancel_destroy(&s->stop);
    free(s);
}

void survey_result_unref(struct survey_result *r)
{
    if (r == NULL || atomic_fetch_sub(&r->refs, 1) > 1)
        return;
    r->free_data(r->data);
    free(r);
}

static void run(void *arg)
{
    struct survey *s = arg;
    const struct call call = {.cancel = &s->stop, .deadline_ms = DEADLINE_NONE};
    struct err err = ERR_INIT;
    int64_t asked_us = now_us(), asked_s = time(NULL);
    struct survey_result *r = calloc(1, sizeof(*r)), *old = NULL;
    void *data = NULL;
    if (r == NULL)
        err_set(&err, ERR_NO_MEMORY, "out of memory");
    else
        data = s->opt.make(s->opt.arg, &call, &err);
    if (data != NULL) {
        *r = (struct survey_result){.data = data,
                                    .asked_us = asked_us,
                                    .asked_s = asked_s,
                                    .took_ms = (now_us() - asked_us) / 1000,
                                    .free_data = s->opt.free_result};
        atomic_store(&r->refs, 1);
    } else {
        free(r);
    }
    pthread_mutex_lock(&s->lock);
    if (data != NULL) {
        old = s->result;
        int64_t before_ms = old == NULL ? 0 : old->took_ms;
        r->cost_ms = r->took_ms < before_ms ? r->took_ms : before_ms;
        s->result = r;
    }
    s->last_err = err;
    s->running = false;
    s->runs++;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    survey_result_unref(old);
}

/* With the lock held, which is let go of for a moment. */
static void start(struct survey *s)
{
    struct err err = ERR_INIT;
    s->running = true;
    s->run_begun_us = now_us();
    pthread_mutex_unlock(&s->lock);
    bool ok = pool_submit(s->opt.pool, run, s, &err);
    pthread_mutex_lock(&s->lock);
    if (ok)
        return;
    s->running = false;
    s->runs++;
    s->last_err = err;
}

/* With the lock held. */
static bool is_fresh(const struct survey *s, int64_t since_us)
{
    return s->result != NULL && s->result->asked_us >= since_us;
}

/* With the lock held: is it too soon to do that again? */
static bool is_resting(const struct survey *s)
{
    const struct survey_result *r = s->result;
    if (r == NULL || r->cost_ms <= EXPENSIVE_MS)
        return false;
    int64_t rest_ms = r->cost_ms < REST_MAX_MS / REST ? REST * r->cost_ms : REST_MAX_MS;
    return now_us() - r->asked_us < 1000 * rest_ms;
}

/* With the lock held. A reference. */
static struct survey_result *take(struct survey *s)
{
    if (s->result != NULL)
        atomic_fetch_add(&s->result->refs, 1);
    return s->result;
}

/* With the lock held: why there is nothing newer. */
static void explain(const struct survey *s, struct err *err)
{
    if (!s->running && s->last_err.code != ERR_NONE)
        *err = s->last_err;
    else if (!s->running && s->result != NULL)
        err_set(err, ERR_TIMEOUT, "asking the store takes %lld s, and is not done more often",
                (long long)s->result->took_ms / 1000);
    else
        err_set(err, ERR_TIMEOUT, "the store is still being asked");
}

struct survey_result *survey_get(struct survey *s, int64_t since_us, bool *stale,
                                 const struct call *call, struct err *err)
{
    struct waiter w;
    waiter_begin(&w, call, &s->lock, &s->ended);
    pthread_mutex_lock(&s->lock);
    bool waiting = true, tried = false;
    while (!is_fresh(s, since_us) && !is_resting(s) && waiting) {
        /* a run that is under way may miss what has just changed: another one follows it */
        if (!s->running && tried && s->run_begun_us >= since_us)
            break; /* it has failed */
        if (!s->running)
            start(s);
        tried = true;
        uint64_t runs = s->runs;
        while (s->running && s->runs == runs && waiting)
            waiting = waiter_wait(&w);
    }
    struct survey_result *r = take(s);
    *stale = !is_fresh(s, since_us);
    if (*stale)
        explain(s, err);
    pthread_mutex_unlock(&s->lock);
    waiter_end(&w);
    return r;
}

struct survey_result *survey_peek(struct survey *s, int64_t max_age_ms)
{
    pthread_mutex_lock(&s->lock);
    const struct survey_result *r = s->result;
    int64_t age_ms = r == NULL ? INT64_MAX : (now_us() - r->asked_us) / 1000;
    bool tried = s->runs > 0 && (now_us() - s->run_begun_us) / 1000 <= max_age_ms;
    if (!s->running && !tried && age_ms > max_age_ms && !is_resting(s))
        start(s);
    struct survey_result *result = take(s);
    pthread_mutex_unlock(&s->lock);
    return result;
}
