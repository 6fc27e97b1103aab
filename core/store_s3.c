#include "core/store_s3.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/s3.h"

static void s3_free(struct store *store)
{
    struct s3 *s3 = (struct s3 *)store;
    if (s3 == NULL)
        return;
    http_free(s3->http);
    secret_free(&s3->secret_key);
    secret_free(&s3->session_token);
    free(s3->base.url);
    free(s3->bucket);
    free(s3->prefix);
    free(s3->region);
    free(s3->origin);
    free(s3->host);
    free(s3->root);
    free(s3->access_key_id);
    free(s3->storage_class);
    free(s3->sse_kms_key);
    free(s3);
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
    .space = s3_space,
    .free = s3_free,
};

/* "AZ09-" and so on; what may stand in a bucket's name or region without being encoded. */
static bool only_chars(const char *text, const char *allowed_more)
{
    static const char common[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    for (; *text != '\0'; text++) {
        if (strchr(common, *text) == NULL && strchr(allowed_more, *text) == NULL)
            return false;
    }
    return true;
}

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
    if (o->bucket == NULL || strlen(o->bucket) < 3 || strlen(o->bucket) > 63 ||
        !only_chars(o->bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZ._") || o->bucket[0] == '.')
        return err_set(err, ERR_INVALID, "\"%.100s\" is not a bucket's name",
                       o->bucket == NULL ? "" : o->bucket);
    if (o->access_key_id == NULL || o->access_key_id[0] == '\0' || !header_safe(o->access_key_id))
        return err_set(err, ERR_INVALID, "no access key id: set AWS_ACCESS_KEY_ID");
    if (!secret_is_set(o->secret_key))
        return err_set(err, ERR_INVALID, "no secret key: set AWS_SECRET_ACCESS_KEY");
    if (secret_is_set(o->session_token) && !header_safe(o->session_token->value))
        return err_set(err, ERR_INVALID, "the session token is not one");
    if (o->region != NULL && (!only_chars(o->region, "_") || strlen(o->region) > 60))
        return err_set(err, ERR_INVALID, "\"%.100s\" is not a region", o->region);
    if (!header_safe(o->storage_class) || !header_safe(o->sse_kms_key))
        return err_set(err, ERR_INVALID, "storage class or KMS key with blanks");
    if (o->sse_kms_key != NULL && o->sse != S3_SSE_KMS)
        return err_set(err, ERR_INVALID, "a KMS key needs server-side encryption with KMS");
    if (o->prefix != NULL && strlen(o->prefix) > STORE_KEY_MAX / 2)
        return err_set(err, ERR_INVALID, "the prefix is too long");
    return true;
}

/* Virtual hosts need a bucket name that is a host name; with TLS also one that the wildcard of the
 * server's certificate covers; and an endpoint that is a name. */
static bool needs_path_style(const char *bucket, const char *host, bool tls)
{
    char name[256];
    struct in_addr ignored;
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(host, ":"), host);
    return !only_chars(bucket, ".") || (tls && strchr(bucket, '.') != NULL) || host[0] == '[' ||
           inet_pton(AF_INET, name, &ignored) == 1;
}

struct endpoint {
    bool tls;
    char host[280]; /* with the port unless it is the scheme's own */
};

static bool parse_endpoint(const char *url, struct endpoint *e, struct err *err)
{
    const char *rest = NULL;
    if (strncasecmp(url, "https://", 8) == 0)
        rest = url + 8;
    else if (strncasecmp(url, "http://", 7) == 0)
        rest = url + 7;
    if (rest == NULL)
        return err_set(err, ERR_INVALID, "endpoint %.200s: must begin with http:// or https://",
                       url);
    e->tls = (url[4] | 0x20) == 's';
    size_t n = strcspn(rest, "/?#");
    const char *tail = rest + n;
    bool ok = n > 0 && n < 256 && memchr(rest, '@', n) == NULL &&
              (tail[0] == '\0' || strcmp(tail, "/") == 0);
    memcpy(e->host, rest, ok ? n : 0);
    e->host[ok ? n : 0] = '\0';
    for (char *c = e->host; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c | 0x20);
        ok = ok && (only_chars((char[]){*c, '\0'}, "._:[]%"));
    }
    char *colon = strrchr(e->host, ':');
    if (colon != NULL && strchr(colon, ']') == NULL) {
        char *end;
        long port = strtol(colon + 1, &end, 10);
        ok = ok && *end == '\0' && port > 0 && port < 65536;
        if (port == (e->tls ? 443 : 80))
            *colon = '\0';
    }
    return ok || err_set(err, ERR_INVALID, "endpoint %.200s: must be http(s)://host[:port]", url);
}

