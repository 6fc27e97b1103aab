/* A file in wal/ as a node: its attributes, its stage, opening it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/fnv.h"
#include "fs/wal.h"
#include "fs/xattr.h"

/* Above all numbers of nodes. */
#define NAMED_NUMBER (UINT64_C(1) << 63)

static void *file_new_data(void)
{
    struct wal_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return NULL;
    pthread_mutex_init(&f->lock, NULL);
    backing_init(&f->backing);
    return f;
}

static void file_free_data(void *data)
{
    struct wal_file *f = data;
    stage_unref(f->stage);
    pthread_mutex_destroy(&f->lock);
    backing_destroy(&f->backing);
    free(f);
}

const struct node_template wal_file_template = {
    .ops = &wal_file_ops, .new_data = file_new_data, .free_data = file_free_data};

/* ---- attributes ---- */

struct stage *wal_file_stage(struct wal_file *f)
{
    pthread_mutex_lock(&f->lock);
    struct stage *s = f->stage == NULL ? NULL : stage_ref(f->stage);
    pthread_mutex_unlock(&f->lock);
    return s;
}

void wal_attr_fill(struct fs *fs, struct node *node, uint64_t size, int64_t mtime_s,
                   struct fs_entry *out)
{
    struct wal_file *f = node->data;
    char name[INODE_NAME_MAX + 1];
    attr_fill(fs, node, S_IFREG, size, mtime_s, out);
    node_name(fs->inodes, node, name);
    pthread_mutex_lock(&f->lock);
    if (wal_name_parse(name).kind != WAL_OTHER)
        f->shown_number = NAMED_NUMBER | fnv(FNV_START, name, strlen(name));
    if (f->shown_number != 0)
        out->attr.st_ino = f->shown_number;
    pthread_mutex_unlock(&f->lock);
}

bool wal_file_entry(struct fs *fs, struct node *node, struct fs_entry *out, const struct call *call,
                    struct err *err)
{
    struct wal_file *f = node->data;
    (void)call;
    (void)err;
    struct stage *stage = wal_file_stage(f);
    pthread_mutex_lock(&f->lock);
    bool published = f->published;
    uint64_t size = f->size;
    int64_t mtime_s = f->mtime_s;
    pthread_mutex_unlock(&f->lock);
    if (stage != NULL && !published)
        size = stage_size(stage);
    wal_attr_fill(fs, node, size, mtime_s, out);
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    if (stage != NULL || wal_name_parse(name).kind == WAL_PARTIAL)
        out->valid_s = 0;
    stage_unref(stage);
    return true;
}

bool wal_held_entry(struct fs *fs, struct node *node, struct stage *stage,
                    const struct plain *plain, struct fs_entry *out)
{
    struct wal_file *f = node->data;
    if (stage != NULL) {
        pthread_mutex_lock(&f->lock);
        int64_t mtime_s = f->mtime_s;
        pthread_mutex_unlock(&f->lock);
        wal_attr_fill(fs, node, stage_size(stage), mtime_s, out);
    } else if (plain != NULL) {
        wal_attr_fill(fs, node, plain->size, plain->info.mtime_s, out);
    } else {
        return false;
    }
    out->valid_s = 0;
    return true;
}

static bool file_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    struct wal_file *f = node->data;
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    struct stage *stage = wal_file_stage(f);
    bool local = stage != NULL || name[0] == '\0';
    stage_unref(stage);
    if (!local) {
        struct wal_stat st;
        const struct call bounded = bounded_for_writers(fs, 4, call);
        int64_t begun_ms = now_ms();
        if (wal_stat(fs, name, &st, &bounded, err)) {
            pthread_mutex_lock(&f->lock);
            f->published = true;
            f->size = st.size;
            f->mtime_s = st.mtime_s;
            f->waited_ms = 0;
            pthread_mutex_unlock(&f->lock);
        } else if (!err_transient(err->code) || bounded.deadline_ms == call->deadline_ms) {
            return false;
        } else { /* what was known last: as for a lookup in wal_dir.c */
            pthread_mutex_lock(&f->lock);
            f->waited_ms += now_ms() - begun_ms;
            pthread_mutex_unlock(&f->lock);
        }
    }
    return wal_file_entry(fs, node, out, call, err);
}

/* What is only staged has no object. */
static bool file_xattrs(struct fs *fs, struct node *node, struct xattr_list *list,
                        const struct call *call, struct err *err)
{
    struct wal_file *f = node->data;
    char name[INODE_NAME_MAX + 1], key[STORE_KEY_MAX], what[INODE_NAME_MAX + 8];
    node_name(fs->inodes, node, name);
    struct stage *stage = wal_file_stage(f);
    bool staged = stage != NULL && stage_dirty(stage);
    stage_unref(stage);
    if (staged || wal_name_parse(name).kind == WAL_OTHER ||
        !wal_key_of_name(name, key, sizeof(key)))
        return true;
    (void)snprintf(what, sizeof(what), "wal/%s", name);
    return xattr_add_object_persistently(fs, what, key, list, call, err);
}

/* ---- stages ---- */

void wal_file_set_final(struct wal_file *f, const char *name)
{
    f->final_name[0] = '\0';
    if (wal_name_parse(name).kind != WAL_OTHER)
        strcpy(f->final_name, name); /* PostgreSQL's names are far shorter */
    f->given_up = 0;
}

