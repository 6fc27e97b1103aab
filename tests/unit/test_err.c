#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "core/err.h"

static const enum err_code codes[] = {
    ERR_NONE,      ERR_ABSENT,      ERR_EXISTS,  ERR_FORBIDDEN,    ERR_NO_BUCKET,
    ERR_THROTTLED, ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_CANCELLED,    ERR_CORRUPT,
    ERR_KEY,       ERR_INVALID,     ERR_DENIED,  ERR_NO_SPACE,     ERR_NO_MEMORY,
    ERR_LOCAL,     ERR_UNSUPPORTED, ERR_FROZEN,  ERR_NO_ATTRIBUTE,
};
#define CODE_COUNT (sizeof(codes) / sizeof(codes[0]))

static void test_init(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(e.code, ERR_NONE);
    assert_int_equal(e.sys_errno, 0);
    assert_int_equal(e.retry_after_ms, 0);
    assert_string_equal(e.text, "");
}

static void test_set(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    e.sys_errno = EIO;
    e.retry_after_ms = 17;
    strcpy(e.remote, "SlowDown");
    strcpy(e.request, "tx1");
    assert_false(err_set(&e, ERR_CORRUPT, "%s: block %d", "wal/x", 7));
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_string_equal(e.text, "wal/x: block 7");
    assert_string_equal(e.remote, "");
    assert_string_equal(e.request, "");
    /* nothing is left of an earlier error */
    assert_int_equal(e.sys_errno, 0);
    assert_int_equal(e.retry_after_ms, 0);
}

static void test_sys(void **state)
{
    (void)state;
    static const struct {
        int sys_errno;
        enum err_code code;
        const char *text;
    } cases[] = {
        {ENOENT, ERR_LOCAL, "opening a: No such file or directory"},
        {EACCES, ERR_LOCAL, "opening a: Permission denied"},
        {ENOSPC, ERR_NO_SPACE, "opening a: No space left on device"},
        {EDQUOT, ERR_NO_SPACE, "opening a: Disk quota exceeded"},
        {ENOMEM, ERR_NO_MEMORY, "opening a: Cannot allocate memory"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err e = ERR_INIT;
        assert_false(err_sys(&e, cases[i].sys_errno, "opening %s", "a"));
        assert_int_equal(e.code, cases[i].code);
        assert_int_equal(e.sys_errno, cases[i].sys_errno);
        assert_string_equal(e.text, cases[i].text);
    }
}

static void test_context(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    err_sys(&e, EIO, "reading");
    e.retry_after_ms = 5;
    assert_false(err_context(&e, "restoring %s", "base_1"));
    assert_string_equal(e.text, "restoring base_1: reading: Input/output error");
    assert_int_equal(e.code, ERR_LOCAL);
    assert_int_equal(e.sys_errno, EIO);
    assert_int_equal(e.retry_after_ms, 5);
}

static void test_long_texts_are_cut(void **state)
{
    (void)state;
    char big[2000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    struct err e = ERR_INIT;
    err_set(&e, ERR_INVALID, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    err_context(&e, "short");
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    assert_memory_equal(e.text, "short: xxx", 10);
    err_context(&e, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    err_sys(&e, EIO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    assert_int_equal(e.sys_errno, EIO);
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < CODE_COUNT; i++) {
        assert_string_not_equal(err_name(codes[i]), "unknown");
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(err_name(codes[i]), err_name(codes[k]));
    }
    assert_string_equal(err_name(ERR_ABSENT), "absent");
    assert_string_equal(err_name(ERR_NO_BUCKET), "no bucket");
    assert_string_equal(err_name((enum err_code)999), "unknown");
}

/* What says something about the object, or about the caller's wish, is final; the rest is not. */
static void test_transient(void **state)
{
    (void)state;
    static const enum err_code final[] = {
        ERR_NONE,   ERR_ABSENT, ERR_EXISTS,    ERR_CORRUPT,     ERR_INVALID,
        ERR_DENIED, ERR_FROZEN, ERR_CANCELLED, ERR_UNSUPPORTED, ERR_NO_ATTRIBUTE};
    for (size_t i = 0; i < CODE_COUNT; i++) {
        bool is_final = false;
        for (size_t k = 0; k < sizeof(final) / sizeof(final[0]); k++)
            is_final = is_final || final[k] == codes[i];
        if (err_transient(codes[i]) == is_final)
            fail_msg("%s", err_name(codes[i]));
    }
    assert_false(err_transient((enum err_code)999));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init),      cmocka_unit_test(test_set),
        cmocka_unit_test(test_sys),       cmocka_unit_test(test_context),
        cmocka_unit_test(test_names),     cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_transient),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
