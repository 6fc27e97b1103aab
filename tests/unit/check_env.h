/* For tests of mount/check*.c: a small archive in a directory, and what a check says of it. */
#ifndef WALEFS_TESTS_CHECK_ENV_H
#define WALEFS_TESTS_CHECK_ENV_H

#include "fault_store.h"
#include "mount/check_impl.h"

struct check_env {
    char dir[64]; /* of the archive */
    struct check c;
    struct fault_store *faults; /* c.store, around the directory */
    struct store *directory;
    char *said; /* what was said so far */
    size_t said_bytes;
};

void check_env_begin(struct check_env *e);
void check_env_end(struct check_env *e);

/* Runs a shell command in the archive's directory; asserts that it succeeds. Its functions: "seg
 * NAME" archives a segment of 1 MiB, "text NAME CONTENT" a text, "backup NAME STOP_SEGMENT" a base
 * backup with one partition, whose position is known for sure. */
void check_env_run(struct check_env *e, const char *command);

/* Forgets what was said and looks anew, at everything but store and keys. */
void check_env_look(struct check_env *e, bool deep);

/* Was a line said that begins with RESULT and CHECK and has TEXT in it? Fails if not. */
void check_env_says(struct check_env *e, const char *result, const char *check, const char *text);
/* Was nothing said that begins with RESULT? */
void check_env_says_no(struct check_env *e, const char *result);

#endif
