/* wal/ as a directory: looking up, listing, making, renaming. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

#define SHORTEST_PATIENCE_MS 200

/* A program that makes a file asks for its name twice in a row: stat, then open with O_CREAT. The
 * store's "no" to the first is taken for the second, by the same thread and right away: it costs
 * no more than a store that is slower by that much. What this mount has published since the
 * question ends it. */
#define ABSENCES 8u
#define ABSENCE_VALID_MS 20
struct absence {
    pid_t pid; /* 0: none */
    int64_t known_ms;
    uint64_t publishes; /* the directory's, before the store was asked */
    char name[WAL_NAME_MAX];
};

/* The directory's own data. */
struct wal_dir {
    pthread_mutex_t lock;
    struct absence absences[ABSENCES]; /* lock */
    unsigned next_absence;             /* lock */
    uint64_t publishes;                /* lock: how many there have been */
    struct node **kept; /* lock: nodes with a stage that outlives its writers; references */
    size_t kept_count;  /* lock */
};

static void *wal_dir_new_data(void)
{
    struct wal_dir *d = calloc(1, sizeof(*d));
    if (d != NULL)
        pthread_mutex_init(&d->lock, NULL);
    return d;
}

static void wal_dir_free_data(void *data)
{
    struct wal_dir *d = data;
    pthread_mutex_destroy(&d->lock);
    free(d->kept);
    free(d);
}

bool wal_dir_keep(struct fs *fs, struct node *node, struct err *err)
{
    struct wal_dir *d = fs->wal->data;
    bool ok = false;
    pthread_mutex_lock(&d->lock);
    size_t i = 0;
    while (i < d->kept_count && d->kept[i] != node)
        i++;
    struct node **kept = d->kept;
    if (i == d->kept_count)
        kept = realloc(d->kept, (d->kept_count + 1) * sizeof(*kept));
    if (kept != NULL) {
        d->kept = kept;
        if (i == d->kept_count)
            kept[d->kept_count++] = node_ref(fs->inodes, node);
        ok = true;
    }
    pthread_mutex_unlock(&d->lock);
    return ok || err_set(err, ERR_NO_MEMORY, "out of memory");
}

void wal_dir_unkeep(struct fs *fs, struct node *node)
{
    struct wal_dir *d = fs->wal->data;
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->kept_count && !found; i++) {
        if (d->kept[i] != node)
            continue;
        d->kept[i] = d->kept[--d->kept_count];
        found = true;
    }
    pthread_mutex_unlock(&d->lock);
    if (found)
        node_unref(fs->inodes, node);
}

size_t wal_dir_kept(struct fs *fs, struct node **out, size_t cap)
{
    struct wal_dir *d = fs->wal->data;
    size_t n = 0;
    pthread_mutex_lock(&d->lock);
    for (; n < d->kept_count && n < cap; n++)
        out[n] = node_ref(fs->inodes, d->kept[n]);
    pthread_mutex_unlock(&d->lock);
    return n;
}

/* ---- looking up ---- */

void wal_dir_published(struct fs *fs)
{
    struct wal_dir *d = fs->wal->data;
    pthread_mutex_lock(&d->lock);
    d->publishes++;
    pthread_mutex_unlock(&d->lock);
}

static uint64_t count_publishes(struct wal_dir *d)
{
    pthread_mutex_lock(&d->lock);
    uint64_t publishes = d->publishes;
    pthread_mutex_unlock(&d->lock);
    return publishes;
}

static void note_absence(struct wal_dir *d, const char *name, pid_t pid, uint64_t publishes)
{
    pthread_mutex_lock(&d->lock);
    struct absence *a = &d->absences[d->next_absence++ % ABSENCES];
    a->pid = pid;
    a->known_ms = now_ms();
    a->publishes = publishes;
    strcpy(a->name, name); /* one of PostgreSQL's names, far shorter */
    pthread_mutex_unlock(&d->lock);
}

/* Was NAME absent just now for this thread? True once. */
static bool take_absence(struct wal_dir *d, const char *name, pid_t pid)
{
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < ABSENCES && !found && pid != 0; i++) {
        struct absence *a = &d->absences[i];
        if (a->pid != pid || strcmp(a->name, name) != 0)
            continue;
        found = now_ms() - a->known_ms <= ABSENCE_VALID_MS && a->publishes == d->publishes;
        a->pid = 0;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}

