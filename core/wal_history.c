#include "core/wal_history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wal_name.h"

/* One line of a history file, as PostgreSQL's readTimeLineHistory takes it: blank lines and
 * comments are skipped (count stays). */
static bool history_line(const char *line, struct wal_history *h, struct err *err)
{
    const char *p = line + strspn(line, " \t\r\f\v");
    if (*p == '\0' || *p == '#')
        return true;
    unsigned tli, hi, lo;
    if (sscanf(p, "%u\t%X/%X", &tli, &hi, &lo) != 3 || tli >= h->tli ||
        tli <= (h->count == 0 ? 0 : h->of[h->count - 1].tli))
        return err_set(err, ERR_INVALID, "no such line");
    struct wal_switch *grown = reallocarray(h->of, h->count + 1, sizeof(*grown));
    if (grown == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    h->of = grown;
    h->of[h->count++] = (struct wal_switch){.tli = tli, .end = (uint64_t)hi << 32 | lo};
    return true;
}

static bool history_lines(const char *name, const char *text, size_t n, struct wal_history *out,
                          struct err *err)
{
    unsigned number = 1;
    for (size_t pos = 0; pos < n; number++) {
        const char *end = memchr(text + pos, '\n', n - pos);
        size_t len = end == NULL ? n - pos : (size_t)(end - text) - pos;
        char line[256]; /* the reason at the end may be cut */
        (void)snprintf(line, sizeof(line), "%.*s", (int)(len < 255 ? len : 255), text + pos);
        if (!history_line(line, out, err))
            return err->code == ERR_NO_MEMORY
                       ? false
                       : err_set(err, ERR_INVALID,
                                 "%s: line %u is not \"timeline LSN reason\", or its "
                                 "timeline is out of order",
                                 name, number);
        pos += len + 1;
    }
    return out->count > 0 || err_set(err, ERR_INVALID, "%s: holds no parent timeline", name);
}

bool wal_history_parse(const char *name, const char *text, size_t n, struct wal_history *out,
                       struct err *err)
{
    *out = (struct wal_history){.tli = wal_name_parse(name).tli};
    if (memchr(text, '\0', n) != NULL)
        return err_set(err, ERR_INVALID, "%s: not a timeline history (it is not text)", name);
    bool ok = history_lines(name, text, n, out, err);
    if (!ok)
        wal_history_free(out);
    return ok;
}

void wal_history_free(struct wal_history *history)
{
    free(history->of);
    *history = (struct wal_history){.tli = history->tli};
}
