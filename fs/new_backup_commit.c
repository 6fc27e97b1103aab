/* Completing a base backup that is being written. */
#include <stdlib.h>
#include <string.h>

#include "core/backup_facts.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/waiter.h"
#include "fs/new_backup.h"

#define RELEASE_MS 5000
#define WAL_TAR "pg_wal.tar"

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
    const struct member m = {.path = NEW_BACKUP_MANIFEST,
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
    bool ok = new_backup_pack_with(nb, w, nb->top,
                                   err); /* the data directory itself, with its mode and time */
    for (size_t i = 0; ok && i < count; i++)
        ok = nodes[i] == but || new_backup_pack_with(nb, w, nodes[i], err);
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

/* pg_basebackup renames its manifest as the last thing: under its first name it is of one that was
 * killed. A cluster that has run since then has no backup_label any more. */
static bool has_been_ended(struct new_backup *nb, struct backup_write *w, struct err *err)
{
    struct node *tmp = named(nb, NEW_BACKUP_MANIFEST ".tmp");
    bool ended = tmp == NULL || backup_write_find(w, "backup_label") == NULL;
    node_unref(nb->fs->inodes, tmp);
    return ended || err_set(err, ERR_INVALID,
                            "there is a " NEW_BACKUP_MANIFEST ".tmp: pg_basebackup has not come to "
                            "its end, at which it renames that");
}

static bool commit_all(struct new_backup *nb, struct backup_write *w, struct node *const *nodes,
                       size_t count, struct err *err)
{
    struct manifest_range range = {.stop = {.tli = 0}};
    struct node *node = named(nb, NEW_BACKUP_MANIFEST);
    bool has = node != NULL && ((const struct new_file *)node->data)->type == S_IFREG;
    struct new_file *manifest = has ? node->data : NULL;
    bool ok = nb->kind == NEW_TARS ? pack_tars(nb, w, nodes, count, err) : true;
    if (ok && has)
        ok = manifest_check(manifest->staged->fd, manifest->size, &range, err);
    if (ok && has && nb->kind == NEW_TARS)
        ok = add_manifest(w, manifest, err);
    if (ok && nb->kind == NEW_TREE)
        ok = pack_tree(nb, w, nodes, count, has ? node : NULL, err);
    ok = ok && has_been_ended(nb, w, err);
    if (ok && has)
        ok = compare(nb, w, manifest, &range, err);
    if (ok && has && nb->kind == NEW_TREE)
        ok = new_backup_pack_with(nb, w, node, err);
    ok = ok && backup_write_commit(w, &range.stop, err);
    node_unref(nb->fs->inodes, node);
    return ok;
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
    struct err reason = ERR_INIT;
    struct backup_write *w = NULL;
    int64_t begun_us = now_us();
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
    new_backup_leave_tree(nb);
    return true;
}
