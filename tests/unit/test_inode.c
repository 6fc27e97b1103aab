/* fs/inode.c: names, numbers and the two kinds of references. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/inode.h"

static struct inode_table *table;
static struct node *root; /* a reference */
static _Atomic int alive; /* data of nodes that exist */
static _Atomic bool no_memory;

static void *new_data(void)
{
    if (no_memory)
        return NULL;
    alive++;
    return malloc(1);
}

static void free_data(void *data)
{
    alive--;
    free(data);
}

static const struct node_template template = {.new_data = new_data, .free_data = free_data};

static int set_up(void **state)
{
    (void)state;
    static const struct node_template top = {.ops = NULL};
    struct err err = ERR_INIT;
    alive = 0;
    no_memory = false;
    table = inode_table_new(&top, &err);
    assert_non_null(table);
    root = inode_get(table, INODE_ROOT);
    assert_non_null(root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    node_unref(table, root);
    inode_table_free(table);
    assert_int_equal(alive, 0);
    return 0;
}

static struct node *obtain(struct node *parent, const char *name)
{
    struct err err = ERR_INIT;
    struct node *n = inode_obtain(table, parent, name, &template, &err);
    assert_non_null(n);
    return n;
}

static bool exists(uint64_t id)
{
    struct node *n = inode_get(table, id);
    node_unref(table, n);
    return n != NULL;
}

static bool is_found(struct node *parent, const char *name)
{
    struct node *n = inode_find(table, parent, name);
    node_unref(table, n);
    return n != NULL;
}

static void test_root(void **state)
{
    (void)state;
    assert_int_equal(root->id, INODE_ROOT);
    assert_null(root->parent);
    node_add_lookup(table, root);
    inode_forget(table, INODE_ROOT, 100);
    assert_true(exists(INODE_ROOT));
    inode_table_free(NULL);
    node_unref(table, NULL);
}

static void test_find_or_make(void **state)
{
    (void)state;
    assert_false(is_found(root, "a"));
    struct node *a = obtain(root, "a");
    assert_ptr_equal(obtain(root, "a"), a);
    assert_ptr_equal(inode_find(table, root, "a"), a);
    assert_ptr_equal(inode_get(table, a->id), a);
    assert_int_equal(a->refs, 4);
    struct node *below = obtain(a, "a"); /* the same name in another directory */
    assert_ptr_not_equal(below, a);
    assert_int_not_equal(below->id, a->id);
    char name[INODE_NAME_MAX + 1];
    node_name(table, a, name);
    assert_string_equal(name, "a");
    node_unref(table, below);
    for (int i = 0; i < 4; i++)
        node_unref(table, a);
    assert_false(is_found(root, "a"));
    assert_int_equal(alive, 0);
}

static void test_lookups_keep_a_node(void **state)
{
    (void)state;
    struct node *a = obtain(root, "a");
    uint64_t id = a->id;
    node_add_lookup(table, a);
    node_add_lookup(table, a);
    node_unref(table, a);
    assert_true(exists(id));
    inode_forget(table, id, 1);
    assert_true(is_found(root, "a"));
    inode_forget(table, id, 1);
    assert_false(exists(id));
    inode_forget(table, id, 1); /* nothing there */
    struct node *again = obtain(root, "a");
    assert_int_not_equal(again->id, id); /* a stale number is found out */
    assert_false(exists(id));
    node_unref(table, again);
}

static void test_forgetting_too_much(void **state)
{
    (void)state;
    struct node *a = obtain(root, "a");
    node_add_lookup(table, a);
    inode_forget(table, a->id, UINT64_MAX);
    assert_int_equal(a->lookups, 0);
    assert_true(exists(a->id)); /* our reference still counts */
    node_unref(table, a);
    assert_int_equal(alive, 0);
}

static void test_children_keep_their_parents(void **state)
{
    (void)state;
    struct node *a = obtain(root, "a"), *b = obtain(a, "b"), *c = obtain(b, "c");
    uint64_t id_a = a->id;
    node_unref(table, a);
    node_unref(table, b);
    assert_int_equal(alive, 3);
    assert_true(exists(id_a));
    node_unref(table, c);
    assert_int_equal(alive, 0);
    assert_false(exists(id_a));
}

static void test_renaming(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char name[INODE_NAME_MAX + 1];
    struct node *a = obtain(root, "a"), *b = obtain(root, "b");
    assert_true(node_rename(table, a, "b", &err));
    assert_false(is_found(root, "a"));
    struct node *found = inode_find(table, root, "b");
    assert_ptr_equal(found, a);
    node_unref(table, found);
    node_name(table, b, name); /* it lost its name, but keeps its number */
    assert_string_equal(name, "");
    assert_true(exists(b->id));
    assert_true(node_rename(table, a, "b", &err));
    node_name(table, a, name);
    assert_string_equal(name, "b");
    struct node *fresh = obtain(root, "a");
    assert_ptr_not_equal(fresh, a);
    assert_true(node_rename(table, b, "c", &err)); /* a name again */
    assert_true(is_found(root, "c"));
    node_unref(table, a);
    node_unref(table, b);
    node_unref(table, fresh);
    assert_int_equal(alive, 0);
}

static void test_unlinking(void **state)
{
    (void)state;
    char name[INODE_NAME_MAX + 1];
    struct node *a = obtain(root, "a");
    node_add_lookup(table, a);
    node_unlink(table, a);
    node_unlink(table, a);
    node_name(table, a, name);
    assert_string_equal(name, "");
    assert_false(is_found(root, "a"));
    assert_true(exists(a->id));
    struct node *other = obtain(root, "a");
    assert_ptr_not_equal(other, a);
    inode_forget(table, a->id, 1);
    node_unref(table, a);
    node_unref(table, other);
    assert_int_equal(alive, 0);
}

static void test_longest_name(void **state)
{
    (void)state;
    char long_name[INODE_NAME_MAX + 1], name[INODE_NAME_MAX + 1];
    memset(long_name, 'x', INODE_NAME_MAX);
    long_name[INODE_NAME_MAX] = '\0';
    struct node *a = obtain(root, long_name);
    node_name(table, a, name);
    assert_string_equal(name, long_name);
    node_unref(table, a);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    no_memory = true;
    assert_null(inode_obtain(table, root, "a", &template, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_false(is_found(root, "a"));
    no_memory = false;
    node_unref(table, obtain(root, "a"));
}

enum { MANY = 5000 };

static void test_many(void **state)
{
    (void)state;
    static struct node *nodes[MANY];
    char name[32];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof(name), "n%d", i);
        nodes[i] = obtain(root, name);
    }
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof(name), "n%d", i);
        struct node *n = inode_find(table, root, name);
        assert_ptr_equal(n, nodes[i]);
        node_unref(table, n);
        assert_true(exists(nodes[i]->id));
    }
    for (int i = 0; i < MANY; i += 2)
        node_unref(table, nodes[i]);
    assert_int_equal(alive, MANY / 2);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof(name), "n%d", i);
        assert_int_equal(is_found(root, name), i % 2 == 1);
    }
    for (int i = 1; i < MANY; i += 2)
        node_unref(table, nodes[i]);
}

