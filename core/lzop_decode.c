#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>

#include "core/lzop.h"
#include "core/lzop_format.h"

/* The largest header behind the magic: all optional fields and a name of 255 bytes. */
#define HEAD_MAX (30 + 4 + 255 + 4)

/* No LZO1X instruction yields more: a match costs at least 2 bytes for up to 8, and each further
 * byte of its length adds at most 255. */
#define LZO_MAX_RATIO 255u

/* A part of the stream that is collected whole before it is looked at. */
enum part {
    PART_MAGIC, /* also where a stream may end */
    PART_HEADER,
    PART_EXTRA_LENGTH,
    PART_EXTRA_BYTES, /* only summed, never held */
    PART_EXTRA_CHECKSUM,
    PART_BLOCK_LENGTH,
    PART_BLOCK_HEAD,
    PART_BLOCK_BYTES,
    PART_PADDING, /* zeros to the end of the stream */
    PART_IGNORED, /* what follows the blocks that were asked for */
};

struct decoder {
    struct sink base;
    struct sink *plain;
    bool failed;
    struct err failure;   /* repeated by every call after it */
    uint64_t consumed;    /* bytes of the stream */
    uint64_t blocks_done; /* in all members */
    bool member_seen;

    enum part part;
    size_t need, have; /* bytes of this part, but for PART_BLOCK_BYTES; have is what is in head */
    unsigned char head[HEAD_MAX];

    uint32_t flags; /* of this member */
    uint32_t extra_left, extra_sum;

    uint32_t plain_len, coded_len; /* of this block */
    uint32_t plain_adler, plain_crc, coded_adler, coded_crc;

    struct lzop_map *map;         /* to be filled, may be NULL */
    uint64_t block_at;            /* where this block's head is in the stream */
    const struct lzop_map *known; /* of a decoder for some blocks, else NULL */
    size_t next_block, end_block; /* numbers in KNOWN */

    unsigned char *coded; /* grows with what arrives */
    size_t coded_have, coded_cap;
    unsigned char *out;
    size_t out_cap;
};

/* Where a piece of input is and how much of it is left. */
struct input {
    const unsigned char *p;
    size_t n;
};

bool lzop_is_magic(const void *data, size_t n)
{
    return n >= LZOP_MAGIC_SIZE && memcmp(data, LZOP_MAGIC_BYTES, LZOP_MAGIC_SIZE) == 0;
}

static void expect(struct decoder *d, enum part part, size_t need)
{
    d->part = part;
    d->need = need;
    d->have = 0;
}

static bool corrupt(const struct decoder *d, const char *why, struct err *err)
{
    return err_set(err, ERR_CORRUPT,
                   "lzop stream is damaged near byte %llu, after %llu good blocks: %s",
                   (unsigned long long)d->consumed, (unsigned long long)d->blocks_done, why);
}

static bool unsupported(const char *what, uint32_t value, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "lzop stream needs %s 0x%x, which is not supported: decode it with lzop", what,
                   value);
}

/* Magic. */

static bool not_magic(const struct decoder *d, struct err *err)
{
    return corrupt(
        d, d->member_seen ? "bytes that are not lzop's follow its end" : "it has no lzop magic",
        err);
}

static bool on_magic(struct decoder *d, struct err *err)
{
    if (!lzop_is_magic(d->head, d->have))
        return not_magic(d, err);
    expect(d, PART_HEADER, 2);
    return true;
}

/* Header. Its length depends on its own fields, so it is asked for in steps. */

struct header_layout {
    size_t flags, name_length; /* offsets */
};

static size_t header_need(const unsigned char *h, size_t have, struct header_layout *at)
{
    bool is_long = lzop_get16(h) >= LZOP_VERSION_LONG_HEADER;
    at->flags = is_long ? 8 : 5;
    if (have < at->flags + 4)
        return at->flags + 4;
    size_t filter = (lzop_get32(h + at->flags) & LZOP_F_H_FILTER) != 0 ? 4 : 0;
    size_t times = is_long ? 8 : 4;
    at->name_length = at->flags + 4 + filter + 4 + times;
    if (have < at->name_length + 1)
        return at->name_length + 1;
    return at->name_length + 1 + h[at->name_length] + 4;
}

