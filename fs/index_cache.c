#include "fs/index_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool.h"

#define PATH_BYTES 4096

static bool digest_objects(const char *name, const struct backup_objects *o, uint8_t out[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, name, strlen(name) + 1) == 1;
    for (size_t i = 0; ok && i < o->partition_count; i++) {
        char line[256];
        int n = snprintf(line, sizeof(line), "%u %" PRIu64 " %s\n", o->objects[i].number,
                         o->objects[i].size, o->objects[i].etag);
        ok = EVP_DigestUpdate(md, line, (size_t)n) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(md, out, NULL) == 1;
    EVP_MD_CTX_free(md);
    return ok;
}

static bool path_of(const char *dir, const char *name, const struct backup_objects *objects,
                    char out[PATH_BYTES], struct err *err)
{
    uint8_t digest[32];
    char hex[65];
    if (!digest_objects(name, objects, digest))
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    for (size_t i = 0; i < sizeof(digest); i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    int n = snprintf(out, PATH_BYTES, "%s/walefs-index-%s.lzo", dir, hex);
    return (n > 0 && n < PATH_BYTES) ||
           err_set(err, ERR_INVALID, "cache directory %s: name too long", dir);
}

/* Others can write into /var/tmp too: only what this user made, for itself alone, counts. */
static bool is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 077) == 0;
}

int index_cache_open(const char *dir, const char *name, const struct backup_objects *objects)
{
    char path[PATH_BYTES];
    struct err err = ERR_INIT;
    if (!path_of(dir, name, objects, path, &err))
        return -1;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && !is_ours(fd)) {
        close(fd);
        return -1;
    }
    if (fd >= 0)
        (void)futimens(fd, NULL); /* it is used: no cleaner of old files need take it */
    return fd;
}

static bool copy_to(int from, uint64_t size, int to, struct err *err)
{
    char block[64 << 10];
    for (uint64_t at = 0; at < size;) {
        size_t want = size - at < sizeof(block) ? (size_t)(size - at) : sizeof(block);
        ssize_t n = spool_read(from, block, want, at, err);
        if (n <= 0)
            return n < 0 ? false : err_set(err, ERR_CORRUPT, "the coded index is cut short");
        if (!spool_write(to, block, (size_t)n, at, err))
            return false;
        at += (uint64_t)n;
    }
    return true;
}

bool index_cache_keep(const char *dir, const char *name, const struct backup_objects *objects,
                      int fd, uint64_t size, struct err *err)
{
    char path[PATH_BYTES], temp[PATH_BYTES];
    if (!path_of(dir, name, objects, path, err))
        return false;
    int n = snprintf(temp, sizeof(temp), "%s/walefs-index-XXXXXX", dir);
    if (n < 0 || (size_t)n >= sizeof(temp))
        return err_set(err, ERR_INVALID, "cache directory %s: name too long", dir);
    int out = mkostemp(temp, O_CLOEXEC);
    if (out < 0)
        return err_sys(err, errno, "cannot make a file in %s", dir);
    bool ok = copy_to(fd, size, out, err);
    if (close(out) != 0 && ok)
        ok = err_sys(err, errno, "cannot write %s", temp);
    if (ok && rename(temp, path) != 0)
        ok = err_sys(err, errno, "cannot rename %s to %s", temp, path);
    if (!ok)
        unlink(temp);
    return ok;
}
