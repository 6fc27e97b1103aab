#include "core/retry.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/metrics.h"
#include "core/outage.h"

static struct outage trouble = OUTAGE_INIT("the store answers again");

void retry_init(struct retry *r, unsigned max_tries)
{
    *r = (struct retry){.max_tries = max_tries, .base_ms = 100, .cap_ms = 5000};
}

uint32_t retry_delay_ms(const struct retry *r, uint32_t retry_after_ms, uint32_t random)
{
    uint64_t limit = r->base_ms;
    for (unsigned i = 1; i < r->tries && limit < r->cap_ms; i++)
        limit *= 2;
    if (limit > r->cap_ms)
        limit = r->cap_ms;
    uint32_t delay = (uint32_t)(random % (limit + 1));
    if (retry_after_ms > RETRY_AFTER_MAX_MS)
        retry_after_ms = RETRY_AFTER_MAX_MS;
    return delay > retry_after_ms ? delay : retry_after_ms;
}

static bool give_up(const struct retry *r, struct err *err)
{
    size_t len = strlen(err->text);
    if (r->tries > 1)
        (void)snprintf(err->text + len, sizeof(err->text) - len, " (tried %u times)", r->tries);
    return false;
}

void retry_not_needed(void)
{
    outage_over(&trouble, now_ms());
}

bool retry_again(struct retry *r, const struct call *call, struct err *err)
{
    r->tries++;
    if (cancel_fired(call->cancel))
        return err_set(err, ERR_CANCELLED, "interrupted");
    if (r->tries >= r->max_tries)
        return give_up(r, err);
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
        random = (uint32_t)now_ms();
    uint32_t delay = retry_delay_ms(r, err->retry_after_ms, random);
    if (delay >= call_left_ms(call))
        return give_up(r, err);
    /* the first word of trouble; who waits for long says so itself, where the request ends */
    const struct log_details details = {.err = err};
    outage_failure(&trouble, LOG_LEVEL_WARN, &details, "trying again");
    if (!cancel_sleep_ms(call->cancel, delay))
        return err_set(err, ERR_CANCELLED, "interrupted");
    metrics_add(COUNT_S3_RETRIES, 1);
    return true;
}
