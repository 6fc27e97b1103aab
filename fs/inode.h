/* Inodes: which numbers the kernel knows, and what they stand for.
 *
 * A node has two kinds of references. `lookups` are the kernel's: every successful reply to lookup,
 * create or an entry of readdirplus adds one, forget takes them back. `refs` are ours: handles,
 * work under way, children (each holds its parent), and names that exist on this host only (a
 * staged temporary must not vanish because the kernel forgot it). A node is freed when both are
 * zero. Its number is never used again, so a stale number is found out, not confused.
 *
 * A node is found by number or by (parent, name); find-or-make is one step under the table's lock.
 * After a rename over it or an unlink a node keeps its number but has no name. */
#ifndef WALEFS_FS_INODE_H
#define WALEFS_FS_INODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define INODE_ROOT 1u
#define INODE_NAME_MAX 255u

struct node_ops;
struct inode_table;

struct node {
    /* fixed when it is made */
    uint64_t id;
    struct node *parent; /* a reference; NULL for the root. Only node_move changes it */
    const struct node_ops *ops;
    void *data;                /* the kind's own; see free_data */
    void (*free_data)(void *); /* may be NULL */

    /* guarded by the table's lock */
    char *name; /* NULL when it has none any more; read it with node_name */
    uint64_t lookups;
    unsigned refs;
    struct node *next_by_id, *next_by_name;
};

/* What a new node is made of: called under the table's lock, so it must not block. */
struct node_template {
    const struct node_ops *ops;
    void *(*new_data)(void); /* may be NULL; returns NULL without memory */
    void (*free_data)(void *);
};

struct inode_table *inode_table_new(const struct node_template *root, struct err *err);
void inode_table_free(struct inode_table *t);

/* By number, with a reference; NULL when there is no such node. */
struct node *inode_get(struct inode_table *t, uint64_t id);

/* By name, with a reference; NULL when none is known. */
struct node *inode_find(struct inode_table *t, struct node *parent, const char *name);

/* By name, made when it is not known. A reference. NULL only without memory. */
struct node *inode_obtain(struct inode_table *t, struct node *parent, const char *name,
                          const struct node_template *template, struct err *err);

struct node *node_ref(struct inode_table *t, struct node *node);
void node_unref(struct inode_table *t, struct node *node); /* NULL is allowed */

void node_add_lookup(struct inode_table *t, struct node *node);
void inode_forget(struct inode_table *t, uint64_t id, uint64_t count);

/* The node's present name, or "" when it has none. */
void node_name(struct inode_table *t, const struct node *node, char out[INODE_NAME_MAX + 1]);

/* NODE is called NAME from now on; a node that had that name loses it. */
bool node_rename(struct inode_table *t, struct node *node, const char *name, struct err *err);

/* NODE is called NAME in PARENT from now on; a node that had that name loses it. What is moved
 * reads its `parent` through inode_path and node_is_in only. */
bool node_move(struct inode_table *t, struct node *node, struct node *parent, const char *name,
               struct err *err);
/* NODE's parent at this moment, with a reference; NULL for the root. */
struct node *inode_parent(struct inode_table *t, const struct node *node);
/* Is NODE, with a name, a child of DIR? */
bool node_is_in(struct inode_table *t, const struct node *node, const struct node *dir);

/* Is NODE somewhere below DIR? */
bool node_is_below(struct inode_table *t, const struct node *node, const struct node *dir);

/* The names from below TOP (NULL: the root) to NODE with "/" between them; "" for TOP itself. False
 * when one of them has no name any more, or CAP is too small. */
bool inode_path(struct inode_table *t, const struct node *node, const struct node *top, char *out,
                size_t cap);

/* NODE loses its name. */
void node_unlink(struct inode_table *t, struct node *node);

#endif
