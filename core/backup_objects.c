/* What lies below one backup's prefix, and deleting it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalog.h"

#define PART_PREFIX "part_"
#define PART_SUFFIX ".tar.lzo"

/* The N of tar_partitions/part_N.tar.lzo, UINT32_MAX for anything else. REST is what follows the
 * backup's name and a slash. */
static unsigned partition_number(const char *rest)
{
    static const char dir[] = "tar_partitions/" PART_PREFIX;
    if (strncmp(rest, dir, sizeof(dir) - 1) != 0)
        return UINT32_MAX;
    rest += sizeof(dir) - 1;
    size_t digits = strspn(rest, "0123456789");
    if (digits == 0 || digits > 20 || strcmp(rest + digits, PART_SUFFIX) != 0)
        return UINT32_MAX;
    unsigned long long n = strtoull(rest, NULL, 10);
    return n < UINT32_MAX ? (unsigned)n : UINT32_MAX;
}

struct loading {
    struct backup_objects *out;
    size_t prefix_len;
};

static bool add_page(void *arg, const struct store_page *page, struct err *err)
{
    const struct loading *l = arg;
    struct backup_objects *out = l->out;
    for (size_t i = 0; i < page->count; i++) {
        const struct store_entry *e = &page->entries[i];
        if (e->is_prefix)
            continue;
        if ((out->count & (out->count - 1)) == 0) { /* full at every power of two */
            size_t cap = out->count == 0 ? 1 : out->count * 2;
            struct backup_object *objects = realloc(out->objects, cap * sizeof(*objects));
            if (objects == NULL)
                return err_set(err, ERR_NO_MEMORY, "out of memory");
            out->objects = objects;
        }
        struct backup_object *o = &out->objects[out->count];
        *o = (struct backup_object){.key = strdup(e->key),
                                    .number = partition_number(e->key + l->prefix_len),
                                    .size = e->size,
                                    .mtime_s = e->mtime_s};
        if (o->key == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        strcpy(o->etag, e->etag);
        out->count++;
        out->partition_count += o->number != UINT32_MAX;
        out->size += o->size;
    }
    return true;
}

static int by_number(const void *a, const void *b)
{
    const struct backup_object *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return strcmp(x->key, y->key);
}

bool backup_objects_load(struct store *store, const char *name, struct backup_objects *out,
                         const struct call *call, struct err *err)
{
    char prefix[sizeof(BACKUP_PREFIX) + BACKUP_NAME_MAX + 1];
    memset(out, 0, sizeof(*out));
    (void)snprintf(prefix, sizeof(prefix), BACKUP_PREFIX "%.*s/", BACKUP_NAME_MAX - 1, name);
    const struct store_list what = {.prefix = prefix};
    struct loading l = {.out = out, .prefix_len = strlen(prefix)};
    if (!store_list_each(store, &what, add_page, &l, call, err)) {
        backup_objects_free(out);
        return false;
    }
    if (out->count > 1)
        qsort(out->objects, out->count, sizeof(*out->objects), by_number);
    return true;
}

void backup_objects_free(struct backup_objects *o)
{
    for (size_t i = 0; i < o->count; i++)
        free(o->objects[i].key);
    free(o->objects);
    memset(o, 0, sizeof(*o));
}

static bool delete_all(struct store *store, const struct backup_objects *objects,
                       const struct call *call, struct err *err)
{
    const char **keys = calloc(objects->count, sizeof(*keys));
    if (keys == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < objects->count; i++)
        keys[i] = objects->objects[i].key;
    bool ok = store->ops->remove(store, keys, objects->count, call, err);
    free(keys);
    return ok;
}

bool backup_delete(struct store *store, const char *name, const struct call *call, struct err *err)
{
    char sentinel[STORE_KEY_MAX];
    const char *first[] = {sentinel};
    if (!backup_name_parse(name, 0, NULL) && !backup_name_is_temporary(name))
        return err_set(err, ERR_INVALID, "%.80s: not a backup's name", name);
    (void)snprintf(sentinel, sizeof(sentinel), BACKUP_PREFIX "%s" BACKUP_SENTINEL_SUFFIX, name);
    if (!store->ops->remove(store, first, 1, call, err))
        return false;
    for (;;) { /* until the store says that nothing is left */
        struct backup_objects objects;
        if (!backup_objects_load(store, name, &objects, call, err))
            return false;
        bool done = objects.count == 0;
        bool ok = done || delete_all(store, &objects, call, err);
        backup_objects_free(&objects);
        if (done || !ok)
            return ok;
    }
}
