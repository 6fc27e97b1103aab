#include "core/wal_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_history.h"

#define XLP_LONG_HEADER 0x0002u
/* XLOG_PAGE_MAGIC is D0xx up to PostgreSQL 15 and D1xx since; the low byte counts formats */
#define MAGIC_IS_WAL(m) (((m)&0xFE00u) == 0xD000u)

uint64_t wal_field(const unsigned char *p, size_t n, bool swapped)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[swapped ? n - 1 - i : i] << (8 * i);
    return v;
}

bool wal_header_parse(const void *page, size_t n, struct wal_header *out, struct err *err)
{
    const unsigned char *p = page;
    if (n < WAL_HEADER_BYTES)
        return err_set(err, ERR_INVALID, "too short for a WAL page header");
    bool swapped = false;
    if (!MAGIC_IS_WAL(wal_field(p, 2, false))) {
        swapped = true;
        if (!MAGIC_IS_WAL(wal_field(p, 2, true)))
            return err_set(err, ERR_INVALID, "does not begin with a WAL page header");
    }
    if ((wal_field(p + 2, 2, swapped) & XLP_LONG_HEADER) == 0)
        return err_set(err, ERR_INVALID, "does not begin with a segment's first page");
    out->tli = (uint32_t)wal_field(p + 4, 4, swapped);
    out->page_address = wal_field(p + 8, 8, swapped);
    out->system_id = wal_field(p + 24, 8, swapped);
    out->segment_size = (uint32_t)wal_field(p + 32, 4, swapped);
    out->page_size = (uint32_t)wal_field(p + 36, 4, swapped);
    out->magic = (uint16_t)wal_field(p, 2, swapped);
    out->swapped = swapped;
    if (!wal_segment_size_valid(out->segment_size))
        return err_set(err, ERR_INVALID, "its header claims a segment size of %" PRIu32 " bytes",
                       out->segment_size);
    return true;
}

bool wal_segment_check(const char *name, const struct wal_header *header, uint64_t size,
                       struct err *err)
{
    struct wal_name n = wal_name_parse(name);
    if (size != header->segment_size)
        return err_set(err, ERR_INVALID,
                       "%s: has %" PRIu64 " bytes, but a segment of this cluster has %" PRIu32,
                       name, size, header->segment_size);
    uint64_t per_log = (UINT64_C(1) << 32) / header->segment_size;
    if (n.seg >= per_log)
        return err_set(err, ERR_INVALID,
                       "%s: no such segment number with segments of %" PRIu32 " bytes", name,
                       header->segment_size);
    uint64_t address = ((uint64_t)n.log << 32) + (uint64_t)n.seg * header->segment_size;
    if (address != header->page_address)
        return err_set(
            err, ERR_INVALID,
            "%s: its first page is that of LSN %X/%08X, which belongs to another segment", name,
            (unsigned)(header->page_address >> 32), (unsigned)header->page_address);
    if (header->tli == 0 || header->tli > n.tli)
        return err_set(err, ERR_INVALID, "%s: its first page is of timeline %" PRIu32, name,
                       header->tli);
    return true;
}

bool wal_history_check(const char *name, const char *text, size_t n, struct err *err)
{
    struct wal_history history;
    bool ok = wal_history_parse(name, text, n, &history, err);
    if (ok)
        wal_history_free(&history);
    return ok;
}

bool wal_label_check(const char *name, const char *text, size_t n, struct err *err)
{
    static const char begin[] = "START WAL LOCATION: ";
    if (n < sizeof(begin) - 1 || memcmp(text, begin, sizeof(begin) - 1) != 0 ||
        memchr(text, '\0', n) != NULL)
        return err_set(err, ERR_INVALID, "%s: does not begin with START WAL LOCATION", name);
    return true;
}
