/* gpg's status lines (doc/DETAILS in GnuPG's source) and what follows from them.
 *
 * gpgme's own result is not enough: for encryption it reports success when gpg was killed in the
 * middle, and for decryption it does not tell a locked key from a missing one or from a damaged
 * session key. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/openpgp_internal.h"

/* Session key packets come first and are small: for a hundred RSA 4096 keys there is room here. */
#define SESSION_KEYS_MAX_BYTES (64 * 1024)

/* ---- reading ---- */

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Text from gpg, without what does not belong in a message. */
static void copy_clean(char *out, size_t cap, const char *in, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && in[i] != '\0' && len + 1 < cap; i++) {
        unsigned char c = (unsigned char)in[i];
        out[len++] = c < 0x20 || c == 0x7f ? '?' : in[i];
    }
    out[len] = '\0';
}

static void note_key_id(struct gpg_status *st, const char *args)
{
    size_t n = strspn(args, "0123456789ABCDEFabcdef");
    if (n == 0 || n > 16)
        return;
    for (size_t i = 0; i < st->key_id_count; i++) {
        if (strncmp(st->key_ids[i], args, n) == 0)
            return;
    }
    if (st->key_id_count < GPG_KEY_IDS_MAX)
        copy_clean(st->key_ids[st->key_id_count++], sizeof(st->key_ids[0]), args, n);
}

/* "ERROR <location> <code>" and "FAILURE <location> <code>". The code holds its source in the upper
 * bits and may have a name behind it ("89_BAD_DATA"). */
static void note_error(struct gpg_status *st, const char *args)
{
    const char *space = strchr(args, ' ');
    unsigned code = space == NULL ? 0 : gpgme_err_code((gpgme_error_t)strtoul(space + 1, NULL, 10));
    if (code == 0)
        code = GPG_ERR_GENERAL;
    if (starts(args, "pkdecrypt_failed") || starts(args, "export_keys.secret") ||
        starts(args, "set_pinentry_mode") || starts(args, "get_passphrase")) {
        st->agent_error = code;
        return;
    }
    /* GnuPG 2.4 counts each key and passphrase that does not fit as an error, also where another
     * did */
    if (starts(args, "gpg-exit") && st->agent_error != 0 && st->decryption_okay)
        return;
    if (starts(args, "symkey_decrypt") && code == GPG_ERR_BAD_PASSPHRASE)
        st->bad_symmetric = true;
    if (st->other_error == 0)
        st->other_error = code;
}

/* "INV_RECP <reason> <name>"; the reasons as doc/DETAILS numbers them. */
static void note_recipient(struct gpg_status *st, const char *args)
{
    char *name;
    switch (strtoul(args, &name, 10)) {
    case 1:
        st->recipient_error = GPG_ERR_NO_PUBKEY;
        break;
    case 2:
        st->recipient_error = GPG_ERR_AMBIGUOUS_NAME;
        break;
    case 3:
        st->recipient_error = GPG_ERR_WRONG_KEY_USAGE;
        break;
    case 4:
        st->recipient_error = GPG_ERR_CERT_REVOKED;
        break;
    case 5:
        st->recipient_error = GPG_ERR_KEY_EXPIRED;
        break;
    case 13:
        st->recipient_error = GPG_ERR_KEY_DISABLED;
        break;
    default:
        st->recipient_error = GPG_ERR_UNUSABLE_PUBKEY;
        break;
    }
    copy_clean(st->recipient, sizeof(st->recipient), name + strspn(name, " "), SIZE_MAX);
}

