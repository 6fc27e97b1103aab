/* Timeline history files: where each timeline's predecessors ended. Source: PostgreSQL's
 * timeline.c. */
#ifndef WALEFS_CORE_WAL_HISTORY_H
#define WALEFS_CORE_WAL_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/* Where a timeline was left for the next one. */
struct wal_switch {
    uint32_t tli;
    uint64_t end; /* LSN of the first byte that is the next timeline's */
};

/* A timeline's ancestors, the oldest first. */
struct wal_history {
    uint32_t tli;
    struct wal_switch *of;
    size_t count;
};

/* Reads the text of NAME's timeline history: lines "parent TLI, LSN, reason", rising timelines
 * that stay below the file's own; ERR_INVALID when it is none. */
bool wal_history_parse(const char *name, const char *text, size_t n, struct wal_history *out,
                       struct err *err);
void wal_history_free(struct wal_history *history); /* contents only; safe when zeroed */

#endif
