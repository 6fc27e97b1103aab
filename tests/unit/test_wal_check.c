/* core/wal_check.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_check.h"

#define MIB (1u << 20)
#define NAME "0000000200000003000000A0"

struct page {
    uint16_t magic, info;
    uint32_t tli;
    uint64_t address;
    uint64_t system_id;
    uint32_t segment_size;
};

static const struct page good = {.magic = 0xD110,
                                 .info = 0x0002,
                                 .tli = 2,
                                 .address = (UINT64_C(3) << 32) + UINT64_C(0xA0) * 16 * MIB,
                                 .system_id = 0x0123456789ABCDEFu,
                                 .segment_size = 16 * MIB};

static void put(unsigned char *p, uint64_t v, size_t n, bool big)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(v >> (8 * (big ? n - 1 - i : i)));
}

static void make(const struct page *h, bool big, unsigned char out[WAL_HEADER_BYTES])
{
    memset(out, 0xEE, WAL_HEADER_BYTES); /* what is not looked at must not matter */
    put(out, h->magic, 2, big);
    put(out + 2, h->info, 2, big);
    put(out + 4, h->tli, 4, big);
    put(out + 8, h->address, 8, big);
    put(out + 24, h->system_id, 8, big);
    put(out + 32, h->segment_size, 4, big);
}

static bool parse(const struct page *h, bool big, struct wal_header *out)
{
    unsigned char page[WAL_HEADER_BYTES];
    struct err err = ERR_INIT;
    make(h, big, page);
    bool ok = wal_header_parse(page, sizeof(page), out, &err);
    assert_int_equal(err.code, ok ? ERR_NONE : ERR_INVALID);
    return ok;
}

static void test_both_byte_orders(void **state)
{
    (void)state;
    for (int big = 0; big < 2; big++) {
        struct wal_header h;
        assert_true(parse(&good, big != 0, &h));
        assert_int_equal(h.tli, 2);
        assert_int_equal(h.page_address, good.address);
        assert_int_equal(h.system_id, good.system_id);
        assert_int_equal(h.segment_size, 16 * MIB);
    }
}

static void test_magics(void **state)
{
    (void)state;
    /* 9.0 to 18 */
    static const uint16_t known[] = {0xD064, 0xD066, 0xD071, 0xD075, 0xD07E, 0xD087,
                                     0xD093, 0xD097, 0xD098, 0xD101, 0xD106, 0xD10D,
                                     0xD110, 0xD113, 0xD116, 0xD118};
    struct wal_header h;
    struct page p = good;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        p.magic = known[i];
        assert_true(parse(&p, false, &h));
        assert_true(parse(&p, true, &h));
        assert_int_equal(h.segment_size, 16 * MIB);
    }
    static const uint16_t wrong[] = {0, 0xFFFF, 0x7F45, 0xCFFF, 0xD200, 0x5041};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        p.magic = wrong[i];
        assert_false(parse(&p, false, &h));
        assert_false(parse(&p, true, &h));
    }
}

static void test_other_pages(void **state)
{
    (void)state;
    struct wal_header h;
    struct page p = good;
    p.info = 0x0000; /* not the first page */
    assert_false(parse(&p, false, &h));
    p.info = 0x0005;
    assert_false(parse(&p, false, &h));
    p.info = 0x0007; /* continues a record */
    assert_true(parse(&p, false, &h));
    static const uint32_t sizes[] = {0, 1, 8192, MIB - 1, MIB + 1, 3 * MIB, 1u << 31, UINT32_MAX};
    p = good;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        p.segment_size = sizes[i];
        assert_false(parse(&p, false, &h));
    }
}

static void test_short_and_hostile(void **state)
{
    (void)state;
    unsigned char page[WAL_HEADER_BYTES];
    struct wal_header h;
    make(&good, false, page);
    for (size_t n = 0; n < WAL_HEADER_BYTES; n++) {
        unsigned char *exact = malloc(n + 1); /* so that a sanitizer sees what is read */
        struct err err = ERR_INIT;
        assert_non_null(exact);
        memcpy(exact, page, n);
        assert_false(wal_header_parse(exact, n, &h, &err));
        assert_int_equal(err.code, ERR_INVALID);
        free(exact);
    }
    unsigned x = 1;
    for (int i = 0; i < 100000; i++) {
        struct err err = ERR_INIT;
        for (size_t k = 0; k < sizeof(page); k++) {
            x = x * 1103515245u + 12345u;
            page[k] = (unsigned char)(x >> 16);
        }
        if (wal_header_parse(page, sizeof(page), &h, &err))
            assert_true(wal_segment_size_valid(h.segment_size));
    }
}

