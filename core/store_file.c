#include "core/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/store_file_impl.h"

/* An object's file, or -1: ERR_ABSENT when the base is there and the file is not. A directory, a
 * link or a device under the key is no object. */
static int open_object(struct store_file *sf, const char *verb, const char *key, struct stat *st,
                       struct err *err)
{
    if (!file_key_check(key, err))
        return -1;
    int base_fd = file_open_base(sf, err);
    if (base_fd < 0)
        return -1;
    char shown[STORE_KEY_SHOWN];
    store_key_show(key, shown);
    int fd = openat(base_fd, key, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int saved = errno;
    close(base_fd);
    if (fd < 0 && (saved == ENOENT || saved == ENOTDIR || saved == ELOOP || saved == ENXIO)) {
        err_set(err, ERR_ABSENT, "%s %s/%s: does not exist", verb, sf->dir, shown);
        return -1;
    }
    if (fd < 0 && (saved == EACCES || saved == EPERM)) {
        err_set(err, ERR_FORBIDDEN, "%s %s/%s: permission denied (whose files are these?)", verb,
                sf->dir, shown);
        return -1;
    }
    if (fd < 0 || fstat(fd, st) != 0) {
        err_sys(err, fd < 0 ? saved : errno, "%s %s/%s", verb, sf->dir, shown);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (!S_ISREG(st->st_mode)) {
        close(fd);
        err_set(err, ERR_ABSENT, "%s %s/%s: is not a file", verb, sf->dir, shown);
        return -1;
    }
    return fd;
}

static bool file_head(struct store *store, const char *key, struct store_info *info,
                      const struct call *call, struct err *err)
{
    struct stat st;
    if (!call_alive(call, key, err))
        return false;
    int fd = open_object((struct store_file *)store, "head", key, &st, err);
    if (fd < 0)
        return false;
    file_fill_info(fd, &st, info);
    close(fd);
    return true;
}

struct file_source {
    struct source base;
    int fd;
    uint64_t pos, end;
    const struct call *call;
    bool failed;
    char shown[STORE_KEY_SHOWN];
};

static ssize_t file_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct file_source *s = (struct file_source *)self;
    if (s->failed) {
        err_set(err, ERR_LOCAL, "get %s: an earlier read failed", s->shown);
        return -1;
    }
    s->failed = true;
    if (!call_alive(s->call, s->shown, err))
        return -1;
    if (n > FILE_CHUNK)
        n = FILE_CHUNK;
    if (n > s->end - s->pos)
        n = (size_t)(s->end - s->pos);
    ssize_t got = 0;
    if (n > 0) {
        do
            got = pread(s->fd, buf, n, (off_t)s->pos);
        while (got < 0 && errno == EINTR);
        if (got < 0) {
            err_sys(err, errno, "get %s", s->shown);
            return -1;
        }
        if (got == 0) {
            err_set(err, ERR_CORRUPT, "get %s: became shorter while it was read", s->shown);
            return -1;
        }
    }
    s->pos += (uint64_t)got;
    s->failed = false;
    return got;
}

static void file_close(struct source *self)
{
    struct file_source *s = (struct file_source *)self;
    close(s->fd);
    free(s);
}

static struct source *file_get(struct store *store, const char *key, uint64_t offset,
                               uint64_t length, struct store_info *info, const struct call *call,
                               struct err *err)
{
    struct stat st;
    if (!call_alive(call, key, err))
        return NULL;
    int fd = open_object((struct store_file *)store, "get", key, &st, err);
    if (fd < 0)
        return NULL;
    struct file_source *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        close(fd);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    file_fill_info(fd, &st, info);
    s->base = (struct source){.read = file_read, .close = file_close};
    s->fd = fd;
    s->call = call;
    s->pos = offset < info->size ? offset : info->size;
    s->end = length < info->size - s->pos ? s->pos + length : info->size;
    store_key_show(key, s->shown);
    return &s->base;
}

static bool file_put(struct store *store, const char *key, const struct store_put *put,
                     struct store_info *info, const struct call *call, struct err *err)
{
    struct store_file *sf = (struct store_file *)store;
    if (!file_key_check(key, err) || !store_meta_check(put->meta, put->meta_count, err) ||
        !call_alive(call, key, err))
        return false;
    struct file_temp temp = FILE_TEMP_INIT;
    bool ok = file_temp_open(sf, key, &temp, err) &&
              file_temp_append(&temp, &put->body, key, call, err) &&
              file_temp_set_meta(&temp, put->meta, put->meta_count, key, err) &&
              file_temp_publish(sf, &temp, key, put->only_if_absent, info, err);
    file_temp_close(&temp);
    return ok;
}

static bool file_copy(struct store *store, const char *from, const char *to, const char *etag,
                      struct store_info *info, const struct call *call, struct err *err)
{
    struct stat st;
    struct store_info of_from;
    if (!file_key_check(from, err))
        return false;
    int fd = open_object((struct store_file *)store, "copy", from, &st, err);
    if (fd < 0)
        return false;
    file_fill_info(fd, &st, &of_from);
    const struct store_put put = {.body = {.fd = fd, .size = of_from.size},
                                  .meta = of_from.meta,
                                  .meta_count = of_from.meta_count};
    bool ok = etag == NULL || strcmp(etag, of_from.etag) == 0
                  ? file_put(store, to, &put, info, call, err)
                  : err_set(err, ERR_STALE, "%s was replaced before it was copied", from);
    close(fd);
    return ok;
}

static bool remove_one(int base_fd, const struct store_file *sf, const char *key, struct err *err)
{
    char shown[STORE_KEY_SHOWN];
    struct stat st;
    if (unlinkat(base_fd, key, 0) != 0) {
        int saved = errno;
        if (saved == ENOENT || saved == ENOTDIR || saved == EISDIR)
            return true;
        if (fstatat(base_fd, key, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            return true; /* no object */
        return err_sys(err, saved, "delete %s/%s", sf->dir, store_key_show(key, shown));
    }
    /* durable before the caller goes on: a sentinel must be gone before its parts are */
    char dir[STORE_KEY_MAX + 1] = ".";
    const char *slash = strrchr(key, '/');
    if (slash != NULL) {
        memcpy(dir, key, (size_t)(slash - key));
        dir[slash - key] = '\0';
    }
    int fd = openat(base_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        bool synced = file_sync_dir(fd);
        int saved = errno;
        close(fd);
        if (!synced)
            return err_sys(err, saved, "delete %s/%s: fsync", sf->dir, store_key_show(key, shown));
    }
    file_prune(base_fd, key);
    return true;
}

static bool file_remove(struct store *store, const char *const *keys, size_t n,
                        const struct call *call, struct err *err)
{
    struct store_file *sf = (struct store_file *)store;
    for (size_t i = 0; i < n; i++) {
        if (!file_key_check(keys[i], err))
            return false;
    }
    int base_fd = file_open_base(sf, err);
    if (base_fd < 0)
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = call_alive(call, "delete", err) && remove_one(base_fd, sf, keys[i], err);
    close(base_fd);
    return ok;
}

static bool file_check(struct store *store, enum store_check how, bool *weak_guard,
                       const struct call *call, struct err *err)
{
    struct store_file *sf = (struct store_file *)store;
    struct store_page page = {.entries = NULL};
    struct store_list one = {.prefix = "", .delimiter = "/", .max_keys = 1};
    if (!file_list(store, &one, &page, call, err))
        return false;
    store_page_free(&page);
    if (how == STORE_CHECK_READ)
        return true;
    struct store_put probe = {.body = {.mem = STORE_PROBE_TEXT, .size = strlen(STORE_PROBE_TEXT)}};
    bool works = false;
    if (!file_put(store, STORE_PROBE_KEY, &probe, NULL, call, err) ||
        !file_guard_works(sf, &works, err))
        return err_context(err, "archive %s cannot be written; mount with -o ro to read it",
                           sf->dir);
    if (!works)
        atomic_store(&sf->weak_guard, true);
    *weak_guard = atomic_load(&sf->weak_guard);
    if (how == STORE_CHECK_MOUNT)
        file_remove_stale(sf, call);
    return true;
}

static bool file_clock(struct store *store, int64_t *ahead_s)
{
    (void)store;
    (void)ahead_s;
    return false;
}

static bool file_space(struct store *store, uint64_t *total_bytes, uint64_t *free_bytes)
{
    struct statvfs vfs;
    if (statvfs(((struct store_file *)store)->dir, &vfs) != 0)
        return false;
    *total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    *free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return true;
}

static void file_free(struct store *store)
{
    struct store_file *sf = (struct store_file *)store;
    pthread_mutex_destroy(&sf->lock);
    free(sf->base.url);
    free(sf->dir);
    free(sf);
}

static const struct store_ops file_ops = {
    .head = file_head,
    .get = file_get,
    .put = file_put,
    .list = file_list,
    .copy = file_copy,
    .remove = file_remove,
    .upload_begin = file_upload_begin,
    .upload_part = file_upload_part,
    .upload_complete = file_upload_complete,
    .upload_abort = file_upload_abort,
    .check = file_check,
    .clock = file_clock,
    .space = file_space,
    .free = file_free,
};

struct store *store_file_new(const char *dir, struct err *err)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (dir[0] != '/') {
        err_set(err, ERR_INVALID, "archive directory %s is not an absolute path", dir);
        return NULL;
    }
    struct store_file *sf = calloc(1, sizeof(*sf));
    if (sf == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    sf->base.ops = &file_ops;
    pthread_mutex_init(&sf->lock, NULL);
    sf->dir = strndup(dir, len);
    if (sf->dir == NULL || asprintf(&sf->base.url, "file://localhost%s", sf->dir) < 0)
        goto fail;
    return &sf->base;
fail:
    file_free(&sf->base);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}
