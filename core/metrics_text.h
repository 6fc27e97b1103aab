/* Prometheus' text exposition format, version 0.0.4: families with HELP and TYPE, then samples.
 * https://prometheus.io/docs/instrumenting/exposition_formats/ */
#ifndef WALEFS_CORE_METRICS_TEXT_H
#define WALEFS_CORE_METRICS_TEXT_H

#include <inttypes.h>
#include <stdio.h>

#include "core/metrics.h"

/* The head of a family; its samples must follow before the next one. TYPE: counter, gauge... */
void metrics_family(FILE *out, const char *name, const char *type, const char *help);

/* A label's value, escaped and in quotes. */
void metrics_label(FILE *out, const char *value);

/* A family with one sample without labels. */
void metrics_single(FILE *out, const char *name, const char *type, const char *help,
                    uint64_t value);

/* All that metrics.h counts, and S3's error codes. */
void metrics_print(FILE *out);

#endif
