/* Shared by partition.c and partition_stream.c. One lock, the cache's, guards all that changes. */
#ifndef WALEFS_FS_PARTITION_IMPL_H
#define WALEFS_FS_PARTITION_IMPL_H

#include <pthread.h>

#include "fs/partition.h"

/* The unit of what is kept, where the stream's own blocks cannot be it. */
#define PARTITION_BLOCK_BYTES (256u << 10)

enum block_state {
    BLOCK_ABSENT = 0,
    BLOCK_WRITING,
    BLOCK_HELD, /* written, and not to be read before the whole partition has passed */
    BLOCK_PRESENT,
    BLOCK_READ, /* present, and a reader has come past it: the first to go */
    BLOCK_GOING,
};

/* An encrypted partition of up to this share of the cache is held back altogether. */
#define HELD_SHARE 16u

/* One run over the object's bytes, from some block on: a job on the pool. */
struct partition_stream {
    struct partition *partition;
    struct partition_stream *next; /* the partition's */
    bool background;               /* reads ahead of anybody */
    size_t next_block;             /* what it decodes next */
    size_t limit;                  /* the block before which it waits for a reader */
    size_t window;                 /* how many blocks it may be ahead */
    size_t grow_at;                /* it doubles when a reader comes to this block */
    int64_t wanted_ms;             /* when a reader last wanted something of it */
    bool waits;                    /* for a reader */
    bool go_away;                  /* its place is needed by another */
};

struct partition {
    struct partition_cache *cache;
    struct partition *in_table; /* the next one in the cache's table, or of those to be freed */
    unsigned refs;
    char *key;
    struct index_partition index; /* with a map of its own */
    int fd;
    size_t block_bytes, block_count;
    size_t held_block;               /* the first that is held back; block_count: none */
    struct partition_stream *holder; /* whose blocks are in state BLOCK_HELD */
    unsigned char *states;           /* enum block_state of each block */
    struct partition_stream *streams;
    struct partition_pin *pins;
    struct partition *next; /* a reference: what follows in the backup */
    unsigned failures;      /* streams that have failed */
    struct err failure;     /* of the last of them */
    bool poisoned;          /* that one found damage */
    bool verified;          /* an encrypted one was decoded to its end, which was sound */
};

struct partition_pin {
    struct partition *partition; /* a reference */
    size_t first, last;          /* blocks */
    struct partition_pin *next;
};

/* Decoded blocks in the order in which they came. */
struct kept_block {
    struct partition *partition; /* not a reference: a partition takes its blocks with it */
    size_t block;
};

struct partition_cache {
    struct partition_cache_options opt;
    struct cancel stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct partition *table; /* most recently opened first; a reference each */
    struct kept_block *kept;
    size_t kept_count, kept_cap;
    uint64_t bytes;         /* of kept and of held blocks */
    struct partition *dead; /* without references, to be freed without the lock */
};

/* Gives the lock back, and closes the files of partitions that nobody needs any more. */
void partition_unlock(struct partition_cache *c);

/* With the lock held: may block I be read? */
static inline bool partition_has_block(const struct partition *p, size_t i)
{
    return p->states[i] == BLOCK_PRESENT || p->states[i] == BLOCK_READ;
}

/* With the lock held. */
struct partition *partition_ref_locked(struct partition *p);
void partition_unref_locked(struct partition *p);

/* Bytes of block I. */
size_t partition_block_size(const struct partition *p, size_t i);
/* Has the object random access, so that a stream may begin anywhere? */
bool partition_is_seekable(const struct partition *p);

/* With the lock held: block I has been written. */
bool partition_keep_block(struct partition *p, size_t i);
/* Without it: makes room, if the cache is larger than it may be, or ANYWAY. False when nothing
 * could go. */
bool partition_evict(struct partition_cache *c, bool anyway);

/* Without the lock, after P was found damaged: drops what was decoded of it. */
void partition_drop_damaged(struct partition *p);

/* With the lock held: starts a stream at BLOCK (0 where the object is not seekable). */
bool partition_stream_start(struct partition *p, size_t block, bool background, struct err *err);

#endif
