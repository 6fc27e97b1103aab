/* The object store, as the rest of walefs sees it: keys below one prefix, whole objects.
 *
 * Two implementations pass the same tests (tests/unit/test_store.c): S3 (store_s3.c) and a
 * directory (store_file.c). All functions may be called from any thread, block, honour the call's
 * cancel at once and its deadline, and retry by themselves what is safe to retry, within the
 * store's own limits. What is left over is an error whose code keeps apart:
 *
 *   ERR_ABSENT      the store answered that this key does not exist (S3: NoSuchKey in a readable S3
 *                   error document; a bare 404 without one is ERR_UNAVAILABLE)
 *   ERR_NO_BUCKET   the bucket or base directory does not exist
 *   ERR_EXISTS      a create with only_if_absent found the key taken
 *   ERR_FORBIDDEN, ERR_THROTTLED, ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_CANCELLED, ERR_NO_SPACE,
 *   ERR_FROZEN, ERR_CORRUPT (a checksum or a reply that contradicts itself), ERR_INVALID
 *
 * Error texts name the key, and for S3 its error code, message and request id.
 * Keys are relative to the prefix, without a leading slash, at most 1024 bytes with the prefix,
 * never empty, without NUL. */
#ifndef WALEFS_CORE_STORE_H
#define WALEFS_CORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/call.h"
#include "core/err.h"
#include "core/stream.h"

struct store;

#define STORE_KEY_MAX 1024
#define STORE_META_MAX 8

/* User metadata of an object: names are lower case letters, digits and '-', values printable
 * ASCII. Names begin with "walefs-"; other metadata in the store is ignored. */
struct store_meta {
    char name[32];
    char value[224];
};

struct store_info {
    uint64_t size;          /* stored bytes */
    int64_t mtime_s;        /* when it was stored, seconds since 1970 */
    char etag[128];         /* identifies this content of this key; without the quotes */
    char storage_class[32]; /* "" when the store does not say */
    size_t meta_count;
    struct store_meta meta[STORE_META_MAX];
};

/* The value or NULL. Borrowed from INFO. */
const char *store_meta_get(const struct store_info *info, const char *name);

/* One listed object or, when is_prefix, one common prefix. Both relative to the store's prefix. */
struct store_entry {
    char *key;
    bool is_prefix;
    uint64_t size;
    int64_t mtime_s;
    char etag[128];
    char storage_class[32];
};

struct store_page {
    struct store_entry *entries; /* in byte order of their keys */
    size_t count;
    bool more;
    char *next; /* token for the next page when more */
};

void store_page_free(struct store_page *page); /* contents only; safe on a zeroed page */

/* The content of a put: either memory or a range of a file that is read with pread. Borrowed until
 * the call returns; must not change meanwhile (a retry reads it again). */
struct store_body {
    const void *mem; /* NULL: use fd */
    int fd;
    uint64_t offset;
    uint64_t size;
    const uint8_t *sha256; /* of exactly these bytes, 32 bytes; NULL: the store computes it */
};

struct store_put {
    struct store_body body;
    bool only_if_absent;
    const struct store_meta *meta;
    size_t meta_count;
};

struct store_list {
    const char *prefix;      /* "" for all */
    const char *delimiter;   /* NULL or "/" */
    const char *start_after; /* NULL or a key: only keys behind it */
    const char *token;       /* NULL, or page.next of the page before */
    unsigned max_keys;       /* 0: the store's own page size */
};

struct store_upload; /* a multipart upload under way; opaque, freed by complete or abort */

/* How far a store is looked at before it is used. */
enum store_check {
    STORE_CHECK_READ,  /* it is listed */
    STORE_CHECK_MOUNT, /* also written, and tidied up */
    STORE_CHECK_WRITE, /* written, not tidied up */
};

struct store_ops {
    /* Object facts, without the body. S3: a GET of the first byte, since a HEAD's 404 has no body
     * that could tell a missing key from a missing bucket or a foreign proxy. */
    bool (*head)(struct store *, const char *key, struct store_info *, const struct call *,
                 struct err *);

