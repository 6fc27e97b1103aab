/* Reading a file in wal/: what is archived, fetched whole and verified before it is served, or what
 * is staged under a temporary name. */
#include <fcntl.h>
#include <stdlib.h>

#include "core/metrics.h"
#include "fs/wal.h"

void wal_set_bytes(int fd, uint64_t file_size, uint64_t offset, size_t size, struct fs_bytes *out)
{
    uint64_t left = offset < file_size ? file_size - offset : 0;
    *out = (struct fs_bytes){.fd = fd, .offset = offset, .size = size < left ? size : (size_t)left};
}

struct reader {
    struct handle base;
    struct plain *plain; /* one of these two */
    struct stage *stage;
};

static bool reader_read(struct fs *fs, struct handle *handle, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    (void)err;
    struct reader *r = (struct reader *)handle;
    if (r->plain != NULL)
        wal_set_bytes(r->plain->fd, r->plain->size, offset, size, out);
    else
        wal_set_bytes(stage_fd(r->stage), stage_size(r->stage), offset, size, out);
    return true;
}

static void reader_release(struct fs *fs, struct handle *handle)
{
    struct reader *r = (struct reader *)handle;
    backing_leave(&fs->backing_kernel, &r->base.backing);
    plain_unref(r->plain);
    stage_unref(r->stage);
    node_unref(fs->inodes, r->base.node);
    free(r);
}

static bool reader_getattr(struct fs *fs, const struct handle *handle, struct fs_entry *out)
{
    const struct reader *r = (const struct reader *)handle;
    return wal_held_entry(fs, handle->node, r->stage, r->plain, out);
}

static const struct handle_ops reader_ops = {
    .read = reader_read, .release = reader_release, .getattr = reader_getattr};

/* A segment under its name does not change: the kernel may read it itself. */
static bool enter(struct fs *fs, struct reader *r, enum wal_kind kind, struct err *err)
{
    struct wal_file *f = r->base.node->data;
    int fd = kind == WAL_SEGMENT ? r->plain->fd : -1;
    if (!backing_enter(&f->backing, &fs->backing_kernel, fd, &r->base.backing, err))
        return false;
    if (r->base.backing.through) /* as far as we can tell */
        metrics_add(COUNT_READ_BYTES, r->plain->size);
    return true;
}

struct handle *wal_reader_new(struct fs *fs, struct node *node, const char *name,
                              const struct call *call, struct err *err)
{
    struct wal_file *f = node->data;
    struct reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    r->base = (struct handle){.ops = &reader_ops, .node = node_ref(fs->inodes, node)};
    enum wal_kind kind = wal_name_parse(name).kind;
    if (kind == WAL_OTHER) {
        r->stage = wal_file_stage(f);
        if (r->stage == NULL)
            err_set(err, ERR_ABSENT, "wal/%s: no such file", name);
        else if (enter(fs, r, kind, err))
            return &r->base;
        goto fail;
    }
    r->plain = wal_fetch(fs, name, call, err);
    if (r->plain == NULL || !enter(fs, r, kind, err))
        goto fail;
    if (kind == WAL_SEGMENT)
        fetcher_ahead(fs->fetcher, name, (uint32_t)r->plain->size);
    return &r->base;
fail:
    reader_release(fs, &r->base);
    return NULL;
}
