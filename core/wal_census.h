/* Which WAL an archive has and which it lacks, by timeline; and what a recovery from a backup reads
 * and does not find. Pure functions on names and numbers.
 *
 * Made by one thread, then immutable. A segment is called by its number, the LSN of its first byte
 * divided by the segment size; how many there are in each 4 GiB depends on that size (PostgreSQL's
 * xlog_internal.h). What a recovery reads follows PostgreSQL's XLogFileReadAnyTLI: the segment in
 * which a timeline was left is taken from the new timeline, those before it from the old one.
 *
 * Memory goes with the gaps and not with the segments: 24 bytes each, and there are few, since WAL
 * is archived in order and deleted from its beginning, or between backups that stay. */
#ifndef WALEFS_CORE_WAL_CENSUS_H
#define WALEFS_CORE_WAL_CENSUS_H

#include "core/err.h"
#include "core/wal_history.h"
#include "core/wal_name.h"

#define CENSUS_MOST (1u << 20) /* gaps and timelines together; what has more is refused */

/* Segments FIRST to LAST, both included, of one timeline. */
struct wal_range {
    uint32_t tli;
    uint64_t first, last;
};

struct wal_ranges {
    struct wal_range *of; /* rising by timeline, then by number */
    size_t count;
    size_t capacity;
};

/* Appends; the caller sees to the order. */
bool wal_ranges_add(struct wal_ranges *r, const struct wal_range *range, struct err *err);
void wal_ranges_free(struct wal_ranges *r); /* contents only; safe when zeroed */
uint64_t wal_ranges_segments(const struct wal_ranges *r);

/* One timeline that has segments. */
struct wal_timeline {
    uint32_t tli;
    uint64_t first, last, count;
    uint64_t stored_bytes;
    int64_t last_s;            /* when the last segment was stored */
    struct wal_ranges missing; /* between first and last */
};

struct wal_census {
    uint32_t segment_size; /* 0: not known, and no gap can be told. Set before the first name */
    struct wal_timeline *timelines; /* rising */
    size_t count;
    size_t capacity;
    struct wal_history *histories; /* rising by timeline */
    size_t history_count;
    uint64_t segments;
    uint64_t stored_bytes;  /* of all names */
    uint64_t gaps, missing; /* places, and segments that are missing there, of all timelines */
    uint64_t strange;       /* names with a segment number that does not exist with that size */
};

struct wal_census *wal_census_new(uint32_t segment_size, struct err *err);
void wal_census_free(struct wal_census *c); /* NULL is allowed */

/* The next of PostgreSQL's names, in the order of a listing (byte order; a segment that does not
 * rise is ERR_INVALID, and so is the one with which there is more than CENSUS_MOST). */
bool wal_census_add(struct wal_census *c, const struct wal_name *name, uint64_t stored_size,
                    int64_t stored_s, struct err *err);

/* Takes what HISTORY holds, and empties it. */
bool wal_census_take_history(struct wal_census *c, struct wal_history *history, struct err *err);
/* Does a history that was taken say where TLI was left? Then it says all that TLI's own does. */
bool wal_census_has_ancestor(const struct wal_census *c, uint32_t tli);

/* A segment's number; false when there is no such segment with that size. */
bool wal_census_number(const struct wal_census *c, const struct wal_name *name, uint64_t *number);
void wal_census_name(const struct wal_census *c, uint32_t tli, uint64_t number,
                     char out[WAL_NAME_MAX]);

/* The newest timeline that has segments, or NULL. */
const struct wal_timeline *wal_census_newest(const struct wal_census *c);
/* NULL when there is no segment of it. */
const struct wal_timeline *wal_census_find(const struct wal_census *c, uint32_t tli);

/* The part of RANGE that the archive lacks, appended to OUT. False without memory. */
bool wal_census_missing(const struct wal_census *c, const struct wal_range *range,
                        struct wal_ranges *out, struct err *err);

/* What a recovery lacks that begins on TLI at START_LSN, where a backup was begun that ended at
 * STOP_LSN (0: not known), and goes on to the newest segment of the newest timeline to which a
 * history leads from there. A timeline that has no segment yet adds nothing. */
struct wal_way {
    struct wal_ranges within; /* missing from the backup's begin to its end: it is of no use */
    struct wal_ranges after;  /* missing behind that: recovery ends there */
    uint32_t to_tli;          /* of the last segment of the way */
};
/* WAY is freed by the caller in any case. The segment size is known. False without memory. */
bool wal_census_way(const struct wal_census *c, uint32_t tli, uint64_t start_lsn, uint64_t stop_lsn,
                    struct wal_way *way, struct err *err);
void wal_way_free(struct wal_way *way); /* contents only; safe when zeroed */

#endif
