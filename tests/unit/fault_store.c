#include "fault_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/waiter.h"

struct fault_store {
    struct store base;
    struct store *inner;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned calls, nth;
    enum fault fault;
    bool happened, hold, hold_begin, no_copies;
    unsigned held, uploads;
    fault_hook *hook;
    void *hook_arg;
    const char *frozen;
};

/* What the callers take for the inner store's upload. */
struct wrapped_upload {
    struct fault_store *f;
    struct store_upload *inner;
};

struct one_call {
    bool before, after, retry;
};

static struct one_call enter(struct fault_store *f, const char *op, const char *key)
{
    pthread_mutex_lock(&f->lock);
    bool fails = ++f->calls == f->nth;
    f->happened = f->happened || fails;
    const struct one_call c = {.before = fails && f->fault == FAULT_BEFORE,
                               .after = fails && f->fault != FAULT_BEFORE,
                               .retry = fails && f->fault == FAULT_RETRY};
    fault_hook *hook = f->hook;
    void *arg = f->hook_arg;
    pthread_mutex_unlock(&f->lock);
    if (hook != NULL)
        hook(arg, op, key);
    return c;
}

static bool fail(const char *op, const char *key, struct err *err)
{
    return err_set(err, ERR_UNAVAILABLE, "%s of %s: a fault that was asked for", op, key);
}

static bool is_frozen(struct fault_store *f, const char *key)
{
    pthread_mutex_lock(&f->lock);
    bool frozen = f->frozen != NULL && strstr(key, f->frozen) != NULL;
    pthread_mutex_unlock(&f->lock);
    return frozen;
}

#define F ((struct fault_store *)s)
#define OPS F->inner->ops

static bool op_head(struct store *s, const char *key, struct store_info *info,
                    const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "head", key);
    return c.before || c.after ? fail("head", key, err) : OPS->head(F->inner, key, info, call, err);
}

static struct source *op_get(struct store *s, const char *key, uint64_t offset, uint64_t length,
                             struct store_info *info, const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "get", key);
    if (is_frozen(F, key)) {
        err_set(err, ERR_FROZEN, "%s: it is in an archive storage class: restore it first", key);
        return NULL;
    }
    if (!c.before && !c.after)
        return OPS->get(F->inner, key, offset, length, info, call, err);
    fail("get", key, err);
    return NULL;
}

static bool op_put(struct store *s, const char *key, const struct store_put *put,
                   struct store_info *info, const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "put", key);
    if (c.before)
        return fail("put", key, err);
    bool ok = OPS->put(F->inner, key, put, info, call, err);
    if (ok && c.retry && put->only_if_absent)
        return OPS->put(F->inner, key, put, info, call, err);
    return ok && c.after && !c.retry ? fail("put", key, err) : ok;
}

static bool op_list(struct store *s, const struct store_list *what, struct store_page *page,
                    const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "list", what->prefix);
    return c.before || c.after ? fail("list", what->prefix, err)
                               : OPS->list(F->inner, what, page, call, err);
}

static bool op_remove(struct store *s, const char *const *keys, size_t n, const struct call *call,
                      struct err *err)
{
    const struct one_call c = enter(F, "remove", n == 0 ? "" : keys[0]);
    if (c.before)
        return fail("remove", keys[0], err);
    return OPS->remove(F->inner, keys, n, call, err) && (!c.after || fail("remove", keys[0], err));
}

static void count_upload(struct fault_store *f, bool begins)
{
    pthread_mutex_lock(&f->lock);
    f->uploads += begins ? 1u : 0u;
    f->uploads -= begins ? 0u : 1u;
    pthread_mutex_unlock(&f->lock);
}

/* Waits while *HOLD; false when the call was given up. */
static bool pass(struct fault_store *f, const bool *hold, const struct call *call, struct err *err)
{
    struct waiter w;
    waiter_begin(&w, call, &f->lock, &f->changed);
    pthread_mutex_lock(&f->lock);
    f->held++;
    while (*hold && waiter_wait(&w)) {
    }
    f->held--;
    bool held = *hold;
    pthread_mutex_unlock(&f->lock);
    waiter_end(&w);
    if (held && call_alive(call, "held up", err))
        err_set(err, ERR_TIMEOUT, "held up");
    return !held;
}

static struct store_upload *op_begin(struct store *s, const char *key, const struct store_put *put,
                                     const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "upload_begin", key);
    struct wrapped_upload *up = c.before || c.after ? NULL : calloc(1, sizeof(*up));
    if (up == NULL) {
        fail("upload_begin", key, err);
        return NULL;
    }
    up->f = F;
    if (pass(F, &F->hold_begin, call, err))
        up->inner = OPS->upload_begin(F->inner, key, put, call, err);
    if (up->inner == NULL) {
        free(up);
        return NULL;
    }
    count_upload(F, true);
    return (struct store_upload *)up;
}

