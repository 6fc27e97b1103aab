/* One gpg operation. gpgme is used with its external event loop, which is ours: the calling thread
 * polls gpg's pipes, the cancel's eventfd and the time-outs together, and runs gpgme's handlers,
 * which in turn call the caller's source and sink. So whatever time passes inside poll is time in
 * which gpg has everything that it needs, and only that counts as a stall; no watchdog thread is
 * needed.
 *
 * An operation that is given up closes gpg's pipes, which ends a healthy gpg. One that hangs
 * (waiting for an agent, stopped) is killed; gpg_run_end returns once gpg has closed its status
 * pipe. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/openpgp_internal.h"

#define GRACE_MS 20
#define TERM_MS 40
#define KILL_MS 2000

/* ---- gpgme's hooks ---- */

static gpgme_error_t add_fd(void *data, int fd, int dir, gpgme_io_cb_t fnc, void *fnc_data,
                            void **tag)
{
    struct gpg_run *run = data;
    for (size_t i = 0; i < GPG_RUN_FDS; i++) {
        struct gpg_fd *slot = &run->fds[i];
        if (slot->fd >= 0)
            continue;
        *slot = (struct gpg_fd){.fd = fd, .dir = dir, .fnc = fnc, .fnc_data = fnc_data};
        *tag = slot;
        /* the status pipe is the first one; gpg holds its other end for as long as it lives */
        if (run->alive_fd < 0 && dir == 1)
            run->alive_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return 0;
    }
    return gpgme_error(GPG_ERR_RESOURCE_LIMIT);
}

static void remove_fd(void *tag)
{
    struct gpg_fd *slot = tag;
    if (slot != NULL)
        slot->fd = -1;
}

static void keep_key(struct gpg_run *run, gpgme_key_t key)
{
    gpgme_key_t *grown = realloc(run->keys, (run->key_count + 1) * sizeof(*grown));
    if (grown == NULL) {
        gpgme_key_unref(key);
        run->result = gpgme_error(GPG_ERR_ENOMEM);
        return;
    }
    run->keys = grown;
    run->keys[run->key_count++] = key;
}

static void on_event(void *data, gpgme_event_io_t type, void *type_data)
{
    struct gpg_run *run = data;
    if (type == GPGME_EVENT_NEXT_KEY)
        keep_key(run, type_data);
    if (type != GPGME_EVENT_DONE)
        return;
    const struct gpgme_io_event_done_data *done = type_data;
    run->done = true;
    if (run->result == 0)
        run->result = done->err != 0 ? done->err : done->op_err;
}

static gpgme_error_t on_status(void *data, const char *keyword, const char *args)
{
    struct gpg_run *run = data;
    if (keyword != NULL)
        gpg_status_line(&run->status, keyword, args == NULL ? "" : args);
    return 0;
}

static gpgme_error_t give_passphrase(void *data, const char *uid_hint, const char *info,
                                     int prev_was_bad, int fd)
{
    (void)uid_hint;
    (void)info;
    const struct secret *passphrase = ((struct gpg_run *)data)->passphrase;
    if (prev_was_bad)
        return gpgme_error(GPG_ERR_BAD_PASSPHRASE);
    if (gpgme_io_writen(fd, passphrase->value, passphrase->len) != 0 ||
        gpgme_io_writen(fd, "\n", 1) != 0)
        return gpgme_error_from_errno(errno);
    return 0;
}

/* ---- begin and end ---- */

void gpg_contexts_init(struct gpg_contexts *c)
{
    pthread_mutex_init(&c->lock, NULL);
    c->count = 0;
}

void gpg_contexts_destroy(struct gpg_contexts *c)
{
    while (c->count > 0)
        gpgme_release(c->spare[--c->count]);
    pthread_mutex_destroy(&c->lock);
}

static gpgme_ctx_t take_context(struct gpg_contexts *c)
{
    if (c == NULL)
        return NULL;
    pthread_mutex_lock(&c->lock);
    gpgme_ctx_t ctx = c->count == 0 ? NULL : c->spare[--c->count];
    pthread_mutex_unlock(&c->lock);
    return ctx;
}

static void give_context(struct gpg_contexts *c, gpgme_ctx_t ctx)
{
    bool kept = false;
    pthread_mutex_lock(&c->lock);
    if (c->count < sizeof(c->spare) / sizeof(c->spare[0])) {
        c->spare[c->count++] = ctx;
        kept = true;
    }
    pthread_mutex_unlock(&c->lock);
    if (!kept)
        gpgme_release(ctx);
}

