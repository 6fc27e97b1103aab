#include "core/sum.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct sum {
    struct sink base;
    struct sink *rest;
    EVP_MD_CTX *hash;
    char *out;
};

static bool sum_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct sum *s = (struct sum *)self;
    if (EVP_DigestUpdate(s->hash, data, n) != 1)
        return err_set(err, ERR_LOCAL, "cannot compute a checksum");
    return s->rest->write(s->rest, data, n, err);
}

static bool sum_finish(struct sink *self, struct err *err)
{
    struct sum *s = (struct sum *)self;
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (EVP_DigestFinal_ex(s->hash, sum, NULL) != 1)
        return err_set(err, ERR_LOCAL, "cannot compute a checksum");
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(s->out + 2 * i, 3, "%02x", sum[i]);
    return s->rest->finish(s->rest, err);
}

static void sum_close(struct sink *self)
{
    struct sum *s = (struct sum *)self;
    sink_close(s->rest);
    EVP_MD_CTX_free(s->hash);
    free(s);
}

struct sink *sum_sink(struct sink *rest, char out[SUM_HEX], struct err *err)
{
    struct sum *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        sink_close(rest);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    s->base = (struct sink){.write = sum_write, .finish = sum_finish, .close = sum_close};
    s->rest = rest;
    s->out = out;
    s->hash = EVP_MD_CTX_new();
    if (s->hash != NULL && EVP_DigestInit_ex(s->hash, EVP_sha256(), NULL) == 1)
        return &s->base;
    sum_close(&s->base);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}
