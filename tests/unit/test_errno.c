/* fs/errno.c: each error has its errno, and only absence is ENOENT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fs/errno.h"

static int errno_of(enum err_code code)
{
    struct err err = ERR_INIT;
    err_set(&err, code, "x");
    return fs_errno(&err);
}

static void test_each(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        int number;
    } table[] = {{ERR_NONE, EIO},
                 {ERR_ABSENT, ENOENT},
                 {ERR_EXISTS, EEXIST},
                 {ERR_FORBIDDEN, EACCES},
                 {ERR_NO_BUCKET, EIO},
                 {ERR_THROTTLED, EIO},
                 {ERR_UNAVAILABLE, EIO},
                 {ERR_TIMEOUT, EIO},
                 {ERR_CANCELLED, EINTR},
                 {ERR_CORRUPT, EIO},
                 {ERR_KEY, EACCES},
                 {ERR_INVALID, EINVAL},
                 {ERR_DENIED, EPERM},
                 {ERR_NO_SPACE, ENOSPC},
                 {ERR_NO_MEMORY, ENOMEM},
                 {ERR_LOCAL, EIO},
                 {ERR_UNSUPPORTED, EOPNOTSUPP},
                 {ERR_FROZEN, EIO},
                 {ERR_NO_ATTRIBUTE, ENODATA},
                 {ERR_BUSY, EBUSY},
                 {ERR_NOT_EMPTY, ENOTEMPTY},
                 {ERR_STALE, ESTALE}};
    assert_int_equal(sizeof(table) / sizeof(table[0]), ERR_CODES);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_int_equal(errno_of(table[i].code), table[i].number);
}

/* Also for codes that are added later, and for what is no code. */
static void test_only_absence_is_enoent(void **state)
{
    (void)state;
    for (int code = 0; code < 64; code++) {
        int number = errno_of((enum err_code)code);
        assert_true(number > 0);
        if (code != ERR_ABSENT)
            assert_int_not_equal(number, ENOENT);
    }
}

static void test_local_reasons(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_sys(&err, ENOENT, "no such file on this host");
    assert_int_equal(fs_errno(&err), EIO);
    err_sys(&err, EDQUOT, "x");
    assert_int_equal(fs_errno(&err), EDQUOT);
    err_sys(&err, ENOSPC, "x");
    assert_int_equal(fs_errno(&err), ENOSPC);
    err_sys(&err, ENOMEM, "x");
    assert_int_equal(fs_errno(&err), ENOMEM);
}

/* What cannot be accepted is EINVAL, but for a name that is too long POSIX has a word of its own.
 */
static void test_a_name_that_is_too_long(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_INVALID, "x");
    err.sys_errno = ENAMETOOLONG;
    assert_int_equal(fs_errno(&err), ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_only_absence_is_enoent),
        cmocka_unit_test(test_local_reasons),
        cmocka_unit_test(test_a_name_that_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
