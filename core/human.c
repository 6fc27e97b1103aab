#include "core/human.h"

#include <inttypes.h>
#include <stdio.h>

void human_bytes(uint64_t bytes, char out[HUMAN_MAX])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double n = (double)bytes;
    size_t unit = 0;
    while (n >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        n /= 1024;
        unit++;
    }
    (void)snprintf(out, HUMAN_MAX, "%.*f %s", unit == 0 || n >= 100 ? 0 : 1, n, units[unit]);
}

void human_age(int64_t seconds, char out[HUMAN_MAX])
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "days"}, {3600, "hours"}, {60, "minutes"}};
    if (seconds < 0)
        seconds = 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (seconds >= 2 * units[i].seconds) {
            (void)snprintf(out, HUMAN_MAX, "%" PRId64 " %s", seconds / units[i].seconds,
                           units[i].unit);
            return;
        }
    (void)snprintf(out, HUMAN_MAX, "%" PRId64 " seconds", seconds);
}
