/* mount/settings.c: where a setting comes from, and what becomes of secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/settings.h"

static struct settings s;
static char dir[32];

static const char *const variables[] = {
    "WALE_S3_PREFIX",        "WALE_FILE_PREFIX",    "AWS_REGION",
    "AWS_DEFAULT_REGION",    "WALE_S3_ENDPOINT",    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",        "SSL_CERT_FILE",       "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",   "AWS_SECURITY_TOKEN",
    "WALE_GPG_KEY_ID",       "GNUPGHOME",           "WALE_S3_STORAGE_CLASS",
    "WALE_LOG_DESTINATION",  "WALE_SYSLOG_FACILITY"};

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    memset(&s, 0, sizeof(s));
    strcpy(dir, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    settings_free(&s);
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static void envdir_file(const char *name, const char *content)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
}

static void options(const char *list)
{
    struct err err = ERR_INIT;
    if (!settings_add_options(&s, list, &err))
        fail_msg("%s: %s", list, err.text);
    assert_int_equal(err.code, ERR_NONE);
}

static void use_envdir(void)
{
    char list[64];
    (void)snprintf(list, sizeof(list), "envdir=%s", dir);
    options(list);
}

static void complete(void)
{
    struct err err = ERR_INIT;
    if (!settings_complete(&s, &err))
        fail_msg("%s", err.text);
}

static void refused(const char *list, const char *hint)
{
    struct err err = ERR_INIT;
    struct settings other = {.secret_key = SECRET_INIT, .sloppy = s.sloppy};
    assert_false(settings_add_options(&other, list, &err));
    assert_int_equal(err.code, ERR_INVALID);
    if (strstr(err.text, hint) == NULL)
        fail_msg("\"%s\" does not say %s", err.text, hint);
    settings_free(&other);
}

static void is(enum setting_id id, const char *value)
{
    const char *has = setting_get(&s, id);
    if (value == NULL)
        assert_null(has);
    else if (has == NULL)
        fail_msg("unset instead of %s", value);
    else
        assert_string_equal(has, value);
}

/* ---- options ---- */

static void test_options(void **state)
{
    (void)state;
    options("region=eu-west-1,ro,cache_size=1G");
    options(",,soft,");
    options("");
    options("allow_other,uid=postgres");
    is(SET_REGION, "eu-west-1");
    is(SET_RO, "");
    is(SET_SOFT, "");
    is(SET_ALLOW_OTHER, "");
    is(SET_CACHE_SIZE, "1G");
    is(SET_UID, "postgres");
    is(SET_GID, NULL);
    options("region=us-east-1,hard,rw"); /* the later one counts */
    is(SET_REGION, "us-east-1");
    is(SET_SOFT, NULL);
    is(SET_RO, NULL);
    options("gpg_key=A,gpg_key=B:C"); /* several keys */
    options("gpg_key=D");
    is(SET_GPG_KEY, "A:B:C:D");
}

static void test_escaping(void **state)
{
    (void)state;
    options("cache_dir=/a\\,b,passphrase_file=/c\\\\d,gpg_home=/e=f,cafile=/x\\");
    is(SET_CACHE_DIR, "/a,b");
    is(SET_PASSPHRASE_FILE, "/c\\d");
    is(SET_GPG_HOME, "/e=f");
    is(SET_CAFILE, "/x\\");
}

static void test_options_of_mount(void **state)
{
    (void)state;
    options(
        "defaults,_netdev,nofail,noauto,auto,user,nouser,users,dev,nodev,suid,nosuid,exec,"
        "noexec,async,sync,atime,noatime,relatime,x-systemd.automount,"
        "x-systemd.requires=network-online.target,comment=hello,comment,rw,x-,X-mount.mkdir=755,"
        "owner,group,mand,nomand,iversion,silent,exec");
    for (enum setting_id id = 0; id < SET_COUNT; id++)
        is(id, NULL);
    options("noexec,default_permissions");
    is(SET_NOEXEC, "");
    is(SET_DEFAULT_PERMISSIONS, "");
    refused("nouser=x", "nouser");
    refused("noauto=1", "noauto");
}

