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
    int wake_fd; /* an eventfd that ends the receiving thread's wait; -1 until it is made */
    _Atomic bool mounted;
    bool answering_init; /* the receiving thread's; nobody else replies before INIT is answered */

    pthread_mutex_t lock;
    void *spare[4]; /* lock: receive buffers that are not in use */
    unsigned spare_count;
};

extern const struct fuse_lowlevel_ops fuse_handlers;

/* Makes the mounted session's replies go through fuse_io.c. */
bool fuse_io_install(struct fuse_server *server);

#endif
