/* The contract of core/store.h over every store: a directory, S3, and S3 over TLS. Lists and
 * uploads in parts: test_store_list.c, test_store_upload.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/store_file.h"
#include "tests/unit/store_env.h"

static void test_put_head_get(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info put_info, info;
    const struct store_put put = {.body = {.mem = "hello", .size = 5}};
    env_assert_absent(s, "wal_005/one.lzo");
    assert_ok(s->ops->put(s, "wal_005/one.lzo", &put, &put_info, &env_forever, &err), &err);
    assert_int_equal(put_info.size, 5);
    assert_true(put_info.etag[0] != '\0' && put_info.etag[0] != '"');
    assert_ok(s->ops->head(s, "wal_005/one.lzo", &info, &env_forever, &err), &err);
    assert_int_equal(info.size, 5);
    assert_string_equal(info.etag, put_info.etag);
    assert_true(llabs((long long)info.mtime_s - time(NULL)) < 120);
    assert_true(llabs((long long)put_info.mtime_s - info.mtime_s) < 120);
    env_assert_content(s, "wal_005/one.lzo", "hello", 5);
    env_assert_absent(s, "wal_005/one");
    env_assert_absent(s, "wal_005");
    env_assert_absent(s, "wal_005/one.lzo/below");
}

static void test_overwrite(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info before, after;
    env_put(s, "key", "first", 5);
    assert_ok(s->ops->head(s, "key", &before, &env_forever, &err), &err);
    env_put(s, "key", "the second", 10);
    assert_ok(s->ops->head(s, "key", &after, &env_forever, &err), &err);
    assert_string_not_equal(before.etag, after.etag);
    env_assert_content(s, "key", "the second", 10);
}

static void test_put_from_file(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    size_t n = 3 * 1024 * 1024 + 17;
    char *data = env_bytes(n, 1);
    char path[] = "/tmp/walefs-body-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(write(fd, data, n), n);
    const struct store_put put = {.body = {.fd = fd, .offset = 1000, .size = n - 2000}};
    assert_ok(s->ops->put(s, "part", &put, NULL, &env_forever, &err), &err);
    env_assert_content(s, "part", data + 1000, n - 2000);
    /* a file that turns out shorter than promised publishes nothing */
    const struct store_put torn = {.body = {.fd = fd, .offset = 1000, .size = n}};
    assert_false(s->ops->put(s, "torn", &torn, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_LOCAL, NULL);
    env_assert_absent(s, "torn");
    close(fd);
    free(data);
}

static void test_put_sha256(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    uint8_t sum[32];
    assert_int_equal(EVP_Digest("content", 7, sum, NULL, EVP_sha256(), NULL), 1);
    struct store_put put = {.body = {.mem = "content", .size = 7, .sha256 = sum}};
    assert_ok(s->ops->put(s, "right", &put, NULL, &env_forever, &err), &err);
    sum[0] ^= 1;
    assert_false(s->ops->put(s, "wrong", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_CORRUPT, NULL);
    env_assert_absent(s, "wrong");
}

static void test_only_if_absent(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_put put = {.body = {.mem = "mine", .size = 4}, .only_if_absent = true};
    assert_ok(s->ops->put(s, "key", &put, NULL, &env_forever, &err), &err);
    put.body.mem = "evil";
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_EXISTS, NULL);
    env_assert_content(s, "key", "mine", 4);
    put.only_if_absent = false;
    assert_ok(s->ops->put(s, "key", &put, NULL, &env_forever, &err), &err);
    env_assert_content(s, "key", "evil", 4);
}

struct racer {
    struct store *store;
    pthread_barrier_t *barrier;
    const char *content;
    char key[32];
    bool won;
    struct err err;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    const struct store_put put = {.body = {.mem = r->content, .size = 1}, .only_if_absent = true};
    pthread_barrier_wait(r->barrier);
    r->won = r->store->ops->put(r->store, r->key, &put, NULL, &env_forever, &r->err);
    return NULL;
}

static void test_create_race(void **state)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 2);
    for (int round = 0; round < 20; round++) {
        struct racer a = {.store = *state, .barrier = &barrier, .content = "a"}, b = a;
        b.content = "b";
        (void)snprintf(a.key, sizeof(a.key), "race/%d", round);
        memcpy(b.key, a.key, sizeof(b.key));
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, race, &a), 0);
        race(&b);
        pthread_join(thread, NULL);
        if (a.won == b.won)
            fail_msg("round %d: %s; %s", round, a.err.text, b.err.text);
        env_assert_error(a.won ? &b.err : &a.err, ERR_EXISTS, NULL);
        env_assert_content(*state, a.key, a.won ? "a" : "b", 1);
    }
    pthread_barrier_destroy(&barrier);
}

