/* Copies within the store. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/s3.h"
#include "core/s3_xml.h"

#define NAME_MAX_BYTES 4096u /* a key of 1024 bytes, each encoded, and a bucket */

bool s3_encode_name(const struct s3 *s3, const char *key, struct buf *out)
{
    return buf_puts(out, "/") && buf_puts(out, s3->bucket) && buf_puts(out, "/") &&
           sigv4_encode(out, s3->prefix, strlen(s3->prefix), true) &&
           sigv4_encode(out, key, strlen(key), true);
}

struct copied {
    const struct s3_request *req;
    char etag[128];
};

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    struct copied *c = arg;
    (void)n;
    if (strcmp(path, "CopyObjectResult/ETag") == 0)
        s3_copy_etag(text, c->etag);
    return true;
}

/* S3 answers 200 before it copies: only the document tells how that went. */
static bool accept_copy(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct copied *c = arg;
    c->etag[0] = '\0';
    if (s3_xml_parse(buf_str(&reply->body), reply->body.len, on_element, c) && c->etag[0] != '\0')
        return true;
    return s3_refused_late(c->req->what, reply, err, again);
}

/* radosgw does not know the condition. */
static bool is_still(struct store *store, const char *key, const char *etag,
                     const struct call *call, struct err *err)
{
    struct store_info info;
    if (!s3_head(store, key, &info, call, err))
        return false;
    return strcmp(info.etag, etag) == 0 ||
           err_set(err, ERR_STALE, "%s was replaced while it was copied", key);
}

bool s3_copy(struct store *store, const char *from, const char *to, const char *etag,
             struct store_info *info, const struct call *call, struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    struct buf name = BUF_INIT(NAME_MAX_BYTES);
    struct s3_request req;
    struct s3_reply reply = {.x = NULL};
    char quoted[132];
    bool ok = store_key_check(from, strlen(s3->prefix), err) &&
              store_key_check(to, strlen(s3->prefix), err);
    if (ok && !s3_encode_name(s3, from, &name))
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    if (ok) {
        struct copied copied = {.req = &req};
        s3_request_init(&req, s3, "PUT", "copy to", to);
        s3_add_header(&req, "x-amz-copy-source", buf_str(&name));
        (void)snprintf(quoted, sizeof(quoted), "\"%s\"", etag != NULL ? etag : "");
        if (etag != NULL)
            s3_add_header(&req, "x-amz-copy-source-if-match", quoted);
        s3_add_object_headers(s3, &req, NULL, 0, NULL);
        req.slow = true;
        req.accept = accept_copy;
        req.accept_arg = &copied;
        ok = s3_perform(s3, &req, call, &reply, err);
        if (!ok && err->code == ERR_EXISTS) /* the precondition failed */
            err->code = ERR_STALE;
        s3_reply_free(&reply);
    }
    buf_free(&name);
    return ok && (etag == NULL || is_still(store, from, etag, call, err)) &&
           (info == NULL || s3_head(store, to, info, call, err));
}
