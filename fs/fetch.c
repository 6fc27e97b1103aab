#include "fs/fetch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fnv.h"
#include "core/metrics.h"
#include "core/spool.h"
#include "core/waiter.h"
#include "core/wal_check.h"
#include "core/wal_name.h"

/* Archived names do not change their content, so a copy is good until it is dropped; the limit only
 * bounds how long the deletion or replacement by another host goes unseen. */
#define KEEP_MS (5 * 60 * 1000)
#define AHEAD_AT_ONCE 3u
/* each holds a descriptor */
#define CACHED_MAX 128u
#define BUCKETS 256u

struct entry {
    char name[WAL_NAME_MAX];
    struct entry *next; /* in its bucket, or of those to be freed */
    unsigned refs;      /* waiters and the running job */
    bool running;
    bool background;     /* fetched ahead, and nobody waits for it yet */
    bool used;           /* has been handed to a reader: the first to go */
    bool dropped;        /* not in the table any more */
    bool exists;         /* the store has begun to send it */
    bool ahead_goes_on;  /* the job has already started its successor */
    unsigned ahead_left; /* how many more segments the job should start after this one */
    uint32_t segment_size;
    int64_t fetched_ms;  /* copies grow old by this */
    int64_t touched_ms;  /* and are evicted by this */
    struct plain *plain; /* when it is ready */
    struct err err;      /* when the fetch has failed */
    struct fetcher *owner;
};

struct fetcher {
    struct fetch_options opt;
    struct cancel stop;
    pthread_mutex_t lock; /* guards everything below and all entries */
    pthread_cond_t changed;
    struct entry *table[BUCKETS];
    uint64_t cached_bytes;
    unsigned cached_count;
    unsigned ahead_running;
    struct entry *dead; /* nobody needs them: to be freed without the lock */
};

void plain_unref(struct plain *p)
{
    if (p == NULL || atomic_fetch_sub(&p->refs, 1) > 1)
        return;
    if (p->fd >= 0)
        close(p->fd);
    free(p);
}

static struct plain *plain_ref(struct plain *p)
{
    atomic_fetch_add(&p->refs, 1);
    return p;
}

struct fetcher *fetcher_new(const struct fetch_options *options, struct err *err)
{
    struct fetcher *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    f->opt = *options;
    cancel_init(&f->stop);
    pthread_mutex_init(&f->lock, NULL);
    waiter_cond_init(&f->changed);
    return f;
}

void fetcher_stop(struct fetcher *f)
{
    cancel_fire(&f->stop);
}

/* Gives the lock back. Closing an unlinked file of a GiB takes a while, so that comes after it. */
static void unlock(struct fetcher *f)
{
    struct entry *dead = f->dead;
    f->dead = NULL;
    pthread_mutex_unlock(&f->lock);
    while (dead != NULL) {
        struct entry *e = dead;
        dead = e->next;
        plain_unref(e->plain);
        free(e);
    }
}

/* ---- the table; all of it with the lock held ---- */

static struct entry **slot_of(struct fetcher *f, const char *name)
{
    uint64_t h = fnv(FNV_START, name, strlen(name));
    struct entry **slot = &f->table[(h ^ h >> 32) % BUCKETS];
    while (*slot != NULL && strcmp((*slot)->name, name) != 0)
        slot = &(*slot)->next;
    return slot;
}

static void entry_release(struct entry *e)
{
    if (e->refs > 0 || !e->dropped)
        return;
    e->next = e->owner->dead;
    e->owner->dead = e;
}

static void unlink_entry(struct fetcher *f, struct entry **slot)
{
    struct entry *e = *slot;
    *slot = e->next;
    e->dropped = true;
    if (e->plain != NULL) {
        f->cached_bytes -= e->plain->size;
        f->cached_count--;
    }
    entry_release(e);
}

/* A live entry for NAME: running, or ready and young enough. */
static struct entry *find(struct fetcher *f, const char *name)
{
    struct entry **slot = slot_of(f, name);
    struct entry *e = *slot;
    if (e != NULL && e->plain != NULL && now_ms() - e->fetched_ms > KEEP_MS) {
        unlink_entry(f, slot);
        return NULL;
    }
    return e;
}

static struct entry *insert(struct fetcher *f, const char *name)
{
    struct entry *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    strcpy(e->name, name); /* PostgreSQL's names are far shorter */
    e->owner = f;
    e->running = true;
    e->fetched_ms = e->touched_ms = now_ms();
    struct entry **slot = slot_of(f, name);
    *slot = e;
    return e;
}

/* What has been read goes first, oldest first; then what was fetched ahead in vain. */
static bool goes_before(const struct entry *a, const struct entry *b)
{
    if (a->used != b->used)
        return a->used;
    return a->touched_ms < b->touched_ms;
}

