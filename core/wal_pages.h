/* Every page of a segment, and not its first only: a sink that checks what is pushed into it.
 *
 * Each page must have the magic of the first one and its own address, and be of the segment's
 * timeline or an ancestor, never of an older one than the page before it; what a switch left over
 * is zeros to the end of the segment. Where WAL just ends, pages of an older segment follow, whose
 * file was used anew: that may be so in a timeline's newest segment alone. Source: PostgreSQL's
 * xlog_internal.h, CopyXLogRecordToWAL and InstallXLogFileSegment. */
#ifndef WALEFS_CORE_WAL_PAGES_H
#define WALEFS_CORE_WAL_PAGES_H

#include "core/stream.h"
#include "core/wal_check.h"

#define WAL_PAGE_MAX (64u << 10)

struct wal_pages {
    struct sink base;
    const char *name; /* of the segment, or of a .partial, where only the first page counts */
    struct wal_header header; /* valid once the first page came; segment_size 0 before */
    uint64_t bytes;           /* so many came */
    bool may_end;             /* WAL may just end in it */
    uint64_t ends_at;         /* where it does; UINT64_MAX: it does not */
    uint64_t zeros_from; /* where the zeros behind a switch begin; UINT64_MAX: there are none */
    uint32_t tli;        /* of the last page */
    size_t have;         /* of the page that is coming */
    unsigned char page[WAL_PAGE_MAX];
};

/* NAME is borrowed. MAY_END: it is its timeline's newest. Errors are ERR_CORRUPT and name the
 * segment. finish checks the size; closing does nothing. */
void wal_pages_init(struct wal_pages *w, const char *name, bool may_end);

#endif
