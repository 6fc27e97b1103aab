#include "mount/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Microseconds for the process that WATCHDOG_PID names. */
static int64_t watchdog_from_environment(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    char *end;
    if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    errno = 0;
    long long value = strtoll(usec, &end, 10);
    return errno != 0 || *end != '\0' || end == usec || value <= 0 ? 0 : value / 1000 + 1;
}

/* An address that begins with "@" is in the abstract name space. */
static bool take_address(struct notify *n, const char *path)
{
    size_t len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || path[1] == '\0' || len >= sizeof(n->to.sun_path))
        return false;
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, path, len);
    n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (path[0] == '@')
        n->to.sun_path[0] = '\0';
    else
        n->to_len++; /* the NUL */
    return true;
}

void notify_open(struct notify *n)
{
    const char *path = getenv("NOTIFY_SOCKET");
    *n = (struct notify){.fd = -1};
    if (path != NULL && take_address(n, path))
        n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd >= 0)
        n->watchdog_ms = watchdog_from_environment();
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_send(const struct notify *n, const char *key, const char *value)
{
    char text[1024];
    if (n->fd < 0)
        return;
    int len = snprintf(text, sizeof(text), "%s=%.*s", key, (int)strcspn(value, "\n"), value);
    if (len < 0)
        return;
    size_t size = (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1;
    (void)sendto(n->fd, text, size, MSG_NOSIGNAL, (const struct sockaddr *)&n->to, n->to_len);
}

void notify_close(struct notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}
