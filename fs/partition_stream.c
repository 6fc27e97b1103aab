/* Decoding a partition from some block on, as far as somebody reads. */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/spool.h"
#include "core/waiter.h"
#include "fs/partition_impl.h"

/* A stream that nobody has wanted anything of for so long ends. */
#define IDLE_MS 5000
#define WAITING_MAX 2u
#define FIRST_WINDOW_BYTES (1u << 20)
#define AHEAD_WINDOW_BYTES (16u << 20)
/* So much that is there already is not fetched again for the sake of one request. */
#define WORTH_BYTES (1u << 20)

struct run {
    struct sink base;
    struct partition_stream *stream;
    struct partition *p;
    struct call call;
    struct store_info info; /* of the object that is read */
    uint64_t pos;           /* in the plain stream */
    unsigned char *part;    /* of a block that comes in pieces */
    size_t part_have;
    bool writing; /* the block at next_block is in state BLOCK_WRITING because of us */
    bool between; /* pieces: the next one is a request of its own */
    bool idle;    /* ended because nobody reads on */
};

/* With the lock held: may the stream decode its next block? A request is made for half a window at
 * least, or what is left. */
static bool may_go_on(const struct run *r)
{
    const struct partition_stream *s = r->stream;
    if (s->next_block >= r->p->held_block) /* the verdict is near, and nobody reads on before it */
        return r->p->states[s->next_block] != BLOCK_GOING;
    size_t left = r->p->block_count - s->next_block, least = r->between ? s->window / 2 : 1;
    least = least < left ? least : left;
    return s->limit >= s->next_block + (least > 0 ? least : 1) &&
           r->p->states[s->next_block] != BLOCK_GOING;
}

/* Waits for a reader that wants what comes. False when there is none for too long. */
static bool await_reader(struct run *r, struct err *err)
{
    struct partition_cache *c = r->p->cache;
    bool alive = true;
    while (alive) {
        struct call patience = {.cancel = &c->stop, .deadline_ms = DEADLINE_NONE};
        struct waiter w;
        pthread_mutex_lock(&c->lock);
        patience.deadline_ms = r->stream->wanted_ms + IDLE_MS;
        pthread_mutex_unlock(&c->lock);
        waiter_begin(&w, &patience, &c->lock, &c->changed);
        pthread_mutex_lock(&c->lock);
        bool waited = true;
        r->stream->waits = true;
        while (!may_go_on(r) && waited && !r->stream->go_away)
            waited = waiter_wait(&w);
        r->stream->waits = false;
        bool go = may_go_on(r);
        alive = !r->stream->go_away && !r->p->poisoned && !cancel_fired(&c->stop) &&
                now_ms() < r->stream->wanted_ms + IDLE_MS;
        pthread_mutex_unlock(&c->lock);
        waiter_end(&w);
        if (go)
            return true;
    }
    r->idle = true;
    return err_set(err, ERR_CANCELLED, "nobody reads on");
}

/* With the lock held: all that somebody waits for lies so far behind block I that the cache would
 * have lost it by then. */
static bool would_be_gone(const struct partition *p, size_t i)
{
    size_t reach = p->cache->opt.cache_bytes / p->block_bytes;
    bool wanted_later = false;
    for (const struct partition_pin *pin = p->pins; pin != NULL; pin = pin->next) {
        if (pin->last >= i && pin->first <= i + reach)
            return false;
        wanted_later = wanted_later || pin->first > i;
    }
    return wanted_later;
}

/* Takes the next block for writing, unless it is there already. What is held back is held by one
 * stream, whose verdict counts for it. */
static bool claim_block(struct run *r)
{
    struct partition_cache *c = r->p->cache;
    struct partition *p = r->p;
    size_t i = r->stream->next_block;
    bool held = i >= p->held_block;
    pthread_mutex_lock(&c->lock);
    r->writing = p->states[i] == BLOCK_ABSENT &&
                 (held ? p->holder == NULL || p->holder == r->stream : !would_be_gone(p, i));
    if (r->writing)
        p->states[i] = BLOCK_WRITING;
    if (r->writing && held)
        p->holder = r->stream;
    pthread_mutex_unlock(&c->lock);
    return r->writing;
}

/* With the lock held: block I has been written. */
static bool keep_or_hold(struct run *r, size_t i)
{
    struct partition *p = r->p;
    if (i < p->held_block)
        return partition_keep_block(p, i);
    p->states[i] = BLOCK_HELD;
    p->cache->bytes += partition_block_size(p, i);
    return true;
}

/* With the lock held, at the end of stream S: what it held back may be read if all of it is SOUND,
 * and else is forgotten. False when there is no memory for that. */
