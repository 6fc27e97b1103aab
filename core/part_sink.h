/* A sink that stores what is written as one object: in one put when it is small, else in parts
 * that are uploaded while more is written, several at once, with bounded memory. */
#ifndef WALEFS_CORE_PART_SINK_H
#define WALEFS_CORE_PART_SINK_H

#include "core/pool.h"
#include "core/store.h"

struct part_sink_options {
    struct store *store; /* borrowed, like pool and key */
    struct pool *pool;   /* parts are put from here */
    const char *key;
    bool only_if_absent;
    size_t part_bytes; /* at least 5 MiB; memory is at most (parallel + 1) times a part's size */
    unsigned parallel;
    int64_t stall_ms;        /* beginning, a part and finishing fail after so long; 0: no limit */
    const struct call *call; /* borrowed until close */
    struct store_info *info; /* filled by finish; may be NULL */
};

/* finish returns true only when the store has acknowledged the whole object; it waits for the
 * parts under way. close without a finish, or after one that failed, aborts the upload: nothing
 * becomes visible. The part size grows, so that 10,000 parts have room for S3's 5 TiB. */
struct sink *part_sink_new(const struct part_sink_options *options, struct err *err);

/* The bytes of part NUMBER (from 1), but the last, where the first has FIRST_BYTES. */
size_t part_sink_part_bytes(size_t first_bytes, unsigned number);

#endif