/* A staged file is found by name on this host, whether its name is final or not. */
static struct node *find_staged(struct fs *fs, struct node *dir, const char *name)
{
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node == NULL)
        return NULL;
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    bool staged = file->stage != NULL;
    pthread_mutex_unlock(&file->lock);
    if (staged)
        return node;
    node_unref(fs->inodes, node);
    return NULL;
}

static struct node *obtain_published(struct fs *fs, struct node *dir, const char *name,
                                     const struct wal_stat *st, struct err *err)
{
    struct node *node = inode_obtain(fs->inodes, dir, name, &wal_file_template, err);
    if (node == NULL)
        return NULL;
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    file->published = true;
    file->size = st->size;
    file->mtime_s = st->mtime_s;
    file->waited_ms = 0;
    pthread_mutex_unlock(&file->lock);
    return node;
}

/* The store does not answer. On a mount that also writes, the caller may be an archive_command,
 * whose failure PostgreSQL waits for; nothing in the request tells. So after a while the answer is
 * "there may be such a file", for no time at all: a reader goes on waiting when it opens it, and a
 * writer comes to the close that fails within its deadline. */
static bool answer_maybe(struct fs *fs, struct node *dir, const char *name, int64_t waited_ms,
                         struct fs_entry *out, struct err *err)
{
    struct node *node = inode_obtain(fs->inodes, dir, name, &wal_file_template, err);
    if (node == NULL)
        return false;
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    file->waited_ms += waited_ms;
    pthread_mutex_unlock(&file->lock);
    wal_attr_fill(fs, node, fs->segment_size, time(NULL), out);
    out->valid_s = 0;
    node_add_lookup(fs->inodes, node);
    node_unref(fs->inodes, node);
    return true;
}

/* The store has answered: what was waited for it before is not held against the next writer. */
static void forget_waiting(struct fs *fs, struct node *dir, const char *name)
{
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node == NULL)
        return;
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    file->waited_ms = 0;
    pthread_mutex_unlock(&file->lock);
    node_unref(fs->inodes, node);
}

/* How long a lookup waits until it is answered "maybe": shared by all that one program makes. */
static int64_t patience_ms(struct fs *fs, struct node *dir, const char *name)
{
    int64_t ms = fs->opt.write_timeout_ms / 4;
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node != NULL) {
        struct wal_file *file = node->data;
        pthread_mutex_lock(&file->lock);
        ms -= file->waited_ms;
        pthread_mutex_unlock(&file->lock);
        node_unref(fs->inodes, node);
    }
    return ms > SHORTEST_PATIENCE_MS ? ms : SHORTEST_PATIENCE_MS;
}

static bool dir_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    struct node *node = find_staged(fs, dir, name);
    if (node == NULL) {
        if (wal_name_parse(name).kind == WAL_OTHER)
            return err_set(err, ERR_ABSENT, "wal/%s: no such file", name);
        if (wal_delete_waits(fs->wal_delete, name) || take_absence(dir->data, name, pid))
            return err_set(err, ERR_ABSENT, "wal/%s: no such file", name);
        struct wal_stat st;
        struct call bounded = *call;
        bool may_write = !fs->opt.read_only && fs->opt.hard;
        uint64_t publishes = count_publishes(dir->data);
        int64_t begun_ms = now_ms();
        if (may_write)
            bounded.deadline_ms = begun_ms + patience_ms(fs, dir, name);
        if (!wal_stat(fs, name, &st, &bounded, err)) {
            if (!err_transient(err->code))
                forget_waiting(fs, dir, name);
            if (err->code == ERR_ABSENT)
                note_absence(dir->data, name, pid, publishes);
            if (!may_write || !err_transient(err->code))
                return false;
            return answer_maybe(fs, dir, name, now_ms() - begun_ms, out, err);
        }
        node = obtain_published(fs, dir, name, &st, err);
        if (node == NULL)
            return false;
    }
    bool ok = wal_file_entry(fs, node, out, call, err);
    if (ok)
        node_add_lookup(fs->inodes, node);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- listing ---- */

