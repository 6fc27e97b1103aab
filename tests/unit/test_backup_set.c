/* fs/backup_set.c: which backups and contents are kept, and what is found in those that were loaded
 * again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup_fs_env.h"
#include "core/log.h"
#include "fs/backup_set.h"
#include "fs/errno.h"
#include "fs/node.h"

#define BACKUPS 9u
#define KEPT 4u

struct names {
    char name[BACKUPS][BACKUP_NAME_MAX];
    struct backup *backup[BACKUPS]; /* as the kernel's knowledge of their files holds them */
};

static _Atomic unsigned loads;

static void count_load(void *arg, const char *op, const char *key)
{
    (void)arg;
    loads += strcmp(op, "get") == 0 && strstr(key, BACKUP_INDEX_NAME) != NULL;
}

static struct backup *open_backup(const char *name)
{
    struct backup *b = backup_open(bfs.fs->backup_set, name, &env_forever, &bfs.err);
    assert_ok(b != NULL, &bfs.err);
    return b;
}

static struct backup_content *content_of(struct backup *b)
{
    struct backup_content *c = backup_content(b, &env_forever, &bfs.err);
    assert_ok(c != NULL, &bfs.err);
    return c;
}

/* Backups with one start position each, none of which has been looked into. */
static void begin(struct names *n)
{
    bfs_begin("label");
    for (unsigned i = 0; i < BACKUPS; i++) {
        char label[16];
        (void)snprintf(label, sizeof(label), "x%u", i);
        (void)snprintf(n->name[i], sizeof(n->name[i]), "base_0000000100000000000000%02X_00000040",
                       i + 2);
        backup_env_run(&bfs.env,
                       "sed -i 's/^START WAL LOCATION.*/START WAL LOCATION: 0\\/%X000028 (file "
                       "0000000100000000000000%02X)/' cluster/backup_label",
                       i + 2, i + 2);
        bfs_must_back_up(label);
    }
    bfs_unmount(true);
    fault_set_hook(bfs.env.faults, count_load, NULL);
    for (unsigned i = 0; i < BACKUPS; i++)
        n->backup[i] = open_backup(n->name[i]);
}

static void end(struct names *n)
{
    for (unsigned i = 0; i < BACKUPS; i++)
        backup_unref(n->backup[i]);
    fault_set_hook(bfs.env.faults, NULL, NULL);
    bfs_end();
}

static bool is_loaded_for(struct backup *b)
{
    unsigned before = loads;
    backup_content_unref(content_of(b));
    return loads != before;
}

/* While the others are looked into, backup I's content goes. */
static void must_go(const struct names *n, unsigned i)
{
    for (int64_t until = now_ms() + BFS_PATIENCE_MS; now_ms() < until;) {
        for (unsigned other = 0; other < BACKUPS; other++)
            if (other != i)
                backup_content_unref(content_of(n->backup[other]));
        if (is_loaded_for(n->backup[i]))
            return;
    }
    fail_msg("the content of %s stays", n->name[i]);
}

/* The kernel may know a file of each of a hundred backups. */
static void contents_that_nobody_uses_are_dropped(void **state)
{
    struct names n;
    (void)state;
    begin(&n);
    struct backup_content *used = content_of(n.backup[0]);
    for (unsigned i = 1; i < BACKUPS; i++)
        must_go(&n, i);
    for (unsigned i = BACKUPS - KEPT; i < BACKUPS; i++)
        (void)is_loaded_for(n.backup[i]);
    for (unsigned i = BACKUPS - KEPT; i < BACKUPS; i++)
        assert_false(is_loaded_for(n.backup[i]));
    struct backup_content *again = content_of(n.backup[0]);
    assert_ptr_equal(again, used);
    backup_content_unref(again);
    backup_content_unref(used);
    end(&n);
}

static void must_be_the_version(uint64_t id)
{
    struct fs_entry e;
    assert_ok(fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err), &bfs.err);
    char *text = bfs_read_file(id, (size_t)e.attr.st_size);
    assert_memory_equal(text, "15\n", 3);
    free(text);
}

/* A file that is known is the same file when the content is there again; when the index has become
 * another one it has to be looked up again, and is found. */
static void files_outlive_the_content(void **state)
{
    struct names n;
    struct fs_entry e;
    char path[96];
    (void)state;
    begin(&n);
    (void)snprintf(path, sizeof(path), "%s/pgdata/PG_VERSION", n.name[0]);
    uint64_t id = bfs_walk(bfs.top, path);
    assert_int_not_equal(id, 0);
    must_go(&n, 0);
    must_be_the_version(id);

    n.backup[0]->shape++; /* as if it had been another one */
    bool ok = true;
    for (unsigned i = 0; ok && i < BFS_PATIENCE_MS; i++) {
        for (unsigned other = 1; other < BACKUPS; other++)
            backup_content_unref(content_of(n.backup[other]));
        ok = fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err);
    }
    assert_false(ok);
    assert_int_equal(fs_errno(&bfs.err), ESTALE);
    uint64_t again = bfs_walk(bfs.top, path);
    assert_int_not_equal(again, 0);
    assert_int_not_equal(again, id);
    must_be_the_version(again);
    end(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_that_nobody_uses_are_dropped),
        cmocka_unit_test(files_outlive_the_content),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
