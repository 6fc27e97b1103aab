/* Puts and deletes that fail in all kinds of ways, against a scripted server. */
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

#define MD5_HELLO "5d41402abc4b2a76b9719d911017c592"
#define SHA_HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

/* STEPS against one put with TRIES; ERR_NONE: succeeds. */
static void one_put(const char *steps, unsigned tries, bool only_if_absent, enum err_code code,
                    const char *text)
{
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, steps);
    struct store *s = script_store(&script, tries);
    bool ok = script_put_hello(s, only_if_absent, &err);
    if (ok != (code == ERR_NONE))
        fail_msg("%s: %s", steps, ok ? "succeeded" : err.text);
    if (!ok) {
        env_assert_error(&err, code, text);
        env_assert_error(&err, code, "s3://bucket/p/key");
    }
    s->ops->free(s);
    script_end(&script);
}

#define GOOD_PUT                                                                            \
    "{'expect': 'PUT /bucket/p/key', 'body': 'hello', 'headers': {'x-amz-content-sha256': " \
    "'" SHA_HELLO "', 'content-length': '5', 'expect': None, 'if-none-match': None,"        \
    "'authorization': 'AWS4-HMAC-SHA256 Credential=AKTEST/.*'},"                            \
    "'etag': '" MD5_HELLO "'}"

static void test_put_answers(void **state)
{
    (void)state;
    one_put("[" GOOD_PUT "]", 1, false, ERR_NONE, NULL);
    /* no ETag: not what S3 says */
    one_put("[{'text': 'welcome'}, " GOOD_PUT "]", 2, false, ERR_NONE, NULL);
    one_put("[{'times': 2}]", 2, false, ERR_UNAVAILABLE, "without an ETag");
    /* the store has other content than was sent */
    one_put("[{'etag': '5d41402abc4b2a76b9719d911017c593'}]", 3, false, ERR_CORRUPT,
            "the store keeps other content");
    /* ETags that are no MD5 prove nothing */
    one_put("[{'etag': 'not-an-md5'}]", 1, false, ERR_NONE, NULL);
    one_put("[{'reply': {'ETag': '\"5d41402abc4b2a76b9719d911017c593\"', "
            "'x-amz-server-side-encryption': 'aws:kms'}}]",
            1, false, ERR_NONE, NULL);
    one_put("[{'reply': {'ETag': '\"5d41402abc4b2a76b9719d911017c593\"', "
            "'x-amz-server-side-encryption': 'AES256'}}]",
            1, false, ERR_CORRUPT, NULL);
}

static void test_put_retries(void **state)
{
    (void)state;
    one_put("[{'drop': 'now', 'reset': True}, {'drop': 'late'}, {'status': 500, 'error': "
            "'InternalError'}, " GOOD_PUT "]",
            4, false, ERR_NONE, NULL);
    /* damage on the way */
    one_put("[{'status': 400, 'error': 'XAmzContentSHA256Mismatch'}, {'status': 400, 'error': "
            "'BadDigest'}, " GOOD_PUT "]",
            3, false, ERR_NONE, NULL);
    one_put("[{'times': 2, 'status': 400, 'error': 'BadDigest'}]", 2, false, ERR_CORRUPT,
            "changed on its way");
    one_put("[{'status': 400, 'error': 'EntityTooLarge'}]", 3, false, ERR_INVALID, NULL);
    one_put("[{'status': 403, 'error': 'QuotaExceeded'}]", 3, false, ERR_NO_SPACE, NULL);
}

#define CONDITIONAL "'expect': 'PUT /bucket/p/key', 'headers': {'if-none-match': '\\*'}"

static void test_conditional_put(void **state)
{
    (void)state;
    one_put("[{" CONDITIONAL ", 'status': 412, 'error': 'PreconditionFailed'}]", 3, true,
            ERR_EXISTS, NULL);
    one_put("[{" CONDITIONAL
            ", 'status': 409, 'error': 'ConditionalRequestConflict'}, {" CONDITIONAL
            ", 'etag': 'x'}]",
            3, true, ERR_NONE, NULL);
    /* the answer to a put that worked is lost: the caller has to compare */
    one_put("[{" CONDITIONAL ", 'drop': 'late'}, {" CONDITIONAL
            ", 'status': 412, 'error': 'PreconditionFailed'}]",
            3, true, ERR_EXISTS, NULL);
    /* a 412 of a proxy is no answer of the store */
    one_put("[{'status': 412, 'text': '<html/>'}]", 1, true, ERR_UNAVAILABLE, NULL);
}

