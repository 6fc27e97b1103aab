#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "fs/backing.h"
#include "fs/fuse_internal.h"
#include "fs/unmount.h"

/* The fixed head of every request and the opcodes that matter here; include/uapi/linux/fuse.h. */
struct in_header {
    uint32_t len;
    uint32_t opcode;
    uint64_t unique;
    uint64_t node;
};
enum {
    OP_FORGET = 2,
    OP_WRITE = 16,
    OP_INIT = 26,
    OP_INTERRUPT = 36,
    OP_DESTROY = 38,
    OP_BATCH_FORGET = 42
};

/* More would not be used by one reader or writer, and others are served by the pool. */
#define DIRECT_THREADS 2u

/* Who writes in a loop sends the next request within this time, waking a thread takes as long, and
 * pg_basebackup writes 8 KiB at a time. Whoever had to wait for those who compress and encrypt
 * leaves them the processor for a while; readers have their next bytes decoded meanwhile. */
#define LINGER_US 40
#define WAITED_US 500
#define LEAVE_US 10000

struct delivery {
    struct fuse_server *server;
    struct fuse_buf buf;
};

/* A comma in an option's value would end it. */
static bool append_escaped(struct buf *b, const char *value)
{
    for (; *value != '\0'; value++)
        if (((*value == ',' || *value == '\\') && !buf_puts(b, "\\")) || !buf_append(b, value, 1))
            return false;
    return true;
}

static struct fuse_session *make_session(struct fuse_server *s)
{
    struct fuse_session *session = NULL;
    struct buf mount_options = BUF_INIT(8192);
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    bool ok = buf_puts(&mount_options,
                       "-osubtype=walefs,default_permissions,noatime,nodev,nosuid,fsname=") &&
              append_escaped(&mount_options, s->opt.source) &&
              (!s->opt.read_only || buf_puts(&mount_options, ",ro")) &&
              (!s->opt.no_exec || buf_puts(&mount_options, ",noexec")) &&
              (!s->opt.allow_other || buf_puts(&mount_options, ",allow_other"));
    ok = ok && fuse_opt_add_arg(&args, "walefs") == 0 &&
         fuse_opt_add_arg(&args, buf_str(&mount_options)) == 0 &&
         (!s->opt.debug || fuse_opt_add_arg(&args, "-d") == 0);
    if (ok)
        session = fuse_session_new(&args, &fuse_handlers, sizeof(fuse_handlers), s);
    fuse_opt_free_args(&args);
    buf_free(&mount_options);
    return session;
}

/* libfuse takes such a mount point as it is, and leaves it at the end. */
static bool is_descriptor(const char *mountpoint)
{
    return strncmp(mountpoint, "/dev/fd/", 8) == 0;
}

static bool explain_mount_failure(const struct fuse_server *s, struct err *err)
{
    if (access("/dev/fuse", F_OK) != 0)
        return err_set(err, ERR_LOCAL,
                       "cannot mount on %s: /dev/fuse is missing (load the fuse "
                       "kernel module, or give the container that device)",
                       s->opt.mountpoint);
    if (geteuid() != 0 && access("/dev/fuse", R_OK | W_OK) != 0)
        return err_set(err, ERR_LOCAL, "cannot mount on %s: no right to open /dev/fuse",
                       s->opt.mountpoint);
    return err_set(
        err, ERR_LOCAL, "cannot mount on %s%s", s->opt.mountpoint,
        geteuid() == 0 ? ""
        : s->opt.allow_other
            ? ": allow_other by another user than root needs user_allow_other in "
              "/etc/fuse.conf, and fusermount3 must be installed"
            : ": the mount point must belong to you, and fusermount3 (package fuse3) must "
              "be installed");
}

/* See fs_set_invalidate. A file that the kernel does not know any more is as good. */
static void invalidate(void *arg, uint64_t id)
{
    struct fuse_server *s = arg;
    struct err err = ERR_INIT;
    int rc = fuse_lowlevel_notify_inval_inode(s->session, id, 0, 0);
    if (rc == 0 || rc == -ENOENT || s->stopping)
        return;
    err_sys(&err, -rc, "the kernel keeps what it has of a damaged file");
    log_error("%s", err.text);
}

