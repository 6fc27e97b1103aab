/* Multipart uploads that go wrong, against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "tests/unit/store_env.h"

#define BEGIN                                                                                 \
    "{'expect': 'POST /bucket/p/key\\?uploads', 'headers': {'content-length': '0'}, 'text': " \
    "'<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>'}"
#define PART_OK                                                                       \
    "{'expect': 'PUT /bucket/p/key\\?partNumber=1&uploadId=u.2F1', 'body': 'hello', " \
    "'etag': '5d41402abc4b2a76b9719d911017c592'}"
#define COMPLETE                                                                               \
    "'expect': 'POST /bucket/p/key\\?uploadId=u.2F1', 'body': '<CompleteMultipartUpload "      \
    "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Part><PartNumber>1</PartNumber><ETag>" \
    "&quot;5d41402abc4b2a76b9719d911017c592&quot;</ETag></Part></CompleteMultipartUpload>'"
#define COMPLETED \
    "'text': "    \
    "'<CompleteMultipartUploadResult><ETag>\"abc-1\"</ETag></CompleteMultipartUploadResult>'"
#define NO_ETAG \
    "'text': '<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>'"
#define OBJECT_OF(size, etag)                                                \
    "{'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'h', 'reply': {" \
    "'Content-Range': 'bytes 0-0/" size "', 'ETag': '\"" etag "\"'}}"
#define OBJECT(etag) OBJECT_OF("5", etag)
#define ABORTED "{'expect': 'DELETE /bucket/p/key\\?uploadId=u.2F1', 'status': 204}"
#define ETAG_HELLO_1 "62109206880d38a4010a98e11243924a-1"

/* One upload of one part; REST of the steps comes after the part. ERR_NONE: succeeds. */
static void one_upload(const char *rest, bool only_if_absent, enum err_code code, const char *text)
{
    char steps[4096];
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    const struct store_put put = {.only_if_absent = only_if_absent};
    const struct store_body body = {.mem = "hello", .size = 5};
    (void)snprintf(steps, sizeof(steps), "[" BEGIN ", " PART_OK ", %s]", rest);
    script_begin(&script, steps);
    struct store *s = script_store(&script, 2);
    struct store_upload *up = s->ops->upload_begin(s, "key", &put, &env_forever, &err);
    if (up == NULL || !s->ops->upload_part(up, 1, &body, &env_forever, &err))
        fail_msg("%s", err.text);
    bool ok = s->ops->upload_complete(up, &info, &env_forever, &err);
    if (ok != (code == ERR_NONE))
        fail_msg("%s: %s", rest, ok ? "succeeded" : err.text);
    if (ok)
        assert_int_equal(info.size, 5);
    else
        env_assert_error(&err, code, text);
    s->ops->free(s);
    script_end(&script);
}

static void test_complete_answers(void **state)
{
    (void)state;
    one_upload("{" COMPLETE ", " COMPLETED "}", false, ERR_NONE, NULL);
    /* 200, and then the body says what happened */
    one_upload("{" COMPLETE ", 'error': 'InternalError'}, {" COMPLETE ", " COMPLETED "}", false,
               ERR_NONE, NULL);
    one_upload("{" COMPLETE ", 'error': 'AccessDenied'}, " ABORTED, false, ERR_FORBIDDEN, NULL);
    one_upload("{" COMPLETE ", 'text': '<CompleteMultipartUploadResult/>', 'times': 2}, " ABORTED,
               false, ERR_UNAVAILABLE, "no readable answer");
    one_upload("{" COMPLETE ", 'text': '', 'times': 2}, " ABORTED, false, ERR_UNAVAILABLE, NULL);
    /* radosgw says no ETag: the object has it */
    one_upload("{" COMPLETE ", " NO_ETAG "}, " OBJECT(ETAG_HELLO_1), false, ERR_NONE, NULL);
    one_upload("{" COMPLETE ", " NO_ETAG "}, " OBJECT("someone-else-1") ", " ABORTED, false,
               ERR_UNAVAILABLE, "not there");
    one_upload("{" COMPLETE ", 'status': 404, 'error': 'NoSuchUpload'}, {'expect': 'GET "
               "/bucket/p/key', 'status': 404, 'error': 'NoSuchKey'}, " ABORTED,
               false, ERR_UNAVAILABLE, "removed meanwhile");
    one_upload("{" COMPLETE ", 'status': 400, 'error': 'EntityTooSmall'}, " ABORTED, false,
               ERR_INVALID, NULL);
}

