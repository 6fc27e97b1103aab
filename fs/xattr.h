/* Extended attributes: user.walefs.NAME tell of the object behind a file. They are facts: nobody
 * sets or removes them.
 *
 * A kind of node gives them all at once (node_ops.xattrs); listing and getting one are made of that
 * here. What has just been asked of the store is kept for a moment, since a program asks for the
 * list, then for each. */
#ifndef WALEFS_FS_XATTR_H
#define WALEFS_FS_XATTR_H

#include "core/buf.h"
#include "fs/node.h"

#define XATTR_PREFIX "user.walefs."

struct xattr_list {
    struct buf text; /* "NAME\0VALUE\0"... */
    bool hidden;     /* can be got, but are not listed: what copies a tree with its attributes
                        would copy them too */
};

/* Adds user.walefs.NAME. */
bool xattr_add(struct xattr_list *list, struct err *err, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Asks the store about KEY, once, and adds what it says: key, etag, stored_size, storage_class,
 * encrypted, recipients, codec, and what of walefs' own metadata is there (checksum, size). An
 * object in an archive class, which cannot be read, has fewer. */
bool xattr_add_object(struct fs *fs, const char *key, struct xattr_list *list,
                      const struct call *call, struct err *err);

/* The same, persistently; WHAT names it in the log. */
bool xattr_add_object_persistently(struct fs *fs, const char *what, const char *key,
                                   struct xattr_list *list, const struct call *call,
                                   struct err *err);

struct xattr_cache;
struct xattr_cache *xattr_cache_new(struct err *err);
void xattr_cache_free(struct xattr_cache *cache); /* NULL is allowed */

#endif