static void check_range(struct store *s, const char *data, size_t n, uint64_t offset,
                        uint64_t length)
{
    struct err err = ERR_INIT;
    struct store_info info;
    char out[64];
    size_t from = offset < n ? (size_t)offset : n;
    size_t want = length < n - from ? (size_t)length : n - from;
    struct source *src = s->ops->get(s, "ranged", offset, length, &info, &env_forever, &err);
    assert_ok(src != NULL, &err);
    assert_int_equal(info.size, n);
    ssize_t got = source_read_full(src, out, sizeof(out), &err);
    if (got != (ssize_t)want)
        fail_msg("range %llu+%llu of %zu: %zd bytes (%s)", (unsigned long long)offset,
                 (unsigned long long)length, n, got, err.text);
    assert_memory_equal(out, data + from, want);
    source_close(src);
}

static void test_ranges(void **state)
{
    struct store *s = *state;
    static const char data[] = "0123456789abcdef";
    for (size_t n = 0; n <= 16; n += 8) {
        env_put(s, "ranged", data, n);
        static const uint64_t at[] = {0, 1, 7, 8, 9, 15, 16, 17, 1000};
        static const uint64_t length[] = {0, 1, 8, 16, 17, UINT64_MAX - 5, UINT64_MAX};
        for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
            for (size_t j = 0; j < sizeof(length) / sizeof(length[0]); j++)
                check_range(s, data, n, at[i], length[j]);
        }
    }
}

static void test_empty_object(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    const struct store_meta meta = {.name = "walefs-kind", .value = "nothing"};
    const struct store_put put = {.body = {.mem = "", .size = 0}, .meta = &meta, .meta_count = 1};
    assert_ok(s->ops->put(s, "empty", &put, NULL, &env_forever, &err), &err);
    assert_ok(s->ops->head(s, "empty", &info, &env_forever, &err), &err);
    assert_int_equal(info.size, 0);
    assert_true(info.etag[0] != '\0');
    assert_true(llabs((long long)info.mtime_s - time(NULL)) < 120);
    assert_string_equal(store_meta_get(&info, "walefs-kind"), "nothing");
    env_assert_content(s, "empty", "", 0);
}

static void test_large_object(void **state)
{
    struct store *s = *state;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 2);
    env_put(s, "large", data, n);
    env_assert_content(s, "large", data, n);
    /* from the middle, in small bites */
    struct err err = ERR_INIT;
    struct store_info info;
    struct source *src = s->ops->get(s, "large", n / 2, n / 4, &info, &env_forever, &err);
    assert_ok(src != NULL, &err);
    char bite[4099];
    size_t have = 0;
    ssize_t got;
    while ((got = src->read(src, bite, sizeof(bite), &err)) > 0) {
        assert_memory_equal(bite, data + n / 2 + have, (size_t)got);
        have += (size_t)got;
    }
    assert_ok(got == 0, &err);
    assert_int_equal(have, n / 4);
    assert_int_equal(src->read(src, bite, sizeof(bite), &err), 0);
    source_close(src);
    /* closed in the middle: the store stays usable */
    src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_ok(src != NULL, &err);
    assert_int_equal(source_read_full(src, bite, sizeof(bite), &err), sizeof(bite));
    source_close(src);
    env_assert_absent(s, "other");
    free(data);
}

