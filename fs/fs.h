/* The file system, as its callers see it: the FUSE adapter (fuse_ops.c) and the tests, which need
 * no kernel. Functions block and may be called from any thread; each takes a call through which it
 * can be cancelled. False comes with an error, which fs_errno turns into an errno. */
#ifndef WALEFS_FS_FS_H
#define WALEFS_FS_FS_H

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/buf.h"
#include "core/call.h"
#include "core/openpgp.h"
#include "core/pool.h"
#include "core/store.h"

struct fs;
struct handle;
struct dir;
struct partition_pin;

/* What status/ says of the mount: texts, borrowed, each may be NULL. Never a secret. */
struct fs_about {
    /* As whom the store is asked, which may change; a text that the caller frees, or NULL. Any
     * thread; does not block. NULL: not known. */
    char *(*identity)(void *arg);
    void *identity_arg;
    const char *keys;   /* to which new objects are encrypted */
    const char *config; /* the whole of status/config */
};

struct fs_options {
    struct store *store; /* borrowed, like pgp and the pools: they outlive the file system */
    struct openpgp *pgp;
    struct pool *pool;
    struct pool *coders; /* for what lasts as long as somebody's dump; NULL: the other one */
    uid_t uid;           /* who owns everything */
    gid_t gid;
    bool true_owners; /* backups show the owners that their files had */
    bool read_only;
    bool allow_delete;
    bool hard;                /* reads wait for the store for ever */
    int64_t soft_timeout_ms;  /* else for this long */
    int64_t write_timeout_ms; /* publishing gives up after this long without progress */
    const char *cache_dir;    /* where anonymous files go; borrowed */
    uint64_t cache_bytes;
    unsigned prefetch;
    uint64_t partition_bytes; /* of base backups that are written */
    struct fs_about about;
};

struct fs *fs_new(const struct fs_options *options, struct err *err);
/* Cancels what is under way in the background. Before pool_free, of the coders first, which waits
 * for it. */
void fs_stop(struct fs *fs);
/* After pool_free; no call may be under way. NULL is allowed. */
void fs_free(struct fs *fs);

/* Called with the number of an open file of which nothing that was read may be believed any more:
 * the kernel is to forget what it keeps of it. In a thread that answers no request, without a lock;
 * it may wait until reads of that file are answered. To be set before there are requests. */
typedef void fs_invalidate(void *arg, uint64_t id);
void fs_set_invalidate(struct fs *fs, fs_invalidate *invalidate, void *arg);

/* What the kernel can read itself; see backing.h. NULL: nothing, which also forgets what was. Not
 * while there are requests. */
struct backing_kernel;
void fs_set_backing_kernel(struct fs *fs, const struct backing_kernel *kernel);

/* What a lookup or getattr says. */
struct fs_entry {
    uint64_t id;
    struct stat attr;
    double valid_s; /* how long it may be cached */
};

/* On success the kernel's lookup count of the entry has gone up by one; fs_forget takes it back.
 * PID is the calling thread's id, 0 when unknown. */
bool fs_lookup(struct fs *fs, uint64_t parent, const char *name, pid_t pid, struct fs_entry *out,
               const struct call *call, struct err *err);
void fs_forget(struct fs *fs, uint64_t id, uint64_t count);

/* Is ID the root, status/ or in it? What is asked about these is answered soon, whatever the store
 * does. Never blocks. */
bool fs_is_local(struct fs *fs, uint64_t id);

/* HANDLE may be NULL: the kernel gives it with a seek to the end, not with an fstat(2). What other
 * hosts have taken away from the archive, while it is open here, is what an open handle holds. */
bool fs_getattr(struct fs *fs, uint64_t id, const struct handle *handle, struct fs_entry *out,
                const struct call *call, struct err *err);

struct fs_setattr {
    bool set_size, set_mode, set_mtime, set_owner;
    uint64_t size;
    mode_t mode;
    int64_t mtime_s; /* INT64_MIN: now */
    uint32_t mtime_ns;
    uid_t uid; /* (uid_t)-1: as it is; gid likewise */
    gid_t gid;
};

/* HANDLE may be NULL (by path). */
bool fs_setattr(struct fs *fs, uint64_t id, const struct fs_setattr *set, struct handle *handle,
                struct fs_entry *out, const struct call *call, struct err *err);

/* PID is the calling thread's id, 0 when unknown. Counts a lookup as fs_lookup does. */
bool fs_create(struct fs *fs, uint64_t parent, const char *name, int flags, mode_t mode, pid_t pid,
               struct fs_entry *out, struct handle **handle, const struct call *call,
               struct err *err);
