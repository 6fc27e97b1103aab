/* Open files of a base backup that is being written. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/pipe.h"
#include "core/spool.h"
#include "core/waiter.h"
#include "fs/new_backup.h"
#include "fs/process.h"

#define PIPE_BYTES (1u << 20)

/* A tar file on its way: what is written to it is read by a thread, which makes partitions of it.
 */
struct tar_stream {
    struct new_backup *backup; /* borrowed: the file that owns this has a reference */
    char prefix[64];
    struct sink *pipe; /* the backup's lock for the pointer; used by one write at a time */
    struct pipe *both;
    struct source *tar;
    pthread_t thread;
    bool busy;      /* the backup's lock: a write is under way */
    bool sealed;    /* the backup's lock: its end has been written */
    bool ended, ok; /* the backup's lock: the thread has come to the end */
    bool joined;
};

struct new_writer {
    struct handle base;
    pid_t opener;
    bool writable, wrote;
    bool closed; /* the backup's lock: some close has come since the last write */
};

/* ---- tar streams ---- */

/* The pool must not go while a reader may still submit to it: see new_backups_stop. */
static void count_reader(struct fs *fs, bool begins)
{
    pthread_mutex_lock(&fs->new_backups_lock);
    fs->tar_readers += begins ? 1u : -1u;
    pthread_cond_broadcast(&fs->tar_reader_ended);
    pthread_mutex_unlock(&fs->new_backups_lock);
}

static void *read_tar(void *arg)
{
    struct tar_stream *s = arg;
    struct new_backup *nb = s->backup;
    struct fs *fs = nb->fs;
    struct err err = ERR_INIT, ignored = ERR_INIT;
    struct backup_write *w = new_backup_take(nb, &err);
    bool ok = w != NULL && backup_write_tar(w, s->tar, s->prefix, &err);
    if (w != NULL)
        new_backup_give(nb);
    if (!ok) {
        pipe_fail(s->both, &err);
        new_backup_fail(nb, &err, &ignored);
    }
    source_close(s->tar);
    pthread_mutex_lock(&nb->lock);
    s->ok = ok;
    s->ended = true;
    pthread_cond_broadcast(&nb->changed);
    pthread_mutex_unlock(&nb->lock);
    count_reader(fs, false);
    return NULL;
}

static struct tar_stream *tar_stream_new(struct new_backup *nb, const char *name, struct err *err)
{
    struct tar_stream *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->backup = nb;
    if (strcmp(name, "base.tar") != 0)
        (void)snprintf(s->prefix, sizeof(s->prefix), "pg_tblspc/%.*s",
                       (int)strspn(name, "0123456789"), name);
    s->both = pipe_new(PIPE_BYTES, err);
    if (s->both == NULL) {
        free(s);
        return NULL;
    }
    s->pipe = pipe_sink(s->both, &nb->call);
    s->tar = pipe_source(s->both, &nb->call);
    count_reader(nb->fs, true);
    int rc = pthread_create(&s->thread, NULL, read_tar, s);
    if (rc == 0)
        return s;
    count_reader(nb->fs, false);
    sink_close(s->pipe);
    source_close(s->tar);
    free(s);
    err_sys(err, rc, "cannot start a thread");
    return NULL;
}

static void join(struct tar_stream *s)
{
    if (!s->joined)
        pthread_join(s->thread, NULL);
    s->joined = true;
}

static void end_job(void *arg)
{
    struct tar_stream *s = arg;
    struct new_backup *nb = s->backup;
    join(s);
    free(s);
    new_backup_unref(nb);
}

/* The reader may hang in a store for a while, and this thread may be one that receives requests (a
 * forget): so the pool waits for it, and the end of the mount for the pool. */
void tar_stream_end(struct tar_stream *s)
{
    struct err ignored = ERR_INIT;
    if (s == NULL)
        return;
    if (s->pipe != NULL)
        sink_close(s->pipe); /* without finish: the reader sees a stream that broke off */
    struct fs *fs = s->backup->fs;
    new_backup_ref(s->backup);
    if (cancel_fired(&fs->stop) || !pool_submit(fs->opt.pool, end_job, s, &ignored))
        end_job(s);
}

bool tar_stream_done(struct tar_stream *s, struct err *err)
{
    if (s == NULL)
        return err_set(err, ERR_INVALID, "nothing was written to it");
    struct new_backup *nb = s->backup;
    pthread_mutex_lock(&nb->lock);
    bool done = s->ended && s->ok;
    pthread_mutex_unlock(&nb->lock);
    return done || err_set(err, ERR_INVALID, "it is not finished");
}

