/* A multipart upload into the directory store: every part is a temporary file beside the object to
 * be; complete strings them together in one more temporary and publishes that. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/store_file_impl.h"

#define YOUNG_S (60 * 60)

struct part {
    unsigned number;
    uint64_t size;
    char name[FILE_TEMP_NAME]; /* in the upload's directory; "" when gone */
};

struct store_upload {
    struct store_file *sf;
    char *key;
    bool only_if_absent;
    struct store_meta meta[STORE_META_MAX];
    size_t meta_count;
    pthread_mutex_t lock;
    int dir_fd;         /* lock; of the first part, whose presence keeps it from being pruned */
    struct part *parts; /* lock */
    size_t count;       /* lock */
};

static void part_unlink(struct store_upload *up, struct part *part)
{
    if (part->name[0] != '\0')
        (void)unlinkat(up->dir_fd, part->name, 0);
    part->name[0] = '\0';
}

static void upload_free(struct store_upload *up)
{
    for (size_t i = 0; i < up->count; i++)
        part_unlink(up, &up->parts[i]);
    if (up->dir_fd >= 0)
        close(up->dir_fd);
    struct err ignored = ERR_INIT;
    int base_fd = file_open_base(up->sf, &ignored);
    if (base_fd >= 0) {
        file_prune(base_fd, up->key);
        close(base_fd);
    }
    pthread_mutex_destroy(&up->lock);
    free(up->parts);
    free(up->key);
    free(up);
}

struct store_upload *file_upload_begin(struct store *store, const char *key,
                                       const struct store_put *put, const struct call *call,
                                       struct err *err)
{
    if (!file_key_check(key, err) || !store_meta_check(put->meta, put->meta_count, err) ||
        !call_alive(call, key, err))
        return NULL;
    struct store_file *sf = (struct store_file *)store;
    int base_fd = file_open_base(sf, err);
    if (base_fd < 0)
        return NULL;
    close(base_fd);
    struct store_upload *up = calloc(1, sizeof(*up));
    char *copy = strdup(key);
    if (up == NULL || copy == NULL) {
        free(up);
        free(copy);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    up->sf = sf;
    up->dir_fd = -1;
    up->key = copy;
    up->only_if_absent = put->only_if_absent;
    up->meta_count = put->meta_count;
    for (size_t i = 0; i < put->meta_count; i++)
        up->meta[i] = put->meta[i];
    pthread_mutex_init(&up->lock, NULL);
    return up;
}

/* The sweep of another mount takes a temporary that is older than a day for a dead one's: those of
 * an upload that grows are made young, all at once, when the first is older than an hour. */
static void keep_young(const struct store_upload *up)
{
    struct stat st;
    if (up->count == 0 || fstatat(up->dir_fd, up->parts[0].name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        st.st_mtim.tv_sec > time(NULL) - YOUNG_S)
        return;
    for (size_t i = 0; i < up->count; i++)
        (void)utimensat(up->dir_fd, up->parts[i].name, NULL, AT_SYMLINK_NOFOLLOW);
}

/* Takes over TEMP's file; a part put again replaces the one before. */
static bool part_add(struct store_upload *up, unsigned number, uint64_t size,
                     struct file_temp *temp, struct err *err)
{
    bool ok = true;
    pthread_mutex_lock(&up->lock);
    keep_young(up);
    size_t i = 0;
    while (i < up->count && up->parts[i].number != number)
        i++;
    if (i < up->count) {
        part_unlink(up, &up->parts[i]);
    } else {
        struct part *grown = realloc(up->parts, (up->count + 1) * sizeof(*grown));
        ok = grown != NULL;
        if (ok) {
            up->parts = grown;
            up->count++;
        }
    }
    if (ok) {
        up->parts[i] = (struct part){.number = number, .size = size};
        memcpy(up->parts[i].name, temp->name, sizeof(temp->name));
        temp->name[0] = '\0';
        if (up->dir_fd < 0) {
            up->dir_fd = temp->dir_fd;
            temp->dir_fd = -1;
        }
    }
    pthread_mutex_unlock(&up->lock);
    return ok || err_set(err, ERR_NO_MEMORY, "out of memory");
}

bool file_upload_part(struct store_upload *up, unsigned number, const struct store_body *body,
                      const struct call *call, struct err *err)
{
    struct file_temp temp = FILE_TEMP_INIT;
    if (number == 0)
        return err_set(err, ERR_INVALID, "parts are numbered from 1");
    bool ok = file_temp_open(up->sf, up->key, &temp, err) &&
              file_temp_append(&temp, body, up->key, call, err) &&
              part_add(up, number, body->size, &temp, err);
    file_temp_close(&temp);
    return ok;
}

static int by_number(const void *a, const void *b)
{
    unsigned x = ((const struct part *)a)->number, y = ((const struct part *)b)->number;
    return (x > y) - (x < y);
}

static bool append_part(struct store_upload *up, const struct part *part, struct file_temp *whole,
                        const struct call *call, struct err *err)
{
    int fd = openat(up->dir_fd, part->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "put %.200s: cannot open part %u", up->key, part->number);
    bool ok = true;
    uint64_t done = 0;
    while (ok && done < part->size) {
        size_t n = part->size - done < FILE_CHUNK ? (size_t)(part->size - done) : FILE_CHUNK;
        ok = call_alive(call, up->key, err);
        ssize_t put = ok ? copy_file_range(fd, NULL, whole->fd, NULL, n, 0) : 0;
        if (put > 0)
            done += (uint64_t)put;
        else if (ok)
            break;
    }
    if (ok && done < part->size) { /* not every file system can; the plain way works everywhere */
        struct store_body rest = {.fd = fd, .offset = done, .size = part->size - done};
        ok = file_temp_append(whole, &rest, up->key, call, err);
    }
    close(fd);
    return ok;
}

bool file_upload_complete(struct store_upload *up, struct store_info *info, const struct call *call,
                          struct err *err)
{
    struct file_temp whole = FILE_TEMP_INIT;
    if (up->count > 1)
        qsort(up->parts, up->count, sizeof(up->parts[0]), by_number);
    bool ok =
        up->count > 0 || err_set(err, ERR_INVALID, "put %.200s: an upload without parts", up->key);
    for (size_t i = 0; ok && i < up->count; i++) {
        if (up->parts[i].number != i + 1)
            ok = err_set(err, ERR_INVALID, "put %.200s: part %zu is missing", up->key, i + 1);
    }
    ok = ok && file_temp_open(up->sf, up->key, &whole, err);
    for (size_t i = 0; ok && i < up->count; i++) {
        ok = append_part(up, &up->parts[i], &whole, call, err);
        part_unlink(up, &up->parts[i]); /* frees its space before the next is copied */
    }
    ok = ok && file_temp_set_meta(&whole, up->meta, up->meta_count, up->key, err) &&
         file_temp_publish(up->sf, &whole, up->key, up->only_if_absent, info, err);
    file_temp_close(&whole);
    upload_free(up);
    return ok;
}

void file_upload_abort(struct store_upload *up, const struct call *call)
{
    (void)call;
    upload_free(up);
}
