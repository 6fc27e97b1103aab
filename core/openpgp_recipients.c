#include "core/openpgp_recipients.h"

#include <inttypes.h>
#include <stdint.h>

enum { TAG_SESSION_KEY = 1, TAG_SYMMETRIC_KEY = 3, TAG_MARKER = 10 };

struct packet {
    unsigned tag;
    size_t head, body; /* bytes */
};

static size_t big_endian(const uint8_t *p, size_t n)
{
    size_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* False for a length that is open-ended, as only the data's may be, or that is cut off. */
static bool parse_head(const uint8_t *p, size_t n, struct packet *out)
{
    if (n < 2 || (p[0] & 0x80) == 0)
        return false;
    if ((p[0] & 0x40) == 0) { /* the old form */
        size_t length_bytes = (size_t)1 << (p[0] & 3);
        *out = (struct packet){.tag = p[0] >> 2 & 0x0fu, .head = 1 + length_bytes};
        if (length_bytes > 4 || n < out->head)
            return false;
        out->body = big_endian(p + 1, length_bytes);
        return true;
    }
    *out = (struct packet){.tag = p[0] & 0x3fu};
    out->head = p[1] < 192 ? 2 : p[1] < 224 ? 3 : p[1] == 255 ? 6 : 0;
    if (out->head == 0 || n < out->head)
        return false;
    out->body = out->head == 2   ? p[1]
                : out->head == 3 ? ((size_t)(p[1] - 192) << 8) + p[2] + 192
                                 : big_endian(p + 2, 4);
    return true;
}

/* A public-key encrypted session key: version 3, then the key's id. */
static bool put_key_id(const uint8_t *body, size_t n, struct buf *out)
{
    uint64_t id = 0;
    if (n < 9 || body[0] != 3)
        return buf_puts(out, "unknown");
    for (size_t i = 1; i < 9; i++)
        id = id << 8 | body[i];
    return id == 0 ? buf_puts(out, "anonymous") : buf_printf(out, "%016" PRIX64, id);
}

bool openpgp_recipients(const void *message, size_t n, struct buf *out)
{
    const uint8_t *p = message;
    struct packet packet;
    bool any = false;
    while (parse_head(p, n, &packet)) {
        size_t have = n - packet.head < packet.body ? n - packet.head : packet.body;
        if (packet.tag != TAG_SESSION_KEY && packet.tag != TAG_SYMMETRIC_KEY &&
            packet.tag != TAG_MARKER)
            break;
        if (packet.tag != TAG_MARKER) {
            if (any && !buf_puts(out, " "))
                return false;
            if (packet.tag == TAG_SESSION_KEY ? !put_key_id(p + packet.head, have, out)
                                              : !buf_puts(out, "passphrase"))
                return false;
            any = true;
        }
        if (packet.body >= n - packet.head)
            break;
        p += packet.head + packet.body;
        n -= packet.head + packet.body;
    }
    return any;
}
