/* The directory tree that a backup's index describes. Immutable; any thread.
 *
 * Children stand in the order in which their data first appears in the partitions, so that a walk
 * through the tree, directory by directory, reads the partitions from front to back. */
#ifndef WALEFS_FS_BACKUP_TREE_H
#define WALEFS_FS_BACKUP_TREE_H

#include "core/backup_index.h"

#define TREE_NONE PATH_SLOTS_NONE

/* One name in the tree. Place 0 is the root. */
struct tree_entry {
    const char *path;           /* from the root, "" for it; borrowed from the index or the tree */
    const struct member *facts; /* NULL: a directory that no member names */
    uint32_t first_child, last_child, next_sibling; /* places; TREE_NONE for none */
};

struct backup_tree;

/* INDEX is sealed, borrowed, and outlives the tree. NULL without memory. */
struct backup_tree *backup_tree_new(const struct backup_index *index, struct err *err);
void backup_tree_free(struct backup_tree *tree); /* NULL is allowed */

const struct tree_entry *backup_tree_at(const struct backup_tree *tree, uint32_t place);
size_t backup_tree_count(const struct backup_tree *tree);

/* The last component of an entry's path. */
const char *tree_entry_name(const struct tree_entry *entry);
bool tree_entry_is_dir(const struct tree_entry *entry);

/* The place of PATH, TREE_NONE when there is none. */
uint32_t backup_tree_find(const struct backup_tree *tree, const char *path);
/* The place of NAME in the directory at PLACE. */
uint32_t backup_tree_child(const struct backup_tree *tree, uint32_t place, const char *name);

#endif
