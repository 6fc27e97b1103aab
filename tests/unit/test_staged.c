#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/staged.h"

static struct err err;

static void it_is_open_until_the_last_has_done(void **state)
{
    (void)state;
    struct staged *s = staged_new("/tmp", &err);
    assert_non_null(s);
    int fd = s->fd;
    assert_ptr_equal(staged_ref(s), s);
    staged_unref(s);
    assert_int_not_equal(fcntl(fd, F_GETFD), -1);
    staged_unref(s);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    staged_unref(NULL);
}

static void no_place_is_an_error(void **state)
{
    (void)state;
    assert_null(staged_new("/nowhere/at/all", &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_open_until_the_last_has_done),
        cmocka_unit_test(no_place_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
