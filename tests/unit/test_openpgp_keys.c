/* Preflight of the keys to encrypt to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gpgme.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpg_home.h"

static struct test_home home;

static int set_up(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Alice <alice@example.org>", "");
    test_key_ext(&home, "Sign Only <sign@example.org>", "--passphrase ''", "ed25519", "never");
    test_key_ext(&home, "Old <old@example.org>",
                 "--passphrase '' --faked-system-time 20200101T000000!", "future-default", "1d");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

static void accepted(const char *name)
{
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct openpgp *pgp = test_openpgp(&home, name, NULL, &err);
    if (pgp == NULL)
        fail_msg("%s: %s", name, err.text);
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    assert_true(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    assert_string_equal(buf_str(&back), "text");
    buf_free(&coded);
    buf_free(&back);
    openpgp_free(pgp);
}

/* The error names what was asked for, and says both texts. */
static void refused(const char *name, const char *why, const char *advice)
{
    struct err err = ERR_INIT;
    struct openpgp *pgp = test_openpgp(&home, name, NULL, &err);
    assert_null(pgp);
    if (err.code != ERR_KEY || strstr(err.text, name) == NULL || strstr(err.text, why) == NULL ||
        strstr(err.text, advice) == NULL)
        fail_msg("%s: %s", err_name(err.code), err.text);
}

static void all_ways_to_name_a_key(void **state)
{
    (void)state;
    char fpr[64], name[80];
    test_fpr(&home, "alice@example.org", fpr);
    accepted(fpr);
    accepted(fpr + 24); /* long key id */
    accepted(fpr + 32); /* short one */
    (void)snprintf(name, sizeof(name), "0x%s", fpr + 24);
    accepted(name);
    accepted("alice@example.org");
    accepted("<alice@example.org>");
    accepted("=Alice <alice@example.org>");
    accepted("Alice");
}

