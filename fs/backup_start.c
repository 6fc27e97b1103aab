#include "fs/backup_start.h"

#include <stdlib.h>
#include <string.h>

#include "core/backup_facts.h"
#include "core/spool.h"
#include "fs/backups.h"

struct question {
    struct fs *fs;
    struct backup *b;
    struct backup_content *content; /* a reference */
    const struct member *m;
    char *text; /* m->size bytes */
};

static bool read_attempt(void *arg, const struct call *call, struct err *err)
{
    struct question *q = arg;
    struct partition *p = backup_partition(q->b, q->content, q->m->partition, err);
    struct partition_pin *pin = NULL;
    size_t got;
    int fd;
    bool ok = p != NULL &&
              partition_read(p, q->m->offset, (size_t)q->m->size, &fd, &got, &pin, call, err);
    if (ok && (got != q->m->size || spool_read(fd, q->text, got, q->m->offset, err) < 0))
        ok = err_set(err, ERR_CORRUPT, "%s breaks off", q->m->path);
    partition_done(pin);
    partition_close(p);
    return ok;
}

static bool parse(const struct question *q, struct backup_position *start, struct err *err)
{
    uint32_t segment_size;
    struct control_facts control;
    if (strcmp(q->m->path, "backup_label") == 0)
        return backup_label_parse(q->text, (size_t)q->m->size, start, &segment_size, NULL, 0, err);
    if (!control_parse(q->text, (size_t)q->m->size, &control, err))
        return false;
    *start = control.redo;
    return true;
}

static bool find(struct question *q, struct backup_position *start, const struct call *call,
                 struct err *err)
{
    const char *name = q->b->info.name;
    q->content = backup_await(q->fs, q->b, INT64_MAX, call, err);
    if (q->content == NULL)
        return false;
    q->m = backup_index_find(q->content->index, "backup_label");
    if (q->m == NULL)
        q->m = backup_index_find(q->content->index, "global/pg_control");
    if (q->m == NULL || q->m->type != MEMBER_FILE || q->m->size == 0 ||
        q->m->size > BACKUP_LABEL_MAX)
        return err_set(err, ERR_CORRUPT, "%s has neither backup_label nor global/pg_control", name);
    q->text = malloc((size_t)q->m->size);
    if (q->text == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok =
        persist(&q->fs->persistence, name, call, read_attempt, q, err) && parse(q, start, err);
    free(q->text);
    return ok;
}

bool backup_start(struct fs *fs, const char *name, struct backup_position *start,
                  const struct call *call, struct err *err)
{
    struct question q = {.fs = fs, .b = backup_open(fs->backup_set, name, call, err)};
    bool ok = q.b != NULL && find(&q, start, call, err);
    backup_content_unref(q.content);
    backup_unref(q.b);
    return ok;
}
