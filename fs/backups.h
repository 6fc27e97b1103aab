/* The directory basebackups/: complete backups, each as a tree of files, as tar partitions and as
 * facts; and the symlinks LATEST and <label>.
 *
 *     basebackups/                       backups_dir.c
 *         LATEST, <label>                symlinks
 *         base_X/                        backup_nodes.c
 *             pgdata/...                 the tree of the index
 *             tar/part_N.tar             the partitions' plain tar streams
 *             backup.json                facts
 *             backup_manifest            pgdata/backup_manifest, where pg_basebackup looks for it
 *
 * What is in a complete backup never changes: the kernel may cache it. */
#ifndef WALEFS_FS_BACKUPS_H
#define WALEFS_FS_BACKUPS_H

#include "fs/node.h"

#define BACKUPS_LATEST "LATEST"

extern const struct node_template backups_dir_template;

/* How old a listing of backups may be. */
#define CATALOG_MAX_AGE_MS 2000

/* The listing of backups, persistently. A reference. */
struct catalog *backups_catalog(struct fs *fs, int64_t max_age_ms, const struct call *call,
                                struct err *err);

/* The node of a complete backup's directory, with a reference. */
struct node *backup_obtain_top(struct fs *fs, struct node *backups, const char *name,
                               const struct call *call, struct err *err);

/* A backup's content, persistently; PATIENCE_MS limits the waiting (INT64_MAX: none). A
 * reference. */
struct backup_content *backup_await(struct fs *fs, struct backup *b, int64_t patience_ms,
                                    const struct call *call, struct err *err);

/* A handle for SIZE bytes at OFFSET of the partition at PARTITION. */
struct handle *backup_reader_new(struct fs *fs, struct node *node, struct backup *b,
                                 const struct backup_content *content, size_t partition,
                                 uint64_t offset, uint64_t size, struct err *err);
/* Extended attributes of backup.json, of the partition at PLACE, and of a file of the tree. */
bool backup_xattrs_of_sentinel(struct fs *fs, const struct backup *b, struct xattr_list *list,
                               const struct call *call, struct err *err);
bool backup_xattrs_of_partition(struct fs *fs, const struct backup *b,
                                const struct backup_content *c, size_t place,
                                struct xattr_list *list, const struct call *call, struct err *err);
bool backup_xattrs_of_member(const struct backup_content *c, const struct member *m,
                             struct xattr_list *list, struct err *err);

/* A handle for a text of N bytes. */
struct handle *backup_text_new(struct fs *fs, struct node *node, const char *text, size_t n,
                               struct err *err);

#endif
