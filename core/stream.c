#include "core/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPY_CHUNK (64 * 1024)
#define PREPEND_MAX 4096

ssize_t source_read_full(struct source *src, void *buf, size_t n, struct err *err)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = src->read(src, (char *)buf + have, n - have, err);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

bool stream_copy(struct source *src, struct sink *dst, struct err *err)
{
    char *chunk = malloc(COPY_CHUNK);
    if (chunk == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok = false;
    for (;;) {
        ssize_t n = src->read(src, chunk, COPY_CHUNK, err);
        if (n == 0)
            ok = true;
        if (n <= 0 || !dst->write(dst, chunk, (size_t)n, err))
            break;
    }
    free(chunk);
    return ok;
}

void source_close(struct source *src)
{
    if (src != NULL)
        src->close(src);
}

void sink_close(struct sink *dst)
{
    if (dst != NULL)
        dst->close(dst);
}

struct prepend {
    struct source base;
    struct source *rest;
    size_t len, pos;
    char head[PREPEND_MAX];
};

static ssize_t prepend_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct prepend *p = (struct prepend *)self;
    if (p->pos == p->len)
        return p->rest->read(p->rest, buf, n, err);
    if (n > p->len - p->pos)
        n = p->len - p->pos;
    memcpy(buf, p->head + p->pos, n);
    p->pos += n;
    return (ssize_t)n;
}

static void prepend_close(struct source *self)
{
    struct prepend *p = (struct prepend *)self;
    source_close(p->rest);
    free(p);
}

struct source *source_prepend(const void *head, size_t n, struct source *rest, struct err *err)
{
    struct prepend *p = n <= PREPEND_MAX ? calloc(1, sizeof(*p)) : NULL;
    if (p == NULL) {
        source_close(rest);
        if (n > PREPEND_MAX)
            err_set(err, ERR_INVALID, "%zu bytes are too many to put before a stream", n);
        else
            err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    p->base = (struct source){.read = prepend_read, .close = prepend_close};
    p->rest = rest;
    p->len = n;
    memcpy(p->head, head, n);
    return &p->base;
}

struct range {
    struct source base;
    int fd;          /* -1: memory */
    const char *mem; /* borrowed */
    uint64_t pos, left;
};

static ssize_t range_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct range *r = (struct range *)self;
    if (n > r->left)
        n = (size_t)r->left;
    if (n == 0)
        return 0;
    ssize_t got = (ssize_t)n;
    if (r->fd < 0) {
        memcpy(buf, r->mem + r->pos, n);
    } else {
        do
            got = pread(r->fd, buf, n, (off_t)r->pos);
        while (got < 0 && errno == EINTR);
        if (got <= 0) {
            err_sys(err, got < 0 ? errno : EIO, "local file ended early or cannot be read");
            return -1;
        }
    }
    r->pos += (uint64_t)got;
    r->left -= (uint64_t)got;
    return got;
}

static void range_close(struct source *self)
{
    free(self);
}

static struct source *range_new(struct range init, struct err *err)
{
    struct range *r = malloc(sizeof(*r));
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    *r = init;
    r->base = (struct source){.read = range_read, .close = range_close};
    return &r->base;
}

struct source *source_fd(int fd, uint64_t offset, uint64_t size, struct err *err)
{
    return range_new((struct range){.fd = fd, .pos = offset, .left = size}, err);
}

struct source *source_mem(const void *mem, size_t size, struct err *err)
{
    return range_new((struct range){.fd = -1, .mem = mem, .left = size}, err);
}