/* ---- does it belong under its name? ---- */

static bool belongs(const char *name, struct wal_header h, uint64_t size)
{
    struct err err = ERR_INIT;
    bool ok = wal_segment_check(name, &h, size, &err);
    assert_int_equal(err.code, ok ? ERR_NONE : ERR_INVALID);
    if (!ok)
        assert_non_null(strstr(err.text, name));
    return ok;
}

static void test_segment(void **state)
{
    (void)state;
    struct wal_header h;
    assert_true(parse(&good, false, &h));
    assert_true(belongs(NAME, h, 16 * MIB));
    assert_false(belongs(NAME, h, 16 * MIB - 1));
    assert_false(belongs(NAME, h, 16 * MIB + 1));
    assert_false(belongs(NAME, h, 32 * MIB));
    assert_false(belongs(NAME, h, 0));
    assert_false(belongs(NAME, h, (UINT64_C(1) << 32) + 16 * MIB));
    assert_false(belongs("00000002000000030000009F", h, 16 * MIB));
    assert_false(belongs("0000000200000003000000A1", h, 16 * MIB));
    assert_false(belongs("0000000200000002000000A0", h, 16 * MIB));
    /* copied at a timeline switch: an older timeline in the header is right, a younger is not */
    assert_true(belongs("0000000300000003000000A0", h, 16 * MIB));
    assert_true(belongs("FFFFFFFF00000003000000A0", h, 16 * MIB));
    assert_false(belongs("0000000100000003000000A0", h, 16 * MIB));
    h.tli = 0;
    assert_false(belongs(NAME, h, 16 * MIB));
}

static void test_numbers_that_do_not_exist(void **state)
{
    (void)state;
    struct wal_header h;
    assert_true(parse(&good, false, &h));
    /* 0x100 with 16 MiB would have the address of log 1, segment 0 */
    h.page_address = UINT64_C(1) << 32;
    assert_false(belongs("000000020000000000000100", h, 16 * MIB));
    assert_true(belongs("000000020000000100000000", h, 16 * MIB));
    h.page_address = (UINT64_C(1) << 32) - 16 * MIB;
    assert_true(belongs("0000000200000000000000FF", h, 16 * MIB));
    for (uint32_t size = MIB; size <= 1024 * MIB; size *= 2) {
        char name[64];
        uint32_t last = (uint32_t)((UINT64_C(1) << 32) / size) - 1;
        h.segment_size = size;
        h.page_address = (UINT64_C(0xFFFFFFFF) << 32) + (uint64_t)last * size;
        (void)snprintf(name, sizeof(name), "00000002FFFFFFFF%08X", last);
        assert_true(belongs(name, h, size));
        (void)snprintf(name, sizeof(name), "00000002FFFFFFFF%08X", last + 1);
        assert_false(belongs(name, h, size));
        h.page_address = 0;
        assert_true(belongs("000000020000000000000000", h, size));
    }
}

/* ---- timeline history ---- */

static bool history(const char *name, const char *text, size_t n)
{
    struct err err = ERR_INIT;
    char *exact = malloc(n + 1); /* without a NUL behind it */
    assert_non_null(exact);
    memcpy(exact, text, n);
    char *tight = realloc(exact, n == 0 ? 1 : n);
    assert_non_null(tight);
    bool ok = wal_history_check(name, tight, n, &err);
    assert_int_equal(err.code, ok ? ERR_NONE : ERR_INVALID);
    free(tight);
    return ok;
}

static bool history_of_5(const char *text)
{
    return history("00000005.history", text, strlen(text));
}

