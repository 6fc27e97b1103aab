/* core/lzop_encode.c and core/lzop_decode.c, against the real lzop tool and against everything
 * that a store or a disk may have done to a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <lzo/lzo1x.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/lzop.h"
#include "core/lzop_format.h"
#include "own_malloc.h"

#define FIXTURES "tests/fixtures/lzop/"
#define MAX_BYTES ((size_t)128 << 20)
#define WHOLE SIZE_MAX

static char dir[256];
static uint64_t rng_state;

/* ---- allocations: failing the Nth, and how many bytes are held ---- */

/* So many allocations of this thread from now on succeed; -1: all. Volatile, because the compiler
 * knows that malloc reads no variable. */
static __thread volatile long fail_in = -1;

#ifndef SANITIZED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t m, size_t n);
void *__libc_realloc(void *p, size_t n);

static bool alloc_fails(void)
{
    own_malloc_called = true;
    if (fail_in < 0)
        return false;
    if (fail_in-- > 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return alloc_fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t m, size_t n)
{
    return alloc_fails() ? NULL : __libc_calloc(m, n);
}

void *realloc(void *p, size_t n)
{
    return alloc_fails() ? NULL : __libc_realloc(p, n);
}
#endif

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t bytes_held(void)
{
    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    struct mallinfo2 mi = mallinfo2();
    return mi.uordblks + mi.hblkhd;
}

/* ---- data ---- */

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static size_t rng_below(size_t n)
{
    return (size_t)(rng() % n);
}

enum kind { KIND_ZERO, KIND_RANDOM, KIND_WAL, KIND_COUNT };

/* Pages of 8 KiB with a header, records that resemble each other, some noise and an unused end. */
static void fill_wal_like(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t page = i / 8192, at = i % 8192;
        if (at < 24)
            p[i] = (unsigned char)(at < 8 ? at * 17 : page >> (at % 4 * 8));
        else if (at > 7000)
            p[i] = 0;
        else
            p[i] = (unsigned char)(at % 96 < 16 ? rng() : at % 96 + page % 5);
    }
}

static struct buf make_data(enum kind kind, size_t n)
{
    struct buf b = BUF_INIT(MAX_BYTES);
    assert_true(buf_reserve(&b, n));
    unsigned char *p = (unsigned char *)b.data;
    memset(p, 0, n);
    if (kind == KIND_RANDOM)
        for (size_t i = 0; i < n; i++)
            p[i] = (unsigned char)rng();
    if (kind == KIND_WAL)
        fill_wal_like(p, n);
    b.len = n;
    return b;
}

static void assert_same(const struct buf *a, const struct buf *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len > 0)
        assert_int_equal(memcmp(a->data, b->data, a->len), 0);
}

static struct buf copy_of(const struct buf *b)
{
    struct buf copy = BUF_INIT(MAX_BYTES);
    assert_true(buf_append(&copy, b->data, b->len));
    return copy;
}

/* ---- files and the tool ---- */

static const char *path_of(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const struct buf *b)
{
    FILE *f = fopen(path_of(name), "wb");
    assert_non_null(f);
    if (b->len > 0)
        assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
}

static struct buf read_path(const char *path)
{
    struct buf b = BUF_INIT(MAX_BYTES);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    assert_true(buf_reserve(&b, (size_t)st.st_size));
    b.len = fread(b.data, 1, (size_t)st.st_size, f);
    assert_int_equal(b.len, st.st_size);
    (void)fclose(f);
    return b;
}

static struct buf read_file(const char *name)
{
    return read_path(path_of(name));
}

/* Runs a shell command in the test's directory; its exit status. */
static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), "cd '%s' && ", dir);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void run(const char *command)
{
    int rc = sh("%s", command);
    if (rc != 0)
        fail_msg("%s: exit status %d", command, rc);
}

/* ---- streams for tests ---- */

struct test_sink {
    struct sink base;
    struct buf got;
    size_t fail_after; /* bytes taken before write fails */
    bool fail_finish;
    int finished, closed, calls_after_failure;
    bool failed;
};

static bool test_sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct test_sink *s = (struct test_sink *)self;
    if (s->failed)
        s->calls_after_failure++;
    if (n > s->fail_after || s->got.len > s->fail_after - n) {
        s->failed = true;
        return err_set(err, ERR_NO_SPACE, "test sink is full");
    }
    assert_true(buf_append(&s->got, data, n));
    return true;
}

static bool test_sink_finish(struct sink *self, struct err *err)
{
    struct test_sink *s = (struct test_sink *)self;
    s->finished++;
    return !s->fail_finish || err_set(err, ERR_LOCAL, "test sink cannot finish");
}

static void test_sink_close(struct sink *self)
{
    ((struct test_sink *)self)->closed++;
}

static struct test_sink new_sink(void)
{
    return (struct test_sink){
        .base = {.write = test_sink_write, .finish = test_sink_finish, .close = test_sink_close},
        .got = BUF_INIT(MAX_BYTES),
        .fail_after = SIZE_MAX,
    };
}

struct test_source {
    struct source base;
    const struct buf *data;
    size_t pos, chunk;
    size_t fail_at; /* reading at or behind this fails */
    int closed, reads_after_failure;
    bool failed;
};

static ssize_t test_source_read(struct source *self, void *data, size_t n, struct err *err)
{
    struct test_source *s = (struct test_source *)self;
    assert_true(n > 0);
    if (s->failed)
        s->reads_after_failure++;
    if (s->pos >= s->fail_at) {
        s->failed = true;
        err_set(err, ERR_UNAVAILABLE, "test source breaks");
        return -1;
    }
    size_t left = s->data->len - s->pos;
    if (n > left)
        n = left;
    if (n > s->chunk)
        n = s->chunk;
    if (n > 0)
        memcpy(data, s->data->data + s->pos, n);
    s->pos += n;
    return (ssize_t)n;
}

