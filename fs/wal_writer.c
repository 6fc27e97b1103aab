/* Writing a file in wal/.
 *
 * Which close finishes a file? Every descriptor that is closed sends a flush: a shell's after dup2,
 * a child's when it exits with what it inherited, a dying process's. The one that counts is that of
 * the process which opened the file, if it is not dying of a signal or exiting with an error. What
 * is still unpublished when the last descriptor has gone is published then, unless its opener
 * failed; nobody waits for that, so an error goes to the log. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "fs/process.h"
#include "fs/wal.h"

struct writer {
    struct handle base;
    pid_t opener; /* process id; 0 when unknown */
    bool fresh;   /* opened on a new, empty candidate */
    pthread_mutex_t lock;
    struct stage *stage;      /* lock: a reference; NULL until a published file is written to */
    struct plain *plain;      /* lock: a reference; the published content, if it was read */
    bool wrote;               /* lock: through this handle */
    bool opener_failed;       /* lock */
    uint64_t refused_version; /* lock: whose failure a close has reported already; 0 for none */
};

static bool has_written(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool wrote = w->wrote;
    pthread_mutex_unlock(&w->lock);
    return wrote;
}

static struct stage *writer_stage(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    struct stage *s = w->stage == NULL ? NULL : stage_ref(w->stage);
    pthread_mutex_unlock(&w->lock);
    return s;
}

static int64_t waited_ms(struct wal_file *f)
{
    pthread_mutex_lock(&f->lock);
    int64_t ms = f->waited_ms;
    f->waited_ms = 0;
    pthread_mutex_unlock(&f->lock);
    return ms;
}

/* A handle without a stage gets the file's present one, or a copy of what is published. A
 * reference; the handle counts as a writer of it. */
static struct stage *make_stage(struct fs *fs, struct writer *w, const struct call *call,
                                struct err *err)
{
    struct wal_file *f = w->base.node->data;
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, w->base.node, name);
    struct call bounded = *call;
    bounded.deadline_ms = now_ms() + fs->opt.write_timeout_ms;
    struct plain *p = wal_fetch(fs, name, &bounded, err);
    if (p == NULL && err->code != ERR_ABSENT)
        return NULL;
    struct stage *copy =
        p == NULL ? stage_new(&fs->stage_env, false, err) : wal_stage_of_plain(fs, p, err);
    plain_unref(p);
    if (copy == NULL)
        return NULL;
    pthread_mutex_lock(&f->lock);
    pthread_mutex_lock(&w->lock);
    if (w->stage == NULL) {
        if (f->stage == NULL) {
            f->stage = stage_ref(copy);
            f->writers = f->changers = 0;
            f->kept = false;
            wal_file_set_final(f, name);
        }
        f->writers++;
        w->stage = stage_ref(f->stage);
    }
    struct stage *stage = stage_ref(w->stage);
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&f->lock);
    stage_unref(copy);
    return stage;
}

static void note_change(struct writer *w)
{
    struct wal_file *f = w->base.node->data;
    if (has_written(w))
        return;
    pthread_mutex_lock(&f->lock);
    pthread_mutex_lock(&w->lock);
    if (!w->wrote && f->stage == w->stage)
        f->changers++;
    w->wrote = true;
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&f->lock);
}

/* The stage that this handle is about to change; a reference. */
static struct stage *stage_for_change(struct fs *fs, struct writer *w, const struct call *call,
                                      struct err *err)
{
    struct stage *stage = writer_stage(w);
    if (stage == NULL)
        stage = make_stage(fs, w, call, err);
    if (stage != NULL)
        note_change(w);
    return stage;
}

static bool writer_write(struct fs *fs, struct handle *handle, const void *data, size_t n,
                         uint64_t offset, const struct call *call, struct err *err)
{
    struct stage *stage = stage_for_change(fs, (struct writer *)handle, call, err);
    if (stage == NULL)
        return false;
    uint64_t most = WAL_SEGMENT_MAX + UINT64_C(1); /* so that a close finds it too large */
    bool ok = offset <= most && n <= most - offset
                  ? stage_write(stage, data, n, offset, err)
                  : err_set(err, ERR_NO_SPACE, "larger than any WAL file");
    stage_unref(stage);
    return ok;
}

static bool writer_read(struct fs *fs, struct handle *handle, uint64_t offset, size_t size,
                        struct fs_bytes *out, const struct call *call, struct err *err)
{
    struct writer *w = (struct writer *)handle;
    struct stage *stage = writer_stage(w);
    if (stage != NULL) {
        wal_set_bytes(stage_fd(stage), stage_size(stage), offset, size, out);
        stage_unref(stage); /* the handle keeps it */
        return true;
    }
    pthread_mutex_lock(&w->lock);
    struct plain *p = w->plain;
    pthread_mutex_unlock(&w->lock);
    if (p == NULL) {
        char name[INODE_NAME_MAX + 1];
        node_name(fs->inodes, handle->node, name);
        struct plain *fetched = wal_fetch(fs, name, call, err);
        if (fetched == NULL)
            return false;
        pthread_mutex_lock(&w->lock);
        if (w->plain == NULL) {
            w->plain = fetched;
            fetched = NULL;
        }
        p = w->plain;
        pthread_mutex_unlock(&w->lock);
        plain_unref(fetched);
    }
    wal_set_bytes(p->fd, p->size, offset, size, out);
    return true;
}

