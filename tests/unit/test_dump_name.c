/* core/dump_name.c: paths, keys and the facts that keys carry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/dump_name.h"

static struct err err;
static char key[STORE_KEY_MAX];

static void paths_and_keys(void **state)
{
    (void)state;
    assert_true(dump_key("daily/x y.dump", key, &err));
    assert_string_equal(key, "dumps_005/daily/x y.dump.lzo");
    assert_true(dump_dir_prefix("", key, &err));
    assert_string_equal(key, "dumps_005/");
    assert_true(dump_dir_prefix("a/b", key, &err));
    assert_string_equal(key, "dumps_005/a/b/");
}

static void what_cannot_be(void **state)
{
    static const char *const bad[] = {"",     "/",    "/a",    "a/",   "a//b",  ".",      "..",
                                      "a/..", "../a", "a/./b", "a\nb", "a\x7f", "a\x01/b"};
    char longest[DUMP_NAME_MAX + 2], deep[DUMP_PATH_MAX + 3];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(dump_key(bad[i], key, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    memset(longest, 'n', sizeof(longest));
    longest[DUMP_NAME_MAX] = '\0';
    assert_true(dump_key(longest, key, &err));
    longest[DUMP_NAME_MAX] = 'n';
    longest[DUMP_NAME_MAX + 1] = '\0';
    assert_false(dump_key(longest, key, &err));
    for (size_t i = 0; i < sizeof(deep); i++)
        deep[i] = i % 2 == 0 ? 'd' : '/';
    deep[DUMP_PATH_MAX - 1] = '\0';
    assert_true(dump_key(deep, key, &err));
    deep[DUMP_PATH_MAX - 1] = '/';
    deep[DUMP_PATH_MAX + 1] = '\0';
    assert_false(dump_key(deep, key, &err));
}

static void listed_names(void **state)
{
    static const char *const bad[] = {
        "dumps_005/a/.lzo",  "dumps_005/a/x",       "dumps_005/a/...lzo",  "dumps_005/a/y/x.lzo",
        "dumps_005/b/x.lzo", "dumps_005/a/x\n.lzo", "dumps_005/a/x.lzo.gz"};
    char name[DUMP_NAME_MAX + 1], huge[400] = "dumps_005/a/";
    (void)state;
    assert_true(dump_name_of_key("dumps_005/a/", "dumps_005/a/x.lzo", false, name));
    assert_string_equal(name, "x");
    assert_true(dump_name_of_key("dumps_005/a/", "dumps_005/a/x.lzo/", true, name));
    assert_string_equal(name, "x.lzo");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(dump_name_of_key("dumps_005/a/", bad[i], false, name));
    assert_false(dump_name_of_key("dumps_005/a/", "dumps_005/a/../", true, name));
    assert_false(dump_name_of_key("dumps_005/a/", "dumps_005/a//", true, name));
    memset(huge + 12, 'x', 300);
    strcpy(huge + 312, ".lzo");
    assert_false(dump_name_of_key("dumps_005/a/", huge, false, name));
}

static void facts_there_and_back(void **state)
{
    struct dump_facts facts = {.size = INT64_MAX, .encrypted = true, .etag = "0aF-12"}, got;
    char of[STORE_KEY_MAX];
    (void)state;
    assert_true(dump_facts_key("dumps_005/a!1!e!b/x!2.lzo", &facts, key));
    assert_string_equal(key, "dumps_facts_005/a!1!e!b/x!2.lzo!9223372036854775807!e!0aF-12");
    assert_true(dump_facts_parse(key, of, &got));
    assert_string_equal(of, "dumps_005/a!1!e!b/x!2.lzo");
    assert_true(got.size == facts.size && got.encrypted);
    assert_string_equal(got.etag, facts.etag);
    facts = (struct dump_facts){.size = 0, .etag = "x"};
    assert_true(dump_facts_key("dumps_005/y.lzo", &facts, key));
    assert_true(dump_facts_parse(key, NULL, &got) && got.size == 0 && !got.encrypted);
    assert_true(dump_facts_prefix("dumps_005/y.lzo", key));
    assert_string_equal(key, "dumps_facts_005/y.lzo!");
}

static void facts_are_data(void **state)
{
    static const char *const bad[] = {"dumps_facts_005/x.lzo",
                                      "dumps_facts_005/x.lzo!1!e!",
                                      "dumps_facts_005/x.lzo!!e!a",
                                      "dumps_facts_005/x.lzo!1!z!a",
                                      "dumps_facts_005/x.lzo!-1!e!a",
                                      "dumps_facts_005/!1!e!a",
                                      "dumps_facts_005/1!e!a",
                                      "dumps_005/x.lzo!1!e!a",
                                      "dumps_facts_005/x!9223372036854775808!e!a",
                                      "dumps_facts_005/x!11111111111111111111!e!a",
                                      "dumps_facts_005/x!1!e!a/b",
                                      ""};
    struct dump_facts facts = {.etag = ""};
    char long_key[STORE_KEY_MAX] = "dumps_005/";
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(dump_facts_parse(bad[i], NULL, &facts));
    facts = (struct dump_facts){.etag = ""};
    assert_false(dump_facts_key("dumps_005/x.lzo", &facts, key));
    strcpy(facts.etag, "a/b");
    assert_false(dump_facts_key("dumps_005/x.lzo", &facts, key));
    strcpy(facts.etag, "a!b");
    assert_false(dump_facts_key("dumps_005/x.lzo", &facts, key));
    strcpy(facts.etag, "ab");
    assert_false(dump_facts_key("wal_005/x.lzo", &facts, key));
    memset(long_key + 10, 'k', STORE_KEY_MAX - 20);
    assert_false(dump_facts_key(long_key, &facts, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_and_keys), cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(listed_names),   cmocka_unit_test(facts_there_and_back),
        cmocka_unit_test(facts_are_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
