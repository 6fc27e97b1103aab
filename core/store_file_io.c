/* How an object becomes a file: written under a temporary name in its final directory, fsynced,
 * then linked or renamed to its key, then the directory is fsynced. A crash leaves at most a hidden
 * temporary. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/store_file_impl.h"

#define XATTR_PREFIX "user."
#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define MAKE_ATTEMPTS 8

bool file_key_check(const char *key, struct err *err)
{
    if (!store_key_check(key, 0, err))
        return false;
    size_t len = strlen(key);
    if (strstr(key, "//") != NULL || key[len - 1] == '/')
        return err_set(err, ERR_INVALID, "key %.200s has an empty component", key);
    for (const char *part = key;;) {
        size_t n = strcspn(part, "/");
        if (n > NAME_MAX || strncmp(part, FILE_TEMP_PREFIX, strlen(FILE_TEMP_PREFIX)) == 0)
            return err_set(err, ERR_INVALID, "key %.200s has a component that no file can have",
                           key);
        if (part[n] == '\0')
            return true;
        part += n + 1;
    }
}

static bool is_the_one(struct store_file *sf, const struct stat *st)
{
    pthread_mutex_lock(&sf->lock);
    if (!sf->known) {
        sf->dev = st->st_dev;
        sf->ino = st->st_ino;
        sf->known = true;
    }
    bool same = sf->dev == st->st_dev && sf->ino == st->st_ino;
    pthread_mutex_unlock(&sf->lock);
    return same;
}

int file_open_base(struct store_file *sf, struct err *err)
{
    struct stat st;
    int fd = open(sf->dir, DIR_FLAGS);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (is_the_one(sf, &st))
            return fd;
        close(fd);
        err_set(err, ERR_NO_BUCKET,
                "archive directory %s is not the one that it was: mount its file system again, or, "
                "if it is right as it is, walefs",
                sf->dir);
        return -1;
    }
    if (fd >= 0) {
        err_sys(err, errno, "cannot look at the archive directory %s", sf->dir);
        close(fd);
        return -1;
    }
    if (errno == ENOENT || errno == ENOTDIR)
        err_set(err, ERR_NO_BUCKET, "archive directory %s does not exist (is it mounted?)",
                sf->dir);
    else
        err_sys(err, errno, "cannot open the archive directory %s", sf->dir);
    return -1;
}

void file_etag(const struct stat *st, char etag[128])
{
    (void)snprintf(etag, 128, "%" PRIx64 "-%" PRIx64 "-%" PRIx64,
                   (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec,
                   (uint64_t)st->st_size, (uint64_t)st->st_ino);
}

static void read_meta(int fd, struct store_info *info)
{
    char names[4096];
    ssize_t len = flistxattr(fd, names, sizeof(names));
    for (ssize_t pos = 0; pos < len; pos += (ssize_t)strlen(names + pos) + 1) {
        const char *name = names + pos;
        if (strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) != 0)
            continue;
        char value[sizeof(info->meta[0].value)];
        ssize_t n = fgetxattr(fd, name, value, sizeof(value));
        if (n >= 0)
            store_info_add_meta(info, name + strlen(XATTR_PREFIX), value, (size_t)n);
    }
}

void file_fill_info(int fd, const struct stat *st, struct store_info *info)
{
    *info = (struct store_info){.size = (uint64_t)st->st_size, .mtime_s = st->st_mtim.tv_sec};
    file_etag(st, info->etag);
    if (fd >= 0)
        read_meta(fd, info);
}

bool file_sync_dir(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
}

/* Opens directory PATH below BASE_FD, making what is missing. Their parents are fsynced, or a crash
 * could lose a directory with a published object in it; always, since somebody else may have made
 * one a moment ago, or have failed to fsync its parent. */
static int make_dirs(int base_fd, const char *path, size_t len)
{
    int fd = openat(base_fd, ".", DIR_FLAGS);
    for (size_t pos = 0; fd >= 0 && pos < len;) {
        char name[NAME_MAX + 1];
        size_t n = strcspn(path + pos, "/");
        memcpy(name, path + pos, n);
        name[n] = '\0';
        bool there = mkdirat(fd, name, 0700) == 0 || errno == EEXIST;
        int next = there ? openat(fd, name, DIR_FLAGS) : -1;
        bool durable = next < 0 || file_sync_dir(fd);
        int saved = errno;
        if (!durable) {
            close(next);
            next = -1;
        }
        close(fd);
        errno = saved;
        fd = next;
        pos += n + 1;
    }
    return fd;
}

