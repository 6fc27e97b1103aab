/* The stored form of an index: lines of tab-separated fields.
 *
 *   walefs-index 1
 *   P number etag stored_size encrypted plain_size block_size flags regular blocks
 *   B offset...            of the blocks of the partition above, each as the distance to the one
 *                          before it
 *   M type partition offset size mode uid gid mtime_s mtime_ns path link
 *   E sha256               of everything above this line
 *
 * A partition in M is a place among the P lines. Bytes below space, above '~' and backslashes in
 * strings are written \xHH. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_index.h"
#include "core/buf.h"

#define FIRST_LINE "walefs-index\t1"
#define NAME_OF_FORMAT "walefs-index\t"
#define LINE_MAX_BYTES (64u << 10)
#define OFFSETS_A_LINE 512u
#define CHUNK (128u << 10)
#define HEX_BYTES 64u

static const char type_letters[] = "fdlh"; /* by enum member_type */

static void hex(const unsigned char *sum, char out[HEX_BYTES + 1])
{
    for (size_t i = 0; i < HEX_BYTES / 2; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

/* ---- writing ---- */

struct writer {
    struct source base;
    const struct backup_index *index;
    EVP_MD_CTX *sum;
    struct buf buf; /* written lines, from pos on not yet handed out */
    size_t pos;
    size_t partition, block, member; /* what comes next */
    bool begun, ended;
};

static bool put_string(struct buf *b, const char *s)
{
    bool ok = true;
    for (; ok && *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c <= ' ' || c > '~' || c == '\\')
            ok = buf_printf(b, "\\x%02x", c);
        else
            ok = buf_append(b, s, 1);
    }
    return ok;
}

static bool put_partition(struct buf *b, const struct index_partition *p)
{
    return buf_printf(b, "P\t%u\t", p->number) && put_string(b, p->etag) &&
           buf_printf(b, "\t%" PRIu64 "\t%d\t%" PRIu64 "\t%" PRIu32 "\t%" PRIu32 "\t%d\t%zu\n",
                      p->stored_size, p->encrypted, p->map.plain_size, p->map.block_size,
                      p->map.flags, p->map.regular, p->map.count);
}

static bool put_blocks(struct buf *b, const struct lzop_map *map, size_t *block)
{
    bool ok = buf_puts(b, "B");
    for (size_t i = 0; ok && i < OFFSETS_A_LINE && *block < map->count; i++, (*block)++) {
        uint64_t before = *block == 0 ? 0 : map->offsets[*block - 1];
        ok = buf_printf(b, "\t%" PRIu64, map->offsets[*block] - before);
    }
    return ok && buf_puts(b, "\n");
}

static bool put_member(struct buf *b, const struct member *m)
{
    return buf_printf(b,
                      "M\t%c\t%" PRIu32 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIo32 "\t%" PRIu32
                      "\t%" PRIu32 "\t%" PRId64 "\t%" PRIu32 "\t",
                      type_letters[m->type], m->partition, m->offset, m->size, m->mode, m->uid,
                      m->gid, m->mtime_s, m->mtime_ns) &&
           put_string(b, m->path) && buf_puts(b, "\t") && put_string(b, m->link) &&
           buf_puts(b, "\n");
}

/* The next line; what is appended is summed by the caller. */
static bool put_line(struct writer *w)
{
    const struct backup_index *index = w->index;
    if (!w->begun) {
        w->begun = true;
        return buf_puts(&w->buf, FIRST_LINE "\n");
    }
    if (w->partition < index->partition_count) {
        const struct index_partition *p = &index->partitions[w->partition];
        bool ok = w->block == 0 ? put_partition(&w->buf, p) : true;
        ok = ok && (w->block >= p->map.count || put_blocks(&w->buf, &p->map, &w->block));
        if (w->block >= p->map.count) {
            w->partition++;
            w->block = 0;
        }
        return ok;
    }
    return put_member(&w->buf, &index->members[w->member++]);
}

static bool put_end(struct writer *w)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    char text[HEX_BYTES + 1];
    w->ended = true;
    if (EVP_DigestFinal_ex(w->sum, sum, NULL) != 1)
        return false;
    hex(sum, text);
    return buf_printf(&w->buf, "E\t%s\n", text);
}

