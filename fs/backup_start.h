/* Where a backup begins, as its own files say: for those whose name cannot be trusted. */
#ifndef WALEFS_FS_BACKUP_START_H
#define WALEFS_FS_BACKUP_START_H

#include "fs/node.h"

/* From backup_label, else from global/pg_control. Reads (and where there is none makes) the index
 * of the backup. Blocks, persistently. */
bool backup_start(struct fs *fs, const char *name, struct backup_position *start,
                  const struct call *call, struct err *err);

#endif
