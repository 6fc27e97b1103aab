#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/stream.h"
#include "own_malloc.h"

static __thread volatile bool no_memory; /* volatile: the compiler knows that malloc reads none */

#ifndef SANITIZED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t m, size_t n);

void *malloc(size_t n)
{
    own_malloc_called = true;
    return no_memory ? NULL : __libc_malloc(n);
}

void *calloc(size_t m, size_t n)
{
    own_malloc_called = true;
    return no_memory ? NULL : __libc_calloc(m, n);
}
#endif

/* Yields TEXT in pieces of CHUNK, then ends or fails. */
struct text_source {
    struct source base;
    const char *text;
    size_t pos, len, chunk;
    bool fails;
    int reads, closed;
};

static ssize_t text_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct text_source *s = (struct text_source *)self;
    s->reads++;
    if (s->pos == s->len && s->fails) {
        err_set(err, ERR_UNAVAILABLE, "text source breaks");
        return -1;
    }
    if (n > s->len - s->pos)
        n = s->len - s->pos;
    if (n > s->chunk)
        n = s->chunk;
    memcpy(buf, s->text + s->pos, n);
    s->pos += n;
    return (ssize_t)n;
}

static void text_close(struct source *self)
{
    ((struct text_source *)self)->closed++;
}

static struct text_source text_of(const char *text, size_t chunk)
{
    return (struct text_source){
        .base = {.read = text_read, .close = text_close},
        .text = text,
        .len = strlen(text),
        .chunk = chunk,
    };
}

struct keep_sink {
    struct sink base;
    struct buf got;
    bool fails;
    int writes, finished, closed;
};

static bool keep_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct keep_sink *s = (struct keep_sink *)self;
    s->writes++;
    if (s->fails)
        return err_set(err, ERR_NO_SPACE, "keep sink is full");
    assert_true(n > 0);
    assert_true(buf_append(&s->got, data, n));
    return true;
}

static bool keep_finish(struct sink *self, struct err *err)
{
    (void)err;
    ((struct keep_sink *)self)->finished++;
    return true;
}

static void keep_close(struct sink *self)
{
    ((struct keep_sink *)self)->closed++;
}

static struct keep_sink new_keep(void)
{
    return (struct keep_sink){
        .base = {.write = keep_write, .finish = keep_finish, .close = keep_close},
        .got = BUF_INIT(1 << 20),
    };
}

static void assert_yields(struct source *src, const char *text)
{
    struct err err = ERR_INIT;
    char got[512];
    ssize_t n = source_read_full(src, got, sizeof(got), &err);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, strlen(text));
    assert_int_equal(src->read(src, got, 1, &err), 0); /* and stays at the end */
}

static void test_read_full(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char got[16];
    for (size_t chunk = 1; chunk < 12; chunk++) {
        struct text_source src = text_of("0123456789", chunk);
        assert_int_equal(source_read_full(&src.base, got, 4, &err), 4);
        assert_memory_equal(got, "0123", 4);
        assert_int_equal(source_read_full(&src.base, got, 16, &err), 6);
        assert_memory_equal(got, "456789", 6);
        assert_int_equal(source_read_full(&src.base, got, 16, &err), 0);
    }
    struct text_source full = text_of("0123", 2);
    assert_int_equal(source_read_full(&full.base, got, 4, &err), 4);
    assert_int_equal(full.reads, 2); /* does not wait for more than it was asked for */
    assert_int_equal(source_read_full(&full.base, got, 0, &err), 0);
    assert_int_equal(full.reads, 2);
}