struct stage *wal_new_stage(struct fs *fs, struct wal_file *f, const char *name, struct err *err)
{
    /* pg_receivewal writes a .partial twice over: coding it while it is written is in vain */
    bool live = wal_name_parse(name).kind != WAL_PARTIAL;
    struct stage *stage = stage_new(&fs->stage_env, live, err);
    if (stage == NULL)
        return NULL;
    pthread_mutex_lock(&f->lock);
    struct stage *old = f->stage;
    f->stage = stage_ref(stage);
    f->writers = 1;
    f->changers = 0;
    f->kept = f->temporary;
    wal_file_set_final(f, name);
    if (!f->published)
        f->mtime_s = time(NULL);
    pthread_mutex_unlock(&f->lock);
    stage_unref(old);
    return stage;
}

struct stage *wal_stage_of_plain(struct fs *fs, const struct plain *plain, struct err *err)
{
    enum { CHUNK = 256 * 1024 };
    struct stage *stage = stage_new(&fs->stage_env, false, err);
    char *chunk = stage == NULL ? NULL : malloc(CHUNK);
    bool ok = chunk != NULL;
    if (stage != NULL && chunk == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    for (uint64_t pos = 0; ok && pos < plain->size;) {
        ssize_t n = spool_read(plain->fd, chunk, CHUNK, pos, err);
        ok = n > 0 && stage_write(stage, chunk, (size_t)n, pos, err);
        if (n == 0)
            err_set(err, ERR_LOCAL, "a cached file is shorter than its size");
        pos += ok ? (uint64_t)n : 0;
    }
    free(chunk);
    if (ok) {
        stage_saved(stage, stage_version(stage));
        return stage;
    }
    stage_unref(stage);
    return NULL;
}

void wal_drop_writer(struct wal_file *f, const struct stage *stage)
{
    struct stage *old = NULL;
    pthread_mutex_lock(&f->lock);
    if (f->stage == stage && --f->writers == 0 && !f->kept) {
        old = f->stage;
        f->stage = NULL;
    }
    pthread_mutex_unlock(&f->lock);
    stage_unref(old);
}

/* ---- opening ---- */

bool wal_file_enter_writer(struct fs *fs, struct node *node, struct backing_use *use,
                           struct err *err)
{
    struct wal_file *f = node->data;
    char name[INODE_NAME_MAX + 1];
    if (!backing_enter(&f->backing, &fs->backing_kernel, -1, use, err)) {
        node_unlink(fs->inodes, node);
        return false;
    }
    node_name(fs->inodes, node, name);
    if (name[0] != '\0')
        return true;
    backing_leave(&fs->backing_kernel, use);
    *use = (struct backing_use){.backing = NULL};
    backing_pause(&fs->backing_kernel);
    return err_set(err, ERR_STALE, "another file has its name now");
}

static bool file_open(struct fs *fs, struct node *node, int flags, pid_t pid,
                      struct handle **handle, const struct call *call, struct err *err)
{
    struct wal_file *f = node->data;
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    if ((flags & O_ACCMODE) == O_RDONLY) {
        /* Renamed over or deleted since it was looked up. The kernel looks the name up again on
         * ESTALE; an ENOENT would deny a file that exists. */
        if (name[0] == '\0')
            return err_set(err, ERR_STALE, "another file has its name now");
        *handle = wal_reader_new(fs, node, name, call, err);
        return *handle != NULL;
    }
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "wal/%s: the mount is read-only", name);
    struct stage *stage = NULL;
    struct backing_use backing;
    if (!wal_file_enter_writer(fs, node, &backing, err))
        return false;
    if ((flags & O_TRUNC) != 0) {
        stage = wal_new_stage(fs, f, name, err);
        if (stage == NULL)
            goto fail;
    } else {
        pthread_mutex_lock(&f->lock);
        if (f->stage != NULL) {
            stage = stage_ref(f->stage);
            f->writers++;
        }
        pthread_mutex_unlock(&f->lock);
    }
    *handle = wal_writer_new(fs, node, stage, &backing, pid, err);
    if (*handle != NULL)
        return true;
fail:
    if (stage != NULL)
        wal_drop_writer(f, stage);
    stage_unref(stage);
    backing_leave(&fs->backing_kernel, &backing);
    return false;
}

static bool set_size(struct fs *fs, struct node *node, uint64_t size, struct handle *handle,
                     const struct call *call, struct err *err)
{
    struct wal_file *f = node->data;
    if (wal_is_writer(handle))
        return wal_writer_truncate(fs, handle, size, call, err);
    struct stage *stage = wal_file_stage(f);
    if (stage != NULL) {
        bool ok = stage_truncate(stage, size, err);
        stage_unref(stage);
        return ok;
    }
    pthread_mutex_lock(&f->lock);
    bool same = f->published && f->size == size;
    pthread_mutex_unlock(&f->lock);
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, node, name);
    return same || err_set(err, ERR_DENIED, "wal/%s is archived: its size cannot be changed", name);
}

/* Mode, owner and times of what is archived are the archive's; setting them is accepted, because
 * cp, rsync and pg_receivewal do it. A temporary keeps its time, for rsync's sake. */
static bool file_setattr(struct fs *fs, struct node *node, const struct fs_setattr *set,
                         struct handle *handle, struct fs_entry *out, const struct call *call,
                         struct err *err)
{
    struct wal_file *f = node->data;
    if (set->set_size && !set_size(fs, node, set->size, handle, call, err))
        return false;
    if (set->set_mtime) {
        pthread_mutex_lock(&f->lock);
        if (!f->published)
            f->mtime_s = set->mtime_s == INT64_MIN ? time(NULL) : set->mtime_s;
        pthread_mutex_unlock(&f->lock);
    }
    return file_getattr(fs, node, out, call, err);
}

const struct node_ops wal_file_ops = {
    .getattr = file_getattr, .setattr = file_setattr, .open = file_open, .xattrs = file_xattrs};
