/* The index of a base backup: its text form, what is refused when it is read, and its questions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_index.h"
#include "core/log.h"

#define TEXT_MAX (4u << 20)

static struct err err;

static void add_partition(struct backup_index *x, unsigned number, size_t blocks)
{
    struct index_partition p = {
        .number = number, .stored_size = 1000 + number, .encrypted = number % 2 == 1};
    (void)snprintf(p.etag, sizeof(p.etag), "\"e\t%u\"", number);
    p.map.flags = 3;
    p.map.regular = blocks > 0;
    p.map.block_size = 4096;
    p.map.plain_size = blocks > 0 ? blocks * 4096 - 7 : 8192;
    p.map.count = blocks;
    p.map.offsets = blocks > 0 ? malloc(blocks * sizeof(uint64_t)) : NULL;
    for (size_t i = 0; i < blocks; i++)
        p.map.offsets[i] = 38 + i * i + i;
    assert_true(backup_index_add_partition(x, &p, &err));
    assert_null(p.map.offsets);
}

static void add(struct backup_index *x, const char *path, enum member_type type, uint64_t offset,
                uint64_t size, const char *link)
{
    const struct member m = {.path = path,
                             .link = link,
                             .type = type,
                             .partition = (uint32_t)x->partition_count - 1,
                             .offset = offset,
                             .size = size,
                             .mode = 0640,
                             .uid = 70,
                             .gid = 4000000000u,
                             .mtime_s = -5,
                             .mtime_ns = 999999999};
    if (!backup_index_add(x, &m, &err))
        fail_msg("%s: %s", path, err.text);
}

/* Partition 2 is added before 1. */
static struct backup_index *sample(void)
{
    struct backup_index *x = backup_index_new(&err);
    add_partition(x, 2, 1500);
    add(x, "base/1/2", MEMBER_FILE, 512, 5000, "");
    add(x, "line\nfeed\\ back\x7f\xc3\xa9", MEMBER_FILE, 6144, 1, "");
    add(x, "pg_tblspc/16384", MEMBER_SYMLINK, 7000, 0, "/some where\n");
    add_partition(x, 1, 0);
    add(x, "./", MEMBER_DIR, 512, 0, "");
    add(x, "base//1/", MEMBER_DIR, 1024, 0, "");
    add(x, "base/1/1", MEMBER_FILE, 2048, 6144, "");
    add(x, "base/1/3", MEMBER_HARDLINK, 2048, 0, "./base/1/2");
    assert_true(backup_index_seal(x, &err));
    return x;
}

/* The text of X, to be freed. */
static char *text_of(const struct backup_index *x, size_t *n)
{
    char *text = malloc(TEXT_MAX);
    struct source *s = backup_index_write(x, &err);
    assert_non_null(s);
    ssize_t got = source_read_full(s, text, TEXT_MAX, &err);
    assert_true(got > 0 && (size_t)got < TEXT_MAX);
    source_close(s);
    *n = (size_t)got;
    text[*n] = '\0';
    return text;
}

/* Gives at most STEP bytes at a time. */
struct slow {
    struct source base;
    const char *text;
    size_t n, pos, step;
};

static ssize_t slow_read(struct source *self, void *buf, size_t n, struct err *e)
{
    struct slow *s = (struct slow *)self;
    (void)e;
    size_t take = s->n - s->pos < s->step ? s->n - s->pos : s->step;
    take = take < n ? take : n;
    memcpy(buf, s->text + s->pos, take);
    s->pos += take;
    return (ssize_t)take;
}

static struct backup_index *read_text(const char *text, size_t n, size_t step)
{
    struct slow s = {.base = {.read = slow_read}, .text = text, .n = n, .step = step};
    err = (struct err)ERR_INIT;
    return backup_index_read(&s.base, &err);
}

/* BODY (lines without their end) with the right checksum. */
static struct backup_index *read_lines(const char *body)
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    char *text = malloc(strlen(body) + 100), *at = text;
    SHA256((const unsigned char *)body, strlen(body), sum);
    at += sprintf(at, "%sE\t", body);
    for (size_t i = 0; i < sizeof(sum); i++)
        at += sprintf(at, "%02x", sum[i]);
    *at++ = '\n';
    struct backup_index *x = read_text(text, (size_t)(at - text), 100000);
    free(text);
    return x;
}

