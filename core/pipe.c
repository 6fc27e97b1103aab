#include "core/pipe.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/waiter.h"

struct pipe {
    struct sink sink;
    struct source source;
    const struct call *sink_call, *source_call;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* bytes, room, or the state of an end */
    size_t capacity;
    size_t begin, used;              /* lock: the bytes in the ring */
    size_t enough;                   /* lock: so many the reader waits for; 0: it does not wait */
    bool ended;                      /* lock: finish was called */
    bool sink_closed, source_closed; /* lock */
    struct err reason;               /* lock: the reader's, code ERR_NONE when it has given none */
    char ring[];
};

struct pipe *pipe_new(size_t capacity, struct err *err)
{
    struct pipe *p = malloc(sizeof(*p) + capacity);
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    memset(p, 0, sizeof(*p));
    p->capacity = capacity;
    pthread_mutex_init(&p->lock, NULL);
    waiter_cond_init(&p->changed);
    return p;
}

/* With the lock held, which is released: frees the pipe when both ends are closed. */
static void leave(struct pipe *p)
{
    bool last = p->sink_closed && p->source_closed;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    if (!last)
        return;
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- the writer's end ---- */

static struct pipe *of_sink(struct sink *self)
{
    return (struct pipe *)((char *)self - offsetof(struct pipe, sink));
}

/* Copies as much of DATA as there is room for, around the ring's end. */
static size_t put_in(struct pipe *p, const char *data, size_t n)
{
    size_t room = p->capacity - p->used;
    n = n < room ? n : room;
    size_t at = (p->begin + p->used) % p->capacity;
    size_t first = p->capacity - at < n ? p->capacity - at : n;
    memcpy(p->ring + at, data, first);
    memcpy(p->ring, data + first, n - first);
    p->used += n;
    return n;
}

static bool pipe_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct pipe *p = of_sink(self);
    const char *at = data;
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, p->sink_call, &p->lock, &p->changed);
    pthread_mutex_lock(&p->lock);
    while (n > 0 && !p->source_closed && waited) {
        size_t done = put_in(p, at, n);
        at += done;
        n -= done;
        if (p->enough > 0 && p->used >= p->enough)
            pthread_cond_broadcast(&p->changed);
        if (done == 0)
            waited = waiter_wait(&w);
    }
    bool refused = n > 0 && p->source_closed;
    if (refused && p->reason.code != ERR_NONE)
        *err = p->reason;
    else if (refused)
        err_set(err, ERR_CANCELLED, "the reader has given up");
    pthread_mutex_unlock(&p->lock);
    waiter_end(&w);
    if (n == 0) {
        call_progress(p->sink_call);
        return true;
    }
    if (!refused && call_alive(p->sink_call, "writing", err))
        err_set(err, ERR_TIMEOUT, "nobody takes the bytes");
    return false;
}

static bool pipe_finish(struct sink *self, struct err *err)
{
    struct pipe *p = of_sink(self);
    (void)err;
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return true;
}

static void pipe_close_sink(struct sink *self)
{
    struct pipe *p = of_sink(self);
    pthread_mutex_lock(&p->lock);
    p->sink_closed = true;
    leave(p);
}

struct sink *pipe_sink(struct pipe *p, const struct call *call)
{
    p->sink = (struct sink){.write = pipe_write, .finish = pipe_finish, .close = pipe_close_sink};
    p->sink_call = call;
    return &p->sink;
}

/* ---- the reader's end ---- */

static struct pipe *of_source(struct source *self)
{
    return (struct pipe *)((char *)self - offsetof(struct pipe, source));
}

static size_t take_out(struct pipe *p, char *buf, size_t n)
{
    n = n < p->used ? n : p->used;
    size_t first = p->capacity - p->begin < n ? p->capacity - p->begin : n;
    memcpy(buf, p->ring + p->begin, first);
    memcpy(buf + first, p->ring, n - first);
    p->begin = (p->begin + n) % p->capacity;
    p->used -= n;
    return n;
}

static ssize_t pipe_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct pipe *p = of_source(self);
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, p->source_call, &p->lock, &p->changed);
    pthread_mutex_lock(&p->lock);
    /* Many small writes are one wake-up. A writer that waits has filled the ring. */
    size_t enough = n < p->capacity / 4 ? n : p->capacity / 4;
    p->enough = enough > 0 ? enough : 1;
    while (p->used < p->enough && !p->ended && !p->sink_closed && waited)
        waited = waiter_wait(&w);
    p->enough = 0;
    size_t got = take_out(p, buf, n);
    bool ended = p->ended, closed = p->sink_closed;
    if (got > 0)
        pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    waiter_end(&w);
    if (got > 0)
        call_progress(p->source_call);
    if (got > 0 || ended)
        return (ssize_t)got;
    if (closed)
        err_set(err, ERR_CANCELLED, "the writer has given up");
    else if (call_alive(p->source_call, "reading", err))
        err_set(err, ERR_TIMEOUT, "no bytes have come");
    return -1;
}

bool pipe_await(struct pipe *p, size_t bytes, const struct call *call)
{
    struct waiter w;
    bool waited = true;
    waiter_begin(&w, call, &p->lock, &p->changed);
    pthread_mutex_lock(&p->lock);
    p->enough = bytes;
    while (p->used < bytes && !p->ended && !p->sink_closed && waited)
        waited = waiter_wait(&w);
    p->enough = 0;
    bool over = p->ended || p->sink_closed;
    pthread_mutex_unlock(&p->lock);
    waiter_end(&w);
    return over;
}

static void pipe_close_source(struct source *self)
{
    struct pipe *p = of_source(self);
    pthread_mutex_lock(&p->lock);
    p->source_closed = true;
    leave(p);
}

struct source *pipe_source(struct pipe *p, const struct call *call)
{
    p->source = (struct source){.read = pipe_read, .close = pipe_close_source};
    p->source_call = call;
    return &p->source;
}

void pipe_fail(struct pipe *p, const struct err *reason)
{
    pthread_mutex_lock(&p->lock);
    p->reason = *reason;
    pthread_mutex_unlock(&p->lock);
}
