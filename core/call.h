/* The bounds of one piece of work: who can cancel it and until when it may run.
 *
 * A cancel is fired at most once and stays fired. Whoever blocks either waits through it
 * (cancel_sleep_ms) or registers a wake function that makes its own wait return. */
#ifndef WALEFS_CORE_CALL_H
#define WALEFS_CORE_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/err.h"

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t now_ms(void);
/* Microseconds of the same clock. */
int64_t now_us(void);

#define DEADLINE_NONE INT64_MAX

typedef void cancel_wake_fn(void *arg);

/* A watcher lives in the caller's memory between cancel_watch and cancel_unwatch. */
struct cancel_watch {
    cancel_wake_fn *wake;
    void *arg;
    LIST_ENTRY(cancel_watch) link;
};

struct cancel {
    pthread_mutex_t lock;
    pthread_cond_t fired_cond;
    _Atomic bool fired;
    LIST_HEAD(cancel_watches, cancel_watch) watchers; /* lock */
};

void cancel_init(struct cancel *c);
void cancel_destroy(struct cancel *c);

/* Any thread, any number of times. Wake functions run in the calling thread under the cancel's
 * lock: they must not block and must not touch the cancel. */
void cancel_fire(struct cancel *c);

/* NULL is allowed and never fires. */
bool cancel_fired(const struct cancel *c);

/* Registers WAKE(ARG); runs it at once if the cancel has fired already. NULL cancel: nothing. */
void cancel_watch(struct cancel *c, struct cancel_watch *w, cancel_wake_fn *wake, void *arg);

/* After return the wake function is not running and will not run. */
void cancel_unwatch(struct cancel *c, struct cancel_watch *w);

/* Sleeps until WAIT_MS have passed (true) or the cancel fires (false). NULL cancel: plain sleep. */
bool cancel_sleep_ms(struct cancel *c, int64_t wait_ms);

/* A limit on time without progress: whoever moves bytes for the call renews it. */
struct progress {
    int64_t limit_ms;
    _Atomic int64_t last_ms; /* on now_ms()'s clock */
    _Atomic uint64_t sent;   /* the most of a body that has been on its way; 0 to begin with */
};

/* What a blocking operation is handed down. Plain data, borrowed for the duration of the call. */
struct call {
    struct cancel *cancel;     /* may be NULL */
    int64_t deadline_ms;       /* on now_ms()'s clock; DEADLINE_NONE for none */
    struct progress *progress; /* NULL: no such limit */
};

#define CALL_INIT                                                      \
    {                                                                  \
        .cancel = NULL, .deadline_ms = DEADLINE_NONE, .progress = NULL \
    }

/* Bytes have moved. */
void call_progress(const struct call *call);

/* The first BYTES of a body are on their way. Progress the first time; sending them again is none.
 */
void call_sent(const struct call *call, uint64_t bytes);

/* False with ERR_CANCELLED or ERR_TIMEOUT when the call must not go on. WHAT names the work. */
bool call_alive(const struct call *call, const char *what, struct err *err);

/* Returns false, after a wait that CALL ended while others go on with the work: ERR_CANCELLED when
 * it was interrupted, else ERR_TIMEOUT, which says that NAME is still STATE. */
bool call_waited_in_vain(const struct call *call, const char *name, const char *state,
                         struct err *err);

/* Milliseconds until the deadline or until the progress limit, at least 0; INT64_MAX with neither.
 * The progress limit may move on meanwhile: ask again when the time has passed. */
int64_t call_left_ms(const struct call *call);

#endif
