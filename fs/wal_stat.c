/* What the store knows of an archived name, and its content: asked persistently (promise 4). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_check.h"
#include "fs/wal.h"

struct question {
    struct fs *fs;
    const char *name;
    struct plain *plain;
    struct wal_stat *stat;
};

static bool fetch_attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    q->plain = fetcher_get(q->fs->fetcher, q->name, call, err);
    return q->plain != NULL;
}

/* A segment that has been decoded tells the archive's segment size. */
static void learn_segment_size(struct fs *fs, const char *name, uint64_t size)
{
    if (wal_name_parse(name).kind == WAL_SEGMENT && wal_segment_size_valid(size))
        fs->segment_size = (uint32_t)size;
}

struct plain *wal_fetch(struct fs *fs, const char *name, const struct call *call, struct err *err)
{
    char what[WAL_NAME_MAX + 8];
    (void)snprintf(what, sizeof(what), "wal/%s", name);
    struct question q = {.fs = fs, .name = name};
    if (wal_name_parse(name).kind == WAL_PARTIAL)
        fetcher_drop(fs->fetcher, name); /* another host may have replaced it */
    if (!persist(&fs->persistence, what, call, fetch_attempt, &q, err))
        return NULL;
    learn_segment_size(fs, name, q.plain->size);
    return q.plain;
}

bool wal_size_of_meta(const struct store_info *info, uint64_t *size)
{
    const char *text = store_meta_get(info, WAL_META_SIZE);
    if (text == NULL || *text == '\0' || text[strspn(text, "0123456789")] != '\0')
        return false;
    errno = 0;
    *size = strtoull(text, NULL, 10);
    return errno == 0 && *size <= WAL_SEGMENT_MAX;
}

/* The plain size of an object that INFO describes. */
static bool plain_size(struct fs *fs, const char *name, const struct store_info *info,
                       uint64_t *size, const struct call *call, struct err *err)
{
    if (wal_size_of_meta(info, size)) {
        learn_segment_size(fs, name, *size);
        return true;
    }
    uint32_t segment_size = fs->segment_size;
    if (wal_name_parse(name).kind == WAL_SEGMENT && segment_size != 0) {
        *size = segment_size;
        return true;
    }
    /* a .partial is replaced now and then */
    struct plain *cached = fetcher_peek(fs->fetcher, name);
    if (cached != NULL && strcmp(cached->info.etag, info->etag) != 0)
        fetcher_drop(fs->fetcher, name);
    plain_unref(cached);
    struct plain *p = fetcher_get(fs->fetcher, name, call, err);
    if (p != NULL) {
        *size = p->size;
        learn_segment_size(fs, name, p->size);
        plain_unref(p);
        return true;
    }
    /* who cannot read it (no key, damaged) can still see that it is there */
    if (err->code != ERR_KEY && err->code != ERR_CORRUPT && err->code != ERR_FROZEN)
        return false;
    *size = info->size;
    return true;
}

static bool stat_attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    struct plain *p =
        wal_name_parse(q->name).kind == WAL_PARTIAL ? NULL : fetcher_peek(q->fs->fetcher, q->name);
    if (p != NULL) {
        *q->stat = (struct wal_stat){.size = p->size, .mtime_s = p->info.mtime_s};
        plain_unref(p);
        return true;
    }
    char key[STORE_KEY_MAX];
    struct store *store = q->fs->opt.store;
    struct store_info info;
    if (!wal_key_of_name(q->name, key, sizeof(key)) ||
        !store->ops->head(store, key, &info, call, err))
        return false;
    q->stat->mtime_s = info.mtime_s;
    return plain_size(q->fs, q->name, &info, &q->stat->size, call, err);
}

bool wal_stat(struct fs *fs, const char *name, struct wal_stat *out, const struct call *call,
              struct err *err)
{
    char what[WAL_NAME_MAX + 8];
    (void)snprintf(what, sizeof(what), "wal/%s", name);
    struct question q = {.fs = fs, .name = name, .stat = out};
    return persist(&fs->persistence, what, call, stat_attempt, &q, err);
}