static void test_source_close(struct source *self)
{
    ((struct test_source *)self)->closed++;
}

static struct test_source new_source(const struct buf *data, size_t chunk)
{
    return (struct test_source){
        .base = {.read = test_source_read, .close = test_source_close},
        .data = data,
        .chunk = chunk,
        .fail_at = SIZE_MAX,
    };
}

/* ---- coding ---- */

/* Encodes DATA, reading the stream in pieces of READ_SIZE. */
static struct buf encode(const struct buf *data, size_t source_chunk, size_t read_size)
{
    struct err err = ERR_INIT;
    struct test_source src = new_source(data, source_chunk);
    struct source *enc = lzop_encoder(&src.base, NULL, &err);
    assert_non_null(enc);
    struct buf out = BUF_INIT(MAX_BYTES);
    for (;;) {
        assert_true(buf_reserve(&out, read_size));
        ssize_t n = enc->read(enc, out.data + out.len, read_size, &err);
        assert_true(n >= 0);
        if (n == 0)
            break;
        out.len += (size_t)n;
    }
    char more;
    assert_int_equal(enc->read(enc, &more, 1, &err), 0);
    assert_int_equal(src.closed, 0);
    source_close(enc);
    assert_int_equal(src.closed, 1);
    return out;
}

struct outcome {
    bool ok;
    struct err err;
    struct buf got;
};

/* CHUNK 0: pieces of random sizes. */
static struct outcome decode(const void *data, size_t n, size_t chunk)
{
    struct outcome o = {.err = ERR_INIT};
    struct test_sink sink = new_sink();
    struct sink *dec = lzop_decoder(&sink.base, NULL, &o.err);
    assert_non_null(dec);
    o.ok = true;
    for (size_t pos = 0; o.ok && pos < n;) {
        size_t piece = chunk == 0 ? 1 + rng_below(3 * LZOP_BLOCK_SIZE / 2) : chunk;
        if (piece > n - pos)
            piece = n - pos;
        /* a copy of its own, so that a read beyond it is seen by the sanitizers */
        char *exact = malloc(piece);
        assert_non_null(exact);
        memcpy(exact, (const char *)data + pos, piece);
        o.ok = dec->write(dec, exact, piece, &o.err);
        free(exact);
        pos += piece;
    }
    o.ok = o.ok && dec->finish(dec, &o.err);
    assert_int_equal(sink.finished, o.ok ? 1 : 0);
    assert_int_equal(sink.closed, 0);
    sink_close(dec);
    assert_int_equal(sink.closed, 1);
    assert_true(o.ok == (o.err.code == ERR_NONE));
    o.got = sink.got;
    return o;
}

static void assert_decodes(const struct buf *coded, size_t chunk, const struct buf *plain)
{
    struct outcome o = decode(coded->data, coded->len, chunk);
    if (!o.ok)
        fail_msg("%s", o.err.text);
    assert_same(&o.got, plain);
    buf_free(&o.got);
}

static void assert_refused(const void *data, size_t n, size_t chunk, enum err_code code)
{
    struct outcome o = decode(data, n, chunk);
    if (o.ok || o.err.code != code)
        fail_msg("%zu bytes gave %s (%s) instead of %s", n, err_name(o.err.code), o.err.text,
                 err_name(code));
    assert_true(strlen(o.err.text) > 20);
    buf_free(&o.got);
}

static const size_t sizes[] = {0,      1, 255, 8192, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1,
                               5 << 20};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

/* ---- against the tool ---- */

#define STDIN_HEADER 38 /* magic and header of a stream without a name */

static void test_encoder_gives_the_tools_bytes(void **state)
{
    (void)state;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            struct buf data = make_data((enum kind)kind, sizes[i]);
            write_file("data", &data);
            run("cat data | lzop -3 > tool.lzo");
            struct buf tool = read_file("tool.lzo");
            struct buf ours = encode(&data, WHOLE, 65536);
            assert_int_equal(ours.len, tool.len);
            /* the header but for mode, times and checksum; then everything */
            assert_memory_equal(ours.data, tool.data, 21);
            assert_memory_equal(ours.data + STDIN_HEADER, tool.data + STDIN_HEADER,
                                ours.len - STDIN_HEADER);
            buf_free(&ours);
            buf_free(&tool);
            buf_free(&data);
        }
    }
}

static void test_tool_reads_ours(void **state)
{
    (void)state;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            struct buf data = make_data((enum kind)kind, sizes[i]);
            struct buf ours = encode(&data, WHOLE, 65536);
            write_file("data", &data);
            write_file("ours.lzo", &ours);
            run("lzop -qt ours.lzo && lzop -dc < ours.lzo | cmp - data && "
                "lzop -d -o out ours.lzo && cmp out data && rm -f out");
            buf_free(&ours);
            buf_free(&data);
        }
    }
}

static void test_tools_output_is_read(void **state)
{
    (void)state;
    static const char *const options[] = {
        "-1", "-3", "-9", "--crc32", "-C", "-F", "-F --crc32", "-C -9 --crc32", "-P", "-n",
    };
    for (size_t o = 0; o < sizeof(options) / sizeof(options[0]); o++) {
        for (size_t i = 0; i < SIZE_COUNT; i++) {
            if (sizes[i] > 300000 && o > 3)
                continue; /* time */
            struct buf data = make_data(i % 3 == 0 ? KIND_RANDOM : KIND_WAL, sizes[i]);
            write_file("data", &data);
            assert_int_equal(sh("lzop %s -c data > file.lzo && lzop %s < data > stdin.lzo",
                                options[o], options[o]),
                             0);
            struct buf named = read_file("file.lzo"), piped = read_file("stdin.lzo");
            assert_decodes(&named, WHOLE, &data);
            assert_decodes(&named, 0, &data);
            assert_decodes(&piped, WHOLE, &data);
            assert_decodes(&piped, 0, &data);
            if (sizes[i] <= 8192)
                assert_decodes(&named, 1, &data);
            buf_free(&named);
            buf_free(&piped);
            buf_free(&data);
        }
    }
}

