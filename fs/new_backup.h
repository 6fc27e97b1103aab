/* A base backup that is being written: the directory basebackups/LABEL until it is committed.
 *
 * Two kinds of writers come here. pg_basebackup -Ft writes tar streams (base.tar, OID.tar), which
 * are cut into partitions while they arrive; all else writes a tree of files (pg_basebackup -Fp,
 * cp -a, rsync), each of which is staged on this host until some time after it was closed, and
 * then becomes a member of a partition. The first file that is made decides.
 *
 * What commits: pg_basebackup's rename of backup_manifest.tmp to backup_manifest; or, for a
 * directory called LABEL.partial, its rename to LABEL. Everything that goes wrong before fails the
 * backup for good: nothing of it stays in the archive, and it can only be removed.
 *
 *     new_backup.c         life, failure
 *     new_backup_top.c     as entries of basebackups/
 *     new_backup_node.c    what there is in it, and its attributes
 *     new_backup_dir.c     directories and their entries
 *     new_backup_file.c    open files
 *     new_backup_pack.c    files become members
 *     new_backup_commit.c  completing it
 */
#ifndef WALEFS_FS_NEW_BACKUP_H
#define WALEFS_FS_NEW_BACKUP_H

#include "core/backup_write.h"
#include "fs/node.h"

#define NEW_BACKUP_PARTIAL ".partial"
#define NEW_BACKUP_MANIFEST "backup_manifest"

enum new_kind { NEW_UNDECIDED, NEW_TARS, NEW_TREE };

struct new_backup {
    struct fs *fs;
    struct new_backup *next; /* fs->new_backups_lock */
    struct node *top;        /* the directory's node; a reference */
    char label[INODE_NAME_MAX + 1];
    bool partial; /* it was made as LABEL.partial */
    struct cancel cancel;
    struct call call; /* with that cancel */
    int64_t made_s;
    _Atomic unsigned refs;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum new_kind kind;     /* lock */
    struct backup_write *w; /* lock for the pointer; used by who holds `writing` */
    bool writing;           /* lock: somebody uses w */
    bool failed, committed; /* lock */
    bool committing;        /* lock: nobody writes, and nothing changes any more */
    unsigned writers;       /* lock: open handles that may write, and truncations under way */
    unsigned unclosed;      /* lock: of those handles: since whose last write nobody closed */
    struct err err;         /* lock: why it failed */
    struct node **nodes;    /* lock: everything below, in the order it was made; references */
    size_t count, cap;      /* lock */
    size_t settled;         /* lock: of the first so many nothing is to be packed any more */
    size_t queued;          /* lock: closed files that are not packed */
    uint64_t queued_bytes;  /* lock */
};

/* What a node below stands for: node->data. */
struct new_file {
    struct new_backup *backup; /* a reference, from the moment it is made */
    mode_t type;               /* S_IFDIR, S_IFREG, S_IFLNK; fixed */
    bool tar;                  /* a stream that is consumed while it is written; fixed */
    /* the backup's lock guards the rest */
    uint32_t mode;
    uid_t uid;
    gid_t gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint64_t size;
    char *link;
    struct staged *staged; /* content on this host: a reference; NULL when packed, or none */
    unsigned writers;      /* open handles that may write */
    bool listed;           /* one of backup->nodes */
    bool queued;           /* closed, and counted in backup->queued */
    bool final;            /* it becomes a member: nothing about it can change any more */
    bool packed;           /* it is one */
    struct tar_stream *stream;
};

extern const struct node_ops new_dir_ops, new_file_ops, new_link_ops;

/* basebackups/: making, finding, committing by rename, removing. */
bool new_backup_mkdir(struct fs *fs, struct node *backups, const char *name, mode_t mode,
                      struct fs_entry *out, const struct call *call, struct err *err);
/* The node of a backup that is being written under that name, with a reference; NULL for none. */
struct node *new_backup_find(struct fs *fs, struct node *backups, const char *name);
bool new_backup_list(struct fs *fs, struct dir *dir, struct err *err);
bool new_backup_rename(struct fs *fs, struct node *top, const char *new_name,
                       const struct call *call, struct err *err);
bool new_backup_rmdir(struct fs *fs, struct node *top, const struct call *call, struct err *err);

/* Calls FN for each that is being written, with the lock of all held: it must not block. */
void new_backups_each(struct fs *fs, void (*fn)(void *arg, const char *label, int64_t made_s),
                      void *arg);

