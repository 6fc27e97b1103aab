#include "fs/fs.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "fs/backups.h"
#include "fs/dumps.h"
#include "fs/inside.h"
#include "fs/new_backup.h"
#include "fs/node.h"
#include "fs/status.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"
#include "fs/xattr.h"

static bool refuse(struct err *err, const char *what)
{
    return err_set(err, ERR_DENIED, "%s is not possible here", what);
}

/* ---- the root ---- */

static bool root_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                        struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)dir;
    (void)pid;
    struct node *node = strcmp(name, "wal") == 0           ? fs->wal
                        : strcmp(name, "basebackups") == 0 ? fs->backups
                        : strcmp(name, "dumps") == 0       ? fs->dumps->top
                        : strcmp(name, "status") == 0      ? fs->status_dir
                                                           : NULL;
    if (node == NULL)
        return err_set(err, ERR_ABSENT, "%s: the archive has no such directory", name);
    return node_give(fs, node, out, call, err);
}

static bool root_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    dir->done = true;
    return dir_add(dir, "wal", S_IFDIR, NULL, 0, err) &&
           dir_add(dir, "basebackups", S_IFDIR, NULL, 0, err) &&
           dir_add(dir, "dumps", S_IFDIR, NULL, 0, err) &&
           dir_add(dir, "status", S_IFDIR, NULL, 0, err);
}

static const struct node_ops root_ops = {
    .getattr = fixed_dir_getattr, .lookup = root_lookup, .list = root_list};

/* ---- damage ---- */

static size_t count_readers(struct fs *fs, const struct partition *p, uint64_t *ids, size_t cap)
{
    size_t n = 0;
    pthread_mutex_lock(&fs->handles_lock);
    for (const struct handle *h = LIST_FIRST(&fs->handles); h != NULL; h = LIST_NEXT(h, link)) {
        if (h->ops->reads == NULL || !h->ops->reads(h, p))
            continue;
        if (n < cap)
            ids[n] = h->node->id;
        n++;
    }
    pthread_mutex_unlock(&fs->handles_lock);
    return n;
}

/* What is open of a damaged partition; nobody can open more of it, and of a file that is not open
 * the kernel asks anew. */
static void on_damage(void *arg, const struct partition *p)
{
    struct fs *fs = arg;
    uint64_t *ids = NULL;
    if (fs->invalidate == NULL)
        return;
    size_t cap = 0, n = count_readers(fs, p, NULL, 0);
    while (n > cap) { /* more may come meanwhile */
        free(ids);
        cap = n;
        ids = calloc(cap, sizeof(*ids));
        if (ids == NULL) {
            log_error("out of memory: files of a damaged backup that are open may still be read "
                      "from the kernel's cache");
            return;
        }
        n = count_readers(fs, p, ids, cap);
    }
    for (size_t i = 0; i < n && i < cap; i++)
        fs->invalidate(fs->invalidate_arg, ids[i]);
    free(ids);
}

void fs_set_invalidate(struct fs *fs, fs_invalidate *invalidate, void *arg)
{
    fs->invalidate = invalidate;
    fs->invalidate_arg = arg;
}

void fs_set_backing_kernel(struct fs *fs, const struct backing_kernel *kernel)
{
    static const struct backing_kernel none = {.open = NULL};
    fs->backing_kernel = kernel == NULL ? none : *kernel;
}

/* ---- life ---- */

