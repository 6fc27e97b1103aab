/* Time-outs, deadlines, cancels and waits between tries, against a scripted server. */
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

#include "core/log.h"
#include "tests/unit/store_env.h"

#define PUT_OK "{'expect': 'PUT /bucket/p/key', 'body': 'hello', 'etag': 'not-an-md5'}"

static void test_retry_after(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script,
                 "[{'status': 503, 'reply': {'Retry-After': '1'}, 'error': 'SlowDown'}, " PUT_OK
                 ", {'status': 503, 'reply': {'Retry-After': '20'}, 'error': 'SlowDown'}]");
    struct store *s = script_store(&script, 3);
    int64_t start = now_ms();
    assert_true(script_put_hello(s, false, &err));
    assert_true(now_ms() - start >= 1000);
    /* no time for that: the answer is given at once */
    start = now_ms();
    const struct call call = {.deadline_ms = now_ms() + 15000};
    const struct store_put put = {.body = {.mem = "hello", .size = 5}};
    assert_false(s->ops->put(s, "key", &put, NULL, &call, &err));
    env_assert_error(&err, ERR_THROTTLED, NULL);
    assert_int_equal(err.retry_after_ms, 20000);
    assert_true(now_ms() - start < 10000);
    s->ops->free(s);
    script_end(&script);
}

/* The other form of it, which proxies use. */
static void test_retry_after_a_date(void **state)
{
    (void)state;
    static const int in_s[] = {100, -100};
    for (size_t i = 0; i < 2; i++) {
        struct script script;
        struct err err = ERR_INIT;
        struct tm tm;
        time_t t = time(NULL) + in_s[i];
        char date[64], steps[256];
        assert_true(strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm)) >
                    0);
        (void)snprintf(steps, sizeof(steps),
                       "[{'status': 503, 'reply': {'Retry-After': '%s'}, 'error': 'SlowDown'}]",
                       date);
        script_begin(&script, steps);
        struct store *s = script_store(&script, 1);
        assert_false(script_put_hello(s, false, &err));
        if (in_s[i] > 0)
            assert_in_range(err.retry_after_ms, 90000, 100000);
        else
            assert_int_equal(err.retry_after_ms, 0);
        s->ops->free(s);
        script_end(&script);
    }
}

static void test_silent_server(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    char out[64];
    script_begin(&script, "[{'sleep': 20, 'times': 2}, {'sleep': 20}, {'sleep': 20}, {'text': "
                          "'0123456789', 'stall': 3, 'etag': 'e1'}]");
    struct store *s = script_store(&script, 2);
    int64_t start = now_ms();
    assert_false(
        s->ops->head(s, "key", &info, &env_forever, &err)); /* stall time-out 600 ms, twice */
    env_assert_error(&err, ERR_TIMEOUT, "silent");
    assert_true(now_ms() - start >= 1200 && now_ms() - start < 15000);
    start = now_ms();
    const struct call soon = {.deadline_ms = now_ms() + 200};
    assert_false(s->ops->head(s, "key", &info, &soon, &err));
    env_assert_error(&err, ERR_TIMEOUT, "deadline");
    assert_true(now_ms() - start < 15000);
    start = now_ms();
    const struct call soon2 = {.deadline_ms = now_ms() + 200};
    struct store_page page;
    assert_false(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &soon2, &err));
    env_assert_error(&err, ERR_TIMEOUT, "s3://bucket/p/");
    assert_non_null(strstr(err.text, "deadline"));
    assert_true(now_ms() - start < 15000);
    s->ops->free(s);
    s = script_store(&script, 1);
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_TIMEOUT, "silent");
    s->ops->free(s);
    script_end(&script);
}

/* A server that keeps sending a little is never silent, but a small request has a limit. */
static void test_slow_request(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, "[{'sleep': 0.5, 'status': 500, 'reply': {'length': 9}, 'stall': 0}]");
    struct store *s = script_store(&script, 1);
    int64_t start = now_ms();
    assert_false(script_put_hello(s, false, &err));
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    assert_true(now_ms() - start < 2500);
    s->ops->free(s);
    script_end(&script);
}

#define COPIED "<CopyObjectResult><ETag>&quot;e2&quot;</ETag></CopyObjectResult>"
#define COMPLETED \
    "<CompleteMultipartUploadResult><ETag>&quot;e2-1&quot;</ETag></CompleteMultipartUploadResult>"

/* What takes a store longer than a small request may last, and longer than a connection may be
 * silent (here 1.5 s and 0.6 s): copying 5 GiB. One attempt is enough. */
static void test_slow_copy(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, "[{'expect': 'PUT /bucket/p/to', 'sleep': 2.5, 'text': '" COPIED "'}]");
    struct store *s = script_store(&script, 1);
    assert_ok(s->ops->copy(s, "from", "to", NULL, NULL, &env_forever, &err), &err);
    s->ops->free(s);
    script_end(&script);
}

static void test_slow_complete(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    static const struct store_put put = {.only_if_absent = false};
    static const struct store_body body = {.mem = "hello", .size = 5};
    script_begin(&script, "[{'text': '<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                          "</InitiateMultipartUploadResult>'}, {'etag': 'not-an-md5'}, "
                          "{'sleep': 2.5, 'text': '" COMPLETED "'}]");
    struct store *s = script_store(&script, 1);
    struct store_upload *u = s->ops->upload_begin(s, "key", &put, &env_forever, &err);
    assert_ok(u != NULL && s->ops->upload_part(u, 1, &body, &env_forever, &err), &err);
    assert_ok(s->ops->upload_complete(u, NULL, &env_forever, &err), &err);
    s->ops->free(s);
    script_end(&script);
}

