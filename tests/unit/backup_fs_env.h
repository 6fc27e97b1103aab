/* basebackups/ as the kernel's side uses it, over a directory store whose calls can fail: what cp
 * and tar do, without a kernel. */
#ifndef WALEFS_TESTS_BACKUP_FS_ENV_H
#define WALEFS_TESTS_BACKUP_FS_ENV_H

#include "backup_env.h"
#include "fs/fs.h"

#define BFS_PID ((pid_t)1) /* who does it all */
#define BFS_PATIENCE_MS 20000

struct backup_fs {
    struct backup_env env;
    struct fs *fs;
    uint64_t top;             /* basebackups/ */
    uint64_t partition_bytes; /* 0: 5 MiB; before bfs_begin */
    struct err err;           /* of what failed last */
};

/* One at a time. */
extern struct backup_fs bfs;

/* WORDS as of make_cluster.py: makes the store, and mounts it. */
void bfs_begin(const char *words);
void bfs_end(void);
void bfs_mount(bool writable, bool allow_delete);
/* The pool goes with it; AGAIN: then mounts it as bfs_begin did. */
void bfs_unmount(bool again);

/* 0 with bfs.err. PATH is below DIR. */
uint64_t bfs_look_up(uint64_t dir, const char *name);
uint64_t bfs_walk(uint64_t dir, const char *path);

/* mkdir LABEL.partial, cp -a cluster/. into it; mv LABEL.partial LABEL; both. */
bool bfs_copy_in(const char *label);
bool bfs_complete(const char *label);
void bfs_must_back_up(const char *label);

/* A file that is written and closed: with the content and facts of PATH, or a text. */
bool bfs_put_file(uint64_t dir, const char *name, const char *path, const struct stat *st);
bool bfs_put_text(uint64_t dir, const char *name, const char *text);
uint64_t bfs_make_dir(uint64_t dir, const char *name);

/* All of the file ID, which has SIZE bytes, to be freed. */
char *bfs_read_file(uint64_t id, size_t size);
/* PATH below basebackups/ is the directory WANTED of bfs.env, with its facts. */
void bfs_must_be(const char *path, const char *wanted);
void bfs_must_be_the_cluster(const char *path);

/* Until nothing is stored below basebackups_005/. */
void bfs_wait_empty(void);

#endif
