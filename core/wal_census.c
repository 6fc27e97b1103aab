#include "core/wal_census.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the smallest segments there are so many in 4 GiB: numbers that are never compared, only
 * shown, while the size is not known. */
#define MOST_PER_LOG 4096u

static uint64_t per_log(const struct wal_census *c)
{
    return c->segment_size == 0 ? MOST_PER_LOG : (UINT64_C(1) << 32) / c->segment_size;
}

struct wal_census *wal_census_new(uint32_t segment_size, struct err *err)
{
    struct wal_census *c = calloc(1, sizeof(*c));
    if (c == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        c->segment_size = segment_size;
    return c;
}

void wal_census_free(struct wal_census *c)
{
    free(c);
}

bool wal_census_number(const struct wal_census *c, const struct wal_name *name, uint64_t *number)
{
    if (name->seg >= per_log(c))
        return false;
    *number = name->log * per_log(c) + name->seg;
    return true;
}

void wal_census_name(const struct wal_census *c, uint32_t tli, uint64_t number,
                     char out[WAL_NAME_MAX])
{
    (void)snprintf(out, WAL_NAME_MAX, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32, tli,
                   (uint32_t)(number / per_log(c)), (uint32_t)(number % per_log(c)));
}

/* ---- counting ---- */

static void add_gap(struct wal_timeline *t, uint64_t first, uint64_t last)
{
    if (t->gaps_kept == CENSUS_GAPS) {
        memmove(t->gaps, t->gaps + 1, (CENSUS_GAPS - 1) * sizeof(t->gaps[0]));
        t->gaps_kept--;
    }
    t->gaps[t->gaps_kept++] = (struct wal_range){first, last};
    t->gap_count++;
    t->missing += last - first + 1;
}

static struct wal_timeline *add_timeline(struct wal_census *c, uint32_t tli, uint64_t number)
{
    if (c->count == CENSUS_TIMELINES) {
        memmove(c->timelines, c->timelines + 1, (CENSUS_TIMELINES - 1) * sizeof(*c->timelines));
        c->count--;
        c->older++;
    }
    struct wal_timeline *t = &c->timelines[c->count++];
    *t = (struct wal_timeline){.tli = tli, .range = {number, number}};
    return t;
}

static bool add_segment(struct wal_census *c, const struct wal_name *name, uint64_t stored_size,
                        int64_t stored_s, struct err *err)
{
    uint64_t number;
    struct wal_timeline *t = c->count == 0 ? NULL : &c->timelines[c->count - 1];
    if (!wal_census_number(c, name, &number)) {
        c->strange++;
        return true;
    }
    if (t == NULL || t->tli != name->tli)
        t = t != NULL && name->tli < t->tli ? NULL : add_timeline(c, name->tli, number);
    else if (number <= t->range.last)
        t = NULL;
    if (t == NULL)
        return err_set(err, ERR_UNAVAILABLE, "the store lists WAL out of order");
    if (c->segment_size != 0 && t->count > 0 && number > t->range.last + 1)
        add_gap(t, t->range.last + 1, number - 1);
    t->range.last = number;
    t->count++;
    t->stored_bytes += stored_size;
    t->last_s = stored_s;
    c->segments++;
    return true;
}

bool wal_census_add(struct wal_census *c, const struct wal_name *name, uint64_t stored_size,
                    int64_t stored_s, struct err *err)
{
    c->stored_bytes += stored_size;
    switch (name->kind) {
    case WAL_SEGMENT:
        return add_segment(c, name, stored_size, stored_s, err);
    case WAL_PARTIAL:
        c->partials++;
        return true;
    case WAL_LABEL:
        c->labels++;
        return true;
    case WAL_HISTORY:
        c->histories++;
        return true;
    case WAL_OTHER:
        break;
    }
    return true;
}

/* ---- asking ---- */

const struct wal_timeline *wal_census_newest(const struct wal_census *c)
{
    return c->count == 0 ? NULL : &c->timelines[c->count - 1];
}

const struct wal_timeline *wal_census_find(const struct wal_census *c, uint32_t tli)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->timelines[i].tli == tli)
            return &c->timelines[i];
    return NULL;
}

struct tally {
    uint64_t missing;
    struct wal_range first;
};

static void note_missing(struct tally *t, uint64_t first, uint64_t last)
{
    if (first > last)
        return;
    if (t->missing == 0)
        t->first = (struct wal_range){first, last};
    t->missing += last - first + 1;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t wal_census_missing(const struct wal_census *c, uint32_t tli, uint64_t first, uint64_t last,
                            struct wal_range *first_gap)
{
    const struct wal_timeline *t = wal_census_find(c, tli);
    struct tally tally = {.missing = 0};
    if (first > last)
        return 0;
    if (t == NULL || first > t->range.last || last < t->range.first) {
        note_missing(&tally, first, last);
    } else {
        if (first < t->range.first)
            note_missing(&tally, first, t->range.first - 1);
        /* of gaps that are not kept it is only known that they are older */
        if (t->gap_count > t->gaps_kept && first < t->gaps[0].first)
            note_missing(&tally, first, first);
        for (size_t i = 0; i < t->gaps_kept; i++)
            note_missing(&tally, higher(first, t->gaps[i].first), lower(last, t->gaps[i].last));
        if (last > t->range.last)
            note_missing(&tally, t->range.last + 1, last);
    }
    if (tally.missing > 0 && first_gap != NULL)
        *first_gap = tally.first;
    return tally.missing;
}

static void walk(const struct wal_census *c, uint32_t tli, uint64_t first, uint64_t last,
                 struct wal_way *way)
{
    struct wal_range gap;
    uint64_t missing = first > last ? 0 : wal_census_missing(c, tli, first, last, &gap);
    if (missing > 0 && way->missing == 0) {
        way->first_gap = gap;
        way->first_gap_tli = tli;
    }
    way->missing += missing;
}

bool wal_census_way(const struct wal_census *c, uint32_t tli, uint64_t number, struct wal_way *way)
{
    const struct wal_timeline *to = wal_census_newest(c);
    size_t i = 0;
    *way = (struct wal_way){.missing = 0};
    if (c->segment_size == 0 || to == NULL)
        return false;
    while (i < c->ancestor_count && c->ancestors[i].tli != tli)
        i++;
    if (to->tli != tli && i == c->ancestor_count)
        to = wal_census_find(c, tli);
    if (to == NULL)
        return false;
    way->to_tli = to->tli;
    way->to = to->range.last;
    /* the segment in which a timeline was left is read from the next one */
    for (; to->tli != tli && i < c->ancestor_count; i++) {
        uint64_t switched = c->ancestors[i].end / c->segment_size;
        if (switched > number) {
            walk(c, c->ancestors[i].tli, number, switched - 1, way);
            number = switched;
        }
    }
    /* one that has just begun has nothing beyond the start yet: its first segment is still missing
     */
    walk(c, to->tli, number, higher(number, to->range.last), way);
    return true;
}
