#include <lzo/lzo1x.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/lzop.h"
#include "core/lzop_format.h"

/* What LZO1X may make of N bytes that do not shrink (LZO.FAQ). */
#define LZO_WORST_CASE(n) ((n) + (n) / 16 + 64 + 3)

#define HEADER_SIZE (LZOP_MAGIC_SIZE + 29)
#define BLOCK_HEAD_SIZE 12u
#define LZOP_LEVEL 5 /* what lzop notes for its default, -3 */
/* Fixed, and not the library that is linked: equal content must give equal headers everywhere. */
#define LZO_LIB_VERSION 0x20a0
#define HEADER_FLAGS (LZOP_F_OS_UNIX | LZOP_F_ADLER32_D | LZOP_F_STDIN | LZOP_F_STDOUT)

/* Output is handed out in two pieces: a head (stream header, a block's lengths and checksum, the
 * final zero word) and the block's bytes, which are taken from where they are. */
struct encoder {
    struct source base;
    struct source *plain;
    struct lzop_map *map; /* may be NULL */
    uint64_t made;        /* bytes of the stream before the piece at hand */
    size_t head_len, head_pos;
    const unsigned char *body; /* into coded, or into block when that is stored */
    size_t body_len;
    bool plain_ended, ended, failed;
    struct err failure; /* repeated by every read after it */
    unsigned char head[HEADER_SIZE];
    unsigned char block[LZOP_BLOCK_SIZE];
    unsigned char coded[LZO_WORST_CASE(LZOP_BLOCK_SIZE)];
    lzo_align_t work[LZO1X_1_MEM_COMPRESS / sizeof(lzo_align_t)];
};

static int library_status;

static void init_library(void)
{
    library_status = lzo_init();
}

bool lzop_library_init(struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_library);
    if (library_status != LZO_E_OK)
        return err_set(err, ERR_UNSUPPORTED,
                       "liblzo2 does not fit this program (lzo_init: %d): reinstall liblzo2",
                       library_status);
    return true;
}

static void make_stream_header(struct encoder *e)
{
    static const unsigned char fixed[] = {
        LZOP_VERSION >> 8,
        LZOP_VERSION & 0xff,
        LZO_LIB_VERSION >> 8,
        LZO_LIB_VERSION & 0xff,
        LZOP_VERSION_LONG_HEADER >> 8, /* needed to extract */
        LZOP_VERSION_LONG_HEADER & 0xff,
        LZOP_LZO1X_1,
        LZOP_LEVEL,
    };
    unsigned char *p = e->head;
    memcpy(p, LZOP_MAGIC_BYTES, LZOP_MAGIC_SIZE);
    p += LZOP_MAGIC_SIZE;
    const unsigned char *summed = p;
    memcpy(p, fixed, sizeof(fixed));
    p += sizeof(fixed);
    p = lzop_put32(p, HEADER_FLAGS);
    p = lzop_put32(p, 0); /* mode: lzop knows none for a pipe either */
    p = lzop_put32(p, 0); /* mtime */
    p = lzop_put32(p, 0); /* mtime, high word */
    *p++ = 0;             /* length of the name */
    p = lzop_put32(p, lzo_adler32(LZOP_ADLER32_INIT, summed, (lzo_uint)(p - summed)));
    e->head_len = (size_t)(p - e->head);
}

static bool make_block(struct encoder *e, size_t n, struct err *err)
{
    lzo_uint coded_len = sizeof(e->coded);
    int rc = lzo1x_1_compress(e->block, n, e->coded, &coded_len, e->work);
    if (rc != LZO_E_OK)
        return err_set(err, ERR_LOCAL, "lzo1x_1_compress failed with %d", rc);
    e->body = coded_len < n ? e->coded : e->block;
    e->body_len = coded_len < n ? coded_len : n;
    unsigned char *p = e->head;
    p = lzop_put32(p, (uint32_t)n);
    p = lzop_put32(p, (uint32_t)e->body_len);
    lzop_put32(p, lzop_adler32(e->block, n));
    e->head_len = BLOCK_HEAD_SIZE;
    if (e->map != NULL && !lzop_map_add(e->map, e->made, (uint32_t)n, err))
        return false;
    e->made += e->head_len + e->body_len;
    return true;
}

/* Called with nothing left to hand out. */
static bool make_next_piece(struct encoder *e, struct err *err)
{
    size_t n = 0;
    if (!e->plain_ended) {
        ssize_t got = source_read_full(e->plain, e->block, sizeof(e->block), err);
        if (got < 0)
            return false;
        n = (size_t)got;
        e->plain_ended = n < sizeof(e->block);
    }
    e->head_pos = 0;
    if (n > 0)
        return make_block(e, n, err);
    lzop_put32(e->head, 0);
    e->head_len = 4;
    e->ended = true;
    return true;
}

/* Copies what is at hand to BUF. */
static size_t hand_out(struct encoder *e, unsigned char *buf, size_t n)
{
    size_t head = e->head_len - e->head_pos;
    if (head > n)
        head = n;
    memcpy(buf, e->head + e->head_pos, head);
    e->head_pos += head;
    size_t body = n - head < e->body_len ? n - head : e->body_len;
    if (body > 0) {
        memcpy(buf + head, e->body, body);
        e->body += body;
        e->body_len -= body;
    }
    return head + body;
}

static ssize_t encoder_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct encoder *e = (struct encoder *)self;
    if (e->failed) {
        *err = e->failure;
        return -1;
    }
    size_t have = 0;
    while (have < n) {
        size_t got = hand_out(e, (unsigned char *)buf + have, n - have);
        have += got;
        if (got > 0)
            continue;
        /* what is there goes out first: the next block may be a slow writer away */
        if (have > 0 || e->ended)
            break;
        if (!make_next_piece(e, err)) {
            e->failed = true;
            e->failure = *err;
            return -1;
        }
    }
    return (ssize_t)have;
}

static void encoder_close(struct source *self)
{
    struct encoder *e = (struct encoder *)self;
    source_close(e->plain);
    free(e);
}

struct source *lzop_encoder(struct source *plain, struct lzop_map *map, struct err *err)
{
    struct encoder *e = NULL;
    if (!lzop_library_init(err))
        goto fail;
    e = malloc(sizeof(*e));
    if (e == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        goto fail;
    }
    e->base = (struct source){.read = encoder_read, .close = encoder_close};
    e->plain = plain;
    e->head_pos = 0;
    e->body = NULL;
    e->body_len = 0;
    e->plain_ended = e->ended = e->failed = false;
    e->map = map;
    if (map != NULL)
        lzop_map_begin(map, HEADER_FLAGS);
    make_stream_header(e);
    e->made = e->head_len;
    return &e->base;
fail:
    source_close(plain);
    return NULL;
}
