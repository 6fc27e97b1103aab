/* Keys: listing, and choosing the recipients' before the first object is encrypted, so that an
 * expired or missing key is found at mount and not by the first archive_command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/openpgp_internal.h"

#define RECIPIENTS_MAX_BYTES (64 * 1024)
#define KEY_NAME_MAX 200

static const struct call endless = CALL_INIT;

bool gpg_list_keys(struct gpg_run *run, const char *pattern, bool secret_only, struct err *err)
{
    (void)gpgme_set_keylist_mode(run->ctx, GPGME_KEYLIST_MODE_LOCAL);
    gpgme_error_t start = gpgme_op_keylist_start(run->ctx, pattern, secret_only);
    if (!gpg_run_wait(run, start, "listing keys", err))
        return false;
    unsigned code = gpgme_err_code(run->result);
    if (code == GPG_ERR_ENOMEM)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (code == 0 || code == GPG_ERR_NO_PUBKEY || code == GPG_ERR_NO_SECKEY ||
        code == GPG_ERR_EOF || code == GPG_ERR_NOT_FOUND)
        return true;
    return err_set(err, ERR_KEY, "cannot list keys: %s", gpgme_strerror(run->result));
}

bool gpg_subkey_usable(gpgme_subkey_t sub)
{
    return sub->can_encrypt && !sub->revoked && !sub->expired && !sub->disabled && !sub->invalid;
}

static bool key_usable(gpgme_key_t key)
{
    if (key->revoked || key->expired || key->disabled || key->invalid)
        return false;
    for (gpgme_subkey_t sub = key->subkeys; sub != NULL; sub = sub->next) {
        if (gpg_subkey_usable(sub))
            return true;
    }
    return false;
}

static int64_t subkey_expires(const struct _gpgme_subkey *sub)
{
    return sub->expires > 0 ? sub->expires : INT64_MAX;
}

int64_t gpg_key_expires(gpgme_key_t key, const char *exact)
{
    int64_t last = 0;
    if (key == NULL || key->revoked || key->disabled || key->invalid)
        return 0;
    for (gpgme_subkey_t sub = key->subkeys; sub != NULL; sub = sub->next) {
        if (!sub->can_encrypt || sub->revoked || sub->disabled || sub->invalid ||
            (exact != NULL && strcmp(exact, sub->fpr) != 0))
            continue;
        if (subkey_expires(sub) > last)
            last = subkey_expires(sub);
    }
    return last < subkey_expires(key->subkeys) ? last : subkey_expires(key->subkeys);
}

void gpg_key_name(gpgme_key_t key, char *out, size_t cap)
{
    const char *fpr = key->subkeys == NULL ? NULL : key->subkeys->fpr;
    const char *uid = key->uids == NULL ? NULL : key->uids->uid;
    (void)snprintf(out, cap, "%s (%s)", fpr == NULL ? "?" : fpr, uid == NULL ? "no user id" : uid);
    for (; *out != '\0'; out++) {
        if ((unsigned char)*out < 0x20 || *out == 0x7f)
            *out = '?';
    }
}

void gpg_command(const struct openpgp *pgp, char *out, size_t cap)
{
    (void)snprintf(out, cap, "gpg%s%s", pgp->home == NULL ? "" : " --homedir ",
                   pgp->home == NULL ? "" : pgp->home);
}

static void expiry_text(const struct _gpgme_subkey *sub, char *out, size_t cap)
{
    time_t when = (time_t)sub->expires;
    struct tm tm;
    if (sub->expires <= 0 || gmtime_r(&when, &tm) == NULL ||
        strftime(out, cap, " on %Y-%m-%d", &tm) == 0)
        out[0] = '\0';
}

/* Why KEY cannot be encrypted to, and what to do. */
static bool unusable(const struct openpgp *pgp, const char *wanted, gpgme_key_t key,
                     struct err *err)
{
    char name[KEY_NAME_MAX], gpg[160], when[32];
    gpg_key_name(key, name, sizeof(name));
    gpg_command(pgp, gpg, sizeof(gpg));
    const char *fpr = key->subkeys->fpr;
    if (key->revoked)
        return err_set(err, ERR_KEY,
                       "cannot encrypt to '%s': key %s is revoked; configure another key", wanted,
                       name);
    if (key->expired) {
        expiry_text(key->subkeys, when, sizeof(when));
        return err_set(err, ERR_KEY,
                       "cannot encrypt to '%s': key %s expired%s; extend it (%s --quick-set-expire "
                       "%s 2y), configure another key, or go on all the same (-o allow_expired)",
                       wanted, name, when, gpg, fpr);
    }
    if (key->disabled)
        return err_set(err, ERR_KEY,
                       "cannot encrypt to '%s': key %s is disabled; enable it (%s --edit-key %s "
                       "enable) or configure another key",
                       wanted, name, gpg, fpr);
    for (gpgme_subkey_t sub = key->subkeys; sub != NULL; sub = sub->next) {
        if (!sub->can_encrypt || sub->revoked || !sub->expired)
            continue;
        expiry_text(sub, when, sizeof(when));
        return err_set(err, ERR_KEY,
                       "cannot encrypt to '%s': the encryption subkey of key %s expired%s; extend "
                       "it (%s --quick-set-expire %s 2y '*'), configure another key, or go on all "
                       "the same (-o allow_expired)",
                       wanted, name, when, gpg, fpr);
    }
    return err_set(err, ERR_KEY,
                   "cannot encrypt to '%s': key %s has no usable encryption subkey; add one (%s "
                   "--quick-add-key %s) or configure another key",
                   wanted, name, gpg, fpr);
}

