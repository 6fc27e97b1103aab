#include "core/catalog.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/wal_name.h"

#define SENTINEL_MAX (64u << 20) /* a checksum for each partition of a very large backup */
#define READERS 8u

/* ---- order ---- */

bool backup_newer(const struct backup_info *a, const struct backup_info *b)
{
    if (a->start.tli != b->start.tli)
        return a->start.tli > b->start.tli;
    if (a->start.lsn != b->start.lsn)
        return a->start.lsn > b->start.lsn;
    if (a->stored_s != b->stored_s)
        return a->stored_s > b->stored_s;
    return strcmp(a->name, b->name) > 0;
}

static int by_age(const void *a, const void *b)
{
    const struct catalog_backup *x = a, *y = b;
    return backup_newer(&x->info, &y->info) ? 1 : backup_newer(&y->info, &x->info) ? -1 : 0;
}

/* ---- listing ---- */

struct found {
    char name[BACKUP_NAME_MAX];
    char etag[128]; /* of the sentinel; "" when only a prefix was seen */
    int64_t stored_s;
    uint64_t size;
    bool has_sentinel, frozen;
    struct backup_info info;
    bool readable; /* info is filled */
};

struct listing {
    struct found *found;
    size_t count;
};

static struct found *found_for(struct listing *l, const char *name, struct err *err)
{
    /* a prefix and its sentinel stand close together in the order of keys */
    for (size_t i = l->count; i > 0 && i + 4 > l->count; i--)
        if (strcmp(l->found[i - 1].name, name) == 0)
            return &l->found[i - 1];
    if ((l->count & (l->count - 1)) == 0) { /* full at every power of two */
        size_t cap = l->count == 0 ? 1 : l->count * 2;
        struct found *more = realloc(l->found, cap * sizeof(*more));
        if (more == NULL) {
            err_set(err, ERR_NO_MEMORY, "out of memory");
            return NULL;
        }
        l->found = more;
    }
    struct found *f = &l->found[l->count++];
    memset(f, 0, sizeof(*f));
    strcpy(f->name, name);
    return f;
}

/* The backup that a key or a common prefix belongs to; anything else is not ours. */
static bool backup_of_entry(const struct store_entry *e, char name[BACKUP_NAME_MAX])
{
    const char *rest = e->key + strlen(BACKUP_PREFIX);
    const char *suffix = e->is_prefix ? "/" : BACKUP_SENTINEL_SUFFIX;
    if (strncmp(e->key, BACKUP_PREFIX, strlen(BACKUP_PREFIX)) != 0)
        return false;
    size_t n = strlen(rest), m = strlen(suffix);
    if (n <= m || n - m >= BACKUP_NAME_MAX || strcmp(rest + n - m, suffix) != 0)
        return false;
    memcpy(name, rest, n - m);
    name[n - m] = '\0';
    return backup_name_parse(name, 0, NULL) || (e->is_prefix && backup_name_is_temporary(name));
}

static bool add_page(void *arg, const struct store_page *page, struct err *err)
{
    struct listing *l = arg;
    for (size_t i = 0; i < page->count; i++) {
        const struct store_entry *e = &page->entries[i];
        char name[BACKUP_NAME_MAX];
        if (!backup_of_entry(e, name))
            continue;
        struct found *f = found_for(l, name, err);
        if (f == NULL)
            return false;
        if (e->is_prefix)
            continue;
        f->has_sentinel = true;
        f->stored_s = e->mtime_s;
        f->size = e->size;
        strcpy(f->etag, e->etag);
    }
    return true;
}

static bool list_all(struct store *store, struct listing *l, const struct call *call,
                     struct err *err)
{
    const struct store_list what = {.prefix = BACKUP_PREFIX, .delimiter = "/"};
    return store_list_each(store, &what, add_page, l, call, err);
}

/* ---- sentinels ---- */