bool fs_open(struct fs *fs, uint64_t id, int flags, pid_t pid, struct handle **handle,
             const struct call *call, struct err *err);

/* Where the bytes of a read lie: SIZE bytes (0 at the end) at OFFSET of FD, which stays open and
 * unchanged until fs_read_done, which must be called once for each successful fs_read, before the
 * handle is released. */
struct fs_bytes {
    int fd;
    uint64_t offset;
    size_t size;
    struct partition_pin *pin; /* not the caller's, nor is this: */
    struct staged *staged;
};
void fs_read_done(struct fs_bytes *bytes);

/* May the kernel cache what is read through this handle? */
bool fs_handle_immutable(const struct handle *handle);
/* And give it to who opens the file later? */
bool fs_handle_verified(const struct handle *handle);
/* The number of the backing file with which it is opened, 0 for none. *THROUGH: the kernel reads
 * it there. */
int fs_handle_backing(const struct handle *handle, bool *through);
/* Is what is written through it a stream, in which nobody can seek? */
bool fs_handle_stream(const struct handle *handle);
/* Does fs_flush do anything? */
bool fs_handle_flushes(const struct handle *handle);

bool fs_read(struct fs *fs, struct handle *handle, uint64_t offset, size_t size,
             struct fs_bytes *out, const struct call *call, struct err *err);
bool fs_write(struct fs *fs, struct handle *handle, const void *data, size_t n, uint64_t offset,
              const struct call *call, struct err *err);

/* close(2) by process of thread PID: publishes when this close is the one that finishes the file.
 */
bool fs_flush(struct fs *fs, struct handle *handle, pid_t pid, const struct call *call,
              struct err *err);
bool fs_fsync(struct fs *fs, struct handle *handle, const struct call *call, struct err *err);
/* Frees the handle. What is still unpublished, and was not given up by its writer, is published in
 * the background. */
void fs_release(struct fs *fs, struct handle *handle);

/* Counts a lookup as fs_lookup does. */
bool fs_mkdir(struct fs *fs, uint64_t parent, const char *name, mode_t mode, struct fs_entry *out,
              const struct call *call, struct err *err);
bool fs_symlink(struct fs *fs, uint64_t parent, const char *name, const char *target,
                struct fs_entry *out, const struct call *call, struct err *err);
/* Always refused: there are no hard links. Returns false. */
bool fs_link(struct fs *fs, uint64_t parent, const char *name, struct err *err);
bool fs_rmdir(struct fs *fs, uint64_t parent, const char *name, const struct call *call,
              struct err *err);

/* A symlink's target, cut to CAP with its NUL. */
bool fs_readlink(struct fs *fs, uint64_t id, char *out, size_t cap, const struct call *call,
                 struct err *err);

/* Extended attributes, appended to OUT: the names, each with its NUL; the value, without. What is
 * not below "user." is ERR_UNSUPPORTED, and what the file does not have ERR_NO_ATTRIBUTE, without
 * asking the store. */
bool fs_listxattr(struct fs *fs, uint64_t id, struct buf *out, const struct call *call,
                  struct err *err);
bool fs_getxattr(struct fs *fs, uint64_t id, const char *name, struct buf *out,
                 const struct call *call, struct err *err);

bool fs_unlink(struct fs *fs, uint64_t parent, const char *name, const struct call *call,
               struct err *err);

/* NO_REPLACE: fail when the new name exists (RENAME_NOREPLACE). */
bool fs_rename(struct fs *fs, uint64_t parent, const char *name, uint64_t new_parent,
               const char *new_name, bool no_replace, const struct call *call, struct err *err);

bool fs_opendir(struct fs *fs, uint64_t id, struct dir **dir, const struct call *call,
                struct err *err);
void fs_releasedir(struct fs *fs, struct dir *dir);

/* Called for each entry. ENTRY is NULL for an entry whose attributes are not known, else a lookup
 * has been counted for it. NEXT is the offset to go on from. False: no room; this entry was not
 * taken (and its lookup is uncounted by fs_readdir). */
typedef bool fs_emit(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                     uint64_t next);

/* One user of DIR at a time, which is what the kernel does. PLUS: with attributes where known. */
bool fs_readdir(struct fs *fs, struct dir *dir, uint64_t offset, bool plus, fs_emit *emit,
                void *arg, const struct call *call, struct err *err);

/* The space of a store that is a directory; any other looks as good as endless. */
void fs_statfs(struct fs *fs, struct statvfs *out);

/* For log lines: "wal/NAME". */
void fs_path(struct fs *fs, uint64_t id, char *out, size_t cap);

#endif
