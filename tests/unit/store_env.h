/* Stores for tests: a fresh directory, a fresh prefix in the real S3 server that
 * tests/lib/radosgw.sh started, or an S3 store that talks to a scripted server
 * (tests/lib/s3_script_server.py). Without WALEFS_TEST_S3 in the environment, what needs the real
 * server fails: it is not skipped. */
#ifndef WALEFS_TESTS_STORE_ENV_H
#define WALEFS_TESTS_STORE_ENV_H

#include <sys/types.h>

#include "core/store.h"
#include "core/store_s3.h"

enum store_kind { STORE_DIRECTORY, STORE_S3, STORE_S3_TLS };

struct store_env {
    struct store *store;
    enum store_kind kind;
    char dir[64];    /* of the directory store, else "" */
    char prefix[64]; /* of the S3 store */
};

/* The value of an environment variable that radosgw.sh sets; the test fails without it. */
const char *env_need(const char *name);

/* Credentials that stay the same, TOKEN or NULL; freed at the program's end. Strings are borrowed.
 */
struct aws_cred *env_cred(const char *id, const char *secret, const char *token);

/* Options for the real server. */
struct store_s3_options env_s3_options(enum store_kind kind, const char *prefix);

void store_env_begin(struct store_env *env, enum store_kind kind);
void store_env_end(struct store_env *env); /* removes all that is stored */

/* Runs radosgw.sh VERB on the server under test. */
void env_radosgw(const char *verb);

/* Removes a directory made by mkdtemp below /tmp, with all in it. */
void env_remove_tree(const char *dir);

struct script {
    pid_t pid;
    unsigned port;
    int out; /* the server's stdout */
    char dir[64];
};

/* Starts the scripted server with STEPS, a Python literal: see the server's head. */
void script_begin(struct script *s, const char *steps);
/* Ends it; the test fails when a step was not used or a request did not fit. */
void script_end(struct script *s);
/* Ends it without looking. */
void script_drop(struct script *s);

/* An S3 store that talks to S: bucket "bucket", prefix "p/", short time-outs, MAX_ATTEMPTS tries.
 */
struct store *script_store(const struct script *s, unsigned max_attempts);
/* With another limit on a small request than 1500 ms. */
struct store *script_store_within(const struct script *s, unsigned max_attempts,
                                  uint32_t request_timeout_ms);

/* Reads all of "key", at most 64 bytes: how many, or -1 with ERR. */
ssize_t script_read_all(struct store *s, char out[64], struct err *err);

/* Puts "hello" as "key". */
bool script_put_hello(struct store *s, bool only_if_absent, struct err *err);

/* A server that has no place in its queue any more: connecting to it takes for ever. */
struct deaf {
    int listener, queued[3];
    unsigned port; /* of 127.0.0.1 */
};

void deaf_begin(struct deaf *d);
void deaf_end(struct deaf *d);

/* A call without bounds. */
extern const struct call env_forever;

/* Fails unless ERR has this code and TEXT (NULL: any) in its text, which is one line. */
void env_assert_error(const struct err *err, enum err_code code, const char *text);

/* ---- one suite over every store ---- */

extern enum store_kind env_kind; /* of the group that runs */

/* *state is a fresh store. */
int env_setup(void **state);
int env_teardown(void **state);
#define ENV_TEST(function) cmocka_unit_test_setup_teardown(function, env_setup, env_teardown)

/* Runs the tests over each kind of store. The number of failures. */
struct CMUnitTest;
int env_run(const struct CMUnitTest *tests, size_t n);

/* The base of a directory store. */
const char *env_dir(const struct store *store);

#define assert_ok(expression, err)                        \
    do {                                                  \
        if (!(expression))                                \
            fail_msg("%s: %s", #expression, (err)->text); \
    } while (0)

void env_assert_content(struct store *store, const char *key, const void *data, size_t n);
void env_assert_absent(struct store *store, const char *key);

/* Lists through all pages and compares with the NULL-ended WANTED; a trailing '/' is a prefix. */
void env_assert_list(struct store *store, struct store_list list, const char *const *wanted);
#define ENV_LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Convenience, each asserting success. */
void env_put(struct store *store, const char *key, const void *data, size_t n);
/* All bytes of KEY in malloc'ed memory. */
char *env_get(struct store *store, const char *key, size_t *n);

/* Removes all that is stored. */
bool env_empty(struct store *store, struct err *err);

/* N pseudo-random bytes from SEED, malloc'ed. */
char *env_bytes(size_t n, unsigned seed);

#endif
