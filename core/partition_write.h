/* One tar partition being written: members become a pax tar stream, which a job of its own codes
 * and uploads while it grows. */
#ifndef WALEFS_CORE_PARTITION_WRITE_H
#define WALEFS_CORE_PARTITION_WRITE_H

#include "core/backup_index.h"
#include "core/codec.h"
#include "core/pool.h"
#include "core/store.h"

struct partition_write;

struct partition_write_options {
    struct store *store; /* borrowed, like pgp, pool and call */
    struct openpgp *pgp;
    struct pool *pool;
    const char *key;  /* copied */
    int64_t stall_ms; /* as of part_sink */
    const struct call *call;
};

/* What has become of it; valid after partition_write_wait. */
struct partition_written {
    struct store_info info;   /* etag and size */
    struct codec_facts facts; /* the map is the caller's to take or free */
    char sha256[65];          /* of the plain tar stream */
};

struct partition_write *partition_write_new(const struct partition_write_options *options,
                                            struct err *err);

/* Appends a member; DATA has exactly M->size bytes (NULL for none). *OFFSET: where they stand in
 * the plain stream. Blocks while the store is slower than the caller. */
bool partition_write_member(struct partition_write *w, const struct member *m, struct source *data,
                            uint64_t *offset, struct err *err);

/* Ends the stream; coding and uploading go on. */
bool partition_write_end(struct partition_write *w, struct err *err);
/* After _end: waits until the object is stored. */
bool partition_write_wait(struct partition_write *w, struct partition_written *out,
                          struct err *err);

/* Without a successful _wait before it this abandons the upload; it waits for the job. NULL is
 * allowed. */
void partition_write_free(struct partition_write *w);

#endif
