/* What several files of status/ have in common. */
#include <inttypes.h>
#include <time.h>

#include "core/backup_wal.h"
#include "fs/status_file.h"
#include "fs/wal_survey.h"

const struct wal_census *view_wal(const struct status_view *v)
{
    const struct survey_result *r = v->of[SOURCE_WAL].result;
    return r == NULL ? NULL : ((const struct wal_count *)r->data)->census;
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

bool status_backup_lacks(const struct status_view *v, const struct catalog_backup *b,
                         struct status_lack *lack)
{
    const struct wal_count *count = v->of[SOURCE_WAL].result->data;
    struct wal_way way;
    struct err err = ERR_INIT;
    bool known;
    bool ok = backup_wal_way(count->census, &b->info, &way, &known, &err) && known;
    bool may = ok && backup_wal_may_be_inside(&b->info, &way);
    const struct inside_verdict *verdict = may ? inside_find(&count->inside, b) : NULL;
    const struct wal_ranges *within = verdict == NULL ? &way.within : &verdict->within;
    *lack = (struct status_lack){.within = wal_ranges_segments(within),
                                 .after = wal_ranges_segments(&way.after),
                                 .unsure = may && verdict == NULL,
                                 .to_tli = way.to_tli};
    if (within->count > 0)
        lack->first = within->of[0];
    else if (way.after.count > 0)
        lack->first = way.after.of[0];
    wal_way_free(&way);
    return ok;
}
