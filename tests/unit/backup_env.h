/* For tests of writing base backups: a data directory made on the spot, a directory store whose
 * calls can fail, and the tools of everybody to read back what was stored. */
#ifndef WALEFS_TESTS_BACKUP_ENV_H
#define WALEFS_TESTS_BACKUP_ENV_H

#include "core/backup_write.h"
#include "fault_store.h"
#include "gpg_home.h"
#include "store_env.h"

#define BACKUP_NAME "base_000000010000000000000002_00000040"
#define BACKUP_DIR BACKUP_PREFIX BACKUP_NAME

struct backup_env {
    struct store_env files;
    struct fault_store *faults;
    struct store *store; /* with the faults */
    struct pool *pool;
    struct openpgp *pgp;
    const struct test_home *home; /* NULL: nothing is encrypted */
    char dir[64];                 /* scratch; "cluster" in it is the data directory */
    struct backup_write_options opt;
};

/* WORDS as of make_cluster.py. HOME: NULL, or one with RECIPIENT's key, and MAX_PROCESSES places.
 */
void backup_env_begin(struct backup_env *e, const char *words, const struct test_home *home,
                      const char *recipient, unsigned max_processes);
/* Nothing is encrypted, and there are two tar files of a cluster with a backup_label: label.tar, as
 * it is, and stopped.tar, without the label. */
void backup_env_begin_tars(struct backup_env *e);
void backup_env_end(struct backup_env *e);

/* Runs a shell command in e->dir; asserts that it succeeds. */
void backup_env_run(const struct backup_env *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* E's file NAME as a source; *FD is to be closed after it. */
struct source *backup_env_open(const struct backup_env *e, const char *name, int *fd);

struct backup_write *backup_env_writer(const struct backup_env *e);
/* The file NAME in e->dir through backup_write_tar. */
bool backup_env_tar(const struct backup_env *e, struct backup_write *w, const char *name,
                    const char *prefix, struct err *err);
/* The directory NAME in e->dir, member by member, in the order of find. */
bool backup_env_tree(const struct backup_env *e, struct backup_write *w, const char *name,
                     struct err *err);
/* A member that is in no directory. */
bool backup_env_member(struct backup_write *w, const char *path, enum member_type type,
                       const char *content, struct err *err);

bool backup_env_commit(struct backup_write *w, struct err *err);

/* How many objects there are below basebackups_005/. */
size_t backup_env_count(const struct backup_env *e);
bool backup_env_has(const struct backup_env *e, const char *key);

/* The backup is complete, and nothing else is there; each partition decodes with lzop (and gpg) and
 * tar; all of them together are the directory WANTED in e->dir; the index has each member, and its
 * offsets lead to the data. Returns the number of partitions. */
size_t backup_env_check(const struct backup_env *e, const char *wanted);

#endif
