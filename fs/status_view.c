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

bool status_backup_lacks(const struct wal_census *c, const struct backup_info *info,
                         struct status_lack *lack)
{
    struct wal_way way;
    struct err err = ERR_INIT;
    bool known;
    bool ok = backup_wal_way(c, info, &way, &known, &err) && known;
    *lack = (struct status_lack){.within = wal_ranges_segments(&way.within),
                                 .after = wal_ranges_segments(&way.after),
                                 .to_tli = way.to_tli};
    if (way.within.count > 0)
        lack->first = way.within.of[0];
    else if (way.after.count > 0)
        lack->first = way.after.of[0];
    wal_way_free(&way);
    return ok;
}
