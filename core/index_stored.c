#include "core/index_stored.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/spool.h"

#define INDEX_MAX_BYTES (UINT64_C(4) << 30)

void index_stored_key(const char *name, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s/tar_partitions/" BACKUP_INDEX_NAME, name);
}

bool index_stored_has(const struct backup_objects *objects, const char *name)
{
    char key[STORE_KEY_MAX];
    index_stored_key(name, key);
    for (size_t i = objects->partition_count; i < objects->count; i++)
        if (strcmp(objects->objects[i].key, key) == 0)
            return true;
    return false;
}

bool index_fits(const struct backup_index *index, const struct backup_objects *objects)
{
    if (index->partition_count != objects->partition_count)
        return false;
    for (size_t i = 0; i < index->partition_count; i++) {
        const struct index_partition *p = &index->partitions[i];
        const struct backup_object *o = &objects->objects[i];
        if (p->number != o->number || p->stored_size != o->size || strcmp(p->etag, o->etag) != 0)
            return false;
    }
    return true;
}

struct backup_index *index_decode(const struct index_place *place, struct source *body,
                                  const struct call *call, struct err *err)
{
    struct spool_result result;
    struct source *text = NULL;
    struct backup_index *index = NULL;
    int fd = spool_open(place->dir, err);
    if (fd < 0)
        return NULL;
    struct sink *out = spool_sink(fd, INDEX_MAX_BYTES, false, &result, err);
    if (out != NULL && codec_decode(place->pgp, body, out, OPENPGP_FOREGROUND, NULL, call, err))
        text = source_fd(fd, 0, result.size, err);
    if (text != NULL)
        index = backup_index_read(text, err);
    source_close(text);
    sink_close(out);
    close(fd);
    return index;
}

struct backup_index *index_fetch(const struct index_place *place, const char *name,
                                 const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX];
    struct store_info info;
    index_stored_key(name, key);
    struct source *body =
        place->store->ops->get(place->store, key, 0, UINT64_MAX, &info, call, err);
    struct backup_index *index = body == NULL ? NULL : index_decode(place, body, call, err);
    source_close(body);
    return index;
}
