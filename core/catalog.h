/* The base backups of an archive at one moment. A snapshot: immutable, reference-counted. */
#ifndef WALEFS_CORE_CATALOG_H
#define WALEFS_CORE_CATALOG_H

#include "core/sentinel.h"
#include "core/store.h"

struct catalog_backup {
    struct backup_info info;
    char etag[128]; /* of the sentinel */
};

/* Objects of a backup without a sentinel, or of one whose writer died before it had a name. */
struct catalog_incomplete {
    char name[BACKUP_NAME_MAX];
    bool damaged; /* it has a sentinel, which cannot be read: it was complete once, and may be all
                   * there is, so that nothing of it is to be deleted as a rest */
    bool frozen;  /* damaged, though only because the sentinel is in an archive storage class */
};

struct catalog {
    _Atomic unsigned refs;
    struct catalog_backup *backups; /* complete ones, oldest first by the rule of backup_newer */
    size_t count;
    struct catalog_incomplete *incomplete;
    size_t incomplete_count;
    size_t damaged_count; /* of these */
};

/* Lists basebackups_005/ (delimiter "/") and reads the sentinels that PREVIOUS (may be NULL) does
 * not have with the same etag, several at once. A sentinel that is not readable JSON, or is
 * in an archive storage class, makes that backup a damaged one, with a warning in the log. A
 * reference; NULL on failure: then *SO_FAR (may be NULL) is set, if anything could be read, to what
 * is of use as PREVIOUS of the next attempt, and as nothing else. Blocks. */
struct catalog *catalog_load(struct store *store, struct catalog *previous, struct catalog **so_far,
                             const struct call *call, struct err *err);
struct catalog *catalog_ref(struct catalog *c);
void catalog_unref(struct catalog *c); /* NULL is allowed */

/* By base_... name; NULL when there is no such complete backup. Borrowed from the catalog. */
const struct catalog_backup *catalog_find(const struct catalog *c, const char *name);
/* By label; of several with one label the newest. */
const struct catalog_backup *catalog_find_label(const struct catalog *c, const char *label);
/* The newest, or NULL. */
const struct catalog_backup *catalog_latest(const struct catalog *c);
/* The segment size by which an archive's WAL is counted, for status/ and walefs check alike: that
 * of its NEWEST segment (the last name of all; 0 when there is none or it cannot be read), else
 * what the newest backup of C (NULL: not known) says that knows it; 0 when none does.
 *
 * One size, not one for each timeline: pg_upgrade refuses a cluster of another size, and
 * pg_resetwal changes it (--wal-segsize) in the middle of a timeline. What is older than that is of
 * no use to the cluster, and as far as its names do not fit the census counts them apart. */
uint32_t archive_segment_size(uint32_t newest, const struct catalog *c);
/* NULL when there is no such one. Borrowed from the catalog. */
const struct catalog_incomplete *catalog_find_incomplete(const struct catalog *c, const char *name);

/* "its sentinel cannot be read; restore ...": what to say of a damaged one behind its name. */
#define CATALOG_ADVICE_MAX 320
void catalog_damaged_advice(const struct catalog_incomplete *left, char out[CATALOG_ADVICE_MAX]);

/* The rule of LATEST: the higher timeline wins, then the higher start position, then the later
 * sentinel, then the greater name. */
bool backup_newer(const struct backup_info *a, const struct backup_info *b);

/* What lies below basebackups_005/NAME/. */
struct backup_object {
    char *key;
    unsigned number; /* of a partition; UINT32_MAX for anything else */
    uint64_t size;
    int64_t mtime_s;
    char etag[128];
};

struct backup_objects {
    struct backup_object *objects; /* partitions first, by number */
    size_t count;
    size_t partition_count;
    uint64_t size; /* of all */
};

/* Lists all objects of a backup. Several partitions of one number, or a gap in the numbers, are
 * not an error here. */
bool backup_objects_load(struct store *store, const char *name, struct backup_objects *out,
                         const struct call *call, struct err *err);
void backup_objects_free(struct backup_objects *objects); /* contents only */

/* Deletes a backup: its sentinel first, acknowledged, then everything else by bulk delete. Absent
 * parts are fine. Interrupted, it leaves an incomplete backup. */
bool backup_delete(struct store *store, const char *name, const struct call *call, struct err *err);

#endif
