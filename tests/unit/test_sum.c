/* The checksum of what passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/sum.h"
#include "gpg_home.h"

static struct err err;

static void closes(struct sink *self)
{
    (void)self;
}

static void known_sums(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sum; /* NIST's examples */
    } known[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char sum[SUM_HEX] = "";
        struct test_sink end;
        size_t n = strlen(known[i].text), half = n / 2;
        test_sink_init(&end);
        end.base.close = closes;
        struct sink *s = sum_sink(&end.base, sum, &err);
        assert_non_null(s);
        assert_true(s->write(s, known[i].text, half, &err));
        assert_true(s->write(s, known[i].text + half, n - half, &err));
        assert_true(s->finish(s, &err));
        assert_string_equal(sum, known[i].sum);
        assert_int_equal(end.got.len, n);
        assert_true(n == 0 || memcmp(end.got.data, known[i].text, n) == 0);
        sink_close(s);
        buf_free(&end.got);
    }
}

static bool fails(struct sink *self, const void *data, size_t n, struct err *e)
{
    (void)self;
    (void)data;
    (void)n;
    return err_set(e, ERR_NO_SPACE, "full");
}

static void a_failure_behind_it_is_passed_on(void **state)
{
    (void)state;
    char sum[SUM_HEX];
    struct sink end = {.write = fails, .close = closes};
    struct sink *s = sum_sink(&end, sum, &err);
    assert_non_null(s);
    assert_false(s->write(s, "x", 1, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    sink_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sums),
        cmocka_unit_test(a_failure_behind_it_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
