/* What only the S3 store has, against the real server: credentials, TLS, outages, encryption; and
 * its options, without one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/s3.h"
#include "tests/unit/store_env.h"

static struct store *make(const struct store_s3_options *options)
{
    struct err err = ERR_INIT;
    struct store *s = store_s3_new(options, &err);
    if (s == NULL)
        fail_msg("%s", err.text);
    return s;
}

/* check() must fail so. */
static void check_fails(const struct store_s3_options *options, enum err_code code,
                        const char *text)
{
    struct err err = ERR_INIT;
    bool weak = false;
    struct store *s = make(options);
    assert_false(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err));
    env_assert_error(&err, code, text);
    s->ops->free(s);
}

static void test_credentials(void **state)
{
    (void)state;
    struct store_s3_options o = env_s3_options(STORE_S3, "unit/cred");
    o.cred = env_cred(env_need("AWS_ACCESS_KEY_ID"), "wrong", NULL);
    check_fails(&o, ERR_FORBIDDEN, "AWS_SECRET_ACCESS_KEY");
    o.cred = env_cred("AKNOBODY", "wrong", NULL);
    check_fails(&o, ERR_FORBIDDEN, "AWS_ACCESS_KEY_ID");
    o.cred =
        env_cred(env_need("WALEFS_TEST_OTHER_KEY_ID"), env_need("WALEFS_TEST_OTHER_SECRET"), NULL);
    check_fails(&o, ERR_FORBIDDEN, "AccessDenied");
    struct err err = ERR_INIT;
    struct store_info info;
    struct store *s = make(&o);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "AccessDenied");
    s->ops->free(s);
}

static void test_endpoints(void **state)
{
    (void)state;
    char url[128];
    struct store_s3_options o = env_s3_options(STORE_S3_TLS, "unit/tls");
    o.max_attempts = 2;
    o.ca_file = NULL;
    check_fails(&o, ERR_UNAVAILABLE, "option cafile");
    o.ca_file = "/nonexistent/ca.pem";
    check_fails(&o, ERR_UNAVAILABLE, "option cafile");
    /* plain HTTP to the TLS port, TLS to the plain port */
    (void)snprintf(url, sizeof(url), "http%s", env_need("WALEFS_TEST_ENDPOINT_TLS") + 5);
    o.endpoint = url;
    check_fails(&o, ERR_UNAVAILABLE, "https://");
    (void)snprintf(url, sizeof(url), "https%s", env_need("WALEFS_TEST_ENDPOINT") + 4);
    o.ca_file = env_need("WALEFS_TEST_CA");
    check_fails(&o, ERR_UNAVAILABLE, "http:// endpoint");
}

/* A name that the certificate does not have. */
static void test_wrong_host_name(void **state)
{
    (void)state;
    char url[128];
    struct store_s3_options o = env_s3_options(STORE_S3_TLS, "unit/tls");
    const char *port = strrchr(o.endpoint, ':');
    (void)snprintf(url, sizeof(url), "https://localhost.localdomain%s", port);
    o.endpoint = url;
    o.max_attempts = 1;
    struct err err = ERR_INIT;
    bool weak;
    struct store *s = make(&o);
    assert_false(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, url);
    s->ops->free(s);
}

static void test_server_side_encryption(void **state)
{
    (void)state;
    struct store_s3_options o = env_s3_options(STORE_S3, "unit/sse");
    o.sse = S3_SSE_AES256;
    struct store *s = make(&o);
    size_t n;
    char *data = env_bytes(6 * 1024 * 1024, 1);
    env_put(s, "key", data, 6 * 1024 * 1024);
    char *back = env_get(s, "key", &n);
    assert_int_equal(n, 6 * 1024 * 1024);
    assert_memory_equal(back, data, n);
    struct err err = ERR_INIT;
    const char *key = "key";
    assert_true(s->ops->remove(s, &key, 1, &env_forever, &err));
    s->ops->free(s);
    free(back);
    free(data);
}

struct cancel_job {
    struct cancel cancel;
    int64_t after_ms;
};

static void *fire_later(void *arg)
{
    struct cancel_job *job = arg;
    cancel_sleep_ms(NULL, job->after_ms);
    cancel_fire(&job->cancel);
    return NULL;
}

