/* Decoded tar partitions of base backups, as far as somebody wants to read them.
 *
 * A partition streams from the store into an anonymous file, block by block, each verified by
 * lzop's checksum before anybody sees it; a reader waits for the block it needs. The stream runs a
 * bounded distance ahead of its readers and pauses, then ends, when nobody reads on. What has been
 * decoded stays as long as the cache's limit allows, the least recently used part of any partition
 * going first (holes are punched). A reader of a plain (unencrypted) object whose index has block
 * offsets starts a stream at its own block; an encrypted one is decoded from its start. A read near
 * the end of one partition starts the next one of the backup.
 *
 * A failure of verification at the end of a stream (OpenPGP's integrity check) makes every later
 * read of that partition fail with ERR_CORRUPT, and drops what was decoded. */
#ifndef WALEFS_FS_PARTITION_H
#define WALEFS_FS_PARTITION_H

#include "core/backup_index.h"
#include "core/codec.h"
#include "core/pool.h"
#include "core/store.h"

struct partition_cache;
struct partition;

struct partition_cache_options {
    struct store *store;
    struct openpgp *pgp;
    struct pool *pool;
    const char *dir; /* where anonymous files go */
    uint64_t cache_bytes;
};

struct partition_cache *partition_cache_new(const struct partition_cache_options *options,
                                            struct err *err);
/* Cancels all streams; does not wait for them (pool_free does). */
void partition_cache_stop(struct partition_cache *c);
void partition_cache_free(struct partition_cache *c); /* after pool_free; NULL is allowed */

/* What to open: one object, as its backup's index describes it, and the one that follows it
 * (NEXT_KEY NULL: none). All is copied. */
struct partition_source {
    const char *key;
    const struct index_partition *index;
    const char *next_key;
    const struct index_partition *next;
};

/* A reference to the shared partition of that key and etag; starts nothing. */
struct partition *partition_open(struct partition_cache *c, const struct partition_source *source,
                                 struct err *err);
void partition_close(struct partition *p); /* NULL is allowed */
/* Is what was read of it known to be what was written? Blocks of a plain one have checksums each;
 * an encrypted one is sound when its end has come. */
bool partition_verified(struct partition *p);

/* Waits until SIZE bytes at OFFSET are decoded, and says where they lie: *GOT bytes (fewer only at
 * the end of the stream) at the same OFFSET of *FD. They stay there until partition_done(PIN),
 * which the reader calls when they are copied out. Errors: the store's, the codec's. One attempt:
 * transient failures are for the caller to repeat. */
struct partition_pin;
bool partition_read(struct partition *p, uint64_t offset, size_t size, int *fd, size_t *got,
                    struct partition_pin **pin, const struct call *call, struct err *err);
void partition_done(struct partition_pin *pin); /* NULL is allowed */

#endif
