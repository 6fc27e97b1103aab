/* Reading a file under dumps/.
 *
 * What is small is fetched and verified whole before its first byte is served. The rest is decoded
 * as far as somebody reads, in the cache that partitions of base backups use (partition.h): from
 * any block where the object is not encrypted and its block map is kept, else from its start.
 *
 * Who has a file open goes on reading it when it is renamed on this host, itself or with its
 * directory; when its content is deleted or replaced, what was not read yet is ERR_STALE. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/spool.h"
#include "fs/dumps.h"

/* Up to so many plain bytes are fetched whole. */
#define WHOLE_BYTES (16u << 20)

/* The object that has what is read: another one after a rename. */
struct object {
    char key[STORE_KEY_MAX];
    struct dump_facts facts;
    uint64_t stored;
};

struct reader {
    struct handle base;
    char *path;        /* when it was opened: for messages */
    unsigned replaced; /* of its node then: it reads that content, or fails */
    pthread_mutex_t lock;
    struct object object;        /* lock */
    struct partition *partition; /* lock: of that object; a reference */
    int fd;                      /* lock: of what was fetched whole; -1. Fixed once it is there */
};

struct read_question {
    struct fs *fs;
    struct reader *r;
    uint64_t offset;
    size_t size;
    struct fs_bytes *out;
};

/* ---- one object ---- */

static bool is_same(const struct object *a, const struct object *b)
{
    return strcmp(a->key, b->key) == 0 && strcmp(a->facts.etag, b->facts.etag) == 0;
}

static bool decode_into(struct fs *fs, const struct object *o, int fd, const struct call *call,
                        struct err *err)
{
    struct store *store = fs->opt.store;
    struct store_info info;
    struct spool_result result;
    struct source *body = store->ops->get(store, o->key, 0, UINT64_MAX, &info, call, err);
    if (body == NULL)
        return false;
    bool ok = strcmp(info.etag, o->facts.etag) == 0 ||
              err_set(err, ERR_STALE, "%s has been replaced since it was opened", o->key);
    struct sink *out = ok ? spool_sink(fd, o->facts.size, false, &result, err) : NULL;
    ok = out != NULL && codec_decode(fs->opt.pgp, body, out, OPENPGP_FOREGROUND, NULL, call, err);
    sink_close(out);
    source_close(body);
    if (ok && result.size != o->facts.size)
        return err_set(err, ERR_CORRUPT, "%s has %" PRIu64 " bytes, its facts say %" PRIu64, o->key,
                       result.size, o->facts.size);
    return ok || err_context(err, "%s", o->key);
}

static bool fetch_whole(struct fs *fs, struct reader *r, const struct object *o,
                        const struct call *call, struct err *err)
{
    int fd = spool_open(fs->opt.cache_dir, err);
    if (fd < 0)
        return false;
    if (!decode_into(fs, o, fd, call, err)) {
        close(fd);
        return false;
    }
    pthread_mutex_lock(&r->lock);
    bool taken = r->fd >= 0;
    if (!taken)
        r->fd = fd;
    pthread_mutex_unlock(&r->lock);
    if (taken)
        close(fd);
    return true;
}

/* A reference for the caller. */
static struct partition *open_stream(struct fs *fs, struct reader *r, const struct object *o,
                                     const struct call *call, struct err *err)
{
    struct index_partition index = {
        .number = 1, .stored_size = o->stored, .encrypted = o->facts.encrypted};
    memcpy(index.etag, o->facts.etag, sizeof(index.etag));
    if (!dump_facts_map(fs, o->key, &o->facts, &index.map, call))
        index.map = (struct lzop_map){.plain_size = o->facts.size};
    const struct partition_source source = {
        .object = {.key = o->key,
                   .index = &index,
                   .held_from = o->facts.size > 0 ? o->facts.size - 1 : 0}};
    struct partition *p = partition_open(backup_set_partitions(fs->backup_set), &source, err);
    lzop_map_free(&index.map);
    if (p == NULL)
        return NULL;
    pthread_mutex_lock(&r->lock);
    if (r->partition == NULL && is_same(&r->object, o))
        r->partition = partition_ref(p);
    pthread_mutex_unlock(&r->lock);
    return p;
}

/* *O is what it was read from, or was to be. */
static bool read_object(struct fs *fs, const struct read_question *q, struct object *o,
                        const struct call *call, struct err *err)
{
    struct reader *r = q->r;
    struct fs_bytes *out = q->out;
    out->offset = q->offset;
    out->size = q->size;
    pthread_mutex_lock(&r->lock);
    *o = r->object;
    struct partition *p = r->partition == NULL ? NULL : partition_ref(r->partition);
    bool fetched = r->fd >= 0;
    pthread_mutex_unlock(&r->lock);
    if (o->facts.size <= WHOLE_BYTES) {
        if (!fetched && !fetch_whole(fs, r, o, call, err))
            return false;
        out->fd = r->fd;
        return true;
    }
    if (p == NULL)
        p = open_stream(fs, r, o, call, err);
    bool ok = p != NULL &&
              partition_read(p, q->offset, q->size, &out->fd, &out->size, &out->pin, call, err);
    partition_close(p);
    return ok;
}

/* ---- following a rename ---- */

