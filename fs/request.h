/* Requests of the kernel that are being worked on, so that each can be cancelled: by an interrupt
 * of its process, or all of them when the mount ends.
 *
 * libfuse may call its interrupt function with the data it was given while the request is already
 * being answered by another thread. So that data is a number, not an address, and is looked up. */
#ifndef WALEFS_FS_REQUEST_H
#define WALEFS_FS_REQUEST_H

#include <sys/queue.h>

#include "core/call.h"
#include "core/metrics.h"

struct request {
    struct cancel cancel;
    struct call call; /* with that cancel */
    uint64_t number;
    enum metric_work work;
    enum err_code outcome; /* for the metrics: set by who answers with an error */
    int64_t begun_us;
    bool publishing; /* may finish for a while when the mount ends */
    LIST_ENTRY(request) link;
};

struct request_table {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    LIST_HEAD(request_list, request) requests; /* lock */
    uint64_t next_number;                      /* lock */
    bool stopping;                             /* lock: those that come are cancelled at once */
};

void request_table_init(struct request_table *t);
void request_table_destroy(struct request_table *t);

/* R lives in the caller's frame until request_end, which counts it as WORK. */
void request_begin(struct request_table *t, struct request *r, enum metric_work work,
                   bool publishing);
void request_end(struct request_table *t, struct request *r);

/* Cancels the request of that number, if it is still there. One that publishes, which is bounded
 * anyway, only if DYING: a signal that its process handles must not make an archiving fail. */
void request_interrupt(struct request_table *t, uint64_t number, bool dying);

/* Cancels all that only read, waits up to GRACE_MS for those that publish, then cancels them too.
 */
void request_stop_all(struct request_table *t, int64_t grace_ms);

#endif
