#include "fs/new_backup.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_facts.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/spool.h"
#include "core/waiter.h"
#include "fs/backups.h"

/* Files of a tree that are closed may still be renamed or get their mode, owner and time: the last
 * ones stay staged, within these limits. Each holds a descriptor. */
#define QUEUED_MAX 256u
#define QUEUED_BYTES_MAX (UINT64_C(256) << 20)
#define QUEUED_MIN 2u
#define CLEANUP_MS 60000
#define SETTLE_MS 1500
#define RELEASE_MS 5000
#define MANIFEST "backup_manifest"
#define WAL_TAR "pg_wal.tar"

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

/* Takes it out of the tree: what is open stays until it is released. */
static void leave_tree(struct new_backup *nb)
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
    pthread_mutex_unlock(&fs->new_backups_lock);
}

void new_backups_free(struct fs *fs)
{
    while (fs->new_backups != NULL)
        leave_tree(fs->new_backups);
}

/* ---- members ---- */

bool new_backup_path(struct new_backup *nb, const struct node *node, char *out, size_t cap)
{
    char name[INODE_NAME_MAX + 1];
    if (node == nb->top) {
        out[0] = '\0';
        return true;
    }
    if (!new_backup_path(nb, node->parent, out, cap))
        return false;
    node_name(nb->fs->inodes, node, name);
    size_t n = strlen(out);
    int put = snprintf(out + n, cap - n, "%s%s", n == 0 ? "" : "/", name);
    return put >= 0 && (size_t)put < cap - n && name[0] != '\0';
}

static bool describe(struct new_backup *nb, struct node *node, char path[BACKUP_PATH_MAX],
                     struct member *m, struct err *err)
{
    struct new_file *f = node->data;
    if (!new_backup_path(nb, node, path, BACKUP_PATH_MAX))
        return err_set(err, ERR_INVALID, "a path that is too long, or gone");
    pthread_mutex_lock(&nb->lock);
    *m = (struct member){.path = path,
                         .link = f->type == S_IFLNK ? f->link : "",
                         .type = f->type == S_IFDIR   ? MEMBER_DIR
                                 : f->type == S_IFLNK ? MEMBER_SYMLINK
                                                      : MEMBER_FILE,
                         .size = f->type == S_IFREG ? f->size : 0,
                         .mode = f->mode,
                         .uid = f->uid,
                         .gid = f->gid,
                         .mtime_s = f->mtime_s,
                         .mtime_ns = f->mtime_ns};
    pthread_mutex_unlock(&nb->lock);
    return true;
}

/* With the right to use W. */
static bool pack(struct new_backup *nb, struct backup_write *w, struct node *node, struct err *err)
{
    struct new_file *f = node->data;
    char path[BACKUP_PATH_MAX];
    struct member m;
    pthread_mutex_lock(&nb->lock);
    bool done = f->packed;
    f->final = true; /* before it is described */
    pthread_mutex_unlock(&nb->lock);
    if (done)
        return true;
    if (!describe(nb, node, path, &m, err))
        return false;
    struct source *data = NULL;
    if (m.type == MEMBER_FILE) // NOLINT(clang-analyzer-core.UndefinedBinaryOperatorResult)
        data = m.size > 0 ? source_fd(f->staged->fd, 0, m.size, err) : source_mem("", 0, err);
    bool ok = (m.type != MEMBER_FILE || data != NULL) && backup_write_member(w, &m, data, err);
    source_close(data);
    if (!ok)
        return err_context(err, "%s", path);
    pthread_mutex_lock(&nb->lock);
    f->packed = true;
    struct staged *staged = f->staged; /* who reads it has a reference */
    f->staged = NULL;
    if (f->queued) {
        nb->queued--;
        nb->queued_bytes -= f->size;
    }
    f->queued = false;
    pthread_mutex_unlock(&nb->lock);
    staged_unref(staged);
    return true;
}

bool new_backup_pack(struct new_backup *nb, struct node *node, struct err *err)
{
    struct backup_write *w = new_backup_take(nb, err);
    if (w == NULL)
        return false;
    bool ok = pack(nb, w, node, err);
    new_backup_give(nb);
    return ok;
}

static bool is_settled(const struct new_file *f)
{
    return f->packed || f->type != S_IFREG;
}

bool new_backup_is_final(struct new_backup *nb, const struct node *node)
{
    const struct new_file *f = node->data;
    bool final = f->final;
    for (size_t i = 0; f->type == S_IFDIR && i < nb->count && !final; i++) {
        const struct node *n = nb->nodes[i];
        if (!((const struct new_file *)n->data)->final)
            continue;
        while (n != nb->top && n != node)
            n = n->parent;
        final = n == node;
    }
    return final;
}

