/* Copies inside a store, on every store; and what a mount sweeps up of uploads that were left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "store_env.h"

#define FROM "basebackups_005/walefs-tmp-1/part"
#define TO "basebackups_005/base_1/tar_partitions/part_00000001.tar.lzo"

static struct err err;

static void put_with_meta(struct store *s, const char *data, size_t n)
{
    static const struct store_meta meta[] = {{"walefs-plain-size", "4711"}, {"walefs-x", "a b"}};
    const struct store_put put = {.body = {.mem = data, .size = n}, .meta = meta, .meta_count = 2};
    assert_ok(s->ops->put(s, FROM, &put, NULL, &env_forever, &err), &err);
}

static void a_copy_has_everything(void **state)
{
    static const size_t lengths[] = {0, 1, 3u << 20};
    struct store *s = *state;
    char *data = env_bytes(lengths[2], 1);
    for (size_t i = 0; i < 3; i++) {
        struct store_info info, seen;
        put_with_meta(s, data, lengths[i]);
        assert_ok(s->ops->copy(s, FROM, TO, NULL, &info, &env_forever, &err), &err);
        env_assert_content(s, TO, data, lengths[i]);
        env_assert_content(s, FROM, data, lengths[i]);
        assert_ok(s->ops->head(s, TO, &seen, &env_forever, &err), &err);
        assert_int_equal(info.size, lengths[i]);
        assert_string_equal(info.etag, seen.etag);
        assert_int_equal(seen.meta_count, 2);
    }
    free(data);
}

static void what_was_there_is_replaced(void **state)
{
    struct store *s = *state;
    env_put(s, TO, "the old one, which is longer", 28);
    env_put(s, FROM, "new", 3);
    assert_ok(s->ops->copy(s, FROM, TO, NULL, NULL, &env_forever, &err), &err);
    env_assert_content(s, TO, "new", 3);
    env_put(s, FROM, "changed", 7); /* it is a copy, not a second name */
    env_assert_content(s, TO, "new", 3);
}

static void what_is_absent_cannot_be_copied(void **state)
{
    struct store *s = *state;
    env_put(s, TO, "old", 3);
    assert_false(s->ops->copy(s, FROM, TO, NULL, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_ABSENT);
    env_assert_content(s, TO, "old", 3);
}

/* Of a content that is named, or not at all. */
static void what_has_another_etag_is_not_copied(void **state)
{
    struct store *s = *state;
    struct store_info before;
    env_put(s, TO, "old", 3);
    env_put(s, FROM, "looked at", 9);
    assert_ok(s->ops->head(s, FROM, &before, &env_forever, &err), &err);
    env_put(s, FROM, "came then", 9);
    assert_false(s->ops->copy(s, FROM, TO, before.etag, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_STALE);
    if (env_kind == STORE_DIRECTORY) /* radosgw has made it: see s3_copy.c */
        env_assert_content(s, TO, "old", 3);
    assert_ok(s->ops->head(s, FROM, &before, &env_forever, &err), &err);
    assert_ok(s->ops->copy(s, FROM, TO, before.etag, NULL, &env_forever, &err), &err);
    env_assert_content(s, TO, "came then", 9);
}

static void names_that_need_escaping(void **state)
{
    static const char odd[] = "basebackups_005/a b+c%2F\303\251&=?/x";
    struct store *s = *state;
    env_put(s, odd, "odd", 3);
    assert_ok(s->ops->copy(s, odd, TO, NULL, NULL, &env_forever, &err), &err);
    env_assert_content(s, TO, "odd", 3);
    assert_ok(s->ops->copy(s, TO, "basebackups_005/\303\251 +", NULL, NULL, &env_forever, &err),
              &err);
    env_assert_content(s, "basebackups_005/\303\251 +", "odd", 3);
}

static void a_multipart_object_is_copied_whole(void **state)
{
    struct store *s = *state;
    const size_t part = 5u << 20;
    const struct store_put put = {.only_if_absent = false};
    char *data = env_bytes(part + 1000, 2);
    struct store_upload *u = s->ops->upload_begin(s, FROM, &put, &env_forever, &err);
    assert_ok(u != NULL, &err);
    const struct store_body bodies[] = {{.mem = data, .size = part},
                                        {.mem = data + part, .size = 1000}};
    for (unsigned i = 0; i < 2; i++)
        assert_ok(s->ops->upload_part(u, i + 1, &bodies[i], &env_forever, &err), &err);
    assert_ok(s->ops->upload_complete(u, NULL, &env_forever, &err), &err);
    assert_ok(s->ops->copy(s, FROM, TO, NULL, NULL, &env_forever, &err), &err);
    env_assert_content(s, TO, data, part + 1000);
    free(data);
}

static void a_cancelled_copy_leaves_the_old(void **state)
{
    struct store *s = *state;
    struct cancel cancel;
    struct call call = CALL_INIT;
    cancel_init(&cancel);
    call.cancel = &cancel;
    cancel_fire(&cancel);
    env_put(s, FROM, "new", 3);
    env_put(s, TO, "old", 3);
    assert_false(s->ops->copy(s, FROM, TO, NULL, NULL, &call, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    env_assert_content(s, TO, "old", 3);
    cancel_destroy(&cancel);
}

/* An upload that is a minute old may be another host's, at work. */
static void the_check_leaves_young_uploads_alone(void **state)
{
    struct store *s = *state;
    const struct store_put put = {.only_if_absent = false};
    struct store_upload *u = s->ops->upload_begin(s, FROM, &put, &env_forever, &err);
    assert_ok(u != NULL, &err);
    bool weak;
    assert_ok(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err), &err);
    const struct store_body body = {.mem = "late", .size = 4};
    assert_ok(s->ops->upload_part(u, 1, &body, &env_forever, &err), &err);
    assert_ok(s->ops->upload_complete(u, NULL, &env_forever, &err), &err);
    env_assert_content(s, FROM, "late", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENV_TEST(a_copy_has_everything),           ENV_TEST(what_was_there_is_replaced),
        ENV_TEST(what_is_absent_cannot_be_copied), ENV_TEST(what_has_another_etag_is_not_copied),
        ENV_TEST(names_that_need_escaping),        ENV_TEST(a_multipart_object_is_copied_whole),
        ENV_TEST(a_cancelled_copy_leaves_the_old), ENV_TEST(the_check_leaves_young_uploads_alone),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return env_run(tests, sizeof(tests) / sizeof(tests[0]));
}
