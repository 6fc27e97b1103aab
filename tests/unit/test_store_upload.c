/* Uploads in parts, over every store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/store_env.h"

#define PART (5u * 1024 * 1024)

static struct store_upload *begin(struct store *s, const char *key, bool only_if_absent)
{
    struct err err = ERR_INIT;
    const struct store_meta meta = {.name = "walefs-size", .value = "42"};
    const struct store_put put = {.only_if_absent = only_if_absent, .meta = &meta, .meta_count = 1};
    struct store_upload *up = s->ops->upload_begin(s, key, &put, &env_forever, &err);
    assert_ok(up != NULL, &err);
    return up;
}

static void put_part(struct store *s, struct store_upload *up, unsigned number, const char *data,
                     size_t n)
{
    struct err err = ERR_INIT;
    const struct store_body body = {.mem = data, .size = n};
    assert_ok(s->ops->upload_part(up, number, &body, &env_forever, &err), &err);
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
    j->ok = j->store->ops->upload_part(j->up, j->number, &j->body, &env_forever, &j->err);
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
    env_assert_absent(s, "dir/big");
    env_assert_list(s, (struct store_list){.prefix = ""}, nothing);
    assert_ok(s->ops->upload_complete(up, &info, &env_forever, &err), &err);
    assert_int_equal(info.size, n);
    env_assert_content(s, "dir/big", data, n);
    assert_ok(s->ops->head(s, "dir/big", &head, &env_forever, &err), &err);
    assert_string_equal(head.etag, info.etag);
    assert_int_equal(head.size, n);
    assert_string_equal(store_meta_get(&head, "walefs-size"), "42");
    env_assert_list(s, (struct store_list){.prefix = ""}, ENV_LIST("dir/big"));
    free(data);
}

static void test_multipart_abort(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    const char *const nothing[] = {NULL};
    struct store_upload *up = begin(s, "dir/gone", false);
    put_part(s, up, 1, "data", 4);
    s->ops->upload_abort(up, &env_forever);
    env_assert_absent(s, "dir/gone");
    /* a part is missing, or all: complete fails and has aborted */
    up = begin(s, "dir/gone", false);
    put_part(s, up, 2, "data", 4);
    assert_false(s->ops->upload_complete(up, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
    env_assert_absent(s, "dir/gone");
    up = begin(s, "dir/gone", false);
    assert_false(s->ops->upload_complete(up, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_INVALID, NULL);
    env_assert_list(s, (struct store_list){.prefix = ""}, nothing);
    if (env_kind == STORE_DIRECTORY) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/dir", env_dir(s));
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

static void test_multipart_only_if_absent(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_upload *up = begin(s, "key", true);
    put_part(s, up, 1, "first", 5);
    assert_ok(s->ops->upload_complete(up, NULL, &env_forever, &err), &err);
    up = begin(s, "key", true);
    put_part(s, up, 1, "second", 6);
    assert_false(s->ops->upload_complete(up, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_EXISTS, NULL);
    env_assert_content(s, "key", "first", 5);
    up = begin(s, "key", false);
    put_part(s, up, 1, "third", 5);
    assert_ok(s->ops->upload_complete(up, NULL, &env_forever, &err), &err);
    env_assert_content(s, "key", "third", 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENV_TEST(test_multipart),
        ENV_TEST(test_multipart_abort),
        ENV_TEST(test_multipart_only_if_absent),
    };
    return env_run(tests, sizeof(tests) / sizeof(tests[0]));
}