static uint32_t header_sum(const struct decoder *d, uint32_t sum, const void *data, size_t n)
{
    return (d->flags & LZOP_F_H_CRC32) != 0 ? lzo_crc32(sum, data, n) : lzo_adler32(sum, data, n);
}

static uint32_t header_sum_init(const struct decoder *d)
{
    return (d->flags & LZOP_F_H_CRC32) != 0 ? LZOP_CRC32_INIT : LZOP_ADLER32_INIT;
}

/* Only called when the header's checksum is right: what is refused here was meant so. */
static bool check_header_values(const struct decoder *d, const struct header_layout *at,
                                struct err *err)
{
    const unsigned char *h = d->head;
    bool is_long = lzop_get16(h) >= LZOP_VERSION_LONG_HEADER;
    uint32_t needed = is_long ? lzop_get16(h + 4) : LZOP_VERSION_OLDEST;
    uint32_t method = h[is_long ? 6 : 4];
    uint32_t level = is_long ? h[7] : 0;
    if (needed > LZOP_VERSION)
        return unsupported("version", needed, err);
    if (needed < LZOP_VERSION_OLDEST)
        return corrupt(d, "its header names an impossible version", err);
    if (method != LZOP_LZO1X_1 && method != LZOP_LZO1X_1_15 && method != LZOP_LZO1X_999)
        return unsupported("compression method", method, err);
    if (level > LZOP_LEVEL_MAX)
        return unsupported("compression level", level, err);
    if ((d->flags & LZOP_F_UNKNOWN) != 0)
        return unsupported("header flags", d->flags, err);
    if ((d->flags & LZOP_F_H_FILTER) != 0 && lzop_get32(h + at->flags + 4) != 0)
        return unsupported("filter", lzop_get32(h + at->flags + 4), err);
    return true;
}

static bool on_header(struct decoder *d, struct err *err)
{
    if (lzop_get16(d->head) < LZOP_VERSION_OLDEST)
        return corrupt(d, "its header names an impossible version", err);
    struct header_layout at;
    size_t need = header_need(d->head, d->have, &at);
    if (need > d->have) {
        d->need = need;
        return true;
    }
    d->flags = lzop_get32(d->head + at.flags);
    size_t summed = need - 4;
    if (header_sum(d, header_sum_init(d), d->head, summed) != lzop_get32(d->head + summed))
        return corrupt(d, "its header fails its checksum", err);
    if (!check_header_values(d, &at, err))
        return false;
    if (d->map != NULL && d->member_seen)
        lzop_map_irregular(d->map);
    else if (d->map != NULL)
        lzop_map_begin(d->map, d->flags);
    if ((d->flags & LZOP_F_H_EXTRA_FIELD) != 0)
        expect(d, PART_EXTRA_LENGTH, 4);
    else
        expect(d, PART_BLOCK_LENGTH, 4);
    return true;
}

/* Extra field: skipped, as lzop does. */

static void on_extra_length(struct decoder *d)
{
    d->extra_left = lzop_get32(d->head);
    d->extra_sum = header_sum(d, header_sum_init(d), d->head, 4);
    d->part = PART_EXTRA_BYTES;
}

static void on_extra_bytes(struct decoder *d, struct input *in)
{
    size_t n = in->n < d->extra_left ? in->n : d->extra_left;
    if (n > 0)
        d->extra_sum = header_sum(d, d->extra_sum, in->p, n);
    in->p += n;
    in->n -= n;
    d->consumed += n;
    d->extra_left -= (uint32_t)n;
    if (d->extra_left == 0)
        expect(d, PART_EXTRA_CHECKSUM, 4);
}

static bool on_extra_checksum(struct decoder *d, struct err *err)
{
    if (d->extra_sum != lzop_get32(d->head))
        return corrupt(d, "its header's extra field fails its checksum", err);
    expect(d, PART_BLOCK_LENGTH, 4);
    return true;
}