static void test_tools_members_are_joined(void **state)
{
    (void)state;
    struct buf a = make_data(KIND_WAL, 300000), b = make_data(KIND_RANDOM, 10);
    write_file("a", &a);
    write_file("b", &b);
    run("lzop -c a b > ab.lzo && cat a b > ab");
    struct buf coded = read_file("ab.lzo"), plain = read_file("ab");
    assert_decodes(&coded, WHOLE, &plain);
    assert_decodes(&coded, 1, &plain);
    buf_free(&a);
    buf_free(&b);
    buf_free(&coded);
    buf_free(&plain);
}

static void test_tools_filter_is_refused(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_WAL, 5000);
    write_file("data", &data);
    run("lzop --filter=1 -c data > filter.lzo");
    struct buf coded = read_file("filter.lzo");
    assert_refused(coded.data, coded.len, WHOLE, ERR_UNSUPPORTED);
    buf_free(&coded);
    buf_free(&data);
}

static void test_fixtures(void **state)
{
    (void)state;
    static const char *const names[] = {"default.lzo", "best-crc32.lzo", "fast-stdin-nosum.lzo",
                                        "ours.lzo"};
    struct buf text = read_path(FIXTURES "text");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), FIXTURES "%s", names[i]);
        struct buf coded = read_path(path);
        assert_decodes(&coded, WHOLE, &text);
        assert_decodes(&coded, 1, &text);
        buf_free(&coded);
    }
    /* equal content gives equal bytes, today and later */
    struct buf ours = encode(&text, WHOLE, 4096), before = read_path(FIXTURES "ours.lzo");
    assert_same(&ours, &before);
    buf_free(&ours);
    buf_free(&before);
    buf_free(&text);
}

/* ---- the encoder ---- */

static void test_magic(void **state)
{
    (void)state;
    assert_true(lzop_is_magic("\x89LZO\0\r\n\x1a\n", 9));
    assert_true(lzop_is_magic("\x89LZO\0\r\n\x1a\nmore", 13));
    assert_false(lzop_is_magic("\x89LZO\0\r\n\x1a\n", 8));
    assert_false(lzop_is_magic("\x89LZO\0\n\n\x1a\n", 9));
}

static void test_encoder_piece_sizes_do_not_matter(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_WAL, 2 * LZOP_BLOCK_SIZE + 777);
    memset(data.data, 0, 100); /* and one block that shrinks a lot */
    struct buf whole = encode(&data, WHOLE, 1 << 20);
    static const size_t pieces[] = {1, 7, 4096, LZOP_BLOCK_SIZE};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct buf coded = encode(&data, pieces[i], pieces[i]);
        assert_same(&coded, &whole);
        buf_free(&coded);
    }
    assert_decodes(&whole, 0, &data);
    buf_free(&whole);
    buf_free(&data);
}

static void test_encoder_failing_source(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_RANDOM, 3 * LZOP_BLOCK_SIZE);
    static const size_t fail_at[] = {0, 1, LZOP_BLOCK_SIZE, LZOP_BLOCK_SIZE + 1,
                                     3 * LZOP_BLOCK_SIZE};
    for (size_t i = 0; i < sizeof(fail_at) / sizeof(fail_at[0]); i++) {
        struct err err = ERR_INIT;
        struct test_source src = new_source(&data, 10000);
        src.fail_at = fail_at[i];
        struct source *enc = lzop_encoder(&src.base, NULL, &err);
        assert_non_null(enc);
        char piece[4096];
        ssize_t n;
        while ((n = enc->read(enc, piece, sizeof(piece), &err)) > 0) {
        }
        assert_int_equal(n, -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        err = (struct err)ERR_INIT;
        assert_int_equal(enc->read(enc, piece, sizeof(piece), &err), -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_int_equal(src.reads_after_failure, 0);
        source_close(enc);
        assert_int_equal(src.closed, 1);
    }
    buf_free(&data);
}

/* The header must not wait for the first block: gpg is started on it. */
static void test_encoder_header_needs_no_plain_bytes(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_ZERO, 10);
    struct err err = ERR_INIT;
    struct test_source src = new_source(&data, WHOLE);
    struct source *enc = lzop_encoder(&src.base, NULL, &err);
    assert_non_null(enc);
    char piece[4096];
    assert_int_equal(enc->read(enc, piece, sizeof(piece), &err), STDIN_HEADER);
    assert_int_equal(src.pos, 0);
    source_close(enc);
    buf_free(&data);
}

/* ---- hand-made streams ---- */

struct header {
    const char *name;
    uint32_t version, needed, method, level, flags, filter, mtime_high;
    uint32_t extra_len; /* with LZOP_F_H_EXTRA_FIELD */
    uint32_t bad_sum, bad_extra_sum;
};

static struct header plain_header(void)
{
    return (struct header){
        .name = "",
        .version = 0x1040,
        .needed = 0x0940,
        .method = 1,
        .level = 5,
        .flags = LZOP_F_OS_UNIX | LZOP_F_ADLER32_D,
    };
}

static void put(struct buf *b, uint32_t v, size_t bytes)
{
    for (size_t i = bytes; i-- > 0;) {
        unsigned char c = (unsigned char)(v >> (8 * i));
        assert_true(buf_append(b, &c, 1));
    }
}