/* An unmount frees whatever the kernel has not forgotten. */
static void test_freeing_what_is_left(void **state)
{
    (void)state;
    struct node *a = obtain(root, "a"), *b = obtain(a, "b");
    node_add_lookup(table, a);
    node_add_lookup(table, b);
    node_unlink(table, b);
    assert_int_equal(alive, 2);
}

struct crowd {
    pthread_t thread;
    pthread_barrier_t *barrier;
    uint64_t id;
    unsigned seed;
};

static void *find_one(void *arg)
{
    struct crowd *c = arg;
    pthread_barrier_wait(c->barrier);
    struct node *n = obtain(root, "one");
    c->id = n->id;
    pthread_barrier_wait(c->barrier);
    node_unref(table, n);
    return NULL;
}

static void test_one_node_for_all(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct crowd c[8];
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, NULL, 8);
        for (int i = 0; i < 8; i++) {
            c[i].barrier = &barrier;
            assert_int_equal(pthread_create(&c[i].thread, NULL, find_one, &c[i]), 0);
        }
        for (int i = 0; i < 8; i++)
            pthread_join(c[i].thread, NULL);
        for (int i = 1; i < 8; i++)
            assert_int_equal(c[i].id, c[0].id);
        pthread_barrier_destroy(&barrier);
    }
}

