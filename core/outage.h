/* Messages of one kind while something is down for long: the first few are logged, then one after
 * 10 s, 20 s, 40 s... up to one every ten minutes, each with a count of what was held back; and one
 * line when it is over. Each error code counts on its own, so that a store that is down does not
 * hide a full disk. Any thread; never blocks for long. */
#ifndef WALEFS_CORE_OUTAGE_H
#define WALEFS_CORE_OUTAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"

#define OUTAGE_BURST 10u
#define OUTAGE_FIRST_MS 10000
#define OUTAGE_LONGEST_MS 600000

/* Of one error code. The lock of all guards it. */
struct outage_code {
    bool down;
    unsigned said;
    int64_t since_ms;          /* the first failure */
    int64_t last_ms;           /* the last one */
    int64_t next_ms;           /* when the next may be logged */
    int64_t pause_ms;          /* between two that are; 0 before the first */
    uint64_t held_back;        /* since the last that was logged */
    uint64_t held_back_in_all; /* since since_ms */
};

struct outage {
    const char *over; /* what to say when it is over */
    pthread_mutex_t lock;
    _Atomic bool down; /* written with the lock held: one of the codes is */
    struct outage_code codes[ERR_CODES];
};

#define OUTAGE_INIT(text)                                 \
    {                                                     \
        .over = (text), .lock = PTHREAD_MUTEX_INITIALIZER \
    }

/* A failure at AT_MS: true when it is to be logged; *HELD_BACK are those that were not since. */
bool outage_log(struct outage *o, enum err_code code, int64_t at_ms, uint64_t *held_back);

/* It works. Says so if it did not for 10 s or more. Cheap while all is well. */
void outage_over(struct outage *o, int64_t at_ms);

/* Logs the failure that DETAILS->err describes, with WHAT before its text; false when it is held
 * back. */
bool outage_failure(struct outage *o, enum log_level level, const struct log_details *details,
                    const char *what);

#endif
