/* core/digest.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/digest.h"
#include "core/spool.h"
#include "gpg_home.h"

#define SALT "000102030405060708090a0b0c0d0eff"
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"

static void digest_of(const char *like, const void *data, size_t n, char text[DIGEST_TEXT_MAX])
{
    struct err err = ERR_INIT;
    struct digest *d = digest_new(like, &err);
    assert_non_null(d);
    for (size_t at = 0; at < n; at += 1000)
        assert_true(digest_update(d, (const char *)data + at, n - at < 1000 ? n - at : 1000, &err));
    assert_true(digest_final(d, text, &err));
    digest_free(d);
}

static void test_form(void **state)
{
    (void)state;
    unsigned char salted[16 + 3], sum[32];
    char text[DIGEST_TEXT_MAX], expected[DIGEST_TEXT_MAX];
    for (int i = 0; i < 16; i++)
        salted[i] = (unsigned char)i;
    salted[15] = 0xff;
    memcpy(salted + 16, "abc", 3);
    SHA256(salted, sizeof(salted), sum);
    int at = snprintf(expected, sizeof(expected), "sha256:" SALT ":");
    for (int i = 0; i < 32; i++)
        at += snprintf(expected + at, sizeof(expected) - (size_t)at, "%02x", sum[i]);
    digest_of("sha256:" SALT ":" ZEROS, "abc", 3, text);
    assert_string_equal(text, expected);
}

static void test_salts(void **state)
{
    (void)state;
    char a[DIGEST_TEXT_MAX], b[DIGEST_TEXT_MAX], again[DIGEST_TEXT_MAX];
    digest_of(NULL, "abc", 3, a);
    digest_of(NULL, "abc", 3, b);
    assert_string_not_equal(a, b); /* equal content does not show */
    assert_int_not_equal(memcmp(a, b, 7 + 32), 0);
    digest_of(a, "abc", 3, again);
    assert_string_equal(a, again);
    digest_of(a, "abd", 3, again);
    assert_string_not_equal(a, again);
    digest_of(a, "", 0, again);
    assert_string_not_equal(a, again);
}

static void test_what_is_not_of_that_form(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "sha256:",
        "sha256:" SALT,
        "sha256:" SALT ":",
        "sha256:" SALT ":" ZEROS "0",
        "sha256:" SALT "0:" ZEROS,
        "sha256:" SALT ";" ZEROS,
        "SHA256:" SALT ":" ZEROS,
        "sha512:" SALT ":" ZEROS,
        "sha256:000102030405060708090A0B0C0D0EFF:" ZEROS,
        "sha256:000102030405060708090a0b0c0d0e0g:" ZEROS,
        "sha256: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1:" ZEROS,
        "sha256:+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1:" ZEROS,
        "sha256:0x0x0x0x0x0x0x0x0x0x0x0x0x0x0x0x:" ZEROS,
        "sha256:" SALT ":z000000000000000000000000000000000000000000000000000000000000000",
        " sha256:" SALT ":" ZEROS,
        "sha256:" SALT ":" ZEROS "\n"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct err err = ERR_INIT;
        if (digest_new(wrong[i], &err) != NULL)
            fail_msg("taken for a digest: %s", wrong[i]);
        assert_int_equal(err.code, ERR_INVALID);
    }
    digest_free(NULL);
}

static void test_of_a_file(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t n = 700001;
    char *data = test_bytes(n, 1);
    char whole[DIGEST_TEXT_MAX], text[DIGEST_TEXT_MAX];
    int fd = spool_open("/var/tmp", &err);
    assert_true(spool_write(fd, data, n, 0, &err));
    digest_of(NULL, data, n, whole);
    assert_true(digest_fd(fd, n, whole, text, &err));
    assert_string_equal(text, whole);
    assert_true(digest_fd(fd, n - 1, whole, text, &err)); /* the first bytes only */
    assert_string_not_equal(text, whole);
    assert_false(digest_fd(fd, n + 1, whole, text, &err)); /* there are not so many */
    assert_int_equal(err.code, ERR_LOCAL);
    assert_false(digest_fd(fd, n, "nonsense", text, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_true(digest_fd(fd, 0, whole, text, &err));
    assert_true(digest_fd(fd, n, NULL, text, &err));
    close(fd);
    assert_false(digest_fd(fd, n, whole, text, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_salts),
        cmocka_unit_test(test_what_is_not_of_that_form),
        cmocka_unit_test(test_of_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
