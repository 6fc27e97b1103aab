/* How replies get to the kernel, and how far it reads ahead.
 *
 * libfuse before 3.17 has FUSE_CAP_PARALLEL_DIROPS but does not pass it on to the kernel, which
 * then lets only one lookup at a time into a directory, and makes the others wait uninterruptibly:
 * one name that a hung store does not answer for would block the whole of wal/. So the flag is put
 * into the answer to INIT here. Source: struct fuse_init_out in include/uapi/linux/fuse.h.
 *
 * The kernel reads 128 KiB ahead unless its administrator says otherwise, and each is a request of
 * its own. So a mount by root says otherwise, in sysfs, before INIT is answered; then the smaller
 * of that and of what the answer says holds. Source: process_init_reply() in fs/fuse/inode.c.
 *
 * Nor does libfuse before 3.17 know of backing files (backing.h): the answers to INIT, open and
 * create say so here, in fields that are zero otherwise and that older kernels do not look at. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/log.h"
#include "fs/fuse_internal.h"

struct init_out_head {
    uint32_t major, minor, max_readahead, flags;
    uint32_t rest[4];
    uint32_t flags2, max_stack_depth;
};
#define PARALLEL_DIROPS (1u << 18)
#define INIT_EXT (1u << 30)
#define PASSTHROUGH2 (1u << 5)
/* Backing files are not on a stacked file system themselves, and walefs can be below another one.
 */
#define STACK_DEPTH 1u

struct open_out {
    uint64_t handle;
    uint32_t flags;
    int32_t backing;
};
#define OPEN_PASSTHROUGH (1u << 7)

struct backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define IOC_BACKING_OPEN _IOW(229, 1, struct backing_map)
#define IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

#define READ_AHEAD_BYTES (1u << 20)

_Thread_local bool fuse_io_answering_init;
_Thread_local int fuse_io_backing;

static void announce(const struct iovec *answer)
{
    struct init_out_head head;
    memcpy(&head, answer->iov_base, sizeof(head));
    head.flags |= PARALLEL_DIROPS | INIT_EXT;
    head.max_readahead = READ_AHEAD_BYTES;
    head.flags2 |= PASSTHROUGH2;
    head.max_stack_depth = STACK_DEPTH;
    memcpy(answer->iov_base, &head, sizeof(head));
}

/* The last part of the answers to open and create. */
static void name_backing(const struct iovec *answer)
{
    struct open_out out;
    char *at = (char *)answer->iov_base + answer->iov_len - sizeof(out);
    memcpy(&out, at, sizeof(out));
    out.flags |= OPEN_PASSTHROUGH;
    out.backing = fuse_io_backing;
    memcpy(at, &out, sizeof(out));
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    if (fuse_io_answering_init && count >= 2 && iov[1].iov_len >= sizeof(struct init_out_head))
        announce(&iov[1]);
    if (fuse_io_backing != 0 && count >= 2 && iov[1].iov_len >= sizeof(struct open_out))
        name_backing(&iov[1]);
    return writev(fd, iov, count);
}

static ssize_t io_read(int fd, void *buf, size_t n, void *userdata)
{
    (void)userdata;
    return read(fd, buf, n);
}

static ssize_t io_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t n,
                         unsigned flags, void *userdata)
{
    (void)userdata;
    return splice(from, from_offset, to, to_offset, n, flags);
}

int fuse_io_backing_open(void *server, int fd)
{
    struct fuse_server *s = server;
    struct backing_map map = {.fd = fd};
    if (s->no_backing)
        return 0;
    int id = ioctl(fuse_session_fd(s->session), IOC_BACKING_OPEN, &map);
    if (id > 0)
        return id;
    s->no_backing = errno != ENOMEM && errno != ENOSPC;
    log_debug("the kernel does not read fetched files itself: %s", strerror(errno));
    return 0;
}

void fuse_io_backing_close(void *server, int id)
{
    const struct fuse_server *s = server;
    uint32_t number = (uint32_t)id;
    (void)ioctl(fuse_session_fd(s->session), IOC_BACKING_CLOSE, &number);
}

bool fuse_io_install(struct fuse_server *s)
{
    static const struct fuse_custom_io io = {
        .writev = io_writev, .read = io_read, .splice_send = io_splice};
    return fuse_session_custom_io(s->session, &io, fuse_session_fd(s->session)) == 0;
}

void fuse_io_read_ahead(const char *mountpoint)
{
    struct statx st;
    char path[64], kib[16];
    /* asks nothing of the mount, which does not answer yet */
    if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, 0, &st) != 0)
        return;
    (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major,
                   st.stx_dev_minor);
    int n = snprintf(kib, sizeof(kib), "%u", READ_AHEAD_BYTES / 1024);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t put = write(fd, kib, (size_t)n);
    (void)put; /* it is as fast as before then */
    close(fd);
}