static uint32_t sum_of(const void *data, size_t n, bool crc)
{
    return crc ? lzo_crc32(0, data, n) : lzo_adler32(1, data, n);
}

static void put_header(struct buf *b, const struct header *h)
{
    bool is_long = h->version >= 0x0940, crc = (h->flags & LZOP_F_H_CRC32) != 0;
    assert_true(buf_append(b, LZOP_MAGIC_BYTES, LZOP_MAGIC_SIZE));
    size_t start = b->len;
    put(b, h->version, 2);
    put(b, 0x20a0, 2);
    if (is_long)
        put(b, h->needed, 2);
    put(b, h->method, 1);
    if (is_long)
        put(b, h->level, 1);
    put(b, h->flags, 4);
    if ((h->flags & LZOP_F_H_FILTER) != 0)
        put(b, h->filter, 4);
    put(b, 0100644, 4);
    put(b, 0x5e0d5cc5, 4);
    if (is_long)
        put(b, h->mtime_high, 4);
    put(b, (uint32_t)strlen(h->name), 1);
    assert_true(buf_puts(b, h->name));
    put(b, sum_of(b->data + start, b->len - start, crc) ^ h->bad_sum, 4);
    if ((h->flags & LZOP_F_H_EXTRA_FIELD) == 0)
        return;
    start = b->len;
    put(b, h->extra_len, 4);
    for (uint32_t i = 0; i < h->extra_len; i++)
        put(b, i * 31, 1);
    put(b, sum_of(b->data + start, b->len - start, crc) ^ h->bad_extra_sum, 4);
}

enum bad_block { BLOCK_GOOD, BAD_PLAIN_SUM, BAD_CODED_SUM, BAD_CODED_BYTE, BAD_PLAIN_LEN };

/* One block of DATA with the checksums that FLAGS ask for. */
static void put_block(struct buf *b, uint32_t flags, const struct buf *data, enum bad_block bad)
{
    size_t room = data->len + data->len / 16 + 67;
    unsigned char *coded = malloc(room);
    void *work = malloc(LZO1X_1_MEM_COMPRESS);
    assert_true(coded != NULL && work != NULL);
    lzo_uint n = room;
    const unsigned char *plain = (const unsigned char *)data->data;
    assert_int_equal(lzo1x_1_compress(plain, data->len, coded, &n, work), LZO_E_OK);
    bool stored = n >= data->len;
    if (stored) {
        memcpy(coded, plain, data->len);
        n = data->len;
    }
    uint32_t plain_flip = bad == BAD_PLAIN_SUM ? 0x80 : 0;
    uint32_t coded_flip = bad == BAD_CODED_SUM ? 0x80 : 0;
    put(b, (uint32_t)data->len + (bad == BAD_PLAIN_LEN ? 1 : 0), 4);
    put(b, (uint32_t)n, 4);
    if ((flags & LZOP_F_ADLER32_D) != 0)
        put(b, lzo_adler32(1, plain, data->len) ^ plain_flip, 4);
    if ((flags & LZOP_F_CRC32_D) != 0)
        put(b, lzo_crc32(0, plain, data->len) ^ plain_flip, 4);
    if ((flags & LZOP_F_ADLER32_C) != 0 && !stored)
        put(b, lzo_adler32(1, coded, n) ^ coded_flip, 4);
    if ((flags & LZOP_F_CRC32_C) != 0 && !stored)
        put(b, lzo_crc32(0, coded, n) ^ coded_flip, 4);
    if (bad == BAD_CODED_BYTE)
        coded[n / 2] ^= 0x20;
    assert_true(buf_append(b, coded, n));
    free(coded);
    free(work);
}

static void put_member(struct buf *b, const struct header *h, const struct buf *data)
{
    put_header(b, h);
    put_block(b, h->flags, data, BLOCK_GOOD);
    put(b, 0, 4);
}

static bool tool_reads(const struct buf *coded)
{
    write_file("case.lzo", coded);
    int rc = sh("lzop -dc < case.lzo > out 2> lzop.log");
    return (rc == 0 || rc == 2 /* warnings */) && sh("cmp -s out data") == 0;
}