static bool let_go_of_held(struct partition_stream *s, bool sound)
{
    struct partition *p = s->partition;
    bool kept = true;
    if (p->holder != s)
        return true;
    for (size_t i = p->held_block; i < p->block_count; i++) {
        if (p->states[i] != BLOCK_HELD)
            continue;
        p->states[i] = BLOCK_ABSENT;
        p->cache->bytes -= partition_block_size(p, i);
        kept = kept && (!sound || partition_keep_block(p, i));
    }
    p->holder = NULL;
    return kept;
}

static void give_up_block(struct run *r)
{
    struct partition_cache *c = r->p->cache;
    pthread_mutex_lock(&c->lock);
    r->p->states[r->stream->next_block] = BLOCK_ABSENT;
    r->writing = false;
    pthread_mutex_unlock(&c->lock);
}

static bool store_block(struct run *r, const void *data, size_t n, struct err *err)
{
    struct partition_cache *c = r->p->cache;
    bool ok = true, kept = true;
    if (claim_block(r)) {
        ok = spool_write(r->p->fd, data, n, r->pos, err);
        /* The directory may hold less than the cache is allowed to. */
        while (!ok && err->code == ERR_NO_SPACE && partition_evict(c, true))
            ok = spool_write(r->p->fd, data, n, r->pos, err);
        if (!ok)
            give_up_block(r);
    }
    if (!ok)
        return false;
    pthread_mutex_lock(&c->lock);
    if (r->writing)
        kept = keep_or_hold(r, r->stream->next_block);
    if (!kept)
        r->p->states[r->stream->next_block] = BLOCK_ABSENT;
    r->writing = false;
    r->stream->next_block++;
    bool over = c->bytes > c->opt.cache_bytes;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    r->pos += n;
    if (over)
        (void)partition_evict(c, false);
    return kept || err_set(err, ERR_NO_MEMORY, "out of memory");
}

static bool run_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct run *r = (struct run *)self;
    const unsigned char *at = data;
    while (n > 0) {
        if (r->stream->next_block >= r->p->block_count)
            return err_set(err, ERR_CORRUPT, "%s is longer than its index says", r->p->key);
        size_t whole = partition_block_size(r->p, r->stream->next_block);
        size_t take = n < whole - r->part_have ? n : whole - r->part_have;
        if (r->part_have == 0 && !await_reader(r, err))
            return false;
        if (take == whole) { /* a block in one piece is the rule */
            if (!store_block(r, at, whole, err))
                return false;
        } else {
            memcpy(r->part + r->part_have, at, take);
            r->part_have += take;
            if (r->part_have == whole) {
                r->part_have = 0;
                if (!store_block(r, r->part, whole, err))
                    return false;
            }
        }
        at += take;
        n -= take;
    }
    return true;
}

static bool run_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void run_close(struct sink *self)
{
    (void)self;
}

static struct source *open_body(struct run *r, uint64_t offset, uint64_t length, struct err *err)
{
    struct store *store = r->p->cache->opt.store;
    struct source *body =
        store->ops->get(store, r->p->key, offset, length, &r->info, &r->call, err);
    if (body == NULL || strcmp(r->info.etag, r->p->index.etag) == 0)
        return body;
    source_close(body);
    err_set(err, ERR_STALE, "%s has changed since its index was read: mount again", r->p->key);
    return NULL;
}

/* An object that only decodes from its start. */
static bool run_whole(struct run *r, struct err *err)
{
    struct partition_cache *c = r->p->cache;
    enum openpgp_priority priority =
        r->stream->background ? OPENPGP_BACKGROUND : OPENPGP_FOREGROUND;
    struct source *body = open_body(r, 0, UINT64_MAX, err);
    if (body == NULL)
        return false;
    bool ok = codec_decode(c->opt.pgp, body, &r->base, priority, NULL, &r->call, err);
    source_close(body);
    if (ok && r->pos != r->p->index.map.plain_size)
        return err_set(err, ERR_CORRUPT, "%s is shorter than its index says", r->p->key);
    return ok;
}

/* With the lock held: steps over what is there. False when it has come to where another stream
 * stands, which goes on alone. */
static bool step_over(struct partition_stream *s)
{
    const struct partition *p = s->partition;
    while (s->next_block < p->block_count && partition_has_block(p, s->next_block))
        s->next_block++;
    for (const struct partition_stream *o = p->streams; o != NULL; o = o->next)
        if (o != s && !o->go_away && o->next_block == s->next_block) {
            s->go_away = true;
            pthread_cond_broadcast(&p->cache->changed);
            return false;
        }
    return true;
}

/* With the lock held: where a piece that begins at the stream's next block and may go to END stops
 * before what another stream fetches, or what is there already and worth a request more. */
