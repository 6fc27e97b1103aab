/* What is staged in wal/: temporaries, and files that are being written. */
#include "fs/wal.h"

#define COUNTED 1024u

/* Nodes of open files that may be written; each with a reference. */
static size_t written_nodes(struct fs *fs, struct node **out, size_t cap)
{
    size_t n = 0;
    pthread_mutex_lock(&fs->handles_lock);
    for (struct handle *h = LIST_FIRST(&fs->handles); h != NULL && n < cap; h = LIST_NEXT(h, link))
        if (wal_is_writer(h))
            out[n++] = node_ref(fs->inodes, h->node);
    pthread_mutex_unlock(&fs->handles_lock);
    return n;
}

static bool is_among(struct node *const *nodes, size_t n, const struct node *node)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i] == node)
            return true;
    return false;
}

void wal_backlog(struct fs *fs, struct wal_backlog *out)
{
    struct node *nodes[COUNTED];
    size_t n = wal_dir_kept(fs, nodes, COUNTED);
    n += written_nodes(fs, nodes + n, COUNTED - n);
    *out = (struct wal_backlog){.more = n == COUNTED};
    for (size_t i = 0; i < n; i++) {
        struct stage *stage = is_among(nodes, i, nodes[i]) ? NULL : wal_file_stage(nodes[i]->data);
        if (stage != NULL && stage_dirty(stage)) {
            out->files++;
            out->bytes += stage_size(stage);
        }
        stage_unref(stage);
    }
    for (size_t i = 0; i < n; i++)
        node_unref(fs->inodes, nodes[i]);
}