/* Accepted and refused as the tool does, but for filters. */
static void test_header_variants(void **state)
{
    (void)state;
#define SET(field, value)                       \
    {                                           \
        offsetof(struct header, field), (value) \
    }
    static const struct {
        enum err_code code;
        struct {
            size_t field; /* 0: none */
            uint32_t value;
        } set[3];
    } cases[] = {
        {ERR_NONE, {{0}}},
        {ERR_CORRUPT, {SET(version, 0)}},
        {ERR_CORRUPT, {SET(version, 0x08ff)}},
        {ERR_NONE, {SET(version, 0x0900)}},
        {ERR_NONE, {SET(version, 0x093f)}},
        {ERR_NONE, {SET(version, 0x0940)}},
        {ERR_NONE, {SET(version, 0x1010)}},
        {ERR_NONE, {SET(version, 0xffff)}},
        {ERR_CORRUPT, {SET(needed, 0)}},
        {ERR_CORRUPT, {SET(needed, 0x08ff)}},
        {ERR_NONE, {SET(needed, 0x0900)}},
        {ERR_NONE, {SET(needed, 0x1040)}},
        {ERR_UNSUPPORTED, {SET(needed, 0x1041)}},
        {ERR_UNSUPPORTED, {SET(method, 0)}},
        {ERR_NONE, {SET(method, 2)}},
        {ERR_NONE, {SET(method, 3)}},
        {ERR_UNSUPPORTED, {SET(method, 4)}},
        {ERR_UNSUPPORTED, {SET(method, 0x2b)}},
        {ERR_UNSUPPORTED, {SET(method, 0x81)}},
        {ERR_UNSUPPORTED, {SET(version, 0x0900), SET(method, 0x81)}},
        {ERR_NONE, {SET(level, 0)}},
        {ERR_NONE, {SET(level, 9)}},
        {ERR_UNSUPPORTED, {SET(level, 10)}},
        {ERR_NONE, {SET(flags, 0)}},
        {ERR_UNSUPPORTED, {SET(flags, 1 | 0x4000)}},
        {ERR_UNSUPPORTED, {SET(flags, 1 | 0x80000)}},
        {ERR_NONE, {SET(flags, 1 | 0x100000)}},    /* character set */
        {ERR_NONE, {SET(flags, 1 | 0xff000000u)}}, /* operating system */
        {ERR_NONE, {SET(flags, 1 | 0x3c)}},        /* stdin, stdout, default name, DOS */
        {ERR_NONE, {SET(flags, 1 | 0x80)}},        /* gmtdiff */
        {ERR_NONE, {SET(flags, 1 | 0x400)}},       /* multipart */
        {ERR_NONE, {SET(flags, 1 | 0x2000)}},      /* path */
        {ERR_NONE, {SET(flags, 1 | LZOP_F_H_CRC32)}},
        {ERR_CORRUPT, {SET(flags, 1 | LZOP_F_H_CRC32), SET(bad_sum, 1)}},
        {ERR_CORRUPT, {SET(bad_sum, 1)}},
        {ERR_CORRUPT, {SET(method, 9), SET(bad_sum, 1)}},
        {ERR_NONE, {SET(flags, 1 | LZOP_F_H_FILTER), SET(filter, 0)}},
        {ERR_UNSUPPORTED, {SET(flags, 1 | LZOP_F_H_FILTER), SET(filter, 1)}},
        {ERR_UNSUPPORTED, {SET(flags, 1 | LZOP_F_H_FILTER), SET(filter, 0xffffffffu)}},
        {ERR_UNSUPPORTED, {SET(version, 0x0900), SET(flags, 1 | LZOP_F_H_FILTER), SET(filter, 3)}},
        {ERR_NONE, {SET(flags, 1 | LZOP_F_H_EXTRA_FIELD), SET(extra_len, 0)}},
        {ERR_NONE, {SET(flags, 1 | LZOP_F_H_EXTRA_FIELD), SET(extra_len, 70000)}},
        {ERR_NONE, {SET(flags, 0x1001 | LZOP_F_H_EXTRA_FIELD), SET(extra_len, 5)}},
        {ERR_CORRUPT,
         {SET(flags, 1 | LZOP_F_H_EXTRA_FIELD), SET(extra_len, 5), SET(bad_extra_sum, 1)}},
        {ERR_CORRUPT, {SET(flags, 0x1001 | LZOP_F_H_EXTRA_FIELD), SET(bad_extra_sum, 1)}},
        {ERR_NONE, {SET(mtime_high, 0xffffffffu)}},
    };
#undef SET
    struct buf data = make_data(KIND_WAL, 5000);
    write_file("data", &data);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf coded = BUF_INIT(MAX_BYTES);
        struct header h = plain_header();
        for (size_t c = 0; c < 3; c++)
            if (cases[i].set[c].field != 0)
                memcpy((char *)&h + cases[i].set[c].field, &cases[i].set[c].value, 4);
        put_member(&coded, &h, &data);
        for (int whole = 0; whole < 2; whole++) {
            struct outcome o = decode(coded.data, coded.len, whole ? WHOLE : 1);
            if (o.err.code != cases[i].code)
                fail_msg("case %zu: %s (%s)", i, err_name(o.err.code), o.err.text);
            if (h.filter == 0 && tool_reads(&coded) != o.ok)
                fail_msg("case %zu: lzop does not agree: %s", i, o.err.text);
            if (o.ok)
                assert_same(&o.got, &data);
            else
                assert_int_equal(o.got.len, 0);
            buf_free(&o.got);
        }
        buf_free(&coded);
    }
    buf_free(&data);
}

static void test_header_names(void **state)
{
    (void)state;
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = '\0';
    const char *const names[] = {"000000010000000000000001", "../../etc/passwd\n\x1b[31m", longest};
    struct buf data = make_data(KIND_WAL, 5000);
    for (size_t i = 0; i < 6; i++) {
        struct buf coded = BUF_INIT(MAX_BYTES);
        struct header h = plain_header();
        h.name = names[i / 2];
        h.flags |= i % 2 == 0 ? 0 : LZOP_F_H_FILTER; /* the longest header there is */
        put_member(&coded, &h, &data);
        assert_decodes(&coded, WHOLE, &data);
        assert_decodes(&coded, 1, &data);
        buf_free(&coded);
    }
    buf_free(&data);
}

