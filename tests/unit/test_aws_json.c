#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/aws_impl.h"
#include "tests/unit/store_env.h"

static const struct aws_json container = {.who = "the answer", .token_name = "Token"};
static const struct aws_json program = {
    .who = "the program", .token_name = "SessionToken", .version = 1};

static void test_good(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_keys k = {.expires_s = 0};
    const char *text = "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
                       "\"Expiration\":\"2026-11-24T10:00:00Z\",\"Other\":[1]}";
    assert_ok(aws_json_keys(&container, text, strlen(text), &k, &err), &err);
    assert_string_equal(k.id.value, "A");
    assert_string_equal(k.secret.value, "S");
    assert_string_equal(k.token.value, "T");
    assert_int_equal(k.expires_s, 1795514400);
    aws_keys_free(&k);
    text = "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"SessionToken\":null,"
           "\"Expiration\":null}";
    assert_ok(aws_json_keys(&program, text, strlen(text), &k, &err), &err);
    assert_false(secret_is_set(&k.token));
    assert_int_equal(k.expires_s, 0);
    aws_keys_free(&k);
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "not JSON"},
        {"{\"Version\":1,\"AccessKeyId\":\"hidden", "not JSON (line 1"},
        {"[1]", "a JSON object"},
        {"{}", "\"Version\" is not 1"},
        {"{\"Version\":2}", "\"Version\" is not 1"},
        {"{\"Version\":\"1\"}", "\"Version\" is not 1"},
        {"{\"Version\":1}", "AccessKeyId is missing"},
        {"{\"Version\":1,\"AccessKeyId\":\"hidden\"}", "SecretAccessKey is missing"},
        {"{\"Version\":1,\"AccessKeyId\":\"\",\"SecretAccessKey\":\"hidden\"}",
         "AccessKeyId is missing"},
        {"{\"Version\":1,\"AccessKeyId\":7,\"SecretAccessKey\":\"hidden\"}", "not a string"},
        {"{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hidden\",\"Expiration\":7}",
         "Expiration"},
        {"{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hidden\",\"Expiration\":"
         "\"soon\"}",
         "Expiration"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct aws_keys k = {.expires_s = 0};
        assert_false(aws_json_keys(&program, cases[i].text, strlen(cases[i].text), &k, &err));
        env_assert_error(&err, ERR_FORBIDDEN, cases[i].says);
        assert_non_null(strstr(err.text, "the program"));
        assert_null(strstr(err.text, "hidden"));
        aws_keys_free(&k);
    }
}

static void test_field(void **state)
{
    (void)state;
    char out[200];
    const char *text = "{\"message\":\"a\\n b\",\"n\":1}";
    aws_json_field(text, strlen(text), "message", out);
    assert_string_equal(out, "a b");
    aws_json_field(text, strlen(text), "n", out);
    assert_string_equal(out, "");
    aws_json_field("<html>", 6, "message", out);
    assert_string_equal(out, "");
}

static void test_time(void **state)
{
    (void)state;
    assert_int_equal(aws_time("2026-11-24T10:00:00Z"), 1795514400);
    assert_int_equal(aws_time("2026-11-24T10:00:00.123Z"), 1795514400);
    assert_int_equal(aws_time("2026-11-24T12:00:00+02:00"), 1795514400);
    assert_int_equal(aws_time("2026-11-24T08:30:00-01:30"), 1795514400);
    static const char *const bad[] = {"",
                                      "2026-11-24",
                                      "2026-11-24T10:00:00",
                                      "1795514400",
                                      "2026-11-24T10:00:00 Z",
                                      "2026-11-24T10:00:00+x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(aws_time(bad[i]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_field),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
