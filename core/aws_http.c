/* Small requests to the services that give credentials. Answers hold secrets: they are wiped,
 * and never shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/aws_impl.h"
#include "core/retry.h"

#define READ_CHUNK (8 * 1024)

void aws_answer_free(struct aws_answer *answer)
{
    buf_free(&answer->body);
}

static bool read_all(struct http_exchange *x, struct buf *body, struct err *err, bool *again)
{
    ssize_t n;
    if (!buf_reserve(body, AWS_ANSWER_MAX))
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    while ((n = http_read(x, body->data + body->len, READ_CHUNK, err, again)) > 0) {
        body->len += (size_t)n;
        body->data[body->len] = '\0';
        if (body->len + READ_CHUNK > AWS_ANSWER_MAX)
            return err_set(err, ERR_UNAVAILABLE, "the answer is too long");
    }
    return n == 0;
}

static bool once(struct http *http, const struct aws_fetch *f, const struct call *call,
                 struct aws_answer *answer, struct err *err, bool *again)
{
    const struct store_body body = {.mem = f->body, .size = f->body == NULL ? 0 : strlen(f->body)};
    const struct http_request req = {.method = f->method,
                                     .url = f->url,
                                     .headers = f->headers,
                                     .header_count = f->header_count,
                                     .body = f->body == NULL ? NULL : &body,
                                     .total_timeout_ms = f->timeout_ms};
    struct http_exchange *x = http_open(http, &req, call, err, again);
    if (x == NULL)
        return false;
    answer->status = http_status(x);
    bool ok = read_all(x, &answer->body, err, again);
    http_close(x);
    if (!ok)
        return false;
    *again = answer->status >= 500 || answer->status == 429;
    const char *host = strstr(f->url, "://");
    if (*again && host != NULL)
        err_set(err, ERR_UNAVAILABLE, "%.*s: HTTP %d", (int)strcspn(host + 3, "/?"), host + 3,
                answer->status);
    return !*again;
}

bool aws_http(struct http *http, const struct aws_fetch *f, const struct call *call,
              struct aws_answer *answer, struct err *err)
{
    struct retry retry;
    retry_init(&retry, f->tries > 0 ? f->tries : 1);
    *answer = (struct aws_answer){.body = BUF_SECRET_INIT(AWS_ANSWER_MAX)};
    for (;;) {
        bool again = false;
        answer->body.len = 0;
        if (once(http, f, call, answer, err, &again))
            return true;
        if (!again || !retry_again(&retry, call, err))
            return false;
    }
}
