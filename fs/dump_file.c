/* Files under dumps/: what they are, and opening them. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/dumps.h"
#include "fs/xattr.h"

static void *file_new_data(void)
{
    struct dump_file *f = calloc(1, sizeof(*f));
    if (f != NULL)
        pthread_mutex_init(&f->lock, NULL);
    return f;
}

static void file_free_data(void *data)
{
    struct dump_file *f = data;
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- what is known ---- */

/* With the lock held. */
static void set_object(struct dump_file *f, const struct dump_stat *st)
{
    f->facts = st->facts;
    f->stored = st->stored;
    f->mtime_s = st->mtime_s;
}

void dump_set_published(struct node *node, const struct dump_stat *st)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    set_object(f, st);
    pthread_mutex_unlock(&f->lock);
}

void dump_set_written(struct node *node, const struct dump_stat *st)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    f->replaced += f->facts.etag[0] != '\0';
    set_object(f, st);
    pthread_mutex_unlock(&f->lock);
}

/* Takes ST where nothing was published, or the same, or while somebody here is writing it; false
 * when the node stands for another content. */
static bool takes(struct node *node, const struct dump_stat *st)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    bool same = strcmp(f->facts.etag, st->facts.etag) == 0;
    bool fresh = f->facts.etag[0] == '\0' && !f->writing, ours = f->writing;
    if (same || fresh)
        set_object(f, st);
    pthread_mutex_unlock(&f->lock);
    return same || fresh || ours;
}

struct node *dump_obtain(struct fs *fs, struct node *dir, const char *name,
                         const struct dump_stat *st, struct err *err)
{
    for (;;) {
        struct node *node = inode_obtain(fs->inodes, dir, name, &dump_file_template, err);
        if (node == NULL || (node->ops == dump_file_template.ops && takes(node, st)))
            return node;
        node_unlink(fs->inodes, node); /* another content, or a directory that has gone */
        node_unref(fs->inodes, node);
    }
}

void dump_entry(struct fs *fs, struct node *node, struct fs_entry *out)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    bool published = f->facts.etag[0] != '\0';
    attr_fill(fs, node, S_IFREG, published ? f->facts.size : f->written, f->mtime_s, out);
    out->valid_s = published && !f->writing ? DUMP_VALID_S : 0;
    pthread_mutex_unlock(&f->lock);
}

static bool file_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    dump_entry(fs, node, out);
    return true;
}

/* Mode, owner and times are the archive's; setting them is accepted, because cp and rsync do it. */
static bool file_setattr(struct fs *fs, struct node *node, const struct fs_setattr *set,
                         struct handle *handle, struct fs_entry *out, const struct call *call,
                         struct err *err)
{
    struct dump_file *f = node->data;
    if (set->set_size && dump_is_writer(handle)) {
        if (!dump_writer_truncate(handle, set->size, err))
            return false;
    } else if (set->set_size) {
        pthread_mutex_lock(&f->lock);
        bool same = f->facts.etag[0] != '\0' && f->facts.size == set->size;
        pthread_mutex_unlock(&f->lock);
        if (!same)
            return err_set(err, ERR_DENIED, "a dump's size is what was written");
    }
    return file_getattr(fs, node, out, call, err);
}

/* ---- opening ---- */

bool dump_begin_writing(struct fs *fs, struct node *node, struct err *err)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    bool taken = f->writing;
    if (!taken) {
        f->writing = true;
        f->written = 0;
        if (f->facts.etag[0] == '\0')
            f->mtime_s = time(NULL);
    }
    pthread_mutex_unlock(&f->lock);
    if (taken)
        return err_set(err, ERR_BUSY, "somebody else is writing it");
    if (dumps_keep(fs, node, err))
        return true;
    dump_end_writing(fs, node);
    return false;
}

void dump_end_writing(struct fs *fs, struct node *node)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    f->writing = false;
    bool stays = f->facts.etag[0] != '\0' && f->replaced == 0;
    pthread_mutex_unlock(&f->lock);
    if (!stays)
        node_unlink(fs->inodes, node);
    dumps_unkeep(fs, node);
}

bool dump_is_published(struct node *node)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    bool published = f->facts.etag[0] != '\0';
    pthread_mutex_unlock(&f->lock);
    return published;
}

bool dump_is_written(struct node *node)
{
    struct dump_file *f = node->data;
    pthread_mutex_lock(&f->lock);
    bool writing = f->writing;
    pthread_mutex_unlock(&f->lock);
    return writing;
}

static bool open_new(struct fs *fs, struct node *node, const char *path, int flags, bool published,
                     pid_t pid, struct handle **handle, struct err *err)
{
    if (published && !fs->opt.allow_delete)
        return err_set(err, ERR_EXISTS,
                       "dumps/%.200s exists: write another name and rename it over this one, or "
                       "mount with -o allow_delete",
                       path);
    if (!dump_begin_writing(fs, node, err))
        return false;
    *handle = dump_writer_new(fs, node, path, flags, published, pid, err);
    if (*handle == NULL)
        dump_end_writing(fs, node);
    return *handle != NULL;
}

static bool file_open(struct fs *fs, struct node *node, int flags, pid_t pid,
                      struct handle **handle, const struct call *call, struct err *err)
{
    char path[STORE_KEY_MAX];
    bool writable = (flags & O_ACCMODE) != O_RDONLY;
    (void)call;
    if (!dump_path(fs, node, path, err))
        return false;
    if (writable && fs->opt.read_only)
        return err_set(err, ERR_DENIED, "dumps/%.200s: the mount is read-only", path);
    bool published = dump_is_published(node);
    if (writable && (flags & O_TRUNC) != 0)
        return open_new(fs, node, path, flags, published, pid, handle, err);
    if (!published)
        return err_set(err, ERR_BUSY, "dumps/%.200s is still being written", path);
    /* pg_dumpall -f writes a part, closes it, and has pg_dump append the next */
    if (writable && (flags & O_APPEND) != 0)
        return err_set(err, ERR_DENIED,
                       "dumps/%.200s is stored, and nothing is appended to it: have it written in "
                       "one go, as pg_dumpall > FILE does",
                       path);
    *handle = dump_reader_new(fs, node, path, writable, err);
    return *handle != NULL;
}

static bool file_xattrs(struct fs *fs, struct node *node, struct xattr_list *list,
                        const struct call *call, struct err *err)
{
    char path[STORE_KEY_MAX], key[STORE_KEY_MAX], what[STORE_KEY_MAX + 8], digest[DIGEST_TEXT_MAX];
    struct dump_file *f = node->data;
    if (!dump_is_published(node))
        return true;
    if (!dump_path(fs, node, path, err) || !dump_key(path, key, err))
        return false;
    (void)snprintf(what, sizeof(what), "dumps/%s", path);
    pthread_mutex_lock(&f->lock);
    const struct dump_facts facts = f->facts;
    pthread_mutex_unlock(&f->lock);
    return xattr_add_object_persistently(fs, what, key, list, call, err) &&
           xattr_add(list, err, "size", "%" PRIu64, facts.size) &&
           (!dump_facts_digest(fs, key, &facts, digest, call) ||
            xattr_add(list, err, "checksum", "%s", digest));
}

static const struct node_ops file_ops = {
    .getattr = file_getattr, .setattr = file_setattr, .open = file_open, .xattrs = file_xattrs};

const struct node_template dump_file_template = {
    .ops = &file_ops, .new_data = file_new_data, .free_data = file_free_data};
