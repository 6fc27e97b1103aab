#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpg_home.h"

static struct test_home home;
static struct openpgp *pgp;
static char fpr[64];

static int set_up(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    test_home_make(&home);
    test_key(&home, "Alice <alice@example.org>", "");
    test_key(&home, "Bob <bob@example.org>", "");
    test_fpr(&home, "alice@example.org", fpr);
    pgp = test_openpgp(&home, fpr, NULL, &err);
    if (pgp == NULL)
        print_error("%s\n", err.text);
    return pgp == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    openpgp_free(pgp);
    test_home_remove(&home);
    return 0;
}

static void message_starts(void **state)
{
    (void)state;
    static const unsigned char yes[] = {0x84, 0x85, 0x86, 0x87, 0xc1, 0x8c, 0x8d, 0xc3,
                                        0xa4, 0xa7, 0xc9, 0xd2, 0xd4, 0xa8, 0xca};
    static const unsigned char no[] = {0x00, 0x04, 0x41, 0x7f, 0x80, 0x89, 0x88, 0x8b, 0x90,
                                       0x94, 0x98, 0xa0, 0xac, 0xb4, 0xbf, 0xc2, 0xc4, 0xc8,
                                       0xcb, 0xd1, 0xd3, 0xd5, 0xff, '-',  '{',  0x1f};
    for (size_t i = 0; i < sizeof(yes); i++)
        assert_true(openpgp_is_message(&yes[i], 1));
    for (size_t i = 0; i < sizeof(no); i++)
        assert_false(openpgp_is_message(&no[i], 1));
    assert_false(openpgp_is_message("\x89LZO\0\r\n\x1a\n", 9));
    assert_false(openpgp_is_message("\x85", 0));
}

static void check_round_trip(struct openpgp *with, const char *plain, size_t n)
{
    struct err err = ERR_INIT;
    struct buf coded, back;
    if (!test_encrypt(with, plain, n, &coded, &err))
        fail_msg("%s", err.text);
    assert_true(openpgp_is_message(coded.data, coded.len));
    if (!test_decrypt(with, coded.data, coded.len, &back, &err))
        fail_msg("%s", err.text);
    assert_int_equal(back.len, n);
    assert_memory_equal(buf_str(&back), plain, n);
    buf_free(&coded);
    buf_free(&back);
}

static void round_trips(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 65535, 65536, 65537, 1 << 20, 16 << 20};
    char *plain = test_bytes(16 << 20, 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_round_trip(pgp, plain, sizes[i]);
    free(plain);
}

static void is_not_compressed(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded;
    char *zeros = calloc(1, 1 << 20);
    assert_true(test_encrypt(pgp, zeros, 1 << 20, &coded, &err));
    assert_true(coded.len > 1 << 20);
    buf_free(&coded);
    free(zeros);
}

static void gpg_reads_ours(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back = BUF_INIT(2 << 20);
    char *plain = test_bytes(1 << 20, 2);
    assert_true(test_encrypt(pgp, plain, 1 << 20, &coded, &err));
    test_write_file(&home, "ours.gpg", coded.data, coded.len);
    assert_int_equal(test_gpg(&home, "-o %s/ours -d %s/ours.gpg", home.path, home.path), 0);
    test_read_file(&home, "ours", &back);
    assert_int_equal(back.len, 1 << 20);
    assert_memory_equal(back.data, plain, 1 << 20);
    buf_free(&coded);
    buf_free(&back);
    free(plain);
}

static void check_reads_gpgs(const char *args, const char *plain, size_t n)
{
    struct err err = ERR_INIT;
    struct buf coded = BUF_INIT(2 << 20), back;
    test_write_file(&home, "plain", plain, n);
    assert_int_equal(test_gpg(&home, "%s -o %s/x.gpg -e %s/plain", args, home.path, home.path), 0);
    test_read_file(&home, "x.gpg", &coded);
    assert_true(openpgp_is_message(coded.data, coded.len));
    if (!test_decrypt(pgp, coded.data, coded.len, &back, &err))
        fail_msg("%s: %s", args, err.text);
    assert_int_equal(back.len, n);
    assert_memory_equal(buf_str(&back), plain, n);
    buf_free(&coded);
    buf_free(&back);
}

