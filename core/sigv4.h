/* AWS Signature Version 4 for S3 (Amazon S3 API Reference, "Authenticating Requests: Using the
 * Authorization Header"): the path is encoded once, the payload is always signed. Pure functions,
 * any thread, no I/O. */
#ifndef WALEFS_CORE_SIGV4_H
#define WALEFS_CORE_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/secret.h"

#define SIGV4_HEX 65  /* SHA-256 in hexadecimal, with the NUL */
#define SIGV4_DATE 17 /* "20130524T000000Z", with the NUL */
#define SIGV4_MAX_HEADERS 32

struct sigv4_field {
    const char *name;
    const char *value; /* NULL: a query parameter that is written without '=' in the URL */
};

struct sigv4_key {
    const char *access_key_id;
    const struct secret *secret;
    const char *region;
    const char *service; /* NULL: "s3" */
};

struct sigv4_request {
    const char *method;
    const char *path;                /* encoded, as it goes into the URL, with its first slash */
    const struct sigv4_field *query; /* names and values not yet encoded, any order */
    size_t query_count;
    const struct sigv4_field *headers; /* all are signed; lower case names, "host" among them,
                                          "x-amz-date" and "x-amz-content-sha256" too */
    size_t header_count;               /* at most SIGV4_MAX_HEADERS */
    const char *payload_hex;           /* SHA-256 of the body */
    char date[SIGV4_DATE];             /* of x-amz-date */
};

/* Percent-encodes all but the unreserved characters (and '/', when KEEP_SLASH). */
bool sigv4_encode(struct buf *out, const char *in, size_t n, bool keep_slash);

/* The query as it goes into the URL, sorted and encoded, without '?'. */
bool sigv4_query(struct buf *out, const struct sigv4_field *query, size_t n, bool canonical);

void sigv4_date(time_t now, char out[SIGV4_DATE]);
void sigv4_hex(const uint8_t *in, size_t n, char *out);
bool sigv4_sha256_hex(const void *data, size_t n, char out[SIGV4_HEX]);

/* Appends the value of the Authorization header. */
bool sigv4_authorize(const struct sigv4_key *key, const struct sigv4_request *req, struct buf *out,
                     struct err *err);

#endif