/* Without a value it is fstab's, with one it is ours. */
static void test_user(void **state)
{
    (void)state;
    options("user,user=postgres,user");
    is(SET_USER, "postgres");
    options("setuid=nobody"); /* mount.fuse3's name */
    is(SET_USER, "nobody");
    refused("user=", "user");
    refused("setuid", "user");
}

static void test_remount(void **state)
{
    (void)state;
    refused("remount", "umount");
    refused("ro,user_id=0,remount,rw", "cannot be changed");
    s.sloppy = true;
    refused("remount", "umount");
}

/* mount -s */
static void test_sloppy(void **state)
{
    (void)state;
    s.sloppy = true;
    options("nonsense,nonsense=5,region=x");
    is(SET_REGION, "x");
    refused("passphrase=hunter2", "passphrase");
    refused("region=", "region");
}

static void test_wrong_options(void **state)
{
    (void)state;
    refused("nonsense", "nonsense");
    refused("ro,nonsense=5,rw", "nonsense");
    refused("Region=x", "Region");
    refused("region", "region");
    refused("region=", "region");
    refused("ro=1", "ro");
    refused("=x", "");
    refused("region =x", "region ");
    refused("commentary=x", "commentary");
}

/* ps shows options. */
static void test_secrets_are_no_options(void **state)
{
    (void)state;
    static const char *const names[] = {
        "secret_key",    "secret_access_key", "aws_secret_access_key",
        "session_token", "passphrase",        "access_key_id"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char list[64];
        struct err err = ERR_INIT;
        (void)snprintf(list, sizeof(list), "%s=hunter2", names[i]);
        refused(list, names[i]);
        refused(list, "envdir");
        assert_false(settings_add_options(&s, list, &err));
        assert_null(strstr(err.text, "hunter2"));
    }
}

/* ---- precedence ---- */

static void test_precedence(void **state)
{
    (void)state;
    setenv("AWS_REGION", "of-the-environment", 1);
    setenv("WALE_S3_ENDPOINT", "http://environment", 1);
    setenv("WALE_GPG_KEY_ID", "environment", 1);
    setenv("GNUPGHOME", "/environment", 1);
    envdir_file("AWS_REGION", "of-the-envdir\n");
    envdir_file("WALE_S3_ENDPOINT", "http://envdir\n");
    envdir_file("WALE_GPG_KEY_ID", "envdir\n");
    use_envdir();
    options("region=of-the-option,gpg_key=option");
    complete();
    is(SET_REGION, "of-the-option");
    is(SET_GPG_KEY, "option"); /* replaced, not added to */
    is(SET_ENDPOINT, "http://envdir");
    is(SET_GPG_HOME, "/environment");
    is(SET_STORAGE_CLASS, NULL);
    assert_int_equal(s.of[SET_REGION].origin, ORIGIN_OPTION);
    assert_int_equal(s.of[SET_ENDPOINT].origin, ORIGIN_ENVDIR);
    assert_int_equal(s.of[SET_GPG_HOME].origin, ORIGIN_ENVIRONMENT);
    assert_string_equal(setting_label(&s, SET_REGION), "region");
    assert_string_equal(setting_label(&s, SET_ENDPOINT), "WALE_S3_ENDPOINT");
}

