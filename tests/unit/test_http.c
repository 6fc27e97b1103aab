/* The HTTP layer alone: pool, headers, bodies in both directions; against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/http.h"
#include "tests/unit/store_env.h"

static struct http *client_with(unsigned connections, uint32_t stall_timeout_ms)
{
    struct err err = ERR_INIT;
    const struct http_options options = {.connect_timeout_ms = 1000,
                                         .stall_timeout_ms = stall_timeout_ms,
                                         .max_connections = connections};
    struct http *http = http_new(&options, &err);
    assert_non_null(http);
    return http;
}

static struct http *client(unsigned connections)
{
    return client_with(connections, 1000);
}

static struct http_exchange *start(struct http *http, const struct script *script,
                                   const struct http_request *base, struct err *err, bool *again)
{
    char url[64];
    struct http_request req = *base;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/x/../y%%2Fz", script->port);
    req.url = url;
    return http_open(http, &req, &env_forever, err, again);
}

static const struct http_request get = {.method = "GET"};

static void read_exactly(struct http_exchange *x, const char *wanted)
{
    char body[256];
    size_t have = 0;
    struct err err = ERR_INIT;
    bool again;
    ssize_t n;
    while ((n = http_read(x, body + have, 3, &err, &again)) > 0)
        have += (size_t)n;
    if (n < 0)
        fail_msg("%s", err.text);
    assert_int_equal(have, strlen(wanted));
    assert_memory_equal(body, wanted, have);
}

static void test_answer(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    const char *const headers[] = {"X-One: 1", "x-two: a b"};
    const struct http_request req = {.method = "GET", .headers = headers, .header_count = 2};
    script_begin(&script, "[{'expect': 'GET /x/../y%2Fz', 'headers': {'x-one': '1', 'x-two': 'a b',"
                          "'user-agent': 'walefs', 'accept-encoding': None}, 'text': 'some text',"
                          "'status': 203, 'reply': {'ETag': '  \"q\" ', 'X-Empty': '', "
                          "'x-TWICE': '1', 'X-twice': '2'}}]");
    struct http *http = client(2);
    struct http_exchange *x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    assert_int_equal(http_status(x), 203);
    assert_string_equal(http_header(x, "ETag"), "\"q\"");
    assert_string_equal(http_header(x, "etag"), "\"q\"");
    assert_string_equal(http_header(x, "x-empty"), "");
    assert_string_equal(http_header(x, "x-twice"), "1");
    assert_null(http_header(x, "x-none"));
    read_exactly(x, "some text");
    char c;
    assert_int_equal(http_read(x, &c, 1, &err, &again), 0);
    http_close(x);
    http_close(NULL);
    http_free(http);
    http_free(NULL);
    script_end(&script);
}

/* Interim answers do not count, chunked bodies and bodies that end with the connection do. */
static void test_framings(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    script_begin(&script,
                 "[{'raw': 'HTTP/1.1 100 Continue\\r\\nETag: no\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n"
                 "Transfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n4\\r\\ndefg\\r\\n0\\r\\n"
                 "ETag: trailer\\r\\n\\r\\n'},"
                 " {'text': 'to the end', 'reply': {'length': None}},"
                 " {'status': 204}, {'text': ''}]");
    struct http *http = client(1);
    struct http_exchange *x = start(http, &script, &get, &err, &again);
    assert_non_null(x);
    assert_int_equal(http_status(x), 200);
    assert_null(http_header(x, "etag"));
    read_exactly(x, "abcdefg");
    assert_null(http_header(x, "etag"));
    http_close(x);
    static const char *const bodies[] = {"to the end", "", ""};
    for (int i = 0; i < 3; i++) {
        x = start(http, &script, &get, &err, &again);
        assert_non_null(x);
        read_exactly(x, bodies[i]);
        http_close(x);
    }
    http_free(http);
    script_end(&script);
}

