/* For tests: the stored index of a base backup whose partitions are in a store already. */
#ifndef WALEFS_TESTS_INDEX_ENV_H
#define WALEFS_TESTS_INDEX_ENV_H

#include "core/index_stored.h"

/* Stores an index of backup NAME's partitions: files of SIZE bytes each, called PATHS, which are
 * separated by blanks. */
void index_env_put(struct store *store, struct openpgp *pgp, const char *name, const char *paths,
                   uint64_t size);

/* The index itself; with no partition in OBJECTS, of one that is nowhere. The caller frees it. */
struct backup_index *index_env_make(const struct backup_objects *objects, const char *paths,
                                    uint64_t size);

#endif
