/* What the parts of openpgp_*.c share. Nobody else includes this.
 *
 *   openpgp.c         the object, its life and preflight
 *   openpgp_slots.c   the places among max_processes
 *   openpgp_run.c     one gpg operation: gpgme context, event loop, time-outs, cancel
 *   openpgp_stream.c  the bytes between the caller's streams and gpg's pipes
 *   openpgp_proc.c    ending gpg processes that do not end by themselves
 *   openpgp_status.c  gpg's status lines, and the struct err that follows from them
 *   openpgp_crypt.c   encrypt and decrypt
 *   openpgp_keys.c    keys: listing, choosing and checking the recipients
 *   openpgp_expiry.c  keys that expire, and going on with those that have
 *   openpgp_home.c    the private gpg homes on tmpfs
 *   openpgp_move.c    a key out of one home and into another
 *   openpgp_unlock.c  secret keys in a home in which using them is cheap */
#ifndef WALEFS_CORE_OPENPGP_INTERNAL_H
#define WALEFS_CORE_OPENPGP_INTERNAL_H

#include <gpgme.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/buf.h"
#include "core/call.h"
#include "core/openpgp.h"
#include "core/openpgp_frames.h"
#include "core/secret.h"
#include "core/stream.h"

/* ---- places (openpgp_slots.c) ---- */

struct slot_waiter;

struct slot_queue {
    struct slot_waiter *first, **tail;
};

struct slots {
    pthread_mutex_t lock;
    unsigned free;               /* lock */
    unsigned kept;               /* that try_reserve leaves; constant */
    struct slot_queue queues[2]; /* lock; by enum openpgp_priority */
};

void slots_init(struct slots *s, unsigned count);
void slots_destroy(struct slots *s);

/* ---- status lines (openpgp_status.c) ---- */

#define GPG_KEY_IDS_MAX 8

/* What gpg reported, as doc/DETAILS of GnuPG describes the lines. Zero-initialise. */
struct gpg_status {
    bool any; /* a status line came at all */
    bool end_encryption;
    bool decryption_okay, end_decryption, good_mdc, decryption_failed;
    bool unlocked; /* DECRYPTION_INFO: gpg had the session key and went on to the data */
    bool
        unprotected; /* DECRYPTION_INFO said: neither MDC nor AEAD (gpg 2.2 says so of AEAD, too) */
    bool no_data;    /* NODATA, UNEXPECTED, BADMDC: what came is not what it should be */
    bool no_secret_key;           /* NO_SECKEY */
    bool symmetric;               /* NEED_PASSPHRASE_SYM */
    bool bad_symmetric;           /* a passphrase was tried that does not fit */
    bool input_ended;             /* set by the caller: gpg was given all of its input, */
    uint64_t input_bytes;         /* so much of it */
    struct openpgp_frames frames; /* likewise: of its packets */
    unsigned agent_error;     /* gpg error code that came with using or exporting a secret key */
    unsigned other_error;     /* of ERROR and FAILURE lines for anything else */
    unsigned recipient_error; /* INV_RECP's reason */
    char recipient[160];      /* INV_RECP's name */
    size_t key_id_count;
    char key_ids[GPG_KEY_IDS_MAX][17]; /* ENC_TO */
};

struct gpg_run_options;

void gpg_status_line(struct gpg_status *st, const char *keyword, const char *args);

/* The verdict on an encryption or decryption that ran to its end: true, or why not. RESULT is
 * gpgme's, LOG what gpg said, OPTIONS what it was run with. */
bool gpg_judge_encrypt(const struct gpg_status *st, gpgme_error_t result, const char *log,
                       struct err *err);
bool gpg_judge_decrypt(const struct gpg_status *st, gpgme_error_t result, const char *log,
                       const struct gpg_run_options *options, struct err *err);

/* ERR_KEY, or ERR_NO_MEMORY when the agent ran out of secure memory: why a secret key could not be
 * used. WHOSE names the key. Returns false. */
bool gpg_judge_agent(unsigned agent_error, const char *whose, struct err *err);

/* Puts the last thing that gpg said behind the text, made fit for one line. Returns false. */
bool gpg_add_log(struct err *err, const char *log);

/* ---- one operation (openpgp_run.c) ---- */

#define GPG_RUN_FDS 16

struct gpg_stream;

/* A pipe to or from gpg, as gpgme registers it. */
struct gpg_fd {
    int fd;  /* -1: unused */
    int dir; /* 1: to be read */
    gpgme_io_cb_t fnc;
    void *fnc_data;
    struct gpg_stream *stream; /* whose bytes it carries; NULL: not known, or gpgme's own */
};

