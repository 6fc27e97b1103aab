/* One object out of a stream of unknown length, on every store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/part_sink.h"
#include "fault_store.h"
#include "store_env.h"

#define PART (5u << 20)
#define KEY "basebackups_005/x/tar_partitions/part_00000001.tar.lzo"

struct env {
    struct store *store;
    struct fault_store *faults;
    struct pool *pool;
    struct store_info info;
    struct part_sink_options opt;
};

static struct err err;

static struct env begin(void **state)
{
    struct env e = {.store = *state};
    e.faults = fault_store_new(e.store);
    e.pool = pool_new(8, 50, &err);
    assert_non_null(e.pool);
    err = (struct err)ERR_INIT;
    e.opt = (struct part_sink_options){.store = fault_base(e.faults),
                                       .pool = e.pool,
                                       .key = KEY,
                                       .part_bytes = PART,
                                       .parallel = 2,
                                       .call = &env_forever};
    return e;
}

static void end(struct env *e)
{
    pool_free(e->pool);
    assert_int_equal(fault_uploads_open(e->faults), 0);
    fault_store_free(e->faults);
}

static struct sink *make(struct env *e)
{
    e->opt.info = &e->info;
    struct sink *s = part_sink_new(&e->opt, &err);
    assert_non_null(s);
    return s;
}

/* In writes of STEP bytes. */
static bool write_in(struct sink *s, const char *data, size_t n, size_t step)
{
    bool ok = true;
    for (size_t pos = 0; ok && pos < n; pos += step)
        ok = s->write(s, data + pos, n - pos < step ? n - pos : step, &err);
    return ok;
}

static void every_length_arrives_whole(void **state)
{
    static const size_t lengths[] = {0, 1, PART - 1, PART, PART + 1, 2 * PART, 4 * PART + 12345};
    struct env e = begin(state);
    char *data = env_bytes(lengths[6], 3);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct sink *s = make(&e);
        assert_ok(write_in(s, data, lengths[i], i % 2 == 0 ? 1u << 18 : 3u << 20), &err);
        assert_ok(s->finish(s, &err), &err);
        sink_close(s);
        env_assert_content(e.store, KEY, data, lengths[i]);
        assert_int_equal(e.info.size, lengths[i]);
        assert_true(e.info.etag[0] != '\0');
    }
    free(data);
    end(&e);
}

static void small_ones_are_one_request(void **state)
{
    struct env e = begin(state);
    fault_at(e.faults, 0, FAULT_BEFORE);
    struct sink *s = make(&e);
    assert_ok(s->write(s, "hello", 5, &err) && s->finish(s, &err), &err);
    sink_close(s);
    assert_int_equal(fault_calls(e.faults), 1);
    end(&e);
}

static void without_finish_nothing_shows(void **state)
{
    static const size_t lengths[] = {0, 100, PART + 100, 4 * PART};
    struct env e = begin(state);
    char *data = env_bytes(4 * PART, 4);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct sink *s = make(&e);
        assert_ok(write_in(s, data, lengths[i], PART), &err);
        sink_close(s);
        env_assert_absent(e.store, KEY);
    }
    free(data);
    end(&e);
}

/* Whichever call fails: an error, no object, no upload that goes on costing money. */
static void every_failure_is_told(void **state)
{
    struct env e = begin(state);
    char *data = env_bytes(3 * PART, 5);
    unsigned nth = 0;
    do {
        fault_at(e.faults, ++nth, FAULT_BEFORE);
        struct sink *s = make(&e);
        bool ok = write_in(s, data, 3 * PART, 1u << 20) && s->finish(s, &err);
        sink_close(s);
        assert_int_equal(ok, !fault_happened(e.faults));
        if (!ok) {
            env_assert_absent(e.store, KEY);
            assert_int_equal(err.code, ERR_UNAVAILABLE);
        }
        assert_int_equal(fault_uploads_open(e.faults), 0);
    } while (fault_happened(e.faults));
    assert_in_range(nth, 5, 7); /* begin, three parts, complete; and then none */
    fault_at(e.faults, 0, FAULT_BEFORE);
    env_assert_content(e.store, KEY, data, 3 * PART);
    free(data);
    end(&e);
}