static void test_metadata(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    struct store_meta meta[STORE_META_MAX + 1];
    for (size_t i = 0; i <= STORE_META_MAX; i++) {
        (void)snprintf(meta[i].name, sizeof(meta[i].name), "walefs-m%zu", i);
        memset(meta[i].value, 'a' + (int)i, sizeof(meta[i].value) - 1);
        meta[i].value[i == 0 ? 1 : sizeof(meta[i].value) - 1] = '\0';
    }
    struct store_put put = {
        .body = {.mem = "x", .size = 1}, .meta = meta, .meta_count = STORE_META_MAX};
    assert_ok(s->ops->put(s, "key", &put, NULL, &env_forever, &err), &err);
    assert_ok(s->ops->head(s, "key", &info, &env_forever, &err), &err);
    assert_int_equal(info.meta_count, STORE_META_MAX);
    for (size_t i = 0; i < STORE_META_MAX; i++)
        assert_string_equal(store_meta_get(&info, meta[i].name), meta[i].value);
    assert_null(store_meta_get(&info, "walefs-none"));
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_ok(src != NULL, &err);
    source_close(src);
    assert_int_equal(info.meta_count, STORE_META_MAX);
    /* replaced together with the content */
    put.meta_count = 1;
    assert_ok(s->ops->put(s, "key", &put, NULL, &env_forever, &err), &err);
    assert_ok(s->ops->head(s, "key", &info, &env_forever, &err), &err);
    assert_int_equal(info.meta_count, 1);

    put.meta_count = STORE_META_MAX + 1;
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
    put.meta_count = 1;
    meta[0].name[0] = 'x';
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
    memcpy(meta[0].name, "walefs-nl", 10);
    memcpy(meta[0].value, "a\nb", 4);
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
}

