/* What went wrong, kept distinct from the place where it happens to the reply.
 *
 * A function that can fail returns bool (true: done) or a pointer (NULL: failed) and takes a
 * `struct err *` last, never NULL, which it fills on failure and leaves alone on success. errno
 * is chosen from it once, in fs/errno.c. A struct err is plain data: it owns nothing, may be
 * copied, and belongs to one thread at a time. */
#ifndef WALEFS_CORE_ERR_H
#define WALEFS_CORE_ERR_H

#include <stdbool.h>
#include <stdint.h>

enum err_code {
    ERR_NONE = 0,
    ERR_ABSENT,      /* the store itself said that there is no such object */
    ERR_EXISTS,      /* the name is taken, by other content or by a rival */
    ERR_FORBIDDEN,   /* credentials wrong, expired or without the right */
    ERR_NO_BUCKET,   /* bucket or archive directory missing: never the same as ERR_ABSENT */
    ERR_THROTTLED,   /* the store asks for less: 429, 503 SlowDown */
    ERR_UNAVAILABLE, /* no route, refused, reset, 5xx */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_CANCELLED,   /* the caller was interrupted or is shutting down */
    ERR_CORRUPT,     /* bytes that fail a checksum, a signature, a size or a parse */
    ERR_KEY,         /* an OpenPGP key is missing, locked, expired or unusable */
    ERR_INVALID,     /* what the caller asked for or wrote cannot be accepted */
    ERR_DENIED,      /* refused by walefs' own rules: read-only, deletion not allowed */
    ERR_NO_SPACE,    /* local disk, quota or the store is full */
    ERR_NO_MEMORY,
    ERR_LOCAL,        /* a local system call failed; sys_errno has the reason */
    ERR_UNSUPPORTED,  /* this store or this kind of file cannot do that */
    ERR_STALE,        /* this inode is not the one of that name any more: look the name up again */
    ERR_BUSY,         /* not now: somebody uses it, or it is past the moment */
    ERR_NOT_EMPTY,    /* a directory that still has something in it */
    ERR_FROZEN,       /* the object is in an archive storage class and must be restored first */
    ERR_NO_ATTRIBUTE, /* the file has no extended attribute of that name */
};
#define ERR_CODES (ERR_NO_ATTRIBUTE + 1) /* how many there are */

struct err {
    enum err_code code;
    int sys_errno; /* of a system call that failed, or that the error is to become; else 0 */
    uint32_t retry_after_ms; /* what the store asked for, 0 when it did not */
    char remote[64];         /* the store's own code for it ("SlowDown"), "" without one */
    char request[96];        /* the store's name for the request, "" without one */
    char text[640];          /* one line: what, on which object, why, what to do */
};

#define ERR_INIT         \
    {                    \
        .code = ERR_NONE \
    }

/* Fills E and returns false, so that a failing function can `return err_set(...)`. */
bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ERR_LOCAL (ENOSPC, EDQUOT: ERR_NO_SPACE; ENOMEM: ERR_NO_MEMORY) with strerror(SYS_ERRNO) added
 * to the text. Returns false. */
bool err_sys(struct err *e, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " before the text of an error that is already set. Returns false. */
bool err_context(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The code's name for logs and metrics ("absent", "forbidden"...). Static storage. */
const char *err_name(enum err_code code);

/* Whether trying again later can help without anything changing in the archive. True for all
 * that says nothing about the object: network, throttling, credentials, keys, local resources. */
bool err_transient(enum err_code code);

#endif
