/* Storing what was written to a file under dumps/. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/spool.h"
#include "fs/dump_writer_impl.h"

#define CHUNK (256u << 10)
#define FACTS_MS 10000 /* so long a close may take for what is not needed */

bool dump_writer_fail(struct dump_writer *w, const struct err *reason, struct err *err)
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

bool dump_writer_alive(struct dump_writer *w, struct err *err)
{
    pthread_mutex_lock(&w->lock);
    bool failed = w->failed;
    if (failed)
        *err = w->err;
    pthread_mutex_unlock(&w->lock);
    return !failed;
}

/* ---- the object ---- */

static bool start(struct fs *fs, struct dump_writer *w, struct err *err)
{
    const struct object_write_options options = {.store = fs->opt.store,
                                                 .pgp = fs->opt.pgp,
                                                 .pool = fs->opt.pool,
                                                 .coders = fs->opt.coders,
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

static bool push(struct dump_writer *w, const void *data, size_t n, struct err *err)
{
    return digest_update(w->digest, data, n, err) && object_write_push(w->up, data, n, err);
}

bool dump_writer_push(struct fs *fs, struct dump_writer *w, const void *data, size_t n,
                      struct err *err)
{
    return (w->up != NULL || start(fs, w, err)) && push(w, data, n, err);
}

static bool push_staged(struct dump_writer *w, struct err *err)
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

static bool store(struct fs *fs, struct dump_writer *w, struct object_written *out, struct err *err)
{
    if (w->up == NULL && !start(fs, w, err))
        return false;
    bool ok = (w->fd < 0 || push_staged(w, err)) && object_write_end(w->up, err) &&
              object_write_wait(w->up, out, err);
    object_write_free(w->up);
    w->up = NULL;
    return ok;
}

static void note_published(struct fs *fs, struct dump_writer *w, const struct object_written *done)
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
    dump_set_written(w->base.node, &st);
    dump_facts_put(fs, w->key, &st.facts, &done->facts.map,
                   digest_final(w->digest, digest, &err) ? digest : NULL, &call);
    if (again)
        dump_facts_drop(fs, w->key, st.facts.etag, &call);
    log_debug("stored dumps/%s: %llu bytes as %llu", w->path, (unsigned long long)w->size,
              (unsigned long long)done->info.size);
}

bool dump_writer_is_stored(struct dump_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool stored = w->published && !w->dirty;
    pthread_mutex_unlock(&w->lock);
    return stored;
}

static bool store_and_note(struct fs *fs, struct dump_writer *w, struct err *err)
{
    struct object_written done;
    if (!store(fs, w, &done, err)) {
        err_context(err, "dumps/%s is not stored", w->path);
        return dump_writer_fail(w, err, err);
    }
    note_published(fs, w, &done);
    lzop_map_free(&done.facts.map);
    pthread_mutex_lock(&w->lock);
    w->published = true;
    w->dirty = false;
    pthread_mutex_unlock(&w->lock);
    return true;
}

bool dump_writer_publish(struct fs *fs, struct dump_writer *w, struct err *err)
{
    struct dump_claim claim;
    if (!dump_writer_alive(w, err))
        return false;
    if (dump_writer_is_stored(w))
        return true;
    if (!dumps_claim_to_store(fs, w->base.node, &claim)) {
        err_set(err, ERR_CANCELLED, "dumps/%s was deleted while it was written", w->path);
        dump_writer_fail(w, err, err);
        return true;
    }
    bool ok = store_and_note(fs, w, err);
    dumps_end_claim(fs, &claim);
    return ok;
}
