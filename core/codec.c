#include "core/codec.h"

#include "core/lzop.h"

/* The coders own what they are put around, but the ends of the chain stay the caller's: these
 * stand in for them and close nothing. */

struct borrowed_source {
    struct source base;
    struct source *inner;
    const struct call *call;
};

static ssize_t borrowed_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct borrowed_source *b = (struct borrowed_source *)self;
    if (!call_alive(b->call, "coding", err))
        return -1;
    ssize_t got = b->inner->read(b->inner, buf, n, err);
    if (got > 0)
        call_progress(b->call);
    return got;
}

static void borrowed_source_close(struct source *self)
{
    (void)self;
}

static struct borrowed_source borrow_source(struct source *inner, const struct call *call)
{
    return (struct borrowed_source){
        .base = {.read = borrowed_read, .close = borrowed_source_close},
        .inner = inner,
        .call = call,
    };
}

struct borrowed_sink {
    struct sink base;
    struct sink *inner;
};

static bool borrowed_write(struct sink *self, const void *buf, size_t n, struct err *err)
{
    struct borrowed_sink *b = (struct borrowed_sink *)self;
    return b->inner->write(b->inner, buf, n, err);
}

static bool borrowed_finish(struct sink *self, struct err *err)
{
    struct borrowed_sink *b = (struct borrowed_sink *)self;
    return b->inner->finish(b->inner, err);
}

static void borrowed_sink_close(struct sink *self)
{
    (void)self;
}

static struct borrowed_sink borrow_sink(struct sink *inner)
{
    return (struct borrowed_sink){
        .base = {.write = borrowed_write, .finish = borrowed_finish, .close = borrowed_sink_close},
        .inner = inner,
    };
}

/* Foreground when it waits: somebody's close() waits for this object. */
static bool reserve_for_encode(struct openpgp *pgp, bool live, const struct call *call,
                               struct err *err)
{
    if (!live)
        return openpgp_reserve(pgp, OPENPGP_FOREGROUND, call, err);
    if (!openpgp_try_reserve(pgp))
        return err_set(err, ERR_THROTTLED, "all gpg processes are busy");
    return true;
}

static bool encrypt(struct openpgp *pgp, struct source *lzop, struct sink *out, bool live,
                    const struct call *call, struct err *err)
{
    if (!reserve_for_encode(pgp, live, call, err))
        return false;
    bool ok = openpgp_encrypt(pgp, lzop, out, call, err);
    openpgp_release(pgp);
    return ok;
}

bool codec_encode(struct openpgp *pgp, struct source *plain, struct sink *out, bool live,
                  struct codec_facts *facts, const struct call *call, struct err *err)
{
    struct borrowed_source in = borrow_source(plain, call);
    if (facts != NULL)
        *facts = (struct codec_facts){.encrypted = openpgp_encrypts(pgp)};
    struct source *lzop = lzop_encoder(&in.base, facts == NULL ? NULL : &facts->map, err);
    if (lzop == NULL)
        return false;
    bool ok = openpgp_encrypts(pgp) ? encrypt(pgp, lzop, out, live, call, err)
                                    : stream_copy(lzop, out, err);
    source_close(lzop);
    return ok && out->finish(out, err);
}

/* Reading lzop's magic also tells it from OpenPGP: its first byte is no tag of an encrypted
 * message. */
struct first_bytes {
    char data[LZOP_MAGIC_SIZE];
    size_t len;
};

static bool decrypt(struct openpgp *pgp, struct source *coded, struct sink *lzop,
                    enum openpgp_priority priority, const struct call *call, struct err *err)
{
    if (!openpgp_reserve(pgp, priority, call, err))
        return false;
    bool ok = openpgp_decrypt(pgp, coded, lzop, call, err);
    openpgp_release(pgp);
    return ok;
}

static bool decode_by_first_bytes(struct openpgp *pgp, const struct first_bytes *first,
                                  struct source *coded, struct sink *lzop,
                                  enum openpgp_priority priority, const struct call *call,
                                  struct err *err)
{
    if (lzop_is_magic(first->data, first->len))
        return stream_copy(coded, lzop, err);
    if (openpgp_is_message(first->data, first->len))
        return decrypt(pgp, coded, lzop, priority, call, err);
    return err_set(err, ERR_CORRUPT, "neither OpenPGP nor lzop: damaged, or not written by WAL-E");
}

bool codec_decode(struct openpgp *pgp, struct source *coded, struct sink *out,
                  enum openpgp_priority priority, struct codec_facts *facts,
                  const struct call *call, struct err *err)
{
    struct borrowed_source in = borrow_source(coded, call);
    struct first_bytes first;
    if (facts != NULL)
        *facts = (struct codec_facts){.encrypted = false};
    ssize_t n = source_read_full(&in.base, first.data, sizeof(first.data), err);
    if (n < 0)
        return false;
    if (n == 0)
        return err_set(err, ERR_CORRUPT, "the object is empty");
    first.len = (size_t)n;
    if (facts != NULL)
        facts->encrypted = !lzop_is_magic(first.data, first.len);
    struct source *whole = source_prepend(first.data, first.len, &in.base, err);
    if (whole == NULL)
        return false;
    struct borrowed_sink plain = borrow_sink(out);
    struct sink *lzop = lzop_decoder(&plain.base, facts == NULL ? NULL : &facts->map, err);
    /* the decoder's finish is what finishes OUT: only after gpg's verdict, and after its own */
    bool ok = lzop != NULL &&
              decode_by_first_bytes(pgp, &first, whole, lzop, priority, call, err) &&
              lzop->finish(lzop, err);
    sink_close(lzop);
    source_close(whole);
    return ok;
}

bool codec_decode_blocks(struct source *coded, const struct lzop_map *map, size_t first,
                         size_t count, struct sink *out, const struct call *call, struct err *err)
{
    struct borrowed_source in = borrow_source(coded, call);
    struct borrowed_sink plain = borrow_sink(out);
    struct sink *lzop = lzop_block_decoder(&plain.base, map, first, count, err);
    bool ok = lzop != NULL && stream_copy(&in.base, lzop, err) && lzop->finish(lzop, err);
    sink_close(lzop);
    return ok;
}
