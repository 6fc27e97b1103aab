/* Shared by backup_write.c and backup_commit.c. */
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
    bool temporary;                  /* under a key that is not its final one */
    char sha256[65];
};

struct backup_write {
    struct backup_write_options opt;
    struct backup_info info;
    char token[33]; /* of the temporary keys */
    bool guarded;   /* the name is ours */
    bool has_label; /* the start is backup_label's */
    bool has_version, has_control, has_pid;
    struct backup_position checkpoint; /* as pg_control has it */
    struct backup_index *index;
    struct begun *begun;
    size_t count, cap;
    bool open;             /* the last of them takes members */
    uint64_t open_bytes;   /* in it */
    unsigned open_members; /* in it */
    char **links;          /* OIDs in pg_tblspc/ that came as symlinks */
    size_t link_count;
    bool sentinel_tried; /* it may be stored, whatever we were told */
    bool committed;
};

/* Ends the open partition, and waits until at most LEFT are in work. */
bool backup_write_settle(struct backup_write *w, bool end_open, size_t left, struct err *err);

/* The start is known: the name that it gives is taken from here on, or refused. */
bool backup_write_take_name(struct backup_write *w, struct err *err);

void backup_write_guard_key(const struct backup_write *w, char out[STORE_KEY_MAX]);

#endif
