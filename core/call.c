#include "core/call.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void cancel_init(struct cancel *c)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->fired_cond, &attr);
    pthread_condattr_destroy(&attr);
    atomic_store(&c->fired, false);
    LIST_INIT(&c->watchers);
}

void cancel_destroy(struct cancel *c)
{
    assert(LIST_EMPTY(&c->watchers));
    pthread_cond_destroy(&c->fired_cond);
    pthread_mutex_destroy(&c->lock);
}

void cancel_fire(struct cancel *c)
{
    pthread_mutex_lock(&c->lock);
    if (!atomic_exchange(&c->fired, true)) {
        pthread_cond_broadcast(&c->fired_cond);
        for (struct cancel_watch *w = LIST_FIRST(&c->watchers); w != NULL; w = LIST_NEXT(w, link))
            w->wake(w->arg);
    }
    pthread_mutex_unlock(&c->lock);
}

bool cancel_fired(const struct cancel *c)
{
    return c != NULL && atomic_load(&c->fired);
}

void cancel_watch(struct cancel *c, struct cancel_watch *w, cancel_wake_fn *wake, void *arg)
{
    w->wake = wake;
    w->arg = arg;
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    LIST_INSERT_HEAD(&c->watchers, w, link);
    if (atomic_load(&c->fired))
        wake(arg);
    pthread_mutex_unlock(&c->lock);
}

void cancel_unwatch(struct cancel *c, struct cancel_watch *w)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    LIST_REMOVE(w, link);
    pthread_mutex_unlock(&c->lock);
}

static struct timespec timespec_of_ms(int64_t ms)
{
    return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
}

bool cancel_sleep_ms(struct cancel *c, int64_t wait_ms)
{
    struct timespec until = timespec_of_ms(now_ms() + wait_ms);
    if (c == NULL) {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {
        }
        return true;
    }
    pthread_mutex_lock(&c->lock);
    int rc = 0;
    while (!atomic_load(&c->fired) && rc == 0)
        rc = pthread_cond_timedwait(&c->fired_cond, &c->lock, &until);
    bool fired = atomic_load(&c->fired);
    pthread_mutex_unlock(&c->lock);
    return !fired;
}

bool call_alive(const struct call *call, const char *what, struct err *err)
{
    if (cancel_fired(call->cancel))
        return err_set(err, ERR_CANCELLED, "%s: interrupted", what);
    if (call->deadline_ms != DEADLINE_NONE && now_ms() >= call->deadline_ms)
        return err_set(err, ERR_TIMEOUT, "%s: deadline passed", what);
    if (call->progress != NULL && call_left_ms(call) == 0)
        return err_set(err, ERR_TIMEOUT, "%s: no progress for %lld s", what,
                       (long long)call->progress->limit_ms / 1000);
    return true;
}

bool call_waited_in_vain(const struct call *call, const char *name, const char *state,
                         struct err *err)
{
    if (cancel_fired(call->cancel))
        return err_set(err, ERR_CANCELLED, "%s: interrupted", name);
    return err_set(err, ERR_TIMEOUT, "%s is still %s", name, state);
}

void call_progress(const struct call *call)
{
    if (call->progress != NULL)
        atomic_store(&call->progress->last_ms, now_ms());
}

void call_sent(const struct call *call, uint64_t bytes)
{
    if (call->progress == NULL || bytes <= atomic_load(&call->progress->sent))
        return;
    atomic_store(&call->progress->sent, bytes);
    call_progress(call);
}

int64_t call_left_ms(const struct call *call)
{
    int64_t until = call->deadline_ms;
    if (call->progress != NULL) {
        int64_t limit = atomic_load(&call->progress->last_ms) + call->progress->limit_ms;
        until = limit < until ? limit : until;
    }
    if (until == DEADLINE_NONE)
        return INT64_MAX;
    int64_t left = until - now_ms();
    return left > 0 ? left : 0;
}
