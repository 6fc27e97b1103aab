/* Whether the WAL is there that a base backup needs. */
#ifndef WALEFS_CORE_BACKUP_WAL_H
#define WALEFS_CORE_BACKUP_WAL_H

#include "core/sentinel.h"
#include "core/wal_census.h"

/* What a recovery from the backup lacks; see wal_census_way. *KNOWN: whether that can be told; it
 * cannot when the segment size is not known, or not where the backup begins. WAY is freed by the
 * caller in any case. False without memory. */
bool backup_wal_way(const struct wal_census *c, const struct backup_info *info, struct wal_way *way,
                    bool *known, struct err *err);

#endif
