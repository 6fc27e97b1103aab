#include "core/part_sink.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/waiter.h"

/* So often that 5 TiB are in 10,000 parts, which is what S3 takes of both. */
#define DOUBLE_EVERY 800u
#define PART_BYTES_MAX (1u << 30)
#define ABORT_MS 5000

struct part_sink;

/* A buffer on its way: filled by the writer, put by a job, then filled again. */
struct part {
    struct part_sink *owner;
    struct part *next; /* in the list of free ones */
    unsigned number;
    size_t used, cap;
    unsigned char *data;
};

struct part_sink {
    struct sink base;
    struct part_sink_options opt;
    char *key;
    struct store_upload *upload; /* NULL until the first part is full */
    struct part *filling;
    unsigned parts;       /* that were handed out */
    bool done;            /* finished, or failed to */
    struct cancel cancel; /* ends the parts under way */
    struct cancel_watch watch;
    struct call call; /* with that cancel */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned under_way; /* lock */
    struct part *spare; /* lock */
    bool failed;        /* lock */
    struct err err;     /* lock: the first failure */
};

static void part_free(struct part *part)
{
    if (part == NULL)
        return;
    free(part->data);
    free(part);
}

/* The sink's call, with a limit on standing still that begins now. */
static struct call bounded(const struct part_sink *s, struct progress *progress)
{
    struct call call = s->call;
    progress->limit_ms = s->opt.stall_ms;
    atomic_store(&progress->last_ms, now_ms());
    atomic_store(&progress->sent, 0);
    if (s->opt.stall_ms > 0)
        call.progress = progress;
    return call;
}

static void part_job(void *arg)
{
    struct part *part = arg;
    struct part_sink *s = part->owner;
    const struct store_body body = {.mem = part->data, .size = part->used};
    struct err err = ERR_INIT;
    struct progress progress;
    const struct call call = bounded(s, &progress);
    bool ok = s->opt.store->ops->upload_part(s->upload, part->number, &body, &call, &err);
    pthread_mutex_lock(&s->lock);
    if (!ok && !s->failed) {
        s->failed = true;
        s->err = err;
    }
    part->next = s->spare;
    s->spare = part;
    s->under_way--;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Waits until at most LEFT parts are under way; false when one has failed or the call has ended. */
static bool await_parts(struct part_sink *s, unsigned left, struct err *err)
{
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, &s->call, &s->lock, &s->changed);
    pthread_mutex_lock(&s->lock);
    while (s->under_way > left && !s->failed && waited)
        waited = waiter_wait(&w);
    bool ok = !s->failed && s->under_way <= left;
    if (s->failed)
        *err = s->err;
    else if (!ok && call_alive(&s->call, s->key, err))
        err_set(err, ERR_TIMEOUT, "%s: the store does not take it", s->key);
    pthread_mutex_unlock(&s->lock);
    waiter_end(&w);
    return ok;
}

static bool begin_upload(struct part_sink *s, struct err *err)
{
    const struct store_put put = {.only_if_absent = s->opt.only_if_absent};
    struct progress progress;
    const struct call call = bounded(s, &progress);
    if (s->upload == NULL)
        s->upload = s->opt.store->ops->upload_begin(s->opt.store, s->key, &put, &call, err);
    return s->upload != NULL;
}

/* Hands the filled buffer to a job. */
static bool send_part(struct part_sink *s, struct err *err)
{
    if (!begin_upload(s, err) || !await_parts(s, s->opt.parallel - 1, err))
        return false;
    struct part *part = s->filling;
    s->filling = NULL;
    part->number = ++s->parts;
    pthread_mutex_lock(&s->lock);
    s->under_way++;
    pthread_mutex_unlock(&s->lock);
    if (pool_submit(s->opt.pool, part_job, part, err))
        return true;
    pthread_mutex_lock(&s->lock);
    s->under_way--;
    pthread_mutex_unlock(&s->lock);
    part_free(part);
    return false;
}

size_t part_sink_part_bytes(size_t first_bytes, unsigned number)
{
    size_t bytes = first_bytes;
    for (unsigned n = DOUBLE_EVERY; n < number && bytes < PART_BYTES_MAX; n += DOUBLE_EVERY)
        bytes *= 2;
    return bytes;
}

static bool make_room(struct part_sink *s, struct err *err)
{
    if (s->filling != NULL && s->filling->used < s->filling->cap)
        return true;
    if (s->filling != NULL && !send_part(s, err))
        return false;
    size_t bytes = part_sink_part_bytes(s->opt.part_bytes, s->parts + 1);
    pthread_mutex_lock(&s->lock);
    struct part *part = s->spare;
    if (part != NULL)
        s->spare = part->next;
    pthread_mutex_unlock(&s->lock);
    if (part != NULL && part->cap < bytes) {
        part_free(part);
        part = NULL;
    }
    if (part == NULL) {
        part = calloc(1, sizeof(*part));
        if (part != NULL)
            part->data = malloc(bytes);
        if (part == NULL || part->data == NULL) {
            part_free(part);
            return err_set(err, ERR_NO_MEMORY, "out of memory for a part of %zu bytes", bytes);
        }
        part->owner = s;
        part->cap = bytes;
    }
    part->used = 0;
    s->filling = part;
    return true;
}

