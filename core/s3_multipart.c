/* Multipart uploads.
 *
 * The answer to a complete can be lost after the store has acted on it; the retry then finds no
 * upload any more. That is a success exactly when the object is there with the size and the ETag
 * that these parts make, so that is what is looked for. */
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/s3.h"
#include "core/s3_xml.h"

#define COMPLETE_MAX (2 * 1024 * 1024)
#define ABORT_GRACE_MS 2000

struct part {
    unsigned number;
    uint64_t size;
    char etag[128];
};

struct store_upload {
    struct s3 *s3;
    char *key;
    char *id;
    bool only_if_absent;
    pthread_mutex_t lock;
    struct part *parts; /* lock */
    size_t count, cap;  /* lock */
};

static void upload_free(struct store_upload *up)
{
    if (up == NULL)
        return;
    pthread_mutex_destroy(&up->lock);
    free(up->parts);
    free(up->key);
    free(up->id);
    free(up);
}

static bool on_begin(void *arg, const char *path, const char *text, size_t n)
{
    (void)n;
    struct store_upload *up = arg;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId") != 0)
        return true;
    free(up->id);
    up->id = strdup(text);
    return up->id != NULL;
}

static bool accept_begin(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct store_upload *up = arg;
    *again = true;
    if (s3_xml_parse(buf_str(&reply->body), reply->body.len, on_begin, up) && up->id != NULL &&
        up->id[0] != '\0')
        return true;
    return err_set(err, ERR_UNAVAILABLE, "put %.200s: the store gave no upload id", up->key);
}

struct store_upload *s3_upload_begin(struct store *store, const char *key,
                                     const struct store_put *put, const struct call *call,
                                     struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    if (!store_key_check(key, strlen(s3->prefix), err) ||
        !store_meta_check(put->meta, put->meta_count, err))
        return NULL;
    struct store_upload *up = calloc(1, sizeof(*up));
    if (up == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&up->lock, NULL);
    up->s3 = s3;
    up->only_if_absent = put->only_if_absent;
    up->key = strdup(key);
    struct s3_request req;
    struct s3_reply reply = {.x = NULL};
    struct s3_meta_names names;
    static const struct store_body empty = {.mem = ""};
    s3_request_init(&req, s3, "POST", "put", key);
    s3_add_query(&req, "uploads", NULL);
    s3_add_object_headers(s3, &req, put->meta, put->meta_count, &names);
    req.body = &empty;
    req.accept = accept_begin;
    req.accept_arg = up;
    bool ok = up->key != NULL ? s3_perform(s3, &req, call, &reply, err)
                              : err_set(err, ERR_NO_MEMORY, "out of memory");
    s3_reply_free(&reply);
    if (ok)
        return up;
    upload_free(up);
    return NULL;
}

static bool add_part(struct store_upload *up, const struct part *part, struct err *err)
{
    bool ok = true;
    pthread_mutex_lock(&up->lock);
    size_t i = 0;
    while (i < up->count && up->parts[i].number != part->number)
        i++;
    if (i == up->cap) {
        size_t cap = up->cap == 0 ? 16 : 2 * up->cap;
        struct part *grown = realloc(up->parts, cap * sizeof(*grown));
        ok = grown != NULL;
        if (ok) {
            up->parts = grown;
            up->cap = cap;
        }
    }
    if (ok) {
        up->parts[i] = *part;
        up->count += i == up->count;
    }
    pthread_mutex_unlock(&up->lock);
    return ok || err_set(err, ERR_NO_MEMORY, "out of memory");
}

struct part_result {
    const struct s3_request *req;
    struct part *part;
};

static bool accept_part(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct part_result *r = arg;
    return s3_accept_etag(r->req, reply, r->part->etag, err, again);
}