static bool fill(struct writer *w)
{
    w->buf.len = w->pos = 0;
    bool ok = true;
    while (ok && w->buf.len < CHUNK && w->member < w->index->count)
        ok = put_line(w);
    while (ok && w->buf.len < CHUNK && w->partition < w->index->partition_count)
        ok = put_line(w); /* an index without members */
    if (ok && !w->begun)
        ok = put_line(w);
    ok = ok && EVP_DigestUpdate(w->sum, w->buf.data, w->buf.len) == 1;
    if (ok && w->begun && w->member == w->index->count && w->partition == w->index->partition_count)
        ok = put_end(w);
    return ok;
}

static ssize_t writer_read(struct source *self, void *data, size_t n, struct err *err)
{
    struct writer *w = (struct writer *)self;
    if (w->pos == w->buf.len && !w->ended && !fill(w)) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return -1;
    }
    size_t left = w->buf.len - w->pos;
    n = n < left ? n : left;
    if (n > 0)
        memcpy(data, w->buf.data + w->pos, n);
    w->pos += n;
    return (ssize_t)n;
}

static void writer_close(struct source *self)
{
    struct writer *w = (struct writer *)self;
    EVP_MD_CTX_free(w->sum);
    buf_free(&w->buf);
    free(w);
}

struct source *backup_index_write(const struct backup_index *index, struct err *err)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (w != NULL) {
        w->base = (struct source){.read = writer_read, .close = writer_close};
        w->index = index;
        w->buf = (struct buf)BUF_INIT(CHUNK + 16 * LINE_MAX_BYTES);
        w->sum = EVP_MD_CTX_new();
        if (w->sum != NULL && EVP_DigestInit_ex(w->sum, EVP_sha256(), NULL) == 1)
            return &w->base;
        writer_close(&w->base);
    }
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

/* ---- reading ---- */

struct parser {
    struct source *text;
    struct backup_index *index;
    EVP_MD_CTX *sum;
    char *chunk;
    size_t begin, end; /* of what is in the chunk */
    size_t blocks_left;
    uint64_t line;
};

static bool damaged(const struct parser *p, const char *why, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "the index is damaged in line %" PRIu64 ": %s", p->line, why);
}

/* The next line, without its newline, NUL-terminated in the chunk; NULL with ERR. */
static char *next_line(struct parser *p, size_t *len, struct err *err)
{
    p->line++;
    for (;;) {
        char *from = p->chunk + p->begin;
        // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): there is a chunk)
        char *newline = memchr(from, '\n', p->end - p->begin);
        if (newline != NULL) {
            *newline = '\0';
            *len = (size_t)(newline - from);
            p->begin += *len + 1;
            return from;
        }
        memmove(p->chunk, from, p->end - p->begin);
        p->end -= p->begin;
        p->begin = 0;
        if (p->end == CHUNK) {
            damaged(p, "it is too long", err);
            return NULL;
        }
        ssize_t n = p->text->read(p->text, p->chunk + p->end, CHUNK - p->end, err);
        if (n == 0)
            damaged(p, "it ends too early", err);
        if (n <= 0)
            return NULL;
        p->end += (size_t)n;
    }
}

/* Cuts the field at *AT off, which must be there. */
static char *field(char **at)
{
    char *s = *at;
    if (s == NULL)
        return NULL;
    char *tab = strchr(s, '\t');
    if (tab != NULL)
        *tab = '\0';
    *at = tab == NULL ? NULL : tab + 1;
    return s;
}

static bool number_base(char **at, uint64_t max, int base, uint64_t *value)
{
    const char *s = field(at);
    if (s == NULL || *s < '0' || *s > '9')
        return false;
    char *end;
    errno = 0;
    *value = strtoull(s, &end, base);
    return errno == 0 && *end == '\0' && *value <= max;
}

static bool number(char **at, uint64_t max, uint64_t *value)
{
    return number_base(at, max, 10, value);
}

