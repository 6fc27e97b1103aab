/* Renaming under dumps/: a copy within the store, or through this host where the store makes none,
 * verified; then the old name is removed. Whatever fails before that leaves the old name as it was,
 * and what fails after it leaves both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/object_copy.h"
#include "fs/dumps.h"

/* A directory with more files than this is not renamed: it would be half done for too long. */
#define DIR_FILES_MAX 1000u
/* A store may take longer over a larger copy than a rename may stand still, or refuse it. */
#define STORE_COPY_MAX (UINT64_C(1) << 30)

struct renaming {
    struct fs *fs;
    struct call call;
};

/* Unlike a reader, who renames does not wait for ever. */
static bool look(const struct renaming *r, const char *path, struct dump_stat *st, struct err *err)
{
    const struct call bounded = dump_bounded(r->fs, &r->call);
    return dump_stat(r->fs, path, st, &bounded, err);
}

static bool look_for_dir(const struct renaming *r, const char *path, bool *exists, struct err *err)
{
    const struct call bounded = dump_bounded(r->fs, &r->call);
    return dump_dir_exists(r->fs, path, exists, &bounded, err);
}

/* ---- objects ---- */

/* TO holds what FROM holds, as the store says, with its facts. */
static bool copy_object(struct renaming *r, const char *from, const char *to,
                        const struct dump_stat *st, struct dump_stat *copied, struct err *err)
{
    struct fs *fs = r->fs;
    struct store *store = fs->opt.store;
    struct store_info info, there;
    struct lzop_map map = LZOP_MAP_INIT;
    const struct object_copy copy = {.store = store,
                                     .pool = fs->opt.pool,
                                     .from = from,
                                     .to = to,
                                     .etag = st->facts.etag, /* nothing else gets these facts */
                                     .size = st->stored,
                                     .store_max = STORE_COPY_MAX,
                                     .stall_ms = fs->opt.write_timeout_ms,
                                     .call = &r->call};
    if (!object_copy(&copy, &info, err) || !store->ops->head(store, to, &there, &r->call, err))
        return false;
    if (there.size != st->stored || strcmp(there.etag, info.etag) != 0)
        return err_set(err, ERR_CORRUPT,
                       "the copy %s is not what %s is: both stay; remove the copy", to, from);
    *copied = *st;
    memcpy(copied->facts.etag, there.etag, sizeof(copied->facts.etag));
    copied->mtime_s = there.mtime_s;
    if (st->known) {
        char digest[DIGEST_TEXT_MAX];
        bool mapped = dump_facts_map(fs, from, &st->facts, &map, &r->call);
        bool summed = dump_facts_digest(fs, from, &st->facts, digest, &r->call);
        dump_facts_put(fs, to, &copied->facts, mapped ? &map : NULL, summed ? digest : NULL,
                       &r->call);
        lzop_map_free(&map);
    }
    dump_facts_drop(fs, to, copied->facts.etag, &r->call);
    return true;
}

/* Only what was copied: what another host has put there meanwhile stays. (Between the look and the
 * removal is the time of one request, which no store can close.) */
static bool remove_old(struct renaming *r, const char *key, const char *etag, struct err *err)
{
    struct store *store = r->fs->opt.store;
    struct store_info there;
    if (!store->ops->head(store, key, &there, &r->call, err)) {
        if (err->code == ERR_ABSENT)
            return true;
        return err_context(err, "it has its new name, and its old one too");
    }
    if (strcmp(there.etag, etag) != 0)
        return err_set(err, ERR_BUSY,
                       "%s was replaced while it was renamed: the new content stays under the old "
                       "name, the former has the new one",
                       key);
    if (!store->ops->remove(store, &key, 1, &r->call, err))
        return err_context(err, "it has its new name, and its old one too");
    dump_facts_drop(r->fs, key, NULL, &r->call);
    return true;
}

/* ---- files ---- */

static bool move_file(struct renaming *r, struct node *node, const char *path, struct node *new_dir,
                      const char *new_name, const char *new_path, struct err *err)
{
    struct fs *fs = r->fs;
    char from[STORE_KEY_MAX], to[STORE_KEY_MAX];
    struct dump_stat st, copied;
    return dump_key(path, from, err) && dump_key(new_path, to, err) && look(r, path, &st, err) &&
           copy_object(r, from, to, &st, &copied, err) && remove_old(r, from, st.facts.etag, err) &&
           (dump_set_published(node, &copied), node_move(fs->inodes, node, new_dir, new_name, err));
}

