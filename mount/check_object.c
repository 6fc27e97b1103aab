/* One object of a deep check: fetched, decoded, and its content verified for what it is.
 *
 * Decoders push, and those who read a tar or an index pull: between them is a pipe, whose other end
 * has a thread of its own. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/codec.h"
#include "core/pipe.h"
#include "core/tar_read.h"
#include "core/wal_pages.h"
#include "mount/check_impl.h"

#define PIPE_BYTES ((size_t)1 << 20)

/* ---- counting what comes ---- */

struct counted {
    struct source base;
    struct source *inner;
    _Atomic uint64_t *progress;
};

static ssize_t counted_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct counted *s = (struct counted *)self;
    ssize_t got = s->inner->read(s->inner, buf, n, err);
    if (got > 0)
        *s->progress += (uint64_t)got;
    return got;
}

static void counted_close(struct source *self)
{
    (void)self;
}

bool check_decode(struct store *store, struct openpgp *pgp, const struct check_object *o,
                  struct sink *out, _Atomic uint64_t *progress, const struct call *call,
                  struct err *err)
{
    struct store_info info;
    struct codec_facts facts = {.encrypted = false};
    struct source *src = store->ops->get(store, o->key, 0, UINT64_MAX, &info, call, err);
    if (src == NULL)
        return false;
    struct counted counted = {
        .base = {.read = counted_read, .close = counted_close}, .inner = src, .progress = progress};
    bool ok = codec_decode(pgp, &counted.base, out, OPENPGP_BACKGROUND, &facts, call, err);
    lzop_map_free(&facts.map);
    source_close(src);
    return ok || err_context(err, "%s", o->key);
}

/* ---- WAL files ---- */

static bool check_segment(struct store *store, struct openpgp *pgp, const struct check_object *o,
                          _Atomic uint64_t *progress, const struct call *call, struct err *err)
{
    struct wal_pages *pages = malloc(sizeof(*pages));
    if (pages == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    wal_pages_init(pages, o->name, o->newest);
    bool ok = check_decode(store, pgp, o, &pages->base, progress, call, err);
    free(pages);
    return ok;
}

static bool text_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct check_text *t = (struct check_text *)self;
    return buf_append(&t->text, data, n) ||
           err_set(err, ERR_CORRUPT, "it is longer than such a file can be");
}

static bool text_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void text_close(struct sink *self)
{
    (void)self;
}

void check_text_init(struct check_text *t)
{
    *t = (struct check_text){
        .base = {.write = text_write, .finish = text_finish, .close = text_close},
        .text = BUF_INIT(WAL_TEXT_MAX)};
}

static bool check_text(struct store *store, struct openpgp *pgp, const struct check_object *o,
                       _Atomic uint64_t *progress, const struct call *call, struct err *err)
{
    struct check_text t;
    struct err why = ERR_INIT;
    check_text_init(&t);
    bool ok = check_decode(store, pgp, o, &t.base, progress, call, err);
    const char *text = buf_str(&t.text);
    if (ok && !(o->kind == CHECK_HISTORY ? wal_history_check(o->name, text, t.text.len, &why)
                                         : wal_label_check(o->name, text, t.text.len, &why)))
        ok = err_set(err, ERR_CORRUPT, "%s: %s", o->key, why.text);
    buf_free(&t.text);
    return ok;
}

/* ---- parts of a backup ---- */

struct part {
    const struct check_object *object;
    struct pipe *pipe;
    const struct call *call;
    bool ok;
    struct err err;
};

static bool read_tar(struct source *plain, const char *what, struct err *err)
{
    struct tar_reader *tar = tar_reader_new(plain, what, err);
    struct member m;
    bool known;
    int rc = tar == NULL ? -1 : 1;
    while (rc > 0 && (rc = tar_reader_next(tar, &m, &known, err)) > 0)
        if (!tar_reader_skip(tar, &m, &m.offset, err))
            rc = -1;
    bool ok = rc == 0 && tar_reader_finish(tar, err);
    tar_reader_free(tar);
    return ok;
}

static void *read_part(void *arg)
{
    struct part *part = arg;
    struct source *plain = pipe_source(part->pipe, part->call);
    if (part->object->kind == CHECK_INDEX) {
        struct backup_index *index = backup_index_read(plain, &part->err);
        part->ok = index != NULL;
        backup_index_free(index);
    } else {
        part->ok = read_tar(plain, part->object->key, &part->err);
    }
    if (!part->ok)
        pipe_fail(part->pipe, &part->err);
    source_close(plain);
    return NULL;
}

/* What goes into the pipe, hashed. */
struct hashed {
    struct sink base;
    struct sink *pipe;
    EVP_MD_CTX *sha256;
    const char *wanted; /* hexadecimal; NULL: any */
};

static bool hashed_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct hashed *h = (struct hashed *)self;
    if (EVP_DigestUpdate(h->sha256, data, n) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    return h->pipe->write(h->pipe, data, n, err);
}

static bool hashed_finish(struct sink *self, struct err *err)
{
    struct hashed *h = (struct hashed *)self;
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n;
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    if (EVP_DigestFinal_ex(h->sha256, sum, &n) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    for (unsigned i = 0; i < n; i++)
        (void)snprintf(text + (size_t)2 * i, 3, "%02x", sum[i]);
    if (h->wanted != NULL && strcasecmp(text, h->wanted) != 0)
        return err_set(err, ERR_CORRUPT,
                       "its content is not what the backup's sentinel has the checksum of");
    return h->pipe->finish(h->pipe, err);
}

static void hashed_close(struct sink *self)
{
    (void)self;
}

static bool check_part(struct store *store, struct openpgp *pgp, const struct check_object *o,
                       _Atomic uint64_t *progress, const struct call *call, struct err *err)
{
    struct part part = {.object = o, .pipe = pipe_new(PIPE_BYTES, err), .call = call};
    if (part.pipe == NULL)
        return false;
    struct hashed h = {
        .base = {.write = hashed_write, .finish = hashed_finish, .close = hashed_close},
        .pipe = pipe_sink(part.pipe, call),
        .sha256 = EVP_MD_CTX_new(),
        .wanted = o->sha256};
    pthread_t reader;
    int rc = pthread_create(&reader, NULL, read_part, &part);
    bool ok = rc == 0 || err_sys(err, rc, "cannot start a thread");
    if (ok && (h.sha256 == NULL || EVP_DigestInit_ex(h.sha256, EVP_sha256(), NULL) != 1))
        ok = err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    ok = ok && check_decode(store, pgp, o, &h.base, progress, call, err);
    sink_close(h.pipe);
    if (rc == 0)
        (void)pthread_join(reader, NULL);
    else
        source_close(pipe_source(part.pipe, call));
    EVP_MD_CTX_free(h.sha256);
    if (ok && !part.ok) {
        *err = part.err;
        ok = err_context(err, "%s", o->key);
    }
    return ok;
}

bool check_object(struct store *store, struct openpgp *pgp, const struct check_object *o,
                  _Atomic uint64_t *progress, const struct call *call, struct err *err)
{
    switch (o->kind) {
    case CHECK_SEGMENT:
        return check_segment(store, pgp, o, progress, call, err);
    case CHECK_HISTORY:
    case CHECK_LABEL:
        return check_text(store, pgp, o, progress, call, err);
    case CHECK_DUMP:
        return check_dump(store, pgp, o, progress, call, err);
    default:
        return check_part(store, pgp, o, progress, call, err);
    }
}
