#include "core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "core/call.h"

#define LINE_MAX_BYTES 2048

static struct {
    enum log_target target;
    enum log_level max_level;
} logger = {LOG_TARGET_STDERR, LOG_LEVEL_INFO};

void log_setup(enum log_target target, int facility, enum log_level max_level)
{
    logger.target = target;
    logger.max_level = max_level;
    if (target == LOG_TARGET_SYSLOG)
        openlog("walefs", LOG_PID | LOG_NDELAY, facility);
}

bool log_enabled(enum log_level level)
{
    return level <= logger.max_level;
}

static const struct {
    const char *name;
    int priority;
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", LOG_ERR},
    [LOG_LEVEL_WARN] = {"warning", LOG_WARNING},
    [LOG_LEVEL_INFO] = {"info", LOG_INFO},
    [LOG_LEVEL_DEBUG] = {"debug", LOG_DEBUG},
};

/* Control characters become \xNN, so that a name can neither forge a line nor drive a terminal. */
static size_t escape(char *out, size_t cap, const char *in)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (; *in != '\0' && n + 5 < cap; in++) {
        unsigned char c = (unsigned char)*in;
        if (c >= 0x20 && c != 0x7f) {
            out[n++] = *in;
            continue;
        }
        out[n++] = '\\';
        out[n++] = 'x';
        out[n++] = hex[c >> 4];
        out[n++] = hex[c & 15];
    }
    return n;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    char message[LINE_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);

    char line[LINE_MAX_BYTES + 64];
    int prefix = 0;
    if (logger.target == LOG_TARGET_STDERR)
        prefix = snprintf(line, sizeof(line), "walefs: %s: ", levels[level].name);
    size_t n = (size_t)prefix;
    n += escape(line + n, sizeof(line) - n - 2, message);
    if (logger.target == LOG_TARGET_SYSLOG) {
        line[n] = '\0';
        syslog(levels[level].priority, "%s", line);
        return;
    }
    line[n++] = '\n';
    /* one write, so that lines of several threads do not mix */
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written;
}

bool log_gate_open(struct log_gate *gate, int64_t interval_ms, uint32_t *held_back)
{
    int64_t now = now_ms();
    int64_t next = atomic_load(&gate->next_ms);
    if (now < next || !atomic_compare_exchange_strong(&gate->next_ms, &next, now + interval_ms)) {
        atomic_fetch_add(&gate->held_back, 1);
        return false;
    }
    *held_back = atomic_exchange(&gate->held_back, 0);
    return true;
}
