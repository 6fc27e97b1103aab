/* What several files of status/ have in common. */
#include <inttypes.h>
#include <time.h>

#include "fs/status_file.h"

const struct wal_census *view_wal(const struct status_view *v)
{
    const struct survey_result *r = v->of[SOURCE_WAL].result;
    return r == NULL ? NULL : r->data;
}

const struct catalog *view_backups(const struct status_view *v)
{
    const struct survey_result *r = v->of[SOURCE_BACKUPS].result;
    return r == NULL ? NULL : r->data;
}

void status_time(FILE *out, int64_t when_s)
{
    char text[32];
    struct tm tm;
    time_t t = (time_t)when_s;
    gmtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fputs(text, out);
}

void status_as_of(FILE *out, const struct status_view *v, enum status_source source)
{
    int64_t asked_s = v->of[source].result->asked_s;
    status_time(out, asked_s);
    if (v->of[source].stale)
        fprintf(out, ", %" PRId64 " s ago: %s", v->now_s - asked_s, v->of[source].why.text);
}

bool status_backup_start(const struct wal_census *c, const struct backup_info *info, uint32_t *tli,
                         uint64_t *number)
{
    char segment[25];
    if (info->start_sure && info->start.tli != 0 && c->segment_size != 0) {
        *tli = info->start.tli;
        *number = info->start.lsn / c->segment_size;
        return true;
    }
    /* its name says the segment, whatever the size: base_<segment>_<offset> */
    (void)snprintf(segment, sizeof(segment), "%.24s", info->name + sizeof("base_") - 1);
    struct wal_name n = wal_name_parse(segment);
    *tli = n.tli;
    return n.kind == WAL_SEGMENT && wal_census_number(c, &n, number);
}

bool status_backup_way(const struct wal_census *c, const struct backup_info *info,
                       struct wal_way *way)
{
    uint32_t tli;
    uint64_t number;
    return status_backup_start(c, info, &tli, &number) && wal_census_way(c, tli, number, way);
}
