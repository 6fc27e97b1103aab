#include "core/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_text(struct err *e, enum err_code code, const char *fmt, va_list ap)
{
    e->code = code;
    e->sys_errno = 0;
    e->retry_after_ms = 0;
    e->remote[0] = e->request[0] = '\0';
    (void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
}

bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_text(e, code, fmt, ap);
    va_end(ap);
    return false;
}

static enum err_code code_of_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOMEM:
        return ERR_NO_MEMORY;
    default:
        return ERR_LOCAL;
    }
}

bool err_sys(struct err *e, int sys_errno, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_text(e, code_of_errno(sys_errno), fmt, ap);
    va_end(ap);
    e->sys_errno = sys_errno;
    size_t len = strlen(e->text);
    char reason[128];
    (void)snprintf(e->text + len, sizeof(e->text) - len, ": %s",
                   strerror_r(sys_errno, reason, sizeof(reason)));
    return false;
}

bool err_context(struct err *e, const char *fmt, ...)
{
    char cause[sizeof(e->text)];
    memcpy(cause, e->text, sizeof(cause));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len < sizeof(e->text))
        (void)snprintf(e->text + len, sizeof(e->text) - len, ": %s", cause);
    return false;
}

const char *err_name(enum err_code code)
{
    switch (code) {
    case ERR_NONE:
        return "none";
    case ERR_ABSENT:
        return "absent";
    case ERR_EXISTS:
        return "exists";
    case ERR_FORBIDDEN:
        return "forbidden";
    case ERR_NO_BUCKET:
        return "no bucket";
    case ERR_THROTTLED:
        return "throttled";
    case ERR_UNAVAILABLE:
        return "unavailable";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_CANCELLED:
        return "cancelled";
    case ERR_CORRUPT:
        return "corrupt";
    case ERR_KEY:
        return "key";
    case ERR_INVALID:
        return "invalid";
    case ERR_DENIED:
        return "denied";
    case ERR_NO_SPACE:
        return "no space";
    case ERR_NO_MEMORY:
        return "no memory";
    case ERR_LOCAL:
        return "local";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_STALE:
        return "stale";
    case ERR_BUSY:
        return "busy";
    case ERR_NOT_EMPTY:
        return "not empty";
    case ERR_FROZEN:
        return "frozen";
    case ERR_NO_ATTRIBUTE:
        return "no attribute";
    }
    return "unknown";
}

bool err_transient(enum err_code code)
{
    switch (code) {
    case ERR_FORBIDDEN:
    case ERR_NO_BUCKET:
    case ERR_THROTTLED:
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_KEY:
    case ERR_NO_SPACE:
    case ERR_NO_MEMORY:
    case ERR_LOCAL:
        return true;
    case ERR_NONE:
    case ERR_ABSENT:
    case ERR_EXISTS:
    case ERR_CANCELLED:
    case ERR_CORRUPT:
    case ERR_INVALID:
    case ERR_DENIED:
    case ERR_UNSUPPORTED:
    case ERR_STALE:
    case ERR_BUSY:
    case ERR_NOT_EMPTY:
    case ERR_FROZEN:
    case ERR_NO_ATTRIBUTE:
        return false;
    }
    return false;
}
