/* What is in one complete backup's directory. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/backups.h"

/* pgdata's own mode and times come from the index; who only looks around does not wait for one that
 * has to be made. */
#define LOOK_PATIENCE_MS 1000

/* A node's own data. BACKUP is set once, by whoever made the node; PLACE says what it is. */
struct backup_node {
    _Atomic(struct backup *) backup; /* a reference */
    _Atomic uint32_t place;          /* in the tree, or of a partition */
};

static void *new_data(void)
{
    return calloc(1, sizeof(struct backup_node));
}

static void free_data(void *data)
{
    struct backup_node *n = data;
    backup_unref(atomic_load(&n->backup));
    free(n);
}

static const struct node_ops top_ops, tar_dir_ops, tar_ops, json_ops, tree_dir_ops, tree_file_ops,
    tree_link_ops;

/* The node of NAME in PARENT. A reference. */
static struct node *obtain(struct fs *fs, struct node *parent, const char *name,
                           const struct node_ops *ops, struct backup *b, uint32_t place,
                           struct err *err)
{
    const struct node_template template = {
        .ops = ops, .new_data = new_data, .free_data = free_data};
    struct node *node = inode_obtain(fs->inodes, parent, name, &template, err);
    if (node == NULL || node->ops != ops)
        return node;
    struct backup_node *n = node->data;
    struct backup *none = NULL;
    atomic_store(&n->place, place); /* the same for all who obtain it */
    if (!atomic_compare_exchange_strong(&n->backup, &none, backup_ref(b)))
        backup_unref(b);
    return node;
}

static struct backup *backup_of(const struct node *node)
{
    struct backup_node *n = node->data;
    return atomic_load(&n->backup);
}

static uint32_t place_of(const struct node *node)
{
    struct backup_node *n = node->data;
    return atomic_load(&n->place);
}

/* ---- loading ---- */

struct content_question {
    struct backup *b;
    struct backup_content *content;
};

static bool content_attempt(void *arg, const struct call *call, struct err *err)
{
    struct content_question *q = arg;
    q->content = backup_content(q->b, call, err);
    return q->content != NULL;
}

struct backup_content *backup_await(struct fs *fs, struct backup *b, int64_t patience_ms,
                                    const struct call *call, struct err *err)
{
    struct content_question q = {.b = b};
    struct call bounded = *call;
    if (patience_ms != INT64_MAX && now_ms() + patience_ms < call->deadline_ms)
        bounded.deadline_ms = now_ms() + patience_ms;
    if (patience_ms != INT64_MAX) /* silently: nobody waits for long */
        (void)content_attempt(&q, &bounded, err);
    else
        (void)persist(&fs->persistence, b->info.name, &bounded, content_attempt, &q, err);
    return q.content;
}

/* ---- attributes ---- */

static void fill_plain(struct fs *fs, const struct node *node, mode_t type, uint64_t size,
                       struct fs_entry *out)
{
    attr_fill(fs, node, type, size, backup_of(node)->info.stored_s, out);
    if (type == S_IFREG)
        out->attr.st_mode = S_IFREG | 0400;
    else
        out->attr.st_mode = S_IFDIR | 0500;
}

static void fill_tree(struct fs *fs, const struct node *node, const struct backup_content *c,
                      struct fs_entry *out)
{
    const struct tree_entry *e = backup_tree_at(c->tree, place_of(node));
    const struct member *m = e->facts;
    fill_plain(fs, node, m == NULL || m->type == MEMBER_DIR ? S_IFDIR : S_IFREG, 0, out);
    if (m == NULL) {
        out->attr.st_mode = S_IFDIR | 0700;
        return;
    }
    mode_t type = m->type == MEMBER_DIR ? S_IFDIR : m->type == MEMBER_SYMLINK ? S_IFLNK : S_IFREG;
    const struct member *data = backup_index_data_of(c->index, m);
    uint64_t size = type == S_IFLNK ? strlen(m->link) : data == NULL ? 0 : data->size;
    out->attr.st_mode = type | m->mode;
    out->attr.st_size = (off_t)size;
    out->attr.st_blocks = (blkcnt_t)((size + 511) / 512);
    if (fs->opt.true_owners) {
        out->attr.st_uid = m->uid;
        out->attr.st_gid = m->gid;
    }
    out->attr.st_mtim.tv_sec = m->mtime_s;
    out->attr.st_mtim.tv_nsec = m->mtime_ns;
    out->attr.st_atim = out->attr.st_ctim = out->attr.st_mtim;
}

