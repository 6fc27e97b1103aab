#include "core/path_slots.h"

#include <stdlib.h>
#include <string.h>

#include "core/fnv.h"

static size_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = fnv(FNV_START, s, n);
    return (size_t)(h ^ (h >> 29));
}

static const char *path_of(const struct path_slots *t, const void *items, uint32_t place)
{
    const char *path;
    memcpy(&path, (const char *)items + place * t->item_bytes + t->path_offset, sizeof(path));
    return path;
}

uint32_t *path_slots_find(const struct path_slots *t, const void *items, const char *path, size_t n)
{
    for (size_t i = hash_bytes(path, n) & t->mask;; i = (i + 1) & t->mask) {
        if (t->slots[i] == PATH_SLOTS_NONE)
            return &t->slots[i];
        const char *have = path_of(t, items, t->slots[i]);
        if (strncmp(have, path, n) == 0 && have[n] == '\0')
            return &t->slots[i];
    }
}

bool path_slots_make(struct path_slots *t, const void *items, size_t count, size_t want,
                     struct err *err)
{
    size_t cap = 64;
    while (cap < want * 2)
        cap *= 2;
    uint32_t *slots = malloc(cap * sizeof(*slots));
    if (slots == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    memset(slots, 0xff, cap * sizeof(*slots));
    free(t->slots);
    t->slots = slots;
    t->mask = cap - 1;
    for (uint32_t i = 0; i < count; i++) {
        const char *path = path_of(t, items, i);
        *path_slots_find(t, items, path, strlen(path)) = i;
    }
    return true;
}

bool path_slots_reserve(struct path_slots *t, const void *items, size_t count, struct err *err)
{
    return (t->slots != NULL && count * 2 <= t->mask) ||
           path_slots_make(t, items, count, count * 2, err);
}

void path_slots_free(struct path_slots *t)
{
    free(t->slots);
    t->slots = NULL;
}
