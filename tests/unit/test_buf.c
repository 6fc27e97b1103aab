#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "own_malloc.h"

static volatile bool no_memory; /* volatile: the compiler knows that realloc reads none */

/* What is freed with something else than zeros in it, of the memory that is watched. */
static volatile const char *watched;
static volatile size_t watched_bytes;
static volatile unsigned freed, freed_unwiped;

static void watch(const struct buf *b)
{
    watched = b->data;
    watched_bytes = b->cap;
    freed = freed_unwiped = 0;
}

#ifndef SANITIZED
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static void look(volatile const char *p)
{
    bool wiped = true;
    if (p == NULL || p != watched)
        return;
    for (size_t i = 0; i < watched_bytes; i++)
        wiped = wiped && p[i] == '\0';
    freed++;
    freed_unwiped += !wiped;
    watched = NULL;
}

void free(void *p)
{
    own_malloc_called = true;
    look(p);
    __libc_free(p);
}

void *realloc(void *p, size_t n)
{
    own_malloc_called = true;
    look(p);
    return no_memory ? NULL : __libc_realloc(p, n);
}
#endif

static void test_empty(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(10);
    assert_string_equal(buf_str(&b), "");
    assert_null(b.data);
    buf_free(&b);
    assert_true(buf_append(&b, NULL, 0));
    assert_string_equal(buf_str(&b), "");
    buf_free(&b);
    buf_free(&b);
}

static void test_append(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(1000);
    assert_true(buf_append(&b, "a\0b", 3));
    assert_true(buf_puts(&b, "cd"));
    assert_true(buf_puts(&b, ""));
    assert_true(buf_printf(&b, "-%d-%s", 42, "x"));
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.data, "a\0bcd-42-x", 11); /* with the NUL that is not counted */
    buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    assert_true(buf_puts(&b, "again")); /* usable after free */
    assert_string_equal(buf_str(&b), "again");
    buf_free(&b);
}

static void test_grows(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(100000);
    for (int i = 0; i < 100000; i++) {
        char c = (char)(i * 7);
        assert_true(buf_append(&b, &c, 1));
        assert_int_equal(b.data[b.len], 0);
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], (char)(i * 7));
    assert_false(buf_puts(&b, "x"));
    assert_int_equal(b.len, 100000);
    buf_free(&b);
}

static void test_limit(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(8);
    assert_true(buf_puts(&b, "12345678"));
    assert_true(buf_append(&b, "", 0));
    assert_false(buf_puts(&b, "9"));
    struct err err = ERR_INIT;
    assert_false(buf_refused(&b, "nine are too many", &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.text, "nine are too many");
    assert_string_equal(buf_str(&b), "12345678");
    buf_free(&b);

    assert_false(buf_puts(&b, "123456789"));
    assert_string_equal(buf_str(&b), "");
    assert_true(buf_puts(&b, "1234"));
    assert_false(buf_printf(&b, "%s", "56789"));
    assert_string_equal(buf_str(&b), "1234");
    assert_true(buf_printf(&b, "%s", "5678"));
    assert_string_equal(buf_str(&b), "12345678");
    assert_false(buf_reserve(&b, SIZE_MAX)); /* the sum must not wrap */
    assert_false(buf_reserve(&b, SIZE_MAX - 7));
    assert_false(buf_append(&b, "x", SIZE_MAX));
    assert_string_equal(buf_str(&b), "12345678");
    buf_free(&b);

    struct buf none = BUF_INIT(0);
    assert_true(buf_puts(&none, ""));
    assert_false(buf_puts(&none, "x"));
    buf_free(&none);
}

static void test_reserve(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(5000);
    assert_true(buf_reserve(&b, 5000));
    assert_int_equal(b.len, 0);
    assert_string_equal(buf_str(&b), "");
    memset(b.data, 'x', 5000); /* in place, as promised */
    const char *before = b.data;
    b.len = 4990;
    assert_true(buf_puts(&b, "0123456789"));
    assert_ptr_equal(b.data, before);
    assert_int_equal(b.len, 5000);
    assert_memory_equal(b.data + 4988, "xx0123456789", 13);
    buf_free(&b);
}

static void test_failing_allocation(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct buf b = BUF_INIT(100000);
    no_memory = true;
    bool first = buf_puts(&b, "x");
    no_memory = false;
    struct err err = ERR_INIT;
    assert_false(first);
    assert_false(buf_refused(&b, "too long", &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_string_equal(buf_str(&b), "");
    assert_true(buf_puts(&b, "kept"));
    char big[1000];
    memset(big, 'y', sizeof(big));
    no_memory = true;
    bool grown = buf_append(&b, big, sizeof(big));
    bool printed = buf_printf(&b, "%.*s", (int)sizeof(big), big);
    bool fits = buf_puts(&b, "!"); /* needs no more memory */
    no_memory = false;
    assert_false(grown);
    assert_false(printed);
    assert_true(fits);
    assert_string_equal(buf_str(&b), "kept!");
    buf_free(&b);
}

static void fill(struct buf *b)
{
    assert_true(buf_puts(b, "the session token"));
    watch(b);
    char more[200];
    memset(more, 'x', sizeof(more));
    assert_true(buf_append(b, more, sizeof(more)));
    assert_int_equal(freed, 1);
    assert_memory_equal(b->data, "the session tokenxx", 19);
    assert_int_equal(b->len, 217);
}

/* Where it was before it grew, and all that it had in it before it was emptied. */
static void test_a_secret_is_wiped(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct buf b = BUF_SECRET_INIT(1000), plain = BUF_INIT(1000);
    for (int again = 0; again < 2; again++) {
        fill(&b);
        assert_int_equal(freed_unwiped, 0);
        b.len = 0;
        assert_true(buf_puts(&b, "short"));
        watch(&b);
        buf_free(&b);
        assert_int_equal(freed, 1);
        assert_int_equal(freed_unwiped, 0);
        assert_null(b.data);
    }
    fill(&plain); /* it would be seen */
    assert_int_equal(freed_unwiped, 1);
    buf_free(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_failing_allocation),
        cmocka_unit_test(test_a_secret_is_wiped),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
