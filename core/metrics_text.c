#include "core/metrics_text.h"

#include "core/s3_error.h"

void metrics_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_label(FILE *out, const char *value)
{
    fputc('"', out);
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            fputs("\\n", out);
            continue;
        }
        if (*value == '"' || *value == '\\')
            fputc('\\', out);
        fputc(*value, out);
    }
    fputc('"', out);
}

void metrics_single(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
    metrics_family(out, name, type, help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

/* ---- work ---- */

static const char *const work_names[WORK_KINDS] = {
    [WORK_LOOKUP] = "lookup",   [WORK_GETATTR] = "getattr",   [WORK_SETATTR] = "setattr",
    [WORK_CREATE] = "create",   [WORK_OPEN] = "open",         [WORK_READ] = "read",
    [WORK_WRITE] = "write",     [WORK_CLOSE] = "close",       [WORK_FSYNC] = "fsync",
    [WORK_RELEASE] = "release", [WORK_ALLOCATE] = "allocate", [WORK_READLINK] = "readlink",
    [WORK_SYMLINK] = "symlink", [WORK_LINK] = "link",         [WORK_MKDIR] = "mkdir",
    [WORK_RMDIR] = "rmdir",     [WORK_UNLINK] = "unlink",     [WORK_RENAME] = "rename",
    [WORK_OPENDIR] = "opendir", [WORK_READDIR] = "readdir",   [WORK_XATTR] = "xattr",
    [WORK_GET] = "GET",         [WORK_PUT] = "PUT",           [WORK_POST] = "POST",
    [WORK_DELETE] = "DELETE",   [WORK_ENCRYPT] = "encrypt",   [WORK_DECRYPT] = "decrypt",
    [WORK_ARCHIVE] = "wal",     [WORK_BACKUP] = "basebackup"};

static const struct {
    const char *total, *seconds, *label;
    const char *total_help, *seconds_help;
    enum metric_work first, last;
} work_families[] = {
    {"walefs_requests_total", "walefs_request_duration_seconds", "operation",
     "Requests of the kernel, by operation and outcome.",
     "How long requests of the kernel took to be answered.", WORK_LOOKUP, WORK_XATTR},
    {"walefs_s3_requests_total", "walefs_s3_request_duration_seconds", "method",
     "Requests to S3, each attempt counted, by HTTP method and outcome.",
     "How long S3 took to answer a request; for objects that are read, until their first byte.",
     WORK_GET, WORK_DELETE},
    {"walefs_gpg_runs_total", "walefs_gpg_run_duration_seconds", "operation",
     "Runs of gpg, by operation and outcome.",
     "How long runs of gpg took, the time in which they waited for data included.", WORK_ENCRYPT,
     WORK_DECRYPT},
    {"walefs_publications_total", "walefs_publication_duration_seconds", "kind",
     "Files and base backups that were archived, by kind and outcome.",
     "How long the last step of archiving took.", WORK_ARCHIVE, WORK_BACKUP},
};

/* A series that was never counted is shown for success only: a rate needs its zero. */
static void print_outcomes(FILE *out, const char *family, const char *label, enum metric_work work)
{
    for (int code = 0; code < ERR_CODES; code++) {
        uint64_t n = metrics_work_count(work, (enum err_code)code);
        if (n == 0 && code != ERR_NONE)
            continue;
        fprintf(out, "%s{%s=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", family, label, work_names[work],
                code == ERR_NONE ? "ok" : err_name((enum err_code)code), n);
    }
}

static void print_durations(FILE *out, const char *family, const char *label, enum metric_work work)
{
    struct metrics_durations d;
    uint64_t so_far = 0;
    metrics_durations(work, &d);
    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        so_far += d.bucket[i];
        fprintf(out, "%s_bucket{%s=\"%s\",le=", family, label, work_names[work]);
        if (i + 1 < METRICS_BUCKETS)
            fprintf(out, "\"%g\"} %" PRIu64 "\n", (double)metrics_bucket_us[i] / 1e6, so_far);
        else
            fprintf(out, "\"+Inf\"} %" PRIu64 "\n", so_far);
    }
    fprintf(out, "%s_sum{%s=\"%s\"} %.6f\n", family, label, work_names[work],
            (double)d.sum_us / 1e6);
    fprintf(out, "%s_count{%s=\"%s\"} %" PRIu64 "\n", family, label, work_names[work], so_far);
}

/* ---- counters and moments ---- */

static const struct {
    const char *name, *help;
} counters[COUNT_KINDS] = {
    [COUNT_READ_BYTES] =
        {"walefs_read_bytes_total",
         "Bytes that programs read through the mount; segments that the kernel reads itself count "
         "whole."},
    [COUNT_WRITTEN_BYTES] = {"walefs_written_bytes_total",
                             "Bytes that programs wrote through the mount."},
    [COUNT_S3_RECEIVED_BYTES] = {"walefs_s3_received_bytes_total",
                                 "Bytes of bodies received from S3."},
    [COUNT_S3_SENT_BYTES] = {"walefs_s3_sent_bytes_total", "Bytes of bodies sent to S3."},
    [COUNT_S3_RETRIES] = {"walefs_s3_retries_total",
                          "Requests to S3 that were sent again after a failure."},
    [COUNT_ARCHIVED_BYTES] = {"walefs_archived_bytes_total",
                              "Bytes of WAL that were archived, as PostgreSQL wrote them."},
    [COUNT_ARCHIVED_STORED_BYTES] = {"walefs_archived_stored_bytes_total",
                                     "Bytes of WAL that were archived, compressed and encrypted."},
    [COUNT_CACHE_HITS] = {"walefs_cache_hits_total",
                          "Archived files that a reader found decoded on this host."},
    [COUNT_CACHE_JOINS] = {"walefs_cache_joins_total",
                           "Archived files that were being fetched when a reader came."},
    [COUNT_CACHE_MISSES] = {"walefs_cache_misses_total",
                            "Archived files that had to be fetched for a reader."},
    [COUNT_CACHE_PREFETCHES] = {"walefs_cache_prefetches_total",
                                "Archived files whose fetching was begun ahead of a reader."},
    [COUNT_CACHE_EVICTIONS] = {"walefs_cache_evictions_total",
                               "Decoded files that were given up for lack of room."},
    [COUNT_LOG_ERRORS] = {"walefs_log_errors_total", "Errors in the log."},
    [COUNT_LOG_WARNINGS] = {"walefs_log_warnings_total", "Warnings in the log."},
};

static const struct {
    const char *name, *help;
} moment_names[MOMENT_KINDS] = {
    [MOMENT_STARTED] = {"walefs_start_time_seconds", "When this mount was made."},
    [MOMENT_ARCHIVED] = {"walefs_last_archive_timestamp_seconds",
                         "When this mount last archived a WAL file; 0: never."},
    [MOMENT_ARCHIVE_FAILED] = {"walefs_last_archive_failure_timestamp_seconds",
                               "When archiving a WAL file last failed on this mount; 0: never."},
};

static void print_s3_errors(FILE *out)
{
    static const char family[] = "walefs_s3_errors_total";
    const char *code;
    uint64_t n;
    metrics_family(out, family, "counter", "Errors that S3 answered with, by their code.");
    for (size_t i = 0; (code = s3_error_counted(i, &n)) != NULL; i++) {
        if (n == 0)
            continue;
        fprintf(out, "%s{code=", family);
        metrics_label(out, code);
        fprintf(out, "} %" PRIu64 "\n", n);
    }
}

void metrics_print(FILE *out)
{
    for (size_t i = 0; i < sizeof(work_families) / sizeof(work_families[0]); i++) {
        enum metric_work first = work_families[i].first, last = work_families[i].last, w;
        metrics_family(out, work_families[i].total, "counter", work_families[i].total_help);
        for (w = first; w <= last; w++)
            print_outcomes(out, work_families[i].total, work_families[i].label, w);
        metrics_family(out, work_families[i].seconds, "histogram", work_families[i].seconds_help);
        for (w = first; w <= last; w++)
            print_durations(out, work_families[i].seconds, work_families[i].label, w);
    }
    for (size_t i = 0; i < COUNT_KINDS; i++)
        metrics_single(out, counters[i].name, "counter", counters[i].help,
                       metrics_count((enum metric_count)i));
    for (size_t i = 0; i < MOMENT_KINDS; i++)
        metrics_single(out, moment_names[i].name, "gauge", moment_names[i].help,
                       (uint64_t)metrics_moment((enum metric_moment)i));
    print_s3_errors(out);
}
