/* The content of a file that is staged on this host: an anonymous file that stays open as long as
 * somebody uses it, so that no one ever reads or writes a descriptor that has become another's. */
#ifndef WALEFS_FS_STAGED_H
#define WALEFS_FS_STAGED_H

#include "core/err.h"

/* Reference-counted; any thread. */
struct staged {
    _Atomic unsigned refs;
    int fd;
};

/* Empty, in DIR; one reference. NULL with what spool_open says. */
struct staged *staged_new(const char *dir, struct err *err);
struct staged *staged_ref(struct staged *s);
/* The last one frees the space, which takes a while for a large file: not with a lock held. NULL is
 * allowed. */
void staged_unref(struct staged *s);

#endif
