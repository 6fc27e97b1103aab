/* Bytes on their way: a source is pulled from, a sink is pushed into. Coders are built by putting
 * one around another. Neither is thread-safe; one thread at a time drives a chain.
 *
 * A concrete stream embeds the struct as its first member and fills in the function pointers. */
#ifndef WALEFS_CORE_STREAM_H
#define WALEFS_CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

struct source {
    /* Reads up to N (> 0) bytes: the count, 0 at the end, -1 with ERR set on failure. May return
     * fewer than N. After a failure every further read fails: a failure never looks like an end. */
    ssize_t (*read)(struct source *self, void *buf, size_t n, struct err *err);
    /* Releases the source, and what it owns. */
    void (*close)(struct source *self);
};

struct sink {
    /* Takes all N bytes or fails. */
    bool (*write)(struct sink *self, const void *buf, size_t n, struct err *err);
    /* No more bytes will come: completes and verifies. Called once at most, never after a failure.
     * Only a finish that returned true makes what was written valid. */
    bool (*finish)(struct sink *self, struct err *err);
    /* Releases the sink; without a successful finish before it, this abandons what was written. */
    void (*close)(struct sink *self);
};

/* Reads until N bytes or the end; the count (short only at the end) or -1. */
ssize_t source_read_full(struct source *src, void *buf, size_t n, struct err *err);

/* Pushes all of SRC into DST. Does not call finish. */
bool stream_copy(struct source *src, struct sink *dst, struct err *err);

/* NULL is allowed. */
void source_close(struct source *src);
void sink_close(struct sink *dst);

/* Yields first the N bytes at HEAD (copied; at most 4096), then what REST has. Owns REST from the
 * start, also when it fails (NULL, ERR set). Used to look at the first bytes of a stream. */
struct source *source_prepend(const void *head, size_t n, struct source *rest, struct err *err);

/* Reads [OFFSET, OFFSET+SIZE) of FD with pread; a file that is shorter is ERR_LOCAL. Does not own
 * FD. MEM instead of a file: source_mem. The memory is borrowed until close. */
struct source *source_fd(int fd, uint64_t offset, uint64_t size, struct err *err);
struct source *source_mem(const void *mem, size_t size, struct err *err);

#endif