static void what_exists_stays(void **state)
{
    static const size_t lengths[] = {100, 2 * PART + 1};
    struct env e = begin(state);
    char *data = env_bytes(lengths[1], 6);
    env_put(e.store, KEY, "first", 5);
    e.opt.only_if_absent = true;
    for (size_t i = 0; i < 2; i++) {
        struct sink *s = make(&e);
        bool ok = write_in(s, data, lengths[i], PART) && s->finish(s, &err);
        sink_close(s);
        assert_false(ok);
        assert_int_equal(err.code, ERR_EXISTS);
        env_assert_content(e.store, KEY, "first", 5);
    }
    free(data);
    end(&e);
}

/* The object is there, and the answer that said so was lost: it is not taken for another one's. */
static void a_lost_answer_is_no_other_writer(void **state)
{
    static const size_t lengths[] = {0, 100, PART - 1};
    struct env e = begin(state);
    char *data = env_bytes(PART, 8);
    e.opt.only_if_absent = true;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const char *key = KEY;
        struct sink *s = make(&e);
        assert_ok(write_in(s, data, lengths[i], PART), &err);
        fault_at(e.faults, 1, FAULT_RETRY);
        e.info = (struct store_info){.size = 0};
        assert_ok(s->finish(s, &err), &err);
        assert_true(fault_happened(e.faults));
        sink_close(s);
        assert_int_equal(e.info.size, lengths[i]);
        assert_true(e.info.etag[0] != '\0');
        env_assert_content(e.store, KEY, data, lengths[i]);
        assert_ok(e.store->ops->remove(e.store, &key, 1, &env_forever, &err), &err);
    }
    free(data);
    end(&e);
}

/* A writer that is faster than the store waits: memory does not grow with the stream. */
static void a_slow_store_slows_the_writer(void **state)
{
    struct env e = begin(state);
    struct call call = {.deadline_ms = now_ms() + 1500};
    char *data = env_bytes(PART, 7);
    e.opt.call = &call;
    fault_hold(e.faults, true);
    struct sink *s = make(&e);
    unsigned parts = 0;
    while (s->write(s, data, PART, &err))
        parts++;
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_in_range(parts, e.opt.parallel, e.opt.parallel + 1);
    fault_hold(e.faults, false);
    sink_close(s);
    env_assert_absent(e.store, KEY);
    free(data);
    end(&e);
}

/* The first part is full, and the store does not say that it takes an upload. */
static void a_store_that_begins_no_upload(void **state)
{
    struct env e = begin(state);
    char *data = env_bytes(PART + 1, 9);
    e.opt.stall_ms = 300;
    fault_hold_begin(e.faults, true);
    struct sink *s = make(&e);
    assert_false(write_in(s, data, PART + 1, PART)); /* without the limit it never returns */
    assert_int_equal(err.code, ERR_TIMEOUT);
    fault_hold_begin(e.faults, false);
    sink_close(s);
    env_assert_absent(e.store, KEY);
    free(data);
    end(&e);
}

static void until(void *arg)
{
    _Atomic int64_t *when_ms = arg;
    while (now_ms() < *when_ms)
        (void)usleep(10000);
}

/* Each step has the limit for itself: parts that together took longer do not count for the end. */
static void slow_parts_leave_time_to_finish(void **state)
{
    struct env e = begin(state);
    char *data = env_bytes(PART + 1, 10);
    static _Atomic int64_t go_ms;
    pool_free(e.pool);
    e.opt.pool = e.pool = pool_new(1, 50, &err);
    e.opt.stall_ms = 3000;
    go_ms = INT64_MAX;
    assert_true(pool_submit(e.pool, until, &go_ms, &err)); /* the parts wait behind it */
    struct sink *s = make(&e);
    assert_ok(write_in(s, data, PART + 1, PART), &err);
    go_ms = now_ms() + e.opt.stall_ms + 200;
    assert_ok(s->finish(s, &err), &err);
    sink_close(s);
    env_assert_content(e.store, KEY, data, PART + 1);
    free(data);
    end(&e);
}

static void cancelled_while_parts_are_under_way(void **state)
{
    struct env e = begin(state);
    struct cancel cancel;
    struct call call = CALL_INIT;
    char *data = env_bytes(PART, 8);
    cancel_init(&cancel);
    call.cancel = &cancel;
    e.opt.call = &call;
    fault_hold(e.faults, true);
    struct sink *s = make(&e);
    assert_ok(s->write(s, data, PART, &err) && s->write(s, data, PART, &err), &err);
    while (fault_held(e.faults) == 0)
        (void)usleep(1000);
    cancel_fire(&cancel);
    assert_false(write_in(s, data, PART, 1u << 20) && s->finish(s, &err));
    sink_close(s); /* returns though the store still holds the part */
    fault_hold(e.faults, false);
    env_assert_absent(e.store, KEY);
    free(data);
    cancel_destroy(&cancel);
    end(&e);
}

