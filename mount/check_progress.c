#include <inttypes.h>
#include <string.h>

#include "mount/check_impl.h"

#define TTY_MS 200
#define LINE_MS 30000
#define BAR 24

void check_progress_init(struct check_progress *p, FILE *out, bool tty, uint64_t total)
{
    *p = (struct check_progress){
        .out = out, .tty = tty, .begun_ms = now_ms(), .said_ms = now_ms(), .total = total};
}

void check_progress_say(struct check_progress *p, uint64_t done, uint64_t objects, int64_t now_ms)
{
    if (p->out == NULL || now_ms - p->said_ms < (p->tty ? TTY_MS : LINE_MS))
        return;
    p->said_ms = now_ms;
    int64_t took_ms = now_ms > p->begun_ms ? now_ms - p->begun_ms : 1;
    double rate = (double)done * 1000.0 / (double)took_ms;
    double part = p->total == 0 ? 1 : (double)done / (double)p->total;
    part = part > 1 ? 1 : part;
    char done_text[32], total_text[32], rate_text[32], left[32] = "?";
    human_bytes(done, done_text);
    human_bytes(p->total, total_text);
    human_bytes((uint64_t)rate, rate_text);
    if (done > 0 && p->total >= done)
        human_age((int64_t)((double)(p->total - done) / rate), left);
    if (p->tty) {
        char bar[BAR + 1];
        memset(bar, ' ', BAR);
        memset(bar, '#', (size_t)(part * BAR));
        bar[BAR] = '\0';
        (void)fprintf(p->out, "\r[%s] %3.0f%%  %s of %s, %s/s, %s left\033[K", bar, part * 100,
                      done_text, total_text, rate_text, left);
    } else {
        (void)fprintf(p->out,
                      "walefs check: %" PRIu64 " objects, %s of %s (%.0f%%), %s/s, %s left\n",
                      objects, done_text, total_text, part * 100, rate_text, left);
    }
    (void)fflush(p->out);
}

void check_progress_end(struct check_progress *p)
{
    if (p->out == NULL || !p->tty)
        return;
    (void)fputs("\r\033[K", p->out);
    (void)fflush(p->out);
}
