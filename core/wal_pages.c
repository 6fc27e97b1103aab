#include "core/wal_pages.h"

#include <inttypes.h>
#include <string.h>

/* of the first page, until it has said how large pages are */
#define PAGE_MIN 1024u

static bool all_zero(const unsigned char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static bool first_page(struct wal_pages *w, struct err *err)
{
    struct wal_header *h = &w->header;
    struct err why = ERR_INIT;
    if (!wal_header_parse(w->page, w->have, h, &why))
        return err_set(err, ERR_CORRUPT, "%s: %s", w->name, why.text);
    if (h->page_size < PAGE_MIN || h->page_size > WAL_PAGE_MAX ||
        (h->page_size & (h->page_size - 1)) != 0)
        return err_set(err, ERR_CORRUPT, "%s: its header claims pages of %" PRIu32 " bytes",
                       w->name, h->page_size);
    /* the size is known only at the end: what is asked here is whether the header fits the name */
    if (!wal_segment_check(w->name, h, h->segment_size, &why))
        return err_set(err, ERR_CORRUPT, "%s", why.text);
    w->tli = h->tli;
    return true;
}

/* A whole page, at OFFSET of the segment. */
static bool check_page(struct wal_pages *w, uint64_t offset, struct err *err)
{
    const struct wal_header *h = &w->header;
    if (w->ends_at == UINT64_MAX &&
        (w->zeros_from != UINT64_MAX || all_zero(w->page, h->page_size))) {
        if (w->zeros_from == UINT64_MAX)
            w->zeros_from = offset;
        return all_zero(w->page, h->page_size) ||
               err_set(err, ERR_CORRUPT,
                       "%s: the page at offset %" PRIu64
                       " is not empty, though the segment ended at %" PRIu64,
                       w->name, offset, w->zeros_from);
    }
    uint16_t magic = (uint16_t)wal_field(w->page, 2, h->swapped);
    uint32_t tli = (uint32_t)wal_field(w->page + 4, 4, h->swapped);
    uint64_t address = wal_field(w->page + 8, 8, h->swapped);
    /* left by the segment whose file this was: its address is lower by whole segments */
    bool stale = address < h->page_address && (address & (h->segment_size - 1)) == offset;
    if (w->may_end && stale && w->ends_at == UINT64_MAX)
        w->ends_at = offset;
    if (w->ends_at != UINT64_MAX)
        return address != h->page_address + offset ||
               err_set(err, ERR_CORRUPT,
                       "%s: WAL ends at offset %" PRIu64 ", but goes on at %" PRIu64, w->name,
                       w->ends_at, offset);
    if (magic != h->magic)
        return err_set(err, ERR_CORRUPT,
                       "%s: the page at offset %" PRIu64 " has magic %04X instead of %04X", w->name,
                       offset, magic, h->magic);
    if (address != h->page_address + offset)
        return err_set(err, ERR_CORRUPT,
                       "%s: the page at offset %" PRIu64 " is that of LSN %X/%08X", w->name, offset,
                       (unsigned)(address >> 32), (unsigned)address);
    if (tli < w->tli || tli > wal_name_parse(w->name).tli)
        return err_set(err, ERR_CORRUPT,
                       "%s: the page at offset %" PRIu64 " is of timeline %" PRIu32, w->name,
                       offset, tli);
    w->tli = tli;
    return true;
}

static bool page_full(struct wal_pages *w, struct err *err)
{
    bool known = w->header.segment_size != 0;
    if (!known && !first_page(w, err))
        return false;
    if (w->have < w->header.page_size)
        return true; /* larger pages than usual: there is more of the first to come */
    uint64_t offset = w->bytes - w->have;
    w->have = 0;
    return wal_name_parse(w->name).kind == WAL_PARTIAL || check_page(w, offset, err);
}

static bool pages_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct wal_pages *w = (struct wal_pages *)self;
    const unsigned char *p = data;
    while (n > 0) {
        size_t page = w->header.segment_size != 0 ? w->header.page_size : PAGE_MIN;
        size_t some = page - w->have < n ? page - w->have : n;
        memcpy(w->page + w->have, p, some);
        w->have += some;
        w->bytes += some;
        p += some;
        n -= some;
        if (w->have == page && !page_full(w, err))
            return false;
        if (w->bytes > WAL_SEGMENT_MAX)
            return err_set(err, ERR_CORRUPT, "%s: is longer than any segment", w->name);
    }
    return true;
}

static bool pages_finish(struct sink *self, struct err *err)
{
    struct wal_pages *w = (struct wal_pages *)self;
    struct err why = ERR_INIT;
    if (w->header.segment_size == 0)
        return err_set(err, ERR_CORRUPT, "%s: too short for a WAL page header", w->name);
    return wal_segment_check(w->name, &w->header, w->bytes, &why) ||
           err_set(err, ERR_CORRUPT, "%s", why.text);
}

static void pages_close(struct sink *self)
{
    (void)self;
}

void wal_pages_init(struct wal_pages *w, const char *name, bool may_end)
{
    *w = (struct wal_pages){
        .base = {.write = pages_write, .finish = pages_finish, .close = pages_close},
        .name = name,
        .may_end = may_end,
        .ends_at = UINT64_MAX,
        .zeros_from = UINT64_MAX};
}