/* Blocks. */

/* Is the block that comes the one that the map has here? */
static bool is_known_block(const struct decoder *d)
{
    const struct lzop_map *m = d->known;
    uint64_t begin = (uint64_t)d->next_block * m->block_size;
    uint64_t left = begin < m->plain_size ? m->plain_size - begin : 0;
    return d->plain_len > 0 && d->plain_len == (left < m->block_size ? left : m->block_size);
}

static bool on_block_length(struct decoder *d, struct err *err)
{
    d->plain_len = lzop_get32(d->head);
    d->block_at = d->consumed - 4;
    if (d->known != NULL && !is_known_block(d))
        return corrupt(d, "a block is not as long as it was", err);
    if (d->plain_len == 0) {
        d->member_seen = true;
        expect(d, PART_MAGIC, LZOP_MAGIC_SIZE);
        return true;
    }
    if (d->plain_len == UINT32_MAX)
        return corrupt(d, "it is one part of a split lzop file", err);
    if (d->plain_len > LZOP_MAX_BLOCK_SIZE)
        return corrupt(d, "a block is longer than any can be", err);
    expect(d, PART_BLOCK_HEAD, 4);
    return true;
}

static size_t checksum_bytes(uint32_t flags, bool stored)
{
    static const uint32_t of_plain[] = {LZOP_F_ADLER32_D, LZOP_F_CRC32_D};
    static const uint32_t of_coded[] = {LZOP_F_ADLER32_C, LZOP_F_CRC32_C};
    size_t n = 0;
    for (size_t i = 0; i < 2; i++) {
        n += (flags & of_plain[i]) != 0 ? 4 : 0;
        n += !stored && (flags & of_coded[i]) != 0 ? 4 : 0;
    }
    return n;
}

/* lzop, too, gives up here: such a block would go unverified in a stream that has checksums. */
static bool lacks_checksum(uint32_t flags)
{
    return ((flags & LZOP_F_ADLER32_C) != 0 && (flags & LZOP_F_ADLER32_D) == 0) ||
           ((flags & LZOP_F_CRC32_C) != 0 && (flags & LZOP_F_CRC32_D) == 0);
}

static bool on_block_head(struct decoder *d, struct err *err)
{
    d->coded_len = lzop_get32(d->head);
    bool stored = d->coded_len == d->plain_len;
    if (d->coded_len == 0 || d->coded_len > d->plain_len ||
        (uint64_t)d->coded_len * LZO_MAX_RATIO < d->plain_len)
        return corrupt(d, "a block's lengths contradict each other", err);
    if (stored && lacks_checksum(d->flags))
        return corrupt(d, "a stored block lacks its checksum", err);
    size_t need = 4 + checksum_bytes(d->flags, stored);
    if (need > d->have) {
        d->need = need;
        return true;
    }
    const unsigned char *p = d->head + 4;
    const struct {
        uint32_t *value, flag;
        bool present;
    } sums[] = {
        {&d->plain_adler, LZOP_F_ADLER32_D, true},
        {&d->plain_crc, LZOP_F_CRC32_D, true},
        {&d->coded_adler, LZOP_F_ADLER32_C, !stored},
        {&d->coded_crc, LZOP_F_CRC32_C, !stored},
    };
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        if ((d->flags & sums[i].flag) == 0 || !sums[i].present)
            continue;
        *sums[i].value = lzop_get32(p);
        p += 4;
    }
    d->coded_have = 0;
    d->part = PART_BLOCK_BYTES;
    return true;
}

static bool sums_match(const unsigned char *data, size_t n, const uint32_t *adler,
                       const uint32_t *crc)
{
    if (adler != NULL && lzop_adler32(data, n) != *adler)
        return false;
    return crc == NULL || lzo_crc32(LZOP_CRC32_INIT, data, n) == *crc;
}

static bool has(const struct decoder *d, uint32_t flag)
{
    return (d->flags & flag) != 0;
}

