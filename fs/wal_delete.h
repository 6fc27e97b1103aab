/* Deleting archived WAL (promise 8): only with allow_delete, never what a kept backup needs.
 *
 * unlink returns when the name is noted: it is gone from the tree from then on, and a job deletes
 * many at once from the store. What fails is logged and tried again; the name does not come back
 * while the mount lives. */
#ifndef WALEFS_FS_WAL_DELETE_H
#define WALEFS_FS_WAL_DELETE_H

#include "fs/node.h"

struct wal_delete;

struct wal_delete *wal_delete_new(struct fs *fs, struct err *err);
/* Before pool_free, which waits for the last attempt. */
void wal_delete_stop(struct wal_delete *d);
void wal_delete_free(struct wal_delete *d); /* NULL is allowed */

/* Notes NAME, one that PostgreSQL archives, for deletion. ERR_DENIED with the reason when it must
 * stay: no allow_delete, a history file, needed by a backup. */
bool wal_delete_add(struct wal_delete *d, const char *name, const struct call *call,
                    struct err *err);

/* How many names were noted that the store has not deleted yet. */
size_t wal_delete_pending(struct wal_delete *d);

/* Is NAME on its way? When it has gone, the store is asked again: another host may have archived
 * it. */
bool wal_delete_waits(struct wal_delete *d, const char *name);
/* Is it, or has it gone so lately that a listing that began before may still have it? */
bool wal_delete_has(struct wal_delete *d, const char *name);
/* NAME is archived anew. Waits until a deletion under way is over. */
bool wal_delete_take_back(struct wal_delete *d, const char *name, const struct call *call,
                          struct err *err);

#endif
