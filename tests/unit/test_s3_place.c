/* Finding the bucket's region, and what is said when a given one is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/s3.h"
#include "tests/unit/store_env.h"

static struct script script;
static char endpoint[64];

static struct store *begin(const char *steps, const char *region)
{
    struct err err = ERR_INIT;
    script_begin(&script, steps);
    (void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", script.port);
    const struct store_s3_options options = {.bucket = "bucket",
                                             .prefix = "p",
                                             .region = region,
                                             .endpoint = endpoint,
                                             .cred = env_cred("AK", "secret", NULL),
                                             .connect_timeout_ms = 5000,
                                             .stall_timeout_ms = 20000,
                                             .request_timeout_ms = 20000,
                                             .max_attempts = 1,
                                             .max_connections = 2};
    struct store *s = store_s3_new(&options, &err);
    if (s == NULL)
        fail_msg("%s", err.text);
    return s;
}

static void end(struct store *s)
{
    s->ops->free(s);
    script_end(&script);
}

#define SIGNED(region) "'headers': {'authorization': '.*Credential=AK/[0-9]+/" region "/s3/.*'}"
#define LIST(region) "{'expect': 'GET /bucket.*', " SIGNED(region)
#define LISTED ", 'text': '<ListBucketResult/>'}"
#define DOC(code, more) \
    ", 'text': '<Error><Code>" code "</Code><Message>m</Message>" more "</Error>'"

static bool list(struct store *s, struct err *err)
{
    struct store_page page;
    bool ok = s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &env_forever, err);
    if (ok)
        store_page_free(&page);
    return ok;
}

/* The three ways in which S3 tells. Learned once, used from then on. */
static void test_learned(void **state)
{
    (void)state;
    static const char *const answers[] = {
        ", 'status': 400" DOC("AuthorizationHeaderMalformed", "<Region>eu-x-1</Region>"),
        ", 'status': 301, 'reply': {'x-amz-bucket-region': 'eu-x-1'}" DOC("PermanentRedirect", ""),
        ", 'status': 301, 'reply': {'x-amz-bucket-region': 'eu-x-1'}",
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        char steps[1024];
        (void)snprintf(steps, sizeof(steps),
                       "[" LIST("us-east-1") "%s}, " LIST("eu-x-1") LISTED ", " LIST("eu-x-1")
                           LISTED ", {'expect': 'PUT /bucket/p/key', " SIGNED(
                               "eu-x-1") ", 'etag': 'e', 'body': 'hello'}]",
                       answers[i]);
        struct err err = ERR_INIT;
        struct store *s = begin(steps, NULL);
        assert_ok(list(s, &err), &err);
        assert_ok(list(s, &err), &err);
        assert_ok(script_put_hello(s, false, &err), &err);
        end(s);
    }
}

/* The body of a write is sent again. */
static void test_learned_by_a_put(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store *s = begin(
        "[{'expect': 'PUT .*', 'status': 307, 'reply': {'x-amz-bucket-region': 'eu-x-1'}" DOC(
            "TemporaryRedirect",
            "") "}, {'expect': 'PUT .*', " SIGNED("eu-x-1") ", 'etag': 'e', 'body': 'hello'}]",
        NULL);
    assert_ok(script_put_hello(s, false, &err), &err);
    end(s);
}

static void test_given_region_stays(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store *s =
        begin("[" LIST("us-west-2") ", 'status': 400" DOC(
                  "AuthorizationHeaderMalformed",
                  "<Region>eu-x-1</Region>") "}, " LIST("us-west-2") ", 'status': 301, 'reply': "
                                                                     "{'x-amz-bucket-region': "
                                                                     "'eu-x-1'}}]",
              "us-west-2");
    assert_false(list(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "the bucket is in region eu-x-1: set AWS_REGION");
    assert_false(list(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "the bucket is in region eu-x-1: set AWS_REGION");
    end(s);
}

/* What the network says becomes part of a host name: only what can be a region. */
static void test_not_followed(void **state)
{
    (void)state;
    static const char *const answers[] = {
        ", 'status': 400" DOC("AuthorizationHeaderMalformed", "<Region>us-east-1</Region>"),
        ", 'status': 400" DOC("AuthorizationHeaderMalformed", "<Region>evil.example</Region>"),
        ", 'status': 400" DOC("AuthorizationHeaderMalformed", "<Region>a/b</Region>"),
        ", 'status': 400" DOC("AuthorizationHeaderMalformed", ""),
        /* a region that is told with another error is no reason to go there */
        ", 'status': 403, 'reply': {'x-amz-bucket-region': 'eu-x-1'}" DOC("AccessDenied", ""),
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        char steps[512];
        struct err err = ERR_INIT;
        (void)snprintf(steps, sizeof(steps), "[" LIST("us-east-1") "%s}]", answers[i]);
        struct store *s = begin(steps, NULL);
        assert_false(list(s, &err));
        env_assert_error(&err, ERR_FORBIDDEN, NULL);
        if (strstr(answers[i], "AccessDenied") != NULL) {
            env_assert_error(&err, ERR_FORBIDDEN, "policy");
            assert_null(strstr(err.text, "AWS_REGION"));
        }
        end(s);
    }
}

/* Sent around in circles: each request ends soon, and all of them together after a few more. */
static void test_circle(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct store *s = begin(
        "[{'status': 400" DOC(
            "AuthorizationHeaderMalformed",
            "<Region>r1</Region>") "}, "
                                   "{'status': 400" DOC(
                                       "AuthorizationHeaderMalformed",
                                       "<Region>r2</Region>") "}, "
                                                              "{'status': 400" DOC(
                                                                  "AuthorizationHeaderMalformed",
                                                                  "<Region>r3</Region>") "}]",
        NULL);
    assert_false(list(s, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "r3");
    end(s);
}

static void host_is(const char *region, const char *wanted)
{
    struct err err = ERR_INIT;
    struct s3 s3 = {.bucket = (char *)(uintptr_t) "bucket"};
    assert_ok(s3_place_begin(&s3, region, &err), &err);
    struct s3_place *place = atomic_load(&s3.place);
    assert_string_equal(place->host, wanted);
    const struct s3_error moved = {.status = 400,
                                   .readable = true,
                                   .code = "AuthorizationHeaderMalformed",
                                   .region = "eu-x-1"};
    bool follows = s3_place_follow(&s3, place, &moved);
    assert_int_equal(follows, region == NULL);
    if (follows) {
        assert_string_equal(atomic_load(&s3.place)->host, "bucket.s3.eu-x-1.amazonaws.com");
        /* who was on its way to the old place follows, and does not make another one */
        assert_true(s3_place_follow(&s3, place, &moved));
        assert_int_equal(atomic_load(&s3.place)->number, 1);
    }
    s3_place_end(&s3);
}

static void test_hosts_of_aws(void **state)
{
    (void)state;
    host_is(NULL, "bucket.s3.us-east-1.amazonaws.com");
    host_is("us-west-2", "bucket.s3.us-west-2.amazonaws.com");
    host_is("cn-north-1", "bucket.s3.cn-north-1.amazonaws.com.cn");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learned),
        cmocka_unit_test(test_learned_by_a_put),
        cmocka_unit_test(test_given_region_stays),
        cmocka_unit_test(test_not_followed),
        cmocka_unit_test(test_circle),
        cmocka_unit_test(test_hosts_of_aws),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
