/* OpenPGP through gpgme: streaming, in batch mode, with a bound on the number of gpg processes and
 * a time-out on each.
 *
 * A struct openpgp is made once and used from any thread. Decryption with a passphrase uses a
 * private, short-lived gpg home on tmpfs in which the key has a cheap key derivation, because
 * gpg-agent derives the key anew for every single decryption (measured: 340 ms against 19 ms). */
#ifndef WALEFS_CORE_OPENPGP_H
#define WALEFS_CORE_OPENPGP_H

#include "core/call.h"
#include "core/secret.h"
#include "core/stream.h"

struct openpgp;

/* Strings are borrowed during openpgp_new only. */
struct openpgp_options {
    const char *home;                /* NULL: gpg's own choice (GNUPGHOME or ~/.gnupg) */
    const char *const *recipients;   /* key ids, fingerprints or user ids, as gpg -r takes them */
    size_t recipient_count;          /* 0: nothing is encrypted; decryption still works */
    const struct secret *passphrase; /* NULL or unset: gpg-agent's business */
    uint32_t stall_timeout_ms; /* a gpg that neither reads nor writes for so long while it could,
                                  is ended: ERR_TIMEOUT. 0: never */
    unsigned max_processes;    /* gpg processes at once */
    bool writable;             /* check that the recipients can be encrypted to */
    bool allow_expired;        /* an expired recipient is a warning */
};

/* Preflight included: gpg is installed; each recipient has a usable encryption key (else ERR_KEY
 * with the key's name and what to do: unknown, expired, revoked, disabled, cannot encrypt; one that
 * expires within 30 days is a warning in the log, then and daily); a
 * passphrase that is set unlocks a secret key (else ERR_KEY: "wrong passphrase ..."). gpg missing
 * is an error only with recipients or a passphrase; without them it is found out by the first
 * encrypted object. Blocks for up to some seconds. */
struct openpgp *openpgp_new(const struct openpgp_options *options, struct err *err);

/* Ends the private agent and removes the private home. NULL is allowed. No operation may be under
 * way. */
void openpgp_free(struct openpgp *pgp);

bool openpgp_encrypts(const struct openpgp *pgp);

/* When the first of the recipients' keys can no longer be encrypted to, in seconds since 1970 (it
 * may have passed, with allow_expired); 0: never. As known at the last look, a day ago at most
 * while objects are written. */
int64_t openpgp_expires_s(const struct openpgp *pgp);

/* True when the N bytes (N >= 1) can be the start of a binary OpenPGP message that is encrypted. */
bool openpgp_is_message(const void *data, size_t n);

/* Can what is encrypted here be decrypted here? A few bytes, there and back; outside the places.
 * Errors as of openpgp_encrypt and openpgp_decrypt. Blocks. */
bool openpgp_trial(struct openpgp *pgp, const struct call *call, struct err *err);

enum openpgp_priority { OPENPGP_BACKGROUND, OPENPGP_FOREGROUND };

/* A place among the max_processes. Reserve one before an operation, release it after it. Foreground
 * requests are served first. try: does not wait (false, no error), and leaves half of the places to
 * the others, since who tries may keep its place for as long as somebody writes. */
bool openpgp_reserve(struct openpgp *pgp, enum openpgp_priority priority, const struct call *call,
                     struct err *err);
bool openpgp_try_reserve(struct openpgp *pgp);
void openpgp_release(struct openpgp *pgp);

/* Encrypts PLAIN to the recipients (always-trust, no compression) into OUT, in the calling thread,
 * which needs a reserved place. PLAIN may block as long as it likes (a writer that is slow): that
 * time does not count as a stall. Neither closes nor finishes either stream. gpg is started at
 * once, before the first byte is there. */
bool openpgp_encrypt(struct openpgp *pgp, struct source *plain, struct sink *out,
                     const struct call *call, struct err *err);

/* Decrypts one message. Bytes pushed into OUT are not verified before this returns true. ERR_KEY:
 * no secret key (the key ids that would do are named), locked, agent unreachable. ERR_CORRUPT:
 * broken, truncated or without integrity protection (MDC or AEAD). ERR_NO_MEMORY: gpg-agent is out
 * of secure memory. ERR_LOCAL: gpg was killed. Neither closes nor finishes either stream. Needs a
 * reserved place. */
bool openpgp_decrypt(struct openpgp *pgp, struct source *in, struct sink *out,
                     const struct call *call, struct err *err);

#endif
