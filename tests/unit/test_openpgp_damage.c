/* Messages that are broken, forged or not for us: never a success with other bytes, and the right
 * kind of error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpg_home.h"

#define PLAIN_SIZE 100000
#define ALICE "alice@example.org"

static struct test_home home, other;
static struct openpgp *pgp;
static char *plain;
static struct buf whole = BUF_INIT(1 << 20), rsa_whole = BUF_INIT(1 << 20);

static int set_up(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char rsa[64];
    test_home_make(&home);
    test_home_make(&other);
    test_key(&home, "Alice <" ALICE ">", "");
    test_key(&other, "Eve <eve@example.org>", "");
    test_key_ext(&home, "Rosa <rosa@example.org>", "--passphrase ''", "rsa2048", "never");
    test_fpr(&home, "rosa@example.org", rsa);
    pgp = test_openpgp(&home, ALICE, NULL, &err);
    plain = test_bytes(PLAIN_SIZE, 7);
    bool ok = test_gpg(&home, "--passphrase '' --quick-add-key %s rsa2048 encr", rsa) == 0;
    test_write_file(&home, "plain", plain, PLAIN_SIZE);
    test_write_file(&other, "plain", plain, PLAIN_SIZE);
    ok = ok && test_gpg(&home, "-r rosa@example.org -z 0 -o %s/rsa.gpg -e %s/plain", home.path,
                        home.path) == 0;
    test_read_file(&home, "rsa.gpg", &rsa_whole);
    return !ok || pgp == NULL || !test_encrypt(pgp, plain, PLAIN_SIZE, &whole, &err);
}

static int tear_down(void **state)
{
    (void)state;
    openpgp_free(pgp);
    free(plain);
    buf_free(&whole);
    buf_free(&rsa_whole);
    test_home_remove(&home);
    test_home_remove(&other);
    return 0;
}

/* ERR_NONE: decrypted to exactly the right bytes. */
static struct err outcome(const void *coded, size_t n)
{
    struct err err = ERR_INIT;
    struct buf back;
    if (test_decrypt(pgp, coded, n, &back, &err)) {
        assert_int_equal(back.len, PLAIN_SIZE);
        assert_memory_equal(back.data, plain, PLAIN_SIZE);
    } else {
        assert_int_not_equal(err.code, ERR_NONE);
        assert_true(strlen(err.text) > 0);
    }
    buf_free(&back);
    return err;
}

static void check_corrupt(const void *coded, size_t n, const char *what)
{
    struct err err = outcome(coded, n);
    if (err.code != ERR_CORRUPT)
        fail_msg("%s: %s: %s", what, err_name(err.code), err.text);
}

static void truncated(void **state)
{
    (void)state;
    static const size_t keep[] = {0,  1,  2,   3,   11,  12,  50,   95,   96,   97,
                                  98, 99, 115, 116, 120, 200, 4096, 8192, 8400, 50000};
    for (size_t i = 0; i < sizeof(keep) / sizeof(keep[0]); i++) {
        char what[64];
        (void)snprintf(what, sizeof(what), "first %zu bytes", keep[i]);
        check_corrupt(whole.data, keep[i], what);
    }
    for (size_t cut = 1; cut < 40; cut += 3)
        check_corrupt(whole.data, whole.len - cut, "cut at the end");
}

/* Anywhere behind the session key: corrupt, not a key problem (which would be waited for). */
static void flipped_data(void **state)
{
    (void)state;
    for (size_t at = 96; at < whole.len; at += 1 + at / 4) {
        char what[64];
        (void)snprintf(what, sizeof(what), "bit in byte %zu", at);
        whole.data[at] = (char)(whole.data[at] ^ 4);
        check_corrupt(whole.data, whole.len, what);
        whole.data[at] = (char)(whole.data[at] ^ 4);
    }
}

/* The encrypted session key: damage, not a missing key. The key id in front of it (bytes 3 to 10)
 * may as well name another key. */
static void check_flipped_session_key(struct buf *coded, size_t end, size_t step)
{
    for (size_t at = 0; at < end; at += at < 16 ? 1 : step) {
        coded->data[at] = (char)(coded->data[at] ^ 1);
        struct err err = outcome(coded->data, coded->len);
        coded->data[at] = (char)(coded->data[at] ^ 1);
        bool allowed = err.code == ERR_CORRUPT || err.code == ERR_NONE ||
                       (err.code == ERR_KEY && at >= 3 && at <= 12);
        if (!allowed)
            fail_msg("bit in byte %zu: %s: %s", at, err_name(err.code), err.text);
        if (at >= 16)
            assert_int_equal(err.code, ERR_CORRUPT);
    }
}

static void flipped_session_key(void **state)
{
    (void)state;
    check_flipped_session_key(&whole, 96, 5);
    check_flipped_session_key(&rsa_whole, 260, 37);
}

