/* core/aws_http.c against a scripted server: which answers are answers, and that none is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/aws_impl.h"
#include "core/log.h"
#include "tests/unit/store_env.h"

static struct script script;
static struct http *http;
static char url[64];
static struct err err;

static void begin(const char *steps)
{
    const struct http_options options = {
        .connect_timeout_ms = 5000, .stall_timeout_ms = 20000, .max_connections = 1};
    script_begin(&script, steps);
    http = http_new(&options, &err);
    assert_non_null(http);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/secret-path?secret=1", script.port);
}

static void end(void)
{
    http_free(http);
    script_end(&script);
}

static bool ask(unsigned tries, const struct call *call, struct aws_answer *answer)
{
    const struct aws_fetch f = {.method = "GET", .url = url, .tries = tries};
    return aws_http(http, &f, call, answer, &err);
}

/* What the service says is for the caller to judge, whatever its status. */
static void an_answer_is_an_answer(void **state)
{
    static const int statuses[] = {200, 301, 400, 403, 404};
    char steps[256];
    (void)state;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct aws_answer answer;
        (void)snprintf(steps, sizeof(steps), "[{'status': %d, 'text': 'hello'}]", statuses[i]);
        begin(steps);
        assert_ok(ask(3, &env_forever, &answer), &err);
        assert_int_equal(answer.status, statuses[i]);
        assert_int_equal(answer.body.len, 5);
        assert_string_equal(answer.body.data, "hello");
        aws_answer_free(&answer);
        assert_null(answer.body.data);
        end();
    }
}

/* Nothing of an answer that was given up stays in the one that counts. */
static void what_may_pass_is_tried_again(void **state)
{
    struct aws_answer answer;
    (void)state;
    begin("[{'status': 500, 'text': 'a long text of the first failure'}, {'status': 429}, "
          "{'text': 'ok'}]");
    assert_ok(ask(3, &env_forever, &answer), &err);
    assert_string_equal(answer.body.data, "ok");
    aws_answer_free(&answer);
    end();
    begin("[{'drop': 'late'}, {'cut': 2, 'text': 'hello'}, {'text': ''}]");
    assert_ok(ask(3, &env_forever, &answer), &err);
    assert_int_equal(answer.body.len, 0);
    aws_answer_free(&answer);
    end();
}

/* Only so often; and who was asked is told, but neither path nor query, which may hold a secret. */
static void what_does_not_pass_is_an_error(void **state)
{
    struct aws_answer answer;
    (void)state;
    begin("[{'status': 503, 'text': 'secret', 'times': 2}, {'status': 500}]");
    assert_false(ask(2, &env_forever, &answer));
    env_assert_error(&err, ERR_UNAVAILABLE, "HTTP 503");
    assert_non_null(strstr(err.text, "127.0.0.1"));
    assert_null(strstr(err.text, "secret"));
    aws_answer_free(&answer);
    assert_false(ask(0, &env_forever, &answer)); /* once at least */
    env_assert_error(&err, ERR_UNAVAILABLE, "HTTP 500");
    aws_answer_free(&answer);
    end();
}

/* Whatever sends without end is no service of AWS. */
static void a_long_answer_is_refused(void **state)
{
    struct aws_answer answer;
    (void)state;
    begin("[{'text': [['0123456789abcdef', 3000]]}, {'text': [['0123456789abcdef', 100000]]}]");
    assert_ok(ask(1, &env_forever, &answer), &err);
    assert_int_equal(answer.body.len, 48000);
    assert_int_equal(answer.body.data[48000], '\0');
    aws_answer_free(&answer);
    assert_false(ask(3, &env_forever, &answer));
    env_assert_error(&err, ERR_UNAVAILABLE, "too long");
    aws_answer_free(&answer);
    end();
}

static void a_cancel_ends_it(void **state)
{
    struct aws_answer answer;
    struct cancel cancel;
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    (void)state;
    begin("[]");
    cancel_init(&cancel);
    cancel_fire(&cancel);
    assert_false(ask(3, &call, &answer));
    assert_int_equal(err.code, ERR_CANCELLED);
    aws_answer_free(&answer);
    cancel_destroy(&cancel);
    end();
}

static void what_is_sent_arrives(void **state)
{
    static const char *const headers[] = {"X-One: 1", "Content-Type: text/x"};
    struct aws_answer answer;
    (void)state;
    begin("[{'expect': 'POST /secret-path.*', 'body': 'Action=x', "
          "'headers': {'x-one': '1', 'content-type': 'text/x'}, 'status': 503}, "
          "{'expect': 'POST /secret-path.*', 'body': 'Action=x'}]");
    const struct aws_fetch f = {.method = "POST",
                                .url = url,
                                .headers = headers,
                                .header_count = 2,
                                .body = "Action=x",
                                .tries = 2};
    assert_ok(aws_http(http, &f, &env_forever, &answer, &err), &err);
    aws_answer_free(&answer);
    end();
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_an_answer),
        cmocka_unit_test(what_may_pass_is_tried_again),
        cmocka_unit_test(what_does_not_pass_is_an_error),
        cmocka_unit_test(a_long_answer_is_refused),
        cmocka_unit_test(a_cancel_ends_it),
        cmocka_unit_test(what_is_sent_arrives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
