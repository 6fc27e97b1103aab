/* Finding out what a backup holds. Used by backup_set.c alone. */
#ifndef WALEFS_FS_BACKUP_LOAD_H
#define WALEFS_FS_BACKUP_LOAD_H

#include "fs/backup_set.h"

/* Lists the backup's objects, reads its index or makes it, and builds the tree. Blocks, for as long
 * as reading the whole backup takes. NULL on failure. */
struct backup_content *backup_load(const struct backup_set_options *options, const char *name,
                                   const struct call *call, struct err *err);
void backup_content_free(struct backup_content *content); /* NULL is allowed */

#endif
