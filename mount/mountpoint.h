/* The directory that is mounted on. */
#ifndef WALEFS_MOUNT_MOUNTPOINT_H
#define WALEFS_MOUNT_MOUNTPOINT_H

#include "core/err.h"

/* Makes sure that PATH can be mounted on: an empty directory, and no walefs there. The mount of a
 * walefs that has died is taken away. Returns its absolute path, which the caller frees; NULL with
 * what is wrong and what to do. /dev/fd/N is mounted already, by mount.fuse3 with drop_privileges,
 * which passes the /dev/fuse that it has opened: that descriptor is checked. */
char *mountpoint_prepare(const char *path, struct err *err);

bool mountpoint_is_descriptor(const char *path);

#endif
