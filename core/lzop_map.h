/* Where the blocks of an lzop stream lie, so that a stored, unencrypted object can be read from any
 * block by range. Offsets are into the lzop stream, before encryption. */
#ifndef WALEFS_CORE_LZOP_MAP_H
#define WALEFS_CORE_LZOP_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

/* Plain data; filled while a stream is coded or decoded, freed with lzop_map_free. */
struct lzop_map {
    uint64_t *offsets; /* of each block's head, in order */
    size_t count;
    uint64_t plain_size; /* of the whole stream */
    uint32_t block_size; /* plain bytes of every block but the last, which has at most as many */
    uint32_t flags;      /* of the stream's header: which checksums stand in a block's head */
    bool regular;        /* one member and blocks as said above: random access is possible */
};

#define LZOP_MAP_INIT \
    {                 \
        0             \
    }

void lzop_map_free(struct lzop_map *map); /* contents only; safe on a zeroed map */

/* For the coders: a stream with these header flags begins. */
void lzop_map_begin(struct lzop_map *map, uint32_t flags);
/* Its next block, at OFFSET of the stream, holds PLAIN_BYTES. */
bool lzop_map_add(struct lzop_map *map, uint64_t offset, uint32_t plain_bytes, struct err *err);
/* The stream is of a form that has no random access; only plain_size is kept up. */
void lzop_map_irregular(struct lzop_map *map);

#endif
