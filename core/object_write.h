/* One object being written while its plain content arrives: a job of its own codes and uploads what
 * is pushed, in bounded memory and without a copy on this host. */
#ifndef WALEFS_CORE_OBJECT_WRITE_H
#define WALEFS_CORE_OBJECT_WRITE_H

#include "core/codec.h"
#include "core/pool.h"
#include "core/store.h"

struct object_write;

struct object_write_options {
    struct store *store; /* borrowed, like pgp, the pools and call */
    struct openpgp *pgp;
    struct pool *pool; /* parts are stored from here */
    /* The coding, which lasts as long as its writer likes, takes a thread of this one; ERR_BUSY
     * when none is left. NULL: of the other, where such jobs must never be so many that they wait
     * for parts that cannot start. */
    struct pool *coders;
    const char *key; /* copied */
    bool only_if_absent;
    /* The content comes as slowly as its writer likes: it is encrypted in one of the gpg places
     * that openpgp_try_reserve leaves to such work, and waits for one until its end has come. */
    bool slow;
    int64_t stall_ms; /* as of part_sink */
    const struct call *call;
};

/* What has become of it. */
struct object_written {
    struct store_info info;   /* etag and size */
    struct codec_facts facts; /* the map is the caller's to free */
};

/* Starts the job. One thread at a time uses the result. */
struct object_write *object_write_new(const struct object_write_options *options, struct err *err);

/* Blocks while the store is slower than the caller. What made the job fail is the error here too.
 */
bool object_write_push(struct object_write *w, const void *data, size_t n, struct err *err);

/* Ends the content; coding and uploading go on. Once. */
bool object_write_end(struct object_write *w, struct err *err);
/* After _end: waits until the object is stored, or has failed to be. Once. */
bool object_write_wait(struct object_write *w, struct object_written *out, struct err *err);

/* Without a successful _wait before it this abandons the upload, of which nothing stays; it waits
 * for the job. NULL is allowed. */
void object_write_free(struct object_write *w);

#endif
