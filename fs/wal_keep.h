/* Which WAL must stay (promise 8): all from the start of the oldest base backup on. */
#ifndef WALEFS_FS_WAL_KEEP_H
#define WALEFS_FS_WAL_KEEP_H

#include "fs/node.h"

/* Is a base backup being written through this mount? Then where it begins need not be known yet,
 * and nothing may go. LABEL gets the name of one. */
bool wal_keep_writing(struct fs *fs, char label[INODE_NAME_MAX + 1]);

/* Where the oldest of C's backups begins, and of those that another host may be writing; tli 0:
 * there is none. Fails when that is not known of one of them. Blocks, persistently. */
bool wal_keep_from(struct fs *fs, const struct catalog *c, struct backup_position *from,
                   const struct call *call, struct err *err);

#endif
