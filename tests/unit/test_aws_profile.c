/* The files that AWS's tools share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

static struct aws_profile profile;

static void load(const char *name)
{
    struct err err = ERR_INIT;
    aws_profile_free(&profile);
    assert_ok(aws_profile_load(&aws_options, name, &profile, &err), &err);
}

static void is(enum aws_profile_key key, const char *value)
{
    const char *have = aws_profile_get(&profile, key);
    if (value == NULL)
        assert_null(have);
    else if (have == NULL)
        fail_msg("no value instead of %s", value);
    else
        assert_string_equal(have, value);
}

static int tear_down(void **state)
{
    aws_profile_free(&profile);
    return aws_tear_down(state);
}

static void test_sections(void **state)
{
    (void)state;
    aws_file(".aws/credentials", "[default]\naws_access_key_id=D\n"
                                 "[profile p]\naws_access_key_id=WRONG\n"
                                 "[p]\naws_access_key_id=P\n");
    aws_file(".aws/config", "[default]\nregion=d\n"
                            "[p]\nregion=WRONG\n"
                            "[profile p]\nregion=p\n"
                            "[ profile  \"with blank\" ]\nregion = b\n"
                            "[profile default]\noutput=json\n"
                            "[sso-session p]\nregion=WRONG\n"
                            "[profile p2\nregion=WRONG\n");
    load("default");
    is(AWS_P_ID, "D");
    is(AWS_P_REGION, "d");
    load("p");
    is(AWS_P_ID, "P");
    is(AWS_P_REGION, "p");
    assert_true(profile.in[AWS_FILE_CREDENTIALS] && profile.in[AWS_FILE_CONFIG]);
    load("with blank");
    is(AWS_P_REGION, "b");
    is(AWS_P_ID, NULL);
    assert_false(profile.in[AWS_FILE_CREDENTIALS]);
    load("p2");
    assert_false(profile.in[AWS_FILE_CREDENTIALS] || profile.in[AWS_FILE_CONFIG]);
    load("profil");
    assert_false(profile.in[AWS_FILE_CONFIG]);
}

static void test_lines(void **state)
{
    (void)state;
    aws_file(".aws/credentials", "aws_access_key_id=BEFORE\n[default]\r\n"
                                 "# aws_access_key_id=COMMENT\n; aws_access_key_id=COMMENT\n"
                                 "AWS_Access_Key_ID =\t a=b# \r\n"
                                 "no equals sign\n=\n=x\n"
                                 "aws_session_token=\n"
                                 "s3 =\n  region = nested\n\taws_secret_access_key = nested\n"
                                 "aws_secret_access_key = s /+x\n"
                                 "credential_process = a 'b c'");
    load("default");
    is(AWS_P_ID, "a=b#");
    is(AWS_P_SECRET, "s /+x");
    is(AWS_P_TOKEN, NULL);
    is(AWS_P_REGION, NULL);
    is(AWS_P_PROCESS, "a 'b c'");
}

static void test_credentials_file_first(void **state)
{
    (void)state;
    aws_file(".aws/credentials", "[default]\nrole_arn=of-credentials\n");
    aws_file(".aws/config", "[default]\nrole_arn=of-config\nexternal_id=e\n");
    load("default");
    is(AWS_P_ROLE, "of-credentials");
    is(AWS_P_EXTERNAL_ID, "e");
}

static void test_paths(void **state)
{
    (void)state;
    char path[128];
    aws_file("c", "[default]\nregion=of-c\n");
    (void)snprintf(path, sizeof(path), "%s/c", aws_dir);
    aws_options.config_file = path;
    load("default");
    is(AWS_P_REGION, "of-c");
    aws_options.config_file = "~/c";
    load("default");
    is(AWS_P_REGION, "of-c");
    struct err err = ERR_INIT;
    struct secret region = SECRET_INIT;
    assert_ok(aws_chain_region(&aws_options, &region, &err), &err);
    assert_string_equal(region.value, "of-c");
    secret_free(&region);
    aws_options.home = NULL;
    aws_options.config_file = NULL;
    load("default");
    is(AWS_P_REGION, NULL);
    assert_ok(aws_chain_region(&aws_options, &region, &err), &err);
    assert_false(secret_is_set(&region));
}

static void test_unreadable(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    aws_options.credentials_file = aws_dir; /* a directory */
    assert_false(aws_profile_load(&aws_options, "default", &profile, &err));
    assert_non_null(strstr(err.text, aws_dir));
    char *long_text = malloc(2u << 20);
    assert_non_null(long_text);
    memset(long_text, '#', 2u << 20);
    long_text[(2u << 20) - 1] = '\0';
    aws_file("long", long_text);
    free(long_text);
    aws_options.credentials_file = "~/long";
    aws_profile_free(&profile);
    assert_false(aws_profile_load(&aws_options, "default", &profile, &err));
    assert_non_null(strstr(err.text, "too long"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, aws_set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_sections), T(test_lines),      T(test_credentials_file_first),
        T(test_paths),    T(test_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
