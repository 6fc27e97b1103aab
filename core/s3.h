/* Shared by the files of the S3 store (store_s3.c, s3_*.c) and by nothing else. */
#ifndef WALEFS_CORE_S3_H
#define WALEFS_CORE_S3_H

#include <stdatomic.h>

#include "core/http.h"
#include "core/s3_error.h"
#include "core/sigv4.h"
#include "core/store_key.h"
#include "core/store_s3.h"

#define S3_HEADERS_MAX 24
#define S3_QUERY_MAX 8
#define S3_SMALL_BODY (1024 * 1024)
#define S3_ANSWER_MAX (16 * 1024 * 1024) /* a list of 1000 keys with long names, encoded */
#define S3_ERROR_MAX (64 * 1024)
#define S3_WHAT 320
#define S3_REGION 64

/* Constant once it is the store's. */
struct s3_place {
    char region[S3_REGION];
    bool path_style;        /* paths begin with "/bucket" */
    char *host;             /* as in the Host header */
    char *origin;           /* "https://host[:port]" */
    unsigned number;        /* of the places before it */
    struct s3_place *older; /* the one before it */
};

struct s3 {
    struct store base;
    char *bucket, *prefix;
    char *endpoint; /* NULL: AWS */
    bool path_style, region_given;
    _Atomic(struct s3_place *) place;
    struct aws_cred *cred;
    char *storage_class;
    enum s3_sse sse;
    char *sse_kms_key;
    uint32_t request_timeout_ms;
    unsigned max_attempts;
    struct http *http;
    _Atomic bool weak_guard;       /* the store does not honour If-None-Match */
    _Atomic bool checks_payload;   /* seen to refuse a body that is not of its signed hash */
    _Atomic bool no_bulk_delete;   /* the store does not know POST ?delete */
    _Atomic int64_t clock_ahead_s; /* INT64_MIN: not known */
};

struct s3_reply;

/* Looks at a complete 2xx answer; false with ERR, and *AGAIN when another try may help. */
typedef bool s3_accept_fn(void *arg, struct s3_reply *reply, struct err *err, bool *again);

/* One request. All strings are borrowed. Made by s3_request_init, filled by the adders. */
struct s3_request {
    const char *method;
    const char *key;    /* relative to the prefix; NULL: the bucket itself */
    char what[S3_WHAT]; /* "put s3://bucket/key", for messages */
    struct sigv4_field query[S3_QUERY_MAX];
    size_t query_count;
    struct sigv4_field headers[S3_HEADERS_MAX];
    size_t header_count;
    const struct store_body *body;
    bool want_md5;
    bool stream;           /* leave the body of a 2xx answer to be read */
    bool slow;             /* the store has work to do that goes with the size of an object */
    unsigned max_attempts; /* 0: the store's */
    s3_accept_fn *accept;
    void *accept_arg;
};

struct s3_reply {
    struct http_exchange *x; /* open until s3_reply_free */
    int status;
    struct buf body;
    struct s3_error error; /* of the last answer when s3_perform failed; status 0: no answer */
};

void s3_request_init(struct s3_request *req, const struct s3 *s3, const char *method,
                     const char *verb, const char *key);
void s3_add_query(struct s3_request *req, const char *name, const char *value);
void s3_add_header(struct s3_request *req, const char *name, const char *value);

/* Sends, and sends again what is worth it. True with a 2xx answer (REPLY filled, body read unless
 * `stream`). REPLY is to be freed in either case. */
bool s3_perform(struct s3 *s3, const struct s3_request *req, const struct call *call,
                struct s3_reply *reply, struct err *err);
/* The same for a request that reads: what a store or a gateway says of reading as such (HTTP 405,
 * 501) is ERR_UNAVAILABLE, since it is no answer about an object. */
bool s3_perform_read(struct s3 *s3, const struct s3_request *req, const struct call *call,
                     struct s3_reply *reply, struct err *err);
/* The same as s3_perform once, with the payload's hash in PAYLOAD_HEX; and once more when the store
 * refused for a reason that is gone by then: another region, renewed credentials. */
bool s3_attempt(struct s3 *s3, const struct s3_request *req, const char *payload_hex,
                const struct call *call, struct s3_reply *reply, struct err *err, bool *again);
