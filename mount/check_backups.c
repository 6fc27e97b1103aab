/* Base backups: are their parts there, and the WAL that they need. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/index_stored.h"
#include "mount/check_impl.h"

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

/* INSIDE: why it is not known whether the backup has it inside; "" when it is. */
static void say_missing(struct check *c, const struct backup_info *info, const struct wal_range *r,
                        bool within, const char *inside)
{
    char range[160];
    struct err err = ERR_INIT;
    if (is_reported(&c->wal, r))
        return;
    check_range_text(c, r, range);
    enum check_result result = info->start_sure ? CHECK_FAIL : CHECK_WARN;
    if (within)
        check_say(c, result, "gap", "%s is missing: %s cannot be restored without it%s%s", range,
                  info->name, inside, backup_wal_doubt(info));
    else
        check_say(c, result, "gap",
                  "%s is missing: recovery of %s ends before it, and later backups are needed for "
                  "what follows%s",
                  range, info->name, backup_wal_doubt(info));
    if (!wal_ranges_add(&c->wal.reported, r, &err))
        check_say_err(c, "gap", &err);
}

/* Takes out of WAY what the backup has inside; WHY is filled when that cannot be looked up. */
static void look_inside(struct check *c, const struct backup_info *info, struct wal_way *way,
                        char why[256])
{
    struct err err = ERR_INIT;
    const struct index_place place = {.store = c->store, .pgp = c->pgp, .dir = c->config.cache_dir};
    struct wal_census *inside =
        backup_wal_inside(&place, info->name, c->wal.census->segment_size, &c->call, &err);
    if (inside == NULL || !backup_wal_take_inside(way, inside, &err))
        (void)snprintf(why, 256,
                       ", unless it has its WAL inside, which could not be looked up: %.160s",
                       err.text);
    wal_census_free(inside);
}

static void check_wal_of(struct check *c, const struct backup_info *info)
{
    struct wal_way way;
    struct err err = ERR_INIT;
    char inside[256] = "";
    bool known;
    if (!backup_wal_way(c->wal.census, info, &way, &known, &err))
        check_say_err(c, "gap", &err);
    else if (known && backup_wal_may_be_inside(info, &way))
        look_inside(c, info, &way, inside);
    for (size_t i = 0; i < way.within.count; i++)
        say_missing(c, info, &way.within.of[i], true, inside);
    for (size_t i = 0; i < way.after.count; i++)
        say_missing(c, info, &way.after.of[i], false, "");
    wal_way_free(&way);
}

/* ---- parts ---- */

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
    *indexed = index_stored_has(&objects, info->name);
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
    human_age((int64_t)time(NULL) - newest->info.stored_s, age);
    if (without_index > 0)
        (void)snprintf(more, sizeof(more), "; %zu without an index, made by the first who looks in",
                       without_index);
    check_say(c, CHECK_OK, "backups", "%zu complete, the newest %s, %s old%s", c->catalog->count,
              newest->info.name, age, more);
}

static void say_incomplete(struct check *c, const struct catalog_incomplete *left)
{
    char advice[CATALOG_ADVICE_MAX];
    catalog_damaged_advice(left, advice);
    if (left->damaged)
        check_say(c, left->frozen ? CHECK_WARN : CHECK_FAIL, "backups", "%s: %s", left->name,
                  advice);
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
