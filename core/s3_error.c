#include "core/s3_error.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/s3_xml.h"

void s3_error_field(char *out, size_t cap, const char *text, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < cap; i++) {
        unsigned char c = (unsigned char)text[i];
        bool blank = c <= 0x20 || c == 0x7f;
        if (!blank)
            out[len++] = text[i];
        else if (len > 0 && out[len - 1] != ' ')
            out[len++] = ' ';
    }
    while (len > 0 && out[len - 1] == ' ')
        len--;
    out[len] = '\0';
}

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    struct s3_error *e = arg;
    if (strcmp(path, "Error/Code") == 0)
        s3_error_field(e->code, sizeof(e->code), text, n);
    else if (strcmp(path, "Error/Message") == 0)
        s3_error_field(e->message, sizeof(e->message), text, n);
    else if (strcmp(path, "Error/RequestId") == 0)
        s3_error_field(e->request_id, sizeof(e->request_id), text, n);
    else if (strcmp(path, "Error/Region") == 0)
        s3_error_field(e->region, sizeof(e->region), text, n);
    else if (strcmp(path, "Error/Endpoint") == 0)
        s3_error_field(e->endpoint, sizeof(e->endpoint), text, n);
    else if (strcmp(path, "Error/StorageClass") == 0)
        s3_error_field(e->storage_class, sizeof(e->storage_class), text, n);
    else if (strcmp(path, "Error/ServerTime") == 0)
        s3_error_field(e->server_time, sizeof(e->server_time), text, n);
    else if (strcmp(path, "Error/ActualObjectSize") == 0)
        e->actual_size = strtoll(text, NULL, 10);
    else if (strcmp(path, "Error") == 0)
        e->readable = e->code[0] != '\0';
    return true;
}

void s3_error_parse(struct s3_error *e, const char *body, size_t n)
{
    e->readable = false;
    e->actual_size = -1;
    if (s3_xml_parse(body, n, on_element, e))
        return;
    /* a torn or foreign document must not be half believed */
    e->readable = false;
    e->code[0] = e->message[0] = '\0';
}

/* What to do about the errors that a person has to do something about. */
#define HINT_KEY "check AWS_ACCESS_KEY_ID and where it belongs"
#define HINT_SECRET "check AWS_SECRET_ACCESS_KEY"
#define HINT_TOKEN "get new temporary credentials"
#define HINT_POLICY "check the policy of this key for this bucket"
#define HINT_REGION "check AWS_REGION and the endpoint"

static const struct meaning {
    const char *code;
    enum err_code err;
    bool again;
    const char *hint;
} meanings[] = {
    {"NoSuchKey", ERR_ABSENT, false, NULL},
    {"NoSuchBucket", ERR_NO_BUCKET, false, "check the bucket's name, its region and the endpoint"},
    {"NoSuchUpload", ERR_UNAVAILABLE, false, "the multipart upload was removed meanwhile"},
    {"PreconditionFailed", ERR_EXISTS, false, NULL},
    {"ConditionalRequestConflict", ERR_UNAVAILABLE, true, "others write this key right now"},
    {"OperationAborted", ERR_UNAVAILABLE, true, NULL},
    {"AccessDenied", ERR_FORBIDDEN, false, HINT_POLICY},
    {"AllAccessDisabled", ERR_FORBIDDEN, false, HINT_POLICY},
    {"AccountProblem", ERR_FORBIDDEN, false, NULL},
    {"InvalidAccessKeyId", ERR_FORBIDDEN, false, HINT_KEY},
    {"SignatureDoesNotMatch", ERR_FORBIDDEN, false, HINT_SECRET},
    {"ExpiredToken", ERR_FORBIDDEN, false, HINT_TOKEN},
    {"InvalidToken", ERR_FORBIDDEN, false, HINT_TOKEN},
    {"TokenRefreshRequired", ERR_FORBIDDEN, false, HINT_TOKEN},
    {"RequestTimeTooSkewed", ERR_FORBIDDEN, false, "set this host's clock"},
    {"AuthorizationHeaderMalformed", ERR_FORBIDDEN, false, HINT_REGION},
    {"PermanentRedirect", ERR_FORBIDDEN, false, HINT_REGION},
    {"IllegalLocationConstraintException", ERR_FORBIDDEN, false, HINT_REGION},
    {"TemporaryRedirect", ERR_UNAVAILABLE, false, "use the bucket's own regional endpoint"},
    {"SlowDown", ERR_THROTTLED, true, NULL},
    {"ServiceUnavailable", ERR_THROTTLED, true, NULL},
    {"TooManyRequests", ERR_THROTTLED, true, NULL},
    {"RequestLimitExceeded", ERR_THROTTLED, true, NULL},
    {"InternalError", ERR_UNAVAILABLE, true, NULL},
    {"RequestTimeout", ERR_TIMEOUT, true, NULL},
    {"XAmzContentSHA256Mismatch", ERR_CORRUPT, true, "the content changed on its way"},
    {"BadDigest", ERR_CORRUPT, true, "the content changed on its way"},
    {"IncompleteBody", ERR_UNAVAILABLE, true, NULL},
    {"InvalidObjectState", ERR_FROZEN, false, NULL},
    {"EntityTooLarge", ERR_INVALID, false, "the store does not take objects of this size"},
    {"EntityTooSmall", ERR_INVALID, false, NULL},
    {"QuotaExceeded", ERR_NO_SPACE, false, "raise the quota or delete old backups"},
    {"InsufficientCapacity", ERR_NO_SPACE, false, NULL},
    {"XMinioStorageFull", ERR_NO_SPACE, false, NULL},
    {"NotImplemented", ERR_UNSUPPORTED, false, NULL},
    {"MethodNotAllowed", ERR_UNSUPPORTED, false, NULL},
    {"InvalidRange", ERR_INVALID, false, NULL},
    {"InvalidStorageClass", ERR_INVALID, false, "check the storage class"},
};

