#include "fs/inode.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/fnv.h"

#define FIRST_BUCKETS 1024u

struct inode_table {
    pthread_mutex_t lock;
    struct node **by_id, **by_name; /* lock; chains, `buckets` of each */
    size_t buckets, count;          /* lock */
    uint64_t next_id;               /* lock */
    struct node *root;
};

static size_t hash_id(uint64_t id)
{
    return (size_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 20);
}

static size_t hash_name(const struct node *parent, const char *name)
{
    uint64_t h = fnv(FNV_START ^ parent->id, name, strlen(name));
    return (size_t)(h ^ h >> 32);
}

static void put_by_id(struct inode_table *t, struct node *n)
{
    struct node **slot = &t->by_id[hash_id(n->id) & (t->buckets - 1)];
    n->next_by_id = *slot;
    *slot = n;
}

static void put_by_name(struct inode_table *t, struct node *n)
{
    struct node **slot = &t->by_name[hash_name(n->parent, n->name) & (t->buckets - 1)];
    n->next_by_name = *slot;
    *slot = n;
}

static void take_by_id(struct inode_table *t, struct node *n)
{
    struct node **slot = &t->by_id[hash_id(n->id) & (t->buckets - 1)];
    while (*slot != n)
        slot = &(*slot)->next_by_id;
    *slot = n->next_by_id;
}

static void take_by_name(struct inode_table *t, struct node *n)
{
    struct node **slot = &t->by_name[hash_name(n->parent, n->name) & (t->buckets - 1)];
    while (*slot != n)
        slot = &(*slot)->next_by_name;
    *slot = n->next_by_name;
}

/* Doubles the tables when chains grow; without memory they just stay long. */
static void grow(struct inode_table *t)
{
    if (t->count <= t->buckets)
        return;
    size_t old_buckets = t->buckets;
    struct node **by_id = calloc(old_buckets * 2, sizeof(*by_id));
    struct node **by_name = calloc(old_buckets * 2, sizeof(*by_name));
    if (by_id == NULL || by_name == NULL) {
        free(by_id);
        free(by_name);
        return;
    }
    struct node **old = t->by_id;
    free(t->by_name);
    t->by_id = by_id;
    t->by_name = by_name;
    t->buckets = old_buckets * 2;
    for (size_t i = 0; i < old_buckets; i++)
        for (struct node *n = old[i], *next; n != NULL; n = next) {
            next = n->next_by_id;
            put_by_id(t, n);
            if (n->name != NULL && n->parent != NULL)
                put_by_name(t, n);
        }
    free(old);
}

static struct node *make(struct inode_table *t, struct node *parent, const char *name,
                         const struct node_template *template)
{
    struct node *n = calloc(1, sizeof(*n));
    if (n == NULL)
        return NULL;
    n->name = strdup(name);
    n->data = template->new_data == NULL ? NULL : template->new_data();
    if (n->name == NULL || (template->new_data != NULL && n->data == NULL)) {
        free(n->name);
        free(n);
        return NULL;
    }
    n->id = t->next_id++;
    n->parent = parent;
    n->ops = template->ops;
    n->free_data = template->free_data;
    n->refs = 1;
    t->count++;
    grow(t);
    put_by_id(t, n);
    if (parent != NULL) {
        parent->refs++;
        put_by_name(t, n);
    }
    return n;
}

static void destroy(struct node *n)
{
    if (n->free_data != NULL)
        n->free_data(n->data);
    free(n->name);
    free(n);
}

/* With the lock held: unhooks NODE, and parents that only it kept, when nothing refers to them. The
 * result is a chain by next_by_id to destroy without the lock. */
static struct node *collect(struct inode_table *t, struct node *n)
{
    struct node *dead = NULL;
    while (n != NULL && n->refs == 0 && n->lookups == 0) {
        struct node *parent = n->parent;
        take_by_id(t, n);
        if (n->name != NULL && parent != NULL)
            take_by_name(t, n);
        t->count--;
        n->next_by_id = dead;
        dead = n;
        if (parent != NULL)
            parent->refs--;
        n = parent;
    }
    return dead;
}

static void destroy_all(struct node *dead)
{
    for (struct node *next; dead != NULL; dead = next) {
        next = dead->next_by_id;
        destroy(dead);
    }
}

