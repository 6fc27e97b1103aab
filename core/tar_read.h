/* Reading a tar stream member by member, with libarchive: GNU, ustar and pax; what PostgreSQL,
 * WAL-E, tar and walefs write. One thread. */
#ifndef WALEFS_CORE_TAR_READ_H
#define WALEFS_CORE_TAR_READ_H

#include "core/backup_index.h"

struct tar_reader;

/* PLAIN is borrowed until the reader is freed; WHAT (borrowed) names it in errors. */
struct tar_reader *tar_reader_new(struct source *plain, const char *what, struct err *err);
void tar_reader_free(struct tar_reader *r); /* NULL is allowed */

/* The next member: 1, 0 at the end of the members, -1 with ERR (ERR_CORRUPT for what is no sound
 * tar, ERR_UNSUPPORTED for a sparse file). M's strings are borrowed until the next call; its
 * partition and offset are not set. *KNOWN is false for what has no place in a tree. */
int tar_reader_next(struct tar_reader *r, struct member *m, bool *known, struct err *err);

/* Reads the member's data: the count, 0 at its end, -1. */
ssize_t tar_reader_data(struct tar_reader *r, void *buf, size_t n, struct err *err);

/* Steps over what is left of the member, and says where its data began in the stream. */
bool tar_reader_skip(struct tar_reader *r, const struct member *m, uint64_t *offset,
                     struct err *err);

/* After the last member: reads the stream to its end, which must be a tar's. */
bool tar_reader_finish(struct tar_reader *r, struct err *err);

#endif
