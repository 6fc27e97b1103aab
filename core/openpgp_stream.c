/* The bytes between the caller's streams and gpg's pipes.
 *
 * gpgme would move them, but formats each byte for its debug log, even when it has none (1.18): 5
 * ns a byte and direction, more than all that gpg does with it. So gpgme moves only the first ones,
 * which shows which pipe belongs to which stream, and closes the pipes; the others go past it. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/openpgp_internal.h"

#define CHUNK ((size_t)64 * 1024)

/* ---- the caller's end ---- */

/* Bytes for gpg; 0 at the end, -1: stream_err tells. */
static ssize_t take(struct gpg_stream *s, void *buf, size_t n)
{
    struct gpg_run *run = s->run;
    if (run->stream_failed)
        return -1;
    if (s->ended)
        return 0;
    ssize_t got = s->source->read(s->source, buf, n, &run->stream_err);
    if (got < 0) {
        run->stream_failed = true;
        return -1;
    }
    if (got == 0)
        s->ended = run->status.input_ended = true;
    run->status.input_bytes += (uint64_t)got;
    openpgp_frames_feed(&run->status.frames, buf, (size_t)got);
    return got;
}

static bool give(struct gpg_stream *s, const void *buf, size_t n)
{
    struct gpg_run *run = s->run;
    if (!run->stream_failed && !s->sink->write(s->sink, buf, n, &run->stream_err))
        run->stream_failed = true;
    return !run->stream_failed;
}

/* ---- past gpgme ---- */

static void by_gpgme(const struct gpg_fd *pipe)
{
    pipe->fnc(pipe->fnc_data, pipe->fd);
}

/* gpgme closes the pipe once it is told that nothing follows. It would not ask if it had kept
 * something back, which would then come too late. */
static void end_input(struct gpg_stream *s, const struct gpg_fd *pipe)
{
    s->ended = true;
    s->asked = false;
    by_gpgme(pipe);
    if (!s->asked && !s->run->stream_failed) {
        s->run->stream_failed = true;
        err_set(&s->run->stream_err, ERR_LOCAL, "gpgme kept back a part of what gpg was to get");
    }
}

static void feed(struct gpg_stream *s, const struct gpg_fd *pipe)
{
    if (s->at == s->len) {
        ssize_t got = take(s, s->buf, CHUNK);
        if (got <= 0) {
            end_input(s, pipe);
            return;
        }
        s->at = 0;
        s->len = (size_t)got;
    }
    ssize_t put = write(pipe->fd, s->buf + s->at, s->len - s->at);
    if (put >= 0)
        s->at += (size_t)put;
    else if (errno != EAGAIN && errno != EINTR)
        end_input(s, pipe); /* gpg does not want more, and says why */
}

static void collect(struct gpg_stream *s, const struct gpg_fd *pipe)
{
    ssize_t got = read(pipe->fd, s->buf, CHUNK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || !give(s, s->buf, (size_t)got))
        by_gpgme(pipe); /* which sees the same end, or fails as well */
}

void gpg_stream_move(struct gpg_stream *s, const struct gpg_fd *pipe)
{
    if (s->source != NULL)
        feed(s, pipe);
    else
        collect(s, pipe);
}

/* ---- what gpgme calls ---- */

static ssize_t result(ssize_t n)
{
    if (n < 0)
        errno = EIO;
    return n;
}

/* gpgme writes so few bytes to a pipe that has room all at once, so that it keeps nothing back. */
static ssize_t pull(void *handle, void *buf, size_t n)
{
    struct gpg_stream *s = handle;
    s->asked = true;
    s->run->dispatched->stream = s;
    return result(take(s, buf, n < PIPE_BUF ? n : PIPE_BUF));
}

static ssize_t push(void *handle, const void *buf, size_t n)
{
    struct gpg_stream *s = handle;
    s->run->dispatched->stream = s;
    return result(give(s, buf, n) ? (ssize_t)n : -1);
}

static void release(void *handle)
{
    struct gpg_stream *s = handle;
    explicit_bzero(s->buf, CHUNK);
    free(s->buf);
}

bool gpg_stream_data(struct gpg_stream *s, gpgme_data_t *data, struct err *err)
{
    static struct gpgme_data_cbs source_cbs = {.read = pull, .release = release};
    static struct gpgme_data_cbs sink_cbs = {.write = push, .release = release};
    *data = NULL;
    s->buf = malloc(CHUNK);
    gpgme_error_t rc =
        s->buf == NULL
            ? gpgme_error(GPG_ERR_ENOMEM)
            : gpgme_data_new_from_cbs(data, s->source != NULL ? &source_cbs : &sink_cbs, s);
    if (rc == 0)
        rc = gpgme_data_set_flag(*data, "sensitive", "1"); /* its buffers are wiped */
    if (*data == NULL)
        free(s->buf);
    return rc == 0 ||
           err_set(err, ERR_NO_MEMORY, "cannot prepare to run gpg: %s", gpgme_strerror(rc));
}
