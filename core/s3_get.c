/* Reading objects. A body is a pulled source that hides broken connections: it asks for the rest by
 * Range, under If-Match with the ETag of its beginning, so that it never joins two versions. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/retry.h"
#include "core/s3.h"

#define ROUNDS 3

static bool is_error(const struct s3_reply *reply, const char *code)
{
    return reply->error.readable && strcmp(reply->error.code, code) == 0;
}

static bool parse_u64(const char *text, uint64_t *out)
{
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return false;
    *out = strtoull(text, &end, 10);
    return *end == '\0';
}

/* "bytes FIRST-LAST/TOTAL" */
static bool parse_range(const char *text, uint64_t *first, uint64_t *last, uint64_t *total)
{
    char end;
    return text != NULL && sscanf(text, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%c", first, last,
                                  total, &end) == 3;
}

/* A HEAD, for objects of which a GET tells nothing: empty or frozen ones. *GONE when its 404 says
 * (without saying of what) that something is missing. */
static bool head_plain(struct s3 *s3, const char *key, struct store_info *info, bool *gone,
                       const struct call *call, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    uint64_t size = 0;
    s3_request_init(&req, s3, "HEAD", "head", key);
    req.stream = true;
    bool ok = s3_perform_read(s3, &req, call, &reply, err);
    *gone = !ok && reply.error.status == 404;
    if (ok && !parse_u64(http_header(reply.x, "content-length"), &size))
        ok = err_set(err, ERR_UNAVAILABLE, "%s: the store does not say the size", req.what);
    if (ok)
        s3_fill_info(reply.x, size, info);
    s3_reply_free(&reply);
    return ok;
}

/* Reads what is left of a short body, so that its connection can be used again. */
static void drain(struct http_exchange *x)
{
    char rest[512];
    struct err ignored = ERR_INIT;
    bool again;
    if (http_read(x, rest, sizeof(rest), &ignored, &again) > 0)
        (void)http_read(x, rest, sizeof(rest), &ignored, &again);
}

static bool fill_head(const struct s3_request *req, struct s3_reply *reply, struct store_info *info,
                      struct err *err)
{
    uint64_t first = 0, last = 0, size = 0;
    bool ok = reply->status == 206
                  ? parse_range(http_header(reply->x, "content-range"), &first, &last, &size)
                  : parse_u64(http_header(reply->x, "content-length"), &size);
    if (!ok)
        return err_set(err, ERR_UNAVAILABLE, "%s: the store does not say the size", req->what);
    s3_fill_info(reply->x, size, info);
    if (reply->status == 206)
        drain(reply->x);
    return true;
}

bool s3_head(struct store *store, const char *key, struct store_info *info, const struct call *call,
             struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    if (!store_key_check(key, strlen(s3->prefix), err))
        return false;
    bool ok = false, gone = true;
    for (int i = 0; gone && i < ROUNDS; i++) {
        struct s3_request req;
        struct s3_reply reply;
        gone = false;
        s3_request_init(&req, s3, "GET", "head", key);
        s3_add_header(&req, "range", "bytes=0-0");
        req.stream = true;
        ok = s3_perform_read(s3, &req, call, &reply, err);
        if (ok)
            ok = fill_head(&req, &reply, info, err);
        else if (is_error(&reply, "InvalidRange") || is_error(&reply, "InvalidObjectState"))
            ok = head_plain(s3, key, info, &gone, call, err); /* gone: deleted between the two */
        s3_reply_free(&reply);
    }
    return ok;
}

bool s3_exists(struct s3 *s3, const char *key, const struct call *call, bool *exists,
               struct err *err)
{
    struct store_info info;
    *exists = s3_head(&s3->base, key, &info, call, err);
    return *exists || err->code == ERR_ABSENT;
}

struct s3_source {
    struct source base;
    struct s3 *s3;
    const struct call *call;
    char *key;
    char etag[128];
    uint64_t pos, end;       /* in the object */
    uint64_t answer_end;     /* where the answer under way ends; at most `end` is wanted */
    struct http_exchange *x; /* NULL before the first resume after a break, and at the end */
    struct retry retry;      /* resumes since the last byte */
    bool failed;
    char what[S3_WHAT];
};