/* After a lookup has found NODE, whose reference is taken over. */
static bool give_entry(struct fs *fs, struct node *node, struct fs_entry *out,
                       const struct call *call, struct err *err)
{
    bool ok = node != NULL && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- base_X/ ---- */

struct node *backup_obtain_top(struct fs *fs, struct node *backups, const char *name,
                               const struct call *call, struct err *err)
{
    struct backup *b = backup_open(fs->backup_set, name, call, err);
    if (b == NULL)
        return NULL;
    struct node *node = obtain(fs, backups, name, &top_ops, b, 0, err);
    if (node != NULL && (node->ops != &top_ops || backup_of(node) != b)) {
        /* it was incomplete, or was deleted and made anew */
        node_unlink(fs->inodes, node);
        node_unref(fs->inodes, node);
        node = obtain(fs, backups, name, &top_ops, b, 0, err);
    }
    backup_unref(b);
    return node;
}

static bool top_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                        const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    fill_plain(fs, node, S_IFDIR, 0, out);
    return true;
}

static bool top_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct backup *b = backup_of(dir);
    struct node *node = NULL;
    if (strcmp(name, "pgdata") == 0) {
        node = obtain(fs, dir, name, &tree_dir_ops, b, 0, err);
    } else if (strcmp(name, "tar") == 0) {
        node = obtain(fs, dir, name, &tar_dir_ops, b, 0, err);
    } else if (strcmp(name, "backup.json") == 0) {
        node = obtain(fs, dir, name, &json_ops, b, 0, err);
    } else if (strcmp(name, "backup_manifest") == 0) {
        struct backup_content *c = backup_await(fs, b, INT64_MAX, call, err);
        uint32_t place = c == NULL ? TREE_NONE : backup_tree_find(c->tree, name);
        if (place != TREE_NONE)
            node = obtain(fs, dir, name, &tree_file_ops, b, place, err);
        else if (c != NULL)
            err_set(err, ERR_ABSENT, "%s has no backup_manifest", b->info.name);
        backup_content_unref(c);
    } else {
        err_set(err, ERR_ABSENT, "%s/%s: no such file", b->info.name, name);
    }
    return give_entry(fs, node, out, call, err);
}

static bool top_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    dir->done = true;
    return dir_add(dir, "pgdata", S_IFDIR, NULL, 0, err) &&
           dir_add(dir, "tar", S_IFDIR, NULL, 0, err) &&
           dir_add(dir, "backup.json", S_IFREG, NULL, 0, err);
}

static const struct node_ops top_ops = {
    .getattr = top_getattr, .lookup = top_lookup, .list = top_list};

/* ---- backup.json ---- */

/* What is known without making an index. */
static char *json_text(struct fs *fs, struct backup *b, const struct call *call, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct backup_content *c = backup_await(fs, b, LOOK_PATIENCE_MS, call, &ignored);
    if (c == NULL)
        return backup_json_format(&b->info, -1, -1, 0, err);
    int encrypted = -1;
    uint64_t files = 0;
    for (size_t i = 0; i < c->index->partition_count; i++)
        encrypted = c->index->partitions[i].encrypted || encrypted == 1;
    for (size_t i = 0; i < c->index->count; i++)
        files += c->index->members[i].type == MEMBER_FILE;
    char *text = backup_json_format(&b->info, encrypted, (int64_t)c->objects.size, files, err);
    backup_content_unref(c);
    return text;
}

static bool json_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    char *text = json_text(fs, backup_of(node), call, err);
    if (text == NULL)
        return false;
    fill_plain(fs, node, S_IFREG, strlen(text), out);
    out->valid_s = 1;
    free(text);
    return true;
}

static bool refuse_writing(const struct node *node, int flags, struct err *err)
{
    return ((flags & O_ACCMODE) != O_WRONLY && (flags & O_TRUNC) == 0) ||
           err_set(err, ERR_DENIED, "%s is complete: nothing in it is changed any more",
                   backup_of(node)->info.name);
}

