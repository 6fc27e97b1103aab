/* fs/ as the kernel's side uses it, over a store in memory. Of one test at a time. */
#ifndef WALEFS_TESTS_MEM_FS_ENV_H
#define WALEFS_TESTS_MEM_FS_ENV_H

#include "fs/fs.h"
#include "fs/inode.h"
#include "mem_store.h"

extern struct mem_store *mem;
extern struct openpgp *pgp;
extern struct fs *fs;

/* The store first, so that a test can put another one around it, then the mount. */
void mem_fs_store(void);
/* Pool, keys, cache directory, and the store where OPTIONS has none, are filled in. */
void mem_fs_mount(struct fs_options options);
/* Both. */
void mem_fs_begin(struct fs_options options);
/* Unmounts it; the store is still there. mem_fs_end does it, if the test has not. */
void mem_fs_stop(void);
/* Nothing may be left behind, whatever the test did. */
void mem_fs_end(void);

/* NAME must be there; it is looked up by process 1. */
uint64_t mem_fs_look_up(uint64_t dir, const char *name);

#endif
