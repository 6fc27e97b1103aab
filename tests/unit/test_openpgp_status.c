/* What follows from gpg's status lines. Most cases come from real gpg in the other tests; these
 * here are hard to provoke. The lines are as GnuPG 2.2.40 writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/openpgp_internal.h"

static const struct gpg_run_options options = {.import_home = "/keys"};

/* LINES: "KEYWORD args\n..." */
static struct gpg_status status_of(const char *lines)
{
    struct gpg_status st = {.input_ended = true};
    char line[256], *args;
    while (*lines != '\0') {
        size_t n = strcspn(lines, "\n");
        (void)snprintf(line, sizeof(line), "%.*s", (int)n, lines);
        lines += lines[n] == '\n' ? n + 1 : n;
        args = strchr(line, ' ');
        if (args != NULL)
            *args++ = '\0';
        gpg_status_line(&st, line, args == NULL ? "" : args);
    }
    return st;
}

static void check_decrypt(const char *lines, unsigned result, const char *log, enum err_code code,
                          const char *text)
{
    struct gpg_status st = status_of(lines);
    struct err err = ERR_INIT;
    bool ok = gpg_judge_decrypt(&st, gpgme_error(result), log, &options, &err);
    if (ok != (code == ERR_NONE) || err.code != code || strstr(err.text, text) == NULL)
        fail_msg("%s -> %s: %s", lines, err_name(err.code), err.text);
}

#define GOOD                                                                                    \
    "ENC_TO 88D0CD5E6AB5926A 1 0\nBEGIN_DECRYPTION\nDECRYPTION_INFO 2 9 0\nPLAINTEXT 62 1 pl\n" \
    "DECRYPTION_OKAY\nGOODMDC\nEND_DECRYPTION\n"
#define PK_FAILED(code)                                         \
    "ENC_TO 88D0CD5E6AB5926A 1 0\nERROR pkdecrypt_failed " code \
    "\nBEGIN_DECRYPTION\nDECRYPTION_FAILED\nEND_DECRYPTION\n"

static void good(void **state)
{
    (void)state;
    check_decrypt(GOOD, 0, "", ERR_NONE, "");
    /* another recipient's key may have failed first */
    check_decrypt("ERROR pkdecrypt_failed 67108875\nNO_SECKEY 0123456789ABCDEF\n" GOOD, 0, "",
                  ERR_NONE, "");
    /* which GnuPG 2.4 counts as an error of its own */
    check_decrypt("ERROR pkdecrypt_failed 67108875\n" GOOD "FAILURE gpg-exit 33554433\n", 0, "",
                  ERR_NONE, "");
    /* AEAD, as gpg 2.3 reports it */
    check_decrypt("ENC_TO 88D0CD5E6AB5926A 1 0\nDECRYPTION_INFO 0 9 2\nDECRYPTION_OKAY\nGOODMDC\n"
                  "END_DECRYPTION\n",
                  0, "", ERR_NONE, "");
}

/* Each line of a good message is needed. */
static void one_line_missing(void **state)
{
    (void)state;
    check_decrypt("DECRYPTION_OKAY\nEND_DECRYPTION\n", 0, "", ERR_CORRUPT, "did not confirm");
    check_decrypt("GOODMDC\nEND_DECRYPTION\n", 0, "", ERR_CORRUPT, "");
    check_decrypt("DECRYPTION_OKAY\nGOODMDC\n", 0, "", ERR_CORRUPT, "");
    check_decrypt(GOOD, GPG_ERR_BAD_DATA, "", ERR_CORRUPT, "Bad data");
    check_decrypt(GOOD "BADMDC\n", 0, "", ERR_CORRUPT, "");
    check_decrypt(GOOD "ERROR proc_pkt.plaintext 89_BAD_DATA\n", 0, "", ERR_CORRUPT, "");
    check_decrypt(GOOD "FAILURE gpg-exit 33554433\n", 0, "", ERR_CORRUPT, "");
    check_decrypt("DECRYPTION_INFO 0 9 0\nDECRYPTION_OKAY\nGOODMDC\nEND_DECRYPTION\n", 0, "",
                  ERR_CORRUPT, "integrity protection");
    check_decrypt("DECRYPTION_INFO 0 9\nDECRYPTION_OKAY\nGOODMDC\nEND_DECRYPTION\n", 0, "",
                  ERR_CORRUPT, "integrity protection");
}