static bool read_sentinel(struct store *store, struct found *f, const struct call *call,
                          struct err *err)
{
    char key[STORE_KEY_MAX];
    struct store_info info;
    struct err why = ERR_INIT;
    (void)snprintf(key, sizeof(key), BACKUP_PREFIX "%s" BACKUP_SENTINEL_SUFFIX, f->name);
    if (f->size > SENTINEL_MAX) {
        log_warn("%s: far too large to be a sentinel; that backup is not offered", key);
        return true;
    }
    struct source *body = store->ops->get(store, key, 0, UINT64_MAX, &info, call, err);
    if (body == NULL) {
        f->has_sentinel = err->code != ERR_ABSENT; /* deleted since it was listed */
        f->frozen = err->code == ERR_FROZEN;
        if (f->frozen)
            log_warn("%s; that backup cannot be read", err->text);
        return !f->has_sentinel || f->frozen;
    }
    size_t cap = info.size <= SENTINEL_MAX ? (size_t)info.size : SENTINEL_MAX;
    char *text = malloc(cap + 1);
    ssize_t n = -1;
    if (text == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        n = source_read_full(body, text, cap, err);
    source_close(body);
    if (n >= 0)
        f->readable = sentinel_parse(f->name, text, (size_t)n, &f->info, &why);
    free(text);
    if (why.code == ERR_NO_MEMORY) { /* which says nothing of the backup */
        *err = why;
        return false;
    }
    if (n >= 0 && !f->readable)
        log_warn("%s; that backup is not offered", why.text);
    f->info.stored_s = f->stored_s;
    return n >= 0;
}

struct reading {
    struct store *store;
    struct listing *listing;
    const struct call *call;
    pthread_mutex_t lock;
    size_t next;    /* lock */
    bool failed;    /* lock */
    struct err err; /* lock: the first failure */
};

static struct found *next_to_read(struct reading *r)
{
    struct found *f = NULL;
    pthread_mutex_lock(&r->lock);
    while (!r->failed && f == NULL && r->next < r->listing->count) {
        f = &r->listing->found[r->next++];
        if (!f->has_sentinel || f->readable)
            f = NULL;
    }
    pthread_mutex_unlock(&r->lock);
    return f;
}

static void *read_thread(void *arg)
{
    struct reading *r = arg;
    struct found *f;
    while ((f = next_to_read(r)) != NULL) {
        struct err err = ERR_INIT;
        if (read_sentinel(r->store, f, r->call, &err))
            continue;
        pthread_mutex_lock(&r->lock);
        if (!r->failed)
            r->err = err;
        r->failed = true;
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

/* Reads all that are not known yet, several at once. */
static bool read_sentinels(struct store *store, struct listing *l, const struct call *call,
                           struct err *err)
{
    struct reading r = {.store = store, .listing = l, .call = call, .err = ERR_INIT};
    pthread_t threads[READERS];
    unsigned started = 0;
    size_t unread = 0;
    for (size_t i = 0; i < l->count; i++)
        unread += l->found[i].has_sentinel && !l->found[i].readable;
    pthread_mutex_init(&r.lock, NULL);
    while (started + 1 < READERS && started + 1 < unread &&
           pthread_create(&threads[started], NULL, read_thread, &r) == 0)
        started++;
    read_thread(&r);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    pthread_mutex_destroy(&r.lock);
    if (r.failed)
        *err = r.err;
    return !r.failed;
}

/* What the listing before has read already. */
static bool take_over(struct listing *l, const struct catalog *previous, struct err *err)
{
    for (size_t i = 0; previous != NULL && i < l->count; i++) {
        struct found *f = &l->found[i];
        const struct catalog_backup *b = f->has_sentinel ? catalog_find(previous, f->name) : NULL;
        if (b == NULL || strcmp(b->etag, f->etag) != 0)
            continue;
        if (!backup_info_copy(&b->info, &f->info, err))
            return false;
        f->info.stored_s = f->stored_s;
        f->readable = true;
    }
    return true;
}

/* ---- the catalog ---- */

static struct catalog *make_catalog(struct listing *l, struct err *err)
{
    struct catalog *c = calloc(1, sizeof(*c));
    if (c == NULL)
        goto fail;
    atomic_store(&c->refs, 1);
    c->backups = calloc(l->count + 1, sizeof(*c->backups));
    c->incomplete = calloc(l->count + 1, sizeof(*c->incomplete));
    if (c->backups == NULL || c->incomplete == NULL)
        goto fail;
    for (size_t i = 0; i < l->count; i++) {
        struct found *f = &l->found[i];
        if (!f->readable) {
            struct catalog_incomplete *left = &c->incomplete[c->incomplete_count++];
            strcpy(left->name, f->name);
            left->damaged = f->has_sentinel;
            left->frozen = f->frozen;
            c->damaged_count += left->damaged;
            continue;
        }
        struct catalog_backup *b = &c->backups[c->count++];
        b->info = f->info; /* owned by the catalog from here on */
        f->readable = false;
        strcpy(b->etag, f->etag);
    }
    qsort(c->backups, c->count, sizeof(*c->backups), by_age);
    return c;
fail:
    catalog_unref(c);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

struct catalog *catalog_load(struct store *store, struct catalog *previous, struct catalog **so_far,
                             const struct call *call, struct err *err)
{
    struct listing l = {0};
    struct catalog *c = NULL;
    struct err ignored = ERR_INIT;
    if (list_all(store, &l, call, err) && take_over(&l, previous, err)) {
        if (read_sentinels(store, &l, call, err))
            c = make_catalog(&l, err);
        else if (so_far != NULL)
            *so_far = make_catalog(&l, &ignored);
    }
    for (size_t i = 0; i < l.count; i++)
        if (l.found[i].readable)
            backup_info_free(&l.found[i].info);
    free(l.found);
    return c;
}

struct catalog *catalog_ref(struct catalog *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void catalog_unref(struct catalog *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    for (size_t i = 0; i < c->count; i++)
        backup_info_free(&c->backups[i].info);
    free(c->backups);
    free(c->incomplete);
    free(c);
}

const struct catalog_backup *catalog_find(const struct catalog *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->backups[i].info.name, name) == 0)
            return &c->backups[i];
    return NULL;
}

const struct catalog_backup *catalog_find_label(const struct catalog *c, const char *label)
{
    for (size_t i = c->count; i > 0 && *label != '\0'; i--)
        if (strcmp(c->backups[i - 1].info.label, label) == 0)
            return &c->backups[i - 1];
    return NULL;
}

const struct catalog_backup *catalog_latest(const struct catalog *c)
{
    return c->count == 0 ? NULL : &c->backups[c->count - 1];
}

uint32_t archive_segment_size(uint32_t newest, const struct catalog *c)
{
    uint32_t size = newest;
    for (size_t i = c == NULL ? 0 : c->count; size == 0 && i > 0; i--)
        if (wal_segment_size_valid(c->backups[i - 1].info.segment_size))
            size = c->backups[i - 1].info.segment_size;
    return size;
}

const struct catalog_incomplete *catalog_find_incomplete(const struct catalog *c, const char *name)
{
    for (size_t i = 0; i < c->incomplete_count; i++)
        if (strcmp(c->incomplete[i].name, name) == 0)
            return &c->incomplete[i];
    return NULL;
}

void catalog_damaged_advice(const struct catalog_incomplete *left, char out[CATALOG_ADVICE_MAX])
{
    if (left->frozen)
        (void)snprintf(out, CATALOG_ADVICE_MAX,
                       "its sentinel is in an archive storage class: restore " BACKUP_PREFIX
                       "%s" BACKUP_SENTINEL_SUFFIX
                       " in the store first, and the objects below " BACKUP_PREFIX "%s/",
                       left->name, left->name);
    else
        (void)snprintf(out, CATALOG_ADVICE_MAX,
                       "its sentinel cannot be read; restore " BACKUP_PREFIX
                       "%s" BACKUP_SENTINEL_SUFFIX
                       " (an older version of the object where the bucket keeps them, or another "
                       "copy), and do not delete the backup",
                       left->name);
}