/* A server that hangs in mid-air: cancels and deadlines end every wait, and it goes on after. */
static void test_frozen_server(void **state)
{
    (void)state;
    struct store_s3_options o = env_s3_options(STORE_S3, "unit/frozen");
    struct store *s = make(&o);
    struct err err = ERR_INIT;
    struct store_info info;
    size_t n = 20 * 1024 * 1024, got_n;
    char *data = env_bytes(n, 1);
    env_put(s, "large", data, n);
    struct source *src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_non_null(src);
    env_radosgw("freeze");

    struct cancel_job job = {.after_ms = 200};
    pthread_t thread;
    cancel_init(&job.cancel);
    const struct call call = {.cancel = &job.cancel, .deadline_ms = DEADLINE_NONE};
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &job), 0);
    int64_t start = now_ms();
    const struct store_put put = {.body = {.mem = data, .size = n}};
    bool ok = s->ops->put(s, "other", &put, NULL, &call, &err);
    int64_t took = now_ms() - start;
    pthread_join(thread, NULL);
    cancel_destroy(&job.cancel);

    struct err head_err = ERR_INIT;
    const struct call soon = {.deadline_ms = now_ms() + 300};
    start = now_ms();
    bool head_ok = s->ops->head(s, "large", &info, &soon, &head_err);
    int64_t head_took = now_ms() - start;
    env_radosgw("thaw");
    assert_false(ok);
    env_assert_error(&err, ERR_CANCELLED, "unit/frozen/other");
    assert_true(took < 500);
    assert_false(head_ok);
    env_assert_error(&head_err, ERR_TIMEOUT, "unit/frozen/large");
    assert_true(head_took >= 300 && head_took < 800);

    /* the read that was open all the time */
    char *back = malloc(n);
    assert_non_null(back);
    ssize_t got = source_read_full(src, back, n, &err);
    if (got != (ssize_t)n)
        fail_msg("%s", err.text);
    assert_memory_equal(back, data, n);
    source_close(src);
    free(back);
    back = env_get(s, "large", &got_n);
    free(back);
    const char *key = "large";
    assert_true(s->ops->remove(s, &key, 1, &env_forever, &err));
    s->ops->free(s);
    free(data);
}

/* The server is restarted in the middle of a read: the read goes on where it was. */
static void test_restarted_server(void **state)
{
    (void)state;
    struct store_s3_options o = env_s3_options(STORE_S3, "unit/restart");
    struct store *s = make(&o);
    struct err err = ERR_INIT;
    struct store_info info;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 1), *back = malloc(n);
    assert_non_null(back);
    env_put(s, "large", data, n);
    struct source *src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_non_null(src);
    assert_int_equal(source_read_full(src, back, 1000, &err), 1000);
    env_radosgw("down");
    struct err down_err = ERR_INIT;
    bool ok = s->ops->head(s, "large", &info, &env_forever, &down_err);
    env_radosgw("up");
    assert_false(ok);
    env_assert_error(&down_err, ERR_UNAVAILABLE, "Connection refused");
    ssize_t got = source_read_full(src, back + 1000, n - 1000, &err);
    if (got != (ssize_t)n - 1000)
        fail_msg("%s", err.text);
    assert_memory_equal(back, data, n);
    source_close(src);
    const char *key = "large";
    assert_true(s->ops->remove(s, &key, 1, &env_forever, &err));
    s->ops->free(s);
    free(data);
    free(back);
}

static void test_changed_while_reading(void **state)
{
    (void)state;
    struct store_s3_options o = env_s3_options(STORE_S3, "unit/changed");
    struct store *s = make(&o);
    struct err err = ERR_INIT;
    struct store_info info;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 1), *back = malloc(n);
    assert_non_null(back);
    env_put(s, "large", data, n);
    struct source *src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_non_null(src);
    assert_int_equal(source_read_full(src, back, 1000, &err), 1000);
    env_radosgw("down");
    env_radosgw("up");
    data[0] = (char)~data[0];
    env_put(s, "large", data, n);
    assert_int_equal(source_read_full(src, back, n, &err), -1);
    env_assert_error(&err, ERR_CORRUPT, "replaced while it was read");
    source_close(src);
    const char *key = "large";
    assert_true(s->ops->remove(s, &key, 1, &env_forever, &err));
    s->ops->free(s);
    free(data);
    free(back);
}

static void refused(struct store_s3_options o, const char *text)
{
    struct err err = ERR_INIT;
    assert_null(store_s3_new(&o, &err));
    env_assert_error(&err, ERR_INVALID, text);
}