/* Every set of checksums, with a compressed and a stored block, good and broken. */
static void test_block_checksums(void **state)
{
    (void)state;
    static const uint32_t bits[] = {LZOP_F_ADLER32_D, LZOP_F_ADLER32_C, LZOP_F_CRC32_D,
                                    LZOP_F_CRC32_C};
    const uint32_t any_d = LZOP_F_ADLER32_D | LZOP_F_CRC32_D;
    const uint32_t any_c = LZOP_F_ADLER32_C | LZOP_F_CRC32_C;
    struct buf packs = make_data(KIND_WAL, 5000), noise = make_data(KIND_RANDOM, 500);
    for (unsigned set = 0; set < 16; set++) {
        struct header h = plain_header();
        h.flags = LZOP_F_OS_UNIX;
        for (size_t i = 0; i < 4; i++)
            h.flags |= (set >> i & 1) != 0 ? bits[i] : 0;
        /* a sum of the coded side without its plain twin leaves stored blocks unverified */
        bool lacks = ((set & 2) != 0 && (set & 1) == 0) || ((set & 8) != 0 && (set & 4) == 0);
        for (int stored = 0; stored < 2; stored++) {
            struct buf *data = stored ? &noise : &packs;
            for (int bad = BLOCK_GOOD; bad <= BAD_PLAIN_LEN; bad++) {
                struct buf coded = BUF_INIT(MAX_BYTES);
                put_header(&coded, &h);
                put_block(&coded, h.flags, data, (enum bad_block)bad);
                put(&coded, 0, 4);
                bool seen = bad == BAD_PLAIN_LEN || (stored && lacks) ||
                            (bad == BAD_PLAIN_SUM && (h.flags & any_d) != 0) ||
                            (bad == BAD_CODED_SUM && (h.flags & any_c) != 0 && !stored) ||
                            (bad == BAD_CODED_BYTE &&
                             ((h.flags & any_d) != 0 || ((h.flags & any_c) != 0 && !stored)));
                struct outcome o = decode(coded.data, coded.len, bad % 2 == 0 ? WHOLE : 1);
                if (seen) {
                    assert_int_equal(o.err.code, ERR_CORRUPT);
                    assert_int_equal(o.got.len, 0);
                } else if (bad != BAD_CODED_BYTE) {
                    assert_true(o.ok);
                    assert_same(&o.got, data);
                }
                buf_free(&o.got);
                buf_free(&coded);
            }
        }
    }
    buf_free(&packs);
    buf_free(&noise);
}

static void test_block_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t plain_len, coded_len;
    } cases[] = {
        {UINT32_MAX, 12},
        {UINT32_MAX - 1, 12},
        {LZOP_MAX_BLOCK_SIZE + 1, LZOP_MAX_BLOCK_SIZE + 1},
        {LZOP_MAX_BLOCK_SIZE, 12},
        {12, 0},
        {12, 13},
        {12, UINT32_MAX},
        {255 * 12 + 1, 12},
    };
    const struct header h = plain_header();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf coded = BUF_INIT(MAX_BYTES);
        put_header(&coded, &h);
        put(&coded, cases[i].plain_len, 4);
        put(&coded, cases[i].coded_len, 4);
        /* refused by the lengths alone: nothing further has to arrive */
        struct err err = ERR_INIT;
        struct test_sink sink = new_sink();
        struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
        assert_non_null(dec);
        assert_false(dec->write(dec, coded.data, coded.len, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        sink_close(dec);
        buf_free(&coded);
    }
}

/* lzop refuses more than 256 KiB, but its format knows blocks of up to 64 MiB. */
static void test_large_blocks(void **state)
{
    (void)state;
    static const size_t big[] = {LZOP_BLOCK_SIZE + 1, 3 << 20, LZOP_MAX_BLOCK_SIZE};
    const struct header h = plain_header();
    for (size_t i = 0; i < sizeof(big) / sizeof(big[0]); i++) {
        struct buf data = make_data(i == 0 ? KIND_RANDOM : KIND_ZERO, big[i]);
        struct buf coded = BUF_INIT(MAX_BYTES);
        put_member(&coded, &h, &data);
        assert_decodes(&coded, 0, &data);
        buf_free(&coded);
        buf_free(&data);
    }
}

/* ---- memory ---- */

