/* Finds the items of an array by their paths, which are all different: a hash table of places. Not
 * thread-safe while it is changed. */
#ifndef WALEFS_CORE_PATH_SLOTS_H
#define WALEFS_CORE_PATH_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define PATH_SLOTS_NONE UINT32_MAX

struct path_slots {
    uint32_t *slots; /* places, PATH_SLOTS_NONE for a free slot */
    size_t mask;
    size_t item_bytes, path_offset; /* of `const char *path` in an item */
};

#define PATH_SLOTS_INIT(item_type)                                                \
    {                                                                             \
        .item_bytes = sizeof(item_type), .path_offset = offsetof(item_type, path) \
    }

/* Makes the table anew for COUNT items, with room for WANT. False with ERR_NO_MEMORY: it is as it
 * was. */
bool path_slots_make(struct path_slots *t, const void *items, size_t count, size_t want,
                     struct err *err);

/* Room for one more than COUNT. */
bool path_slots_reserve(struct path_slots *t, const void *items, size_t count, struct err *err);

/* The slot of the N bytes of PATH, behind which there need be no NUL: it has the item's place, or
 * PATH_SLOTS_NONE, and is then where a new item's place belongs. */
uint32_t *path_slots_find(const struct path_slots *t, const void *items, const char *path,
                          size_t n);

void path_slots_free(struct path_slots *t);

#endif
