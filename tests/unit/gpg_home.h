/* Real gpg for tests: homes of their own with keys made on the spot, and streams over memory. */
#ifndef WALEFS_TESTS_GPG_HOME_H
#define WALEFS_TESTS_GPG_HOME_H

#include "core/buf.h"
#include "core/openpgp.h"
#include "core/stream.h"

struct test_home {
    char path[64];
};

void test_home_make(struct test_home *home);

/* Ends the home's gpg-agent and removes all. */
void test_home_remove(struct test_home *home);

/* Runs "gpg --homedir HOME --batch ... ARGS" through the shell, quietly; its exit status. */
int test_gpg(const struct test_home *home, const char *args_fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Makes a key (ed25519 with a cv25519 subkey) and asserts that it worked. EXTRA goes before the
 * command ("--faked-system-time ..."), EXPIRE behind it ("never", "1d"). */
void test_key(const struct test_home *home, const char *user_id, const char *passphrase);
void test_key_ext(const struct test_home *home, const char *user_id, const char *extra,
                  const char *algo, const char *expire);

/* The primary fingerprint. */
void test_fpr(const struct test_home *home, const char *user_id, char out[64]);

/* Copies the public key. */
void test_copy_public(const struct test_home *from, const struct test_home *to,
                      const char *user_id);

/* Reads or writes a file in the home. */
void test_write_file(const struct test_home *home, const char *name, const void *data, size_t n);
void test_read_file(const struct test_home *home, const char *name, struct buf *out);

/* Options with time-outs fit for tests, no recipients. */
struct openpgp_options test_options(const struct test_home *home);

/* openpgp_new with one recipient (NULL: none) and a passphrase (NULL: none). */
struct openpgp *test_openpgp(const struct test_home *home, const char *recipient,
                             const char *passphrase, struct err *err);

/* A sink that keeps all; finish does nothing. */
struct test_sink {
    struct sink base;
    struct buf got;
    size_t fail_at; /* fails with "sink broke" once so many bytes came; SIZE_MAX: never */
};
void test_sink_init(struct test_sink *s);

/* N bytes that do not compress and depend on SEED only. malloc'ed. */
char *test_bytes(size_t n, unsigned seed);

/* Whole operations on memory, with a place reserved and no deadline. */
bool test_encrypt(struct openpgp *pgp, const void *plain, size_t n, struct buf *out,
                  struct err *err);
bool test_decrypt(struct openpgp *pgp, const void *coded, size_t n, struct buf *out,
                  struct err *err);

/* What an operation must leave as it was. */
size_t test_open_fds(void);
/* Processes that have this home, or a file in it, among their arguments, gpg-agent not counted. */
size_t test_gpg_count(const char *home);
/* Waits (10 s at most) until none is left; the number that is. */
size_t test_gpg_count_settled(const char *home);

#endif