static bool random_name(char name[FILE_TEMP_NAME], struct err *err)
{
    uint64_t r[2];
    if (getrandom(r, sizeof(r), 0) != sizeof(r))
        return err_sys(err, errno, "no random numbers");
    (void)snprintf(name, FILE_TEMP_NAME, FILE_TEMP_PREFIX "%016" PRIx64 "%016" PRIx64, r[0], r[1]);
    return true;
}

bool file_temp_open(struct store_file *sf, const char *key, struct file_temp *t, struct err *err)
{
    int base_fd = file_open_base(sf, err);
    if (base_fd < 0)
        return false;
    bool ok = false;
    char shown[STORE_KEY_SHOWN];
    const char *slash = strrchr(key, '/');
    size_t dir_len = slash == NULL ? 0 : (size_t)(slash - key);
    t->leaf = slash == NULL ? key : slash + 1;
    /* A remove in another process may prune the directory between its making and its use. */
    for (int i = 0; i < MAKE_ATTEMPTS; i++) {
        t->dir_fd = make_dirs(base_fd, key, dir_len);
        if (t->dir_fd < 0 && errno == ENOENT)
            continue;
        if (t->dir_fd < 0)
            break;
        if (!random_name(t->name, err))
            goto out;
        t->fd = openat(t->dir_fd, t->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ok = t->fd >= 0;
        if (ok || errno != ENOENT)
            break;
        close(t->dir_fd);
        t->dir_fd = -1;
    }
    if (!ok && errno == ENOTDIR)
        err_set(err, ERR_INVALID, "put %s/%s: a part of the path is a file", sf->dir,
                store_key_show(key, shown));
    else if (!ok)
        err_sys(err, errno, "put %s/%s: cannot make a file", sf->dir, store_key_show(key, shown));
out:
    if (!ok)
        t->name[0] = '\0';
    close(base_fd);
    return ok;
}

static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, data, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        data += put;
        n -= (size_t)put;
    }
    return true;
}

