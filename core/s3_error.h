/* S3's error answers and what they mean here (Amazon S3 API Reference, "Error responses"). */
#ifndef WALEFS_CORE_S3_ERROR_H
#define WALEFS_CORE_S3_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct s3_error {
    int status;
    bool readable; /* an S3 error document was there */
    char code[64]; /* "" when not readable; this and the following without control bytes */
    char message[256];
    char request_id[96];
    char region[64];        /* where the bucket is, when the store tells */
    char endpoint[128];     /* where a redirect points */
    char storage_class[32]; /* of InvalidObjectState */
    char server_time[64];   /* its clock, from the document or the Date header */
    char content_type[64];  /* of an answer that is not readable */
    long long actual_size;  /* ActualObjectSize of InvalidRange, -1 without */
};

/* Reads the document at BODY (it may be anything) into E, whose status is set. */
void s3_error_parse(struct s3_error *e, const char *body, size_t n);

/* The bucket is in another region than the request was signed for: E's, if it names one. */
bool s3_error_moved(const struct s3_error *e);

/* The credentials are wrong or too old: others may work. */
bool s3_error_stale(const struct s3_error *e);

/* A field's text without what could break a log line, cut to the field. */
void s3_error_field(char *out, size_t cap, const char *text, size_t n);

/* Fills ERR: WHAT ("put s3://bucket/key"), the store's code, message and request id, and a hint.
 * *AGAIN says whether the same request may work when it is sent again. OUR_TIME is what we signed
 * with. Returns false. */
bool s3_error_to_err(const struct s3_error *e, const char *what, const char *our_time,
                     struct err *err, bool *again);

/* How often s3_error_to_err has met each code: the Ith one and its *COUNT, NULL behind the last.
 * Codes that mean nothing here are counted together as "other", answers that are not S3's as
 * "none". Any thread. */
const char *s3_error_counted(size_t i, uint64_t *count);

#endif
