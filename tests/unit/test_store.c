/* The contract of core/store.h, one suite over every store: a directory, S3, and S3 over TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
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

static enum store_kind kind;
static const struct call forever = CALL_INIT;

static int setup(void **state)
{
    static struct store_env env;
    store_env_begin(&env, kind);
    *state = env.store;
    return 0;
}

static struct store_env *env_of(struct store *store)
{
    static struct store_env env;
    env = (struct store_env){.store = store, .kind = kind};
    if (kind == STORE_DIRECTORY)
        (void)snprintf(env.dir, sizeof(env.dir), "%s", store->url + strlen("file://localhost"));
    return &env;
}

static int teardown(void **state)
{
    store_env_end(env_of(*state));
    return 0;
}

#define assert_ok(expression, err)                        \
    do {                                                  \
        if (!(expression))                                \
            fail_msg("%s: %s", #expression, (err)->text); \
    } while (0)

#define assert_code(err, wanted)                                                      \
    do {                                                                              \
        if ((err)->code != (wanted))                                                  \
            fail_msg("%s instead of %s: %s", err_name((err)->code), err_name(wanted), \
                     (err)->text);                                                    \
    } while (0)

static void assert_content(struct store *s, const char *key, const void *data, size_t n)
{
    size_t got;
    char *copy = env_get(s, key, &got);
    assert_int_equal(got, n);
    assert_memory_equal(copy, data, n);
    free(copy);
}

static void assert_absent(struct store *s, const char *key)
{
    struct err err = ERR_INIT;
    struct store_info info;
    assert_false(s->ops->head(s, key, &info, &forever, &err));
    assert_code(&err, ERR_ABSENT);
    assert_non_null(strstr(err.text, key));
    assert_null(s->ops->get(s, key, 0, UINT64_MAX, &info, &forever, &err));
    assert_code(&err, ERR_ABSENT);
}

static void test_put_head_get(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info put_info, info;
    const struct store_put put = {.body = {.mem = "hello", .size = 5}};
    assert_absent(s, "wal_005/one.lzo");
    assert_ok(s->ops->put(s, "wal_005/one.lzo", &put, &put_info, &forever, &err), &err);
    assert_int_equal(put_info.size, 5);
    assert_true(put_info.etag[0] != '\0' && put_info.etag[0] != '"');
    assert_ok(s->ops->head(s, "wal_005/one.lzo", &info, &forever, &err), &err);
    assert_int_equal(info.size, 5);
    assert_string_equal(info.etag, put_info.etag);
    assert_true(llabs((long long)info.mtime_s - time(NULL)) < 120);
    assert_true(llabs((long long)put_info.mtime_s - info.mtime_s) < 120);
    assert_content(s, "wal_005/one.lzo", "hello", 5);
    assert_absent(s, "wal_005/one");
    assert_absent(s, "wal_005");
    assert_absent(s, "wal_005/one.lzo/below");
}

static void test_overwrite(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info before, after;
    env_put(s, "key", "first", 5);
    assert_ok(s->ops->head(s, "key", &before, &forever, &err), &err);
    env_put(s, "key", "the second", 10);
    assert_ok(s->ops->head(s, "key", &after, &forever, &err), &err);
    assert_string_not_equal(before.etag, after.etag);
    assert_content(s, "key", "the second", 10);
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
    assert_ok(s->ops->put(s, "part", &put, NULL, &forever, &err), &err);
    assert_content(s, "part", data + 1000, n - 2000);
    /* a file that turns out shorter than promised publishes nothing */
    const struct store_put torn = {.body = {.fd = fd, .offset = 1000, .size = n}};
    assert_false(s->ops->put(s, "torn", &torn, NULL, &forever, &err));
    assert_code(&err, ERR_LOCAL);
    assert_absent(s, "torn");
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
    assert_ok(s->ops->put(s, "right", &put, NULL, &forever, &err), &err);
    sum[0] ^= 1;
    assert_false(s->ops->put(s, "wrong", &put, NULL, &forever, &err));
    assert_code(&err, ERR_CORRUPT);
    assert_absent(s, "wrong");
}