/* The object that the node's name stands for now; false when that is not what R reads. */
static bool present_object(struct fs *fs, struct reader *r, struct object *now)
{
    char path[STORE_KEY_MAX];
    struct err ignored = ERR_INIT;
    struct dump_file *f = r->base.node->data;
    if (!dump_path(fs, r->base.node, path, &ignored) || !dump_key(path, now->key, &ignored))
        return false;
    pthread_mutex_lock(&f->lock);
    now->facts = f->facts;
    now->stored = f->stored;
    bool same = f->replaced == r->replaced;
    pthread_mutex_unlock(&f->lock);
    return same;
}

static bool is_being_renamed(struct fs *fs, const struct reader *r)
{
    char path[STORE_KEY_MAX];
    struct err ignored = ERR_INIT;
    return dump_path(fs, r->base.node, path, &ignored) && dumps_is_claimed(fs, path);
}

/* TRIED is not there, or is another content. True: R is to be read from another object, where a
 * rename has put it. Else ERR; a transient one while a rename is under way, whose end shows in the
 * node before it shows in the claims. */
static bool follow(struct fs *fs, struct reader *r, const struct object *tried, struct err *err)
{
    struct object now;
    struct partition *former = NULL;
    if (err->code != ERR_ABSENT && err->code != ERR_STALE)
        return false;
    bool renamed = is_being_renamed(fs, r);
    bool follows = present_object(fs, r, &now);
    if (follows && is_same(&now, tried) && renamed)
        return err_set(err, ERR_UNAVAILABLE, "%s is being renamed", r->path);
    pthread_mutex_lock(&r->lock);
    bool elsewhere = follows && !is_same(&now, tried);
    if (elsewhere && !is_same(&now, &r->object)) {
        former = r->partition;
        r->partition = NULL;
        r->object = now;
    }
    pthread_mutex_unlock(&r->lock);
    partition_close(former);
    return elsewhere ||
           err_set(err, ERR_STALE, "%s has been deleted or replaced since it was opened", r->path);
}

/* ---- the handle ---- */

static bool read_attempt(void *arg, const struct call *call, struct err *err)
{
    const struct read_question *q = arg;
    struct object o;
    while (!read_object(q->fs, q, &o, call, err))
        if (!follow(q->fs, q->r, &o, err))
            return false;
    return true;
}

static bool reader_read(struct fs *fs, struct handle *h, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    struct reader *r = (struct reader *)h;
    pthread_mutex_lock(&r->lock);
    uint64_t left = offset < r->object.facts.size ? r->object.facts.size - offset : 0;
    pthread_mutex_unlock(&r->lock);
    if (size > left)
        size = (size_t)left;
    *out = (struct fs_bytes){.fd = -1, .offset = offset};
    struct read_question q = {.fs = fs, .r = r, .offset = offset, .size = size, .out = out};
    return size == 0 || persist(&fs->persistence, r->path, call, read_attempt, &q, err);
}

static bool reader_reads(const struct handle *h, const struct partition *p)
{
    struct reader *r = (struct reader *)h;
    pthread_mutex_lock(&r->lock);
    bool reads = r->partition == p;
    pthread_mutex_unlock(&r->lock);
    return reads;
}

static bool reader_write(struct fs *fs, struct handle *h, const void *data, size_t n,
                         uint64_t offset, const struct call *call, struct err *err)
{
    (void)fs;
    (void)data;
    (void)n;
    (void)offset;
    (void)call;
    return err_set(err, ERR_DENIED,
                   "%s: a dump is not changed in place: write a new one and rename it over this",
                   ((struct reader *)h)->path);
}

/* pg_dump opens what it has closed once more, to sync it. */
static bool reader_fsync(struct fs *fs, struct handle *h, const struct call *call, struct err *err)
{
    (void)fs;
    (void)h;
    (void)call;
    (void)err;
    return true;
}

static void reader_release(struct fs *fs, struct handle *h)
{
    struct reader *r = (struct reader *)h;
    partition_close(r->partition);
    if (r->fd >= 0)
        close(r->fd);
    node_unref(fs->inodes, r->base.node);
    pthread_mutex_destroy(&r->lock);
    free(r->path);
    free(r);
}

static const struct handle_ops reader_ops = {
    .read = reader_read, .fsync = reader_fsync, .release = reader_release, .reads = reader_reads};
static const struct handle_ops refusing_ops = {.read = reader_read,
                                               .write = reader_write,
                                               .fsync = reader_fsync,
                                               .release = reader_release,
                                               .reads = reader_reads};

struct handle *dump_reader_new(struct fs *fs, struct node *node, const char *path, bool writable,
                               struct err *err)
{
    struct dump_file *f = node->data;
    struct object object;
    if (!dump_key(path, object.key, err))
        return NULL;
    struct reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&r->lock, NULL);
    r->base = (struct handle){.ops = writable ? &refusing_ops : &reader_ops,
                              .node = node_ref(fs->inodes, node)};
    r->fd = -1;
    pthread_mutex_lock(&f->lock);
    r->base.immutable = !writable && !f->writing; /* its writer may publish again */
    object.facts = f->facts;
    object.stored = f->stored;
    r->replaced = f->replaced;
    pthread_mutex_unlock(&f->lock);
    r->object = object;
    size_t size = strlen(path) + sizeof("dumps/");
    r->path = malloc(size);
    if (r->path != NULL)
        (void)snprintf(r->path, size, "dumps/%s", path);
    if (r->path != NULL)
        return &r->base;
    reader_release(fs, &r->base);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}
