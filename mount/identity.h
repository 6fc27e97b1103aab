/* Running as another user, who may mount nothing: root is kept in reserve until the mount is made,
 * and then given up. All of it is for the main thread. Before identity_take, and where that had
 * nothing to do, everything else succeeds and does nothing.
 *
 * Only the thread that raises is root for a moment: work that other threads have begun, and what
 * they start, is the user's. */
#ifndef WALEFS_MOUNT_IDENTITY_H
#define WALEFS_MOUNT_IDENTITY_H

#include <stdbool.h>

#include "core/err.h"

/* USER (a name or a number) is who this process is for: its real ids, groups, HOME, USER and
 * LOGNAME become that user's. It stays root in effect, so that secrets which only root can read can
 * be read, until identity_lower. Before there are threads. ERR_INVALID: there is no such user, or
 * this is not root. Being USER already is fine. */
bool identity_take(const char *user, struct err *err);

/* From root to the user, and to root again. */
bool identity_lower(struct err *err);
bool identity_raise(struct err *err);

/* The whole process is the user for good. Fails if root could be had again. */
bool identity_settle(struct err *err);

#endif
