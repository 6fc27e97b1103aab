/* Sizes of dumps that only reading an object shows: others have put it there, or its facts are
 * lost. Jobs are shared as those of fetch.c are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"
#include "core/log.h"
#include "core/waiter.h"
#include "fs/dumps.h"

#define STALL_MS 60000

/* One object being read; in the list until the job has ended, and freed by who leaves last. */
struct measuring {
    struct fs *fs;
    char key[STORE_KEY_MAX];
    struct dump_facts facts; /* the etag is fixed, the rest is there when the job has ended */
    unsigned refs;           /* the dumps' lock: of the job, and of who waits */
    bool running;            /* the dumps' lock */
    struct err err;          /* the dumps' lock: why it failed; ERR_NONE: it has not */
    struct measuring *next;
};

/* ---- what is known; with the lock held ---- */

static bool recall(const struct dumps *d, const char *key, const char *etag, struct dump_facts *out)
{
    bool found = false;
    for (size_t i = 0; i < MEASURED_MAX && !found; i++) {
        const struct measured *m = &d->measured[i];
        found = m->key != NULL && strcmp(m->key, key) == 0 && strcmp(m->facts.etag, etag) == 0;
        if (found)
            *out = m->facts;
    }
    return found;
}

static void remember(struct dumps *d, const struct measuring *m)
{
    char *copy = strdup(m->key);
    if (copy == NULL)
        return;
    struct measured *place = &d->measured[d->next_measured++ % MEASURED_MAX];
    free(place->key);
    *place = (struct measured){.key = copy, .facts = m->facts};
}

bool dump_measured(struct fs *fs, const char *key, const char *etag, struct dump_facts *out)
{
    pthread_mutex_lock(&fs->dumps->lock);
    bool found = recall(fs->dumps, key, etag, out);
    pthread_mutex_unlock(&fs->dumps->lock);
    return found;
}

/* ---- the job ---- */

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

static bool read_to_its_end(struct measuring *m, struct lzop_map *map, struct err *err)
{
    struct fs *fs = m->fs;
    struct progress progress = {.limit_ms = STALL_MS, .last_ms = now_ms()};
    const struct call call = {
        .cancel = &fs->stop, .deadline_ms = DEADLINE_NONE, .progress = &progress};
    struct sink nowhere = {.write = drop_bytes, .finish = drop_finish, .close = drop_close};
    struct store *store = fs->opt.store;
    struct store_info now;
    struct codec_facts facts = {.encrypted = false};
    log_info("%s has no facts beside it: it is read once, to know its size", m->key);
    struct source *body = store->ops->get(store, m->key, 0, UINT64_MAX, &now, &call, err);
    bool ok = body != NULL &&
              codec_decode(fs->opt.pgp, body, &nowhere, OPENPGP_BACKGROUND, &facts, &call, err);
    source_close(body);
    if (ok && strcmp(now.etag, m->facts.etag) != 0)
        ok = err_set(err, ERR_UNAVAILABLE, "%s was replaced while it was read", m->key);
    m->facts.size = facts.map.plain_size;
    m->facts.encrypted = facts.encrypted;
    *map = facts.map;
    return ok;
}

static void leave(struct measuring *m)
{
    if (--m->refs == 0)
        free(m);
}

/* With the lock held. */
static void end(struct measuring *m, const struct err *why)
{
    struct dumps *d = m->fs->dumps;
    struct measuring **slot = &d->measuring;
    while (*slot != m)
        slot = &(*slot)->next;
    *slot = m->next;
    m->running = false;
    m->err = *why;
    if (why->code == ERR_NONE)
        remember(d, m);
    pthread_cond_broadcast(&d->ended);
    leave(m);
}

static void measure_job(void *arg)
{
    struct measuring *m = arg;
    struct fs *fs = m->fs;
    struct err err = ERR_INIT;
    struct lzop_map map = LZOP_MAP_INIT;
    if (read_to_its_end(m, &map, &err)) {
        const struct call call = {.cancel = &fs->stop, .deadline_ms = now_ms() + STALL_MS};
        dump_facts_put(fs, m->key, &m->facts, &map, NULL, &call);
    } else if (err.code == ERR_KEY || err.code == ERR_CORRUPT || err.code == ERR_FROZEN) {
        log_warn("%s: its size is not known: %s", m->key, err.text);
    }
    lzop_map_free(&map);
    pthread_mutex_lock(&fs->dumps->lock);
    end(m, &err);
    pthread_mutex_unlock(&fs->dumps->lock);
}

/* ---- who asks ---- */

/* With the lock held. */
static struct measuring *find(const struct dumps *d, const char *key, const char *etag)
{
    struct measuring *m = d->measuring;
    while (m != NULL && (strcmp(m->key, key) != 0 || strcmp(m->facts.etag, etag) != 0))
        m = m->next;
    return m;
}

/* With the lock held: starts the job, which has a reference. */
static struct measuring *start(struct fs *fs, const char *key, const char *etag, struct err *err)
{
    struct dumps *d = fs->dumps;
    struct measuring *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    m->fs = fs;
    (void)snprintf(m->key, sizeof(m->key), "%s", key);
    (void)snprintf(m->facts.etag, sizeof(m->facts.etag), "%s", etag);
    if (!pool_submit(fs->opt.pool, measure_job, m, err)) {
        free(m);
        return NULL;
    }
    m->refs = 1;
    m->running = true;
    m->next = d->measuring;
    d->measuring = m;
    return m;
}

bool dump_measure(struct fs *fs, const char *key, const char *etag, struct dump_facts *out,
                  const struct call *call, struct err *err)
{
    struct dumps *d = fs->dumps;
    struct waiter w;
    bool ok = false, given_up = false;
    waiter_begin(&w, call, &d->lock, &d->ended);
    pthread_mutex_lock(&d->lock);
    bool known = recall(d, key, etag, out); /* since it was looked for */
    struct measuring *m = known ? NULL : find(d, key, etag);
    if (!known && m == NULL)
        m = start(fs, key, etag, err);
    if (m != NULL) {
        m->refs++;
        while (m->running && waiter_wait(&w)) {
        }
        given_up = m->running;
        ok = !given_up && m->err.code == ERR_NONE;
        if (ok)
            *out = m->facts;
        else if (!given_up)
            *err = m->err;
        leave(m);
    }
    pthread_mutex_unlock(&d->lock);
    waiter_end(&w);
    if (given_up)
        call_waited_in_vain(call, key, "being read, to know its size", err);
    return known || ok;
}
