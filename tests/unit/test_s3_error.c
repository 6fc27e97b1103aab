/* Error documents and their meanings; over HTTP: test_store_faults.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "core/s3_error.h"

static struct s3_error parsed(int status, const char *body)
{
    struct s3_error e = {.status = status};
    s3_error_parse(&e, body, strlen(body));
    return e;
}

static void test_fields(void **state)
{
    (void)state;
    struct s3_error e = parsed(416, "<Error><Code>InvalidRange</Code><Message> a\n b </Message>"
                                    "<RequestId>R1</RequestId><Region>eu</Region>"
                                    "<ActualObjectSize>77</ActualObjectSize></Error>");
    assert_true(e.readable);
    assert_string_equal(e.code, "InvalidRange");
    assert_string_equal(e.message, "a b");
    assert_string_equal(e.request_id, "R1");
    assert_string_equal(e.region, "eu");
    assert_int_equal(e.actual_size, 77);
}

/* What a person has to do, and with which class. */
static void test_archive_class(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool again = true;
    struct s3_error e = parsed(403, "<Error><Code>InvalidObjectState</Code><Message>m</Message>"
                                    "<StorageClass>GLACIER</StorageClass></Error>");
    assert_false(s3_error_to_err(&e, "get x", "", &err, &again));
    assert_int_equal(err.code, ERR_FROZEN);
    assert_false(again);
    assert_false(err_transient(err.code));
    assert_non_null(strstr(err.text, "storage class (GLACIER): restore it first"));
    e = parsed(403, "<Error><Code>InvalidObjectState</Code></Error>");
    assert_false(s3_error_to_err(&e, "get x", "", &err, &again));
    assert_non_null(strstr(err.text, "restore it first"));
}

static void test_moved_and_stale(void **state)
{
    (void)state;
    struct s3_error e = parsed(400, "<Error><Code>ExpiredToken</Code></Error>");
    assert_true(s3_error_stale(&e));
    (void)strcpy(e.region, "eu-x-1"); /* AWS tells it with any error */
    assert_false(s3_error_moved(&e));
    e = parsed(403, "<Error><Code>AccessDenied</Code></Error>");
    assert_false(s3_error_stale(&e));
    e = parsed(301, "<Error><Code>PermanentRedirect</Code></Error>");
    assert_false(s3_error_moved(&e)); /* it does not say where to */
    (void)strcpy(e.region, "eu-x-1");
    assert_true(s3_error_moved(&e));
    e = parsed(301, "");
    (void)strcpy(e.region, "eu-x-1");
    assert_true(s3_error_moved(&e));
    e.status = 403;
    assert_false(s3_error_moved(&e));
}

static void test_unreadable(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "<html/>",
        "<Error/>",
        "<Error><Code></Code></Error>",
        "<Error><Code>NoSuchKey</Code></Error",
        "<Error><Code>NoSuchKey</Code></Error><Error/>",
        "<Errors><Error><Code>NoSuchKey</Code></Error></Errors>",
        "<Error><Detail><Code>NoSuchKey</Code></Detail></Error>",
        "HTTP/1.1 404 Not Found",
    };
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct s3_error e = parsed(404, bodies[i]);
        struct err err = ERR_INIT;
        bool again = true;
        assert_false(e.readable);
        assert_int_equal(e.actual_size, -1);
        assert_false(s3_error_to_err(&e, "get x", "now", &err, &again));
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_false(again);
    }
}

/* Long fields are cut, and what is left still ends in the hint. */
static void test_long_fields(void **state)
{
    (void)state;
    char body[4096], long_text[1001];
    memset(long_text, 'm', 1000);
    long_text[1000] = '\0';
    (void)snprintf(body, sizeof(body),
                   "<Error><Code>AccessDenied</Code><Message>%s</Message><RequestId>%s</RequestId>"
                   "</Error>",
                   long_text, long_text);
    struct s3_error e = parsed(403, body);
    struct err err = ERR_INIT;
    bool again;
    assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
    assert_false(s3_error_to_err(&e, "put s3://bucket/key", "now", &err, &again));
    assert_int_equal(err.code, ERR_FORBIDDEN);
    assert_non_null(strstr(err.text, "check the policy"));
}

static void test_skew(void **state)
{
    (void)state;
    struct s3_error e = parsed(403, "<Error><Code>RequestTimeTooSkewed</Code><ServerTime>then"
                                    "</ServerTime></Error>");
    struct err err = ERR_INIT;
    bool again;
    assert_false(s3_error_to_err(&e, "get x", "20301231T000000Z", &err, &again));
    assert_non_null(strstr(err.text, "clock says 20301231T000000Z, the store's then"));
    assert_false(again);
}

static void test_field_cleaning(void **state)
{
    (void)state;
    char out[8];
    s3_error_field(out, sizeof(out), "\n a\r\n\tb\x7f", 7);
    assert_string_equal(out, "a b");
    s3_error_field(out, sizeof(out), "0123456789", 10);
    assert_string_equal(out, "0123456");
    s3_error_field(out, sizeof(out), "", 0);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),          cmocka_unit_test(test_archive_class),
        cmocka_unit_test(test_moved_and_stale), cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_long_fields),     cmocka_unit_test(test_skew),
        cmocka_unit_test(test_field_cleaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
