/* Reading a file under dumps/.
 *
 * What is small is fetched and verified whole before its first byte is served. The rest is decoded
 * as far as somebody reads, in the cache that partitions of base backups use (partition.h): from
 * any block where the object is not encrypted and its block map is kept, else from its start. */
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

struct reader {
    struct handle base;
    char *path, *key;
    struct dump_facts facts;
    uint64_t stored;
    pthread_mutex_t lock;
    struct partition *partition; /* lock: a reference; fixed once it is there, as is fd */
    int fd;                      /* lock: of what was fetched whole; -1 */
};

struct read_question {
    struct fs *fs;
    struct reader *r;
    uint64_t offset;
    size_t size;
    struct fs_bytes *out;
};

static bool is_ready(struct reader *r)
{
    pthread_mutex_lock(&r->lock);
    bool ready = r->partition != NULL || r->fd >= 0;
    pthread_mutex_unlock(&r->lock);
    return ready;
}

static bool decode_into(struct fs *fs, struct reader *r, int fd, const struct call *call,
                        struct err *err)
{
    struct store *store = fs->opt.store;
    struct store_info info;
    struct spool_result result;
    struct source *body = store->ops->get(store, r->key, 0, UINT64_MAX, &info, call, err);
    if (body == NULL)
        return false;
    bool ok = strcmp(info.etag, r->facts.etag) == 0 ||
              err_set(err, ERR_STALE, "%s has been replaced since it was opened", r->key);
    struct sink *out = ok ? spool_sink(fd, r->facts.size, false, &result, err) : NULL;
    ok = out != NULL && codec_decode(fs->opt.pgp, body, out, OPENPGP_FOREGROUND, NULL, call, err);
    sink_close(out);
    source_close(body);
    if (ok && result.size != r->facts.size)
        return err_set(err, ERR_CORRUPT, "%s has %" PRIu64 " bytes, its facts say %" PRIu64, r->key,
                       result.size, r->facts.size);
    return ok || err_context(err, "%s", r->key);
}

static bool fetch_whole(struct fs *fs, struct reader *r, const struct call *call, struct err *err)
{
    int fd = spool_open(fs->opt.cache_dir, err);
    if (fd < 0)
        return false;
    if (!decode_into(fs, r, fd, call, err)) {
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

static bool open_stream(struct fs *fs, struct reader *r, const struct call *call, struct err *err)
{
    struct index_partition index = {
        .number = 1, .stored_size = r->stored, .encrypted = r->facts.encrypted};
    memcpy(index.etag, r->facts.etag, sizeof(index.etag));
    if (!dump_facts_map(fs, r->key, &r->facts, &index.map, call))
        index.map = (struct lzop_map){.plain_size = r->facts.size};
    const struct partition_source source = {
        .object = {.key = r->key,
                   .index = &index,
                   .held_from = r->facts.size > 0 ? r->facts.size - 1 : 0}};
    struct partition *p = partition_open(backup_set_partitions(fs->backup_set), &source, err);
    lzop_map_free(&index.map);
    if (p == NULL)
        return false;
    pthread_mutex_lock(&r->lock);
    bool taken = r->partition != NULL;
    if (!taken)
        r->partition = p;
    pthread_mutex_unlock(&r->lock);
    if (taken)
        partition_close(p);
    return true;
}

static bool read_attempt(void *arg, const struct call *call, struct err *err)
{
    struct read_question *q = arg;
    struct reader *r = q->r;
    struct fs_bytes *out = q->out;
    out->offset = q->offset;
    out->size = q->size;
    if (!is_ready(r) && !(r->facts.size <= WHOLE_BYTES ? fetch_whole(q->fs, r, call, err)
                                                       : open_stream(q->fs, r, call, err)))
        return false;
    if (r->partition != NULL)
        return partition_read(r->partition, q->offset, q->size, &out->fd, &out->size, &out->pin,
                              call, err);
    out->fd = r->fd;
    return true;
}

static bool reader_read(struct fs *fs, struct handle *h, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    struct reader *r = (struct reader *)h;
    uint64_t left = offset < r->facts.size ? r->facts.size - offset : 0;
    if (size > left)
        size = (size_t)left;
    *out = (struct fs_bytes){.fd = -1, .offset = offset};
    struct read_question q = {.fs = fs, .r = r, .offset = offset, .size = size, .out = out};
    if (size == 0 || persist(&fs->persistence, r->path, call, read_attempt, &q, err))
        return true;
    if (err->code == ERR_ABSENT) /* it was there when it was opened */
        err_set(err, ERR_STALE, "%s has been renamed or deleted since it was opened", r->path);
    return false;
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
    free(r->key);
    free(r);
}

static const struct handle_ops reader_ops = {
    .read = reader_read, .fsync = reader_fsync, .release = reader_release};
static const struct handle_ops refusing_ops = {
    .read = reader_read, .write = reader_write, .fsync = reader_fsync, .release = reader_release};

struct handle *dump_reader_new(struct fs *fs, struct node *node, const char *path, bool writable,
                               struct err *err)
{
    char key[STORE_KEY_MAX];
    struct dump_file *f = node->data;
    if (!dump_key(path, key, err))
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
    r->facts = f->facts;
    r->stored = f->stored;
    pthread_mutex_unlock(&f->lock);
    r->key = strdup(key);
    size_t size = strlen(path) + sizeof("dumps/");
    r->path = malloc(size);
    if (r->path != NULL)
        (void)snprintf(r->path, size, "dumps/%s", path);
    if (r->key != NULL && r->path != NULL)
        return &r->base;
    reader_release(fs, &r->base);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}
