/* Telling a service manager how the mount is: systemd's sd_notify protocol, one datagram a message.
 * It is that small, and promised to stay as it is (sd_notify(3)), so that no library is used, which
 * every host that mounts would have to have. */
#ifndef WALEFS_MOUNT_NOTIFY_H
#define WALEFS_MOUNT_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1: nobody wants to know */
    struct sockaddr_un to;
    socklen_t to_len;
    int64_t watchdog_ms; /* "WATCHDOG=1" is wanted at least this often; 0: not at all */
};

/* From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which are removed: the programs that this one
 * starts are not to speak for it. Before there are threads. */
void notify_open(struct notify *n);

/* Any thread. KEY=VALUE; what stands behind the first line of VALUE is left out. A manager that
 * does not listen is no error. */
void notify_send(const struct notify *n, const char *key, const char *value);

void notify_close(struct notify *n);

#endif
