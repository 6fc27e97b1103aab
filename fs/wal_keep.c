#include "fs/wal_keep.h"

#include <stdio.h>
#include <time.h>

#include "core/wal_check.h"
#include "fs/backup_start.h"
#include "fs/new_backup.h"

/* An incomplete backup to which nothing was added for so long has no writer any more. */
#define IDLE_S (24 * 3600)

bool wal_keep_writing(struct fs *fs, char label[INODE_NAME_MAX + 1])
{
    bool writing = false;
    pthread_mutex_lock(&fs->new_backups_lock);
    for (struct new_backup *nb = fs->new_backups; nb != NULL && !writing; nb = nb->next) {
        pthread_mutex_lock(&nb->lock);
        writing = !nb->failed; /* one that is committed stays until the catalog has it */
        pthread_mutex_unlock(&nb->lock);
        if (writing)
            (void)snprintf(label, INODE_NAME_MAX + 1, "%s", nb->label);
    }
    pthread_mutex_unlock(&fs->new_backups_lock);
    return writing;
}

static void lower(struct backup_position *from, struct backup_position start)
{
    if (from->tli == 0 || start.lsn < from->lsn)
        *from = start;
}

/* A backup whose own position is not known (WAL-E got some names wrong) is looked into. */
static bool add_complete(struct fs *fs, const struct backup_info *info,
                         struct backup_position *from, const struct call *call, struct err *err)
{
    struct backup_position start = info->start;
    if (!info->start_sure && !backup_start(fs, info->name, &start, call, err))
        return err_context(err, "where %s begins is not known, and so not which WAL it needs",
                           info->name);
    lower(from, start);
    return true;
}

struct idle {
    struct fs *fs;
    const char *name;
    int64_t last_s; /* when something was stored last; 0: there is nothing */
};

static bool ask_idle(void *arg, const struct call *call, struct err *err)
{
    struct idle *q = arg;
    struct backup_objects objects;
    if (!backup_objects_load(q->fs->opt.store, q->name, &objects, call, err))
        return false;
    for (size_t i = 0; i < objects.count; i++)
        if (objects.objects[i].mtime_s > q->last_s)
            q->last_s = objects.objects[i].mtime_s;
    backup_objects_free(&objects);
    return true;
}

static bool add_incomplete(struct fs *fs, const struct catalog_incomplete *i,
                           struct backup_position *from, const struct call *call, struct err *err)
{
    struct backup_position start;
    if (i->damaged)
        return err_set(err, ERR_DENIED,
                       "the sentinel of %s cannot be read, and so not which WAL that backup needs: "
                       "restore that object; status/summary has its name",
                       i->name);
    struct idle q = {.fs = fs, .name = i->name};
    if (!persist(&fs->persistence, i->name, call, ask_idle, &q, err))
        return false;
    if (time(NULL) - q.last_s > IDLE_S)
        return true;
    /* a size that is not known yet: the smallest, with which it begins earliest */
    uint32_t size = fs->segment_size != 0 ? fs->segment_size : WAL_SEGMENT_MIN;
    if (!backup_name_parse(i->name, size, &start))
        return err_set(err, ERR_BUSY,
                       "a base backup is being written (%s), and where it begins is not known yet: "
                       "try again later; if its writer is dead, remove it with rmdir",
                       i->name);
    lower(from, start);
    return true;
}

bool wal_keep_from(struct fs *fs, const struct catalog *c, struct backup_position *from,
                   const struct call *call, struct err *err)
{
    bool ok = true;
    *from = (struct backup_position){.tli = 0};
    for (size_t i = 0; ok && i < c->count; i++)
        ok = add_complete(fs, &c->backups[i].info, from, call, err);
    for (size_t i = 0; ok && i < c->incomplete_count; i++)
        ok = add_incomplete(fs, &c->incomplete[i], from, call, err);
    return ok;
}
