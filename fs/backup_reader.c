/* Open files of a complete backup: a range of a partition, or a small text. */
#include <stdlib.h>
#include <unistd.h>

#include "core/spool.h"
#include "fs/backups.h"

struct reader {
    struct handle base;
    struct backup *backup;       /* a reference */
    struct partition *partition; /* a reference; NULL for a text */
    int fd;                      /* of a text */
    uint64_t offset, size;
};

struct read_question {
    struct reader *r;
    uint64_t offset;
    size_t size;
    struct fs_bytes *out;
};

static bool read_attempt(void *arg, const struct call *call, struct err *err)
{
    struct read_question *q = arg;
    struct fs_bytes *out = q->out;
    out->offset = q->offset;
    return partition_read(q->r->partition, q->offset, q->size, &out->fd, &out->size, &out->pin,
                          call, err);
}

static bool reader_read(struct fs *fs, struct handle *handle, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    struct reader *r = (struct reader *)handle;
    uint64_t left = offset < r->size ? r->size - offset : 0;
    if (size > left)
        size = (size_t)left;
    if (r->partition == NULL || size == 0) {
        *out = (struct fs_bytes){.fd = r->fd, .offset = offset, .size = size};
        return true;
    }
    struct read_question q = {.r = r, .offset = r->offset + offset, .size = size, .out = out};
    if (!persist(&fs->persistence, r->backup->info.name, call, read_attempt, &q, err))
        return false;
    if (out->size > 0)
        return true;
    fs_read_done(out);
    return err_set(err, ERR_CORRUPT, "%s: a partition ends before its index says",
                   r->backup->info.name);
}

static void reader_release(struct fs *fs, struct handle *handle)
{
    struct reader *r = (struct reader *)handle;
    partition_close(r->partition);
    backup_unref(r->backup);
    node_unref(fs->inodes, r->base.node);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

static bool reader_reads(const struct handle *handle, const struct partition *p)
{
    return ((const struct reader *)handle)->partition == p;
}

static const struct handle_ops reader_ops = {
    .read = reader_read, .reads = reader_reads, .release = reader_release};

static struct reader *make_reader(struct fs *fs, struct node *node, struct err *err)
{
    struct reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    r->base = (struct handle){.ops = &reader_ops, .node = node_ref(fs->inodes, node)};
    r->fd = -1;
    return r;
}

struct handle *backup_reader_new(struct fs *fs, struct node *node, struct backup *b,
                                 const struct backup_content *content, size_t partition,
                                 uint64_t offset, uint64_t size, struct err *err)
{
    struct reader *r = make_reader(fs, node, err);
    if (r == NULL)
        return NULL;
    r->base.immutable = r->base.verified = true;
    r->backup = backup_ref(b);
    r->offset = offset;
    r->size = size;
    if (size == 0)
        return &r->base;
    r->partition = backup_partition(b, content, partition, err);
    if (r->partition != NULL && partition_check(r->partition, err)) {
        r->base.verified = partition_verified(r->partition);
        return &r->base;
    }
    reader_release(fs, &r->base);
    return NULL;
}

struct handle *backup_text_new(struct fs *fs, struct node *node, const char *text, size_t n,
                               struct err *err)
{
    struct reader *r = make_reader(fs, node, err);
    if (r == NULL)
        return NULL;
    r->size = n;
    r->fd = spool_open(fs->opt.cache_dir, err);
    if (r->fd >= 0 && spool_write(r->fd, text, n, 0, err))
        return &r->base;
    reader_release(fs, &r->base);
    return NULL;
}
