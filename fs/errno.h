/* The one place where an error becomes an errno. */
#ifndef WALEFS_FS_ERRNO_H
#define WALEFS_FS_ERRNO_H

#include "core/err.h"

/* A positive errno. ENOENT comes from ERR_ABSENT alone. */
int fs_errno(const struct err *err);

#endif
