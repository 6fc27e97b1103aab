/* CRC-32C (Castagnoli), as PostgreSQL's backup_manifest and pg_control have it. */
#ifndef WALEFS_CORE_CRC32C_H
#define WALEFS_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what CRC is the checksum of (0: nothing), followed by N bytes at DATA. */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);

/* The same without the processor's own instruction, as where it has none. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n);

#endif
