/* What of dumps/ exists on this host only, and which names are being changed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/waiter.h"
#include "fs/dumps.h"

struct dumps *dumps_new(struct err *err)
{
    struct dumps *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->unclaimed, NULL);
    waiter_cond_init(&d->ended);
    return d;
}

void dumps_free(struct dumps *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < MEASURED_MAX; i++)
        free(d->measured[i].key);
    pthread_cond_destroy(&d->unclaimed);
    pthread_cond_destroy(&d->ended);
    pthread_mutex_destroy(&d->lock);
    free(d->kept);
    free(d);
}

/* ---- claims; the static functions with the lock held ---- */

static bool is_at_or_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

static bool is_claimed(const struct dumps *d, const char *path)
{
    const struct dump_claim *c = d->claims;
    while (c != NULL && !is_at_or_below(path, c->path))
        c = c->next;
    return c != NULL;
}

/* Itself, or what it is in, or something in it. */
static bool conflicts(const struct dumps *d, const char *path)
{
    const struct dump_claim *c = d->claims;
    while (c != NULL && !is_at_or_below(path, c->path) && !is_at_or_below(c->path, path))
        c = c->next;
    return c != NULL;
}

static bool path_of(struct fs *fs, const struct node *node, char path[STORE_KEY_MAX])
{
    return inode_path(fs->inodes, node, fs->dumps->top, path, STORE_KEY_MAX);
}

/* Is a file at or below PATH being written? */
static bool is_written_in(struct fs *fs, const char *path)
{
    const struct dumps *d = fs->dumps;
    char of[STORE_KEY_MAX];
    bool found = false;
    for (size_t i = 0; i < d->kept_count && !found; i++)
        found = !dump_is_dir(d->kept[i]) && path_of(fs, d->kept[i], of) && is_at_or_below(of, path);
    return found;
}

static void add_claim(struct dumps *d, struct dump_claim *claim)
{
    claim->next = d->claims;
    d->claims = claim;
}

static bool refuse_claim(const char *path, struct err *err)
{
    return err_set(err, ERR_BUSY,
                   "dumps/%.200s: it, or something in it or that it is in, is being written, "
                   "renamed or removed",
                   path);
}

bool dumps_claim(struct fs *fs, struct dump_claim *claim, struct err *err)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    bool ok = !conflicts(d, claim->path);
    if (ok)
        add_claim(d, claim);
    pthread_mutex_unlock(&d->lock);
    return ok || refuse_claim(claim->path, err);
}

static bool cannot_move(struct fs *fs, const struct dump_claim *claim)
{
    return conflicts(fs->dumps, claim->path) || is_written_in(fs, claim->path);
}

bool dumps_claim_both(struct fs *fs, struct dump_claim *from, struct dump_claim *to,
                      struct err *err)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    bool from_busy = cannot_move(fs, from), ok = !from_busy && !cannot_move(fs, to);
    if (ok) {
        add_claim(d, from);
        add_claim(d, to);
    }
    pthread_mutex_unlock(&d->lock);
    return ok || refuse_claim(from_busy ? from->path : to->path, err);
}

static bool is_claimed_itself(const struct dumps *d, const char *path)
{
    const struct dump_claim *c = d->claims;
    while (c != NULL && strcmp(c->path, path) != 0)
        c = c->next;
    return c != NULL;
}

bool dumps_claim_to_store(struct fs *fs, const struct node *node, struct dump_claim *claim)
{
    struct dumps *d = fs->dumps;
    bool named;
    pthread_mutex_lock(&d->lock);
    while ((named = path_of(fs, node, claim->path)) && is_claimed_itself(d, claim->path))
        pthread_cond_wait(&d->unclaimed, &d->lock);
    if (named)
        add_claim(d, claim);
    pthread_mutex_unlock(&d->lock);
    return named;
}

void dumps_end_claim(struct fs *fs, struct dump_claim *claim)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    struct dump_claim **slot = &d->claims;
    while (*slot != claim)
        slot = &(*slot)->next;
    *slot = claim->next;
    pthread_cond_broadcast(&d->unclaimed);
    pthread_mutex_unlock(&d->lock);
}

bool dumps_is_claimed(struct fs *fs, const char *path)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    bool claimed = is_claimed(d, path);
    pthread_mutex_unlock(&d->lock);
    return claimed;
}

/* ---- what is kept ---- */

static size_t find_kept(const struct dumps *d, const struct node *node)
{
    size_t i = 0;
    while (i < d->kept_count && d->kept[i] != node)
        i++;
    return i;
}

/* With the lock held. */
static bool keep(struct fs *fs, struct node *node, struct err *err)
{
    struct dumps *d = fs->dumps;
    if (find_kept(d, node) < d->kept_count)
        return true;
    struct node **kept = realloc(d->kept, (d->kept_count + 1) * sizeof(*kept));
    if (kept == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    d->kept = kept;
    d->kept[d->kept_count++] = node_ref(fs->inodes, node);
    return true;
}

bool dumps_keep(struct fs *fs, struct node *node, struct err *err)
{
    struct dumps *d = fs->dumps;
    char path[STORE_KEY_MAX];
    pthread_mutex_lock(&d->lock);
    bool ok = !path_of(fs, node, path)
                  ? err_set(err, ERR_STALE, "it was renamed, replaced or deleted")
              : is_claimed(d, path)
                  ? err_set(err, ERR_BUSY,
                            "dumps/%.200s: it, or its directory, is being renamed or removed", path)
                  : keep(fs, node, err);
    pthread_mutex_unlock(&d->lock);
    return ok;
}

void dumps_unkeep(struct fs *fs, struct node *node)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    size_t i = find_kept(d, node);
    bool there = i < d->kept_count;
    if (there)
        d->kept[i] = d->kept[--d->kept_count];
    pthread_mutex_unlock(&d->lock);
    if (there)
        node_unref(fs->inodes, node);
}

bool dumps_is_kept(struct fs *fs, const struct node *node)
{
    struct dumps *d = fs->dumps;
    pthread_mutex_lock(&d->lock);
    bool kept = find_kept(d, node) < d->kept_count;
    pthread_mutex_unlock(&d->lock);
    return kept;
}

bool dumps_has_kept(struct fs *fs, const struct node *dir)
{
    struct dumps *d = fs->dumps;
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->kept_count && !found; i++)
        found = node_is_in(fs->inodes, d->kept[i], dir);
    pthread_mutex_unlock(&d->lock);
    return found;
}

bool dumps_keep_dirs(struct fs *fs, struct node *dir, struct err *err)
{
    struct dumps *d = fs->dumps;
    struct node *at = node_ref(fs->inodes, dir);
    bool ok = true;
    while (ok && at != NULL && at != d->top) {
        pthread_mutex_lock(&d->lock);
        ok = keep(fs, at, err);
        pthread_mutex_unlock(&d->lock);
        struct node *parent = inode_parent(fs->inodes, at);
        node_unref(fs->inodes, at);
        at = parent;
    }
    node_unref(fs->inodes, at);
    return ok;
}
