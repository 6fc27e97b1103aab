/* What takes the store a while to tell: made in the background, kept, and given out with its age.
 *
 * Who looks waits for a fresh result only as long as it likes; the work goes on without it and is
 * there for who looks next. One run at a time; while one that takes long is under way, or has just
 * ended, no other is begun. */
#ifndef WALEFS_FS_SURVEY_H
#define WALEFS_FS_SURVEY_H

#include "core/call.h"
#include "core/pool.h"

struct survey;

struct survey_options {
    struct pool *pool; /* borrowed */
    void *arg;
    /* Makes a result; NULL on failure. Runs in the pool, with a call that ends with the survey. */
    void *(*make)(void *arg, const struct call *call, struct err *err);
    void (*free_result)(void *result);
};

struct survey *survey_new(const struct survey_options *options, struct err *err);
void survey_stop(struct survey *s); /* cancels; does not wait. NULL is allowed */
void survey_free(struct survey *s); /* after pool_free; NULL is allowed */

/* A result, immutable; unref it. */
struct survey_result {
    _Atomic unsigned refs;
    void *data;
    int64_t asked_us; /* when it was begun, on now_us()'s clock */
    int64_t asked_s;  /* the same, in seconds since 1970 */
    int64_t took_ms;
    int64_t cost_ms; /* what a run is expected to take */
    void (*free_data)(void *);
};
void survey_result_unref(struct survey_result *r); /* NULL is allowed */

/* Waits until the call's deadline for a result that was begun at SINCE_US (on now_us()'s clock) or
 * later, but does not ask for one too often when that is expensive. *STALE: what is returned is
 * older, and ERR says why there is nothing newer. NULL (and stale) when nothing is known yet. A
 * reference. */
struct survey_result *survey_get(struct survey *s, int64_t since_us, bool *stale,
                                 const struct call *call, struct err *err);

/* The last result, without waiting, or NULL; begins a new run when it is older than MAX_AGE_MS. */
struct survey_result *survey_peek(struct survey *s, int64_t max_age_ms);

#endif
