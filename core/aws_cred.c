#include "core/aws_cred.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/pool.h"
#include "core/waiter.h"

#define REFRESH_MS 120000 /* for one refresh, however it is done */
#define IDLE_MS 1000u
#define PAUSE_MS 1000
#define PAUSE_MAX_MS 30000
#define EARLY_S 300 /* before the end: refresh, and use the old ones meanwhile */
#define LATE_S 60   /* before the end: wait for the refresh */
#define ID_SHOWN_FROM 12u

struct aws_cred {
    struct aws_source source;
    struct pool *pool; /* of one thread, which runs the refreshes */
    struct cancel stop;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    struct aws_credentials *current; /* lock; NULL before the first */
    int64_t life_s;                  /* lock: of the current ones when they came */
    bool busy;                       /* lock: a refresh is under way */
    bool unchanged;                  /* lock: the last refresh gave what was there */
    unsigned failures;               /* lock: refreshes in a row that gave nothing new */
    int64_t not_before_ms;           /* lock: the next refresh */
    struct err reason;               /* lock: why the last one gave nothing new */
};

void aws_keys_free(struct aws_keys *keys)
{
    secret_free(&keys->id);
    secret_free(&keys->secret);
    secret_free(&keys->token);
    keys->expires_s = 0;
}

void aws_credentials_unref(struct aws_credentials *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    aws_keys_free(&c->keys);
    free(c);
}

