/* Inside status/: what its files are printed from. Each file is one function, in a source of its
 * own; status.c has the table. */
#ifndef WALEFS_FS_STATUS_FILE_H
#define WALEFS_FS_STATUS_FILE_H

#include <stdio.h>

#include "core/catalog.h"
#include "core/wal_census.h"
#include "fs/node.h"
#include "fs/survey.h"

/* What has been asked of the store. */
enum status_source { SOURCE_WAL, SOURCE_BACKUPS, SOURCE_INCOMPLETE, STATUS_SOURCES };

struct status_view {
    struct fs *fs;
    int64_t now_s;
    struct {
        struct survey_result *result; /* NULL: not known yet */
        bool stale;                   /* it is older than it should be, or not known */
        struct err why;               /* then */
    } of[STATUS_SOURCES];
};

/* NULL when it is not known. */
const struct wal_census *view_wal(const struct status_view *v);
const struct catalog *view_backups(const struct status_view *v);

void status_print_incomplete(FILE *out, const struct status_view *v);
void status_print_backups(FILE *out, const struct status_view *v);
void status_print_wal(FILE *out, const struct status_view *v);
void status_print_summary(FILE *out, const struct status_view *v);
void status_print_metrics(FILE *out, const struct status_view *v);
void status_print_config(FILE *out, const struct status_view *v);
void status_print_log(FILE *out, const struct status_view *v);

/* The text of status/incomplete; see status_incomplete.c. */
void *status_make_incomplete(void *fs, const struct call *call, struct err *err);

/* ---- shared by the files ---- */

/* "2026-11-25T18:00:00Z" */
void status_time(FILE *out, int64_t when_s);
/* ", 12 s ago: reason" behind the time of what is stale; "" else. */
void status_as_of(FILE *out, const struct status_view *v, enum status_source source);

/* What a recovery from a backup to the newest WAL lacks. */
struct status_lack {
    uint64_t within, after; /* segments: up to the end of the backup, and behind that */
    struct wal_range first; /* if some are missing */
    bool unsure;            /* those within may be inside it, which could not be looked up */
    uint32_t to_tli;        /* of the last segment on the way */
};
/* False when it cannot be told. Only when the WAL is known. */
bool status_backup_lacks(const struct status_view *v, const struct catalog_backup *b,
                         struct status_lack *lack);

#endif
