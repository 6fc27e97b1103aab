/* The directory dumps/: any tree of files, each one object. For logical dumps: streams of any
 * length, written once from front to back, read from anywhere.
 *
 *     dumps_dir.c     directories: looking, listing, making, removing
 *     dump_local.c    what exists on this host only, and which names are being changed
 *     dump_rename.c   renaming files and directories
 *     dump_file.c     files: attributes, opening
 *     dump_writer.c   open files that are written
 *     dump_publish.c  storing what was written
 *     dump_reader.c   open files that are read
 *     dump_stat.c     what the store knows of a path
 *     dump_measure.c  sizes that only reading shows
 *     dump_facts.c    the facts kept beside the objects (core/dump_name.h)
 *
 * A file's node stands for one content, which the kernel may cache: where another host has replaced
 * the object, the name gets a new node. A file that is being written and not published yet exists
 * on this host only.
 *
 * A directory exists while some key begins with its path; one that was made here, or has lost its
 * last file through this mount, also exists on this host until it is removed or the mount ends. No
 * marker objects: nobody else would know them, and removing one takes a right (deleting) that who
 * writes dumps need not have. */
#ifndef WALEFS_FS_DUMPS_H
#define WALEFS_FS_DUMPS_H

#include "core/digest.h"
#include "core/dump_name.h"
#include "core/object_write.h"
#include "fs/node.h"

/* How long the kernel may believe what it was told of a dump, which another host may replace. */
#define DUMP_VALID_S 2.0

#define MEASURED_MAX 64u

/* A path that is being changed (renamed, removed, stored): it, what is in it and what it is in are
 * not changed otherwise meanwhile. In the memory of who changes it. */
struct dump_claim {
    char path[STORE_KEY_MAX];
    struct dump_claim *next;
};

/* A size that reading an object has shown, where it cannot be kept in the archive. */
struct measured {
    char *key; /* NULL: free */
    struct dump_facts facts;
};

struct dumps {
    struct node *top; /* a reference */
    pthread_mutex_t lock;
    struct node **kept; /* lock: directories that exist on this host, and files that are being
                           written; a reference each */
    size_t kept_count;  /* lock */
    struct dump_claim *claims;              /* lock */
    pthread_cond_t unclaimed;               /* a claim has ended */
    struct measured measured[MEASURED_MAX]; /* lock: the oldest is replaced */
    unsigned next_measured;                 /* lock */
    struct measuring *measuring;            /* lock: those under way */
    pthread_cond_t ended;                   /* one of them is not any more */
};

struct dumps *dumps_new(struct err *err);
void dumps_free(struct dumps *d); /* NULL is allowed */

extern const struct node_template dumps_dir_template;
extern const struct node_template dump_file_template;

/* A file's own data. */
struct dump_file {
    pthread_mutex_t lock;
    struct dump_facts facts; /* lock: of the published content; etag "" when there is none */
    uint64_t stored;         /* lock: its object's bytes */
    int64_t mtime_s;         /* lock */
    bool writing;            /* lock: a handle has a candidate for this name */
    unsigned replaced;       /* lock: how often its writer has published another content */
    uint64_t written;        /* lock: bytes of it */
};

/* ---- nodes ---- */

bool dump_is_dir(const struct node *node);
/* The path below dumps/; ERR_STALE when the node has no name any more. */
bool dump_path(struct fs *fs, const struct node *node, char path[STORE_KEY_MAX], struct err *err);
/* Of NAME in DIR; ERR_INVALID for one that no dump can have. */
bool dump_child_path(struct fs *fs, const struct node *dir, const char *name,
                     char path[STORE_KEY_MAX], struct err *err);

/* Directories that exist on this host, and files that are being written: a reference is held.
 * ERR_BUSY where the path is claimed. */
bool dumps_keep(struct fs *fs, struct node *node, struct err *err);
void dumps_unkeep(struct fs *fs, struct node *node);
/* DIR, and what it is in, stays though its last file may go, as everywhere; claimed or not. */
bool dumps_keep_dirs(struct fs *fs, struct node *dir, struct err *err);
bool dumps_is_kept(struct fs *fs, const struct node *node);
/* Is anything in DIR kept? */
bool dumps_has_kept(struct fs *fs, const struct node *dir);

/* Claims claim->path. ERR_BUSY where it, or something in it or that it is in, is claimed already.
 */
bool dumps_claim(struct fs *fs, struct dump_claim *claim, struct err *err);
/* The same for what is renamed and its new name, in which nobody may be writing either. */
bool dumps_claim_both(struct fs *fs, struct dump_claim *from, struct dump_claim *to,
                      struct err *err);
/* For who writes NODE and stores it under its path: nobody renames what it is in. Waits while the
 * path is claimed by who removes it. False when that has been done: the node has no name. */
bool dumps_claim_to_store(struct fs *fs, const struct node *node, struct dump_claim *claim);
void dumps_end_claim(struct fs *fs, struct dump_claim *claim);
bool dumps_is_claimed(struct fs *fs, const char *path); /* itself, or what it is in */