static bool unknown(const struct openpgp *pgp, const char *wanted, struct err *err)
{
    char gpg[160];
    gpg_command(pgp, gpg, sizeof(gpg));
    return err_set(
        err, ERR_KEY,
        "cannot encrypt to '%s': there is no such public key%s%s; import it (%s --import "
        "FILE)",
        wanted, pgp->home == NULL ? "" : " in ", pgp->home == NULL ? "" : pgp->home, gpg);
}

static bool ambiguous(const char *wanted, gpgme_key_t a, gpgme_key_t b, struct err *err)
{
    char name_a[KEY_NAME_MAX], name_b[KEY_NAME_MAX];
    gpg_key_name(a, name_a, sizeof(name_a));
    gpg_key_name(b, name_b, sizeof(name_b));
    return err_set(err, ERR_KEY,
                   "cannot encrypt to '%s': several keys fit, among them %s and %s; give the "
                   "fingerprint of the one that is meant",
                   wanted, name_a, name_b);
}

/* The one key among those found that fits: NULL with ERR unset when none does. */
static gpgme_key_t only_one(const struct gpg_run *run, bool expired_too, const char *wanted,
                            struct err *err)
{
    gpgme_key_t found = NULL;
    for (size_t i = 0; i < run->key_count; i++) {
        if (!key_usable(run->keys[i]) && (!expired_too || gpg_key_expires(run->keys[i], NULL) == 0))
            continue;
        if (found != NULL && strcmp(found->subkeys->fpr, run->keys[i]->subkeys->fpr) != 0) {
            ambiguous(wanted, found, run->keys[i], err);
            return NULL;
        }
        found = run->keys[i];
    }
    return found;
}

/* The key that WANTED names. gpg itself would take the first or the best of several, which one
 * depends on its version: better to ask. */
static gpgme_key_t choose(const struct openpgp *pgp, const struct gpg_run *run, const char *wanted,
                          struct err *err)
{
    gpgme_key_t found = only_one(run, false, wanted, err);
    if (found == NULL && err->code == ERR_NONE && pgp->allow_expired)
        found = only_one(run, true, wanted, err);
    if (found == NULL && err->code == ERR_NONE) {
        if (run->key_count == 0 || run->keys[0] == NULL)
            unknown(pgp, wanted, err);
        else
            unusable(pgp, wanted, run->keys[0], err);
    }
    return found;
}

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return m <= n && strcasecmp(s + n - m, end) == 0;
}

