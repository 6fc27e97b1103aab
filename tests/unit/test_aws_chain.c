/* Which place decides, and what is said when none does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

static const char *given_id, *given_secret;

static bool read_static(void *arg, struct aws_keys *out, bool *found, struct err *err)
{
    (void)arg;
    *found = given_id != NULL;
    return !*found || (secret_set(&out->id, given_id, strlen(given_id), err) &&
                       (given_secret == NULL ||
                        secret_set(&out->secret, given_secret, strlen(given_secret), err)));
}

static void give(const char *id, const char *secret)
{
    given_id = id;
    given_secret = secret;
    aws_options.read_static = read_static;
}

/* Every place is set up; each wins as soon as those before it are gone. */
static void test_order(void **state)
{
    (void)state;
    char container[96];
    (void)snprintf(container, sizeof(container), "%s/container", aws_url);
    give("STATIC", "s1");
    aws_file("token", "web\n");
    aws_file("aws/web-token", "web");
    char token_file[96];
    (void)snprintf(token_file, sizeof(token_file), "%s/token", aws_dir);
    aws_options.web_identity_token_file = token_file;
    aws_options.role_arn = "arn:aws:iam::1:role/x";
    aws_options.sts_endpoint = aws_url;
    aws_file(".aws/credentials", "[default]\naws_access_key_id=FILE\naws_secret_access_key=s2\n");
    aws_options.container_full_uri = container;
    aws_options.imds_endpoint = aws_url;
    aws_options.imds_disabled = false;
    aws_gives("STATIC", "s1", NULL);
    given_id = NULL;
    aws_gives("ID1", "secret1", "token1");
    assert_string_equal(aws_text("aws/given"), "web\n");
    aws_options.web_identity_token_file = NULL;
    aws_gives("FILE", "s2", NULL);
    aws_file(".aws/credentials", "");
    aws_gives("ID1", "secret1", "token1");
    assert_string_equal(aws_text("aws/given"), "web\ncontainer\n");
    aws_options.container_full_uri = NULL;
    aws_gives("ID1", "secret1", "token1");
    assert_string_equal(aws_text("aws/given"), "web\ncontainer\nimds\n");
    aws_options.imds_disabled = true;
    aws_refuses("no AWS credentials; looked at: AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
                "profile default", "/.aws/credentials", "/.aws/config",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_EC2_METADATA_DISABLED", NULL);
}

/* A place that is set up and fails ends the search: nobody wants another identity then. */
static void test_failure_ends_the_search(void **state)
{
    (void)state;
    aws_file(".aws/credentials", "[default]\naws_access_key_id=FILE\naws_secret_access_key=s2\n");
    give("STATIC", NULL);
    aws_refuses("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not", NULL);
    given_id = NULL;
    aws_options.web_identity_token_file = "/nonexistent/token";
    aws_refuses("AWS_ROLE_ARN is not", NULL);
    aws_options.role_arn = "arn:aws:iam::1:role/x";
    aws_refuses("no AWS credentials: role arn:aws:iam::1:role/x", "/nonexistent/token", NULL);
    aws_options.web_identity_token_file = NULL;
    aws_options.profile = "other";
    aws_refuses("profile other", "no such profile", "/.aws/config", NULL);
}

static void test_restricted(void **state)
{
    (void)state;
    give("STATIC", "s1");
    aws_file(".aws/credentials", "[a]\naws_access_key_id=FILE\naws_secret_access_key=s2\n"
                                 "[b]\nregion=eu-x-2\n");
    aws_options.profile = "a";
    aws_gives("STATIC", "s1", NULL);
    aws_options.profile_only = true;
    aws_gives("FILE", "s2", NULL);
    aws_options.profile = "b";
    aws_refuses("profile b: it has no credentials in", NULL);
    aws_options.profile_only = false;
    aws_options.instance_profile = true;
    aws_refuses("AWS_EC2_METADATA_DISABLED", NULL);
    aws_options.imds_disabled = false;
    aws_options.imds_endpoint = aws_url;
    aws_gives("ID1", "secret1", "token1");
}

/* The place that gave credentials is the only one asked afterwards. */
static void test_stays_with_its_place(void **state)
{
    (void)state;
    aws_keep_chain();
    aws_file(".aws/credentials", "[default]\naws_access_key_id=FILE\naws_secret_access_key=s2\n");
    aws_options.imds_disabled = false;
    aws_options.imds_endpoint = aws_url;
    aws_gives("FILE", "s2", NULL);
    aws_file(".aws/credentials", "[default]\naws_access_key_id=NEW\naws_secret_access_key=s3\n"
                                 "aws_session_token=t3\n");
    aws_gives("NEW", "s3", "t3");
    aws_file(".aws/credentials", "");
    aws_refuses("the profile gave AWS credentials, and is gone", "/.aws/credentials", NULL);
    assert_string_equal(aws_text("aws/given"), "");
    aws_file(".aws/credentials", "[default]\naws_access_key_id=BACK\naws_secret_access_key=s4\n");
    aws_gives("BACK", "s4", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AWS_TS(test_order),
        AWS_T(test_failure_ends_the_search),
        AWS_TS(test_restricted),
        AWS_TS(test_stays_with_its_place),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
