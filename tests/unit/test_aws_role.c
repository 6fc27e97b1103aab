/* What a profile's settings lead to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "tests/unit/aws_env.h"

#define ROLE "role_arn=arn:aws:iam::1:role/x\n"

static void test_keys(void **state)
{
    (void)state;
    aws_file(".aws/config", "[default]\naws_access_key_id=C\naws_secret_access_key=sc\n");
    aws_gives("C", "sc", NULL);
    aws_file(".aws/credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=sa\n"
                                 "aws_session_token=ta\n");
    aws_gives("A", "sa", "ta");
    /* one pair comes from one file */
    aws_file(".aws/credentials", "[default]\naws_access_key_id=A\n");
    aws_refuses("profile default", "/.aws/credentials has no", NULL);
}

static void test_program(void **state)
{
    (void)state;
    aws_file(".aws/config", "[default]\ncredential_process = printf "
                            "'{\"Version\":1,\"AccessKeyId\":\"P\",\"SecretAccessKey\":\"sp\","
                            "\"SessionToken\":\"tp\",\"Expiration\":\"2099-01-01T00:00:00Z\"}'\n");
    aws_gives("P", "sp", "tp");
    /* keys in the credentials file win, keys in the config file do not */
    aws_file(".aws/credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=sa\n");
    aws_gives("A", "sa", NULL);
    aws_file(".aws/credentials", "");
    aws_file(".aws/config",
             "[default]\ncredential_process = /bin/sh -c 'echo sealed >&2; exit 3'\n");
    aws_refuses("credential_process /bin/sh: exit status 3: sealed", NULL);
    aws_file(".aws/config", "[default]\ncredential_process = /bin/echo {\"secret\n");
    aws_refuses("a quote is not closed", NULL);
    aws_file(".aws/config", "[default]\ncredential_process = /bin/echo {secret\n");
    aws_refuses("credential_process /bin/echo: what it writes is not JSON", NULL);
}

static void test_source_profile(void **state)
{
    (void)state;
    aws_options.sts_endpoint = aws_url;
    aws_file("aws/base", "BASE sb");
    aws_file(".aws/config", "[default]\n" ROLE "source_profile=one\nexternal_id=e\n"
                            "[profile one]\naws_access_key_id=BASE\naws_secret_access_key=sb\n"
                            "[profile self]\n" ROLE "source_profile=self\n"
                            "aws_access_key_id=BASE\naws_secret_access_key=sb\n");
    aws_gives("ID1", "secret1", "token1");
    assert_string_equal(aws_text("aws/given"), "role\n");
    aws_options.profile = "self";
    aws_gives("ID1", "secret1", "token1");
    aws_file("aws/base", "BASE other");
    aws_refuses("profile self: role arn:aws:iam::1:role/x: SignatureDoesNotMatch", NULL);
}

static void test_circles_and_gaps(void **state)
{
    (void)state;
    aws_file(".aws/config", "[profile a]\n" ROLE "source_profile=b\n"
                            "[profile b]\n" ROLE "source_profile=a\n"
                            "[profile c]\n" ROLE "source_profile=nosuch\n"
                            "[profile d]\n" ROLE "[profile e]\n" ROLE "credential_source=Moon\n"
                            "[profile f]\n" ROLE "source_profile=f\n"
                            "[profile g]\n" ROLE "source_profile=a\nmfa_serial=m\n"
                            "[profile h]\n" ROLE "credential_source=EcsContainer\n"
                            "[profile i]\nsso_session=s\n");
    static const char *const cases[][2] = {
        {"a", "goes in a circle"},
        {"c", "profile nosuch: there is no such profile"},
        {"d", "needs source_profile"},
        {"e", "credential_source"},
        {"f", "names itself"},
        {"g", "MFA"},
        {"h", "nothing to assume the role with"},
        {"i", "export-credentials --profile i"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        aws_options.profile = cases[i][0];
        aws_refuses(cases[i][1], NULL);
    }
}

static void test_credential_source(void **state)
{
    (void)state;
    aws_options.sts_endpoint = aws_url;
    aws_options.imds_disabled = false;
    aws_options.imds_endpoint = aws_url;
    aws_file("aws/keys", "ID1 secret1 1000");
    aws_file("aws/base", "ID1 secret1");
    aws_file(".aws/config", "[default]\n" ROLE "credential_source=Ec2InstanceMetadata\n");
    aws_gives("ID1", "secret1", NULL);
    assert_string_equal(aws_text("aws/given"), "imds\nrole\n");
}

static void test_web_identity_of_a_profile(void **state)
{
    (void)state;
    char config[256];
    aws_options.sts_endpoint = aws_url;
    aws_file("token", "t");
    aws_file("aws/web-token", "t");
    (void)snprintf(config, sizeof(config), "[default]\n" ROLE "web_identity_token_file=%s/token\n",
                   aws_dir);
    aws_file(".aws/config", config);
    aws_gives("ID1", "secret1", "token1");
    assert_string_equal(aws_text("aws/given"), "web\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AWS_T(test_keys),
        AWS_T(test_program),
        AWS_TS(test_source_profile),
        AWS_T(test_circles_and_gaps),
        AWS_TS(test_credential_source),
        AWS_TS(test_web_identity_of_a_profile),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
