/* Indexes that were made and cannot be stored in the archive (a read-only mount), kept on this
 * host: files walefs-index-<digest>.lzo in the cache directory, 0600, coded like everything in the
 * archive. The digest is of the backup's name and of the partitions' ETags, so an index is found
 * only for exactly these objects; the caller checks that it fits. Any thread. */
#ifndef WALEFS_FS_INDEX_CACHE_H
#define WALEFS_FS_INDEX_CACHE_H

#include "core/catalog.h"

/* The coded index, for reading; -1 when there is none that this user wrote. The caller closes it.
 */
int index_cache_open(const char *dir, const char *name, const struct backup_objects *objects);

/* Keeps the first SIZE bytes of FD, in place of an older one. */
bool index_cache_keep(const char *dir, const char *name, const struct backup_objects *objects,
                      int fd, uint64_t size, struct err *err);

#endif
