/* Writing a file under dumps/.
 *
 * pg_dump asks whether it can seek in its output; where it can, it writes the custom format's table
 * of contents once more when the data are written, over the first bytes. Those are encrypted and
 * uploaded by then, before anything that follows. So a file that is opened for writing only is a
 * stream, as a pipe is: lseek fails with ESPIPE, and pg_dump does what it does for a pipe. Bytes
 * are coded and uploaded while they arrive, in bounded memory, and nothing of them is on this
 * host's disk. A file that is opened for reading and writing (rsync, mkstemp) is staged in
 * cache_dir, and uploaded when it is closed.
 *
 * Which close finishes a file: as in wal_writer.c, the one by the process that opened it, unless
 * that process still has the file open by another descriptor (what a shell did with dup2). A stream
 * cannot be published twice: what is written after that close is refused.
 *
 * A process whose end walefs could not see may not write at all: what it has written when it is
 * killed would be taken for the whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/spool.h"
#include "fs/dump_writer_impl.h"
#include "fs/process.h"

static struct dump_file *file_of(const struct dump_writer *w)
{
    return w->base.node->data;
}

/* One at a time: the kernel does not write in parallel, but a close may come meanwhile. */
static void take(struct dump_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->busy)
        pthread_cond_wait(&w->idle, &w->lock);
    w->busy = true;
    pthread_mutex_unlock(&w->lock);
}

static void give(struct dump_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->busy = false;
    pthread_cond_broadcast(&w->idle);
    pthread_mutex_unlock(&w->lock);
}

/* ---- writing ---- */

static bool write_bytes(struct fs *fs, struct dump_writer *w, const void *data, size_t n,
                        uint64_t offset, struct err *err)
{
    if (w->fd >= 0) {
        bool ok = spool_write(w->fd, data, n, offset, err);
        if (!ok && err->code == ERR_NO_SPACE)
            err_context(err,
                        "dumps/%s is staged in cache_dir, since it was opened for reading as well; "
                        "what is opened for writing only needs no room there",
                        w->path);
        return ok;
    }
    if (w->published)
        return err_set(
            err, ERR_BUSY,
            "dumps/%s was stored when the process that opened it closed or synced it: it "
            "cannot be continued",
            w->path);
    if (offset != w->size)
        return err_set(err, ERR_INVALID, "dumps/%s is a stream: it is written from front to back",
                       w->path);
    return dump_writer_push(fs, w, data, n, err);
}

static bool writer_write(struct fs *fs, struct handle *h, const void *data, size_t n,
                         uint64_t offset, const struct call *call, struct err *err)
{
    struct dump_writer *w = (struct dump_writer *)h;
    struct dump_file *f = file_of(w);
    (void)call;
    take(w);
    bool ok = dump_writer_alive(w, err);
    if (ok && !write_bytes(fs, w, data, n, offset, err)) {
        ok = false;
        if (!w->published) /* a dump with a hole must not be published by a writer who goes on */
            dump_writer_fail(w, err, err);
    }
    if (ok) {
        pthread_mutex_lock(&w->lock);
        w->wrote = w->dirty = true;
        if (offset + n > w->size)
            w->size = offset + n;
        uint64_t size = w->size;
        pthread_mutex_unlock(&w->lock);
        pthread_mutex_lock(&f->lock);
        f->written = size;
        if (f->facts.etag[0] == '\0')
            f->mtime_s = time(NULL);
        pthread_mutex_unlock(&f->lock);
    }
    give(w);
    return ok;
}

bool dump_writer_truncate(struct handle *h, uint64_t size, struct err *err)
{
    struct dump_writer *w = (struct dump_writer *)h;
    bool ok = true;
    take(w);
    if (size != w->size && w->fd < 0) {
        ok = err_set(err, ERR_INVALID, "dumps/%s is a stream: its size is what is written to it",
                     w->path);
    } else if (size != w->size) {
        ok = ftruncate(w->fd, (off_t)size) == 0 ||
             err_sys(err, errno, "cannot change the size of a staged file");
        pthread_mutex_lock(&w->lock);
        if (ok) {
            w->size = size;
            w->wrote = w->dirty = true;
        }
        pthread_mutex_unlock(&w->lock);
    }
    give(w);
    return ok;
}

static bool writer_read(struct fs *fs, struct handle *h, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    struct dump_writer *w = (struct dump_writer *)h;
    (void)fs;
    (void)call;
    if (w->fd < 0)
        return err_set(err, ERR_DENIED, "it is open for writing");
    pthread_mutex_lock(&w->lock);
    uint64_t left = offset < w->size ? w->size - offset : 0;
    pthread_mutex_unlock(&w->lock);
    *out =
        (struct fs_bytes){.fd = w->fd, .offset = offset, .size = size < left ? size : (size_t)left};
    return true;
}

/* ---- its end ---- */

static bool has_written(struct dump_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool wrote = w->wrote;
    pthread_mutex_unlock(&w->lock);
    return wrote;
}

