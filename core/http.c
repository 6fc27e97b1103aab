#include "core/http.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/http_impl.h"
#include "core/waiter.h"

/* A handle that was not needed for this long gives its connection and memory back. */
#define IDLE_MAX_MS 15000
#define RECV_BYTES (64L * 1024)
#define SEND_BYTES (256L * 1024)

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* Every TLS connection would hold a parsed copy of the system's bundle, over a megabyte. Where the
 * system also has the certificates in a directory by hash, only those needed are read. */
static bool certificates_by_dir(void)
{
    const char *path = curl_version_info(CURLVERSION_NOW)->capath;
    DIR *dir = path == NULL ? NULL : opendir(path);
    if (dir == NULL)
        return false;
    bool hashed = false;
    struct dirent *de;
    while (!hashed && (de = readdir(dir)) != NULL)
        hashed = strlen(de->d_name) == 10 && strcmp(de->d_name + 8, ".0") == 0;
    closedir(dir);
    return hashed;
}

struct http *http_new(const struct http_options *options, struct err *err)
{
    pthread_once(&curl_once, curl_start);
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&http->lock, NULL);
    waiter_cond_init(&http->freed);
    http->connect_timeout_ms = options->connect_timeout_ms;
    http->stall_timeout_ms = options->stall_timeout_ms;
    http->max_connections = options->max_connections > 0 ? options->max_connections : 1;
    if (options->ca_file == NULL) {
        http->ca_by_dir = certificates_by_dir();
        return http;
    }
    http->ca_file = strdup(options->ca_file);
    if (http->ca_file == NULL) {
        http_free(http);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    return http;
}

static void handle_free(struct http_handle *h)
{
    if (h == NULL)
        return;
    if (h->easy != NULL)
        curl_easy_cleanup(h->easy);
    if (h->multi != NULL)
        curl_multi_cleanup(h->multi);
    free(h);
}

static struct http_handle *handle_new(struct err *err)
{
    struct http_handle *h = calloc(1, sizeof(*h));
    if (h != NULL) {
        h->multi = curl_multi_init();
        h->easy = curl_easy_init();
        if (h->multi != NULL && h->easy != NULL) {
            curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 1L);
            return h;
        }
        handle_free(h);
    }
    err_set(err, ERR_NO_MEMORY, "cannot make an HTTP handle");
    return NULL;
}

static void free_list(struct http_handle *h)
{
    while (h != NULL) {
        struct http_handle *next = h->next;
        handle_free(h);
        h = next;
    }
}

void http_free(struct http *http)
{
    if (http == NULL)
        return;
    free_list(http->idle);
    pthread_cond_destroy(&http->freed);
    pthread_mutex_destroy(&http->lock);
    free(http->ca_file);
    free(http);
}

unsigned http_idle(struct http *http)
{
    unsigned n = 0;
    pthread_mutex_lock(&http->lock);
    for (struct http_handle *h = http->idle; h != NULL; h = h->next)
        n++;
    pthread_mutex_unlock(&http->lock);
    return n;
}

/* Detaches the handles that have been idle for too long; they are the tail of the list. */
static struct http_handle *cut_stale(struct http *http)
{
    int64_t limit = now_ms() - IDLE_MAX_MS;
    struct http_handle **at = &http->idle;
    while (*at != NULL && (*at)->idle_since_ms >= limit)
        at = &(*at)->next;
    struct http_handle *stale = *at;
    *at = NULL;
    return stale;
}

/* Waits for a place among the connections, then takes a warm handle or makes one. */
static struct http_handle *take(struct http *http, const struct call *call, struct err *err)
{
    struct http_handle *h = NULL;
    struct waiter w;
    waiter_begin(&w, call, &http->lock, &http->freed);
    pthread_mutex_lock(&http->lock);
    while (http->busy >= http->max_connections && waiter_wait(&w)) {
    }
    bool placed = http->busy < http->max_connections;
    if (placed) {
        http->busy++;
        h = http->idle;
        if (h != NULL)
            http->idle = h->next;
    }
    pthread_mutex_unlock(&http->lock);
    waiter_end(&w);
    if (!placed) {
        if (call_alive(call, "waiting for a connection", err))
            err_set(err, ERR_TIMEOUT, "waiting for a connection: deadline passed");
        return NULL;
    }
    if (h == NULL)
        h = handle_new(err);
    if (h == NULL) {
        pthread_mutex_lock(&http->lock);
        http->busy--;
        pthread_cond_signal(&http->freed);
        pthread_mutex_unlock(&http->lock);
    }
    return h;
}

static void give_back(struct http *http, struct http_handle *h)
{
    h->idle_since_ms = now_ms();
    pthread_mutex_lock(&http->lock);
    h->next = http->idle;
    http->idle = h;
    http->busy--;
    struct http_handle *stale = cut_stale(http);
    pthread_cond_signal(&http->freed);
    pthread_mutex_unlock(&http->lock);
    free_list(stale);
}

/* Programs that walefs starts must not inherit the connections. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    (void)arg;
    (void)purpose;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return CURL_SOCKOPT_OK;
}

static void set_transport(const struct http *http, CURL *easy)
{
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
    /* or giving up would join a resolver thread that hangs on a dead name server */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
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
    curl_easy_reset(x->handle->easy);
    set_transport(x->http, x->handle->easy);
    set_request(x, req);
    http_set_callbacks(x);
    if (curl_multi_add_handle(x->handle->multi, x->handle->easy) != CURLM_OK)
        return err_set(err, ERR_NO_MEMORY, "cannot start an HTTP transfer");
    return true;
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
    x->handle = take(http, call, err);
    bool ok =
        x->handle != NULL && begin(x, req, err) && http_pump(x, HTTP_GOAL_HEADERS, err, again);
    if (ok && !x->headers_done)
        ok = http_fail(x, err, again);
    if (ok)
        return x;
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
        /* not complete: libcurl closes the connection, since an answer is still on its way */
        curl_multi_remove_handle(x->handle->multi, x->handle->easy);
        curl_easy_reset(x->handle->easy);
        give_back(x->http, x->handle);
    }
    for (struct curl_slist *h = x->headers; h != NULL; h = h->next)
        explicit_bzero(h->data, strlen(h->data)); /* a session token may be among them */
    curl_slist_free_all(x->headers);
    EVP_MD_CTX_free(x->md5);
    buf_free(&x->answer);
    buf_free(&x->pending);
    free(x);
}
