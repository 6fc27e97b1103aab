/* Broken reads and strange lists, against a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "tests/unit/store_env.h"

static void test_resume(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    char out[64];
    script_begin(
        &script,
        "[{'expect': 'GET /bucket/p/key', 'headers': {'range': None, 'if-match': None},  'text': "
        "'0123456789', 'cut': 4, 'etag': 'e1'}, {'headers': {'range': 'bytes=4-9', 'if-match': "
        "'\"e1\"'}, 'status': 503,  'error': 'SlowDown'}, {'headers': {'range': 'bytes=4-9', "
        "'if-match': '\"e1\"'}, 'drop': 'late', 'reset': True}, {'headers': {'range': "
        "'bytes=4-9'}, 'status': 206, 'text': '456789', 'cut': 1,  'reset': True, 'etag': 'e1', "
        "'range': '4-9/10'}, {'headers': {'range': 'bytes=5-9'}, 'status': 206, 'text': '56789', "
        "'stall': 2, 'etag': 'e1', 'range': '5-9/10'}, {'headers': {'range': 'bytes=7-9'}, "
        "'status': 206, 'text': '789', 'etag': 'e1', 'range': '7-9/10'}]");
    struct store *s = script_store(&script, 4);
    ssize_t n = script_read_all(s, out, &err);
    if (n != 10)
        fail_msg("%zd: %s", n, err.text);
    assert_memory_equal(out, "0123456789", 10);
    s->ops->free(s);
    script_end(&script);
}

static void failing_read(const char *rest, unsigned tries, enum err_code code, const char *text)
{
    struct script script;
    struct err err = ERR_INIT;
    char out[64], steps[2048];
    (void)snprintf(
        steps, sizeof(steps),
        "[{'expect': 'GET /bucket/p/key', 'text': '0123456789', 'cut': 4, 'etag': 'e1'}, %s]",
        rest);
    script_begin(&script, steps);
    struct store *s = script_store(&script, tries);
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, code, text);
    env_assert_error(&err, code, "s3://bucket/p/key");
    s->ops->free(s);
    script_end(&script);
}

static void test_resume_fails(void **state)
{
    (void)state;
    /* replaced by other content: told by If-Match, by the ETag, by the size */
    failing_read("{'status': 412, 'error': 'PreconditionFailed'}", 4, ERR_CORRUPT,
                 "replaced while it was read");
    failing_read("{'status': 206, 'text': '456789', 'reply': {'ETag': '\"e2\"', 'Content-Range': "
                 "'bytes 4-9/10'}}",
                 4, ERR_CORRUPT, "replaced while it was read");
    failing_read("{'status': 416, 'error': 'InvalidRange'}", 4, ERR_CORRUPT,
                 "replaced while it was read");
    failing_read("{'status': 206, 'text': '345678', 'etag': 'e1', 'range': '3-8/10'}", 4,
                 ERR_CORRUPT, "another range");
    failing_read("{'status': 206, 'text': '45', 'etag': 'e1', 'range': '4-5/10'}", 4, ERR_CORRUPT,
                 "another range");
    /* the whole again: bytes 0 to 3 must not come twice */
    failing_read("{'status': 200, 'text': '0123456789', 'etag': 'e1'}", 4, ERR_UNAVAILABLE,
                 "from the middle");
    failing_read("{'status': 404, 'error': 'NoSuchKey'}", 4, ERR_ABSENT, NULL);
    failing_read("{'status': 403, 'error': 'ExpiredToken'}", 4, ERR_FORBIDDEN, NULL);
    /* no progress in as many tries as allowed */
    failing_read(
        "{'status': 206, 'text': '456789', 'cut': 0, 'times': 2, 'etag': 'e1', 'range': '4-9/10'}",
        3, ERR_UNAVAILABLE, "(tried 3 times)");
    failing_read("{'status': 503, 'times': 2}", 3, ERR_UNAVAILABLE, "(tried 3 times)");
}

static void test_short_object_without_etag(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    char out[64];
    script_begin(&script,
                 "[{'text': '0123456789', 'cut': 4}, {'text': 'x', 'reply': {'length': None}}]");
    struct store *s = script_store(&script, 4);
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_UNAVAILABLE, "s3://bucket/p/key");
    assert_int_equal(script_read_all(s, out, &err), -1);
    env_assert_error(&err, ERR_UNAVAILABLE, "without a length");
    s->ops->free(s);
    script_end(&script);
}

