#include "fs/partition.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/spool.h"
#include "core/waiter.h"
#include "fs/partition_impl.h"

/* A stream that is less than this behind what is wanted is waited for. */
#define REACH_BYTES (16u << 20)
/* So far before the end of a partition the next one is begun. */
#define NEXT_BYTES (32u << 20)
/* A block is read when a reader has come so much farther. */
#define BEHIND_BYTES (2u << 20)
#define WINDOW_MAX_BYTES (32u << 20)
/* Partitions that nobody has open. */
#define IDLE_MAX 16u

struct partition_cache *partition_cache_new(const struct partition_cache_options *options,
                                            struct err *err)
{
    struct partition_cache *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    c->opt = *options;
    cancel_init(&c->stop);
    pthread_mutex_init(&c->lock, NULL);
    waiter_cond_init(&c->changed);
    return c;
}

void partition_cache_stop(struct partition_cache *c)
{
    cancel_fire(&c->stop);
    pthread_mutex_lock(&c->lock);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void partition_cache_free(struct partition_cache *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    while (c->table != NULL) {
        struct partition *p = c->table;
        c->table = p->in_table;
        partition_unref_locked(p);
    }
    partition_unlock(c);
    free(c->kept);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    cancel_destroy(&c->stop);
    free(c);
}

/* ---- one partition's life ---- */

static void free_partition(struct partition *p)
{
    if (p->fd >= 0)
        close(p->fd);
    lzop_map_free(&p->index.map);
    free(p->states);
    free(p->key);
    free(p);
}

void partition_unlock(struct partition_cache *c)
{
    struct partition *dead = c->dead;
    c->dead = NULL;
    pthread_mutex_unlock(&c->lock);
    while (dead != NULL) {
        struct partition *p = dead;
        dead = p->in_table;
        free_partition(p);
    }
}

static bool copy_index(struct partition *p, const struct index_partition *from)
{
    p->index = *from;
    p->index.map.offsets = NULL;
    if (from->map.count == 0)
        return true;
    p->index.map.offsets = malloc(from->map.count * sizeof(*from->map.offsets));
    if (p->index.map.offsets == NULL)
        return false;
    memcpy(p->index.map.offsets, from->map.offsets, from->map.count * sizeof(*from->map.offsets));
    return true;
}

static size_t first_held_block(const struct partition *p, uint64_t held_from)
{
    uint64_t size = p->index.map.plain_size;
    if (!p->index.encrypted)
        return p->block_count;
    if (size <= p->cache->opt.cache_bytes / HELD_SHARE)
        return 0;
    return (size_t)((held_from < size ? held_from : size - 1) / p->block_bytes);
}

static struct partition *new_partition(struct partition_cache *c,
                                       const struct partition_object *object, struct err *err)
{
    struct partition *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    const struct lzop_map *map = &object->index->map;
    bool own_blocks = map->regular && map->block_size >= 4096 && map->block_size <= (1u << 20);
    p->cache = c;
    p->block_bytes = own_blocks ? map->block_size : PARTITION_BLOCK_BYTES;
    p->block_count = (size_t)((map->plain_size + p->block_bytes - 1) / p->block_bytes);
    p->fd = spool_open(c->opt.dir, err);
    if (p->fd < 0) {
        free_partition(p);
        return NULL;
    }
    p->key = strdup(object->key);
    p->states = calloc(p->block_count + 1, 1);
    if (p->key != NULL && p->states != NULL && copy_index(p, object->index)) {
        p->held_block = first_held_block(p, object->held_from);
        return p;
    }
    free_partition(p);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

struct partition *partition_ref_locked(struct partition *p)
{
    p->refs++;
    return p;
}

/* What it had decoded goes with it. */
static void forget_blocks(struct partition *p)
{
    struct partition_cache *c = p->cache;
    size_t left = 0;
    for (size_t i = 0; i < c->kept_count; i++) {
        if (c->kept[i].partition == p)
            c->bytes -= partition_block_size(p, c->kept[i].block);
        else
            c->kept[left++] = c->kept[i];
    }
    c->kept_count = left;
}

void partition_unref_locked(struct partition *p)
{
    while (p != NULL && --p->refs == 0) {
        struct partition *next = p->next;
        forget_blocks(p);
        p->in_table = p->cache->dead;
        p->cache->dead = p;
        p = next;
    }
}

size_t partition_block_size(const struct partition *p, size_t i)
{
    uint64_t left = p->index.map.plain_size - (uint64_t)i * p->block_bytes;
    return left < p->block_bytes ? (size_t)left : p->block_bytes;
}

bool partition_is_seekable(const struct partition *p)
{
    return !p->index.encrypted && p->index.map.regular && p->index.map.block_size == p->block_bytes;
}

/* ---- the table ---- */

static struct partition *find(struct partition_cache *c, const char *key, const char *etag)
{
    struct partition *p = c->table;
    while (p != NULL && (strcmp(p->key, key) != 0 || strcmp(p->index.etag, etag) != 0))
        p = p->in_table;
    return p;
}

/* Those that were found damaged are remembered. */
static void drop_idle(struct partition_cache *c)
{
    unsigned idle = 0;
    for (struct partition **slot = &c->table; *slot != NULL;) {
        struct partition *p = *slot;
        if (p->refs > 1 || p->poisoned || ++idle <= IDLE_MAX) {
            slot = &p->in_table;
            continue;
        }
        *slot = p->in_table;
        partition_unref_locked(p);
    }
}

/* With the lock held, which is given up for making one. A reference. */
static struct partition *obtain(struct partition_cache *c, const struct partition_object *object,
                                struct err *err)
{
    struct partition *p = find(c, object->key, object->index->etag);
    if (p != NULL)
        return partition_ref_locked(p);
    pthread_mutex_unlock(&c->lock);
    struct partition *made = new_partition(c, object, err);
    pthread_mutex_lock(&c->lock);
    p = find(c, object->key, object->index->etag);
    if (made == NULL)
        return NULL;
    if (p != NULL) {
        made->in_table = c->dead;
        c->dead = made;
        return partition_ref_locked(p);
    }
    made->refs = 2; /* the table's, and the caller's */
    made->in_table = c->table;
    c->table = made;
    drop_idle(c);
    return made;
}

struct partition *partition_open(struct partition_cache *c, const struct partition_source *source,
                                 struct err *err)
{
    struct err ignored = ERR_INIT;
    pthread_mutex_lock(&c->lock);
    struct partition *p = obtain(c, &source->object, err);
    if (p != NULL && p->next == NULL && source->next.key != NULL) {
        struct partition *next = obtain(c, &source->next, &ignored);
        if (p->next == NULL)
            p->next = next;
        else
            partition_unref_locked(next);
    }
    partition_unlock(c);
    return p;
}

struct partition *partition_ref(struct partition *p)
{
    pthread_mutex_lock(&p->cache->lock);
    partition_ref_locked(p);
    pthread_mutex_unlock(&p->cache->lock);
    return p;
}

void partition_close(struct partition *p)
{
    if (p == NULL)
        return;
    struct partition_cache *c = p->cache;
    pthread_mutex_lock(&c->lock);
    partition_unref_locked(p);
    partition_unlock(c);
}

/* ---- what is kept ---- */

bool partition_keep_block(struct partition *p, size_t i)
{
    struct partition_cache *c = p->cache;
    if (c->kept_count == c->kept_cap) {
        size_t cap = c->kept_cap == 0 ? 256 : c->kept_cap * 2;
        struct kept_block *kept = realloc(c->kept, cap * sizeof(*kept));
        if (kept == NULL)
            return false;
        c->kept = kept;
        c->kept_cap = cap;
    }
    c->kept[c->kept_count++] = (struct kept_block){.partition = p, .block = i};
    c->bytes += partition_block_size(p, i);
    p->states[i] = BLOCK_PRESENT;
    return true;
}

static bool is_pinned(const struct kept_block *k)
{
    for (const struct partition_pin *pin = k->partition->pins; pin != NULL; pin = pin->next)
        if (pin->first <= k->block && k->block <= pin->last)
            return true;
    return false;
}

/* With the lock held: the oldest block that has been read; else the oldest. False: none can go. */
static bool choose_victim(const struct partition_cache *c, size_t *place)
{
    bool found = false;
    for (size_t i = 0; i < c->kept_count; i++) {
        const struct kept_block *k = &c->kept[i];
        if (is_pinned(k))
            continue;
        if (!found)
            *place = i;
        found = true;
        if (k->partition->states[k->block] == BLOCK_READ) {
            *place = i;
            break;
        }
    }
    return found;
}

/* How many blocks go at once: choosing and punching cost something. */
#define VICTIMS 16u

bool partition_evict(struct partition_cache *c, bool anyway)
{
    struct kept_block victims[VICTIMS];
    size_t n = 0, place;
    pthread_mutex_lock(&c->lock);
    while ((anyway || c->bytes > c->opt.cache_bytes) && n < VICTIMS && choose_victim(c, &place)) {
        struct kept_block *k = &c->kept[place];
        victims[n] = *k;
        partition_ref_locked(k->partition);
        k->partition->states[k->block] = BLOCK_GOING;
        c->bytes -= partition_block_size(k->partition, k->block);
        c->kept_count--;
        memmove(k, k + 1, (c->kept_count - place) * sizeof(*k));
        n++;
    }
    pthread_mutex_unlock(&c->lock);
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        (void)fallocate(victims[i].partition->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(victims[i].block * victims[i].partition->block_bytes),
                        (off_t)victims[i].partition->block_bytes);
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < n; i++) {
        victims[i].partition->states[victims[i].block] = BLOCK_ABSENT;
        partition_unref_locked(victims[i].partition);
    }
    pthread_cond_broadcast(&c->changed);
    partition_unlock(c);
    return true;
}

/* ---- damage ---- */

bool partition_check(struct partition *p, struct err *err)
{
    pthread_mutex_lock(&p->cache->lock);
    bool sound = !p->poisoned;
    if (!sound)
        *err = p->failure;
    pthread_mutex_unlock(&p->cache->lock);
    return sound;
}

/* What readers have been given lies in the file until they let go of it; nobody is given more. */
void partition_drop_damaged(struct partition *p)
{
    struct partition_cache *c = p->cache;
    pthread_mutex_lock(&c->lock);
    while (p->pins != NULL)
        pthread_cond_wait(&c->changed, &c->lock);
    forget_blocks(p);
    pthread_mutex_unlock(&c->lock);
    (void)fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                    (off_t)(p->block_count * p->block_bytes));
    if (c->opt.damaged != NULL)
        c->opt.damaged(c->opt.damaged_arg, p);
}