/* "ID!" stands for exactly that subkey. */
static void exactly_this_subkey(void **state)
{
    (void)state;
    char command[256], sub[64], name[80];
    (void)snprintf(command, sizeof(command),
                   "gpg --homedir %s --with-colons -k alice@example.org 2>/dev/null | awk -F: "
                   "'/^fpr/{f=$10} END{print f}'",
                   home.path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%63s", sub), 1);
    pclose(f);
    (void)snprintf(name, sizeof(name), "%s!", sub);
    accepted(name);
    (void)snprintf(name, sizeof(name), "0x%s!", sub + 24);
    accepted(name);
    char fpr[64];
    test_fpr(&home, "alice@example.org", fpr);
    (void)snprintf(name, sizeof(name), "%s!", fpr); /* the primary key can only sign */
    refused(name, "cannot encrypt", "this very key");
}

static void unknown(void **state)
{
    (void)state;
    refused("nobody@example.org", "no such public key", "--import");
    refused("0123456789ABCDEF", "no such public key", home.path);
    refused("--version", "no such public key", "--import");
}

static void expired(void **state)
{
    (void)state;
    refused("old@example.org", "expired on 2020-01-02", "--quick-set-expire");
}

static void expired_subkey(void **state)
{
    (void)state;
    char fpr[64];
    test_key_ext(&home, "Half <half@example.org>",
                 "--passphrase '' --faked-system-time 20200101T000000!", "ed25519", "never");
    test_fpr(&home, "half@example.org", fpr);
    assert_int_equal(test_gpg(&home,
                              "--passphrase '' --faked-system-time 20200101T000001! "
                              "--quick-add-key %s cv25519 encr 1d",
                              fpr),
                     0);
    refused("half@example.org", "expired on 2020-01-02", "--quick-set-expire");
}

static void sign_only(void **state)
{
    (void)state;
    refused("sign@example.org", "no usable encryption subkey", "--quick-add-key");
}

static void revoked(void **state)
{
    (void)state;
    char fpr[64], command[512];
    test_key(&home, "Gone <gone@example.org>", "");
    test_fpr(&home, "gone@example.org", fpr);
    /* gpg puts a colon in front of the certificate, lest it is imported by accident */
    (void)snprintf(command, sizeof(command), "sed -i 's/^:---/---/' %s/openpgp-revocs.d/%s.rev",
                   home.path, fpr);
    assert_int_equal(system(command), 0);
    assert_int_equal(test_gpg(&home, "--import %s/openpgp-revocs.d/%s.rev", home.path, fpr), 0);
    refused("gone@example.org", "revoked", "another key");
}

static void disabled(void **state)
{
    (void)state;
    char command[512];
    test_key(&home, "Off <off@example.org>", "");
    (void)snprintf(
        command, sizeof(command),
        "printf 'disable\\nsave\\n' | gpg --homedir %s --no-tty --command-fd 0 --edit-key "
        "off@example.org >/dev/null 2>&1",
        home.path);
    assert_int_equal(system(command), 0);
    refused("off@example.org", "disabled", "enable");
}

static void ambiguous(void **state)
{
    (void)state;
    test_key(&home, "Twin One <one@twin.example>", "");
    test_key(&home, "Twin Two <two@twin.example>", "");
    refused("twin.example", "several keys", "fingerprint");
    /* of one that works and one that does not, there is no doubt which is meant */
    test_key_ext(&home, "Renewed <renewed@example.org>",
                 "--passphrase '' --faked-system-time 20200101T000000!", "future-default", "1d");
    test_key(&home, "Renewed Again <renewed@example.org>", "");
    accepted("renewed@example.org");
}

static void one_of_several(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const char *names[] = {"alice@example.org", "old@example.org"};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = 2;
    assert_null(openpgp_new(&options, &err));
    assert_int_equal(err.code, ERR_KEY);
    assert_non_null(strstr(err.text, "old@example.org"));
}

static void not_checked_when_read_only(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static const char *const names[] = {"old@example.org", "nobody@example.org"};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = 2;
    options.writable = false;
    struct openpgp *pgp = openpgp_new(&options, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    assert_true(openpgp_encrypts(pgp));
    struct buf coded;
    assert_false(test_encrypt(pgp, "text", 4, &coded, &err)); /* gpg itself refuses */
    assert_int_equal(err.code, ERR_KEY);
    buf_free(&coded);
    openpgp_free(pgp);
}

static void no_such_home(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct openpgp_options options = test_options(&home);
    options.home = "/nonexistent/gnupg";
    assert_null(openpgp_new(&options, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_non_null(strstr(err.text, "/nonexistent/gnupg"));
}

static void empty_name(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_null(test_openpgp(&home, " ", NULL, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(test_openpgp(&home, "alice@example.org\n--symmetric", NULL, &err));
    assert_int_equal(err.code, ERR_INVALID);
}

/* The key expires, or goes, after the mount. */
static void key_lost_later(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded;
    char fpr[64];
    test_key(&home, "Late <late@example.org>", "");
    test_fpr(&home, "late@example.org", fpr);
    struct openpgp *pgp = test_openpgp(&home, "late@example.org", NULL, &err);
    assert_non_null(pgp);
    assert_int_equal(test_gpg(&home, "--passphrase '' --delete-secret-and-public-key %s", fpr), 0);
    assert_false(test_encrypt(pgp, "text", 4, &coded, &err));
    assert_int_equal(err.code, ERR_KEY);
    assert_non_null(strstr(err.text, fpr));
    buf_free(&coded);
    openpgp_free(pgp);
}

static void no_gpg(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct openpgp *good = test_openpgp(&home, "alice@example.org", NULL, &err);
    assert_true(test_encrypt(good, "text", 4, &coded, &err));
    openpgp_free(good);

    char *gpg = strdup(gpgme_get_dirinfo("gpg-name"));
    (void)gpgme_set_engine_info(GPGME_PROTOCOL_OpenPGP, "/nonexistent/gpg", NULL);
    assert_null(test_openpgp(&home, "alice@example.org", NULL, &err));
    if (err.code != ERR_KEY || strstr(err.text, "install gnupg") == NULL)
        fail_msg("%s: %s", err_name(err.code), err.text);
    struct openpgp *pgp = test_openpgp(&home, NULL, NULL, &err);
    assert_non_null(pgp);
    err.code = ERR_NONE;
    assert_false(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    if (err.code != ERR_KEY || strstr(err.text, "is gnupg installed") == NULL)
        fail_msg("%s: %s", err_name(err.code), err.text);
    openpgp_free(pgp);
    assert_int_equal(gpgme_set_engine_info(GPGME_PROTOCOL_OpenPGP, gpg, NULL), 0);
    free(gpg);
    buf_free(&coded);
    buf_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ways_to_name_a_key),
        cmocka_unit_test(exactly_this_subkey),
        cmocka_unit_test(unknown),
        cmocka_unit_test(expired),
        cmocka_unit_test(expired_subkey),
        cmocka_unit_test(sign_only),
        cmocka_unit_test(revoked),
        cmocka_unit_test(disabled),
        cmocka_unit_test(ambiguous),
        cmocka_unit_test(one_of_several),
        cmocka_unit_test(not_checked_when_read_only),
        cmocka_unit_test(no_such_home),
        cmocka_unit_test(empty_name),
        cmocka_unit_test(key_lost_later),
        cmocka_unit_test(no_gpg),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
