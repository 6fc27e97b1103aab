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

static void test_who_may_be_asked(void **state)
{
    (void)state;
    static const char *const good[] = {
        "https://anything.example/x", "http://127.0.0.1/x",       "http://127.1.2.3:80/x",
        "http://localhost/x",         "http://LOCALHOST:1",       "http://[::1]:81/x",
        "http://169.254.170.2/x",     "http://169.254.170.23/v1", "http://[fd00:ec2::23]/v1",
    };
    static const char *const bad[] = {
        "",
        "ftp://127.0.0.1/",
        "https://",
        "http://",
        "http://example.com/",
        "http://169.254.169.254/",
        "http://128.0.0.1/",
        "http://127.0.0.1@example.com/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://[fd00:ec2::24]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0x7f000001/",
        "/relative",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!aws_container_url_ok(good[i]))
            fail_msg("%s is refused", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (aws_container_url_ok(bad[i]))
            fail_msg("%s is asked", bad[i]);
}

static char url[96];

static void use_url(const char *path)
{
    (void)snprintf(url, sizeof(url), "%s%s", aws_url, path);
    aws_options.container_full_uri = url;
}

static void test_authorization(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct secret token = SECRET_INIT;
    use_url("/container");
    aws_gives("ID1", "secret1", "token1");
    aws_file("aws/auth", "Basic of-container");
    aws_refuses("AWS_CONTAINER_CREDENTIALS_FULL_URI", "HTTP 403: wrong authorization", NULL);
    assert_true(secret_set(&token, "Basic of-container", 18, &err));
    aws_options.container_token = &token;
    aws_gives("ID1", "secret1", "token1");
    /* the file is read anew each time, and wins */
    aws_options.container_token_file = "/nonexistent/token";
    aws_refuses("/nonexistent/token", NULL);
    secret_free(&token);
}

static void test_rotated_token_file(void **state)
{
    (void)state;
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/token", aws_dir);
    use_url("/container");
    aws_options.container_token_file = path;
    aws_keep_chain();
    aws_file("aws/auth", "one");
    aws_file("token", "one\n");
    aws_gives("ID1", "secret1", "token1");
    aws_file("aws/auth", "two");
    aws_refuses("wrong authorization", NULL);
    aws_file("token", "two\n");
    aws_gives("ID1", "secret1", "token1");
    aws_file("token", "of-\rcontainer\n");
    aws_refuses("control bytes", NULL);
}

static void test_bad_addresses(void **state)
{
    (void)state;
    aws_options.container_full_uri = "http://192.0.2.1/x";
    aws_refuses("http://192.0.2.1/x is not asked", "loopback", NULL);
    aws_options.container_full_uri = "http://127.0.0.1/a\r\nb: c";
    aws_refuses("not a URL", NULL);
    aws_options.container_relative_uri = " /x";
    aws_refuses("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "not a URL", NULL);
}

/* Scripted answers: 5xx are tried again, what is no answer is said. */
static void test_answers(void **state)
{
    (void)state;
    struct script script;
    script_begin(
        &script,
        "[{'status': 503}, {'expect': 'GET /c', 'headers': {'authorization': None}, 'text': "
        "'{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"S\"}'},"
        " {'text': '<html>secret1</html>'}, {'text': [['secret1', 20000]]},"
        " {'status': 404}, {'status': 500, 'times': 3}]");
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/c", script.port);
    aws_options.container_full_uri = url;
    aws_gives("A", "S", NULL);
    aws_refuses("not JSON", NULL);
    aws_refuses("too long", NULL);
    aws_refuses("HTTP 404", NULL);
    aws_refuses("HTTP 500 (tried 3 times)", NULL);
    script_end(&script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_may_be_asked),
        AWS_TS(test_authorization),
        AWS_TS(test_rotated_token_file),
        AWS_T(test_bad_addresses),
        AWS_T(test_answers),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