/* Feeds HEAD and then FILLER bytes; the most that the decoder held meanwhile. */
static size_t peak_while_feeding(const struct buf *head, size_t filler)
{
    static const char zeros[1000];
    struct err err = ERR_INIT;
    struct test_sink sink = new_sink();
    size_t before = bytes_held(), peak = 0;
    struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
    assert_non_null(dec);
    assert_true(dec->write(dec, head->data, head->len, &err));
    for (size_t fed = 0; fed < filler; fed += sizeof(zeros)) {
        assert_true(dec->write(dec, zeros, sizeof(zeros), &err));
        size_t held = bytes_held() - before;
        peak = held > peak ? held : peak;
    }
    assert_false(dec->finish(dec, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    sink_close(dec);
    buf_free(&sink.got);
    return peak;
}

static void test_claims_take_no_memory(void **state)
{
    (void)state;
    if (__sanitizer_get_current_allocated_bytes == NULL && !own_malloc_is_used())
        skip(); /* under valgrind glibc has nothing to tell */
    /* the meter itself must work, or this test could not fail */
    size_t before = bytes_held();
    void *volatile big = malloc(10 << 20);
    assert_true(bytes_held() - before >= 10 << 20);
    free(big);

    const struct header h = plain_header();
    struct buf head = BUF_INIT(MAX_BYTES);
    put_header(&head, &h);
    put(&head, LZOP_MAX_BLOCK_SIZE, 4);
    put(&head, LZOP_MAX_BLOCK_SIZE - 1, 4);
    put(&head, 0, 4);
    assert_true(peak_while_feeding(&head, 1000) < 400 * 1024);
    assert_true(peak_while_feeding(&head, 1000000) < 2600 * 1024);
    buf_free(&head);

    /* plausible lengths, but most of the coded bytes do not come: no plain buffer yet */
    put_header(&head, &h);
    put(&head, LZOP_MAX_BLOCK_SIZE, 4);
    put(&head, 300000, 4);
    put(&head, 0, 4);
    assert_true(peak_while_feeding(&head, 299000) < 700 * 1024);
    buf_free(&head);

    /* an extra field of 4 GiB */
    struct header extra = plain_header();
    extra.flags |= LZOP_F_H_EXTRA_FIELD;
    put_header(&head, &extra);
    head.len -= 8;
    put(&head, UINT32_MAX, 4);
    assert_true(peak_while_feeding(&head, 5000000) < 64 * 1024);
    buf_free(&head);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    if (!own_malloc_is_used())
        skip();
    struct buf data = make_data(KIND_WAL, 300000);
    struct buf coded = encode(&data, WHOLE, 65536);
    struct err err = ERR_INIT;
    struct test_source src = new_source(&data, WHOLE);
    fail_in = 0;
    assert_null(lzop_encoder(&src.base, NULL, &err));
    fail_in = -1;
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_int_equal(src.closed, 1);

    bool done = false;
    int failures = 0;
    for (long nth = 0; !done; nth++) {
        struct test_sink sink = new_sink();
        assert_true(buf_reserve(&sink.got, data.len));
        err = (struct err)ERR_INIT;
        fail_in = nth;
        struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
        bool ok = dec != NULL;
        for (size_t pos = 0; ok && pos < coded.len; pos += 20000) {
            size_t n = coded.len - pos < 20000 ? coded.len - pos : 20000;
            ok = dec->write(dec, coded.data + pos, n, &err);
        }
        fail_in = -1;
        done = ok;
        if (!ok) {
            failures++;
            assert_int_equal(err.code, ERR_NO_MEMORY);
            assert_false(dec != NULL && dec->finish(dec, &err));
        } else {
            assert_true(dec->finish(dec, &err));
            assert_same(&sink.got, &data);
        }
        sink_close(dec);
        assert_int_equal(sink.closed, 1);
        buf_free(&sink.got);
    }
    assert_true(failures >= 3); /* decoder, coded bytes, plain bytes */
    buf_free(&coded);
    buf_free(&data);
}

/* ---- members and what follows them ---- */

static void test_members_and_padding(void **state)
{
    (void)state;
    struct header h = plain_header(), crc = plain_header();
    crc.flags = LZOP_F_H_CRC32 | LZOP_F_CRC32_D;
    struct buf a = make_data(KIND_WAL, 5000), b = make_data(KIND_RANDOM, 50);
    struct buf both = copy_of(&a), coded = BUF_INIT(MAX_BYTES);
    assert_true(buf_append(&both, b.data, b.len));

    put_header(&coded, &h); /* an empty member counts as one */
    put(&coded, 0, 4);
    struct buf nothing = BUF_INIT(1);
    assert_decodes(&coded, 1, &nothing);
    put_member(&coded, &h, &a);
    assert_decodes(&coded, 1, &a);
    put_member(&coded, &crc, &b);
    assert_decodes(&coded, 1, &both);
    assert_decodes(&coded, WHOLE, &both);

    size_t whole = coded.len;
    for (size_t zeros = 1; zeros < 40; zeros++) {
        put(&coded, 0, 1);
        assert_decodes(&coded, zeros % 2 == 0 ? 1 : WHOLE, &both);
    }
    /* zeros end it: what follows would be lost */
    put_member(&coded, &h, &a);
    assert_refused(coded.data, coded.len, WHOLE, ERR_CORRUPT);
    assert_refused(coded.data, coded.len, 1, ERR_CORRUPT);

    coded.len = whole;
    put(&coded, 'x', 1);
    assert_refused(coded.data, coded.len, WHOLE, ERR_CORRUPT);
    assert_true(buf_puts(&coded, "garbage that is longer than the magic"));
    assert_refused(coded.data, coded.len, WHOLE, ERR_CORRUPT);
    assert_refused(coded.data, coded.len, 1, ERR_CORRUPT);
    for (size_t n = 1; n <= LZOP_MAGIC_SIZE; n++) {
        coded.len = whole;
        assert_true(buf_append(&coded, LZOP_MAGIC_BYTES, n));
        assert_refused(coded.data, coded.len, WHOLE, ERR_CORRUPT);
    }
    buf_free(&coded);
    buf_free(&both);
    buf_free(&a);
    buf_free(&b);
}

static void test_not_lzop(void **state)
{
    (void)state;
    assert_refused("", 0, WHOLE, ERR_CORRUPT);
    assert_refused("\0\0\0\0\0\0\0\0\0\0\0\0", 12, WHOLE, ERR_CORRUPT);
    assert_refused("\0", 1, WHOLE, ERR_CORRUPT);
    assert_refused("<?xml version=\"1.0\"?>", 21, WHOLE, ERR_CORRUPT);
    assert_refused("<?xml version=\"1.0\"?>", 21, 1, ERR_CORRUPT);
    assert_refused("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10, WHOLE, ERR_CORRUPT);
}

/* ---- damage ---- */

/* One stream with compressed and stored blocks; its plain bytes in DATA. */
static struct buf damage_victim(struct buf *data)
{
    struct header h = plain_header();
    h.name = "victim";
    struct buf packs = make_data(KIND_WAL, 600), noise = make_data(KIND_RANDOM, 70);
    struct buf coded = BUF_INIT(MAX_BYTES);
    put_header(&coded, &h);
    put_block(&coded, h.flags, &packs, BLOCK_GOOD);
    put_block(&coded, h.flags, &noise, BLOCK_GOOD);
    put_block(&coded, h.flags, &packs, BLOCK_GOOD);
    put(&coded, 0, 4);
    *data = copy_of(&packs);
    assert_true(buf_append(data, noise.data, noise.len));
    assert_true(buf_append(data, packs.data, packs.len));
    buf_free(&packs);
    buf_free(&noise);
    assert_decodes(&coded, WHOLE, data);
    return coded;
}

static void test_truncated_anywhere(void **state)
{
    (void)state;
    struct buf data, coded = damage_victim(&data);
    for (size_t n = 0; n < coded.len; n++) {
        assert_refused(coded.data, n, WHOLE, ERR_CORRUPT);
        assert_refused(coded.data, n, 1, ERR_CORRUPT);
    }
    buf_free(&coded);
    buf_free(&data);
}

static void test_truncated_members(void **state)
{
    (void)state;
    const struct header h = plain_header();
    struct buf data = make_data(KIND_WAL, 600), coded = BUF_INIT(MAX_BYTES);
    put_member(&coded, &h, &data);
    size_t first = coded.len;
    put_member(&coded, &h, &data);
    for (size_t n = 0; n < coded.len; n++)
        if (n != first) /* what a member's end looks like is an end */
            assert_refused(coded.data, n, WHOLE, ERR_CORRUPT);
    buf_free(&coded);
    buf_free(&data);
}

/* Any other result than an error must be the same bytes: LZO can say the same in two ways. */
static void assert_never_wrong(const struct buf *coded, const struct buf *data, int *refused)
{
    struct outcome o = decode(coded->data, coded->len, rng_below(2) == 0 ? WHOLE : 1);
    if (o.ok)
        assert_same(&o.got, data);
    else
        ++*refused;
    buf_free(&o.got);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    struct buf data, coded = damage_victim(&data);
    int refused = 0;
    for (size_t i = 0; i < coded.len * 8; i++) {
        coded.data[i / 8] = (char)(coded.data[i / 8] ^ (1 << i % 8));
        assert_never_wrong(&coded, &data, &refused);
        coded.data[i / 8] = (char)(coded.data[i / 8] ^ (1 << i % 8));
    }
    assert_true((size_t)refused > coded.len * 8 * 95 / 100);
    buf_free(&coded);
    buf_free(&data);
}

static void test_random_damage(void **state)
{
    (void)state;
    struct buf data, coded = damage_victim(&data);
    int refused = 0;
    for (int round = 0; round < 5000; round++) {
        struct buf hurt = copy_of(&coded);
        for (size_t i = rng_below(6) + 1; i > 0; i--) {
            size_t at = rng_below(hurt.len);
            hurt.data[at] = rng_below(4) == 0 ? 0 : (char)rng();
        }
        assert_never_wrong(&hurt, &data, &refused);
        buf_free(&hurt);
    }
    assert_true(refused > 4000);
    buf_free(&coded);
    buf_free(&data);
}

/* ---- sinks that fail ---- */

static void test_failing_sink(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_WAL, 3 * LZOP_BLOCK_SIZE);
    struct buf coded = encode(&data, WHOLE, 65536);
    static const size_t room[] = {0, LZOP_BLOCK_SIZE - 1, LZOP_BLOCK_SIZE, 2 * LZOP_BLOCK_SIZE + 5};
    for (size_t i = 0; i < sizeof(room) / sizeof(room[0]); i++) {
        struct err err = ERR_INIT;
        struct test_sink sink = new_sink();
        sink.fail_after = room[i];
        struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
        assert_non_null(dec);
        assert_false(dec->write(dec, coded.data, coded.len, &err));
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_string_equal(err.text, "test sink is full");
        err = (struct err)ERR_INIT;
        assert_false(dec->write(dec, "x", 1, &err));
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_int_equal(sink.finished, 0);
        assert_int_equal(sink.calls_after_failure, 0);
        sink_close(dec);
        assert_int_equal(sink.closed, 1);
        buf_free(&sink.got);
    }
    struct err err = ERR_INIT;
    struct test_sink sink = new_sink();
    sink.fail_finish = true;
    struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
    assert_non_null(dec);
    assert_true(dec->write(dec, coded.data, coded.len, &err));
    assert_false(dec->finish(dec, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    sink_close(dec);
    buf_free(&sink.got);
    buf_free(&coded);
    buf_free(&data);
}

/* ---- threads ---- */

static void *code_in_thread(void *arg)
{
    const struct buf *data = arg;
    struct err err = ERR_INIT;
    struct test_source src = new_source(data, 5000);
    struct test_sink sink = new_sink();
    struct source *enc = lzop_encoder(&src.base, NULL, &err);
    struct sink *dec = lzop_decoder(&sink.base, NULL, &err);
    bool ok = enc != NULL && dec != NULL && stream_copy(enc, dec, &err) && dec->finish(dec, &err) &&
              sink.got.len == data->len && memcmp(sink.got.data, data->data, data->len) == 0;
    source_close(enc);
    sink_close(dec);
    buf_free(&sink.got);
    return ok ? arg : NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct buf data = make_data(KIND_WAL, 2 << 20);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, code_in_thread, &data), 0);
    for (size_t i = 0; i < 4; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &data);
    }
    buf_free(&data);
}

static int set_up(void **state)
{
    (void)state;
    const char *seed = getenv("TEST_SEED");
    rng_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) << 20 | 1;
    if (rng_state == 0)
        rng_state = 1;
    print_message("TEST_SEED=0x%llx\n", (unsigned long long)rng_state);
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/walefs-lzop-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL)
        return -1;
    if (sh("lzop --version > /dev/null") != 0) {
        print_error("the lzop tool is needed: apt install lzop\n");
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_magic),
        cmocka_unit_test(test_encoder_gives_the_tools_bytes),
        cmocka_unit_test(test_tool_reads_ours),
        cmocka_unit_test(test_tools_output_is_read),
        cmocka_unit_test(test_tools_members_are_joined),
        cmocka_unit_test(test_tools_filter_is_refused),
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_encoder_piece_sizes_do_not_matter),
        cmocka_unit_test(test_encoder_failing_source),
        cmocka_unit_test(test_encoder_header_needs_no_plain_bytes),
        cmocka_unit_test(test_header_variants),
        cmocka_unit_test(test_header_names),
        cmocka_unit_test(test_block_checksums),
        cmocka_unit_test(test_block_lengths),
        cmocka_unit_test(test_large_blocks),
        cmocka_unit_test(test_claims_take_no_memory),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_members_and_padding),
        cmocka_unit_test(test_not_lzop),
        cmocka_unit_test(test_truncated_anywhere),
        cmocka_unit_test(test_truncated_members),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_failing_sink),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("lzop", tests, set_up, tear_down);
}