static bool signed_number(char **at, int64_t *value)
{
    const char *s = field(at);
    char *end;
    if (s == NULL || *s == '\0')
        return false;
    errno = 0;
    *value = strtoll(s, &end, 10);
    return errno == 0 && *end == '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A string field, its escapes resolved in place. NULL when it is not well-formed. */
static char *string(char **at)
{
    char *s = field(at);
    if (s == NULL)
        return NULL;
    char *out = s;
    for (const char *in = s; *in != '\0';) {
        if (*in != '\\') {
            *out++ = *in++;
            continue;
        }
        int high = in[1] == 'x' ? hex_digit(in[2]) : -1;
        int low = high < 0 ? -1 : hex_digit(in[3]);
        if (low < 0 || (high == 0 && low == 0))
            return NULL;
        *out++ = (char)(high << 4 | low);
        in += 4;
    }
    *out = '\0';
    return s;
}

static bool read_partition(struct parser *p, char *at, struct err *err)
{
    struct index_partition part = {.number = 0};
    uint64_t n, encrypted, block_size, flags, regular, blocks;
    if (p->blocks_left > 0)
        return damaged(p, "a partition lacks blocks", err);
    if (!number(&at, UINT32_MAX - 1, &n))
        return damaged(p, "no partition number", err);
    part.number = (unsigned)n;
    const char *etag = string(&at);
    if (etag == NULL || strlen(etag) >= sizeof(part.etag) ||
        !number(&at, INT64_MAX, &part.stored_size) || !number(&at, 1, &encrypted) ||
        !number(&at, INT64_MAX, &part.map.plain_size) || !number(&at, 64u << 20, &block_size) ||
        !number(&at, UINT32_MAX, &flags) || !number(&at, 1, &regular) ||
        !number(&at, UINT32_MAX, &blocks) || at != NULL)
        return damaged(p, "a partition's facts", err);
    strcpy(part.etag, etag);
    part.encrypted = encrypted == 1;
    part.map.block_size = (uint32_t)block_size;
    part.map.flags = (uint32_t)flags;
    part.map.regular = regular == 1;
    uint64_t want = block_size == 0 ? 0 : (part.map.plain_size + block_size - 1) / block_size;
    if (blocks != (part.map.regular ? want : 0) ||
        (part.map.regular && block_size == 0 && part.map.plain_size > 0))
        return damaged(p, "a partition's number of blocks", err);
    p->blocks_left = (size_t)blocks;
    return backup_index_add_partition(p->index, &part, err);
}

static bool read_blocks(struct parser *p, char *at, struct err *err)
{
    if (p->index->partition_count == 0)
        return damaged(p, "blocks of no partition", err);
    struct index_partition *part = &p->index->partitions[p->index->partition_count - 1];
    struct lzop_map *map = &part->map;
    while (at != NULL) {
        uint64_t distance;
        uint64_t before = map->count == 0 ? 0 : map->offsets[map->count - 1];
        if (p->blocks_left == 0 || !number(&at, INT64_MAX, &distance) || distance == 0 ||
            distance > (uint64_t)INT64_MAX - before)
            return damaged(p, "a block's offset", err);
        if ((map->count & (map->count - 1)) == 0) { /* grows with what is really there */
            size_t cap = map->count == 0 ? 1 : map->count * 2;
            uint64_t *offsets = realloc(map->offsets, cap * sizeof(*offsets));
            if (offsets == NULL)
                return err_set(err, ERR_NO_MEMORY, "out of memory");
            map->offsets = offsets;
        }
        map->offsets[map->count++] = before + distance;
        p->blocks_left--;
    }
    return true;
}

static bool read_member(struct parser *p, char *at, struct err *err)
{
    struct member m = {.type = MEMBER_FILE};
    uint64_t partition, mode, uid, gid, ns;
    const char *type = field(&at);
    if (p->blocks_left > 0)
        return damaged(p, "a partition lacks blocks", err);
    const char *letter =
        type == NULL || *type == '\0' || type[1] != '\0' ? NULL : strchr(type_letters, *type);
    if (letter == NULL || !number(&at, UINT32_MAX, &partition) ||
        !number(&at, INT64_MAX, &m.offset) || !number(&at, INT64_MAX, &m.size) ||
        !number_base(&at, 07777, 8, &mode) || !number(&at, UINT32_MAX, &uid) ||
        !number(&at, UINT32_MAX, &gid) || !signed_number(&at, &m.mtime_s) ||
        !number(&at, 999999999, &ns))
        return damaged(p, "a file's facts", err);
    m.type = (enum member_type)(letter - type_letters);
    m.path = string(&at);
    m.link = string(&at);
    if (m.path == NULL || m.link == NULL || at != NULL || partition >= p->index->partition_count)
        return damaged(p, "a file's name", err);
    uint64_t plain = p->index->partitions[partition].map.plain_size;
    if (m.offset > plain || m.size > plain - m.offset || (m.type != MEMBER_FILE && m.size > 0))
        return damaged(p, "a file's place", err);
    m.partition = (uint32_t)partition;
    m.mode = (uint32_t)mode;
    m.uid = (uint32_t)uid;
    m.gid = (uint32_t)gid;
    m.mtime_ns = (uint32_t)ns;
    if (backup_index_add(p->index, &m, err))
        return true;
    return err->code == ERR_NO_MEMORY ? false : damaged(p, "a file's name is not possible", err);
}

static bool read_end(struct parser *p, const char *at, struct err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    char text[HEX_BYTES + 1], more;
    if (EVP_DigestFinal_ex(p->sum, sum, NULL) != 1)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    hex(sum, text);
    if (p->blocks_left > 0 || strcmp(text, at) != 0)
        return damaged(p, "its checksum is wrong", err);
    ssize_t n = p->begin < p->end ? 1 : p->text->read(p->text, &more, 1, err);
    return n == 0 || (n > 0 && damaged(p, "something follows its end", err));
}

static bool read_first(struct parser *p, const char *line, struct err *err)
{
    if (strncmp(line, NAME_OF_FORMAT, strlen(NAME_OF_FORMAT)) != 0)
        return damaged(p, "it is no index", err);
    if (strcmp(line, FIRST_LINE) != 0)
        return err_set(err, ERR_UNSUPPORTED, "the index is of a newer walefs (%.40s)", line);
    return true;
}

static bool parse(struct parser *p, struct err *err)
{
    bool ended = false;
    while (!ended) {
        size_t len;
        char *line = next_line(p, &len, err);
        if (line == NULL)
            return false;
        if (strlen(line) != len)
            return damaged(p, "a NUL", err);
        // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): read into it)
        char kind = len >= 2 && line[1] == '\t' ? line[0] : '\0';
        bool sum_ok = true;
        if (kind != 'E') {
            line[len] = '\n'; /* as it was */
            sum_ok = EVP_DigestUpdate(p->sum, line, len + 1) == 1;
            line[len] = '\0';
        }
        bool ok;
        if (p->line == 1)
            ok = read_first(p, line, err);
        else if (kind == 'P')
            ok = read_partition(p, line + 2, err);
        else if (kind == 'B')
            ok = read_blocks(p, line + 2, err);
        else if (kind == 'M')
            ok = read_member(p, line + 2, err);
        else if (kind == 'E')
            ok = ended = read_end(p, line + 2, err);
        else
            ok = damaged(p, "an unknown line", err);
        if (!ok || !sum_ok)
            return ok ? err_set(err, ERR_NO_MEMORY, "out of memory") : false;
    }
    return true;
}

struct backup_index *backup_index_read(struct source *text, struct err *err)
{
    struct parser p = {.text = text,
                       .index = backup_index_new(err),
                       .sum = EVP_MD_CTX_new(),
                       .chunk = malloc(CHUNK)};
    bool ok = p.index != NULL;
    if (ok &&
        (p.sum == NULL || p.chunk == NULL || EVP_DigestInit_ex(p.sum, EVP_sha256(), NULL) != 1))
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    ok = ok && parse(&p, err) && backup_index_seal(p.index, err);
    if (!ok && err->code == ERR_INVALID)
        err->code = ERR_CORRUPT;
    EVP_MD_CTX_free(p.sum);
    free(p.chunk);
    if (ok)
        return p.index;
    backup_index_free(p.index);
    return NULL;
}
