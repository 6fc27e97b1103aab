#include "fs/persist.h"

#include <stdio.h>

#include "core/outage.h"

#define FIRST_PAUSE_MS 200
#define LONGEST_PAUSE_MS 3000
#define LOG_EVERY_MS 10000

/* An attempt that takes longer is looked at, logged and made again: a fetch goes on meanwhile and
 * is joined, a small request that has hung is better sent anew. */
#define FIRST_ATTEMPT_MS 3000
#define LONGEST_ATTEMPT_MS 60000

/* Of all that wait. */
static struct outage outage = OUTAGE_INIT("the archive answers again");

static int64_t min_ms(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool persist(const struct persistence *p, const char *what, const struct call *call,
             persist_attempt *attempt, void *arg, struct err *err)
{
    int64_t begun_ms = now_ms(), next_log_ms = begun_ms;
    int64_t pause_ms = FIRST_PAUSE_MS, attempt_ms = FIRST_ATTEMPT_MS;
    struct call whole = *call;
    char waiting[256];
    bool said = false; /* in the log */
    if (!p->hard)
        whole.deadline_ms = min_ms(whole.deadline_ms, begun_ms + p->soft_timeout_ms);

    for (;;) {
        struct call once = whole;
        once.deadline_ms = min_ms(whole.deadline_ms, now_ms() + attempt_ms);
        if (attempt(arg, &once, err)) {
            outage_over(&outage, now_ms());
            if (said)
                log_info("%s: answered after waiting %lld s", what,
                         (long long)(now_ms() - begun_ms) / 1000);
            return true;
        }
        if (!err_transient(err->code))
            return false;
        if (cancel_fired(call->cancel))
            return err_set(err, ERR_CANCELLED, "%s: interrupted", what);
        int64_t left_ms = call_left_ms(&whole);
        if (left_ms == 0 && !p->hard)
            err->code = ERR_TIMEOUT; /* EIO, whatever it was waited for */
        if (left_ms == 0)
            return err_context(err, "%s: given up after %lld s", what,
                               (long long)(now_ms() - begun_ms) / 1000);
        if (now_ms() >= next_log_ms) {
            const struct log_details details = {.op = "wait", .path = what, .err = err};
            (void)snprintf(waiting, sizeof(waiting), "%s: waiting%s", what,
                           p->hard ? "" : " (soft)");
            said = outage_failure(&outage, LOG_LEVEL_WARN, &details, waiting) || said;
            next_log_ms = now_ms() + LOG_EVERY_MS;
        }
        if (!cancel_sleep_ms(call->cancel, min_ms(pause_ms, left_ms)))
            return err_set(err, ERR_CANCELLED, "%s: interrupted", what);
        pause_ms = min_ms(pause_ms * 2, LONGEST_PAUSE_MS);
        attempt_ms = min_ms(attempt_ms * 2, LONGEST_ATTEMPT_MS);
    }
}
