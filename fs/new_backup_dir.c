/* Directories of a base backup that is being written, and what can be made in them. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/waiter.h"
#include "fs/backups.h"
#include "fs/new_backup.h"

#define MANIFEST "backup_manifest"

static struct new_backup *backup_of(const struct node *node)
{
    return ((struct new_file *)node->data)->backup;
}

/* ---- nodes ---- */

static void *new_data(void)
{
    return calloc(1, sizeof(struct new_file));
}

static void free_data(void *data)
{
    struct new_file *f = data;
    tar_stream_end(f->stream);
    staged_unref(f->staged);
    free(f->link);
    new_backup_unref(f->backup);
    free(f);
}

/* A node that is new: the kernel makes a name only when a lookup has not found it, one at a time.
 * A reference. */
static struct node *make_node(struct new_backup *nb, struct node *parent, const char *name,
                              const struct node_ops *ops, mode_t type, mode_t mode, struct err *err)
{
    const struct node_template template = {
        .ops = ops, .new_data = new_data, .free_data = free_data};
    struct fs *fs = nb->fs;
    struct node *node = inode_obtain(fs->inodes, parent, name, &template, err);
    if (node == NULL)
        return NULL;
    struct new_file *f = node->data;
    if (node->ops != ops || f->backup != NULL) {
        node_unref(fs->inodes, node);
        err_set(err, ERR_EXISTS, "%s exists", name);
        return NULL;
    }
    f->backup = new_backup_ref(nb);
    f->type = type;
    f->mode = (uint32_t)mode & 07777;
    f->uid = fs->opt.uid;
    f->gid = fs->opt.gid;
    f->mtime_s = time(NULL);
    return node;
}

/* NODE belongs to the backup's tree from now on, and H, if any, is a handle of it. */
static bool keep(struct new_backup *nb, struct node *node, struct handle *h, struct err *err)
{
    pthread_mutex_lock(&nb->lock);
    bool alive = new_backup_alive_locked(nb, err), ok = alive;
    if (ok && nb->count == nb->cap) {
        size_t cap = nb->cap == 0 ? 64 : nb->cap * 2;
        struct node **nodes = realloc(nb->nodes, cap * sizeof(*nodes));
        if (nodes == NULL) {
            ok = false;
        } else {
            nb->nodes = nodes;
            nb->cap = cap;
        }
    }
    if (ok) {
        nb->nodes[nb->count++] = node_ref(nb->fs->inodes, node);
        ((struct new_file *)node->data)->listed = true;
        if (h != NULL)
            new_handle_enter_locked(h);
    }
    pthread_mutex_unlock(&nb->lock);
    return ok || !alive ? ok : err_set(err, ERR_NO_MEMORY, "out of memory");
}

/* With nb->lock held: NODE is not of the tree any more. The reference that the tree had is the
 * caller's; NULL when it had none. */
static struct node *take_out(struct new_backup *nb, struct node *node)
{
    struct new_file *f = node->data;
    for (size_t i = 0; i < nb->count && f->listed; i++) {
        if (nb->nodes[i] != node)
            continue;
        memmove(&nb->nodes[i], &nb->nodes[i + 1], (nb->count - i - 1) * sizeof(nb->nodes[0]));
        nb->settled -= i < nb->settled;
        nb->count--;
        f->listed = false;
        if (f->queued) {
            f->queued = false;
            nb->queued--;
            nb->queued_bytes -= f->size;
        }
        return node;
    }
    return NULL;
}

static void forget(struct new_backup *nb, struct node *node)
{
    pthread_mutex_lock(&nb->lock);
    struct node *had = take_out(nb, node);
    pthread_mutex_unlock(&nb->lock);
    node_unlink(nb->fs->inodes, node);
    node_unref(nb->fs->inodes, had);
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

/* ---- attributes ---- */

static bool new_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                        const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    struct new_file *f = node->data;
    pthread_mutex_lock(&f->backup->lock);
    uint64_t size = f->link != NULL ? strlen(f->link) : f->size;
    attr_fill(fs, node, f->type, size, f->mtime_s, out);
    out->attr.st_mode = f->type | f->mode;
    out->attr.st_uid = f->uid;
    out->attr.st_gid = f->gid;
    out->attr.st_mtim.tv_nsec = f->mtime_ns;
    pthread_mutex_unlock(&f->backup->lock);
    out->valid_s = 0;
    return true;
}

/* With the lock held: what is to be cut, with a reference and entered as a writer's; NULL with the
 * reason. */