struct fuse_server *fuse_server_new(const struct fuse_server_options *options, struct err *err)
{
    struct fuse_server *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->opt = *options;
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    request_table_init(&s->requests);
    pthread_mutex_init(&s->lock, NULL);
    s->session = make_session(s);
    if (s->session == NULL) {
        err_set(err, ERR_LOCAL, "libfuse refuses to make a session");
    } else if (fuse_session_mount(s->session, s->opt.mountpoint) != 0) {
        explain_mount_failure(s, err);
    } else {
        s->mounted = true;
        if (!is_descriptor(s->opt.mountpoint))
            fuse_io_read_ahead(s->opt.mountpoint);
        fs_set_invalidate(s->opt.fs, invalidate, s);
        const struct backing_kernel kernel = {
            .open = fuse_io_backing_open, .close = fuse_io_backing_close, .arg = s};
        fs_set_backing_kernel(s->opt.fs, &kernel);
        int fd = fuse_session_fd(s->session);
        if (s->wake_fd >= 0 && fuse_io_install(s) &&
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0)
            return s;
        err_sys(err, errno, "cannot prepare the FUSE device");
    }
    fuse_server_free(s);
    return NULL;
}

/* ---- buffers: made by libfuse as large as the largest request, so a few are kept ---- */

static void *take_buffer(struct fuse_server *s)
{
    pthread_mutex_lock(&s->lock);
    void *mem = s->spare_count == 0 ? NULL : s->spare[--s->spare_count];
    pthread_mutex_unlock(&s->lock);
    return mem;
}

