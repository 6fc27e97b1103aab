#include "core/backup_index.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (256u << 10)
#define COMPONENT_MAX 255u

struct index_arena {
    struct index_arena *next;
    size_t used, size;
    char bytes[];
};

/* ---- strings ---- */

static char *arena_take(struct backup_index *index, size_t n)
{
    struct index_arena *a = index->arena;
    if (a == NULL || a->size - a->used < n) {
        size_t size = n > ARENA_BYTES ? n : ARENA_BYTES;
        a = malloc(sizeof(*a) + size);
        if (a == NULL)
            return NULL;
        a->next = index->arena;
        a->used = 0;
        a->size = size;
        index->arena = a;
    }
    char *at = a->bytes + a->used;
    a->used += n;
    return at;
}

static const char *keep_string(struct backup_index *index, const char *s, size_t n)
{
    char *copy = arena_take(index, n + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

static uint32_t *slot_of(const struct backup_index *index, const char *path)
{
    return path_slots_find(&index->paths, index->members, path, strlen(path));
}

/* ---- making one ---- */

struct backup_index *backup_index_new(struct err *err)
{
    struct backup_index *index = calloc(1, sizeof(*index));
    if (index == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    index->paths = (struct path_slots)PATH_SLOTS_INIT(struct member);
    if (path_slots_make(&index->paths, NULL, 0, 0, err))
        return index;
    free(index);
    return NULL;
}

void backup_index_free(struct backup_index *index)
{
    if (index == NULL)
        return;
    while (index->arena != NULL) {
        struct index_arena *a = index->arena;
        index->arena = a->next;
        free(a);
    }
    for (size_t i = 0; i < index->partition_count; i++)
        lzop_map_free(&index->partitions[i].map);
    free(index->partitions);
    free(index->members);
    path_slots_free(&index->paths);
    free(index);
}

bool backup_path_normalise(const char *path, char out[BACKUP_PATH_MAX], struct err *err)
{
    size_t n = 0;
    if (path[0] == '/')
        return err_set(err, ERR_INVALID, "an absolute path: %.200s", path);
    while (*path != '\0') {
        size_t len = strcspn(path, "/");
        bool none = len == 0 || (len == 1 && path[0] == '.');
        if (len == 2 && path[0] == '.' && path[1] == '.')
            return err_set(err, ERR_INVALID, "a path that leads upwards");
        if (len > COMPONENT_MAX || n + len + 2 > BACKUP_PATH_MAX)
            return err_set(err, ERR_INVALID, "a name that is too long: %.200s", path);
        if (!none) {
            if (n > 0)
                out[n++] = '/';
            memcpy(out + n, path, len);
            n += len;
        }
        path += len;
        path += strspn(path, "/");
    }
    out[n] = '\0';
    return true;
}

static bool grow_members(struct backup_index *index, struct err *err)
{
    if (index->count >= UINT32_MAX - 1)
        return err_set(err, ERR_INVALID, "too many files for an index");
    if ((index->count & (index->count - 1)) != 0) /* full at every power of two */
        return true;
    size_t cap = index->count == 0 ? 1 : index->count * 2;
    struct member *members = realloc(index->members, cap * sizeof(*members));
    if (members == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    index->members = members;
    return path_slots_reserve(&index->paths, members, index->count, err);
}

bool backup_index_add(struct backup_index *index, const struct member *m, struct err *err)
{
    char path[BACKUP_PATH_MAX];
    if (!backup_path_normalise(m->path, path, err))
        return false;
    if (m->partition >= index->partition_count)
        return err_set(err, ERR_INVALID, "%s is in a partition that there is not", path);
    if (strlen(m->link) >= BACKUP_PATH_MAX)
        return err_set(err, ERR_INVALID, "%s: a link that is too long", path);
    uint32_t place = *slot_of(index, path);
    struct member copy = *m;
    copy.link = m->link[0] == '\0' ? "" : keep_string(index, m->link, strlen(m->link));
    if (copy.link == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (place != PATH_SLOTS_NONE) { /* what comes later counts */
        copy.path = index->members[place].path;
        index->members[place] = copy;
        return true;
    }
    copy.path = keep_string(index, path, strlen(path));
    if (copy.path == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (!grow_members(index, err))
        return false;
    *slot_of(index, copy.path) = (uint32_t)index->count;
    index->members[index->count++] = copy;
    return true;
}

bool backup_index_add_partition(struct backup_index *index, struct index_partition *p,
                                struct err *err)
{
    if ((index->partition_count & (index->partition_count - 1)) == 0) {
        size_t cap = index->partition_count == 0 ? 1 : index->partition_count * 2;
        struct index_partition *all = realloc(index->partitions, cap * sizeof(*all));
        if (all == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        index->partitions = all;
    }
    index->partitions[index->partition_count++] = *p;
    p->map = (struct lzop_map)LZOP_MAP_INIT;
    return true;
}

static int by_number(const void *a, const void *b)
{
    const struct index_partition *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static int by_place(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return strcmp(x->path, y->path);
}

bool backup_index_seal(struct backup_index *index, struct err *err)
{
    size_t n = index->partition_count;
    unsigned *numbers = malloc((n + 1) * sizeof(*numbers));
    uint32_t *now_at = malloc((n + 1) * sizeof(*now_at));
    bool ok = numbers != NULL && now_at != NULL;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; ok && i < n; i++)
        numbers[i] = index->partitions[i].number;
    if (ok && n > 1)
        qsort(index->partitions, n, sizeof(*index->partitions), by_number);
    for (size_t i = 0; ok && i + 1 < n; i++)
        ok = index->partitions[i].number != index->partitions[i + 1].number ||
             err_set(err, ERR_INVALID, "two partitions with the number %u",
                     index->partitions[i].number);
    for (size_t i = 0; ok && i < n; i++) {
        const struct index_partition key = {.number = numbers[i]};
        const struct index_partition *p =
            bsearch(&key, index->partitions, n, sizeof(*index->partitions), by_number);
        now_at[i] = (uint32_t)(p - index->partitions);
    }
    for (size_t i = 0; ok && i < index->count; i++)
        index->members[i].partition = now_at[index->members[i].partition];
    if (ok && index->count > 1)
        qsort(index->members, index->count, sizeof(*index->members), by_place);
    ok = ok && path_slots_make(&index->paths, index->members, index->count, index->count, err);
    free(numbers);
    free(now_at);
    return ok;
}

/* ---- asking it ---- */

const struct member *backup_index_find(const struct backup_index *index, const char *path)
{
    uint32_t place = *slot_of(index, path);
    return place == PATH_SLOTS_NONE ? NULL : &index->members[place];
}

const struct member *backup_index_data_of(const struct backup_index *index, const struct member *m)
{
    char path[BACKUP_PATH_MAX];
    struct err ignored = ERR_INIT;
    /* tar's hard links name an earlier member, which may be one itself where a writer was odd */
    for (unsigned hops = 0; m != NULL && m->type == MEMBER_HARDLINK && hops < 8; hops++)
        m = backup_path_normalise(m->link, path, &ignored) ? backup_index_find(index, path) : NULL;
    return m != NULL && m->type == MEMBER_FILE ? m : NULL;
}
