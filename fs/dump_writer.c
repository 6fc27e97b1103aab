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
 * cannot be published twice: what is written after that close is refused. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/digest.h"
#include "core/log.h"
#include "core/spool.h"
#include "fs/dumps.h"
#include "fs/process.h"

#define CHUNK (256u << 10)
#define FACTS_MS 10000 /* so long a close may take for what is not needed */

struct writer {
    struct handle base;
    char *path, *key;
    pid_t opener; /* process id; 0 when unknown */
    bool replace;
    int fd; /* of what is staged; -1 for a stream */
    struct call call;
    struct digest *digest;   /* busy: of the stream */
    struct object_write *up; /* busy: NULL before the first byte, and when it is over */

    pthread_mutex_t lock;
    pthread_cond_t idle;
    bool busy;          /* lock: somebody writes or publishes */
    bool wrote, dirty;  /* lock */
    bool published;     /* lock: by this handle */
    bool failed;        /* lock: for good */
    bool opener_failed; /* lock */
    bool last_failed;   /* lock: who closed last was killed, or failed, as far as can be seen */
    struct err err;     /* lock: why it failed */
    uint64_t size;      /* lock: of what was written */
};

static struct dump_file *file_of(const struct writer *w)
{
    return w->base.node->data;
}

/* One at a time: the kernel does not write in parallel, but a close may come meanwhile. */
static void take(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->busy)
        pthread_cond_wait(&w->idle, &w->lock);
    w->busy = true;
    pthread_mutex_unlock(&w->lock);
}

static void give(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->busy = false;
    pthread_cond_broadcast(&w->idle);
    pthread_mutex_unlock(&w->lock);
}

/* For good: the upload ends, and nothing of it stays. Returns false, with ERR = REASON. */
static bool fail_writer(struct writer *w, const struct err *reason, struct err *err)
{
    pthread_mutex_lock(&w->lock);
    if (!w->failed)
        w->err = *reason;
    w->failed = true;
    pthread_mutex_unlock(&w->lock);
    object_write_free(w->up);
    w->up = NULL;
    if (err != reason)
        *err = *reason;
    return false;
}

static bool alive(struct writer *w, struct err *err)
{
    pthread_mutex_lock(&w->lock);
    bool failed = w->failed;
    if (failed)
        *err = w->err;
    pthread_mutex_unlock(&w->lock);
    return !failed;
}

/* ---- the object ---- */

static bool start(struct fs *fs, struct writer *w, struct err *err)
{
    const struct object_write_options options = {.store = fs->opt.store,
                                                 .pgp = fs->opt.pgp,
                                                 .pool = fs->opt.pool,
                                                 .key = w->key,
                                                 .only_if_absent = !w->replace && !w->published,
                                                 .slow = w->fd < 0,
                                                 .stall_ms = fs->opt.write_timeout_ms,
                                                 .call = &w->call};
    digest_free(w->digest);
    w->digest = digest_new(NULL, err);
    if (w->digest == NULL)
        return false;
    w->up = object_write_new(&options, err);
    return w->up != NULL;
}

static bool push(struct writer *w, const void *data, size_t n, struct err *err)
{
    return digest_update(w->digest, data, n, err) && object_write_push(w->up, data, n, err);
}

static bool push_staged(struct writer *w, struct err *err)
{
    char *chunk = malloc(CHUNK);
    uint64_t size = w->size;
    bool ok = chunk != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
    for (uint64_t pos = 0; ok && pos < size;) {
        size_t want = size - pos < CHUNK ? (size_t)(size - pos) : CHUNK;
        ssize_t n = spool_read(w->fd, chunk, want, pos, err);
        if (n == 0)
            err_set(err, ERR_LOCAL, "a staged file is shorter than its size");
        ok = n > 0 && push(w, chunk, (size_t)n, err);
        pos += ok ? (uint64_t)n : 0;
    }
    free(chunk);
    return ok;
}

static bool store(struct fs *fs, struct writer *w, struct object_written *out, struct err *err)
{
    if (w->up == NULL && !start(fs, w, err))
        return false;
    bool ok = (w->fd < 0 || push_staged(w, err)) && object_write_end(w->up, err) &&
              object_write_wait(w->up, out, err);
    object_write_free(w->up);
    w->up = NULL;
    return ok;
}

static void note_published(struct fs *fs, struct writer *w, const struct object_written *done)
{
    struct dump_stat st = {.facts = {.size = w->size, .encrypted = done->facts.encrypted},
                           .known = true,
                           .stored = done->info.size,
                           .mtime_s = time(NULL)};
    const struct call call = {.cancel = &fs->stop, .deadline_ms = now_ms() + FACTS_MS};
    char digest[DIGEST_TEXT_MAX];
    struct err err = ERR_INIT;
    memcpy(st.facts.etag, done->info.etag, sizeof(st.facts.etag));
    bool again = w->replace || w->published;
    dump_set_published(w->base.node, &st);
    dump_facts_put(fs, w->key, &st.facts, &done->facts.map,
                   digest_final(w->digest, digest, &err) ? digest : NULL, &call);
    if (again) {
        dump_facts_drop(fs, w->key, st.facts.etag, &call);
        /* the kernel may have cached the old content for this inode */
        node_unlink(fs->inodes, w->base.node);
    }
    log_debug("stored dumps/%s: %llu bytes as %llu", w->path, (unsigned long long)w->size,
              (unsigned long long)done->info.size);
}

