/* The archive's complete base backups as the tree needs them: a listing that is asked for anew
 * after a while, and for each backup that somebody looks into its index, its tree and its
 * partitions.
 *
 * An index comes from the archive (tar_partitions/walefs-index.lzo) when it fits the objects that
 * are there; else it is made by reading all partitions once, and stored in the archive when the
 * mount may write, or on this host when it may not. One backup is loaded once however many ask. */
#ifndef WALEFS_FS_BACKUP_SET_H
#define WALEFS_FS_BACKUP_SET_H

#include "core/catalog.h"
#include "fs/backup_tree.h"
#include "fs/partition.h"

struct backup_set;

struct backup_set_options {
    struct store *store; /* borrowed, like pgp and pool */
    struct openpgp *pgp;
    struct pool *pool;
    const char *dir; /* where anonymous files and kept indexes go */
    uint64_t cache_bytes;
    bool writable;
    /* Told of partitions that were found damaged, as partition.h says. */
    void (*damaged)(void *arg, const struct partition *p);
    void *damaged_arg;
};

struct backup_set *backup_set_new(const struct backup_set_options *options, struct err *err);
void backup_set_stop(struct backup_set *set); /* cancels all work; does not wait for it */
void backup_set_free(struct backup_set *set); /* after pool_free; NULL is allowed */

/* The listing, less than MAX_AGE_MS old; with 0 it is asked for anew. One attempt. A reference. */
struct catalog *backup_set_catalog(struct backup_set *set, int64_t max_age_ms,
                                   const struct call *call, struct err *err);
/* The listing has changed: the next one is asked for anew. */
void backup_set_changed(struct backup_set *set);

/* What loading yields; immutable, reference-counted. */
struct backup_content {
    _Atomic unsigned refs;
    uint64_t shape; /* a hash of the tree: which places are what */
    struct backup_objects objects;
    struct backup_index *index;
    struct backup_tree *tree;
    uint64_t *tails; /* of each partition: where the last byte lies that the tree shows, or 0 */
};

/* The cache of decoded streams, which other parts of the tree share. */
struct partition_cache *backup_set_partitions(struct backup_set *set);

/* One complete backup, as it was when it was first opened. Reference-counted; any thread. The
 * kernel may know its files for months, so that it is small: the content comes and goes. */
struct backup {
    _Atomic unsigned refs;
    struct backup_set *set;
    struct backup_info info;
    char etag[128]; /* of the sentinel */
    /* the set's lock: */
    struct backup *next;
    bool loading;
    struct err load_err;            /* of the last load, if that failed */
    unsigned loads;                 /* how many have ended */
    struct backup_content *content; /* a reference, or NULL */
    uint64_t shape;                 /* of the first content, which later ones must have; 0: none */
    uint64_t used;                  /* when the content was last asked for, by the set's count */
};

/* A reference; NULL with ERR_ABSENT when the archive has no complete backup of that name. */
struct backup *backup_open(struct backup_set *set, const char *name, const struct call *call,
                           struct err *err);
struct backup *backup_ref(struct backup *b);
void backup_unref(struct backup *b); /* NULL is allowed */

/* Waits until the backup's content is known. One attempt. A reference. ERR_STALE when it is not
 * what it was when files were looked up in it: they have to be looked up again. */
struct backup_content *backup_content(struct backup *b, const struct call *call, struct err *err);
void backup_content_unref(struct backup_content *content); /* NULL is allowed */

/* The partition at INDEX (a place in index->partitions), opened. Only after backup_content. */
struct partition *backup_partition(struct backup *b, const struct backup_content *content,
                                   size_t index, struct err *err);

#endif