static void give_up(struct dump_writer *w, pid_t pid, enum process_state state)
{
    struct err why = ERR_INIT;
    log_warn("dumps/%s: not published: its writer, process %d, %s", w->path, (int)pid,
             state == PROCESS_FAILED
                 ? "was killed or exited with an error"
                 : "exited without closing it, and its exit status is not visible to walefs");
    err_set(&why, ERR_INVALID, "dumps/%s: the process that wrote it failed", w->path);
    pthread_mutex_lock(&w->lock);
    w->opener_failed = true;
    pthread_mutex_unlock(&w->lock);
    take(w);
    dump_writer_fail(w, &why, &why);
    give(w);
}

/* Does this close decide? That of the opener does, unless somebody still has the file: itself, by
 * another descriptor, or a process that it has left behind (setsid -f, a job in the background).
 * Then the last close does, whoever's it is. */
static bool decides(struct dump_writer *w, pid_t tid)
{
    char path_end[STORE_KEY_MAX];
    pid_t pid = process_of_thread(tid);
    enum process_state state = process_state(pid);
    bool failed = pid == 0 || state == PROCESS_FAILED || state == PROCESS_EXITED_UNSEEN;
    pthread_mutex_lock(&w->lock);
    w->last_failed = failed;
    pthread_mutex_unlock(&w->lock);
    if (pid != w->opener)
        return false;
    if (failed) {
        give_up(w, pid, state);
        return false;
    }
    (void)snprintf(path_end, sizeof(path_end), "/dumps/%s", w->path);
    return (state != PROCESS_RUNNING || !process_has_open(pid, path_end, false)) &&
           !process_others_have_open(pid, path_end);
}

static bool writer_flush(struct fs *fs, struct handle *h, pid_t pid, const struct call *call,
                         struct err *err)
{
    struct dump_writer *w = (struct dump_writer *)h;
    (void)call;
    if (!decides(w, pid) || !has_written(w))
        return true; /* what stays empty is published when the last descriptor has gone */
    take(w);
    bool ok = dump_writer_publish(fs, w, err);
    give(w);
    return ok;
}

static bool writer_fsync(struct fs *fs, struct handle *h, const struct call *call, struct err *err)
{
    struct dump_writer *w = (struct dump_writer *)h;
    (void)call;
    take(w);
    bool ok = dump_writer_publish(fs, w, err);
    give(w);
    return ok;
}

static void publish_late(struct fs *fs, struct dump_writer *w)
{
    struct err err = ERR_INIT;
    if (w->opener_failed || w->failed || cancel_fired(&fs->stop))
        return;
    if (w->last_failed && !dump_writer_is_stored(w))
        log_warn(
            "dumps/%s: not published: the last process that had it open was killed, exited with "
            "an error, or is not visible to walefs",
            w->path);
    else if (!dump_writer_publish(fs, w, &err))
        log_error("not published, though its writer has gone without an error: %s", err.text);
}

static void writer_release(struct fs *fs, struct handle *h)
{
    struct dump_writer *w = (struct dump_writer *)h;
    publish_late(fs, w);
    object_write_free(w->up);
    dump_end_writing(fs, w->base.node);
    digest_free(w->digest);
    node_unref(fs->inodes, w->base.node);
    if (w->fd >= 0)
        close(w->fd);
    pthread_cond_destroy(&w->idle);
    pthread_mutex_destroy(&w->lock);
    free(w->path);
    free(w->key);
    free(w);
}

static const struct handle_ops writer_ops = {.read = writer_read,
                                             .write = writer_write,
                                             .flush = writer_flush,
                                             .fsync = writer_fsync,
                                             .release = writer_release};

bool dump_is_writer(const struct handle *h)
{
    return h != NULL && h->ops == &writer_ops;
}

struct handle *dump_writer_new(struct fs *fs, struct node *node, const char *path, int flags,
                               bool replace, pid_t pid, struct err *err)
{
    char key[STORE_KEY_MAX];
    pid_t opener = process_of_thread(pid);
    if (!process_is_visible(opener)) {
        err_set(
            err, ERR_DENIED,
            "dumps/%.200s: walefs may not see how the process that opens it for writing will "
            "end (thread %d), and could not tell a whole dump from one that broke off: write as "
            "the user who serves the mount, or serve it as root, in the same pid namespace",
            path, (int)pid);
        return NULL;
    }
    struct dump_writer *w = calloc(1, sizeof(*w));
    bool ok = dump_key(path, key, err);
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->idle, NULL);
    w->fd = -1;
    w->opener = opener;
    w->replace = replace;
    w->call = (struct call){.cancel = &fs->stop, .deadline_ms = DEADLINE_NONE};
    w->path = strdup(path);
    w->key = strdup(key);
    if (ok && (w->path == NULL || w->key == NULL))
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    if (ok && (flags & O_ACCMODE) == O_RDWR) {
        w->fd = spool_open(fs->opt.cache_dir, err);
        ok = w->fd >= 0;
    }
    w->base = (struct handle){
        .ops = &writer_ops, .node = node_ref(fs->inodes, node), .stream = w->fd < 0};
    if (ok)
        return &w->base;
    node_unref(fs->inodes, node);
    pthread_cond_destroy(&w->idle);
    pthread_mutex_destroy(&w->lock);
    free(w->path);
    free(w->key);
    free(w);
    return NULL;
}
