#include "fs/new_backup.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/waiter.h"
#include "fs/backups.h"

#define CLEANUP_MS 60000
#define SETTLE_MS 1500

/* ---- life ---- */

struct new_backup *new_backup_ref(struct new_backup *nb)
{
    atomic_fetch_add(&nb->refs, 1);
    return nb;
}

void new_backup_unref(struct new_backup *nb)
{
    if (nb == NULL || atomic_fetch_sub(&nb->refs, 1) > 1)
        return;
    backup_write_free(nb->w);
    free(nb->nodes);
    pthread_cond_destroy(&nb->changed);
    pthread_mutex_destroy(&nb->lock);
    cancel_destroy(&nb->cancel);
    free(nb);
}

void new_backup_leave_tree(struct new_backup *nb)
{
    struct fs *fs = nb->fs;
    pthread_mutex_lock(&fs->new_backups_lock);
    struct new_backup **slot = &fs->new_backups;
    while (*slot != NULL && *slot != nb)
        slot = &(*slot)->next;
    bool found = *slot != NULL;
    if (found)
        *slot = nb->next;
    pthread_mutex_unlock(&fs->new_backups_lock);
    if (!found)
        return;
    pthread_mutex_lock(&nb->lock);
    struct node **nodes = nb->nodes;
    size_t count = nb->count;
    nb->nodes = NULL;
    nb->count = nb->cap = 0;
    pthread_mutex_unlock(&nb->lock);
    for (size_t i = count; i > 0; i--) {
        node_unlink(fs->inodes, nodes[i - 1]);
        node_unref(fs->inodes, nodes[i - 1]);
    }
    free(nodes);
    node_unlink(fs->inodes, nb->top);
    node_unref(fs->inodes, nb->top);
    new_backup_unref(nb);
}

bool new_backup_alive_locked(const struct new_backup *nb, struct err *err)
{
    if (nb->failed)
        *err = nb->err;
    else if (nb->committed)
        err_set(err, ERR_DENIED, "basebackups/%s is complete", nb->label);
    else if (nb->committing)
        err_set(err, ERR_BUSY, "basebackups/%s is being completed: nothing in it can change now",
                nb->label);
    return !nb->failed && !nb->committed && !nb->committing;
}

bool new_backup_alive(struct new_backup *nb, struct err *err)
{
    pthread_mutex_lock(&nb->lock);
    bool alive = new_backup_alive_locked(nb, err);
    pthread_mutex_unlock(&nb->lock);
    return alive;
}

struct backup_write *new_backup_take(struct new_backup *nb, struct err *err)
{
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, &nb->call, &nb->lock, &nb->changed);
    pthread_mutex_lock(&nb->lock);
    while (nb->writing && waited)
        waited = waiter_wait(&w);
    bool mine = !nb->writing && !nb->failed && !nb->committed;
    if (mine)
        nb->writing = true;
    else if (nb->failed)
        *err = nb->err;
    else
        err_set(err, ERR_CANCELLED, "basebackups/%s: given up", nb->label);
    pthread_mutex_unlock(&nb->lock);
    waiter_end(&w);
    if (!mine || nb->w != NULL)
        return mine ? nb->w : NULL;
    const struct backup_write_options options = {.store = nb->fs->opt.store,
                                                 .pgp = nb->fs->opt.pgp,
                                                 .pool = nb->fs->opt.pool,
                                                 .label = nb->label,
                                                 .partition_bytes = nb->fs->opt.partition_bytes,
                                                 .stall_ms = nb->fs->opt.write_timeout_ms,
                                                 .call = &nb->call};
    nb->w = backup_write_new(&options, err);
    if (nb->w == NULL)
        new_backup_give(nb);
    return nb->w;
}

void new_backup_give(struct new_backup *nb)
{
    pthread_mutex_lock(&nb->lock);
    nb->writing = false;
    pthread_cond_broadcast(&nb->changed);
    pthread_mutex_unlock(&nb->lock);
}

/* ---- failure ---- */

static void cleanup_job(void *arg)
{
    struct new_backup *nb = arg;
    const struct call call = {.cancel = NULL, .deadline_ms = now_ms() + CLEANUP_MS};
    pthread_mutex_lock(&nb->lock);
    while (nb->writing) /* whoever uses it fails soon: its call is cancelled */
        pthread_cond_wait(&nb->changed, &nb->lock);
    struct backup_write *w = nb->w;
    pthread_mutex_unlock(&nb->lock);
    if (w != NULL) {
        /* a put whose connection we have just broken off may still arrive in the store */
        (void)cancel_sleep_ms(&nb->fs->stop, SETTLE_MS);
        backup_write_abort(w, &call);
    }
    new_backup_unref(nb);
}

