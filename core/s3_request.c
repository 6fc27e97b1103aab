/* One request to S3: its URL, its signature, its answer, and whether to send it again. */
#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/metrics.h"
#include "core/retry.h"
#include "core/s3.h"

#define HASH_CHUNK (256 * 1024)
#define READ_CHUNK (16 * 1024)
#define URL_MAX 8192
#define CHANGES_MAX 2 /* both: another region, other credentials */
#define HEADERS_BYTES_MAX (32 * 1024)
/* So much longer than a small request a slow one may take, and be silent: with the default of 30 s,
 * a copy of 1.5 GiB at 5 MB/s. S3 sends blanks meanwhile, other stores do not. */
#define SLOW_TIMES 10u

void s3_request_init(struct s3_request *req, const struct s3 *s3, const char *method,
                     const char *verb, const char *key)
{
    *req = (struct s3_request){.method = method, .key = key};
    char shown[STORE_KEY_SHOWN];
    (void)snprintf(req->what, sizeof(req->what), "%s s3://%s/%.80s%s", verb, s3->bucket, s3->prefix,
                   key == NULL ? "" : store_key_show(key, shown));
}

void s3_add_query(struct s3_request *req, const char *name, const char *value)
{
    req->query[req->query_count++] = (struct sigv4_field){.name = name, .value = value};
}

void s3_add_header(struct s3_request *req, const char *name, const char *value)
{
    req->headers[req->header_count++] = (struct sigv4_field){.name = name, .value = value};
}

void s3_reply_free(struct s3_reply *reply)
{
    http_close(reply->x);
    reply->x = NULL;
    buf_free(&reply->body);
}

static void note_clock(struct s3 *s3, const struct http_exchange *x)
{
    const char *date = http_header(x, "date");
    time_t theirs = date == NULL ? -1 : curl_getdate(date, NULL);
    if (theirs >= 0)
        atomic_store(&s3->clock_ahead_s, (int64_t)theirs - (int64_t)time(NULL));
}

void s3_copy_etag(const char *value, char etag[128])
{
    etag[0] = '\0';
    if (value == NULL)
        return;
    size_t n = strlen(value);
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
        value++;
        n -= 2;
    }
    s3_error_field(etag, 128, value, n);
}

static void add_meta(void *arg, const char *name, const char *value)
{
    static const char prefix[] = "x-amz-meta-";
    if (strncmp(name, prefix, sizeof(prefix) - 1) == 0)
        store_info_add_meta(arg, name + sizeof(prefix) - 1, value, strlen(value));
}

void s3_fill_info(const struct http_exchange *x, uint64_t size, struct store_info *info)
{
    *info = (struct store_info){.size = size};
    const char *value = http_header(x, "last-modified");
    if (value == NULL)
        value = http_header(x, "date"); /* of a put: now, by the store's clock */
    time_t when = value == NULL ? -1 : curl_getdate(value, NULL);
    info->mtime_s = when < 0 ? 0 : when;
    s3_copy_etag(http_header(x, "etag"), info->etag);
    value = http_header(x, "x-amz-storage-class");
    if (value != NULL)
        s3_error_field(info->storage_class, sizeof(info->storage_class), value, strlen(value));
    http_each_header(x, add_meta, info);
}

