/* A real FUSE mount of a store in memory, served by this process, and processes that use it.
 *
 * Who uses a mount from the process that serves it can end up waiting for itself, and a process
 * that was forked later has the FUSE device open, which keeps a dead mount alive. So the users are
 * forked by a process that fuse_env_main makes before there are threads or mounts. */
#ifndef WALEFS_TESTS_FUSE_ENV_H
#define WALEFS_TESTS_FUSE_ENV_H

#include <sys/stat.h>

#include "fs/fuse.h"
#include "mem_store.h"

/* Runs the group's tests, in a mount namespace of this program's own. Without /dev/fuse, or the
 * right to mount, all of them fail. What main returns. */
struct CMUnitTest;
int fuse_env_main(const struct CMUnitTest *tests, size_t n);

/* ---- the mount ---- */

struct fuse_env {
    char dir[32]; /* the mount point */
    struct mem_store *mem;
    struct openpgp *pgp;
    struct pool *work, *requests, *local;
    struct fs *fs;
    struct fuse_server *server;
    pthread_t thread; /* the dispatcher */
    bool running;
    size_t fds_before;
};

/* What mount.c would take from the command line; pools, store and mount point are filled in. */
struct fuse_env_config {
    struct fs_options fs;
    struct fuse_server_options server;
    unsigned request_threads;
};
struct fuse_env_config fuse_env_defaults(void);

/* The store first, so that a test can put something into it, then the mount. */
void fuse_env_store(struct fuse_env *e);
void fuse_env_mount(struct fuse_env *e, const struct fuse_env_config *config);

/* Waits for the dispatcher, which must end in order. */
void fuse_env_join(struct fuse_env *e);
/* Ends everything, whatever the test has done: users, faults, mount. Nothing may be left. */
void fuse_env_end(struct fuse_env *e);

/* The line of /proc/self/mountinfo for the mount point, in static memory; NULL: nothing is mounted
 * there. Does not touch the mount. */
const char *fuse_env_mounted(const struct fuse_env *e);

/* ---- of one test at a time ---- */

extern struct fuse_env env;

int fuse_store_only(void **state);
int fuse_begin(void **state); /* mounted with the defaults */
int fuse_end(void **state);
#define FUSE_TEST(f) cmocka_unit_test_setup_teardown(f, fuse_begin, fuse_end)
#define FUSE_TEST_STORE_ONLY(f) cmocka_unit_test_setup_teardown(f, fuse_store_only, fuse_end)

/* ---- users ---- */

#define USE_BYTES (2u << 20)
#define USE_KILLED (-1) /* the process ended before its function did */
#define USE_PATIENCE_MS 60000

/* What a process does, and what came of it. In memory that the processes share. */
struct use {
    char path[320], other[320];
    int flags;
    size_t size;         /* of the data */
    struct stat st;      /* where something is stat'ed */
    _Atomic int reached; /* a step that others wait for */
    _Atomic int allowed; /* up to where it may go on */
    _Atomic int result;  /* what its function returned: an errno */
    int pidfd;           /* -1: it has never run, or was reaped already */
    char data[USE_BYTES];
};

typedef int use_fn(struct use *u);

/* PATH and OTHER (NULL: "") are below the mount point; "" is that itself. Valid until
 * fuse_env_end. */
struct use *use_new(const struct fuse_env *e, const char *path, const char *other);
void use_start(struct use *u, use_fn *fn);
/* What FN returned, or USE_KILLED. Fails when it does not end. */
int use_wait(struct use *u);
bool use_ended(const struct use *u);
void use_signal(const struct use *u, int signal_number);
/* All of it at once, on env. */
int use_run(const char *path, use_fn *fn);

/* In FN: has come to STEP, and waits until it may go further. */
void use_step(struct use *u, int step);
/* In the test: waits until U has come to STEP; lets it go on. */
void use_await(const struct use *u, int step);
void use_allow(struct use *u, int step);

/* Functions for users. */
int use_stat(struct use *u);
int use_read(struct use *u);  /* all of the file into data */
int use_write(struct use *u); /* as cp does: data into the file */
int use_list(struct use *u);  /* a line for each name, "d wal", sorted */
int use_unlink(struct use *u);
int use_rename(struct use *u); /* to OTHER */

#endif