/* The out buffer is made no sooner than its coded bytes are here, whose number bounds it. */
static bool decompress(struct decoder *d, const unsigned char *coded, struct err *err)
{
    if (!sums_match(coded, d->coded_len, has(d, LZOP_F_ADLER32_C) ? &d->coded_adler : NULL,
                    has(d, LZOP_F_CRC32_C) ? &d->coded_crc : NULL))
        return corrupt(d, "a compressed block fails its checksum", err);
    if (d->out_cap < d->plain_len) {
        free(d->out);
        d->out = malloc(d->plain_len);
        d->out_cap = d->out == NULL ? 0 : d->plain_len;
        if (d->out == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory for an lzop block of %u bytes",
                           d->plain_len);
    }
    lzo_uint len = d->plain_len;
    int rc = lzo1x_decompress_safe(coded, d->coded_len, d->out, &len, NULL);
    if (rc != LZO_E_OK || len != d->plain_len)
        return corrupt(d, "a block does not decompress", err);
    return true;
}

static bool on_block(struct decoder *d, const unsigned char *coded, struct err *err)
{
    const unsigned char *plain = coded;
    if (d->coded_len < d->plain_len) {
        if (!decompress(d, coded, err))
            return false;
        plain = d->out;
    }
    if (!sums_match(plain, d->plain_len, has(d, LZOP_F_ADLER32_D) ? &d->plain_adler : NULL,
                    has(d, LZOP_F_CRC32_D) ? &d->plain_crc : NULL))
        return corrupt(d, "a block fails its checksum", err);
    if (!d->plain->write(d->plain, plain, d->plain_len, err))
        return false;
    if (d->map != NULL && !lzop_map_add(d->map, d->block_at, d->plain_len, err))
        return false;
    d->blocks_done++;
    expect(d, PART_BLOCK_LENGTH, 4);
    if (d->known != NULL && ++d->next_block == d->end_block)
        d->part = PART_IGNORED;
    return true;
}

/* Makes room for N more coded bytes, at most doubling what has arrived. */
static bool grow_coded(struct decoder *d, size_t n, struct err *err)
{
    if (d->coded_cap - d->coded_have >= n)
        return true;
    size_t cap = 2 * (d->coded_have + n);
    if (cap < (size_t)LZOP_BLOCK_SIZE)
        cap = (size_t)LZOP_BLOCK_SIZE;
    if (cap > d->coded_len)
        cap = d->coded_len;
    unsigned char *coded = realloc(d->coded, cap);
    if (coded == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory for an lzop block of %u bytes",
                       d->coded_len);
    d->coded = coded;
    d->coded_cap = cap;
    return true;
}

static bool on_block_bytes(struct decoder *d, struct input *in, struct err *err)
{
    size_t left = d->coded_len - d->coded_have;
    size_t n = in->n < left ? in->n : left;
    const unsigned char *piece = in->p;
    in->p += n;
    in->n -= n;
    d->consumed += n;
    if (n == d->coded_len) /* all of it in one piece: no need to copy */
        return on_block(d, piece, err);
    if (!grow_coded(d, n, err))
        return false;
    memcpy(d->coded + d->coded_have, piece, n);
    d->coded_have += n;
    return d->coded_have < d->coded_len || on_block(d, d->coded, err);
}

/* Padding. */

static bool on_padding(struct decoder *d, struct input *in, struct err *err)
{
    for (; in->n > 0; in->p++, in->n--, d->consumed++)
        if (*in->p != 0)
            return corrupt(d, "bytes that are not lzop's follow its end", err);
    return true;
}

/* The machine. */

static bool on_collected(struct decoder *d, struct err *err)
{
    switch (d->part) {
    case PART_MAGIC:
        return on_magic(d, err);
    case PART_HEADER:
        return on_header(d, err);
    case PART_EXTRA_LENGTH:
        on_extra_length(d);
        return true;
    case PART_EXTRA_CHECKSUM:
        return on_extra_checksum(d, err);
    case PART_BLOCK_LENGTH:
        return on_block_length(d, err);
    case PART_BLOCK_HEAD:
        return on_block_head(d, err);
    case PART_EXTRA_BYTES:
    case PART_BLOCK_BYTES:
    case PART_PADDING:
    case PART_IGNORED:
        break;
    }
    return true;
}