void gpg_status_line(struct gpg_status *st, const char *keyword, const char *args)
{
    unsigned mdc, cipher, aead;
    if (keyword[0] == '\0') /* how gpgme tells the end */
        return;
    st->any = true;
    if (strcmp(keyword, "END_ENCRYPTION") == 0)
        st->end_encryption = true;
    else if (strcmp(keyword, "DECRYPTION_OKAY") == 0)
        st->decryption_okay = true;
    else if (strcmp(keyword, "DECRYPTION_FAILED") == 0)
        st->decryption_failed = true;
    else if (strcmp(keyword, "END_DECRYPTION") == 0)
        st->end_decryption = true;
    else if (strcmp(keyword, "GOODMDC") == 0)
        st->good_mdc = true;
    else if (strcmp(keyword, "BADMDC") == 0 || strcmp(keyword, "NODATA") == 0 ||
             strcmp(keyword, "UNEXPECTED") == 0)
        st->no_data = true;
    else if (strcmp(keyword, "NO_SECKEY") == 0)
        st->no_secret_key = true;
    else if (strcmp(keyword, "NEED_PASSPHRASE_SYM") == 0)
        st->symmetric = true;
    else if (strcmp(keyword, "ENC_TO") == 0)
        note_key_id(st, args);
    else if (strcmp(keyword, "INV_RECP") == 0)
        note_recipient(st, args);
    else if (strcmp(keyword, "ERROR") == 0 || strcmp(keyword, "FAILURE") == 0)
        note_error(st, args);
    else if (strcmp(keyword, "DECRYPTION_INFO") == 0) {
        st->unlocked = true;
        st->unprotected = sscanf(args, "%u %u %u", &mdc, &cipher, &aead) == 3
                              ? mdc == 0 && aead == 0
                              : starts(args, "0 ");
    }
}

/* ---- judging ---- */

/* Where the last line of the log begins; *LEN is its length, 0 for an empty log. */
static const char *last_line(const char *log, size_t *len)
{
    size_t end = strlen(log);
    while (end > 0 && isspace((unsigned char)log[end - 1]))
        end--;
    size_t start = end;
    while (start > 0 && log[start - 1] != '\n')
        start--;
    *len = end - start;
    return log + start;
}

/* The last line, which is where gpg says why it gave up. */
bool gpg_add_log(struct err *err, const char *log)
{
    size_t n;
    const char *last = last_line(log, &n);
    if (n == 0)
        return false;
    char line[200];
    copy_clean(line, sizeof(line), last, n);
    size_t len = strlen(err->text);
    (void)snprintf(err->text + len, sizeof(err->text) - len, " (%s)", line);
    return false;
}

static bool out_of_secure_memory(struct err *err)
{
    return err_set(err, ERR_NO_MEMORY,
                   "gpg-agent is out of secure memory; put auto-expand-secmem into its "
                   "gpg-agent.conf and restart it (gpgconf --kill gpg-agent)");
}

bool gpg_judge_agent(unsigned agent_error, const char *whose, struct err *err)
{
    switch (agent_error) {
    case GPG_ERR_ENOMEM:
    case GPG_ERR_RESOURCE_LIMIT:
        return out_of_secure_memory(err);
    case GPG_ERR_BAD_PASSPHRASE:
        return err_set(err, ERR_KEY, "wrong passphrase for %s", whose);
    case GPG_ERR_CANCELED:
    case GPG_ERR_FULLY_CANCELED:
    case GPG_ERR_TIMEOUT:
    case GPG_ERR_NO_PIN_ENTRY:
    case GPG_ERR_NO_PASSPHRASE:
    case GPG_ERR_ENOTTY:
        return err_set(err, ERR_KEY,
                       "%s is locked and its passphrase could not be asked for (%s); set "
                       "passphrase_file, or unlock it in gpg-agent",
                       whose, gpgme_strerror(agent_error));
    case GPG_ERR_NOT_SUPPORTED:
    case GPG_ERR_FORBIDDEN:
        return err_set(err, ERR_KEY,
                       "gpg-agent does not take the passphrase for %s; remove "
                       "no-allow-loopback-pinentry from its gpg-agent.conf and restart it (gpgconf "
                       "--kill gpg-agent)",
                       whose);
    default:
        return err_set(err, ERR_KEY, "cannot use the secret key of %s: %s; does gpg-agent run?",
                       whose, gpgme_strerror(agent_error));
    }
}

