#include "core/wal_gaps.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- numbers ---- */

uint64_t wal_number_of_lsn(uint64_t lsn, uint32_t segment_size)
{
    return lsn / segment_size;
}

static uint64_t per_log(uint32_t segment_size)
{
    return (UINT64_C(1) << 32) / segment_size;
}

uint64_t wal_number_of_name(const struct wal_name *name, uint32_t segment_size)
{
    return name->log * per_log(segment_size) + name->seg;
}

void wal_name_of_number(uint32_t tli, uint64_t number, uint32_t segment_size,
                        char out[WAL_NAME_MAX])
{
    (void)snprintf(out, WAL_NAME_MAX, "%08X%08X%08X", tli,
                   (uint32_t)(number / per_log(segment_size)),
                   (uint32_t)(number % per_log(segment_size)));
}

/* ---- ranges ---- */

/* OF with room for one more behind COUNT elements of SIZE bytes; NULL without memory. */
static void *with_room(void *of, size_t count, size_t *capacity, size_t size, struct err *err)
{
    if (of != NULL && count < *capacity)
        return of;
    size_t wanted = *capacity == 0 ? 8 : *capacity * 2;
    void *grown = reallocarray(of, wanted, size);
    if (grown == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        *capacity = wanted;
    return grown;
}

bool wal_ranges_add(struct wal_ranges *r, const struct wal_range *range, struct err *err)
{
    struct wal_range *of = with_room(r->of, r->count, &r->capacity, sizeof(*of), err);
    if (of == NULL)
        return false;
    r->of = of;
    r->of[r->count++] = *range;
    return true;
}

static bool ranges_add(struct wal_ranges *r, uint32_t tli, uint64_t first, uint64_t last,
                       struct err *err)
{
    const struct wal_range range = {.tli = tli, .first = first, .last = last};
    return wal_ranges_add(r, &range, err);
}

void wal_ranges_free(struct wal_ranges *r)
{
    free(r->of);
    *r = (struct wal_ranges){.of = NULL};
}

uint64_t wal_ranges_segments(const struct wal_ranges *r)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < r->count; i++)
        sum += r->of[i].last - r->of[i].first + 1;
    return sum;
}

/* ---- what the archive has ---- */

void wal_timelines_init(struct wal_timelines *t, uint32_t segment_size)
{
    *t = (struct wal_timelines){.segment_size = segment_size};
}

void wal_timelines_free(struct wal_timelines *t)
{
    for (size_t i = 0; i < t->count; i++)
        wal_ranges_free(&t->of[i].missing);
    free(t->of);
    wal_timelines_init(t, t->segment_size);
}

static bool add_timeline(struct wal_timelines *t, uint32_t tli, uint64_t number, struct err *err)
{
    struct wal_timeline *of = with_room(t->of, t->count, &t->capacity, sizeof(*of), err);
    if (of == NULL)
        return false;
    t->of = of;
    t->of[t->count++] = (struct wal_timeline){.tli = tli, .first = number};
    return true;
}

bool wal_timelines_add(struct wal_timelines *t, const char *name, uint64_t stored_bytes,
                       struct err *err)
{
    struct wal_name n = wal_name_parse(name);
    if (n.kind != WAL_SEGMENT)
        return true;
    if (n.seg >= per_log(t->segment_size)) {
        t->foreign++;
        return true;
    }
    uint64_t number = wal_number_of_name(&n, t->segment_size);
    struct wal_timeline *line = t->count == 0 ? NULL : &t->of[t->count - 1];
    if (line != NULL && (n.tli < line->tli || (n.tli == line->tli && number <= line->last)))
        return err_set(err, ERR_INVALID, "%s is out of order in the listing", name);
    if (line == NULL || line->tli != n.tli) {
        if (!add_timeline(t, n.tli, number, err))
            return false;
        line = &t->of[t->count - 1];
    } else if (number > line->last + 1 &&
               !ranges_add(&line->missing, n.tli, line->last + 1, number - 1, err)) {
        return false;
    }
    line->last = number;
    line->count++;
    line->bytes += stored_bytes;
    return true;
}

const struct wal_timeline *wal_timelines_find(const struct wal_timelines *t, uint32_t tli)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->of[i].tli == tli)
            return &t->of[i];
    return NULL;
}

/* ---- what recovery needs ---- */

/* From FIRST to the newest segment of TLI, if there is one from FIRST on. */
static bool to_the_end(const struct wal_timelines *t, uint32_t tli, uint64_t first,
                       struct wal_ranges *out, struct err *err)
{
    const struct wal_timeline *line = wal_timelines_find(t, tli);
    return line == NULL || line->last < first || ranges_add(out, tli, first, line->last, err);
}

static bool is_ancestor(const struct wal_history *history, uint32_t tli, uint64_t lsn)
{
    for (size_t i = 0; i < history->count; i++)
        if (history->of[i].tli == tli)
            return lsn <= history->of[i].end;
    return false;
}

enum wal_path wal_path_find(const struct wal_timelines *t, const struct wal_history *history,
                            uint32_t start_tli, uint64_t start_lsn, struct wal_ranges *out,
                            struct err *err)
{
    uint64_t next = wal_number_of_lsn(start_lsn, t->segment_size);
    bool ok = true;
    if (history == NULL || history->tli == start_tli)
        return to_the_end(t, start_tli, next, out, err) ? WAL_PATH_OK : WAL_PATH_FAILED;
    if (!is_ancestor(history, start_tli, start_lsn))
        return WAL_PATH_ELSEWHERE;
    for (size_t i = 0; ok && i < history->count; i++) {
        const struct wal_switch *s = &history->of[i];
        uint64_t left_in = wal_number_of_lsn(s->end, t->segment_size);
        if (s->tli < start_tli || left_in <= next)
            continue;
        ok = ranges_add(out, s->tli, next, left_in - 1, err);
        next = left_in;
    }
    ok = ok && to_the_end(t, history->tli, next, out, err);
    return ok ? WAL_PATH_OK : WAL_PATH_FAILED;
}

bool wal_missing(const struct wal_timelines *t, const struct wal_range *needed,
                 struct wal_ranges *out, struct err *err)
{
    const struct wal_timeline *line = wal_timelines_find(t, needed->tli);
    uint64_t first = needed->first, last = needed->last;
    if (line == NULL || last < line->first || first > line->last)
        return ranges_add(out, needed->tli, first, last, err);
    bool ok = first >= line->first || ranges_add(out, needed->tli, first, line->first - 1, err);
    for (size_t i = 0; ok && i < line->missing.count; i++) {
        const struct wal_range *hole = &line->missing.of[i];
        if (hole->last < first || hole->first > last)
            continue;
        ok = ranges_add(out, needed->tli, hole->first > first ? hole->first : first,
                        hole->last < last ? hole->last : last, err);
    }
    return ok && (last <= line->last || ranges_add(out, needed->tli, line->last + 1, last, err));
}