static void assert_same(const struct backup_index *a, const struct backup_index *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->partition_count, b->partition_count);
    for (size_t i = 0; i < a->count; i++) {
        const struct member *m = &a->members[i], *o = &b->members[i];
        assert_string_equal(m->path, o->path);
        assert_string_equal(m->link, o->link);
        assert_int_equal(m->type, o->type);
        assert_int_equal(m->partition, o->partition);
        assert_int_equal(m->offset, o->offset);
        assert_int_equal(m->size, o->size);
        assert_int_equal(m->mode, o->mode);
        assert_int_equal(m->uid, o->uid);
        assert_int_equal(m->gid, o->gid);
        assert_int_equal(m->mtime_s, o->mtime_s);
        assert_int_equal(m->mtime_ns, o->mtime_ns);
    }
    for (size_t i = 0; i < a->partition_count; i++) {
        const struct index_partition *p = &a->partitions[i], *o = &b->partitions[i];
        assert_int_equal(p->number, o->number);
        assert_string_equal(p->etag, o->etag);
        assert_int_equal(p->stored_size, o->stored_size);
        assert_int_equal(p->encrypted, o->encrypted);
        assert_int_equal(p->map.plain_size, o->map.plain_size);
        assert_int_equal(p->map.block_size, o->map.block_size);
        assert_int_equal(p->map.flags, o->map.flags);
        assert_int_equal(p->map.regular, o->map.regular);
        assert_int_equal(p->map.count, o->map.count);
        for (size_t k = 0; k < p->map.count; k++)
            assert_int_equal(p->map.offsets[k], o->map.offsets[k]);
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct backup_index *x = sample();
    size_t n;
    char *text = text_of(x, &n);
    const size_t steps[] = {1, 7, 4096, TEXT_MAX};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct backup_index *y = read_text(text, n, steps[i]);
        if (y == NULL)
            fail_msg("%s", err.text);
        assert_same(x, y);
        backup_index_free(y);
    }
    free(text);
    backup_index_free(x);
}

static void an_empty_one_is_one(void **state)
{
    (void)state;
    struct backup_index *x = backup_index_new(&err);
    assert_true(backup_index_seal(x, &err));
    size_t n;
    char *text = text_of(x, &n);
    struct backup_index *y = read_text(text, n, 3);
    assert_non_null(y);
    assert_same(x, y);
    assert_null(backup_index_find(y, ""));
    backup_index_free(y);
    free(text);
    backup_index_free(x);
}

static void sealed_in_order_of_partitions_and_offsets(void **state)
{
    (void)state;
    struct backup_index *x = sample();
    assert_int_equal(x->partitions[0].number, 1);
    assert_int_equal(x->partitions[1].number, 2);
    for (size_t i = 1; i < x->count; i++) {
        const struct member *a = &x->members[i - 1], *b = &x->members[i];
        assert_true(a->partition < b->partition ||
                    (a->partition == b->partition && a->offset <= b->offset));
    }
    assert_int_equal(backup_index_find(x, "base/1/1")->partition, 0);
    assert_int_equal(backup_index_find(x, "base/1/2")->partition, 1);
    backup_index_free(x);
}

static void two_partitions_of_one_number_are_refused(void **state)
{
    (void)state;
    struct backup_index *x = backup_index_new(&err);
    add_partition(x, 4, 0);
    add_partition(x, 4, 2);
    assert_false(backup_index_seal(x, &err));
    assert_int_equal(err.code, ERR_INVALID);
    backup_index_free(x);
}

static void members_are_found_by_path(void **state)
{
    (void)state;
    struct backup_index *x = sample();
    assert_int_equal(backup_index_find(x, "")->type, MEMBER_DIR);
    assert_int_equal(backup_index_find(x, "base/1")->type, MEMBER_DIR);
    assert_null(backup_index_find(x, "base"));
    assert_null(backup_index_find(x, "base/1/"));
    const struct member *h = backup_index_find(x, "base/1/3");
    assert_ptr_equal(backup_index_data_of(x, h), backup_index_find(x, "base/1/2"));
    assert_null(backup_index_data_of(x, backup_index_find(x, "base/1")));
    assert_null(backup_index_data_of(x, backup_index_find(x, "pg_tblspc/16384")));
    backup_index_free(x);
}

static void hard_links_end(void **state)
{
    (void)state;
    struct backup_index *x = backup_index_new(&err);
    add_partition(x, 1, 0);
    add(x, "a", MEMBER_HARDLINK, 0, 0, "b");
    add(x, "b", MEMBER_HARDLINK, 0, 0, "a");
    add(x, "c", MEMBER_HARDLINK, 0, 0, "/etc/passwd");
    add(x, "d", MEMBER_HARDLINK, 0, 0, "nowhere");
    assert_true(backup_index_seal(x, &err));
    for (const char *p = "abcd"; *p != '\0'; p++)
        assert_null(backup_index_data_of(x, backup_index_find(x, (char[]){*p, '\0'})));
    backup_index_free(x);
}