static void test_range_ignored(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    char out[64];
    script_begin(
        &script,
        "[{'headers': {'range': 'bytes=0-2'}, 'text': '0123456789', 'etag': 'e1'}, {'headers': "
        "{'range': 'bytes=3-'}, 'text': '0123456789', 'etag': 'e1'}, {'headers': {'range': "
        "'bytes=12-'}, 'status': 416, 'error': 'InvalidRange'}, {'headers': {'range': "
        "'bytes=0-0'}, 'status': 206, 'text': '0', 'etag': 'e1', 'range': '0-0/10'}]");
    struct store *s = script_store(&script, 1);
    struct source *src = s->ops->get(s, "key", 0, 3, &info, &env_forever, &err);
    assert_non_null(src);
    assert_int_equal(info.size, 10);
    assert_int_equal(source_read_full(src, out, sizeof(out), &err), 3);
    source_close(src);
    assert_null(s->ops->get(s, "key", 3, UINT64_MAX, &info, &env_forever, &err));
    env_assert_error(&err, ERR_UNSUPPORTED, NULL);
    src = s->ops->get(s, "key", 12, UINT64_MAX, &info, &env_forever, &err);
    assert_non_null(src);
    assert_int_equal(info.size, 10);
    assert_int_equal(source_read_full(src, out, sizeof(out), &err), 0);
    source_close(src);
    s->ops->free(s);
    script_end(&script);
}

/* Shorter than the offset when it is read, longer when it is looked at: nobody waits for that to
 * end, and an end is not made up. */
