/* The index of a base backup: what its tar partitions hold and where, so that the backup can be
 * shown as a directory tree and read from the middle. Immutable once made; any thread reads it.
 *
 * Stored as tar_partitions/walefs-index.lzo, coded like the partitions. Its plain form is text: a
 * line that says the version, lines of tab-separated fields with \-escapes, and a last line with
 * the SHA-256 of all that stands above it. See backup_index_text.c. */
#ifndef WALEFS_CORE_BACKUP_INDEX_H
#define WALEFS_CORE_BACKUP_INDEX_H

#include <sys/types.h>

#include "core/err.h"
#include "core/lzop_map.h"
#include "core/path_slots.h"
#include "core/stream.h"

enum member_type { MEMBER_FILE, MEMBER_DIR, MEMBER_SYMLINK, MEMBER_HARDLINK };

/* One name of the backup's tree. */
struct member {
    const char *path; /* relative, no leading "./", no trailing "/"; "" is the root */
    const char *link; /* symlink: its target; hard link: the path of the other name; else "" */
    enum member_type type;
    uint32_t partition; /* index into partitions[] */
    uint64_t offset;    /* of the data in the partition's plain tar stream, bytes */
    uint64_t size;      /* bytes; 0 for all but files */
    uint32_t mode;      /* permission bits, 07777 */
    uint32_t uid, gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
};

struct index_partition {
    unsigned number;      /* the N of part_N */
    char etag[128];       /* of the object that was indexed */
    uint64_t stored_size; /* bytes of that object */
    bool encrypted;
    struct lzop_map map;
};

struct backup_index {
    struct member *members; /* in the order of partitions and of the tar streams */
    size_t count;
    struct index_partition *partitions; /* ascending numbers */
    size_t partition_count;
    struct index_arena *arena; /* owns the strings */
    struct path_slots paths;   /* of members */
};

#define BACKUP_PATH_MAX 4096u

/* PATH as the index keeps it: no "./", no doubled or trailing slashes. ERR_INVALID for what must
 * not reach a tree: absolute, "..", too long. */
bool backup_path_normalise(const char *path, char out[BACKUP_PATH_MAX], struct err *err);

/* An empty one to be filled, from one thread. NULL without memory. */
struct backup_index *backup_index_new(struct err *err);
void backup_index_free(struct backup_index *index); /* NULL is allowed */

/* Appends a copy. Normalises M->path; ERR_INVALID for a path that must not reach a tree: absolute,
 * with "..", a component over 255 bytes, NUL impossible by type. A path that is there already
 * replaces the earlier member unless both are directories, where the later one's facts count. */
bool backup_index_add(struct backup_index *index, const struct member *m, struct err *err);

/* Appends a copy of everything but MAP, which is taken over (and zeroed for the caller). Members
 * added from now on may refer to it. Partitions may be added in any order of numbers; see _seal. */
bool backup_index_add_partition(struct backup_index *index, struct index_partition *p,
                                struct err *err);

/* Last step of making one: sorts partitions by number and members by (partition, offset). */
bool backup_index_seal(struct backup_index *index, struct err *err);

/* The member of that normalised path, or NULL. Only after seal. */
const struct member *backup_index_find(const struct backup_index *index, const char *path);

/* The member that has the data of M: M itself, or the file that a hard link names; NULL when the
 * backup does not have that. */
const struct member *backup_index_data_of(const struct backup_index *index, const struct member *m);

/* The text form as a source; the index is borrowed until it is closed. */
struct source *backup_index_write(const struct backup_index *index, struct err *err);
/* Reads the text form; sealed. ERR_CORRUPT when it is damaged, ERR_UNSUPPORTED for a newer version.
 * Does not close TEXT. Nothing in it is trusted: offsets, sizes, references and counts are checked.
 */
struct backup_index *backup_index_read(struct source *text, struct err *err);

/* Reads a plain tar stream (GNU, ustar, pax; WAL-E's with an empty root name) and adds its members
 * as of partition number INDEX->partition_count - 1 (the one added last). Drains PLAIN to its end;
 * a stream that breaks off inside a member or without an end is ERR_CORRUPT. Unsafe names are left
 * out and logged. Device nodes, fifos likewise. Does not close PLAIN. */
bool backup_index_scan(struct backup_index *index, struct source *plain, const char *what,
                       struct err *err);

#endif