/* A gpgme context with the event loop that moves its bytes, used by one thread. Not movable. */
struct gpg_run {
    gpgme_ctx_t ctx;
    struct gpg_contexts *contexts;   /* where it goes if all went well; may be NULL */
    const struct secret *passphrase; /* NULL: gpg-agent's business */
    uint32_t stall_timeout_ms;
    const struct call *call;
    struct gpg_fd fds[GPG_RUN_FDS];
    struct gpg_fd *dispatched; /* whose turn it is in the loop */
    int wake_fd;               /* eventfd: the cancel fired */
    int alive_fd;              /* read end of gpg's status pipe: hung up once gpg is gone */
    bool done;
    gpgme_error_t result;
    bool stream_failed; /* stream_err came from the caller's source or sink */
    struct err stream_err;
    struct gpg_status status;
    gpgme_key_t *keys; /* what a key listing found */
    size_t key_count;
};

/* Contexts of one home that are not in use. gpgme asks `gpg --version` for every context that has a
 * home of its own, which costs as much as starting gpg for the work. */
struct gpg_contexts {
    pthread_mutex_t lock;
    gpgme_ctx_t spare[8]; /* lock */
    size_t count;         /* lock */
};

void gpg_contexts_init(struct gpg_contexts *c);
void gpg_contexts_destroy(struct gpg_contexts *c);

struct gpg_run_options {
    struct gpg_contexts *contexts;   /* to take the context from; NULL: a new one */
    const char *home;                /* NULL: gpg's own choice */
    const char *import_home;         /* where a missing key would have to be imported; NULL: same */
    const struct secret *passphrase; /* NULL: not in loopback mode */
    uint32_t stall_timeout_ms;       /* 0: none */
    const struct call *call;
};

/* Prepares a context. gpg_run_end must follow, whatever this returns. */
bool gpg_run_begin(struct gpg_run *run, const struct gpg_run_options *options, struct err *err);

/* Carries the operation whose gpgme_op_*_start gave START to its end. True: gpg ran to its end, and
 * run->result and run->status tell how. False: it could not be started, the caller's stream
 * failed (with the stream's own error), cancelled, timed out. gpgme data objects may be released
 * after this. */
bool gpg_run_wait(struct gpg_run *run, gpgme_error_t start, const char *what, struct err *err);

/* What gpg said on its log, into OUT. Never fails: at worst nothing is appended. */
void gpg_run_log(struct gpg_run *run, struct buf *out);

/* Releases all; kills a gpg that is still there. */
void gpg_run_end(struct gpg_run *run);

/* ---- its bytes (openpgp_stream.c) ---- */

/* A stream that gpg reads or writes. Initialise the first three, two of them not NULL. */
struct gpg_stream {
    struct gpg_run *run;
    struct source *source; /* where gpg's input comes from, */
    struct sink *sink;     /* or its output goes */
    char *buf;
    size_t at, len; /* buf: what gpg is to get next */
    bool ended;     /* gpg gets no more */
    bool asked;     /* gpgme asked for more */
};

/* S as a gpgme data object; the stream's error is kept in the run. S has to live, unmoved, until
 * gpgme_data_release. */
bool gpg_stream_data(struct gpg_stream *s, gpgme_data_t *data, struct err *err);

/* PIPE, which is S's, is ready: moves some bytes. */
void gpg_stream_move(struct gpg_stream *s, const struct gpg_fd *pipe);

/* ---- processes (openpgp_proc.c) ---- */

/* Signals the processes of this user that hold the write end of pipe PIPE_INO and run another
 * program than this one. */
void gpg_signal_writers(ino_t pipe_ino, int sig);

/* Ends the processes of this user that have HOME among their arguments (gpg-agent and gpg are
 * started with --homedir HOME). Blocks until they are gone, some seconds at most. */
void gpg_end_users_of(const char *home);

/* ---- private homes (openpgp_home.c) ---- */

struct gpg_home;

/* Makes one, with MORE_CONF behind the usual lines of its gpg.conf, and removes those that dead
 * processes of this user left. */
struct gpg_home *gpg_home_new(const char *more_conf, struct err *err);
const char *gpg_home_path(const struct gpg_home *home);

/* Ends its agent and removes it. NULL is allowed. */
void gpg_home_free(struct gpg_home *home);

/* ---- moving keys (openpgp_move.c) ---- */

/* An exported key. Never moved in memory, so that no copy of it is left behind by realloc. */
struct gpg_exported {
    struct sink base;
    char *data;
    size_t len;
};

bool gpg_exported_init(struct gpg_exported *e, struct err *err);
void gpg_exported_free(struct gpg_exported *e); /* wipes */

