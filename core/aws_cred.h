/* AWS credentials that change while the mount lives.
 *
 * Requests borrow a snapshot. One refresh at a time, in a thread of its own, serves all who wait;
 * it runs before the credentials end (five minutes, or a quarter of a shorter life), and when S3
 * has refused them. While the old ones are valid, a refresh that fails is only logged; when they
 * are not, each caller gets its reason as ERR_FORBIDDEN, which readers wait out. Failures are
 * followed by a pause that doubles up to half a minute; until it is over callers get the last
 * reason. */
#ifndef WALEFS_CORE_AWS_CRED_H
#define WALEFS_CORE_AWS_CRED_H

#include <stdatomic.h>

#include "core/call.h"
#include "core/secret.h"

struct aws_keys {
    struct secret id, secret, token; /* token unset: none */
    int64_t expires_s;               /* since 1970; 0: not known, or never */
};

void aws_keys_free(struct aws_keys *keys);

/* A snapshot; constant while it lives. */
struct aws_credentials {
    struct aws_keys keys;
    _Atomic unsigned refs;
};

void aws_credentials_unref(struct aws_credentials *c); /* NULL is allowed */

/* Where credentials come from. Fetch may block within the call; it is never run twice at once, and
 * not in the thread that asks. Its errors name the place and say what to do. */
struct aws_source {
    bool (*fetch)(void *arg, const struct call *call, struct aws_keys *out, struct err *err);
    void (*free)(void *arg); /* NULL: nothing to free */
    void *arg;
};

struct aws_cred;

/* Takes SOURCE over, unless it fails. Nothing is fetched before the first get. */
struct aws_cred *aws_cred_new(const struct aws_source *source, struct err *err);
void aws_cred_free(struct aws_cred *cred); /* ends a refresh under way; NULL is allowed */

/* A reference to credentials that are valid as far as their expiry tells; NULL with ERR_FORBIDDEN,
 * or when the call ends while it waits. */
struct aws_credentials *aws_cred_get(struct aws_cred *cred, const struct call *call,
                                     struct err *err);

/* The last four characters of the access key id in use, for people; "" while there is none, and of
 * one so short that they would tell much of it. Does not block. */
#define AWS_ID_END 5
void aws_cred_id_end(struct aws_cred *cred, char out[AWS_ID_END]);

/* The store has refused USED. True when there are others by now; false with the reason, for
 * instance that the source still gives the same. */
bool aws_cred_renew(struct aws_cred *cred, const struct aws_credentials *used,
                    const struct call *call, struct err *err);

#endif
