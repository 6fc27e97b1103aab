/* Writing base backups, between its sources:
 *
 *     backup_write.c        life, partitions, members
 *     backup_write_look.c   what members tell of the backup
 *     backup_write_tar.c    members out of a tar stream
 *     backup_guard.c        the right to a backup's name
 *     backup_verify.c       their checksums, and what backup_manifest says
 *     backup_commit.c       the end: all
 *     backup_abort.c        the end: nothing
 *
 * Keys under the final name are written only while `guarded` is set, and it is set only after the
 * store has had nothing but our guard there: so all of them are this writer's, and its to remove.
 */
#ifndef WALEFS_CORE_BACKUP_WRITE_IMPL_H
#define WALEFS_CORE_BACKUP_WRITE_IMPL_H

#include "core/backup_facts.h"
#include "core/backup_write.h"
#include "core/partition_write.h"

/* Partitions that are coded and uploaded while the next one is begun. */
#define RUNNING_MAX 2u

/* A partition that was begun; the one at count - 1 may still be open. */
struct begun {
    struct partition_write *writing; /* NULL when it is stored */
    char *key;                       /* where it is stored, or will be */
    bool temporary;                  /* begun before the name was known: copied by the commit */
    char sha256[65];
};

struct backup_write {
    struct backup_write_options opt;
    struct backup_info info;
    char token[33];   /* of the temporary keys and of the guard */
    bool guard_tried; /* our guard may be stored, whatever we were told */
    bool guarded;     /* the name is ours */
    bool has_label;   /* the start is backup_label's */
    bool has_version, has_control, has_pid;
    struct backup_position checkpoint; /* as pg_control has it */
    struct backup_index *index;
    uint32_t *crcs; /* CRC-32C of each member that is a file */
    size_t crc_cap;
    struct begun *begun;
    size_t count, cap;
    bool open;             /* the last of them takes members */
    uint64_t open_bytes;   /* in it */
    unsigned open_members; /* in it */
    char **links;          /* OIDs in pg_tblspc/ that came as symlinks */
    size_t link_count;
    char *sentinel; /* what was sent; it may be stored, whatever we were told */
    bool committed;
    struct err why; /* why it has failed for good; code ERR_NONE when it has not */
};

/* False when it has failed before, or is committed. */
bool backup_write_usable(const struct backup_write *w, struct err *err);
/* Keeps the reason when OK is false: half a member is in the stream, so nothing may follow. */
bool backup_write_note(struct backup_write *w, bool ok, const struct err *err);

/* Ends the open partition, and waits until at most LEFT are in work. */
bool backup_write_settle(struct backup_write *w, bool end_open, size_t left, struct err *err);

/* A member becomes part of a partition. M's path is normalised. */
bool backup_write_put(struct backup_write *w, const struct member *m, struct source *data,
                      struct err *err);
/* The same, without keeping its checksum. */
bool backup_write_put_raw(struct backup_write *w, const struct member *m, struct source *data,
                          struct err *err);

/* Is it a whole cluster, by its own files? */
bool backup_write_check_cluster(const struct backup_write *w, struct err *err);

/* Is this one whose content tells something? */
bool backup_write_is_looked_at(const struct member *m);
/* Reads it, and only then puts it: it may be what names the backup. */
bool backup_write_look(struct backup_write *w, const struct member *m, struct source *data,
                       struct err *err);

/* ERR_INVALID, with WHY. Returns false. */
bool backup_write_is_incremental(const char *why, struct err *err);

bool backup_write_is_tablespace_link(const struct member *m);
/* A tablespace's link is not a member: the sentinel tells where it led. */
bool backup_write_note_link(struct backup_write *w, const struct member *m, struct err *err);

/* The start is known: the name that it gives is taken from here on, or refused. */
bool backup_write_take_name(struct backup_write *w, struct err *err);

enum holder { HOLDER_NONE, HOLDER_US, HOLDER_OTHER, HOLDER_UNKNOWN };

/* Whose is the object at KEY, if ours is exactly TEXT? ERR is set with HOLDER_UNKNOWN. */
enum holder backup_write_holder(const struct backup_write *w, const char *key, const char *text,
                                const struct call *call, struct err *err);

/* The writer's call, with its time limit for what should not take long. Returns ONCE. */
const struct call *backup_write_once(const struct backup_write *w, struct call *once);

/* basebackups_005/NAME followed by REST. */
void backup_write_key(const struct backup_write *w, const char *rest, char out[STORE_KEY_MAX]);
/* The final place of partition I. */
void backup_write_partition_key(const struct backup_write *w, size_t i, char out[STORE_KEY_MAX]);

#define GUARD_REST "/tar_partitions/walefs-writing.lzo"
#define VERSION_REST "/extended_version.txt"
#define INDEX_REST "/tar_partitions/" BACKUP_INDEX_NAME
#define GUARD_TEXT_MAX 96

void backup_write_guard_text(const struct backup_write *w, char out[GUARD_TEXT_MAX]);

#endif
