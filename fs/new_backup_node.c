/* What there is in a base backup that is being written: nodes, and their attributes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/new_backup.h"

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

struct node *new_node_make(struct new_backup *nb, struct node *parent, const char *name,
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

bool new_node_keep(struct new_backup *nb, struct node *node, struct handle *h, struct err *err)
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

struct node *new_node_take_out(struct new_backup *nb, struct node *node)
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

void new_node_forget(struct new_backup *nb, struct node *node)
{
    pthread_mutex_lock(&nb->lock);
    struct node *had = new_node_take_out(nb, node);
    pthread_mutex_unlock(&nb->lock);
    node_unlink(nb->fs->inodes, node);
    node_unref(nb->fs->inodes, had);
}

/* ---- attributes ---- */

bool new_node_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
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
bool new_file_set_size(struct new_file *f, uint64_t size, struct err *err)
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

bool new_node_setattr(struct fs *fs, struct node *node, const struct fs_setattr *set,
                      struct handle *handle, struct fs_entry *out, const struct call *call,
                      struct err *err)
{
    (void)handle;
    struct new_file *f = node->data;
    if (set->set_size && !new_file_set_size(f, set->size, err))
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
    return ok && new_node_getattr(fs, node, out, call, err);
}
