/* global/pg_control. Its fields move between versions, but some marks stay: the system identifier
 * and the version come first, the two positions follow the state and the time, and the block sizes
 * follow a floating-point number that is always 1234567.0. The file ends in a CRC-32C of all that
 * stands before it (pg_control.h of PostgreSQL 9.5 to 18). */
#include <string.h>

#include "core/backup_facts.h"
#include "core/crc32c.h"
#include "core/wal_name.h"

#define VERSION_CRC32C 942       /* PostgreSQL 9.5 */
#define VERSION_NO_PREVIOUS 1100 /* PostgreSQL 11 dropped the previous checkpoint's position */
#define VERSION_OLDEST 900
#define VERSION_NEWEST 2999
#define FIELDS_MAX 512u

static uint32_t get32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Is there a place behind FROM that holds the CRC of everything before it? */
static bool crc_found(const unsigned char *p, size_t from)
{
    uint32_t crc = 0;
    for (size_t i = 0; i + 4 <= FIELDS_MAX; i++) {
        if (i >= from && i % 4 == 0 && get32(p + i) == crc)
            return true;
        crc = crc32c(crc, p + i, 1);
    }
    return false;
}

bool control_parse(const void *data, size_t n, struct control_facts *out, struct err *err)
{
    const unsigned char *p = data;
    const double number = 1234567.0;
    uint64_t mark;
    memcpy(&mark, &number, sizeof(mark));
    if (n < FIELDS_MAX)
        return err_set(err, ERR_INVALID, "pg_control is too short");
    memset(out, 0, sizeof(*out));
    out->system_id = get64(p);
    out->version = get32(p + 8);
    if (out->version < VERSION_OLDEST || out->version > VERSION_NEWEST)
        return err_set(err, ERR_INVALID,
                       "pg_control is of no version of PostgreSQL, or of another byte order");
    size_t copy = out->version >= VERSION_NO_PREVIOUS ? 40 : 48;
    out->state = get32(p + 16);
    out->checkpoint = get64(p + 32);
    out->redo.lsn = get64(p + copy);
    out->redo.tli = get32(p + copy + 8);
    size_t at = 64;
    while (at + 32 < FIELDS_MAX && get64(p + at) != mark)
        at += 8;
    if (at + 32 >= FIELDS_MAX)
        return err_set(err, ERR_INVALID, "pg_control is not of this kind of machine");
    out->segment_size = get32(p + at + 20);
    out->crc_ok = out->version < VERSION_CRC32C || crc_found(p, at + 24);
    if (!wal_segment_size_valid(out->segment_size))
        return err_set(err, ERR_INVALID, "pg_control names an impossible segment size");
    return true;
}