struct inode_table *inode_table_new(const struct node_template *root, struct err *err)
{
    struct inode_table *t = calloc(1, sizeof(*t));
    if (t != NULL) {
        pthread_mutex_init(&t->lock, NULL);
        t->buckets = FIRST_BUCKETS;
        t->next_id = INODE_ROOT;
        t->by_id = calloc(t->buckets, sizeof(*t->by_id));
        t->by_name = calloc(t->buckets, sizeof(*t->by_name));
        if (t->by_id != NULL && t->by_name != NULL)
            t->root = make(t, NULL, "", root);
        if (t->root != NULL)
            return t;
        inode_table_free(t);
    }
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

void inode_table_free(struct inode_table *t)
{
    if (t == NULL)
        return;
    /* at an unmount the kernel does not forget one by one: whatever is left goes */
    for (size_t i = 0; t->by_id != NULL && i < t->buckets; i++)
        destroy_all(t->by_id[i]);
    free(t->by_id);
    free(t->by_name);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct node *by_id(struct inode_table *t, uint64_t id)
{
    struct node *n = t->by_id[hash_id(id) & (t->buckets - 1)];
    while (n != NULL && n->id != id)
        n = n->next_by_id;
    return n;
}

static struct node *by_name(struct inode_table *t, const struct node *parent, const char *name)
{
    struct node *n = t->by_name[hash_name(parent, name) & (t->buckets - 1)];
    while (n != NULL && (n->parent != parent || strcmp(n->name, name) != 0))
        n = n->next_by_name;
    return n;
}

struct node *inode_get(struct inode_table *t, uint64_t id)
{
    pthread_mutex_lock(&t->lock);
    struct node *n = by_id(t, id);
    if (n != NULL)
        n->refs++;
    pthread_mutex_unlock(&t->lock);
    return n;
}

struct node *inode_find(struct inode_table *t, struct node *parent, const char *name)
{
    pthread_mutex_lock(&t->lock);
    struct node *n = by_name(t, parent, name);
    if (n != NULL)
        n->refs++;
    pthread_mutex_unlock(&t->lock);
    return n;
}

struct node *inode_obtain(struct inode_table *t, struct node *parent, const char *name,
                          const struct node_template *template, struct err *err)
{
    pthread_mutex_lock(&t->lock);
    struct node *n = by_name(t, parent, name);
    if (n != NULL)
        n->refs++;
    else
        n = make(t, parent, name, template);
    pthread_mutex_unlock(&t->lock);
    if (n == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return n;
}

struct node *node_ref(struct inode_table *t, struct node *n)
{
    pthread_mutex_lock(&t->lock);
    n->refs++;
    pthread_mutex_unlock(&t->lock);
    return n;
}

void node_unref(struct inode_table *t, struct node *n)
{
    if (n == NULL)
        return;
    pthread_mutex_lock(&t->lock);
    assert(n->refs > 0);
    n->refs--;
    struct node *dead = collect(t, n);
    pthread_mutex_unlock(&t->lock);
    destroy_all(dead);
}

void node_add_lookup(struct inode_table *t, struct node *n)
{
    pthread_mutex_lock(&t->lock);
    n->lookups++;
    pthread_mutex_unlock(&t->lock);
}

void inode_forget(struct inode_table *t, uint64_t id, uint64_t count)
{
    struct node *dead = NULL;
    pthread_mutex_lock(&t->lock);
    struct node *n = by_id(t, id);
    if (n != NULL) {
        n->lookups -= count < n->lookups ? count : n->lookups;
        dead = collect(t, n);
    }
    pthread_mutex_unlock(&t->lock);
    destroy_all(dead);
}

void node_name(struct inode_table *t, const struct node *n, char out[INODE_NAME_MAX + 1])
{
    pthread_mutex_lock(&t->lock);
    size_t len = n->name == NULL ? 0 : strnlen(n->name, INODE_NAME_MAX);
    if (len > 0)
        memcpy(out, n->name, len);
    out[len] = '\0';
    pthread_mutex_unlock(&t->lock);
}

static void lose_name(struct inode_table *t, struct node *n)
{
    if (n->name == NULL)
        return;
    take_by_name(t, n);
    free(n->name);
    n->name = NULL;
}

bool node_rename(struct inode_table *t, struct node *n, const char *name, struct err *err)
{
    char *copy = strdup(name);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    pthread_mutex_lock(&t->lock);
    struct node *old = by_name(t, n->parent, name);
    if (old != NULL && old != n)
        lose_name(t, old);
    lose_name(t, n);
    n->name = copy;
    put_by_name(t, n);
    pthread_mutex_unlock(&t->lock);
    return true;
}

bool node_move(struct inode_table *t, struct node *n, struct node *parent, const char *name,
               struct err *err)
{
    char *copy = strdup(name);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    pthread_mutex_lock(&t->lock);
    struct node *old = by_name(t, parent, name);
    if (old != NULL && old != n)
        lose_name(t, old);
    lose_name(t, n);
    struct node *old_parent = n->parent;
    parent->refs++;
    n->parent = parent;
    n->name = copy;
    put_by_name(t, n);
    old_parent->refs--;
    struct node *dead = collect(t, old_parent);
    pthread_mutex_unlock(&t->lock);
    destroy_all(dead);
    return true;
}

struct node *inode_parent(struct inode_table *t, const struct node *n)
{
    pthread_mutex_lock(&t->lock);
    struct node *parent = n->parent;
    if (parent != NULL)
        parent->refs++;
    pthread_mutex_unlock(&t->lock);
    return parent;
}

bool node_is_in(struct inode_table *t, const struct node *n, const struct node *dir)
{
    pthread_mutex_lock(&t->lock);
    bool in = n->parent == dir && n->name != NULL;
    pthread_mutex_unlock(&t->lock);
    return in;
}

bool node_is_below(struct inode_table *t, const struct node *n, const struct node *dir)
{
    pthread_mutex_lock(&t->lock);
    do
        n = n->parent;
    while (n != NULL && n != dir);
    pthread_mutex_unlock(&t->lock);
    return n != NULL;
}

/* With the lock held, from the end: names are put before what is there already. */
static bool put_names(const struct node *n, const struct node *top, char *out, size_t cap)
{
    size_t at = cap - 1;
    out[at] = '\0';
    for (; n != top && n->parent != NULL; n = n->parent) {
        size_t len = n->name == NULL ? 0 : strlen(n->name);
        bool slash = out[at] != '\0';
        if (len == 0 || len + slash > at)
            return false;
        if (slash)
            out[--at] = '/';
        at -= len;
        memcpy(out + at, n->name, len);
    }
    memmove(out, out + at, cap - at);
    return true;
}

bool inode_path(struct inode_table *t, const struct node *n, const struct node *top, char *out,
                size_t cap)
{
    pthread_mutex_lock(&t->lock);
    bool ok = put_names(n, top, out, cap);
    pthread_mutex_unlock(&t->lock);
    if (!ok)
        out[0] = '\0';
    return ok;
}

void node_unlink(struct inode_table *t, struct node *n)
{
    pthread_mutex_lock(&t->lock);
    lose_name(t, n);
    pthread_mutex_unlock(&t->lock);
}