static bool part_sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct part_sink *s = (struct part_sink *)self;
    const unsigned char *at = data;
    while (n > 0) {
        if (!make_room(s, err))
            return false;
        struct part *part = s->filling;
        size_t take = n < part->cap - part->used ? n : part->cap - part->used;
        memcpy(part->data + part->used, at, take);
        part->used += take;
        at += take;
        n -= take;
    }
    return true;
}

/* ERR says that something is stored under the key. Is it BODY? The answer to an earlier try may
 * have been lost. When that cannot be told, ERR says so instead. */
static bool is_ours(struct part_sink *s, const struct store_body *body, const struct call *call,
                    struct err *err)
{
    struct err why = ERR_INIT;
    struct store_info info;
    struct source *there =
        s->opt.store->ops->get(s->opt.store, s->key, 0, UINT64_MAX, &info, call, &why);
    char *chunk = there == NULL || info.size != body->size ? NULL : malloc(body->size + 1);
    ssize_t n = chunk == NULL ? -1 : source_read_full(there, chunk, body->size + 1, &why);
    bool same =
        chunk != NULL && n == (ssize_t)body->size && memcmp(chunk, body->mem, body->size) == 0;
    free(chunk);
    source_close(there);
    if (same && s->opt.info != NULL)
        *s->opt.info = info;
    if (!same && why.code != ERR_NONE) {
        *err = why;
        (void)err_context(err, "it may be stored");
    }
    return same;
}

static bool put_whole(struct part_sink *s, const struct call *call, struct err *err)
{
    const struct store_put put = {
        .body = {.mem = s->filling == NULL ? (unsigned char *)"" : s->filling->data,
                 .size = s->filling == NULL ? 0 : s->filling->used},
        .only_if_absent = s->opt.only_if_absent};
    return s->opt.store->ops->put(s->opt.store, s->key, &put, s->opt.info, call, err) ||
           (err->code == ERR_EXISTS && is_ours(s, &put.body, call, err));
}

static bool part_sink_finish(struct sink *self, struct err *err)
{
    struct part_sink *s = (struct part_sink *)self;
    struct progress progress;
    struct call call = bounded(s, &progress);
    if (s->upload == NULL) {
        s->done = true;
        return put_whole(s, &call, err);
    }
    if ((s->filling != NULL && s->filling->used > 0 && !send_part(s, err)) ||
        !await_parts(s, 0, err))
        return false;
    struct store_upload *upload = s->upload;
    s->upload = NULL; /* complete consumes it, whatever it says */
    s->done = true;
    call = bounded(s, &progress); /* the parts had their own */
    return s->opt.store->ops->upload_complete(upload, s->opt.info, &call, err);
}

/* The jobs use this sink: they are waited for, and hurry when they are cancelled. */
static void drain(struct part_sink *s)
{
    cancel_fire(&s->cancel);
    pthread_mutex_lock(&s->lock);
    while (s->under_way > 0)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void part_sink_close(struct sink *self)
{
    struct part_sink *s = (struct part_sink *)self;
    if (!s->done)
        drain(s);
    if (s->upload != NULL) {
        /* also for a call that was cancelled: what stays behind costs money */
        const struct call grace = {.cancel = NULL, .deadline_ms = now_ms() + ABORT_MS};
        s->opt.store->ops->upload_abort(s->upload, &grace);
    }
    while (s->spare != NULL) {
        struct part *part = s->spare;
        s->spare = part->next;
        part_free(part);
    }
    part_free(s->filling);
    cancel_unwatch(s->opt.call->cancel, &s->watch);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    cancel_destroy(&s->cancel);
    free(s->key);
    free(s);
}

static void on_cancel(void *arg)
{
    cancel_fire(arg);
}

struct sink *part_sink_new(const struct part_sink_options *options, struct err *err)
{
    struct part_sink *s = calloc(1, sizeof(*s));
    char *key = strdup(options->key);
    if (s == NULL || key == NULL) {
        free(s);
        free(key);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->base = (struct sink){
        .write = part_sink_write, .finish = part_sink_finish, .close = part_sink_close};
    s->opt = *options;
    s->key = key;
    cancel_init(&s->cancel);
    pthread_mutex_init(&s->lock, NULL);
    waiter_cond_init(&s->changed);
    s->call = *options->call;
    s->call.cancel = &s->cancel;
    cancel_watch(options->call->cancel, &s->watch, on_cancel, &s->cancel);
    return &s->base;
}
