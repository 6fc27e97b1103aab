/* The directory wal/: one file per archived WAL file, under PostgreSQL's own name.
 *
 * A name that PostgreSQL archives is final: its file is what the store has. While somebody writes
 * to a final name, the new content is a candidate on this host only (wal_file.stage) and is
 * published by the close or fsync that finishes it. Any other name is a temporary: it exists on
 * this host only, is listed, and is published when it is renamed to a final name. */
#ifndef WALEFS_FS_WAL_H
#define WALEFS_FS_WAL_H

#include "core/wal_name.h"
#include "fs/node.h"

extern const struct node_template wal_dir_template;
extern const struct node_template wal_file_template;
extern const struct node_ops wal_file_ops;

/* A file's own data (node->data). */
struct wal_file {
    struct backing backing;
    pthread_mutex_t lock;
    struct stage *stage; /* lock: the candidate or the temporary's content; a reference */
    unsigned writers;    /* lock: handles that can write to this stage */
    unsigned changers;   /* lock: those of them that have */
    bool kept;           /* lock: the stage outlives its writers (temporaries, .partial) */
    bool temporary;      /* lock: not a final name */
    /* lock: the final name that the stage is for, also when a rename over it has taken the name
     * away; "" for a temporary */
    char final_name[WAL_NAME_MAX];
    uint64_t given_up; /* lock: version of the stage whose writer failed; 0 for none */
    bool published;    /* lock: the store had it when it was last asked */
    uint64_t size;     /* lock: of what is published */
    int64_t mtime_s;   /* lock: of what is published, or of the stage if there is no such thing */
    int64_t waited_ms; /* lock: how long lookups have waited in vain for the store */
    uint64_t shown_number; /* lock: of the last final name that it had; 0 for none */
};

/* Metadata of the objects that walefs writes: the plain size in decimal, a digest of the plain
 * content (digest.h). */
#define WAL_META_SIZE "walefs-size"
#define WAL_META_DIGEST "walefs-digest"

/* The plain size that an object's metadata tell; false when they do not. */
bool wal_size_of_meta(const struct store_info *info, uint64_t *size);

/* What the store says of an archived name. */
struct wal_stat {
    uint64_t size; /* plain */
    int64_t mtime_s;
};

/* Asks the store about NAME, persistently. A segment's size comes from the object's metadata, else
 * from the archive's segment size, which one segment's header told; only where neither is known,
 * and for the small files, the object itself is read. */
bool wal_stat(struct fs *fs, const char *name, struct wal_stat *out, const struct call *call,
              struct err *err);

/* The content of NAME, persistently. A reference. */
struct plain *wal_fetch(struct fs *fs, const char *name, const struct call *call, struct err *err);

/* attr_fill for a file. A final name has an inode number of its own, which is shown whatever node
 * stands for it: cp takes a file for another one when its number has changed. */
void wal_attr_fill(struct fs *fs, struct node *node, uint64_t size, int64_t mtime_s,
                   struct fs_entry *out);

/* The entry of a file node: its stage if nothing is published, else what the store says. */
bool wal_file_entry(struct fs *fs, struct node *node, struct fs_entry *out, const struct call *call,
                    struct err *err);

/* The same of what a handle holds: STAGE, else PLAIN, else nothing (false). Not to be cached. */
bool wal_held_entry(struct fs *fs, struct node *node, struct stage *stage,
                    const struct plain *plain, struct fs_entry *out);

/* With the file's lock held: its stage is for NAME, if that is a final name. */
void wal_file_set_final(struct wal_file *file, const char *name);

/* A candidate for FILE, which other handles do not see. One writer is counted. */
struct stage *wal_new_stage(struct fs *fs, struct wal_file *file, const char *name,
                            struct err *err);

/* A staged copy of published content; not dirty. */
struct stage *wal_stage_of_plain(struct fs *fs, const struct plain *plain, struct err *err);

/* A writer of STAGE is done. */
void wal_drop_writer(struct wal_file *file, const struct stage *stage);

/* The candidate or the temporary's content, with a reference; NULL when nothing is staged. */
struct stage *wal_file_stage(struct wal_file *file);

/* An opening of NODE that can write enters (backing.h). ERR_STALE: NODE has no name any more, maybe
 * for this reason; the kernel finds another node when it looks the name up again, as it does on
 * ESTALE, once. */
bool wal_file_enter_writer(struct fs *fs, struct node *node, struct backing_use *use,
                           struct err *err);

/* A handle for reading NODE, whose name is NAME: waits until its content is there and verified. */
struct handle *wal_reader_new(struct fs *fs, struct node *node, const char *name,
                              const struct call *call, struct err *err);

/* The part of [OFFSET, OFFSET+SIZE) that a file of FILE_SIZE has. */
void wal_set_bytes(int fd, uint64_t file_size, uint64_t offset, size_t size, struct fs_bytes *out);

/* A handle for writing; takes over the caller's reference and writer count of STAGE (NULL: the
 * published content, copied at the first change), and BACKING. PID opens it. */
struct handle *wal_writer_new(struct fs *fs, struct node *node, struct stage *stage,
                              const struct backing_use *backing, pid_t pid, struct err *err);
bool wal_is_writer(const struct handle *handle); /* NULL is none */
bool wal_writer_truncate(struct fs *fs, struct handle *writer, uint64_t size,
                         const struct call *call, struct err *err);

/* Publishes STAGE under the final name NAME, or finds that the same content is there already.
 * WAITED_MS counts against the write time-out. ERR_INVALID: the content does not belong under that
 * name; ERR_EXISTS: other content is archived under it. */
bool wal_publish(struct fs *fs, const char *name, struct stage *stage, int64_t waited_ms,
                 const struct call *call, struct err *err);

/* Temporaries on this host, for listings: a reference is held while a node is among them. */
bool wal_dir_keep(struct fs *fs, struct node *node, struct err *err);
void wal_dir_unkeep(struct fs *fs, struct node *node);
/* The nodes that are kept, as far as there is room in OUT, each with a reference. */
size_t wal_dir_kept(struct fs *fs, struct node **out, size_t cap);

/* Something has been published: from now on no earlier "no" of the store is taken for it. */
void wal_dir_published(struct fs *fs);

/* What is staged on this host and not, or not yet, in the archive. */
struct wal_backlog {
    size_t files;
    uint64_t bytes;
    bool more; /* than could be counted */
};
void wal_backlog(struct fs *fs, struct wal_backlog *out);

#endif
