/* Attributes of the files of a complete backup. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/backups.h"
#include "fs/xattr.h"

bool backup_xattrs_of_sentinel(struct fs *fs, const struct backup *b, struct xattr_list *list,
                               const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX];
    const char *name = b->info.name;
    (void)snprintf(key, sizeof(key), BACKUP_PREFIX "%s" BACKUP_SENTINEL_SUFFIX, name);
    return xattr_add_object_persistently(fs, name, key, list, call, err);
}

bool backup_xattrs_of_partition(struct fs *fs, const struct backup *b,
                                const struct backup_content *c, size_t i, struct xattr_list *list,
                                const struct call *call, struct err *err)
{
    const struct backup_info *info = &b->info;
    const char *key = c->objects.objects[i].key;
    bool sums = info->partition_count == c->index->partition_count;
    return xattr_add_object_persistently(fs, info->name, key, list, call, err) &&
           (!sums || xattr_add(list, err, "checksum", "sha256:%s", info->partition_sha256[i]));
}

/* From the index alone. Hidden: cp -a and rsync -X, with which clusters are restored, would else
 * leave them on each of its files. */
bool backup_xattrs_of_member(const struct backup_content *c, const struct member *m,
                             struct xattr_list *list, struct err *err)
{
    const struct member *data = m == NULL ? NULL : backup_index_data_of(c->index, m);
    if (data == NULL)
        return true;
    const struct index_partition *p = &c->index->partitions[data->partition];
    list->hidden = true;
    return xattr_add(list, err, "key", "%s", c->objects.objects[data->partition].key) &&
           xattr_add(list, err, "etag", "%s", p->etag) &&
           xattr_add(list, err, "stored_size", "%" PRIu64, p->stored_size) &&
           xattr_add(list, err, "encrypted", "%s", p->encrypted ? "yes" : "no") &&
           xattr_add(list, err, "codec", "%s", p->encrypted ? "openpgp+lzop" : "lzop") &&
           xattr_add(list, err, "offset", "%" PRIu64, data->offset);
}
