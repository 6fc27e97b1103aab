#include "core/object_write.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/part_sink.h"
#include "core/pipe.h"

#define PIPE_BYTES (1u << 20)
#define PART_BYTES (8u << 20)
#define PARTS_AT_ONCE 2u
/* A slow writer asks so often whether a gpg place has become free. */
#define PLACE_POLL_MS 100

struct object_write {
    struct object_write_options opt;
    struct cancel cancel; /* ends the job when nobody wants its result any more */
    struct cancel_watch watch;
    struct call call; /* the options', with that cancel */
    char *key;
    struct sink *in; /* the writer's end; NULL when it is closed */
    struct source *out;
    struct pipe *both;

    pthread_mutex_t lock;
    pthread_cond_t ended_cond;
    bool started, ended, ok;      /* lock: the job */
    struct err job_err;           /* lock */
    struct object_written result; /* the job's until it has ended */
};

/* A place that is held for a writer who is slow could be one that another file of the same writer
 * waits for. So what fits the pipe is encrypted when it is complete, in a place that somebody gives
 * back soon; the rest takes a place when one is free, and leaves half of them to others. */
static bool encode(struct object_write *w, struct sink *out, struct err *err)
{
    for (;;) {
        bool ended = !w->opt.slow || pipe_await(w->both, PIPE_BYTES / 2, &w->call);
        if (codec_encode(w->opt.pgp, w->out, out, !ended, &w->result.facts, &w->call, err))
            return true;
        if (ended || err->code != ERR_THROTTLED || !openpgp_encrypts(w->opt.pgp))
            return false;
        if (!cancel_sleep_ms(w->call.cancel, PLACE_POLL_MS))
            return call_alive(&w->call, w->key, err);
        lzop_map_free(&w->result.facts.map);
    }
}

static bool code(struct object_write *w, struct err *err)
{
    const struct part_sink_options options = {.store = w->opt.store,
                                              .pool = w->opt.pool,
                                              .key = w->key,
                                              .only_if_absent = w->opt.only_if_absent,
                                              .part_bytes = PART_BYTES,
                                              .parallel = PARTS_AT_ONCE,
                                              .stall_ms = w->opt.stall_ms,
                                              .call = &w->call,
                                              .info = &w->result.info};
    struct sink *out = part_sink_new(&options, err);
    bool ok = out != NULL && encode(w, out, err);
    sink_close(out);
    return ok;
}

static void code_job(void *arg)
{
    struct object_write *w = arg;
    struct err err = ERR_INIT;
    bool ok = code(w, &err);
    if (!ok)
        pipe_fail(w->both, &err);
    source_close(w->out);
    pthread_mutex_lock(&w->lock);
    w->ok = ok;
    w->job_err = err;
    w->ended = true;
    pthread_cond_broadcast(&w->ended_cond);
    pthread_mutex_unlock(&w->lock);
}

static void on_cancel(void *arg)
{
    cancel_fire(arg);
}

/* The two ends free the pipe: each is there, or is closed. */
static bool start(struct object_write *w, struct err *err)
{
    w->both = pipe_new(PIPE_BYTES, err);
    if (w->both == NULL)
        return false;
    w->in = pipe_sink(w->both, &w->call);
    w->out = pipe_source(w->both, &w->call);
    w->started = true;
    if (w->opt.coders != NULL ? pool_submit_now(w->opt.coders, code_job, w, err)
                              : pool_submit(w->opt.pool, code_job, w, err))
        return true;
    source_close(w->out);
    w->started = false;
    return false;
}

struct object_write *object_write_new(const struct object_write_options *options, struct err *err)
{
    struct object_write *w = calloc(1, sizeof(*w));
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
    if (w->key == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    if (w->key != NULL && start(w, err))
        return w;
    object_write_free(w);
    return NULL;
}

bool object_write_push(struct object_write *w, const void *data, size_t n, struct err *err)
{
    return w->in->write(w->in, data, n, err);
}

bool object_write_end(struct object_write *w, struct err *err)
{
    bool ok = w->in->finish(w->in, err);
    sink_close(w->in);
    w->in = NULL;
    return ok;
}

/* The job ends by itself: its call is bounded, and its pipe has an end. */
static void await_job(struct object_write *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->started && !w->ended)
        pthread_cond_wait(&w->ended_cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

bool object_write_wait(struct object_write *w, struct object_written *out, struct err *err)
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

void object_write_free(struct object_write *w)
{
    if (w == NULL)
        return;
    sink_close(w->in);
    cancel_fire(&w->cancel);
    await_job(w);
    cancel_unwatch(w->opt.call->cancel, &w->watch);
    cancel_destroy(&w->cancel);
    lzop_map_free(&w->result.facts.map);
    pthread_cond_destroy(&w->ended_cond);
    pthread_mutex_destroy(&w->lock);
    free(w->key);
    free(w);
}