static void something_appended(void **state)
{
    (void)state;
    char *long_one = malloc(whole.len * 2);
    memcpy(long_one, whole.data, whole.len);
    memcpy(long_one + whole.len, whole.data, whole.len);
    check_corrupt(long_one, whole.len * 2, "twice");
    check_corrupt(long_one, whole.len + 1, "a byte more");
    memset(long_one + whole.len, 0, whole.len);
    check_corrupt(long_one, whole.len + 512, "zeros behind");
    free(long_one);
}

static void check_file(const char *name, enum err_code code, const char *text)
{
    struct buf coded = BUF_INIT(1 << 20);
    test_read_file(&home, name, &coded);
    struct err err = outcome(coded.data, coded.len);
    if (err.code != code || (text != NULL && strstr(err.text, text) == NULL))
        fail_msg("%s: %s: %s", name, err_name(err.code), err.text);
    buf_free(&coded);
}

static void not_encrypted(void **state)
{
    (void)state;
    const char *h = home.path;
    assert_int_equal(test_gpg(&home, "-o %s/literal.gpg -z 0 --store %s/plain", h, h), 0);
    check_file("literal.gpg", ERR_CORRUPT, NULL);
    assert_int_equal(test_gpg(&home, "-o %s/signed.gpg -s %s/plain", h, h), 0);
    check_file("signed.gpg", ERR_CORRUPT, NULL);
    check_file("plain", ERR_CORRUPT, NULL);
    /* a foreign plaintext in front of or behind a good message */
    struct buf literal = BUF_INIT(1 << 20);
    test_read_file(&home, "literal.gpg", &literal);
    struct buf both = BUF_INIT(1 << 20);
    assert_true(buf_append(&both, literal.data, literal.len));
    assert_true(buf_append(&both, whole.data, whole.len));
    check_corrupt(both.data, both.len, "literal in front");
    both.len = 0;
    assert_true(buf_append(&both, whole.data, whole.len));
    assert_true(buf_append(&both, literal.data, literal.len));
    check_corrupt(both.data, both.len, "literal behind");
    buf_free(&literal);
    buf_free(&both);
}

static void no_integrity_protection(void **state)
{
    (void)state;
    const char *h = home.path;
    assert_int_equal(test_gpg(&home, "--rfc2440 -r " ALICE " -o %s/nomdc.gpg -e %s/plain", h, h),
                     0);
    check_file("nomdc.gpg", ERR_CORRUPT, "integrity protection");
    /* also when the user's configuration asks for it */
    test_write_file(&home, "gpg.conf", "ignore-mdc-error\n", 17);
    check_file("nomdc.gpg", ERR_CORRUPT, "integrity protection");
    whole.data[50000] = (char)(whole.data[50000] ^ 1);
    check_corrupt(whole.data, whole.len, "bad MDC, ignored");
    whole.data[50000] = (char)(whole.data[50000] ^ 1);
    test_write_file(&home, "gpg.conf", "", 0);
}

static void for_somebody_else(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    test_copy_public(&other, &home, "eve@example.org");
    struct openpgp *to_eve = test_openpgp(&home, "eve@example.org", NULL, &err);
    assert_non_null(to_eve);
    assert_true(test_encrypt(to_eve, plain, PLAIN_SIZE, &coded, &err));
    openpgp_free(to_eve);
    assert_false(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    assert_int_equal(err.code, ERR_KEY);
    /* the key id stands in the first packet, behind its header and version */
    char id[17];
    for (size_t i = 0; i < 8; i++)
        (void)snprintf(id + 2 * i, 3, "%02X", (unsigned char)coded.data[3 + i]);
    if (strstr(err.text, id) == NULL || strstr(err.text, "--import") == NULL)
        fail_msg("%s", err.text);
    buf_free(&coded);
    buf_free(&back);
}

static void passphrase_only(void **state)
{
    (void)state;
    const char *h = home.path;
    assert_int_equal(test_gpg(&home, "--passphrase abc -o %s/sym.gpg -c %s/plain", h, h), 0);
    char command[128];
    (void)snprintf(command, sizeof(command), "gpgconf --homedir %s --kill gpg-agent", h);
    assert_int_equal(system(command), 0); /* it would remember abc */
    check_file("sym.gpg", ERR_KEY, "passphrase only");
}

static void leaves_no_process(void **state)
{
    (void)state;
    assert_int_equal(test_gpg_count_settled(home.path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated),           cmocka_unit_test(flipped_data),
        cmocka_unit_test(flipped_session_key), cmocka_unit_test(something_appended),
        cmocka_unit_test(not_encrypted),       cmocka_unit_test(no_integrity_protection),
        cmocka_unit_test(for_somebody_else),   cmocka_unit_test(passphrase_only),
        cmocka_unit_test(leaves_no_process),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