/* ---- reading ---- */

bool partition_verified(struct partition *p)
{
    pthread_mutex_lock(&p->cache->lock);
    bool sound = !p->poisoned && (p->verified || !p->index.encrypted);
    pthread_mutex_unlock(&p->cache->lock);
    return sound;
}

/* The stream that comes to BLOCK soon, or as soon as any can. */
static struct partition_stream *stream_for(struct partition *p, size_t block)
{
    size_t reach = partition_is_seekable(p) ? REACH_BYTES / p->block_bytes : SIZE_MAX;
    struct partition_stream *best = NULL;
    if (p->states[block] == BLOCK_HELD)
        return p->holder;
    for (struct partition_stream *s = p->streams; s != NULL; s = s->next)
        if (!s->go_away && s->next_block <= block && block - s->next_block <= reach &&
            (best == NULL || s->next_block > best->next_block))
            best = s;
    return best;
}

/* The stream that a reader follows who has come to BLOCK, which is there: the one that is ahead of
 * it by no more than it may be, or else will come. */
static struct partition_stream *stream_ahead(struct partition *p, size_t block)
{
    for (struct partition_stream *s = p->streams; s != NULL; s = s->next)
        if (!s->go_away && s->next_block > block && s->next_block - block <= s->window)
            return s;
    return stream_for(p, block + 1);
}

