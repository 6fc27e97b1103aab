/* A copy of an object under another key: within the store where it makes one, else through this
 * host. */
#ifndef WALEFS_CORE_OBJECT_COPY_H
#define WALEFS_CORE_OBJECT_COPY_H

#include "core/pool.h"
#include "core/store.h"

struct object_copy {
    struct store *store; /* borrowed, like all of it */
    struct pool *pool;
    const char *from, *to; /* keys; what is under TO is replaced */
    const char *etag;      /* the content that is meant; ERR_STALE when FROM has another */
    uint64_t size;         /* its stored bytes */
    uint64_t store_max;    /* larger ones pass through this host */
    int64_t stall_ms;      /* as of part_sink */
    const struct call *call;
};

/* INFO (may be NULL) gets TO's etag and size. Blocks. */
bool object_copy(const struct object_copy *c, struct store_info *info, struct err *err);

#endif
