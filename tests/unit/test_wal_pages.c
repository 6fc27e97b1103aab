/* core/wal_pages.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/wal_pages.h"

#define SIZE (1u << 20)
#define PAGE 8192u
#define NAME "000000030000000000000005"
#define START (UINT64_C(5) * SIZE)

static unsigned char *segment;
static bool may_end;

static void put(size_t at, uint64_t v, size_t n, bool big)
{
    for (size_t i = 0; i < n; i++)
        segment[at + i] = (unsigned char)(v >> (8 * (big ? n - 1 - i : i)));
}

static void make(uint32_t page, bool big)
{
    memset(segment, 0x5A, SIZE);
    for (uint32_t at = 0; at < SIZE; at += page) {
        put(at, 0xD110, 2, big);
        put(at + 2, at == 0 ? 2 : 0, 2, big);
        put(at + 4, 3, 4, big);
        put(at + 8, START + at, 8, big);
    }
    put(24, 7, 8, big);
    put(32, SIZE, 4, big);
    put(36, page, 4, big);
}

static int set_up(void **state)
{
    (void)state;
    segment = malloc(SIZE);
    may_end = false;
    make(PAGE, false);
    return segment == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(segment);
    return 0;
}

/* In pieces of any size the verdict is the same. WHY "": it is sound. */
static void check_as(const char *name, size_t size, const char *why)
{
    static const size_t pieces[] = {1, 1000, 8192, 1 << 20};
    struct wal_pages *w = malloc(sizeof(*w));
    assert_non_null(w);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct err err = ERR_INIT;
        bool ok = true;
        wal_pages_init(w, name, may_end);
        for (size_t at = 0; ok && at < size; at += pieces[i])
            ok = w->base.write(&w->base, segment + at,
                               size - at < pieces[i] ? size - at : pieces[i], &err);
        ok = ok && w->base.finish(&w->base, &err);
        if (ok != (*why == '\0') || (!ok && strstr(err.text, why) == NULL))
            fail_msg("%s", ok ? "accepted" : err.text);
        assert_int_equal(err.code, ok ? ERR_NONE : ERR_CORRUPT);
        if (!ok)
            assert_non_null(strstr(err.text, name));
    }
    free(w);
}

static void check(const char *why)
{
    check_as(NAME, SIZE, why);
}

static void sound_ones(void **state)
{
    (void)state;
    check("");
    make(1024, false);
    check("");
    make(65536, false);
    check("");
    make(PAGE, true);
    check("");
    memset(segment + 5 * PAGE, 0, SIZE - 5 * PAGE); /* switched */
    check("");
    make(PAGE, false); /* as PostgreSQL before 11: headers stay */
    for (uint32_t at = 5 * PAGE; at < SIZE; at += PAGE)
        memset(segment + at + 24, 0, PAGE - 24);
    check("");
}

static void damaged_pages(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        const char *why;
    } flips[] = {{0, "has magic"},
                 {1, "page header"},
                 {8, "another segment"},
                 {4, "timeline"},
                 {3 * PAGE, "the page at offset 24576 has magic"},
                 {3 * PAGE + 12, "the page at offset 24576 is that of LSN"},
                 {SIZE - PAGE + 9, "is that of LSN"},
                 {SIZE - PAGE + 5, "is of timeline"},
                 {36, "claims pages of"}};
    for (size_t i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
        make(PAGE, false);
        segment[flips[i].at] ^= 0x04;
        check(flips[i].why);
    }
    /* of another segment, as one that was recycled and not overwritten has them */
    make(PAGE, false);
    put(9 * PAGE + 8, START - SIZE + 9 * PAGE, 8, false);
    check("the page at offset 73728 is that of LSN 0/00412000");
}

static void timelines(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 4 * PAGE; at += PAGE)
        put(at + 4, 2, 4, false); /* switched within the segment */
    check("");
    put(8 * PAGE + 4, 2, 4, false); /* and never back */
    check("the page at offset 65536 is of timeline 2");
    put(8 * PAGE + 4, 4, 4, false);
    check("the page at offset 65536 is of timeline 4");
}

static void what_follows_zeros(void **state)
{
    (void)state;
    memset(segment + 5 * PAGE, 0, PAGE);
    check("the page at offset 49152 is not empty, though the segment ended at 40960");
    make(PAGE, false);
    memset(segment + 5 * PAGE, 0, SIZE - 5 * PAGE);
    segment[SIZE - 1] = 1;
    check("is not empty");
    make(PAGE, false);
    memset(segment, 0, SIZE);
    check("page header");
}

/* A file that was used anew, and archived before it was full. */
static void wal_that_just_ends(void **state)
{
    (void)state;
    for (uint32_t at = 9 * PAGE; at < SIZE; at += PAGE) {
        put(at + 8, START - 3 * SIZE + at, 8, false);
        put(at + 4, 1, 4, false);
    }
    check("the page at offset 73728 is that of LSN 0/00212000");
    may_end = true;
    check("");
    memset(segment + 20 * PAGE, 0, PAGE);
    check("");
    put(30 * PAGE + 8, START + 30 * PAGE, 8, false);
    check("WAL ends at offset 73728, but goes on at 245760");
    make(PAGE, false);
    put(9 * PAGE + 8, START + 10 * PAGE, 8, false); /* no older segment's */
    check("the page at offset 73728 is that of LSN");
}

static void wrong_sizes(void **state)
{
    (void)state;
    check_as(NAME, SIZE - PAGE, "bytes");
    check_as(NAME, SIZE - 1, "bytes");
    check_as(NAME, 500, "too short");
    check_as(NAME, 0, "too short");
    check_as("000000030000000000000006", SIZE, "another segment");
}

/* The rest of a partial segment is whatever was in the file before. */
static void partial(void **state)
{
    (void)state;
    memset(segment + 5 * PAGE, 0x77, SIZE - 5 * PAGE);
    check_as(NAME ".partial", SIZE, "");
    check_as(NAME ".partial", SIZE - PAGE, "bytes");
    segment[8] ^= 1;
    check_as(NAME ".partial", SIZE, "another segment");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(sound_ones),         T(damaged_pages), T(timelines), T(what_follows_zeros),
        T(wal_that_just_ends), T(wrong_sizes),   T(partial)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