/* By who is busy: stores what was written, unless it is stored. */
static bool publish(struct fs *fs, struct writer *w, struct err *err)
{
    char name[INODE_NAME_MAX + 1];
    struct object_written done;
    if (!alive(w, err))
        return false;
    pthread_mutex_lock(&w->lock);
    bool done_already = w->published && !w->dirty;
    pthread_mutex_unlock(&w->lock);
    if (done_already)
        return true;
    node_name(fs->inodes, w->base.node, name);
    if ((name[0] == '\0' && !w->published) || dump_is_deleted(w->base.node)) {
        err_set(err, ERR_CANCELLED, "dumps/%s was deleted while it was written", w->path);
        fail_writer(w, err, err);
        return true; /* as everywhere: who deletes a file that is open loses what is written */
    }
    if (!store(fs, w, &done, err)) {
        err_context(err, "dumps/%s is not stored", w->path);
        return fail_writer(w, err, err);
    }
    note_published(fs, w, &done);
    lzop_map_free(&done.facts.map);
    pthread_mutex_lock(&w->lock);
    w->published = true;
    w->dirty = false;
    pthread_mutex_unlock(&w->lock);
    return true;
}

/* ---- writing ---- */

static bool write_bytes(struct fs *fs, struct writer *w, const void *data, size_t n,
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
    return (w->up != NULL || start(fs, w, err)) && push(w, data, n, err);
}

static bool writer_write(struct fs *fs, struct handle *h, const void *data, size_t n,
                         uint64_t offset, const struct call *call, struct err *err)
{
    struct writer *w = (struct writer *)h;
    struct dump_file *f = file_of(w);
    (void)call;
    take(w);
    bool ok = alive(w, err);
    if (ok && !write_bytes(fs, w, data, n, offset, err)) {
        ok = false;
        if (!w->published) /* a dump with a hole must not be published by a writer who goes on */
            fail_writer(w, err, err);
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
    struct writer *w = (struct writer *)h;
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
    struct writer *w = (struct writer *)h;
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

static bool has_written(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool wrote = w->wrote;
    pthread_mutex_unlock(&w->lock);
    return wrote;
}

static void give_up(struct writer *w, pid_t pid, enum process_state state)
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
    fail_writer(w, &why, &why);
    give(w);
}

/* Does this close decide? That of the opener does, unless somebody still has the file: itself, by
 * another descriptor, or a process that it has left behind (setsid -f, a job in the background).
 * Then the last close does, whoever's it is. */
static bool decides(struct writer *w, pid_t tid)
{
    char path_end[STORE_KEY_MAX];
    pid_t pid = process_of_thread(tid);
    enum process_state state = process_state(pid);
    bool failed = state == PROCESS_FAILED || state == PROCESS_EXITED_UNSEEN;
    pthread_mutex_lock(&w->lock);
    w->last_failed = failed;
    pthread_mutex_unlock(&w->lock);
    if (pid != 0 && w->opener != 0 && pid != w->opener)
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
    struct writer *w = (struct writer *)h;
    (void)call;
    if (!decides(w, pid) || !has_written(w))
        return true; /* what stays empty is published when the last descriptor has gone */
    take(w);
    bool ok = publish(fs, w, err);
    give(w);
    return ok;
}

static bool writer_fsync(struct fs *fs, struct handle *h, const struct call *call, struct err *err)
{
    struct writer *w = (struct writer *)h;
    (void)call;
    take(w);
    bool ok = publish(fs, w, err);
    give(w);
    return ok;
}

static void publish_late(struct fs *fs, struct writer *w)
{
    struct err err = ERR_INIT;
    if (w->opener == 0 || w->opener_failed || w->failed || cancel_fired(&fs->stop))
        return;
    bool stored = w->published && !w->dirty;
    if (w->last_failed && !stored)
        log_warn("dumps/%s: not published: the last process that had it open was killed, or exited "
                 "with an error",
                 w->path);
    else if (!publish(fs, w, &err))
        log_error("not published, though its writer has gone without an error: %s", err.text);
}

static void writer_release(struct fs *fs, struct handle *h)
{
    struct writer *w = (struct writer *)h;
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
    struct writer *w = calloc(1, sizeof(*w));
    bool ok = dump_key(path, key, err);
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->idle, NULL);
    w->fd = -1;
    w->opener = process_of_thread(pid);
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
