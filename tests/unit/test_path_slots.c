#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/path_slots.h"

#define COUNT 5000u

struct item {
    unsigned other;
    const char *path;
};

static char paths[COUNT][16];
static struct item items[COUNT];

static uint32_t find(const struct path_slots *t, const char *path)
{
    return *path_slots_find(t, items, path, strlen(path));
}

static int setup(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "%u/%u", i % 7, i);
        items[i] = (struct item){.path = paths[i]};
    }
    return 0;
}

static void assert_has(const struct path_slots *t, unsigned count)
{
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(find(t, paths[i]), i < count ? i : PATH_SLOTS_NONE);
}

/* One after the other, and each size that the table grows at. */
static void test_grows(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct path_slots t = PATH_SLOTS_INIT(struct item);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(path_slots_reserve(&t, items, i, &err));
        assert_true(t.mask >= 2u * i); /* half of it is free: a search comes to an end, and soon */
        uint32_t *slot = path_slots_find(&t, items, paths[i], strlen(paths[i]));
        assert_int_equal(*slot, PATH_SLOTS_NONE);
        *slot = i;
        if ((i & (i + 1)) == 0)
            assert_has(&t, i + 1);
    }
    assert_has(&t, COUNT);
    path_slots_free(&t);
    path_slots_free(&t);
}

static void test_made_anew(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct path_slots t = PATH_SLOTS_INIT(struct item);
    assert_true(path_slots_make(&t, NULL, 0, 0, &err));
    assert_int_equal(find(&t, "x"), PATH_SLOTS_NONE);
    assert_true(path_slots_make(&t, items, 1000, 1000, &err));
    assert_has(&t, 1000);
    const char *first = items[0].path; /* the items have another order now */
    items[0].path = items[999].path;
    items[999].path = first;
    assert_true(path_slots_make(&t, items, 1000, 1000, &err));
    assert_int_equal(find(&t, paths[0]), 999);
    assert_int_equal(find(&t, paths[999]), 0);
    path_slots_free(&t);
}

/* What a path begins with is another path, and need not end in a NUL. */
static void test_beginnings(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct path_slots t = PATH_SLOTS_INIT(struct item);
    items[0].path = "a/b";
    items[1].path = "a";
    items[2].path = "";
    assert_true(path_slots_make(&t, items, 3, 3, &err));
    assert_int_equal(*path_slots_find(&t, items, "a/bc", 3), 0);
    assert_int_equal(*path_slots_find(&t, items, "a/bc", 1), 1);
    assert_int_equal(*path_slots_find(&t, items, "a/bc", 0), 2);
    assert_int_equal(*path_slots_find(&t, items, "a/bc", 2), PATH_SLOTS_NONE);
    assert_int_equal(*path_slots_find(&t, items, "a/bc", 4), PATH_SLOTS_NONE);
    path_slots_free(&t);
}

/* The slot is taken by a path that begins with the one that is looked for. */
static void test_a_beginning_in_the_same_slot(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct path_slots t = PATH_SLOTS_INIT(struct item);
    char longer[16];
    unsigned n = 0;
    assert_true(path_slots_make(&t, NULL, 0, 0, &err));
    const uint32_t *slot = path_slots_find(&t, NULL, "a", 1);
    do
        (void)snprintf(longer, sizeof(longer), "a%u", n);
    while (path_slots_find(&t, NULL, longer, strlen(longer)) != slot && ++n < 10000);
    assert_true(n < 10000);
    items[0].path = longer;
    assert_true(path_slots_make(&t, items, 1, 1, &err));
    assert_int_equal(find(&t, longer), 0);
    assert_int_equal(find(&t, "a"), PATH_SLOTS_NONE);
    path_slots_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_grows, setup),
        cmocka_unit_test_setup(test_made_anew, setup),
        cmocka_unit_test_setup(test_beginnings, setup),
        cmocka_unit_test_setup(test_a_beginning_in_the_same_slot, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
