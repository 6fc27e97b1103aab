#include "fs/status.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/backups.h"
#include "fs/status_file.h"
#include "fs/wal_survey.h"

/* How long a reader waits for the store. */
#define PATIENCE_MS 2000
/* Who reads status/metrics, which is often, does not wait; lists are asked for anew this seldom. */
#define METRICS_AGE_MS 300000

struct status {
    struct survey *surveys[STATUS_SOURCES];
};

/* ---- what is asked of the store ---- */

static void *make_wal(void *arg, const struct call *call, struct err *err)
{
    return wal_survey(arg, call, err);
}

static void free_wal(void *data)
{
    wal_count_free(data);
}

static void *make_backups(void *arg, const struct call *call, struct err *err)
{
    struct fs *fs = arg;
    return backup_set_catalog(fs->backup_set, 0, call, err);
}

static void free_backups(void *data)
{
    catalog_unref(data);
}

static const struct {
    void *(*make)(void *arg, const struct call *call, struct err *err);
    void (*free_result)(void *);
} sources[STATUS_SOURCES] = {[SOURCE_WAL] = {make_wal, free_wal},
                             [SOURCE_BACKUPS] = {make_backups, free_backups},
                             [SOURCE_INCOMPLETE] = {status_make_incomplete, free}};

struct status *status_new(struct fs *fs, struct err *err)
{
    struct status *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < STATUS_SOURCES; i++) {
        const struct survey_options options = {.pool = fs->opt.pool,
                                               .arg = fs,
                                               .make = sources[i].make,
                                               .free_result = sources[i].free_result};
        s->surveys[i] = survey_new(&options, err);
        if (s->surveys[i] == NULL) {
            status_free(s);
            return NULL;
        }
    }
    return s;
}

void status_stop(struct status *s)
{
    for (size_t i = 0; s != NULL && i < STATUS_SOURCES; i++)
        survey_stop(s->surveys[i]);
}

void status_free(struct status *s)
{
    for (size_t i = 0; s != NULL && i < STATUS_SOURCES; i++)
        survey_free(s->surveys[i]);
    free(s);
}

/* ---- the files ---- */

#define BIT(source) (1u << (source))

static const struct {
    const char *name;
    void (*print)(FILE *out, const struct status_view *v);
    unsigned waits_for; /* sources */
    unsigned looks_at;  /* sources that are taken as they are */
    bool dated;         /* shows one source, whose age is its first line */
} files[] = {
    {"summary", status_print_summary, BIT(SOURCE_WAL) | BIT(SOURCE_BACKUPS), 0, false},
    {"backups", status_print_backups, BIT(SOURCE_BACKUPS), 0, true},
    {"wal", status_print_wal, BIT(SOURCE_WAL), 0, true},
    {"incomplete", status_print_incomplete, BIT(SOURCE_INCOMPLETE), 0, true},
    {"metrics", status_print_metrics, 0, BIT(SOURCE_WAL) | BIT(SOURCE_BACKUPS), false},
    {"config", status_print_config, 0, 0, false},
    {"log", status_print_log, 0, 0, false},
};
#define FILES (sizeof(files) / sizeof(files[0]))

static size_t place_of_name(const char *name)
{
    size_t i = 0;
    while (i < FILES && strcmp(files[i].name, name) != 0)
        i++;
    return i;
}

static void look(struct status_view *v, size_t file, const struct call *call)
{
    struct status *s = v->fs->status;
    struct call patient = *call;
    if (patient.deadline_ms > now_ms() + PATIENCE_MS)
        patient.deadline_ms = now_ms() + PATIENCE_MS;
    unsigned waits_for = files[file].waits_for;
    int64_t since_us = now_us();
    /* all at once, if there are several */
    for (size_t i = 0; i < STATUS_SOURCES && (waits_for & (waits_for - 1)) != 0; i++)
        if ((waits_for & BIT(i)) != 0)
            survey_result_unref(survey_peek(s->surveys[i], 0));
    for (size_t i = 0; i < STATUS_SOURCES; i++) {
        if ((waits_for & BIT(i)) != 0)
            v->of[i].result =
                survey_get(s->surveys[i], since_us, &v->of[i].stale, &patient, &v->of[i].why);
        else if ((files[file].looks_at & BIT(i)) != 0)
            v->of[i].result = survey_peek(s->surveys[i], METRICS_AGE_MS);
    }
}

static void print_age(FILE *out, const struct status_view *v, size_t file)
{
    for (size_t i = 0; i < STATUS_SOURCES; i++) {
        if ((files[file].waits_for & BIT(i)) == 0)
            continue;
        if (v->of[i].result == NULL) {
            fprintf(out, "# not known yet: %s\n", v->of[i].why.text);
            continue;
        }
        fputs("# as of ", out);
        status_as_of(out, v, (enum status_source)i);
        fputc('\n', out);
    }
}

/* The caller frees it. */
static char *make_text(struct fs *fs, size_t file, const struct call *call, struct err *err)
{
    struct status_view v = {.fs = fs};
    char *text = NULL;
    size_t n;
    look(&v, file, call);
    v.now_s = time(NULL);
    FILE *out = open_memstream(&text, &n);
    if (out != NULL && files[file].dated)
        print_age(out, &v, file);
    if (out != NULL)
        files[file].print(out, &v);
    for (size_t i = 0; i < STATUS_SOURCES; i++)
        survey_result_unref(v.of[i].result);
    if (out != NULL && fclose(out) == 0)
        return text;
    free(text);
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
    char *text = make_text(fs, place_of_name(name), call, err);
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
    bool ok = fixed_dir_getattr(fs, node, out, call, err);
    out->attr.st_mode = S_IFDIR | 0500;
    return ok;
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
