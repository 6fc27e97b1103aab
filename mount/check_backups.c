/* Base backups: are their parts there, and the WAL that they need. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "mount/check_impl.h"

/* Where the name is all that is known, it was read as if segments had the usual size. */
static struct backup_position start_of(const struct check *c, const struct backup_info *info)
{
    struct backup_position start = info->start;
    if (!info->start_sure && info->segment_size == 0)
        (void)backup_name_parse(info->name, c->wal.timelines.segment_size, &start);
    return start;
}

static struct backup_position stop_of(const struct check *c, const struct backup_info *info)
{
    struct backup_position stop = info->stop;
    char name[BACKUP_NAME_MAX];
    if (!info->by_walefs && info->segment_size == 0 && strlen(info->stop_segment) == 24 &&
        strlen(info->stop_offset) >= 8 &&
        snprintf(name, sizeof(name), "base_%.24s_%.8s", info->stop_segment, info->stop_offset) > 0)
        (void)backup_name_parse(name, c->wal.timelines.segment_size, &stop);
    return stop;
}

/* ---- WAL ---- */

static bool is_reported(const struct check_wal *w, const struct wal_range *r)
{
    for (size_t i = 0; i < w->reported.count; i++) {
        const struct wal_range *old = &w->reported.of[i];
        if (old->tli == r->tli && old->first <= r->first && r->last <= old->last)
            return true;
    }
    return false;
}

/* WAL-E gave offline backups names that are not where they begin. */
static const char *doubt(const struct backup_info *info)
{
    return info->start_sure ? ""
                            : " (if it begins where its name says, which WAL-E got wrong for "
                              "offline backups)";
}

static void say_missing(struct check *c, const struct backup_info *info, const struct wal_range *r,
                        bool within)
{
    char range[160];
    struct err err = ERR_INIT;
    if (is_reported(&c->wal, r))
        return;
    check_range_text(c, r, range);
    enum check_result result = info->start_sure ? CHECK_FAIL : CHECK_WARN;
    if (within)
        check_say(c, result, "gap", "%s is missing: %s cannot be restored without it%s", range,
                  info->name, doubt(info));
    else
        check_say(c, result, "gap",
                  "%s is missing: recovery of %s ends before it, and later backups are needed for "
                  "what follows%s",
                  range, info->name, doubt(info));
    if (!wal_ranges_add(&c->wal.reported, r, &err))
        check_say_err(c, "gap", &err);
}

/* Lines about the part of NEEDED that is not there; false when it could not be found out. */
static bool say_missing_of(struct check *c, const struct backup_info *info,
                           const struct wal_range *needed, bool within)
{
    struct err err = ERR_INIT;
    struct wal_ranges missing = {.of = NULL};
    bool ok = wal_missing(&c->wal.timelines, needed, &missing, &err);
    if (!ok)
        check_say_err(c, "gap", &err);
    for (size_t i = 0; ok && i < missing.count; i++)
        say_missing(c, info, &missing.of[i], within);
    wal_ranges_free(&missing);
    return ok;
}

/* The newest timeline that recovery from this backup can reach; NULL: its own only. */
static const struct wal_history *target_of(struct check *c, const struct backup_position *start,
                                           const struct backup_position *stop)
{
    for (size_t i = c->wal.history_count; i > 0; i--) {
        const struct wal_history *h = &c->wal.histories[i - 1];
        struct wal_ranges path = {.of = NULL};
        struct err err = ERR_INIT;
        uint64_t lsn = stop->lsn > start->lsn ? stop->lsn : start->lsn;
        enum wal_path found = wal_path_find(&c->wal.timelines, h, start->tli, lsn, &path, &err);
        wal_ranges_free(&path);
        if (found == WAL_PATH_OK)
            return h;
    }
    return NULL;
}