/* ---- the sizes of parts ---- */

/* S3: 10,000 parts of 5 GiB at most, 5 TiB together. */
static void the_largest_object_fits_its_parts(void **state)
{
    static const uint64_t firsts[] = {5u << 20, 8u << 20, 64u << 20};
    (void)state;
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        uint64_t all = 0;
        assert_int_equal(part_sink_part_bytes(firsts[i], 1), firsts[i]);
        for (unsigned n = 1; n <= 10000; n++) {
            uint64_t bytes = part_sink_part_bytes(firsts[i], n);
            assert_true(bytes >= firsts[i] && bytes <= UINT64_C(5) << 30);
            all += bytes;
        }
        assert_true(all >= UINT64_C(5) << 40);
    }
}

/* A store of which only the parts' sizes are of interest. */
struct sizes {
    struct store base;
    uint64_t bytes[2001];
};

static struct store_upload *sizes_begin(struct store *s, const char *key,
                                        const struct store_put *put, const struct call *call,
                                        struct err *e)
{
    (void)key;
    (void)put;
    (void)call;
    (void)e;
    return (struct store_upload *)s;
}

static bool sizes_part(struct store_upload *up, unsigned number, const struct store_body *body,
                       const struct call *call, struct err *e)
{
    struct sizes *s = (struct sizes *)up;
    (void)call;
    (void)e;
    assert_true(number <= 2000);
    s->bytes[number] = body->size;
    return true;
}

static bool sizes_complete(struct store_upload *up, struct store_info *info,
                           const struct call *call, struct err *e)
{
    (void)up;
    (void)info;
    (void)call;
    (void)e;
    return true;
}

static void parts_are_as_large_as_is_told(void **state)
{
    static const struct store_ops ops = {
        .upload_begin = sizes_begin, .upload_part = sizes_part, .upload_complete = sizes_complete};
    struct sizes *s = calloc(1, sizeof(*s));
    struct pool *pool = pool_new(4, 50, &err);
    const struct part_sink_options opt = {.store = &s->base,
                                          .pool = pool,
                                          .key = KEY,
                                          .part_bytes = 100,
                                          .parallel = 3,
                                          .call = &env_forever};
    char bytes[777] = {0};
    size_t left = 0;
    (void)state;
    assert_true(s != NULL && pool != NULL);
    s->base.ops = &ops;
    struct sink *sink = part_sink_new(&opt, &err);
    assert_non_null(sink);
    for (unsigned n = 1; n <= 2000; n++)
        left += part_sink_part_bytes(100, n);
    for (size_t n; left > 0; left -= n) {
        n = left < sizeof(bytes) ? left : sizeof(bytes);
        assert_ok(sink->write(sink, bytes, n, &err), &err);
    }
    assert_ok(sink->finish(sink, &err), &err);
    sink_close(sink);
    pool_free(pool);
    for (unsigned n = 1; n <= 2000; n++)
        assert_int_equal(s->bytes[n], part_sink_part_bytes(100, n));
    assert_true(s->bytes[2000] > s->bytes[1]);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENV_TEST(every_length_arrives_whole),
        ENV_TEST(small_ones_are_one_request),
        ENV_TEST(without_finish_nothing_shows),
        ENV_TEST(every_failure_is_told),
        ENV_TEST(what_exists_stays),
        ENV_TEST(a_lost_answer_is_no_other_writer),
        ENV_TEST(a_slow_store_slows_the_writer),
        ENV_TEST(a_store_that_begins_no_upload),
        ENV_TEST(slow_parts_leave_time_to_finish),
        ENV_TEST(cancelled_while_parts_are_under_way),
    };
    const struct CMUnitTest once[] = {
        cmocka_unit_test(the_largest_object_fits_its_parts),
        cmocka_unit_test(parts_are_as_large_as_is_told),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    int failures = cmocka_run_group_tests_name("sizes", once, NULL, NULL);
    return failures + env_run(tests, sizeof(tests) / sizeof(tests[0]));
}
