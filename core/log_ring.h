/* The last lines of the log, and how many there were lately, in a fixed amount of memory. Any
 * thread. */
#ifndef WALEFS_CORE_LOG_RING_H
#define WALEFS_CORE_LOG_RING_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LOG_RING_BYTES (64u * 1024u)
#define LOG_RING_MINUTES 60u

enum log_class { LOG_CLASS_ERROR, LOG_CLASS_WARNING, LOG_CLASS_OTHER };

/* Keeps LINE of N bytes (without a newline; cut when it is very long), written at NOW_S. */
void log_ring_add(enum log_class class, const char *line, size_t n, int64_t now_s);

/* The lines that are kept, oldest first, each as "2026-11-25T18:00:00Z LINE". */
void log_ring_print(FILE *out);

/* How many of that class were added in the hour before NOW_S. */
uint64_t log_ring_last_hour(enum log_class class, int64_t now_s);

#endif