static bool json_open(struct fs *fs, struct node *node, int flags, pid_t pid,
                      struct handle **handle, const struct call *call, struct err *err)
{
    (void)pid;
    char *text =
        refuse_writing(node, flags, err) ? json_text(fs, backup_of(node), call, err) : NULL;
    *handle = text == NULL ? NULL : backup_text_new(fs, node, text, strlen(text), err);
    free(text);
    return *handle != NULL;
}

static bool json_xattrs(struct fs *fs, struct node *node, struct xattr_list *list,
                        const struct call *call, struct err *err)
{
    return backup_xattrs_of_sentinel(fs, backup_of(node), list, call, err);
}

static const struct node_ops json_ops = {
    .getattr = json_getattr, .open = json_open, .xattrs = json_xattrs};

/* ---- tar/ ---- */

static void tar_name(const struct backup_content *c, size_t i, char out[64])
{
    (void)snprintf(out, 64, "part_%08u.tar", c->index->partitions[i].number);
}

static bool tar_dir_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                            const struct call *call, struct err *err)
{
    return top_getattr(fs, node, out, call, err);
}

static bool tar_dir_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                           struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct backup *b = backup_of(dir);
    struct backup_content *c = backup_await(fs, b, INT64_MAX, call, err);
    if (c == NULL)
        return false;
    size_t i = 0, count = c->index->partition_count;
    for (char have[64]; i < count; i++) {
        tar_name(c, i, have);
        if (strcmp(have, name) == 0)
            break;
    }
    backup_content_unref(c);
    if (i == count)
        return err_set(err, ERR_ABSENT, "%s/tar/%s: no such partition", b->info.name, name);
    return give_entry(fs, obtain(fs, dir, name, &tar_ops, b, (uint32_t)i, err), out, call, err);
}

static bool tar_dir_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    struct backup *b = backup_of(dir->node);
    struct backup_content *c = backup_await(fs, b, INT64_MAX, call, err);
    bool ok = c != NULL;
    for (size_t i = 0; ok && i < c->index->partition_count; i++) {
        char name[64];
        tar_name(c, i, name);
        ok = dir_add(dir, name, S_IFREG, NULL, 0, err);
    }
    backup_content_unref(c);
    dir->done = true;
    return ok;
}

static const struct node_ops tar_dir_ops = {
    .getattr = tar_dir_getattr, .lookup = tar_dir_lookup, .list = tar_dir_list};

/* In which the node's place says what the node is. A reference. */
static struct backup_content *content_of(struct fs *fs, const struct node *node,
                                         const struct call *call, struct err *err)
{
    return backup_await(fs, backup_of(node), INT64_MAX, call, err);
}

static bool tar_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                        const struct call *call, struct err *err)
{
    struct backup_content *c = content_of(fs, node, call, err);
    if (c == NULL)
        return false;
    fill_plain(fs, node, S_IFREG, c->index->partitions[place_of(node)].map.plain_size, out);
    backup_content_unref(c);
    return true;
}

static bool tar_open(struct fs *fs, struct node *node, int flags, pid_t pid, struct handle **handle,
                     const struct call *call, struct err *err)
{
    (void)pid;
    struct backup_content *c =
        refuse_writing(node, flags, err) ? content_of(fs, node, call, err) : NULL;
    if (c == NULL)
        return false;
    size_t i = place_of(node);
    *handle = backup_reader_new(fs, node, backup_of(node), c, i, 0,
                                c->index->partitions[i].map.plain_size, err);
    backup_content_unref(c);
    return *handle != NULL;
}

static bool tar_xattrs(struct fs *fs, struct node *node, struct xattr_list *list,
                       const struct call *call, struct err *err)
{
    struct backup_content *c = content_of(fs, node, call, err);
    bool ok = c != NULL &&
              backup_xattrs_of_partition(fs, backup_of(node), c, place_of(node), list, call, err);
    backup_content_unref(c);
    return ok;
}

static const struct node_ops tar_ops = {
    .getattr = tar_getattr, .open = tar_open, .xattrs = tar_xattrs};

/* ---- pgdata/ ---- */

static bool tree_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    struct err ignored = ERR_INIT;
    bool root = place_of(node) == 0;
    struct backup_content *c =
        root ? backup_await(fs, backup_of(node), LOOK_PATIENCE_MS, call, &ignored)
             : content_of(fs, node, call, err);
    bool known = c != NULL;
    if (known) {
        fill_tree(fs, node, c, out);
    } else if (root) {
        fill_plain(fs, node, S_IFDIR, 0, out);
        out->valid_s = 0;
    }
    backup_content_unref(c);
    return known || root;
}