/* ---- directories ---- */

struct file_list {
    char *paths[DIR_FILES_MAX];     /* below the directory */
    char etags[DIR_FILES_MAX][128]; /* of what was copied */
    struct dump_stat copies[DIR_FILES_MAX];
    size_t count;
    size_t prefix_len; /* of the keys, before these paths */
};

static void file_list_free(struct file_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->paths[i]);
    free(l);
}

/* "dumps_005/DIR/a/b.lzo" to "a/b". */
static bool add_file(struct file_list *l, const char *key, struct err *err)
{
    size_t skip = l->prefix_len, len = strlen(key);
    if (len < skip + 5 || strcmp(key + len - 4, ".lzo") != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s is no dump, and would stay behind", key);
    if (l->count == DIR_FILES_MAX)
        return err_set(err, ERR_UNSUPPORTED,
                       "a directory of more than %u files is not renamed: make a new one, and move "
                       "the files",
                       DIR_FILES_MAX);
    char *path = strndup(key + skip, len - skip - 4);
    if (path == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    l->paths[l->count++] = path;
    return true;
}

static bool add_page(void *arg, const struct store_page *page, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < page->count; i++)
        ok = add_file(arg, page->entries[i].key, err);
    return ok;
}

static struct file_list *list_files(struct renaming *r, const char *path, struct err *err)
{
    char prefix[STORE_KEY_MAX];
    struct file_list *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    const struct store_list list = {.prefix = prefix};
    if (dump_dir_prefix(path, prefix, err)) {
        l->prefix_len = strlen(prefix);
        if (store_list_each(r->fs->opt.store, &list, add_page, l, &r->call, err))
            return l;
    }
    file_list_free(l);
    return NULL;
}

static bool keys_of(const char *dir, const char *file, char path[STORE_KEY_MAX],
                    char key[STORE_KEY_MAX], struct err *err)
{
    if (snprintf(path, STORE_KEY_MAX, "%s/%s", dir, file) >= STORE_KEY_MAX)
        return err_set(err, ERR_INVALID, "dumps/%.100s...: too long", dir);
    return dump_key(path, key, err);
}

/* All are copied before the first is removed. */
static bool move_files(struct renaming *r, struct file_list *l, const char *path,
                       const char *new_path, struct err *err)
{
    char old[STORE_KEY_MAX], new[STORE_KEY_MAX], from[STORE_KEY_MAX], to[STORE_KEY_MAX];
    bool ok = true;
    size_t copied = 0;
    for (; ok && copied < l->count; copied += ok) {
        struct dump_stat st;
        ok = keys_of(path, l->paths[copied], old, from, err) &&
             keys_of(new_path, l->paths[copied], new, to, err) && look(r, old, &st, err) &&
             copy_object(r, from, to, &st, &l->copies[copied], err);
        if (ok)
            memcpy(l->etags[copied], st.facts.etag, sizeof(l->etags[copied]));
    }
    for (size_t i = 0; !ok && i < copied; i++) { /* the new directory goes again */
        struct err ignored = ERR_INIT;
        if (keys_of(new_path, l->paths[i], new, to, &ignored) &&
            !remove_old(r, to, l->copies[i].facts.etag, &ignored))
            log_warn("dumps/%s: a copy stays behind: %s", new, ignored.text);
    }
    for (size_t i = 0; ok && i < l->count; i++)
        ok = keys_of(path, l->paths[i], old, from, err) && remove_old(r, from, l->etags[i], err);
    return ok;
}

/* The files that the kernel knows below DIR are the copies from now on. */
static void set_copies(struct fs *fs, struct node *dir, const struct file_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        struct node *at = node_ref(fs->inodes, dir);
        for (const char *part = l->paths[i]; at != NULL && *part != '\0';) {
            char name[DUMP_NAME_MAX + 1];
            size_t n = strcspn(part, "/");
            (void)snprintf(name, sizeof(name), "%.*s", (int)n, part);
            struct node *next = inode_find(fs->inodes, at, name);
            node_unref(fs->inodes, at);
            at = next;
            part += n + (part[n] == '/');
        }
        if (at != NULL && !dump_is_dir(at))
            dump_set_published(at, &l->copies[i]);
        node_unref(fs->inodes, at);
    }
}

