#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/call.h"
#include "fs/backing.h"

/* A kernel that counts; 0 for next: it has no backing files. */
struct kernel {
    int next, open;
};

static int kernel_open(void *arg, int fd)
{
    struct kernel *k = arg;
    assert_true(fd >= 0);
    if (k->next == 0)
        return 0;
    k->open++;
    return k->next++;
}

static void kernel_close(void *arg, int id)
{
    struct kernel *k = arg;
    assert_in_range(id, 1, k->next - 1);
    k->open--;
}

static struct kernel counts;
static struct backing_kernel kernel = {.open = kernel_open, .close = kernel_close, .arg = &counts};
static struct backing backing;
static int one, other;
static struct err err;

static int anonymous_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    assert_true(fd >= 0);
    return fd;
}

static int setup(void **state)
{
    (void)state;
    counts = (struct kernel){.next = 1};
    err = (struct err)ERR_INIT;
    kernel.paused_until_ms = 0;
    backing_init(&backing);
    one = anonymous_file();
    other = anonymous_file();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(counts.open, 0);
    assert_int_equal(backing.with + backing.without, 0);
    backing_destroy(&backing);
    close(one);
    close(other);
    return 0;
}

static struct backing_use enter(int fd)
{
    struct backing_use use;
    assert_true(backing_enter(&backing, &kernel, fd, &use, &err));
    return use;
}

static void leave(struct backing_use use)
{
    backing_leave(&kernel, &use);
}

static void test_readers_share(void **state)
{
    (void)state;
    struct backing_use a = enter(one), b = enter(one);
    assert_int_equal(a.id, 1);
    assert_true(a.through);
    assert_int_equal(b.id, 1);
    assert_true(b.through);
    leave(a);
    assert_int_equal(counts.open, 1);
    leave(b);
    assert_int_equal(counts.open, 0);
    a = enter(one);
    assert_int_equal(a.id, 2);
    leave(a);
}

/* It names what the others read, as the kernel wants, but is not led there. */
static void test_other_content(void **state)
{
    (void)state;
    struct backing_use a = enter(one), b = enter(other);
    assert_int_equal(b.id, a.id);
    assert_false(b.through);
    leave(a);
    struct backing_use c = enter(one);
    assert_int_equal(c.id, b.id);
    assert_true(c.through); /* that is still the backing file */
    leave(c);
    leave(b);
    struct backing_use d = enter(other);
    assert_true(d.through);
    leave(d);
}

/* They are sent to another inode, and for a moment no reader gets there before them. */
static void test_writers(void **state)
{
    (void)state;
    int64_t before = now_ms();
    struct backing_use refused, reader = enter(one), second = enter(one);
    assert_false(backing_enter(&backing, &kernel, -1, &refused, &err));
    assert_int_equal(err.code, ERR_STALE);
    leave(refused);
    assert_true(kernel.paused_until_ms > before);
    kernel.paused_until_ms = before + 60000;
    leave(reader);
    assert_true(second.through);
    leave(second);
    reader = enter(one);
    assert_int_equal(reader.id, 0);
    leave(enter(-1));
    leave(reader);
    kernel.paused_until_ms = now_ms();
    reader = enter(one);
    assert_true(reader.through);
    leave(reader);
}

/* While it is open without a backing file, nobody gets one. */
static void test_none_beside_others(void **state)
{
    (void)state;
    struct backing_use writer = enter(-1), reader = enter(one);
    assert_int_equal(writer.id, 0);
    assert_int_equal(reader.id, 0);
    assert_false(reader.through);
    leave(writer);
    struct backing_use second = enter(one);
    assert_int_equal(second.id, 0);
    leave(reader);
    leave(second);
    second = enter(one);
    assert_true(second.through);
    leave(second);
}

static void test_kernel_without(void **state)
{
    (void)state;
    static struct backing_kernel none = {.open = NULL};
    struct backing_use use;
    counts.next = 0;
    use = enter(one);
    assert_int_equal(use.id, 0);
    assert_false(use.through);
    leave(use);
    assert_true(backing_enter(&backing, &none, one, &use, &err));
    assert_int_equal(use.id, 0);
    backing_leave(&none, &use);

    counts.next = 1; /* and one that has ended before what it had open */
    use = enter(one);
    assert_int_equal(use.id, 1);
    backing_leave(&none, &use);
    assert_int_equal(counts.open, 1);
    counts.open = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_readers_share, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none_beside_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kernel_without, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