static void test_object_that_changes(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
#define SHORT "{'headers': {'range': 'bytes=12-'}, 'status': 416, 'error': 'InvalidRange'}"
#define LONG "{'status': 206, 'text': '0', 'etag': 'e1', 'range': '0-0/20'}"
    script_begin(&script, "[" SHORT ", " LONG ", " SHORT ", " LONG ", " SHORT ", " LONG "]");
    struct store *s = script_store(&script, 1);
    assert_null(s->ops->get(s, "key", 12, UINT64_MAX, &info, &env_forever, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "changes all the time");
    s->ops->free(s);
    script_end(&script);
}

/* By how much the store's clock is ahead, as of its last answer. */
static void test_clock(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_info info;
    char steps[512], then[64];
    time_t t = time(NULL) + 7200;
    struct tm tm;
    (void)strftime(then, sizeof(then), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
    (void)snprintf(steps, sizeof(steps),
                   "[{'status': 404, 'error': 'NoSuchKey', 'reply': {'Date': '%s'}}, {'status': "
                   "404, 'error': 'NoSuchKey', 'reply': {'Date': 'yesterday'}}]",
                   then);
    script_begin(&script, steps);
    struct store *s = script_store(&script, 1);
    int64_t ahead = 0;
    assert_false(s->ops->clock(s, &ahead)); /* it has not answered yet */
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    assert_true(s->ops->clock(s, &ahead));
    assert_true(ahead > 7100 && ahead <= 7200);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    assert_true(s->ops->clock(s, &ahead)); /* what is no date changes nothing */
    assert_true(ahead > 7100 && ahead <= 7200);
    s->ops->free(s);
    script_end(&script);
}

static bool list_all(struct store *s, struct store_page *page, struct err *err)
{
    return s->ops->list(s, &(struct store_list){.prefix = ""}, page, &env_forever, err);
}

#define LIST_EXPECT "'expect': 'GET /bucket\\?encoding-type=url&list-type=2&prefix=p%2F'"

static void test_list_answers(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_page page;
    script_begin(
        &script,
        "[{" LIST_EXPECT ", 'text': "
        "'<ListBucketResult><Contents><Key>p/a+b%2Bc</Key></Contents><Contents><Key>p/</Key></"
        "Contents><CommonPrefixes><Prefix>p/a/</Prefix></CommonPrefixes><EncodingType>url</"
        "EncodingType></ListBucketResult>'},"
        /* a store that does not know the encoding */
        " {'text': "
        "'<ListBucketResult><Contents><Key>p/a+b%2Bc</Key><Size>7</Size><ETag>&quot;e&quot;</"
        "ETag><LastModified>2009-10-12T17:50:30.000Z</LastModified></Contents></"
        "ListBucketResult>'},"
        /* torn, empty, foreign: tried again */
        " {'text': '<ListBucketResult><Contents>'}, {'text': ''}, {'text': '<html/>'}, {'text': "
        "'<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>'}, {'text': "
        "'<ListBucketResult><Contents><Key>q/x</Key></Contents></ListBucketResult>'}]");
    struct store *s = script_store(&script, 2);
    assert_true(list_all(s, &page, &err));
    assert_int_equal(page.count, 2);
    assert_string_equal(page.entries[0].key, "a b+c");
    assert_string_equal(page.entries[1].key, "a/");
    assert_true(page.entries[1].is_prefix);
    store_page_free(&page);
    assert_true(list_all(s, &page, &err));
    assert_int_equal(page.count, 1);
    assert_string_equal(page.entries[0].key, "a+b%2Bc");
    assert_string_equal(page.entries[0].etag, "e");
    assert_int_equal(page.entries[0].size, 7);
    assert_int_equal(page.entries[0].mtime_s, 1255369830);
    store_page_free(&page);
    assert_false(list_all(s, &page, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "not a list");
    assert_int_equal(page.count, 0);
    assert_false(list_all(s, &page, &err));
    env_assert_error(&err, ERR_UNAVAILABLE, "without saying where");
    assert_false(list_all(s, &page, &err));
    env_assert_error(&err, ERR_CORRUPT, "outside the prefix");
    s->ops->free(s);
    script_end(&script);
}

static void test_list_pages(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    struct store_page page;
    script_begin(
        &script,
        "[{'expect': 'GET "
        "/bucket\\?delimiter=%2F&encoding-type=url&list-type=2&max-keys=5&prefix=p%2Fx&start-after="
        "p%2Fxa', 'text': "
        "'<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>1 "
        "/=+</NextContinuationToken><CommonPrefixes><Prefix>p/x/</Prefix></"
        "CommonPrefixes><Contents><Key>p/xb</Key></Contents></ListBucketResult>'}, {'expect': 'GET "
        "/bucket\\?continuation-token=1%20%2F%3D%2B&delimiter=%2F&.*', 'text': "
        "'<ListBucketResult><IsTruncated>true</IsTruncated><EncodingType>url</"
        "EncodingType><Contents><Key>p/xb%01</Key></Contents><NextContinuationToken>p/xb&#x01;</"
        "NextContinuationToken></ListBucketResult>'}, {'expect': 'GET "
        "/bucket\\?.*&start-after=p%2Fxb%01', 'text': '<ListBucketResult/>'}]");
    struct store *s = script_store(&script, 1);
    struct store_list list = {.prefix = "x", .delimiter = "/", .start_after = "xa", .max_keys = 5};
    assert_true(s->ops->list(s, &list, &page, &env_forever, &err));
    assert_true(page.more);
    assert_int_equal(page.count, 1); /* "x/" is not behind "xa" */
    assert_string_equal(page.entries[0].key, "xb");
    char *token = page.next;
    page.next = NULL;
    store_page_free(&page);
    list.token = token;
    assert_true(s->ops->list(s, &list, &page, &env_forever, &err));
    assert_true(page.more);
    assert_string_equal(page.entries[0].key, "xb\x01");
    free(token);
    token = page.next;
    page.next = NULL;
    store_page_free(&page);
    list.token = token;
    assert_true(s->ops->list(s, &list, &page, &env_forever, &err));
    assert_false(page.more);
    assert_null(page.next);
    assert_int_equal(page.count, 0);
    free(token);
    store_page_free(&page);
    s->ops->free(s);
    script_end(&script);
}

static bool count_entries(void *arg, const struct store_page *page, struct err *err)
{
    (void)err;
    *(size_t *)arg += page->count;
    return true;
}

#define PAGE(key, token)                                                                        \
    "{'expect': 'GET /bucket\\?.*', 'text': '<ListBucketResult><IsTruncated>true</IsTruncated>" \
    "<Contents><Key>p/" key "</Key></Contents><NextContinuationToken>" token                    \
    "</NextContinuationToken></ListBucketResult>'}"

/* A store, or a cache before it, that ignores the token: no listing without end, and no half of one
 * for a whole. */
static void test_list_that_stays(void **state)
{
    (void)state;
    struct script script;
    struct err err = ERR_INIT;
    size_t entries = 0;
    const struct store_list all = {.prefix = ""};
    script_begin(&script, "[" PAGE("a", "1") ", " PAGE("b", "2") ", " PAGE("b", "2") "]");
    struct store *s = script_store(&script, 1);
    assert_false(store_list_each(s, &all, count_entries, &entries, &env_forever, &err));
    env_assert_error(&err, ERR_CORRUPT, "the same page again");
    assert_int_equal(entries, 2);
    s->ops->free(s);
    script_end(&script);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_resume_fails),
        cmocka_unit_test(test_short_object_without_etag),
        cmocka_unit_test(test_range_ignored),
        cmocka_unit_test(test_list_answers),
        cmocka_unit_test(test_list_pages),
        cmocka_unit_test(test_list_that_stays),
        cmocka_unit_test(test_object_that_changes),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