static bool move_dir(struct renaming *r, struct node *node, const char *path, struct node *new_dir,
                     const char *new_name, const char *new_path, struct err *err)
{
    struct fs *fs = r->fs;
    bool exists;
    size_t n = strlen(path);
    if (strncmp(new_path, path, n) == 0 && new_path[n] == '/')
        return err_set(err, ERR_INVALID, "a directory cannot come to be in itself");
    if (!look_for_dir(r, new_path, &exists, err))
        return false;
    struct node *over = inode_find(fs->inodes, new_dir, new_name);
    struct file_list *l = NULL;
    if (exists || (over != NULL && dumps_has_kept(fs, over)))
        err_set(err, ERR_NOT_EMPTY, "dumps/%.200s is not empty", new_path);
    else
        l = list_files(r, path, err);
    if (l == NULL) {
        node_unref(fs->inodes, over);
        return false;
    }
    bool ok = move_files(r, l, path, new_path, err) && dumps_keep_dirs(fs, node, err) &&
              node_move(fs->inodes, node, new_dir, new_name, err);
    if (ok && over != NULL)
        dumps_unkeep(fs, over);
    if (ok)
        set_copies(fs, node, l);
    node_unref(fs->inodes, over);
    file_list_free(l);
    return ok;
}

/* ---- both ---- */

static bool check_target(struct renaming *r, struct node *new_dir, const char *new_name,
                         const char *new_path, bool is_dir, bool no_replace, struct err *err)
{
    struct fs *fs = r->fs;
    struct node *node = inode_find(fs->inodes, new_dir, new_name);
    bool exists = node != NULL && dumps_is_kept(fs, node); /* and is a directory: see the claims */
    node_unref(fs->inodes, node);
    struct dump_stat st;
    if (!exists && (no_replace || is_dir)) {
        exists = look(r, new_path, &st, err);
        if (!exists && err->code != ERR_ABSENT)
            return false;
        if (exists && is_dir)
            return err_set(err, ERR_EXISTS, "dumps/%.200s is a file", new_path);
        if (!exists && no_replace && !look_for_dir(r, new_path, &exists, err))
            return false;
    }
    return !exists || !no_replace || err_set(err, ERR_EXISTS, "dumps/%.200s exists", new_path);
}

static bool move_claimed(struct renaming *r, struct node *dir, const char *name,
                         struct node *new_dir, const char *new_name, const struct dump_claim *from,
                         const struct dump_claim *to, bool no_replace, struct err *err)
{
    struct fs *fs = r->fs;
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node == NULL)
        return err_set(err, ERR_ABSENT, "dumps/%.200s: no such file", from->path);
    bool is_dir = dump_is_dir(node);
    bool ok = check_target(r, new_dir, new_name, to->path, is_dir, no_replace, err) &&
              dumps_keep_dirs(fs, dir, err) &&
              (is_dir ? move_dir(r, node, from->path, new_dir, new_name, to->path, err)
                      : move_file(r, node, from->path, new_dir, new_name, to->path, err));
    node_unref(fs->inodes, node);
    return ok;
}

bool dump_move(struct fs *fs, struct node *dir, const char *name, struct node *new_dir,
               const char *new_name, bool no_replace, const struct call *call, struct err *err)
{
    struct dump_claim from, to;
    struct progress progress = {.limit_ms = fs->opt.write_timeout_ms, .last_ms = now_ms()};
    struct renaming r = {.fs = fs, .call = *call};
    r.call.progress = &progress;
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "the mount is read-only");
    if (!dump_child_path(fs, dir, name, from.path, err) ||
        !dump_child_path(fs, new_dir, new_name, to.path, err))
        return false;
    if (strcmp(from.path, to.path) == 0)
        return true;
    if (!dumps_claim_both(fs, &from, &to, err))
        return false;
    bool ok = move_claimed(&r, dir, name, new_dir, new_name, &from, &to, no_replace, err);
    dumps_end_claim(fs, &from);
    dumps_end_claim(fs, &to);
    return ok;
}
