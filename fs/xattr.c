#include "fs/xattr.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX (16u * 1024u)
/* getfattr asks for the list and for each attribute, one after another. */
#define KEPT 8u
#define KEPT_MS 2000

struct xattr_cache {
    pthread_mutex_t lock;
    struct {
        uint64_t id; /* of the node; 0: none */
        int64_t asked_ms;
        struct xattr_list list;
    } kept[KEPT];  /* lock */
    unsigned next; /* lock */
};

struct xattr_cache *xattr_cache_new(struct err *err)
{
    struct xattr_cache *c = calloc(1, sizeof(*c));
    if (c == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        pthread_mutex_init(&c->lock, NULL);
    return c;
}

void xattr_cache_free(struct xattr_cache *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < KEPT; i++)
        buf_free(&c->kept[i].list.text);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void list_init(struct xattr_list *list)
{
    *list = (struct xattr_list){.text = BUF_INIT(LIST_MAX)};
}

static bool copy_list(struct xattr_list *to, const struct xattr_list *from)
{
    list_init(to);
    to->hidden = from->hidden;
    return buf_append(&to->text, from->text.data, from->text.len);
}

static bool find_kept(struct xattr_cache *c, uint64_t id, struct xattr_list *out)
{
    bool found = false;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < KEPT && !found; i++)
        if (c->kept[i].id == id && now_ms() - c->kept[i].asked_ms <= KEPT_MS)
            found = copy_list(out, &c->kept[i].list);
    pthread_mutex_unlock(&c->lock);
    return found;
}

static void keep(struct xattr_cache *c, uint64_t id, const struct xattr_list *list)
{
    struct xattr_list copy;
    if (!copy_list(&copy, list)) {
        buf_free(&copy.text);
        return;
    }
    pthread_mutex_lock(&c->lock);
    size_t i = 0;
    while (i < KEPT && c->kept[i].id != id)
        i++;
    if (i == KEPT)
        i = c->next++ % KEPT;
    struct xattr_list old = c->kept[i].list;
    c->kept[i].id = id;
    c->kept[i].asked_ms = now_ms();
    c->kept[i].list = copy;
    pthread_mutex_unlock(&c->lock);
    buf_free(&old.text);
}

bool xattr_add(struct xattr_list *list, struct err *err, const char *name, const char *fmt, ...)
{
    char value[STORE_KEY_MAX + 256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    if (buf_printf(&list->text, XATTR_PREFIX "%s", name) && buf_append(&list->text, "", 1) &&
        buf_puts(&list->text, value) && buf_append(&list->text, "", 1))
        return true;
    return err_set(err, ERR_NO_MEMORY, "out of memory");
}

/* ---- what the kernel asks ---- */

static bool all_of(struct fs *fs, uint64_t id, struct xattr_list *list, const struct call *call,
                   struct err *err)
{
    list_init(list);
    if (find_kept(fs->xattrs, id, list))
        return true;
    struct node *node = inode_get(fs->inodes, id);
    if (node == NULL)
        return err_set(err, ERR_STALE, "inode %llu is not known", (unsigned long long)id);
    bool has = node->ops->xattrs != NULL;
    bool ok = !has || node->ops->xattrs(fs, node, list, call, err);
    node_unref(fs->inodes, node);
    if (ok && list->text.len > 0)
        keep(fs->xattrs, id, list);
    return ok;
}

bool fs_listxattr(struct fs *fs, uint64_t id, struct buf *out, const struct call *call,
                  struct err *err)
{
    struct xattr_list list;
    bool ok = all_of(fs, id, &list, call, err);
    const char *p = buf_str(&list.text), *end = p + list.text.len;
    while (ok && !list.hidden && p < end) {
        size_t n = strlen(p) + 1;
        ok = buf_append(out, p, n) || err_set(err, ERR_NO_MEMORY, "out of memory");
        p += n;
        p += strlen(p) + 1;
    }
    buf_free(&list.text);
    return ok;
}

bool fs_getxattr(struct fs *fs, uint64_t id, const char *name, struct buf *out,
                 const struct call *call, struct err *err)
{
    struct xattr_list list;
    if (strncmp(name, "user.", 5) != 0)
        return err_set(err, ERR_UNSUPPORTED, "no attributes of the kind %s", name);
    if (strncmp(name, XATTR_PREFIX, sizeof(XATTR_PREFIX) - 1) != 0)
        return err_set(err, ERR_NO_ATTRIBUTE, "no attribute %s", name);
    bool ok = all_of(fs, id, &list, call, err), found = false;
    const char *p = buf_str(&list.text), *end = p + list.text.len;
    while (ok && !found && p < end) {
        found = strcmp(p, name) == 0;
        p += strlen(p) + 1;
        if (found)
            ok = buf_puts(out, p) || err_set(err, ERR_NO_MEMORY, "out of memory");
        p += strlen(p) + 1;
    }
    buf_free(&list.text);
    return ok && (found || err_set(err, ERR_NO_ATTRIBUTE, "no attribute %s", name));
}
