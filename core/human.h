/* Numbers for people to read. */
#ifndef WALEFS_CORE_HUMAN_H
#define WALEFS_CORE_HUMAN_H

#include <stdint.h>

#define HUMAN_MAX 32

/* "12 bytes", "1.5 GiB" */
void human_bytes(uint64_t bytes, char out[HUMAN_MAX]);
/* "95 seconds", "3 hours": at least two of the unit. A negative one, from another clock, counts as
 * 0. */
void human_age(int64_t seconds, char out[HUMAN_MAX]);

#endif