static gpgme_error_t make_context(struct gpg_run *run, const char *home)
{
    gpgme_error_t rc = gpgme_new(&run->ctx);
    if (rc == 0)
        rc = gpgme_set_protocol(run->ctx, GPGME_PROTOCOL_OpenPGP);
    if (rc == 0 && home != NULL) {
        const struct _gpgme_engine_info *engine = gpgme_ctx_get_engine_info(run->ctx);
        while (engine != NULL && engine->protocol != GPGME_PROTOCOL_OpenPGP)
            engine = engine->next;
        rc = gpgme_ctx_set_engine_info(run->ctx, GPGME_PROTOCOL_OpenPGP,
                                       engine == NULL ? NULL : engine->file_name, home);
    }
    if (rc == 0)
        rc = gpgme_set_ctx_flag(run->ctx, "full-status", "1");
    if (rc == 0 && run->passphrase != NULL)
        rc = gpgme_set_pinentry_mode(run->ctx, GPGME_PINENTRY_MODE_LOOPBACK);
    if (rc == 0)
        gpgme_set_offline(run->ctx, 1); /* a signature inside must not make gpg look for its key */
    return rc;
}

static bool setup_context(struct gpg_run *run, const char *home, struct err *err)
{
    run->ctx = take_context(run->contexts);
    gpgme_error_t rc = run->ctx != NULL ? 0 : make_context(run, home);
    if (rc != 0)
        return err_set(err, ERR_KEY, "cannot use gpg: %s; is gnupg installed?", gpgme_strerror(rc));
    gpgme_set_status_cb(run->ctx, on_status, run);
    if (run->passphrase != NULL)
        gpgme_set_passphrase_cb(run->ctx, give_passphrase, run);
    struct gpgme_io_cbs cbs = {
        .add = add_fd, .add_priv = run, .remove = remove_fd, .event = on_event, .event_priv = run};
    gpgme_set_io_cbs(run->ctx, &cbs);
    return true;
}

bool gpg_run_begin(struct gpg_run *run, const struct gpg_run_options *options, struct err *err)
{
    memset(run, 0, sizeof(*run));
    run->passphrase = secret_is_set(options->passphrase) ? options->passphrase : NULL;
    run->stall_timeout_ms = options->stall_timeout_ms;
    run->call = options->call;
    run->contexts = options->contexts;
    run->alive_fd = -1;
    for (size_t i = 0; i < GPG_RUN_FDS; i++)
        run->fds[i].fd = -1;
    run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (run->wake_fd < 0)
        return err_sys(err, errno, "cannot prepare to run gpg");
    return setup_context(run, options->home, err);
}

static bool hung_up(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = 0};
    return poll(&p, 1, wait_ms) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* After gpgme has closed its ends of the pipes. */
static void end_process(const struct gpg_run *run)
{
    struct stat st;
    if (run->alive_fd < 0 || hung_up(run->alive_fd, GRACE_MS) || fstat(run->alive_fd, &st) != 0)
        return;
    gpg_signal_writers(st.st_ino, SIGTERM); /* lets gpg remove its lock files */
    if (hung_up(run->alive_fd, TERM_MS))
        return;
    int64_t until = now_ms() + KILL_MS;
    do /* it may have been on its way to its exec */
        gpg_signal_writers(st.st_ino, SIGKILL);
    while (!hung_up(run->alive_fd, TERM_MS) && now_ms() < until);
}

void gpg_run_end(struct gpg_run *run)
{
    for (size_t i = 0; i < run->key_count; i++)
        gpgme_key_unref(run->keys[i]);
    free(run->keys);
    if (run->ctx != NULL && run->contexts != NULL && run->done && run->result == 0 &&
        !run->stream_failed)
        give_context(run->contexts, run->ctx);
    else if (run->ctx != NULL)
        gpgme_release(run->ctx);
    end_process(run);
    if (run->alive_fd >= 0)
        close(run->alive_fd);
    if (run->wake_fd >= 0)
        close(run->wake_fd);
}

/* ---- the loop ---- */

static void wake(void *arg)
{
    const struct gpg_run *run = arg;
    uint64_t one = 1;
    ssize_t written = write(run->wake_fd, &one, sizeof(one));
    (void)written;
}