static bool list_temporaries(struct fs *fs, struct dir *dir, struct err *err)
{
    struct wal_dir *d = dir->node->data;
    bool ok = true;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->kept_count && ok; i++) {
        char name[INODE_NAME_MAX + 1];
        node_name(fs->inodes, d->kept[i], name);
        if (name[0] != '\0' && wal_name_parse(name).kind == WAL_OTHER)
            ok = dir_add(dir, name, S_IFREG, NULL, 0, err);
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

struct page_question {
    struct fs *fs;
    struct store_list what;
    struct store_page page;
};

static bool page_attempt(void *arg, const struct call *call, struct err *err)
{
    struct page_question *q = arg;
    struct store *store = q->fs->opt.store;
    return store->ops->list(store, &q->what, &q->page, call, err);
}

/* Tries to have the archive's segment size known before segments are listed with it. */
static void learn_segment_size(struct fs *fs, const char *segment, const struct call *call)
{
    struct wal_stat st;
    struct err err = ERR_INIT;
    if (fs->segment_size == 0)
        (void)wal_stat(fs, segment, &st, call, &err);
}

static bool list_page(struct fs *fs, struct dir *dir, const struct store_page *page,
                      const struct call *call, struct err *err)
{
    bool asked = false; /* one object at most is fetched for a page */
    for (size_t i = 0; i < page->count; i++) {
        char name[WAL_NAME_MAX];
        const struct store_entry *e = &page->entries[i];
        if (e->is_prefix || !wal_name_of_key(e->key, name) || wal_delete_has(fs->wal_delete, name))
            continue;
        bool segment = wal_name_parse(name).kind == WAL_SEGMENT;
        if (segment && !asked)
            learn_segment_size(fs, name, call);
        asked = asked || segment;
        uint64_t size = fs->segment_size;
        if (!dir_add(dir, name, S_IFREG, segment && size != 0 ? &size : NULL, e->mtime_s, err))
            return false;
    }
    return true;
}

static bool dir_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    if (dir->token == NULL && !list_temporaries(fs, dir, err))
        return false;
    struct page_question q = {
        .fs = fs, .what = {.prefix = WAL_KEY_PREFIX, .delimiter = "/", .token = dir->token}};
    const struct call bounded = bounded_for_writers(fs, 4, call);
    if (!persist(&fs->persistence, "listing wal/", &bounded, page_attempt, &q, err))
        return false;
    bool ok = list_page(fs, dir, &q.page, &bounded, err);
    free(dir->token);
    dir->token = q.page.next;
    q.page.next = NULL;
    dir->done = !q.page.more;
    store_page_free(&q.page);
    return ok;
}

static bool entry_of_item(struct fs *fs, struct node *dir, const struct dir_item *item,
                          struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)call;
    const struct wal_stat st = {.size = item->size, .mtime_s = item->mtime_s};
    struct node *node = obtain_published(fs, dir, item->name, &st, err);
    if (node == NULL)
        return false;
    wal_attr_fill(fs, node, st.size, st.mtime_s, out);
    node_add_lookup(fs->inodes, node);
    node_unref(fs->inodes, node);
    return true;
}

/* ---- making ---- */

static bool dir_create(struct fs *fs, struct node *dir, const char *name, int flags, mode_t mode,
                       pid_t pid, struct fs_entry *out, struct handle **handle,
                       const struct call *call, struct err *err)
{
    (void)mode;
    struct stage *stage = NULL;
    struct backing_use backing = {.backing = NULL};
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "wal/%s: the mount is read-only", name);
    struct node *node = inode_obtain(fs->inodes, dir, name, &wal_file_template, err);
    if (node == NULL)
        return false;
    struct wal_file *file = node->data;
    bool ok = false;
    pthread_mutex_lock(&file->lock);
    bool taken = file->stage != NULL;
    pthread_mutex_unlock(&file->lock);
    if (taken && (flags & O_EXCL) != 0) {
        err_set(err, ERR_EXISTS, "wal/%s is being written by somebody else", name);
        goto out;
    }
    if (!wal_file_enter_writer(fs, node, &backing, err))
        goto out;
    stage = wal_new_stage(fs, file, name, err);
    if (stage == NULL)
        goto out;
    if (wal_name_parse(name).kind == WAL_OTHER) {
        if (!wal_dir_keep(fs, node, err))
            goto out;
        pthread_mutex_lock(&file->lock);
        file->temporary = file->kept = true;
        pthread_mutex_unlock(&file->lock);
    }
    *handle = wal_writer_new(fs, node, stage, &backing, pid, err);
    if (*handle == NULL)
        goto out;
    stage = NULL;
    backing = (struct backing_use){.backing = NULL};
    ok = wal_file_entry(fs, node, out, call, err);
    if (ok)
        node_add_lookup(fs->inodes, node);
    else
        (*handle)->ops->release(fs, *handle);
