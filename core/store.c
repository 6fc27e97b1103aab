#include "core/store.h"

#include <stdlib.h>
#include <string.h>

#include "core/store_key.h"

const char *store_meta_get(const struct store_info *info, const char *name)
{
    for (size_t i = 0; i < info->meta_count; i++) {
        if (strcmp(info->meta[i].name, name) == 0)
            return info->meta[i].value;
    }
    return NULL;
}

void store_page_free(struct store_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->entries[i].key);
    free(page->entries);
    free(page->next);
    *page = (struct store_page){.entries = NULL};
}

bool store_list_each(struct store *store, const struct store_list *list, store_page_fn *fn,
                     void *arg, const struct call *call, struct err *err)
{
    struct store_list what = *list;
    char *token = NULL;
    bool ok = true, more = true;
    while (ok && more) {
        struct store_page page = {.count = 0};
        what.token = token;
        ok = store->ops->list(store, &what, &page, call, err) && fn(arg, &page, err);
        free(token);
        token = page.next;
        page.next = NULL;
        more = page.more;
        store_page_free(&page);
    }
    free(token);
    return ok;
}

/* "." and ".." are legal in S3, but an HTTP proxy may resolve them and so leave the prefix. */
static bool is_dots(const char *part, size_t n)
{
    return (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.');
}

bool store_key_check(const char *key, size_t prefix_len, struct err *err)
{
    size_t len = strlen(key);
    if (len == 0 || key[0] == '/')
        return err_set(err, ERR_INVALID, "\"%.200s\" is not a key: it is empty or begins with /",
                       key);
    if (len + prefix_len > STORE_KEY_MAX)
        return err_set(err, ERR_INVALID, "key %.200s... is longer than %d bytes", key,
                       STORE_KEY_MAX);
    for (const char *part = key;;) {
        size_t n = strcspn(part, "/");
        if (is_dots(part, n))
            return err_set(err, ERR_INVALID, "key %.200s has a component . or ..", key);
        if (part[n] == '\0')
            return true;
        part += n + 1;
    }
}

const char *store_key_show(const char *key, char out[STORE_KEY_SHOWN])
{
    size_t len = strlen(key);
    if (len < STORE_KEY_SHOWN) {
        memcpy(out, key, len + 1);
        return out;
    }
    size_t half = (STORE_KEY_SHOWN - 4) / 2;
    memcpy(out, key, half);
    memcpy(out + half, "...", 3);
    memcpy(out + half + 3, key + len - half, half + 1);
    return out;
}

bool store_meta_name_ok(const char *name)
{
    if (strncmp(name, STORE_META_PREFIX, strlen(STORE_META_PREFIX)) != 0)
        return false;
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n < sizeof(((struct store_meta *)NULL)->name) && name[n] == '\0';
}

bool store_meta_check(const struct store_meta *meta, size_t n, struct err *err)
{
    if (n > STORE_META_MAX)
        return err_set(err, ERR_INVALID, "more than %d metadata of one object", STORE_META_MAX);
    for (size_t i = 0; i < n; i++) {
        bool ok = store_meta_name_ok(meta[i].name);
        for (const char *c = meta[i].value; *c != '\0'; c++)
            ok = ok && *c >= ' ' && *c <= '~';
        if (!ok)
            return err_set(err, ERR_INVALID, "metadata %s has a forbidden name or value",
                           meta[i].name);
    }
    return true;
}

void store_info_add_meta(struct store_info *info, const char *name, const char *value, size_t len)
{
    struct store_meta *m = &info->meta[info->meta_count];
    if (info->meta_count >= STORE_META_MAX || !store_meta_name_ok(name) || len >= sizeof(m->value))
        return;
    *m = (struct store_meta){.name = ""};
    memcpy(m->name, name, strlen(name));
    memcpy(m->value, value, len);
    info->meta_count++;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct store_entry *)a)->key, ((const struct store_entry *)b)->key);
}

void store_page_sort(struct store_page *page)
{
    if (page->count > 1)
        qsort(page->entries, page->count, sizeof(page->entries[0]), by_key);
}