/* The rename of a .partial to the whole segment needs the content once more, perhaps without a
 * secret key. What has been renamed over meanwhile is not renamed any more. */
static bool keep_partial(struct fs *fs, struct node *node, struct err *err)
{
    char name[INODE_NAME_MAX + 1];
    if (!wal_dir_keep(fs, node, err))
        return false;
    node_name(fs->inodes, node, name);
    if (name[0] == '\0')
        wal_dir_unkeep(fs, node);
    return true;
}

static bool publish(struct fs *fs, struct writer *w, struct stage *stage, const struct call *call,
                    struct err *err)
{
    struct wal_file *f = w->base.node->data;
    char name[WAL_NAME_MAX];
    uint64_t version = stage_version(stage);
    pthread_mutex_lock(&f->lock);
    strcpy(name, f->final_name);
    bool given_up = f->stage == stage && f->given_up != 0 && f->given_up == version;
    pthread_mutex_unlock(&f->lock);
    enum wal_kind kind = wal_name_parse(name).kind;
    if (kind == WAL_OTHER || !stage_dirty(stage))
        return true; /* a temporary is safe enough on this host */
    bool ok = given_up ? err_set(err, ERR_INVALID, "wal/%s: the process that wrote it failed", name)
                       : wal_publish(fs, name, stage, waited_ms(f), call, err);
    if (!ok) {
        pthread_mutex_lock(&w->lock);
        w->refused_version = version;
        pthread_mutex_unlock(&w->lock);
        return false;
    }
    pthread_mutex_lock(&f->lock);
    f->published = true;
    f->size = stage_size(stage);
    f->mtime_s = time(NULL);
    bool keep = kind == WAL_PARTIAL && f->stage == stage;
    f->kept = f->kept || keep;
    struct stage *old = NULL;
    if (kind == WAL_PARTIAL && !keep) { /* what was kept of another writer is not archived now */
        f->kept = false;
        if (f->writers == 0) {
            old = f->stage;
            f->stage = NULL;
        }
    }
    pthread_mutex_unlock(&f->lock);
    stage_unref(old);
    return !keep || keep_partial(fs, w->base.node, err);
}

/* Does this close decide? Marks the writer when its opener has failed. */
static bool flush_decides(struct fs *fs, struct writer *w, pid_t tid)
{
    pid_t pid = process_of_thread(tid);
    if (pid != 0 && w->opener != 0 && pid != w->opener)
        return false;
    enum process_state state = process_state(pid);
    if (state == PROCESS_RUNNING || state == PROCESS_EXITED_WELL)
        return true;
    char name[INODE_NAME_MAX + 1];
    node_name(fs->inodes, w->base.node, name);
    log_warn("wal/%s: not published: its writer, process %d, %s", name, (int)pid,
             state == PROCESS_FAILED
                 ? "was killed or exited with an error"
                 : "exited without closing it, and its exit status is not visible to walefs");
    struct wal_file *f = w->base.node->data;
    pthread_mutex_lock(&f->lock);
    pthread_mutex_lock(&w->lock);
    w->opener_failed = true;
    if (f->stage == w->stage)
        f->given_up = stage_version(w->stage);
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_unlock(&f->lock);
    return false;
}

/* A close of a new file to which nothing was written. A shell closes one descriptor after dup2, and
 * has another; but if this was the last one, the file stays empty, and no WAL file is. */
static bool refuse_empty(struct writer *w, pid_t tid, struct err *err)
{
    struct wal_file *f = w->base.node->data;
    char path_end[WAL_NAME_MAX + 8], name[WAL_NAME_MAX];
    pthread_mutex_lock(&f->lock);
    (void)snprintf(name, sizeof(name), "%s", f->final_name);
    pthread_mutex_unlock(&f->lock);
    (void)snprintf(path_end, sizeof(path_end), "/wal/%s", name);
    pid_t pid = process_of_thread(tid);
    if (name[0] == '\0' || pid == 0 || pid != w->opener || process_state(pid) != PROCESS_RUNNING ||
        process_has_open(pid, path_end, true))
        return true;
    return err_set(err, ERR_INVALID, "refused: %s: empty", name);
}

