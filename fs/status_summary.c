/* status/summary: what a person wants to know first. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_wal.h"
#include "core/human.h"
#include "core/log_ring.h"
#include "fs/new_backup.h"
#include "fs/status_file.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

#define SHOWN_BACKUPS 20u

/* ---- numbers for people ---- */

static void print_size(FILE *out, uint64_t bytes)
{
    char text[HUMAN_MAX];
    human_bytes(bytes, text);
    fputs(text, out);
}

static void print_when(FILE *out, const struct status_view *v, int64_t when_s)
{
    char age[HUMAN_MAX];
    human_age(v->now_s - when_s, age);
    status_time(out, when_s);
    fprintf(out, " (%s ago)", age);
}

static void head(FILE *out, const char *name)
{
    fprintf(out, "%-17s ", name);
}

/* ---- the mount ---- */

static void print_mount(FILE *out, const struct status_view *v)
{
    const struct fs_options *o = &v->fs->opt;
    char *identity = o->about.identity == NULL ? NULL : o->about.identity(o->about.identity_arg);
    head(out, "archive:");
    fprintf(out, "%s\n", o->store->url);
    head(out, "mounted:");
    print_when(out, v, v->fs->started_s);
    fprintf(out, "%s%s\n", o->read_only ? ", read-only" : "",
            o->allow_delete ? ", deleting allowed" : "");
    head(out, "identity:");
    fprintf(out, "%s\n", identity == NULL ? "-" : identity);
    free(identity);
    head(out, "encrypted to:");
    fprintf(out, "%s\n", o->about.keys == NULL ? "nobody: not encrypted" : o->about.keys);
}

static void print_new_backup(void *arg, const char *label, int64_t made_s)
{
    fprintf(arg, "; the base backup %s is being written since ", label);
    status_time(arg, made_s);
}

static void print_backlog(FILE *out, const struct status_view *v)
{
    struct wal_backlog backlog;
    wal_backlog(v->fs, &backlog);
    head(out, "backlog:");
    if (backlog.files == 0) {
        fputs("no WAL is staged", out);
    } else {
        fprintf(out, "%zu%s files in wal/, ", backlog.files, backlog.more ? " or more" : "");
        print_size(out, backlog.bytes);
        fputs(", staged and not published", out);
    }
    new_backups_each(v->fs, print_new_backup, out);
    fputc('\n', out);
    size_t pending = wal_delete_pending(v->fs->wal_delete);
    if (pending > 0) {
        head(out, "deleting:");
        fprintf(out, "%zu WAL files that were deleted are in the archive still\n", pending);
    }
}

/* ---- WAL ---- */

static void print_gaps(FILE *out, const struct wal_census *c)
{
    head(out, "gaps:");
    if (c->segment_size == 0)
        fputs("not known, since the segment size is not\n", out);
    else if (c->gaps == 0)
        fputs("none\n", out);
    else
        fprintf(out, "%" PRIu64 " segments are missing, in %" PRIu64 " places: see status/wal\n",
                c->missing, c->gaps);
}

static void print_wal(FILE *out, const struct status_view *v)
{
    const struct wal_census *c = view_wal(v);
    char name[WAL_NAME_MAX];
    head(out, "WAL:");
    if (c == NULL) {
        fprintf(out, "not known yet: %s\n", v->of[SOURCE_WAL].why.text);
        return;
    }
    fprintf(out, "%" PRIu64 " segments on %zu timeline%s, ", c->segments, c->count,
            c->count == 1 ? "" : "s");
    print_size(out, c->stored_bytes);
    fputs(" stored, as of ", out);
    status_as_of(out, v, SOURCE_WAL);
    fputc('\n', out);
    head(out, "last segment:");
    const struct wal_timeline *t = wal_census_newest(c);
    if (t == NULL) {
        fputs("none\n", out);
        return;
    }
    wal_census_name(c, t->tli, t->last, name);
    fprintf(out, "%s, archived ", name);
    print_when(out, v, t->last_s);
    fputc('\n', out);
    print_gaps(out, c);
}

/* ---- backups ---- */

/* Whose archive it is, as its newest backup says. */
static void print_cluster(FILE *out, const struct status_view *v)
{
    const struct catalog *c = view_backups(v);
    const struct catalog_backup *latest = c == NULL ? NULL : catalog_latest(c);
    if (latest == NULL || latest->info.system_id == 0)
        return;
    head(out, "cluster:");
    fprintf(out, "system identifier %" PRIu64 ", PostgreSQL %s\n", latest->info.system_id,
            latest->info.version);
}