static void secret_key_problems(void **state)
{
    (void)state;
    /* source 4 (gpg-agent) in bits 24 and up, then the code */
    check_decrypt(PK_FAILED("67141718"), GPG_ERR_DECRYPT_FAILED, "", ERR_NO_MEMORY,
                  "auto-expand-secmem");
    check_decrypt(PK_FAILED("67108875"), GPG_ERR_BAD_PASSPHRASE, "", ERR_KEY,
                  "wrong passphrase for key 88D0CD5E6AB5926A");
    check_decrypt(PK_FAILED("83886179"), GPG_ERR_CANCELED, "", ERR_KEY, "locked");
    check_decrypt(PK_FAILED("67108949"), GPG_ERR_DECRYPT_FAILED, "", ERR_KEY, "locked");
    check_decrypt(PK_FAILED("67108926"), GPG_ERR_DECRYPT_FAILED, "", ERR_KEY, "locked");
    check_decrypt(PK_FAILED("67108941"), GPG_ERR_DECRYPT_FAILED, "", ERR_KEY, "gpg-agent");
    check_decrypt(PK_FAILED("33554450"), GPG_ERR_DECRYPT_FAILED, "", ERR_CORRUPT, "session key");
    check_decrypt("ENC_TO 88D0CD5E6AB5926A 1 0\n", 0,
                  "gpg: Fatal: out of core in secure memory while allocating 512 bytes\n",
                  ERR_NO_MEMORY, "auto-expand-secmem");
    check_decrypt("ENC_TO 88D0CD5E6AB5926A 1 0\nENC_TO 0000000000000000 1 0\nNO_SECKEY "
                  "88D0CD5E6AB5926A\nDECRYPTION_FAILED\nEND_DECRYPTION\n",
                  GPG_ERR_NO_SECKEY, "", ERR_KEY,
                  "88D0CD5E6AB5926A, a hidden recipient; import that key (gpg --homedir /keys");
    check_decrypt("ENC_TO 88D0CD5E6AB5926A 1 0\nNO_SECKEY 88D0CD5E6AB5926A\nDECRYPTION_FAILED\n"
                  "END_DECRYPTION\n",
                  GPG_ERR_NO_SECKEY, "gpg: can't connect to the agent: IPC connect call failed\n",
                  ERR_KEY, "can't connect to the agent");
    check_decrypt("NEED_PASSPHRASE_SYM 9 3 2\nBEGIN_DECRYPTION\nDECRYPTION_INFO 2 9 0\n"
                  "ERROR symkey_decrypt.maybe_error 11_BAD_PASSPHRASE\nDECRYPTION_FAILED\n"
                  "END_DECRYPTION\n",
                  GPG_ERR_BAD_PASSPHRASE, "", ERR_KEY, "passphrase only");
    /* GnuPG 2.4 */
    check_decrypt("NO_SECKEY 88D0CD5E6AB5926A\n" PK_FAILED("33554449"), GPG_ERR_NO_SECKEY, "",
                  ERR_KEY, "no secret key: the message is encrypted to 88D0CD5E6AB5926A");
    /* "quiet" in gpg.conf takes NO_SECKEY away */
    check_decrypt("ENC_TO 88D0CD5E6AB5926A 1 0\nDECRYPTION_FAILED\nEND_DECRYPTION\n",
                  GPG_ERR_NO_SECKEY, "", ERR_KEY, "88D0CD5E6AB5926A");
}

