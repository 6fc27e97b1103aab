/* The moving of bytes: libcurl's callbacks, and the loop that a waiting thread runs.
 *
 * Downloads are pulled. The write callback puts bytes straight into the reader's buffer; what comes
 * beyond that waits in `pending` up to HTTP_PENDING_MAX, then the transfer is paused until the next
 * read. While nobody reads, nothing moves and no time-out runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/http_impl.h"
#include "core/metrics.h"

static ssize_t body_bytes(struct http_exchange *x, char *out, size_t n)
{
    if (n > x->body.size - x->body_pos)
        n = (size_t)(x->body.size - x->body_pos);
    if (n == 0)
        return 0;
    if (x->body.mem != NULL) {
        memcpy(out, (const char *)x->body.mem + x->body_pos, n);
        return (ssize_t)n;
    }
    ssize_t got;
    do
        got = pread(x->body.fd, out, n, (off_t)(x->body.offset + x->body_pos));
    while (got < 0 && errno == EINTR);
    if (got > 0)
        return got;
    err_sys(&x->body_err, got < 0 ? errno : EIO, "the staged content cannot be read");
    return -1;
}

static size_t on_send(char *out, size_t size, size_t count, void *arg)
{
    struct http_exchange *x = arg;
    x->events++;
    ssize_t n = body_bytes(x, out, size * count);
    if (n < 0)
        return CURL_READFUNC_ABORT;
    if (x->md5 != NULL)
        (void)EVP_DigestUpdate(x->md5, out, (size_t)n);
    x->body_pos += (uint64_t)n;
    call_sent(x->call, x->body_pos);
    metrics_add(COUNT_S3_SENT_BYTES, (uint64_t)n);
    return (size_t)n;
}

/* libcurl sends again from the start when a connection that it reused turns out to be dead. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct http_exchange *x = arg;
    if (origin != SEEK_SET || offset != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    x->body_pos = 0;
    if (x->md5 != NULL && EVP_DigestInit_ex(x->md5, EVP_md5(), NULL) != 1)
        return CURL_SEEKFUNC_FAIL;
    return CURL_SEEKFUNC_OK;
}

static bool keep_header(struct http_exchange *x, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    if (colon == NULL || colon == line)
        return true;
    const char *value = colon + 1, *end = line + n;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\0'))
        end--;
    if (memchr(line, '\0', (size_t)(end - line)) != NULL)
        return true; /* no header of ours has a NUL */
    size_t name_at = x->answer.len;
    if (!buf_append(&x->answer, line, (size_t)(colon - line)) || !buf_append(&x->answer, "", 1) ||
        !buf_append(&x->answer, value, (size_t)(end - value)) || !buf_append(&x->answer, "", 1))
        return false;
    for (char *c = x->answer.data + name_at; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    }
    return true;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct http_exchange *x = arg;
    size_t all = size * count, n = all;
    x->events++;
    if (x->headers_done) /* trailers of a chunked body */
        return all;
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        n--;
    if (n > 9 && strncasecmp(line, "HTTP/", 5) == 0) {
        char number[4] = "";
        const char *blank = memchr(line, ' ', n);
        if (blank != NULL && (size_t)(line + n - blank) >= 4)
            memcpy(number, blank + 1, 3);
        x->status = atoi(number);
        x->answer.len = 0; /* an interim answer's headers do not count */
        return all;
    }
    if (n == 0) {
        x->headers_done = x->status >= 200;
        return all;
    }
    if (keep_header(x, line, n))
        return all;
    x->headers_too_long = !x->answer.no_memory;
    return 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct http_exchange *x = arg;
    size_t n = size * count;
    x->events++;
    metrics_add(COUNT_S3_RECEIVED_BYTES, n);
    size_t direct = n < x->dst_left ? n : x->dst_left;
    if (x->pending_pos > 0 && x->pending_pos == x->pending.len)
        x->pending_pos = x->pending.len = 0;
    if (x->pending.len > 0)
        direct = 0; /* older bytes come first */
    if (x->pending.len + (n - direct) > HTTP_PENDING_MAX) {
        x->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (!buf_append(&x->pending, data + direct, n - direct))
        return 0;
    if (direct > 0) {
        memcpy(x->dst, data, direct);
        x->dst += direct;
        x->dst_left -= direct;
    }
    return n;
}