static bool tar_write(struct new_file *f, const char *name, const void *data, size_t n,
                      uint64_t offset, struct err *err)
{
    struct new_backup *nb = f->backup;
    bool ok = true;
    if (f->stream == NULL && offset == 0)
        f->stream = tar_stream_new(nb, name, err);
    struct tar_stream *s = f->stream;
    if (s == NULL)
        return offset == 0 ? false
                           : err_set(err, ERR_INVALID, "%s is written from its start", name);
    pthread_mutex_lock(&nb->lock);
    if (s->busy || s->sealed || offset != f->size)
        ok = err_set(err, ERR_INVALID,
                     "%s/%s is written once, from front to back: its parts are archived while they "
                     "arrive",
                     nb->label, name);
    else
        s->busy = true;
    pthread_mutex_unlock(&nb->lock);
    if (!ok)
        return false;
    ok = s->pipe->write(s->pipe, data, n, err);
    pthread_mutex_lock(&nb->lock);
    s->busy = false;
    f->size += ok ? n : 0;
    f->mtime_s = time(NULL);
    bool failed = nb->failed;
    if (!ok && failed)
        *err = nb->err;
    pthread_mutex_unlock(&nb->lock);
    return ok;
}

/* Its writer closes it: the whole stream must have been read, and be sound. */
static bool tar_close(struct new_file *f, const char *name, struct err *err)
{
    struct tar_stream *s = f->stream;
    struct new_backup *nb = f->backup;
    if (s == NULL)
        return true;
    pthread_mutex_lock(&nb->lock);
    bool first = !s->sealed;
    s->sealed = true;
    pthread_mutex_unlock(&nb->lock);
    if (first) {
        (void)s->pipe->finish(s->pipe, err);
        sink_close(s->pipe);
        s->pipe = NULL;
    }
    /* what the thread waits for is bounded: uploads that stand still fail */
    struct waiter w;
    waiter_begin(&w, &nb->call, &nb->lock, &nb->changed);
    pthread_mutex_lock(&nb->lock);
    while (!s->ended && (waiter_wait(&w) || nb->failed)) {
        if (nb->failed)
            break;
    }
    bool ok = s->ended && s->ok && !nb->failed;
    if (!ok && nb->failed)
        *err = nb->err;
    else if (!ok)
        err_set(err, ERR_INVALID, "%s/%s is not a whole tar stream", nb->label, name);
    pthread_mutex_unlock(&nb->lock);
    waiter_end(&w);
    return ok;
}

/* ---- writers ---- */

void new_file_enter_locked(struct new_file *f)
{
    struct new_backup *nb = f->backup;
    f->writers++;
    nb->writers++;
    if (f->queued) { /* it may change once more */
        f->queued = false;
        nb->queued--;
        nb->queued_bytes -= f->size;
    }
}

bool new_file_leave_locked(struct new_file *f)
{
    struct new_backup *nb = f->backup;
    nb->writers--;
    pthread_cond_broadcast(&nb->changed);
    if (--f->writers > 0)
        return false;
    if (!f->tar && !f->final && nb->kind == NEW_TREE && !f->queued && f->listed) {
        f->queued = true;
        nb->queued++;
        nb->queued_bytes += f->size;
    }
    return true;
}

/* ---- handles ---- */

static struct new_file *file_of(const struct handle *h)
{
    return h->node->data;
}

static void name_of(struct fs *fs, const struct handle *h, char name[INODE_NAME_MAX + 1])
{
    node_name(fs->inodes, h->node, name);
}

static bool new_read(struct fs *fs, struct handle *h, uint64_t offset, size_t size,
                     struct fs_bytes *out, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    struct new_file *f = file_of(h);
    pthread_mutex_lock(&f->backup->lock);
    uint64_t left = offset < f->size ? f->size - offset : 0;
    struct staged *staged = f->staged == NULL ? NULL : staged_ref(f->staged);
    pthread_mutex_unlock(&f->backup->lock);
    if (staged == NULL)
        return err_set(err, ERR_UNSUPPORTED,
                       "what is archived of a backup can be read when the backup is complete");
    *out = (struct fs_bytes){.fd = staged->fd,
                             .offset = offset,
                             .size = size < left ? size : (size_t)left,
                             .staged = staged};
    return true;
}

static bool stage_bytes(struct new_file *f, const void *data, size_t n, uint64_t offset,
                        struct err *err)
{
    struct new_backup *nb = f->backup;
    pthread_mutex_lock(&nb->lock);
    struct staged *staged = f->final ? NULL : staged_ref(f->staged);
    pthread_mutex_unlock(&nb->lock);
    if (staged == NULL)
        return err_set(err, ERR_BUSY, "a file that is archived already cannot change");
    /* This handle keeps it from being packed. Where space is short, what is closed makes room. */
    bool ok = spool_write(staged->fd, data, n, offset, err);
    if (!ok && err->code == ERR_NO_SPACE && new_backup_pack_some(nb, true, err))
        ok = spool_write(staged->fd, data, n, offset, err);
    staged_unref(staged);
    if (!ok)
        return false;
    pthread_mutex_lock(&nb->lock);
    uint64_t end = offset + n;
    if (end > f->size) {
        if (f->queued)
            nb->queued_bytes += end - f->size;
        f->size = end;
    }
    f->mtime_s = time(NULL);
    f->mtime_ns = 0;
    pthread_mutex_unlock(&nb->lock);
    return true;
}

