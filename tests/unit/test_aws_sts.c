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

#define ARN "arn:aws:iam::1:role/x"

static struct script script;
static char url[96], token_file[96];

static void use_token(const char *endpoint)
{
    (void)snprintf(token_file, sizeof(token_file), "%s/token", aws_dir);
    aws_file("token", "of-web+/=\n");
    aws_options.web_identity_token_file = token_file;
    aws_options.role_arn = ARN;
    aws_options.role_session_name = "session";
    aws_options.sts_endpoint = endpoint;
}

static void begin(const char *steps)
{
    script_begin(&script, steps);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", script.port);
    use_token(url);
}

#define CREDENTIALS(more)                                                     \
    "<R xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><X><Credentials>" \
    "<AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey>" more   \
    "</Credentials></X></R>"
#define ERROR(code, message)                                                         \
    "<ErrorResponse "                                                                \
    "xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>" \
    "<Code>" code "</Code><Message>" message "</Message></Error></ErrorResponse>"

static void test_web_identity(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_keys keys;
    begin(
        "[{'expect': 'POST /', 'headers': {'content-type': 'application/x-www-form-urlencoded.*', "
        "'authorization': None}, 'body': 'Action=AssumeRoleWithWebIdentity&Version=2011-06-15&"
        "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx&RoleSessionName=session&"
        "WebIdentityToken=of-web%2B%2F%3D', 'text': '" CREDENTIALS(
            "<SessionToken>T</SessionToken><Expiration>2026-11-24T10:00:00Z</Expiration>") "'}]");
    assert_ok(aws_fetch_keys(&keys, &err), &err);
    assert_string_equal(keys.id.value, "A");
    assert_string_equal(keys.secret.value, "S");
    assert_string_equal(keys.token.value, "T");
    assert_int_equal(keys.expires_s, 1795514400);
    aws_keys_free(&keys);
    script_end(&script);
}

static void one_failure(const char *steps, const char *text)
{
    begin(steps);
    aws_refuses("role " ARN " by the web identity in", token_file, text, NULL);
    script_end(&script);
}

static void test_failures(void **state)
{
    (void)state;
    one_failure("[{'status': 400, 'text': '" ERROR("ExpiredTokenException", "Token expired") "'}]",
                "ExpiredTokenException: Token expired (HTTP 400)");
    one_failure("[{'status': 403, 'text': '<html/>'}]", "proxy");
    one_failure("[{'text': '<html/>'}]", "no credentials");
    one_failure("[{'text': 'secret1 <'}]", "no credentials");
    one_failure("[{'text': '" CREDENTIALS("<Expiration>soon</Expiration>") "'}]", "no credentials");
    one_failure("[{'status': 503, 'times': 3}]", "HTTP 503 (tried 3 times)");
    use_token("nonsense");
    aws_refuses("AWS_ENDPOINT_URL_STS", NULL);
    use_token("http://user@host");
    aws_refuses("AWS_ENDPOINT_URL_STS", NULL);
    use_token(NULL);
    aws_options.region = "evil.example/";
    aws_refuses("\"evil.example/\" is not a region", NULL);
}

/* The server checks the signature on its own. */
static void test_assume_role(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct http_options options = {
        .connect_timeout_ms = 5000, .stall_timeout_ms = 20000, .max_connections = 1};
    struct aws_chain chain = {.http = http_new(&options, &err)};
    assert_non_null(chain.http);
    chain.opt.sts_endpoint = aws_url;
    struct aws_keys with = {.expires_s = 0}, out = {.expires_s = 0};
    assert_true(secret_set(&with.id, "BASE", 4, &err));
    assert_true(secret_set(&with.secret, "of-base", 7, &err));
    aws_file("aws/base", "BASE of-base");
    struct aws_role role = {
        .arn = ARN, .external_id = "a b&c", .duration_s = "900", .region = "eu-x-1"};
    assert_ok(aws_sts_assume(&chain, &role, &with, &env_forever, &out, &err), &err);
    assert_string_equal(out.id.value, "ID1");
    assert_string_equal(out.token.value, "token1");
    aws_keys_free(&out);
    /* with a session token, which is signed too */
    assert_true(secret_set(&with.token, "base token", 10, &err));
    role.region = NULL;
    assert_ok(aws_sts_assume(&chain, &role, &with, &env_forever, &out, &err), &err);
    aws_keys_free(&out);
    aws_file("aws/base", "BASE other");
    assert_false(aws_sts_assume(&chain, &role, &with, &env_forever, &out, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "role " ARN ": SignatureDoesNotMatch");
    aws_keys_free(&out);
    aws_keys_free(&with);
    http_free(chain.http);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AWS_T(test_web_identity),
        AWS_T(test_failures),
        AWS_TS(test_assume_role),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
