/* A growable byte buffer with a limit that is declared when it is made. Not thread-safe. What was
 * in a secret one is wiped wherever it has been: when it grows, and when it is freed. */
#ifndef WALEFS_CORE_BUF_H
#define WALEFS_CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct buf {
    char *data; /* NUL-terminated whenever it is not NULL; the NUL is not counted in len */
    size_t len;
    size_t cap;
    size_t max;     /* more than this is refused */
    bool secret;    /* wiped */
    bool no_memory; /* was why it last refused to grow */
};

#define BUF_INIT(max_bytes)                                  \
    {                                                        \
        .data = NULL, .len = 0, .cap = 0, .max = (max_bytes) \
    }
#define BUF_SECRET_INIT(max_bytes)                       \
    {                                                    \
        .data = NULL, .max = (max_bytes), .secret = true \
    }

/* False when the limit is passed or memory is out; the content is then unchanged. */
bool buf_append(struct buf *b, const void *data, size_t n);
bool buf_puts(struct buf *b, const char *s);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Makes room for N more bytes behind len, so that they can be written in place. */
bool buf_reserve(struct buf *b, size_t n);

/* After one of these was false: ERR_INVALID and TOO_LONG, or ERR_NO_MEMORY. Returns false. */
bool buf_refused(const struct buf *b, const char *too_long, struct err *err);

/* "" when nothing was appended. Borrowed until the next change. */
const char *buf_str(const struct buf *b);

/* It can be used again, and is then as secret as it was. */
void buf_free(struct buf *b);

#endif