static void test_only_if_absent(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_put put = {.body = {.mem = "mine", .size = 4}, .only_if_absent = true};
    assert_ok(s->ops->put(s, "key", &put, NULL, &forever, &err), &err);
    put.body.mem = "evil";
    assert_false(s->ops->put(s, "key", &put, NULL, &forever, &err));
    assert_code(&err, ERR_EXISTS);
    assert_content(s, "key", "mine", 4);
    put.only_if_absent = false;
    assert_ok(s->ops->put(s, "key", &put, NULL, &forever, &err), &err);
    assert_content(s, "key", "evil", 4);
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
    r->won = r->store->ops->put(r->store, r->key, &put, NULL, &forever, &r->err);
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
        assert_code(a.won ? &b.err : &a.err, ERR_EXISTS);
        assert_content(*state, a.key, a.won ? "a" : "b", 1);
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
    struct source *src = s->ops->get(s, "ranged", offset, length, &info, &forever, &err);
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
    assert_ok(s->ops->put(s, "empty", &put, NULL, &forever, &err), &err);
    assert_ok(s->ops->head(s, "empty", &info, &forever, &err), &err);
    assert_int_equal(info.size, 0);
    assert_true(info.etag[0] != '\0');
    assert_true(llabs((long long)info.mtime_s - time(NULL)) < 120);
    assert_string_equal(store_meta_get(&info, "walefs-kind"), "nothing");
    assert_content(s, "empty", "", 0);
}

static void test_large_object(void **state)
{
    struct store *s = *state;
    size_t n = 20 * 1024 * 1024;
    char *data = env_bytes(n, 2);
    env_put(s, "large", data, n);
    assert_content(s, "large", data, n);
    /* from the middle, in small bites */
    struct err err = ERR_INIT;
    struct store_info info;
    struct source *src = s->ops->get(s, "large", n / 2, n / 4, &info, &forever, &err);
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
    src = s->ops->get(s, "large", 0, UINT64_MAX, &info, &forever, &err);
    assert_ok(src != NULL, &err);
    assert_int_equal(source_read_full(src, bite, sizeof(bite), &err), sizeof(bite));
    source_close(src);
    assert_absent(s, "other");
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
    assert_ok(s->ops->put(s, "key", &put, NULL, &forever, &err), &err);
    assert_ok(s->ops->head(s, "key", &info, &forever, &err), &err);
    assert_int_equal(info.meta_count, STORE_META_MAX);
    for (size_t i = 0; i < STORE_META_MAX; i++)
        assert_string_equal(store_meta_get(&info, meta[i].name), meta[i].value);
    assert_null(store_meta_get(&info, "walefs-none"));
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &forever, &err);
    assert_ok(src != NULL, &err);
    source_close(src);
    assert_int_equal(info.meta_count, STORE_META_MAX);
    /* replaced together with the content */
    put.meta_count = 1;
    assert_ok(s->ops->put(s, "key", &put, NULL, &forever, &err), &err);
    assert_ok(s->ops->head(s, "key", &info, &forever, &err), &err);
    assert_int_equal(info.meta_count, 1);

    put.meta_count = STORE_META_MAX + 1;
    assert_false(s->ops->put(s, "key", &put, NULL, &forever, &err));
    assert_code(&err, ERR_INVALID);
    put.meta_count = 1;
    meta[0].name[0] = 'x';
    assert_false(s->ops->put(s, "key", &put, NULL, &forever, &err));
    assert_code(&err, ERR_INVALID);
    memcpy(meta[0].name, "walefs-nl", 10);
    memcpy(meta[0].value, "a\nb", 4);
    assert_false(s->ops->put(s, "key", &put, NULL, &forever, &err));
    assert_code(&err, ERR_INVALID);
}

/* In byte order. "a-b" sorts before "a/", which sorts before "aa". */
static const char *const odd_names[] = {
    " leading blank",
    "a+b%2Bc",
    "a-b",
    "a/b c/d&e<f>\"g'.lzo",
    "a/b/c",
    "a/b/d",
    "a/z",
    "a=1?x#y",
    "aa",
    "dir/~tilde_(paren)!*,;:@$",
    "percent%41/%2F",
    "quote\\back",
    "z/\x7f\x01control",
    "z/\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98",
};
#define ODD_COUNT (sizeof(odd_names) / sizeof(odd_names[0]))

