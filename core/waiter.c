#include "core/waiter.h"

#include <stddef.h>
#include <time.h>

void waiter_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Taking the lock orders the broadcast behind a waiter's check of the cancel: it cannot be lost. */
static void wake(void *arg)
{
    struct waiter *w = arg;
    pthread_mutex_lock(w->lock);
    pthread_cond_broadcast(w->cond);
    pthread_mutex_unlock(w->lock);
}

void waiter_begin(struct waiter *w, const struct call *call, pthread_mutex_t *lock,
                  pthread_cond_t *cond)
{
    w->call = call;
    w->lock = lock;
    w->cond = cond;
    cancel_watch(call->cancel, &w->watch, wake, w);
}

bool waiter_wait(struct waiter *w)
{
    int64_t left_ms = call_left_ms(w->call);
    if (cancel_fired(w->call->cancel) || left_ms == 0)
        return false;
    if (left_ms == INT64_MAX) {
        pthread_cond_wait(w->cond, w->lock);
        return true;
    }
    int64_t until_ms = now_ms() + left_ms;
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = (until_ms % 1000) * 1000000};
    pthread_cond_timedwait(w->cond, w->lock, &until);
    return true;
}

void waiter_end(struct waiter *w)
{
    cancel_unwatch(w->call->cancel, &w->watch);
}
