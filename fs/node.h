/* Inside fs/: what kinds of nodes and handles provide. fs.c dispatches to these. */
#ifndef WALEFS_FS_NODE_H
#define WALEFS_FS_NODE_H

#include <sys/queue.h>

#include "fs/backing.h"
#include "fs/backup_set.h"
#include "fs/fetch.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "fs/persist.h"
#include "fs/stage.h"
#include "fs/staged.h"

struct xattr_list;

struct fs {
    struct fs_options opt;
    struct inode_table *inodes;
    struct fetcher *fetcher;
    struct stage_env stage_env;
    struct persistence persistence;
    struct cancel stop;      /* ends publishing in the background */
    struct node *wal;        /* a reference */
    struct node *backups;    /* a reference */
    struct node *status_dir; /* a reference */
    struct status *status;
    struct dumps *dumps;
    struct xattr_cache *xattrs;
    struct backup_set *backup_set;
    struct wal_delete *wal_delete;
    struct inside_cache *inside; /* of the WAL survey, which alone uses it */
    pthread_mutex_t new_backups_lock;
    struct new_backup *new_backups; /* new_backups_lock: those that are being written */
    unsigned tar_readers;           /* new_backups_lock: threads that read a tar stream */
    pthread_cond_t tar_reader_ended;
    int64_t started_s; /* what directories show as their time */
    pthread_mutex_t handles_lock;
    LIST_HEAD(handle_list, handle) handles; /* handles_lock */
    LIST_HEAD(dir_list, dir) dirs;          /* handles_lock: open directories */
    fs_invalidate *invalidate;              /* set once, before there are requests; may be NULL */
    void *invalidate_arg;
    struct backing_kernel backing_kernel;
    _Atomic uint32_t segment_size; /* of this archive's WAL, as a header says; 0: not known yet */
    _Atomic uint32_t counted_size; /* of its newest segment, as was last counted; 0: not yet */
};

/* One entry of a listing. */
struct dir_item {
    char *name;
    mode_t type;
    bool known; /* size and mtime are */
    uint64_t size;
    int64_t mtime_s;
    /* for dumps */
    char *etag;
    uint64_t stored;
    bool encrypted;
};

/* An open directory: a window of its listing. */
struct dir {
    struct node *node; /* a reference */
    struct dir_item *items;
    size_t count;
    uint64_t first; /* index of items[0] in the whole listing */
    bool done;
    char *token;          /* the kind's own: where the next window begins */
    LIST_ENTRY(dir) link; /* fs->handles_lock */
};

/* All may be NULL: then the operation is refused. */
struct node_ops {
    bool (*getattr)(struct fs *, struct node *, struct fs_entry *, const struct call *,
                    struct err *);
    bool (*setattr)(struct fs *, struct node *, const struct fs_setattr *, struct handle *,
                    struct fs_entry *, const struct call *, struct err *);
    bool (*open)(struct fs *, struct node *, int flags, pid_t pid, struct handle **,
                 const struct call *, struct err *);
    bool (*readlink)(struct fs *, struct node *, char *out, size_t cap, const struct call *,
                     struct err *);

    /* All extended attributes: adds them to the list, which is empty; see xattr.h. */
    bool (*xattrs)(struct fs *, struct node *, struct xattr_list *, const struct call *,
                   struct err *);

