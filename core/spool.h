/* Files without a name: what is staged, coded or cached on this host vanishes with the process.
 * Thread-safe as far as different files are concerned. */
#ifndef WALEFS_CORE_SPOOL_H
#define WALEFS_CORE_SPOOL_H

#include <stdint.h>

#include "core/stream.h"

/* An anonymous file in DIR, 0600, close-on-exec, read and write. -1 with ERR_LOCAL or
 * ERR_NO_SPACE. The caller closes it. */
int spool_open(const char *dir, struct err *err);

/* What went through a spool sink; valid after its finish. */
struct spool_result {
    uint64_t size;
    uint8_t sha256[32]; /* only where it was asked for */
};

/* Writes from the file's beginning; more than MAX_BYTES is ERR_CORRUPT (what feeds a spool is data
 * from the archive, or bounded elsewhere). RESULT is filled by finish and must outlive the sink; FD
 * is borrowed. */
struct sink *spool_sink(int fd, uint64_t max_bytes, bool hash, struct spool_result *result,
                        struct err *err);

/* Writes all N bytes at OFFSET. */
bool spool_write(int fd, const void *data, size_t n, uint64_t offset, struct err *err);

/* Reads up to N bytes at OFFSET; the count, short only at the end of the file; -1 on failure. */
ssize_t spool_read(int fd, void *data, size_t n, uint64_t offset, struct err *err);

#endif