static void put_odd_names(struct store *s)
{
    for (size_t i = 0; i < ODD_COUNT; i++)
        env_put(s, odd_names[i], odd_names[i], strlen(odd_names[i]));
}

/* Lists through all pages and compares with the NULL-ended WANTED; a trailing '/' is a prefix. */
static void assert_list(struct store *s, struct store_list list, const char *const *wanted)
{
    size_t at = 0, pages = 0;
    char *token = NULL;
    bool more = true;
    while (more) {
        struct store_page page;
        struct err err = ERR_INIT;
        list.token = token;
        assert_ok(s->ops->list(s, &list, &page, &forever, &err), &err);
        if (list.max_keys > 0)
            assert_true(page.count <= list.max_keys);
        for (size_t i = 0; i < page.count; i++, at++) {
            const struct store_entry *e = &page.entries[i];
            if (wanted[at] == NULL)
                fail_msg("unexpected %s", e->key);
            assert_string_equal(e->key, wanted[at]);
            bool prefix = wanted[at][strlen(wanted[at]) - 1] == '/';
            assert_int_equal(e->is_prefix, prefix);
            assert_true(prefix || e->etag[0] != '\0');
            assert_true(prefix || llabs((long long)e->mtime_s - time(NULL)) < 300);
        }
        free(token);
        token = page.next == NULL ? NULL : strdup(page.next);
        more = page.more;
        assert_true(more == (token != NULL));
        store_page_free(&page);
        assert_true(++pages < 100);
    }
    if (wanted[at] != NULL)
        fail_msg("%s is missing", wanted[at]);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_list_odd_names(void **state)
{
    struct store *s = *state;
    const char *all[ODD_COUNT + 1] = {NULL};
    const char *const nothing[] = {NULL};
    assert_list(s, (struct store_list){.prefix = ""}, nothing);
    put_odd_names(s);
    memcpy(all, odd_names, sizeof(odd_names));
    for (unsigned page = 0; page <= ODD_COUNT + 1; page++)
        assert_list(s, (struct store_list){.prefix = "", .max_keys = page}, all);
    for (size_t i = 0; i < ODD_COUNT; i++) {
        assert_content(s, odd_names[i], odd_names[i], strlen(odd_names[i]));
        assert_list(s, (struct store_list){.prefix = "", .start_after = odd_names[i]}, all + i + 1);
        assert_list(s,
                    (struct store_list){.prefix = "", .start_after = odd_names[i], .max_keys = 2},
                    all + i + 1);
        assert_list(s, (struct store_list){.prefix = odd_names[i]},
                    (const char *[]){odd_names[i], NULL});
    }
}

static void test_list_prefix(void **state)
{
    struct store *s = *state;
    put_odd_names(s);
    assert_list(s, (struct store_list){.prefix = "a/"},
                LIST("a/b c/d&e<f>\"g'.lzo", "a/b/c", "a/b/d", "a/z"));
    assert_list(s, (struct store_list){.prefix = "a/b"},
                LIST("a/b c/d&e<f>\"g'.lzo", "a/b/c", "a/b/d"));
    assert_list(s, (struct store_list){.prefix = "a/b/"}, LIST("a/b/c", "a/b/d"));
    assert_list(s, (struct store_list){.prefix = "a/b/", .start_after = "a/b/c"}, LIST("a/b/d"));
    const char *const nothing[] = {NULL};
    assert_list(s, (struct store_list){.prefix = "none/"}, nothing);
    assert_list(s, (struct store_list){.prefix = "a/z/"}, nothing);
    assert_list(s, (struct store_list){.prefix = "zz"}, nothing);
}

static void test_list_delimiter(void **state)
{
    struct store *s = *state;
    put_odd_names(s);
    const char *const top[] = {" leading blank", "a+b%2Bc", "a-b",  "a/",
                               "a=1?x#y",        "aa",      "dir/", "percent%41/",
                               "quote\\back",    "z/",      NULL};
    for (unsigned page = 0; page < 12; page++)
        assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .max_keys = page}, top);
    for (unsigned page = 0; page < 4; page++)
        assert_list(s, (struct store_list){.prefix = "a/", .delimiter = "/", .max_keys = page},
                    LIST("a/b c/", "a/b/", "a/z"));
    assert_list(s, (struct store_list){.prefix = "a", .delimiter = "/"},
                LIST("a+b%2Bc", "a-b", "a/", "a=1?x#y", "aa"));
    assert_list(s, (struct store_list){.prefix = "a/b", .delimiter = "/"}, LIST("a/b c/", "a/b/"));
    /* only what is itself behind start_after, about which S3 stores differ for prefixes */
    assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a/"},
                top + 4);
    assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a/b/c"},
                top + 4);
    assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a-b"},
                top + 3);
}

