#include "fs/wal_delete.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/outage.h"
#include "core/waiter.h"
#include "core/wal_name.h"
#include "fs/backups.h"
#include "fs/wal_keep.h"

/* pg_archivecleanup unlinks one after the other: the next ones come soon. */
#define GATHER_MS 100
#define RETRY_MS 3000
#define LAST_ATTEMPT_MS 10000
/* A listing that the store gave before a deletion may be read after it: so long a name that has
 * gone stays hidden. */
#define HIDDEN_MS 10000
#define BATCH 1000u

struct doomed {
    char name[WAL_NAME_MAX];
    int64_t gone_ms; /* when the store had deleted it; 0: it has not yet */
};

struct wal_delete {
    struct fs *fs;
    struct cancel stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct doomed *doomed;       /* lock: those that have gone come first */
    size_t gone, count, cap;     /* lock */
    bool running;                /* lock: a job is at work */
    struct catalog *catalog;     /* lock: which backups the limit below is of; a reference */
    struct backup_position keep; /* lock: WAL from here on stays; tli 0: no backup */
};

struct wal_delete *wal_delete_new(struct fs *fs, struct err *err)
{
    struct wal_delete *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    d->fs = fs;
    cancel_init(&d->stop);
    pthread_mutex_init(&d->lock, NULL);
    waiter_cond_init(&d->changed);
    return d;
}

void wal_delete_stop(struct wal_delete *d)
{
    cancel_fire(&d->stop);
}

void wal_delete_free(struct wal_delete *d)
{
    if (d == NULL)
        return;
    if (d->count > d->gone)
        log_warn("%zu WAL files that were deleted are still in the archive", d->count - d->gone);
    catalog_unref(d->catalog);
    free(d->doomed);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    cancel_destroy(&d->stop);
    free(d);
}

/* ---- what must stay ---- */

static bool find_limit(struct wal_delete *d, struct backup_position *keep, const struct call *call,
                       struct err *err)
{
    struct catalog *c = backups_catalog(d->fs, CATALOG_MAX_AGE_MS, call, err);
    if (c == NULL)
        return false;
    pthread_mutex_lock(&d->lock);
    bool known = d->catalog == c;
    *keep = d->keep;
    pthread_mutex_unlock(&d->lock);
    if (!known && !wal_keep_from(d->fs, c, keep, call, err)) {
        catalog_unref(c);
        return false;
    }
    pthread_mutex_lock(&d->lock);
    struct catalog *old = d->catalog;
    d->catalog = c;
    d->keep = *keep;
    pthread_mutex_unlock(&d->lock);
    catalog_unref(old);
    return true;
}

/* The LSN behind the last byte of NAME's segment. */
static uint64_t segment_end(const struct wal_name *n, uint32_t segment_size)
{
    return ((uint64_t)n->log << 32) + ((uint64_t)n->seg + 1) * segment_size;
}

static bool may_go(struct wal_delete *d, const char *name, const struct call *call, struct err *err)
{
    struct fs *fs = d->fs;
    struct wal_name n = wal_name_parse(name);
    struct backup_position keep;
    char label[INODE_NAME_MAX + 1];
    if (fs->opt.read_only || !fs->opt.allow_delete)
        return err_set(err, ERR_DENIED,
                       "wal/%s is archived: walefs deletes nothing unless it is mounted with "
                       "-o allow_delete",
                       name);
    if (n.kind == WAL_HISTORY)
        return err_set(err, ERR_DENIED, "wal/%s: history files are never deleted", name);
    if (wal_keep_writing(fs, label))
        return err_set(err, ERR_BUSY,
                       "wal/%s: no WAL is deleted while a base backup is being written "
                       "(basebackups/%s): try again when it is complete",
                       name, label);
    if (!find_limit(d, &keep, call, err))
        return err_context(err, "wal/%s", name);
    /* a size that is not known yet: the largest, with which the segment ends latest */
    uint32_t size = fs->segment_size != 0 ? fs->segment_size : WAL_SEGMENT_MAX;
    return keep.tli == 0 || segment_end(&n, size) <= keep.lsn ||
           err_set(err, ERR_DENIED,
                   "wal/%s is needed by a base backup that begins at %" PRIX32 "/%" PRIX32
                   ": delete that backup first",
                   name, (uint32_t)(keep.lsn >> 32), (uint32_t)keep.lsn);
}

/* ---- the job ---- */

static size_t gather(struct wal_delete *d, char (*keys)[WAL_NAME_MAX + 16])
{
    size_t n = 0;
    pthread_mutex_lock(&d->lock);
    for (; n < BATCH && d->gone + n < d->count; n++)
        (void)wal_key_of_name(d->doomed[d->gone + n].name, keys[n], sizeof(keys[n]));
    pthread_mutex_unlock(&d->lock);
    return n;
}

/* With the lock held: forgets what nobody can see any more. */
static void forget_gone(struct wal_delete *d)
{
    size_t old = 0;
    while (old < d->gone && d->doomed[old].gone_ms + HIDDEN_MS <= now_ms())
        old++;
    if (old == 0)
        return;
    d->gone -= old;
    d->count -= old;
    memmove(d->doomed, d->doomed + old, d->count * sizeof(*d->doomed));
}