static void evict(struct fetcher *f)
{
    while (f->cached_bytes > f->opt.cache_bytes || f->cached_count > CACHED_MAX) {
        struct entry **victim = NULL;
        for (size_t i = 0; i < BUCKETS; i++)
            for (struct entry **slot = &f->table[i]; *slot != NULL; slot = &(*slot)->next)
                if ((*slot)->plain != NULL && (victim == NULL || goes_before(*slot, *victim)))
                    victim = slot;
        if (victim == NULL)
            return;
        unlink_entry(f, victim);
        metrics_add(COUNT_CACHE_EVICTIONS, 1);
    }
}

/* ---- one fetch ---- */

static uint64_t plain_limit(enum wal_kind kind)
{
    return kind == WAL_SEGMENT || kind == WAL_PARTIAL ? WAL_SEGMENT_MAX : WAL_TEXT_MAX;
}

/* The last part of verification: a segment has the size that its own header says, and it is the one
 * that its name says. */
static bool verify_segment(const struct plain *p, const char *name, struct err *err)
{
    unsigned char head[WAL_HEADER_BYTES];
    ssize_t n = spool_read(p->fd, head, sizeof(head), 0, err);
    if (n < 0)
        return false;
    struct wal_header header;
    if (wal_header_parse(head, (size_t)n, &header, err) &&
        wal_segment_check(name, &header, p->size, err))
        return true;
    err->code = ERR_CORRUPT;
    return false;
}

static void start_next_ahead(struct entry *e);

static struct plain *fetch(struct entry *e, struct err *err)
{
    struct fetcher *f = e->owner;
    const struct call call = {.cancel = &f->stop, .deadline_ms = DEADLINE_NONE};
    enum wal_kind kind = wal_name_parse(e->name).kind;
    enum openpgp_priority priority = e->background ? OPENPGP_BACKGROUND : OPENPGP_FOREGROUND;
    struct source *body = NULL;
    struct sink *out = NULL;
    struct spool_result result;
    char key[STORE_KEY_MAX];
    bool ok = false;

