/* FNV-1a, 64 bits: a hash for tables and for telling things apart, not against anybody. Any thread.
 * Source: the IETF's draft-eastlake-fnv. */
#ifndef WALEFS_CORE_FNV_H
#define WALEFS_CORE_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_START UINT64_C(0xcbf29ce484222325)

/* The hash of what gave H (FNV_START: nothing), followed by N bytes of DATA. */
static inline uint64_t fnv(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
