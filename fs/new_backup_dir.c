/* Directories of a base backup that is being written, and what can be made in them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/new_backup.h"

static struct new_backup *backup_of(const struct node *node)
{
    return ((struct new_file *)node->data)->backup;
}

/* A node of the tree by name, with a reference; NULL with ERR_ABSENT. */
static struct node *child(struct new_backup *nb, struct node *dir, const char *name,
                          struct err *err)
{
    struct node *node = inode_find(nb->fs->inodes, dir, name);
    if (node == NULL)
        err_set(err, ERR_ABSENT, "%s/%s: no such file", nb->label, name);
    return node;
}

/* With the lock held. */
static bool has_children(const struct new_backup *nb, const struct node *dir)
{
    bool found = false;
    for (size_t i = 0; i < nb->count && !found; i++)
        found = nb->nodes[i]->parent == dir;
    return found;
}

/* ---- looking ---- */

static bool new_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct node *node = child(backup_of(dir), dir, name, err);
    bool ok = node != NULL && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

static bool new_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    (void)call;
    struct new_backup *nb = backup_of(dir->node);
    bool ok = true;
    pthread_mutex_lock(&nb->lock);
    for (size_t i = 0; ok && i < nb->count; i++) {
        char name[INODE_NAME_MAX + 1];
        const struct node *node = nb->nodes[i];
        if (node->parent != dir->node)
            continue;
        node_name(fs->inodes, node, name);
        ok = name[0] == '\0' ||
             dir_add(dir, name, ((struct new_file *)node->data)->type, NULL, 0, err);
    }
    pthread_mutex_unlock(&nb->lock);
    dir->done = true;
    return ok;
}

/* ---- making ---- */

static bool is_tar_name(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return strcmp(name, "base.tar") == 0 || (digits > 0 && strcmp(name + digits, ".tar") == 0);
}

/* What the first file of a backup tells of its writer. *TAR: this one is a tar stream. */
static bool decide(struct new_backup *nb, const struct node *dir, const char *name, bool *tar,
                   struct err *err)
{
    bool top = dir == nb->top;
    bool neutral =
        top && (strcmp(name, NEW_BACKUP_MANIFEST) == 0 ||
                strcmp(name, NEW_BACKUP_MANIFEST ".tmp") == 0 || strcmp(name, "pg_wal.tar") == 0);
    bool ok = true;
    *tar = false;
    pthread_mutex_lock(&nb->lock);
    if (top && nb->kind != NEW_TREE && is_tar_name(name)) {
        nb->kind = NEW_TARS;
        *tar = true;
    } else if (top && nb->kind != NEW_TREE && strstr(name, ".tar.") != NULL) {
        ok = err_set(err, ERR_INVALID,
                     "%s/%s: a compressed tar; walefs compresses by itself: run pg_basebackup "
                     "without -z and --compress",
                     nb->label, name);
    } else if (!neutral && nb->kind == NEW_TARS) {
        ok = err_set(err, ERR_INVALID, "%s/%s does not belong to pg_basebackup's tar format",
                     nb->label, name);
    } else if (!neutral) {
        nb->kind = NEW_TREE;
    }
    pthread_mutex_unlock(&nb->lock);
    return ok;
}

/* Where files or space are short, what is closed makes room. */
static struct staged *make_staged(struct new_backup *nb, struct err *err)
{
    const char *dir = nb->fs->opt.cache_dir;
    struct staged *s = staged_new(dir, err);
    if (s == NULL && (err->code == ERR_NO_SPACE || err->sys_errno == EMFILE) &&
        new_backup_pack_some(nb, true, err))
        s = staged_new(dir, err);
    return s;
}

static bool new_create(struct fs *fs, struct node *dir, const char *name, int flags, mode_t mode,
                       pid_t pid, struct fs_entry *out, struct handle **handle,
                       const struct call *call, struct err *err)
{
    struct new_backup *nb = backup_of(dir);
    bool tar;
    if (!new_backup_alive(nb, err))
        return false;
    /* here rather than at a close, so that who copies faster than we archive waits for us */
    struct node *node = decide(nb, dir, name, &tar, err) && new_backup_pack_some(nb, false, err)
                            ? new_node_make(nb, dir, name, &new_file_ops, S_IFREG, mode, err)
                            : NULL;
    if (node == NULL)
        return new_backup_lacks(nb, err);
    struct new_file *f = node->data;
    f->tar = tar;
    if (!tar)
        f->staged = make_staged(nb, err);
    *handle = tar || f->staged != NULL ? new_handle(fs, node, flags, pid, err) : NULL;
    bool ok = *handle != NULL && new_node_keep(nb, node, *handle, err);
    if (!ok) {
        new_handle_drop(fs, *handle);
        new_node_forget(nb, node);
    }
    ok = ok && node_give(fs, node, out, call, err); /* which cannot fail */
    node_unref(fs->inodes, node);
    return ok || new_backup_lacks(nb, err);
}

