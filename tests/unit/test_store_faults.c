/* What the S3 store makes of errors and of answers that no healthy S3 gives, and its look at the
 * store before a mount: each against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "core/log.h"
#include "tests/unit/store_env.h"

#define ERROR_DOC(code, more) "<?xml version=\"1.0\"?><Error><Code>" code "</Code>" more "</Error>"

/* One head against one answer: STATUS, extra members of the step (or ""), body. */
static void one_head(int status, const char *more, const char *body, unsigned times,
                     enum err_code code, const char *text)
{
    char steps[2048];
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    (void)snprintf(steps, sizeof(steps),
                   "[{'expect': 'GET /bucket/p/key', 'headers': {'range': 'bytes=0-0'}, 'status': "
                   "%d, 'times': %u, 'text': '''%s''' %s}]",
                   status, times, body, more);
    script_begin(&script, steps);
    struct store *s = script_store(&script, 2);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    env_assert_error(&err, code, text);
    env_assert_error(&err, code, "s3://bucket/p/key");
    s->ops->free(s);
    script_end(&script);
}

static void test_error_codes(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *doc;
        unsigned times; /* 2: it is tried again */
        enum err_code code;
        const char *text;
    } cases[] = {
        {404, ERROR_DOC("NoSuchKey", ""), 1, ERR_ABSENT, "NoSuchKey"},
        {404, ERROR_DOC("NoSuchBucket", ""), 1, ERR_NO_BUCKET, "check the bucket's name"},
        {403, ERROR_DOC("AccessDenied", "<Message>no\nway</Message><RequestId>R17</RequestId>"), 1,
         ERR_FORBIDDEN, "AccessDenied: no way (HTTP 403, request R17); check the policy"},
        {403, ERROR_DOC("InvalidAccessKeyId", ""), 1, ERR_FORBIDDEN, "AWS_ACCESS_KEY_ID"},
        {403, ERROR_DOC("SignatureDoesNotMatch", ""), 1, ERR_FORBIDDEN, "AWS_SECRET_ACCESS_KEY"},
        {400, ERROR_DOC("ExpiredToken", ""), 1, ERR_FORBIDDEN, "new temporary credentials"},
        {400, ERROR_DOC("TokenRefreshRequired", ""), 1, ERR_FORBIDDEN, "temporary"},
        {400, ERROR_DOC("InvalidToken", ""), 1, ERR_FORBIDDEN, "temporary"},
        {403, ERROR_DOC("RequestTimeTooSkewed", "<ServerTime>2031-01-02T03:04:05Z</ServerTime>"), 1,
         ERR_FORBIDDEN, "the store's 2031-01-02T03:04:05Z: set this host's clock"},
        {400, ERROR_DOC("AuthorizationHeaderMalformed", "<Region>eu-west-7</Region>"), 1,
         ERR_FORBIDDEN, "the bucket is in region eu-west-7"},
        {301, ERROR_DOC("PermanentRedirect", "<Endpoint>bucket.s3.xy.amazonaws.com</Endpoint>"), 1,
         ERR_FORBIDDEN, "the bucket is at bucket.s3.xy.amazonaws.com"},
        {307, ERROR_DOC("TemporaryRedirect", ""), 1, ERR_UNAVAILABLE, "regional endpoint"},
        {503, ERROR_DOC("SlowDown", ""), 2, ERR_THROTTLED, "(tried 2 times)"},
        {503, ERROR_DOC("ServiceUnavailable", ""), 2, ERR_THROTTLED, NULL},
        {429, ERROR_DOC("TooManyRequests", ""), 2, ERR_THROTTLED, NULL},
        {500, ERROR_DOC("InternalError", ""), 2, ERR_UNAVAILABLE, "InternalError"},
        {400, ERROR_DOC("RequestTimeout", ""), 2, ERR_TIMEOUT, NULL},
        {409, ERROR_DOC("OperationAborted", ""), 2, ERR_UNAVAILABLE, NULL},
        {501, ERROR_DOC("NotImplemented", ""), 1, ERR_UNAVAILABLE, "NotImplemented"},
        {405, ERROR_DOC("MethodNotAllowed", ""), 1, ERR_UNAVAILABLE, NULL},
        {403, ERROR_DOC("QuotaExceeded", ""), 1, ERR_NO_SPACE, "quota"},
        {507, ERROR_DOC("XMinioStorageFull", ""), 1, ERR_NO_SPACE, NULL},
        {400, ERROR_DOC("KMS.DisabledException", ""), 1, ERR_UNAVAILABLE, "KMS.DisabledException"},
        {403, ERROR_DOC("SomethingNew", ""), 1, ERR_FORBIDDEN, NULL},
        {404, ERROR_DOC("SomethingNew", ""), 1, ERR_UNAVAILABLE, NULL},
        {502, ERROR_DOC("SomethingNew", ""), 2, ERR_UNAVAILABLE, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        one_head(cases[i].status, "", cases[i].doc, cases[i].times, cases[i].code, cases[i].text);
}

/* ERR_ABSENT comes from nothing but a readable S3 error document. */
static void test_not_s3(void **state)
{
    (void)state;
    const char *html = ", 'reply': {'Content-Type': 'text/html'}";
    one_head(404, html, "<html><h1>Not Found</h1></html>", 1, ERR_UNAVAILABLE, "text/html");
    one_head(404, html, "<html>&nbsp;<br></html>", 1, ERR_UNAVAILABLE, "proxy");
    one_head(404, "", "", 1, ERR_UNAVAILABLE, "without an S3 error document");
    one_head(404, "", "NoSuchKey", 1, ERR_UNAVAILABLE, NULL);
    one_head(404, "", "<Error><Code>NoSuchKey</Code>", 1, ERR_UNAVAILABLE, NULL);
    one_head(404, "", "<Error><Message>NoSuchKey</Message></Error>", 1, ERR_UNAVAILABLE, NULL);
    one_head(404, "", "<e><Error><Code>NoSuchKey</Code></Error></e>", 1, ERR_UNAVAILABLE, NULL);
    one_head(404, "", "<!DOCTYPE Error [<!ENTITY k \"NoSuchKey\">]><Error><Code>&k;</Code></Error>",
             1, ERR_UNAVAILABLE, NULL);
    one_head(403, html, "<html>blocked</html>", 1, ERR_UNAVAILABLE, "proxy");
    one_head(302, ", 'reply': {'Location': 'http://127.0.0.1:1/login'}", "", 1, ERR_UNAVAILABLE,
             "HTTP 302");
    one_head(407, "", "", 1, ERR_UNAVAILABLE, "proxy wants credentials");
    one_head(502, html, "<html>bad gateway</html>", 2, ERR_UNAVAILABLE, "HTTP 502");
    one_head(429, "", "", 2, ERR_THROTTLED, NULL);
    /* a document that is longer than any of S3's */
    one_head(404,
             ", 'text': [['<Error><Code>NoSuchKey</Code>', 1], [' ', 100000], ['</Error>', 1]]", "",
             1, ERR_UNAVAILABLE, NULL);
    /* a document that does not arrive whole is asked for again */
    one_head(404, ", 'cut': 20", ERROR_DOC("NoSuchKey", ""), 2, ERR_UNAVAILABLE, NULL);
}

static void test_wrong_region_header(void **state)
{
    (void)state;
    one_head(400, ", 'reply': {'x-amz-bucket-region': 'ap-1', 'x-amz-request-id': 'RQ'}",
             ERROR_DOC("AuthorizationHeaderMalformed", ""), 1, ERR_FORBIDDEN,
             "request RQ); the bucket is in region ap-1");
}

static void test_clock_skew_by_date(void **state)
{
    (void)state;
    one_head(403, ", 'reply': {'Date': 'Mon, 05 Jan 2032 10:11:12 GMT'}",
             ERROR_DOC("RequestTimeTooSkewed", ""), 1, ERR_FORBIDDEN,
             "the store's Mon, 05 Jan 2032 10:11:12 GMT");
}

/* Errors in a document of a foreign encoding, with control characters: still one clean line. */
static void test_odd_error_text(void **state)
{
    (void)state;
    one_head(403, "",
             "<Error><Code>AccessDenied</Code><Message>a\\x01b&#x02;c\\tend</Message></Error>", 1,
             ERR_FORBIDDEN, "end (HTTP 403)");
}

static bool head(struct store *s, struct store_info *info, struct err *err)
{
    return s->ops->head(s, "key", info, &env_forever, err);
}

static void test_head_fallbacks(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    script_begin(
        &script,
        "[{'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'x', 'reply': { 'Content-Range': "
        "'bytes 0-0/1234', 'ETag': '\"e1\"', 'x-amz-storage-class': 'STANDARD_IA', "
        "'Last-Modified': 'Tue, 24 Nov 2026 10:00:00 GMT', 'x-amz-meta-walefs-size': '99', "
        "'x-amz-meta-other': 'x', 'x-amz-meta-walefs-UP': 'kept: names have no case'}},"
        /* no ranges here */
        " {'expect': 'GET /bucket/p/key', 'status': 200, 'text': [['x', 300000]], 'reply': {  "
        "'ETag': '\"e2\"'}},"
        /* empty */
        " {'expect': 'GET /bucket/p/key', 'status': 416, 'error': 'InvalidRange'}, {'expect': "
        "'HEAD /bucket/p/key', 'status': 200, 'reply': {'ETag': '\"e3\"', 'length': 0}},"
        /* frozen */
        " {'expect': 'GET /bucket/p/key', 'status': 403, 'error': 'InvalidObjectState'}, "
        "{'expect': 'HEAD /bucket/p/key', 'status': 200, 'reply': {'ETag': '\"e4\"', 'length': 77, "
        " 'x-amz-storage-class': 'GLACIER'}},"
        /* deleted between the two */
        " {'expect': 'GET /bucket/p/key', 'status': 416, 'error': 'InvalidRange'}, {'expect': "
        "'HEAD /bucket/p/key', 'status': 404}, {'expect': 'GET /bucket/p/key', 'status': 404, "
        "'text': '" ERROR_DOC("NoSuchKey",
                              "") "'},"
                                  /* an answer that does not make sense */
                                  " {'expect': 'GET /bucket/p/key', 'status': 206, 'text': 'x'}]");
    struct store *s = script_store(&script, 1);
    assert_true(head(s, &info, &err));
    assert_int_equal(info.size, 1234);
    assert_string_equal(info.etag, "e1");
    assert_string_equal(info.storage_class, "STANDARD_IA");
    assert_int_equal(info.mtime_s, 1795514400);
    assert_int_equal(info.meta_count, 2);
    assert_string_equal(store_meta_get(&info, "walefs-size"), "99");
    assert_true(head(s, &info, &err));
    assert_int_equal(info.size, 300000);
    assert_true(head(s, &info, &err));
    assert_int_equal(info.size, 0);
    assert_string_equal(info.etag, "e3");
    assert_true(head(s, &info, &err));
    assert_int_equal(info.size, 77);
    assert_string_equal(info.storage_class, "GLACIER");
    assert_false(head(s, &info, &err));
    env_assert_error(&err, ERR_ABSENT, NULL);
    assert_false(head(s, &info, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "does not say the size");
    s->ops->free(s);
    script_end(&script);
}

static void test_frozen(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    script_begin(&script,
                 "[{'expect': 'GET /bucket/p/key', 'status': 403, 'error': 'InvalidObjectState'}]");
    struct store *s = script_store(&script, 3);
    assert_null(s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err));
    env_assert_error(&err, ERR_FROZEN, "restore");
    s->ops->free(s);
    script_end(&script);
}

#define ONLY_LISTED "{'expect': 'GET /bucket\\?.*max-keys=1&.*', 'text': '<ListBucketResult/>'}"
#define ABSENT "{'expect': 'GET /bucket/p/wal_005/walefs_absent', 'status': "
#define LISTED ONLY_LISTED ", " ABSENT "404, 'error': 'NoSuchKey'}"
#define PROBE "'expect': 'PUT /bucket/p/walefs_probe'"
#define WRONG_SUM ", 'status': 400, 'error': 'XAmzContentSHA256Mismatch'"
#define UPLOADS "{'expect': 'GET /bucket\\?.*uploads.*', 'text': '<ListMultipartUploadsResult>"
#define NO_UPLOADS UPLOADS "</ListMultipartUploadsResult>'}"
#define PROBE_IF PROBE ", 'headers': {'if-none-match': '\\*'}"

static void one_check(const char *steps, enum err_code code, const char *text, bool weak_wanted)
{
    struct script script;
    struct err err = ERR_INIT;
    bool weak = !weak_wanted;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 8);
    bool ok = s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err);
    if (ok != (code == ERR_NONE))
        fail_msg("%s: %s", steps, ok ? "succeeded" : err.text);
    if (ok)
        assert_int_equal(weak, weak_wanted);
    else
        env_assert_error(&err, code, text);
    s->ops->free(s);
    script_end(&script);
}

