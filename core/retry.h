/* How often and how soon to try again: capped exponential back-off with full jitter, so that many
 * clients that failed together do not come back together. Plain data, one thread. */
#ifndef WALEFS_CORE_RETRY_H
#define WALEFS_CORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/call.h"

struct retry {
    unsigned tries; /* that have failed so far */
    unsigned max_tries;
    uint32_t base_ms; /* the first wait is at most this */
    uint32_t cap_ms;  /* no wait of our own is longer */
};

#define RETRY_AFTER_MAX_MS 30000u

void retry_init(struct retry *r, unsigned max_tries);

/* The wait after try number TRIES (from 1) failed; RANDOM is any 32 random bits; at least what the
 * store asked for in RETRY_AFTER_MS, as far as RETRY_AFTER_MAX_MS. */
uint32_t retry_delay_ms(const struct retry *r, uint32_t retry_after_ms, uint32_t random);

/* After a failure that ERR describes: waits, and true when to try again. False when the tries are
 * spent or the deadline would pass while waiting (ERR keeps its code and says how often it was
 * tried), or when the call was cancelled (ERR_CANCELLED). Blocks. */
bool retry_again(struct retry *r, const struct call *call, struct err *err);

/* A try has succeeded: logs that the trouble is over, if there was any. Cheap. */
void retry_not_needed(void);

#endif
