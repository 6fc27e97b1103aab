#include "core/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int spool_open(const char *dir, struct err *err)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        /* a file system without O_TMPFILE: a name for the shortest possible time */
        char path[4096];
        int n = snprintf(path, sizeof(path), "%s/walefs-XXXXXX", dir);
        if (n < 0 || (size_t)n >= sizeof(path)) {
            err_set(err, ERR_INVALID, "cache directory %s: name too long", dir);
            return -1;
        }
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        err_sys(err, errno, "cannot make a temporary file in %s", dir);
    return fd;
}

bool spool_write(int fd, const void *data, size_t n, uint64_t offset, struct err *err)
{
    const char *p = data;
    while (n > 0) {
        ssize_t put = pwrite(fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_sys(err, errno, "cannot write to the cache directory");
        p += put;
        n -= (size_t)put;
        offset += (uint64_t)put;
    }
    return true;
}

ssize_t spool_read(int fd, void *data, size_t n, uint64_t offset, struct err *err)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = pread(fd, (char *)data + have, n - have, (off_t)(offset + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            err_sys(err, errno, "cannot read from the cache directory");
            return -1;
        }
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

struct spool {
    struct sink base;
    int fd;
    uint64_t pos, max;
    EVP_MD_CTX *hash; /* NULL when not asked for */
    struct spool_result *result;
};

static bool spool_sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct spool *s = (struct spool *)self;
    if (n > s->max - s->pos)
        return err_set(err, ERR_CORRUPT, "holds more than the %" PRIu64 " bytes that it may have",
                       s->max);
    if (!spool_write(s->fd, data, n, s->pos, err))
        return false;
    if (s->hash != NULL && EVP_DigestUpdate(s->hash, data, n) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    s->pos += n;
    return true;
}

static bool spool_sink_finish(struct sink *self, struct err *err)
{
    struct spool *s = (struct spool *)self;
    s->result->size = s->pos;
    if (s->hash != NULL && EVP_DigestFinal_ex(s->hash, s->result->sha256, NULL) != 1)
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    return true;
}

static void spool_sink_close(struct sink *self)
{
    struct spool *s = (struct spool *)self;
    EVP_MD_CTX_free(s->hash);
    free(s);
}

struct sink *spool_sink(int fd, uint64_t max_bytes, bool hash, struct spool_result *result,
                        struct err *err)
{
    struct spool *s = calloc(1, sizeof(*s));
    if (s == NULL)
        goto fail;
    s->base = (struct sink){
        .write = spool_sink_write, .finish = spool_sink_finish, .close = spool_sink_close};
    s->fd = fd;
    s->max = max_bytes;
    s->result = result;
    if (hash) {
        s->hash = EVP_MD_CTX_new();
        if (s->hash == NULL || EVP_DigestInit_ex(s->hash, EVP_sha256(), NULL) != 1)
            goto fail;
    }
    return &s->base;
fail:
    if (s != NULL)
        spool_sink_close(&s->base);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}