bool s3_upload_part(struct store_upload *up, unsigned number, const struct store_body *body,
                    const struct call *call, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    char text[16];
    struct part part = {.number = number, .size = body->size};
    if (number < 1 || number > 10000)
        return err_set(err, ERR_INVALID, "put %.200s: S3 has no part number %u", up->key, number);
    (void)snprintf(text, sizeof(text), "%u", number);
    s3_request_init(&req, up->s3, "PUT", "put", up->key);
    s3_add_query(&req, "partNumber", text);
    s3_add_query(&req, "uploadId", up->id);
    struct part_result result = {.req = &req, .part = &part};
    req.body = body;
    req.want_md5 = !atomic_load(&up->s3->checks_payload);
    req.accept = accept_part;
    req.accept_arg = &result;
    bool ok = s3_perform(up->s3, &req, call, &reply, err);
    s3_reply_free(&reply);
    return ok && add_part(up, &part, err);
}

static int by_number(const void *a, const void *b)
{
    unsigned x = ((const struct part *)a)->number, y = ((const struct part *)b)->number;
    return (x > y) - (x < y);
}

static uint64_t total_size(const struct store_upload *up)
{
    uint64_t size = 0;
    for (size_t i = 0; i < up->count; i++)
        size += up->parts[i].size;
    return size;
}

static bool unhex(const char *hex, uint8_t out[HTTP_MD5_BYTES])
{
    for (size_t i = 0; i < HTTP_MD5_BYTES; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        out[i] = (uint8_t)byte;
    }
    return hex[2 * HTTP_MD5_BYTES] == '\0';
}

/* "MD5 of the parts' MD5s" "-count"; false when the parts' ETags are no MD5s. */
static bool whole_etag(const struct store_upload *up, char out[128])
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_md5(), NULL) == 1;
    for (size_t i = 0; ok && i < up->count; i++) {
        ok = strlen(up->parts[i].etag) == 32 && unhex(up->parts[i].etag, sum) &&
             EVP_DigestUpdate(ctx, sum, HTTP_MD5_BYTES) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, sum, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    if (!ok)
        return false;
    char hex[33];
    sigv4_hex(sum, HTTP_MD5_BYTES, hex);
    (void)snprintf(out, 128, "%s-%zu", hex, up->count);
    return true;
}

/* Is the object under the key what this upload made? When that cannot be told, ERR says why. */
static bool is_ours(struct store_upload *up, struct store_info *info, const struct call *call,
                    struct err *err)
{
    char etag[128];
    struct err why = ERR_INIT;
    if (!whole_etag(up, etag))
        return false;
    if (!s3_head(&up->s3->base, up->key, info, call, &why)) {
        if (why.code != ERR_ABSENT)
            *err = why;
        return false;
    }
    return info->size == total_size(up) && strcmp(info->etag, etag) == 0;
}

static bool complete_xml(const struct store_upload *up, struct buf *xml, struct err *err)
{
    if (up->count == 0)
        return err_set(err, ERR_INVALID, "put %.200s: an upload without parts", up->key);
    bool ok = buf_puts(
        xml, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; ok && i < up->count; i++) {
        if (up->parts[i].number != i + 1)
            return err_set(err, ERR_INVALID, "put %.200s: part %zu is missing", up->key, i + 1);
        ok =
            buf_printf(xml, "<Part><PartNumber>%u</PartNumber><ETag>&quot;", up->parts[i].number) &&
            s3_xml_escape(xml, up->parts[i].etag) && buf_puts(xml, "&quot;</ETag></Part>");
    }
    ok = ok && buf_puts(xml, "</CompleteMultipartUpload>");
    return ok || err_set(err, ERR_INVALID, "put %.200s: too many parts", up->key);
}

struct complete_result {
    const char *what;
    bool etag_seen, root_seen;
    char etag[128]; /* radosgw leaves it empty */
};

static bool on_complete(void *arg, const char *path, const char *text, size_t n)
{
    (void)n;
    struct complete_result *r = arg;
    if (strcmp(path, "CompleteMultipartUploadResult/ETag") == 0) {
        s3_copy_etag(text, r->etag);
        r->etag_seen = true;
    } else if (strcmp(path, "CompleteMultipartUploadResult") == 0) {
        r->root_seen = true;
    }
    return true;
}