static void what_comes_later_counts(void **state)
{
    (void)state;
    struct backup_index *x = backup_index_new(&err);
    add_partition(x, 1, 0);
    for (unsigned i = 0; i < 3000; i++) { /* beyond several sizes of the hash */
        char path[32];
        (void)snprintf(path, sizeof(path), "base/%u", i % 1500);
        add(x, path, MEMBER_FILE, 512, i, "");
    }
    assert_int_equal(x->count, 1500);
    assert_true(backup_index_seal(x, &err));
    assert_int_equal(backup_index_find(x, "base/7")->size, 1507);
    backup_index_free(x);
}

static void paths_are_normalised_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path, *want;
    } cases[] = {{"", ""},
                 {".", ""},
                 {"./", ""},
                 {"a", "a"},
                 {"./a/./b//c/", "a/b/c"},
                 {"a..b/...", "a..b/..."},
                 {"/a", NULL},
                 {"..", NULL},
                 {"a/../b", NULL},
                 {"a/..", NULL}};
    char out[BACKUP_PATH_MAX], text[BACKUP_PATH_MAX + 300];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(backup_path_normalise(cases[i].path, out, &err), cases[i].want != NULL);
        if (cases[i].want != NULL)
            assert_string_equal(out, cases[i].want);
        else
            assert_int_equal(err.code, ERR_INVALID);
    }
    memset(text, 'x', sizeof(text));
    text[255] = '\0';
    assert_true(backup_path_normalise(text, out, &err));
    text[255] = 'x';
    text[256] = '\0';
    assert_false(backup_path_normalise(text, out, &err));
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        text[i] = i % 2 == 0 ? 'x' : '/';
    text[BACKUP_PATH_MAX - 1] = '\0';
    assert_true(backup_path_normalise(text, out, &err));
    text[BACKUP_PATH_MAX - 1] = '/';
    text[BACKUP_PATH_MAX + 2] = '\0';
    assert_false(backup_path_normalise(text, out, &err));
}

/* Neither a changed byte nor a lost end goes unnoticed. */
static void every_damage_is_noticed(void **state)
{
    (void)state;
    struct backup_index *x = sample();
    size_t n;
    char *text = text_of(x, &n);
    for (size_t i = 0; i < n; i++) {
        text[i] ^= 1 << i % 7;
        struct backup_index *y = read_text(text, n, 4096);
        if (y != NULL)
            fail_msg("byte %zu of %zu changed and was taken", i, n);
        if (i > strlen("walefs-index\t1")) /* the first line may say a newer version */
            assert_int_equal(err.code, ERR_CORRUPT);
        text[i] ^= 1 << i % 7;
    }
    for (size_t i = 0; i < n; i += 3) {
        assert_null(read_text(text, i, 4096));
        assert_int_equal(err.code, ERR_CORRUPT);
    }
    text[n] = '\n';
    assert_null(read_text(text, n + 1, 4096));
    assert_non_null(strstr(err.text, "follows"));
    free(text);
    backup_index_free(x);
}

