/* backup_manifest, as PostgreSQL 13 and later write it: a JSON object whose last line holds the
 * SHA-256 of all lines above it, and whose WAL ranges stand just before that. Each
 * file has a line of its own, so that the length of the whole does not matter. */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backup_facts.h"
#include "core/backup_index.h"
#include "core/spool.h"

#define TAIL_BYTES (64u << 10)
#define CHUNK (256u << 10)
#define CHECKSUM_NAME "\"Manifest-Checksum\": \""
#define RANGES_NAME "\"WAL-Ranges\": "
#define FILES_NAME "\"Files\": ["

static bool sum_of(int fd, uint64_t size, char hex[65], struct err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    char *chunk = malloc(CHUNK);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = chunk != NULL && ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    for (uint64_t pos = 0; ok && pos < size;) {
        size_t want = size - pos < CHUNK ? (size_t)(size - pos) : CHUNK;
        ssize_t n = spool_read(fd, chunk, want, pos, err);
        if (n <= 0 || EVP_DigestUpdate(ctx, chunk, (size_t)n) != 1)
            ok = n < 0 ? false : err_set(err, ERR_LOCAL, "a staged manifest was cut");
        pos += n > 0 ? (uint64_t)n : 0;
    }
    if (ok && EVP_DigestFinal_ex(ctx, sum, NULL) != 1)
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; ok && i < 32; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    EVP_MD_CTX_free(ctx);
    free(chunk);
    return ok;
}

static const char *last_of(const char *text, const char *what)
{
    const char *found = NULL;
    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
        found = at;
    return found;
}

static bool read_lsn(const json_t *value, uint32_t tli, struct backup_position *out)
{
    const char *text = json_string_value(value);
    unsigned high, low;
    if (text == NULL || sscanf(text, "%8X/%8X", &high, &low) != 2)
        return false;
    *out = (struct backup_position){.tli = tli, .lsn = (uint64_t)high << 32 | low};
    return true;
}

/* From the begin of the oldest timeline's range to the end of the newest one's. */
static bool read_ranges(const char *text, struct manifest_range *out)
{
    json_t *ranges = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    for (size_t i = 0; i < json_array_size(ranges); i++) {
        const json_t *r = json_array_get(ranges, i);
        json_int_t tli = json_integer_value(json_object_get(r, "Timeline"));
        struct backup_position start, stop;
        if (tli <= 0 || tli > (json_int_t)UINT32_MAX ||
            !read_lsn(json_object_get(r, "Start-LSN"), (uint32_t)tli, &start) ||
            !read_lsn(json_object_get(r, "End-LSN"), (uint32_t)tli, &stop))
            continue;
        if (out->start.tli == 0 || start.tli < out->start.tli)
            out->start = start;
        if (stop.tli >= out->stop.tli)
            out->stop = stop;
    }
    json_decref(ranges);
    return out->stop.tli != 0;
}

static bool check_tail(int fd, uint64_t begin, char *tail, struct manifest_range *out,
                       struct err *err)
{
    char hex[65];
    const char *line = last_of(tail, CHECKSUM_NAME), *ranges = last_of(tail, RANGES_NAME);
    if (line == NULL || ranges == NULL || ranges > line)
        return err_set(err, ERR_INVALID, "backup_manifest is not complete");
    if (!sum_of(fd, begin + (uint64_t)(line - tail), hex, err))
        return false;
    if (strncmp(line + strlen(CHECKSUM_NAME), hex, 64) != 0)
        return err_set(err, ERR_INVALID, "backup_manifest fails its own checksum");
    return read_ranges(ranges + strlen(RANGES_NAME), out) ||
           err_set(err, ERR_INVALID, "backup_manifest names no WAL range");
}

