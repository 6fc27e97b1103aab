/* Does a file's content belong under its name? Source: PostgreSQL's xlog_internal.h (page headers),
 * timeline.c (history files) and xlogbackup.c (backup label files). */
#ifndef WALEFS_CORE_WAL_CHECK_H
#define WALEFS_CORE_WAL_CHECK_H

#include "core/err.h"
#include "core/wal_name.h"

#define WAL_HEADER_BYTES 40u    /* what wal_header_parse needs to see */
#define WAL_TEXT_MAX (1u << 20) /* no history or label file is larger */

struct wal_header {
    uint32_t tli;          /* may be older than the file's name in a segment copied at a switch */
    uint64_t page_address; /* LSN of the segment's first byte */
    uint64_t system_id;
    uint32_t segment_size;
    uint32_t page_size;
    uint16_t magic;
    bool swapped; /* the other byte order than this machine's little end first */
};

/* The N bytes at P as a number, in the byte order of a WAL page. */
uint64_t wal_field(const unsigned char *p, size_t n, bool swapped);

/* Reads the long header of a segment's first page, in either byte order. False with ERR_INVALID
 * when these bytes are no such header. */
bool wal_header_parse(const void *page, size_t n, struct wal_header *out, struct err *err);

/* Checks that a segment of SIZE bytes beginning with HEADER belongs under NAME: size, address and
 * timeline. ERR_INVALID says which does not. */
bool wal_segment_check(const char *name, const struct wal_header *header, uint64_t size,
                       struct err *err);

/* Is this text a timeline history (core/wal_history.h)? */
bool wal_history_check(const char *name, const char *text, size_t n, struct err *err);

/* Checks that the text is a backup label file: it must begin with START WAL LOCATION. */
bool wal_label_check(const char *name, const char *text, size_t n, struct err *err);

#endif