/* A reader wants BLOCK: its stream may go on. */
static void want(struct partition *p, struct partition_stream *s, size_t block)
{
    size_t most = WINDOW_MAX_BYTES / p->block_bytes;
    if (block >= s->grow_at && s->window < most) { /* who has read so much reads on */
        s->window = s->window * 2 < most ? s->window * 2 : most;
        s->grow_at = block + s->window;
    }
    if (block + s->window > s->limit)
        s->limit = block + s->window;
    s->wanted_ms = now_ms();
    pthread_cond_broadcast(&p->cache->changed);
}

static void want_next_partition(struct partition *p, uint64_t offset)
{
    struct err ignored = ERR_INIT;
    struct partition *n = p->next;
    if (n == NULL || n->streams != NULL || n->poisoned || n->block_count == 0 ||
        n->states[0] != BLOCK_ABSENT || offset + NEXT_BYTES < p->index.map.plain_size)
        return;
    (void)partition_stream_start(n, 0, true, &ignored);
}

/* A reader has come to BLOCK. Blocks just before it may be half read: the kernel asks for a file's
 * next bytes in several requests at once. */
static void note_read(struct partition *p, size_t block)
{
    size_t behind = BEHIND_BYTES / p->block_bytes;
    if (block >= behind && p->states[block - behind] == BLOCK_PRESENT)
        p->states[block - behind] = BLOCK_READ;
}