static void test_several_variables(void **state)
{
    (void)state;
    setenv("AWS_DEFAULT_REGION", "second", 1);
    setenv("SSL_CERT_FILE", "/third", 1);
    setenv("CURL_CA_BUNDLE", "/second", 1);
    complete();
    is(SET_REGION, "second");
    is(SET_CAFILE, "/second");
    settings_free(&s);
    setenv("AWS_REGION", "first", 1);
    complete();
    is(SET_REGION, "first");
    settings_free(&s);
    setenv("AWS_REGION", "", 1); /* empty is unset */
    complete();
    is(SET_REGION, "second");
    settings_free(&s);
    /* the envdir as a whole comes before the environment as a whole */
    setenv("AWS_REGION", "first", 1);
    envdir_file("AWS_DEFAULT_REGION", "of-the-envdir");
    use_envdir();
    complete();
    is(SET_REGION, "of-the-envdir");
}

static void test_envdir_files(void **state)
{
    (void)state;
    envdir_file("AWS_REGION", "eu-west-1 \t \r\nsecond line\n");
    envdir_file("WALE_S3_ENDPOINT", "http://no-newline");
    envdir_file("WALE_GPG_KEY_ID", "");
    setenv("WALE_GPG_KEY_ID", "environment", 1);
    use_envdir();
    complete();
    is(SET_REGION, "eu-west-1");
    is(SET_ENDPOINT, "http://no-newline");
    is(SET_GPG_KEY, NULL); /* envdir(8): an empty file unsets the variable */
}