struct fs *fs_new(const struct fs_options *options, struct err *err)
{
    static const struct node_template root = {.ops = &root_ops};
    struct fs *fs = calloc(1, sizeof(*fs));
    if (fs == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    cancel_init(&fs->stop);
    pthread_mutex_init(&fs->handles_lock, NULL);
    pthread_mutex_init(&fs->new_backups_lock, NULL);
    pthread_cond_init(&fs->tar_reader_ended, NULL);
    fs->opt = *options;
    fs->started_s = time(NULL);
    fs->persistence =
        (struct persistence){.hard = options->hard, .soft_timeout_ms = options->soft_timeout_ms};
    fs->stage_env = (struct stage_env){
        .pgp = options->pgp, .pool = options->pool, .dir = options->cache_dir, .stop = &fs->stop};
    const struct fetch_options fetch = {.store = options->store,
                                        .pgp = options->pgp,
                                        .pool = options->pool,
                                        .dir = options->cache_dir,
                                        .cache_bytes = options->cache_bytes,
                                        .prefetch = options->prefetch};
    const struct backup_set_options backups = {.store = options->store,
                                               .pgp = options->pgp,
                                               .pool = options->pool,
                                               .dir = options->cache_dir,
                                               .cache_bytes = options->cache_bytes,
                                               .writable = !options->read_only,
                                               .damaged = on_damage,
                                               .damaged_arg = fs};
    fs->inodes = inode_table_new(&root, err);
    fs->fetcher = fs->inodes == NULL ? NULL : fetcher_new(&fetch, err);
    fs->backup_set = fs->fetcher == NULL ? NULL : backup_set_new(&backups, err);
    fs->wal_delete = fs->backup_set == NULL ? NULL : wal_delete_new(fs, err);
    fs->inside = fs->wal_delete == NULL ? NULL : inside_cache_new(err);
    fs->dumps = fs->inside == NULL ? NULL : dumps_new(err);
    fs->xattrs = fs->dumps == NULL ? NULL : xattr_cache_new(err);
    fs->status = fs->xattrs == NULL ? NULL : status_new(fs, err);
    if (fs->status == NULL)
        goto fail;
    struct node *top = inode_get(fs->inodes, INODE_ROOT);
    fs->wal = inode_obtain(fs->inodes, top, "wal", &wal_dir_template, err);
    if (fs->wal != NULL)
        fs->backups = inode_obtain(fs->inodes, top, "basebackups", &backups_dir_template, err);
    if (fs->backups != NULL)
        fs->dumps->top = inode_obtain(fs->inodes, top, "dumps", &dumps_dir_template, err);
    if (fs->dumps->top != NULL)
        fs->status_dir = inode_obtain(fs->inodes, top, "status", &status_dir_template, err);
    if (fs->status_dir != NULL)
        return fs;
fail:
    fs_free(fs);
    return NULL;
}

void fs_stop(struct fs *fs)
{
    cancel_fire(&fs->stop);
    wal_delete_stop(fs->wal_delete);
    new_backups_stop(fs);
    status_stop(fs->status);
    fetcher_stop(fs->fetcher);
    backup_set_stop(fs->backup_set);
}

void fs_free(struct fs *fs)
{
    if (fs == NULL)
        return;
    while (!LIST_EMPTY(&fs->handles))
        fs_release(fs, LIST_FIRST(&fs->handles));
    while (!LIST_EMPTY(&fs->dirs))
        fs_releasedir(fs, LIST_FIRST(&fs->dirs));
    new_backups_free(fs);
    inode_table_free(fs->inodes);
    dumps_free(fs->dumps);
    status_free(fs->status);
    xattr_cache_free(fs->xattrs);
    inside_cache_free(fs->inside);
    wal_delete_free(fs->wal_delete);
    backup_set_free(fs->backup_set);
    fetcher_free(fs->fetcher);
    pthread_mutex_destroy(&fs->handles_lock);
    pthread_mutex_destroy(&fs->new_backups_lock);
    pthread_cond_destroy(&fs->tar_reader_ended);
    cancel_destroy(&fs->stop);
    free(fs);
}

/* ---- shared by the kinds ---- */

void attr_fill(const struct fs *fs, const struct node *node, mode_t type, uint64_t size,
               int64_t mtime_s, struct fs_entry *out)
{
    bool dir = type == S_IFDIR;
    memset(out, 0, sizeof(*out));
    out->id = node->id;
    out->valid_s = ENTRY_VALID_S;
    out->attr.st_ino = node->id;
    out->attr.st_mode = type | (dir ? 0700 : 0600);
    out->attr.st_nlink = dir ? 2 : 1;
    out->attr.st_uid = fs->opt.uid;
    out->attr.st_gid = fs->opt.gid;
    out->attr.st_size = (off_t)size;
    out->attr.st_blocks = (blkcnt_t)((size + 511) / 512);
    out->attr.st_blksize = IO_BYTES;
    out->attr.st_mtim.tv_sec = out->attr.st_atim.tv_sec = out->attr.st_ctim.tv_sec = mtime_s;
}

struct call bounded_for_writers(const struct fs *fs, unsigned part, const struct call *call)
{
    struct call bounded = *call;
    int64_t deadline_ms = now_ms() + fs->opt.write_timeout_ms / part;
    if (!fs->opt.read_only && fs->opt.hard && deadline_ms < bounded.deadline_ms)
        bounded.deadline_ms = deadline_ms;
    return bounded;
}

bool fixed_dir_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                       const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    attr_fill(fs, node, S_IFDIR, 0, fs->started_s, out);
    out->valid_s = FIXED_VALID_S;
    return true;
}