static struct aws_credentials *ref(struct aws_credentials *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

static bool same_secret(const struct secret *a, const struct secret *b)
{
    if (secret_is_set(a) != secret_is_set(b))
        return false;
    return !secret_is_set(a) || (a->len == b->len && memcmp(a->value, b->value, a->len) == 0);
}

static bool same(const struct aws_credentials *a, const struct aws_credentials *b)
{
    return a != NULL && b != NULL && same_secret(&a->keys.id, &b->keys.id) &&
           same_secret(&a->keys.secret, &b->keys.secret) &&
           same_secret(&a->keys.token, &b->keys.token);
}

/* They become header values, which a control character could end. */
static bool printable(const struct secret *s)
{
    for (size_t i = 0; secret_is_set(s) && i < s->len; i++) {
        if (s->value[i] <= ' ' || s->value[i] > '~')
            return false;
    }
    return true;
}

static bool usable(const struct aws_keys *keys, struct err *err)
{
    if (!secret_is_set(&keys->id) || !secret_is_set(&keys->secret) || keys->id.len == 0 ||
        keys->secret.len == 0)
        return err_set(err, ERR_FORBIDDEN, "AWS credentials without a key id or a secret key");
    if (!printable(&keys->id))
        return err_set(err, ERR_FORBIDDEN, "the AWS access key id has blanks or control bytes");
    if (!printable(&keys->token))
        return err_set(err, ERR_FORBIDDEN, "the AWS session token has blanks or control bytes");
    if (keys->expires_s == 0 || keys->expires_s > time(NULL))
        return true;
    return err_set(err, ERR_FORBIDDEN,
                   "the AWS credentials that were given expired %lld s ago; is this host's clock "
                   "right?",
                   (long long)(time(NULL) - keys->expires_s));
}

/* KEYS are moved. */
static struct aws_credentials *snapshot(struct aws_keys *keys, struct err *err)
{
    struct aws_credentials *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    c->keys = *keys;
    *keys = (struct aws_keys){.expires_s = 0};
    atomic_store(&c->refs, 1);
    return c;
}

/* Seconds until the credentials end. */
static int64_t left_s(const struct aws_credentials *c)
{
    return c->keys.expires_s == 0 ? INT64_MAX : c->keys.expires_s - (int64_t)time(NULL);
}

/* ---- the refresh ---- */

/* With the lock held. */
static void note_pause(struct aws_cred *c)
{
    int64_t pause = PAUSE_MS;
    for (unsigned i = 0; i < c->failures && pause < PAUSE_MAX_MS; i++)
        pause *= 2;
    c->failures++;
    c->not_before_ms = now_ms() + (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

/* With the lock held. FRESH NULL: ERR says why. Returns the snapshot to let go of. */
static struct aws_credentials *adopt(struct aws_cred *c, struct aws_credentials *fresh,
                                     const struct err *err)
{
    c->busy = false;
    c->unchanged = same(c->current, fresh);
    pthread_cond_broadcast(&c->ended);
    if (fresh == NULL) {
        c->reason = *err;
        note_pause(c);
        return NULL;
    }
    if (c->unchanged) {
        err_set(&c->reason, ERR_FORBIDDEN,
                "where the AWS credentials come from there are no newer "
                "ones yet");
        note_pause(c);
    } else {
        c->failures = 0;
        c->not_before_ms = 0;
    }
    struct aws_credentials *old = c->current;
    c->current = fresh;
    c->life_s = left_s(fresh);
    return old;
}

static void tell(const struct err *err, int64_t old_left_s, bool renewed)
{
    if (err->code == ERR_NONE && renewed)
        log_info("the AWS credentials have been renewed");
    else if (err->code != ERR_NONE && old_left_s > 0 && err->code != ERR_CANCELLED)
        log_warn("the AWS credentials could not be renewed, those in use still hold: %s",
                 err->text);
}

static void refresh(void *arg)
{
    struct aws_cred *c = arg;
    struct err err = ERR_INIT;
    struct aws_keys keys = {.expires_s = 0};
    const struct call call = {.cancel = &c->stop, .deadline_ms = now_ms() + REFRESH_MS};
    bool ok = c->source.fetch(c->source.arg, &call, &keys, &err) && usable(&keys, &err);
    struct aws_credentials *fresh = ok ? snapshot(&keys, &err) : NULL;
    aws_keys_free(&keys);
    if (err.code != ERR_NONE && err.code != ERR_CANCELLED && err.code != ERR_NO_MEMORY)
        err.code = ERR_FORBIDDEN;
    pthread_mutex_lock(&c->lock);
    int64_t old_left_s = c->current == NULL ? 0 : left_s(c->current);
    bool first = c->current == NULL;
    struct aws_credentials *old = adopt(c, fresh, &err);
    bool renewed = !first && !c->unchanged;
    pthread_mutex_unlock(&c->lock);
    tell(&err, old_left_s, renewed);
    aws_credentials_unref(old);
}

/* With the lock held: a refresh runs, or none may begin yet. */
static void begin(struct aws_cred *c)
{
    if (c->busy || now_ms() < c->not_before_ms)
        return;
    c->busy = pool_submit(c->pool, refresh, c, &c->reason);
    if (!c->busy)
        note_pause(c);
}

/* ---- for requests ---- */

/* With W's lock held. False when the call has ended. */
static bool wait_for_refresh(struct aws_cred *c, struct waiter *w)
{
    begin(c);
    bool waited = true;
    while (c->busy && waited)
        waited = waiter_wait(w);
    return !c->busy;
}

/* Without the lock: the call has ended, and ERR says how. */
static bool gave_up(const struct call *call, struct err *err)
{
    if (call_alive(call, "waiting for AWS credentials", err))
        err_set(err, ERR_TIMEOUT, "waiting for AWS credentials: the time is over");
    return false;
}

struct aws_credentials *aws_cred_get(struct aws_cred *c, const struct call *call, struct err *err)
{
    struct aws_credentials *got = NULL;
    struct waiter w;
    bool in_time = true;
    waiter_begin(&w, call, &c->lock, &c->ended);
    pthread_mutex_lock(&c->lock);
    int64_t left = c->current == NULL ? 0 : left_s(c->current);
    int64_t early = c->life_s / 4 < EARLY_S ? c->life_s / 4 : EARLY_S;
    if (left <= early * LATE_S / EARLY_S)
        in_time = wait_for_refresh(c, &w);
    else if (left <= early)
        begin(c);
    if (c->current != NULL && left_s(c->current) > 0)
        got = ref(c->current);
    else if (in_time)
        *err = c->reason;
    pthread_mutex_unlock(&c->lock);
    waiter_end(&w);
    if (got == NULL && !in_time)
        (void)gave_up(call, err);
    return got;
}

void aws_cred_id_end(struct aws_cred *c, char out[AWS_ID_END])
{
    out[0] = '\0';
    pthread_mutex_lock(&c->lock);
    const struct secret *id = c->current == NULL ? NULL : &c->current->keys.id;
    if (id != NULL && id->len >= ID_SHOWN_FROM)
        (void)snprintf(out, AWS_ID_END, "%s", id->value + id->len - (AWS_ID_END - 1));
    pthread_mutex_unlock(&c->lock);
}

bool aws_cred_renew(struct aws_cred *c, const struct aws_credentials *used, const struct call *call,
                    struct err *err)
{
    struct waiter w;
    bool in_time = true;
    waiter_begin(&w, call, &c->lock, &c->ended);
    pthread_mutex_lock(&c->lock);
    if (same(c->current, used))
        in_time = wait_for_refresh(c, &w);
    bool newer = !same(c->current, used);
    if (!newer && in_time)
        *err = c->reason;
    pthread_mutex_unlock(&c->lock);
    waiter_end(&w);
    return newer || (in_time ? false : gave_up(call, err));
}

/* ---- life ---- */

struct aws_cred *aws_cred_new(const struct aws_source *source, struct err *err)
{
    struct aws_cred *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    c->pool = pool_new(1, IDLE_MS, err);
    if (c->pool == NULL) {
        free(c);
        return NULL;
    }
    c->source = *source;
    cancel_init(&c->stop);
    pthread_mutex_init(&c->lock, NULL);
    waiter_cond_init(&c->ended);
    return c;
}

void aws_cred_free(struct aws_cred *c)
{
    if (c == NULL)
        return;
    cancel_fire(&c->stop);
    pool_free(c->pool);
    if (c->source.free != NULL)
        c->source.free(c->source.arg);
    aws_credentials_unref(c->current);
    cancel_destroy(&c->stop);
    pthread_cond_destroy(&c->ended);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
