/* libFuzzer target for the lzop decoder. The first byte of the input chooses how the rest is cut
 * into pieces. The verdict and the plain bytes must not depend on that, finish must come only after
 * a whole stream, and what the decoder holds must be in proportion to what it was given. */
#include <stdio.h>
#include <stdlib.h>

#include "core/lzop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct digest_sink {
    struct sink base;
    uint64_t hash, bytes;
    bool finished;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

static bool digest_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    (void)err;
    struct digest_sink *s = (struct digest_sink *)self;
    const unsigned char *p = data;
    must(!s->finished, "no bytes after finish");
    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ p[i]) * 0x100000001b3u; /* FNV-1a */
    s->bytes += n;
    return true;
}

static bool digest_finish(struct sink *self, struct err *err)
{
    (void)err;
    struct digest_sink *s = (struct digest_sink *)self;
    must(!s->finished, "one finish at most");
    s->finished = true;
    return true;
}

static void digest_close(struct sink *self)
{
    (void)self;
}

static bool decode(const uint8_t *data, size_t size, size_t piece, struct digest_sink *out,
                   struct err *err)
{
    *out = (struct digest_sink){
        .base = {.write = digest_write, .finish = digest_finish, .close = digest_close},
        .hash = 0xcbf29ce484222325u,
    };
    struct sink *dec = lzop_decoder(&out->base, NULL, err);
    must(dec != NULL, "the decoder starts");
    bool ok = true;
    for (size_t pos = 0; ok && pos < size; pos += piece) {
        size_t n = size - pos < piece ? size - pos : piece;
        ok = dec->write(dec, data + pos, n, err);
    }
    ok = ok && dec->finish(dec, err);
    sink_close(dec);
    must(ok == out->finished, "finish is passed on exactly when all is well");
    must(ok == (err->code == ERR_NONE), "an error is set exactly on failure");
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    static const size_t pieces[] = {1, 2, 3, 5, 13, 64, 1000, 65536};
    size_t piece = pieces[data[0] % (sizeof(pieces) / sizeof(pieces[0]))];
    data++;
    size--;

    struct digest_sink whole, cut;
    struct err whole_err = ERR_INIT, cut_err = ERR_INIT;
    bool ok = decode(data, size, SIZE_MAX - size, &whole, &whole_err);
    must(ok == decode(data, size, piece, &cut, &cut_err), "the same verdict however it is cut");
    must(whole.hash == cut.hash && whole.bytes == cut.bytes, "the same bytes however it is cut");
    must(whole_err.code == cut_err.code, "the same error however it is cut");
    must(whole.bytes <= 255 * (uint64_t)size, "no more than LZO can yield");
    return 0;
}
