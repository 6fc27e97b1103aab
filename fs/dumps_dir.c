/* Directories under dumps/. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "fs/dumps.h"

/* ---- paths ---- */

bool dump_path(struct fs *fs, const struct node *node, char path[STORE_KEY_MAX], struct err *err)
{
    return inode_path(fs->inodes, node, fs->dumps->top, path, STORE_KEY_MAX) ||
           err_set(err, ERR_STALE, "it was renamed, replaced or deleted");
}

bool dump_child_path(struct fs *fs, const struct node *dir, const char *name,
                     char path[STORE_KEY_MAX], struct err *err)
{
    char key[STORE_KEY_MAX];
    if (!dump_path(fs, dir, path, err))
        return false;
    size_t used = strlen(path);
    int n = snprintf(path + used, STORE_KEY_MAX - used, "%s%s", used == 0 ? "" : "/", name);
    if (n < 0 || (size_t)n >= STORE_KEY_MAX - used)
        return err_set(err, ERR_INVALID, "dumps/%.100s...: too long", path);
    return dump_key(path, key, err);
}

struct call dump_bounded(const struct fs *fs, const struct call *call)
{
    struct call bounded = *call;
    int64_t end_ms = now_ms() + fs->opt.write_timeout_ms;
    if (bounded.deadline_ms > end_ms)
        bounded.deadline_ms = end_ms;
    return bounded;
}

/* A node of NAME that exists on this host, with a reference; NULL for none. */
static struct node *find_local(struct fs *fs, struct node *dir, const char *name)
{
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node != NULL && dumps_is_kept(fs, node))
        return node;
    node_unref(fs->inodes, node);
    return NULL;
}

/* ---- looking ---- */

static bool dir_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                        const struct call *call, struct err *err)
{
    bool ok = fixed_dir_getattr(fs, node, out, call, err);
    if (node != fs->dumps->top)
        out->valid_s = DUMP_VALID_S;
    return ok;
}

static struct node *obtain_dir(struct fs *fs, struct node *dir, const char *name, struct err *err)
{
    for (;;) {
        struct node *node = inode_obtain(fs->inodes, dir, name, &dumps_dir_template, err);
        if (node == NULL || dump_is_dir(node))
            return node;
        node_unlink(fs->inodes, node); /* a file that another host has deleted */
        node_unref(fs->inodes, node);
    }
}

/* The node of NAME, with a reference; NULL with ERR_ABSENT when there is none. */
static struct node *find(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                         struct err *err)
{
    char path[STORE_KEY_MAX];
    struct dump_stat st;
    bool exists;
    if (!dump_name_ok(name)) {
        err_set(err, ERR_ABSENT, "no dump can have such a name");
        return NULL;
    }
    if (!dump_child_path(fs, dir, name, path, err)) {
        if (err->code == ERR_INVALID)
            err->code = ERR_ABSENT;
        return NULL;
    }
    struct node *node = find_local(fs, dir, name);
    if (node != NULL)
        return node;
    if (dump_stat(fs, path, &st, call, err))
        return dump_obtain(fs, dir, name, &st, err);
    if (err->code != ERR_ABSENT || !dump_dir_exists(fs, path, &exists, call, err))
        return NULL;
    if (exists)
        return obtain_dir(fs, dir, name, err);
    err_set(err, ERR_ABSENT, "dumps/%.200s: no such file", path);
    return NULL;
}

static bool dir_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    struct node *node = find(fs, dir, name, call, err);
    bool ok = node != NULL && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- listing ---- */

