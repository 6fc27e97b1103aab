#include "core/wal_history.h"

#include <stdio.h>
#include <string.h>

#include "core/wal_name.h"

/* One line, as PostgreSQL's readTimeLineHistory takes it. *FOUND: it holds an entry. */
static bool parse_line(const char *line, struct wal_history_entry *out, bool *found)
{
    const char *p = line + strspn(line, " \t\r\f\v");
    unsigned tli, hi, lo;
    *found = *p != '\0' && *p != '#';
    if (!*found)
        return true;
    if (sscanf(p, "%u\t%X/%X", &tli, &hi, &lo) != 3)
        return false;
    *out = (struct wal_history_entry){.tli = tli, .lsn = (uint64_t)hi << 32 | lo};
    return true;
}

static size_t append(struct wal_history_entry *out, size_t count, size_t cap,
                     const struct wal_history_entry *e)
{
    if (count == cap) {
        memmove(out, out + 1, (cap - 1) * sizeof(*out));
        count--;
    }
    out[count] = *e;
    return count + 1;
}

size_t wal_history_parse(const char *name, const char *text, size_t n,
                         struct wal_history_entry *out, size_t cap, struct err *err)
{
    uint32_t own_tli = wal_name_parse(name).tli;
    size_t count = 0;
    unsigned number = 1;
    if (memchr(text, '\0', n) != NULL) {
        err_set(err, ERR_INVALID, "%s: not a timeline history (it is not text)", name);
        return 0;
    }
    for (size_t pos = 0; pos < n; number++) {
        const char *end = memchr(text + pos, '\n', n - pos);
        size_t len = end == NULL ? n - pos : (size_t)(end - text) - pos;
        char line[256]; /* the reason at the end may be cut */
        struct wal_history_entry e;
        bool found;
        (void)snprintf(line, sizeof(line), "%.*s", (int)(len < 255 ? len : 255), text + pos);
        if (!parse_line(line, &e, &found) ||
            (found && (e.tli >= own_tli || e.tli <= (count == 0 ? 0 : out[count - 1].tli)))) {
            err_set(err, ERR_INVALID,
                    "%s: line %u is not \"timeline LSN reason\", or its timeline is out of order",
                    name, number);
            return 0;
        }
        if (found)
            count = append(out, count, cap, &e);
        pos += len + 1;
    }
    if (count == 0)
        err_set(err, ERR_INVALID, "%s: holds no parent timeline", name);
    return count;
}