static void test_bulk_remove(void **state)
{
    enum { COUNT = 2500 };
    struct store *s = *state;
    struct err err = ERR_INIT;
    static char keys[COUNT][24];
    static const char *list[COUNT + 2];
    const char *const nothing[] = {NULL};
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "many/%zu/%05zu", i % 3, i);
        list[i] = keys[i];
        env_put(s, keys[i], "x", 1);
    }
    env_put(s, "kept", "x", 1);
    size_t seen = 0;
    char *token = NULL;
    for (bool more = true; more;) {
        struct store_page page;
        const struct store_list all = {.prefix = "many/", .token = token};
        assert_ok(s->ops->list(s, &all, &page, &forever, &err), &err);
        seen += page.count;
        more = page.more;
        free(token);
        token = more ? strdup(page.next) : NULL;
        store_page_free(&page);
    }
    free(token);
    assert_int_equal(seen, COUNT);
    list[COUNT] = "absent/key";
    assert_ok(s->ops->remove(s, list, COUNT + 1, &forever, &err), &err);
    assert_list(s, (struct store_list){.prefix = "many/"}, nothing);
    assert_list(s, (struct store_list){.prefix = ""}, LIST("kept"));
    assert_ok(s->ops->remove(s, list, COUNT, &forever, &err), &err);
    assert_ok(s->ops->remove(s, list, 0, &forever, &err), &err);
    assert_content(s, "kept", "x", 1);
}

static void test_remove_odd_names(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    const char *const nothing[] = {NULL};
    put_odd_names(s);
    assert_ok(s->ops->remove(s, odd_names, 1, &forever, &err), &err);
    assert_absent(s, odd_names[0]);
    assert_ok(s->ops->remove(s, odd_names, ODD_COUNT, &forever, &err), &err);
    assert_list(s, (struct store_list){.prefix = ""}, nothing);
}

#define PART (5u * 1024 * 1024)

static struct store_upload *begin(struct store *s, const char *key, bool only_if_absent)
{
    struct err err = ERR_INIT;
    const struct store_meta meta = {.name = "walefs-size", .value = "42"};
    const struct store_put put = {.only_if_absent = only_if_absent, .meta = &meta, .meta_count = 1};
    struct store_upload *up = s->ops->upload_begin(s, key, &put, &forever, &err);
    assert_ok(up != NULL, &err);
    return up;
}

static void put_part(struct store *s, struct store_upload *up, unsigned number, const char *data,
                     size_t n)
{
    struct err err = ERR_INIT;
    const struct store_body body = {.mem = data, .size = n};
    assert_ok(s->ops->upload_part(up, number, &body, &forever, &err), &err);
}

struct part_job {
    struct store *store;
    struct store_upload *up;
    unsigned number;
    struct store_body body;
    bool ok;
    struct err err;
};

static void *put_part_job(void *arg)
{
    struct part_job *j = arg;
    j->ok = j->store->ops->upload_part(j->up, j->number, &j->body, &forever, &j->err);
    return NULL;
}

