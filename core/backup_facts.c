#include "core/backup_facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_name.h"

/* ---- backup_label ---- */

/* The rest of the line that begins with PREFIX; NULL when there is none. */
static const char *line_after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, prefix, n) == 0)
            return line + n;
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return NULL;
}

/* The one segment size with which LSN lies in the segment of that name; 0 when several would do. */
static uint32_t size_of_segment(uint64_t lsn, uint32_t log, uint32_t seg)
{
    uint32_t found = 0;
    for (uint64_t size = WAL_SEGMENT_MIN; size <= WAL_SEGMENT_MAX; size *= 2) {
        uint64_t per_log = UINT64_C(0x100000000) / size, number = lsn / size;
        if (number / per_log != log || number % per_log != seg)
            continue;
        if (found != 0)
            return 0;
        found = (uint32_t)size;
    }
    return found;
}

static bool parse_label(const char *text, struct backup_position *start, uint32_t *segment_size,
                        char *label, size_t cap)
{
    unsigned high, low;
    uint32_t tli, log, seg;
    const char *at = line_after(text, "START WAL LOCATION: ");
    if (at == NULL ||
        sscanf(at, "%8X/%8X (file %8" SCNx32 "%8" SCNx32 "%8" SCNx32 ")", &high, &low, &tli, &log,
               &seg) != 5 ||
        tli == 0)
        return false;
    *start = (struct backup_position){.tli = tli, .lsn = (uint64_t)high << 32 | low};
    *segment_size = size_of_segment(start->lsn, log, seg);
    if (label != NULL) {
        at = line_after(text, "LABEL: ");
        (void)snprintf(label, cap, "%.*s", at == NULL ? 0 : (int)strcspn(at, "\n"),
                       at == NULL ? "" : at);
    }
    return true;
}

static char *copy_text(const char *text, size_t n, struct err *err)
{
    char *copy = strndup(text, n); /* which stops at a NUL */
    if (copy == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return copy;
}

bool backup_label_parse(const char *text, size_t n, struct backup_position *start,
                        uint32_t *segment_size, char *label, size_t cap, struct err *err)
{
    char *copy = copy_text(text, n, err);
    if (copy == NULL)
        return false;
    bool ok = parse_label(copy, start, segment_size, label, cap);
    free(copy);
    return ok || err_set(err, ERR_INVALID, "backup_label has no START WAL LOCATION");
}

/* ---- tablespace_map ---- */

bool tablespace_map_parse(const char *text, size_t n, struct backup_info *info, struct err *err)
{
    char *copy = copy_text(text, n, err);
    if (copy == NULL)
        return false;
    bool ok = true;
    for (char *at = copy; ok && *at != '\0';) {
        char *oid = at, *out = strchr(at, ' ');
        if (out == NULL) {
            ok = err_set(err, ERR_INVALID, "tablespace_map has a line without a location");
            break;
        }
        *out++ = '\0';
        char *location = out;
        for (at = out; *at != '\0' && *at != '\n'; at++) { /* a backslash guards the next byte */
            if (*at == '\\' && at[1] != '\0')
                at++;
            *out++ = *at;
        }
        bool more = *at == '\n';
        *out = '\0';
        at += more;
        if (oid[0] == '\0' || oid[strspn(oid, "0123456789")] != '\0')
            ok = err_set(err, ERR_INVALID, "tablespace_map has a line without an OID");
        else
            ok = backup_info_set_tablespace(info, oid, location) ||
                 err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    free(copy);
    return ok;
}
