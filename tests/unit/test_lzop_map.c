/* Random access: what a map says of a stream is enough to decode any range of its blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/lzop.h"

#define MAX_BYTES (64u << 20)

struct collected {
    struct sink base;
    struct buf buf;
};

static bool collect(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct collected *c = (struct collected *)self;
    return buf_append(&c->buf, data, n) || err_set(err, ERR_NO_MEMORY, "too much");
}

static bool collected_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void collected_close(struct sink *self)
{
    (void)self;
}

static struct collected collector(void)
{
    return (struct collected){
        .base = {.write = collect, .finish = collected_finish, .close = collected_close},
        .buf = BUF_INIT(MAX_BYTES)};
}

static char *make_plain(size_t n, unsigned kind)
{
    char *plain = malloc(n + 1);
    unsigned x = 4711;
    for (size_t i = 0; i < n; i++) {
        x = x * 1103515245u + 12345u;
        bool noise = kind == 1 || (kind == 2 && i / 100000 % 2 == 1);
        plain[i] = noise ? (char)(x >> 16) : (char)('a' + i / 50 % 20);
    }
    return plain;
}

static void encode(const char *plain, size_t n, struct lzop_map *map, struct collected *out)
{
    struct err err = ERR_INIT;
    struct source *src = source_mem(plain, n, &err);
    struct source *enc = lzop_encoder(src, map, &err);
    assert_non_null(enc);
    assert_true(stream_copy(enc, &out->base, &err));
    source_close(enc);
}

/* The map that the decoder makes of STREAM. */
static void map_of(const struct buf *stream, struct lzop_map *map)
{
    struct err err = ERR_INIT;
    struct collected out = collector();
    struct sink *dec = lzop_decoder(&out.base, map, &err);
    for (size_t at = 0; at < stream->len; at += 1000)
        assert_true(dec->write(dec, stream->data + at,
                               stream->len - at < 1000 ? stream->len - at : 1000, &err));
    assert_true(dec->finish(dec, &err));
    sink_close(dec);
    buf_free(&out.buf);
}

static bool decode_blocks(const struct buf *stream, const struct lzop_map *map, size_t first,
                          size_t count, struct collected *out, struct err *err)
{
    struct sink *dec = lzop_block_decoder(&out->base, map, first, count, err);
    if (dec == NULL)
        return false;
    size_t at = map->offsets[first];
    bool ok = dec->write(dec, stream->data + at, stream->len - at, err) && dec->finish(dec, err);
    sink_close(dec);
    return ok;
}

static void any_range_of_blocks_decodes(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 262143, 262144, 262145, 3u * 262144, 2500000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (unsigned kind = 0; kind < 3; kind++) {
            struct collected stream = collector();
            struct lzop_map made, read;
            char *plain = make_plain(sizes[i], kind);
            encode(plain, sizes[i], &made, &stream);
            map_of(&stream.buf, &read);
            assert_true(made.regular && read.regular);
            assert_int_equal(made.plain_size, sizes[i]);
            assert_int_equal(read.plain_size, sizes[i]);
            assert_int_equal(made.count, (sizes[i] + 262143) / 262144);
            assert_int_equal(made.count, read.count);
            assert_int_equal(made.flags, read.flags);
            assert_memory_equal(made.offsets, read.offsets, made.count * sizeof(*made.offsets));
            for (size_t first = 0; first < made.count; first++) {
                for (size_t count = 1; count <= made.count - first; count++) {
                    struct err err = ERR_INIT;
                    struct collected out = collector();
                    size_t begin = first * made.block_size;
                    size_t end = (first + count) * (size_t)made.block_size;
                    end = end < sizes[i] ? end : sizes[i];
                    assert_true(decode_blocks(&stream.buf, &made, first, count, &out, &err));
                    assert_int_equal(out.buf.len, end - begin);
                    assert_memory_equal(out.buf.data, plain + begin, end - begin);
                    buf_free(&out.buf);
                }
            }
            lzop_map_free(&made);
            lzop_map_free(&read);
            buf_free(&stream.buf);
            free(plain);
        }
    }
}

static void empty_streams_have_no_blocks(void **state)
{
    (void)state;
    struct collected stream = collector(), out = collector();
    struct lzop_map map;
    struct err err = ERR_INIT;
    encode("", 0, &map, &stream);
    assert_int_equal(map.plain_size, 0);
    assert_int_equal(map.count, 0);
    assert_null(lzop_block_decoder(&out.base, &map, 0, 1, &err));
    assert_int_equal(err.code, ERR_INVALID);
    buf_free(&stream.buf);
}

static void damage_and_wrong_maps_are_refused(void **state)
{
    (void)state;
    struct collected stream = collector();
    struct lzop_map map;
    char *plain = make_plain(1000000, 0);
    encode(plain, 1000000, &map, &stream);
    for (size_t at = 0; at < 60; at++) {
        struct err err = ERR_INIT;
        struct collected out = collector();
        stream.buf.data[map.offsets[1] + at] ^= 0x10;
        assert_false(decode_blocks(&stream.buf, &map, 1, 1, &out, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        stream.buf.data[map.offsets[1] + at] ^= 0x10;
        buf_free(&out.buf);
    }
    struct err err = ERR_INIT;
    struct collected out = collector();
    map.offsets[2]++;
    assert_false(decode_blocks(&stream.buf, &map, 2, 1, &out, &err));
    map.offsets[2]--;
    map.block_size /= 2;
    assert_false(decode_blocks(&stream.buf, &map, 1, 1, &out, &err));
    map.block_size *= 2;
    stream.buf.len = map.offsets[2] - 1; /* ends early */
    assert_false(decode_blocks(&stream.buf, &map, 1, 1, &out, &err));
    assert_false(decode_blocks(&stream.buf, &map, 1, 4, &out, &err));
    buf_free(&out.buf);
    buf_free(&stream.buf);
    lzop_map_free(&map);
    free(plain);
}

static void streams_of_lzop_have_maps(void **state)
{
    (void)state;
    static const char *const options[] = {"-1", "-3", "-9", "--crc32", "-CC"};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        char command[200];
        (void)snprintf(command, sizeof(command), "seq 1 200000 | lzop %s -c", options[i]);
        FILE *p = popen(command, "r");
        struct collected stream = collector();
        char chunk[65536];
        size_t n;
        while ((n = fread(chunk, 1, sizeof(chunk), p)) > 0)
            assert_true(buf_append(&stream.buf, chunk, n));
        assert_int_equal(pclose(p), 0);
        struct lzop_map map;
        struct err err = ERR_INIT;
        struct collected out = collector();
        map_of(&stream.buf, &map);
        assert_true(map.regular && map.count > 3);
        assert_true(decode_blocks(&stream.buf, &map, 2, 2, &out, &err));
        assert_int_equal(out.buf.len, 2u * map.block_size);
        buf_free(&out.buf);
        /* two members: no random access, but a true size */
        uint64_t once = map.plain_size;
        lzop_map_free(&map);
        size_t len = stream.buf.len;
        char *copy = malloc(len);
        memcpy(copy, stream.buf.data, len);
        assert_true(buf_append(&stream.buf, copy, len));
        free(copy);
        map_of(&stream.buf, &map);
        assert_false(map.regular);
        assert_int_equal(map.plain_size, 2 * once);
        lzop_map_free(&map);
        buf_free(&stream.buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_range_of_blocks_decodes),
        cmocka_unit_test(empty_streams_have_no_blocks),
        cmocka_unit_test(damage_and_wrong_maps_are_refused),
        cmocka_unit_test(streams_of_lzop_have_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
