/* Storing whole objects. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/log.h"
#include "core/s3.h"

void s3_add_object_headers(const struct s3 *s3, struct s3_request *req,
                           const struct store_meta *meta, size_t n, struct s3_meta_names *names)
{
    if (s3->storage_class != NULL)
        s3_add_header(req, "x-amz-storage-class", s3->storage_class);
    if (s3->sse == S3_SSE_AES256)
        s3_add_header(req, "x-amz-server-side-encryption", "AES256");
    if (s3->sse == S3_SSE_KMS) {
        s3_add_header(req, "x-amz-server-side-encryption", "aws:kms");
        if (s3->sse_kms_key != NULL)
            s3_add_header(req, "x-amz-server-side-encryption-aws-kms-key-id", s3->sse_kms_key);
    }
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(names->name[i], sizeof(names->name[i]), "x-amz-meta-%s", meta[i].name);
        s3_add_header(req, names->name[i], meta[i].value);
    }
}

/* An ETag is the content's MD5 unless the object is encrypted with a key of its own (KMS, the
 * customer's), which may also be the bucket's default and then only shows in the answer. */
static bool etag_is_md5(const struct http_exchange *x, const char *etag)
{
    const char *sse = http_header(x, "x-amz-server-side-encryption");
    if (sse != NULL && strcasecmp(sse, "AES256") != 0)
        return false;
    if (http_header(x, "x-amz-server-side-encryption-customer-algorithm") != NULL)
        return false;
    return strlen(etag) == 32 && strspn(etag, "0123456789abcdefABCDEF") == 32;
}

bool s3_accept_etag(const struct s3_request *req, struct s3_reply *reply, char etag[128],
                    struct err *err, bool *again)
{
    s3_copy_etag(http_header(reply->x, "etag"), etag);
    *again = true;
    if (etag[0] == '\0')
        return err_set(err, ERR_UNAVAILABLE,
                       "%s: HTTP %d without an ETag; is there a proxy in between?", req->what,
                       reply->status);
    uint8_t md5[HTTP_MD5_BYTES];
    char md5_hex[2 * HTTP_MD5_BYTES + 1];
    *again = false;
    if (!etag_is_md5(reply->x, etag) || !http_sent_md5(reply->x, md5))
        return true;
    sigv4_hex(md5, sizeof(md5), md5_hex);
    return strcasecmp(md5_hex, etag) == 0 ||
           err_set(err, ERR_CORRUPT, "%s: the store keeps other content (ETag %s, sent %s)",
                   req->what, etag, md5_hex);
}

struct put_result {
    const struct s3_request *req;
    uint64_t size;
    struct store_info *info;
};

static bool accept_put(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct put_result *result = arg;
    char etag[128];
    if (!s3_accept_etag(result->req, reply, etag, err, again))
        return false;
    if (result->info != NULL)
        s3_fill_info(reply->x, result->size, result->info);
    return true;
}

static bool put_once(struct s3 *s3, const char *key, const struct store_put *put, bool conditional,
                     struct store_info *info, unsigned max_attempts, const struct call *call,
                     bool *unsupported, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    struct s3_meta_names names;
    s3_request_init(&req, s3, "PUT", "put", key);
    s3_add_object_headers(s3, &req, put->meta, put->meta_count, &names);
    if (conditional)
        s3_add_header(&req, "if-none-match", "*");
    struct put_result result = {.req = &req, .size = put->body.size, .info = info};
    req.body = &put->body;
    req.want_md5 = !atomic_load(&s3->checks_payload);
    req.max_attempts = max_attempts;
    req.accept = accept_put;
    req.accept_arg = &result;
    bool ok = s3_perform(s3, &req, call, &reply, err);
    *unsupported = !ok && err->code == ERR_UNSUPPORTED;
    s3_reply_free(&reply);
    return ok;
}

static bool refuse_existing(struct s3 *s3, const char *key, const struct call *call,
                            struct err *err)
{
    bool exists = false;
    char shown[STORE_KEY_SHOWN];
    if (!s3_exists(s3, key, call, &exists, err))
        return false;
    return !exists || err_set(err, ERR_EXISTS, "put s3://%s/%.80s%s: exists already", s3->bucket,
                              s3->prefix, store_key_show(key, shown));
}

bool s3_put_tries(struct s3 *s3, const char *key, const struct store_put *put,
                  struct store_info *info, unsigned max_attempts, const struct call *call,
                  struct err *err)
{
    bool conditional = put->only_if_absent && !atomic_load(&s3->weak_guard);
    bool unsupported = false;
    if (put->only_if_absent && !conditional && !refuse_existing(s3, key, call, err))
        return false;
    if (put_once(s3, key, put, conditional, info, max_attempts, call, &unsupported, err))
        return true;
    if (!conditional || !unsupported)
        return false;
    if (!atomic_exchange(&s3->weak_guard, true))
        log_warn("%s: the store does not know If-None-Match; walefs looks before it writes, which "
                 "is a weaker guard against two hosts that write the same name",
                 s3->base.url);
    return refuse_existing(s3, key, call, err) &&
           put_once(s3, key, put, false, info, max_attempts, call, &unsupported, err);
}

bool s3_put(struct store *store, const char *key, const struct store_put *put,
            struct store_info *info, const struct call *call, struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    return store_key_check(key, strlen(s3->prefix), err) &&
           store_meta_check(put->meta, put->meta_count, err) &&
           s3_put_tries(s3, key, put, info, 0, call, err);
}
