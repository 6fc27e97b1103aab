#include "fs/request.h"

#include <stddef.h>

#include "core/log.h"
#include "core/waiter.h"

void request_table_init(struct request_table *t)
{
    pthread_mutex_init(&t->lock, NULL);
    waiter_cond_init(&t->ended);
    LIST_INIT(&t->requests);
    t->next_number = 1;
    t->stopping = false;
}

void request_table_destroy(struct request_table *t)
{
    pthread_cond_destroy(&t->ended);
    pthread_mutex_destroy(&t->lock);
}

void request_begin(struct request_table *t, struct request *r, enum metric_work work,
                   bool publishing)
{
    cancel_init(&r->cancel);
    r->call = (struct call){.cancel = &r->cancel, .deadline_ms = DEADLINE_NONE};
    r->work = work;
    r->outcome = ERR_NONE;
    r->begun_us = now_us();
    r->publishing = publishing;
    pthread_mutex_lock(&t->lock);
    r->number = t->next_number++;
    LIST_INSERT_HEAD(&t->requests, r, link);
    bool stopping = t->stopping;
    pthread_mutex_unlock(&t->lock);
    if (stopping)
        cancel_fire(&r->cancel);
}

void request_end(struct request_table *t, struct request *r)
{
    pthread_mutex_lock(&t->lock);
    LIST_REMOVE(r, link);
    pthread_cond_broadcast(&t->ended);
    pthread_mutex_unlock(&t->lock);
    cancel_destroy(&r->cancel);
    metrics_work(r->work, r->outcome, now_us() - r->begun_us);
}

void request_interrupt(struct request_table *t, uint64_t number, bool dying)
{
    pthread_mutex_lock(&t->lock);
    for (struct request *r = LIST_FIRST(&t->requests); r != NULL; r = LIST_NEXT(r, link))
        if (r->number == number) {
            if (dying || !r->publishing)
                cancel_fire(&r->cancel);
            break;
        }
    pthread_mutex_unlock(&t->lock);
}

/* With the lock held. */
static bool any_publishing(const struct request_table *t)
{
    for (const struct request *r = LIST_FIRST(&t->requests); r != NULL; r = LIST_NEXT(r, link))
        if (r->publishing)
            return true;
    return false;
}

void request_stop_all(struct request_table *t, int64_t grace_ms)
{
    const struct call grace = {.deadline_ms = now_ms() + grace_ms};
    struct waiter w;
    waiter_begin(&w, &grace, &t->lock, &t->ended);
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    for (struct request *r = LIST_FIRST(&t->requests); r != NULL; r = LIST_NEXT(r, link))
        if (!r->publishing)
            cancel_fire(&r->cancel);
    while (any_publishing(t) && waiter_wait(&w)) {
    }
    for (struct request *r = LIST_FIRST(&t->requests); r != NULL; r = LIST_NEXT(r, link)) {
        if (r->publishing)
            log_warn("a file that was being archived is given up: the mount ends");
        cancel_fire(&r->cancel);
    }
    pthread_mutex_unlock(&t->lock);
    waiter_end(&w);
}