void http_set_callbacks(struct http_exchange *x)
{
    CURL *easy = x->handle->easy;
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    if (!x->has_body)
        return;
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(easy, CURLOPT_READDATA, x);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, x);
}

static bool reached(const struct http_exchange *x, enum http_goal goal, size_t wanted)
{
    if (x->done)
        return true;
    if (goal == HTTP_GOAL_HEADERS)
        return x->headers_done;
    return x->dst_left < wanted;
}

static void note_end(struct http_exchange *x)
{
    int left;
    CURLMsg *msg;
    while ((msg = curl_multi_info_read(x->handle->multi, &left)) != NULL) {
        if (msg->msg == CURLMSG_DONE) {
            x->done = true;
            x->result = msg->data.result;
        }
    }
}

/* Bytes on the wire, in both directions, and callbacks: any change is progress. */
static uint64_t progress(const struct http_exchange *x)
{
    curl_off_t up = 0, down = 0;
    curl_easy_getinfo(x->handle->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    curl_easy_getinfo(x->handle->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    return x->events + (uint64_t)up + (uint64_t)down;
}

static int64_t patience_ms(const struct http_exchange *x)
{
    curl_off_t connected = 0;
    curl_easy_getinfo(x->handle->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
    int64_t ms = x->stall_timeout_ms;
    return connected > 0 ? ms : ms + x->http->connect_timeout_ms;
}

/* How long to wait for the next event, 0 when the waiting is over. */
static int64_t wait_ms(const struct http_exchange *x, int64_t quiet_since_ms, struct err *err,
                       bool *again)
{
    *again = false;
    if (!call_alive(x->call, x->url_shown, err))
        return 0;
    *again = true;
    int64_t now = now_ms();
    int64_t stall = quiet_since_ms + patience_ms(x) - now;
    int64_t attempt =
        x->attempt_deadline_ms == DEADLINE_NONE ? INT64_MAX : x->attempt_deadline_ms - now;
    if (stall <= 0) {
        err_set(err, ERR_TIMEOUT, "%s: silent for %lld ms", x->url_shown,
                (long long)(now - quiet_since_ms));
        return 0;
    }
    if (attempt <= 0) {
        err_set(err, ERR_TIMEOUT, "%s: no complete answer in time", x->url_shown);
        return 0;
    }
    int64_t wait = call_left_ms(x->call);
    if (wait > stall)
        wait = stall;
    if (wait > attempt)
        wait = attempt;
    return wait < 1 ? 1 : wait > 60000 ? 60000 : wait;
}

static void wake(void *arg)
{
    curl_multi_wakeup(arg);
}

bool http_pump(struct http_exchange *x, enum http_goal goal, struct err *err, bool *again)
{
    CURLM *multi = x->handle->multi;
    struct cancel_watch watch;
    size_t wanted = x->dst_left;
    int64_t quiet_since_ms = now_ms();
    uint64_t seen = progress(x);
    bool ok = false;
    cancel_watch(x->call->cancel, &watch, wake, multi);
    for (;;) {
        int running = 0;
        CURLMcode rc = curl_multi_perform(multi, &running);
        note_end(x);
        ok = reached(x, goal, wanted);
        if (ok)
            break;
        if (progress(x) != seen) {
            seen = progress(x);
            quiet_since_ms = now_ms();
        }
        int64_t wait = wait_ms(x, quiet_since_ms, err, again);
        if (wait == 0)
            break;
        if (rc == CURLM_OK)
            rc = curl_multi_poll(multi, NULL, 0, (int)wait, NULL);
        if (rc != CURLM_OK) {
            *again = false;
            err_set(err, ERR_UNAVAILABLE, "%s: %s", x->url_shown, curl_multi_strerror(rc));
            break;
        }
    }
    cancel_unwatch(x->call->cancel, &watch);
    return ok;
}
