#include "core/partition_write.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/part_sink.h"
#include "core/pipe.h"

#define PIPE_BYTES (1u << 20)
#define PART_BYTES (8u << 20)
#define PARTS_AT_ONCE 2u
#define CHUNK (128u << 10)

struct partition_write {
    struct partition_write_options opt;
    struct cancel cancel; /* ends the job when nobody wants its result any more */
    struct cancel_watch watch;
    struct call call; /* the options', with that cancel */
    char *key;
    struct archive *archive;
    struct sink *pipe; /* the writer's end; NULL when it is closed */
    struct source *coder_end;
    struct pipe *both;
    EVP_MD_CTX *sum;
    uint64_t written; /* plain bytes */
    struct err err;   /* of the pipe, when it has failed */
    bool failed;
    char *chunk;

    pthread_mutex_t lock;
    pthread_cond_t ended_cond;
    bool started, ended, ok;         /* lock: the job */
    struct err job_err;              /* lock */
    struct partition_written result; /* the job's until it has ended */
};

/* ---- the job: coding and uploading ---- */

static bool code(struct partition_write *w, struct err *err)
{
    const struct part_sink_options options = {.store = w->opt.store,
                                              .pool = w->opt.pool,
                                              .key = w->key,
                                              .part_bytes = PART_BYTES,
                                              .parallel = PARTS_AT_ONCE,
                                              .stall_ms = w->opt.stall_ms,
                                              .call = &w->call,
                                              .info = &w->result.info};
    struct sink *out = part_sink_new(&options, err);
    bool ok = out != NULL &&
              codec_encode(w->opt.pgp, w->coder_end, out, false, &w->result.facts, &w->call, err);
    sink_close(out);
    return ok;
}

static void code_job(void *arg)
{
    struct partition_write *w = arg;
    struct err err = ERR_INIT;
    bool ok = code(w, &err);
    if (!ok)
        pipe_fail(w->both, &err);
    source_close(w->coder_end);
    pthread_mutex_lock(&w->lock);
    w->ok = ok;
    w->job_err = err;
    w->ended = true;
    pthread_cond_broadcast(&w->ended_cond);
    pthread_mutex_unlock(&w->lock);
}

/* ---- the tar stream ---- */

static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t n)
{
    struct partition_write *w = arg;
    if (w->pipe != NULL && !w->failed && w->pipe->write(w->pipe, data, n, &w->err) &&
        EVP_DigestUpdate(w->sum, data, n) == 1) {
        w->written += n;
        return (la_ssize_t)n;
    }
    w->failed = true;
    archive_set_error(a, EIO, "the partition cannot be stored");
    return -1;
}

static bool tar_failed(struct partition_write *w, const char *path, struct err *err)
{
    if (w->failed && w->err.code != ERR_NONE) {
        *err = w->err;
        return false;
    }
    const char *why = archive_error_string(w->archive);
    return err_set(err, ERR_INVALID, "%.200s does not fit a tar file: %s", path,
                   why == NULL ? "?" : why);
}

static void on_cancel(void *arg)
{
    cancel_fire(arg);
}

/* The two ends free the pipe: each is there, or is closed. */
static bool start(struct partition_write *w, struct err *err)
{
    w->both = pipe_new(PIPE_BYTES, err);
    if (w->both == NULL)
        return false;
    w->pipe = pipe_sink(w->both, &w->call);
    w->coder_end = pipe_source(w->both, &w->call);
    w->started = true;
    if (pool_submit(w->opt.pool, code_job, w, err))
        return true;
    source_close(w->coder_end);
    w->started = false;
    return false;
}

struct partition_write *partition_write_new(const struct partition_write_options *options,
                                            struct err *err)
{
    struct partition_write *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->opt = *options;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->ended_cond, NULL);
    cancel_init(&w->cancel);
    w->call = *options->call;
    w->call.cancel = &w->cancel;
    cancel_watch(options->call->cancel, &w->watch, on_cancel, &w->cancel);
    w->key = strdup(options->key);
    w->sum = EVP_MD_CTX_new();
    w->chunk = malloc(CHUNK);
    w->archive = archive_write_new();
    if (w->key == NULL || w->sum == NULL || w->chunk == NULL || w->archive == NULL ||
        EVP_DigestInit_ex(w->sum, EVP_sha256(), NULL) != 1) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        goto fail;
    }
    if (!start(w, err))
        goto fail;
    /* nothing is held back: what was written tells where the next byte stands */
    if (archive_write_set_format_pax(w->archive) == ARCHIVE_OK &&
        archive_write_set_bytes_per_block(w->archive, 0) == ARCHIVE_OK &&
        archive_write_open(w->archive, w, NULL, on_write, NULL) == ARCHIVE_OK)
        return w;
    tar_failed(w, w->key, err);