#define MEANINGS (sizeof(meanings) / sizeof(meanings[0]))
enum { COUNTED_OTHER = MEANINGS, COUNTED_NONE, COUNTED };
static _Atomic uint64_t counted[COUNTED];

const char *s3_error_counted(size_t i, uint64_t *count)
{
    if (i >= COUNTED)
        return NULL;
    *count = atomic_load(&counted[i]);
    return i == COUNTED_OTHER ? "other" : i == COUNTED_NONE ? "none" : meanings[i].code;
}

static const struct meaning *lookup(const char *code)
{
    for (size_t i = 0; i < MEANINGS; i++) {
        if (strcmp(meanings[i].code, code) == 0)
            return &meanings[i];
    }
    return NULL;
}

/* A code that is not in the table: the status decides. */
static struct meaning by_status(int status)
{
    struct meaning m = {.err = ERR_UNAVAILABLE, .again = status >= 500 || status == 408};
    if (status == 401 || status == 403)
        m.err = ERR_FORBIDDEN;
    else if (status == 429) {
        m.err = ERR_THROTTLED;
        m.again = true;
    } else if (status == 507)
        m.err = ERR_NO_SPACE;
    else if (status == 501) {
        m.err = ERR_UNSUPPORTED;
        m.again = false;
    } else if (status == 412)
        m.err = ERR_EXISTS;
    return m;
}

static bool one_of(const char *code, const char *const *codes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(code, codes[i]) == 0)
            return true;
    }
    return false;
}

bool s3_error_moved(const struct s3_error *e)
{
    static const char *const codes[] = {"AuthorizationHeaderMalformed", "PermanentRedirect",
                                        "TemporaryRedirect", "IllegalLocationConstraintException"};
    if (e->region[0] == '\0')
        return false;
    if (e->readable)
        return one_of(e->code, codes, sizeof(codes) / sizeof(codes[0]));
    return e->status == 301 || e->status == 307 || e->status == 400; /* a HEAD has no document */
}

bool s3_error_stale(const struct s3_error *e)
{
    static const char *const codes[] = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired",
                                        "InvalidAccessKeyId", "SignatureDoesNotMatch"};
    return e->readable && one_of(e->code, codes, sizeof(codes) / sizeof(codes[0]));
}

/* An answer without an S3 error document says nothing about an object, whatever its status. */
static bool not_s3(const struct s3_error *e, const char *what, struct err *err, bool *again)
{
    enum err_code code = e->status == 429   ? ERR_THROTTLED
                         : e->status == 401 ? ERR_FORBIDDEN
                                            : ERR_UNAVAILABLE;
    *again = e->status >= 500 || e->status == 408 || e->status == 429;
    const char *hint = e->status == 407 ? "the proxy wants credentials"
                       : e->status < 400 || e->status == 403 || e->status == 404
                           ? "is there a proxy, or another service at this endpoint?"
                           : "";
    return err_set(err, code, "%s: HTTP %d without an S3 error document (%s)%s%s", what, e->status,
                   e->content_type[0] != '\0' ? e->content_type : "no content type",
                   hint[0] != '\0' ? "; " : "", hint);
}

bool s3_error_to_err(const struct s3_error *e, const char *what, const char *our_time,
                     struct err *err, bool *again)
{
    *again = false;
    const struct meaning *known = e->readable ? lookup(e->code) : NULL;
    size_t place = known != NULL ? (size_t)(known - meanings)
                   : e->readable ? COUNTED_OTHER
                                 : COUNTED_NONE;
    atomic_fetch_add(&counted[place], 1);
    if (!e->readable && s3_error_moved(e))
        return err_set(err, ERR_FORBIDDEN,
                       "%s: HTTP %d; the bucket is in region %s: set AWS_REGION", what, e->status,
                       e->region);
    if (!e->readable)
        return not_s3(e, what, err, again);
    struct meaning m = known != NULL ? *known : by_status(e->status);
    char hint[256];
    (void)snprintf(hint, sizeof(hint), "%s%s", m.hint != NULL ? "; " : "",
                   m.hint != NULL ? m.hint : "");
    if (strcmp(e->code, "RequestTimeTooSkewed") == 0)
        (void)snprintf(hint, sizeof(hint),
                       "; this host's clock says %s, the store's %s: set this host's clock",
                       our_time, e->server_time[0] != '\0' ? e->server_time : "something else");
    else if (s3_error_moved(e))
        (void)snprintf(hint, sizeof(hint), "; the bucket is in region %s: set AWS_REGION",
                       e->region);
    else if (m.err == ERR_FROZEN)
        (void)snprintf(
            hint, sizeof(hint),
            "; it is in an archive storage class (%s): restore it first (aws s3api "
            "restore-object --restore-request Days=14 --bucket ... --key ...), then read "
            "it again",
            e->storage_class[0] != '\0' ? e->storage_class : "GLACIER or the like");
    else if (e->endpoint[0] != '\0')
        (void)snprintf(hint, sizeof(hint), "; the bucket is at %s", e->endpoint);
    *again = m.again;
    err_set(err, m.err, "%s: %s%s%s (HTTP %d%s%s)%s", what, e->code,
            e->message[0] != '\0' ? ": " : "", e->message, e->status,
            e->request_id[0] != '\0' ? ", request " : "", e->request_id, hint);
    strcpy(err->remote, e->code);
    strcpy(err->request, e->request_id);
    return false;
}
