#include "core/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/call.h"
#include "core/waiter.h"

/* Enough for gpgme, libcurl with OpenSSL and the coders, whose buffers are on the heap. */
#define STACK_BYTES (512 * 1024)

struct job {
    pool_job *run;
    void *arg;
    struct job *next;
};

struct pool {
    unsigned max_threads;
    uint32_t idle_ms;
    pthread_mutex_t lock;
    pthread_cond_t work;       /* a job came, or the pool closes */
    pthread_cond_t finished;   /* the last thread has ended */
    struct job *first, **last; /* lock */
    unsigned waiting;          /* lock: jobs in the queue */
    unsigned running;          /* lock: jobs that have a thread */
    unsigned threads, idle;    /* lock */
    bool closing;              /* lock */
    bool any_ended;            /* lock */
    pthread_t last_ended;      /* lock: not joined yet, and joins the one before it */
};

/* The next job, or NULL when this thread should end. Called and left with the lock held. */
static struct job *next_job(struct pool *p)
{
    int64_t until_ms = now_ms() + p->idle_ms;
    while (p->first == NULL) {
        struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = (until_ms % 1000) * 1000000};
        if (p->closing || now_ms() >= until_ms)
            return NULL;
        p->idle++;
        pthread_cond_timedwait(&p->work, &p->lock, &until);
        p->idle--;
    }
    struct job *job = p->first;
    p->first = job->next;
    if (p->first == NULL)
        p->last = &p->first;
    p->waiting--;
    p->running++;
    return job;
}

static void *thread_main(void *arg)
{
    struct pool *p = arg;
    pthread_mutex_lock(&p->lock);
    struct job *job;
    while ((job = next_job(p)) != NULL) {
        pthread_mutex_unlock(&p->lock);
        job->run(job->arg);
        free(job);
        pthread_mutex_lock(&p->lock);
        p->running--;
    }
    bool join = p->any_ended;
    pthread_t before = p->last_ended;
    p->any_ended = true;
    p->last_ended = pthread_self();
    p->threads--;
    if (p->threads == 0)
        pthread_cond_broadcast(&p->finished);
    pthread_mutex_unlock(&p->lock);
    if (join)
        pthread_join(before, NULL);
    return NULL;
}

struct pool *pool_new(unsigned max_threads, uint32_t idle_ms, struct err *err)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    p->max_threads = max_threads;
    p->idle_ms = idle_ms;
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    waiter_cond_init(&p->work);
    pthread_cond_init(&p->finished, NULL);
    return p;
}

/* Signals are the main thread's: pool threads start with all of them blocked. */
static int start_thread(struct pool *p)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_t id;
    int rc = pthread_create(&id, &attr, thread_main, p);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static bool submit(struct pool *p, pool_job *run, void *arg, bool now, struct err *err)
{
    struct job *job = malloc(sizeof(*job));
    if (job == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    *job = (struct job){.run = run, .arg = arg};
    pthread_mutex_lock(&p->lock);
    int rc = 0;
    if (p->waiting >= p->idle && p->threads < p->max_threads) {
        rc = start_thread(p);
        if (rc == 0)
            p->threads++;
    }
    bool busy = now && p->running + p->waiting >= p->max_threads;
    bool ok = !busy && p->threads > 0 && (!now || rc == 0);
    if (ok) {
        *p->last = job;
        p->last = &job->next;
        p->waiting++;
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    if (ok)
        return true; // cppcheck-suppress memleak ; it is in the queue
    free(job);
    return busy ? err_set(err, ERR_BUSY, "%u are under way already", p->max_threads)
                : err_sys(err, rc, "cannot start a thread");
}

bool pool_submit(struct pool *p, pool_job *run, void *arg, struct err *err)
{
    return submit(p, run, arg, false, err);
}

bool pool_submit_now(struct pool *p, pool_job *run, void *arg, struct err *err)
{
    return submit(p, run, arg, true, err);
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->work);
    while (p->threads > 0)
        pthread_cond_wait(&p->finished, &p->lock);
    pthread_mutex_unlock(&p->lock);
    /* Wholly gone: libraries free what they keep for a thread at its very end, and OpenSSL does so
     * again for all threads when the program exits. */
    if (p->any_ended)
        pthread_join(p->last_ended, NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
