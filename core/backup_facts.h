/* What a cluster's own files say of the backup they are in. Sources: PostgreSQL's xlogbackup.c
 * (backup_label), pg_control.h, basebackup.c (tablespace_map), backup_manifest.c. */
#ifndef WALEFS_CORE_BACKUP_FACTS_H
#define WALEFS_CORE_BACKUP_FACTS_H

#include "core/sentinel.h"

#define BACKUP_LABEL_MAX (1u << 16)
#define PG_CONTROL_SIZE 8192u

/* START WAL LOCATION and START TIMELINE. ERR_INVALID when it is no backup_label. LABEL (cap bytes,
 * may be NULL) gets the LABEL line. *SEGMENT_SIZE is worked out from the file name and LSN where
 * they tell (0 when several sizes fit). */
bool backup_label_parse(const char *text, size_t n, struct backup_position *start,
                        uint32_t *segment_size, char *label, size_t cap, struct err *err);

struct control_facts {
    uint64_t system_id;
    uint32_t version;            /* pg_control_version: 960, 1002, 1100, 1201, 1300, 1700... */
    struct backup_position redo; /* of the latest checkpoint */
    uint64_t checkpoint;         /* LSN of the checkpoint record itself */
    uint32_t state;              /* DBState; 1 is "shut down" */
    uint32_t segment_size;
    bool crc_ok;
};

/* PostgreSQL 9.0 and later, this machine's byte order. ERR_INVALID when it is no control file. */
bool control_parse(const void *data, size_t n, struct control_facts *out, struct err *err);

/* tablespace_map: lines "OID LOCATION", with \-escaped newlines. Appends to INFO's tablespaces. */
bool tablespace_map_parse(const char *text, size_t n, struct backup_info *info, struct err *err);

/* The WAL that a backup needs, as its backup_manifest says. */
struct manifest_range {
    struct backup_position start, stop;
};

/* Reads a backup_manifest of any length (only "WAL-Ranges" is kept). FD is read with pread from 0
 * to SIZE; checks the manifest's own checksum. ERR_INVALID: no manifest, or damaged. */
bool manifest_check(int fd, uint64_t size, struct manifest_range *out, struct err *err);

struct manifest_file {
    const char *path;
    uint64_t size;
    bool has_crc; /* there is a CRC-32C; other checksums are passed over */
    uint32_t crc;
};
typedef bool manifest_visit(void *arg, const struct manifest_file *f, struct err *err);

/* Calls VISIT for each file of a manifest, until it returns false. One line is kept at a time.
 * ERR_INVALID for a line that is not understood. */
bool manifest_each(int fd, uint64_t size, manifest_visit *visit, void *arg, struct err *err);

#endif
