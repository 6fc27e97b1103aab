/* Base backups that are being written, as entries of basebackups/. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/waiter.h"
#include "fs/new_backup.h"

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

static bool label_ok(const char *label, struct err *err)
{
    return (backup_label_ok(label) && !backup_name_is_temporary(label)) ||
           err_set(err, ERR_INVALID,
                   "basebackups/%s: a new backup is made under a label of your own, which is UTF-8 "
                   "without control characters, not LATEST, and begins with neither base_ nor "
                   "walefs-tmp-",
                   label);
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
        node = new_node_make(nb, backups, name, &new_dir_ops, S_IFDIR, mode, err);
    if (node == NULL) {
        new_backup_unref(nb);
        return false;
    }
    nb->top = node;
    pthread_mutex_lock(&fs->new_backups_lock);
    nb->next = fs->new_backups;
    fs->new_backups = nb;
    pthread_mutex_unlock(&fs->new_backups_lock);
    return node_give(fs, node, out, call, err);
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
    struct new_backup *nb = ((struct new_file *)top->data)->backup;
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