static void test_check(void **state)
{
    (void)state;
    const char *gone = "'status': 404, 'error': 'NoSuchKey'";
    const char *taken = "'status': 412, 'error': 'PreconditionFailed'";
    char steps[2048];
    (void)snprintf(steps, sizeof(steps),
                   "[" LISTED ", {" PROBE_IF ", 'etag': 'e'}, {" PROBE_IF ", %s}, {" PROBE WRONG_SUM
                   "}, " NO_UPLOADS "]",
                   taken);
    one_check(steps, ERR_NONE, NULL, false);
    (void)snprintf(steps, sizeof(steps),
                   "[" LISTED ", {" PROBE_IF ", %s}, {" PROBE WRONG_SUM "}, " NO_UPLOADS "]",
                   taken);
    one_check(steps, ERR_NONE, NULL, false);
    /* a store that does not look at the payload's hash is as good */
    (void)snprintf(steps, sizeof(steps),
                   "[" LISTED ", {" PROBE_IF ", %s}, {" PROBE ", 'etag': 'e'}, " NO_UPLOADS "]",
                   taken);
    one_check(steps, ERR_NONE, NULL, false);
    /* uploads that a dead mount left are aborted, those of today are not */
    char now[64];
    time_t t = time(NULL);
    struct tm tm;
    (void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&t, &tm));
    (void)snprintf(steps, sizeof(steps),
                   "[" LISTED ", {" PROBE_IF ", %s}, {" PROBE WRONG_SUM "}, " UPLOADS
                   "<Upload><Key>p/new</Key><UploadId>u1</UploadId><Initiated>%s</Initiated>"
                   "</Upload><Upload><Key>p/old</Key><UploadId>u2</UploadId>"
                   "<Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>"
                   "</ListMultipartUploadsResult>'},"
                   "{'expect': 'GET /bucket/p/old\\\\?uploadId=u2', "
                   "'text': '<ListPartsResult></ListPartsResult>'},"
                   "{'expect': 'DELETE /bucket/p/old\\\\?uploadId=u2', 'status': 204}]",
                   taken, now);
    one_check(steps, ERR_NONE, NULL, false);
    /* the condition is ignored */
    one_check("[" LISTED ", {" PROBE_IF ", 'etag': 'e', 'times': 2}, {" PROBE WRONG_SUM
              "}, " NO_UPLOADS ", {" PROBE ", 'headers': {'if-none-match': None}, 'etag': 'e'}]",
              ERR_NONE, NULL, true);
    /* or refused */
    (void)snprintf(steps, sizeof(steps),
                   "[" LISTED ", {" PROBE_IF
                   ", 'status': 501, 'error': 'NotImplemented'},{'expect': 'GET "
                   "/bucket/p/walefs_probe', %s}, {" PROBE ", 'etag': 'e'}, {" PROBE WRONG_SUM
                   "}, " NO_UPLOADS ", {" PROBE ", 'etag': 'e'}]",
                   gone);
    one_check(steps, ERR_NONE, NULL, true);
    one_check("[{'status': 403, 'error': 'AccessDenied'}]", ERR_FORBIDDEN,
              "s3://bucket/p/ cannot be listed", false);
    one_check("[" ONLY_LISTED ", " ABSENT "403, 'error': 'AccessDenied'}]", ERR_FORBIDDEN,
              "s3://bucket/p/: the store does not tell what is missing (s3:ListBucket", false);
    one_check("[" ONLY_LISTED ", " ABSENT "500, 'times': 2}]", ERR_UNAVAILABLE, "HTTP 500", false);
    one_check("[" LISTED ", {" PROBE_IF ", 'status': 403, 'error': 'AccessDenied'}]", ERR_FORBIDDEN,
              "mount with -o ro", false);
    one_check("[" LISTED ", {" PROBE_IF ", 'status': 500, 'times': 2}]", ERR_UNAVAILABLE,
              "cannot be written", false);
}

