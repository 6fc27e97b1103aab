#include "core/store_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/s3.h"

static void s3_free(struct store *store)
{
    struct s3 *s3 = (struct s3 *)store;
    if (s3 == NULL)
        return;
    http_free(s3->http);
    s3_place_end(s3);
    free(s3->base.url);
    free(s3->bucket);
    free(s3->prefix);
    free(s3->endpoint);
    free(s3->storage_class);
    free(s3->sse_kms_key);
    free(s3);
}

static bool s3_clock(struct store *store, int64_t *ahead_s)
{
    *ahead_s = atomic_load(&((struct s3 *)store)->clock_ahead_s);
    return *ahead_s != INT64_MIN;
}

static bool s3_space(struct store *store, uint64_t *total_bytes, uint64_t *free_bytes)
{
    (void)store;
    (void)total_bytes;
    (void)free_bytes;
    return false;
}

static const struct store_ops s3_ops = {
    .head = s3_head,
    .get = s3_get,
    .put = s3_put,
    .list = s3_list,
    .copy = s3_copy,
    .remove = s3_remove,
    .upload_begin = s3_upload_begin,
    .upload_part = s3_upload_part,
    .upload_complete = s3_upload_complete,
    .upload_abort = s3_upload_abort,
    .check = s3_check,
    .clock = s3_clock,
    .space = s3_space,
    .free = s3_free,
};

/* Header values: no control characters, or they could end the header. */
static bool header_safe(const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~')
            return false;
    }
    return true;
}

static bool check_options(const struct store_s3_options *o, struct err *err)
{
    if (!s3_bucket_ok(o->bucket))
        return err_set(err, ERR_INVALID, "\"%.100s\" is not a bucket's name",
                       o->bucket == NULL ? "" : o->bucket);
    if (!header_safe(o->storage_class) || !header_safe(o->sse_kms_key))
        return err_set(err, ERR_INVALID, "storage class or KMS key with blanks");
    if (o->sse_kms_key != NULL && o->sse != S3_SSE_KMS)
        return err_set(err, ERR_INVALID, "a KMS key needs server-side encryption with KMS");
    if (o->prefix != NULL && strlen(o->prefix) > STORE_KEY_MAX / 2)
        return err_set(err, ERR_INVALID, "the prefix is too long");
    return true;
}

static char *copy(const char *text)
{
    return text == NULL ? NULL : strdup(text);
}

static bool set_place(struct s3 *s3, const struct store_s3_options *o, struct err *err)
{
    const char *prefix = o->prefix == NULL ? "" : o->prefix;
    while (*prefix == '/')
        prefix++;
    size_t len = strlen(prefix);
    bool slash = len > 0 && prefix[len - 1] != '/';
    if (asprintf(&s3->prefix, "%s%s", prefix, slash ? "/" : "") < 0)
        s3->prefix = NULL;
    if (s3->prefix == NULL || asprintf(&s3->base.url, "s3://%s/%s", o->bucket, s3->prefix) < 0)
        s3->base.url = NULL;
    if (s3->base.url == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    s3->path_style = o->path_style;
    return s3_place_begin(s3, o->region, err) &&
           (s3->prefix[0] == '\0' || store_key_check(s3->prefix, 0, err));
}

static bool set_options(struct s3 *s3, const struct store_s3_options *o, struct err *err)
{
    s3->bucket = strdup(o->bucket);
    s3->endpoint = copy(o->endpoint);
    s3->storage_class = copy(o->storage_class);
    s3->sse_kms_key = copy(o->sse_kms_key);
    s3->sse = o->sse;
    s3->cred = o->cred;
    s3->request_timeout_ms = o->request_timeout_ms;
    s3->max_attempts = o->max_attempts > 0 ? o->max_attempts : 1;
    return (s3->bucket != NULL && (s3->endpoint == NULL) == (o->endpoint == NULL) &&
            (s3->storage_class == NULL) == (o->storage_class == NULL) &&
            (s3->sse_kms_key == NULL) == (o->sse_kms_key == NULL)) ||
           err_set(err, ERR_NO_MEMORY, "out of memory");
}

struct store *store_s3_new(const struct store_s3_options *options, struct err *err)
{
    if (!check_options(options, err))
        return NULL;
    struct s3 *s3 = calloc(1, sizeof(*s3));
    if (s3 == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s3->base.ops = &s3_ops;
    atomic_init(&s3->clock_ahead_s, INT64_MIN);
    const struct http_options http = {.ca_file = options->ca_file,
                                      .connect_timeout_ms = options->connect_timeout_ms,
                                      .stall_timeout_ms = options->stall_timeout_ms,
                                      .max_connections = options->max_connections};
    bool ok = set_options(s3, options, err) && set_place(s3, options, err);
    if (ok)
        s3->http = http_new(&http, err);
    if (s3->http != NULL)
        return &s3->base;
    s3_free(&s3->base);
    return NULL;
}
