/* Listing a directory tree as S3 lists keys: in byte order of the whole key. Below one directory
 * that is the order of the names with '/' added to those of directories ("a-b" comes before "a/").
 * So a depth-first walk yields sorted keys, each level holds only its own names, and a page ends
 * the walk early. A directory without any object is not a common prefix. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/store_file_impl.h"

#define PAGE_KEYS 1000
#define STALE_SECONDS (24 * 60 * 60)
#define STALE_LOOK_MS 10000

struct names {
    char **name; /* a directory's ends in '/' */
    size_t count, cap;
};

struct walk {
    const char *prefix;
    size_t prefix_len;
    const char *after; /* only keys behind it; "" for all */
    bool delimited;
    size_t max;
    struct store_page *page;
    size_t cap;
    bool full; /* one more entry was found than fits */
    const struct call *call;
};

static void names_free(struct names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->name[i]);
    free(n->name);
}

static bool names_add(struct names *n, const char *name, bool is_dir)
{
    if (n->count == n->cap) {
        size_t cap = n->cap == 0 ? 64 : 2 * n->cap;
        char **grown = realloc(n->name, cap * sizeof(*grown));
        if (grown == NULL)
            return false;
        n->name = grown;
        n->cap = cap;
    }
    char *copy = NULL;
    if (asprintf(&copy, "%s%s", name, is_dir ? "/" : "") < 0)
        return false;
    n->name[n->count++] = copy;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_temp(const char *name)
{
    return strncmp(name, FILE_TEMP_PREFIX, strlen(FILE_TEMP_PREFIX)) == 0;
}

/* False when what is there cannot be looked at; *THERE is false when it was removed meanwhile. */
static bool look(int dir_fd, const char *name, struct stat *st, bool *there, struct err *err)
{
    *there = fstatat(dir_fd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
    return *there || errno == ENOENT || errno == ENOTDIR ||
           err_sys(err, errno, "cannot look at %.200s in the archive", name);
}

/* Regular file: 'f', directory: 'd', else 0: links and devices are no objects. */
static bool kind_of(int dir_fd, const struct dirent *de, char *kind, struct err *err)
{
    struct stat st;
    bool there = false;
    *kind = de->d_type == DT_REG ? 'f' : de->d_type == DT_DIR ? 'd' : 0;
    if (de->d_type != DT_UNKNOWN)
        return true;
    if (!look(dir_fd, de->d_name, &st, &there, err))
        return false;
    if (there)
        *kind = S_ISREG(st.st_mode) ? 'f' : S_ISDIR(st.st_mode) ? 'd' : 0;
    return true;
}

static DIR *open_dir(int at_fd, const char *path)
{
    int fd = openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    DIR *dir = fdopendir(fd);
    if (dir == NULL)
        close(fd);
    return dir;
}

static bool read_names(DIR *dir, struct names *names, struct err *err)
{
    for (;;) {
        errno = 0;
        struct dirent *de = readdir(dir);
        if (de == NULL)
            return errno == 0 || err_sys(err, errno, "cannot read a directory of the archive");
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 || is_temp(de->d_name))
            continue;
        char kind;
        if (!kind_of(dirfd(dir), de, &kind, err))
            return false;
        if (kind != 0 && !names_add(names, de->d_name, kind == 'd'))
            return err_set(err, ERR_NO_MEMORY, "out of memory");
    }
}

/* Can a key that begins with DIR ("a/b/") be wanted? */
static bool dir_wanted(const struct walk *w, const char *dir, size_t len)
{
    size_t common = len < w->prefix_len ? len : w->prefix_len;
    if (strncmp(dir, w->prefix, common) != 0)
        return false;
    return strcmp(dir, w->after) > 0 || strncmp(dir, w->after, len) == 0;
}

static bool key_wanted(const struct walk *w, const char *key)
{
    return strncmp(key, w->prefix, w->prefix_len) == 0 && strcmp(key, w->after) > 0;
}

static bool add_entry(struct walk *w, const char *key, const struct stat *st, struct err *err)
{
    if (w->page->count == w->max) {
        w->full = true;
        return true;
    }
    if (w->page->count == w->cap) {
        size_t cap = w->cap == 0 ? 32 : 2 * w->cap;
        struct store_entry *grown = realloc(w->page->entries, cap * sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        w->page->entries = grown;
        w->cap = cap;
    }
    struct store_entry *e = &w->page->entries[w->page->count];
    *e = (struct store_entry){.key = strdup(key), .is_prefix = st == NULL};
    if (e->key == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    w->page->count++;
    if (st != NULL) {
        e->size = (uint64_t)st->st_size;
        e->mtime_s = st->st_mtim.tv_sec;
        file_etag(st, e->etag);
    }
    return true;
}

static bool walk_dir(struct walk *w, int at_fd, const char *name, const char *path,
                     struct err *err);

/* Whether anything below directory PATH is an object: a walk for one entry. */
static bool has_object(const struct walk *w, int at_fd, const char *name, const char *path,
                       bool *has, struct err *err)
{
    struct store_page page = {.entries = NULL};
    struct walk probe = {.prefix = path, .prefix_len = strlen(path), .after = "", .max = 0};
    probe.page = &page;
    probe.call = w->call;
    bool ok = walk_dir(&probe, at_fd, name, path, err);
    *has = probe.full;
    store_page_free(&page);
    return ok;
}

static bool visit(struct walk *w, int dir_fd, const char *name, const char *key, struct err *err)
{
    size_t len = strlen(key);
    if (key[len - 1] != '/') {
        struct stat st;
        bool there = false;
        if (!key_wanted(w, key))
            return true;
        if (!look(dir_fd, name, &st, &there, err))
            return false;
        return !there || add_entry(w, key, &st, err);
    }
    if (!dir_wanted(w, key, len))
        return true;
    if (w->delimited && len > w->prefix_len) {
        bool has = false;
        if (!key_wanted(w, key))
            return true;
        if (!has_object(w, dir_fd, name, key, &has, err))
            return false;
        return !has || add_entry(w, key, NULL, err);
    }
    return walk_dir(w, dir_fd, name, key, err);
}

/* PATH is NAME's key with its slash, "" for the base. */
static bool walk_dir(struct walk *w, int at_fd, const char *name, const char *path, struct err *err)
{
    if (!call_alive(w->call, "list", err))
        return false;
    DIR *dir = open_dir(at_fd, name);
    if (dir == NULL)
        return errno == ENOENT || errno == ENOTDIR ||
               err_sys(err, errno, "list %.200s: cannot open the directory", path);
    struct names names = {.name = NULL};
    bool ok = read_names(dir, &names, err);
    if (ok && names.count > 1)
        qsort(names.name, names.count, sizeof(names.name[0]), by_name);
    for (size_t i = 0; ok && !w->full && i < names.count; i++) {
        char key[STORE_KEY_MAX + 2];
        int n = snprintf(key, sizeof(key), "%s%s", path, names.name[i]);
        if (n < (int)sizeof(key))
            ok = visit(w, dirfd(dir), names.name[i], key, err);
    }
    names_free(&names);
    closedir(dir);
    return ok;
}

/* All of a page is behind its token, so that no page comes twice. */
static bool set_next(struct store_page *page, struct err *err)
{
    page->more = true;
    page->next = strdup(page->entries[page->count - 1].key);
    return page->next != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
}

bool file_list(struct store *store, const struct store_list *list, struct store_page *page,
               const struct call *call, struct err *err)
{
    struct store_file *sf = (struct store_file *)store;
    *page = (struct store_page){.entries = NULL};
    struct walk w = {.prefix = list->prefix,
                     .prefix_len = strlen(list->prefix),
                     .after = list->start_after != NULL ? list->start_after : "",
                     .delimited = list->delimiter != NULL,
                     .max = list->max_keys != 0 ? list->max_keys : PAGE_KEYS,
                     .page = page,
                     .call = call};
    if (list->token != NULL && strcmp(list->token, w.after) > 0)
        w.after = list->token;
    /* The walk starts in the deepest directory that the prefix names, which also keeps a prefix
     * with ".." in it from leaving the archive: store_key_check refuses that. */
    char dir[STORE_KEY_MAX + 2] = "";
    const char *slash = strrchr(list->prefix, '/');
    if (slash != NULL) {
        if (!store_key_check(list->prefix, 0, err))
            return false;
        memcpy(dir, list->prefix, (size_t)(slash - list->prefix) + 1);
        if (strstr(dir, "//") != NULL)
            return true;
    }
    int base_fd = file_open_base(sf, err);
    if (base_fd < 0)
        return false;
    bool ok = walk_dir(&w, base_fd, dir[0] == '\0' ? "." : dir, dir, err);
    close(base_fd);
    if (ok && w.full)
        ok = set_next(page, err);
    if (!ok)
        store_page_free(page);
    return ok;
}

static bool stale_dir(int at_fd, const char *name, unsigned depth, const struct call *call,
                      struct err *err)
{
    if (!call_alive(call, "looking for stale temporary files", err))
        return false;
    DIR *dir = depth > STORE_KEY_MAX / 2 ? NULL : open_dir(at_fd, name);
    if (dir == NULL)
        return true; /* what cannot be opened is not ours to clean up */
    bool ok = true;
    struct dirent *de;
    while (ok && (de = readdir(dir)) != NULL) {
        struct stat st;
        char kind;
        if (!kind_of(dirfd(dir), de, &kind, err))
            continue;
        if (kind == 'd' && strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
            ok = stale_dir(dirfd(dir), de->d_name, depth + 1, call, err);
        else if (kind == 'f' && is_temp(de->d_name) &&
                 fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                 st.st_mtim.tv_sec < time(NULL) - STALE_SECONDS)
            (void)unlinkat(dirfd(dir), de->d_name, 0);
    }
    closedir(dir);
    return ok;
}

void file_remove_stale(struct store_file *sf, const struct call *call)
{
    struct err err = ERR_INIT;
    struct call brief = *call;
    if (call_left_ms(call) > STALE_LOOK_MS)
        brief.deadline_ms = now_ms() + STALE_LOOK_MS;
    int base_fd = file_open_base(sf, &err);
    bool ok = base_fd >= 0 && stale_dir(base_fd, ".", 0, &brief, &err);
    if (base_fd >= 0)
        close(base_fd);
    if (!ok)
        log_debug("%s", err.text);
}
