#include "fs/persist.h"

#include <stdlib.h>

#include "core/log.h"

#define FIRST_PAUSE_MS 200
#define LONGEST_PAUSE_MS 3000
#define LOG_EVERY_MS 10000

bool persist(const struct persistence *p, const char *what, const struct call *call,
             persist_attempt *attempt, void *arg, struct err *err)
{
    int64_t begun_ms = now_ms();
    int64_t pause_ms = FIRST_PAUSE_MS;
    int64_t next_log_ms = begun_ms;
    struct call bounded = *call;
    if (!p->hard && begun_ms + p->soft_timeout_ms < bounded.deadline_ms)
        bounded.deadline_ms = begun_ms + p->soft_timeout_ms;

    for (;;) {
        if (attempt(arg, &bounded, err)) {
            if (next_log_ms != begun_ms)
                log_info("%s: answered after waiting %lld s", what,
                         (long long)(now_ms() - begun_ms) / 1000);
            return true;
        }
        if (!err_transient(err->code))
            return false;
        if (cancel_fired(call->cancel))
            return err_set(err, ERR_CANCELLED, "%s: interrupted", what);
        int64_t left_ms = call_left_ms(&bounded);
        if (left_ms == 0)
            return err_context(err, "%s: given up after %lld s", what,
                               (long long)(now_ms() - begun_ms) / 1000);
        if (now_ms() >= next_log_ms) {
            log_warn("%s: waiting%s: %s", what, p->hard ? "" : " (soft)", err->text);
            next_log_ms = now_ms() + LOG_EVERY_MS;
        }
        if (!cancel_sleep_ms(call->cancel, pause_ms < left_ms ? pause_ms : left_ms))
            return err_set(err, ERR_CANCELLED, "%s: interrupted", what);
        pause_ms = pause_ms * 2 < LONGEST_PAUSE_MS ? pause_ms * 2 : LONGEST_PAUSE_MS;
    }
}
