/* What is known of one base backup: its name, and what its sentinel says. Plain data with owned
 * strings; immutable once it is shared. */
#ifndef WALEFS_CORE_SENTINEL_H
#define WALEFS_CORE_SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define BACKUP_PREFIX "basebackups_005/"
#define BACKUP_NAME_MAX 64 /* "base_" 24 hex digits "_" 8 digits, with the NUL */
#define BACKUP_SENTINEL_SUFFIX "_backup_stop_sentinel.json"
/* Before its name is known, a backup's partitions are stored under this and 32 hex digits. */
#define BACKUP_TEMP_PREFIX "walefs-tmp-"
#define BACKUP_INDEX_NAME "walefs-index.lzo"

struct backup_position {
    uint32_t tli; /* 0: not known */
    uint64_t lsn;
};

struct backup_tablespace {
    char *oid;
    char *location; /* where it was; "" when not known */
};

struct backup_info {
    char name[BACKUP_NAME_MAX];
    char *label; /* what it was written under; "" for WAL-E's */
    struct backup_position start, stop;
    bool
        start_sure; /* start comes from the backup's own label or control file, not from its name */
    uint32_t segment_size;  /* of its WAL; 0: not known */
    uint64_t system_id;     /* 0: not known */
    char *version;          /* PostgreSQL's, as PG_VERSION has it; "" when not known */
    uint64_t expanded_size; /* bytes of its files */
    char *base_prefix;      /* data directory it came from; "" when not known */
    struct backup_tablespace *tablespaces;
    size_t tablespace_count;
    int64_t stored_s; /* when the sentinel was stored */
    bool by_walefs;
    char *stop_segment; /* as the sentinel has it; "" when it does not */
    char *stop_offset;
    /* Checksums of the partitions' plain tar streams, hexadecimal SHA-256, in their order; none for
     * WAL-E's. */
    char **partition_sha256;
    size_t partition_count;
};

/* Copies both; a tablespace that is known gets this location. False without memory. */
bool backup_info_set_tablespace(struct backup_info *info, const char *oid, const char *location);

void backup_info_free(struct backup_info *info); /* contents only; safe when zeroed */
/* Into *TO, which holds nothing yet, and nothing after a failure (ERR_NO_MEMORY). */
bool backup_info_copy(const struct backup_info *from, struct backup_info *to, struct err *err);

/* Is NAME a backup's name? Fills the position that it claims (tli and segment; LSN with a 16 MiB
 * segment unless SEGMENT_SIZE says else), which WAL-E got wrong for offline backups. POS may be
 * NULL. */
bool backup_name_parse(const char *name, uint32_t segment_size, struct backup_position *pos);

/* Is NAME what partitions are stored under before their backup's name is known? */
bool backup_name_is_temporary(const char *name);

/* base_<segment>_<offset>: the offset is decimal, at least 8 digits. */
bool backup_name_format(const struct backup_position *start, uint32_t segment_size,
                        char out[BACKUP_NAME_MAX]);

/* Reads a sentinel's JSON, whoever wrote it, into INFO (whose name is set; everything else is
 * filled). Unknown members are ignored, ours stand under "walefs". ERR_CORRUPT: not JSON, or not an
 * object. Nothing in it is trusted. */
bool sentinel_parse(const char *name, const char *json, size_t n, struct backup_info *info,
                    struct err *err);

/* Can it be a backup's label, which becomes a name in the tree? A sentinel's that cannot is passed
 * over; and JSON holds UTF-8 only. */
bool backup_label_ok(const char *label);

/* The sentinel as WAL-E reads it, with our own members under "walefs". A string that the caller
 * frees; NULL without memory. */
char *sentinel_format(const struct backup_info *info, struct err *err);

/* backup.json, for people and scripts: one member a line, keys sorted, see walefs(8). ENCRYPTED and
 * STORED_SIZE as far as known (-1: not). The caller frees it. */
char *backup_json_format(const struct backup_info *info, int encrypted, int64_t stored_size,
                         uint64_t file_count, struct err *err);

#endif