static struct store *elsewhere(const char *endpoint, unsigned tries)
{
    struct err err = ERR_INIT;
    struct store_s3_options options = {.bucket = "bucket",
                                       .endpoint = endpoint,
                                       .path_style = true,
                                       .cred = env_cred("AK", "secret", NULL),
                                       .connect_timeout_ms = 2000,
                                       .stall_timeout_ms = 2000,
                                       .request_timeout_ms = 2000,
                                       .max_attempts = tries,
                                       .max_connections = 2};
    struct store *s = store_s3_new(&options, &err);
    if (s == NULL)
        fail_msg("%s", err.text);
    return s;
}

static void check_elsewhere(const char *endpoint, const char *text)
{
    struct err err = ERR_INIT;
    bool weak;
    struct store *s = elsewhere(endpoint, 2);
    assert_false(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, text);
    env_assert_error(&err, ERR_UNAVAILABLE, endpoint);
    s->ops->free(s);
}

static void test_no_server(void **state)
{
    (void)state;
    struct script script;
    char url[64];
    check_elsewhere("http://127.0.0.1:1", "Connection refused");
    check_elsewhere("http://walefs-test.invalid", "check the endpoint's name");
    script_begin(&script, "[{'raw': 'SSH-2.0-OpenSSH\\r\\n'}]");
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", script.port);
    check_elsewhere(url, "no HTTP there");
    script_end(&script);
    script_begin(&script, "[]");
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u", script.port);
    struct err err = ERR_INIT;
    bool weak;
    struct store *s = elsewhere(url, 1);
    assert_false(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err));
    assert_true(err.code == ERR_UNAVAILABLE || err.code == ERR_TIMEOUT);
    assert_non_null(strstr(err.text, url));
    s->ops->free(s);
    script_drop(&script);
}

static void test_huge_headers(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    char *steps = NULL;
    char *value = env_bytes(900, 1);
    memset(value, 'v', 900);
    value[900] = '\0';
    struct buf b = BUF_INIT(1024 * 1024);
    assert_true(buf_puts(&b, "[{'status': 206, 'text': 'x', 'reply': {"));
    for (int i = 0; i < 90; i++)
        assert_true(buf_printf(&b, "'h%d': '%s', ", i, value));
    assert_true(buf_puts(&b, "}}]"));
    steps = b.data;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 1);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "headers");
    s->ops->free(s);
    script_end(&script);
    buf_free(&b);
    free(value);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_codes),
        cmocka_unit_test(test_not_s3),
        cmocka_unit_test(test_wrong_region_header),
        cmocka_unit_test(test_clock_skew_by_date),
        cmocka_unit_test(test_odd_error_text),
        cmocka_unit_test(test_head_fallbacks),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_huge_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
