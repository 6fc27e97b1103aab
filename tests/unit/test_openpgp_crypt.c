/* Messages of kinds that walefs does not write itself: with a passphrase only, with AEAD, for keys
 * that have been replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpg_home.h"

#define PASS "correct horse battery"
#define PLAIN_BYTES 100000
#define AEAD_CHUNK_OCTET 10 /* 64 KiB: two chunks */

static struct test_home home;
static char *plain;

static int set_up(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Alice <alice@example.org>", PASS);
    plain = test_bytes(PLAIN_BYTES, 1);
    test_write_file(&home, "plain", plain, PLAIN_BYTES);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(plain);
    test_home_remove(&home);
    return 0;
}

/* Forgets what gpg has been told on its command line. */
static void kill_agent(const struct test_home *h)
{
    char command[256];
    (void)snprintf(command, sizeof(command), "gpgconf --homedir %s --kill gpg-agent", h->path);
    assert_int_equal(system(command), 0);
}

static struct openpgp *with_passphrase(const char *recipient, const char *passphrase)
{
    struct err err = ERR_INIT;
    struct openpgp *pgp = test_openpgp(&home, recipient, passphrase, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    return pgp;
}

static void check_reads(struct openpgp *pgp, const struct buf *message)
{
    struct err err = ERR_INIT;
    struct buf back;
    if (!test_decrypt(pgp, message->data, message->len, &back, &err))
        fail_msg("%s: %s", err_name(err.code), err.text);
    assert_int_equal(back.len, PLAIN_BYTES);
    assert_memory_equal(back.data, plain, PLAIN_BYTES);
    buf_free(&back);
}

static void check_refuses(struct openpgp *pgp, const struct buf *message, enum err_code code,
                          const char *why)
{
    struct err err = ERR_INIT;
    struct buf back;
    assert_false(test_decrypt(pgp, message->data, message->len, &back, &err));
    if (err.code != code || strstr(err.text, why) == NULL)
        fail_msg("%s: %s", err_name(err.code), err.text);
    buf_free(&back);
}

static struct buf make_message(const char *args)
{
    struct buf message = BUF_INIT(1 << 20);
    assert_int_equal(test_gpg(&home, "-o %s/m.gpg %s %s/plain", home.path, args, home.path), 0);
    test_read_file(&home, "m.gpg", &message);
    kill_agent(&home);
    return message;
}

static void symmetric(void **state)
{
    (void)state;
    struct buf ours = make_message("--passphrase '" PASS "' -c");
    struct buf other = make_message("--passphrase 'something else' -c");
    struct openpgp *pgp = with_passphrase(NULL, PASS);
    check_reads(pgp, &ours);
    check_refuses(pgp, &other, ERR_KEY, "the configured one does not open it");
    check_reads(pgp, &ours);
    openpgp_free(pgp);
    pgp = with_passphrase(NULL, NULL);
    check_refuses(pgp, &ours, ERR_KEY, "set passphrase_file to read it");
    openpgp_free(pgp);
    buf_free(&ours);
    buf_free(&other);
}

static void symmetric_and_to_a_key(void **state)
{
    (void)state;
    struct buf message = make_message("--passphrase 'something else' -r alice@example.org -e -c");
    struct openpgp *pgp = with_passphrase(NULL, PASS);
    check_reads(pgp, &message);
    openpgp_free(pgp);
    buf_free(&message);
}

/* ---- AEAD: the OCB Encrypted Data packet of RFC 4880bis, section 5.16, as GnuPG 2.3 writes it.
 * GnuPG 2.2 reads it but cannot write it, so it is made here, with a session key that gpg chose.
 * ---- */

static void big_endian(unsigned char *out, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        out[i] = (unsigned char)v;
}

/* One chunk, or with N 0 the tag at the end. AD_BYTES 13, or 21 with the total. */
static void seal(const unsigned char key[32], const unsigned char iv[15], const unsigned char *ad,
                 int ad_bytes, uint64_t index, const void *data, int n, struct buf *out)
{
    unsigned char nonce[15], low[8], coded[70000], tag[16];
    int len;
    memcpy(nonce, iv, 15);
    big_endian(low, index);
    for (int i = 0; i < 8; i++)
        nonce[7 + i] ^= low[i];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_ocb(), NULL, NULL, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, 15, NULL), 1);
    assert_int_equal(EVP_EncryptInit_ex(ctx, NULL, NULL, key, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &len, ad, ad_bytes), 1);
    if (n > 0) {
        int last;
        assert_int_equal(EVP_EncryptUpdate(ctx, coded, &len, data, n), 1);
        assert_int_equal(EVP_EncryptFinal_ex(ctx, coded + len, &last), 1);
        assert_int_equal(len + last, n);
        assert_true(buf_append(out, coded, (size_t)n));
    } else {
        assert_int_equal(EVP_EncryptFinal_ex(ctx, coded, &len), 1);
    }
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, tag), 1);
    assert_true(buf_append(out, tag, 16));
    EVP_CIPHER_CTX_free(ctx);
}

static void append_packet(struct buf *out, unsigned tag, const struct buf *body)
{
    const unsigned char head[6] = {
        (unsigned char)(0xC0 | tag),      0xFF,
        (unsigned char)(body->len >> 24), (unsigned char)(body->len >> 16),
        (unsigned char)(body->len >> 8),  (unsigned char)body->len};
    assert_true(buf_append(out, head, 6) && buf_append(out, body->data, body->len));
}