static void set_closed(struct new_writer *w, bool closed)
{
    struct new_backup *nb = file_of(&w->base)->backup;
    pthread_mutex_lock(&nb->lock);
    if (w->writable && w->closed != closed) {
        nb->unclosed += closed ? -1u : 1u;
        w->closed = closed;
        pthread_cond_broadcast(&nb->changed);
    }
    pthread_mutex_unlock(&nb->lock);
}

static bool new_write(struct fs *fs, struct handle *h, const void *data, size_t n, uint64_t offset,
                      const struct call *call, struct err *err)
{
    (void)call;
    struct new_writer *w = (struct new_writer *)h;
    struct new_file *f = file_of(h);
    char name[INODE_NAME_MAX + 1];
    if (!new_backup_alive(f->backup, err))
        return false;
    w->wrote = true;
    set_closed(w, false);
    name_of(fs, h, name);
    bool ok =
        f->tar ? tar_write(f, name, data, n, offset, err) : stage_bytes(f, data, n, offset, err);
    return ok || new_backup_lacks(f->backup, err);
}

/* The close of the process that opened it counts; one that dies or fails takes the backup along. */
static bool new_flush(struct fs *fs, struct handle *h, pid_t pid, const struct call *call,
                      struct err *err)
{
    (void)call;
    struct new_writer *w = (struct new_writer *)h;
    struct new_file *f = file_of(h);
    char name[INODE_NAME_MAX + 1];
    pid_t process = process_of_thread(pid);
    set_closed(w, true);
    if (!w->wrote || (w->opener != 0 && process != w->opener))
        return true;
    name_of(fs, h, name);
    if (process != 0 && process_state(process) == PROCESS_FAILED) {
        struct err failed = ERR_INIT;
        err_set(&failed, ERR_UNAVAILABLE, "the writer of %s has failed or was killed", name);
        return new_backup_fail(f->backup, &failed, err);
    }
    if (!new_backup_alive(f->backup, err))
        return false;
    return !f->tar || tar_close(f, name, err);
}

/* pg_basebackup syncs everything before it renames the manifest: one without a manifest would end
 * well without ever having completed the backup. */
static bool new_fsync(struct fs *fs, struct handle *h, const struct call *call, struct err *err)
{
    (void)call;
    struct new_file *f = file_of(h);
    struct new_backup *nb = f->backup;
    struct err ignored = ERR_INIT;
    if (!new_backup_alive(nb, err))
        return false;
    if (!f->tar || nb->partial)
        return true;
    struct node *tmp = inode_find(fs->inodes, nb->top, "backup_manifest.tmp");
    bool found = tmp != NULL;
    node_unref(fs->inodes, tmp);
    if (found)
        return true;
    struct err none = ERR_INIT;
    err_set(&none, ERR_INVALID,
            "there is no backup_manifest, whose rename completes a backup: run pg_basebackup "
            "without --no-manifest, or into basebackups/%s" NEW_BACKUP_PARTIAL
            " and rename that directory afterwards",
            nb->label);
    new_backup_fail(nb, &none, &ignored);
    *err = none;
    return false;
}

static void new_release(struct fs *fs, struct handle *h)
{
    struct new_file *f = file_of(h);
    struct new_backup *nb = f->backup;
    struct err err = ERR_INIT, ignored = ERR_INIT;
    pthread_mutex_lock(&nb->lock);
    bool last = new_handle_leave_locked(h);
    bool broken = last && f->tar && f->stream != NULL && !f->stream->sealed;
    bool alive = !nb->failed && !nb->committed;
    pthread_mutex_unlock(&nb->lock);
    if (broken && alive) {
        err_set(&err, ERR_INVALID, "a tar stream was never finished");
        new_backup_fail(nb, &err, &ignored);
    }
    if (last && alive && !broken && !new_backup_pack_some(nb, false, &err))
        new_backup_fail(nb, &err, &ignored);
    node_unref(fs->inodes, h->node);
    free(h);
}

static const struct handle_ops new_handle_ops = {.read = new_read,
                                                 .write = new_write,
                                                 .flush = new_flush,
                                                 .fsync = new_fsync,
                                                 .release = new_release};

struct handle *new_handle(struct fs *fs, struct node *node, int flags, pid_t pid, struct err *err)
{
    struct new_writer *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->base = (struct handle){.ops = &new_handle_ops, .node = node_ref(fs->inodes, node)};
    w->opener = process_of_thread(pid);
    w->writable = (flags & O_ACCMODE) != O_RDONLY;
    return &w->base;
}

void new_handle_enter_locked(struct handle *h)
{
    struct new_writer *w = (struct new_writer *)h;
    if (!w->writable)
        return;
    new_file_enter_locked(file_of(h));
    file_of(h)->backup->unclosed++;
}

bool new_handle_leave_locked(struct handle *h)
{
    struct new_writer *w = (struct new_writer *)h;
    if (!w->writable)
        return false;
    file_of(h)->backup->unclosed -= !w->closed;
    return new_file_leave_locked(file_of(h));
}

void new_handle_drop(struct fs *fs, struct handle *h)
{
    if (h == NULL)
        return;
    node_unref(fs->inodes, h->node);
    free(h);
}
