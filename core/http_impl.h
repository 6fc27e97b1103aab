/* Shared by the files of the HTTP layer (http*.c) and by nothing else. */
#ifndef WALEFS_CORE_HTTP_IMPL_H
#define WALEFS_CORE_HTTP_IMPL_H

#include <curl/curl.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "core/buf.h"
#include "core/http.h"

#define HTTP_HEADERS_MAX (64 * 1024)
#define HTTP_PENDING_MAX (256 * 1024)

/* A curl multi, whose connection cache keeps one connection open, and during an exchange the easy
 * in it, which holds buffers that an idle handle should not. */
struct http_handle {
    CURLM *multi;
    CURL *easy;               /* NULL while idle */
    int fd;                   /* the connection made last, -1 when it is closed */
    struct http_handle *next; /* in the pool's idle list */
    int64_t idle_since_ms;
};

struct http {
    char *ca_file;  /* NULL: the system's */
    bool ca_by_dir; /* the system's certificates can be looked up one by one */
    uint32_t connect_timeout_ms, stall_timeout_ms;
    unsigned max_connections;
    bool no_proxy;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    unsigned busy;            /* lock; handles that exchanges own */
    struct http_handle *idle; /* lock; most recently used first */
};

struct http_exchange {
    struct http *http;
    struct http_handle *handle;
    const struct call *call;
    struct curl_slist *headers;
    char url_shown[128]; /* scheme, host and port */

    struct store_body body;
    bool has_body;
    uint64_t body_pos;
    EVP_MD_CTX *md5; /* NULL when not wanted */
    struct err body_err;

    int status;
    bool headers_done;
    bool headers_too_long;
    struct buf answer; /* header names and values, each ended by a NUL */

    char *dst; /* where the reader wants its bytes; NULL when nobody reads */
    size_t dst_left;
    struct buf pending; /* bytes that came before anybody wanted them */
    size_t pending_pos;
    bool paused;

    bool done; /* libcurl has ended the transfer, with: */
    CURLcode result;
    int64_t attempt_deadline_ms;
    uint32_t stall_timeout_ms;
    uint64_t events; /* callbacks so far, the measure of progress */
    char reason[CURL_ERROR_SIZE];
};

/* http_pool.c */
/* Waits for a place among the connections; NULL with ERR when the call ends before there is one. */
struct http_handle *http_take(struct http *http, const struct call *call, struct err *err);
void http_give_back(struct http *http, struct http_handle *h);

/* http_transfer.c */
void http_set_callbacks(struct http_exchange *x);

enum http_goal { HTTP_GOAL_HEADERS, HTTP_GOAL_BODY };

/* Drives the transfer until the goal is reached or libcurl has ended it (true), or until the call,
 * the attempt or the patience with a silent peer ends (false). */
bool http_pump(struct http_exchange *x, enum http_goal goal, struct err *err, bool *again);

/* http_error.c: fills ERR from what libcurl said. Returns false. */
bool http_fail(const struct http_exchange *x, struct err *err, bool *again);

#endif
