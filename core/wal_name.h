/* The names that PostgreSQL archives, and the object keys that WAL-E gives them.
 * Source: PostgreSQL's xlog_internal.h (upper-case hexadecimal only) and WAL-E's storage layout. */
#ifndef WALEFS_CORE_WAL_NAME_H
#define WALEFS_CORE_WAL_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wal_kind {
    WAL_OTHER,   /* not a name that PostgreSQL archives: a temporary of some writer */
    WAL_SEGMENT, /* 24 hex digits */
    WAL_PARTIAL, /* a segment's name and ".partial" */
    WAL_LABEL,   /* a segment's name, ".", 8 hex digits, ".backup" */
    WAL_HISTORY, /* 8 hex digits and ".history" */
};

struct wal_name {
    enum wal_kind kind;
    uint32_t tli;
    uint32_t log; /* the segment's high and low number; 0 for a history file */
    uint32_t seg;
};

#define WAL_NAME_MAX 64 /* longer than any archived name, with the NUL */
#define WAL_SEGMENT_MIN (1u << 20)
#define WAL_SEGMENT_MAX (1u << 30)
#define WAL_KEY_PREFIX "wal_005/"

/* Classifies NAME; kind WAL_OTHER with zeroes when it is none of PostgreSQL's. */
struct wal_name wal_name_parse(const char *name);

/* Is SIZE a segment size that PostgreSQL allows: a power of two from 1 MiB to 1 GiB? */
bool wal_segment_size_valid(uint64_t size);

/* Writes the name of the segment after NAME on its timeline; false at the very end of WAL or when
 * NAME's numbers do not exist with that segment size. */
bool wal_name_next(const struct wal_name *name, uint32_t segment_size, char out[WAL_NAME_MAX]);

/* "wal_005/NAME.lzo". False when NAME is too long for OUT. */
bool wal_key_of_name(const char *name, char *out, size_t cap);

/* The reverse, for names that PostgreSQL archives only: foreign keys give false. */
bool wal_name_of_key(const char *key, char out[WAL_NAME_MAX]);

#endif