/* Never the bytes before the failure as if they were the end. */
static void test_read_full_fails(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char got[16];
    struct text_source src = text_of("0123", 3);
    src.fails = true;
    assert_int_equal(source_read_full(&src.base, got, 16, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
}

static void test_copy(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    for (size_t chunk = 1; chunk < 12; chunk++) {
        struct text_source src = text_of("0123456789", chunk);
        struct keep_sink dst = new_keep();
        assert_true(stream_copy(&src.base, &dst.base, &err));
        assert_string_equal(buf_str(&dst.got), "0123456789");
        assert_int_equal(dst.finished + dst.closed + src.closed, 0);
        buf_free(&dst.got);
    }
    struct text_source empty = text_of("", 1);
    struct keep_sink dst = new_keep();
    assert_true(stream_copy(&empty.base, &dst.base, &err));
    assert_int_equal(dst.writes, 0);
}

static void test_copy_large(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t n = 300001;
    char *bytes = malloc(n);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * i >> 3);
    struct source *src = source_mem(bytes, n, &err);
    struct keep_sink dst = new_keep();
    assert_true(stream_copy(src, &dst.base, &err));
    assert_int_equal(dst.got.len, n);
    assert_memory_equal(dst.got.data, bytes, n);
    source_close(src);
    buf_free(&dst.got);
    free(bytes);
}

static void test_copy_fails(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct text_source src = text_of("0123", 2);
    struct keep_sink dst = new_keep();
    src.fails = true;
    assert_false(stream_copy(&src.base, &dst.base, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    buf_free(&dst.got);

    struct text_source good = text_of("0123", 2);
    dst.fails = true;
    err = (struct err)ERR_INIT;
    assert_false(stream_copy(&good.base, &dst.base, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(good.reads, 1);
    assert_int_equal(dst.finished, 0);
}

static void test_close_null(void **state)
{
    (void)state;
    source_close(NULL);
    sink_close(NULL);
    struct text_source src = text_of("", 1);
    struct keep_sink dst = new_keep();
    source_close(&src.base);
    sink_close(&dst.base);
    assert_int_equal(src.closed, 1);
    assert_int_equal(dst.closed, 1);
    assert_int_equal(dst.finished, 0);
}

static void test_prepend(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    for (size_t chunk = 1; chunk < 8; chunk++) {
        struct text_source rest = text_of("rest of it", chunk);
        char head[] = "head ";
        struct source *src = source_prepend(head, 5, &rest.base, &err);
        assert_non_null(src);
        memset(head, 'X', 5); /* it was copied */
        char one;
        assert_int_equal(src->read(src, &one, 1, &err), 1);
        assert_int_equal(one, 'h');
        assert_yields(src, "ead rest of it");
        source_close(src);
        assert_int_equal(rest.closed, 1);
    }
    struct text_source rest = text_of("all", 10);
    struct source *src = source_prepend("", 0, &rest.base, &err);
    assert_yields(src, "all");
    source_close(src);

    struct text_source broken = text_of("", 1);
    broken.fails = true;
    src = source_prepend("ab", 2, &broken.base, &err);
    char got[8];
    assert_int_equal(source_read_full(src, got, 2, &err), 2);
    assert_int_equal(src->read(src, got, 2, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    source_close(src);
    assert_int_equal(broken.closed, 1);
}

static void test_prepend_limit(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static char head[4097];
    struct text_source rest = text_of("", 1);
    struct source *src = source_prepend(head, 4096, &rest.base, &err);
    assert_non_null(src);
    source_close(src);
    struct text_source other = text_of("", 1);
    assert_null(source_prepend(head, 4097, &other.base, &err));
    assert_int_not_equal(err.code, ERR_NONE);
    assert_int_equal(other.closed, 1);
}

static void test_mem(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct source *src = source_mem("0123456789", 10, &err);
    char got[16];
    assert_int_equal(src->read(src, got, 3, &err), 3);
    assert_memory_equal(got, "012", 3);
    assert_yields(src, "3456789");
    source_close(src);
    src = source_mem(NULL, 0, &err);
    assert_yields(src, "");
    source_close(src);
}

static int temp_file(const char *text)
{
    const char *tmp = getenv("TMPDIR");
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/walefs-stream-XXXXXX", tmp != NULL ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void test_fd(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int fd = temp_file("0123456789");
    assert_int_equal(lseek(fd, 5, SEEK_SET), 5);
    static const struct {
        uint64_t offset, size;
        const char *text;
    } cases[] = {{0, 10, "0123456789"}, {0, 0, ""}, {3, 4, "3456"}, {9, 1, "9"}, {10, 0, ""}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct source *src = source_fd(fd, cases[i].offset, cases[i].size, &err);
        assert_non_null(src);
        assert_yields(src, cases[i].text);
        source_close(src);
    }
    /* the file's own position is left alone, and the file open */
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 5);
    assert_int_equal(close(fd), 0);
}

static void test_fd_fails(void **state)
{
    (void)state;
    int fd = temp_file("0123456789");
    static const struct {
        uint64_t offset, size;
    } short_ones[] = {{0, 11}, {8, 3}, {10, 1}, {1000, 1}};
    char got[32];
    for (size_t i = 0; i < sizeof(short_ones) / sizeof(short_ones[0]); i++) {
        struct err err = ERR_INIT;
        struct source *src = source_fd(fd, short_ones[i].offset, short_ones[i].size, &err);
        assert_int_equal(source_read_full(src, got, sizeof(got), &err), -1);
        assert_int_equal(err.code, ERR_LOCAL);
        assert_int_equal(src->read(src, got, 1, &err), -1); /* again */
        source_close(src);
    }
    assert_int_equal(close(fd), 0);
    struct err err = ERR_INIT;
    struct source *src = source_fd(fd, 0, 4, &err);
    assert_int_equal(src->read(src, got, 4, &err), -1);
    assert_int_equal(err.code, ERR_LOCAL);
    assert_int_equal(err.sys_errno, EBADF);
    source_close(src);
}

static void test_failing_allocation(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct err err[4] = {ERR_INIT, ERR_INIT, ERR_INIT, ERR_INIT};
    struct text_source rest = text_of("x", 1), src = text_of("x", 1);
    struct keep_sink dst = new_keep();
    no_memory = true;
    const struct source *prepended = source_prepend("a", 1, &rest.base, &err[0]);
    const struct source *mem = source_mem("a", 1, &err[1]);
    const struct source *fd = source_fd(0, 0, 1, &err[2]);
    bool copied = stream_copy(&src.base, &dst.base, &err[3]);
    no_memory = false;
    assert_null(prepended);
    assert_int_equal(rest.closed, 1);
    assert_null(mem);
    assert_null(fd);
    assert_false(copied);
    assert_int_equal(src.reads + dst.writes, 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(err[i].code, ERR_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_full),  cmocka_unit_test(test_read_full_fails),
        cmocka_unit_test(test_copy),       cmocka_unit_test(test_copy_large),
        cmocka_unit_test(test_copy_fails), cmocka_unit_test(test_close_null),
        cmocka_unit_test(test_prepend),    cmocka_unit_test(test_prepend_limit),
        cmocka_unit_test(test_mem),        cmocka_unit_test(test_fd),
        cmocka_unit_test(test_fd_fails),   cmocka_unit_test(test_failing_allocation),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
