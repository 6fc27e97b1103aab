/* What the store knows of a path under dumps/. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"
#include "core/log.h"
#include "fs/dumps.h"

#define STALL_MS 60000

/* ---- sizes that only reading shows ---- */

static bool recall(struct dumps *d, const char *key, const char *etag, struct dump_facts *out)
{
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < MEASURED_MAX && !found; i++) {
        const struct measured *m = &d->measured[i];
        found = m->key != NULL && strcmp(m->key, key) == 0 && strcmp(m->facts.etag, etag) == 0;
        if (found)
            *out = m->facts;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}

static void remember(struct dumps *d, const char *key, const struct dump_facts *facts)
{
    char *copy = strdup(key);
    if (copy == NULL)
        return;
    pthread_mutex_lock(&d->lock);
    struct measured *m = &d->measured[d->next_measured++ % MEASURED_MAX];
    char *old = m->key;
    *m = (struct measured){.key = copy, .facts = *facts};
    pthread_mutex_unlock(&d->lock);
    free(old);
}

static bool drop_bytes(struct sink *self, const void *data, size_t n, struct err *err)
{
    (void)self;
    (void)data;
    (void)n;
    (void)err;
    return true;
}

static bool drop_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void drop_close(struct sink *self)
{
    (void)self;
}

/* Reads an object that others have put there, to its end, once: for as long as bytes come. */
static bool measure(struct fs *fs, const char *key, const struct store_info *info,
                    struct dump_facts *out, const struct call *asking, struct err *err)
{
    struct progress progress = {.limit_ms = STALL_MS, .last_ms = now_ms()};
    const struct call moving = {
        .cancel = asking->cancel, .deadline_ms = asking->deadline_ms, .progress = &progress};
    const struct call *call = &moving;
    struct sink nowhere = {.write = drop_bytes, .finish = drop_finish, .close = drop_close};
    struct store *store = fs->opt.store;
    struct store_info now;
    struct codec_facts facts = {.encrypted = false};
    log_info("%s has no facts beside it: it is read once, to know its size", key);
    struct source *body = store->ops->get(store, key, 0, UINT64_MAX, &now, call, err);
    if (body == NULL)
        return false;
    bool ok = codec_decode(fs->opt.pgp, body, &nowhere, OPENPGP_BACKGROUND, &facts, call, err);
    source_close(body);
    if (ok && strcmp(now.etag, info->etag) != 0)
        ok = err_set(err, ERR_UNAVAILABLE, "%s was replaced while it was read", key);
    if (ok) {
        *out = (struct dump_facts){.size = facts.map.plain_size, .encrypted = facts.encrypted};
        memcpy(out->etag, info->etag, sizeof(out->etag));
        remember(fs->dumps, key, out);
        dump_facts_put(fs, key, out, &facts.map, NULL, call);
    } else if (err->code == ERR_KEY || err->code == ERR_CORRUPT || err->code == ERR_FROZEN) {
        log_warn("%s: its size is not known: %s", key, err->text);
    }
    lzop_map_free(&facts.map);
    return ok;
}

/* ---- files ---- */

struct question {
    struct fs *fs;
    const char *path;
    const struct call *call; /* of whoever asks: an attempt's is shorter */
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
    if (recall(q->fs->dumps, key, info.etag, &st->facts))
        return true;
    if (!dump_facts_find(q->fs, key, info.etag, &st->facts, &found, call, err))
        return false;
    if (found || measure(q->fs, key, &info, &st->facts, q->call, err))
        return true;
    /* who cannot read it (no key, damaged) can still see that it is there */
    if (err->code != ERR_KEY && err->code != ERR_CORRUPT && err->code != ERR_FROZEN)
        return false;
    st->known = false;
    st->facts = (struct dump_facts){.size = info.size, .encrypted = true};
    memcpy(st->facts.etag, info.etag, sizeof(st->facts.etag));
    return true;
}

bool dump_stat(struct fs *fs, const char *path, struct dump_stat *out, const struct call *call,
               struct err *err)
{
    char what[128];
    struct question q = {.fs = fs, .path = path, .call = call, .stat = out};
    (void)snprintf(what, sizeof(what), "dumps/%.100s", path);
    return persist(&fs->persistence, what, call, stat_attempt, &q, err);
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
    (void)snprintf(what, sizeof(what), "dumps/%.100s/", path);
    return persist(&fs->persistence, what, call, dir_attempt, &q, err);
}