static void test_options(void **state)
{
    (void)state;
    struct aws_cred *cred = env_cred("AK", "secret", NULL);
    const struct store_s3_options good = {
        .bucket = "bucket", .prefix = "a/b", .cred = cred, .max_connections = 1};
    struct store_s3_options o = good;
    struct store *s = make(&o);
    assert_string_equal(s->url, "s3://bucket/a/b/");
    s->ops->free(s);
    o.prefix = "/a/b/";
    s = make(&o);
    assert_string_equal(s->url, "s3://bucket/a/b/");
    s->ops->free(s);
    o.prefix = NULL;
    s = make(&o);
    assert_string_equal(s->url, "s3://bucket/");
    s->ops->free(s);
#define BAD(member, value, text) \
    do {                         \
        o = good;                \
        o.member = (value);      \
        refused(o, text);        \
    } while (0)
    BAD(bucket, NULL, "bucket");
    BAD(bucket, "ab", "bucket");
    BAD(bucket, "a/b", "bucket");
    BAD(bucket, "a b c", "bucket");
    BAD(prefix, "a/../b", "component");
    BAD(region, "eu\rx", "region");
    BAD(storage_class, "A B", "storage class");
    BAD(sse_kms_key, "key", "KMS");
    static const char *const endpoints[] = {
        "127.0.0.1:80",   "ftp://host",     "http://",           "http://host/path",
        "http://host:",   "http://host:x",  "http://host:99999", "http://u:p@host",
        "https://host?q", "https://host#f", "http://ho st",      "http://host\r",
    };
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
        BAD(endpoint, endpoints[i], "endpoint");
}

static void test_endpoint_forms(void **state)
{
    (void)state;
    struct aws_cred *cred = env_cred("AK", "secret", NULL);
    static const struct {
        const char *endpoint, *bucket, *region;
        bool path_style;
        const char *url; /* as it shows in the error of a host that is not there */
    } cases[] = {
        {"http://no.invalid", "bucket", NULL, true, "http://no.invalid:"},
        {"HTTP://NO.invalid:80/", "bucket", NULL, true, "http://no.invalid:"},
        {"https://no.invalid:443", "bucket", NULL, false, "https://bucket.no.invalid:"},
        {"http://no.invalid:81", "bucket", NULL, false, "http://bucket.no.invalid:81:"},
        {"http://no.invalid", "dotted.bucket", NULL, false, "http://dotted.bucket.no.invalid:"},
        {"https://no.invalid", "dotted.bucket", NULL, false, "https://no.invalid:"},
        {"http://no.invalid", "Upper", NULL, false, "http://no.invalid:"},
        {"http://127.0.0.1:1", "bucket", NULL, false, "http://127.0.0.1:1:"},
        {"http://[::1]:1", "bucket", NULL, false, "http://[::1]:1:"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct store_s3_options o = {.bucket = cases[i].bucket,
                                           .endpoint = cases[i].endpoint,
                                           .region = cases[i].region,
                                           .path_style = cases[i].path_style,
                                           .cred = cred,
                                           .connect_timeout_ms = 2000,
                                           .stall_timeout_ms = 2000,
                                           .max_attempts = 1,
                                           .max_connections = 1};
        struct err err = ERR_INIT;
        struct store_info info;
        struct store *s = make(&o);
        assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
        env_assert_error(&err, ERR_UNAVAILABLE, cases[i].url);
        s->ops->free(s);
    }
}

/* An upload that still grows is not aborted, however long ago it was begun. */
static void test_growing_upload(void **state)
{
    (void)state;
    const struct store_s3_options o = env_s3_options(STORE_S3, "unit/growing");
    const struct store_body part = {.mem = "x", .size = 1};
    const struct store_put put = {.body = {.mem = ""}};
    struct s3_swept swept;
    struct err err = ERR_INIT;
    struct store *s = make(&o);
    struct store_upload *up = s->ops->upload_begin(s, "key", &put, &env_forever, &err);
    assert_non_null(up);
    assert_ok(s->ops->upload_part(up, 1, &part, &env_forever, &err), &err);
    sleep(2);
    time_t later = time(NULL);
    assert_ok(s->ops->upload_part(up, 2, &part, &env_forever, &err), &err);
    assert_ok(s3_sweep((struct s3 *)s, later, &swept, &env_forever, &err), &err);
    assert_int_equal(swept.aborted, 0);
    assert_int_equal(swept.left, 0);
    assert_ok(s3_sweep((struct s3 *)s, time(NULL) + 2, &swept, &env_forever, &err), &err);
    assert_int_equal(swept.aborted, 1);
    s->ops->upload_abort(up, &env_forever);
    s->ops->free(s);
}

int main(void)
{
#define T(function) cmocka_unit_test(function)
    const struct CMUnitTest tests[] = {
        T(test_options),        T(test_endpoint_forms),   T(test_credentials),
        T(test_endpoints),      T(test_wrong_host_name),  T(test_server_side_encryption),
        T(test_frozen_server),  T(test_restarted_server), T(test_changed_while_reading),
        T(test_growing_upload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
