/* libFuzzer target for what is read of a base backup: the text of an index (input begins with 'i';
 * it is given the right checksum, so that what is behind it is reached) and tar streams (anything
 * else). Whatever is taken must hold together: members lie inside their partitions, names stay in
 * the tree, and what is written again reads the same. */
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_index.h"
#include "core/buf.h"
#include "fs/backup_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

static void check_members(const struct backup_index *x)
{
    char again[BACKUP_PATH_MAX];
    struct err err = ERR_INIT;
    for (size_t i = 0; i < x->count; i++) {
        const struct member *m = &x->members[i];
        must(m->partition < x->partition_count, "a member is in a partition");
        uint64_t plain = x->partitions[m->partition].map.plain_size;
        must(m->offset <= plain && m->size <= plain - m->offset, "its data is in there");
        must(backup_path_normalise(m->path, again, &err) && strcmp(m->path, again) == 0,
             "its path is normal");
        must(backup_index_find(x, m->path) == m, "it is found");
        const struct member *d = backup_index_data_of(x, m);
        must(d == NULL || d->type == MEMBER_FILE, "data is a file's");
    }
    struct backup_tree *tree = backup_tree_new(x, &err);
    if (tree == NULL)
        return;
    for (uint32_t i = 0; i < backup_tree_count(tree); i++)
        must(backup_tree_find(tree, backup_tree_at(tree, i)->path) == i, "the tree finds it");
    backup_tree_free(tree);
}

/* As text, at most 64 MiB. */
static struct buf text_of(const struct backup_index *x)
{
    struct buf out = BUF_INIT((size_t)64 << 20);
    struct err err = ERR_INIT;
    char chunk[4096];
    ssize_t n;
    struct source *s = backup_index_write(x, &err);
    must(s != NULL, "memory");
    while ((n = s->read(s, chunk, sizeof(chunk), &err)) > 0)
        must(buf_append(&out, chunk, (size_t)n), "it is not much larger than what was read");
    must(n == 0, "writing works");
    source_close(s);
    return out;
}

static struct backup_index *read_text(const char *text, size_t n)
{
    struct err err = ERR_INIT;
    struct source *s = source_mem(text, n, &err);
    struct backup_index *x = backup_index_read(s, &err);
    source_close(s);
    must((x == NULL) == (err.code != ERR_NONE), "an error is set exactly on failure");
    must(x != NULL || err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED, "damage is said so");
    return x;
}

static void try_index(const uint8_t *data, size_t size)
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct buf text = BUF_INIT(size + 100);
    SHA256(data, size, sum);
    must(buf_append(&text, data, size) && buf_puts(&text, "E\t"), "memory");
    for (size_t i = 0; i < sizeof(sum); i++)
        must(buf_printf(&text, "%02x", sum[i]), "memory");
    must(buf_puts(&text, "\n"), "memory");
    struct backup_index *x = read_text(text.data, text.len);
    buf_free(&text);
    if (x == NULL)
        return;
    check_members(x);
    struct buf once = text_of(x);
    backup_index_free(x);
    x = read_text(once.data, once.len);
    must(x != NULL, "what was written is read");
    struct buf twice = text_of(x);
    must(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0, "it is the same");
    backup_index_free(x);
    buf_free(&once);
    buf_free(&twice);
}

static void try_tar(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct backup_index *x = backup_index_new(&err);
    struct index_partition p = {.number = 1, .etag = "e"};
    p.map.plain_size = size;
    must(x != NULL && backup_index_add_partition(x, &p, &err), "memory");
    struct source *s = source_mem(data, size, &err);
    if (backup_index_scan(x, s, "part", &err) && backup_index_seal(x, &err))
        check_members(x);
    source_close(s);
    backup_index_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'i')
        try_index(data + 1, size - 1);
    else
        try_tar(data, size);
    return 0;
}
