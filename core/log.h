/* One event, one line: "level: message". Any thread may log; a line is never torn.
 * Control characters that come from names or from the network are escaped. */
#ifndef WALEFS_CORE_LOG_H
#define WALEFS_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG };

/* Chooses where lines go and down to which level. FACILITY is a syslog facility (LOG_LOCAL0...),
 * used for the syslog target only. Call before threads start. */
void log_setup(enum log_target target, int facility, enum log_level max_level);

bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Lets one event through per INTERVAL_MS and counts what it holds back. Zero-initialise one for
 * each kind of event. */
struct log_gate {
    _Atomic int64_t next_ms;
    _Atomic uint32_t held_back;
};

/* True when the caller should log now; *HELD_BACK is then how many were not logged since. */
bool log_gate_open(struct log_gate *gate, int64_t interval_ms, uint32_t *held_back);

#endif
