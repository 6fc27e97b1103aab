/* Threads that run blocking jobs. The pool grows while jobs wait and shrinks when they are idle, so
 * that a job which is stuck in a hung store never keeps another from being run (up to the limit).
 */
#ifndef WALEFS_CORE_POOL_H
#define WALEFS_CORE_POOL_H

#include "core/err.h"

struct pool;

typedef void pool_job(void *arg);

/* At most MAX_THREADS; a thread that was idle for IDLE_MS ends. */
struct pool *pool_new(unsigned max_threads, uint32_t idle_ms, struct err *err);

/* Any thread; never blocks. Jobs start in the order they come. False only without memory or when
 * not a single thread can be made; JOB is then not run. */
bool pool_submit(struct pool *pool, pool_job *job, void *arg, struct err *err);

/* The same for a job that must not wait for others to end: ERR_BUSY when all threads are taken. */
bool pool_submit_now(struct pool *pool, pool_job *job, void *arg, struct err *err);

/* Waits until all submitted jobs have ended, then frees the pool. NULL is allowed. */
void pool_free(struct pool *pool);

#endif
