/* What an object tells of itself. */
#include <stdlib.h>
#include <string.h>

#include "core/lzop.h"
#include "core/openpgp_recipients.h"
#include "fs/wal.h"
#include "fs/xattr.h"

/* Enough for the session keys of a few recipients. */
#define HEAD_BYTES 4096u

static bool add_facts(const struct store_info *info, const char *key, struct xattr_list *list,
                      struct err *err)
{
    return xattr_add(list, err, "key", "%s", key) &&
           xattr_add(list, err, "etag", "%s", info->etag) &&
           xattr_add(list, err, "stored_size", "%llu", (unsigned long long)info->size) &&
           (info->storage_class[0] == '\0' ||
            xattr_add(list, err, "storage_class", "%s", info->storage_class));
}

static bool add_meta(const struct store_info *info, struct xattr_list *list, struct err *err)
{
    const char *checksum = store_meta_get(info, WAL_META_DIGEST);
    const char *size = store_meta_get(info, WAL_META_SIZE);
    return (checksum == NULL || xattr_add(list, err, "checksum", "%s", checksum)) &&
           (size == NULL || xattr_add(list, err, "size", "%s", size));
}

static bool add_coding(const char *head, size_t n, struct xattr_list *list, struct err *err)
{
    bool lzop = n >= LZOP_MAGIC_SIZE && lzop_is_magic(head, n);
    bool encrypted = !lzop && n > 0 && openpgp_is_message(head, n);
    struct buf recipients = BUF_INIT(1024);
    bool ok = xattr_add(list, err, "encrypted", "%s", encrypted ? "yes" : "no") &&
              xattr_add(list, err, "codec", "%s",
                        lzop        ? "lzop"
                        : encrypted ? "openpgp+lzop"
                                    : "none");
    if (ok && encrypted && openpgp_recipients(head, n, &recipients))
        ok = xattr_add(list, err, "recipients", "%s", buf_str(&recipients));
    buf_free(&recipients);
    return ok;
}

/* What a listing says of an object that cannot be read. */
static bool add_listed(struct fs *fs, const char *key, struct xattr_list *list,
                       const struct call *call, struct err *err)
{
    struct store *store = fs->opt.store;
    const struct store_list what = {.prefix = key, .max_keys = 1};
    struct store_page page = {.count = 0};
    struct store_info info = {.size = 0};
    if (!store->ops->list(store, &what, &page, call, err))
        return false;
    bool ok = page.count > 0 && strcmp(page.entries[0].key, key) == 0;
    if (ok) {
        info.size = page.entries[0].size;
        memcpy(info.etag, page.entries[0].etag, sizeof(info.etag));
        memcpy(info.storage_class, page.entries[0].storage_class, sizeof(info.storage_class));
    } else {
        err_set(err, ERR_ABSENT, "%s is not in the archive", key);
    }
    store_page_free(&page);
    return ok && add_facts(&info, key, list, err);
}

bool xattr_add_object(struct fs *fs, const char *key, struct xattr_list *list,
                      const struct call *call, struct err *err)
{
    struct store *store = fs->opt.store;
    struct store_info info;
    char head[HEAD_BYTES];
    struct source *body = store->ops->get(store, key, 0, HEAD_BYTES, &info, call, err);
    if (body == NULL)
        return err->code == ERR_FROZEN && add_listed(fs, key, list, call, err);
    ssize_t n = source_read_full(body, head, sizeof(head), err);
    source_close(body);
    return n >= 0 && add_facts(&info, key, list, err) && add_coding(head, (size_t)n, list, err) &&
           add_meta(&info, list, err);
}

struct question {
    struct fs *fs;
    const char *key;
    struct xattr_list *list;
};

static bool attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    q->list->text.len = 0; /* of an attempt that broke off */
    return xattr_add_object(q->fs, q->key, q->list, call, err);
}

bool xattr_add_object_persistently(struct fs *fs, const char *what, const char *key,
                                   struct xattr_list *list, const struct call *call,
                                   struct err *err)
{
    struct question q = {.fs = fs, .key = key, .list = list};
    return persist(&fs->persistence, what, call, attempt, &q, err);
}
