/* The WAL that a backup has inside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_wal.h"

#define SEGMENT_NAME 24u

bool backup_wal_may_be_inside(const struct backup_info *info, const struct wal_way *way)
{
    return info->by_walefs && way->within.count > 0;
}

/* ---- which are there ---- */

struct inside {
    const struct backup_index *index;
    uint32_t segment_size;
    bool sound; /* what is there was not changing while it was copied */
    char (*names)[SEGMENT_NAME + 1];
    size_t count, capacity;
};

/* The name below pg_wal (pg_xlog before PostgreSQL 10), or NULL. */
static const char *name_in(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && wal_name_parse(path + n).kind == WAL_SEGMENT ? path + n
                                                                                      : NULL;
}

/* PostgreSQL has noted that it was full: archived, or to be archived. */
static bool was_full(const struct inside *in, const char *path, const char *name)
{
    static const char *const notes[] = {"done", "ready"};
    char note[BACKUP_PATH_MAX];
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        (void)snprintf(note, sizeof(note), "%.*sarchive_status/%s.%s", (int)(name - path), path,
                       name, notes[i]);
        if (backup_index_find(in->index, note) != NULL)
            return true;
    }
    return false;
}

static bool note_member(struct inside *in, const struct member *m, struct err *err)
{
    const char *name = name_in(m->path, "pg_wal/");
    if (name == NULL)
        name = name_in(m->path, "pg_xlog/");
    if (name == NULL || (m->type != MEMBER_FILE && m->type != MEMBER_HARDLINK))
        return true;
    const struct member *data = backup_index_data_of(in->index, m);
    if (data == NULL || data->size != in->segment_size ||
        (!in->sound && !was_full(in, m->path, name)))
        return true;
    if (in->count == in->capacity) {
        size_t wanted = in->capacity == 0 ? 16 : in->capacity * 2;
        void *grown = reallocarray(in->names, wanted, sizeof(*in->names));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        in->names = grown;
        in->capacity = wanted;
    }
    (void)snprintf(in->names[in->count++], sizeof(*in->names), "%s", name);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool count_names(struct inside *in, struct wal_census *c, struct err *err)
{
    bool ok = true;
    if (in->count > 0)
        qsort(in->names, in->count, sizeof(*in->names), by_name);
    for (size_t i = 0; ok && i < in->count; i++) {
        struct wal_name n = wal_name_parse(in->names[i]);
        if (i == 0 || strcmp(in->names[i], in->names[i - 1]) != 0)
            ok = wal_census_add(c, &n, in->segment_size, 0, err);
    }
    return ok;
}

struct wal_census *backup_wal_of_index(const struct backup_index *index, uint32_t segment_size,
                                       struct err *err)
{
    struct inside in = {.index = index, .segment_size = segment_size};
    /* without a label it is of a cluster that was shut down */
    in.sound = backup_index_find(index, "backup_manifest") != NULL ||
               backup_index_find(index, "backup_label") == NULL;
    struct wal_census *c = wal_census_new(segment_size, err);
    bool ok = c != NULL;
    for (size_t i = 0; ok && i < index->count; i++)
        ok = note_member(&in, &index->members[i], err);
    ok = ok && count_names(&in, c, err);
    free(in.names);
    if (ok)
        return c;
    wal_census_free(c);
    return NULL;
}

struct wal_census *backup_wal_inside(const struct index_place *place, const char *name,
                                     uint32_t segment_size, const struct call *call,
                                     struct err *err)
{
    struct backup_objects objects;
    struct backup_index *index = NULL;
    struct wal_census *c = NULL;
    if (!backup_objects_load(place->store, name, &objects, call, err))
        return NULL;
    if (!index_stored_has(&objects, name))
        err_set(err, ERR_ABSENT, "it has no index");
    else
        index = index_fetch(place, name, call, err);
    if (index != NULL && !index_fits(index, &objects))
        err_set(err, ERR_ABSENT, "its index is not of the partitions that are there");
    else if (index != NULL)
        c = backup_wal_of_index(index, segment_size, err);
    backup_index_free(index);
    backup_objects_free(&objects);
    return c;
}

bool backup_wal_take_inside(struct wal_way *way, const struct wal_census *inside, struct err *err)
{
    struct wal_ranges left = {.of = NULL};
    bool ok = true;
    for (size_t i = 0; ok && i < way->within.count; i++)
        ok = wal_census_missing(inside, &way->within.of[i], &left, err);
    if (!ok) {
        wal_ranges_free(&left);
        return false;
    }
    wal_ranges_free(&way->within);
    way->within = left;
    return true;
}