    /* for directories */
    bool (*lookup)(struct fs *, struct node *dir, const char *name, pid_t pid, struct fs_entry *,
                   const struct call *, struct err *);
    bool (*create)(struct fs *, struct node *dir, const char *name, int flags, mode_t mode,
                   pid_t pid, struct fs_entry *, struct handle **, const struct call *,
                   struct err *);
    bool (*symlink)(struct fs *, struct node *dir, const char *name, const char *target,
                    struct fs_entry *, const struct call *, struct err *);
    /* A hard link is always refused: what else is there to do? NULL: nothing. Returns false. */
    bool (*link)(struct fs *, struct node *dir, const char *name, struct err *);
    bool (*mkdir)(struct fs *, struct node *dir, const char *name, mode_t mode, struct fs_entry *,
                  const struct call *, struct err *);
    bool (*rmdir)(struct fs *, struct node *dir, const char *name, const struct call *,
                  struct err *);
    bool (*unlink)(struct fs *, struct node *dir, const char *name, const struct call *,
                   struct err *);
    bool (*rename)(struct fs *, struct node *dir, const char *name, const char *new_name,
                   bool no_replace, const struct call *, struct err *);
    /* The same between directories of one kind. */
    bool (*move)(struct fs *, struct node *dir, const char *name, struct node *new_dir,
                 const char *new_name, bool no_replace, const struct call *, struct err *);
    /* Appends the next window with dir_add; sets dir->done after the last. */
    bool (*list)(struct fs *, struct dir *, const struct call *, struct err *);
    /* The entry of a listed item whose facts are known; counts a lookup. */
    bool (*entry_of_item)(struct fs *, struct node *dir, const struct dir_item *, struct fs_entry *,
                          const struct call *, struct err *);
};

struct handle_ops {
    bool (*read)(struct fs *, struct handle *, uint64_t offset, size_t size, struct fs_bytes *,
                 const struct call *, struct err *);
    bool (*write)(struct fs *, struct handle *, const void *, size_t, uint64_t offset,
                  const struct call *, struct err *);
    bool (*flush)(struct fs *, struct handle *, pid_t pid, const struct call *, struct err *);
    bool (*fsync)(struct fs *, struct handle *, const struct call *, struct err *);
    void (*release)(struct fs *, struct handle *);
    /* The attributes of what it holds, whatever its name stands for by now; they are not to be
     * cached. Never blocks; handles_lock may be held. False: it holds nothing. NULL: the node's. */
    bool (*getattr)(struct fs *, const struct handle *, struct fs_entry *);
    /* Is what it reads of that partition? NULL: of none. */
    bool (*reads)(const struct handle *, const struct partition *);
};

/* Open handles, and open directories, are in a list, since a mount can end while files are open:
 * the kernel then releases nothing. */
struct handle {
    const struct handle_ops *ops;
    struct node *node; /* a reference */
    bool immutable;    /* what it reads never changes: the kernel may cache it */
    bool verified;     /* and is known to be sound: also for who opens it later */
    bool stream;       /* what is written through it is appended: it cannot seek */
    struct backing_use backing;
    LIST_ENTRY(handle) link; /* fs->handles_lock */
};

/* Adds an item to a window; NAME is copied. */
bool dir_add(struct dir *dir, const char *name, mode_t type, const uint64_t *size, int64_t mtime_s,
             struct err *err);

/* Fills ATTR for a directory or a regular file of this mount. */
void attr_fill(const struct fs *fs, const struct node *node, mode_t type, uint64_t size,
               int64_t mtime_s, struct fs_entry *out);

/* CALL, for what the kernel asks with a directory's lock held, or a program before it writes: those
 * who wait for that lock cannot be killed, and no time-out of theirs has begun. Bounded to
 * write_timeout divided by PART on a mount that writes, unless it is soft, which has a limit of its
 * own. */
struct call bounded_for_writers(const struct fs *fs, unsigned part, const struct call *call);

/* How long the kernel may believe what it was told of an archived file. Its content does not change
 * under its name; should another host delete it, opening it finds out. */
#define ENTRY_VALID_S 30.0
/* Directories that always exist. */
#define FIXED_VALID_S 3600.0
/* The attributes of one. */
bool fixed_dir_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                       const struct call *call, struct err *err);

/* What a look-up that has found NODE answers: its attributes, and it is looked up once more. */
bool node_give(struct fs *fs, struct node *node, struct fs_entry *out, const struct call *call,
               struct err *err);

/* The size of reads and writes that programs should use. */
#define IO_BYTES (512u << 10)

#endif
