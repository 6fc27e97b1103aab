/* backup_manifest, as PostgreSQL 13 and later write it: a JSON object whose last line holds the
 * SHA-256 of all lines above it, and whose WAL ranges stand just before that. Only the end is
 * parsed, so its length does not matter. */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backup_facts.h"
#include "core/spool.h"

#define TAIL_BYTES (64u << 10)
#define CHUNK (256u << 10)
#define CHECKSUM_NAME "\"Manifest-Checksum\": \""
#define RANGES_NAME "\"WAL-Ranges\": "

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

/* The end of the newest range. */
static bool read_ranges(const char *text, struct backup_position *stop)
{
    json_t *ranges = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    for (size_t i = 0; i < json_array_size(ranges); i++) {
        const json_t *r = json_array_get(ranges, i);
        json_int_t tli = json_integer_value(json_object_get(r, "Timeline"));
        const char *end = json_string_value(json_object_get(r, "End-LSN"));
        unsigned high, low;
        if (tli <= 0 || tli > (json_int_t)UINT32_MAX || end == NULL ||
            sscanf(end, "%8X/%8X", &high, &low) != 2 || (uint32_t)tli < stop->tli)
            continue;
        *stop = (struct backup_position){.tli = (uint32_t)tli, .lsn = (uint64_t)high << 32 | low};
    }
    json_decref(ranges);
    return stop->tli != 0;
}

static bool check_tail(int fd, uint64_t begin, char *tail, struct backup_position *stop,
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
    return read_ranges(ranges + strlen(RANGES_NAME), stop) ||
           err_set(err, ERR_INVALID, "backup_manifest names no WAL range");
}

bool manifest_check(int fd, uint64_t size, struct backup_position *stop, struct err *err)
{
    uint64_t begin = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
    char *tail = malloc(TAIL_BYTES + 1);
    if (tail == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    *stop = (struct backup_position){.tli = 0};
    ssize_t n = spool_read(fd, tail, TAIL_BYTES, begin, err);
    bool ok = n >= 0;
    if (ok) {
        tail[n] = '\0';
        ok = check_tail(fd, begin, tail, stop, err);
    }
    free(tail);
    return ok;
}
