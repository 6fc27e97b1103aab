/* The kernel's side: receives FUSE requests, has them worked on by the pool, replies once to each.
 *
 * A few direct threads receive requests and work on them themselves, which saves the hand-over that
 * costs more than most requests do. While all of them are busy, or hang on a slow store, one thread
 * that never blocks, the dispatcher, receives instead. It hands each request, with its buffer, to
 * a pool, where libfuse decodes it and calls the handlers of fuse_ops.c. Interrupts and forgets
 * are handled by who receives them, since they must not queue behind what they end. */
#ifndef WALEFS_FS_FUSE_H
#define WALEFS_FS_FUSE_H

#include "core/pool.h"
#include "fs/fs.h"

struct fuse_server;

struct fuse_server_options {
    struct fs *fs;
    struct pool *pool;
    struct pool
        *local_pool; /* for what this host can answer alone, however many wait in the other */
    const char *mountpoint; /* or /dev/fd/N: mounted already, and somebody else's to unmount */
    const char *source;     /* shown as the device of the mount */
    bool read_only;
    bool allow_other;
    bool no_exec;
    int64_t grace_ms; /* when the mount ends, what is being archived may finish for so long */
    bool debug;       /* libfuse's own trace on stderr */
};

/* Mounts. ERR_LOCAL with a hint when it cannot (no /dev/fuse, no right, user_allow_other). */
struct fuse_server *fuse_server_new(const struct fuse_server_options *options, struct err *err);

/* The calling thread is the dispatcher until the mount ends, by umount or by fuse_server_stop; true
 * when it ended in order. */
bool fuse_server_run(struct fuse_server *server, struct err *err);

/* Any thread, while run is under way: cancels readers, gives writers the grace time, unmounts. Does
 * nothing when the mount has ended already. */
void fuse_server_stop(struct fuse_server *server);

/* After run, and when the pools have ended. NULL is allowed. */
void fuse_server_free(struct fuse_server *server);

#endif