/* The answer is lost and the retry finds no upload: the object itself tells. */
static void test_complete_answer_lost(void **state)
{
    (void)state;
    const char *lost =
        "{" COMPLETE ", 'drop': 'late'}, {" COMPLETE ", 'status': 404, 'error': 'NoSuchUpload'}, ";
    char rest[1024];
    (void)snprintf(rest, sizeof(rest), "%s" OBJECT(ETAG_HELLO_1), lost);
    one_upload(rest, false, ERR_NONE, NULL);
    (void)snprintf(rest, sizeof(rest), "%s" OBJECT("someone-else-1") ", " ABORTED, lost);
    one_upload(rest, false, ERR_UNAVAILABLE, NULL);
    (void)snprintf(rest, sizeof(rest), "%s" OBJECT_OF("6", ETAG_HELLO_1) ", " ABORTED, lost);
    one_upload(rest, false, ERR_UNAVAILABLE, NULL);
}

static void test_complete_guarded(void **state)
{
    (void)state;
    const char *absent = "{'expect': 'GET /bucket/p/key', 'status': 404, 'error': 'NoSuchKey'}";
    char rest[2048];
    (void)snprintf(rest, sizeof(rest),
                   "%s, {" COMPLETE ", 'headers': {'if-none-match': '\\*'}, " COMPLETED "}",
                   absent);
    one_upload(rest, true, ERR_NONE, NULL);
    (void)snprintf(rest, sizeof(rest),
                   "%s, {" COMPLETE ", 'status': 501, 'error': 'NotImplemented'}, {" COMPLETE
                   ", 'headers': {'if-none-match': None}, " COMPLETED "}",
                   absent);
    one_upload(rest, true, ERR_NONE, NULL);
    (void)snprintf(rest, sizeof(rest),
                   "%s, {" COMPLETE ", 'status': 412, 'error': 'PreconditionFailed'}, " OBJECT(
                       "other-1") ", " ABORTED,
                   absent);
    one_upload(rest, true, ERR_EXISTS, NULL);
    (void)snprintf(rest, sizeof(rest),
                   "%s, {" COMPLETE ", 'drop': 'late'}, {" COMPLETE
                   ", 'status': 412, 'error': 'PreconditionFailed'}, " OBJECT(ETAG_HELLO_1),
                   absent);
    one_upload(rest, true, ERR_NONE, NULL);
    one_upload("{'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'h', 'etag': 'e1', 'range': "
               "'0-0/10'}, " ABORTED,
               true, ERR_EXISTS, "exists already");
    /* whether it exists cannot be told: nothing is published */
    one_upload("{'expect': 'GET /bucket/p/key', 'status': 404, 'text': '<html/>'}, " ABORTED, true,
               ERR_UNAVAILABLE, NULL);
}

static void test_part_answers(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    const struct store_put put = {.only_if_absent = false};
    const struct store_body body = {.mem = "hello", .size = 5};
    script_begin(&script, "[{'text': '<html/>'}, " BEGIN ", {'status': 500}, " PART_OK
                          ", {'etag': '5d41402abc4b2a76b9719d911017c593'}, {'status': 404, "
                          "'error': 'NoSuchUpload'}, " ABORTED "]");
    struct store *s = script_store(&script, 2);
    struct store_upload *up = s->ops->upload_begin(s, "key", &put, &env_forever, &err);
    assert_non_null(up);
    assert_true(s->ops->upload_part(up, 1, &body, &env_forever, &err));
    assert_false(s->ops->upload_part(up, 2, &body, &env_forever, &err));
    env_assert_error(&err, ERR_CORRUPT, NULL);
    assert_false(s->ops->upload_part(up, 2, &body, &env_forever, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, NULL);
    assert_false(s->ops->upload_part(up, 0, &body, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
    s->ops->upload_abort(up, &env_forever);
    s->ops->free(s);
    script_end(&script);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete_answers),
        cmocka_unit_test(test_complete_answer_lost),
        cmocka_unit_test(test_complete_guarded),
        cmocka_unit_test(test_part_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