/* It has a limit of its own all the same, and the caller's. */
static void test_copy_that_never_ends(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, "[{'sleep': 60}, {'sleep': 60}]");
    struct store *s = script_store_within(&script, 1, 50);
    assert_false(
        s->ops->copy(s, "from", "to", NULL, NULL, &env_forever, &err)); /* 10 times 50 ms */
    env_assert_error(&err, ERR_TIMEOUT, "copy to s3://bucket/p/to");
    const struct call soon = {.deadline_ms = now_ms() + 200};
    assert_false(s->ops->copy(s, "from", "to", NULL, NULL, &soon, &err));
    env_assert_error(&err, ERR_TIMEOUT, "deadline");
    s->ops->free(s);
    script_end(&script);
}

static void *fire_later(void *arg)
{
    cancel_sleep_ms(NULL, 150);
    cancel_fire(arg);
    return NULL;
}

/* Runs F with a call that is cancelled after 150 ms; F must return within 100 ms of that. */
static void cancelled(bool (*f)(struct store *, const struct call *, struct err *), struct store *s)
{
    struct cancel cancel;
    struct err err = ERR_INIT;
    pthread_t thread;
    cancel_init(&cancel);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    int64_t start = now_ms();
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &cancel), 0);
    assert_false(f(s, &call, &err));
    env_assert_error(&err, ERR_CANCELLED, "s3://bucket/p/");
    int64_t took = now_ms() - start;
    if (took > 400)
        fail_msg("cancel took %lld ms", (long long)took - 150);
    pthread_join(thread, NULL);
    cancel_destroy(&cancel);
}

static bool do_head(struct store *s, const struct call *call, struct err *err)
{
    struct store_info info;
    return s->ops->head(s, "key", &info, call, err);
}

#define LARGE (30u * 1024 * 1024)
static char *large; /* more than the sockets' buffers hold */

static bool do_put(struct store *s, const struct call *call, struct err *err)
{
    const struct store_put put = {.body = {.mem = large, .size = LARGE}};
    return s->ops->put(s, "key", &put, NULL, call, err);
}

static bool do_read(struct store *s, const struct call *call, struct err *err)
{
    char out[64];
    struct store_info info;
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, call, err);
    assert_non_null(src);
    ssize_t n = source_read_full(src, out, 64, err);
    source_close(src);
    return n >= 0;
}

/* A writer's limit is on time without progress: a slow way to the store is none, one that has come
 * to a halt is, also when it is tried again. */
static void test_slow_upload(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    script_begin(&script, "[{'slow': 4000000, 'etag': 'not-an-md5'}, {'sleep': 20, 'times': 9}]");
    struct store *s = script_store(&script, 9);
    struct progress progress = {.limit_ms = 1500, .last_ms = now_ms()};
    const struct call call = {.deadline_ms = DEADLINE_NONE, .progress = &progress};
    struct store_put put = {.body = {.size = 100000000}}; /* for at least 2.5 s */
    put.body.mem = calloc(1, put.body.size);
    assert_non_null(put.body.mem);
    assert_ok(s->ops->put(s, "key", &put, NULL, &call, &err), &err);
    int64_t start = now_ms();
    put.body.size = 1000;
    assert_false(s->ops->put(s, "key", &put, NULL, &call, &err));
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    assert_true(now_ms() - start < 4000);
    free((void *)(uintptr_t)put.body.mem);
    s->ops->free(s);
    script_drop(&script);
}

static void test_cancel_waits(void **state)
{
    (void)state;
    struct script script;
    script_begin(&script,
                 "[{'sleep': 20}, {'text': '0123456789', 'stall': 3, 'etag': 'e1'},{'sleep': "
                 "20},{'status': 503, 'reply': {'Retry-After': '20'}, 'error': 'SlowDown'}]");
    struct store *s = script_store(&script, 3);
    cancelled(do_head, s); /* waiting for the answer */
    cancelled(do_read, s); /* in the body */
    large = calloc(1, LARGE);
    assert_non_null(large);
    cancelled(do_put, s);
    free(large);
    cancelled(do_head, s); /* between two tries */
    s->ops->free(s);
    script_end(&script);
}

/* All connections are taken: the wait for one can be cancelled and has the call's deadline. */
static void test_cancel_waiting_for_connection(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    struct source *held[4];
    script_begin(&script, "[{'text': [['x', 2000000]], 'times': 4, 'etag': 'e1'},{'status': 206, "
                          "'text': 'x', 'etag': 'e1', 'range': '0-0/10'}]");
    struct store *s = script_store(&script, 1);
    for (int i = 0; i < 4; i++) {
        held[i] = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err);
        assert_non_null(held[i]);
    }
    cancelled(do_head, s);
    const struct call soon = {.deadline_ms = now_ms() + 100};
    assert_false(s->ops->head(s, "key", &info, &soon, &err));
    env_assert_error(&err, ERR_TIMEOUT, "waiting for a connection");
    source_close(held[0]);
    assert_true(s->ops->head(s, "key", &info, &env_forever, &err));
    for (int i = 1; i < 4; i++)
        source_close(held[i]);
    s->ops->free(s);
    script_end(&script);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_retry_after_a_date),
        cmocka_unit_test(test_silent_server),
        cmocka_unit_test(test_slow_request),
        cmocka_unit_test(test_slow_copy),
        cmocka_unit_test(test_slow_complete),
        cmocka_unit_test(test_copy_that_never_ends),
        cmocka_unit_test(test_slow_upload),
        cmocka_unit_test(test_cancel_waits),
        cmocka_unit_test(test_cancel_waiting_for_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
