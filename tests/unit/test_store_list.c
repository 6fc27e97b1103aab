/* Listing and deleting, over every store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/store_env.h"

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

static void test_list_odd_names(void **state)
{
    struct store *s = *state;
    const char *all[ODD_COUNT + 1] = {NULL};
    const char *const nothing[] = {NULL};
    env_assert_list(s, (struct store_list){.prefix = ""}, nothing);
    put_odd_names(s);
    memcpy(all, odd_names, sizeof(odd_names));
    for (unsigned page = 0; page <= ODD_COUNT + 1; page++)
        env_assert_list(s, (struct store_list){.prefix = "", .max_keys = page}, all);
    for (size_t i = 0; i < ODD_COUNT; i++) {
        env_assert_content(s, odd_names[i], odd_names[i], strlen(odd_names[i]));
        env_assert_list(s, (struct store_list){.prefix = "", .start_after = odd_names[i]},
                        all + i + 1);
        env_assert_list(
            s, (struct store_list){.prefix = "", .start_after = odd_names[i], .max_keys = 2},
            all + i + 1);
        env_assert_list(s, (struct store_list){.prefix = odd_names[i]},
                        (const char *[]){odd_names[i], NULL});
    }
}

static void test_list_prefix(void **state)
{
    struct store *s = *state;
    put_odd_names(s);
    env_assert_list(s, (struct store_list){.prefix = "a/"},
                    ENV_LIST("a/b c/d&e<f>\"g'.lzo", "a/b/c", "a/b/d", "a/z"));
    env_assert_list(s, (struct store_list){.prefix = "a/b"},
                    ENV_LIST("a/b c/d&e<f>\"g'.lzo", "a/b/c", "a/b/d"));
    env_assert_list(s, (struct store_list){.prefix = "a/b/"}, ENV_LIST("a/b/c", "a/b/d"));
    env_assert_list(s, (struct store_list){.prefix = "a/b/", .start_after = "a/b/c"},
                    ENV_LIST("a/b/d"));
    const char *const nothing[] = {NULL};
    env_assert_list(s, (struct store_list){.prefix = "none/"}, nothing);
    env_assert_list(s, (struct store_list){.prefix = "a/z/"}, nothing);
    env_assert_list(s, (struct store_list){.prefix = "zz"}, nothing);
}

static void test_list_delimiter(void **state)
{
    struct store *s = *state;
    put_odd_names(s);
    const char *const top[] = {" leading blank", "a+b%2Bc", "a-b",  "a/",
                               "a=1?x#y",        "aa",      "dir/", "percent%41/",
                               "quote\\back",    "z/",      NULL};
    for (unsigned page = 0; page < 12; page++)
        env_assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .max_keys = page},
                        top);
    for (unsigned page = 0; page < 4; page++)
        env_assert_list(s, (struct store_list){.prefix = "a/", .delimiter = "/", .max_keys = page},
                        ENV_LIST("a/b c/", "a/b/", "a/z"));
    env_assert_list(s, (struct store_list){.prefix = "a", .delimiter = "/"},
                    ENV_LIST("a+b%2Bc", "a-b", "a/", "a=1?x#y", "aa"));
    env_assert_list(s, (struct store_list){.prefix = "a/b", .delimiter = "/"},
                    ENV_LIST("a/b c/", "a/b/"));
    /* only what is itself behind start_after, about which S3 stores differ for prefixes */
    env_assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a/"},
                    top + 4);
    env_assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a/b/c"},
                    top + 4);
    env_assert_list(s, (struct store_list){.prefix = "", .delimiter = "/", .start_after = "a-b"},
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
        assert_ok(s->ops->list(s, &all, &page, &env_forever, &err), &err);
        seen += page.count;
        more = page.more;
        free(token);
        token = more ? strdup(page.next) : NULL;
        store_page_free(&page);
    }
    free(token);
    assert_int_equal(seen, COUNT);
    list[COUNT] = "absent/key";
    assert_ok(s->ops->remove(s, list, COUNT + 1, &env_forever, &err), &err);
    env_assert_list(s, (struct store_list){.prefix = "many/"}, nothing);
    env_assert_list(s, (struct store_list){.prefix = ""}, ENV_LIST("kept"));
    assert_ok(s->ops->remove(s, list, COUNT, &env_forever, &err), &err);
    assert_ok(s->ops->remove(s, list, 0, &env_forever, &err), &err);
    env_assert_content(s, "kept", "x", 1);
}

static void test_remove_odd_names(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    const char *const nothing[] = {NULL};
    put_odd_names(s);
    assert_ok(s->ops->remove(s, odd_names, 1, &env_forever, &err), &err);
    env_assert_absent(s, odd_names[0]);
    assert_ok(s->ops->remove(s, odd_names, ODD_COUNT, &env_forever, &err), &err);
    env_assert_list(s, (struct store_list){.prefix = ""}, nothing);
}

struct seen {
    unsigned pages, keys, stop_after; /* pages; 0: never */
};

static bool see_page(void *arg, const struct store_page *page, struct err *err)
{
    struct seen *seen = arg;
    seen->keys += (unsigned)page->count;
    return ++seen->pages != seen->stop_after || err_set(err, ERR_INVALID, "enough");
}

static void test_list_each(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct seen all = {0}, some = {.stop_after = 2}, none = {0};
    struct store_list list = {.prefix = "each/", .max_keys = 2};
    for (unsigned i = 0; i < 5; i++) {
        char key[20];
        (void)snprintf(key, sizeof(key), "each/%u", i);
        env_put(s, key, "x", 1);
    }
    assert_ok(store_list_each(s, &list, see_page, &all, &env_forever, &err), &err);
    assert_int_equal(all.keys, 5);
    assert_true(all.pages >= 3);
    assert_false(store_list_each(s, &list, see_page, &some, &env_forever, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(some.keys, 4);
    list.prefix = "nothing/";
    assert_ok(store_list_each(s, &list, see_page, &none, &env_forever, &err), &err);
    assert_int_equal(none.keys, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENV_TEST(test_list_odd_names),   ENV_TEST(test_list_prefix),
        ENV_TEST(test_list_delimiter),   ENV_TEST(test_bulk_remove),
        ENV_TEST(test_remove_odd_names), ENV_TEST(test_list_each),
    };
    return env_run(tests, sizeof(tests) / sizeof(tests[0]));
}