/* Errors of the secret key operation that come from the message: its session key is damaged. */
static bool is_damage(unsigned agent_error)
{
    switch (agent_error) {
    case GPG_ERR_WRONG_SECKEY:
    case GPG_ERR_CHECKSUM:
    case GPG_ERR_BAD_DATA:
    case GPG_ERR_BAD_MPI:
    case GPG_ERR_BAD_SIGNATURE:
    case GPG_ERR_CIPHER_ALGO:
    case GPG_ERR_DECRYPT_FAILED:
    case GPG_ERR_ENCODING_PROBLEM:
    case GPG_ERR_INV_DATA:
    case GPG_ERR_INV_KEYLEN:
    case GPG_ERR_INV_OBJ:
    case GPG_ERR_INV_PACKET:
    case GPG_ERR_INV_VALUE:
    case GPG_ERR_TOO_SHORT:
    case GPG_ERR_WEAK_KEY:
    case GPG_ERR_WRONG_KEY_USAGE:
        return true;
    default:
        return false;
    }
}

static const char *key_list(const struct gpg_status *st, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < st->key_id_count && len < cap; i++) {
        bool hidden = strspn(st->key_ids[i], "0") == strlen(st->key_ids[i]);
        int n = snprintf(out + len, cap - len, "%s%s", i == 0 ? "" : ", ",
                         hidden ? "a hidden recipient" : st->key_ids[i]);
        len += n < 0 ? 0 : (size_t)n;
    }
    return out;
}

static bool no_secret_key(const struct gpg_status *st, const char *log,
                          const struct gpg_run_options *options, struct err *err)
{
    char ids[GPG_KEY_IDS_MAX * 24];
    const char *home = options->import_home;
    if (st->key_id_count == 0)
        return err_set(err, ERR_KEY,
                       "the message is encrypted with a passphrase only, not to a key: %s",
                       options->passphrase == NULL ? "set passphrase_file to read it"
                                                   : "the configured one does not open it (or "
                                                     "it is damaged)");
    err_set(err, ERR_KEY,
            "no secret key: the message is encrypted to %s; import that key (gpg%s%s --import "
            "FILE)%s",
            key_list(st, ids, sizeof(ids)), home == NULL ? "" : " --homedir ",
            home == NULL ? "" : home,
            options->passphrase == NULL ? "" : ", with the configured passphrase, and mount again");
    /* gpg says no more than "no secret key" when it cannot ask the agent */
    return strcasestr(log, "agent") == NULL ? false : gpg_add_log(err, log);
}

/* gpg fell silent: killed or crashed, or its input ended where it had nothing to say about that,
 * which happens only behind the session keys. In the data it complains on its log; otherwise the
 * last line there is the indented user id of the key. */
static bool died(const struct gpg_status *st, const char *log)
{
    if (st->no_data || st->decryption_failed || st->end_decryption || st->other_error != 0)
        return false;
    if (!st->input_ended)
        return strstr(log, "Fatal: ") == NULL;
    size_t len;
    const char *line = last_line(log, &len);
    return st->key_id_count > 0 && st->input_bytes > SESSION_KEYS_MAX_BYTES &&
           (len == 0 || line[0] == ' ');
}

static bool ended_early(const struct gpg_status *st, const char *log, struct err *err)
{
    if (!st->any) {
        err_set(err, ERR_KEY, "gpg ended at once and said nothing; is gnupg installed?");
        return gpg_add_log(err, log);
    }
    err_set(err, ERR_LOCAL, "gpg ended before it was done; was it killed?");
    return gpg_add_log(err, log);
}

