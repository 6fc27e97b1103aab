#include "core/openpgp_frames.h"

enum {
    TAG_SESSION_KEY = 1,
    TAG_SYMMETRIC_KEY = 3,
    TAG_OLD_DATA = 9,
    TAG_MARKER = 10,
    TAG_DATA = 18,
    TAG_AEAD = 20
};

#define OLD_INDEFINITE 3u

static bool is_new(const struct openpgp_frames *f)
{
    return (f->head[0] & 0x40) != 0;
}

static unsigned tag_of(const struct openpgp_frames *f)
{
    return is_new(f) ? f->head[0] & 0x3fu : f->head[0] >> 2 & 0x0fu;
}

/* Is the length partial or indefinite, as only data may have it? */
static bool is_open_ended(const struct openpgp_frames *f)
{
    if (!is_new(f))
        return (f->head[0] & 3u) == OLD_INDEFINITE;
    return f->have >= 2 && f->head[1] >= 224 && f->head[1] < 255;
}

/* How many bytes the header has, as far as that can be told. */
static unsigned header_bytes(const struct openpgp_frames *f)
{
    if (!is_new(f))
        return 1 + (1u << (f->head[0] & 3u));
    if (f->have < 2 || f->head[1] < 192)
        return 2;
    return f->head[1] == 255 ? 6 : 3;
}

static uint64_t body_bytes(const struct openpgp_frames *f)
{
    if (is_new(f) && f->head[1] < 192)
        return f->head[1];
    if (is_new(f) && f->head[1] < 224)
        return ((uint64_t)(f->head[1] - 192u) << 8) + f->head[2] + 192;
    uint64_t length = 0;
    for (unsigned i = is_new(f) ? 2 : 1; i < f->have; i++)
        length = length << 8 | f->head[i];
    return length;
}

/* One byte of a header. */
static void take(struct openpgp_frames *f, uint8_t byte)
{
    f->head[f->have++] = byte;
    if (f->have == 1) {
        unsigned tag = tag_of(f);
        f->data = (byte & 0x80) != 0 && (tag == TAG_DATA || tag == TAG_AEAD || tag == TAG_OLD_DATA);
        f->aead = f->data && tag == TAG_AEAD;
        f->broken =
            !f->data && ((byte & 0x80) == 0 ||
                         (tag != TAG_SESSION_KEY && tag != TAG_SYMMETRIC_KEY && tag != TAG_MARKER));
    }
    if (!f->data && is_open_ended(f))
        f->broken = true;
    if (f->data || f->broken || f->have < header_bytes(f))
        return;
    f->skip = body_bytes(f);
    f->have = 0;
}

void openpgp_frames_feed(struct openpgp_frames *f, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n > 0 && !f->data && !f->broken) {
        if (f->skip == 0) {
            take(f, *p++);
            n--;
            continue;
        }
        size_t some = f->skip < n ? (size_t)f->skip : n;
        f->skip -= some;
        p += some;
        n -= some;
    }
}
