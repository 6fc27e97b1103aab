#include <assert.h>
#include <stddef.h>
#include <time.h>

#include "core/openpgp_internal.h"

/* A place that becomes free is handed to the first waiter at once instead of being put back, so
 * nobody can overtake: `free` is 0 whenever somebody waits. */
struct slot_waiter {
    pthread_cond_t changed;
    struct slots *slots;
    struct slot_waiter *next; /* slots->lock */
    bool granted, cancelled;  /* slots->lock */
};

void slots_init(struct slots *s, unsigned count)
{
    pthread_mutex_init(&s->lock, NULL);
    s->free = count;
    s->kept = count / 2;
    for (size_t i = 0; i < 2; i++) {
        s->queues[i].first = NULL;
        s->queues[i].tail = &s->queues[i].first;
    }
}

void slots_destroy(struct slots *s)
{
    assert(s->queues[0].first == NULL && s->queues[1].first == NULL);
    pthread_mutex_destroy(&s->lock);
}

static void enqueue(struct slot_queue *q, struct slot_waiter *w)
{
    *q->tail = w;
    q->tail = &w->next;
}

static void dequeue(struct slot_queue *q, struct slot_waiter *w)
{
    struct slot_waiter **at = &q->first;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (q->tail == &w->next)
        q->tail = at;
}

static void wake_cancelled(void *arg)
{
    struct slot_waiter *w = arg;
    pthread_mutex_lock(&w->slots->lock);
    w->cancelled = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->slots->lock);
}

static void waiter_init(struct slot_waiter *w, struct slots *s)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    w->slots = s;
    w->next = NULL;
    w->granted = w->cancelled = false;
}

/* Under the lock. */
static void wait_for_grant(struct slot_waiter *w, const struct call *call)
{
    int64_t left_ms;
    while (!w->granted && !w->cancelled && (left_ms = call_left_ms(call)) > 0) {
        if (left_ms == INT64_MAX) {
            pthread_cond_wait(&w->changed, &w->slots->lock);
            continue;
        }
        int64_t until_ms = now_ms() + left_ms;
        struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = (until_ms % 1000) * 1000000};
        pthread_cond_timedwait(&w->changed, &w->slots->lock, &until);
    }
}

bool openpgp_reserve(struct openpgp *pgp, enum openpgp_priority priority, const struct call *call,
                     struct err *err)
{
    static const char what[] = "waiting for a free gpg process";
    if (!call_alive(call, what, err))
        return false;
    struct slots *s = &pgp->slots;
    struct slot_queue *queue = &s->queues[priority];
    struct slot_waiter w;
    waiter_init(&w, s);
    pthread_mutex_lock(&s->lock);
    bool granted = s->free > 0;
    if (granted)
        s->free--;
    else
        enqueue(queue, &w);
    pthread_mutex_unlock(&s->lock);

    if (!granted) {
        /* lock order: the cancel's lock before ours, so ours is not held around (un)watch */
        struct cancel_watch watch;
        cancel_watch(call->cancel, &watch, wake_cancelled, &w);
        pthread_mutex_lock(&s->lock);
        wait_for_grant(&w, call);
        granted = w.granted;
        if (!granted)
            dequeue(queue, &w);
        pthread_mutex_unlock(&s->lock);
        cancel_unwatch(call->cancel, &watch);
    }
    pthread_cond_destroy(&w.changed);
    if (!granted && call_alive(call, what, err))
        return err_set(err, ERR_TIMEOUT, "%s: deadline passed", what);
    return granted;
}

bool openpgp_try_reserve(struct openpgp *pgp)
{
    struct slots *s = &pgp->slots;
    pthread_mutex_lock(&s->lock);
    bool got = s->free > s->kept;
    if (got)
        s->free--;
    pthread_mutex_unlock(&s->lock);
    return got;
}

void openpgp_release(struct openpgp *pgp)
{
    struct slots *s = &pgp->slots;
    pthread_mutex_lock(&s->lock);
    struct slot_queue *q = &s->queues[OPENPGP_FOREGROUND];
    if (q->first == NULL)
        q = &s->queues[OPENPGP_BACKGROUND];
    struct slot_waiter *w = q->first;
    if (w == NULL) {
        s->free++;
    } else {
        dequeue(q, w);
        w->granted = true;
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&s->lock);
}
