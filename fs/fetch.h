/* Decoded, verified copies of archived WAL files, and the reading ahead of a restore.
 *
 * One object is fetched once however many readers want it. What is being fetched goes on when a
 * reader is interrupted; what failed is forgotten at once, so that the next reader asks the store
 * again: neither absence nor failure is ever cached. */
#ifndef WALEFS_FS_FETCH_H
#define WALEFS_FS_FETCH_H

#include "core/codec.h"
#include "core/pool.h"
#include "core/store.h"

struct fetcher;

/* A whole object, decoded and verified. Reference-counted, immutable. */
struct plain {
    _Atomic unsigned refs;
    int fd; /* anonymous file */
    uint64_t size;
    struct store_info info; /* of the object it was made from */
};

void plain_unref(struct plain *plain); /* NULL is allowed */

struct fetch_options {
    struct store *store;
    struct openpgp *pgp;
    struct pool *pool;
    const char *dir;      /* where anonymous files go */
    uint64_t cache_bytes; /* what nobody reads any more is kept up to this */
    unsigned prefetch;    /* segments read ahead of a reader, 0 for none */
};

struct fetcher *fetcher_new(const struct fetch_options *options, struct err *err);

/* Cancels all fetches under way. Does not wait for them: pool_free does. */
void fetcher_stop(struct fetcher *f);
/* After pool_free. NULL is allowed. */
void fetcher_free(struct fetcher *f);

/* The decoded content of archived file NAME (one of PostgreSQL's names). Waits for one attempt; the
 * error is the store's or the codec's; ERR_CORRUPT also when a segment's size is not that of its
 * header. A reference for the caller, NULL on failure. */
struct plain *fetcher_get(struct fetcher *f, const char *name, const struct call *call,
                          struct err *err);

/* What fetcher_get would return without asking the store, else NULL. A reference. */
struct plain *fetcher_peek(struct fetcher *f, const char *name);

/* NAME is being read: fetch what a restore will want next. Never blocks. */
void fetcher_ahead(struct fetcher *f, const char *name, uint32_t segment_size);

/* NAME's object has changed or may have: the next reader fetches it anew. */
void fetcher_drop(struct fetcher *f, const char *name);

#endif
