/* basebackups/ itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "fs/backups.h"
#include "fs/new_backup.h"

/* Links can come to point elsewhere. */
#define LINK_VALID_S 1.0

/* ---- the listing ---- */

struct listing_question {
    struct backup_set *set;
    int64_t max_age_ms;
    struct catalog *catalog;
};

static bool listing_attempt(void *arg, const struct call *call, struct err *err)
{
    struct listing_question *q = arg;
    q->catalog = backup_set_catalog(q->set, q->max_age_ms, call, err);
    return q->catalog != NULL;
}

struct catalog *backups_catalog(struct fs *fs, int64_t max_age_ms, const struct call *call,
                                struct err *err)
{
    struct listing_question q = {.set = fs->backup_set, .max_age_ms = max_age_ms};
    (void)persist(&fs->persistence, "listing basebackups/", call, listing_attempt, &q, err);
    return q.catalog;
}

/* ---- symlinks ---- */

static const char *link_target(const struct catalog *c, const char *name)
{
    const struct catalog_backup *b =
        strcmp(name, BACKUPS_LATEST) == 0 ? catalog_latest(c) : catalog_find_label(c, name);
    return b == NULL ? NULL : b->info.name;
}

static bool link_readlink(struct fs *fs, struct node *node, char *out, size_t cap,
                          const struct call *call, struct err *err)
{
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    struct catalog *c = backups_catalog(fs, CATALOG_MAX_AGE_MS, call, err);
    if (c == NULL)
        return false;
    const char *target = link_target(c, name);
    if (target != NULL)
        (void)snprintf(out, cap, "%s", target);
    else
        err_set(err, ERR_ABSENT, "basebackups/%s: no such backup any more", name);
    catalog_unref(c);
    return target != NULL;
}

static bool link_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    char target[BACKUP_NAME_MAX];
    if (!link_readlink(fs, node, target, sizeof(target), call, err))
        return false;
    attr_fill(fs, node, S_IFLNK, strlen(target), fs->started_s, out);
    out->attr.st_mode = S_IFLNK | 0777;
    out->valid_s = LINK_VALID_S;
    return true;
}

static const struct node_ops link_ops = {.getattr = link_getattr, .readlink = link_readlink};
static const struct node_template link_template = {.ops = &link_ops};

/* ---- incomplete backups: empty, and listed only when a sentinel shows that they were complete;
 * rmdir finds them all ---- */

static bool incomplete_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                               const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    attr_fill(fs, node, S_IFDIR, 0, fs->started_s, out);
    out->attr.st_mode = S_IFDIR | 0500;
    out->valid_s = 0;
    return true;
}

/* Fails for one that was complete once, and has a sentinel that cannot be read. With its sentinel
 * back it may be restored: it is not TO_DELETE like a rest. */
static bool check_sentinel(struct fs *fs, const char *name, int64_t max_age_ms, bool to_delete,
                           const struct call *call, struct err *err)
{
    char advice[CATALOG_ADVICE_MAX];
    struct catalog *c = backups_catalog(fs, max_age_ms, call, err);
    if (c == NULL)
        return false;
    const struct catalog_incomplete *left = catalog_find_incomplete(c, name);
    bool ok = left == NULL || !left->damaged;
    if (!ok) {
        enum err_code unreadable = left->frozen ? ERR_FROZEN : ERR_CORRUPT;
        catalog_damaged_advice(left, advice);
        err_set(err, to_delete ? ERR_DENIED : unreadable, "basebackups/%s: %s%s", name, advice,
                to_delete ? ". If it is to go all the same, delete that object in the store, and "
                            "then the rest with rmdir"
                          : "");
    }
    catalog_unref(c);
    return ok;
}

static bool incomplete_check(struct fs *fs, const struct node *node, const struct call *call,
                             struct err *err)
{
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    return check_sentinel(fs, name, CATALOG_MAX_AGE_MS, false, call, err);
}

static bool incomplete_list(struct fs *fs, struct dir *dir, const struct call *call,
                            struct err *err)
{
    dir->done = true;
    return incomplete_check(fs, dir->node, call, err);
}

static bool incomplete_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                              struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    (void)out;
    return incomplete_check(fs, dir, call, err) &&
           err_set(err, ERR_ABSENT, "%s: the backup is incomplete", name);
}

static const struct node_ops incomplete_ops = {
    .getattr = incomplete_getattr, .lookup = incomplete_lookup, .list = incomplete_list};
static const struct node_template incomplete_template = {.ops = &incomplete_ops};

/* Its node while it is incomplete; what it was known as before loses the name. */
static struct node *obtain_incomplete(struct fs *fs, struct node *dir, const char *name,
                                      struct err *err)
{
    struct node *node = inode_obtain(fs->inodes, dir, name, &incomplete_template, err);
    if (node != NULL && node->ops != &incomplete_ops) {
        node_unlink(fs->inodes, node);
        node_unref(fs->inodes, node);
        node = inode_obtain(fs->inodes, dir, name, &incomplete_template, err);
    }
    return node;
}

/* ---- the directory ---- */

