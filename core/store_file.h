/* A directory as a store: each object is a file under its key, as WAL-E's file:// prefix has it.
 * Objects appear by link or rename of a finished, fsynced temporary file (".walefs-tmp-*" in the
 * object's directory, not listed); metadata is in extended attributes ("user.walefs-...") where the
 * file system has them, else it is absent. */
#ifndef WALEFS_CORE_STORE_FILE_H
#define WALEFS_CORE_STORE_FILE_H

#include "core/store.h"

/* DIR is absolute. Does not touch the disk. */
struct store *store_file_new(const char *dir, struct err *err);

#endif
