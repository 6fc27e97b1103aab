#include "core/log_ring.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 2048u

/* Each line is a header and its bytes; both may wrap around. */
struct line_header {
    int64_t when_s;
    uint64_t n;
};

static struct {
    pthread_mutex_t lock; /* guards all below */
    char bytes[LOG_RING_BYTES];
    size_t first, used;
    struct {
        int64_t minute;
        uint64_t count[LOG_CLASS_OTHER];
    } minutes[LOG_RING_MINUTES];
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- with the lock held ---- */

static size_t lower(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void put(const void *data, size_t n)
{
    size_t at = (ring.first + ring.used) % LOG_RING_BYTES;
    size_t before_end = lower(n, LOG_RING_BYTES - at);
    memcpy(ring.bytes + at, data, before_end);
    memcpy(ring.bytes, (const char *)data + before_end, n - before_end);
    ring.used += n;
}

static void get(size_t at, void *out, size_t n)
{
    at = (ring.first + at) % LOG_RING_BYTES;
    size_t before_end = lower(n, LOG_RING_BYTES - at);
    memcpy(out, ring.bytes + at, before_end);
    memcpy((char *)out + before_end, ring.bytes, n - before_end);
}

static void drop_oldest(void)
{
    struct line_header h;
    get(0, &h, sizeof(h));
    ring.first = (ring.first + sizeof(h) + h.n) % LOG_RING_BYTES;
    ring.used -= sizeof(h) + h.n;
}

static void count_line(enum log_class class, int64_t now_s)
{
    int64_t minute = now_s / 60;
    size_t i = (size_t)((uint64_t)minute % LOG_RING_MINUTES);
    if (class == LOG_CLASS_OTHER)
        return;
    if (ring.minutes[i].minute != minute) {
        memset(&ring.minutes[i], 0, sizeof(ring.minutes[i]));
        ring.minutes[i].minute = minute;
    }
    ring.minutes[i].count[class]++;
}

/* ---- */

void log_ring_add(enum log_class class, const char *line, size_t n, int64_t now_s)
{
    const struct line_header h = {.when_s = now_s, .n = n < LINE_MAX_BYTES ? n : LINE_MAX_BYTES};
    pthread_mutex_lock(&ring.lock);
    while (LOG_RING_BYTES - ring.used < sizeof(h) + h.n)
        drop_oldest();
    put(&h, sizeof(h));
    put(line, h.n);
    count_line(class, now_s);
    pthread_mutex_unlock(&ring.lock);
}

void log_ring_print(FILE *out)
{
    pthread_mutex_lock(&ring.lock);
    for (size_t at = 0; at < ring.used;) {
        struct line_header h;
        char line[LINE_MAX_BYTES], when[32];
        struct tm tm;
        get(at, &h, sizeof(h));
        get(at + sizeof(h), line, h.n);
        time_t t = (time_t)h.when_s;
        gmtime_r(&t, &tm);
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
        fprintf(out, "%s %.*s\n", when, (int)h.n, line);
        at += sizeof(h) + h.n;
    }
    pthread_mutex_unlock(&ring.lock);
}

uint64_t log_ring_last_hour(enum log_class class, int64_t now_s)
{
    uint64_t n = 0;
    pthread_mutex_lock(&ring.lock);
    for (size_t i = 0; i < LOG_RING_MINUTES; i++)
        if (ring.minutes[i].minute > now_s / 60 - (int64_t)LOG_RING_MINUTES)
            n += ring.minutes[i].count[class];
    pthread_mutex_unlock(&ring.lock);
    return n;
}