/* A right checksum is no reason to believe what cannot be. */
static void the_impossible_is_refused(void **state)
{
    (void)state;
#define HEAD "walefs-index\t1\n"
#define PART "P\t1\t\"e\"\t9\t0\t8192\t4096\t3\t1\t2\n"
#define BLOCKS "B\t38\t100\n"
#define OF "\t640\t0\t0\t0\t0\t"
    static const struct {
        const char *lines, *why;
    } cases[] = {
        {"", "no index"},
        {"walefs-inde\t1\n", "no index"},
        {HEAD "\n", "unknown line"},
        {HEAD "X\t1\n", "unknown line"},
        {HEAD HEAD, "unknown line"},
        {HEAD "B\t1\n", "of no partition"},
        {HEAD "M\tf\t0\t0\t0" OF "a\t\n", "name"},
        {HEAD PART, "checksum"}, /* blocks are missing */
        {HEAD PART "B\t38\n", "checksum"},
        {HEAD PART "B\t38\t0\n", "offset"},
        {HEAD PART "B\t38\t-1\n", "offset"},
        {HEAD PART "B\t38\tx\n", "offset"},
        {HEAD PART "B\t38\t9223372036854775807\n", "offset"},
        {HEAD PART BLOCKS "B\t1\n", "offset"},
        {HEAD PART PART, "lacks blocks"},
        {HEAD PART "M\tf\t0\t0\t0" OF "a\t\n", "lacks blocks"},
        {HEAD PART BLOCKS PART BLOCKS, "two partitions"},
        {HEAD "P\t1\t\"e\"\t9\t0\t8192\t4096\t3\t1\t3\n", "number of blocks"},
        {HEAD "P\t1\t\"e\"\t9\t0\t8192\t0\t3\t1\t0\n", "number of blocks"},
        {HEAD "P\t1\t\"e\"\t9\t0\t8192\t4096\t3\t0\t2\n", "number of blocks"},
        {HEAD "P\t1\t\"e\"\t9\t2\t8192\t4096\t3\t0\t0\n", "facts"},
        {HEAD "P\t1\t\"e\"\t9\t0\t8192\t4096\t3\t0\t0\t\n", "facts"},
        {HEAD "P\t1\t\"e\n", "facts"},
        {HEAD "P\t1\t\\x0\t9\t0\t8192\t4096\t3\t0\t0\n", "facts"},
        {HEAD "P\t4294967295\t\"e\"\t9\t0\t0\t0\t3\t1\t0\n", "number"},
        {HEAD "P\tone\t\"e\"\t9\t0\t0\t0\t3\t1\t0\n", "number"},
        {HEAD PART BLOCKS "M\tf\t1\t0\t0" OF "a\t\n", "name"},
        {HEAD PART BLOCKS "M\tf\t0\t8193\t0" OF "a\t\n", "place"},
        {HEAD PART BLOCKS "M\tf\t0\t8192\t1" OF "a\t\n", "place"},
        {HEAD PART BLOCKS "M\tf\t0\t1\t9223372036854775807" OF "a\t\n", "place"},
        {HEAD PART BLOCKS "M\td\t0\t0\t1" OF "a\t\n", "place"},
        {HEAD PART BLOCKS "M\tx\t0\t0\t0" OF "a\t\n", "facts"},
        {HEAD PART BLOCKS "M\tff\t0\t0\t0" OF "a\t\n", "facts"},
        {HEAD PART BLOCKS "M\t\t0\t0\t0" OF "a\t\n", "facts"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0\t10000\t0\t0\t0\t0\ta\t\n", "facts"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0\t640\t0\t0\t0\t1000000000\ta\t\n", "facts"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0" OF "a\n", "name"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0" OF "a\\x\t\n", "name"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0" OF "a\\x00\t\n", "name"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0" OF "/etc/passwd\t\n", "not possible"},
        {HEAD PART BLOCKS "M\tf\t0\t0\t0" OF "a/../../b\t\n", "not possible"},
    };
    struct backup_index *x = read_lines(HEAD PART BLOCKS "M\tf\t0\t8000\t192" OF "a\t\n");
    if (x == NULL)
        fail_msg("%s", err.text);
    backup_index_free(x);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (read_lines(cases[i].lines) != NULL)
            fail_msg("taken: %s", cases[i].lines);
        assert_int_equal(err.code, ERR_CORRUPT);
        if (strstr(err.text, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].lines, err.text);
    }
}

static void a_newer_version_is_told_from_damage(void **state)
{
    (void)state;
    assert_null(read_lines("walefs-index\t2\nsomething else\n"));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

static void a_line_without_an_end_takes_bounded_memory(void **state)
{
    (void)state;
    char *text = malloc(TEXT_MAX);
    memset(text, 'M', TEXT_MAX);
    assert_null(read_text(text, TEXT_MAX, TEXT_MAX));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "too long"));
    free(text);
}

static ssize_t failing_read(struct source *self, void *buf, size_t n, struct err *e)
{
    (void)self;
    (void)buf;
    (void)n;
    err_set(e, ERR_UNAVAILABLE, "the store is gone");
    return -1;
}

/* Else an index would be rebuilt, and replaced, because the network failed. */
static void a_store_that_fails_is_no_damage(void **state)
{
    (void)state;
    struct source s = {.read = failing_read};
    assert_null(backup_index_read(&s, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_empty_one_is_one),
        cmocka_unit_test(sealed_in_order_of_partitions_and_offsets),
        cmocka_unit_test(two_partitions_of_one_number_are_refused),
        cmocka_unit_test(members_are_found_by_path),
        cmocka_unit_test(hard_links_end),
        cmocka_unit_test(what_comes_later_counts),
        cmocka_unit_test(paths_are_normalised_or_refused),
        cmocka_unit_test(every_damage_is_noticed),
        cmocka_unit_test(the_impossible_is_refused),
        cmocka_unit_test(a_newer_version_is_told_from_damage),
        cmocka_unit_test(a_line_without_an_end_takes_bounded_memory),
        cmocka_unit_test(a_store_that_fails_is_no_damage),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
