/* Is a backup what its backup_manifest says? Compared before the commit: names, sizes and, where
 * the manifest has CRC-32C (pg_basebackup's default), the content as it went into the partitions.
 *
 * What a manifest does not have, or has otherwise, is as pg_verifybackup(1) has it: WAL, the
 * manifest itself, and the files that pg_basebackup -R makes and changes. */
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/crc32c.h"

/* ---- the sums of what passes ---- */

struct summing {
    struct source base;
    struct source *inner; /* borrowed */
    uint32_t crc;
};

static ssize_t summing_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct summing *s = (struct summing *)self;
    ssize_t got = s->inner->read(s->inner, buf, n, err);
    if (got > 0)
        s->crc = crc32c(s->crc, buf, (size_t)got);
    return got;
}

static void summing_close(struct source *self)
{
    (void)self;
}

static bool keep_sum(struct backup_write *w, const char *path, uint32_t crc, struct err *err)
{
    size_t at = (size_t)(backup_index_find(w->index, path) - w->index->members);
    if (at >= w->crc_cap) {
        size_t cap = w->crc_cap == 0 ? 1024 : w->crc_cap * 2;
        cap = cap > at ? cap : at + 1;
        uint32_t *more = realloc(w->crcs, cap * sizeof(*more));
        if (more == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        w->crcs = more;
        w->crc_cap = cap;
    }
    w->crcs[at] = crc;
    return true;
}

bool backup_write_put(struct backup_write *w, const struct member *m, struct source *data,
                      struct err *err)
{
    struct summing s = {.base = {.read = summing_read, .close = summing_close}, .inner = data};
    if (m->type != MEMBER_FILE)
        return backup_write_put_raw(w, m, data, err);
    return backup_write_put_raw(w, m, &s.base, err) && keep_sum(w, m->path, s.crc, err);
}

/* ---- comparing ---- */

struct comparison {
    struct backup_write *w;
    unsigned char *seen; /* of each member */
};

static bool is_one_of(const char *path, const char *const *names)
{
    while (*names != NULL && strcmp(path, *names) != 0)
        names++;
    return *names != NULL;
}

/* pg_basebackup -R makes or changes it. */
static bool is_changed_on_the_way(const char *path)
{
    static const char *const names[] = {"postgresql.auto.conf", "standby.signal", "recovery.signal",
                                        NULL};
    return is_one_of(path, names);
}

static bool is_never_listed(const char *path)
{
    static const char *const names[] = {"backup_manifest", NULL};
    return is_one_of(path, names) || strncmp(path, "pg_wal/", 7) == 0 ||
           is_changed_on_the_way(path);
}

static bool on_file(void *arg, const struct manifest_file *f, struct err *err)
{
    struct comparison *c = arg;
    char path[BACKUP_PATH_MAX];
    if (!backup_path_normalise(f->path, path, err))
        return false;
    const struct member *m = backup_index_find(c->w->index, path);
    if (is_never_listed(path))
        return true;
    if (m == NULL || m->type != MEMBER_FILE)
        return err_set(err, ERR_INVALID,
                       "%.300s is in backup_manifest, and has not been written: the backup is not "
                       "whole",
                       path);
    size_t at = (size_t)(m - c->w->index->members);
    c->seen[at] = 1;
    if (m->size != f->size)
        return err_set(
            err, ERR_INVALID,
            "%.300s has %llu bytes, and %llu in backup_manifest: the backup is not whole", path,
            (unsigned long long)m->size, (unsigned long long)f->size);
    if (f->has_crc && c->w->crcs[at] != f->crc)
        return err_set(err, ERR_INVALID,
                       "%.300s is not what backup_manifest has: its checksum is another", path);
    return true;
}

static bool nothing_else(const struct comparison *c, struct err *err)
{
    const struct backup_index *index = c->w->index;
    for (size_t i = 0; i < index->count; i++)
        if (index->members[i].type == MEMBER_FILE && c->seen[i] == 0 &&
            !is_never_listed(index->members[i].path))
            return err_set(err, ERR_INVALID,
                           "%.300s has been written, and is not in backup_manifest: the backup is "
                           "not what was sent",
                           index->members[i].path);
    return true;
}

bool backup_write_verify(struct backup_write *w, int fd, uint64_t size, struct err *err)
{
    if (!backup_write_usable(w, err) ||
        !backup_write_note(w, backup_write_check_cluster(w, err), err))
        return false;
    struct comparison c = {.w = w, .seen = calloc(w->index->count + 1, 1)};
    bool ok = c.seen != NULL ? manifest_each(fd, size, on_file, &c, err) && nothing_else(&c, err)
                             : err_set(err, ERR_NO_MEMORY, "out of memory");
    free(c.seen);
    return backup_write_note(w, ok, err);
}
