/* Files that the kernel reads itself (FUSE passthrough, Linux 6.9 and later, for mounts by root):
 * what has been fetched and verified lies in an anonymous file of this host, its backing file, and
 * reads of the open file go there without a request.
 *
 * The kernel wants all openings of an inode to name one backing file as long as any of them does,
 * and else fails the open with EIO. An answered open may reach that rule late, behind a later one;
 * so an inode gets a backing file only when none of its openings is without, up to their release.
 * Nor may who can write name one: mapped, it would be changed. So a writer never shares an inode
 * with the kernel's readers: he gets another one for the same name.
 * Source: fuse_file_io_open() in fs/fuse/iomode.c. */
#ifndef WALEFS_FS_BACKING_H
#define WALEFS_FS_BACKING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

/* What the kernel provides; both functions NULL: nothing. Neither blocks. */
struct backing_kernel {
    int (*open)(void *arg, int fd); /* a number above 0 for the file; 0: it cannot */
    void (*close)(void *arg, int id);
    void *arg;
    _Atomic int64_t paused_until_ms; /* of now_ms; no more backing files until then */
};

/* Of one inode; any thread. */
struct backing {
    pthread_mutex_t lock;
    unsigned with, without; /* openings */
    int id;                 /* of the backing file, while there are openings with it */
    dev_t dev;              /* which file that is */
    ino_t ino;
};

/* Of one opening; all zero: none. */
struct backing_use {
    struct backing *backing;
    int id;       /* of the backing file that it names; 0: none */
    bool through; /* reads go there; else they come to us */
};

void backing_init(struct backing *b);
void backing_destroy(struct backing *b);

/* FD is a file that has all that can be read through this opening, and does not change any more; -1
 * for an opening that can write, or whose file changes. ERR_STALE: that one needs another inode,
 * since this one is read from a backing file (or was a moment ago: closing is told late); it comes
 * with a pause. */
bool backing_enter(struct backing *b, struct backing_kernel *kernel, int fd,
                   struct backing_use *use, struct err *err);
/* No new backing files for a minute: so that no reader is there before an opening that was sent to
 * another inode. It is not sent on a second time. */
void backing_pause(struct backing_kernel *kernel);
/* Once the kernel has released it, or never got it. Of none: does nothing. */
void backing_leave(const struct backing_kernel *kernel, const struct backing_use *use);

#endif