static bool hash_fd(const struct store_body *body, const struct call *call, EVP_MD_CTX *ctx,
                    struct err *err)
{
    char *chunk = malloc(HASH_CHUNK);
    if (chunk == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok = true;
    for (uint64_t pos = 0; ok && pos < body->size;) {
        size_t want = body->size - pos < HASH_CHUNK ? (size_t)(body->size - pos) : HASH_CHUNK;
        ssize_t got = pread(body->fd, chunk, want, (off_t)(body->offset + pos));
        if (got < 0 && errno == EINTR)
            continue;
        ok = got > 0 ? call_alive(call, "computing a checksum", err)
                     : err_sys(err, got < 0 ? errno : EIO, "the staged content cannot be read");
        if (ok && EVP_DigestUpdate(ctx, chunk, (size_t)got) != 1)
            ok = err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
        pos += ok ? (uint64_t)got : 0;
    }
    free(chunk);
    return ok;
}

static bool payload_hash(const struct store_body *body, const struct call *call,
                         char out[SIGV4_HEX], struct err *err)
{
    if (body == NULL || body->size == 0)
        return sigv4_sha256_hex("", 0, out) || err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    if (body->sha256 != NULL) {
        sigv4_hex(body->sha256, 32, out);
        return true;
    }
    uint8_t sum[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    else if (body->mem == NULL)
        ok = hash_fd(body, call, ctx, err);
    else if (EVP_DigestUpdate(ctx, body->mem, (size_t)body->size) != 1)
        ok = err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    if (ok && EVP_DigestFinal_ex(ctx, sum, NULL) != 1)
        ok = err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    if (ok)
        sigv4_hex(sum, 32, out);
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* How a request is sent. */
struct sending {
    struct s3_place *place;
    struct aws_credentials *cred;
    const char *payload_hex;
    const struct call *call;
};

static bool encode_path(const struct s3 *s3, const struct s3_place *place,
                        const struct s3_request *req, struct buf *path)
{
    if (place->path_style && !buf_printf(path, "/%s", s3->bucket))
        return false;
    if (req->key == NULL)
        return place->path_style || buf_puts(path, "/");
    return buf_puts(path, "/") && sigv4_encode(path, s3->prefix, strlen(s3->prefix), true) &&
           sigv4_encode(path, req->key, strlen(req->key), true);
}

struct signed_request {
    struct sigv4_request sign;
    struct sigv4_field fields[SIGV4_MAX_HEADERS];
    struct buf path, url, auth;
    struct buf lines; /* "name: value", each ended by a NUL */
    const char *line[SIGV4_MAX_HEADERS + 1];
    size_t line_count;
};

static void add_field(struct signed_request *r, const char *name, const char *value)
{
    r->fields[r->sign.header_count++] = (struct sigv4_field){.name = name, .value = value};
}

static bool add_lines(struct signed_request *r)
{
    size_t start[SIGV4_MAX_HEADERS + 1];
    bool ok = true;
    for (size_t i = 0; ok && i < r->sign.header_count; i++) {
        start[r->line_count++] = r->lines.len;
        ok = buf_printf(&r->lines, "%s: %s", r->fields[i].name, r->fields[i].value) &&
             buf_append(&r->lines, "", 1);
    }
    start[r->line_count++] = r->lines.len;
    ok = ok && buf_printf(&r->lines, "authorization: %s", buf_str(&r->auth));
    for (size_t i = 0; ok && i < r->line_count; i++)
        r->line[i] = r->lines.data + start[i];
    return ok;
}

static bool sign(const struct s3 *s3, const struct sending *how, const struct s3_request *req,
                 struct signed_request *r, struct err *err)
{
    const struct s3_place *place = how->place;
    const struct aws_keys *keys = &how->cred->keys;
    r->path = (struct buf)BUF_INIT(URL_MAX);
    r->url = (struct buf)BUF_INIT(URL_MAX);
    r->auth = (struct buf)BUF_INIT(URL_MAX);
    r->lines = (struct buf)BUF_SECRET_INIT(HEADERS_BYTES_MAX); /* the session token */
    sigv4_date(time(NULL), r->sign.date);
    add_field(r, "host", place->host);
    add_field(r, "x-amz-content-sha256", how->payload_hex);
    add_field(r, "x-amz-date", r->sign.date);
    if (secret_is_set(&keys->token))
        add_field(r, "x-amz-security-token", keys->token.value);
    for (size_t i = 0; i < req->header_count; i++)
        add_field(r, req->headers[i].name, req->headers[i].value);
    bool ok = encode_path(s3, place, req, &r->path) &&
              buf_printf(&r->url, "%s%s", place->origin, buf_str(&r->path));
    if (ok && req->query_count > 0)
        ok = buf_puts(&r->url, "?") && sigv4_query(&r->url, req->query, req->query_count, false);
    if (!ok)
        return buf_refused(r->path.no_memory ? &r->path : &r->url, "the URL is too long", err);
    r->sign.method = req->method;
    r->sign.path = buf_str(&r->path);
    r->sign.query = req->query;
    r->sign.query_count = req->query_count;
    r->sign.headers = r->fields;
    r->sign.payload_hex = how->payload_hex;
    const struct sigv4_key key = {
        .access_key_id = keys->id.value, .secret = &keys->secret, .region = place->region};
    if (!sigv4_authorize(&key, &r->sign, &r->auth, err))
        return false;
    return add_lines(r) || buf_refused(&r->lines, "the headers are too long", err);
}

static void signed_free(struct signed_request *r)
{
    buf_free(&r->lines);
    buf_free(&r->path);
    buf_free(&r->url);
    buf_free(&r->auth);
}

static bool read_body(struct s3_reply *reply, size_t max, struct err *err, bool *again)
{
    reply->body = (struct buf)BUF_INIT(max);
    for (;;) {
        if (!buf_reserve(&reply->body, READ_CHUNK)) {
            *again = false;
            return err_set(err, ERR_UNAVAILABLE, "the answer is too long to be S3's");
        }
        ssize_t n = http_read(reply->x, reply->body.data + reply->body.len, READ_CHUNK, err, again);
        if (n <= 0)
            return n == 0;
        reply->body.len += (size_t)n;
        reply->body.data[reply->body.len] = '\0';
    }
}

static uint32_t retry_after_ms(const char *value)
{
    if (value == NULL)
        return 0;
    char *end;
    long seconds = strtol(value, &end, 10);
    if (end == value) { /* the other form is a date */
        time_t when = curl_getdate(value, NULL);
        seconds = when < 0 ? 0 : (long)(when - time(NULL));
    }
    if (seconds <= 0)
        return 0;
    return seconds > 3600 ? 3600u * 1000 : (uint32_t)seconds * 1000;
}

static void header_field(const struct http_exchange *x, const char *name, char *out, size_t cap)
{
    const char *value = http_header(x, name);
    if (out[0] == '\0' && value != NULL)
        s3_error_field(out, cap, value, strlen(value));
}

static bool refused(const struct s3_request *req, struct s3_reply *reply, const char *date,
                    struct err *err, bool *again)
{
    struct s3_error *e = &reply->error;
    *e = (struct s3_error){.status = reply->status};
    if (!read_body(reply, S3_ERROR_MAX, err, again)) {
        if (err->code != ERR_UNAVAILABLE || *again)
            return err_context(err, "%s", req->what);
        reply->body.len = 0; /* longer than any of S3's: somebody else's page */
    }
    s3_error_parse(e, buf_str(&reply->body), reply->body.len);
    header_field(reply->x, "x-amz-request-id", e->request_id, sizeof(e->request_id));
    header_field(reply->x, "x-amz-bucket-region", e->region, sizeof(e->region));
    header_field(reply->x, "date", e->server_time, sizeof(e->server_time));
    header_field(reply->x, "content-type", e->content_type, sizeof(e->content_type));
    s3_error_to_err(e, req->what, date, err, again);
    err->retry_after_ms = retry_after_ms(http_header(reply->x, "retry-after"));
    return false;
}

bool s3_refused_late(const char *what, struct s3_reply *reply, struct err *err, bool *again)
{
    reply->error = (struct s3_error){.status = reply->status};
    s3_error_parse(&reply->error, buf_str(&reply->body), reply->body.len);
    if (reply->error.readable)
        return s3_error_to_err(&reply->error, what, "", err, again);
    *again = true;
    return err_set(err, ERR_UNAVAILABLE, "%s: no readable answer", what);
}

static enum metric_work work_of(const char *method)
{
    return method[0] == 'G'   ? WORK_GET
           : method[0] == 'D' ? WORK_DELETE
           : method[1] == 'O' ? WORK_POST
                              : WORK_PUT;
}

static bool attempt(struct s3 *s3, const struct sending *how, const struct s3_request *req,
                    struct s3_reply *reply, struct err *err, bool *again)
{
    struct signed_request r = {.line_count = 0};
    bool small = !req->stream && (req->body == NULL || req->body->size <= S3_SMALL_BODY);
    uint32_t slow_ms = s3->request_timeout_ms * SLOW_TIMES;
    if (sign(s3, how, req, &r, err)) {
        const struct http_request http = {.method = req->method,
                                          .url = buf_str(&r.url),
                                          .headers = r.line,
                                          .header_count = r.line_count,
                                          .body = req->body,
                                          .want_md5 = req->want_md5,
                                          .total_timeout_ms = req->slow ? slow_ms
                                                              : small   ? s3->request_timeout_ms
                                                                        : 0,
                                          .stall_timeout_ms = req->slow ? slow_ms : 0};
        reply->x = http_open(s3->http, &http, how->call, err, again);
    }
    char date[SIGV4_DATE];
    memcpy(date, r.sign.date, sizeof(date));
    signed_free(&r);
    if (reply->x == NULL)
        return err_context(err, "%s", req->what);
    reply->status = http_status(reply->x);
    note_clock(s3, reply->x);
    if (reply->status < 200 || reply->status > 299)
        return refused(req, reply, date, err, again);
    if (req->stream)
        return true;
    if (!read_body(reply, S3_ANSWER_MAX, err, again))
        return err_context(err, "%s", req->what);
    return req->accept == NULL || req->accept(req->accept_arg, reply, err, again);
}

/* After a refusal: is its reason gone? */
static bool changed(struct s3 *s3, const struct sending *how, const struct s3_error *e,
                    struct err *err)
{
    struct err reason = ERR_INIT;
    if (s3_place_follow(s3, how->place, e))
        return true;
    if (!s3_error_stale(e))
        return false;
    if (aws_cred_renew(s3->cred, how->cred, how->call, &reason))
        return true;
    size_t len = strlen(err->text);
    if (reason.code != ERR_CANCELLED)
        (void)snprintf(err->text + len, sizeof(err->text) - len, "; %s", reason.text);
    return false;
}

bool s3_attempt(struct s3 *s3, const struct s3_request *req, const char *payload_hex,
                const struct call *call, struct s3_reply *reply, struct err *err, bool *again)
{
    for (int i = 0;; i++) {
        struct sending how = {.payload_hex = payload_hex, .call = call};
        *again = false;
        reply->error = (struct s3_error){.status = 0};
        how.cred = aws_cred_get(s3->cred, call, err);
        if (how.cred == NULL)
            return err_context(err, "%s", req->what);
        how.place = atomic_load(&s3->place);
        int64_t begun_us = now_us();
        bool ok = attempt(s3, &how, req, reply, err, again);
        metrics_work(work_of(req->method), ok ? ERR_NONE : err->code, now_us() - begun_us);
        bool anew = !ok && i < CHANGES_MAX && changed(s3, &how, &reply->error, err);
        aws_credentials_unref(how.cred);
        if (!anew)
            return ok;
        s3_reply_free(reply);
    }
}

bool s3_perform(struct s3 *s3, const struct s3_request *req, const struct call *call,
                struct s3_reply *reply, struct err *err)
{
    char payload_hex[SIGV4_HEX];
    struct retry retry;
    retry_init(&retry, req->max_attempts > 0 ? req->max_attempts : s3->max_attempts);
    *reply = (struct s3_reply){.x = NULL};
    if (!call_alive(call, req->what, err))
        return false;
    if (!payload_hash(req->body, call, payload_hex, err))
        return err_context(err, "%s", req->what);
    for (;;) {
        bool again = false;
        if (s3_attempt(s3, req, payload_hex, call, reply, err, &again)) {
            retry_not_needed();
            return true;
        }
        s3_reply_free(reply);
        if (!again)
            return false;
        if (!retry_again(&retry, call, err))
            return err->code != ERR_CANCELLED
                       ? false
                       : err_set(err, ERR_CANCELLED, "%s: interrupted", req->what);
    }
}

bool s3_perform_read(struct s3 *s3, const struct s3_request *req, const struct call *call,
                     struct s3_reply *reply, struct err *err)
{
    bool ok = s3_perform(s3, req, call, reply, err);
    if (!ok && err->code == ERR_UNSUPPORTED)
        err->code = ERR_UNAVAILABLE;
    return ok;
}
