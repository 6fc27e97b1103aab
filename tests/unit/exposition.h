/* A strict reader of Prometheus' text exposition format, version 0.0.4. */
#ifndef WALEFS_TESTS_EXPOSITION_H
#define WALEFS_TESTS_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>

/* Checks TEXT: each family has one HELP and one TYPE line, in this order, before its samples, which
 * stand together; names and labels are well-formed and named by the rules (counters end in _total,
 * no other does); values are numbers; no series is there twice; histograms have rising buckets with
 * rising cumulative counts, one of +Inf that equals _count, and a _sum. Returns NULL, or what is
 * wrong in static memory. */
const char *exposition_check(const char *text);

/* The value of the sample whose name and labels are SERIES, as they stand in TEXT; false when there
 * is none. */
bool exposition_value(const char *text, const char *series, double *value);

#endif
