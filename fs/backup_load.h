/* Finding out what a backup holds. Used by backup_set.c alone. */
#ifndef WALEFS_FS_BACKUP_LOAD_H
#define WALEFS_FS_BACKUP_LOAD_H

#include "fs/backup_set.h"

/* Lists the backup's objects, reads its index or makes it, and builds the tree. INFO is what its
 * sentinel says. Blocks, for as long as reading the whole backup takes. NULL on failure;
 * ERR_CORRUPT when a partition is missing. */
struct backup_content *backup_load(const struct backup_set_options *options,
                                   const struct backup_info *info, const struct call *call,
                                   struct err *err);
void backup_content_free(struct backup_content *content); /* NULL is allowed */

#endif