static bool list_local(struct fs *fs, struct dir *dir, struct err *err)
{
    struct dumps *d = fs->dumps;
    bool ok = true;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->kept_count && ok; i++) {
        char name[INODE_NAME_MAX + 1];
        if (!node_is_in(fs->inodes, d->kept[i], dir->node))
            continue;
        node_name(fs->inodes, d->kept[i], name);
        if (name[0] != '\0')
            ok = dir_add(dir, name, dump_is_dir(d->kept[i]) ? S_IFDIR : S_IFREG, NULL, 0, err);
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

struct page_question {
    struct fs *fs;
    struct store_list what;
    struct store_page page;
    struct dump_facts_page facts;
};

static bool page_attempt(void *arg, const struct call *call, struct err *err)
{
    struct page_question *q = arg;
    struct store *store = q->fs->opt.store;
    store_page_free(&q->page);
    dump_facts_page_free(&q->facts);
    q->page = (struct store_page){0};
    return store->ops->list(store, &q->what, &q->page, call, err) &&
           dump_facts_list(q->fs, q->what.prefix, &q->page, &q->facts, call, err);
}

static bool list_entry(struct fs *fs, struct dir *dir, const struct page_question *q,
                       const struct store_entry *e, struct err *err)
{
    char name[DUMP_NAME_MAX + 1];
    if (!dump_name_of_key(q->what.prefix, e->key, e->is_prefix, name))
        return true;
    struct node *local = find_local(fs, dir->node, name);
    node_unref(fs->inodes, local);
    if (local != NULL) /* listed already */
        return true;
    if (e->is_prefix)
        return dir_add(dir, name, S_IFDIR, NULL, 0, err);
    const struct dump_facts *facts = dump_facts_on_page(&q->facts, e->key, e->etag);
    if (!dir_add(dir, name, S_IFREG, facts == NULL ? NULL : &facts->size, e->mtime_s, err))
        return false;
    if (facts == NULL)
        return true;
    struct dir_item *item = &dir->items[dir->count - 1];
    item->stored = e->size;
    item->encrypted = facts->encrypted;
    item->etag = strdup(e->etag);
    return item->etag != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
}

static bool dir_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    char path[STORE_KEY_MAX], prefix[STORE_KEY_MAX], what[128];
    if (!dump_path(fs, dir->node, path, err) || !dump_dir_prefix(path, prefix, err) ||
        (dir->token == NULL && !list_local(fs, dir, err)))
        return false;
    struct page_question q = {.fs = fs,
                              .what = {.prefix = prefix, .delimiter = "/", .token = dir->token}};
    (void)snprintf(what, sizeof(what), "listing dumps/%.90s", path);
    const struct call bounded = bounded_for_writers(fs, 4, call);
    bool ok = persist(&fs->persistence, what, &bounded, page_attempt, &q, err);
    for (size_t i = 0; ok && i < q.page.count; i++)
        ok = list_entry(fs, dir, &q, &q.page.entries[i], err);
    if (ok) {
        free(dir->token);
        dir->token = q.page.next;
        q.page.next = NULL;
        dir->done = !q.page.more;
    }
    store_page_free(&q.page);
    dump_facts_page_free(&q.facts);
    return ok;
}

static bool entry_of_item(struct fs *fs, struct node *dir, const struct dir_item *item,
                          struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)call;
    struct dump_stat st = {.facts = {.size = item->size, .encrypted = item->encrypted},
                           .known = true,
                           .stored = item->stored,
                           .mtime_s = item->mtime_s};
    (void)snprintf(st.facts.etag, sizeof(st.facts.etag), "%s", item->etag);
    struct node *node = dump_obtain(fs, dir, item->name, &st, err);
    if (node == NULL)
        return false;
    dump_entry(fs, node, out);
    node_add_lookup(fs->inodes, node);
    node_unref(fs->inodes, node);
    return true;
}

/* ---- making ---- */

static bool writable(struct fs *fs, const struct node *dir, const char *name,
                     char path[STORE_KEY_MAX], struct err *err)
{
    if (!dump_child_path(fs, dir, name, path, err)) {
        if (err->code == ERR_INVALID &&
            (strlen(name) > DUMP_NAME_MAX || strlen(path) > DUMP_PATH_MAX))
            err->sys_errno = ENAMETOOLONG;
        return false;
    }
    return (!fs->opt.read_only ||
            err_set(err, ERR_DENIED, "dumps/%.200s: the mount is read-only", path));
}

