/* core/openpgp_move.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/openpgp_internal.h"
#include "gpg_home.h"

static const struct call endless = CALL_INIT;
static struct test_home from, to;

static int set_up(void **state)
{
    (void)state;
    (void)gpgme_check_version(NULL);
    test_home_make(&from);
    test_home_make(&to);
    test_key(&from, "Alice <alice@example.org>", "");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_home_remove(&from);
    test_home_remove(&to);
    return 0;
}

static void public_key(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct gpg_run_options source = {.home = from.path, .call = &endless}, target = source;
    struct gpg_exported key;
    unsigned agent_error = 0;
    char fpr[64], copied[64];
    target.home = to.path;
    test_fpr(&from, "alice@example.org", fpr);
    assert_true(gpg_exported_init(&key, &err));
    assert_true(gpg_export_key(&source, fpr, 0, &key, &agent_error, &err));
    assert_int_equal(agent_error, 0);
    assert_true(gpg_import_key(&target, &key, &err));
    assert_true(gpg_import_key(&target, &key, &err)); /* nothing new is fine */
    test_fpr(&to, "alice@example.org", copied);
    assert_string_equal(copied, fpr);
    assert_int_not_equal(test_gpg(&to, "-K %s", fpr), 0); /* no secret came along */
    gpg_exported_free(&key);
}

static void what_is_no_key(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct gpg_run_options source = {.home = from.path, .call = &endless};
    struct gpg_exported key;
    unsigned agent_error = 0;
    assert_true(gpg_exported_init(&key, &err));
    assert_true(gpg_export_key(&source, "0123456789ABCDEF0123456789ABCDEF01234567", 0, &key,
                               &agent_error, &err));
    assert_int_equal(key.len, 0);
    assert_int_not_equal(agent_error, 0);
    assert_true(key.base.write(&key.base, "garbage", 7, &err));
    assert_false(gpg_import_key(&source, &key, &err));
    assert_int_equal(err.code, ERR_KEY);
    gpg_exported_free(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_key),
        cmocka_unit_test(what_is_no_key),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