static const struct node_ops *ops_of_entry(const struct tree_entry *e)
{
    if (tree_entry_is_dir(e))
        return &tree_dir_ops;
    return e->facts->type == MEMBER_SYMLINK ? &tree_link_ops : &tree_file_ops;
}

static bool tree_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                        struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct backup *b = backup_of(dir);
    struct backup_content *c = content_of(fs, dir, call, err);
    if (c == NULL)
        return false;
    uint32_t place = backup_tree_child(c->tree, place_of(dir), name);
    const struct node_ops *ops =
        place == TREE_NONE ? NULL : ops_of_entry(backup_tree_at(c->tree, place));
    backup_content_unref(c);
    if (ops == NULL)
        return err_set(err, ERR_ABSENT, "%s: no such file in this backup", name);
    return give_entry(fs, obtain(fs, dir, name, ops, b, place, err), out, call, err);
}

static mode_t type_of(const struct tree_entry *e)
{
    if (tree_entry_is_dir(e))
        return S_IFDIR;
    return e->facts->type == MEMBER_SYMLINK ? S_IFLNK : S_IFREG;
}

static bool tree_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    struct backup_content *c = content_of(fs, dir->node, call, err);
    if (c == NULL)
        return false;
    static const uint64_t known; /* the tree knows all; entry_of_item asks it */
    bool ok = true;
    uint32_t child = backup_tree_at(c->tree, place_of(dir->node))->first_child;
    while (ok && child != TREE_NONE) {
        const struct tree_entry *e = backup_tree_at(c->tree, child);
        ok = dir_add(dir, tree_entry_name(e), type_of(e), &known, 0, err);
        child = e->next_sibling;
    }
    backup_content_unref(c);
    dir->done = true;
    return ok;
}

static bool tree_entry_of_item(struct fs *fs, struct node *dir, const struct dir_item *item,
                               struct fs_entry *out, const struct call *call, struct err *err)
{
    return tree_lookup(fs, dir, item->name, 0, out, call, err);
}

static bool tree_open(struct fs *fs, struct node *node, int flags, pid_t pid,
                      struct handle **handle, const struct call *call, struct err *err)
{
    (void)pid;
    struct backup *b = backup_of(node);
    struct backup_content *c =
        refuse_writing(node, flags, err) ? content_of(fs, node, call, err) : NULL;
    if (c == NULL)
        return false;
    const struct tree_entry *e = backup_tree_at(c->tree, place_of(node));
    const struct member *m = backup_index_data_of(c->index, e->facts);
    if (m == NULL)
        err_set(err, ERR_CORRUPT, "%s: %s is a link to a file that the backup does not have",
                b->info.name, e->path);
    *handle =
        m == NULL ? NULL : backup_reader_new(fs, node, b, c, m->partition, m->offset, m->size, err);
    backup_content_unref(c);
    return *handle != NULL;
}

static bool tree_xattrs(struct fs *fs, struct node *node, struct xattr_list *list,
                        const struct call *call, struct err *err)
{
    struct backup_content *c = content_of(fs, node, call, err);
    bool ok = c != NULL &&
              backup_xattrs_of_member(c, backup_tree_at(c->tree, place_of(node))->facts, list, err);
    backup_content_unref(c);
    return ok;
}

static bool tree_readlink(struct fs *fs, struct node *node, char *out, size_t cap,
                          const struct call *call, struct err *err)
{
    struct backup_content *c = content_of(fs, node, call, err);
    if (c == NULL)
        return false;
    (void)snprintf(out, cap, "%s", backup_tree_at(c->tree, place_of(node))->facts->link);
    backup_content_unref(c);
    return true;
}

static const struct node_ops tree_dir_ops = {.getattr = tree_getattr,
                                             .lookup = tree_lookup,
                                             .list = tree_list,
                                             .entry_of_item = tree_entry_of_item};
static const struct node_ops tree_file_ops = {
    .getattr = tree_getattr, .open = tree_open, .xattrs = tree_xattrs};
static const struct node_ops tree_link_ops = {.getattr = tree_getattr, .readlink = tree_readlink};
