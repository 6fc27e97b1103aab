#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

static struct script script;
static char url[96];

/* The chain asks the scripted server. */
static void begin(const char *steps)
{
    script_begin(&script, steps);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", script.port);
    aws_options.instance_profile = true;
    aws_options.imds_disabled = false;
    aws_options.imds_endpoint = url;
    aws_options.imds_attempts = 1;
}

#define TOKEN                                                                        \
    "{'expect': 'PUT /latest/api/token', 'headers': {'x-aws-ec2-metadata-token-ttl-" \
    "seconds': '[0-9]+', 'x-aws-ec2-metadata-token': None}, 'text': 'TTT=='}, "
#define ASKS ", 'headers': {'x-aws-ec2-metadata-token': 'TTT=='}"
#define ROLE \
    "{'expect': 'GET /latest/meta-data/iam/security-credentials/'" ASKS ", 'text': 'the-role'}, "
#define KEYS \
    "{'expect': 'GET /latest/meta-data/iam/security-credentials/the-role'" ASKS ", 'text': "

static void test_protocol(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_keys keys;
    begin("[" TOKEN ROLE KEYS "'{\"Code\": \"Success\", \"AccessKeyId\": \"A\", "
          "\"SecretAccessKey\": \"S\", \"Token\": \"T\", \"Expiration\": "
          "\"2026-11-24T10:00:00Z\"}'}]");
    assert_ok(aws_fetch_keys(&keys, &err), &err);
    assert_string_equal(keys.id.value, "A");
    assert_string_equal(keys.token.value, "T");
    assert_int_equal(keys.expires_s, 1795514400);
    aws_keys_free(&keys);
    script_end(&script);
}

static void one_failure(const char *steps, const char *text)
{
    begin(steps);
    aws_refuses("instance metadata service", text, NULL);
    script_end(&script);
}

static void test_failures(void **state)
{
    (void)state;
    one_failure("[{'status': 403}]", "switched off");
    one_failure("[{'status': 404}]", "HTTP 404 for a session token");
    one_failure("[{'text': ''}]", "no session token");
    one_failure("[{'text': 'token1 x: y'}]", "no session token");
    one_failure("[" TOKEN "{'status': 404}]", "no IAM role");
    one_failure("[" TOKEN "{'status': 401}]", "HTTP 401 for the name");
    one_failure("[" TOKEN "{'text': 'a?b'}]", "no name of a role");
    one_failure("[" TOKEN ROLE "{'status': 404}]", "the-role: HTTP 404");
    one_failure("[" TOKEN ROLE KEYS "'{\"Code\": \"AssumeRoleUnauthorizedAccess\", \"Message\": "
                "\"no trust\"}'}]",
                "the-role: HTTP 200 AssumeRoleUnauthorizedAccess: no trust");
    one_failure("[" TOKEN ROLE KEYS "'{\"Code\": \"Success\"}'}]", "AccessKeyId is missing");
    one_failure("[{'drop': 'late'}]", "127.0.0.1");
}

/* The answer to the PUT has a hop limit of one, and a container is one hop away. */
static void test_hop_limit(void **state)
{
    (void)state;
    begin("[{'sleep': 20}]");
    aws_options.imds_timeout_ms = 50;
    aws_refuses("no session token came", "http-put-response-hop-limit 2", NULL);
    script_drop(&script);
}

/* No proxy of the environment is asked; nor is it switched on by one. */
static void test_no_proxy(void **state)
{
    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    aws_options.instance_profile = true;
    aws_options.imds_disabled = false;
    aws_options.imds_endpoint = aws_url;
    aws_gives("ID1", "secret1", "token1");
    unsetenv("http_proxy");
    unsetenv("all_proxy");
}

static void test_endpoints(void **state)
{
    (void)state;
    aws_options.instance_profile = true;
    aws_options.imds_disabled = false;
    static const char *const bad[] = {"127.0.0.1:80", "ftp://127.0.0.1", "http://a b", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        aws_options.imds_endpoint = bad[i];
        aws_refuses("AWS_EC2_METADATA_SERVICE_ENDPOINT", "expected", NULL);
    }
    aws_options.imds_disabled = true;
    aws_refuses("AWS_EC2_METADATA_DISABLED", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AWS_T(test_protocol),  AWS_T(test_failures),  AWS_T(test_hop_limit),
        AWS_TS(test_no_proxy), AWS_T(test_endpoints),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
