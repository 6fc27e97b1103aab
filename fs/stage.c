#include "fs/stage.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/waiter.h"

/* Each live coder holds a thread, and while it encrypts a gpg process. */
#define LIVE_MAX 8u
/* A writer that pauses for longer is not waited for: the file is coded when it is published. */
#define LIVE_PATIENCE_MS 5000

enum live_state {
    LIVE_RUNNING,
    LIVE_DONE,
    LIVE_OFF, /* not wanted, failed or abandoned: coded when it is published */
};

struct stage {
    struct stage_env *env;
    _Atomic unsigned refs;
    _Atomic int64_t fed_ms; /* when a coder last took bytes */
    int fd;
    struct cancel live_cancel; /* fired when the live coder's work is not wanted any more */

    /* The digest of what a live coder follows is made where it is written: the writer and the coder
     * share the work. */
    pthread_mutex_t hash_lock;
    struct digest *digest; /* hash_lock; of the first `hashed` bytes; NULL: made while coding */
    uint64_t hashed;       /* hash_lock */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* any of what follows has changed */
    uint64_t size;          /* lock; bytes below it are in the file */
    uint64_t version;       /* lock */
    uint64_t saved_version; /* lock */
    unsigned writing;       /* lock: writes under way */
    enum live_state live;   /* lock */
    bool sealed;            /* lock: the live coder may take size for the end */
    struct coded *coded;    /* lock: of the present version, when live is LIVE_DONE */
};

void coded_unref(struct coded *coded)
{
    if (coded == NULL || atomic_fetch_sub(&coded->refs, 1) > 1)
        return;
    close(coded->fd);
    free(coded);
}

static void start_live(struct stage *s);

struct stage *stage_new(struct stage_env *env, bool live, struct err *err)
{
    struct stage *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->fd = spool_open(env->dir, err);
    if (s->fd < 0) {
        free(s);
        return NULL;
    }
    s->env = env;
    atomic_store(&s->refs, 1);
    cancel_init(&s->live_cancel);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->hash_lock, NULL);
    waiter_cond_init(&s->changed);
    s->digest = live ? digest_new(NULL, err) : NULL;
    s->live = LIVE_OFF;
    if (live)
        start_live(s); /* before the first byte: starting gpg takes as long as coding some MiB */
    return s;          // NOLINT(clang-analyzer-unix.Malloc): the job has a reference of its own
}

struct stage *stage_ref(struct stage *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void stage_unref(struct stage *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    coded_unref(s->coded);
    close(s->fd);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    digest_free(s->digest);
    pthread_mutex_destroy(&s->hash_lock);
    cancel_destroy(&s->live_cancel);
    free(s);
}

/* The plain bytes on their way into a coder, hashed as they pass. Follows the writer when FOLLOW,
 * else ends at the size that the stage has when the end is reached. */
struct feed {
    struct source base;
    struct stage *stage;
    struct digest *digest; /* borrowed; NULL: made elsewhere */
    uint64_t pos;
    bool follow;
};

/* Waits until there are bytes behind POS. The number of bytes there; 0 at the end, -1 if abandoned.
 */
static int64_t feed_wait(struct feed *f, struct err *err)
{
    struct stage *s = f->stage;
    const struct call patience = {.cancel = s->env->stop,
                                  .deadline_ms = now_ms() + LIVE_PATIENCE_MS};
    struct waiter w;
    bool stopped = false;
    waiter_begin(&w, &patience, &s->lock, &s->changed);
    pthread_mutex_lock(&s->lock);
    while (f->follow && s->live == LIVE_RUNNING && !s->sealed && s->size == f->pos && !stopped)
        stopped = !waiter_wait(&w);
    bool abandoned = stopped || (f->follow && s->live != LIVE_RUNNING);
    int64_t there = (int64_t)(s->size - f->pos);
    pthread_mutex_unlock(&s->lock);
    waiter_end(&w);
    if (!abandoned && there >= 0)
        return there;
    err_set(err, ERR_CANCELLED, "the file was changed while it was coded");
    return -1;
}

static ssize_t feed_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct feed *f = (struct feed *)self;
    int64_t there = feed_wait(f, err);
    if (there <= 0)
        return (ssize_t)there;
    if ((uint64_t)there < n)
        n = (size_t)there;
    ssize_t got = spool_read(f->stage->fd, buf, n, f->pos, err);
    if (got < 0)
        return -1;
    if (got == 0) {
        err_set(err, ERR_LOCAL, "a staged file was cut while it was coded");
        return -1;
    }
    if (f->digest != NULL && !digest_update(f->digest, buf, (size_t)got, err))
        return -1;
    f->pos += (uint64_t)got;
    atomic_store(&f->stage->fed_ms, now_ms());
    return got;
}

