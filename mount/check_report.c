#include <inttypes.h>
#include <stdarg.h>

#include "mount/check_impl.h"

static const char *const words[] = {
    [CHECK_OK] = "ok", [CHECK_WARN] = "warn", [CHECK_UNKNOWN] = "unknown", [CHECK_FAIL] = "FAIL"};

void check_say(struct check *c, enum check_result result, const char *check, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (result > c->worst)
        c->worst = result;
    if (c->quiet && result == CHECK_OK)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?'; /* names come from the store */
    (void)fprintf(c->out, "%-7s %-11s %s\n", words[result], check, text);
    (void)fflush(c->out);
}

bool check_is_unknown(const struct err *err)
{
    switch (err->code) {
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_THROTTLED:
    case ERR_CANCELLED:
    case ERR_LOCAL:
    case ERR_NO_MEMORY:
    case ERR_NO_SPACE:
        return true;
    default:
        return false;
    }
}

static enum check_result result_of(const struct err *err)
{
    if (err->code == ERR_FROZEN)
        return CHECK_WARN; /* nothing is wrong with it */
    return check_is_unknown(err) ? CHECK_UNKNOWN : CHECK_FAIL;
}

void check_say_err(struct check *c, const char *check, const struct err *err)
{
    if (err->code == ERR_CANCELLED && cancel_fired(&c->cancel))
        c->worst = c->worst > CHECK_UNKNOWN ? c->worst : CHECK_UNKNOWN; /* who did it knows */
    else
        check_say(c, result_of(err), check, "%s", err->text);
}

int check_exit_status(const struct check *c)
{
    static const int status[] = {
        [CHECK_OK] = 0, [CHECK_WARN] = 1, [CHECK_UNKNOWN] = 3, [CHECK_FAIL] = 2};
    return status[c->worst];
}