static void *churn(void *arg)
{
    struct crowd *c = arg;
    unsigned x = c->seed;
    for (int i = 0; i < 3000; i++) {
        struct err err = ERR_INIT;
        char name[16], now[INODE_NAME_MAX + 1];
        x = x * 1103515245u + 12345u;
        (void)snprintf(name, sizeof(name), "n%u", (x >> 16) % 5);
        struct node *n = obtain(root, name);
        node_add_lookup(table, n);
        if ((x >> 8) % 7 == 0)
            node_unlink(table, n);
        if ((x >> 8) % 7 == 1)
            (void)node_rename(table, n, "n0", &err);
        node_name(table, n, now);
        uint64_t id = n->id;
        node_unref(table, n);
        inode_forget(table, id, 1);
    }
    return NULL;
}

static void test_churn(void **state)
{
    (void)state;
    struct crowd c[6];
    for (unsigned i = 0; i < 6; i++) {
        c[i].seed = i + 1;
        assert_int_equal(pthread_create(&c[i].thread, NULL, churn, &c[i]), 0);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(c[i].thread, NULL);
    assert_int_equal(alive, 0);
}

/* A directory that is moved takes what is in it along, and lets its old parent go. */
static void test_moving(void **state)
{
    struct err err = ERR_INIT;
    char path[64];
    (void)state;
    struct node *a = obtain(root, "a"), *b = obtain(root, "b"), *old = obtain(b, "new");
    struct node *dir = obtain(a, "dir"), *file = obtain(dir, "file");
    assert_true(inode_path(table, file, NULL, path, sizeof(path)));
    assert_string_equal(path, "a/dir/file");
    assert_true(inode_path(table, file, a, path, sizeof(path)));
    assert_string_equal(path, "dir/file");
    assert_true(inode_path(table, a, a, path, sizeof(path)));
    assert_string_equal(path, "");
    assert_false(inode_path(table, file, NULL, path, 10));
    assert_true(inode_path(table, file, NULL, path, 11));
    assert_true(node_is_in(table, file, dir) && node_is_below(table, file, a));
    assert_false(node_is_in(table, file, a) || node_is_below(table, a, file));
    node_unref(table, a);
    assert_int_equal(alive, 5); /* a is kept by dir */
    assert_true(node_move(table, dir, b, "new", &err));
    assert_int_equal(alive, 4);
    assert_true(inode_path(table, file, NULL, path, sizeof(path)));
    assert_string_equal(path, "b/new/file");
    assert_false(inode_path(table, old, NULL, path, sizeof(path))); /* lost its name to dir */
    assert_false(node_is_in(table, old, b));
    struct node *found = inode_find(table, b, "new"), *parent = inode_parent(table, dir);
    assert_ptr_equal(found, dir);
    assert_ptr_equal(parent, b);
    node_unref(table, found);
    node_unref(table, parent);
    node_unref(table, file);
    node_unref(table, dir);
    node_unref(table, old);
    node_unref(table, b);
    assert_int_equal(alive, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_root),
        T(test_find_or_make),
        T(test_lookups_keep_a_node),
        T(test_forgetting_too_much),
        T(test_children_keep_their_parents),
        T(test_renaming),
        T(test_unlinking),
        T(test_moving),
        T(test_longest_name),
        T(test_no_memory),
        T(test_many),
        T(test_freeing_what_is_left),
        T(test_one_node_for_all),
        T(test_churn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
