#include "fs/status.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/backups.h"

/* How long a reader waits for the store. */
#define PATIENCE_MS 2000

enum { INCOMPLETE, FILES };

struct status {
    pthread_mutex_t lock;
    struct {
        char *text; /* lock: what was last made; NULL before */
        int64_t made_s;
    } last[FILES];
};

struct status *status_new(struct err *err)
{
    struct status *s = calloc(1, sizeof(*s));
    if (s == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else
        pthread_mutex_init(&s->lock, NULL);
    return s;
}

void status_free(struct status *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < FILES; i++)
        free(s->last[i].text);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void print_time(FILE *out, int64_t when_s)
{
    char text[32];
    struct tm tm;
    time_t t = (time_t)when_s;
    gmtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fputs(text, out);
}

/* ---- incomplete: backups without a sentinel ---- */

static void print_incomplete(FILE *out, const char *name, const struct backup_objects *o)
{
    int64_t first_s = INT64_MAX, last_s = 0, now_s = time(NULL);
    for (size_t i = 0; i < o->count; i++) {
        first_s = o->objects[i].mtime_s < first_s ? o->objects[i].mtime_s : first_s;
        last_s = o->objects[i].mtime_s > last_s ? o->objects[i].mtime_s : last_s;
    }
    fprintf(out, "%s\t%zu\t%" PRIu64 "\t", name, o->count, o->size);
    print_time(out, first_s);
    fprintf(out, "\t%" PRId64 "\t%" PRId64 "\n", now_s - first_s, now_s - last_s);
}

static bool make_incomplete(struct fs *fs, FILE *out, const struct call *call, struct err *err)
{
    struct catalog *c = backup_set_catalog(fs->backup_set, CATALOG_MAX_AGE_MS, call, err);
    bool ok = c != NULL;
    if (ok)
        fputs("backup\tobjects\tbytes\tbegun\tage_s\tidle_s\n", out);
    for (size_t i = 0; ok && i < c->incomplete_count; i++) {
        struct backup_objects objects;
        ok = backup_objects_load(fs->opt.store, c->incomplete[i].name, &objects, call, err);
        if (ok && objects.count > 0) /* else it is gone meanwhile, or is a sentinel only */
            print_incomplete(out, c->incomplete[i].name, &objects);
        if (ok)
            backup_objects_free(&objects);
    }
    catalog_unref(c);
    return ok;
}

/* ---- files ---- */

static const struct {
    const char *name;
    bool (*make)(struct fs *, FILE *out, const struct call *, struct err *);
} files[FILES] = {[INCOMPLETE] = {"incomplete", make_incomplete}};

static size_t place_of_name(const char *name)
{
    size_t i = 0;
    while (i < FILES && strcmp(files[i].name, name) != 0)
        i++;
    return i;
}

/* File I anew. NULL on failure. The caller frees it. */
static char *make_text(struct fs *fs, size_t i, const struct call *call, struct err *err)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    if (out == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    bool ok = files[i].make(fs, out, call, err);
    if (fclose(out) != 0 && ok)
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    if (ok)
        return text;
    free(text);
    return NULL;
}

/* What a reader gets: the age of the data, then the data. The caller frees it. */
static char *shown_text(struct fs *fs, size_t i, const struct call *call, struct err *err)
{
    struct status *s = fs->status;
    struct err why = ERR_INIT;
    struct call patient = *call;
    char *shown = NULL;
    size_t n;
    if (patient.deadline_ms > now_ms() + PATIENCE_MS)
        patient.deadline_ms = now_ms() + PATIENCE_MS;
    char *fresh = make_text(fs, i, &patient, &why);
    int64_t now_s = time(NULL);
    FILE *out = open_memstream(&shown, &n);
    if (out == NULL) {
        free(fresh);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_lock(&s->lock);
    if (fresh != NULL) {
        free(s->last[i].text);
        s->last[i].text = fresh;
        s->last[i].made_s = now_s;
    }
    if (s->last[i].text == NULL) {
        fprintf(out, "# not known yet: %s\n", why.text);
    } else {
        fputs("# as of ", out);
        print_time(out, s->last[i].made_s);
        if (fresh == NULL)
            fprintf(out, ", %" PRId64 " s ago: %s", now_s - s->last[i].made_s, why.text);
        fprintf(out, "\n%s", s->last[i].text);
    }
    pthread_mutex_unlock(&s->lock);
    if (fclose(out) == 0)
        return shown;
    free(shown);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

static bool file_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                         const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    attr_fill(fs, node, S_IFREG, 0, time(NULL), out);
    out->attr.st_mode = S_IFREG | 0400;
    out->valid_s = 0;
    return true;
}

static bool file_open(struct fs *fs, struct node *node, int flags, pid_t pid,
                      struct handle **handle, const struct call *call, struct err *err)
{
    char name[INODE_NAME_MAX + 1];
    (void)pid;
    node_name(fs->inodes, node, name);
    if ((flags & O_ACCMODE) != O_RDONLY)
        return err_set(err, ERR_DENIED, "status/%s can only be read", name);
    char *text = shown_text(fs, place_of_name(name), call, err);
    *handle = text == NULL ? NULL : backup_text_new(fs, node, text, strlen(text), err);
    free(text);
    return *handle != NULL;
}

static const struct node_ops file_ops = {.getattr = file_getattr, .open = file_open};
static const struct node_template file_template = {.ops = &file_ops};

/* ---- the directory ---- */

static bool dir_getattr(struct fs *fs, struct node *node, struct fs_entry *out,
                        const struct call *call, struct err *err)
{
    (void)call;
    (void)err;
    attr_fill(fs, node, S_IFDIR, 0, fs->started_s, out);
    out->attr.st_mode = S_IFDIR | 0500;
    out->valid_s = FIXED_VALID_S;
    return true;
}

static bool dir_lookup(struct fs *fs, struct node *dir, const char *name, pid_t pid,
                       struct fs_entry *out, const struct call *call, struct err *err)
{
    (void)pid;
    if (place_of_name(name) == FILES)
        return err_set(err, ERR_ABSENT, "status/%s: no such file", name);
    struct node *node = inode_obtain(fs->inodes, dir, name, &file_template, err);
    if (node == NULL)
        return false;
    bool ok = file_getattr(fs, node, out, call, err);
    node_add_lookup(fs->inodes, node);
    node_unref(fs->inodes, node);
    return ok;
}

static bool dir_list(struct fs *fs, struct dir *dir, const struct call *call, struct err *err)
{
    (void)fs;
    (void)call;
    dir->done = true;
    bool ok = true;
    for (size_t i = 0; ok && i < FILES; i++)
        ok = dir_add(dir, files[i].name, S_IFREG, NULL, 0, err);
    return ok;
}

static const struct node_ops dir_ops = {
    .getattr = dir_getattr, .lookup = dir_lookup, .list = dir_list};
const struct node_template status_dir_template = {.ops = &dir_ops};