static struct staged *begin_set_size(struct new_file *f, struct err *err)
{
    if (!new_backup_alive_locked(f->backup, err))
        return NULL;
    if (f->type != S_IFREG || f->tar)
        err_set(err, ERR_INVALID, "its size is what is written to it");
    else if (f->final)
        err_set(err, ERR_BUSY, "a file that is archived already cannot change");
    if (f->type != S_IFREG || f->tar || f->final)
        return NULL;
    new_file_enter_locked(f);
    return staged_ref(f->staged);
}

/* Giving up a large file's space takes a while: not under the lock. */
static bool set_size(struct new_file *f, uint64_t size, struct err *err)
{
    struct new_backup *nb = f->backup;
    pthread_mutex_lock(&nb->lock);
    bool same = size == f->size;
    struct staged *staged = same ? NULL : begin_set_size(f, err);
    pthread_mutex_unlock(&nb->lock);
    if (staged == NULL)
        return same;
    bool ok = ftruncate(staged->fd, (off_t)size) == 0 ||
              err_sys(err, errno, "cannot change the size of a staged file");
    staged_unref(staged);
    pthread_mutex_lock(&nb->lock);
    f->size = ok ? size : f->size;
    (void)new_file_leave_locked(f);
    pthread_mutex_unlock(&nb->lock);
    return ok;
}

static bool is_as_it_was(const struct new_file *f, const struct fs_setattr *set)
{
    bool mode = !set->set_mode || f->mode == ((uint32_t)set->mode & 07777);
    bool time = !set->set_mtime || (f->mtime_s == set->mtime_s && f->mtime_ns == set->mtime_ns);
    bool owner = !set->set_owner || ((set->uid == (uid_t)-1 || set->uid == f->uid) &&
                                     (set->gid == (gid_t)-1 || set->gid == f->gid));
    return mode && time && owner;
}

static bool new_setattr(struct fs *fs, struct node *node, const struct fs_setattr *set,
                        struct handle *handle, struct fs_entry *out, const struct call *call,
                        struct err *err)
{
    (void)handle;
    struct new_file *f = node->data;
    if (set->set_size && !set_size(f, set->size, err))
        return new_backup_lacks(f->backup, err);
    pthread_mutex_lock(&f->backup->lock);
    bool ok = new_backup_alive_locked(f->backup, err);
    if (ok && f->final && !is_as_it_was(f, set))
        ok =
            err_set(err, ERR_BUSY,
                    "its mode, owner and time are archived already: they are to be set while it is "
                    "copied, as cp -a and rsync -a do");
    if (ok && set->set_mode)
        f->mode = (uint32_t)set->mode & 07777;
    if (ok && set->set_mtime) {
        f->mtime_s = set->mtime_s == INT64_MIN ? time(NULL) : set->mtime_s;
        f->mtime_ns = set->mtime_s == INT64_MIN ? 0 : set->mtime_ns;
    }
    if (ok && set->set_owner) {
        f->uid = set->uid == (uid_t)-1 ? f->uid : set->uid;
        f->gid = set->gid == (gid_t)-1 ? f->gid : set->gid;
    }
    pthread_mutex_unlock(&f->backup->lock);
    return ok && new_getattr(fs, node, out, call, err);
}

/* ---- looking ---- */

static bool give(struct fs *fs, struct node *node, struct fs_entry *out, const struct call *call,
                 struct err *err)
{
    bool ok = new_getattr(fs, node, out, call, err);
    if (ok)
        node_add_lookup(fs->inodes, node);
    return ok;
}

static bool new_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct node *node = child(backup_of(dir), dir, name, err);
    bool ok = node != NULL && give(fs, node, out, call, err);
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

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

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
    bool neutral = top && (strcmp(name, MANIFEST) == 0 || strcmp(name, MANIFEST ".tmp") == 0 ||
                           strcmp(name, "pg_wal.tar") == 0);
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
                            ? make_node(nb, dir, name, &new_file_ops, S_IFREG, mode, err)
                            : NULL;
    if (node == NULL)
        return new_backup_lacks(nb, err);
    struct new_file *f = node->data;
    f->tar = tar;
    if (!tar)
        f->staged = make_staged(nb, err);
    *handle = tar || f->staged != NULL ? new_handle(fs, node, flags, pid, err) : NULL;
    bool ok = *handle != NULL && keep(nb, node, *handle, err);
    if (!ok) {
        new_handle_drop(fs, *handle);
        forget(nb, node);
    }
    ok = ok && give(fs, node, out, call, err); /* which cannot fail */
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
    struct node *node = ok ? make_node(nb, dir, name, ops, type, mode, err) : NULL;
    if (node == NULL)
        return new_backup_lacks(nb, err);
    struct new_file *f = node->data;
    if (target != NULL) {
        f->link = strdup(target);
        ok = f->link != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    ok = ok && keep(nb, node, NULL, err) && give(fs, node, out, call, err);
    if (!ok)
        forget(nb, node);
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
    struct node *had = can ? take_out(nb, node) : NULL;
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
        had = take_out(nb, node);
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
        had = take_out(nb, over);
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
    bool commits = dir == nb->top && !nb->partial && strcmp(name, MANIFEST ".tmp") == 0 &&
                   strcmp(new_name, MANIFEST) == 0;
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
    if (!ok)
        new_handle_drop(fs, *handle);
    return ok;
}