/* A store without conditional puts is looked into before each; the fact is remembered. */
static void test_not_implemented_condition(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    const char *absent = "{'expect': 'GET /bucket/p/key', 'status': 404, 'error': 'NoSuchKey'}";
    char steps[2048];
    (void)snprintf(steps, sizeof(steps),
                   "[{" CONDITIONAL ", 'status': 501, 'error': 'NotImplemented'}, %s, " GOOD_PUT
                   ", %s, " GOOD_PUT ",{'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'h', "
                   "'etag': 'e1', 'range': '0-0/10'}]",
                   absent, absent);
    script_begin(&script, steps);
    struct store *s = script_store(&script, 2);
    assert_true(script_put_hello(s, true, &err));
    assert_true(script_put_hello(s, true, &err));
    assert_false(script_put_hello(s, true, &err));
    env_assert_error(&err, ERR_EXISTS, "s3://bucket/p/key");
    s->ops->free(s);
    script_end(&script);
}

static void test_virtual_host_style(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    char endpoint[64];
    script_begin(&script, "[{'expect': 'PUT /a%20b', 'etag': 'e', 'headers': {'host': "
                          "'bucket[.]localhost:[0-9]+'}}, {'expect': 'GET /[?]encoding.*', 'text': "
                          "'<ListBucketResult/>'}]");
    (void)snprintf(endpoint, sizeof(endpoint), "http://localhost:%u", script.port);
    const struct store_s3_options options = {.bucket = "bucket",
                                             .endpoint = endpoint,
                                             .cred = env_cred("AK", "secret", NULL),
                                             .connect_timeout_ms = 1000,
                                             .stall_timeout_ms = 1000};
    struct store *s = store_s3_new(&options, &err);
    assert_non_null(s);
    env_put(s, "a b", "x", 1);
    struct store_page page;
    assert_true(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &env_forever, &err));
    store_page_free(&page);
    s->ops->free(s);
    script_end(&script);
}

static void test_request_headers(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    char endpoint[64];
    script_begin(&script,
                 "[{'expect': 'PUT /bucket/key', 'headers': {'x-amz-security-token': 'TOKEN', "
                 "'x-amz-storage-class': 'STANDARD_IA', 'x-amz-server-side-encryption': 'aws:kms', "
                 "'x-amz-server-side-encryption-aws-kms-key-id': 'KMS', 'host': "
                 "'127.0.0.1:[0-9]+', 'x-amz-meta-walefs-a': 'b', 'authorization': "
                 "'.*/eu-x-1/s3/"
                 "aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-"
                 "walefs-a;x-amz-security-token;x-amz-server-side-encryption;x-amz-server-side-"
                 "encryption-aws-kms-key-id;x-amz-storage-class,.*'}, 'etag': 'e'}]");
    (void)snprintf(endpoint, sizeof(endpoint), "HTTP://127.0.0.1:%u/", script.port);
    struct store_s3_options options = {.bucket = "bucket",
                                       .prefix = "",
                                       .endpoint = endpoint,
                                       .region = "eu-x-1",
                                       .cred = env_cred("AK", "secret", "TOKEN"),
                                       .storage_class = "STANDARD_IA",
                                       .sse = S3_SSE_KMS,
                                       .sse_kms_key = "KMS",
                                       .connect_timeout_ms = 1000,
                                       .stall_timeout_ms = 1000,
                                       .request_timeout_ms = 1000};
    struct store *s = store_s3_new(&options, &err);
    assert_non_null(s);
    const struct store_meta meta = {.name = "walefs-a", .value = "b"};
    const struct store_put put = {.body = {.mem = "x", .size = 1}, .meta = &meta, .meta_count = 1};
    if (!s->ops->put(s, "key", &put, NULL, &env_forever, &err))
        fail_msg("%s", err.text);
    s->ops->free(s);
    script_end(&script);
}

