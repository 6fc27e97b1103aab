#include "core/http.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/http_impl.h"

#define RECV_BYTES (64L * 1024)
#define SEND_BYTES (256L * 1024)

/* Programs that walefs starts must not inherit the connections. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    (void)purpose;
    struct http_handle *h = arg;
    h->fd = fd;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return CURL_SOCKOPT_OK;
}

static int on_socket_close(void *arg, curl_socket_t fd)
{
    struct http_handle *h = arg;
    if (h->fd == fd)
        h->fd = -1;
    return close(fd);
}

static void set_transport(const struct http *http, struct http_handle *h)
{
    CURL *easy = h->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECV_BYTES);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "walefs");
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, h);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_socket_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, h);
    /* or giving up would join a resolver thread that hangs on a dead name server */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    if (http->no_proxy)
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (http->ca_file != NULL) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    } else if (http->ca_by_dir) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    }
}

static void set_request(struct http_exchange *x, const struct http_request *req)
{
    CURL *easy = x->handle->easy;
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->reason);
    curl_easy_setopt(easy, CURLOPT_URL, req->url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers);
    if (x->has_body) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body.size);
        if (x->body.size > (uint64_t)RECV_BYTES)
            curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BYTES);
    }
    if (strcmp(req->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
}

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer != NULL)
        *list = longer;
    return longer != NULL;
}

static bool set_headers(struct http_exchange *x, const struct http_request *req)
{
    bool ok = add_header(&x->headers, "Expect:"); /* never wait for "100 Continue" */
    for (size_t i = 0; ok && i < req->header_count; i++)
        ok = add_header(&x->headers, req->headers[i]);
    return ok;
}

static bool begin(struct http_exchange *x, const struct http_request *req, struct err *err)
{
    x->answer = (struct buf)BUF_INIT(HTTP_HEADERS_MAX);
    x->pending = (struct buf)BUF_INIT(HTTP_PENDING_MAX);
    const char *host = strstr(req->url, "://");
    int shown = (int)(host == NULL ? 0 : host + 3 - req->url + (long)strcspn(host + 3, "/?"));
    (void)snprintf(x->url_shown, sizeof(x->url_shown), "%.*s", shown, req->url);
    x->attempt_deadline_ms =
        req->total_timeout_ms > 0 ? now_ms() + req->total_timeout_ms : DEADLINE_NONE;
    x->stall_timeout_ms =
        req->stall_timeout_ms > 0 ? req->stall_timeout_ms : x->http->stall_timeout_ms;
    x->has_body = req->body != NULL;
    if (x->has_body)
        x->body = *req->body;
    if (x->has_body && req->want_md5) {
        x->md5 = EVP_MD_CTX_new();
        if (x->md5 != NULL && EVP_DigestInit_ex(x->md5, EVP_md5(), NULL) != 1) {
            EVP_MD_CTX_free(x->md5); /* a FIPS OpenSSL has none */
            x->md5 = NULL;
        }
    }
    if (!set_headers(x, req))
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    x->handle->easy = curl_easy_init();
    if (x->handle->easy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    set_transport(x->http, x->handle);
    set_request(x, req);
    http_set_callbacks(x);
    if (curl_multi_add_handle(x->handle->multi, x->handle->easy) != CURLM_OK)
        return err_set(err, ERR_NO_MEMORY, "cannot start an HTTP transfer");
    return true;
}

/* Some servers (radosgw) send headers and body in two writes without TCP_NODELAY: the body then
 * waits for the acknowledgement of the headers, which this kernel would delay by 40 ms. */
static void acknowledge_now(const struct http_exchange *x)
{
    int on = 1;
    if (!x->done && x->handle->fd >= 0)
        (void)setsockopt(x->handle->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

struct http_exchange *http_open(struct http *http, const struct http_request *req,
                                const struct call *call, struct err *err, bool *again)
{
    *again = false;
    struct http_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    x->http = http;
    x->call = call;
    x->handle = http_take(http, call, err);
    bool ok =
        x->handle != NULL && begin(x, req, err) && http_pump(x, HTTP_GOAL_HEADERS, err, again);
    if (ok && !x->headers_done)
        ok = http_fail(x, err, again);
    if (ok) {
        acknowledge_now(x);
        *again = false;
        return x;
    }
    http_close(x);
    return NULL;
}

int http_status(const struct http_exchange *x)
{
    return x->status;
}

void http_each_header(const struct http_exchange *x,
                      void (*fn)(void *arg, const char *name, const char *value), void *arg)
{
    for (size_t pos = 0; pos < x->answer.len;) {
        const char *name = x->answer.data + pos;
        const char *value = name + strlen(name) + 1;
        fn(arg, name, value);
        pos = (size_t)(value - x->answer.data) + strlen(value) + 1;
    }
}

struct lookup {
    const char *name, *value;
};

static void match(void *arg, const char *name, const char *value)
{
    struct lookup *want = arg;
    if (want->value == NULL && strcasecmp(name, want->name) == 0)
        want->value = value;
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    struct lookup want = {.name = name};
    http_each_header(x, match, &want);
    return want.value;
}

static size_t take_pending(struct http_exchange *x, void *buf, size_t n)
{
    size_t have = x->pending.len - x->pending_pos;
    if (n > have)
        n = have;
    if (n > 0)
        memcpy(buf, x->pending.data + x->pending_pos, n);
    x->pending_pos += n;
    if (x->pending_pos == x->pending.len)
        x->pending_pos = x->pending.len = 0;
    return n;
}

ssize_t http_read(struct http_exchange *x, void *buf, size_t n, struct err *err, bool *again)
{
    size_t got = take_pending(x, buf, n);
    if (got > 0)
        return (ssize_t)got;
    x->dst = buf;
    x->dst_left = n;
    if (x->paused) {
        x->paused = false;
        (void)curl_easy_pause(x->handle->easy, CURLPAUSE_CONT); /* may run the callback at once */
    }
    bool ok = x->dst_left < n || x->done || http_pump(x, HTTP_GOAL_BODY, err, again);
    got = n - x->dst_left;
    x->dst = NULL;
    x->dst_left = 0;
    if (got > 0)
        return (ssize_t)got;
    if (ok && x->result == CURLE_OK)
        return 0;
    if (ok)
        (void)http_fail(x, err, again);
    return -1;
}

bool http_sent_md5(const struct http_exchange *x, uint8_t md5[HTTP_MD5_BYTES])
{
    if (x->md5 == NULL || x->body_pos != x->body.size)
        return false;
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    bool ok = copy != NULL && EVP_MD_CTX_copy_ex(copy, x->md5) == 1 &&
              EVP_DigestFinal_ex(copy, md5, NULL) == 1;
    EVP_MD_CTX_free(copy);
    return ok;
}

void http_close(struct http_exchange *x)
{
    if (x == NULL)
        return;
    if (x->handle != NULL) {
        if (x->handle->easy != NULL) {
            /* not complete: libcurl closes the connection, since an answer is still on its way */
            curl_multi_remove_handle(x->handle->multi, x->handle->easy);
            curl_easy_cleanup(x->handle->easy);
            x->handle->easy = NULL;
        }
        http_give_back(x->http, x->handle);
    }
    for (struct curl_slist *h = x->headers; h != NULL; h = h->next)
        explicit_bzero(h->data, strlen(h->data)); /* a session token may be among them */
    curl_slist_free_all(x->headers);
    EVP_MD_CTX_free(x->md5);
    buf_free(&x->answer);
    buf_free(&x->pending);
    free(x);
}
