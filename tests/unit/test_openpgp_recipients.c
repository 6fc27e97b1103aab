#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/openpgp_recipients.h"

static void assert_recipients(const void *message, size_t n, const char *wanted)
{
    struct buf out = BUF_INIT(1024);
    assert_int_equal(openpgp_recipients(message, n, &out), wanted != NULL);
    if (wanted != NULL)
        assert_string_equal(buf_str(&out), wanted);
    buf_free(&out);
}

/* A session key for a key id, in gpg's old packet form and in the new one. */
#define OLD_TO_1 "\x84\x0c\x03\x01\x23\x45\x67\x89\xab\xcd\xef\x01xx"
#define NEW_TO_2 "\xc1\x0c\x03\x00\x00\x00\x00\x00\x00\x00\x02\x01xx"
#define LONG_TO_3 "\xc1\xff\x00\x00\x00\x0c\x03\x00\x00\x00\x00\x00\x00\x00\x03\x01xx"
#define HIDDEN "\x84\x0c\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01xx"
#define PASSPHRASE "\x8c\x04\x04\x09\x03\x08"
#define MARKER "\xca\x03PGP"
#define NEXT_VERSION "\xc1\x03\x06xx"
#define DATA "\xd2\xedxxxx"
#define S(text) text, sizeof(text) - 1

static void test_messages(void **state)
{
    (void)state;
    assert_recipients(S(OLD_TO_1 DATA), "0123456789ABCDEF");
    assert_recipients(S(MARKER OLD_TO_1 NEW_TO_2 LONG_TO_3 DATA),
                      "0123456789ABCDEF 0000000000000002 0000000000000003");
    assert_recipients(S(HIDDEN PASSPHRASE DATA), "anonymous passphrase");
    assert_recipients(S(NEXT_VERSION OLD_TO_1 DATA), "unknown 0123456789ABCDEF");
    assert_recipients(S(OLD_TO_1 "\x84"), "0123456789ABCDEF"); /* cut behind the first */
    assert_recipients(S("\x85\x10\x00\x03\x01\x23\x45\x67\x89\xab\xcd\xef"),
                      "0123456789ABCDEF"); /* cut in its middle */
}

static void test_what_is_no_message(void **state)
{
    (void)state;
    assert_recipients(S(""), NULL);
    assert_recipients(S("\x89LZO\x00\r\n\x1a\n"), NULL);
    assert_recipients(S(DATA), NULL);
    assert_recipients(S("text"), NULL);
    assert_recipients(S("\x84"), NULL);
    assert_recipients(S("\xc1\xff\x00\x00"), NULL);
}

/* Any bytes: it ends, and reads nothing beyond them. */
static void test_any_bytes(void **state)
{
    (void)state;
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        size_t n = (size_t)rand() % 64;
        unsigned char *bytes = malloc(n + 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (unsigned char)(rand() % 4 == 0 ? 0x84 + rand() % 64 : rand() % 8);
        unsigned char *exact = malloc(n == 0 ? 1 : n);
        memcpy(exact, bytes, n);
        struct buf out = BUF_INIT(4096);
        (void)openpgp_recipients(exact, n, &out);
        buf_free(&out);
        free(exact);
        free(bytes);
    }
}

static void test_a_full_buffer(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(20);
    assert_false(openpgp_recipients(S(OLD_TO_1 NEW_TO_2 DATA), &out));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_what_is_no_message),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_a_full_buffer),
    };
    return cmocka_run_group_tests_name("openpgp_recipients", tests, NULL, NULL);
}