static void test_history(void **state)
{
    (void)state;
    assert_true(history_of_5("1\t0/3000000\tno recovery target specified\n"));
    assert_true(history_of_5("1\t0/3000000\tno newline at the end"));
    assert_true(history_of_5("1\t0/3000000\n"));
    assert_true(history_of_5("1\t0/3000000\n2\tABC/DEF01234\tx\n4\tFFFFFFFF/FFFFFFFF\ty\n"));
    assert_true(history_of_5("# comment\n\n  # another\n\t\n1\t0/3000000\tx\n# last\n"));
    assert_true(
        history_of_5("1\t0/3000000\tbefore 2026-11-22 00:00:00+00\r\n\r\n2\t0/4000000\tx\r\n"));
    assert_true(history_of_5("  1\t0/3000000\tindented\n"));
    assert_true(history_of_5("1\t0/3000000\tat restore point \"\xc3\xa4 # \"\n"));
}

static void test_wrong_history(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "\n",
                                        "# only a comment\n",
                                        "x\n",
                                        "1\n",
                                        "1\t0\n",
                                        "1\t0/\n",
                                        "1 /3000000\n",
                                        "one\t0/3000000\tx\n",
                                        "0\t0/3000000\tx\n",
                                        "5\t0/3000000\tits own timeline\n",
                                        "6\t0/3000000\ta younger one\n",
                                        "-1\t0/3000000\tx\n",
                                        "2\t0/3000000\tx\n1\t0/4000000\tout of order\n",
                                        "1\t0/3000000\tx\n1\t0/4000000\ttwice\n",
                                        "1\t0/3000000\tx\ngarbage\n",
                                        "1\t0/3000000\tx\n2\t0/40"
                                        "00000\tx\n3\t0/",
                                        "\x7f"
                                        "ELF"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        if (history_of_5(wrong[i]))
            fail_msg("taken for a history: %s", wrong[i]);
    assert_false(history("00000005.history", "1\t0/3000000\tx\n\0\n", 16));
    assert_false(history("00000005.history", "\0", 1));
    assert_false(history("00000001.history", "1\t0/3000000\tx\n", 14)); /* has no parent */
    assert_true(history("FFFFFFFF.history", "4294967294\t0/3000000\tx\n", 23));
}

static void test_long_lines(void **state)
{
    (void)state;
    size_t n = 200000;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'r', n);
    memcpy(text, "1\t0/3000000\t", 12);
    assert_true(history("00000005.history", text, n));
    text[n - 20] = '\n'; /* the line behind it is looked at, too */
    assert_false(history("00000005.history", text, n));
    memcpy(text + n - 19, "2\t0/4000000\tx\n#end\n", 19);
    assert_true(history("00000005.history", text, n));
    memset(text, ' ', n);
    assert_false(history("00000005.history", text, n));
    memset(text, '\n', n);
    assert_false(history("00000005.history", text, n));
    free(text);
}

static void test_error_says_where(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static const char text[] = "1\t0/3000000\tx\n\nnonsense\n";
    assert_false(wal_history_check("00000005.history", text, sizeof(text) - 1, &err));
    assert_non_null(strstr(err.text, "00000005.history"));
    assert_non_null(strstr(err.text, "line 3"));
}

/* ---- backup labels ---- */

static void test_label(void **state)
{
    (void)state;
    static const char name[] = "000000010000000000000002.00000028.backup";
    static const char text[] = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";
    struct err err = ERR_INIT;
    assert_true(wal_label_check(name, text, sizeof(text) - 1, &err));
    for (size_t n = 0; n < 20; n++)
        assert_false(wal_label_check(name, text, n, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(wal_label_check(name, text, sizeof(text), &err)); /* a NUL is no text */
    assert_false(wal_label_check(name, "\nSTART WAL LOCATION: ", 21, &err));
    assert_false(wal_label_check(name, "start wal location: 0/2", 23, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_byte_orders),
        cmocka_unit_test(test_magics),
        cmocka_unit_test(test_other_pages),
        cmocka_unit_test(test_short_and_hostile),
        cmocka_unit_test(test_segment),
        cmocka_unit_test(test_numbers_that_do_not_exist),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_wrong_history),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_error_says_where),
        cmocka_unit_test(test_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
