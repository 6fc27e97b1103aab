#include "core/outage.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "core/call.h"

/* So long without a failure, and the next one is a new outage: a store that fails now and then is
 * not reported anew each time. */
#define CALM_MS OUTAGE_LONGEST_MS

/* What failed for a shorter time without a success in between needs no last word. */
#define WORTH_A_WORD_MS 10000

/* With the lock held. */
static bool note(struct outage_code *c, int64_t at_ms, uint64_t *held_back)
{
    if (c->pause_ms == 0 || at_ms - c->last_ms > CALM_MS) {
        c->said = 0;
        c->pause_ms = OUTAGE_FIRST_MS;
    }
    if (!c->down) {
        c->since_ms = at_ms;
        c->held_back_in_all = 0;
        c->down = true;
    }
    c->last_ms = at_ms;
    bool first = c->said < OUTAGE_BURST;
    bool log = first || at_ms >= c->next_ms;
    *held_back = c->held_back;
    if (first)
        c->said++;
    else if (log)
        c->pause_ms = c->pause_ms < OUTAGE_LONGEST_MS / 2 ? c->pause_ms * 2 : OUTAGE_LONGEST_MS;
    if (log)
        c->next_ms = at_ms + c->pause_ms;
    c->held_back = log ? 0 : c->held_back + 1;
    c->held_back_in_all += !log;
    return log;
}

bool outage_log(struct outage *o, enum err_code code, int64_t at_ms, uint64_t *held_back)
{
    pthread_mutex_lock(&o->lock);
    bool log = note(&o->codes[code], at_ms, held_back);
    atomic_store(&o->down, true);
    pthread_mutex_unlock(&o->lock);
    return log;
}

void outage_over(struct outage *o, int64_t at_ms)
{
    if (!atomic_load_explicit(&o->down, memory_order_relaxed))
        return;
    int64_t lasted_ms = 0;
    uint64_t held_back = 0;
    pthread_mutex_lock(&o->lock);
    for (int i = 0; i < ERR_CODES; i++) {
        struct outage_code *c = &o->codes[i];
        if (c->down && c->last_ms - c->since_ms >= WORTH_A_WORD_MS) {
            lasted_ms = at_ms - c->since_ms > lasted_ms ? at_ms - c->since_ms : lasted_ms;
            held_back += c->held_back_in_all;
            c->held_back = 0;
        }
        c->down = false;
    }
    atomic_store(&o->down, false);
    pthread_mutex_unlock(&o->lock);
    if (lasted_ms > 0)
        log_info("%s after %" PRId64 " s; %" PRIu64 " messages like those above were held back",
                 o->over, lasted_ms / 1000, held_back);
}

bool outage_failure(struct outage *o, enum log_level level, const struct log_details *details,
                    const char *what)
{
    uint64_t held_back;
    if (!outage_log(o, details->err->code, now_ms(), &held_back))
        return false;
    if (held_back == 0)
        log_event(level, details, "%s: %s", what, details->err->text);
    else
        log_event(level, details, "%s: %s (%" PRIu64 " such messages were held back)", what,
                  details->err->text, held_back);
    return true;
}
