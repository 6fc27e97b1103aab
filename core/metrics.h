/* What this process counts of itself: plain atomic counters, cheap enough for every request. Any
 * thread; nothing here blocks or fails. Printed in Prometheus' text exposition format. */
#ifndef WALEFS_CORE_METRICS_H
#define WALEFS_CORE_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "core/err.h"

/* Work that takes time and ends in one of the outcomes of struct err (ERR_NONE: done). Those of one
 * family stand together; the names are in metrics_text.c. */
enum metric_work {
    WORK_LOOKUP, /* requests of the kernel */
    WORK_GETATTR,
    WORK_SETATTR,
    WORK_CREATE,
    WORK_OPEN,
    WORK_READ,
    WORK_WRITE,
    WORK_CLOSE,
    WORK_FSYNC,
    WORK_RELEASE,
    WORK_ALLOCATE,
    WORK_READLINK,
    WORK_SYMLINK,
    WORK_LINK,
    WORK_MKDIR,
    WORK_RMDIR,
    WORK_UNLINK,
    WORK_RENAME,
    WORK_OPENDIR,
    WORK_READDIR,
    WORK_XATTR,
    WORK_GET, /* attempts to ask S3 */
    WORK_PUT,
    WORK_POST,
    WORK_DELETE,
    WORK_ENCRYPT, /* runs of gpg */
    WORK_DECRYPT,
    WORK_ARCHIVE, /* WAL files that are published */
    WORK_BACKUP,  /* base backups that are completed */
    WORK_KINDS
};
void metrics_work(enum metric_work work, enum err_code outcome, int64_t took_us);

enum metric_count {
    COUNT_READ_BYTES,    /* by programs, through the mount */
    COUNT_WRITTEN_BYTES, /* by programs, through the mount */
    COUNT_S3_RECEIVED_BYTES,
    COUNT_S3_SENT_BYTES,
    COUNT_S3_RETRIES,
    COUNT_ARCHIVED_BYTES,        /* plain */
    COUNT_ARCHIVED_STORED_BYTES, /* as objects */
    COUNT_CACHE_HITS,
    COUNT_CACHE_JOINS, /* somebody was fetching it already */
    COUNT_CACHE_MISSES,
    COUNT_CACHE_PREFETCHES,
    COUNT_CACHE_EVICTIONS,
    COUNT_LOG_ERRORS,
    COUNT_LOG_WARNINGS,
    COUNT_KINDS
};
void metrics_add(enum metric_count what, uint64_t n);

/* Moments, in seconds since 1970; 0 until they have come. */
enum metric_moment { MOMENT_STARTED, MOMENT_ARCHIVED, MOMENT_ARCHIVE_FAILED, MOMENT_KINDS };
void metrics_mark(enum metric_moment moment);

/* ---- looking ---- */

uint64_t metrics_count(enum metric_count what);
uint64_t metrics_work_count(enum metric_work work, enum err_code outcome);
int64_t metrics_moment(enum metric_moment moment);

/* Durations are sorted into these, the last of which has no upper bound. */
#define METRICS_BUCKETS 11u
extern const int64_t metrics_bucket_us[METRICS_BUCKETS - 1]; /* upper bounds, inclusive */
struct metrics_durations {
    uint64_t bucket[METRICS_BUCKETS]; /* not cumulative */
    uint64_t sum_us;
};
void metrics_durations(enum metric_work work, struct metrics_durations *out);

#endif
