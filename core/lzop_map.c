#include "core/lzop_map.h"

#include <stdlib.h>
#include <string.h>

void lzop_map_free(struct lzop_map *map)
{
    free(map->offsets);
    memset(map, 0, sizeof(*map));
}

/* Offsets are of use only while the plain position of each block follows from its number. */
static void give_up(struct lzop_map *map)
{
    free(map->offsets);
    map->offsets = NULL;
    map->count = 0;
    map->regular = false;
    map->block_size = 0;
}

void lzop_map_irregular(struct lzop_map *map)
{
    give_up(map);
}

void lzop_map_begin(struct lzop_map *map, uint32_t flags)
{
    *map = (struct lzop_map){.flags = flags, .regular = true};
}

bool lzop_map_add(struct lzop_map *map, uint64_t offset, uint32_t plain_bytes, struct err *err)
{
    if (map->regular && map->count == 0)
        map->block_size = plain_bytes;
    if (map->regular && (map->plain_size != (uint64_t)map->count * map->block_size ||
                         plain_bytes > map->block_size))
        give_up(map);
    map->plain_size += plain_bytes;
    if (!map->regular)
        return true;
    if ((map->count & (map->count - 1)) == 0) { /* full at every power of two */
        size_t cap = map->count == 0 ? 1 : map->count * 2;
        uint64_t *offsets = realloc(map->offsets, cap * sizeof(*offsets));
        if (offsets == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        map->offsets = offsets;
    }
    map->offsets[map->count++] = offset;
    return true;
}