/* "KEYID!" means exactly this subkey; else gpg chooses among the key's subkeys each time. *EXACT is
 * borrowed from KEY. */
static bool find_exact(const struct openpgp *pgp, const char *wanted, gpgme_key_t key,
                       const char **exact, struct err *err)
{
    size_t n = strlen(wanted);
    char id[128];
    *exact = NULL;
    if (n < 2 || wanted[n - 1] != '!')
        return true;
    (void)snprintf(id, sizeof(id), "%.*s", (int)(n - 1),
                   strncasecmp(wanted, "0x", 2) == 0 ? wanted + 2 : wanted);
    id[strcspn(id, "!")] = '\0';
    for (gpgme_subkey_t sub = key->subkeys; sub != NULL; sub = sub->next) {
        if (sub->fpr == NULL || !ends_in(sub->fpr, id))
            continue;
        if (!gpg_subkey_usable(sub) && !(pgp->allow_expired && gpg_key_expires(key, sub->fpr) > 0))
            return err_set(err, ERR_KEY,
                           "cannot encrypt to '%s': this very key cannot encrypt, has expired "
                           "or is revoked",
                           wanted);
        *exact = sub->fpr;
    }
    return true;
}

static bool add_recipient(struct openpgp *pgp, const char *wanted, gpgme_key_t key,
                          struct buf *list, struct err *err)
{
    const char *exact;
    if (!find_exact(pgp, wanted, key, &exact, err))
        return false;
    if (!buf_printf(list, "\n%s%s", exact != NULL ? exact : key->subkeys->fpr,
                    exact != NULL ? "!" : ""))
        return err_set(err, ERR_INVALID, "too many keys to encrypt to");
    struct recipient *r = &pgp->recipients[pgp->recipient_count++]; /* freed with pgp */
    r->fpr = strdup(key->subkeys->fpr);
    r->exact = exact == NULL ? NULL : strdup(exact);
    if (r->fpr == NULL || (exact != NULL && r->exact == NULL))
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    int64_t expires_s = openpgp_note_expiry(pgp, key, exact);
    if (expires_s < pgp->expires_s)
        pgp->expires_s = expires_s;
    return true;
}

static bool find_one(struct openpgp *pgp, const char *wanted, bool must_work, struct buf *list,
                     struct err *err)
{
    struct gpg_run run;
    struct gpg_run_options options = openpgp_run_options(pgp, &endless);
    struct err why = ERR_INIT;
    bool ok = gpg_run_begin(&run, &options, err) && gpg_list_keys(&run, wanted, false, err);
    if (ok) {
        gpgme_key_t key = choose(pgp, &run, wanted, &why);
        if (key != NULL) {
            ok = add_recipient(pgp, wanted, key, list, err);
        } else if (must_work) {
            *err = why;
            ok = false;
        } else if (!buf_printf(list, "\n%s", wanted)) {
            /* nothing is going to be encrypted; were it, gpg would have the last word */
            ok = err_set(err, ERR_INVALID, "too many keys to encrypt to");
        }
    }
    gpg_run_end(&run);
    return ok;
}

bool openpgp_find_recipients(struct openpgp *pgp, const char *const *names, size_t count,
                             bool must_work, struct err *err)
{
    struct buf list = BUF_INIT(RECIPIENTS_MAX_BYTES);
    pgp->recipients = calloc(count, sizeof(*pgp->recipients));
    /* "--": no line is an option */
    bool ok = pgp->recipients != NULL && buf_puts(&list, "--");
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; ok && i < count; i++) {
        if (names[i][strspn(names[i], " \t")] == '\0' || strpbrk(names[i], "\r\n") != NULL)
            ok = err_set(err, ERR_INVALID, "the name of a key to encrypt to is empty");
        else
            ok = find_one(pgp, names[i], must_work, &list, err);
    }
    if (!ok) {
        buf_free(&list);
        return false;
    }
    pgp->recipient_args = list.data;
    return true;
}