/* Will it get another name? rsync writes .NAME.XXXXXX, sets its owner and time, and renames it. */
static bool is_temporary(const char *name)
{
    size_t n = strlen(name);
    return n > 8 && name[0] == '.' && name[n - 7] == '.' &&
           strspn(name + n - 6, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
               6;
}

/* Something is to be done with the file before it is packed. */
static bool is_to_come(struct new_backup *nb, const struct node *node)
{
    char name[INODE_NAME_MAX + 1];
    node_name(nb->fs->inodes, node, name);
    bool manifest = node->parent == nb->top && strncmp(name, MANIFEST, strlen(MANIFEST)) == 0;
    return manifest || is_temporary(name); /* the manifest is read at the end */
}

/* The oldest closed file, with a reference, when there are too many, or ALL are to go. It is final
 * from here on: who opens it for writing comes too late. */
static struct node *next_to_pack(struct new_backup *nb, bool all)
{
    struct node *found = NULL;
    pthread_mutex_lock(&nb->lock);
    bool many =
        nb->queued > QUEUED_MAX || (nb->queued_bytes > QUEUED_BYTES_MAX && nb->queued > QUEUED_MIN);
    while (nb->settled < nb->count && is_settled(nb->nodes[nb->settled]->data))
        nb->settled++;
    for (size_t i = nb->settled; (many || all) && i < nb->count && found == NULL; i++) {
        struct new_file *f = nb->nodes[i]->data;
        if (!f->queued || f->writers > 0 || f->final || is_to_come(nb, nb->nodes[i]))
            continue;
        f->final = true;
        found = node_ref(nb->fs->inodes, nb->nodes[i]);
    }
    pthread_mutex_unlock(&nb->lock);
    return found;
}

bool new_backup_pack_some(struct new_backup *nb, bool all, struct err *err)
{
    struct node *node;
    bool ok = true;
    while (ok && (node = next_to_pack(nb, all)) != NULL) {
        ok = new_backup_pack(nb, node, err);
        node_unref(nb->fs->inodes, node);
    }
    return ok;
}

/* ---- commit ---- */

/* Everything that was made, with references: a list of its own, since packing takes long. */
static struct node **all_nodes(struct new_backup *nb, size_t *count, struct err *err)
{
    pthread_mutex_lock(&nb->lock);
    struct node **nodes = calloc(nb->count + 1, sizeof(*nodes));
    *count = nodes == NULL ? 0 : nb->count;
    for (size_t i = 0; i < *count; i++)
        nodes[i] = node_ref(nb->fs->inodes, nb->nodes[i]);
    pthread_mutex_unlock(&nb->lock);
    if (nodes == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return nodes;
}

static struct node *named(struct new_backup *nb, const char *name)
{
    return inode_find(nb->fs->inodes, nb->top, name);
}

/* The WAL that pg_basebackup -X stream puts beside base.tar. */
static bool add_wal_tar(struct new_backup *nb, struct backup_write *w, struct new_file *f,
                        struct err *err)
{
    struct source *tar = source_fd(f->staged->fd, 0, f->size, err);
    bool ok = tar != NULL && backup_write_tar(w, tar, "pg_wal", err);
    source_close(tar);
    return ok || err_context(err, "%s/" WAL_TAR, nb->label);
}

/* What belongs to the tars: the manifest looks like the other files. */
static bool add_manifest(struct backup_write *w, struct new_file *f, struct err *err)
{
    const struct member *like = backup_write_find(w, "PG_VERSION");
    if (like == NULL)
        return err_set(err, ERR_INVALID, "base.tar has no PG_VERSION");
    const struct member m = {.path = MANIFEST,
                             .link = "",
                             .type = MEMBER_FILE,
                             .size = f->size,
                             .mode = like->mode,
                             .uid = like->uid,
                             .gid = like->gid,
                             .mtime_s = f->mtime_s,
                             .mtime_ns = 0};
    struct source *data = source_fd(f->staged->fd, 0, f->size, err);
    bool ok = data != NULL && backup_write_member(w, &m, data, err);
    source_close(data);
    return ok;
}

static bool pack_tars(struct new_backup *nb, struct backup_write *w, struct node *const *nodes,
                      size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        struct new_file *f = nodes[i]->data;
        char name[INODE_NAME_MAX + 1];
        node_name(nb->fs->inodes, nodes[i], name);
        if (f->tar && !tar_stream_done(f->stream, err))
            return err_context(err, "%s/%s", nb->label, name);
        if (strcmp(name, WAL_TAR) == 0 && f->size > 0 && !add_wal_tar(nb, w, f, err))
            return false;
    }
    return true;
}

/* Directories come before what is in them: they were made first. BUT waits. */
static bool pack_tree(struct new_backup *nb, struct backup_write *w, struct node *const *nodes,
                      size_t count, const struct node *but, struct err *err)
{
    bool ok = pack(nb, w, nb->top, err); /* the data directory itself, with its mode and time */
    for (size_t i = 0; ok && i < count; i++)
        ok = nodes[i] == but || pack(nb, w, nodes[i], err);
    return ok;
}

/* A cluster that was restored from a backup still has that one's manifest, and so has a copy of it:
 * in a tree that is completed by its rename a manifest counts if it begins where backup_label does.
 */
static bool compare(struct new_backup *nb, struct backup_write *w, const struct new_file *manifest,
                    struct manifest_range *range, struct err *err)
{
    const struct backup_position *start = &backup_write_info(w)->start;
    bool ours = backup_write_find(w, "backup_label") != NULL && range->start.tli == start->tli &&
                range->start.lsn == start->lsn;
    if (ours)
        return backup_write_verify(w, manifest->staged->fd, manifest->size, err);
    if (!nb->partial || nb->kind == NEW_TARS)
        return err_set(err, ERR_INVALID,
                       "backup_manifest and backup_label are not of the same backup");
    log_info("basebackups/%s: its backup_manifest is of an earlier backup, and not compared",
             nb->label);
    *range = (struct manifest_range){.stop = {.tli = 0}};
    return true;
}

static bool commit_all(struct new_backup *nb, struct backup_write *w, struct node *const *nodes,
                       size_t count, struct err *err)
{
    struct manifest_range range = {.stop = {.tli = 0}};
    struct node *node = named(nb, MANIFEST);
    bool has = node != NULL && ((const struct new_file *)node->data)->type == S_IFREG;
    struct new_file *manifest = has ? node->data : NULL;
    bool ok = nb->kind == NEW_TARS ? pack_tars(nb, w, nodes, count, err) : true;
    if (ok && has)
        ok = manifest_check(manifest->staged->fd, manifest->size, &range, err);
    if (ok && has && nb->kind == NEW_TARS)
        ok = add_manifest(w, manifest, err);
    if (ok && nb->kind == NEW_TREE)
        ok = pack_tree(nb, w, nodes, count, has ? node : NULL, err);
    if (ok && has)
        ok = compare(nb, w, manifest, &range, err);
    if (ok && has && nb->kind == NEW_TREE)
        ok = pack(nb, w, node, err);
    ok = ok && backup_write_commit(w, &range.stop, err);
    node_unref(nb->fs->inodes, node);
    return ok;
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

/* Some file that is open for writing, for a message. With the lock held; a reference, or NULL. */
static struct node *some_writers_file(struct new_backup *nb)
{
    for (size_t i = 0; i < nb->count; i++)
        if (((const struct new_file *)nb->nodes[i]->data)->writers > 0)
            return node_ref(nb->fs->inodes, nb->nodes[i]);
    return NULL;
}

/* A close comes to us in two messages: one that is waited for, and one, after which the file is no
 * longer open, that is on its way when close() returns. So files whose close is known get some time
 * until they are; one that somebody else has open too (a shell's child) is still open after it. */
bool new_backup_begin_commit(struct new_backup *nb, struct err *err)
{
    char path[BACKUP_PATH_MAX] = "";
    const struct call bounded = {.cancel = &nb->cancel, .deadline_ms = now_ms() + RELEASE_MS};
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, &bounded, &nb->lock, &nb->changed);
    pthread_mutex_lock(&nb->lock);
    while (new_backup_alive_locked(nb, err) && nb->writers > 0 && nb->unclosed == 0 && waited)
        waited = waiter_wait(&w);
    bool alive = new_backup_alive_locked(nb, err), busy = nb->writers > 0;
    struct node *node = alive && busy ? some_writers_file(nb) : NULL;
    nb->committing = nb->committing || (alive && !busy);
    unsigned writers = nb->writers;
    pthread_mutex_unlock(&nb->lock);
    waiter_end(&w);
    if (!alive || !busy)
        return alive;
    if (node != NULL)
        (void)new_backup_path(nb, node, path, sizeof(path));
    node_unref(nb->fs->inodes, node);
    return err_set(err, ERR_BUSY,
                   "basebackups/%s: not completed, since %u of its files are open for writing, "
                   "%.200s for one: close them, and rename again",
                   nb->label, writers, path);
}

bool new_backup_commit(struct new_backup *nb, struct err *err)
{
    size_t count;
    int64_t begun_us = now_us();
    struct err reason = ERR_INIT;
    struct backup_write *w = NULL;
    struct node **nodes = all_nodes(nb, &count, &reason);
    bool ok = nodes != NULL && nb->kind != NEW_UNDECIDED;
    if (nodes != NULL && !ok)
        err_set(&reason, ERR_INVALID, "basebackups/%s is empty", nb->label);
    if (ok)
        w = new_backup_take(nb, &reason);
    ok = w != NULL && commit_all(nb, w, nodes, count, &reason);
    for (size_t i = 0; nodes != NULL && i < count; i++)
        node_unref(nb->fs->inodes, nodes[i]);
    free(nodes);
    if (ok) {
        pthread_mutex_lock(&nb->lock);
        nb->committed = true;
        pthread_mutex_unlock(&nb->lock);
        log_info("the base backup %s is complete: %s", nb->label, backup_write_name(w));
        backup_set_changed(nb->fs->backup_set);
    }
    if (w != NULL)
        new_backup_give(nb);
    metrics_work(WORK_BACKUP, ok ? ERR_NONE : reason.code, now_us() - begun_us);
    if (!ok)
        return new_backup_fail(nb, &reason, err);
    leave_tree(nb);
    return true;
}

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
    leave_tree(nb); // NOLINT(clang-analyzer-unix.Malloc): the tree has a reference
    return true;
}
