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
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->count; i++)
        wal_ranges_free(&c->timelines[i].missing);
    for (size_t i = 0; i < c->history_count; i++)
        wal_history_free(&c->histories[i]);
    free(c->timelines);
    free(c->histories);
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

/* ---- counting ---- */

static bool has_room(const struct wal_census *c, struct err *err)
{
    return c->count + c->gaps < CENSUS_MOST ||
           err_set(err, ERR_INVALID, "the archive's WAL has more than %u gaps and timelines",
                   CENSUS_MOST);
}

static struct wal_timeline *add_timeline(struct wal_census *c, uint32_t tli, uint64_t number,
                                         struct err *err)
{
    struct wal_timeline *of =
        has_room(c, err) ? with_room(c->timelines, c->count, &c->capacity, sizeof(*of), err) : NULL;
    if (of == NULL)
        return NULL;
    c->timelines = of;
    of[c->count] = (struct wal_timeline){.tli = tli, .first = number};
    return &of[c->count++];
}

static bool add_gap(struct wal_census *c, struct wal_timeline *t, uint64_t first, uint64_t last,
                    struct err *err)
{
    if (!has_room(c, err) || !ranges_add(&t->missing, t->tli, first, last, err))
        return false;
    c->gaps++;
    c->missing += last - first + 1;
    return true;
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
    if (t != NULL && (name->tli < t->tli || (name->tli == t->tli && number <= t->last))) {
        char text[WAL_NAME_MAX];
        wal_census_name(c, name->tli, number, text);
        return err_set(err, ERR_INVALID, "%s is out of order in the store's listing", text);
    }
    if (t == NULL || t->tli != name->tli) {
        t = add_timeline(c, name->tli, number, err);
        if (t == NULL)
            return false;
    } else if (c->segment_size != 0 && number > t->last + 1 &&
               !add_gap(c, t, t->last + 1, number - 1, err)) {
        return false;
    }
    t->last = number;
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
    return name->kind != WAL_SEGMENT || add_segment(c, name, stored_size, stored_s, err);
}

bool wal_census_take_history(struct wal_census *c, struct wal_history *history, struct err *err)
{
    struct wal_history *grown =
        reallocarray(c->histories, c->history_count + 1, sizeof(*c->histories));
    if (grown == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    c->histories = grown;
    size_t i = c->history_count++;
    for (; i > 0 && grown[i - 1].tli > history->tli; i--)
        grown[i] = grown[i - 1];
    grown[i] = *history;
    *history = (struct wal_history){.tli = history->tli};
    return true;
}

/* ---- asking ---- */

const struct wal_timeline *wal_census_newest(const struct wal_census *c)
{
    return c->count == 0 ? NULL : &c->timelines[c->count - 1];
}

static int compare_timelines(const void *a, const void *b)
{
    const struct wal_timeline *s = a, *t = b;
    return (s->tli > t->tli) - (s->tli < t->tli);
}

const struct wal_timeline *wal_census_find(const struct wal_census *c, uint32_t tli)
{
    const struct wal_timeline wanted = {.tli = tli};
    return c->count == 0
               ? NULL
               : bsearch(&wanted, c->timelines, c->count, sizeof(wanted), compare_timelines);
}

/* The first of R that ends at NUMBER or later; R's count when there is none. */
static size_t first_at(const struct wal_ranges *r, uint64_t number)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->of[middle].last < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool wal_census_missing(const struct wal_census *c, const struct wal_range *range,
                        struct wal_ranges *out, struct err *err)
{
    const struct wal_timeline *t = wal_census_find(c, range->tli);
    uint64_t first = range->first, last = range->last;
    if (first > last)
        return true;
    if (t == NULL || last < t->first || first > t->last)
        return wal_ranges_add(out, range, err);
    bool ok = first >= t->first || ranges_add(out, t->tli, first, t->first - 1, err);
    for (size_t i = first_at(&t->missing, first); ok && i < t->missing.count; i++) {
        const struct wal_range *hole = &t->missing.of[i];
        if (hole->first > last)
            break;
        ok = ranges_add(out, t->tli, hole->first > first ? hole->first : first,
                        hole->last < last ? hole->last : last, err);
    }
    return ok && (last <= t->last || ranges_add(out, t->tli, t->last + 1, last, err));
}

/* ---- the way of a recovery ---- */

static const struct wal_switch *switch_from(const struct wal_history *h, uint32_t tli)
{
    for (size_t i = 0; i < h->count; i++)
        if (h->of[i].tli == tli)
            return &h->of[i];
    return NULL;
}

bool wal_census_has_ancestor(const struct wal_census *c, uint32_t tli)
{
    for (size_t i = 0; i < c->history_count; i++)
        if (switch_from(&c->histories[i], tli) != NULL)
            return true;
    return false;
}

/* Of the newest timeline that has LSN of TLI behind it, or NULL. */
static const struct wal_history *target_of(const struct wal_census *c, uint32_t tli, uint64_t lsn)
{
    for (size_t i = c->history_count; i > 0; i--) {
        const struct wal_switch *left = switch_from(&c->histories[i - 1], tli);
        if (left != NULL && lsn <= left->end)
            return &c->histories[i - 1];
    }
    return NULL;
}

/* From NEXT of TLI to the newest segment of HISTORY's timeline (NULL: of its own), there or not. */
static bool find_path(const struct wal_census *c, const struct wal_history *history, uint32_t tli,
                      uint64_t next, struct wal_ranges *out, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && history != NULL && i < history->count; i++) {
        const struct wal_switch *s = &history->of[i];
        uint64_t left_in = s->end / c->segment_size;
        if (s->tli < tli || left_in <= next)
            continue;
        ok = ranges_add(out, s->tli, next, left_in - 1, err);
        next = left_in;
    }
    const struct wal_timeline *t = wal_census_find(c, history == NULL ? tli : history->tli);
    if (!ok || t == NULL || t->last < next)
        return ok;
    return ranges_add(out, t->tli, next, t->last, err);
}