static bool step(struct decoder *d, struct input *in, struct err *err)
{
    if (d->part == PART_MAGIC && d->have == 0 && d->member_seen && *in->p == 0)
        d->part = PART_PADDING;
    if (d->part == PART_IGNORED) {
        in->n = 0;
        return true;
    }
    if (d->part == PART_EXTRA_BYTES) {
        on_extra_bytes(d, in);
        return true;
    }
    if (d->part == PART_BLOCK_BYTES)
        return on_block_bytes(d, in, err);
    if (d->part == PART_PADDING)
        return on_padding(d, in, err);
    size_t n = d->need - d->have < in->n ? d->need - d->have : in->n;
    memcpy(d->head + d->have, in->p, n);
    d->have += n;
    d->consumed += n;
    in->p += n;
    in->n -= n;
    return d->have < d->need || on_collected(d, err);
}

static bool repeat_failure(const struct decoder *d, struct err *err)
{
    *err = d->failure;
    return false;
}

static bool decoder_write(struct sink *self, const void *buf, size_t n, struct err *err)
{
    struct decoder *d = (struct decoder *)self;
    struct input in = {.p = buf, .n = n};
    while (!d->failed && in.n > 0)
        d->failed = !step(d, &in, &d->failure);
    return !d->failed || repeat_failure(d, err);
}

static bool is_whole(struct decoder *d, struct err *err)
{
    if (d->part == PART_PADDING || d->part == PART_IGNORED)
        return true;
    if (d->part == PART_MAGIC && memcmp(d->head, LZOP_MAGIC_BYTES, d->have) != 0)
        return not_magic(d, err);
    if (d->part != PART_MAGIC || d->have > 0)
        return corrupt(d, "it ends too early", err);
    return d->member_seen || corrupt(d, "it is empty", err);
}

static bool decoder_finish(struct sink *self, struct err *err)
{
    struct decoder *d = (struct decoder *)self;
    if (!d->failed)
        d->failed = !is_whole(d, &d->failure) || !d->plain->finish(d->plain, &d->failure);
    return !d->failed || repeat_failure(d, err);
}

static void decoder_close(struct sink *self)
{
    struct decoder *d = (struct decoder *)self;
    sink_close(d->plain);
    free(d->coded);
    free(d->out);
    free(d);
}

static struct decoder *new_decoder(struct sink *plain, struct err *err)
{
    struct decoder *d = NULL;
    if (lzop_library_init(err)) {
        d = calloc(1, sizeof(*d));
        if (d == NULL)
            err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    if (d == NULL) {
        sink_close(plain);
        return NULL;
    }
    d->base =
        (struct sink){.write = decoder_write, .finish = decoder_finish, .close = decoder_close};
    d->plain = plain;
    return d;
}

struct sink *lzop_decoder(struct sink *plain, struct lzop_map *map, struct err *err)
{
    struct decoder *d = new_decoder(plain, err);
    if (d == NULL)
        return NULL;
    if (map != NULL)
        *map = (struct lzop_map)LZOP_MAP_INIT;
    d->map = map;
    expect(d, PART_MAGIC, LZOP_MAGIC_SIZE);
    return &d->base;
}

struct sink *lzop_block_decoder(struct sink *plain, const struct lzop_map *map, size_t first,
                                size_t count, struct err *err)
{
    struct decoder *d = new_decoder(plain, err);
    if (d == NULL)
        return NULL;
    d->known = map;
    d->flags = map->flags;
    d->next_block = first;
    d->end_block = first + count;
    expect(d, PART_BLOCK_LENGTH, 4);
    if (map->regular && count > 0 && first < map->count && count <= map->count - first)
        return &d->base;
    err_set(err, ERR_INVALID, "the lzop stream's map has no such blocks");
    sink_close(&d->base);
    return NULL;
}
