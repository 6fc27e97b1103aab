/* For tests of dumps/ as the kernel's side uses it: a mount over a directory store whose calls can
 * fail, and what programs do on it. Of one test at a time. */
#ifndef WALEFS_TESTS_DUMPS_ENV_H
#define WALEFS_TESTS_DUMPS_ENV_H

#include <unistd.h>

#include "fault_store.h"
#include "fs/fs.h"
#include "store_env.h"

#define MIB (1u << 20)
#define ME getpid() /* who opens, writes and closes */

extern struct store_env the_files;
extern struct fault_store *the_faults; /* around the_files.store: what is mounted */
extern struct fs_options the_options;  /* of the next do_mount */
extern struct fs *the_fs;
extern uint64_t the_dumps;
extern struct err the_err; /* of what was done last */
extern const struct call endless;

/* Begins with a mount that may write and delete. */
int dumps_begin(void **state);
int dumps_end(void **state);
#define DUMPS_TEST(f) cmocka_unit_test_setup_teardown(f, dumps_begin, dumps_end)

void do_mount(bool writable, bool allow_delete);
void do_unmount(void);

uint64_t do_look_up(uint64_t dir, const char *name); /* 0: the_err says why */
uint64_t do_mkdir(uint64_t dir, const char *name);
/* Opened with O_CREAT and O_TRUNC; NULL when that fails. */
struct handle *do_create(uint64_t dir, const char *name, int flags);
/* open, write, close; what close said. */
bool do_put(uint64_t dir, const char *name, const char *data, size_t n);
bool do_put_text(uint64_t dir, const char *name, const char *text);
bool do_read(struct handle *h, uint64_t offset, size_t n, char *out, size_t *got);
/* The whole of it, malloc'ed and ended with a NUL; NULL when that fails. */
char *do_get(uint64_t dir, const char *name, size_t *n);
bool do_move(uint64_t dir, const char *name, uint64_t to, const char *new_name);

struct listing {
    char text[4096];
    size_t count, sized;
};
struct listing do_list(uint64_t dir);

void assert_holds(uint64_t dir, const char *name, const char *data, size_t n);
void assert_text(uint64_t dir, const char *name, const char *text);
void assert_gone(uint64_t dir, const char *name);

#endif
