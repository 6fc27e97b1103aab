/* How replies get to the kernel.
 *
 * libfuse before 3.17 has FUSE_CAP_PARALLEL_DIROPS but does not pass it on to the kernel, which
 * then lets only one lookup at a time into a directory, and makes the others wait uninterruptibly:
 * one name that a hung store does not answer for would block the whole of wal/. So the flag is put
 * into the answer to INIT here. Source: struct fuse_init_out in include/uapi/linux/fuse.h. */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/fuse_internal.h"

struct init_out_head {
    uint32_t major, minor, max_readahead, flags;
};
#define PARALLEL_DIROPS (1u << 18)

_Thread_local bool fuse_io_answering_init;

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    if (fuse_io_answering_init && count >= 2 && iov[1].iov_len >= sizeof(struct init_out_head)) {
        struct init_out_head head;
        memcpy(&head, iov[1].iov_base, sizeof(head));
        head.flags |= PARALLEL_DIROPS;
        memcpy(iov[1].iov_base, &head, sizeof(head));
    }
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

bool fuse_io_install(struct fuse_server *s)
{
    static const struct fuse_custom_io io = {
        .writev = io_writev, .read = io_read, .splice_send = io_splice};
    return fuse_session_custom_io(s->session, &io, fuse_session_fd(s->session)) == 0;
}