static void gpg_that_died(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct gpg_status st = status_of("ENC_TO 88D0CD5E6AB5926A 1 0\nBEGIN_DECRYPTION\n");
    st.input_ended = false;
    assert_false(gpg_judge_decrypt(&st, gpgme_error(GPG_ERR_EOF), "", &options, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    /* with a reason of its own it did not just die */
    assert_false(gpg_judge_decrypt(&st, gpgme_error(GPG_ERR_EOF),
                                   "gpg: Fatal: zlib inflate problem: invalid block\n", &options,
                                   &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "zlib inflate problem"));
    /* nor if it was given everything: the message ends too early */
    st.input_ended = true;
    assert_false(gpg_judge_decrypt(&st, gpgme_error(GPG_ERR_EOF), "", &options, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    /* but there it would have said so if it had come to the data */
    static const char key_line[] =
        "gpg: encrypted with 255-bit ECDH key, ID 1\n      \"A <a@b>\"\n";
    st.input_bytes = 1 << 20;
    assert_false(gpg_judge_decrypt(&st, gpgme_error(GPG_ERR_EOF), key_line, &options, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_false(gpg_judge_decrypt(&st, gpgme_error(GPG_ERR_EOF),
                                   "gpg: block_filter: pending bytes!\n", &options, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
}

static void check_encrypt(const char *lines, unsigned result, enum err_code code, const char *text)
{
    struct gpg_status st = status_of(lines);
    struct err err = ERR_INIT;
    bool ok = gpg_judge_encrypt(&st, gpgme_error(result), "", &err);
    if (ok != (code == ERR_NONE) || err.code != code || strstr(err.text, text) == NULL)
        fail_msg("%s -> %s: %s", lines, err_name(err.code), err.text);
}

static void encryption(void **state)
{
    (void)state;
    check_encrypt("BEGIN_ENCRYPTION 2 9\nEND_ENCRYPTION\n", 0, ERR_NONE, "");
    check_encrypt("BEGIN_ENCRYPTION 2 9\n", 0, ERR_LOCAL, "gpg ended");
    check_encrypt("", 0, ERR_KEY, "is gnupg installed");
    check_encrypt("END_ENCRYPTION\nFAILURE encrypt 22\n", 0, ERR_KEY, "cannot encrypt");
    check_encrypt("FAILURE encrypt 32854\n", GPG_ERR_ENOSPC, ERR_NO_SPACE, "No space");
    check_encrypt("INV_RECP 5 ABCD\nFAILURE encrypt 53\n", GPG_ERR_UNUSABLE_PUBKEY, ERR_KEY,
                  "cannot encrypt to ABCD: Key expired");
    check_encrypt("INV_RECP 4 ABCD\n", GPG_ERR_UNUSABLE_PUBKEY, ERR_KEY, "ABCD: ");
    check_encrypt("INV_RECP 1 A\nB\n", GPG_ERR_UNUSABLE_PUBKEY, ERR_KEY, "No public key");
    check_encrypt("INV_RECP 13 A\n", GPG_ERR_UNUSABLE_PUBKEY, ERR_KEY, "disabled");
    check_encrypt("INV_RECP 0 A\n", GPG_ERR_UNUSABLE_PUBKEY, ERR_KEY, "Unusable");
}

/* gpg is not an attacker, but its lines quote what strangers wrote. */
static void odd_lines(void **state)
{
    (void)state;
    struct gpg_status st = {0};
    struct err err = ERR_INIT;
    char longest[2000];
    memset(longest, 'A', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    static const char *const keywords[] = {"ENC_TO",          "INV_RECP",  "ERROR",  "FAILURE",
                                           "DECRYPTION_INFO", "NO_SECKEY", "UNKNOWN"};
    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        gpg_status_line(&st, keywords[i], longest);
        gpg_status_line(&st, keywords[i], "");
        gpg_status_line(&st, keywords[i], "\n\x01\x7f");
    }
    for (unsigned i = 0; i < 20; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "%016X 1 0", i);
        gpg_status_line(&st, "ENC_TO", id);
        gpg_status_line(&st, "ENC_TO", id);
    }
    assert_int_equal(st.key_id_count, GPG_KEY_IDS_MAX);
    assert_false(gpg_judge_decrypt(&st, 0, longest, &options, &err));
    assert_false(gpg_judge_encrypt(&st, 0, "a\nb\r\nlast \x1b[31m\n\n", &err));
    for (const char *c = err.text; *c != '\0'; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(one_line_missing),
        cmocka_unit_test(secret_key_problems),
        cmocka_unit_test(gpg_that_died),
        cmocka_unit_test(encryption),
        cmocka_unit_test(odd_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
