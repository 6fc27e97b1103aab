#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/secret.h"
#include "own_malloc.h"

#define MARK "hunter2-the-secret"

/* Looks for the secret in everything that is freed. */
static volatile bool watching, no_memory; /* volatile: the compiler knows that malloc reads none */
static volatile int frees, leaks;

#ifndef SANITIZED
void *__libc_malloc(size_t n);
void __libc_free(void *p);

void *malloc(size_t n)
{
    own_malloc_called = true;
    return no_memory ? NULL : __libc_malloc(n);
}

void free(void *p)
{
    if (watching && p != NULL) {
        frees++;
        if (memmem(p, malloc_usable_size(p), MARK, sizeof(MARK) - 1) != NULL)
            leaks++;
    }
    __libc_free(p);
}
#endif

static char dir[256];

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/walefs-secret-XXXXXX", tmp != NULL ? tmp : "/tmp");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static const char *path_of(const char *name)
{
    static char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path_of("file"));
    return rmdir(dir);
}

static void write_file(const char *text, size_t n)
{
    FILE *f = fopen(path_of("file"), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_set(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct secret s = SECRET_INIT;
    assert_false(secret_is_set(NULL));
    assert_false(secret_is_set(&s));
    assert_true(secret_set(&s, "abcdef", 3, &err));
    assert_true(secret_is_set(&s));
    assert_int_equal(s.len, 3);
    assert_string_equal(s.value, "abc");
    assert_true(secret_set(&s, "", 0, &err));
    assert_true(secret_is_set(&s)); /* an empty one is one */
    assert_string_equal(s.value, "");
    assert_true(secret_set(&s, "xyz", 3, &err));
    assert_true(secret_set(&s, s.value + 1, 2, &err)); /* from itself */
    assert_string_equal(s.value, "yz");
    secret_free(&s);
    assert_false(secret_is_set(&s));
    assert_int_equal(s.len, 0);
    secret_free(&s);
}

static void test_read_file(void **state)
{
    (void)state;
    static const struct {
        const char *text, *value;
    } cases[] = {
        {"pass", "pass"},
        {"pass\n", "pass"},
        {"pass\r\n", "pass"},
        {"pass\nsecond line\n", "pass"},
        {" pass word \t\n", " pass word \t"}, /* may belong to it */
        {"p\r\r\n", "p\r"},
        {"\xc3\xa4\xf6\n", "\xc3\xa4\xf6"},
        {"x\n\n\n", "x"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct secret s = SECRET_INIT;
        write_file(cases[i].text, strlen(cases[i].text));
        assert_true(secret_read_file(&s, path_of("file"), "passphrase", &err));
        assert_string_equal(s.value, cases[i].value);
        assert_int_equal(s.len, strlen(cases[i].value));
        secret_free(&s);
    }
}

static void test_read_file_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {{"", 0}, {"\n", 1}, {"\r\n", 2}, {"\nsecond\n", 8}, {MARK "\0x\n", 21}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct secret s = SECRET_INIT;
        assert_true(secret_set(&s, "before", 6, &err));
        write_file(cases[i].text, cases[i].n);
        assert_false(secret_read_file(&s, path_of("file"), "gpg passphrase", &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.text, "gpg passphrase"));
        assert_non_null(strstr(err.text, dir));
        assert_null(strstr(err.text, MARK)); /* it names the file, not what is in it */
        assert_string_equal(s.value, "before");
        secret_free(&s);
    }
}

static void test_read_file_fails(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct secret s = SECRET_INIT;
    assert_false(secret_read_file(&s, path_of("none"), "secret access key", &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.text, "secret access key"));
    assert_false(secret_read_file(&s, dir, "secret access key", &err)); /* opens, does not read */
    assert_int_equal(err.sys_errno, EISDIR);
    assert_false(secret_is_set(&s));
}

static void test_file_with_much_behind_the_line(void **state)
{
    (void)state;
    size_t n = 200000;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'x', n);
    memcpy(text, "pass\n", 5);
    write_file(text, n);
    struct err err = ERR_INIT;
    struct secret s = SECRET_INIT;
    assert_true(secret_read_file(&s, path_of("file"), "passphrase", &err));
    assert_string_equal(s.value, "pass");
    secret_free(&s);
    free(text);
}

static void test_is_wiped(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct err err = ERR_INIT;
    struct secret s = SECRET_INIT;
    write_file(MARK "\n", sizeof(MARK));
    char *volatile probe = malloc(100); /* volatile: else the copy before free is dead code */
    assert_non_null(probe);
    memcpy(probe, MARK, sizeof(MARK));
    watching = true;
    free(probe);
    watching = false;
    assert_int_equal(leaks, 1); /* the watch itself works */
    frees = leaks = 0;
    watching = true;
    bool ok = secret_read_file(&s, path_of("file"), "passphrase", &err) &&
              secret_set(&s, MARK, sizeof(MARK) - 1, &err) &&
              secret_set(&s, MARK "!", sizeof(MARK), &err);
    secret_free(&s);
    watching = false;
    assert_true(ok);
    assert_true(frees >= 4); /* the file's text and three values */
    assert_int_equal(leaks, 0);
}

static void test_failing_allocation(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct err set_err = ERR_INIT, read_err = ERR_INIT;
    struct secret s = SECRET_INIT;
    assert_true(secret_set(&s, "before", 6, &set_err));
    write_file("after\n", 6);
    const char *path = path_of("file");
    no_memory = true;
    bool set = secret_set(&s, "after", 5, &set_err);
    bool read = secret_read_file(&s, path, "passphrase", &read_err);
    no_memory = false;
    assert_false(set);
    assert_false(read);
    assert_int_equal(set_err.code, ERR_NO_MEMORY);
    assert_int_equal(read_err.code, ERR_NO_MEMORY);
    assert_string_equal(s.value, "before");
    secret_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_read_file),
        cmocka_unit_test(test_read_file_refuses),
        cmocka_unit_test(test_read_file_fails),
        cmocka_unit_test(test_file_with_much_behind_the_line),
        cmocka_unit_test(test_is_wiped),
        cmocka_unit_test(test_failing_allocation),
    };
    return cmocka_run_group_tests_name("secret", tests, set_up, tear_down);
}