/* As systemd hands them to a unit: before the environment, behind the envdir, and secrets only. */
static void test_credentials_of_a_unit(void **state)
{
    (void)state;
    struct aws_keys keys = {.expires_s = 0};
    struct err err = ERR_INIT;
    bool found;
    envdir_file("AWS_ACCESS_KEY_ID", "of-the-unit\n");
    envdir_file("AWS_SECRET_ACCESS_KEY", "its-secret\n");
    envdir_file("AWS_REGION", "no-secret\n");
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    setenv("AWS_ACCESS_KEY_ID", "of-the-environment", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "another", 1);
    setenv("AWS_SESSION_TOKEN", "of-another", 1);
    complete();
    is(SET_ACCESS_KEY, "of-the-unit");
    is(SET_REGION, NULL);
    assert_int_equal(s.of[SET_ACCESS_KEY].origin, ORIGIN_CREDENTIAL);
    assert_string_equal(s.secret_key.value, "its-secret");
    assert_false(secret_is_set(&s.session_token)); /* not of these keys */
    /* read anew, as renewing does: who the process is by then may not read the files */
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/AWS_SECRET_ACCESS_KEY", dir);
    assert_int_equal(unlink(path), 0);
    assert_true(settings_read_keys(&s, &keys, &found, &err) && found);
    assert_string_equal(keys.id.value, "of-the-unit");
    assert_string_equal(keys.secret.value, "its-secret");
    aws_keys_free(&keys);
    settings_free(&s);
    setenv("CREDENTIALS_DIRECTORY", "relative", 1);
    assert_null(settings_credentials_dir());
    setenv("CREDENTIALS_DIRECTORY", "/nonexistent", 1); /* and a unit without any of ours */
    setenv("AWS_ACCESS_KEY_ID", "of-the-environment", 1);
    complete();
    is(SET_ACCESS_KEY, "of-the-environment");
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void incomplete(const char *hint)
{
    struct err err = ERR_INIT;
    assert_false(settings_complete(&s, &err));
    assert_int_not_equal(err.code, ERR_NONE);
    if (strstr(err.text, hint) == NULL)
        fail_msg("\"%s\" does not say %s", err.text, hint);
}

static void test_unusable_envdir(void **state)
{
    (void)state;
    char path[128];
    options("envdir=/nonexistent/dir");
    incomplete("/nonexistent/dir");
    settings_free(&s);
    options("envdir=/dev/null");
    incomplete("/dev/null");
    settings_free(&s);
    use_envdir();
    (void)snprintf(path, sizeof(path), "%s/AWS_REGION", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    incomplete("AWS_REGION");
}

static void test_binary_in_an_envdir(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/AWS_REGION", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "a\0b\n", 4), 4);
    close(fd);
    use_envdir();
    struct err err = ERR_INIT;
    if (settings_complete(&s, &err))
        assert_string_not_equal(setting_get(&s, SET_REGION), "a"); /* never silently cut */
}

/* ---- credentials ---- */

static void credentials(const char *id, const char *secret, const char *token)
{
    is(SET_ACCESS_KEY, id);
    assert_int_equal(secret_is_set(&s.secret_key), secret != NULL);
    if (secret != NULL)
        assert_string_equal(s.secret_key.value, secret);
    assert_int_equal(secret_is_set(&s.session_token), token != NULL);
    if (token != NULL)
        assert_string_equal(s.session_token.value, token);
}

static void set_environment(void)
{
    setenv("AWS_ACCESS_KEY_ID", "env-id", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "env-secret", 1);
    setenv("AWS_SESSION_TOKEN", "env-token", 1);
}

static void test_credentials_of_the_environment(void **state)
{
    (void)state;
    set_environment();
    complete();
    credentials("env-id", "env-secret", "env-token");
    /* gpg would inherit them */
    assert_null(getenv("AWS_SECRET_ACCESS_KEY"));
    assert_null(getenv("AWS_SESSION_TOKEN"));
    assert_null(getenv("AWS_SECURITY_TOKEN"));
}

static void test_older_name_of_the_token(void **state)
{
    (void)state;
    set_environment();
    unsetenv("AWS_SESSION_TOKEN");
    setenv("AWS_SECURITY_TOKEN", "old-token", 1);
    complete();
    credentials("env-id", "env-secret", "old-token");
    assert_null(getenv("AWS_SECURITY_TOKEN"));
    settings_free(&s);
    set_environment();
    setenv("AWS_SECURITY_TOKEN", "old-token", 1);
    complete();
    credentials("env-id", "env-secret", "env-token");
}

/* Key id, secret and token are never mixed from two places. */
static void test_credentials_are_a_unit(void **state)
{
    (void)state;
    set_environment();
    envdir_file("AWS_ACCESS_KEY_ID", "dir-id\n");
    envdir_file("AWS_SECRET_ACCESS_KEY", "dir-secret\n");
    use_envdir();
    complete();
    credentials("dir-id", "dir-secret", NULL); /* not the environment's token */
    assert_null(getenv("AWS_SECRET_ACCESS_KEY"));
    assert_null(getenv("AWS_SESSION_TOKEN"));
    settings_free(&s);

    set_environment();
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/AWS_SECRET_ACCESS_KEY", dir);
    assert_int_equal(unlink(path), 0);
    use_envdir();
    complete();
    credentials("dir-id", NULL, NULL); /* nor its secret */
    settings_free(&s);

    set_environment();
    (void)snprintf(path, sizeof(path), "%s/AWS_ACCESS_KEY_ID", dir);
    assert_int_equal(unlink(path), 0);
    envdir_file("AWS_SESSION_TOKEN", "dir-token");
    envdir_file("AWS_SECRET_ACCESS_KEY", "dir-secret");
    use_envdir();
    complete();
    credentials("env-id", "env-secret", "env-token");
}

static void test_no_credentials(void **state)
{
    (void)state;
    setenv("AWS_SECRET_ACCESS_KEY", "alone", 1);
    complete();
    is(SET_ACCESS_KEY, NULL);
    assert_null(getenv("AWS_SECRET_ACCESS_KEY"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_options),
        T(test_escaping),
        T(test_options_of_mount),
        T(test_user),
        T(test_remount),
        T(test_sloppy),
        T(test_wrong_options),
        T(test_secrets_are_no_options),
        T(test_precedence),
        T(test_several_variables),
        T(test_envdir_files),
        T(test_credentials_of_a_unit),
        T(test_unusable_envdir),
        T(test_binary_in_an_envdir),
        T(test_credentials_of_the_environment),
        T(test_older_name_of_the_token),
        T(test_credentials_are_a_unit),
        T(test_no_credentials),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
