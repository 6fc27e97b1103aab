/* Counting the WAL of the archive: lists all of wal/, however long that takes, in bounded memory.
 */
#ifndef WALEFS_FS_WAL_SURVEY_H
#define WALEFS_FS_WAL_SURVEY_H

#include "core/wal_census.h"
#include "fs/inside.h"
#include "fs/node.h"

struct wal_count {
    struct wal_census *census;
    struct inside_verdicts inside; /* of the backups whose own WAL it lacks */
};

/* NULL on failure. */
struct wal_count *wal_survey(struct fs *fs, const struct call *call, struct err *err);
void wal_count_free(struct wal_count *count); /* NULL is allowed */

#endif
