/* HTTP/1.1 through libcurl, without a thread of its own: the caller's thread drives the transfer,
 * and a cancel wakes it at once.
 *
 * The pool keeps handles (a curl easy in a curl multi, whose cache holds its connection) so that
 * requests reuse connections, and bounds how many are under way. An exchange owns one handle from
 * http_open to http_close; it may move between threads, one at a time. Redirects are not followed,
 * proxies come from the environment. Nothing here knows S3. */
#ifndef WALEFS_CORE_HTTP_H
#define WALEFS_CORE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/call.h"
#include "core/err.h"
#include "core/store.h"

struct http;
struct http_exchange;

struct http_options {
    const char *ca_file; /* NULL: the system's certificates */
    uint32_t connect_timeout_ms;
    uint32_t stall_timeout_ms; /* no byte in either direction while somebody waits for one */
    unsigned max_connections;
    bool no_proxy; /* whatever the environment says */
};

/* Strings are copied. Does not touch the network. The first one makes the process ignore SIGPIPE,
 * unless it is handled. */
struct http *http_new(const struct http_options *options, struct err *err);
void http_free(struct http *http); /* all exchanges are closed; NULL is allowed */

#define HTTP_MD5_BYTES 16

struct http_request {
    const char *method;
    const char *url;            /* fully encoded, sent as it is */
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    const struct store_body *body; /* NULL: none; borrowed until http_close */
    bool want_md5;                 /* of the body as it was sent */
    uint32_t total_timeout_ms;     /* from http_open to the end of the answer; 0: none */
    uint32_t stall_timeout_ms;     /* instead of the option; 0: that */
};

/* Sends the request and returns when the status and headers are there. The call is borrowed until
 * http_close. On failure *AGAIN says whether the same may work on another try.
 * ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_CANCELLED, ERR_LOCAL (the body cannot be read), ERR_INVALID. */
struct http_exchange *http_open(struct http *http, const struct http_request *req,
                                const struct call *call, struct err *err, bool *again);

int http_status(const struct http_exchange *x);

/* The value of the first header NAME (any case), or NULL. Borrowed until http_close. */
const char *http_header(const struct http_exchange *x, const char *name);

/* Calls FN for each header, name in lower case. */
void http_each_header(const struct http_exchange *x,
                      void (*fn)(void *arg, const char *name, const char *value), void *arg);

/* The body: up to N (> 0) bytes, 0 at its complete end, -1 when it broke off or the call ended. */
ssize_t http_read(struct http_exchange *x, void *buf, size_t n, struct err *err, bool *again);

/* MD5 of the body that was sent; false when it was not wanted or could not be computed. */
bool http_sent_md5(const struct http_exchange *x, uint8_t md5[HTTP_MD5_BYTES]);

/* Gives the handle back; an unfinished transfer closes its connection. NULL is allowed. */
void http_close(struct http_exchange *x);

/* How many connections are kept open and idle (for tests and status). */
unsigned http_idle(struct http *http);

#endif
