/* From options, envdir and environment to where credentials are looked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "mount/config.h"
#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

static struct settings s;
static struct config c;

static const char *const variables[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_PROFILE",
                                        "AWS_DEFAULT_PROFILE",
                                        "AWS_SHARED_CREDENTIALS_FILE",
                                        "AWS_CONFIG_FILE",
                                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                                        "AWS_METADATA_SERVICE_TIMEOUT",
                                        "AWS_METADATA_SERVICE_NUM_ATTEMPTS"};

static int set_up(void **state)
{
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    if (aws_set_up(state) != 0)
        return -1;
    setenv("HOME", aws_dir, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    memset(&s, 0, sizeof(s));
    memset(&c, 0, sizeof(c));
    return 0;
}

static int tear_down(void **state)
{
    config_free(&c);
    settings_free(&s);
    return aws_tear_down(state);
}

static bool make(const char *options, struct err *err)
{
    config_free(&c);
    settings_free(&s);
    return settings_add_options(&s, options, err) && settings_complete(&s, err) &&
           config_make(&c, &s, "s3://bucket/x", true, err);
}

static void good(const char *options)
{
    struct err err = ERR_INIT;
    assert_ok(make(options, &err), &err);
}

static void bad(const char *options, const char *text)
{
    struct err err = ERR_INIT;
    assert_false(make(options, &err));
    env_assert_error(&err, ERR_INVALID, text);
}

/* The credentials that the configuration leads to, or NULL with the reason. */
static struct aws_credentials *credentials(struct aws_cred **cred, struct err *err)
{
    *cred = config_make_cred(&c, err);
    assert_non_null(*cred);
    return aws_cred_get(*cred, &env_forever, err);
}

static void gives(const char *id)
{
    struct err err = ERR_INIT;
    struct aws_cred *cred;
    struct aws_credentials *got = credentials(&cred, &err);
    if (got == NULL)
        fail_msg("%s", err.text);
    assert_string_equal(got->keys.id.value, id);
    aws_credentials_unref(got);
    aws_cred_free(cred);
}

static void refuses(const char *text)
{
    struct err err = ERR_INIT;
    struct aws_cred *cred;
    assert_null(credentials(&cred, &err));
    env_assert_error(&err, ERR_FORBIDDEN, text);
    aws_cred_free(cred);
}

static const char *envdir(void)
{
    static char option[96];
    (void)snprintf(option, sizeof(option), "envdir=%s", aws_dir);
    return option;
}

static void test_nothing(void **state)
{
    (void)state;
    good("");
    refuses("no AWS credentials; looked at: AWS_ACCESS_KEY_ID");
    aws_file("AWS_ACCESS_KEY_ID", "  \n"); /* blanks only */
    aws_file("AWS_SECRET_ACCESS_KEY", "s\n");
    good(envdir());
    refuses("no AWS credentials; looked at: AWS_ACCESS_KEY_ID");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    good("");
    refuses("AWS_SECRET_ACCESS_KEY is not");
}

static void test_profiles(void **state)
{
    (void)state;
    aws_file(".aws/credentials", "[a]\naws_access_key_id=A\naws_secret_access_key=s\n"
                                 "[b]\naws_access_key_id=B\naws_secret_access_key=s\n");
    aws_file(".aws/config", "[profile a]\nregion=eu-x-7\n");
    setenv("AWS_PROFILE", "a", 1);
    good("");
    gives("A");
    assert_string_equal(c.region.value, "eu-x-7");
    assert_string_equal(c.aws.region, "eu-x-7");
    good("region=us-x-1");
    assert_string_equal(c.region.value, "us-x-1");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
    good("");
    gives("ENV");
    good("profile=b");
    gives("B");
    assert_false(secret_is_set(&c.region));
    bad("profile=b,aws_instance_profile", "exclude each other");
    good("aws_instance_profile");
    refuses("AWS_EC2_METADATA_DISABLED");
}

/* A daemon leaves the directory that it was started in. */
static void test_relative_files(void **state)
{
    (void)state;
    char old[256];
    aws_file("here", "[default]\naws_access_key_id=A\naws_secret_access_key=s\n");
    assert_non_null(getcwd(old, sizeof(old)));
    assert_int_equal(chdir(aws_dir), 0);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "here", 1);
    good("");
    aws_file("AWS_ACCESS_KEY_ID", "DIR\n");
    aws_file("AWS_SECRET_ACCESS_KEY", "s\n");
    assert_int_equal(chdir(old), 0);
    gives("A");
    assert_int_equal(chdir(aws_dir), 0);
    good("envdir=.");
    assert_int_equal(chdir(old), 0);
    gives("DIR");
}

static void test_rotation_in_an_envdir(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_cred *cred;
    aws_file("AWS_ACCESS_KEY_ID", "ONE\n");
    aws_file("AWS_SECRET_ACCESS_KEY", "s1\n");
    aws_file("AWS_SESSION_TOKEN", "t1\n");
    good(envdir());
    struct aws_credentials *one = credentials(&cred, &err);
    assert_non_null(one);
    aws_file("AWS_SESSION_TOKEN", "t2\n");
    assert_ok(aws_cred_renew(cred, one, &env_forever, &err), &err);
    struct aws_credentials *two = aws_cred_get(cred, &env_forever, &err);
    assert_non_null(two);
    assert_string_equal(two->keys.token.value, "t2");
    aws_credentials_unref(one);
    aws_file("AWS_ACCESS_KEY_ID", "");
    assert_false(aws_cred_renew(cred, two, &env_forever, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "the keys given to the mount");
    aws_credentials_unref(two);
    aws_cred_free(cred);
}

static void test_container_token(void **state)
{
    (void)state;
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the environment", 1);
    good("");
    assert_string_equal(s.container_token.value, "of the environment");
    assert_null(getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")); /* gpg would inherit it */
    aws_file("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the envdir\n");
    good(envdir());
    assert_string_equal(c.aws.container_token->value, "of the envdir");
}

static void test_metadata_service(void **state)
{
    (void)state;
    setenv("AWS_EC2_METADATA_DISABLED", "false", 1);
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6", 1);
    setenv("AWS_METADATA_SERVICE_TIMEOUT", "2.5", 1);
    setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "7", 1);
    good("");
    assert_true(c.aws.imds_ipv6);
    assert_false(c.aws.imds_disabled);
    assert_int_equal(c.aws.imds_timeout_ms, 2500);
    assert_int_equal(c.aws.imds_attempts, 7);
    setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "many", 1);
    bad("", "AWS_METADATA_SERVICE_NUM_ATTEMPTS");
    unsetenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "x", 1);
    bad("", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_nothing),         T(test_profiles),
        T(test_relative_files),  T(test_rotation_in_an_envdir),
        T(test_container_token), T(test_metadata_service),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