static bool op_part(struct store_upload *upload, unsigned number, const struct store_body *body,
                    const struct call *call, struct err *err)
{
    struct wrapped_upload *up = (struct wrapped_upload *)upload;
    struct fault_store *f = up->f;
    const struct one_call c = enter(f, "upload_part", "");
    if (!pass(f, &f->hold, call, err))
        return false;
    if (c.before)
        return fail("upload_part", "", err);
    return f->inner->ops->upload_part(up->inner, number, body, call, err) &&
           (!c.after || fail("upload_part", "", err));
}

static bool op_complete(struct store_upload *upload, struct store_info *info,
                        const struct call *call, struct err *err)
{
    struct wrapped_upload *up = (struct wrapped_upload *)upload;
    struct fault_store *f = up->f;
    struct store_upload *inner = up->inner;
    const struct one_call c = enter(f, "upload_complete", "");
    free(up);
    count_upload(f, false);
    if (c.before) {
        f->inner->ops->upload_abort(inner, call);
        return fail("upload_complete", "", err);
    }
    return f->inner->ops->upload_complete(inner, info, call, err) &&
           (!c.after || fail("upload_complete", "", err));
}

static void op_abort(struct store_upload *upload, const struct call *call)
{
    struct wrapped_upload *up = (struct wrapped_upload *)upload;
    up->f->inner->ops->upload_abort(up->inner, call);
    count_upload(up->f, false);
    free(up);
}

static bool op_copy(struct store *s, const char *from, const char *to, const char *etag,
                    struct store_info *info, const struct call *call, struct err *err)
{
    const struct one_call c = enter(F, "copy", to);
    if (c.before)
        return fail("copy", to, err);
    if (F->no_copies)
        return err_set(err, ERR_UNSUPPORTED, "this store makes no copies");
    return OPS->copy(F->inner, from, to, etag, info, call, err) &&
           (!c.after || fail("copy", to, err));
}

static const struct store_ops fault_ops = {.head = op_head,
                                           .get = op_get,
                                           .put = op_put,
                                           .list = op_list,
                                           .remove = op_remove,
                                           .upload_begin = op_begin,
                                           .upload_part = op_part,
                                           .upload_complete = op_complete,
                                           .upload_abort = op_abort,
                                           .copy = op_copy};

struct fault_store *fault_store_new(struct store *inner)
{
    struct fault_store *f = calloc(1, sizeof(*f));
    if (f == NULL)
        abort();
    f->base = (struct store){.ops = &fault_ops, .url = inner->url};
    f->inner = inner;
    pthread_mutex_init(&f->lock, NULL);
    waiter_cond_init(&f->changed);
    return f;
}

struct store *fault_base(struct fault_store *f)
{
    return &f->base;
}

void fault_store_free(struct fault_store *f)
{
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void fault_at(struct fault_store *f, unsigned nth, enum fault fault)
{
    pthread_mutex_lock(&f->lock);
    f->calls = 0;
    f->nth = nth;
    f->fault = fault;
    f->happened = false;
    pthread_mutex_unlock(&f->lock);
}

unsigned fault_calls(struct fault_store *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned n = f->calls;
    pthread_mutex_unlock(&f->lock);
    return n;
}

bool fault_happened(struct fault_store *f)
{
    pthread_mutex_lock(&f->lock);
    bool happened = f->happened;
    pthread_mutex_unlock(&f->lock);
    return happened;
}

void fault_set_hook(struct fault_store *f, fault_hook *hook, void *arg)
{
    pthread_mutex_lock(&f->lock);
    f->hook = hook;
    f->hook_arg = arg;
    pthread_mutex_unlock(&f->lock);
}

void fault_no_copies(struct fault_store *f)
{
    pthread_mutex_lock(&f->lock);
    f->no_copies = true;
    pthread_mutex_unlock(&f->lock);
}

void fault_freeze(struct fault_store *f, const char *part)
{
    pthread_mutex_lock(&f->lock);
    f->frozen = part;
    pthread_mutex_unlock(&f->lock);
}

void fault_hold(struct fault_store *f, bool hold)
{
    pthread_mutex_lock(&f->lock);
    f->hold = hold;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void fault_hold_begin(struct fault_store *f, bool hold)
{
    pthread_mutex_lock(&f->lock);
    f->hold_begin = hold;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

unsigned fault_held(struct fault_store *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned n = f->hold ? f->held : 0;
    pthread_mutex_unlock(&f->lock);
    return n;
}

unsigned fault_uploads_open(struct fault_store *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned n = f->uploads;
    pthread_mutex_unlock(&f->lock);
    return n;
}