/* With the lock held: waits until BLOCK is there. */
static bool await_block(struct partition *p, size_t block, const struct call *call,
                        struct waiter *w, struct err *err)
{
    unsigned failures = p->failures;
    bool waiting = true;
    for (;;) {
        if (p->poisoned || p->failures != failures) {
            *err = p->failure;
            return false;
        }
        if (partition_has_block(p, block))
            return true;
        if (!waiting)
            break;
        struct partition_stream *s = stream_for(p, block);
        if (s == NULL) {
            if (!partition_stream_start(p, block, false, err))
                return false;
            s = stream_for(p, block);
        }
        if (s != NULL)
            want(p, s, block);
        waiting = waiter_wait(w);
    }
    return call_waited_in_vain(call, p->key, "on its way", err);
}

static void remove_pin(struct partition_pin *pin)
{
    struct partition_pin **slot = &pin->partition->pins;
    while (*slot != pin)
        slot = &(*slot)->next;
    *slot = pin->next;
    if (pin->partition->poisoned)
        pthread_cond_broadcast(&pin->partition->cache->changed);
    partition_unref_locked(pin->partition);
}

bool partition_read(struct partition *p, uint64_t offset, size_t size, int *fd, size_t *got,
                    struct partition_pin **out, const struct call *call, struct err *err)
{
    struct partition_cache *c = p->cache;
    struct waiter w;
    *out = NULL;
    *got = 0;
    *fd = p->fd;
    if (offset >= p->index.map.plain_size || size == 0)
        return true;
    if (size > p->index.map.plain_size - offset)
        size = (size_t)(p->index.map.plain_size - offset);
    struct partition_pin *pin = calloc(1, sizeof(*pin));
    if (pin == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    pin->first = (size_t)(offset / p->block_bytes);
    pin->last = (size_t)((offset + size - 1) / p->block_bytes);
    waiter_begin(&w, call, &c->lock, &c->changed);
    pthread_mutex_lock(&c->lock);
    pin->partition = partition_ref_locked(p);
    pin->next = p->pins;
    p->pins = pin; /* what has come stays until all of it is there */
    want_next_partition(p, offset);
    bool ok = true;
    for (size_t i = pin->first; ok && i <= pin->last; i++) {
        ok = await_block(p, i, call, &w, err);
        if (ok)
            note_read(p, i);
    }
    struct partition_stream *s = ok ? stream_ahead(p, pin->last) : NULL;
    if (s != NULL) /* what follows will be wanted */
        want(p, s, pin->last);
    if (!ok)
        remove_pin(pin);
    partition_unlock(c);
    waiter_end(&w);
    if (ok) {
        *got = size;
        *out = pin;
        return true;
    }
    free(pin);
    return false;
}

void partition_done(struct partition_pin *pin)
{
    if (pin == NULL)
        return;
    struct partition_cache *c = pin->partition->cache;
    pthread_mutex_lock(&c->lock);
    remove_pin(pin);
    partition_unlock(c);
    free(pin);
}
