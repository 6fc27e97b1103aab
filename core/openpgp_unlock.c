/* Moving the secret keys that the passphrase opens into the private home: exported and imported
 * under the same passphrase, in loopback mode, through memory; then one decryption each, which
 * makes gpg-agent convert the key to its own format with the cheap key derivation. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/openpgp_internal.h"

#define KEY_NAME_MAX 200

static const struct call endless = CALL_INIT;

/* Whether at least one subkey decrypts; true as well if none can be tried because all have expired:
 * messages from before that are still to be read, and the export has verified the passphrase. */
static bool try_subkeys(const struct gpg_run_options *options, gpgme_key_t key, struct err *err)
{
    unsigned tried = 0, worked = 0;
    struct err why = ERR_INIT;
    for (gpgme_subkey_t sub = key->subkeys; sub != NULL; sub = sub->next) {
        char recipient[128];
        if (!gpg_subkey_usable(sub) || key->expired || key->revoked || key->disabled)
            continue;
        (void)snprintf(recipient, sizeof(recipient), "--\n%s!", sub->fpr);
        struct err e = ERR_INIT;
        tried++;
        if (gpg_trial(options, recipient, options, &e))
            worked++;
        else if (why.code == ERR_NONE)
            why = e;
    }
    if (tried == 0 || worked > 0)
        return true;
    *err = why;
    return err_context(err, "trying to decrypt");
}

static bool take_key(const struct openpgp *pgp, gpgme_key_t key, struct err *err)
{
    struct gpg_exported exported;
    if (!gpg_exported_init(&exported, err))
        return false;
    char name[KEY_NAME_MAX], whose[KEY_NAME_MAX + 8];
    gpg_key_name(key, name, sizeof(name));
    (void)snprintf(whose, sizeof(whose), "key %s", name);
    struct gpg_run_options theirs = openpgp_run_options(pgp, &endless), private = theirs;
    theirs.passphrase = &pgp->passphrase;
    private.passphrase = &pgp->passphrase;
    private.home = gpg_home_path(pgp->unlocked);
    unsigned agent_error = 0;
    /* not GPGME_EXPORT_MODE_MINIMAL: that leaves expired subkeys out, and old objects need them */
    bool ok = gpg_export_key(&theirs, key->subkeys->fpr, GPGME_EXPORT_MODE_SECRET, &exported,
                             &agent_error, err);
    if (ok && exported.len == 0)
        ok = gpg_judge_agent(agent_error, whose, err);
    else if (ok)
        ok = gpg_import_key(&private, &exported, err) && try_subkeys(&private, key, err);
    if (!ok && exported.len > 0 && agent_error != 0)
        gpg_judge_agent(agent_error, whose, err);
    gpg_exported_free(&exported);
    return ok;
}

static bool is_recipient(const struct openpgp *pgp, gpgme_key_t key)
{
    for (size_t i = 0; i < pgp->recipient_count; i++) {
        if (strcmp(pgp->recipients[i].fpr, key->subkeys->fpr) == 0)
            return true;
    }
    return false;
}

/* A recipient's key must open: what is written now has to be readable later. Others may be
 * somebody else's. */
static bool take_keys(const struct openpgp *pgp, const gpgme_key_t *keys, size_t count,
                      struct err *err)
{
    size_t taken = 0;
    struct err first = ERR_INIT;
    for (size_t i = 0; i < count; i++) {
        struct err e = ERR_INIT;
        if (take_key(pgp, keys[i], &e)) {
            taken++;
            continue;
        }
        if (is_recipient(pgp, keys[i])) {
            *err = e;
            return false;
        }
        if (first.code == ERR_NONE)
            first = e;
        log_info("a secret key stays unused: %s", e.text);
    }
    if (taken > 0)
        return true;
    *err = first;
    return false;
}

bool openpgp_unlock(struct openpgp *pgp, struct err *err)
{
    struct gpg_run run;
    struct gpg_run_options options = openpgp_run_options(pgp, &endless);
    bool ok = gpg_run_begin(&run, &options, err) && gpg_list_keys(&run, NULL, true, err);
    if (ok && run.key_count == 0)
        ok = err_set(err, ERR_KEY,
                     "passphrase_file is set, but there is no secret key%s%s; import it (gpg%s%s "
                     "--import FILE) or leave passphrase_file out",
                     pgp->home == NULL ? "" : " in ", pgp->home == NULL ? "" : pgp->home,
                     pgp->home == NULL ? "" : " --homedir ", pgp->home == NULL ? "" : pgp->home);
    if (ok) {
        pgp->unlocked = gpg_home_new("", err);
        ok = pgp->unlocked != NULL && take_keys(pgp, run.keys, run.key_count, err);
    }
    gpg_run_end(&run);
    return ok;
}