bool new_backup_fail(struct new_backup *nb, const struct err *reason, struct err *err)
{
    struct err ignored = ERR_INIT, given = *reason;
    pthread_mutex_lock(&nb->lock);
    bool first = !nb->failed && !nb->committed;
    if (first) {
        nb->failed = true;
        nb->err = given;
    } else if (nb->failed) {
        given = nb->err; /* the first reason is the one that matters */
    }
    pthread_cond_broadcast(&nb->changed);
    pthread_mutex_unlock(&nb->lock);
    if (first) {
        char path[INODE_NAME_MAX + 16];
        (void)snprintf(path, sizeof(path), "basebackups/%s", nb->label);
        const struct log_details details = {.op = "backup", .path = path, .err = &given};
        log_event(LOG_LEVEL_ERROR, &details,
                  "the base backup %s has failed, and nothing of it is kept: %s", nb->label,
                  given.text);
        cancel_fire(&nb->cancel);
        if (!pool_submit(nb->fs->opt.pool, cleanup_job, new_backup_ref(nb), &ignored))
            new_backup_unref(nb);
    }
    *err = given;
    return false;
}

bool new_backup_lacks(struct new_backup *nb, struct err *err)
{
    struct err why = *err;
    pthread_mutex_lock(&nb->lock);
    bool over = nb->committed || (nb->committing && err->code == ERR_BUSY);
    pthread_mutex_unlock(&nb->lock);
    if (over || err->code == ERR_EXISTS || err->code == ERR_ABSENT || err->code == ERR_NOT_EMPTY)
        return false;
    return new_backup_fail(nb, &why, err);
}

void new_backups_stop(struct fs *fs)
{
    struct err stopped = ERR_INIT, ignored = ERR_INIT;
    err_set(&stopped, ERR_UNAVAILABLE, "the mount ends");
    pthread_mutex_lock(&fs->new_backups_lock);
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the tree has a reference)
    for (struct new_backup *nb = fs->new_backups; nb != NULL; nb = nb->next)
        new_backup_fail(nb, &stopped, &ignored);
    while (fs->tar_readers > 0) /* not for long: their calls are cancelled */
        pthread_cond_wait(&fs->tar_reader_ended, &fs->new_backups_lock);
    pthread_mutex_unlock(&fs->new_backups_lock);
}

void new_backups_free(struct fs *fs)
{
    while (fs->new_backups != NULL)
        new_backup_leave_tree(fs->new_backups);
}

/* ---- removing ---- */

bool new_backup_rmdir(struct fs *fs, struct node *top, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    struct new_file *f = top->data;
    struct new_backup *nb = f->backup;
    struct err removed = ERR_INIT, ignored = ERR_INIT;
    pthread_mutex_lock(&nb->lock);
    bool empty = nb->count == 0;
    pthread_mutex_unlock(&nb->lock);
    if (!empty)
        return err_set(err, ERR_NOT_EMPTY, "basebackups/%s is not empty", nb->label);
    err_set(&removed, ERR_UNAVAILABLE, "it was removed");
    pthread_mutex_lock(&nb->lock);
    bool used = nb->w != NULL || nb->failed;
    pthread_mutex_unlock(&nb->lock);
    if (used)
        new_backup_fail(nb, &removed, &ignored);
    new_backup_leave_tree(nb); // NOLINT(clang-analyzer-unix.Malloc): the tree has a reference
    return true;
}

void new_backups_each(struct fs *fs, void (*fn)(void *arg, const char *label, int64_t made_s),
                      void *arg)
{
    pthread_mutex_lock(&fs->new_backups_lock);
    for (struct new_backup *nb = fs->new_backups; nb != NULL; nb = nb->next) {
        pthread_mutex_lock(&nb->lock);
        bool writing = !nb->failed && !nb->committed;
        pthread_mutex_unlock(&nb->lock);
        if (writing)
            fn(arg, nb->label, nb->made_s);
    }
    pthread_mutex_unlock(&fs->new_backups_lock);
}
