#include "fs/backup_set.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/waiter.h"
#include "fs/backup_load.h"

/* So many of those that nobody uses are kept, as backups and as contents; the others are loaded
 * again when they are wanted. */
#define IDLE_MAX 4u

struct backup_set {
    struct backup_set_options opt;
    struct partition_cache *partitions;
    struct cancel stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;  /* a load has ended */
    struct catalog *catalog; /* lock: the last listing; a reference */
    struct catalog *so_far;  /* lock: what one that failed since then has read; a reference */
    int64_t listed_ms;       /* lock: when that was asked for */
    struct backup *first;    /* lock: most recently opened first; a reference each */
    uint64_t uses;           /* lock: how often a content was asked for */
};

struct backup_set *backup_set_new(const struct backup_set_options *options, struct err *err)
{
    const struct partition_cache_options cache = {.store = options->store,
                                                  .pgp = options->pgp,
                                                  .pool = options->pool,
                                                  .dir = options->dir,
                                                  .cache_bytes = options->cache_bytes,
                                                  .damaged = options->damaged,
                                                  .damaged_arg = options->damaged_arg};
    struct backup_set *set = calloc(1, sizeof(*set));
    if (set == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    set->opt = *options;
    cancel_init(&set->stop);
    pthread_mutex_init(&set->lock, NULL);
    waiter_cond_init(&set->changed);
    set->partitions = partition_cache_new(&cache, err);
    if (set->partitions != NULL)
        return set;
    backup_set_free(set);
    return NULL;
}

void backup_set_stop(struct backup_set *set)
{
    cancel_fire(&set->stop);
    partition_cache_stop(set->partitions);
}

void backup_set_free(struct backup_set *set)
{
    if (set == NULL)
        return;
    while (set->first != NULL) {
        struct backup *b = set->first;
        set->first = b->next;
        backup_unref(b);
    }
    catalog_unref(set->catalog);
    catalog_unref(set->so_far);
    partition_cache_free(set->partitions);
    pthread_cond_destroy(&set->changed);
    pthread_mutex_destroy(&set->lock);
    cancel_destroy(&set->stop);
    free(set);
}

/* ---- the listing ---- */

struct catalog *backup_set_catalog(struct backup_set *set, int64_t max_age_ms,
                                   const struct call *call, struct err *err)
{
    struct catalog *so_far = NULL, *old = NULL, *old_so_far = NULL;
    int64_t begun_ms = now_ms();
    pthread_mutex_lock(&set->lock);
    bool fresh =
        set->catalog != NULL && set->listed_ms != 0 && begun_ms - set->listed_ms < max_age_ms;
    struct catalog *known = fresh || set->so_far == NULL ? set->catalog : set->so_far;
    if (known != NULL)
        (void)catalog_ref(known);
    pthread_mutex_unlock(&set->lock);
    if (fresh)
        return known;
    struct catalog *c = catalog_load(set->opt.store, known, &so_far, call, err);
    catalog_unref(known);
    pthread_mutex_lock(&set->lock);
    if (c != NULL || so_far != NULL) {
        old_so_far = set->so_far;
        set->so_far = so_far;
    }
    if (c != NULL && begun_ms >= set->listed_ms) {
        old = set->catalog;
        set->catalog = catalog_ref(c);
        set->listed_ms = begun_ms;
    }
    pthread_mutex_unlock(&set->lock);
    catalog_unref(old_so_far);
    catalog_unref(old);
    return c;
}

void backup_set_changed(struct backup_set *set)
{
    pthread_mutex_lock(&set->lock);
    set->listed_ms = 0;
    pthread_mutex_unlock(&set->lock);
}

struct partition_cache *backup_set_partitions(struct backup_set *set)
{
    return set->partitions;
}

/* ---- single backups ---- */

struct backup *backup_ref(struct backup *b)
{
    atomic_fetch_add(&b->refs, 1);
    return b;
}

void backup_unref(struct backup *b)
{
    if (b == NULL || atomic_fetch_sub(&b->refs, 1) > 1)
        return;
    backup_content_unref(b->content);
    backup_info_free(&b->info);
    free(b);
}

static struct backup *make_backup(struct backup_set *set, const struct catalog_backup *entry,
                                  struct err *err)
{
    struct backup *b = calloc(1, sizeof(*b));
    if (b == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    if (!backup_info_copy(&entry->info, &b->info, err)) {
        free(b);
        return NULL;
    }
    atomic_store(&b->refs, 2); /* the set's, and the caller's */
    b->set = set;
    strcpy(b->etag, entry->etag);
    return b;
}

/* With the lock held: takes out what has the same name and another sentinel, and of what nobody
 * else uses all but the most recent. Returns a list to be unreferenced. */
static struct backup *take_old(struct backup_set *set, const struct backup *keep)
{
    struct backup *old = NULL;
    unsigned idle = 0;
    for (struct backup **slot = &set->first; *slot != NULL;) {
        struct backup *b = *slot;
        bool replaced = b != keep && strcmp(b->info.name, keep->info.name) == 0;
        bool unused = b != keep && atomic_load(&b->refs) == 1 && !b->loading;
        if (!replaced && !(unused && ++idle > IDLE_MAX)) {
            slot = &b->next;
            continue;
        }
        *slot = b->next;
        b->next = old;
        old = b;
    }
    return old;
}

struct backup *backup_open(struct backup_set *set, const char *name, const struct call *call,
                           struct err *err)
{
    struct catalog *catalog = backup_set_catalog(set, 2000, call, err);
    if (catalog == NULL)
        return NULL;
    struct backup *b = NULL, *old = NULL;
    const struct catalog_backup *entry = catalog_find(catalog, name);
    if (entry == NULL) {
        err_set(err, ERR_ABSENT, "%.80s: the archive has no complete backup of that name", name);
        goto out;
    }
    pthread_mutex_lock(&set->lock);
    for (b = set->first; b != NULL; b = b->next)
        if (strcmp(b->info.name, name) == 0 && strcmp(b->etag, entry->etag) == 0)
            break;
    if (b != NULL) {
        backup_ref(b);
    } else if ((b = make_backup(set, entry, err)) != NULL) {
        b->next = set->first;
        set->first = b;
        old = take_old(set, b);
    }
    pthread_mutex_unlock(&set->lock);
    while (old != NULL) {
        struct backup *next = old->next;
        backup_unref(old);
        old = next;
    }
out:
    catalog_unref(catalog);
    return b;
}

/* ---- contents ---- */

void backup_content_unref(struct backup_content *c)
{
    if (c != NULL && atomic_fetch_sub(&c->refs, 1) == 1)
        backup_content_free(c);
}

/* With the lock held, under which alone references are made: takes the content of the backup whose
 * turn it is, when more than IDLE_MAX are kept that nobody uses. NULL: there is none. */
static struct backup_content *take_idle(struct backup_set *set)
{
    struct backup *oldest = NULL;
    unsigned idle = 0;
    for (struct backup *b = set->first; b != NULL; b = b->next) {
        if (b->content == NULL || atomic_load(&b->content->refs) > 1)
            continue;
        idle++;
        if (oldest == NULL || b->used < oldest->used)
            oldest = b;
    }
    if (idle <= IDLE_MAX)
        return NULL;
    struct backup_content *c = oldest->content;
    oldest->content = NULL;
    return c;
}

static void drop_idle(struct backup_set *set)
{
    struct backup_content *c;
    do {
        pthread_mutex_lock(&set->lock);
        c = take_idle(set);
        pthread_mutex_unlock(&set->lock);
        backup_content_unref(c);
    } while (c != NULL);
}

/* With the lock held: B's files have to be looked up again, in a backup that is opened anew. The
 * caller has a reference, so that the set's is not the last. */
static void take_out(struct backup *b)
{
    struct backup **slot = &b->set->first;
    while (*slot != NULL && *slot != b)
        slot = &(*slot)->next;
    if (*slot == NULL)
        return;
    *slot = b->next;
    atomic_fetch_sub(&b->refs, 1);
}

static void load_job(void *arg)
{
    struct backup *b = arg;
    struct backup_set *set = b->set;
    const struct call call = {.cancel = &set->stop, .deadline_ms = DEADLINE_NONE};
    struct err err = ERR_INIT;
    struct backup_content *content = backup_load(&set->opt, &b->info, &call, &err);
    pthread_mutex_lock(&set->lock);
    bool stale = content != NULL && b->shape != 0 && b->shape != content->shape;
    if (stale) {
        err_set(&err, ERR_STALE, "%s: its index has changed; look the files up again",
                b->info.name);
        take_out(b);
    } else if (content != NULL) {
        b->content = content;
        b->shape = content->shape;
    }
    b->load_err = err;
    b->loading = false;
    b->loads++;
    pthread_cond_broadcast(&set->changed);
    pthread_mutex_unlock(&set->lock);
    if (stale)
        backup_content_unref(content);
    drop_idle(set);
    backup_unref(b);
}

/* With the lock held. */
static bool start_load(struct backup *b, struct err *err)
{
    if (!pool_submit(b->set->opt.pool, load_job, backup_ref(b), err)) {
        atomic_fetch_sub(&b->refs, 1); /* not the last: the caller's is left */
        return false;
    }
    b->loading = true;
    return true;
}

struct backup_content *backup_content(struct backup *b, const struct call *call, struct err *err)
{
    struct backup_set *set = b->set;
    struct waiter w;
    waiter_begin(&w, call, &set->lock, &set->changed);
    pthread_mutex_lock(&set->lock);
    b->used = ++set->uses;
    unsigned loads = b->loads;
    bool ok = b->content != NULL || b->loading || start_load(b, err);
    while (ok && b->content == NULL && b->loads == loads && waiter_wait(&w)) {
    }
    struct backup_content *content = b->content;
    bool ended = b->loads != loads;
    if (content != NULL)
        atomic_fetch_add(&content->refs, 1);
    else if (ok && ended)
        *err = b->load_err;
    pthread_mutex_unlock(&set->lock);
    waiter_end(&w);
    if (ok && content == NULL && !ended)
        call_waited_in_vain(call, b->info.name, "without its index, which is being read or made",
                            err);
    return content;
}

static struct partition_object object_at(const struct backup_content *content, size_t index)
{
    return (struct partition_object){.key = content->objects.objects[index].key,
                                     .index = &content->index->partitions[index],
                                     .held_from = content->tails[index]};
}

struct partition *backup_partition(struct backup *b, const struct backup_content *content,
                                   size_t index, struct err *err)
{
    struct partition_source source = {.object = object_at(content, index)};
    if (index + 1 < content->index->partition_count)
        source.next = object_at(content, index + 1);
    return partition_open(b->set->partitions, &source, err);
}