static void give_buffer(struct fuse_server *s, void *mem)
{
    pthread_mutex_lock(&s->lock);
    if (s->spare_count < sizeof(s->spare) / sizeof(s->spare[0])) {
        s->spare[s->spare_count++] = mem;
        mem = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    free(mem);
}

/* ---- receiving ---- */

static void process(void *arg)
{
    struct delivery *d = arg;
    fuse_session_process_buf(d->server->session, &d->buf);
    give_buffer(d->server, d->buf.mem);
    free(d);
}

static struct in_header head_of(const struct fuse_buf *buf)
{
    struct in_header head = {.opcode = OP_DESTROY};
    if (buf->size >= sizeof(head))
        memcpy(&head, buf->mem, sizeof(head));
    return head;
}

/* Must not wait behind other requests, and never block. */
static bool is_urgent(uint32_t opcode)
{
    return opcode == OP_INTERRUPT || opcode == OP_FORGET || opcode == OP_BATCH_FORGET ||
           opcode == OP_INIT || opcode == OP_DESTROY;
}

/* In this thread. */
static void answer(struct fuse_server *s, const struct fuse_buf *buf)
{
    fuse_io_answering_init = head_of(buf).opcode == OP_INIT;
    fuse_session_process_buf(s->session, buf);
    fuse_io_answering_init = false;
    give_buffer(s, buf->mem);
}

/* In a pool. */
static void hand_over(struct fuse_server *s, const struct fuse_buf *buf)
{
    struct in_header head = head_of(buf);
    struct delivery *d = is_urgent(head.opcode) ? NULL : malloc(sizeof(*d));
    struct err err = ERR_INIT;
    if (d != NULL) {
        struct pool *pool = fs_is_local(s->opt.fs, head.node) ? s->opt.local_pool : s->opt.pool;
        *d = (struct delivery){.server = s, .buf = *buf};
        if (pool_submit(pool, process, d, &err))
            return;
        log_error("%s", err.text);
        free(d);
    }
    answer(s, buf);
}

/* What a thread waits on for requests. Of those that wait, the kernel wakes one for each request:
 * the one that came first. -1 with errno set. */
static int make_watch(const struct fuse_server *s)
{
    struct epoll_event request = {.events = EPOLLIN | EPOLLEXCLUSIVE}, stop = {.events = EPOLLIN};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd >= 0 && (epoll_ctl(fd, EPOLL_CTL_ADD, fuse_session_fd(s->session), &request) != 0 ||
                    epoll_ctl(fd, EPOLL_CTL_ADD, s->wake_fd, &stop) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* When a thread may look for its next request without sleeping. */
struct linger {
    int64_t from_us, until_us;
};

static void note_request(struct linger *l, bool write, int64_t begun_us)
{
    int64_t now = now_us();
    if (now - begun_us > WAITED_US)
        l->from_us = now + LEAVE_US;
    l->until_us = write && now >= l->from_us ? now + LINGER_US : 0;
}

/* Receives requests and passes them to TAKE until the mount ends or is to end. */
static bool receive(struct fuse_server *s, int watch, bool lingers,
                    void (*take)(struct fuse_server *, const struct fuse_buf *), struct err *err)
{
    struct linger linger = {0, 0};
    while (!fuse_session_exited(s->session) && !s->stopping) {
        struct epoll_event event;
        if (now_us() >= linger.until_us && epoll_wait(watch, &event, 1, -1) < 0 && errno != EINTR)
            return err_sys(err, errno, "cannot wait for the kernel");
        if (s->stopping)
            break;
        struct fuse_buf buf = {.mem = take_buffer(s)};
        int n = fuse_session_receive_buf(s->session, &buf);
        if (n > 0) {
            bool write = lingers && head_of(&buf).opcode == OP_WRITE;
            int64_t begun_us = now_us();
            take(s, &buf);
            note_request(&linger, write, begun_us);
            continue;
        }
        if (buf.mem != NULL)
            give_buffer(s, buf.mem);
        if (n == 0 || n == -ENODEV)
            break; /* unmounted */
        if (n != -EINTR && n != -EAGAIN)
            return err_sys(err, -n, "cannot receive from the kernel");
    }
    return true;
}

/* ---- direct threads ---- */

struct direct {
    struct fuse_server *server;
    int watch;
    pthread_t thread;
};

static void *direct_main(void *arg)
{
    const struct direct *d = arg;
    struct err err = ERR_INIT;
    if (!receive(d->server, d->watch, true, answer, &err))
        log_error("%s", err.text); /* the dispatcher goes on, or sees the same */
    return NULL;
}

/* How many there are; one that cannot be made is done without. */
static unsigned start_direct(struct fuse_server *s, struct direct threads[DIRECT_THREADS])
{
    unsigned n = 0;
    while (n < DIRECT_THREADS) {
        struct direct *d = &threads[n];
        *d = (struct direct){.server = s, .watch = make_watch(s)};
        if (d->watch < 0)
            break;
        if (pthread_create(&d->thread, NULL, direct_main, d) != 0) {
            close(d->watch);
            break;
        }
        n++;
    }
    return n;
}

static void wake_all(const struct fuse_server *s)
{
    const uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof(one));
    (void)n; /* an eventfd takes a first 1 */
}

bool fuse_server_run(struct fuse_server *s, struct err *err)
{
    struct direct threads[DIRECT_THREADS];
    unsigned direct = start_direct(s, threads);
    int watch = make_watch(s); /* after theirs: they come first */
    bool ok = watch < 0 ? err_sys(err, errno, "cannot wait for the kernel")
                        : receive(s, watch, false, hand_over, err);
    if (!atomic_exchange(&s->stopping, true)) {
        /* unmounted by somebody else; whoever mounts there next is not our business */
        if (ok)
            s->mounted = false;
        request_stop_all(&s->requests, s->opt.grace_ms);
    }
    wake_all(s);
    for (unsigned i = 0; i < direct; i++) {
        pthread_join(threads[i].thread, NULL);
        close(threads[i].watch);
    }
    if (watch >= 0)
        close(watch);
    return ok;
}

void fuse_server_stop(struct fuse_server *s)
{
    if (atomic_exchange(&s->stopping, true))
        return;
    request_stop_all(&s->requests, s->opt.grace_ms);
    struct err err = ERR_INIT;
    if (is_descriptor(s->opt.mountpoint))
        log_info("the mount is left to who made it: umount it");
    else if (unmount_lazily(s->opt.mountpoint, &err))
        s->mounted = false;
    else
        log_warn("%s", err.text);
    fuse_session_exit(s->session);
    wake_all(s);
}

void fuse_server_free(struct fuse_server *s)
{
    if (s == NULL)
        return;
    if (s->opt.fs != NULL)
        fs_set_backing_kernel(s->opt.fs, NULL);
    if (s->session != NULL) {
        if (s->mounted)
            fuse_session_unmount(s->session);
        fuse_session_destroy(s->session);
    }
    while (s->spare_count > 0)
        free(s->spare[--s->spare_count]);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    request_table_destroy(&s->requests);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
