/* Waiting on a condition variable so that a cancel and a deadline end the wait.
 *
 *     struct waiter w;
 *     waiter_begin(&w, call, &lock, &cond);      (before LOCK is taken)
 *     pthread_mutex_lock(&lock);
 *     while (!condition && waiter_wait(&w)) {}
 *     pthread_mutex_unlock(&lock);
 *     waiter_end(&w);
 *
 * Lock order: a cancel's own lock comes before LOCK. */
#ifndef WALEFS_CORE_WAITER_H
#define WALEFS_CORE_WAITER_H

#include <pthread.h>

#include "core/call.h"

struct waiter {
    const struct call *call;
    pthread_mutex_t *lock;
    pthread_cond_t *cond;
    struct cancel_watch watch;
};

/* A condition variable on CLOCK_MONOTONIC, as waiter_wait needs it. */
void waiter_cond_init(pthread_cond_t *cond);

void waiter_begin(struct waiter *w, const struct call *call, pthread_mutex_t *lock,
                  pthread_cond_t *cond);

/* With the lock held: waits for a signal. False when the call is cancelled or its deadline has
 * passed; call_alive then says which. */
bool waiter_wait(struct waiter *w);

void waiter_end(struct waiter *w);

#endif