/* A 200 comes before the store has done its work; the body tells how that ended. */
static bool accept_complete(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct complete_result *r = arg;
    r->etag_seen = r->root_seen = false;
    r->etag[0] = '\0';
    bool parsed = s3_xml_parse(buf_str(&reply->body), reply->body.len, on_complete, r);
    if (parsed && r->root_seen && r->etag_seen)
        return true;
    return s3_refused_late(r->what, reply, err, again);
}

static bool send_complete(struct store_upload *up, const struct buf *xml, bool conditional,
                          struct store_info *info, const struct call *call, bool *unsupported,
                          struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    const struct store_body body = {.mem = xml->data, .size = xml->len};
    s3_request_init(&req, up->s3, "POST", "put", up->key);
    s3_add_query(&req, "uploadId", up->id);
    s3_add_header(&req, "content-type", "application/xml");
    if (conditional)
        s3_add_header(&req, "if-none-match", "*");
    struct complete_result result = {.what = req.what};
    req.body = &body;
    req.slow = true;
    req.accept = accept_complete;
    req.accept_arg = &result;
    bool ok = s3_perform(up->s3, &req, call, &reply, err);
    if (ok && result.etag[0] != '\0') {
        s3_fill_info(reply.x, total_size(up), info);
        memcpy(info->etag, result.etag, sizeof(info->etag));
    } else if (ok) {
        ok = is_ours(up, info, call, err) ||
             err_set(err, ERR_UNAVAILABLE, "%s: the store has put it together, but it is not there",
                     req.what);
    } else if (strcmp(reply.error.code, "NoSuchUpload") == 0 || err->code == ERR_EXISTS) {
        ok = is_ours(up, info, call, err); /* the answer to an earlier try may have been lost */
    }
    *unsupported = !ok && err->code == ERR_UNSUPPORTED;
    s3_reply_free(&reply);
    return ok;
}

/* Older stores take If-None-Match on this request without honouring it, so the key is looked up in
 * any case; the header closes the gap where it is known. */
static bool complete_guarded(struct store_upload *up, const struct buf *xml,
                             struct store_info *info, const struct call *call, struct err *err)
{
    bool unsupported = false, exists = false;
    bool conditional = up->only_if_absent && !atomic_load(&up->s3->weak_guard);
    if (up->only_if_absent && !s3_exists(up->s3, up->key, call, &exists, err))
        return false;
    if (exists)
        return err_set(err, ERR_EXISTS, "put %.200s: exists already", up->key);
    if (send_complete(up, xml, conditional, info, call, &unsupported, err))
        return true;
    return conditional && unsupported &&
           send_complete(up, xml, false, info, call, &unsupported, err);
}

bool s3_upload_complete(struct store_upload *up, struct store_info *info, const struct call *call,
                        struct err *err)
{
    struct store_info own;
    struct buf xml = BUF_INIT(COMPLETE_MAX);
    if (up->count > 1)
        qsort(up->parts, up->count, sizeof(up->parts[0]), by_number);
    bool ok = complete_xml(up, &xml, err) &&
              complete_guarded(up, &xml, info != NULL ? info : &own, call, err);
    buf_free(&xml);
    if (ok)
        upload_free(up);
    else
        s3_upload_abort(up, call);
    return ok;
}

/* Parts that stay behind cost money, so one short attempt is made even for a call that has ended,
 * unless it was cancelled: then somebody wants to be gone. */
void s3_upload_abort(struct store_upload *up, const struct call *call)
{
    struct s3_request req;
    struct s3_reply reply = {.x = NULL};
    struct err ignored = ERR_INIT;
    struct call grace = {.cancel = call->cancel, .deadline_ms = now_ms() + ABORT_GRACE_MS};
    s3_request_init(&req, up->s3, "DELETE", "abort", up->key);
    s3_add_query(&req, "uploadId", up->id);
    req.max_attempts = 2;
    (void)s3_perform(up->s3, &req, call_left_ms(call) > ABORT_GRACE_MS ? call : &grace, &reply,
                     &ignored);
    s3_reply_free(&reply);
    upload_free(up);
}
