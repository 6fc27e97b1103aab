/* status/incomplete: backups without a sentinel, or with one that cannot be read. */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "fs/status_file.h"

static void print_backup(FILE *out, const struct catalog_incomplete *left,
                         const struct backup_objects *o)
{
    int64_t first_s = INT64_MAX, last_s = 0, now_s = time(NULL);
    for (size_t i = 0; i < o->count; i++) {
        first_s = o->objects[i].mtime_s < first_s ? o->objects[i].mtime_s : first_s;
        last_s = o->objects[i].mtime_s > last_s ? o->objects[i].mtime_s : last_s;
    }
    fprintf(out, "%s\t%zu\t%" PRIu64 "\t", left->name, o->count, o->size);
    if (o->count == 0) { /* nothing but the sentinel */
        fputs("-\t-\t-", out);
    } else {
        status_time(out, first_s);
        fprintf(out, "\t%" PRId64 "\t%" PRId64, now_s - first_s, now_s - last_s);
    }
    fprintf(out, "\t%s\n", left->frozen ? "frozen" : left->damaged ? "unreadable" : "none");
}

static bool print_all(struct fs *fs, FILE *out, const struct call *call, struct err *err)
{
    struct catalog *c = backup_set_catalog(fs->backup_set, 0, call, err);
    bool ok = c != NULL;
    fputs("backup\tobjects\tbytes\tbegun\tage_s\tidle_s\tsentinel\n", out);
    for (size_t i = 0; ok && i < c->incomplete_count; i++) {
        struct backup_objects objects;
        const struct catalog_incomplete *left = &c->incomplete[i];
        ok = backup_objects_load(fs->opt.store, left->name, &objects, call, err);
        if (ok && (objects.count > 0 || left->damaged)) /* else it is gone meanwhile */
            print_backup(out, left, &objects);
        if (ok)
            backup_objects_free(&objects);
    }
    catalog_unref(c);
    return ok;
}

void *status_make_incomplete(void *fs, const struct call *call, struct err *err)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    if (out == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    bool ok = print_all(fs, out, call, err);
    if (fclose(out) != 0 && ok)
        ok = err_set(err, ERR_NO_MEMORY, "out of memory");
    if (ok)
        return text;
    free(text);
    return NULL;
}

void status_print_incomplete(FILE *out, const struct status_view *v)
{
    const struct survey_result *r = v->of[SOURCE_INCOMPLETE].result;
    if (r != NULL)
        fputs(r->data, out);
}
