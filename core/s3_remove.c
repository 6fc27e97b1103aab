/* Deleting: up to a thousand keys in one POST, which XML limits to keys that XML 1.0 can carry; the
 * others, and all where the store does not know the request, go one by one. So do those of a
 * request that is forbidden as a whole: radosgw wants the right on the bucket for it, whatever a
 * policy says of these objects. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "core/s3.h"
#include "core/s3_xml.h"

#define BULK_MAX 1000
#define BULK_BYTES (8 * 1024 * 1024)

static bool remove_one(struct s3 *s3, const char *key, const struct call *call, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    s3_request_init(&req, s3, "DELETE", "delete", key);
    bool ok = s3_perform(s3, &req, call, &reply, err);
    s3_reply_free(&reply);
    return ok || err->code == ERR_ABSENT;
}

/* The first key that could not be deleted. */
struct bulk_result {
    const char *what;
    bool root_seen;
    struct s3_error error; /* being read */
    struct s3_error first;
    char key[STORE_KEY_SHOWN], first_key[STORE_KEY_SHOWN];
};

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    struct bulk_result *r = arg;
    if (strcmp(path, "DeleteResult") == 0)
        r->root_seen = true;
    else if (strcmp(path, "DeleteResult/Error/Code") == 0)
        s3_error_field(r->error.code, sizeof(r->error.code), text, n);
    else if (strcmp(path, "DeleteResult/Error/Message") == 0)
        s3_error_field(r->error.message, sizeof(r->error.message), text, n);
    else if (strcmp(path, "DeleteResult/Error/Key") == 0)
        s3_error_field(r->key, sizeof(r->key), text, n);
    else if (strcmp(path, "DeleteResult/Error") == 0) {
        r->error.readable = true;
        if (strcmp(r->error.code, "NoSuchKey") != 0 && !r->first.readable) {
            r->first = r->error;
            memcpy(r->first_key, r->key, sizeof(r->first_key));
        }
        r->error = (struct s3_error){.status = r->error.status};
        r->key[0] = '\0';
    }
    return true;
}

static bool accept_bulk(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct bulk_result *r = arg;
    const char *what = r->what;
    *r = (struct bulk_result){.what = what, .error = {.status = reply->status}};
    *again = true;
    if (!s3_xml_parse(buf_str(&reply->body), reply->body.len, on_element, r) || !r->root_seen) {
        struct s3_error whole = {.status = reply->status};
        s3_error_parse(&whole, buf_str(&reply->body), reply->body.len);
        if (whole.readable)
            return s3_error_to_err(&whole, what, "", err, again);
        return err_set(err, ERR_UNAVAILABLE, "%s: the answer is not S3's", what);
    }
    *again = false;
    if (!r->first.readable)
        return true;
    char key_what[S3_WHAT + STORE_KEY_SHOWN];
    (void)snprintf(key_what, sizeof(key_what), "%s (%s)", what, r->first_key);
    return s3_error_to_err(&r->first, key_what, "", err, again);
}

static bool content_md5(const struct buf *xml, char out[32])
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(xml->data, xml->len, sum, &len, EVP_md5(), NULL) != 1 || len != HTTP_MD5_BYTES)
        return false;
    return EVP_EncodeBlock((unsigned char *)out, sum, (int)len) > 0;
}

/* How to go on after a request that failed as a whole. */
enum bulk_end { BULK_DONE, BULK_DENIED, BULK_UNSUPPORTED };

static bool send_bulk(struct s3 *s3, const struct buf *xml, const struct call *call,
                      enum bulk_end *end, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    char md5[32];
    const struct store_body body = {.mem = xml->data, .size = xml->len};
    if (!content_md5(xml, md5)) {
        *end = BULK_UNSUPPORTED; /* this OpenSSL has no MD5: single deletes need none */
        return err_set(err, ERR_UNSUPPORTED, "MD5 is not available");
    }
    s3_request_init(&req, s3, "POST", "delete", NULL);
    s3_add_query(&req, "delete", NULL);
    s3_add_header(&req, "content-md5", md5);
    s3_add_header(&req, "content-type", "application/xml");
    struct bulk_result result = {.what = req.what};
    req.body = &body;
    req.accept = accept_bulk;
    req.accept_arg = &result;
    bool ok = s3_perform(s3, &req, call, &reply, err);
    if (!ok && err->code == ERR_UNSUPPORTED)
        *end = BULK_UNSUPPORTED;
    else if (!ok && reply.error.status == 403 && strcmp(reply.error.code, "AccessDenied") == 0)
        *end = BULK_DENIED;
    s3_reply_free(&reply);
    return ok;
}

static bool remove_singly(struct s3 *s3, const char *const *keys, size_t n, const struct call *call,
                          struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = remove_one(s3, keys[i], call, err);
    return ok;
}

static bool append_key(struct buf *xml, const struct s3 *s3, const char *key)
{
    size_t start = xml->len;
    if (buf_puts(xml, "<Object><Key>") && s3_xml_escape(xml, s3->prefix) &&
        s3_xml_escape(xml, key) && buf_puts(xml, "</Key></Object>"))
        return true;
    xml->len = start;
    return false;
}

static bool remove_bulk(struct s3 *s3, const char *const *keys, size_t n, const struct call *call,
                        struct err *err)
{
    struct buf xml = BUF_INIT(BULK_BYTES);
    size_t in_xml = 0;
    enum bulk_end end = BULK_DONE;
    bool ok = buf_puts(&xml, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                             "<Quiet>true</Quiet>") ||
              err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; ok && i < n; i++) {
        if (append_key(&xml, s3, keys[i]))
            in_xml++;
        else
            ok = remove_one(s3, keys[i], call, err);
    }
    if (ok && in_xml > 0) {
        ok = buf_puts(&xml, "</Delete>") || err_set(err, ERR_NO_MEMORY, "out of memory");
        ok = ok && send_bulk(s3, &xml, call, &end, err);
    }
    buf_free(&xml);
    if (end == BULK_DONE)
        return ok;
    if (end == BULK_UNSUPPORTED)
        atomic_store(&s3->no_bulk_delete, true);
    return remove_singly(s3, keys, n, call, err);
}

bool s3_remove(struct store *store, const char *const *keys, size_t n, const struct call *call,
               struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    for (size_t i = 0; i < n; i++) {
        if (!store_key_check(keys[i], strlen(s3->prefix), err))
            return false;
    }
    for (size_t done = 0; done < n;) {
        size_t count = n - done < BULK_MAX ? n - done : BULK_MAX;
        bool single = count == 1 || atomic_load(&s3->no_bulk_delete);
        if (!(single ? remove_singly : remove_bulk)(s3, keys + done, count, call, err))
            return false;
        done += count;
    }
    return true;
}