static size_t end_of_piece(const struct partition_stream *s, size_t end)
{
    const struct partition *p = s->partition;
    size_t there = 0, worth = WORTH_BYTES / p->block_bytes;
    for (const struct partition_stream *o = p->streams; o != NULL; o = o->next)
        if (o != s && !o->go_away && o->next_block > s->next_block && o->next_block < end)
            end = o->next_block;
    for (size_t i = s->next_block; i < end; i++) {
        there = partition_has_block(p, i) ? there + 1 : 0;
        if (there > worth)
            return i + 1 - there;
    }
    return end - there;
}

/* An object that decodes from any block: in pieces, each no longer than somebody has wanted, of
 * what is not there yet. */
static bool run_pieces(struct run *r, struct err *err)
{
    const struct lzop_map *map = &r->p->index.map;
    struct partition_cache *c = r->p->cache;
    while (r->stream->next_block < r->p->block_count) {
        r->between = true;
        if (!await_reader(r, err))
            return false;
        r->between = false;
        pthread_mutex_lock(&c->lock);
        bool alone = step_over(r->stream);
        size_t first = r->stream->next_block, end = r->stream->limit;
        end = end < r->p->block_count ? end : r->p->block_count;
        end = end > first ? end_of_piece(r->stream, end) : first;
        pthread_mutex_unlock(&c->lock);
        r->idle = !alone;
        if (!alone)
            return err_set(err, ERR_CANCELLED, "another stream is there");
        if (end == first)
            continue;
        uint64_t length =
            end < r->p->block_count ? map->offsets[end] - map->offsets[first] : UINT64_MAX;
        r->pos = (uint64_t)first * r->p->block_bytes;
        struct source *body = open_body(r, map->offsets[first], length, err);
        bool ok = body != NULL &&
                  codec_decode_blocks(body, map, first, end - first, &r->base, &r->call, err);
        source_close(body);
        if (!ok)
            return false;
    }
    return true;
}

static void remove_stream(struct partition_stream *s)
{
    struct partition_stream **slot = &s->partition->streams;
    while (*slot != s)
        slot = &(*slot)->next;
    *slot = s->next;
}

static void stream_job(void *arg)
{
    struct partition_stream *s = arg;
    struct partition *p = s->partition;
    struct partition_cache *c = p->cache;
    struct run r = {.base = {.write = run_write, .finish = run_finish, .close = run_close},
                    .stream = s,
                    .p = p,
                    .call = {.cancel = &c->stop, .deadline_ms = DEADLINE_NONE},
                    .part = malloc(p->block_bytes)};
    struct err err = ERR_INIT;
    bool ok = r.part != NULL ? partition_is_seekable(p) ? run_pieces(&r, &err) : run_whole(&r, &err)
                             : err_set(&err, ERR_NO_MEMORY, "out of memory");
    free(r.part);
    pthread_mutex_lock(&c->lock);
    remove_stream(s);
    if (!let_go_of_held(s, ok))
        ok = err_set(&err, ERR_NO_MEMORY, "out of memory");
    p->verified = p->verified || (ok && p->index.encrypted);
    bool damaged = !ok && err.code == ERR_CORRUPT && !p->poisoned;
    if (damaged)
        (void)err_context(&err, "%s", p->key);
    if (!ok && !r.idle && !p->poisoned) {
        p->failures++;
        p->failure = err;
        p->poisoned = damaged;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    free(s);
    if (damaged)
        partition_drop_damaged(p);
    pthread_mutex_lock(&c->lock);
    partition_unref_locked(p);
    partition_unlock(c);
}

/* A decryption that waits for its reader holds a gpg process: a few may, those wanted last. */
static void make_place(struct partition_cache *c)
{
    unsigned waiting = 0;
    struct partition_stream *oldest = NULL;
    for (struct partition *p = c->table; p != NULL; p = p->in_table) {
        for (struct partition_stream *s = p->streams; s != NULL; s = s->next) {
            if (!p->index.encrypted || !s->waits || s->go_away)
                continue;
            waiting++;
            if (oldest == NULL || s->wanted_ms < oldest->wanted_ms)
                oldest = s;
        }
    }
    if (waiting < WAITING_MAX)
        return;
    oldest->go_away = true;
    pthread_cond_broadcast(&c->changed);
}

bool partition_stream_start(struct partition *p, size_t block, bool background, struct err *err)
{
    struct partition_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    s->partition = partition_ref_locked(p);
    s->background = background;
    s->next_block = partition_is_seekable(p) ? block : 0;
    s->window = (background ? AHEAD_WINDOW_BYTES : FIRST_WINDOW_BYTES) / p->block_bytes;
    s->limit = s->next_block + s->window;
    s->grow_at = block + s->window / 2;
    s->wanted_ms = now_ms();
    make_place(p->cache);
    s->next = p->streams;
    p->streams = s;
    if (pool_submit(p->cache->opt.pool, stream_job, s, err))
        return true;
    remove_stream(s);
    p->refs--; /* not the last: the caller has one */
    free(s);
    return false;
}
