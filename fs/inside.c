#include "fs/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_wal.h"
#include "core/log.h"

/* For all backups of one count together: the count waits for them. */
#define PATIENCE_MS 20000

struct entry {
    char name[BACKUP_NAME_MAX];
    char etag[128];
    struct wal_census *segments;
    bool used; /* by the count that is under way */
    struct entry *next;
};

struct inside_cache {
    struct entry *first;
};

struct inside_cache *inside_cache_new(struct err *err)
{
    struct inside_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return cache;
}

/* All, or those that the last count did not use. */
static void drop(struct inside_cache *cache, bool all)
{
    for (struct entry **slot = &cache->first; *slot != NULL;) {
        struct entry *e = *slot;
        if (e->used && !all) {
            e->used = false;
            slot = &e->next;
            continue;
        }
        *slot = e->next;
        wal_census_free(e->segments);
        free(e);
    }
}

void inside_cache_free(struct inside_cache *cache)
{
    if (cache == NULL)
        return;
    drop(cache, true);
    free(cache);
}

/* ---- looking ---- */

static struct entry *find(struct inside_cache *cache, const struct catalog_backup *b, uint32_t size)
{
    struct entry *e = cache->first;
    while (e != NULL && (strcmp(e->name, b->info.name) != 0 || strcmp(e->etag, b->etag) != 0 ||
                         e->segments->segment_size != size))
        e = e->next;
    return e;
}

static struct entry *look(struct fs *fs, const struct catalog_backup *b, uint32_t size,
                          const struct call *call, struct err *err)
{
    const struct index_place place = {
        .store = fs->opt.store, .pgp = fs->opt.pgp, .dir = fs->opt.cache_dir};
    struct entry *e = calloc(1, sizeof(*e));
    if (e == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    e->segments = backup_wal_inside(&place, b->info.name, size, call, err);
    if (e->segments == NULL) {
        free(e);
        return NULL;
    }
    (void)snprintf(e->name, sizeof(e->name), "%s", b->info.name);
    (void)snprintf(e->etag, sizeof(e->etag), "%s", b->etag);
    e->next = fs->inside->first;
    fs->inside->first = e;
    return e;
}

/* Takes what WAY lacks within. */
static bool add(struct inside_verdicts *out, const struct catalog_backup *b, struct wal_way *way,
                struct err *err)
{
    if (out->count == out->capacity) {
        size_t wanted = out->capacity == 0 ? 8 : out->capacity * 2;
        struct inside_verdict *grown = reallocarray(out->of, wanted, sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        out->of = grown;
        out->capacity = wanted;
    }
    struct inside_verdict *v = &out->of[out->count++];
    *v = (struct inside_verdict){.within = way->within};
    way->within = (struct wal_ranges){.of = NULL};
    (void)snprintf(v->name, sizeof(v->name), "%s", b->info.name);
    (void)snprintf(v->etag, sizeof(v->etag), "%s", b->etag);
    return true;
}

static bool judge(struct fs *fs, const struct wal_census *c, const struct catalog_backup *b,
                  struct inside_verdicts *out, const struct call *call, struct err *err)
{
    struct wal_way way;
    bool known;
    bool ok = backup_wal_way(c, &b->info, &way, &known, err);
    if (ok && known && backup_wal_may_be_inside(&b->info, &way)) {
        struct entry *e = find(fs->inside, b, c->segment_size);
        if (e == NULL)
            e = look(fs, b, c->segment_size, call, err);
        if (e != NULL)
            e->used = true;
        ok = e != NULL && backup_wal_take_inside(&way, e->segments, err) && add(out, b, &way, err);
    }
    wal_way_free(&way);
    return ok;
}

/* It says something of this backup only. */
static bool is_of_one(const struct err *err)
{
    return err->code == ERR_ABSENT || err->code == ERR_CORRUPT || err->code == ERR_UNSUPPORTED ||
           err->code == ERR_FROZEN;
}

void inside_judge(struct fs *fs, const struct wal_census *c, int64_t begun_ms,
                  struct inside_verdicts *out, const struct call *call)
{
    struct err err = ERR_INIT;
    struct call patient = *call;
    patient.deadline_ms = now_ms() + PATIENCE_MS;
    struct catalog *catalog =
        c->segment_size == 0
            ? NULL
            : backup_set_catalog(fs->backup_set, now_ms() - begun_ms, &patient, &err);
    bool asking = true;
    for (size_t i = 0; catalog != NULL && i < catalog->count; i++) {
        const struct catalog_backup *b = &catalog->backups[i];
        struct err why = ERR_INIT;
        if (!asking && find(fs->inside, b, c->segment_size) == NULL)
            continue;
        if (judge(fs, c, b, out, &patient, &why))
            continue;
        log_debug("%s: whether it has its WAL inside cannot be looked up: %s", b->info.name,
                  why.text);
        asking = asking && is_of_one(&why);
    }
    if (catalog != NULL)
        drop(fs->inside, false);
    catalog_unref(catalog);
}

const struct inside_verdict *inside_find(const struct inside_verdicts *v,
                                         const struct catalog_backup *b)
{
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->of[i].name, b->info.name) == 0 && strcmp(v->of[i].etag, b->etag) == 0)
            return &v->of[i];
    return NULL;
}

void inside_verdicts_free(struct inside_verdicts *v)
{
    for (size_t i = 0; i < v->count; i++)
        wal_ranges_free(&v->of[i].within);
    free(v->of);
    *v = (struct inside_verdicts){.of = NULL};
}
