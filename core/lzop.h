/* The lzop container, as the lzop tool writes and reads it (lzop 1.04, its own source and
 * documentation are the reference): magic, header, blocks, a zero word; members may follow each
 * other. Both directions stream and hold one block at a time. */
#ifndef WALEFS_CORE_LZOP_H
#define WALEFS_CORE_LZOP_H

#include "core/lzop_map.h"
#include "core/stream.h"

#define LZOP_BLOCK_SIZE (256u * 1024u)  /* what is written, and what lzop writes */
#define LZOP_MAX_BLOCK_SIZE (64u << 20) /* the format's limit; lzop 1.04 reads up to 256 KiB */
#define LZOP_MAGIC_SIZE 9u

/* True when N bytes at DATA (N >= LZOP_MAGIC_SIZE) begin an lzop stream. */
bool lzop_is_magic(const void *data, size_t n);

/* Yields the lzop stream of what PLAIN has: LZO1X-1, 256 KiB blocks, adler32 of the plain data, no
 * name and no time in the header, so that equal content gives equal bytes. Blocks that do not
 * shrink are stored. Owns PLAIN from the start, also on failure (NULL). MAP (NULL: none) is filled
 * while the stream is read; borrowed until close. */
struct source *lzop_encoder(struct source *plain, struct lzop_map *map, struct err *err);

/* Takes an lzop stream and pushes the plain bytes into PLAIN, verified block by block. finish
 * checks that the stream was whole, then finishes PLAIN. Zeros may follow the last member, as with
 * lzop; anything else there is damage, where lzop only warns. Any violation is ERR_CORRUPT; a sound
 * header that asks for a newer lzop, an unknown method or a filter is ERR_UNSUPPORTED. Memory is
 * bounded by what has really arrived, never by what a header claims. Owns PLAIN from the start,
 * also on failure (NULL). MAP (NULL: none) is filled as the stream goes by; borrowed until close.
 */
struct sink *lzop_decoder(struct sink *plain, struct lzop_map *map, struct err *err);

/* The same from the middle: takes the bytes that begin at MAP's block FIRST and pushes the plain
 * bytes of COUNT blocks, verified. What follows them is ignored; finish fails when they have not
 * all come. The map is not trusted: a block that is not as it says is ERR_CORRUPT. ERR_INVALID for
 * blocks that the map does not have. Borrows MAP until close; owns PLAIN as above. */
struct sink *lzop_block_decoder(struct sink *plain, const struct lzop_map *map, size_t first,
                                size_t count, struct err *err);

#endif
