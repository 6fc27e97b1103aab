/* Which WAL an archive has and which it lacks: pure functions on names and numbers.
 *
 * A segment is counted by its number, the LSN of its first byte divided by the segment size. What a
 * recovery reads follows PostgreSQL's XLogFileReadAnyTLI: the segment in which a timeline was left
 * is taken from the new timeline, those before it from the old one. */
#ifndef WALEFS_CORE_WAL_GAPS_H
#define WALEFS_CORE_WAL_GAPS_H

#include "core/err.h"
#include "core/wal_history.h"
#include "core/wal_name.h"

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

/* One timeline of the archive. */
struct wal_timeline {
    uint32_t tli;
    uint64_t first, last, count;
    uint64_t bytes;            /* as stored */
    struct wal_ranges missing; /* between first and last */
};

struct wal_timelines {
    uint32_t segment_size;
    struct wal_timeline *of; /* rising by timeline */
    size_t count;
    size_t capacity;
    size_t foreign; /* names that are no segment with this segment size */
};

/* Zeroed but for SEGMENT_SIZE, which is valid. */
void wal_timelines_init(struct wal_timelines *t, uint32_t segment_size);
void wal_timelines_free(struct wal_timelines *t);

/* Takes the next name in the order of a listing (byte order; one that does not rise is
 * ERR_INVALID). Names that are not WAL_SEGMENT are passed over. */
bool wal_timelines_add(struct wal_timelines *t, const char *name, uint64_t stored_bytes,
                       struct err *err);

/* By id; NULL when the archive has no segment of it. */
const struct wal_timeline *wal_timelines_find(const struct wal_timelines *t, uint32_t tli);

/* The number of the segment that holds LSN, of the one that NAME (WAL_SEGMENT) names, and back. */
uint64_t wal_number_of_lsn(uint64_t lsn, uint32_t segment_size);
uint64_t wal_number_of_name(const struct wal_name *name, uint32_t segment_size);
void wal_name_of_number(uint32_t tli, uint64_t number, uint32_t segment_size,
                        char out[WAL_NAME_MAX]);

/* What recovery reads that starts on timeline START_TLI at START_LSN and follows HISTORY (of the
 * timeline it is to reach; NULL: it stays on its own) up to the newest segment of the archive
 * there. A target timeline without a segment yet adds nothing. OUT is zeroed by the caller, and
 * gets what is needed, present or not. */
enum wal_path {
    WAL_PATH_OK,
    WAL_PATH_ELSEWHERE, /* START_TLI is no ancestor, or was left before START_LSN */
    WAL_PATH_FAILED     /* ERR is set: no memory */
};
enum wal_path wal_path_find(const struct wal_timelines *t, const struct wal_history *history,
                            uint32_t start_tli, uint64_t start_lsn, struct wal_ranges *out,
                            struct err *err);

/* The part of NEEDED that the archive lacks, appended to OUT. False without memory. */
bool wal_missing(const struct wal_timelines *t, const struct wal_range *needed,
                 struct wal_ranges *out, struct err *err);

#endif
