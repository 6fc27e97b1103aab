/* Shared by the files of the directory store (store_file*.c) and by nothing else. */
#ifndef WALEFS_CORE_STORE_FILE_IMPL_H
#define WALEFS_CORE_STORE_FILE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "core/store_file.h"
#include "core/store_key.h"

#define FILE_TEMP_PREFIX ".walefs-tmp-"
#define FILE_TEMP_NAME 64
#define FILE_CHUNK (1024 * 1024)

struct store_file {
    struct store base;
    char *dir;
    pthread_mutex_t lock;
    bool known; /* lock: the base directory has been seen, and is the one of DEV and INO */
    dev_t dev;  /* lock */
    ino_t ino;  /* lock */
    _Atomic bool weak_guard; /* neither link nor RENAME_NOREPLACE works here */
};

/* store_file_io.c */

/* A temporary file in the directory where its object will appear. */
struct file_temp {
    int dir_fd;
    int fd;
    const char *leaf;          /* last component of the key; borrowed */
    char name[FILE_TEMP_NAME]; /* "" when there is nothing to unlink */
};

#define FILE_TEMP_INIT                                 \
    {                                                  \
        .dir_fd = -1, .fd = -1, .leaf = "", .name = "" \
    }

/* store_key_check, and no empty component: "a//b" and "a/b" would be one file. */
bool file_key_check(const char *key, struct err *err);

/* The base directory; -1 with ERR_NO_BUCKET when it does not exist, or is not the one that this
 * store has seen first: of a file system that was unmounted, the bare mount point is left, where
 * nothing is found and whatever is stored is lost. The caller closes it. */
int file_open_base(struct store_file *sf, struct err *err);

/* fsync of a directory; file systems that know no such thing (SMB, some FUSE) count as done. */
bool file_sync_dir(int fd);

void file_fill_info(int fd, const struct stat *st, struct store_info *info);
void file_etag(const struct stat *st, char etag[128]);

/* Makes missing directories (0700, durable) and the temporary file (0600). */
bool file_temp_open(struct store_file *sf, const char *key, struct file_temp *t, struct err *err);
bool file_temp_append(struct file_temp *t, const struct store_body *body, const char *key,
                      const struct call *call, struct err *err);
bool file_temp_set_meta(struct file_temp *t, const struct store_meta *meta, size_t n,
                        const char *key, struct err *err);
/* Makes the object visible under its key, durable; INFO may be NULL. */
bool file_temp_publish(struct store_file *sf, struct file_temp *t, const char *key,
                       bool only_if_absent, struct store_info *info, struct err *err);
void file_temp_close(struct file_temp *t);

/* Removes the directories above KEY, up to the base, that are empty. */
void file_prune(int base_fd, const char *key);

/* Does a file that exists keep a link or a rename from replacing it, here? */
bool file_guard_works(struct store_file *sf, bool *works, struct err *err);

/* store_file_list.c */
bool file_list(struct store *, const struct store_list *, struct store_page *, const struct call *,
               struct err *);

/* Unlinks temporaries that are older than a day, which a killed process left behind, as far as it
 * comes within ten seconds: a mount does not wait for an archive to be searched. */
void file_remove_stale(struct store_file *sf, const struct call *call);

/* store_file_upload.c */
struct store_upload *file_upload_begin(struct store *, const char *key, const struct store_put *,
                                       const struct call *, struct err *);
bool file_upload_part(struct store_upload *, unsigned number, const struct store_body *,
                      const struct call *, struct err *);
bool file_upload_complete(struct store_upload *, struct store_info *, const struct call *,
                          struct err *);
void file_upload_abort(struct store_upload *, const struct call *);

#endif
