/* Requests whose credentials the store refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "tests/unit/store_env.h"

static struct script script;
static struct aws_cred *cred;
static unsigned given;
static const char *failure;
static bool changes;

/* Gives AK1 with TOKEN1, then AK2 with TOKEN2... as long as they change. */
static bool fetch(void *arg, const struct call *call, struct aws_keys *out, struct err *err)
{
    char id[16], token[16];
    (void)arg;
    (void)call;
    if (failure != NULL)
        return err_set(err, ERR_UNAVAILABLE, "%s", failure);
    if (given == 0 || changes)
        given++;
    (void)snprintf(id, sizeof(id), "AK%u", given);
    (void)snprintf(token, sizeof(token), "TOKEN%u", given);
    return secret_set(&out->id, id, strlen(id), err) &&
           secret_set(&out->secret, "secret", 6, err) &&
           secret_set(&out->token, token, strlen(token), err);
}

static struct store *begin(const char *steps)
{
    struct err err = ERR_INIT;
    char endpoint[64];
    const struct aws_source source = {.fetch = fetch};
    given = 0;
    failure = NULL;
    changes = true;
    cred = aws_cred_new(&source, &err);
    assert_non_null(cred);
    script_begin(&script, steps);
    (void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", script.port);
    const struct store_s3_options options = {.bucket = "bucket",
                                             .prefix = "p",
                                             .endpoint = endpoint,
                                             .path_style = true,
                                             .cred = cred,
                                             .connect_timeout_ms = 5000,
                                             .stall_timeout_ms = 20000,
                                             .request_timeout_ms = 20000,
                                             .max_attempts = 2,
                                             .max_connections = 2};
    struct store *s = store_s3_new(&options, &err);
    assert_non_null(s);
    return s;
}

static void end(struct store *s)
{
    s->ops->free(s);
    aws_cred_free(cred);
    script_end(&script);
}

#define BY(n) "'headers': {'authorization': '.*=AK" n "/.*', 'x-amz-security-token': 'TOKEN" n "'}"
#define GET(n) "{'expect': 'GET /bucket/p/key', " BY(n)
#define HELLO ", 'etag': 'e', 'text': 'hello'}"
#define REFUSED(n, code) GET(n) ", 'status': 403, 'error': '" code "'}"

static void test_renewed(void **state)
{
    (void)state;
    static const char *const codes[] = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired",
                                        "InvalidAccessKeyId", "SignatureDoesNotMatch"};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        char steps[1024], out[64];
        struct err err = ERR_INIT;
        (void)snprintf(steps, sizeof(steps),
                       "[" GET("1") ", 'status': 403, 'error': '%s'}, " GET("2") HELLO
                       ", {'expect': 'PUT .*', " BY(
                           "2") ", 'status': 400, 'error': '%s'}, "
                                "{'expect': 'PUT .*', " BY("3") ", 'body': 'hello', 'etag': 'e'}]",
                       codes[i], codes[i]);
        struct store *s = begin(steps);
        assert_int_equal(script_read_all(s, out, &err), 5);
        assert_ok(script_put_hello(s, false, &err), &err);
        end(s);
    }
}

/* A body that breaks off is resumed with renewed credentials. */
static void test_renewed_within_a_read(void **state)
{
    (void)state;
    char out[64];
    struct err err = ERR_INIT;
    struct store *s = begin("[" GET("1") ", 'etag': 'e', 'text': 'hello', 'cut': 2}, " GET(
        "1") ", 'status': 400, 'error': 'ExpiredToken'}, " GET("2") ", 'status': 206, 'etag': 'e', "
                                                                    "'range': '2-4/5', 'text': "
                                                                    "'llo'}]");
    assert_int_equal(script_read_all(s, out, &err), 5);
    assert_memory_equal(out, "hello", 5);
    end(s);
}

/* Neither for ever, nor for what is not the credentials' fault. */
static void test_bounds(void **state)
{
    (void)state;
    char out[64];
    struct err err = ERR_INIT;
    static const char steps[] =
        "[" REFUSED("1", "AccessDenied") ", " REFUSED("1", "ExpiredToken") ", " REFUSED(
            "2", "ExpiredToken") ", " REFUSED("3", "ExpiredToken") "]";
    struct store *s = begin(steps);
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_FORBIDDEN, "AccessDenied");
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_FORBIDDEN, "ExpiredToken");
    end(s);
}

static void test_reasons(void **state)
{
    (void)state;
    char out[64];
    struct err err = ERR_INIT;
    struct store *s = begin("[" GET("1") ", 'status': 403, 'error': 'ExpiredToken'}]");
    changes = false;
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_FORBIDDEN, "get new temporary credentials");
    env_assert_error(&err, ERR_FORBIDDEN, "no newer ones");
    end(s);
    s = begin("[]");
    failure = "the vault is sealed";
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_FORBIDDEN, "get s3://bucket/p/key: the vault is sealed");
    assert_true(err_transient(err.code));
    end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renewed),
        cmocka_unit_test(test_renewed_within_a_read),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_reasons),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