static bool dir_create(struct fs *fs, struct node *dir, const char *name, int flags, mode_t mode,
                       pid_t pid, struct fs_entry *out, struct handle **handle,
                       const struct call *call, struct err *err)
{
    char path[STORE_KEY_MAX];
    (void)mode;
    if (!writable(fs, dir, name, path, err))
        return false;
    struct node *node = inode_obtain(fs->inodes, dir, name, &dump_file_template, err);
    if (node == NULL)
        return false;
    bool file = node->ops == dump_file_template.ops, ok = false;
    bool is_new = file && !dump_is_published(node) && !dump_is_written(node);
    if (file && !is_new && (flags & O_EXCL) == 0) {
        /* it has come into being since the kernel looked */
        ok = node->ops->open(fs, node, flags | O_TRUNC, pid, handle, call, err);
    } else if (!is_new) {
        err_set(err, ERR_EXISTS, "dumps/%.200s exists", path);
    } else if (dump_begin_writing(fs, node, err)) {
        *handle = dump_writer_new(fs, node, path, flags, false, pid, err);
        ok = *handle != NULL;
        if (!ok)
            dump_end_writing(fs, node);
    }
    ok = ok && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

static bool dir_mkdir(struct fs *fs, struct node *dir, const char *name, mode_t mode,
                      struct fs_entry *out, const struct call *call, struct err *err)
{
    char path[STORE_KEY_MAX];
    (void)mode;
    if (!writable(fs, dir, name, path, err))
        return false;
    struct node *node = find_local(fs, dir, name);
    if (node != NULL) {
        node_unref(fs->inodes, node);
        return err_set(err, ERR_EXISTS, "dumps/%.200s exists", path);
    }
    node = obtain_dir(fs, dir, name, err);
    bool ok = node != NULL && dumps_keep(fs, node, err) && node_give(fs, node, out, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- removing ---- */

static bool remove_dir(struct fs *fs, struct node *dir, const char *name, const char *path,
                       const struct call *call, struct err *err)
{
    bool exists;
    struct call bounded = dump_bounded(fs, call);
    if (!dump_dir_exists(fs, path, &exists, &bounded, err))
        return false;
    struct node *node = inode_find(fs->inodes, dir, name);
    bool ok = !exists && (node == NULL || !dumps_has_kept(fs, node));
    if (!ok) {
        err_set(err, ERR_NOT_EMPTY, "dumps/%.200s is not empty", path);
    } else if (node != NULL) {
        node_unlink(fs->inodes, node);
        dumps_unkeep(fs, node);
    }
    node_unref(fs->inodes, node);
    return ok;
}

static bool dir_rmdir(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                      struct err *err)
{
    struct dump_claim claim;
    if (!writable(fs, dir, name, claim.path, err) || !dumps_claim(fs, &claim, err))
        return false;
    bool ok = remove_dir(fs, dir, name, claim.path, call, err);
    dumps_end_claim(fs, &claim);
    return ok;
}

/* Its writer, if somebody writes it, will find that it has no name. */
static void lose_name(struct fs *fs, struct node *dir, const char *name)
{
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node != NULL)
        node_unlink(fs->inodes, node);
    node_unref(fs->inodes, node);
}

/* A file that nobody has published. */
static bool is_local_file(struct fs *fs, struct node *dir, const char *name)
{
    struct node *node = find_local(fs, dir, name);
    bool local = node != NULL && !dump_is_dir(node) && !dump_is_published(node);
    node_unref(fs->inodes, node);
    return local;
}

static bool remove_file(struct fs *fs, struct node *dir, const char *name, const char *path,
                        const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX];
    const char *keys[] = {key};
    struct call bounded = dump_bounded(fs, call);
    if (!is_local_file(fs, dir, name)) {
        if (!fs->opt.allow_delete)
            return err_set(err, ERR_DENIED,
                           "dumps/%.200s stays: the mount is without -o allow_delete", path);
        if (!dump_key(path, key, err) || !dumps_keep_dirs(fs, dir, err) ||
            !fs->opt.store->ops->remove(fs->opt.store, keys, 1, &bounded, err))
            return false;
        dump_facts_drop(fs, key, NULL, &bounded);
    }
    lose_name(fs, dir, name);
    return true;
}

static bool dir_unlink(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                       struct err *err)
{
    struct dump_claim claim;
    if (!writable(fs, dir, name, claim.path, err) || !dumps_claim(fs, &claim, err))
        return false;
    bool ok = remove_file(fs, dir, name, claim.path, call, err);
    dumps_end_claim(fs, &claim);
    return ok;
}

static const struct node_ops dir_ops = {.getattr = dir_getattr,
                                        .lookup = dir_lookup,
                                        .list = dir_list,
                                        .entry_of_item = entry_of_item,
                                        .create = dir_create,
                                        .mkdir = dir_mkdir,
                                        .rmdir = dir_rmdir,
                                        .unlink = dir_unlink,
                                        .move = dump_move};

const struct node_template dumps_dir_template = {.ops = &dir_ops};

bool dump_is_dir(const struct node *node)
{
    return node->ops == &dir_ops;
}
