/* Files of a base backup that is being written become members of its partitions. */
#include <stdio.h>
#include <string.h>

#include "fs/new_backup.h"

/* Files of a tree that are closed may still be renamed or get their mode, owner and time: the last
 * ones stay staged, within these limits. Each holds a descriptor. */
#define QUEUED_MAX 256u
#define QUEUED_BYTES_MAX (UINT64_C(256) << 20)
#define QUEUED_MIN 2u

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

bool new_backup_pack_with(struct new_backup *nb, struct backup_write *w, struct node *node,
                          struct err *err)
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

static bool pack(struct new_backup *nb, struct node *node, struct err *err)
{
    struct backup_write *w = new_backup_take(nb, err);
    if (w == NULL)
        return false;
    bool ok = new_backup_pack_with(nb, w, node, err);
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
    bool manifest = node->parent == nb->top &&
                    strncmp(name, NEW_BACKUP_MANIFEST, strlen(NEW_BACKUP_MANIFEST)) == 0;
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
        ok = pack(nb, node, err);
        node_unref(nb->fs->inodes, node);
    }
    return ok;
}