bool node_give(struct fs *fs, struct node *node, struct fs_entry *out, const struct call *call,
               struct err *err)
{
    bool ok = node->ops->getattr(fs, node, out, call, err);
    if (ok)
        node_add_lookup(fs->inodes, node);
    return ok;
}

bool dir_add(struct dir *dir, const char *name, mode_t type, const uint64_t *size, int64_t mtime_s,
             struct err *err)
{
    if ((dir->count & (dir->count - 1)) == 0) { /* full at every power of two */
        size_t cap = dir->count == 0 ? 1 : dir->count * 2;
        struct dir_item *items = realloc(dir->items, cap * sizeof(*items));
        if (items == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        dir->items = items;
    }
    char *copy = strdup(name);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    dir->items[dir->count++] = (struct dir_item){.name = copy,
                                                 .type = type,
                                                 .known = size != NULL,
                                                 .size = size == NULL ? 0 : *size,
                                                 .mtime_s = mtime_s};
    return true;
}

/* ---- open handles ---- */

static void handle_add(struct fs *fs, struct handle *h)
{
    pthread_mutex_lock(&fs->handles_lock);
    LIST_INSERT_HEAD(&fs->handles, h, link);
    pthread_mutex_unlock(&fs->handles_lock);
}

static void handle_remove(struct fs *fs, struct handle *h)
{
    pthread_mutex_lock(&fs->handles_lock);
    LIST_REMOVE(h, link);
    pthread_mutex_unlock(&fs->handles_lock);
}

/* ---- nodes ---- */

static struct node *get_node(struct fs *fs, uint64_t id, struct err *err)
{
    struct node *node = inode_get(fs->inodes, id);
    if (node == NULL)
        err_set(err, ERR_STALE, "inode %llu is not known", (unsigned long long)id);
    return node;
}

static bool name_ok(const char *name, struct err *err)
{
    size_t len = strlen(name);
    if (len == 0 || strchr(name, '/') != NULL)
        return err_set(err, ERR_INVALID, "not a valid file name");
    if (len <= INODE_NAME_MAX)
        return true;
    err_set(err, ERR_INVALID, "a file name of more than %u bytes", INODE_NAME_MAX);
    err->sys_errno = ENAMETOOLONG;
    return false;
}

bool fs_lookup(struct fs *fs, uint64_t parent, const char *name, pid_t pid, struct fs_entry *out,
               const struct call *call, struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok;
    if (dir->ops->lookup == NULL)
        ok = refuse(err, "looking up a name");
    else
        ok = name_ok(name, err) && dir->ops->lookup(fs, dir, name, pid, out, call, err);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_is_local(struct fs *fs, uint64_t id)
{
    struct node *node = inode_get(fs->inodes, id);
    bool local = node != NULL &&
                 (id == INODE_ROOT || node == fs->status_dir || node->parent == fs->status_dir);
    node_unref(fs->inodes, node);
    return local;
}

void fs_forget(struct fs *fs, uint64_t id, uint64_t count)
{
    inode_forget(fs->inodes, id, count);
}

static bool handle_attr(struct fs *fs, const struct handle *h, struct fs_entry *out)
{
    return h->ops->getattr != NULL && h->ops->getattr(fs, h, out);
}

/* For fstat(2), of which the kernel tells no handle: the one of NODE that was opened last. A path
 * that is gone does not get here, since the look-up before has failed. */
static bool any_handle_attr(struct fs *fs, const struct node *node, struct fs_entry *out)
{
    bool ok = false;
    pthread_mutex_lock(&fs->handles_lock);
    for (const struct handle *h = LIST_FIRST(&fs->handles); h != NULL && !ok;
         h = LIST_NEXT(h, link))
        ok = h->node == node && handle_attr(fs, h, out);
    pthread_mutex_unlock(&fs->handles_lock);
    return ok;
}

bool fs_getattr(struct fs *fs, uint64_t id, const struct handle *handle, struct fs_entry *out,
                const struct call *call, struct err *err)
{
    struct node *node = get_node(fs, id, err);
    if (node == NULL)
        return false;
    bool ok = (handle != NULL && handle_attr(fs, handle, out)) ||
              node->ops->getattr(fs, node, out, call, err) ||
              (err->code == ERR_ABSENT && any_handle_attr(fs, node, out));
    node_unref(fs->inodes, node);
    return ok;
}

bool fs_setattr(struct fs *fs, uint64_t id, const struct fs_setattr *set, struct handle *handle,
                struct fs_entry *out, const struct call *call, struct err *err)
{
    struct node *node = get_node(fs, id, err);
    if (node == NULL)
        return false;
    bool ok;
    if (node->ops->setattr != NULL)
        ok = node->ops->setattr(fs, node, set, handle, out, call, err);
    else if (set->set_size)
        ok = refuse(err, "changing its size");
    else /* a time or mode that stays as it was harms nobody */
        ok = node->ops->getattr(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

bool fs_create(struct fs *fs, uint64_t parent, const char *name, int flags, mode_t mode, pid_t pid,
               struct fs_entry *out, struct handle **handle, const struct call *call,
               struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok;
    if (dir->ops->create == NULL)
        ok = refuse(err, "making a file");
    else
        ok = name_ok(name, err) &&
             dir->ops->create(fs, dir, name, flags, mode, pid, out, handle, call, err);
    if (ok)
        handle_add(fs, *handle);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_open(struct fs *fs, uint64_t id, int flags, pid_t pid, struct handle **handle,
             const struct call *call, struct err *err)
{
    struct node *node = get_node(fs, id, err);
    if (node == NULL)
        return false;
    bool ok = node->ops->open == NULL ? refuse(err, "opening it")
                                      : node->ops->open(fs, node, flags, pid, handle, call, err);
    if (ok)
        handle_add(fs, *handle);
    node_unref(fs->inodes, node);
    return ok;
}

bool fs_mkdir(struct fs *fs, uint64_t parent, const char *name, mode_t mode, struct fs_entry *out,
              const struct call *call, struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok;
    if (dir->ops->mkdir == NULL)
        ok = refuse(err, "making a directory");
    else
        ok = name_ok(name, err) && dir->ops->mkdir(fs, dir, name, mode, out, call, err);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_symlink(struct fs *fs, uint64_t parent, const char *name, const char *target,
                struct fs_entry *out, const struct call *call, struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok;
    if (dir->ops->symlink == NULL)
        ok = refuse(err, "making a link");
    else
        ok = name_ok(name, err) && dir->ops->symlink(fs, dir, name, target, out, call, err);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_link(struct fs *fs, uint64_t parent, const char *name, struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    (void)(dir->ops->link == NULL ? refuse(err, "a hard link")
                                  : dir->ops->link(fs, dir, name, err));
    node_unref(fs->inodes, dir);
    return false;
}

bool fs_rmdir(struct fs *fs, uint64_t parent, const char *name, const struct call *call,
              struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok = dir->ops->rmdir == NULL ? refuse(err, "deleting a directory")
                                      : dir->ops->rmdir(fs, dir, name, call, err);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_readlink(struct fs *fs, uint64_t id, char *out, size_t cap, const struct call *call,
                 struct err *err)
{
    struct node *node = get_node(fs, id, err);
    if (node == NULL)
        return false;
    bool ok = node->ops->readlink == NULL ? refuse(err, "reading a link")
                                          : node->ops->readlink(fs, node, out, cap, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

bool fs_unlink(struct fs *fs, uint64_t parent, const char *name, const struct call *call,
               struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    if (dir == NULL)
        return false;
    bool ok = dir->ops->unlink == NULL ? refuse(err, "deleting")
                                       : dir->ops->unlink(fs, dir, name, call, err);
    node_unref(fs->inodes, dir);
    return ok;
}

bool fs_rename(struct fs *fs, uint64_t parent, const char *name, uint64_t new_parent,
               const char *new_name, bool no_replace, const struct call *call, struct err *err)
{
    struct node *dir = get_node(fs, parent, err);
    struct node *new_dir = dir == NULL ? NULL : get_node(fs, new_parent, err);
    bool ok = false;
    if (new_dir == NULL)
        goto out;
    if (dir->ops->move != NULL && dir->ops->move == new_dir->ops->move)
        ok = name_ok(new_name, err) &&
             dir->ops->move(fs, dir, name, new_dir, new_name, no_replace, call, err);
    else if (dir != new_dir)
        ok = refuse(err, "renaming between directories");
    else if (dir->ops->rename == NULL)
        ok = refuse(err, "renaming");
    else
        ok = name_ok(new_name, err) &&
             dir->ops->rename(fs, dir, name, new_name, no_replace, call, err);
out:
    node_unref(fs->inodes, new_dir);
    node_unref(fs->inodes, dir);
    return ok;
}

void fs_statfs(struct fs *fs, struct statvfs *out)
{
    /* an object store is as good as endless; a directory knows its limits */
    uint64_t total = UINT64_C(1) << 50, left = total;
    struct store *store = fs->opt.store;
    if (store->ops->space != NULL)
        (void)store->ops->space(store, &total, &left);
    memset(out, 0, sizeof(*out));
    out->f_bsize = IO_BYTES;
    out->f_frsize = 4096;
    out->f_blocks = total / 4096;
    out->f_bfree = out->f_bavail = left / 4096;
    out->f_files = UINT32_MAX;
    out->f_ffree = out->f_favail = UINT32_MAX;
    out->f_namemax = INODE_NAME_MAX;
}

void fs_path(struct fs *fs, uint64_t id, char *out, size_t cap)
{
    struct node *node = inode_get(fs->inodes, id);
    if (node == NULL || !inode_path(fs->inodes, node, NULL, out, cap))
        (void)snprintf(out, cap, "inode %llu", (unsigned long long)id);
    else if (node->parent == NULL)
        (void)snprintf(out, cap, "/");
    node_unref(fs->inodes, node);
}

/* ---- handles ---- */

bool fs_handle_immutable(const struct handle *handle)
{
    return handle->immutable;
}

bool fs_handle_stream(const struct handle *handle)
{
    return handle->stream;
}

int fs_handle_backing(const struct handle *handle, bool *through)
{
    *through = handle->backing.through;
    return handle->backing.id;
}

bool fs_handle_verified(const struct handle *handle)
{
    return handle->verified;
}

bool fs_read(struct fs *fs, struct handle *handle, uint64_t offset, size_t size,
             struct fs_bytes *out, const struct call *call, struct err *err)
{
    out->pin = NULL;
    out->staged = NULL;
    return handle->ops->read(fs, handle, offset, size, out, call, err);
}

void fs_read_done(struct fs_bytes *bytes)
{
    partition_done(bytes->pin);
    staged_unref(bytes->staged);
    bytes->pin = NULL;
    bytes->staged = NULL;
}

bool fs_write(struct fs *fs, struct handle *handle, const void *data, size_t n, uint64_t offset,
              const struct call *call, struct err *err)
{
    if (handle->ops->write == NULL)
        return refuse(err, "writing");
    return handle->ops->write(fs, handle, data, n, offset, call, err);
}

bool fs_handle_flushes(const struct handle *handle)
{
    return handle->ops->flush != NULL;
}

bool fs_flush(struct fs *fs, struct handle *handle, pid_t pid, const struct call *call,
              struct err *err)
{
    return !fs_handle_flushes(handle) || handle->ops->flush(fs, handle, pid, call, err);
}

bool fs_fsync(struct fs *fs, struct handle *handle, const struct call *call, struct err *err)
{
    return handle->ops->fsync == NULL || handle->ops->fsync(fs, handle, call, err);
}

void fs_release(struct fs *fs, struct handle *handle)
{
    handle_remove(fs, handle);
    handle->ops->release(fs, handle);
}

/* ---- directories ---- */

static void dir_clear(struct dir *dir)
{
    for (size_t i = 0; i < dir->count; i++)
        free(dir->items[i].name), free(dir->items[i].etag);
    free(dir->items);
    dir->items = NULL;
    dir->count = 0;
}

static void dir_rewind(struct dir *dir)
{
    dir_clear(dir);
    free(dir->token);
    dir->token = NULL;
    dir->first = 0;
    dir->done = false;
}

static void dir_enter(struct fs *fs, struct dir *dir)
{
    pthread_mutex_lock(&fs->handles_lock);
    LIST_INSERT_HEAD(&fs->dirs, dir, link);
    pthread_mutex_unlock(&fs->handles_lock);
}

static void dir_leave(struct fs *fs, struct dir *dir)
{
    pthread_mutex_lock(&fs->handles_lock);
    LIST_REMOVE(dir, link);
    pthread_mutex_unlock(&fs->handles_lock);
}

bool fs_opendir(struct fs *fs, uint64_t id, struct dir **out, const struct call *call,
                struct err *err)
{
    (void)call;
    struct node *node = get_node(fs, id, err);
    if (node == NULL)
        return false;
    struct dir *dir = node->ops->list == NULL ? NULL : calloc(1, sizeof(*dir));
    if (dir == NULL) {
        bool can = node->ops->list != NULL;
        node_unref(fs->inodes, node);
        return can ? err_set(err, ERR_NO_MEMORY, "out of memory") : refuse(err, "listing");
    }
    dir->node = node;
    dir_enter(fs, dir);
    *out = dir;
    return true;
}

void fs_releasedir(struct fs *fs, struct dir *dir)
{
    dir_leave(fs, dir);
    dir_rewind(dir);
    node_unref(fs->inodes, dir->node);
    free(dir);
}

/* Makes the window hold item INDEX, or sets dir->done with INDEX behind its end. A window that has
 * been left behind is only found again from the start. */
static bool dir_seek(struct fs *fs, struct dir *dir, uint64_t index, const struct call *call,
                     struct err *err)
{
    if (index < dir->first)
        dir_rewind(dir);
    while (index >= dir->first + dir->count && !dir->done) {
        dir->first += dir->count;
        dir_clear(dir);
        if (!dir->node->ops->list(fs, dir, call, err)) {
            dir_rewind(dir);
            return false;
        }
    }
    return true;
}

/* Offsets: 0 ".", 1 "..", 2 and up the items. */
bool fs_readdir(struct fs *fs, struct dir *dir, uint64_t offset, bool plus, fs_emit *emit,
                void *arg, const struct call *call, struct err *err)
{
    if (offset == 0 && !emit(arg, ".", S_IFDIR, NULL, ++offset))
        return true;
    if (offset == 1 && !emit(arg, "..", S_IFDIR, NULL, ++offset))
        return true;
    for (uint64_t index = offset - 2;; index++) {
        if (!dir_seek(fs, dir, index, call, err))
            return false;
        if (index >= dir->first + dir->count)
            return true;
        const struct dir_item *item = &dir->items[index - dir->first];
        struct fs_entry entry;
        bool known = plus && item->known && dir->node->ops->entry_of_item != NULL;
        if (known && !dir->node->ops->entry_of_item(fs, dir->node, item, &entry, call, err))
            return false;
        if (!emit(arg, item->name, item->type, known ? &entry : NULL, index + 3)) {
            if (known)
                fs_forget(fs, entry.id, 1);
            return true;
        }
        /* what was emitted is answered before the store is asked for more */
        if (index + 1 == dir->first + dir->count && !dir->done)
            return true;
    }
}