static void test_broken_bodies(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again = false;
    char body[64];
    script_begin(&script, "[{'text': '0123456789', 'cut': 4}, {'raw': 'HTTP/1.1 200 OK\\r\\n"
                          "Transfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n'}]");
    struct http *http = client(1);
    for (int i = 0; i < 2; i++) {
        struct http_exchange *x = start(http, &script, &get, &err, &again);
        assert_non_null(x);
        size_t have = 0;
        ssize_t n;
        while ((n = http_read(x, body + have, sizeof(body) - have, &err, &again)) > 0)
            have += (size_t)n;
        assert_int_equal(n, -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_true(again);
        assert_int_equal(have, i == 0 ? 4 : 3);
        http_close(x);
    }
    http_free(http);
    script_end(&script);
}

/* A reader that pauses loses nothing, whatever the sizes of its reads. */
static void test_back_pressure(void **state)
{
    (void)state;
    enum { SIZE = 3000000 };
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    script_begin(&script, "[{'text': [['0123456789', 300000]]}]");
    struct http *http = client(1);
    struct http_exchange *x = start(http, &script, &get, &err, &again);
    assert_non_null(x);
    size_t have = 0, step = 1;
    char *body = malloc(SIZE);
    assert_non_null(body);
    for (;;) {
        if (have / 500000 != (have + step) / 500000)
            cancel_sleep_ms(NULL, 30);
        ssize_t n = http_read(x, body, step, &err, &again);
        if (n <= 0) {
            assert_int_equal(n, 0);
            break;
        }
        for (ssize_t i = 0; i < n; i++, have++)
            assert_int_equal(body[i], '0' + (int)(have % 10));
        step = step * 3 % 200000 + 1;
    }
    assert_int_equal(have, SIZE);
    free(body);
    http_close(x);
    http_free(http);
    script_end(&script);
}

static void test_upload(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    uint8_t md5[HTTP_MD5_BYTES], wanted[EVP_MAX_MD_SIZE];
    const struct store_body body = {.mem = "hello", .size = 5};
    const struct store_body empty = {.mem = "", .size = 0};
    script_begin(&script, "[{'expect': 'PUT /.*', 'body': 'hello', 'headers': {'expect': None, "
                          "'content-length': '5', 'transfer-encoding': None}, 'times': 2},"
                          "{'expect': 'POST /.*', 'body': '', 'headers': {'content-length': '0'}},"
                          "{'expect': 'DELETE /.*', 'headers': {'content-length': None}},"
                          "{'expect': 'HEAD /.*', 'reply': {'length': 99}}]");
    struct http *http = client(1);
    struct http_request req = {.method = "PUT", .body = &body, .want_md5 = true};
    struct http_exchange *x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    assert_true(http_sent_md5(x, md5));
    assert_int_equal(EVP_Digest("hello", 5, wanted, NULL, EVP_md5(), NULL), 1);
    assert_memory_equal(md5, wanted, sizeof(md5));
    http_close(x);
    req.want_md5 = false;
    x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    assert_false(http_sent_md5(x, md5));
    http_close(x);
    req = (struct http_request){.method = "POST", .body = &empty};
    x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    http_close(x);
    req = (struct http_request){.method = "DELETE"};
    x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    http_close(x);
    req = (struct http_request){.method = "HEAD"};
    x = start(http, &script, &req, &err, &again);
    assert_non_null(x);
    assert_string_equal(http_header(x, "content-length"), "99");
    read_exactly(x, "");
    http_close(x);
    http_free(http);
    script_end(&script);
}

/* The file ends before the body does: the reason is the local one, and nobody tries again. */
static void test_upload_of_short_file(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again = true;
    FILE *f = tmpfile();
    assert_non_null(f);
    const struct store_body body = {.fd = fileno(f), .size = 10};
    script_begin(&script, "[{}]");
    struct http *http = client(1);
    const struct http_request req = {.method = "PUT", .body = &body};
    assert_null(start(http, &script, &req, &err, &again));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_false(again);
    http_free(http);
    fclose(f);
    script_drop(&script);
}

/* libcurl sends a request again when a kept connection turns out to be dead: the body too. */
static void test_dead_connection(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    uint8_t md5[HTTP_MD5_BYTES], wanted[EVP_MAX_MD_SIZE];
    char *data = env_bytes(100000, 1);
    const struct store_body body = {.mem = data, .size = 100000};
    script_begin(&script, "[{}, {'drop': 'late', 'reset': True}, {}]");
    struct http *http = client(1);
    struct http_exchange *x = start(http, &script, &get, &err, &again);
    assert_non_null(x);
    read_exactly(x, "");
    http_close(x);
    assert_int_equal(http_idle(http), 1);
    const struct http_request req = {.method = "PUT", .body = &body, .want_md5 = true};
    x = start(http, &script, &req, &err, &again);
    if (x == NULL) { /* or it says so, and the caller does */
        assert_true(again);
        x = start(http, &script, &req, &err, &again);
    }
    assert_non_null(x);
    assert_true(http_sent_md5(x, md5));
    assert_int_equal(EVP_Digest(data, 100000, wanted, NULL, EVP_md5(), NULL), 1);
    assert_memory_equal(md5, wanted, sizeof(md5));
    http_close(x);
    http_free(http);
    free(data);
    script_end(&script);
}

static void test_places(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    script_begin(&script, "[{'times': 3, 'text': 'x'}]");
    struct http *http = client(2);
    assert_int_equal(http_idle(http), 0);
    struct http_exchange *a = start(http, &script, &get, &err, &again);
    struct http_exchange *b = start(http, &script, &get, &err, &again);
    assert_true(a != NULL && b != NULL);
    char url[64];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", script.port);
    const struct http_request req = {.method = "GET", .url = url};
    const struct call soon = {.deadline_ms = now_ms() + 50};
    assert_null(http_open(http, &req, &soon, &err, &again));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_false(again);
    http_close(a);
    assert_int_equal(http_idle(http), 1);
    a = start(http, &script, &get, &err, &again);
    assert_non_null(a);
    assert_int_equal(http_idle(http), 0);
    http_close(a);
    http_close(b);
    assert_int_equal(http_idle(http), 2);
    http_free(http);
    script_end(&script);
}

/* Regression: over TLS a server that hangs up would have ended the process. */
static void test_no_sigpipe(void **state)
{
    (void)state;
    struct sigaction now;
    http_free(client(1));
    assert_int_equal(sigaction(SIGPIPE, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_IGN);
}

static void test_total_timeout(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again = false;
    script_begin(&script, "[{'sleep': 20}]");
    struct http *http = client_with(1, 15000);
    const struct http_request req = {.method = "GET", .total_timeout_ms = 200};
    int64_t begun = now_ms();
    assert_null(start(http, &script, &req, &err, &again));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_true(again);
    assert_true(now_ms() - begun < 10000);
    http_free(http);
    script_end(&script);
}

static enum err_code failing(struct http *http, const char *url, struct err *err, bool *again)
{
    const struct http_request req = {.method = "GET", .url = url};
    *again = true;
    assert_null(http_open(http, &req, &env_forever, err, again));
    assert_int_equal(http_idle(http), 1); /* its place is free again */
    return err->code;
}

/* What is wrong with the address is told, and whether it is worth another try. */
static void test_addresses(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool again;
    struct http *http = client(1);
    assert_int_equal(failing(http, "http://", &err, &again), ERR_INVALID);
    assert_false(again);
    assert_int_equal(failing(http, "http://[::1", &err, &again), ERR_INVALID);
    assert_int_equal(failing(http, "gopher-no-such://x/", &err, &again), ERR_UNAVAILABLE);
    assert_false(again);
    assert_int_equal(failing(http, "http://walefs-test.invalid/secret", &err, &again),
                     ERR_UNAVAILABLE);
    assert_true(again);
    assert_non_null(strstr(err.text, "http://walefs-test.invalid: "));
    assert_null(strstr(err.text, "secret"));
    http_free(http);
}

/* The environment's proxy is asked, and named when it is what fails; or nobody asks it. */
static void test_proxy(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    bool again;
    script_begin(&script, "[{'text': 'direct'}, {'expect': 'GET http://127.0.0.1:1/x', 'text': "
                          "'through it'}]");
    assert_int_equal(setenv("http_proxy", "http://walefs-test.invalid:1", 1), 0);
    struct http *http = client(1);
    assert_int_equal(failing(http, "http://127.0.0.1:1/", &err, &again), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "check the proxy in the environment"));
    http_free(http);
    const struct http_options options = {.connect_timeout_ms = 1000,
                                         .stall_timeout_ms = 1000,
                                         .max_connections = 1,
                                         .no_proxy = true};
    http = http_new(&options, &err);
    struct http_exchange *x = start(http, &script, &get, &err, &again);
    assert_non_null(x);
    read_exactly(x, "direct");
    http_close(x);
    http_free(http);
    char proxy[64];
    (void)snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u", script.port);
    assert_int_equal(setenv("http_proxy", proxy, 1), 0);
    http = client(1);
    const struct http_request req = {.method = "GET", .url = "http://127.0.0.1:1/x"};
    x = http_open(http, &req, &env_forever, &err, &again);
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_non_null(x);
    read_exactly(x, "through it");
    http_close(x);
    http_free(http);
    script_end(&script);
}

static void test_ca_file(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const struct http_options options = {.ca_file = "/nonexistent/ca.pem",
                                         .connect_timeout_ms = 1000,
                                         .stall_timeout_ms = 1000,
                                         .max_connections = 1};
    struct script script;
    char url[64];
    bool again;
    script_begin(&script, "[]");
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", script.port);
    struct http *http = http_new(&options, &err);
    assert_non_null(http);
    assert_int_equal(failing(http, url, &err, &again), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "option cafile"));
    assert_false(again);
    http_free(http);
    script_drop(&script);
}

static void test_connect_timeout(void **state)
{
    (void)state;
    struct deaf deaf;
    struct err err = ERR_INIT;
    const struct http_options options = {
        .connect_timeout_ms = 200, .stall_timeout_ms = 600000, .max_connections = 1};
    char url[64];
    bool again;
    deaf_begin(&deaf);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", deaf.port);
    struct http *http = http_new(&options, &err);
    assert_non_null(http);
    assert_int_equal(failing(http, url, &err, &again), ERR_TIMEOUT);
    assert_true(again);
    assert_non_null(strstr(err.text, "check the endpoint, and that no firewall is in the way"));
    http_free(http);
    deaf_end(&deaf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),          cmocka_unit_test(test_framings),
        cmocka_unit_test(test_broken_bodies),   cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_upload),          cmocka_unit_test(test_upload_of_short_file),
        cmocka_unit_test(test_dead_connection), cmocka_unit_test(test_places),
        cmocka_unit_test(test_total_timeout),   cmocka_unit_test(test_no_sigpipe),
        cmocka_unit_test(test_addresses),       cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_ca_file),         cmocka_unit_test(test_connect_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
