/* What the encoder and the decoder both know of the lzop container. All numbers are big-endian.
 *
 *   magic (9)
 *   header: version (2), library version (2), [version needed to extract (2)], method (1),
 *     [level (1)], flags (4), filter (4) when F_H_FILTER, mode (4), mtime (4), [mtime high (4)],
 *     name length (1), name, checksum of all that since the magic (4); the parts in brackets since
 *     version 0x0940
 *   when F_H_EXTRA_FIELD: length (4), bytes, checksum of both (4)
 *   blocks: plain length (4), coded length (4), checksums as flagged (4 each), coded bytes;
 *     coded length == plain length means stored, and then there are no checksums of the coded side
 *   a zero word
 *
 * Observed with lzop 1.04 over hand-made files, one field varied at a time. */
#ifndef WALEFS_CORE_LZOP_FORMAT_H
#define WALEFS_CORE_LZOP_FORMAT_H

#include <libdeflate.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define LZOP_MAGIC_BYTES "\x89LZO\0\r\n\x1a\n"

#define LZOP_VERSION 0x1040u             /* the lzop whose format this is */
#define LZOP_VERSION_OLDEST 0x0900u      /* lzop reads nothing older */
#define LZOP_VERSION_LONG_HEADER 0x0940u /* from here on the header has the bracketed fields */

enum lzop_method { LZOP_LZO1X_1 = 1, LZOP_LZO1X_1_15 = 2, LZOP_LZO1X_999 = 3 };

#define LZOP_LEVEL_MAX 9u

/* Header flags. */
#define LZOP_F_ADLER32_D 0x00000001u /* _D: of a block's plain bytes */
#define LZOP_F_ADLER32_C 0x00000002u /* _C: of a block's coded bytes */
#define LZOP_F_STDIN 0x00000004u
#define LZOP_F_STDOUT 0x00000008u
#define LZOP_F_H_EXTRA_FIELD 0x00000040u
#define LZOP_F_CRC32_D 0x00000100u
#define LZOP_F_CRC32_C 0x00000200u
#define LZOP_F_H_FILTER 0x00000800u
#define LZOP_F_H_CRC32 0x00001000u /* the header's own checksum is a CRC-32, else an Adler-32 */
#define LZOP_F_OS_UNIX 0x03000000u
#define LZOP_F_UNKNOWN 0x000fc000u /* neither a flag nor the OS nor the character set */

#define LZOP_ADLER32_INIT 1u
#define LZOP_CRC32_INIT 0u

static inline uint32_t lzop_get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t lzop_get16(const unsigned char *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline unsigned char *lzop_put32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
    return p + 4;
}

/* The adler32 of a whole block, several times as fast as liblzo2's. */
static inline uint32_t lzop_adler32(const void *data, size_t n)
{
    return libdeflate_adler32(LZOP_ADLER32_INIT, data, n);
}

/* Initialises liblzo2 once for the process. Any thread. */
bool lzop_library_init(struct err *err);

#endif
