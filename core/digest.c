#include "core/digest.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/spool.h"

#define SCHEME "sha256:"
#define CHUNK (256 * 1024)

struct digest {
    EVP_MD_CTX *ctx;
    uint8_t salt[DIGEST_SALT_BYTES];
};

static void hex_encode(const uint8_t *in, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", in[i]);
}

/* As hex_encode writes it, since texts are compared. */
static bool hex_decode(const char *in, size_t n, uint8_t *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        const char *hi = memchr(digits, in[2 * i], 16), *lo = memchr(digits, in[2 * i + 1], 16);
        if (hi == NULL || lo == NULL)
            return false;
        out[i] = (uint8_t)((hi - digits) << 4 | (lo - digits));
    }
    return true;
}

static bool salt_parse(const char *text, uint8_t salt[DIGEST_SALT_BYTES])
{
    size_t scheme = strlen(SCHEME), salt_end = scheme + 2 * DIGEST_SALT_BYTES;
    uint8_t sum[32];
    return strlen(text) == salt_end + 1 + 2 * sizeof(sum) && strncmp(text, SCHEME, scheme) == 0 &&
           text[salt_end] == ':' && hex_decode(text + scheme, DIGEST_SALT_BYTES, salt) &&
           hex_decode(text + salt_end + 1, sizeof(sum), sum);
}

struct digest *digest_new(const char *like, struct err *err)
{
    struct digest *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    if (like != NULL && !salt_parse(like, d->salt)) {
        err_set(err, ERR_INVALID, "not a content digest: %.100s", like);
        goto fail;
    }
    if (like == NULL && RAND_bytes(d->salt, sizeof(d->salt)) != 1) {
        err_set(err, ERR_LOCAL, "no random numbers");
        goto fail;
    }
    d->ctx = EVP_MD_CTX_new();
    if (d->ctx == NULL || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(d->ctx, d->salt, sizeof(d->salt)) != 1) {
        err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
        goto fail;
    }
    return d;
fail:
    digest_free(d);
    return NULL;
}

bool digest_update(struct digest *d, const void *data, size_t n, struct err *err)
{
    if (EVP_DigestUpdate(d->ctx, data, n) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    return true;
}

bool digest_final(struct digest *d, char text[DIGEST_TEXT_MAX], struct err *err)
{
    uint8_t sum[32];
    if (EVP_DigestFinal_ex(d->ctx, sum, NULL) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    char salt_hex[2 * DIGEST_SALT_BYTES + 1], sum_hex[2 * sizeof(sum) + 1];
    hex_encode(d->salt, sizeof(d->salt), salt_hex);
    hex_encode(sum, sizeof(sum), sum_hex);
    (void)snprintf(text, DIGEST_TEXT_MAX, SCHEME "%s:%s", salt_hex, sum_hex);
    return true;
}

void digest_free(struct digest *d)
{
    if (d == NULL)
        return;
    EVP_MD_CTX_free(d->ctx);
    free(d);
}

bool digest_fd(int fd, uint64_t size, const char *like, char text[DIGEST_TEXT_MAX], struct err *err)
{
    bool ok = false;
    struct digest *d = digest_new(like, err);
    char *chunk = malloc(CHUNK);
    if (d == NULL)
        goto out;
    if (chunk == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint64_t pos = 0; pos < size;) {
        size_t want = size - pos < CHUNK ? (size_t)(size - pos) : CHUNK;
        ssize_t got = spool_read(fd, chunk, want, pos, err);
        if (got < 0)
            goto out;
        if ((size_t)got != want) {
            err_set(err, ERR_LOCAL, "a staged file is shorter than its size");
            goto out;
        }
        if (!digest_update(d, chunk, want, err))
            goto out;
        pos += want;
    }
    ok = digest_final(d, text, err);
out:
    free(chunk);
    digest_free(d);
    return ok;
}
