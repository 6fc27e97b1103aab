/* Counting the WAL of the archive: lists all of wal/, however long that takes, in bounded memory.
 */
#ifndef WALEFS_FS_WAL_SURVEY_H
#define WALEFS_FS_WAL_SURVEY_H

#include "core/wal_census.h"
#include "fs/node.h"

/* The caller frees it with wal_census_free. NULL on failure. */
struct wal_census *wal_survey(struct fs *fs, const struct call *call, struct err *err);

#endif
