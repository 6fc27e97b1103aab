/* Signatures against the examples of the Amazon S3 API Reference ("Signature Calculations for the
 * Authorization Header: Transferring Payload in a Single Chunk"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/sigv4.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define HOST "examplebucket.s3.amazonaws.com"
#define DATE "20130524T000000Z"
#define FIELDS(...) ((const struct sigv4_field[]){__VA_ARGS__})

static struct buf authorize(const struct sigv4_request *req)
{
    struct err err = ERR_INIT;
    struct secret secret = SECRET_INIT;
    static const char text[] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    struct buf out = BUF_INIT(4096);
    assert_true(secret_set(&secret, text, strlen(text), &err));
    const struct sigv4_key key = {
        .access_key_id = "AKIAIOSFODNN7EXAMPLE", .secret = &secret, .region = "us-east-1"};
    assert_true(sigv4_authorize(&key, req, &out, &err));
    secret_free(&secret);
    return out;
}

static void check(const struct sigv4_request *req, const char *headers, const char *signature)
{
    struct buf out = authorize(req);
    struct buf wanted = BUF_INIT(4096);
    assert_true(buf_printf(&wanted,
                           "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
                           "aws4_request,SignedHeaders=%s,Signature=%s",
                           headers, signature));
    assert_string_equal(buf_str(&out), buf_str(&wanted));
    buf_free(&out);
    buf_free(&wanted);
}

static void test_get_object(void **state)
{
    (void)state;
    const struct sigv4_request req = {
        .method = "GET",
        .path = "/test.txt",
        .headers = FIELDS({"host", HOST}, {"range", "bytes=0-9"}, {"x-amz-content-sha256", EMPTY},
                          {"x-amz-date", DATE}),
        .header_count = 4,
        .payload_hex = EMPTY,
        .date = DATE,
    };
    check(&req, "host;range;x-amz-content-sha256;x-amz-date",
          "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_put_object(void **state)
{
    (void)state;
    char payload[SIGV4_HEX];
    struct buf path = BUF_INIT(64);
    assert_true(sigv4_sha256_hex("Welcome to Amazon S3.", 21, payload));
    assert_string_equal(payload,
                        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
    assert_true(sigv4_encode(&path, "/test$file.text", 15, true));
    assert_string_equal(buf_str(&path), "/test%24file.text");
    /* in any order, with blanks that do not count */
    const struct sigv4_request req = {
        .method = "PUT",
        .path = path.data,
        .headers = FIELDS({"x-amz-storage-class", "REDUCED_REDUNDANCY"}, {"x-amz-date", DATE},
                          {"date", "  Fri, 24  May 2013 00:00:00 GMT "}, {"host", HOST},
                          {"x-amz-content-sha256", payload}),
        .header_count = 5,
        .payload_hex = payload,
        .date = DATE,
    };
    check(&req, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
          "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    buf_free(&path);
}

static void check_query(const struct sigv4_field *query, size_t n, const char *signature)
{
    const struct sigv4_request req = {
        .method = "GET",
        .path = "/",
        .query = query,
        .query_count = n,
        .headers = FIELDS({"host", HOST}, {"x-amz-content-sha256", EMPTY}, {"x-amz-date", DATE}),
        .header_count = 3,
        .payload_hex = EMPTY,
        .date = DATE,
    };
    check(&req, "host;x-amz-content-sha256;x-amz-date", signature);
}

static void test_queries(void **state)
{
    (void)state;
    check_query(FIELDS({"lifecycle", NULL}), 1,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    check_query(FIELDS({"prefix", "J"}, {"max-keys", "2"}), 2,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_encode(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(4096);
    assert_true(sigv4_encode(&out, "aZ09-_.~/ +%?&=:\x01\x7f\xc3\xa4\xff", 21, true));
    assert_string_equal(buf_str(&out), "aZ09-_.~/%20%2B%25%3F%26%3D%3A%01%7F%C3%A4%FF");
    out.len = 0;
    assert_true(sigv4_encode(&out, "a/b", 3, false));
    assert_string_equal(buf_str(&out), "a%2Fb");
    buf_free(&out);
    struct buf small = BUF_INIT(4);
    assert_false(sigv4_encode(&small, "a b c", 5, true));
    buf_free(&small);
}

static void test_query_form(void **state)
{
    (void)state;
    const struct sigv4_field query[] = {
        {"uploadId", "a/b="}, {"partNumber", "7"}, {"prefix", ""}, {"delete", NULL}};
    struct buf url = BUF_INIT(256), canonical = BUF_INIT(256);
    assert_true(sigv4_query(&url, query, 4, false));
    assert_true(sigv4_query(&canonical, query, 4, true));
    assert_string_equal(buf_str(&url), "delete&partNumber=7&prefix=&uploadId=a%2Fb%3D");
    assert_string_equal(buf_str(&canonical), "delete=&partNumber=7&prefix=&uploadId=a%2Fb%3D");
    buf_free(&url);
    buf_free(&canonical);
}

static void test_date(void **state)
{
    (void)state;
    char date[SIGV4_DATE];
    sigv4_date(1369353600, date);
    assert_string_equal(date, DATE);
}

/* Each part of a request changes its signature. */
static void test_everything_signed(void **state)
{
    (void)state;
    const struct sigv4_request base = {
        .method = "GET",
        .path = "/a",
        .query = FIELDS({"q", "1"}),
        .query_count = 1,
        .headers = FIELDS({"host", "h"}),
        .header_count = 1,
        .payload_hex = EMPTY,
        .date = DATE,
    };
    struct sigv4_request other[6];
    for (int i = 0; i < 6; i++)
        other[i] = base;
    other[0].method = "PUT";
    other[1].path = "/b";
    other[2].query = FIELDS({"q", "2"});
    other[3].headers = FIELDS({"host", "i"});
    other[4].payload_hex = "00";
    memcpy(other[5].date, "20130525T000000Z", SIGV4_DATE);
    struct buf reference = authorize(&base);
    for (int i = 0; i < 6; i++) {
        struct buf out = authorize(&other[i]);
        assert_string_not_equal(strstr(buf_str(&out), "Signature="),
                                strstr(buf_str(&reference), "Signature="));
        buf_free(&out);
    }
    buf_free(&reference);
}

static void test_too_many_headers(void **state)
{
    (void)state;
    struct sigv4_field headers[SIGV4_MAX_HEADERS + 1];
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(4096);
    struct secret secret = SECRET_INIT;
    assert_true(secret_set(&secret, "s", 1, &err));
    for (size_t i = 0; i <= SIGV4_MAX_HEADERS; i++)
        headers[i] = (struct sigv4_field){.name = "x", .value = "y"};
    const struct sigv4_key key = {.access_key_id = "A", .secret = &secret, .region = "r"};
    const struct sigv4_request req = {.method = "GET",
                                      .path = "/",
                                      .headers = headers,
                                      .header_count = SIGV4_MAX_HEADERS + 1,
                                      .payload_hex = EMPTY,
                                      .date = DATE};
    assert_false(sigv4_authorize(&key, &req, &out, &err));
    assert_int_equal(err.code, ERR_INVALID);
    secret_free(&secret);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_object),        cmocka_unit_test(test_put_object),
        cmocka_unit_test(test_queries),           cmocka_unit_test(test_encode),
        cmocka_unit_test(test_query_form),        cmocka_unit_test(test_date),
        cmocka_unit_test(test_everything_signed), cmocka_unit_test(test_too_many_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