static void source_free(struct s3_source *s)
{
    http_close(s->x);
    free(s->key);
    free(s);
}

/* The announced bytes are all here: gives the connection back before the source is closed. */
static void release(struct s3_source *s)
{
    if (s->x != NULL && s->pos == s->answer_end)
        drain(s->x);
    http_close(s->x);
    s->x = NULL;
}

/* Checks an answer against the range [s->pos, s->end) that was asked for. RANGED: the request had
 * a Range. Sets s->answer_end and *TOTAL, the object's size. */
static bool check_range(struct s3_source *s, const struct s3_reply *reply, bool ranged,
                        uint64_t *total, struct err *err)
{
    uint64_t first = 0, last = 0, length = 0;
    bool has_length = parse_u64(http_header(reply->x, "content-length"), &length);
    if (reply->status == 206 && ranged) {
        bool ok = parse_range(http_header(reply->x, "content-range"), &first, &last, total) &&
                  first == s->pos && last >= first && last < *total &&
                  (!has_length || length == last - first + 1) &&
                  (last + 1 == *total || last + 1 == s->end);
        s->answer_end = last + 1;
        return ok ||
               err_set(err, ERR_CORRUPT, "%s: the answer is another range than asked for", s->what);
    }
    if (reply->status != 200 || !has_length)
        return err_set(err, ERR_UNAVAILABLE,
                       "%s: HTTP %d without a length; is there a proxy in between?", s->what,
                       reply->status);
    if (s->pos != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: the store cannot read from the middle", s->what);
    *total = length;
    s->answer_end = length;
    return true;
}

static void range_header(char out[64], uint64_t pos, uint64_t end)
{
    if (end == UINT64_MAX)
        (void)snprintf(out, 64, "bytes=%" PRIu64 "-", pos);
    else
        (void)snprintf(out, 64, "bytes=%" PRIu64 "-%" PRIu64, pos, end - 1);
}

/* One try to get the bytes from s->pos on, of the same content. */
static bool resume(struct s3_source *s, struct err *err, bool *again)
{
    struct s3_request req;
    struct s3_reply reply = {.x = NULL};
    char range[64], quoted[132], payload_hex[SIGV4_HEX];
    uint64_t total = 0;
    *again = false;
    s3_request_init(&req, s->s3, "GET", "get", s->key);
    range_header(range, s->pos, s->end);
    (void)snprintf(quoted, sizeof(quoted), "\"%s\"", s->etag);
    s3_add_header(&req, "range", range);
    s3_add_header(&req, "if-match", quoted);
    req.stream = true;
    if (!sigv4_sha256_hex("", 0, payload_hex))
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    bool ok = s3_attempt(s->s3, &req, payload_hex, s->call, &reply, err, again);
    char etag[128] = "";
    if (ok)
        s3_copy_etag(http_header(reply.x, "etag"), etag);
    if (!ok && (reply.error.status == 412 || is_error(&reply, "InvalidRange")))
        err_set(err, ERR_CORRUPT, "%s: the object was replaced while it was read", s->what);
    else if (ok && strcmp(etag, s->etag) != 0)
        ok = err_set(err, ERR_CORRUPT, "%s: the object was replaced while it was read", s->what);
    ok = ok && check_range(s, &reply, true, &total, err);
    if (ok) {
        s->x = reply.x;
        reply.x = NULL;
    } else if (err->code == ERR_UNSUPPORTED) { /* another GET of the whole may do */
        err->code = ERR_UNAVAILABLE;
    }
    s3_reply_free(&reply);
    return ok;
}

/* After a break: resumes as often as the limits allow. */
static bool resume_until(struct s3_source *s, bool again, struct err *err)
{
    http_close(s->x);
    s->x = NULL;
    while (again && s->etag[0] != '\0' && retry_again(&s->retry, s->call, err)) {
        if (resume(s, err, &again))
            return true;
    }
    if (err->code == ERR_CANCELLED)
        err_set(err, ERR_CANCELLED, "%s: interrupted", s->what);
    return false;
}

static ssize_t s3_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct s3_source *s = (struct s3_source *)self;
    if (s->failed) {
        err_set(err, ERR_UNAVAILABLE, "%s: an earlier read failed", s->what);
        return -1;
    }
    if (n > s->end - s->pos)
        n = (size_t)(s->end - s->pos);
    if (n > 0 && !call_alive(s->call, s->what, err)) {
        s->failed = true;
        return -1;
    }
    while (n > 0) {
        bool again = true;
        ssize_t got = s->x == NULL ? 0 : http_read(s->x, buf, n, err, &again);
        if (got > 0) {
            s->pos += (uint64_t)got;
            s->retry.tries = 0;
            if (s->pos == s->end)
                release(s);
            return got;
        }
        if (got == 0)
            err_set(err, ERR_UNAVAILABLE, "the answer ended %" PRIu64 " bytes early",
                    s->end - s->pos);
        err_context(err, "%s", s->what);
        if (!resume_until(s, again, err)) {
            s->failed = true;
            return -1;
        }
    }
    return 0;
}

