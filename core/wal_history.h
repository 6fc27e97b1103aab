/* Timeline history files: where each timeline's predecessors ended. Source: PostgreSQL's
 * timeline.c. */
#ifndef WALEFS_CORE_WAL_HISTORY_H
#define WALEFS_CORE_WAL_HISTORY_H

#include <stddef.h>

#include "core/err.h"

/* Timeline TLI was left for the next one at this LSN. */
struct wal_history_entry {
    uint32_t tli;
    uint64_t lsn;
};

/* Reads the text of NAME ("00000002.history"): lines "parent TLI, LSN, reason", rising timelines
 * that stay below the file's own; blank lines and comments are skipped. Fills at most CAP entries,
 * the last ones, oldest first. Returns how many there are in OUT, 0 with ERR_INVALID when the text
 * is no such history. */
size_t wal_history_parse(const char *name, const char *text, size_t n,
                         struct wal_history_entry *out, size_t cap, struct err *err);

#endif
