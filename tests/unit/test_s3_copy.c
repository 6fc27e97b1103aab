/* core/s3_copy.c against a scripted server; on the real one: test_store_copy.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "tests/unit/store_env.h"

#define COPY                                                                            \
    "'expect': 'PUT /bucket/p/to', 'headers': {'x-amz-copy-source': '/bucket/p/from', " \
    "'x-amz-copy-source-if-match': None}"
#define COPIED "'text': '<CopyObjectResult><ETag>\"abc\"</ETag></CopyObjectResult>'"

/* STEPS against one copy with 2 tries; ERR_NONE: succeeds. */
static void one_copy(const char *steps, enum err_code code, const char *text)
{
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 2);
    bool ok = s->ops->copy(s, "from", "to", NULL, NULL, &env_forever, &err);
    if (ok != (code == ERR_NONE))
        fail_msg("%s: %s", steps, ok ? "succeeded" : err.text);
    if (!ok)
        env_assert_error(&err, code, text);
    s->ops->free(s);
    script_end(&script);
}

static void a_document_with_an_etag_is_a_copy(void **state)
{
    (void)state;
    one_copy("[{" COPY ", " COPIED "}]", ERR_NONE, NULL);
    one_copy("[{" COPY ", 'drop': 'late'}, {" COPY ", " COPIED "}]", ERR_NONE, NULL);
}

/* 200, and then the body says that it came to nothing: each with its own meaning. */
static void an_error_behind_200_is_that_error(void **state)
{
    (void)state;
    one_copy("[{" COPY ", 'error': 'InternalError'}, {" COPY ", " COPIED "}]", ERR_NONE, NULL);
    one_copy("[{" COPY ", 'error': 'InternalError', 'times': 2}]", ERR_UNAVAILABLE,
             "InternalError");
    one_copy("[{" COPY ", 'error': 'SlowDown', 'times': 2}]", ERR_THROTTLED, "SlowDown");
    one_copy("[{" COPY ", 'error': 'AccessDenied'}]", ERR_FORBIDDEN, "check the policy");
    one_copy("[{" COPY ", 'error': 'NoSuchKey'}]", ERR_ABSENT, NULL);
    one_copy("[{" COPY ", 'error': 'NotImplemented'}]", ERR_UNSUPPORTED, NULL);
}

static void what_is_no_answer_of_s3_is_no_copy(void **state)
{
    static const char *const texts[] = {
        "",
        "<html>welcome</html>",
        "<CopyObjectResult/>",
        "<CopyObjectResult><ETag></ETag></CopyObjectResult>",
        "<CopyObjectResult><ETag>\"abc\"</ETag>",
        "<CopyPartResult><ETag>\"abc\"</ETag></CopyPartResult>",
    };
    char steps[512];
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        (void)snprintf(steps, sizeof(steps), "[{" COPY ", 'text': '%s', 'times': 2}]", texts[i]);
        one_copy(steps, ERR_UNAVAILABLE, "copy to s3://bucket/p/to");
    }
}

/* What makes the caller copy through this host instead. */
static void a_store_that_cannot_copy_says_so(void **state)
{
    (void)state;
    one_copy("[{" COPY ", 'status': 501, 'error': 'NotImplemented'}]", ERR_UNSUPPORTED, NULL);
    one_copy("[{" COPY ", 'status': 501, 'error': 'SomethingElse'}]", ERR_UNSUPPORTED, NULL);
    one_copy("[{" COPY ", 'status': 404, 'error': 'NoSuchKey'}]", ERR_ABSENT, NULL);
}

/* What is told of the copy is asked of the store; what cannot be asked is no success. */
static void the_facts_are_the_copys_own(void **state)
{
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    (void)state;
    script_begin(&script,
                 "[{" COPY ", " COPIED "}, {'expect': 'GET /bucket/p/to', 'status': 206, "
                 "'text': 'h', 'etag': 'new', 'range': '0-0/7'}, {" COPY ", " COPIED "}, "
                 "{'expect': 'GET /bucket/p/to', 'status': 403, 'error': 'AccessDenied'}]");
    struct store *s = script_store(&script, 1);
    assert_ok(s->ops->copy(s, "from", "to", NULL, &info, &env_forever, &err), &err);
    assert_int_equal(info.size, 7);
    assert_string_equal(info.etag, "new");
    assert_false(s->ops->copy(s, "from", "to", NULL, &info, &env_forever, &err));
    env_assert_error(&err, ERR_FORBIDDEN, NULL);
    s->ops->free(s);
    script_end(&script);
}

static void names_are_checked_and_encoded(void **state)
{
    static const char *const bad[] = {"", "/x", "a/../b", "."};
    struct script script;
    struct err err = ERR_INIT;
    (void)state;
    script_begin(&script,
                 "[{'headers': {'x-amz-copy-source': '/bucket/p/a%20b/%3F%2B%25%C3%A9'}, " COPIED
                 "}]");
    struct store *s = script_store(&script, 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(s->ops->copy(s, bad[i], "to", NULL, NULL, &env_forever, &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_false(s->ops->copy(s, "from", bad[i], NULL, NULL, &env_forever, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    assert_ok(s->ops->copy(s, "a b/?+%\xc3\xa9", "to", NULL, NULL, &env_forever, &err), &err);
    s->ops->free(s);
    script_end(&script);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_with_an_etag_is_a_copy),
        cmocka_unit_test(an_error_behind_200_is_that_error),
        cmocka_unit_test(what_is_no_answer_of_s3_is_no_copy),
        cmocka_unit_test(a_store_that_cannot_copy_says_so),
        cmocka_unit_test(the_facts_are_the_copys_own),
        cmocka_unit_test(names_are_checked_and_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