static void s3_close(struct source *self)
{
    source_free((struct s3_source *)self);
}

static struct s3_source *source_new(struct s3 *s3, const char *key, const struct call *call,
                                    struct err *err)
{
    struct s3_source *s = calloc(1, sizeof(*s));
    char *copy = strdup(key);
    if (s == NULL || copy == NULL) {
        free(s);
        free(copy);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->base = (struct source){.read = s3_read, .close = s3_close};
    s->s3 = s3;
    s->call = call;
    s->key = copy;
    retry_init(&s->retry, s3->max_attempts > 1 ? s3->max_attempts : 1);
    return s;
}

enum opened { OPENED, OPENED_EMPTY, OPEN_FAILED };

static enum opened open_first(struct s3_source *s, struct store_info *info, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    char range[64];
    uint64_t total = 0;
    bool ranged = s->pos > 0 || s->end != UINT64_MAX;
    s3_request_init(&req, s->s3, "GET", "get", s->key);
    memcpy(s->what, req.what, sizeof(s->what));
    range_header(range, s->pos, s->end);
    if (ranged)
        s3_add_header(&req, "range", range);
    req.stream = true;
    bool ok = s3_perform_read(s->s3, &req, s->call, &reply, err);
    enum opened result = !ok && is_error(&reply, "InvalidRange") ? OPENED_EMPTY : OPEN_FAILED;
    if (ok && check_range(s, &reply, ranged, &total, err)) {
        s3_fill_info(reply.x, total, info);
        memcpy(s->etag, info->etag, sizeof(s->etag));
        if (s->end > total)
            s->end = total;
        s->x = reply.x;
        reply.x = NULL;
        if (s->pos == s->end)
            release(s);
        result = OPENED;
    }
    s3_reply_free(&reply);
    return result;
}

struct source *s3_get(struct store *store, const char *key, uint64_t offset, uint64_t length,
                      struct store_info *info, const struct call *call, struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    if (!store_key_check(key, strlen(s3->prefix), err))
        return NULL;
    struct s3_source *s = source_new(s3, key, call, err);
    if (s == NULL)
        return NULL;
    for (int i = 0; i < ROUNDS; i++) {
        s->pos = offset;
        s->end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
        enum opened opened = length == 0 ? OPENED_EMPTY : open_first(s, info, err);
        if (opened == OPENED)
            return &s->base;
        if (opened == OPEN_FAILED)
            break;
        /* nothing there from the offset on: the facts come from the object itself */
        if (!s3_head(store, key, info, call, err))
            break;
        if (length == 0 || info->size <= offset) {
            s->pos = s->end = 0;
            return &s->base;
        }
        err_set(err, ERR_UNAVAILABLE, "get %.200s: the object changes all the time", key);
    }
    source_free(s);
    return NULL;
}