/* The first N that had not gone have; new ones may have been put behind them. */
static void batch_done(struct wal_delete *d, size_t n)
{
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < n; i++)
        d->doomed[d->gone + i].gone_ms = now_ms();
    d->gone += n;
    forget_gone(d);
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static bool delete_batch(struct wal_delete *d, const struct call *call, struct err *err)
{
    char(*keys)[WAL_NAME_MAX + 16] = calloc(BATCH, sizeof(*keys));
    const char **list = calloc(BATCH, sizeof(*list));
    bool ok = keys != NULL && list != NULL;
    size_t n = ok ? gather(d, keys) : 0;
    for (size_t i = 0; i < n; i++)
        list[i] = keys[i];
    struct store *store = d->fs->opt.store;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        ok = store->ops->remove(store, list, n, call, err);
    if (ok) {
        batch_done(d, n);
        log_info("%zu WAL files have been deleted", n);
    }
    free(list);
    free(keys);
    return ok;
}

static struct outage outage = OUTAGE_INIT("WAL can be deleted again");

static void delete_job(void *arg)
{
    struct wal_delete *d = arg;
    bool more = true;
    (void)cancel_sleep_ms(&d->stop, GATHER_MS);
    while (more) {
        struct err err = ERR_INIT;
        bool last = cancel_fired(&d->stop);
        const struct call call = {.cancel = last ? NULL : &d->stop,
                                  .deadline_ms = last ? now_ms() + LAST_ATTEMPT_MS : DEADLINE_NONE};
        bool ok = delete_batch(d, &call, &err);
        if (ok)
            outage_over(&outage, now_ms());
        if (!ok && !last && !cancel_fired(&d->stop)) {
            const struct log_details details = {.op = "delete", .err = &err};
            (void)outage_failure(&outage, LOG_LEVEL_WARN, &details, "deleting WAL: waiting");
            (void)cancel_sleep_ms(&d->stop, RETRY_MS);
        }
        pthread_mutex_lock(&d->lock);
        more = d->count > d->gone && (ok || !last);
        d->running = more;
        pthread_mutex_unlock(&d->lock);
    }
}

/* With the lock held: its place, or count. */
static size_t place_of(const struct wal_delete *d, const char *name)
{
    size_t i = 0;
    while (i < d->count && strcmp(d->doomed[i].name, name) != 0)
        i++;
    return i;
}

/* With the lock held: that I, if it is one, has gone is no news any more. */
static void unhide(struct wal_delete *d, size_t i)
{
    if (i >= d->count || d->doomed[i].gone_ms == 0)
        return;
    d->count--;
    d->gone--;
    memmove(&d->doomed[i], &d->doomed[i + 1], (d->count - i) * sizeof(*d->doomed));
}

/* With the lock held: room for one more. */
static bool make_room(struct wal_delete *d)
{
    if (d->count < d->cap)
        return true;
    size_t cap = d->cap == 0 ? 64 : d->cap * 2;
    struct doomed *more = realloc(d->doomed, cap * sizeof(*more));
    if (more == NULL)
        return false;
    d->doomed = more;
    d->cap = cap;
    return true;
}

bool wal_delete_add(struct wal_delete *d, const char *name, const struct call *call,
                    struct err *err)
{
    if (!may_go(d, name, call, err))
        return false;
    bool ok = false;
    pthread_mutex_lock(&d->lock);
    forget_gone(d);
    unhide(d, place_of(d, name)); /* there it is again, from another host */
    if (place_of(d, name) < d->count) {
        err_set(err, ERR_ABSENT, "wal/%s is deleted already", name);
    } else if (!make_room(d)) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
    } else if (d->running || pool_submit(d->fs->opt.pool, delete_job, d, err)) {
        d->doomed[d->count] = (struct doomed){.gone_ms = 0};
        strcpy(d->doomed[d->count++].name, name); /* one of PostgreSQL's names */
        d->running = true;
        ok = true;
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

size_t wal_delete_pending(struct wal_delete *d)
{
    pthread_mutex_lock(&d->lock);
    size_t pending = d->count - d->gone;
    pthread_mutex_unlock(&d->lock);
    return pending;
}

bool wal_delete_waits(struct wal_delete *d, const char *name)
{
    pthread_mutex_lock(&d->lock);
    size_t i = place_of(d, name);
    bool waits = i < d->count && d->doomed[i].gone_ms == 0;
    pthread_mutex_unlock(&d->lock);
    return waits;
}

bool wal_delete_has(struct wal_delete *d, const char *name)
{
    pthread_mutex_lock(&d->lock);
    forget_gone(d);
    bool has = place_of(d, name) < d->count;
    pthread_mutex_unlock(&d->lock);
    return has;
}

bool wal_delete_take_back(struct wal_delete *d, const char *name, const struct call *call,
                          struct err *err)
{
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, call, &d->lock, &d->changed);
    pthread_mutex_lock(&d->lock);
    size_t i;
    while ((i = place_of(d, name)) < d->count && d->doomed[i].gone_ms == 0 && waited)
        waited = waiter_wait(&w); /* its deletion, which was promised, comes first */
    bool gone = i == d->count || d->doomed[i].gone_ms != 0;
    unhide(d, i);
    pthread_mutex_unlock(&d->lock);
    waiter_end(&w);
    return gone || err_set(err, ERR_UNAVAILABLE, "wal/%s is still being deleted", name);
}