static void check_wal_of(struct check *c, const struct backup_info *info)
{
    struct backup_position start = start_of(c, info), stop = stop_of(c, info);
    uint32_t size = c->wal.timelines.segment_size;
    struct wal_range own = {.tli = start.tli, .first = wal_number_of_lsn(start.lsn, size)};
    struct wal_ranges path = {.of = NULL};
    struct err err = ERR_INIT;
    if (start.tli == 0)
        return;
    own.last =
        stop.tli != 0 && stop.lsn > start.lsn ? wal_number_of_lsn(stop.lsn - 1, size) : own.first;
    if (!say_missing_of(c, info, &own, true))
        return;
    const struct wal_history *target = target_of(c, &start, &stop);
    if (wal_path_find(&c->wal.timelines, target, start.tli, start.lsn, &path, &err) ==
        WAL_PATH_FAILED)
        check_say_err(c, "gap", &err);
    for (size_t i = 0; i < path.count; i++)
        (void)say_missing_of(c, info, &path.of[i], false);
    wal_ranges_free(&path);
}

/* ---- parts ---- */

static bool is_index(const struct backup_object *o)
{
    size_t n = strlen(o->key), m = strlen("/" BACKUP_INDEX_NAME);
    return n > m && strcmp(o->key + n - m, "/" BACKUP_INDEX_NAME) == 0;
}

/* *INDEXED: the tree is known without reading the partitions. */
static void check_parts(struct check *c, const struct backup_info *info, bool *indexed)
{
    struct err err = ERR_INIT;
    struct backup_objects objects;
    *indexed = true; /* unless it is known that not */
    if (!backup_objects_load(c->store, info->name, &objects, &c->call, &err)) {
        check_say_err(c, "backups", &err);
        return;
    }
    *indexed = false;
    for (size_t i = 0; i < objects.count; i++)
        *indexed = *indexed || is_index(&objects.objects[i]);
    size_t i = 0;
    while (i < objects.partition_count && objects.objects[i].number == i)
        i++;
    if (objects.partition_count == 0)
        check_say(c, CHECK_FAIL, "backups", "%s has no partitions: it cannot be restored",
                  info->name);
    else if (i < objects.partition_count)
        check_say(c, CHECK_FAIL, "backups", "%s has no partition %zu: it cannot be restored",
                  info->name, i);
    else if (info->partition_count > 0 && info->partition_count != objects.partition_count)
        check_say(c, CHECK_FAIL, "backups",
                  "%s has %zu partitions, and was written with %zu: it cannot be restored",
                  info->name, objects.partition_count, info->partition_count);
    backup_objects_free(&objects);
}

static void say_number(struct check *c, size_t without_index)
{
    const struct catalog_backup *newest = catalog_latest(c->catalog);
    char age[32], more[80] = "";
    if (newest == NULL) {
        check_say(c, CHECK_WARN, "backups", "there is no complete base backup");
        return;
    }
    check_age((int64_t)time(NULL) - newest->info.stored_s, age);
    if (without_index > 0)
        (void)snprintf(more, sizeof(more), "; %zu without an index, made by the first who looks in",
                       without_index);
    check_say(c, CHECK_OK, "backups", "%zu complete, the newest %s, %s old%s", c->catalog->count,
              newest->info.name, age, more);
}

/* With a sentinel, it was complete once, and may be all there is: nobody must take it for a rest.
 */
static void say_incomplete(struct check *c, const struct catalog_incomplete *left)
{
    if (left->damaged)
        check_say(c, CHECK_FAIL, "backups",
                  "%s: its sentinel cannot be read; restore %s%s%s (an older version of the object "
                  "where the bucket keeps them, or another copy), and do not delete the backup",
                  left->name, BACKUP_PREFIX, left->name, BACKUP_SENTINEL_SUFFIX);
    else
        check_say(c, CHECK_OK, "backups",
                  "%s is not complete: being written, or left by a writer that died (rmdir it)",
                  left->name);
}

void check_backups(struct check *c)
{
    size_t without_index = 0;
    if (c->catalog == NULL)
        return;
    for (size_t i = 0; i < c->catalog->count && !cancel_fired(&c->cancel); i++) {
        bool indexed;
        check_parts(c, &c->catalog->backups[i].info, &indexed);
        without_index += !indexed;
        check_wal_of(c, &c->catalog->backups[i].info);
    }
    if (cancel_fired(&c->cancel))
        return;
    say_number(c, without_index);
    for (size_t i = 0; i < c->catalog->incomplete_count; i++)
        say_incomplete(c, &c->catalog->incomplete[i]);
}