static void test_multipart(void **state)
{
    enum { PARTS = 4 };
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info, head;
    const char *const nothing[] = {NULL};
    size_t n = (PARTS - 1) * PART + 12345;
    char *data = env_bytes(n, 3);
    struct store_upload *up = begin(s, "dir/big", false);
    struct part_job jobs[PARTS];
    pthread_t threads[PARTS];
    put_part(s, up, 2, "put again below", 15);
    for (unsigned i = 0; i < PARTS; i++) {
        jobs[i] = (struct part_job){.store = s,
                                    .up = up,
                                    .number = PARTS - i,
                                    .body = {.mem = data + (PARTS - 1 - i) * PART}};
        jobs[i].body.size = i == 0 ? 12345 : PART;
        assert_int_equal(pthread_create(&threads[i], NULL, put_part_job, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < PARTS; i++) {
        pthread_join(threads[i], NULL);
        assert_ok(jobs[i].ok, &jobs[i].err);
    }
    assert_absent(s, "dir/big");
    assert_list(s, (struct store_list){.prefix = ""}, nothing);
    assert_ok(s->ops->upload_complete(up, &info, &forever, &err), &err);
    assert_int_equal(info.size, n);
    assert_content(s, "dir/big", data, n);
    assert_ok(s->ops->head(s, "dir/big", &head, &forever, &err), &err);
    assert_string_equal(head.etag, info.etag);
    assert_int_equal(head.size, n);
    assert_string_equal(store_meta_get(&head, "walefs-size"), "42");
    assert_list(s, (struct store_list){.prefix = ""}, LIST("dir/big"));
    free(data);
}

static void test_multipart_abort(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    const char *const nothing[] = {NULL};
    struct store_upload *up = begin(s, "dir/gone", false);
    put_part(s, up, 1, "data", 4);
    s->ops->upload_abort(up, &forever);
    assert_absent(s, "dir/gone");
    /* a part is missing, or all: complete fails and has aborted */
    up = begin(s, "dir/gone", false);
    put_part(s, up, 2, "data", 4);
    assert_false(s->ops->upload_complete(up, NULL, &forever, &err));
    assert_code(&err, ERR_INVALID);
    assert_absent(s, "dir/gone");
    up = begin(s, "dir/gone", false);
    assert_false(s->ops->upload_complete(up, NULL, &forever, &err));
    assert_code(&err, ERR_INVALID);
    assert_list(s, (struct store_list){.prefix = ""}, nothing);
    if (kind == STORE_DIRECTORY) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/dir", env_of(s)->dir);
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

static void test_multipart_only_if_absent(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_upload *up = begin(s, "key", true);
    put_part(s, up, 1, "first", 5);
    assert_ok(s->ops->upload_complete(up, NULL, &forever, &err), &err);
    up = begin(s, "key", true);
    put_part(s, up, 1, "second", 6);
    assert_false(s->ops->upload_complete(up, NULL, &forever, &err));
    assert_code(&err, ERR_EXISTS);
    assert_content(s, "key", "first", 5);
    up = begin(s, "key", false);
    put_part(s, up, 1, "third", 5);
    assert_ok(s->ops->upload_complete(up, NULL, &forever, &err), &err);
    assert_content(s, "key", "third", 5);
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
    assert_code(&err, ERR_CANCELLED);
    assert_true(have < n);
    assert_int_equal(src->read(src, chunk, sizeof(chunk), &err), -1);
    source_close(src);
    const struct store_put put = {.body = {.mem = data, .size = n}};
    assert_false(s->ops->put(s, "other", &put, NULL, &call, &err));
    assert_code(&err, ERR_CANCELLED);
    assert_false(s->ops->head(s, "large", &info, &call, &err));
    assert_code(&err, ERR_CANCELLED);
    struct store_page page;
    assert_false(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &call, &err));
    assert_code(&err, ERR_CANCELLED);
    assert_absent(s, "other");
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
    assert_code(&err, ERR_TIMEOUT);
    assert_false(s->ops->head(s, "key", &info, &late, &err));
    assert_code(&err, ERR_TIMEOUT);
    assert_null(s->ops->get(s, "key", 0, UINT64_MAX, &info, &late, &err));
    assert_code(&err, ERR_TIMEOUT);
    assert_absent(s, "key");
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
    assert_code(&err, ERR_TIMEOUT);
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
        assert_false(s->ops->head(s, keys[i], &info, &forever, &err));
        assert_code(&err, ERR_INVALID);
        assert_null(s->ops->get(s, keys[i], 0, 1, &info, &forever, &err));
        assert_code(&err, ERR_INVALID);
        assert_false(s->ops->put(s, keys[i], &put, NULL, &forever, &err));
        assert_code(&err, ERR_INVALID);
        assert_false(s->ops->remove(s, &keys[i], 1, &forever, &err));
        assert_code(&err, ERR_INVALID);
        assert_null(s->ops->upload_begin(s, keys[i], &put, &forever, &err));
        assert_code(&err, ERR_INVALID);
    }
}

static struct store *store_nowhere(void)
{
    struct err err = ERR_INIT;
    struct secret secret = SECRET_INIT;
    struct store *s;
    if (kind == STORE_DIRECTORY) {
        s = store_file_new("/tmp/walefs-no-such-directory/archive", &err);
    } else {
        struct store_s3_options options = env_s3_options(kind, "p", &secret);
        options.bucket = "walefs-no-such-bucket";
        s = store_s3_new(&options, &err);
        secret_free(&secret);
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
    assert_false(s->ops->head(s, "key", &info, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_null(s->ops->get(s, "key", 0, UINT64_MAX, &info, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_false(s->ops->put(s, "key", &put, NULL, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_null(s->ops->upload_begin(s, "key", &put, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_false(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    const char *const keys[] = {"a", "b"};
    assert_false(s->ops->remove(s, keys, 1, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_false(s->ops->remove(s, keys, 2, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_false(s->ops->check(s, true, &weak, &forever, &err));
    assert_code(&err, ERR_NO_BUCKET);
    assert_true(strchr(err.text, '\n') == NULL);
    s->ops->free(s);
}

static void test_check(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    bool weak = true;
    assert_ok(s->ops->check(s, false, &weak, &forever, &err), &err);
    assert_absent(s, "walefs_probe");
    for (int i = 0; i < 2; i++) {
        weak = true;
        assert_ok(s->ops->check(s, true, &weak, &forever, &err), &err);
        assert_false(weak);
    }
    assert_list(s, (struct store_list){.prefix = ""}, LIST("walefs_probe"));
}

static void test_space(void **state)
{
    struct store *s = *state;
    uint64_t total = 0, available = 0;
    assert_int_equal(s->ops->space(s, &total, &available), kind == STORE_DIRECTORY);
    assert_true(total >= available);
    assert_true((total > 0) == (kind == STORE_DIRECTORY));
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
        bool ok = s->ops->put(s, key, &put, NULL, &forever, &err);
        struct source *src = ok ? s->ops->get(s, key, 0, UINT64_MAX, &info, &forever, &err) : NULL;
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
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &forever, &err);
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

static int run(const char *name, enum store_kind which)
{
    kind = which;
#define T(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_put_head_get),
        T(test_overwrite),
        T(test_put_from_file),
        T(test_put_sha256),
        T(test_only_if_absent),
        T(test_create_race),
        T(test_ranges),
        T(test_empty_object),
        T(test_large_object),
        T(test_metadata),
        T(test_list_odd_names),
        T(test_list_prefix),
        T(test_list_delimiter),
        T(test_bulk_remove),
        T(test_remove_odd_names),
        T(test_multipart),
        T(test_multipart_abort),
        T(test_multipart_only_if_absent),
        T(test_cancel_in_transfer),
        T(test_deadline),
        T(test_bad_keys),
        cmocka_unit_test(test_no_bucket),
        T(test_check),
        T(test_space),
        T(test_threads),
        T(test_source_moves),
    };
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    int failed = run("store: directory", STORE_DIRECTORY);
    failed += run("store: S3", STORE_S3);
    failed += run("store: S3 over TLS", STORE_S3_TLS);
    return failed;
}
