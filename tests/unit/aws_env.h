/* For the tests of where AWS credentials come from: a chain, a directory with files, and the server
 * that plays AWS's services (tests/lib/aws_server.py). */
#ifndef WALEFS_TESTS_AWS_ENV_H
#define WALEFS_TESTS_AWS_ENV_H

#include "core/aws_impl.h"

extern char aws_dir[64]; /* fresh for each test; the home directory of the chain */
extern char aws_url[64]; /* of the server, without a slash at the end */
extern struct aws_chain_options aws_options; /* to be changed before the first fetch */

/* cmocka's setup and teardown: a fresh directory; with the server, which gives "ID1 secret1". */
int aws_set_up(void **state);
int aws_set_up_server(void **state);
int aws_tear_down(void **state);

/* Writes DIR/NAME; for NAME "aws/..." what the server reads. */
void aws_file(const char *name, const char *text);
/* The content of DIR/NAME or "". */
const char *aws_text(const char *name);

/* Fetches from the chain of aws_options, made anew unless KEEP. */
bool aws_fetch_keys(struct aws_keys *keys, struct err *err);
/* The same must give this, or must fail with each of the texts (up to a NULL). */
void aws_gives(const char *id, const char *secret, const char *token);
void aws_refuses(const char *text, ...);
/* From now on the same chain is asked again. */
void aws_keep_chain(void);

#define AWS_T(f) cmocka_unit_test_setup_teardown(f, aws_set_up, aws_tear_down)
#define AWS_TS(f) cmocka_unit_test_setup_teardown(f, aws_set_up_server, aws_tear_down)

#endif