out:
    if (stage != NULL) {
        wal_drop_writer(file, stage);
        stage_unref(stage);
    }
    backing_leave(&fs->backing_kernel, &backing);
    node_unref(fs->inodes, node);
    return ok;
}

/* ---- unlinking ---- */

static bool unlink_archived(struct fs *fs, struct node *dir, const char *name,
                            const struct call *call, struct err *err)
{
    const struct call bounded = bounded_for_writers(fs, 4, call);
    if (!wal_delete_add(fs->wal_delete, name, &bounded, err))
        return false;
    fetcher_drop(fs->fetcher, name);
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node != NULL) {
        node_unlink(fs->inodes, node);
        wal_dir_unkeep(fs, node);
    }
    node_unref(fs->inodes, node);
    return true;
}

static bool dir_unlink(struct fs *fs, struct node *dir, const char *name, const struct call *call,
                       struct err *err)
{
    if (wal_name_parse(name).kind != WAL_OTHER)
        return unlink_archived(fs, dir, name, call, err);
    struct node *node = find_staged(fs, dir, name);
    if (node == NULL)
        return err_set(err, ERR_ABSENT, "wal/%s: no such file", name);
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    struct stage *stage = file->stage == NULL ? NULL : stage_ref(file->stage);
    file->kept = false;
    pthread_mutex_unlock(&file->lock);
    if (stage != NULL)
        stage_abandon(stage);
    node_unlink(fs->inodes, node);
    wal_dir_unkeep(fs, node);
    stage_unref(stage);
    node_unref(fs->inodes, node);
    return true;
}

/* ---- renaming ---- */

/* The content to publish under a new name: staged on this host, or a .partial's in the store. */
static struct stage *stage_to_rename(struct fs *fs, struct node *node, const char *name,
                                     const struct call *call, struct err *err)
{
    struct wal_file *file = node->data;
    pthread_mutex_lock(&file->lock);
    struct stage *stage = file->stage == NULL ? NULL : stage_ref(file->stage);
    pthread_mutex_unlock(&file->lock);
    if (stage != NULL)
        return stage;
    struct call bounded = *call;
    bounded.deadline_ms = now_ms() + fs->opt.write_timeout_ms;
    fetcher_drop(fs->fetcher, name); /* another host may have replaced it */
    struct plain *p = fetcher_get(fs->fetcher, name, &bounded, err);
    if (p == NULL)
        return NULL;
    stage = wal_stage_of_plain(fs, p, err);
    plain_unref(p);
    return stage;
}

/* NODE is now the archived file NAME; what was staged is not needed beyond its writers. */
static bool becomes_published(struct fs *fs, struct node *node, const char *name, uint64_t size,
                              struct err *err)
{
    struct wal_file *file = node->data;
    struct node *over = inode_find(fs->inodes, node->parent, name);
    bool ok = node_rename(fs->inodes, node, name, err);
    if (ok && over != NULL && over != node)
        wal_dir_unkeep(fs, over); /* a .partial without a name is of no use */
    node_unref(fs->inodes, over);
    if (!ok)
        return false;
    bool partial = wal_name_parse(name).kind == WAL_PARTIAL;
    struct stage *old = NULL;
    pthread_mutex_lock(&file->lock);
    wal_file_set_final(file, name);
    file->temporary = false;
    file->kept = partial;
    file->published = true;
    file->size = size;
    file->mtime_s = time(NULL);
    if (file->writers == 0 && !partial) {
        old = file->stage;
        file->stage = NULL;
    }
    pthread_mutex_unlock(&file->lock);
    if (!partial)
        wal_dir_unkeep(fs, node);
    stage_unref(old);
    return true;
}

