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
 * lzop's checksums tell of accidents; that nobody has changed an encrypted object is known only
 * when its end has come (OpenPGP's integrity check). So of an encrypted partition everything from
 * held_from on is held back until the whole has passed, and one that is small beside the cache is
 * held back altogether. Who has read all that the partition shows has therefore seen the verdict.
 * When it is bad, every later read and partition_check fail with ERR_CORRUPT, what was decoded is
 * dropped, and DAMAGED is told, so that what was served before can be taken back from caches. */
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
    /* Called once for a partition that was found damaged, when all who were reading it have been
     * answered; in a thread of the pool, without a lock. May be NULL. */
    void (*damaged)(void *arg, const struct partition *p);
    void *damaged_arg;
};

struct partition_cache *partition_cache_new(const struct partition_cache_options *options,
                                            struct err *err);
/* Cancels all streams; does not wait for them (pool_free does). */
void partition_cache_stop(struct partition_cache *c);
void partition_cache_free(struct partition_cache *c); /* after pool_free; NULL is allowed */

/* An object, as its backup's index describes it. */
struct partition_object {
    const char *key;
    const struct index_partition *index;
    uint64_t held_from; /* of the plain stream: the last byte that anybody will read */
};

/* What to open, and what follows it in the backup (next.key NULL: nothing). All is copied. */
struct partition_source {
    struct partition_object object, next;
};

/* A reference to the shared partition of that key and etag; starts nothing. */
struct partition *partition_open(struct partition_cache *c, const struct partition_source *source,
                                 struct err *err);
struct partition *partition_ref(struct partition *p); /* another reference */
void partition_close(struct partition *p);            /* NULL is allowed */
/* Fails with ERR_CORRUPT when damage has been found in it. Does not wait. */
bool partition_check(struct partition *p, struct err *err);
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