/* OUT may stay empty: *AGENT_ERROR then tells why. It is set as well when only a part of a secret
 * key could be exported (subkeys with another passphrase, or on a card). */
bool gpg_export_key(const struct gpg_run_options *options, const char *fpr,
                    gpgme_export_mode_t mode, struct gpg_exported *out, unsigned *agent_error,
                    struct err *err);
bool gpg_import_key(const struct gpg_run_options *options, const struct gpg_exported *key,
                    struct err *err);

/* ---- the object ---- */

struct recipient {
    char *fpr;   /* of the primary key */
    char *exact; /* of the one subkey that was asked for with "ID!"; NULL: gpg chooses */
};

struct openpgp {
    /* all but the places and what is atomic is constant after openpgp_new */
    char *home;                   /* NULL: gpg's own choice */
    char *recipient_args;         /* for gpgme_op_encrypt_ext; NULL: nothing is encrypted */
    struct recipient *recipients; /* those that were found */
    size_t recipient_count;
    bool allow_expired;
    _Atomic int64_t expires_s;       /* the first recipient's; INT64_MAX: none does */
    _Atomic int64_t expiry_looked_s; /* when that was looked up; real time */
    struct secret passphrase;
    struct gpg_home *unlocked; /* home with the unlocked keys; NULL: no passphrase was given */
    struct gpg_home *earlier;  /* home in which no recipient has expired; NULL: the usual one */
    uint32_t stall_timeout_ms;
    struct gpg_contexts encrypting, decrypting;
    struct slots slots;
};

/* Options for a run in the configured home, without a passphrase. */
struct gpg_run_options openpgp_run_options(const struct openpgp *pgp, const struct call *call);

/* ---- keys (openpgp_keys.c) ---- */

/* Lists keys that fit PATTERN (NULL: all) into run->keys. */
bool gpg_list_keys(struct gpg_run *run, const char *pattern, bool secret_only, struct err *err);

/* Whether this subkey can be encrypted to now. */
bool gpg_subkey_usable(gpgme_subkey_t sub);

/* Until when KEY, or only its subkey EXACT (NULL: any), can be encrypted to, in seconds since 1970:
 * INT64_MAX for ever, 0 never, whatever the time. */
int64_t gpg_key_expires(gpgme_key_t key, const char *exact);

/* "FINGERPRINT (user id)", made fit for a message. */
void gpg_key_name(gpgme_key_t key, char *out, size_t cap);

/* "gpg --homedir HOME", for advice. */
void gpg_command(const struct openpgp *pgp, char *out, size_t cap);

/* Fills pgp->recipient_args, pgp->recipients and pgp->expires_s; with MUST_WORK an unusable one is
 * ERR_KEY, but for an expired one with allow_expired. */
bool openpgp_find_recipients(struct openpgp *pgp, const char *const *names, size_t count,
                             bool must_work, struct err *err);

/* ---- expiry (openpgp_expiry.c) ---- */

/* A recipient's key was looked up: when it expires, as gpg_key_expires; warns from 30 days before
 * on. */
int64_t openpgp_note_expiry(const struct openpgp *pgp, gpgme_key_t key, const char *exact);

/* Once a day looks the recipients up again, since a key may have been extended, and warns. */
void openpgp_watch_expiry(struct openpgp *pgp, const struct call *call);

/* gpg does not encrypt to an expired key, and has no option for it. So with allow_expired and a key
 * that has an end, makes pgp->earlier: a home with copies of the recipients' public keys, in which
 * gpg's clock stands still before that end. That time shows in nothing but the message's literal
 * packet, which nobody looks at. */
bool openpgp_make_earlier(struct openpgp *pgp, struct err *err);

/* ---- encrypt and decrypt (openpgp_crypt.c) ---- */

/* As the public functions, in a home and to recipients of choice. */
bool gpg_encrypt(const struct gpg_run_options *options, const char *recipients,
                 struct source *plain, struct sink *out, struct err *err);
bool gpg_decrypt(const struct gpg_run_options *options, struct source *in, struct sink *out,
                 struct err *err);

/* Encrypts a few bytes to RECIPIENTS and decrypts them (DECRYPTING NULL: does not). */
bool gpg_trial(const struct gpg_run_options *encrypting, const char *recipients,
               const struct gpg_run_options *decrypting, struct err *err);

/* ---- unlocking (openpgp_unlock.c) ---- */

/* Makes pgp->unlocked with all secret keys that pgp->passphrase opens. */
bool openpgp_unlock(struct openpgp *pgp, struct err *err);

#endif
