/* S3 over libcurl: SigV4 only, signed payloads, HTTP/1.1 with connection reuse, TLS verified.
 * Facts of the protocol: Amazon S3 API Reference. */
#ifndef WALEFS_CORE_STORE_S3_H
#define WALEFS_CORE_STORE_S3_H

#include "core/aws_cred.h"
#include "core/store.h"

enum s3_sse { S3_SSE_NONE, S3_SSE_AES256, S3_SSE_KMS };

/* All strings are borrowed during store_s3_new only. */
struct store_s3_options {
    const char *bucket;
    const char *prefix;        /* "" or "a/b" or "a/b/"; a missing trailing slash is added */
    const char *region;        /* NULL: us-east-1, or the one that the store then names */
    const char *endpoint;      /* NULL: AWS; else "http://host[:port]" or "https://..." */
    bool path_style;           /* else virtual-host style; forced where the bucket name needs it */
    const char *ca_file;       /* NULL: the system's */
    struct aws_cred *cred;     /* borrowed: outlives the store */
    const char *storage_class; /* NULL: the bucket's default */
    enum s3_sse sse;
    const char *sse_kms_key; /* NULL: the account's default key */
    uint32_t connect_timeout_ms;
    uint32_t stall_timeout_ms;   /* no byte in either direction */
    uint32_t request_timeout_ms; /* one attempt of a small request: everything but bodies > 1 MiB;
                                  * 10 times that for what takes the store long, which is copying
                                  * and completing an upload */
    unsigned max_attempts;       /* per request, at least 1 */
    unsigned max_connections;    /* requests under way at once; more wait for a place */
};

/* NULL with ERR_INVALID for options that contradict. Does not touch the network. */
struct store *store_s3_new(const struct store_s3_options *options, struct err *err);

#endif
