/* The pool: handles with their warm connections, and how many may be in use at once. */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/http_impl.h"
#include "core/waiter.h"

/* A handle that was not needed for this long gives its connection and memory back. */
#define IDLE_MAX_MS 15000

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

/* With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE alone, and OpenSSL writes to sockets without
 * MSG_NOSIGNAL: a server that hangs up would end the process. */
static void curl_start(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        (void)signal(SIGPIPE, SIG_IGN);
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
    http->no_proxy = options->no_proxy;
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
    if (h->multi != NULL)
        curl_multi_cleanup(h->multi);
    free(h);
}

static struct http_handle *handle_new(struct err *err)
{
    struct http_handle *h = calloc(1, sizeof(*h));
    if (h != NULL) {
        h->fd = -1;
        h->multi = curl_multi_init();
        if (h->multi != NULL) {
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
struct http_handle *http_take(struct http *http, const struct call *call, struct err *err)
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

void http_give_back(struct http *http, struct http_handle *h)
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