    /* Opens the body from OFFSET for at most LENGTH bytes (UINT64_MAX: to the end). Returns once
     * the store has answered, with INFO filled. Reading checks that all announced bytes arrive; a
     * connection that breaks is resumed by range as long as the ETag stays the same. The call is
     * borrowed until the source is closed. The source may be used by another thread than the one
     * that opened it, one at a time. A source that is not read on keeps its connection's place. */
    struct source *(*get)(struct store *, const char *key, uint64_t offset, uint64_t length,
                          struct store_info *, const struct call *, struct err *);

    /* Stores a whole object; true only when the store has acknowledged all of it with a matching
     * checksum. INFO (may be NULL) gets etag and size. The retry of a conditional put whose first
     * answer was lost may end in ERR_EXISTS because of itself: the caller compares contents. */
    bool (*put)(struct store *, const char *key, const struct store_put *, struct store_info *,
                const struct call *, struct err *);

    /* One page of keys. ERR_CORRUPT when it is the page again that the token was of: whoever asks
     * for the page after each page comes to an end. */
    bool (*list)(struct store *, const struct store_list *, struct store_page *,
                 const struct call *, struct err *);

    /* Deletes N keys (any N); absent ones count as deleted. On failure some may be gone. */
    bool (*remove)(struct store *, const char *const *keys, size_t n, const struct call *,
                   struct err *);

    /* Multipart: parts are numbered from 1, may be put in parallel from several threads, each but
     * the last at least 5 MiB. Nothing is visible before complete. complete and abort consume the
     * upload whatever they return; a complete that fails has aborted. */
    struct store_upload *(*upload_begin)(struct store *, const char *key,
                                         const struct store_put *meta_only, const struct call *,
                                         struct err *);
    bool (*upload_part)(struct store_upload *, unsigned number, const struct store_body *,
                        const struct call *, struct err *);
    bool (*upload_complete)(struct store_upload *, struct store_info *, const struct call *,
                            struct err *);
    void (*upload_abort)(struct store_upload *, const struct call *);

    /* Makes TO a copy of FROM, metadata included, without moving the bytes through this host where
     * the store can; TO may exist and is replaced. ETAG (NULL: any) is FROM's: ERR_STALE when it
     * has another one, or has got one meanwhile; a store that does not know such a condition may
     * have made a copy of that. ERR_UNSUPPORTED when this store does not copy this object. INFO
     * (may be NULL) gets TO's etag and size. */
    bool (*copy)(struct store *, const char *from, const char *to, const char *etag,
                 struct store_info *info, const struct call *, struct err *);

    /* Can the archive be reached with these credentials, and listed, and does the store say of what
     * is not there that it is not? Beyond STORE_CHECK_READ also:
     * can it be written, and does the store honour a conditional create (else *WEAK_GUARD is set)?
     * The probe leaves one small object, "walefs_probe". With STORE_CHECK_MOUNT, what mounts that
     * died more than a day ago have left of uploads is removed; an upload to which a part was added
     * since stays. Few retries: the answer is wanted soon. Error texts say what to do. */
    bool (*check)(struct store *, enum store_check, bool *weak_guard, const struct call *,
                  struct err *);

    /* By how many seconds the store's clock was ahead of this host's when it answered last; false
     * when it has no clock of its own, or has not answered. */
    bool (*clock)(struct store *, int64_t *ahead_s);

    /* Free and total bytes where the store knows them (a directory); false where it does not. */
    bool (*space)(struct store *, uint64_t *total_bytes, uint64_t *free_bytes);

    void (*free)(struct store *);
};

struct store {
    const struct store_ops *ops;
    char *url; /* for people: s3://bucket/prefix or file://localhost/dir; never a secret */
};

/* Lists what LIST says from its first page (token is not used) to the last, and gives each page to
 * FN, which borrows it; false from FN, with ERR set unless it has seen enough, ends the listing. */
typedef bool store_page_fn(void *arg, const struct store_page *page, struct err *err);
bool store_list_each(struct store *store, const struct store_list *list, store_page_fn *fn,
                     void *arg, const struct call *call, struct err *err);

#endif
