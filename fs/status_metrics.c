/* status/metrics, for Prometheus: what the process counts, and what was last known of the archive.
 * Never waits for the store. */
#include <inttypes.h>

#include "core/metrics_text.h"
#include "fs/status_file.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

static void print_wal(FILE *out, const struct status_view *v)
{
    const struct wal_census *c = view_wal(v);
    const struct wal_timeline *t = c == NULL ? NULL : wal_census_newest(c);
    if (c == NULL)
        return;
    metrics_single(out, "walefs_wal_listed_timestamp_seconds", "gauge",
                   "When the WAL in the archive was last listed, for the metrics walefs_wal_...",
                   (uint64_t)v->of[SOURCE_WAL].result->asked_s);
    metrics_single(out, "walefs_wal_segments", "gauge", "WAL segments in the archive.",
                   c->segments);
    metrics_single(out, "walefs_wal_stored_bytes", "gauge", "Bytes of all objects of WAL.",
                   c->stored_bytes);
    if (c->segment_size != 0) {
        metrics_single(out, "walefs_wal_gaps", "gauge",
                       "Places where segments are missing between others of their timeline.",
                       c->gaps);
        metrics_single(out, "walefs_wal_missing_segments", "gauge",
                       "Segments that are missing in these places.", c->missing);
    }
    if (t != NULL)
        metrics_single(out, "walefs_wal_last_segment_timestamp_seconds", "gauge",
                       "When the last segment of the newest timeline was stored, by any host.",
                       (uint64_t)t->last_s);
}

static void print_backups(FILE *out, const struct status_view *v)
{
    const struct catalog *c = view_backups(v);
    const struct catalog_backup *latest = c == NULL ? NULL : catalog_latest(c);
    const struct wal_census *wal = view_wal(v);
    uint64_t broken = 0;
    struct status_lack lack;
    if (c == NULL)
        return;
    metrics_single(out, "walefs_backups_listed_timestamp_seconds", "gauge",
                   "When the base backups were last listed, for the metrics walefs_backup...",
                   (uint64_t)v->of[SOURCE_BACKUPS].result->asked_s);
    metrics_single(out, "walefs_backups", "gauge", "Complete base backups.", c->count);
    metrics_single(out, "walefs_backups_incomplete", "gauge", "Base backups without a sentinel.",
                   c->incomplete_count - c->damaged_count);
    metrics_single(out, "walefs_backups_unreadable", "gauge",
                   "Base backups with a sentinel that cannot be read.", c->damaged_count);
    if (latest != NULL)
        metrics_single(out, "walefs_backup_last_timestamp_seconds", "gauge",
                       "When the newest base backup was completed.",
                       (uint64_t)latest->info.stored_s);
    if (wal == NULL || wal->segment_size == 0)
        return;
    for (size_t i = 0; i < c->count; i++)
        broken += status_backup_lacks(v, &c->backups[i], &lack) && lack.within + lack.after > 0;
    metrics_single(out, "walefs_backups_with_gaps", "gauge",
                   "Base backups from which WAL is missing on the way to the last segment.",
                   broken);
}

static void print_backlog(FILE *out, const struct status_view *v)
{
    struct wal_backlog backlog;
    wal_backlog(v->fs, &backlog);
    metrics_single(out, "walefs_staged_files", "gauge",
                   "Files in wal/ that are staged on this host and not published.", backlog.files);
    metrics_single(out, "walefs_staged_bytes", "gauge", "Bytes of these files.", backlog.bytes);
}

static void print_deletions(FILE *out, const struct status_view *v)
{
    metrics_single(out, "walefs_wal_deletions_pending", "gauge",
                   "WAL files that were deleted in wal/ and are in the archive still.",
                   wal_delete_pending(v->fs->wal_delete));
}

void status_print_metrics(FILE *out, const struct status_view *v)
{
    metrics_print(out);
    print_backlog(out, v);
    print_deletions(out, v);
    print_wal(out, v);
    print_backups(out, v);
}
