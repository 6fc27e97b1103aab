/* One event, one line: "walefs: level: message key=value...". Any thread may log; a line is never
 * torn. Control characters that come from names or from the network are escaped. */
#ifndef WALEFS_CORE_LOG_H
#define WALEFS_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Where lines go; may be combined. */
enum {
    LOG_TO_STDERR = 1,
    LOG_TO_SYSLOG = 2,
    /* stderr, each line with its priority in front ("<3>"), as sd-daemon(3) wants it */
    LOG_TO_JOURNAL = 4,
};

/* Chooses where lines go and down to which level. FACILITY is a syslog facility (LOG_LOCAL0...),
 * used for syslog only. Call before threads start. */
void log_setup(unsigned targets, int facility, enum log_level max_level);

/* Is stderr connected to the journal, as JOURNAL_STREAM says (systemd.exec(5))? */
bool log_stderr_is_journal(void);

bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* What a program that reads the log wants to know of an event. NULL: no such detail. */
struct log_details {
    const char *op;        /* op=: what was being done */
    const char *path;      /* path=: to which file of the mount */
    const struct err *err; /* error=, code= (the store's own), request= (the store's name for it) */
};

/* As log_write, with the details after the message. Values with blanks or quotes are quoted. */
void log_event(enum log_level level, const struct log_details *details, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
