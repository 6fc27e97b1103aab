/* What WAL base backups have inside, for a count of wal/ that lacks what they need.
 *
 * A backup's index is asked for only then, and what it tells is kept as long as the backup's
 * sentinel is the same. What could not be looked up is tried again by the next count. Used by one
 * thread at a time. */
#ifndef WALEFS_FS_INSIDE_H
#define WALEFS_FS_INSIDE_H

#include "core/catalog.h"
#include "core/wal_census.h"
#include "fs/node.h"

struct inside_cache;

struct inside_cache *inside_cache_new(struct err *err);
void inside_cache_free(struct inside_cache *cache); /* NULL is allowed */

/* What a backup lacks of its own when what it has inside is counted. */
struct inside_verdict {
    char name[BACKUP_NAME_MAX];
    char etag[128]; /* of its sentinel */
    struct wal_ranges within;
};

struct inside_verdicts {
    struct inside_verdict *of;
    size_t count, capacity;
};

/* Looks into those of the archive's backups whose own WAL C lacks; for some seconds at most. The
 * count was begun at BEGUN_MS: a listing of backups that is no older, as status/summary asks for at
 * the same time, does for it. */
void inside_judge(struct fs *fs, const struct wal_census *c, int64_t begun_ms,
                  struct inside_verdicts *out, const struct call *call);

/* NULL when it was not looked into, or could not be. */
const struct inside_verdict *inside_find(const struct inside_verdicts *v,
                                         const struct catalog_backup *b);
void inside_verdicts_free(struct inside_verdicts *v); /* contents only; safe when zeroed */

#endif