static void reads_gpgs(void **state)
{
    (void)state;
    char *plain = test_bytes(300000, 3);
    memset(plain + 1000, 'a', 200000);
    check_reads_gpgs("-r alice@example.org", plain, 300000);
    check_reads_gpgs("-z 0 -r alice@example.org", plain, 300000);
    check_reads_gpgs("--compress-algo bzip2 -r alice@example.org", plain, 300000);
    check_reads_gpgs("-r bob@example.org -r alice@example.org", plain, 300000);
    check_reads_gpgs("-R alice@example.org", plain, 300000); /* no key id in it */
    check_reads_gpgs("--passphrase '' -s -r alice@example.org", plain, 300000);
    check_reads_gpgs("--passphrase x -c -r alice@example.org", plain, 300000);
    check_reads_gpgs("-r alice@example.org", "", 0);
    free(plain);
}

static void reads_rsa(void **state)
{
    (void)state;
    char rsa[64];
    test_key_ext(&home, "Rosa <rosa@example.org>", "--passphrase ''", "rsa2048", "never");
    test_fpr(&home, "rosa@example.org", rsa);
    assert_int_equal(test_gpg(&home, "--passphrase '' --quick-add-key %s rsa2048 encr never", rsa),
                     0);
    struct err err = ERR_INIT;
    struct openpgp *with_rsa = test_openpgp(&home, "rosa@example.org", NULL, &err);
    if (with_rsa == NULL)
        fail_msg("%s", err.text);
    check_round_trip(with_rsa, "some text", 9);
    openpgp_free(with_rsa);
}

static void encrypts_to_all(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const char *names[] = {"bob@example.org", fpr + 24};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = 2;
    struct openpgp *both = openpgp_new(&options, &err);
    if (both == NULL)
        fail_msg("%s", err.text);
    assert_true(openpgp_encrypts(both));
    struct buf coded, back;
    assert_true(test_encrypt(both, "for two", 7, &coded, &err));
    /* two session key packets, of 94 and 2 bytes here, then the data */
    assert_int_equal((unsigned char)coded.data[0], 0x84);
    assert_int_equal((unsigned char)coded.data[96], 0x84);
    assert_int_equal((unsigned char)coded.data[192], 0xd2);
    assert_true(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    buf_free(&coded);
    buf_free(&back);
    openpgp_free(both);
}

static void decrypts_without_recipients(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct openpgp *plain_only = test_openpgp(&home, NULL, NULL, &err);
    assert_non_null(plain_only);
    assert_false(openpgp_encrypts(plain_only));
    struct buf coded, back;
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    assert_true(test_decrypt(plain_only, coded.data, coded.len, &back, &err));
    assert_string_equal(buf_str(&back), "text");
    buf_free(&back);
    assert_false(test_encrypt(plain_only, "text", 4, &back, &err));
    assert_int_equal(err.code, ERR_INVALID);
    buf_free(&coded);
    buf_free(&back);
    openpgp_free(plain_only);
}

static void leaves_nothing_open(void **state)
{
    (void)state;
    size_t fds = test_open_fds();
    for (int i = 0; i < 3; i++)
        check_round_trip(pgp, "text", 4);
    assert_int_equal(test_open_fds(), fds);
    assert_int_equal(test_gpg_count_settled(home.path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_starts),      cmocka_unit_test(round_trips),
        cmocka_unit_test(is_not_compressed),   cmocka_unit_test(gpg_reads_ours),
        cmocka_unit_test(reads_gpgs),          cmocka_unit_test(reads_rsa),
        cmocka_unit_test(encrypts_to_all),     cmocka_unit_test(decrypts_without_recipients),
        cmocka_unit_test(leaves_nothing_open),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
