/* The index that the archive has of a base backup, next to its partitions. Any thread. */
#ifndef WALEFS_CORE_INDEX_STORED_H
#define WALEFS_CORE_INDEX_STORED_H

#include "core/backup_index.h"
#include "core/catalog.h"
#include "core/openpgp.h"

struct index_place {
    struct store *store; /* all borrowed */
    struct openpgp *pgp;
    const char *dir; /* for anonymous files */
};

void index_stored_key(const char *name, char out[STORE_KEY_MAX]);

/* Do the backup's objects have one? */
bool index_stored_has(const struct backup_objects *objects, const char *name);

/* The objects are those that were indexed, all of them and unchanged. */
bool index_fits(const struct backup_index *index, const struct backup_objects *objects);

/* Decodes a coded index completely, verified, before anything is read from it. Does not close
 * BODY. Blocks. NULL on failure, errors as of codec_decode and backup_index_read. */
struct backup_index *index_decode(const struct index_place *place, struct source *body,
                                  const struct call *call, struct err *err);

/* Fetches the one of backup NAME and decodes it. Blocks. NULL on failure. */
struct backup_index *index_fetch(const struct index_place *place, const char *name,
                                 const struct call *call, struct err *err);

#endif