bool manifest_check(int fd, uint64_t size, struct manifest_range *out, struct err *err)
{
    uint64_t begin = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
    char *tail = malloc(TAIL_BYTES + 1);
    if (tail == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    memset(out, 0, sizeof(*out));
    ssize_t n = spool_read(fd, tail, TAIL_BYTES, begin, err);
    bool ok = n >= 0;
    if (ok) {
        tail[n] = '\0';
        ok = check_tail(fd, begin, tail, out, err);
    }
    free(tail);
    return ok;
}

/* ---- its files ---- */

#define LINE_MAX_BYTES (64u << 10)

/* Lines of a file. */
struct lines {
    int fd;
    uint64_t at, size; /* what has been read of it */
    size_t begin, end; /* what is unused in data */
    char data[LINE_MAX_BYTES + 1];
};

/* The next line, with a NUL for its end, or NULL at the end of the file or with an error. */
static char *next_line(struct lines *l, struct err *err)
{
    char *newline;
    while ((newline = memchr(l->data + l->begin, '\n', l->end - l->begin)) == NULL &&
           l->at < l->size) {
        memmove(l->data, l->data + l->begin, l->end - l->begin);
        l->end -= l->begin;
        l->begin = 0;
        size_t room = LINE_MAX_BYTES - l->end;
        size_t want = l->size - l->at < room ? (size_t)(l->size - l->at) : room;
        ssize_t n = want == 0 ? 0 : spool_read(l->fd, l->data + l->end, want, l->at, err);
        if (n == 0)
            err_set(err, ERR_INVALID, "backup_manifest has a line that is too long");
        if (n <= 0)
            return NULL;
        l->at += (size_t)n;
        l->end += (size_t)n;
    }
    if (newline == NULL) {
        err_set(err, ERR_INVALID, "backup_manifest has no end of its list of files");
        return NULL;
    }
    char *line = l->data + l->begin;
    *newline = '\0';
    l->begin = (size_t)(newline - l->data) + 1;
    return line;
}

/* N bytes out of 2 N digits. */
static bool from_hex(const char *hex, unsigned char *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        if (strspn(hex + 2 * i, "0123456789abcdefABCDEF") < 2 ||
            sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        out[i] = (unsigned char)byte;
    }
    return hex[2 * n] == '\0';
}

static bool take_path(const json_t *object, char path[BACKUP_PATH_MAX])
{
    const char *plain = json_string_value(json_object_get(object, "Path"));
    const char *encoded = json_string_value(json_object_get(object, "Encoded-Path"));
    size_t n = plain != NULL ? strlen(plain) : encoded != NULL ? strlen(encoded) / 2 : 0;
    if (n == 0 || n >= BACKUP_PATH_MAX)
        return false;
    path[n] = '\0';
    if (plain != NULL)
        memcpy(path, plain, n);
    return (plain != NULL || from_hex(encoded, (unsigned char *)path, n)) && strlen(path) == n;
}

static bool visit_line(const char *line, manifest_visit *visit, void *arg, struct err *err)
{
    char path[BACKUP_PATH_MAX];
    unsigned char sum[sizeof(uint32_t)];
    json_t *object = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *size = json_object_get(object, "Size");
    const char *kind = json_string_value(json_object_get(object, "Checksum-Algorithm"));
    const char *hex = json_string_value(json_object_get(object, "Checksum"));
    struct manifest_file f = {.path = path, .size = (uint64_t)json_integer_value(size)};
    bool ok = json_is_integer(size) && json_integer_value(size) >= 0 && take_path(object, path);
    if (ok && kind != NULL && hex != NULL && strcmp(kind, "CRC32C") == 0) {
        f.has_crc = ok = from_hex(hex, sum, sizeof(sum));
        memcpy(&f.crc, sum, sizeof(sum)); /* in the server's byte order, which is ours */
    }
    json_decref(object);
    return ok ? visit(arg, &f, err)
              : err_set(err, ERR_INVALID,
                        "backup_manifest has a line that is not understood: %.200s", line);
}

bool manifest_each(int fd, uint64_t size, manifest_visit *visit, void *arg, struct err *err)
{
    struct lines *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    l->fd = fd;
    l->size = size;
    const char *line = next_line(l, err);
    while (line != NULL && strncmp(line, FILES_NAME, strlen(FILES_NAME)) != 0)
        line = next_line(l, err);
    bool ok = line != NULL;
    while (ok) {
        line = next_line(l, err);
        ok = line != NULL;
        if (ok && line[0] == ']')
            break;
        ok = ok && visit_line(line, visit, arg, err);
    }
    free(l);
    return ok;
}