fail:
    partition_write_free(w);
    return NULL;
}

static struct archive_entry *entry_of(const struct member *m)
{
    struct archive_entry *e = archive_entry_new();
    if (e == NULL)
        return NULL;
    archive_entry_copy_pathname(e, m->path[0] == '\0' ? "." : m->path);
    archive_entry_set_filetype(e, m->type == MEMBER_DIR       ? AE_IFDIR
                                  : m->type == MEMBER_SYMLINK ? AE_IFLNK
                                                              : AE_IFREG);
    if (m->type == MEMBER_SYMLINK)
        archive_entry_copy_symlink(e, m->link);
    archive_entry_set_perm(e, m->mode);
    archive_entry_set_uid(e, m->uid);
    archive_entry_set_gid(e, m->gid);
    archive_entry_set_mtime(e, m->mtime_s, m->mtime_ns);
    archive_entry_set_size(e, m->type == MEMBER_FILE ? (int64_t)m->size : 0);
    return e;
}

static bool write_data(struct partition_write *w, const struct member *m, struct source *data,
                       struct err *err)
{
    for (uint64_t left = m->size; left > 0;) {
        ssize_t n = data->read(data, w->chunk, left < CHUNK ? (size_t)left : CHUNK, err);
        if (n == 0)
            err_set(err, ERR_INVALID, "%.200s is shorter than it was announced", m->path);
        if (n <= 0)
            return false;
        for (la_ssize_t done = 0; done < n;) {
            la_ssize_t put = archive_write_data(w->archive, w->chunk + done, (size_t)(n - done));
            if (put <= 0)
                return tar_failed(w, m->path, err);
            done += put;
        }
        left -= (uint64_t)n;
    }
    return true;
}

bool partition_write_member(struct partition_write *w, const struct member *m, struct source *data,
                            uint64_t *offset, struct err *err)
{
    struct archive_entry *e = entry_of(m);
    if (e == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    int rc = archive_write_header(w->archive, e);
    archive_entry_free(e);
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
        return tar_failed(w, m->path, err);
    *offset = w->written;
    return (m->type != MEMBER_FILE || m->size == 0 || write_data(w, m, data, err)) &&
           (archive_write_finish_entry(w->archive) == ARCHIVE_OK || tar_failed(w, m->path, err));
}

/* ---- its end ---- */

bool partition_write_end(struct partition_write *w, struct err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (archive_write_close(w->archive) != ARCHIVE_OK)
        return tar_failed(w, w->key, err);
    if (EVP_DigestFinal_ex(w->sum, sum, NULL) != 1)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(w->result.sha256 + 2 * i, 3, "%02x", sum[i]);
    bool ok = w->pipe->finish(w->pipe, err);
    sink_close(w->pipe);
    w->pipe = NULL;
    return ok;
}

/* The job ends by itself: its call is bounded, and its pipe has an end. */
static void await_job(struct partition_write *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->started && !w->ended)
        pthread_cond_wait(&w->ended_cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

bool partition_write_wait(struct partition_write *w, struct partition_written *out, struct err *err)
{
    await_job(w);
    if (!w->ok) {
        *err = w->job_err;
        return false;
    }
    *out = w->result;
    w->result.facts.map = (struct lzop_map)LZOP_MAP_INIT;
    return true;
}

void partition_write_free(struct partition_write *w)
{
    if (w == NULL)
        return;
    if (w->archive != NULL) {
        w->failed = true; /* freeing writes the end of the tar, which is of no use then */
        archive_write_free(w->archive);
    }
    sink_close(w->pipe);
    cancel_fire(&w->cancel);
    await_job(w);
    cancel_unwatch(w->opt.call->cancel, &w->watch);
    cancel_destroy(&w->cancel);
    lzop_map_free(&w->result.facts.map);
    EVP_MD_CTX_free(w->sum);
    pthread_cond_destroy(&w->ended_cond);
    pthread_mutex_destroy(&w->lock);
    free(w->chunk);
    free(w->key);
    free(w);
}