static bool aws_endpoint(const char *region, struct endpoint *e)
{
    e->tls = true;
    return snprintf(e->host, sizeof(e->host), "s3.%s.amazonaws.com%s", region,
                    strncmp(region, "cn-", 3) == 0 ? ".cn" : "") > 0;
}

static char *copy(const char *text)
{
    return text == NULL ? NULL : strdup(text);
}

static bool set_place(struct s3 *s3, const struct store_s3_options *o, struct err *err)
{
    struct endpoint e = {.tls = false};
    s3->region = strdup(o->region != NULL && o->region[0] != '\0' ? o->region : "us-east-1");
    if (s3->region == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (o->endpoint == NULL ? !aws_endpoint(s3->region, &e) : !parse_endpoint(o->endpoint, &e, err))
        return false;
    bool path_style = o->path_style || needs_path_style(o->bucket, e.host, e.tls);
    const char *prefix = o->prefix == NULL ? "" : o->prefix;
    while (*prefix == '/')
        prefix++;
    size_t len = strlen(prefix);
    bool slash = len > 0 && prefix[len - 1] != '/';
    if (asprintf(&s3->host, "%s%s%s", path_style ? "" : o->bucket, path_style ? "" : ".", e.host) <
        0)
        s3->host = NULL;
    if (asprintf(&s3->root, "%s%s", path_style ? "/" : "", path_style ? o->bucket : "") < 0)
        s3->root = NULL;
    if (asprintf(&s3->prefix, "%s%s", prefix, slash ? "/" : "") < 0)
        s3->prefix = NULL;
    if (s3->host == NULL || s3->root == NULL || s3->prefix == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (asprintf(&s3->origin, "%s://%s", e.tls ? "https" : "http", s3->host) < 0)
        s3->origin = NULL;
    if (asprintf(&s3->base.url, "s3://%s/%s", o->bucket, s3->prefix) < 0)
        s3->base.url = NULL;
    if (s3->origin == NULL || s3->base.url == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    return s3->prefix[0] == '\0' || store_key_check(s3->prefix, 0, err);
}

static bool set_access(struct s3 *s3, const struct store_s3_options *o, struct err *err)
{
    s3->bucket = strdup(o->bucket);
    s3->access_key_id = strdup(o->access_key_id);
    s3->storage_class = copy(o->storage_class);
    s3->sse_kms_key = copy(o->sse_kms_key);
    s3->sse = o->sse;
    s3->request_timeout_ms = o->request_timeout_ms;
    s3->max_attempts = o->max_attempts > 0 ? o->max_attempts : 1;
    if (s3->bucket == NULL || s3->access_key_id == NULL ||
        (s3->storage_class == NULL) != (o->storage_class == NULL) ||
        (s3->sse_kms_key == NULL) != (o->sse_kms_key == NULL))
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (!secret_set(&s3->secret_key, o->secret_key->value, o->secret_key->len, err))
        return false;
    return !secret_is_set(o->session_token) || o->session_token->len == 0 ||
           secret_set(&s3->session_token, o->session_token->value, o->session_token->len, err);
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
    const struct http_options http = {.ca_file = options->ca_file,
                                      .connect_timeout_ms = options->connect_timeout_ms,
                                      .stall_timeout_ms = options->stall_timeout_ms,
                                      .max_connections = options->max_connections};
    bool ok = set_access(s3, options, err) && set_place(s3, options, err);
    if (ok)
        s3->http = http_new(&http, err);
    if (s3->http != NULL)
        return &s3->base;
    s3_free(&s3->base);
    return NULL;
}
