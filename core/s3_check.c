/* The look at the store before a mount. Its errors are read by a person who is setting up. */
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/s3.h"

#define CHECK_ATTEMPTS 2
/* So long after its last part an upload's maker is taken for dead. */
#define STALE_UPLOAD_S (24 * 60 * 60)

/* An object that nobody makes. */
#define ABSENT_KEY "wal_005/walefs_absent"

/* S3 says "forbidden" of what is missing to who may not list it. A policy can allow the listing
 * above and not that; then every look at a name that is not there would wait, and no restore would
 * ever end. */
static bool probe_absence(struct s3 *s3, const struct call *call, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply;
    s3_request_init(&req, s3, "GET", "head", ABSENT_KEY);
    req.max_attempts = CHECK_ATTEMPTS;
    bool ok = s3_perform(s3, &req, call, &reply, err) || err->code == ERR_ABSENT;
    s3_reply_free(&reply);
    if (!ok && err->code == ERR_FORBIDDEN)
        return err_context(
            err,
            "%s: the store does not tell what is missing (s3:ListBucket must hold for "
            "it, whatever conditions it has)",
            s3->base.url);
    return ok;
}

static bool put_probe(struct s3 *s3, bool only_if_absent, const struct call *call, struct err *err)
{
    const struct store_put probe = {
        .body = {.mem = STORE_PROBE_TEXT, .size = strlen(STORE_PROBE_TEXT)},
        .only_if_absent = only_if_absent};
    return s3_put_tries(s3, STORE_PROBE_KEY, &probe, NULL, CHECK_ATTEMPTS, call, err);
}

static bool cannot_write(const struct s3 *s3, struct err *err)
{
    if (err->code == ERR_FORBIDDEN)
        return err_context(err, "%s cannot be written (mount with -o ro to read it)", s3->base.url);
    return err_context(err, "%s cannot be written", s3->base.url);
}

/* A conditional create of a key that is there must fail. */
static bool probe_guard(struct s3 *s3, const struct call *call, struct err *err)
{
    if (put_probe(s3, true, call, err)) {
        if (atomic_load(&s3->weak_guard))
            return true; /* it answered NotImplemented, and the put went without the header */
        if (put_probe(s3, true, call, err)) {
            atomic_store(&s3->weak_guard, true);
            return true;
        }
    }
    return err->code == ERR_EXISTS || cannot_write(s3, err);
}

/* Does the store compare a body with the hash that was signed? Then that is the acknowledged
 * checksum, and the MD5 that an ETag may be compared with is not worth its time. */
static void probe_payload_check(struct s3 *s3, const struct call *call)
{
    static const uint8_t wrong[32];
    const struct store_body body = {
        .mem = STORE_PROBE_TEXT, .size = strlen(STORE_PROBE_TEXT), .sha256 = wrong};
    struct s3_request req;
    struct s3_reply reply;
    struct err refused = ERR_INIT;
    s3_request_init(&req, s3, "PUT", "put", STORE_PROBE_KEY);
    req.body = &body;
    req.max_attempts = 1;
    if (!s3_perform(s3, &req, call, &reply, &refused) && reply.error.status == 400 &&
        strcmp(reply.error.code, "XAmzContentSHA256Mismatch") == 0)
        atomic_store(&s3->checks_payload, true);
    s3_reply_free(&reply);
}

/* As far as this identity may. */
static void sweep(struct s3 *s3, const struct call *call)
{
    struct s3_swept swept;
    struct err err = ERR_INIT;
    if (!s3_sweep(s3, (int64_t)time(NULL) - STALE_UPLOAD_S, &swept, call, &err))
        log_debug("unfinished uploads are not looked for: %s", err.text);
    if (swept.aborted > 0)
        log_info("%s: %zu uploads that were not finished and have not grown for a day have been "
                 "aborted",
                 s3->base.url, swept.aborted);
    if (swept.left > 0)
        log_warn("%s: %zu uploads that were begun more than a day ago are left alone: the store "
                 "does not tell whether they grow (s3:ListMultipartUploadParts)",
                 s3->base.url, swept.left);
}

bool s3_check(struct store *store, enum store_check how, bool *weak_guard, const struct call *call,
              struct err *err)
{
    struct s3 *s3 = (struct s3 *)store;
    struct store_page page;
    const struct store_list one = {.prefix = "", .max_keys = 1};
    if (!s3_list_tries(s3, &one, &page, CHECK_ATTEMPTS, call, err))
        return err_context(err, "%s cannot be listed", s3->base.url);
    store_page_free(&page);
    if (!probe_absence(s3, call, err))
        return false;
    if (how == STORE_CHECK_READ)
        return true;
    if (!probe_guard(s3, call, err))
        return false;
    probe_payload_check(s3, call);
    if (how == STORE_CHECK_MOUNT)
        sweep(s3, call);
    if (atomic_load(&s3->weak_guard)) {
        /* the lookup before it may have kept the probe from being written at all */
        if (!put_probe(s3, false, call, err))
            return cannot_write(s3, err);
    }
    *weak_guard = atomic_load(&s3->weak_guard);
    return true;
}
