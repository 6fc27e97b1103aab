#include "fs/backup_tree.h"

#include <stdlib.h>
#include <string.h>

struct backup_tree {
    struct tree_entry *entries;
    size_t count, cap;
    struct path_slots paths; /* of entries */
    char **made;             /* paths of directories that no member names */
    size_t made_count;
};

static uint32_t *slot_of(const struct backup_tree *t, const char *path, size_t n)
{
    return path_slots_find(&t->paths, t->entries, path, n);
}

static uint32_t append(struct backup_tree *t, const char *path, const struct member *facts,
                       struct err *err)
{
    if (t->count == TREE_NONE || !path_slots_reserve(&t->paths, t->entries, t->count, err))
        return TREE_NONE;
    if (t->count == t->cap) {
        size_t cap = t->cap == 0 ? 256 : t->cap * 2;
        struct tree_entry *entries = realloc(t->entries, cap * sizeof(*entries));
        if (entries == NULL) {
            err_set(err, ERR_NO_MEMORY, "out of memory");
            return TREE_NONE;
        }
        t->entries = entries;
        t->cap = cap;
    }
    uint32_t place = (uint32_t)t->count++;
    t->entries[place] = (struct tree_entry){.path = path,
                                            .facts = facts,
                                            .first_child = TREE_NONE,
                                            .last_child = TREE_NONE,
                                            .next_sibling = TREE_NONE};
    *slot_of(t, path, strlen(path)) = place;
    return place;
}

static void link_child(struct backup_tree *t, uint32_t parent, uint32_t child)
{
    struct tree_entry *p = &t->entries[parent];
    if (p->last_child == TREE_NONE)
        p->first_child = child;
    else
        t->entries[p->last_child].next_sibling = child;
    p->last_child = child;
}

/* The directory above PATH[0..N), made with all that are above it. */
static uint32_t parent_of(struct backup_tree *t, const char *path, size_t n, struct err *err)
{
    while (n > 0 && path[n - 1] != '/')
        n--;
    if (n == 0)
        return 0;
    n--; /* the slash */
    uint32_t place = *slot_of(t, path, n);
    if (place != TREE_NONE)
        return place;
    uint32_t above = parent_of(t, path, n, err);
    if (above == TREE_NONE)
        return TREE_NONE;
    char **made = realloc(t->made, (t->made_count + 1) * sizeof(*made));
    if (made != NULL)
        t->made = made;
    char *copy = made == NULL ? NULL : strndup(path, n);
    if (copy == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return TREE_NONE;
    }
    t->made[t->made_count++] = copy;
    place = append(t, copy, NULL, err);
    if (place != TREE_NONE)
        link_child(t, above, place);
    return place;
}

static bool add_member(struct backup_tree *t, const struct member *m, struct err *err)
{
    size_t n = strlen(m->path);
    uint32_t place = *slot_of(t, m->path, n);
    if (place != TREE_NONE) { /* its children came first; or the root */
        if (m->type == MEMBER_DIR)
            t->entries[place].facts = m;
        return true; /* a file where others are below cannot be shown, and they can */
    }
    uint32_t parent = parent_of(t, m->path, n, err);
    if (parent == TREE_NONE)
        return false;
    if (!tree_entry_is_dir(&t->entries[parent]))
        return true; /* a name below a file: the file stays */
    place = append(t, m->path, m, err);
    if (place == TREE_NONE)
        return false;
    link_child(t, parent, place);
    return true;
}

struct backup_tree *backup_tree_new(const struct backup_index *index, struct err *err)
{
    struct backup_tree *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    t->paths = (struct path_slots)PATH_SLOTS_INIT(struct tree_entry);
    bool ok = path_slots_make(&t->paths, NULL, 0, index->count + 1, err) &&
              append(t, "", NULL, err) != TREE_NONE;
    for (size_t i = 0; ok && i < index->count; i++)
        ok = add_member(t, &index->members[i], err);
    if (ok)
        return t;
    backup_tree_free(t);
    return NULL;
}

void backup_tree_free(struct backup_tree *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->made_count; i++)
        free(t->made[i]);
    free(t->made);
    path_slots_free(&t->paths);
    free(t->entries);
    free(t);
}

const struct tree_entry *backup_tree_at(const struct backup_tree *t, uint32_t place)
{
    return &t->entries[place];
}

size_t backup_tree_count(const struct backup_tree *t)
{
    return t->count;
}

const char *tree_entry_name(const struct tree_entry *entry)
{
    const char *slash = strrchr(entry->path, '/');
    return slash == NULL ? entry->path : slash + 1;
}

bool tree_entry_is_dir(const struct tree_entry *entry)
{
    return entry->facts == NULL || entry->facts->type == MEMBER_DIR;
}

uint32_t backup_tree_find(const struct backup_tree *t, const char *path)
{
    return *slot_of(t, path, strlen(path));
}

uint32_t backup_tree_child(const struct backup_tree *t, uint32_t place, const char *name)
{
    const char *above = t->entries[place].path;
    if (above[0] == '\0')
        return *name == '\0' ? TREE_NONE : backup_tree_find(t, name);
    size_t n = strlen(above), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (path == NULL)
        return TREE_NONE;
    memcpy(path, above, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    uint32_t found = backup_tree_find(t, path);
    free(path);
    return found;
}
