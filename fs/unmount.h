/* Takes a mount out of the tree at once, even while it is in use or its process is dead: by umount2
 * as root, else through fusermount3. Blocks while that runs. */
#ifndef WALEFS_FS_UNMOUNT_H
#define WALEFS_FS_UNMOUNT_H

#include "core/err.h"

bool unmount_lazily(const char *mountpoint, struct err *err);

#endif