/* Fails all, and waits for what uses the pool without being one of its jobs. Before pool_free. */
void new_backups_stop(struct fs *fs);
void new_backups_free(struct fs *fs); /* after it */

/* ---- between the sources named above ---- */

struct new_backup *new_backup_ref(struct new_backup *nb);
void new_backup_unref(struct new_backup *nb);
/* Takes it out of the tree: what is open stays until it is released. */
void new_backup_leave_tree(struct new_backup *nb);

/* A node that is new: the kernel makes a name only when a lookup has not found it, one at a time.
 * A reference. */
struct node *new_node_make(struct new_backup *nb, struct node *parent, const char *name,
                           const struct node_ops *ops, mode_t type, mode_t mode, struct err *err);
/* It belongs to the backup's tree from now on, and H, if any, is a handle of it. */
bool new_node_keep(struct new_backup *nb, struct node *node, struct handle *h, struct err *err);
/* With nb->lock held: it does not any more. The reference that the tree had is the caller's; NULL
 * when it had none. */
struct node *new_node_take_out(struct new_backup *nb, struct node *node);
void new_node_forget(struct new_backup *nb, struct node *node);
bool new_node_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                      const struct call *call, struct err *err);
bool new_node_setattr(struct fs *fs, struct node *node, const struct fs_setattr *set,
                      struct handle *handle, struct fs_entry *out, const struct call *call,
                      struct err *err);

/* Of a file: cut, or filled with zeros. Fails for what is archived already. */
bool new_file_set_size(struct new_file *f, uint64_t size, struct err *err);

/* The backup has failed for REASON: it is logged, uploads end, what was stored is removed in the
 * background. Returns false, with ERR = REASON. */
bool new_backup_fail(struct new_backup *nb, const struct err *reason, struct err *err);
/* What a writer wanted of it has failed for the reason in ERR. Programs like cp and rsync go on, so
 * a backup that now lacks something fails for good. It lacks nothing when the name was there (or
 * not there), or when the refusal is that it is complete. Returns false. */
bool new_backup_lacks(struct new_backup *nb, struct err *err);
/* False with the reason when it has failed, or is (being) committed. */
bool new_backup_alive(struct new_backup *nb, struct err *err);
bool new_backup_alive_locked(const struct new_backup *nb, struct err *err);

/* The right to use nb->w, made when there is none yet; one at a time. */
struct backup_write *new_backup_take(struct new_backup *nb, struct err *err);
void new_backup_give(struct new_backup *nb);

/* From here on nothing changes any more. ERR_BUSY, and all is as before, while somebody has a file
 * open for writing: what he has yet to write would be missing. */
bool new_backup_begin_commit(struct new_backup *nb, struct err *err);
/* After that: packs what is staged, and commits. */
bool new_backup_commit(struct new_backup *nb, struct err *err);

/* NODE becomes a member now, with the right to use W, unless it is one. */
bool new_backup_pack_with(struct new_backup *nb, struct backup_write *w, struct node *node,
                          struct err *err);
/* Packs the oldest closed files while there are too many; or ALL that are closed. */
bool new_backup_pack_some(struct new_backup *nb, bool all, struct err *err);

/* With nb->lock held: NODE, or something below it, can be changed no more. */
bool new_backup_is_final(struct new_backup *nb, const struct node *node);

/* The path of NODE below the backup's directory. */
bool new_backup_path(struct new_backup *nb, const struct node *node, char *out, size_t cap);

/* A handle for NODE, with a reference; PID opens it. Before it is used it must be entered. */
struct handle *new_handle(struct fs *fs, struct node *node, int flags, pid_t pid, struct err *err);
/* With the backup's lock held: it counts as a writer, if it may write. */
void new_handle_enter_locked(struct handle *h);
/* And no longer; true for the last writer of its file. */
bool new_handle_leave_locked(struct handle *h);
/* One that was never entered. NULL is allowed. */
void new_handle_drop(struct fs *fs, struct handle *h);
/* With the backup's lock held: somebody writes into F, or has done so; true for the last of them.
 * What nobody writes may be packed. */
void new_file_enter_locked(struct new_file *f);
bool new_file_leave_locked(struct new_file *f);
/* Ends a tar stream that nobody will finish; its reader ends on its own. NULL is allowed. */
void tar_stream_end(struct tar_stream *s);
/* Has the stream been read to its end, soundly? */
bool tar_stream_done(struct tar_stream *s, struct err *err);

#endif