static void feed_close(struct source *self)
{
    (void)self;
}

/* Appended bytes, in their order. Anything else ends the digest. */
static void hash_written(struct stage *s, const void *data, size_t n, uint64_t offset)
{
    struct err err = ERR_INIT;
    pthread_mutex_lock(&s->hash_lock);
    if (s->digest != NULL && offset == s->hashed && digest_update(s->digest, data, n, &err)) {
        s->hashed += n;
    } else {
        digest_free(s->digest);
        s->digest = NULL;
    }
    pthread_mutex_unlock(&s->hash_lock);
}

static bool finish_digest(struct stage *s, uint64_t size, char text[DIGEST_TEXT_MAX],
                          struct err *err)
{
    pthread_mutex_lock(&s->hash_lock);
    bool ok = s->digest != NULL && s->hashed == size && digest_final(s->digest, text, err);
    digest_free(s->digest);
    s->digest = NULL;
    pthread_mutex_unlock(&s->hash_lock);
    return ok || digest_fd(s->fd, size, NULL, text, err);
}

/* Codes the stage into a new anonymous file. */
static struct coded *code(struct stage *s, bool follow, const struct call *call, struct err *err)
{
    struct feed feed = {
        .base = {.read = feed_read, .close = feed_close}, .stage = s, .follow = follow};
    struct sink *out = NULL;
    bool ok = false;
    struct coded *coded = calloc(1, sizeof(*coded));
    if (coded == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    atomic_store(&coded->refs, 1);
    coded->fd = spool_open(s->env->dir, err);
    if (coded->fd < 0)
        goto out;
    feed.digest = follow ? NULL : digest_new(NULL, err);
    if (!follow && feed.digest == NULL)
        goto out;
    out = spool_sink(coded->fd, UINT64_MAX, true, &coded->spool, err);
    if (out == NULL || !codec_encode(s->env->pgp, &feed.base, out, follow, NULL, call, err))
        goto out;
    coded->plain_size = feed.pos;
    ok = follow ? finish_digest(s, feed.pos, coded->digest, err)
                : digest_final(feed.digest, coded->digest, err);
out:
    sink_close(out);
    digest_free(feed.digest);
    if (ok)
        return coded;
    if (coded->fd >= 0)
        close(coded->fd);
    free(coded);
    return NULL;
}

static void live_job(void *arg)
{
    struct stage *s = arg;
    struct err err = ERR_INIT;
    struct call call = {.cancel = &s->live_cancel, .deadline_ms = DEADLINE_NONE};
    struct coded *coded = code(s, true, &call, &err);
    if (coded == NULL && err.code != ERR_CANCELLED && err.code != ERR_THROTTLED)
        log_debug("coding while writing: %s", err.text);
    pthread_mutex_lock(&s->lock);
    if (s->live == LIVE_RUNNING) {
        s->live = coded == NULL ? LIVE_OFF : LIVE_DONE;
        s->coded = coded;
        coded = NULL;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    coded_unref(coded);
    atomic_fetch_sub(&s->env->live, 1);
    stage_unref(s);
}

/* With the lock held: what was coded does not count any more. Returns what the caller unrefs. */
static struct coded *drop_live(struct stage *s, bool *fire)
{
    struct coded *old = s->coded;
    *fire = s->live == LIVE_RUNNING;
    s->coded = NULL;
    s->live = LIVE_OFF;
    pthread_cond_broadcast(&s->changed);
    return old;
}

/* S is new: nobody else has it yet. */
static void start_live(struct stage *s)
{
    struct err err = ERR_INIT;
    s->live = LIVE_RUNNING;
    bool free_place = atomic_fetch_add(&s->env->live, 1) < LIVE_MAX;
    if (free_place && pool_submit(s->env->pool, live_job, stage_ref(s), &err))
        return;
    atomic_fetch_sub(&s->env->live, 1);
    s->live = LIVE_OFF;
    if (free_place)
        stage_unref(s);
}

/* A change of the content is about to be made; an append leaves the live coder at work. */
static void before_change(struct stage *s, bool append)
{
    bool fire = false;
    struct coded *old = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->live != LIVE_OFF && (!append || s->sealed))
        old = drop_live(s, &fire);
    pthread_mutex_unlock(&s->lock);
    if (fire)
        cancel_fire(&s->live_cancel);
    coded_unref(old);
}

bool stage_write(struct stage *s, const void *data, size_t n, uint64_t offset, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    /* of two that append at one place, the later overwrites what may be coded already */
    bool append = offset == s->size && s->writing == 0;
    s->writing++;
    s->version++; /* and once more below: whoever codes meanwhile sees that it changed */
    pthread_mutex_unlock(&s->lock);
    before_change(s, append);
    bool ok = spool_write(s->fd, data, n, offset, err);
    if (ok)
        hash_written(s, data, n, offset);
    else
        before_change(s, false); /* how much of it was written is unknown */
    pthread_mutex_lock(&s->lock);
    s->writing--;
    if (!ok) {
        pthread_mutex_unlock(&s->lock);
        return false;
    }
    if (offset + n > s->size)
        s->size = offset + n;
    s->version++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return true;
}

bool stage_truncate(struct stage *s, uint64_t size, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    bool same = size == s->size;
    pthread_mutex_unlock(&s->lock);
    if (same)
        return true;
    before_change(s, false);
    if (ftruncate(s->fd, (off_t)size) != 0)
        return err_sys(err, errno, "cannot change the size of a staged file");
    pthread_mutex_lock(&s->lock);
    s->size = size;
    s->version++;
    pthread_mutex_unlock(&s->lock);
    return true;
}

int stage_fd(const struct stage *s)
{
    return s->fd;
}

uint64_t stage_size(struct stage *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t size = s->size;
    pthread_mutex_unlock(&s->lock);
    return size;
}

uint64_t stage_version(struct stage *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t version = s->version;
    pthread_mutex_unlock(&s->lock);
    return version;
}

bool stage_dirty(struct stage *s)
{
    pthread_mutex_lock(&s->lock);
    bool dirty = s->version != s->saved_version;
    pthread_mutex_unlock(&s->lock);
    return dirty;
}

void stage_saved(struct stage *s, uint64_t version)
{
    struct coded *old = NULL;
    bool fire = false;
    pthread_mutex_lock(&s->lock);
    s->saved_version = version;
    if (s->version == version)
        old = drop_live(s, &fire);
    pthread_mutex_unlock(&s->lock);
    coded_unref(old);
}

/* A coder that takes bytes makes progress for those who wait for it. */
static bool still_fed(struct stage *s, int64_t *seen_ms, const struct call *call)
{
    int64_t fed_ms = atomic_load(&s->fed_ms);
    if (fed_ms == *seen_ms || cancel_fired(call->cancel))
        return false;
    *seen_ms = fed_ms;
    call_progress(call);
    return call_left_ms(call) > 0;
}

/* The live coder's work, when it has done or can still do the present version. NULL without an
 * error set: code it now. NULL with one: cancelled or too late. */
static struct coded *await_live(struct stage *s, uint64_t *version, const struct call *call,
                                struct err *err)
{
    struct coded *coded = NULL;
    int64_t seen_ms = atomic_load(&s->fed_ms);
    struct waiter w;
    waiter_begin(&w, call, &s->lock, &s->changed);
    pthread_mutex_lock(&s->lock);
    s->sealed = true;
    pthread_cond_broadcast(&s->changed);
    while (s->live == LIVE_RUNNING && (waiter_wait(&w) || still_fed(s, &seen_ms, call))) {
    }
    bool given_up = s->live == LIVE_RUNNING;
    /* less than all: a write was under way when the coder was told the end */
    if (s->live == LIVE_DONE && s->coded->plain_size == s->size) {
        coded = s->coded;
        atomic_fetch_add(&coded->refs, 1);
    }
    *version = s->version;
    pthread_mutex_unlock(&s->lock);
    waiter_end(&w);
    if (given_up)
        call_waited_in_vain(call, "the file", "being coded", err);
    return coded;
}

struct coded *stage_code(struct stage *s, uint64_t *version, const struct call *call,
                         struct err *err)
{
    err->code = ERR_NONE;
    struct coded *coded = await_live(s, version, call, err);
    if (coded == NULL && err->code == ERR_NONE)
        coded = code(s, false, call, err);
    if (coded != NULL && stage_version(s) != *version) {
        coded_unref(coded);
        err_set(err, ERR_INVALID, "the file was changed while it was being published");
        return NULL;
    }
    return coded;
}

void stage_seal(struct stage *s)
{
    pthread_mutex_lock(&s->lock);
    s->sealed = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void stage_abandon(struct stage *s)
{
    before_change(s, false);
}