/* ---- the store ---- */

struct dump_stat {
    struct dump_facts facts;
    bool known; /* facts.size is the plain size; else the stored one, since it cannot be read */
    uint64_t stored;
    int64_t mtime_s;
};

/* What the store has under PATH, persistently, but on a mount that can write for no longer than the
 * writers' deadline; ERR_ABSENT: no such file. An object without facts is read once, which takes as
 * long as that does. */
bool dump_stat(struct fs *fs, const char *path, struct dump_stat *out, const struct call *call,
               struct err *err);
/* Is anything below the directory PATH? In the same way. */
bool dump_dir_exists(struct fs *fs, const char *path, bool *exists, const struct call *call,
                     struct err *err);

/* The facts of the object KEY with ETAG, which only reading it to its end shows: that is done in
 * the background, once however many ask, for as long as bytes come, and goes on when who asks is
 * interrupted. Waits for it until the call's deadline. The error is the store's or the codec's, and
 * ERR_TIMEOUT while it is under way. What was found out is kept in the archive if it can be
 * written. */
bool dump_measure(struct fs *fs, const char *key, const char *etag, struct dump_facts *out,
                  const struct call *call, struct err *err);
/* What has been found out on this host. */
bool dump_measured(struct fs *fs, const char *key, const char *etag, struct dump_facts *out);

/* ---- facts ---- */

/* Keeps the facts of KEY in the archive, with MAP and DIGEST where given. What goes wrong is
 * logged: without facts the object is still whole. */
void dump_facts_put(struct fs *fs, const char *key, const struct dump_facts *facts,
                    const struct lzop_map *map, const char *digest, const struct call *call);
/* The facts that are kept for KEY with ETAG: *FOUND. */
bool dump_facts_find(struct fs *fs, const char *key, const char *etag, struct dump_facts *out,
                     bool *found, const struct call *call, struct err *err);
/* The block map of an object that is not encrypted. False when none is kept. */
bool dump_facts_map(struct fs *fs, const char *key, const struct dump_facts *facts,
                    struct lzop_map *map, const struct call *call);
/* The digest of the plain bytes. False when none is kept. */
bool dump_facts_digest(struct fs *fs, const char *key, const struct dump_facts *facts,
                       char out[DIGEST_TEXT_MAX], const struct call *call);
/* Removes all facts of KEY but those of ETAG (NULL: all). What goes wrong is logged. */
void dump_facts_drop(struct fs *fs, const char *key, const char *etag, const struct call *call);

/* The facts of all objects of one page of a listing, in order. */
struct dump_facts_page {
    char **keys;
    struct dump_facts *facts;
    size_t count, cap;
};
bool dump_facts_list(struct fs *fs, const char *dir_prefix, const struct store_page *page,
                     struct dump_facts_page *out, const struct call *call, struct err *err);
const struct dump_facts *dump_facts_on_page(const struct dump_facts_page *page, const char *key,
                                            const char *etag);
void dump_facts_page_free(struct dump_facts_page *page); /* contents only */

/* ---- files ---- */

/* The node of a published file, made or replaced where the content is another. A reference. */
struct node *dump_obtain(struct fs *fs, struct node *dir, const char *name,
                         const struct dump_stat *st, struct err *err);
/* The object of NODE's content is ST from now on: it has been renamed. */
void dump_set_published(struct node *node, const struct dump_stat *st);
/* Its writer has published ST. Another content than before is another node as soon as the writer
 * has gone. */
void dump_set_written(struct node *node, const struct dump_stat *st);
void dump_entry(struct fs *fs, struct node *node, struct fs_entry *out);
/* Takes the right to write NODE, which is kept from then on; ERR_BUSY when somebody else has it. */
bool dump_begin_writing(struct fs *fs, struct node *node, struct err *err);
void dump_end_writing(struct fs *fs, struct node *node);
bool dump_is_published(struct node *node);
bool dump_is_written(struct node *node); /* somebody has that right */

/* A handle for writing the new content of NODE, whose right is taken; thread PID opens it. REPLACE:
 * what is published under the name is replaced. ERR_DENIED for a process that is not visible. */
struct handle *dump_writer_new(struct fs *fs, struct node *node, const char *path, int flags,
                               bool replace, pid_t pid, struct err *err);
bool dump_writer_truncate(struct handle *h, uint64_t size, struct err *err);
bool dump_is_writer(const struct handle *h); /* NULL is none */

/* A handle for reading NODE's published content; nothing is fetched before it is read. WRITABLE: it
 * was opened for writing too, which is refused when it is tried. */
struct handle *dump_reader_new(struct fs *fs, struct node *node, const char *path, bool writable,
                               struct err *err);

bool dump_move(struct fs *fs, struct node *dir, const char *name, struct node *new_dir,
               const char *new_name, bool no_replace, const struct call *call, struct err *err);

/* A call for what must end: publishing, renaming, deleting. */
struct call dump_bounded(const struct fs *fs, const struct call *call);

#endif