const struct node_ops new_dir_ops = {.getattr = new_getattr,
                                     .setattr = new_setattr,
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
    .getattr = new_getattr, .setattr = new_setattr, .open = new_open};
const struct node_ops new_link_ops = {
    .getattr = new_getattr, .setattr = new_setattr, .readlink = new_readlink};

/* ---- in basebackups/ ---- */

static bool label_ok(const char *label, struct err *err)
{
    for (const unsigned char *p = (const unsigned char *)label; *p != '\0'; p++)
        if (*p < ' ' || *p == 0x7f)
            return err_set(err, ERR_INVALID, "a label has no control characters");
    if (label[0] == '\0' || strncmp(label, "base_", 5) == 0 || strcmp(label, BACKUPS_LATEST) == 0 ||
        backup_name_is_temporary(label))
        return err_set(err, ERR_INVALID,
                       "basebackups/%s: a new backup is made under a label of your own, which is "
                       "neither LATEST nor begins with base_ or walefs-tmp-",
                       label);
    return true;
}

static struct new_backup *make_backup(struct fs *fs, const char *name)
{
    struct new_backup *nb = calloc(1, sizeof(*nb));
    if (nb == NULL)
        return NULL;
    atomic_store(&nb->refs, 1); /* the tree's */
    nb->fs = fs;
    (void)snprintf(nb->label, sizeof(nb->label), "%s", name);
    nb->partial = ends_in(name, NEW_BACKUP_PARTIAL);
    if (nb->partial)
        nb->label[strlen(name) - strlen(NEW_BACKUP_PARTIAL)] = '\0';
    nb->made_s = time(NULL);
    cancel_init(&nb->cancel);
    nb->call = (struct call){.cancel = &nb->cancel, .deadline_ms = DEADLINE_NONE};
    pthread_mutex_init(&nb->lock, NULL);
    waiter_cond_init(&nb->changed);
    return nb;
}

bool new_backup_mkdir(struct fs *fs, struct node *backups, const char *name, mode_t mode,
                      struct fs_entry *out, const struct call *call, struct err *err)
{
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "basebackups/%s: the mount is read-only", name);
    struct new_backup *nb = make_backup(fs, name);
    if (nb == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    struct node *node = NULL;
    if (label_ok(nb->label, err))
        node = make_node(nb, backups, name, &new_dir_ops, S_IFDIR, mode, err);
    if (node == NULL) {
        new_backup_unref(nb);
        return false;
    }
    nb->top = node;
    pthread_mutex_lock(&fs->new_backups_lock);
    nb->next = fs->new_backups;
    fs->new_backups = nb;
    pthread_mutex_unlock(&fs->new_backups_lock);
    return give(fs, node, out, call, err);
}

struct node *new_backup_find(struct fs *fs, struct node *backups, const char *name)
{
    struct node *node = inode_find(fs->inodes, backups, name);
    if (node != NULL && node->ops == &new_dir_ops)
        return node;
    node_unref(fs->inodes, node);
    return NULL;
}

bool new_backup_list(struct fs *fs, struct dir *dir, struct err *err)
{
    bool ok = true;
    pthread_mutex_lock(&fs->new_backups_lock);
    for (struct new_backup *nb = fs->new_backups; ok && nb != NULL; nb = nb->next) {
        char name[INODE_NAME_MAX + 1];
        node_name(fs->inodes, nb->top, name);
        ok = dir_add(dir, name, S_IFDIR, NULL, nb->made_s, err);
    }
    pthread_mutex_unlock(&fs->new_backups_lock);
    return ok;
}

bool new_backup_rename(struct fs *fs, struct node *top, const char *new_name,
                       const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    struct new_backup *nb = backup_of(top);
    if (!new_backup_alive(nb, err))
        return false;
    if (nb->partial && strcmp(new_name, nb->label) == 0) {
        if (new_backup_begin_commit(nb, err) && new_backup_commit(nb, err))
            return true;
        if (err->code == ERR_INVALID) /* of EINVAL mv says that a directory is moved into itself */
            err->code = ERR_DENIED;
        return false;
    }
    return err_set(err, ERR_INVALID,
                   "basebackups/%s%s: the only rename of a backup is from LABEL" NEW_BACKUP_PARTIAL
                   " to LABEL, which completes it",
                   nb->label, nb->partial ? NEW_BACKUP_PARTIAL : "");
}