static bool rename_to_final(struct fs *fs, struct node *node, const char *name,
                            const char *new_name, const struct call *call, struct err *err)
{
    struct stage *stage = stage_to_rename(fs, node, name, call, err);
    if (stage == NULL)
        return false;
    bool ok = wal_publish(fs, new_name, stage, 0, call, err);
    if (ok && wal_name_parse(name).kind == WAL_PARTIAL) {
        char key[STORE_KEY_MAX];
        const char *keys[] = {key};
        struct err gone = ERR_INIT;
        struct call bounded = *call;
        bounded.deadline_ms = now_ms() + fs->opt.write_timeout_ms;
        fetcher_drop(fs->fetcher, name);
        /* the whole segment is safe under its name; a .partial that stays behind does no harm */
        if (wal_key_of_name(name, key, sizeof(key)) &&
            !fs->opt.store->ops->remove(fs->opt.store, keys, 1, &bounded, &gone))
            log_warn("wal/%s was renamed, but the object of the old name stays: %s", name,
                     gone.text);
    }
    ok = ok && becomes_published(fs, node, new_name, stage_size(stage), err);
    stage_unref(stage);
    return ok;
}

static bool rename_temporary(struct fs *fs, struct node *dir, struct node *node,
                             const char *new_name, struct err *err)
{
    struct node *old = find_staged(fs, dir, new_name);
    if (!node_rename(fs->inodes, node, new_name, err)) {
        node_unref(fs->inodes, old);
        return false;
    }
    if (old != NULL && old != node)
        wal_dir_unkeep(fs, old);
    node_unref(fs->inodes, old);
    return true;
}

static bool target_exists(struct fs *fs, struct node *dir, const char *name,
                          const struct call *call, bool *exists, struct err *err)
{
    struct wal_stat st;
    struct node *staged = find_staged(fs, dir, name);
    *exists = staged != NULL;
    node_unref(fs->inodes, staged);
    if (*exists || wal_name_parse(name).kind == WAL_OTHER)
        return true;
    struct call bounded = *call;
    bounded.deadline_ms = now_ms() + fs->opt.write_timeout_ms;
    *exists = wal_stat(fs, name, &st, &bounded, err);
    return *exists || err->code == ERR_ABSENT;
}

static bool dir_rename(struct fs *fs, struct node *dir, const char *name, const char *new_name,
                       bool no_replace, const struct call *call, struct err *err)
{
    enum wal_kind kind = wal_name_parse(name).kind;
    enum wal_kind new_kind = wal_name_parse(new_name).kind;
    bool exists;
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "wal/%s: the mount is read-only", name);
    if (strcmp(name, new_name) == 0)
        return true;
    if (kind != WAL_OTHER && !(kind == WAL_PARTIAL && new_kind != WAL_OTHER))
        return err_set(err, ERR_DENIED, "wal/%s is archived: it keeps its name", name);
    if (no_replace) {
        if (!target_exists(fs, dir, new_name, call, &exists, err))
            return false;
        if (exists)
            return err_set(err, ERR_EXISTS, "wal/%s exists", new_name);
    }
    struct node *node = inode_find(fs->inodes, dir, name);
    if (node == NULL)
        return err_set(err, ERR_ABSENT, "wal/%s: no such file", name);
    bool ok = new_kind == WAL_OTHER ? rename_temporary(fs, dir, node, new_name, err)
                                    : rename_to_final(fs, node, name, new_name, call, err);
    node_unref(fs->inodes, node);
    return ok;
}

static const struct node_ops wal_dir_ops = {.getattr = fixed_dir_getattr,
                                            .lookup = dir_lookup,
                                            .list = dir_list,
                                            .entry_of_item = entry_of_item,
                                            .create = dir_create,
                                            .unlink = dir_unlink,
                                            .rename = dir_rename};

const struct node_template wal_dir_template = {
    .ops = &wal_dir_ops, .new_data = wal_dir_new_data, .free_data = wal_dir_free_data};