/* True with ERR set when gpg did not get at the session key and said why. */
static bool cannot_unlock(const struct gpg_status *st, const char *log,
                          const struct gpg_run_options *options, struct err *err)
{
    char ids[GPG_KEY_IDS_MAX * 24];
    char whose[sizeof(ids) + 8];
    (void)snprintf(whose, sizeof(whose), "key %s", key_list(st, ids, sizeof(ids)));
    if (strstr(log, "secure memory") != NULL) {
        out_of_secure_memory(err);
        return true;
    }
    if (st->symmetric && st->key_id_count == 0) {
        no_secret_key(st, log, options, err);
        return true;
    }
    if (st->agent_error != 0 && is_damage(st->agent_error)) {
        err_set(err, ERR_CORRUPT, "the session key for %s is damaged", whose);
        gpg_add_log(err, log);
        return true;
    }
    if (st->agent_error != 0 && st->agent_error != GPG_ERR_NO_SECKEY) {
        gpg_judge_agent(st->agent_error, whose, err);
        return true;
    }
    bool missing = st->no_secret_key || (st->decryption_failed && st->key_id_count > 0 &&
                                         !st->no_data && st->other_error == 0);
    if (missing)
        no_secret_key(st, log, options, err);
    return missing;
}

bool gpg_judge_decrypt(const struct gpg_status *st, gpgme_error_t result, const char *log,
                       const struct gpg_run_options *options, struct err *err)
{
    if (st->unprotected && !st->frames.aead)
        return err_set(err, ERR_CORRUPT,
                       "the message has no integrity protection (neither MDC nor AEAD), so it "
                       "cannot be told from a forged one; if you trust it, decrypt it by hand (gpg "
                       "--ignore-mdc-error) and archive it anew");
    /* GnuPG 2.2 says GOODMDC of an AEAD message whatever came of its tags (seen with 2.2.40) */
    if (st->frames.aead && strstr(log, "checktag") != NULL) {
        err_set(err, ERR_CORRUPT, "not a whole, unchanged OpenPGP message");
        return gpg_add_log(err, log);
    }
    if (st->decryption_okay && st->good_mdc && st->end_decryption && !st->no_data &&
        st->other_error == 0 && result == 0)
        return true;
    if (st->frames.broken)
        return err_set(err, ERR_CORRUPT,
                       "not a whole, unchanged OpenPGP message: what stands in "
                       "front of its data is damaged");
    if (st->bad_symmetric && st->key_id_count == 0)
        return no_secret_key(st, log, options, err);
    /* behind the session key, gpg takes damaged data for packets of any kind, and asks for their
     * passphrases and keys: that is no problem of ours with keys */
    if (!st->unlocked && cannot_unlock(st, log, options, err))
        return false;
    if (!st->any && log[0] == '\0')
        return ended_early(st, log, err);
    if (died(st, log))
        return ended_early(st, log, err);
    err_set(err, ERR_CORRUPT, "not a whole, unchanged OpenPGP message: %s",
            result == 0 ? "gpg did not confirm it" : gpgme_strerror(result));
    return gpg_add_log(err, log);
}

bool gpg_judge_encrypt(const struct gpg_status *st, gpgme_error_t result, const char *log,
                       struct err *err)
{
    if (st->recipient_error != 0)
        return err_set(err, ERR_KEY, "cannot encrypt to %s: %s%s", st->recipient,
                       gpgme_strerror(st->recipient_error),
                       /* gpg 2.2 says no more of one that has expired since the mount */
                       st->recipient_error == GPG_ERR_KEY_EXPIRED ||
                               st->recipient_error == GPG_ERR_UNUSABLE_PUBKEY
                           ? "; if it has expired, extend it (gpg --quick-set-expire), or mount "
                             "with -o allow_expired"
                           : "");
    if (st->end_encryption && st->other_error == 0 && result == 0)
        return true;
    if (result == 0 && st->other_error == 0)
        return ended_early(st, log, err);
    unsigned code = result != 0 ? gpgme_err_code(result) : st->other_error;
    enum err_code kind = code == GPG_ERR_ENOSPC ? ERR_NO_SPACE : ERR_KEY;
    err_set(err, kind, "cannot encrypt: %s", gpgme_strerror(code));
    return gpg_add_log(err, log);
}