static bool is_there(const struct wal_census *c, uint32_t tli, uint64_t number)
{
    const struct wal_timeline *t = wal_census_find(c, tli);
    if (t == NULL || number < t->first || number > t->last)
        return false;
    size_t i = first_at(&t->missing, number);
    return i == t->missing.count || t->missing.of[i].first > number;
}

/* OWN is what the backup needs of its own timeline. The new timeline's copy of the segment in which
 * that was left holds all that the backup needs of it. */
static bool miss(const struct wal_census *c, struct wal_range own, const struct wal_ranges *path,
                 struct wal_way *way, struct err *err)
{
    uint64_t stop = own.last;
    bool ok = true, elsewhere = false;
    for (size_t i = 0; i < path->count; i++) {
        const struct wal_range *r = &path->of[i];
        elsewhere = elsewhere || (r->tli != own.tli && r->first <= stop && stop <= r->last &&
                                  is_there(c, r->tli, stop));
    }
    if (!elsewhere)
        ok = wal_census_missing(c, &own, &way->within, err);
    else if (stop > own.first) {
        own.last--;
        ok = wal_census_missing(c, &own, &way->within, err);
    }
    for (size_t i = 0; ok && i < path->count; i++) {
        struct wal_range r = path->of[i];
        if (r.tli == own.tli && r.first <= stop)
            r.first = stop + 1;
        ok = wal_census_missing(c, &r, &way->after, err);
        way->to_tli = r.tli;
    }
    return ok;
}

bool wal_census_way(const struct wal_census *c, uint32_t tli, uint64_t start_lsn, uint64_t stop_lsn,
                    struct wal_way *way, struct err *err)
{
    bool known = stop_lsn > start_lsn;
    struct wal_range own = {.tli = tli, .first = start_lsn / c->segment_size};
    struct wal_ranges path = {.of = NULL};
    own.last = known ? (stop_lsn - 1) / c->segment_size : own.first;
    *way = (struct wal_way){.to_tli = tli};
    const struct wal_history *target = target_of(c, tli, known ? stop_lsn : start_lsn);
    bool ok = find_path(c, target, tli, own.first, &path, err) && miss(c, own, &path, way, err);
    wal_ranges_free(&path);
    return ok;
}

void wal_way_free(struct wal_way *way)
{
    wal_ranges_free(&way->within);
    wal_ranges_free(&way->after);
}
