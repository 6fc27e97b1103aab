/* The tree that an index describes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/backup_tree.h"

static struct err err;
static struct backup_index *ix;

static void add(const char *path, enum member_type type, uint64_t offset)
{
    const struct member m = {.path = path, .link = "", .type = type, .offset = offset};
    assert_true(backup_index_add(ix, &m, &err));
}

static struct backup_tree *make(void)
{
    assert_true(backup_index_seal(ix, &err));
    struct backup_tree *t = backup_tree_new(ix, &err);
    assert_non_null(t);
    return t;
}

static int begin(void **state)
{
    struct index_partition p = {.number = 1};
    (void)state;
    p.map.plain_size = 1u << 20;
    ix = backup_index_new(&err);
    return backup_index_add_partition(ix, &p, &err) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    backup_index_free(ix);
    return 0;
}

/* The children of PATH, each followed by a space. */
static const char *children(const struct backup_tree *t, const char *path)
{
    static char out[4096];
    uint32_t place = backup_tree_find(t, path);
    assert_int_not_equal(place, TREE_NONE);
    out[0] = '\0';
    for (uint32_t c = backup_tree_at(t, place)->first_child; c != TREE_NONE;
         c = backup_tree_at(t, c)->next_sibling) {
        strcat(out, tree_entry_name(backup_tree_at(t, c)));
        strcat(out, " ");
    }
    return out;
}

static void children_stand_in_the_order_of_their_data(void **state)
{
    (void)state;
    add("", MEMBER_DIR, 512);
    add("z", MEMBER_FILE, 1024);
    add("base", MEMBER_DIR, 2048);
    add("base/9", MEMBER_FILE, 3072);
    add("base/1", MEMBER_FILE, 4096);
    add("a", MEMBER_FILE, 5120);
    struct backup_tree *t = make();
    assert_string_equal(children(t, ""), "z base a ");
    assert_string_equal(children(t, "base"), "9 1 ");
    assert_int_equal(backup_tree_count(t), 6);
    assert_string_equal(backup_tree_at(t, 0)->path, "");
    backup_tree_free(t);
}

/* tar -xf of single files has no members for the directories above them. */
static void directories_that_nobody_named_are_made(void **state)
{
    (void)state;
    add("pg_tblspc/16384/PG_15/5/1", MEMBER_FILE, 512);
    add("pg_tblspc/16384", MEMBER_DIR, 2048); /* named after what is in it */
    struct backup_tree *t = make();
    assert_int_equal(backup_tree_count(t), 6);
    assert_string_equal(children(t, ""), "pg_tblspc ");
    assert_string_equal(children(t, "pg_tblspc/16384/PG_15/5"), "1 ");
    const struct tree_entry *made = backup_tree_at(t, backup_tree_find(t, "pg_tblspc"));
    assert_true(tree_entry_is_dir(made));
    assert_null(made->facts);
    const struct tree_entry *named = backup_tree_at(t, backup_tree_find(t, "pg_tblspc/16384"));
    assert_true(tree_entry_is_dir(named));
    assert_non_null(named->facts);
    backup_tree_free(t);
}

static void names_are_found_whole(void **state)
{
    (void)state;
    add("base/1", MEMBER_FILE, 512);
    add("base/12", MEMBER_FILE, 1024);
    struct backup_tree *t = make();
    uint32_t base = backup_tree_find(t, "base");
    assert_int_not_equal(backup_tree_child(t, base, "1"), TREE_NONE);
    assert_int_equal(backup_tree_child(t, base, "12"), backup_tree_find(t, "base/12"));
    assert_int_equal(backup_tree_child(t, base, "123"), TREE_NONE);
    assert_int_equal(backup_tree_child(t, base, ""), TREE_NONE);
    assert_int_equal(backup_tree_find(t, "bas"), TREE_NONE);
    assert_int_equal(backup_tree_find(t, "base/"), TREE_NONE);
    assert_int_equal(backup_tree_find(t, "1"), TREE_NONE);
    backup_tree_free(t);
}

/* Of a file and of something below it one is wrong; neither may lead out of the tree. */
static void a_file_that_is_also_a_directory(void **state)
{
    (void)state;
    add("a", MEMBER_FILE, 512);
    add("a/b", MEMBER_FILE, 1024);
    assert_true(backup_index_seal(ix, &err));
    struct backup_tree *t = backup_tree_new(ix, &err);
    if (t != NULL) {
        uint32_t a = backup_tree_find(t, "a");
        assert_true(tree_entry_is_dir(backup_tree_at(t, a)) ||
                    backup_tree_child(t, a, "b") == TREE_NONE);
        backup_tree_free(t);
    }
}

static void many_names(void **state)
{
    (void)state;
    char path[64];
    for (unsigned i = 0; i < 20000; i++) {
        (void)snprintf(path, sizeof(path), "base/%u/%u", i % 7, i);
        add(path, MEMBER_FILE, 512 + i);
    }
    struct backup_tree *t = make();
    assert_int_equal(backup_tree_count(t), 20000 + 1 + 1 + 7);
    for (unsigned i = 0; i < 20000; i += 13) {
        (void)snprintf(path, sizeof(path), "base/%u/%u", i % 7, i);
        uint32_t place = backup_tree_find(t, path);
        assert_int_not_equal(place, TREE_NONE);
        assert_string_equal(backup_tree_at(t, place)->path, path);
    }
    backup_tree_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(children_stand_in_the_order_of_their_data, begin, end),
        cmocka_unit_test_setup_teardown(directories_that_nobody_named_are_made, begin, end),
        cmocka_unit_test_setup_teardown(names_are_found_whole, begin, end),
        cmocka_unit_test_setup_teardown(a_file_that_is_also_a_directory, begin, end),
        cmocka_unit_test_setup_teardown(many_names, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