/* A name is a backup's, or a link's. NULL with ERR_ABSENT when it is neither. */
static struct node *find(struct fs *fs, struct node *dir, const char *name, int64_t max_age_ms,
                         const struct call *call, struct err *err)
{
    struct node *node = NULL;
    struct catalog *c = backups_catalog(fs, max_age_ms, call, err);
    if (c == NULL)
        return NULL;
    if (catalog_find(c, name) != NULL)
        node = backup_obtain_top(fs, dir, name, call, err);
    else if (link_target(c, name) != NULL)
        node = inode_obtain(fs->inodes, dir, name, &link_template, err);
    else if (catalog_find_incomplete(c, name) != NULL)
        node = obtain_incomplete(fs, dir, name, err);
    else
        err_set(err, ERR_ABSENT, "basebackups/%s: no complete backup of that name", name);
    catalog_unref(c);
    return node;
}

/* mkdir and mv look their new name up first: is this a name that may be about to be made? */
static bool may_be_new(struct fs *fs, struct node *dir, const char *name)
{
    if (strncmp(name, "base_", 5) == 0 || strcmp(name, BACKUPS_LATEST) == 0)
        return false;
    struct node *known = inode_find(fs->inodes, dir, name);
    node_unref(fs->inodes, known);
    return known == NULL;
}

static bool dir_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    const struct call bounded =
        may_be_new(fs, dir, name) ? bounded_for_writers(fs, 1, call) : *call;
    struct node *node = new_backup_find(fs, dir, name);
    if (node == NULL)
        node = find(fs, dir, name, CATALOG_MAX_AGE_MS, &bounded, err);
    if (node == NULL && err->code == ERR_ABSENT) /* it may just have been completed elsewhere */
        node = find(fs, dir, name, 0, &bounded, err);
    bool ok = node != NULL && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

static bool dir_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    const struct call bounded = bounded_for_writers(fs, 1, call);
    struct catalog *c = backups_catalog(fs, 0, &bounded, err);
    if (c == NULL)
        return false;
    bool ok = c->count == 0 || dir_add(dir, BACKUPS_LATEST, S_IFLNK, NULL, 0, err);
    for (size_t i = 0; ok && i < c->count; i++) {
        const struct backup_info *info = &c->backups[i].info;
        ok = dir_add(dir, info->name, S_IFDIR, NULL, info->stored_s, err);
        /* of several with one label the newest has the link */
        if (ok && info->label[0] != '\0' && catalog_find_label(c, info->label) == &c->backups[i])
            ok = dir_add(dir, info->label, S_IFLNK, NULL, info->stored_s, err);
    }
    for (size_t i = 0; ok && i < c->incomplete_count; i++)
        if (c->incomplete[i].damaged)
            ok = dir_add(dir, c->incomplete[i].name, S_IFDIR, NULL, 0, err);
    catalog_unref(c);
    dir->done = true;
    return ok && new_backup_list(fs, dir, err);
}

/* ---- writing ---- */

/* Promise 8. */
static bool backups_remove(struct fs *fs, const char *name, const struct call *call,
                           struct err *err)
{
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "basebackups/%s: the mount is read-only", name);
    if (!fs->opt.allow_delete)
        return err_set(err, ERR_DENIED,
                       "basebackups/%s: walefs deletes nothing unless it is mounted with "
                       "-o allow_delete",
                       name);
    struct call bounded = *call;
    bounded.deadline_ms = DEADLINE_NONE; /* as long as it takes: an interrupt ends it */
    bool ok = check_sentinel(fs, name, 0, true, &bounded, err) &&
              backup_delete(fs->opt.store, name, &bounded, err);
    backup_set_changed(fs->backup_set);
    if (ok)
        log_info("the base backup %s has been deleted", name);
    return ok;
}

/* A backup that is being written is renamed to be completed. */
static bool dir_rename(struct fs *fs, struct node *dir, const char *name, const char *new_name,
                       bool no_replace, const struct call *call, struct err *err)
{
    (void)no_replace; /* a complete backup is never replaced */
    struct node *top = new_backup_find(fs, dir, name);
    if (top == NULL)
        return err_set(err, ERR_DENIED, "basebackups/%s cannot be renamed", name);
    const struct call bounded = bounded_for_writers(fs, 1, call);
    struct node *over = new_backup_find(fs, dir, new_name); /* somebody else writes that one */
    if (over == NULL)
        over = find(fs, dir, new_name, 0, &bounded, err);
    bool ok = over == NULL && err->code == ERR_ABSENT;
    if (over != NULL)
        err_set(err, ERR_EXISTS, "basebackups/%s exists already", new_name);
    node_unref(fs->inodes, over);
    ok = ok && new_backup_rename(fs, top, new_name, call, err);
    node_unref(fs->inodes, top);
    return ok;
}

static bool dir_rmdir(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                      struct err *err)
{
    struct node *top = new_backup_find(fs, dir, name);
    if (top != NULL) {
        bool ok = new_backup_rmdir(fs, top, call, err);
        node_unref(fs->inodes, top);
        return ok;
    }
    return backups_remove(fs, name, call, err);
}

static const struct node_ops dir_ops = {.getattr = fixed_dir_getattr,
                                        .lookup = dir_lookup,
                                        .list = dir_list,
                                        .mkdir = new_backup_mkdir,
                                        .rename = dir_rename,
                                        .rmdir = dir_rmdir};
const struct node_template backups_dir_template = {.ops = &dir_ops};