static bool is_number(const char *name)
{
    return name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
}

/* Is NODE the backup's own pg_tblspc? */
static bool is_tablespaces(struct new_backup *nb, const struct node *node)
{
    char name[INODE_NAME_MAX + 1];
    if (node == nb->top || node->parent != nb->top)
        return false;
    node_name(nb->fs->inodes, node, name);
    return strcmp(name, "pg_tblspc") == 0;
}

/* A tablespace must come as pg_tblspc/OID/, with its content: a plain pg_basebackup puts the
 * content elsewhere, in a directory with the server's version for a name (PG_15_202209061), and
 * makes the link last, when all has been sent. */
static bool tablespace_ok(struct new_backup *nb, const struct node *dir, const char *name,
                          mode_t type, struct err *err)
{
    char oid[INODE_NAME_MAX + 1];
    size_t version = strncmp(name, "PG_", 3) == 0 ? 3 + strspn(name + 3, "0123456789.") : 0;
    if (type == S_IFLNK && is_number(name) && is_tablespaces(nb, dir))
        return err_set(err, ERR_INVALID,
                       "pg_tblspc/%s is a symlink, and what it leads to would not be copied: copy "
                       "with links followed (cp -aL, rsync -aL), or use pg_basebackup -Ft",
                       name);
    if (type != S_IFDIR || nb->partial || version == 0 || name[version] != '_' ||
        !is_number(name + version + 1))
        return true;
    node_name(nb->fs->inodes, dir, oid);
    return (dir != nb->top && is_tablespaces(nb, dir->parent) && is_number(oid)) ||
           err_set(err, ERR_INVALID,
                   "%s is a tablespace, which a plain backup would have in a place of its own: use "
                   "pg_basebackup -Ft",
                   name);
}

