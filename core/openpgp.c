#include "core/openpgp.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/openpgp_internal.h"

static const struct call endless = CALL_INIT;

/* gpgme wants this once per process, before anything else and in one thread. It also makes the
 * process ignore SIGPIPE unless that is handled. */
static void init_gpgme(void)
{
    (void)gpgme_check_version(NULL);
    (void)gpgme_set_locale(NULL, LC_CTYPE, setlocale(LC_CTYPE, NULL));
    (void)gpgme_set_locale(NULL, LC_MESSAGES, setlocale(LC_MESSAGES, NULL));
}

struct gpg_run_options openpgp_run_options(const struct openpgp *pgp, const struct call *call)
{
    return (struct gpg_run_options){.home = pgp->home,
                                    .import_home = pgp->home,
                                    .stall_timeout_ms = pgp->stall_timeout_ms,
                                    .call = call};
}

static bool copy_options(struct openpgp *pgp, const struct openpgp_options *options,
                         struct err *err)
{
    pgp->stall_timeout_ms = options->stall_timeout_ms;
    pgp->allow_expired = options->allow_expired && options->writable;
    pgp->expires_s = INT64_MAX;
    pgp->expiry_looked_s = time(NULL);
    if (options->home != NULL) {
        /* absolute, since a daemon changes its directory */
        pgp->home = realpath(options->home, NULL);
        if (pgp->home == NULL)
            return err_sys(err, errno, "cannot use gpg home %s", options->home);
    }
    return !secret_is_set(options->passphrase) ||
           secret_set(&pgp->passphrase, options->passphrase->value, options->passphrase->len, err);
}

static bool check_engine(struct err *err)
{
    gpgme_error_t rc = gpgme_engine_check_version(GPGME_PROTOCOL_OpenPGP);
    if (rc == 0)
        return true;
    return err_set(err, ERR_KEY, "gpg is not installed or cannot be run (%s); install gnupg",
                   gpgme_strerror(rc));
}

static bool preflight(struct openpgp *pgp, const struct openpgp_options *options, struct err *err)
{
    if (options->recipient_count == 0 && !secret_is_set(options->passphrase))
        return true;
    if (!check_engine(err))
        return false;
    if (options->recipient_count > 0) {
        if (!openpgp_find_recipients(pgp, options->recipients, options->recipient_count,
                                     options->writable, err))
            return false;
        if (options->writable && !openpgp_make_earlier(pgp, err))
            return false;
        struct gpg_run_options run = openpgp_run_options(pgp, &endless);
        if (pgp->earlier != NULL)
            run.home = gpg_home_path(pgp->earlier);
        if (options->writable && !gpg_trial(&run, pgp->recipient_args, NULL, err))
            return err_context(err, "trying to encrypt");
    }
    return !secret_is_set(options->passphrase) || openpgp_unlock(pgp, err);
}

struct openpgp *openpgp_new(const struct openpgp_options *options, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_gpgme);
    struct openpgp *pgp = calloc(1, sizeof(*pgp));
    if (pgp == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    gpg_contexts_init(&pgp->encrypting);
    gpg_contexts_init(&pgp->decrypting);
    slots_init(&pgp->slots, options->max_processes > 0 ? options->max_processes : 1);
    if (!copy_options(pgp, options, err) || !preflight(pgp, options, err)) {
        openpgp_free(pgp);
        return NULL;
    }
    return pgp;
}

void openpgp_free(struct openpgp *pgp)
{
    if (pgp == NULL)
        return;
    gpg_contexts_destroy(&pgp->encrypting);
    gpg_contexts_destroy(&pgp->decrypting);
    gpg_home_free(pgp->unlocked);
    gpg_home_free(pgp->earlier);
    secret_free(&pgp->passphrase);
    for (size_t i = 0; i < pgp->recipient_count; i++) {
        free(pgp->recipients[i].fpr);
        free(pgp->recipients[i].exact);
    }
    free(pgp->recipients);
    free(pgp->recipient_args);
    free(pgp->home);
    slots_destroy(&pgp->slots);
    free(pgp);
}

bool openpgp_encrypts(const struct openpgp *pgp)
{
    return pgp->recipient_args != NULL;
}

/* RFC 4880, sections 4.2 and 4.3. What an encrypted message may begin with: a session key packet
 * (tags 1 and 3), the encrypted data itself (9, 18, 20), or a marker (10). An old-format header
 * has only four bits for the tag, so 18 and 20 exist in the new format alone. */
bool openpgp_is_message(const void *data, size_t n)
{
    if (n == 0)
        return false;
    unsigned c = *(const unsigned char *)data;
    if ((c & 0x80) == 0)
        return false;
    unsigned tag = (c & 0x40) != 0 ? c & 0x3f : (c >> 2) & 0x0f;
    return tag == 1 || tag == 3 || tag == 9 || tag == 10 || tag == 18 || tag == 20;
}