static void test_cancel_in_transfer(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    struct cancel cancel;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 4);
    char chunk[64 * 1024];
    env_put(s, "large", data, n);
    cancel_init(&cancel);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    struct source *src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &call, &err);
    assert_ok(src != NULL, &err);
    assert_int_equal(source_read_full(src, chunk, sizeof(chunk), &err), sizeof(chunk));
    cancel_fire(&cancel);
    ssize_t got;
    size_t have = sizeof(chunk);
    while ((got = src->read(src, chunk, sizeof(chunk), &err)) > 0)
        have += (size_t)got;
    assert_int_equal(got, -1);
    env_assert_error(&err, ERR_CANCELLED, NULL);
    assert_true(have < n);
    assert_int_equal(src->read(src, chunk, sizeof(chunk), &err), -1);
    source_close(src);
    const struct store_put put = {.body = {.mem = data, .size = n}};
    assert_false(s->ops->put(s, "other", &put, NULL, &call, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    assert_false(s->ops->head(s, "large", &info, &call, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    struct store_page page;
    assert_false(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &call, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    env_assert_absent(s, "other");
    cancel_destroy(&cancel);
    free(data);
}

static void test_deadline(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 5);
    const struct call late = {.cancel = NULL, .deadline_ms = now_ms() - 1};
    const struct store_put put = {.body = {.mem = data, .size = n}};
    assert_false(s->ops->put(s, "key", &put, NULL, &late, &err));
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    assert_false(s->ops->head(s, "key", &info, &late, &err));
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    assert_null(s->ops->get(s, "key", 0, UINT64_MAX, &info, &late, &err));
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    env_assert_absent(s, "key");
    env_put(s, "key", data, n);
    const struct call soon = {.cancel = NULL, .deadline_ms = now_ms() + 150};
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &soon, &err);
    assert_ok(src != NULL, &err);
    char chunk[16 * 1024];
    size_t have = 0;
    ssize_t got;
    while ((got = src->read(src, chunk, sizeof(chunk), &err)) > 0) {
        have += (size_t)got;
        if (have > n / 2)
            cancel_sleep_ms(NULL, 20);
    }
    assert_int_equal(got, -1);
    env_assert_error(&err, ERR_TIMEOUT, NULL);
    source_close(src);
    free(data);
}

static void test_bad_keys(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    char too_long[STORE_KEY_MAX + 2];
    memset(too_long, 'k', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    const char *const keys[] = {"", "/a", "..", "../a", "a/../b", "a/..", "./a", "a/./b", too_long};
    const struct store_put put = {.body = {.mem = "x", .size = 1}};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        err.code = ERR_NONE;
        assert_false(s->ops->head(s, keys[i], &info, &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, NULL);
        assert_null(s->ops->get(s, keys[i], 0, 1, &info, &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, NULL);
        assert_false(s->ops->put(s, keys[i], &put, NULL, &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, NULL);
        assert_false(s->ops->remove(s, &keys[i], 1, &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, NULL);
        assert_null(s->ops->upload_begin(s, keys[i], &put, &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, NULL);
    }
}

static struct store *store_nowhere(void)
{
    struct err err = ERR_INIT;
    struct store *s;
    if (env_kind == STORE_DIRECTORY) {
        s = store_file_new("/tmp/walefs-no-such-directory/archive", &err);
    } else {
        struct store_s3_options options = env_s3_options(env_kind, "p");
        options.bucket = "walefs-no-such-bucket";
        s = store_s3_new(&options, &err);
    }
    assert_ok(s != NULL, &err);
    return s;
}

static void test_no_bucket(void **state)
{
    (void)state;
    struct store *s = store_nowhere();
    struct err err = ERR_INIT;
    struct store_info info;
    struct store_page page;
    bool weak = false;
    const struct store_put put = {.body = {.mem = "x", .size = 1}};
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_null(s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_null(s->ops->upload_begin(s, "key", &put, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_false(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    const char *const keys[] = {"a", "b"};
    assert_false(s->ops->remove(s, keys, 1, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_false(s->ops->remove(s, keys, 2, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_false(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err));
    env_assert_error(&err, ERR_NO_BUCKET, NULL);
    assert_true(strchr(err.text, '\n') == NULL);
    s->ops->free(s);
}

static void test_check(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    bool weak = true;
    assert_ok(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err), &err);
    env_assert_absent(s, "walefs_probe");
    for (int i = 0; i < 2; i++) {
        weak = true;
        assert_ok(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err), &err);
        assert_false(weak);
    }
    env_assert_list(s, (struct store_list){.prefix = ""}, ENV_LIST("walefs_probe"));
}

static void test_space(void **state)
{
    struct store *s = *state;
    uint64_t total = 0, available = 0;
    assert_int_equal(s->ops->space(s, &total, &available), env_kind == STORE_DIRECTORY);
    assert_true(total >= available);
    assert_true((total > 0) == (env_kind == STORE_DIRECTORY));
}

struct worker {
    struct store *store;
    unsigned number;
    atomic_uint *failures;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct err err = ERR_INIT;
    struct store_info info;
    struct store *s = w->store;
    for (unsigned i = 0; i < 12; i++) {
        char key[32], data[3000], back[sizeof(data) + 1];
        (void)snprintf(key, sizeof(key), "w%u/%u", w->number, i);
        memset(data, (int)(w->number * 16 + i), sizeof(data));
        const struct store_put put = {.body = {.mem = data, .size = sizeof(data)}};
        bool ok = s->ops->put(s, key, &put, NULL, &env_forever, &err);
        struct source *src =
            ok ? s->ops->get(s, key, 0, UINT64_MAX, &info, &env_forever, &err) : NULL;
        ok = src != NULL &&
             source_read_full(src, back, sizeof(back), &err) == (ssize_t)sizeof(data) &&
             memcmp(back, data, sizeof(data)) == 0;
        source_close(src);
        if (!ok) {
            print_error("%s: %s\n", key, err.text);
            atomic_fetch_add(w->failures, 1);
        }
    }
    return NULL;
}

/* More threads than connections. */
static void test_threads(void **state)
{
    enum { THREADS = 20 };
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    atomic_uint failures = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.store = *state, .number = i, .failures = &failures};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
}

static void *read_rest(void *arg)
{
    struct source *src = arg;
    static char rest[600 * 1024];
    struct err err = ERR_INIT;
    return (void *)(intptr_t)source_read_full(src, rest, sizeof(rest), &err);
}

/* A source may be used by another thread than the one that opened it. */
static void test_source_moves(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    char *data = env_bytes(512 * 1024, 6), first[1000];
    env_put(s, "key", data, 512 * 1024);
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_ok(src != NULL, &err);
    assert_int_equal(source_read_full(src, first, sizeof(first), &err), sizeof(first));
    pthread_t thread;
    void *got;
    assert_int_equal(pthread_create(&thread, NULL, read_rest, src), 0);
    pthread_join(thread, &got);
    assert_int_equal((intptr_t)got, 512 * 1024 - 1000);
    source_close(src);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENV_TEST(test_put_head_get),
        ENV_TEST(test_overwrite),
        ENV_TEST(test_put_from_file),
        ENV_TEST(test_put_sha256),
        ENV_TEST(test_only_if_absent),
        ENV_TEST(test_create_race),
        ENV_TEST(test_ranges),
        ENV_TEST(test_empty_object),
        ENV_TEST(test_large_object),
        ENV_TEST(test_metadata),
        ENV_TEST(test_cancel_in_transfer),
        ENV_TEST(test_deadline),
        ENV_TEST(test_bad_keys),
        cmocka_unit_test(test_no_bucket),
        ENV_TEST(test_check),
        ENV_TEST(test_space),
        ENV_TEST(test_threads),
        ENV_TEST(test_source_moves),
    };
    return env_run(tests, sizeof(tests) / sizeof(tests[0]));
}