static bool make_entry(struct fs *fs, struct node *dir, const char *name,
                       const struct node_ops *ops, mode_t type, mode_t mode, const char *target,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    struct new_backup *nb = backup_of(dir);
    bool tar;
    if (!new_backup_alive(nb, err))
        return false;
    bool ok = decide(nb, dir, name, &tar, err) && tablespace_ok(nb, dir, name, type, err);
    struct node *node = ok ? new_node_make(nb, dir, name, ops, type, mode, err) : NULL;
    if (node == NULL)
        return new_backup_lacks(nb, err);
    struct new_file *f = node->data;
    if (target != NULL) {
        f->link = strdup(target);
        ok = f->link != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    ok = ok && new_node_keep(nb, node, NULL, err) && node_give(fs, node, out, call, err);
    if (!ok)
        new_node_forget(nb, node);
    node_unref(fs->inodes, node);
    return ok || new_backup_lacks(nb, err);
}

static bool new_mkdir(struct fs *fs, struct node *dir, const char *name, mode_t mode,
                      struct fs_entry *out, const struct call *call, struct err *err)
{
    return make_entry(fs, dir, name, &new_dir_ops, S_IFDIR, mode, NULL, out, call, err);
}

static bool new_symlink(struct fs *fs, struct node *dir, const char *name, const char *target,
                        struct fs_entry *out, const struct call *call, struct err *err)
{
    return make_entry(fs, dir, name, &new_link_ops, S_IFLNK, 0777, target, out, call, err);
}

static bool new_link(struct fs *fs, struct node *dir, const char *name, struct err *err)
{
    (void)fs;
    struct new_backup *nb = backup_of(dir);
    if (!new_backup_alive(nb, err))
        return false;
    err_set(err, ERR_DENIED, "%s/%s: hard links are not kept: copy each file on its own", nb->label,
            name);
    return new_backup_lacks(nb, err);
}

static bool new_readlink(struct fs *fs, struct node *node, char *out, size_t cap,
                         const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    (void)err;
    (void)snprintf(out, cap, "%s", ((struct new_file *)node->data)->link);
    return true;
}

/* ---- removing ---- */

/* With the lock held: also when it has failed. */
static bool may_remove(const struct new_backup *nb, struct err *err)
{
    return nb->failed || new_backup_alive_locked(nb, err);
}

static bool new_unlink(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                       struct err *err)
{
    (void)call;
    struct new_backup *nb = backup_of(dir);
    struct node *node = child(nb, dir, name, err);
    if (node == NULL)
        return false;
    struct new_file *f = node->data;
    pthread_mutex_lock(&nb->lock);
    bool can = may_remove(nb, err), archived = f->final || f->tar;
    struct node *had = can ? new_node_take_out(nb, node) : NULL;
    pthread_mutex_unlock(&nb->lock);
    if (can && archived) { /* it cannot be taken out of a partition again */
        struct err removed = ERR_INIT, ignored = ERR_INIT;
        err_set(&removed, ERR_UNAVAILABLE, "%s was removed after it had been archived", name);
        new_backup_fail(nb, &removed, &ignored);
    }
    if (can)
        node_unlink(fs->inodes, node);
    node_unref(fs->inodes, had);
    node_unref(fs->inodes, node);
    return can;
}

static bool new_rmdir(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                      struct err *err)
{
    (void)call;
    struct new_backup *nb = backup_of(dir);
    struct node *node = child(nb, dir, name, err);
    if (node == NULL)
        return false;
    struct node *had = NULL;
    pthread_mutex_lock(&nb->lock);
    bool ok = may_remove(nb, err) &&
              (!has_children(nb, node) || err_set(err, ERR_NOT_EMPTY, "%s is not empty", name));
    if (ok)
        had = new_node_take_out(nb, node);
    pthread_mutex_unlock(&nb->lock);
    if (ok)
        node_unlink(fs->inodes, node);
    node_unref(fs->inodes, had);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- renaming ---- */

/* COMMITS: the commit has begun, and this is its rename. */
static bool rename_node(struct node *dir, struct node *node, const char *new_name, bool no_replace,
                        bool commits, struct err *err)
{
    struct new_backup *nb = backup_of(dir);
    struct node *over = inode_find(nb->fs->inodes, dir, new_name), *had = NULL;
    bool ok = over == NULL || over == node || !no_replace ||
              err_set(err, ERR_EXISTS, "%s exists", new_name);
    pthread_mutex_lock(&nb->lock); /* none of it becomes a member under its old name meanwhile */
    if (ok && !commits)
        ok = new_backup_alive_locked(nb, err);
    if (ok && (new_backup_is_final(nb, node) || (over != NULL && new_backup_is_final(nb, over))))
        ok = err_set(err, ERR_BUSY, "%s is archived already and cannot be renamed any more",
                     new_name);
    ok = ok && node_rename(nb->fs->inodes, node, new_name, err);
    if (ok && over != NULL && over != node)
        had = new_node_take_out(nb, over);
    pthread_mutex_unlock(&nb->lock);
    node_unref(nb->fs->inodes, had);
    node_unref(nb->fs->inodes, over);
    return ok;
}

static bool new_rename(struct fs *fs, struct node *dir, const char *name, const char *new_name,
                       bool no_replace, const struct call *call, struct err *err)
{
    (void)call;
    struct new_backup *nb = backup_of(dir);
    bool commits = dir == nb->top && !nb->partial &&
                   strcmp(name, NEW_BACKUP_MANIFEST ".tmp") == 0 &&
                   strcmp(new_name, NEW_BACKUP_MANIFEST) == 0;
    if (!new_backup_alive(nb, err))
        return false;
    struct node *node = child(nb, dir, name, err);
    if (node == NULL)
        return false;
    bool ok = !commits || new_backup_begin_commit(nb, err);
    if (ok && !rename_node(dir, node, new_name, no_replace, commits, err)) {
        struct err why = *err; /* a commit that has begun cannot be taken back */
        ok = commits ? new_backup_fail(nb, &why, err) : new_backup_lacks(nb, err);
    } else if (ok && commits) {
        ok = new_backup_commit(nb, err);
    }
    node_unref(fs->inodes, node);
    return ok;
}

static bool new_open(struct fs *fs, struct node *node, int flags, pid_t pid, struct handle **handle,
                     const struct call *call, struct err *err)
{
    (void)call;
    struct new_file *f = node->data;
    struct new_backup *nb = f->backup;
    *handle = new_handle(fs, node, flags, pid, err);
    if (*handle == NULL)
        return (flags & O_ACCMODE) != O_RDONLY && new_backup_lacks(nb, err);
    pthread_mutex_lock(&nb->lock);
    bool ok = (flags & O_ACCMODE) == O_RDONLY || new_backup_alive_locked(nb, err);
    if (ok)
        new_handle_enter_locked(*handle);
    pthread_mutex_unlock(&nb->lock);
    /* as a writer already, so that it is not archived in between */
    if (ok && (flags & O_TRUNC) != 0 && !new_file_set_size(f, 0, err)) {
        ok = new_backup_lacks(nb, err);
        pthread_mutex_lock(&nb->lock);
        (void)new_handle_leave_locked(*handle);
        pthread_mutex_unlock(&nb->lock);
    }
    if (!ok)
        new_handle_drop(fs, *handle);
    return ok;
}

const struct node_ops new_dir_ops = {.getattr = new_node_getattr,
                                     .setattr = new_node_setattr,
                                     .lookup = new_lookup,
                                     .list = new_list,
                                     .create = new_create,
                                     .mkdir = new_mkdir,
                                     .symlink = new_symlink,
                                     .link = new_link,
                                     .unlink = new_unlink,
                                     .rmdir = new_rmdir,
                                     .rename = new_rename};
const struct node_ops new_file_ops = {
    .getattr = new_node_getattr, .setattr = new_node_setattr, .open = new_open};
const struct node_ops new_link_ops = {
    .getattr = new_node_getattr, .setattr = new_node_setattr, .readlink = new_readlink};