    struct plain *p = calloc(1, sizeof(*p));
    if (p == NULL || !wal_key_of_name(e->name, key, sizeof(key))) {
        free(p);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    atomic_store(&p->refs, 1);
    p->fd = -1;
    body = f->opt.store->ops->get(f->opt.store, key, 0, UINT64_MAX, &p->info, &call, err);
    if (body == NULL)
        goto out;
    start_next_ahead(e); /* this one exists, so the next may be asked for */
    p->fd = spool_open(f->opt.dir, err);
    if (p->fd < 0)
        goto out;
    out = spool_sink(p->fd, plain_limit(kind), false, &result, err);
    if (out == NULL || !codec_decode(f->opt.pgp, body, out, priority, NULL, &call, err))
        goto out;
    p->size = result.size;
    ok = kind != WAL_SEGMENT || verify_segment(p, e->name, err);
out:
    sink_close(out);
    source_close(body);
    if (ok)
        return p;
    if (err->code == ERR_CORRUPT || err->code == ERR_KEY)
        err_context(err, "%s in %s", key, f->opt.store->url);
    plain_unref(p);
    return NULL;
}

static void fetch_job(void *arg)
{
    struct entry *e = arg;
    struct fetcher *f = e->owner;
    struct err err = ERR_INIT;
    bool ahead = e->background;
    struct plain *p = fetch(e, &err);
    /* Damage ends a recovery: it is believed when it was found twice. It may have come on the way;
     * and of a short message that ends early gpg says as little as one that is killed at its end.
     */
    if (p == NULL && err.code == ERR_CORRUPT)
        p = fetch(e, &err);

    pthread_mutex_lock(&f->lock);
    e->running = false;
    e->touched_ms = now_ms();
    if (ahead)
        f->ahead_running--;
    if (p != NULL && e->dropped) {
        e->plain = p; /* for those who wait already */
    } else if (p != NULL) {
        e->plain = p;
        f->cached_bytes += p->size;
        f->cached_count++;
    } else {
        e->err = err;
        if (!e->dropped)
            unlink_entry(f, slot_of(f, e->name));
    }
    pthread_cond_broadcast(&f->changed);
    unlock(f);

    if (p != NULL)
        start_next_ahead(e);
    pthread_mutex_lock(&f->lock);
    e->refs--;
    entry_release(e);
    evict(f);
    unlock(f);
}

/* With the lock held: a new entry whose job holds a reference. The caller submits the job. */
static struct entry *prepare(struct fetcher *f, const char *name, bool background)
{
    struct entry *e = insert(f, name);
    if (e == NULL)
        return NULL;
    e->refs = 1;
    e->background = background;
    if (background) {
        f->ahead_running++;
        metrics_add(COUNT_CACHE_PREFETCHES, 1);
    }
    return e;
}

/* The job could not be started: it ends as failed. */
static void job_failed(struct entry *e, const struct err *err)
{
    struct fetcher *f = e->owner;
    pthread_mutex_lock(&f->lock);
    e->running = false;
    e->err = *err;
    if (e->background)
        f->ahead_running--;
    if (!e->dropped)
        unlink_entry(f, slot_of(f, e->name));
    pthread_cond_broadcast(&f->changed);
    e->refs--;
    entry_release(e);
    unlock(f);
}

/* ---- reading ahead ---- */

/* Starts the first segment behind NAME that is not there yet, among the next LEFT ones. One that
 * the store has only been asked for may be a gap: its own job goes on when it is none. */
static void ahead(struct fetcher *f, const char *name, unsigned left, uint32_t segment_size)
{
    char next[WAL_NAME_MAX];
    struct wal_name n = wal_name_parse(name);
    struct entry *e = NULL;
    bool start = false;
    pthread_mutex_lock(&f->lock);
    while (left > 0 && f->ahead_running < AHEAD_AT_ONCE && !cancel_fired(&f->stop) &&
           wal_name_next(&n, segment_size, next)) {
        left--;
        e = find(f, next);
        start = e == NULL;
        if (start)
            e = prepare(f, next, true);
        if (start || !(e->exists || e->plain != NULL))
            break;
        e = NULL;
        n = wal_name_parse(next);
    }
    if (e != NULL && e->ahead_left <= left) {
        e->ahead_left = left;
        e->segment_size = segment_size;
    }
    unlock(f);
    struct err err = ERR_INIT;
    if (start && e != NULL && !pool_submit(f->opt.pool, fetch_job, e, &err))
        job_failed(e, &err);
}

static void start_next_ahead(struct entry *e)
{
    struct fetcher *f = e->owner;
    pthread_mutex_lock(&f->lock);
    e->exists = true;
    bool go =
        e->ahead_left > 0 && !e->ahead_goes_on && (f->ahead_running < AHEAD_AT_ONCE || !e->running);
    e->ahead_goes_on = e->ahead_goes_on || go;
    unsigned left = e->ahead_left;
    unlock(f);
    if (go)
        ahead(f, e->name, left, e->segment_size);
}

void fetcher_ahead(struct fetcher *f, const char *name, uint32_t segment_size)
{
    uint64_t room = f->opt.cache_bytes / 2 / segment_size;
    unsigned count = room < f->opt.prefetch ? (unsigned)room : f->opt.prefetch;
    if (count > 0)
        ahead(f, name, count, segment_size);
}

/* ---- readers ---- */

struct plain *fetcher_peek(struct fetcher *f, const char *name)
{
    pthread_mutex_lock(&f->lock);
    struct entry *e = find(f, name);
    struct plain *p = e != NULL && e->plain != NULL ? plain_ref(e->plain) : NULL;
    unlock(f);
    return p;
}

/* Waits for one attempt. *AGAIN: the attempt was one that had been started ahead, and its failure
 * says nothing to somebody who asks now. */
static struct plain *get_once(struct fetcher *f, const char *name, const struct call *call,
                              bool *again, struct err *err)
{
    struct plain *p = NULL;
    struct waiter w;
    bool start = false;
    waiter_begin(&w, call, &f->lock, &f->changed);
    pthread_mutex_lock(&f->lock);
    struct entry *e = find(f, name);
    *again = e != NULL && e->running;
    metrics_add(e == NULL ? COUNT_CACHE_MISSES : *again ? COUNT_CACHE_JOINS : COUNT_CACHE_HITS, 1);
    if (e == NULL) {
        e = prepare(f, name, false);
        start = e != NULL;
    }
    if (e == NULL) {
        unlock(f);
        waiter_end(&w);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    e->refs++;
    unlock(f);

    struct err start_err = ERR_INIT;
    if (start && !pool_submit(f->opt.pool, fetch_job, e, &start_err))
        job_failed(e, &start_err);

    pthread_mutex_lock(&f->lock);
    while (e->running && waiter_wait(&w)) {
    }
    if (e->plain != NULL) {
        p = plain_ref(e->plain);
        e->used = true;
        e->touched_ms = now_ms();
    } else if (!e->running) {
        *err = e->err;
    }
    bool given_up = e->running;
    e->refs--;
    entry_release(e);
    unlock(f);
    waiter_end(&w);
    if (given_up) {
        *again = false;
        call_waited_in_vain(call, name, "being fetched", err);
    }
    return p;
}

struct plain *fetcher_get(struct fetcher *f, const char *name, const struct call *call,
                          struct err *err)
{
    bool again;
    struct plain *p = get_once(f, name, call, &again, err);
    if (p == NULL && again && !cancel_fired(&f->stop))
        p = get_once(f, name, call, &again, err);
    return p;
}

void fetcher_drop(struct fetcher *f, const char *name)
{
    pthread_mutex_lock(&f->lock);
    struct entry **slot = slot_of(f, name);
    if (*slot != NULL)
        unlink_entry(f, slot);
    unlock(f);
}

void fetcher_free(struct fetcher *f)
{
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        while (f->table[i] != NULL)
            unlink_entry(f, &f->table[i]);
    unlock(f);
    cancel_destroy(&f->stop);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
