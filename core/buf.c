#include "core/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All of it: there was more in it than now, if it was emptied to be used again. */
static void wipe_and_free(struct buf *b)
{
    if (b->secret && b->data != NULL)
        explicit_bzero(b->data, b->cap);
    free(b->data);
}

bool buf_reserve(struct buf *b, size_t n)
{
    b->no_memory = false;
    if (n > b->max || b->len > b->max - n || b->len + n > SIZE_MAX / 4)
        return false;
    size_t need = b->len + n + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need)
        cap *= 2;
    /* realloc would leave the old copy as it is */
    char *data = realloc(b->secret ? NULL : b->data, cap);
    b->no_memory = data == NULL;
    if (data == NULL)
        return false;
    if (b->secret && b->data != NULL) {
        memcpy(data, b->data, b->len);
        wipe_and_free(b);
    }
    b->data = data;
    b->cap = cap;
    b->data[b->len] = '\0';
    return true;
}

bool buf_append(struct buf *b, const void *data, size_t n)
{
    if (!buf_reserve(b, n))
        return false;
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !buf_reserve(b, (size_t)n))
        return false;
    va_start(ap, fmt);
    (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

bool buf_refused(const struct buf *b, const char *too_long, struct err *err)
{
    return b->no_memory ? err_set(err, ERR_NO_MEMORY, "out of memory")
                        : err_set(err, ERR_INVALID, "%s", too_long);
}

const char *buf_str(const struct buf *b)
{
    return b->data == NULL ? "" : b->data;
}

void buf_free(struct buf *b)
{
    wipe_and_free(b);
    b->data = NULL;
    b->len = b->cap = 0;
}