static bool body_read(const struct store_body *body, uint64_t pos, char *chunk, size_t n,
                      struct err *err)
{
    if (body->mem != NULL || body->size == 0) {
        memcpy(chunk, (const char *)body->mem + pos, n);
        return true;
    }
    for (size_t have = 0; have < n;) {
        ssize_t got = pread(body->fd, chunk + have, n - have, (off_t)(body->offset + pos + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_sys(err, got < 0 ? errno : EIO, "the staged content cannot be read");
        have += (size_t)got;
    }
    return true;
}

bool file_temp_append(struct file_temp *t, const struct store_body *body, const char *key,
                      const struct call *call, struct err *err)
{
    bool ok = false;
    char shown[STORE_KEY_SHOWN];
    size_t cap = body->size < FILE_CHUNK ? (size_t)body->size + 1 : FILE_CHUNK;
    char *chunk = malloc(cap);
    EVP_MD_CTX *sum = body->sha256 == NULL ? NULL : EVP_MD_CTX_new();
    if (chunk == NULL || (body->sha256 != NULL &&
                          (sum == NULL || EVP_DigestInit_ex(sum, EVP_sha256(), NULL) != 1))) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        goto out;
    }
    store_key_show(key, shown);
    for (uint64_t pos = 0; pos < body->size;) {
        size_t n = body->size - pos < cap ? (size_t)(body->size - pos) : cap;
        if (!call_alive(call, shown, err) || !body_read(body, pos, chunk, n, err))
            goto out;
        if (sum != NULL && EVP_DigestUpdate(sum, chunk, n) != 1) {
            err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
            goto out;
        }
        if (!write_all(t->fd, chunk, n)) {
            err_sys(err, errno, "put %s: cannot write", shown);
            goto out;
        }
        pos += n;
    }
    if (sum != NULL) {
        uint8_t digest[EVP_MAX_MD_SIZE];
        if (EVP_DigestFinal_ex(sum, digest, NULL) != 1 || memcmp(digest, body->sha256, 32) != 0) {
            err_set(err, ERR_CORRUPT, "put %s: the content changed while it was stored", shown);
            goto out;
        }
    }
    ok = true;
out:
    EVP_MD_CTX_free(sum);
    free(chunk);
    return ok;
}

bool file_temp_set_meta(struct file_temp *t, const struct store_meta *meta, size_t n,
                        const char *key, struct err *err)
{
    char shown[STORE_KEY_SHOWN];
    for (size_t i = 0; i < n; i++) {
        char name[sizeof(meta[i].name) + sizeof(XATTR_PREFIX)];
        (void)snprintf(name, sizeof(name), XATTR_PREFIX "%s", meta[i].name);
        if (fsetxattr(t->fd, name, meta[i].value, strlen(meta[i].value), 0) == 0)
            continue;
        if (errno == ENOTSUP) /* this file system has no attributes: objects go without */
            return true;
        return err_sys(err, errno, "put %s: cannot set metadata", store_key_show(key, shown));
    }
    return true;
}

/* Gives the temporary its final name unless that is taken. 0 or an errno. */
static int name_if_free(struct store_file *sf, struct file_temp *t)
{
    if (linkat(t->dir_fd, t->name, t->dir_fd, t->leaf, 0) == 0) {
        if (unlinkat(t->dir_fd, t->name, 0) == 0)
            t->name[0] = '\0';
        return 0;
    }
    if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
        return errno;
    if (renameat2(t->dir_fd, t->name, t->dir_fd, t->leaf, RENAME_NOREPLACE) == 0) {
        t->name[0] = '\0';
        return 0;
    }
    if (errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno;
    atomic_store(&sf->weak_guard, true);
    struct stat st;
    if (fstatat(t->dir_fd, t->leaf, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return EEXIST;
    if (errno != ENOENT || renameat(t->dir_fd, t->name, t->dir_fd, t->leaf) != 0)
        return errno;
    t->name[0] = '\0';
    return 0;
}

static int name_over(struct file_temp *t)
{
    if (renameat(t->dir_fd, t->name, t->dir_fd, t->leaf) != 0)
        return errno;
    t->name[0] = '\0';
    return 0;
}

bool file_temp_publish(struct store_file *sf, struct file_temp *t, const char *key,
                       bool only_if_absent, struct store_info *info, struct err *err)
{
    char shown[STORE_KEY_SHOWN];
    store_key_show(key, shown);
    if (fsync(t->fd) != 0)
        return err_sys(err, errno, "put %s: fsync", shown);
    int rc = only_if_absent ? name_if_free(sf, t) : name_over(t);
    /* Who finds the same content there takes it for stored: let it be durable, whoever named it. */
    if (rc == EEXIST && !file_sync_dir(t->dir_fd))
        return err_sys(err, errno, "put %s: fsync of its directory", shown);
    if (rc == EEXIST)
        return err_set(err, ERR_EXISTS, "put %s: exists already", shown);
    if (rc == EISDIR)
        return err_set(err, ERR_INVALID, "put %s: is a directory", shown);
    if (rc != 0)
        return err_sys(err, rc, "put %s: cannot name the finished file", shown);
    struct stat st;
    if (!file_sync_dir(t->dir_fd) || fstat(t->fd, &st) != 0)
        return err_sys(err, errno, "put %s: fsync of its directory", shown);
    if (info != NULL)
        file_fill_info(t->fd, &st, info);
    return true;
}

void file_temp_close(struct file_temp *t)
{
    if (t->name[0] != '\0')
        (void)unlinkat(t->dir_fd, t->name, 0);
    if (t->fd >= 0)
        close(t->fd);
    if (t->dir_fd >= 0)
        close(t->dir_fd);
    *t = (struct file_temp)FILE_TEMP_INIT;
}

void file_prune(int base_fd, const char *key)
{
    char path[STORE_KEY_MAX + 1];
    size_t len = strlen(key);
    if (len >= sizeof(path))
        return;
    memcpy(path, key, len + 1);
    for (char *slash = strrchr(path, '/'); slash != NULL; slash = strrchr(path, '/')) {
        *slash = '\0';
        if (unlinkat(base_fd, path, AT_REMOVEDIR) != 0 && errno != ENOENT)
            return;
    }
}

bool file_guard_works(struct store_file *sf, bool *works, struct err *err)
{
    struct store_file probe = {.dir = sf->dir};
    struct file_temp a = FILE_TEMP_INIT, b = FILE_TEMP_INIT;
    bool ok = file_temp_open(sf, STORE_PROBE_KEY, &a, err) &&
              file_temp_open(sf, STORE_PROBE_KEY, &b, err);
    if (ok) {
        /* naming a temporary after an existing one must fail, and after a free name succeed */
        b.leaf = a.name;
        bool refused = name_if_free(&probe, &b) == EEXIST;
        char free_name[FILE_TEMP_NAME];
        ok = random_name(free_name, err);
        b.leaf = free_name;
        bool named = ok && name_if_free(&probe, &b) == 0;
        if (named)
            (void)unlinkat(b.dir_fd, free_name, 0);
        *works = refused && named && !atomic_load(&probe.weak_guard);
    }
    file_temp_close(&b);
    file_temp_close(&a);
    return ok;
}
