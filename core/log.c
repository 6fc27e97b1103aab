#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "core/log_ring.h"
#include "core/metrics.h"

#define LINE_MAX_BYTES 2048

static struct {
    unsigned targets;
    enum log_level max_level;
} logger = {LOG_TO_STDERR, LOG_LEVEL_INFO};

void log_setup(unsigned targets, int facility, enum log_level max_level)
{
    logger.targets = targets;
    logger.max_level = max_level;
    if ((targets & LOG_TO_SYSLOG) != 0)
        openlog("walefs", LOG_PID | LOG_NDELAY, facility);
}

bool log_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char ours[64];
    if (stream == NULL || fstat(STDERR_FILENO, &st) != 0)
        return false;
    (void)snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(stream, ours) == 0;
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

/* MESSAGE is escaped. */
static void send_line(enum log_level level, const char *message)
{
    char line[LINE_MAX_BYTES + 64];
    int n;
    if ((logger.targets & LOG_TO_SYSLOG) != 0)
        syslog(levels[level].priority, "%s", message);
    if ((logger.targets & LOG_TO_JOURNAL) != 0)
        n = snprintf(line, sizeof(line), "<%d>%s\n", levels[level].priority, message);
    else if ((logger.targets & LOG_TO_STDERR) != 0)
        n = snprintf(line, sizeof(line), "walefs: %s: %s\n", levels[level].name, message);
    else
        return;
    /* one write, so that lines of several threads do not mix */
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
}

static void remember(enum log_level level, const char *message)
{
    char line[LINE_MAX_BYTES + 64];
    enum log_class class = level == LOG_LEVEL_ERROR  ? LOG_CLASS_ERROR
                           : level == LOG_LEVEL_WARN ? LOG_CLASS_WARNING
                                                     : LOG_CLASS_OTHER;
    if (class != LOG_CLASS_OTHER)
        metrics_add(class == LOG_CLASS_ERROR ? COUNT_LOG_ERRORS : COUNT_LOG_WARNINGS, 1);
    int n = snprintf(line, sizeof(line), "%s: %s", levels[level].name, message);
    log_ring_add(class, line, (size_t)n, time(NULL));
}

/* Appends " key=value" to MESSAGE, as far as there is room. */
static void add_detail(char *message, const char *key, const char *value)
{
    size_t n = strlen(message);
    if (value == NULL || *value == '\0' || n + strlen(key) + 8 > LINE_MAX_BYTES)
        return;
    bool quoted = strpbrk(value, " \"\\=") != NULL;
    n += (size_t)snprintf(message + n, LINE_MAX_BYTES - n, " %s=%s", key, quoted ? "\"" : "");
    for (; *value != '\0' && n + 4 < LINE_MAX_BYTES; value++) {
        if (*value == '"' || *value == '\\')
            message[n++] = '\\';
        message[n++] = *value;
    }
    if (quoted)
        message[n++] = '"';
    message[n] = '\0';
}

static void log_message(enum log_level level, const struct log_details *details, const char *fmt,
                        va_list ap)
{
    char message[LINE_MAX_BYTES], escaped[LINE_MAX_BYTES];
    (void)vsnprintf(message, sizeof(message), fmt, ap);
    if (details != NULL) {
        const struct err *err = details->err;
        add_detail(message, "op", details->op);
        add_detail(message, "path", details->path);
        add_detail(message, "error", err == NULL ? NULL : err_name(err->code));
        add_detail(message, "code", err == NULL ? NULL : err->remote);
        add_detail(message, "request", err == NULL ? NULL : err->request);
    }
    escaped[escape(escaped, sizeof(escaped), message)] = '\0';
    send_line(level, escaped);
    remember(level, escaped);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    va_list ap;
    if (!log_enabled(level))
        return;
    va_start(ap, fmt);
    log_message(level, NULL, fmt, ap);
    va_end(ap);
}

void log_event(enum log_level level, const struct log_details *details, const char *fmt, ...)
{
    va_list ap;
    if (!log_enabled(level))
        return;
    va_start(ap, fmt);
    log_message(level, details, fmt, ap);
    va_end(ap);
}