/* How long poll may wait; *STALL: the stall time-out comes first. */
static int wait_ms(const struct gpg_run *run, int64_t quiet_since, bool *stall)
{
    int64_t left = call_left_ms(run->call);
    *stall = false;
    if (run->stall_timeout_ms > 0) {
        int64_t stall_left = quiet_since + run->stall_timeout_ms - now_ms();
        if (stall_left <= left) {
            left = stall_left > 0 ? stall_left : 0;
            *stall = true;
        }
    }
    if (left == INT64_MAX)
        return -1;
    return left > 3600000 ? 3600000 : (int)left;
}

/* What gpg has for us goes first: it may be waiting for that, while our source may block. */
static void dispatch(struct gpg_run *run, const struct pollfd *polled, const size_t *slot_of,
                     size_t n)
{
    for (int dir = 1; dir >= 0; dir--) {
        for (size_t i = 0; i < n && !run->done; i++) {
            struct gpg_fd *slot = &run->fds[slot_of[i]];
            /* an earlier handler may have closed this one */
            if (polled[i].revents == 0 || slot->dir != dir || slot->fd != polled[i].fd)
                continue;
            run->dispatched = slot;
            if (slot->stream != NULL)
                gpg_stream_move(slot->stream, slot);
            else
                slot->fnc(slot->fnc_data, slot->fd);
        }
    }
}

static bool loop(struct gpg_run *run, const char *what, struct err *err)
{
    int64_t quiet_since = now_ms();
    while (!run->done) {
        if (!call_alive(run->call, what, err))
            return false;
        struct pollfd polled[GPG_RUN_FDS + 1];
        size_t slot_of[GPG_RUN_FDS], n = 0;
        for (size_t i = 0; i < GPG_RUN_FDS; i++) {
            if (run->fds[i].fd < 0)
                continue;
            polled[n] = (struct pollfd){.fd = run->fds[i].fd,
                                        .events = run->fds[i].dir == 1 ? POLLIN : POLLOUT};
            slot_of[n++] = i;
        }
        polled[n] = (struct pollfd){.fd = run->wake_fd, .events = POLLIN};
        bool stall;
        int timeout = wait_ms(run, quiet_since, &stall);
        int ready = poll(polled, n + 1, timeout);
        if (ready < 0 && errno != EINTR)
            return err_sys(err, errno, "%s: cannot wait for gpg", what);
        if (ready == 0 && stall)
            return err_set(err, ERR_TIMEOUT,
                           "%s: gpg made no progress for %u s; it may be waiting for gpg-agent or "
                           "a pinentry",
                           what, run->stall_timeout_ms / 1000);
        if (ready > 0) {
            dispatch(run, polled, slot_of, n);
            quiet_since = now_ms();
        }
    }
    return true;
}

static bool start_failed(gpgme_error_t start, const char *what, struct err *err)
{
    switch (gpgme_err_code(start)) {
    case GPG_ERR_INV_ENGINE:
    case GPG_ERR_UNSUPPORTED_PROTOCOL:
    case GPG_ERR_ENOENT:
        return err_set(err, ERR_KEY, "%s: gpg cannot be run (%s); install gnupg", what,
                       gpgme_strerror(start));
    default:
        break;
    }
    int sys_errno = gpgme_err_code_to_errno(gpgme_err_code(start));
    if (sys_errno != 0)
        return err_sys(err, sys_errno, "%s: cannot start gpg", what);
    return err_set(err, ERR_KEY, "%s: cannot start gpg: %s", what, gpgme_strerror(start));
}

bool gpg_run_wait(struct gpg_run *run, gpgme_error_t start, const char *what, struct err *err)
{
    bool ok = false;
    if (start != 0) {
        start_failed(start, what, err);
    } else {
        struct cancel_watch watch;
        cancel_watch(run->call->cancel, &watch, wake, run);
        ok = loop(run, what, err);
        cancel_unwatch(run->call->cancel, &watch);
    }
    if (!run->done) {
        gpgme_cancel(run->ctx);
        run->done = true;
        run->result = gpgme_error(GPG_ERR_CANCELED);
    }
    if (ok && run->stream_failed) {
        *err = run->stream_err;
        ok = false;
    }
    return ok;
}

void gpg_run_log(struct gpg_run *run, struct buf *out)
{
    gpgme_data_t data;
    if (gpgme_data_new(&data) != 0)
        return;
    if (gpgme_op_getauditlog(run->ctx, data, GPGME_AUDITLOG_DIAG) == 0 &&
        gpgme_data_seek(data, 0, SEEK_SET) == 0) {
        char part[1024];
        for (;;) {
            ssize_t n = gpgme_data_read(data, part, sizeof(part));
            if (n <= 0 || !buf_append(out, part, (size_t)n))
                break;
        }
    }
    gpgme_data_release(data);
}
