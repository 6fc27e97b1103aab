/* mount/check_access.c: store and keys of a configuration. S3's answers: tests/mount/check.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpg_home.h"
#include "mount/check_impl.h"

static struct test_home home;
static struct check c;
static char *said;
static size_t said_bytes;
static char dir[64];

static int set_up_keys(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Alice <alice@example.org>", "");
    test_key_ext(&home, "Soon <soon@example.org>", "--passphrase ''", "future-default", "10d");
    test_key_ext(&home, "Old <old@example.org>",
                 "--passphrase '' --faked-system-time 20200101T000000!", "future-default", "1d");
    return 0;
}

static int tear_down_keys(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    memset(&c, 0, sizeof(c));
    cancel_init(&c.cancel);
    c.call = (struct call){.cancel = &c.cancel, .deadline_ms = DEADLINE_NONE};
    c.out = open_memstream(&said, &said_bytes);
    (void)snprintf(dir, sizeof(dir), "/tmp/walefs-test.XXXXXX");
    return c.out == NULL || mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    openpgp_free(c.pgp);
    if (c.store != NULL)
        c.store->ops->free(c.store);
    config_free(&c.config);
    settings_free(&c.settings);
    (void)fclose(c.out);
    free(said);
    cancel_destroy(&c.cancel);
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static void configure(const char *directory, const char *options)
{
    struct err err = ERR_INIT;
    char source[128], list[256];
    (void)snprintf(source, sizeof(source), "file://localhost%s", directory);
    (void)snprintf(list, sizeof(list), "gpg_home=%s,%s", home.path, options);
    if (!settings_add_options(&c.settings, list, &err) || !settings_complete(&c.settings, &err) ||
        !config_make(&c.config, &c.settings, source, true, &err))
        fail_msg("%s", err.text);
}

static void says(const char *text)
{
    (void)fflush(c.out);
    if (strstr(said, text) == NULL)
        fail_msg("no \"%s\" in: %s", text, said);
}

static void store(void **state)
{
    (void)state;
    configure(dir, "");
    assert_true(check_store(&c));
    says("ok      list ");
    says("ok      write       objects can be written, and created conditionally");
    assert_null(strstr(said, "clock")); /* a directory has none */
    assert_null(strstr(said, "credentials"));
    assert_int_equal(c.worst, CHECK_OK);
}

static void read_only_store(void **state)
{
    (void)state;
    char probe[128];
    configure(dir, "ro");
    assert_true(check_store(&c));
    (void)fflush(c.out);
    assert_null(strstr(said, "write"));
    (void)snprintf(probe, sizeof(probe), "%s/walefs_probe", dir);
    assert_int_equal(access(probe, F_OK), -1);
}

static void no_store(void **state)
{
    (void)state;
    configure("/nonexistent/archive", "");
    assert_false(check_store(&c));
    says("FAIL    bucket ");
    says("/nonexistent/archive");
}

static void no_key(void **state)
{
    (void)state;
    configure(dir, "");
    assert_true(check_key(&c));
    says("ok      key         none is set");
    assert_true(c.reads);
}

static void good_key(void **state)
{
    (void)state;
    configure(dir, "gpg_key=alice@example.org");
    assert_true(check_key(&c));
    says("ok      key         encrypted to 1 key\n");
    says("ok      secret-key  what is written here can be decrypted here");
}

static void key_that_ends(void **state)
{
    (void)state;
    configure(dir, "gpg_key=soon@example.org:alice@example.org");
    assert_true(check_key(&c));
    says("warn    key         one that is encrypted to expires on 20");
    assert_int_equal(c.worst, CHECK_WARN);
}

static void expired_key(void **state)
{
    (void)state;
    configure(dir, "gpg_key=old@example.org");
    assert_true(check_key(&c)); /* what is not encrypted can be looked at */
    says("FAIL    key ");
    assert_non_null(c.pgp);
    assert_false(openpgp_encrypts(c.pgp));
}

static void expired_key_allowed(void **state)
{
    (void)state;
    configure(dir, "gpg_key=old@example.org,allow_expired");
    assert_true(check_key(&c));
    says("warn    key         encrypted to one that expired on 2020-01-02");
    says("ok      secret-key  what is written");
}

static void no_secret_key(void **state)
{
    (void)state;
    struct test_home all = home, public;
    test_home_make(&public);
    test_copy_public(&all, &public, "alice@example.org");
    home = public;
    configure(dir, "gpg_key=alice@example.org");
    home = all;
    assert_true(check_key(&c));
    says("ok      secret-key  none that can be used: this host can archive, but not restore");
    assert_false(c.reads);
    assert_int_equal(c.worst, CHECK_OK);
    test_home_remove(&public);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(store),         T(read_only_store), T(no_store),    T(no_key),
        T(good_key),      T(key_that_ends),   T(expired_key), T(expired_key_allowed),
        T(no_secret_key),
    };
    return cmocka_run_group_tests(tests, set_up_keys, tear_down_keys);
}