/* The server's own key, or one of KMS: with no id it is KMS's own for this. */
static void test_encryption_without_a_key(void **state)
{
    (void)state;
    static const struct {
        enum s3_sse sse;
        const char *steps;
    } cases[] = {
        {S3_SSE_AES256, "[{'headers': {'x-amz-server-side-encryption': 'AES256', "
                        "'x-amz-server-side-encryption-aws-kms-key-id': None}, 'etag': 'e'}]"},
        {S3_SSE_KMS, "[{'headers': {'x-amz-server-side-encryption': 'aws:kms', "
                     "'x-amz-server-side-encryption-aws-kms-key-id': None}, 'etag': 'e'}]"},
        {S3_SSE_NONE, "[{'headers': {'x-amz-server-side-encryption': None, "
                      "'x-amz-storage-class': None, 'x-amz-security-token': None}, 'etag': 'e'}]"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct script script;
        struct err err = ERR_INIT;
        char endpoint[64];
        script_begin(&script, cases[i].steps);
        (void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", script.port);
        const struct store_s3_options options = {.bucket = "bucket",
                                                 .endpoint = endpoint,
                                                 .path_style = true,
                                                 .cred = env_cred("AK", "secret", NULL),
                                                 .sse = cases[i].sse,
                                                 .connect_timeout_ms = 1000,
                                                 .stall_timeout_ms = 1000,
                                                 .request_timeout_ms = 1000};
        struct store *s = store_s3_new(&options, &err);
        assert_non_null(s);
        if (!script_put_hello(s, false, &err))
            fail_msg("%s", err.text);
        s->ops->free(s);
        script_end(&script);
    }
}

static bool remove_two(struct store *s, struct err *err)
{
    const char *const keys[] = {"a<b", "c"};
    return s->ops->remove(s, keys, 2, &env_forever, err);
}

#define BULK                                                                                    \
    "'expect': 'POST /bucket\\?delete', 'headers': {'content-md5': '.{24}', 'content-length': " \
    "'[0-9]+'}, 'body': '<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true" \
    "</Quiet><Object><Key>p/a&#60;b</Key></Object><Object><Key>p/c</Key></Object></Delete>'"

static void test_bulk_delete_answers(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(
        &script,
        "[{" BULK ", 'text': '<DeleteResult/>'}, {" BULK ", 'text': "
        "'<DeleteResult><Error><Key>p/a</Key><Code>NoSuchKey</Code></Error></DeleteResult>'}, "
        "{" BULK ", 'text': "
        "'<DeleteResult><Error><Key>p/c</Key><Code>AccessDenied</Code><Message>no</"
        "Message></Error></DeleteResult>'}, {" BULK ", 'text': "
        "'<DeleteResult><Error><Key>p/c</Key><Code>InternalError</Code></Error></DeleteResult>'}, "
        "{'text': '<DeleteResult/>'},"
        /* 200 with an error for a body, then a torn one */
        " {'error': 'SlowDown'}, {'text': '<DeleteRes'}, {'error': 'AccessDenied'},"
        /* forbidden as a whole: the objects may be another matter, or not */
        "{" BULK ", 'status': 403, 'error': 'AccessDenied'}, {'expect': 'DELETE /bucket/p/a%3Cb', "
        "'status': 204}, {'expect': 'DELETE /bucket/p/c', 'status': 204}, "
        "{" BULK ", 'status': 403, 'error': 'AccessDenied'}, {'expect': 'DELETE /bucket/p/a%3Cb', "
        "'status': 403, 'error': 'AccessDenied'}, "
        /* a store that does not know it */
        " {" BULK
        ", 'status': 501, 'error': 'NotImplemented'}, {'expect': 'DELETE /bucket/p/a%3Cb', "
        "'status': 204}, {'expect': 'DELETE /bucket/p/c', 'status': 404, 'error': 'NoSuchKey'}, "
        "{'expect': 'DELETE /bucket/p/a%3Cb', 'status': 204}, {'expect': "
        "'DELETE /bucket/p/c', 'status': 404, 'text': '<html/>'}]");
    struct store *s = script_store(&script, 2);
    assert_true(remove_two(s, &err));
    assert_true(remove_two(s, &err));
    assert_false(remove_two(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "(p/c)");
    assert_true(remove_two(s, &err));
    assert_false(remove_two(s, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "not S3's");
    assert_false(remove_two(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, NULL);
    assert_true(remove_two(s, &err));
    assert_false(remove_two(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "delete s3://bucket/p/a<b");
    assert_true(remove_two(s, &err));
    assert_false(remove_two(s, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, NULL);
    s->ops->free(s);
    script_end(&script);
}

#define COPY                                                                           \
    "'expect': 'PUT /bucket/p/to', 'headers': {'x-amz-copy-source': '/bucket/p/key', " \
    "'x-amz-copy-source-if-match': '\"e1\"'}"
#define COPIED COPY ", 'text': '<CopyObjectResult><ETag>e2</ETag></CopyObjectResult>'"
#define SOURCE_IS(etag)                                                                \
    "{'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'h', 'etag': '" etag "', " \
    "'range': '0-0/10'}"

static void one_copy(const char *steps, enum err_code code)
{
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 3);
    assert_int_equal(s->ops->copy(s, "key", "to", "e1", NULL, &env_forever, &err),
                     code == ERR_NONE);
    assert_int_equal(err.code, code);
    s->ops->free(s);
    script_end(&script);
}

/* Of one content, also where the store does not know the condition. */
static void test_conditional_copy(void **state)
{
    (void)state;
    one_copy("[{" COPIED "}, " SOURCE_IS("e1") "]", ERR_NONE);
    one_copy("[{" COPY ", 'status': 412, 'error': 'PreconditionFailed'}]", ERR_STALE);
    one_copy("[{" COPIED "}, " SOURCE_IS("e3") "]", ERR_STALE);
    one_copy("[{" COPIED "}, {'expect': 'GET /bucket/p/key', 'status': 404, 'error': 'NoSuchKey'}]",
             ERR_ABSENT);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_answers),
        cmocka_unit_test(test_put_retries),
        cmocka_unit_test(test_conditional_put),
        cmocka_unit_test(test_not_implemented_condition),
        cmocka_unit_test(test_virtual_host_style),
        cmocka_unit_test(test_request_headers),
        cmocka_unit_test(test_encryption_without_a_key),
        cmocka_unit_test(test_bulk_delete_answers),
        cmocka_unit_test(test_conditional_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
