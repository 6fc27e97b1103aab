/* Which WAL segments an archive has: per timeline the first, the last and what is missing between,
 * in bounded memory however many segments there are; and whether a recovery finds all it needs.
 *
 * Made from a listing in the order of names by one thread, then immutable. A segment is called by
 * its number, which counts segments from the start of the WAL; how many there are in each 4 GiB
 * depends on the segment size (PostgreSQL's xlog_internal.h). */
#ifndef WALEFS_CORE_WAL_CENSUS_H
#define WALEFS_CORE_WAL_CENSUS_H

#include "core/wal_history.h"
#include "core/wal_name.h"

#define CENSUS_GAPS 32u      /* that are kept of each timeline: the newest */
#define CENSUS_TIMELINES 64u /* that are kept: the newest */
#define CENSUS_ANCESTORS 64u

struct wal_range {
    uint64_t first, last; /* segment numbers, both included */
};

struct wal_timeline {
    uint32_t tli;
    struct wal_range range; /* first and last segment */
    uint64_t count;
    uint64_t stored_bytes;
    int64_t last_s;                     /* when the last segment was stored */
    uint64_t missing;                   /* segments in range that are not there */
    size_t gap_count;                   /* of which the last ones are kept: */
    struct wal_range gaps[CENSUS_GAPS]; /* oldest first, gaps_kept of them */
    size_t gaps_kept;
};

struct wal_census {
    uint32_t segment_size;                           /* 0: not known, and no gap can be told */
    struct wal_timeline timelines[CENSUS_TIMELINES]; /* rising */
    size_t count;
    size_t older; /* timelines that are not kept */
    uint64_t segments, partials, labels, histories;
    uint64_t strange; /* names with a segment number that does not exist with that size */
    uint64_t stored_bytes;
    /* of the newest timeline that has segments; none when it is the first, or not known */
    struct wal_switch ancestors[CENSUS_ANCESTORS];
    size_t ancestor_count;
    bool newest_has_history; /* its history file is in the archive */
};

struct wal_census *wal_census_new(uint32_t segment_size, struct err *err);
void wal_census_free(struct wal_census *c); /* NULL is allowed */

/* The next of PostgreSQL's names. */
bool wal_census_add(struct wal_census *c, const struct wal_name *name, uint64_t stored_size,
                    int64_t stored_s, struct err *err);

/* A segment's number; false when there is no such segment with that size. */
bool wal_census_number(const struct wal_census *c, const struct wal_name *name, uint64_t *number);
void wal_census_name(const struct wal_census *c, uint32_t tli, uint64_t number,
                     char out[WAL_NAME_MAX]);

/* The newest timeline that has segments, or NULL. */
const struct wal_timeline *wal_census_newest(const struct wal_census *c);
const struct wal_timeline *wal_census_find(const struct wal_census *c, uint32_t tli);

/* What a recovery that begins with segment NUMBER of TLI lacks on its way to the newest segment: of
 * the newest timeline if TLI is that or an ancestor of it, else of TLI itself. */
struct wal_way {
    uint32_t to_tli;
    uint64_t to;                /* the last segment of the way */
    uint64_t missing;           /* segments */
    struct wal_range first_gap; /* when some are missing */
    uint32_t first_gap_tli;
};
/* False when it cannot be told: the segment size is not known, or nothing of TLI is there. */
bool wal_census_way(const struct wal_census *c, uint32_t tli, uint64_t number, struct wal_way *way);

/* How many segments from FIRST to LAST of TLI are missing. */
uint64_t wal_census_missing(const struct wal_census *c, uint32_t tli, uint64_t first, uint64_t last,
                            struct wal_range *first_gap);

#endif