/* The data packet for PLAIN. */
static void append_aead(struct buf *out, const unsigned char key[32])
{
    static const char literal_head[6] = {'b', 0, 0, 0, 0, 0};
    static const unsigned char iv[15] = "fifteen octets!";
    unsigned char ad[21] = {0xD4, 1, 9, 2, AEAD_CHUNK_OCTET};
    struct buf literal = BUF_INIT(1 << 20), packet = BUF_INIT(1 << 20), body = BUF_INIT(1 << 20);
    assert_true(buf_append(&literal, literal_head, 6) && buf_append(&literal, plain, PLAIN_BYTES));
    append_packet(&packet, 11, &literal);
    assert_true(buf_append(&body, ad + 1, 4) && buf_append(&body, iv, 15));
    uint64_t index = 0;
    size_t chunk = (size_t)1 << (AEAD_CHUNK_OCTET + 6);
    for (size_t at = 0; at < packet.len; at += chunk, index++) {
        size_t n = packet.len - at < chunk ? packet.len - at : chunk;
        big_endian(ad + 5, index);
        seal(key, iv, ad, 13, index, packet.data + at, (int)n, &body);
    }
    assert_int_equal(index, 2);
    big_endian(ad + 5, index);
    big_endian(ad + 13, packet.len);
    seal(key, iv, ad, 21, index, NULL, 0, &body);
    append_packet(out, 20, &body);
    buf_free(&literal);
    buf_free(&packet);
    buf_free(&body);
}

/* The session key of m.gpg. */
static void session_key(unsigned char key[32])
{
    char command[512], line[256];
    bool found = false;
    (void)snprintf(command, sizeof(command),
                   "gpg --homedir %s --batch --pinentry-mode loopback --passphrase '%s' "
                   "--show-session-key -o /dev/null -d %s/m.gpg 2>&1",
                   home.path, PASS, home.path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *hex = strstr(line, "'9:");
        for (size_t i = 0; hex != NULL && i < 32; i++)
            found = sscanf(hex + 3 + 2 * i, "%2hhx", &key[i]) == 1;
    }
    pclose(f);
    assert_true(found);
}

static struct buf make_aead(void)
{
    unsigned char key[32];
    struct buf message = make_message("-r alice@example.org --trust-model always -e");
    session_key(key);
    kill_agent(&home);
    /* its first packet, of the old format with one octet of length, is the session key's */
    assert_int_equal((unsigned char)message.data[0], 0x84);
    message.len = 2 + (size_t)(unsigned char)message.data[1];
    append_aead(&message, key);
    return message;
}

static void aead(void **state)
{
    (void)state;
    struct buf message = make_aead();
    struct openpgp *pgp = with_passphrase(NULL, PASS);
    check_reads(pgp, &message);
    /* each chunk is protected, and where the message ends */
    static const size_t flips[] = {3, 20, 20000, 40000};
    for (size_t i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
        message.data[message.len - flips[i]] ^= 1;
        check_refuses(pgp, &message, ERR_CORRUPT, "not a whole");
        message.data[message.len - flips[i]] ^= 1;
    }
    static const size_t cuts[] = {1, 15, 1, 15, 30000};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        message.len -= cuts[i];
        check_refuses(pgp, &message, ERR_CORRUPT, "not a whole");
    }
    openpgp_free(pgp);
    buf_free(&message);
}

/* ---- rotation: old objects stay readable, new ones go to the new key ---- */

static bool is_for(const struct buf *message, const char *user_id)
{
    char command[512];
    test_write_file(&home, "for.gpg", message->data, message->len);
    (void)snprintf(command, sizeof(command),
                   "id=$(gpg --homedir %s --with-colons -k '%s' 2>/dev/null | awk -F: "
                   "'/^sub/{print $5}' | tail -n 1); gpg --homedir %s --batch --list-only -v -d "
                   "%s/for.gpg 2>&1 | grep -q \"$id\"",
                   home.path, user_id, home.path, home.path);
    return system(command) == 0;
}

static void rotated_key(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf old = BUF_INIT(0), new = BUF_INIT(0), both = BUF_INIT(0);
    test_key(&home, "Next <next@example.org>", PASS);
    struct openpgp *pgp = with_passphrase("alice@example.org", PASS);
    assert_true(test_encrypt(pgp, plain, PLAIN_BYTES, &old, &err));
    openpgp_free(pgp);
    pgp = with_passphrase("next@example.org", PASS);
    assert_true(test_encrypt(pgp, plain, PLAIN_BYTES, &new, &err));
    check_reads(pgp, &old);
    check_reads(pgp, &new);
    openpgp_free(pgp);
    assert_true(is_for(&old, "alice@example.org") && !is_for(&old, "next@example.org"));
    assert_true(is_for(&new, "next@example.org") && !is_for(&new, "alice@example.org"));

    /* meanwhile to both, and a host that has but one of them reads that */
    const char *const names[] = {"alice@example.org", "next@example.org"};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = 2;
    pgp = openpgp_new(&options, &err);
    assert_non_null(pgp);
    assert_true(test_encrypt(pgp, plain, PLAIN_BYTES, &both, &err));
    openpgp_free(pgp);
    char fpr[64];
    test_fpr(&home, "alice@example.org", fpr);
    assert_int_equal(test_gpg(&home, "--delete-secret-and-public-key %s", fpr), 0);
    pgp = with_passphrase("next@example.org", PASS);
    check_reads(pgp, &both);
    check_reads(pgp, &new);
    check_refuses(pgp, &old, ERR_KEY, "no secret key: the message is encrypted to ");
    openpgp_free(pgp);
    buf_free(&old);
    buf_free(&new);
    buf_free(&both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(symmetric),
        cmocka_unit_test(symmetric_and_to_a_key),
        cmocka_unit_test(aead),
        cmocka_unit_test(rotated_key),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
