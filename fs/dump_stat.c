/* What the store knows of a path under dumps/. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/dumps.h"

/* ---- files ---- */

struct question {
    struct fs *fs;
    const char *path;
    const struct call *call; /* so long a measurement is waited for: longer than an attempt */
    struct dump_stat *stat;
    bool *exists;
};

static bool stat_attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    struct dump_stat *st = q->stat;
    struct store *store = q->fs->opt.store;
    char key[STORE_KEY_MAX];
    struct store_info info;
    bool found;
    if (!dump_key(q->path, key, err) || !store->ops->head(store, key, &info, call, err))
        return false;
    *st = (struct dump_stat){.known = true, .stored = info.size, .mtime_s = info.mtime_s};
    if (dump_measured(q->fs, key, info.etag, &st->facts))
        return true;
    if (!dump_facts_find(q->fs, key, info.etag, &st->facts, &found, call, err))
        return false;
    if (found || dump_measure(q->fs, key, info.etag, &st->facts, q->call, err))
        return true;
    /* who cannot read it (no key, damaged) can still see that it is there */
    if (err->code != ERR_KEY && err->code != ERR_CORRUPT && err->code != ERR_FROZEN)
        return false;
    st->known = false;
    st->facts = (struct dump_facts){.size = info.size, .encrypted = true};
    memcpy(st->facts.etag, info.etag, sizeof(st->facts.etag));
    return true;
}

/* Who opens a new file for writing looks for its name first, and nothing in the request tells. So
 * where somebody can write, looking has a writer's deadline: unlike in wal/, no PostgreSQL takes
 * the failure for the end of the archive, and an answer that there may be such a file, as wal_dir.c
 * gives, would make scripts take the dump for made. */
static struct call for_store(const struct fs *fs, const struct call *call)
{
    return fs->opt.read_only ? *call : dump_bounded(fs, call);
}

bool dump_stat(struct fs *fs, const char *path, struct dump_stat *out, const struct call *call,
               struct err *err)
{
    char what[128];
    struct call measuring = *call;
    struct question q = {.fs = fs, .path = path, .call = &measuring, .stat = out};
    int64_t soft_ms = now_ms() + fs->persistence.soft_timeout_ms;
    if (!fs->persistence.hard && soft_ms < measuring.deadline_ms)
        measuring.deadline_ms = soft_ms;
    const struct call asking = for_store(fs, call);
    (void)snprintf(what, sizeof(what), "dumps/%.100s", path);
    return persist(&fs->persistence, what, &asking, stat_attempt, &q, err);
}

/* ---- directories ---- */

static bool dir_attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    struct store *store = q->fs->opt.store;
    char prefix[STORE_KEY_MAX];
    if (!dump_dir_prefix(q->path, prefix, err))
        return false;
    const struct store_list list = {.prefix = prefix, .max_keys = 1};
    struct store_page page = {0};
    if (!store->ops->list(store, &list, &page, call, err))
        return false;
    *q->exists = page.count > 0;
    store_page_free(&page);
    return true;
}

bool dump_dir_exists(struct fs *fs, const char *path, bool *exists, const struct call *call,
                     struct err *err)
{
    char what[128];
    struct question q = {.fs = fs, .path = path, .exists = exists};
    const struct call asking = for_store(fs, call);
    (void)snprintf(what, sizeof(what), "dumps/%.100s/", path);
    return persist(&fs->persistence, what, &asking, dir_attempt, &q, err);
}
