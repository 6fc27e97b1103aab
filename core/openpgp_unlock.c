/* Moving the secret keys that the passphrase opens into the private home: exported and imported
 * under the same passphrase, in loopback mode, through memory; then one decryption each, which
 * makes gpg-agent convert the key to its own format with the cheap key derivation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/openpgp_internal.h"

#define EXPORT_MAX_BYTES (8 * 1024 * 1024)
#define LOG_MAX_BYTES (16 * 1024)
#define KEY_NAME_MAX 200

static const struct call endless = CALL_INIT;

/* An exported key. Never moved, so that no copy of it is left behind by realloc. */
struct export
{
    struct sink base;
    char *data;
    size_t len;
};

static bool export_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct export *e = (struct export *)self;
    if (n > EXPORT_MAX_BYTES - e->len)
        return err_set(err, ERR_KEY, "the secret key is larger than %d bytes", EXPORT_MAX_BYTES);
    memcpy(e->data + e->len, data, n);
    e->len += n;
    return true;
}

/* OUT may stay empty: *AGENT_ERROR then tells why. It is set as well when only a part of the key
 * could be exported (subkeys with another passphrase, or on a card). */
static bool export_key(const struct openpgp *pgp, const char *fpr, struct export *out,
                       unsigned *agent_error, struct err *err)
{
    struct gpg_run run;
    struct gpg_run_options options = openpgp_run_options(pgp, &endless);
    options.passphrase = &pgp->passphrase;
    struct gpg_stream to = {.run = &run, .sink = &out->base};
    gpgme_data_t data = NULL;
    bool ok = gpg_run_begin(&run, &options, err) && gpg_stream_data(&to, &data, err);
    if (ok) {
        /* not GPGME_EXPORT_MODE_MINIMAL: that leaves expired subkeys out, and old objects need them
         */
        gpgme_error_t start = gpgme_op_export_start(run.ctx, fpr, GPGME_EXPORT_MODE_SECRET, data);
        ok = gpg_run_wait(&run, start, "exporting a secret key", err);
    }
    if (ok) {
        *agent_error = run.status.agent_error;
        if (out->len == 0 && *agent_error == 0)
            *agent_error = run.result != 0 ? gpgme_err_code(run.result) : GPG_ERR_NO_SECKEY;
    }
    gpgme_data_release(data);
    gpg_run_end(&run);
    return ok;
}

static bool import_key(const struct gpg_run_options *options, const struct export *key,
                       struct err *err)
{
    struct gpg_run run;
    struct source *src = source_mem(key->data, key->len, err);
    struct gpg_stream from = {.run = &run, .source = src};
    gpgme_data_t data = NULL;
    if (src == NULL)
        return false;
    bool ok = gpg_run_begin(&run, options, err) && gpg_stream_data(&from, &data, err) &&
              gpg_run_wait(&run, gpgme_op_import_start(run.ctx, data),
                           "importing a secret key into the private home", err);
    if (ok) {
        const struct _gpgme_op_import_result *result = gpgme_op_import_result(run.ctx);
        if (run.result != 0 || result == NULL ||
            result->secret_imported + result->secret_unchanged == 0) {
            struct buf log = BUF_INIT(LOG_MAX_BYTES);
            gpg_run_log(&run, &log);
            err_set(err, ERR_KEY, "cannot import a secret key into the private home");
            ok = gpg_add_log(err, buf_str(&log));
            buf_free(&log);
        }
    }
    gpgme_data_release(data);
    gpg_run_end(&run);
    source_close(src);
    return ok;
}

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
        if (gpg_trial(options, recipient, true, &e))
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
    struct export exported = {.base = {.write = export_write}};
    exported.data = malloc(EXPORT_MAX_BYTES);
    if (exported.data == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    char name[KEY_NAME_MAX], whose[KEY_NAME_MAX + 8];
    gpg_key_name(key, name, sizeof(name));
    (void)snprintf(whose, sizeof(whose), "key %s", name);
    struct gpg_run_options private = openpgp_run_options(pgp, &endless);
    private.home = gpg_home_path(pgp->unlocked);
    private.passphrase = &pgp->passphrase;
    unsigned agent_error = 0;
    bool ok = export_key(pgp, key->subkeys->fpr, &exported, &agent_error, err);
    if (ok && exported.len == 0)
        ok = gpg_judge_agent(agent_error, whose, err);
    else if (ok)
        ok = import_key(&private, &exported, err) && try_subkeys(&private, key, err);
    if (!ok && exported.len > 0 && agent_error != 0)
        gpg_judge_agent(agent_error, whose, err);
    explicit_bzero(exported.data, exported.len);
    free(exported.data);
    return ok;
}

static bool is_recipient(const struct openpgp *pgp, gpgme_key_t key)
{
    for (size_t i = 0; i < pgp->recipient_count; i++) {
        if (strcmp(pgp->recipient_fprs[i], key->subkeys->fpr) == 0)
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
        pgp->unlocked = gpg_home_new(err);
        ok = pgp->unlocked != NULL && take_keys(pgp, run.keys, run.key_count, err);
    }
    gpg_run_end(&run);
    return ok;
}