static bool writer_flush(struct fs *fs, struct handle *handle, pid_t pid, const struct call *call,
                         struct err *err)
{
    struct writer *w = (struct writer *)handle;
    if (w->fresh && !has_written(w))
        return refuse_empty(w, pid, err);
    struct stage *stage = has_written(w) ? writer_stage(w) : NULL;
    bool ok = true;
    if (stage != NULL && stage_dirty(stage) && flush_decides(fs, w, pid)) {
        stage_seal(stage); /* a temporary is coded now, so that its rename is quick */
        ok = publish(fs, w, stage, call, err);
    }
    stage_unref(stage);
    return ok;
}

/* pg_receivewal syncs its .partial through a second descriptor. With a whole segment's name,
 * somebody else's fsync must not publish what its writer has not finished. */
static bool may_publish(struct writer *w, struct err *err)
{
    struct wal_file *f = w->base.node->data;
    pthread_mutex_lock(&f->lock);
    bool partial = wal_name_parse(f->final_name).kind != WAL_SEGMENT;
    pthread_mutex_unlock(&f->lock);
    return partial || has_written(w) ||
           err_set(err, ERR_INVALID, "another process is still writing it");
}

static bool writer_fsync(struct fs *fs, struct handle *handle, const struct call *call,
                         struct err *err)
{
    struct writer *w = (struct writer *)handle;
    struct stage *stage = writer_stage(w);
    bool ok = stage == NULL || !stage_dirty(stage) || may_publish(w, err);
    if (ok && stage != NULL)
        ok = publish(fs, w, stage, call, err);
    stage_unref(stage);
    return ok;
}

static void publish_late(struct fs *fs, struct writer *w)
{
    struct stage *stage = w->stage;
    struct wal_file *f = w->base.node->data;
    pthread_mutex_lock(&f->lock);
    /* who has it open without having written leaves the publishing to those who have */
    bool last = f->stage != stage || f->changers <= 1;
    pthread_mutex_unlock(&f->lock);
    if (!last || !stage_dirty(stage) || !w->wrote || w->opener == 0 || w->opener_failed ||
        w->refused_version == stage_version(stage) || cancel_fired(&fs->stop))
        return;
    struct err err = ERR_INIT;
    const struct call call = {.cancel = &fs->stop, .deadline_ms = DEADLINE_NONE};
    if (!publish(fs, w, stage, &call, &err))
        log_event(LOG_LEVEL_ERROR, &(const struct log_details){.op = "publish", .err = &err},
                  "not published, though its writer has gone without an error: %s", err.text);
}

static void writer_release(struct fs *fs, struct handle *handle)
{
    struct writer *w = (struct writer *)handle;
    struct wal_file *f = w->base.node->data;
    if (w->stage != NULL) {
        publish_late(fs, w);
        pthread_mutex_lock(&f->lock);
        bool temporary = f->temporary;
        bool last = f->stage == w->stage && f->writers == 1;
        if (last && !temporary && stage_dirty(w->stage))
            f->kept = false; /* a .partial that could not be published */
        if (w->wrote && f->stage == w->stage)
            f->changers--;
        pthread_mutex_unlock(&f->lock);
        if (!temporary && last)
            stage_abandon(w->stage);
        wal_drop_writer(f, w->stage);
        stage_unref(w->stage);
    }
    plain_unref(w->plain);
    backing_leave(&fs->backing_kernel, &w->base.backing);
    node_unref(fs->inodes, w->base.node);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static bool writer_getattr(struct fs *fs, const struct handle *handle, struct fs_entry *out)
{
    struct writer *w = (struct writer *)handle;
    struct stage *stage = writer_stage(w);
    pthread_mutex_lock(&w->lock);
    const struct plain *plain = w->plain; /* stays as long as the handle */
    pthread_mutex_unlock(&w->lock);
    bool ok = wal_held_entry(fs, handle->node, stage, plain, out);
    stage_unref(stage);
    return ok;
}

static const struct handle_ops writer_ops = {.read = writer_read,
                                             .write = writer_write,
                                             .flush = writer_flush,
                                             .fsync = writer_fsync,
                                             .release = writer_release,
                                             .getattr = writer_getattr};

struct handle *wal_writer_new(struct fs *fs, struct node *node, struct stage *stage,
                              const struct backing_use *backing, pid_t pid, struct err *err)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->base = (struct handle){
        .ops = &writer_ops, .node = node_ref(fs->inodes, node), .backing = *backing};
    w->opener = process_of_thread(pid);
    w->stage = stage;
    w->fresh = stage != NULL && stage_version(stage) == 0;
    pthread_mutex_init(&w->lock, NULL);
    return &w->base;
}

bool wal_writer_truncate(struct fs *fs, struct handle *handle, uint64_t size,
                         const struct call *call, struct err *err)
{
    struct stage *stage = stage_for_change(fs, (struct writer *)handle, call, err);
    bool ok = stage != NULL && stage_truncate(stage, size, err);
    stage_unref(stage);
    return ok;
}

bool wal_is_writer(const struct handle *handle)
{
    return handle != NULL && handle->ops == &writer_ops;
}
