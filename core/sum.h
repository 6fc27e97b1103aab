/* The plain SHA-256 of what passes, as a backup's sentinel keeps it of each partition. */
#ifndef WALEFS_CORE_SUM_H
#define WALEFS_CORE_SUM_H

#include "core/stream.h"

#define SUM_HEX 65u /* with the NUL */

/* Passes everything on to REST. A finish that returned true has filled OUT (hexadecimal, lower
 * case), which is borrowed until the sink is closed. Owns REST from the start, also when it fails
 * (NULL, ERR set). */
struct sink *sum_sink(struct sink *rest, char out[SUM_HEX], struct err *err);

#endif
