#include "fs/errno.h"

#include <errno.h>

int fs_errno(const struct err *err)
{
    switch (err->code) {
    case ERR_ABSENT:
        return ENOENT;
    case ERR_EXISTS:
        return EEXIST;
    case ERR_FORBIDDEN:
    case ERR_KEY:
        return EACCES;
    case ERR_CANCELLED:
        return EINTR;
    case ERR_INVALID:
        return err->sys_errno == ENAMETOOLONG ? ENAMETOOLONG : EINVAL;
    case ERR_DENIED:
        return EPERM;
    case ERR_NO_SPACE:
        return err->sys_errno == EDQUOT ? EDQUOT : ENOSPC;
    case ERR_NO_MEMORY:
        return ENOMEM;
    case ERR_UNSUPPORTED:
        return EOPNOTSUPP;
    case ERR_BUSY:
        return EBUSY;
    case ERR_NOT_EMPTY:
        return ENOTEMPTY;
    case ERR_STALE:
        return ESTALE;
    case ERR_NO_ATTRIBUTE:
        return ENODATA;
    case ERR_NONE: /* a failure that forgot its reason: never success, never absence */
    case ERR_NO_BUCKET:
    case ERR_THROTTLED:
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_CORRUPT:
    case ERR_LOCAL:
    case ERR_FROZEN:
        return EIO;
    }
    return EIO;
}