void s3_reply_free(struct s3_reply *reply);
/* S3 answers some requests with 200 before it has done the work. For a body that is not what a 2xx
 * should bring: fills ERR from the error document in it, if that is what it is. Returns false. */
bool s3_refused_late(const char *what, struct s3_reply *reply, struct err *err, bool *again);

/* Facts from the headers of an answer about an object, its size from SIZE. */
void s3_fill_info(const struct http_exchange *x, uint64_t size, struct store_info *info);
void s3_copy_etag(const char *value, char etag[128]);

/* s3_place.c */
bool s3_bucket_ok(const char *bucket);
/* REGION NULL or "": unknown. */
bool s3_place_begin(struct s3 *s3, const char *region, struct err *err);
void s3_place_end(struct s3 *s3);
/* A request to USED was answered with E: true when it may be sent to another place now. Any thread.
 */
bool s3_place_follow(struct s3 *s3, struct s3_place *used, const struct s3_error *e);

/* s3_get.c */
bool s3_head(struct store *, const char *key, struct store_info *, const struct call *,
             struct err *);
struct source *s3_get(struct store *, const char *key, uint64_t offset, uint64_t length,
                      struct store_info *, const struct call *, struct err *);
/* Does KEY exist? For stores that cannot refuse to overwrite: true with *EXISTS, or ERR. */
bool s3_exists(struct s3 *s3, const char *key, const struct call *call, bool *exists,
               struct err *err);

/* "/bucket/prefix/key", encoded, as S3 names an object in a header. */
bool s3_encode_name(const struct s3 *s3, const char *key, struct buf *out);

/* s3_put.c */
bool s3_put(struct store *, const char *key, const struct store_put *, struct store_info *,
            const struct call *, struct err *);
/* MAX_ATTEMPTS 0: the store's. */
bool s3_put_tries(struct s3 *s3, const char *key, const struct store_put *put,
                  struct store_info *info, unsigned max_attempts, const struct call *call,
                  struct err *err);
/* The headers that say how the store keeps an object: class, encryption, metadata. NAMES holds the
 * metadata's header names while the request lives. */
struct s3_meta_names {
    char name[STORE_META_MAX][48];
};
void s3_add_object_headers(const struct s3 *s3, struct s3_request *req,
                           const struct store_meta *meta, size_t n, struct s3_meta_names *names);
/* Compares the answer's ETag with what was sent; copies it. */
bool s3_accept_etag(const struct s3_request *req, struct s3_reply *reply, char etag[128],
                    struct err *err, bool *again);

/* s3_list.c */
bool s3_list(struct store *, const struct store_list *, struct store_page *, const struct call *,
             struct err *);
bool s3_list_tries(struct s3 *s3, const struct store_list *list, struct store_page *page,
                   unsigned max_attempts, const struct call *call, struct err *err);

/* Seconds since 1970 of S3's ISO 8601 form; 0 when it is none. */
int64_t s3_parse_time(const char *text);

/* s3_copy.c */
bool s3_copy(struct store *, const char *from, const char *to, const char *etag,
             struct store_info *, const struct call *, struct err *);

/* s3_sweep.c: aborts uploads below the prefix that were begun before OLDER_THAN_S, are not
 * finished, and have no part that was stored since. */
struct s3_swept {
    size_t aborted;
    size_t left; /* of which the store does not tell when the last part was stored */
};
bool s3_sweep(struct s3 *s3, int64_t older_than_s, struct s3_swept *swept, const struct call *call,
              struct err *err);

/* s3_remove.c */
bool s3_remove(struct store *, const char *const *keys, size_t n, const struct call *,
               struct err *);

/* s3_multipart.c */
struct store_upload *s3_upload_begin(struct store *, const char *key, const struct store_put *,
                                     const struct call *, struct err *);
bool s3_upload_part(struct store_upload *, unsigned number, const struct store_body *,
                    const struct call *, struct err *);
bool s3_upload_complete(struct store_upload *, struct store_info *, const struct call *,
                        struct err *);
void s3_upload_abort(struct store_upload *, const struct call *);

/* s3_check.c */
bool s3_check(struct store *, enum store_check, bool *weak_guard, const struct call *,
              struct err *);

#endif
