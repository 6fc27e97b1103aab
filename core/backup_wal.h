/* Whether the WAL is there that a base backup needs: in wal/, or inside the backup itself, as
 * pg_basebackup -X stream and -X fetch leave it in pg_wal. The one rule of status/ and walefs
 * check.
 *
 *     backup_wal_way                  what wal/ lacks
 *     if backup_wal_may_be_inside:    only then is the backup's index asked for
 *         backup_wal_inside           what it has
 *         backup_wal_take_inside      the rest is what is missing */
#ifndef WALEFS_CORE_BACKUP_WAL_H
#define WALEFS_CORE_BACKUP_WAL_H

#include "core/index_stored.h"
#include "core/sentinel.h"
#include "core/wal_census.h"

/* What a recovery from the backup lacks in wal/; see wal_census_way. *KNOWN: whether that can be
 * told; it cannot when the segment size is not known, or not where the backup begins. WAY is freed
 * by the caller in any case. False without memory. */
bool backup_wal_way(const struct wal_census *c, const struct backup_info *info, struct wal_way *way,
                    bool *known, struct err *err);

/* What has to be said with what a backup lacks: WAL-E gave offline backups names that are not where
 * they begin. "" where its start is known. */
const char *backup_wal_doubt(const struct backup_info *info);

/* Can a backup have inside what WAY lacks between its start and its stop? WAL-E's never do: it
 * leaves pg_wal out. */
bool backup_wal_may_be_inside(const struct backup_info *info, const struct wal_way *way);

/* The segments that INDEX has and that are whole. Those of a copy that was made by other means than
 * pg_basebackup, of a cluster that ran, count only where archive_status says that they were full:
 * else one may have been copied while it was written, or be an old one that is to be used again. */
struct wal_census *backup_wal_of_index(const struct backup_index *index, uint32_t segment_size,
                                       struct err *err);

/* The same as the index tells that the archive has; nothing is read of the partitions. ERR_ABSENT
 * when there is no index of the partitions that are there. Blocks: a listing and the index. The
 * caller frees it with wal_census_free; NULL on failure. */
struct wal_census *backup_wal_inside(const struct index_place *place, const char *name,
                                     uint32_t segment_size, const struct call *call,
                                     struct err *err);

/* Takes out of WAY->within what INSIDE has. False without memory. */
bool backup_wal_take_inside(struct wal_way *way, const struct wal_census *inside, struct err *err);

#endif
