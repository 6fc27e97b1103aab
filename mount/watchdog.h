/* Shows a service manager that the mount answers: a thread asks the mount itself, through the
 * kernel, and reports each answer. While the mount hangs, is gone from its place, or has another
 * one on top, nothing is reported, and the manager ends this process. */
#ifndef WALEFS_MOUNT_WATCHDOG_H
#define WALEFS_MOUNT_WATCHDOG_H

#include "core/err.h"
#include "mount/notify.h"

struct watchdog;

/* MOUNTPOINT and NOTIFY are borrowed. NOTIFY->watchdog_ms must not be 0. NULL with ERR when there
 * is no memory or thread. */
struct watchdog *watchdog_new(const struct notify *notify, const char *mountpoint, struct err *err);

/* The mount must have been given up, since the thread may be waiting for it. NULL is allowed. */
void watchdog_free(struct watchdog *w);

#endif