static void print_backup(FILE *out, const struct status_view *v, const struct catalog_backup *cb)
{
    const struct backup_info *b = &cb->info;
    const struct wal_census *c = view_wal(v);
    struct status_lack lack;
    char name[WAL_NAME_MAX];
    fprintf(out, "  %s  ", b->name);
    print_when(out, v, b->stored_s);
    fputs(", ", out);
    print_size(out, b->expanded_size);
    fprintf(out, "%s%s", b->label[0] == '\0' ? "" : ", label ", b->label);
    if (c != NULL && status_backup_lacks(v, cb, &lack) && lack.within + lack.after > 0) {
        wal_census_name(c, lack.first.tli, lack.first.first, name);
        if (lack.within > 0)
            fprintf(
                out, "; it cannot be restored%s, %" PRIu64 " segments that it needs are missing",
                lack.unsure ? " unless it has its WAL inside, which could not be looked up" : "",
                lack.within);
        else
            fprintf(out, "; %" PRIu64 " segments after it are missing", lack.after);
        fprintf(out, ", the first is %s%s", name, backup_wal_doubt(b));
    }
    fputc('\n', out);
}

static void print_damaged(FILE *out, const struct catalog *c)
{
    char advice[CATALOG_ADVICE_MAX];
    for (size_t i = 0; i < c->incomplete_count; i++) {
        if (!c->incomplete[i].damaged)
            continue;
        catalog_damaged_advice(&c->incomplete[i], advice);
        fprintf(out, "  %s  %s\n", c->incomplete[i].name, advice);
    }
}

static void print_backups(FILE *out, const struct status_view *v)
{
    const struct catalog *c = view_backups(v);
    head(out, "backups:");
    if (c == NULL) {
        fprintf(out, "not known yet: %s\n", v->of[SOURCE_BACKUPS].why.text);
        return;
    }
    fprintf(out, "%zu complete, %zu incomplete, ", c->count,
            c->incomplete_count - c->damaged_count);
    if (c->damaged_count > 0)
        fprintf(out, "%zu with a sentinel that cannot be read, ", c->damaged_count);
    fputs("as of ", out);
    status_as_of(out, v, SOURCE_BACKUPS);
    fputc('\n', out);
    if (c->count > SHOWN_BACKUPS)
        fprintf(out, "  (%zu older ones: see status/backups)\n", c->count - SHOWN_BACKUPS);
    for (size_t i = c->count > SHOWN_BACKUPS ? c->count - SHOWN_BACKUPS : 0; i < c->count; i++)
        print_backup(out, v, &c->backups[i]);
    print_damaged(out, c);
}

/* From the end of the oldest backup from which a recovery finds all WAL, to the last segment. */
static void print_window(FILE *out, const struct status_view *v)
{
    const struct catalog *b = view_backups(v);
    const struct wal_census *c = view_wal(v);
    const struct wal_timeline *newest = c == NULL ? NULL : wal_census_newest(c);
    struct status_lack lack;
    bool known = b != NULL && newest != NULL && c->segment_size != 0, sure = true;
    head(out, "recovery window:");
    for (size_t i = 0; known && i < b->count; i++) {
        const struct backup_info *info = &b->backups[i].info;
        sure = sure && info->start_sure;
        if (!status_backup_lacks(v, &b->backups[i], &lack) || lack.within + lack.after > 0 ||
            lack.to_tli != newest->tli)
            continue;
        int64_t from_s = info->stored_s; /* its sentinel may be younger than that segment */
        fputs("from ", out);
        status_time(out, from_s);
        fputs(" to ", out);
        status_time(out, newest->last_s < from_s ? from_s : newest->last_s);
        fprintf(out, ", beginning with %s\n", info->name);
        return;
    }
    fputs(!known ? "not known\n"
          : sure
              ? "none: no backup has all WAL up to the last segment\n"
              : "none: no backup has all WAL up to the last segment, if the names of WAL-E's are "
                "where they begin\n",
          out);
}

static void print_errors(FILE *out, const struct status_view *v)
{
    head(out, "last hour:");
    fprintf(out, "%" PRIu64 " errors, %" PRIu64 " warnings: see status/log\n",
            log_ring_last_hour(LOG_CLASS_ERROR, v->now_s),
            log_ring_last_hour(LOG_CLASS_WARNING, v->now_s));
}

void status_print_summary(FILE *out, const struct status_view *v)
{
    print_mount(out, v);
    print_cluster(out, v);
    print_wal(out, v);
    print_backlog(out, v);
    print_backups(out, v);
    print_window(out, v);
    print_errors(out, v);
}
