/* Shared by fuse_server.c and fuse_ops.c. */
#ifndef WALEFS_FS_FUSE_INTERNAL_H
#define WALEFS_FS_FUSE_INTERNAL_H

#include <fuse_lowlevel.h>

#include "fs/fuse.h"
#include "fs/request.h"

struct fuse_server {
    struct fuse_server_options opt;
    struct fuse_session *session;
    struct request_table requests;
    _Atomic bool stopping; /* or unmounted: set once, by whoever comes first */
    int wake_fd;           /* an eventfd that ends the receivers' waits; -1 until it is made */
    _Atomic bool mounted;
    _Atomic bool no_backing; /* this kernel, or this mount, does not have it */

    pthread_mutex_t lock;
    void *spare[4]; /* lock: receive buffers that are not in use */
    unsigned spare_count;
};

extern const struct fuse_lowlevel_ops fuse_handlers;

/* Does this thread answer INIT now? */
extern _Thread_local bool fuse_io_answering_init;

/* The backing file that the reply to an open or create of this thread names; 0: none. */
extern _Thread_local int fuse_io_backing;

/* What of struct backing_kernel the mounted session's kernel can. */
int fuse_io_backing_open(void *server, int fd);
void fuse_io_backing_close(void *server, int id);

/* Makes the mounted session's replies go through fuse_io.c. */
bool fuse_io_install(struct fuse_server *server);

/* Has the kernel read further ahead below MOUNTPOINT, where a mount waits for the answer to INIT.
 * Only root can; without it nothing changes. */
void fuse_io_read_ahead(const char *mountpoint);

#endif
