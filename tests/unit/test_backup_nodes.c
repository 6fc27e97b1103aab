/* fs/backup_nodes.c, backup_reader.c, backup_set.c, backup_load.c: what is in a complete backup's
 * directory, and how it is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup_fs_env.h"
#include "core/log.h"
#include "fs/errno.h"
#include "fs/inode.h"

#define NAME BACKUP_NAME

struct names {
    char text[16][64];
    size_t count;
};

static bool note_name(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                      uint64_t next)
{
    struct names *names = arg;
    (void)next;
    if (entry != NULL) /* as for a kernel that takes it back */
        fs_forget(bfs.fs, entry->id, 1);
    assert_true(names->count < 16);
    (void)snprintf(names->text[names->count++], 64, "%s%s ", name,
                   type == S_IFDIR   ? "/"
                   : type == S_IFLNK ? "@"
                                     : "");
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* WANTED: the names in order, each with a blank. */
static void must_list(const char *path, const char *wanted)
{
    struct names names = {.count = 0};
    char all[1024] = "";
    struct dir *dir;
    uint64_t id = bfs_walk(bfs.top, path);
    assert_ok(fs_opendir(bfs.fs, id, &dir, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_readdir(bfs.fs, dir, 2, true, note_name, &names, &env_forever, &bfs.err),
              &bfs.err);
    fs_releasedir(bfs.fs, dir);
    qsort(names.text, names.count, sizeof(names.text[0]), by_name);
    for (size_t i = 0; i < names.count; i++)
        strcat(all, names.text[i]);
    assert_string_equal(all, wanted);
}

static struct stat stat_of(const char *path)
{
    struct fs_entry e;
    uint64_t id = bfs_walk(bfs.top, path);
    if (id == 0)
        fail_msg("%s: %s", path, bfs.err.text);
    assert_ok(fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err), &bfs.err);
    return e.attr;
}

static char *content_of(const char *path, size_t *n)
{
    *n = (size_t)stat_of(path).st_size;
    return bfs_read_file(bfs_walk(bfs.top, path), *n);
}

static void save(const char *path, const char *name)
{
    size_t n;
    char to[128], *data = content_of(path, &n);
    (void)snprintf(to, sizeof(to), "%s/%s", bfs.env.dir, name);
    FILE *f = fopen(to, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(data);
}

/* ---- the directory ---- */

static void what_is_in_it(void **state)
{
    (void)state;
    bfs_begin("label odd manifest");
    backup_env_run(&bfs.env, "rm -r cluster/base/1/[lnbu]* cluster/base/d* cluster/pg_wal "
                             "cluster/base/1/old cluster/backup_manifest && "
                             "ln -s ../elsewhere cluster/base/link && "
                             "echo '{}' >cluster/base/1/name.json");
    bfs_must_back_up("x");
    must_list(NAME, "backup.json pgdata/ tar/ ");
    must_list(NAME "/tar", "part_00000000.tar ");
    must_list(NAME "/pgdata/base", "1/ 5/ link@ ");
    must_list(NAME "/pgdata/pg_replslot", "");
    assert_int_equal(stat_of(NAME).st_mode, S_IFDIR | 0500);
    assert_int_equal(stat_of(NAME "/tar").st_mode, S_IFDIR | 0500);
    assert_int_equal(stat_of(NAME "/tar/part_00000000.tar").st_mode, S_IFREG | 0400);
    assert_int_equal(stat_of(NAME "/backup.json").st_mode, S_IFREG | 0400);
    assert_int_equal(stat_of(NAME "/pgdata/base/5/odd_size").st_mode, S_IFREG | 0640);
    struct stat link = stat_of(NAME "/pgdata/base/link");
    assert_true(S_ISLNK(link.st_mode));
    assert_int_equal(link.st_size, strlen("../elsewhere"));
    char target[64];
    assert_ok(fs_readlink(bfs.fs, link.st_ino, target, sizeof(target), &env_forever, &bfs.err),
              &bfs.err);
    assert_string_equal(target, "../elsewhere");
    static const char *const absent[] = {
        NAME "/other",          NAME "/backup_manifest", NAME "/tar/part_00000001.tar",
        NAME "/tar/part_0.tar", NAME "/pgdata/none",     NAME "/pgdata/base/1/none"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        assert_int_equal(bfs_walk(bfs.top, absent[i]), 0);
        assert_int_equal(fs_errno(&bfs.err), ENOENT);
    }
    bfs_end();
}

/* pg_basebackup and pg_verifybackup look for it beside the data. */
static void the_manifest_is_where_it_is_looked_for(void **state)
{
    size_t n, m;
    (void)state;
    bfs_begin("label manifest");
    bfs_must_back_up("x");
    char *a = content_of(NAME "/backup_manifest", &n);
    char *b = content_of(NAME "/pgdata/backup_manifest", &m);
    assert_true(n > 100 && n == m && memcmp(a, b, n) == 0);
    free(a);
    free(b);
    must_list(NAME, "backup.json pgdata/ tar/ "); /* not copied twice */
    bfs_end();
}

static void backup_json_says_what_is_known(void **state)
{
    size_t n;
    const char *name, *label;
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    char *text = content_of(NAME "/backup.json", &n);
    json_t *json = json_loadb(text, n, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_unpack(json, "{s:s, s:s}", "name", &name, "label", &label), 0);
    assert_string_equal(name, NAME);
    assert_string_equal(label, "x");
    json_decref(json);
    free(text);
    bfs_end();
}

/* Restoring from tar/ and from pgdata/ gives the same. */
static void the_partitions_are_the_tree(void **state)
{
    (void)state;
    bfs_begin("label bulk=12000000");
    bfs_must_back_up("x");
    must_list(NAME "/tar", "part_00000000.tar part_00000001.tar part_00000002.tar ");
    backup_env_run(&bfs.env, "mkdir out");
    for (unsigned i = 0; i < 3; i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), NAME "/tar/part_%08u.tar", i);
        save(path, "part");
        backup_env_run(&bfs.env, "tar -xpf part -C out 2>&1 | grep -v hdrcharset; true");
    }
    backup_env_run(&bfs.env, "diff -r --no-dereference cluster out");
    bfs_end();
}

/* ---- reading ---- */

/* Any part of any file, in any order; behind the end there is nothing. */
static void any_range_is_read(void **state)
{
    unsigned seed = 20251128;
    char from[128];
    (void)state;
    bfs_begin("label bulk=6000000");
    bfs_must_back_up("x");
    uint64_t id = bfs_walk(bfs.top, NAME "/pgdata/base/5/20003");
    struct handle *h;
    (void)snprintf(from, sizeof(from), "%s/cluster/base/5/20003", bfs.env.dir);
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_ok(fs_open(bfs.fs, id, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err), &bfs.err);
    for (unsigned i = 0; i < 300; i++) {
        static char got[100000], want[100000];
        struct fs_bytes bytes;
        uint64_t at = (uint64_t)rand_r(&seed) % 720000;
        size_t size = 1 + (size_t)rand_r(&seed) % sizeof(got);
        assert_ok(fs_read(bfs.fs, h, at, size, &bytes, &env_forever, &bfs.err), &bfs.err);
        ssize_t n = pread(fd, want, size, (off_t)at);
        assert_true(n >= 0);
        if (n == 0) {
            assert_int_equal(bytes.size, 0);
        } else {
            assert_in_range(bytes.size, 1, n); /* a reply may be shorter, never longer */
            assert_int_equal(pread(bytes.fd, got, bytes.size, (off_t)bytes.offset), bytes.size);
            assert_memory_equal(got, want, bytes.size);
        }
        fs_read_done(&bytes);
    }
    fs_release(bfs.fs, h);
    close(fd);
    size_t n;
    free(content_of(NAME "/pgdata/base/1/empty", &n));
    assert_int_equal(n, 0);
    bfs_end();
}

/* Damage that is found while somebody reads: an error, nothing short, and no further byte; also
 * who has the file open is told, for the kernel's cache. */
static _Atomic unsigned invalidated;

static void note_invalidated(void *arg, uint64_t id)
{
    (void)arg;
    invalidated += id != 0;
}

static void damage_is_never_served(void **state)
{
    struct handle *h;
    struct fs_bytes bytes;
    (void)state;
    bfs_begin("label bulk=4000000");
    bfs_must_back_up("x");
    invalidated = 0;
    fs_set_invalidate(bfs.fs, note_invalidated, NULL);
    uint64_t first = bfs_walk(bfs.top, NAME "/pgdata/base/5/20000");
    uint64_t later = bfs_walk(bfs.top, NAME "/pgdata/base/5/20004");
    assert_true(first != 0 && later != 0);
    /* every block, with the object's size, time and so its etag as they were */
    backup_env_run(&bfs.env,
                   "p='%s'/" BACKUP_DIR "/tar_partitions/part_00000000.tar.lzo; touch -r $p ref && "
                   "n=$(stat -c %%s $p) && for i in $(seq 1000 50000 $n); do printf '\\377\\376' | "
                   "dd of=$p bs=1 seek=$i conv=notrunc status=none; done && touch -r ref $p",
                   bfs.env.files.dir);
    assert_ok(fs_open(bfs.fs, first, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err), &bfs.err);
    bool ok = true;
    for (uint64_t at = 0; ok && at < 700000; at += bytes.size) {
        ok = fs_read(bfs.fs, h, at, 100000, &bytes, &env_forever, &bfs.err);
        if (!ok)
            break;
        assert_true(bytes.size > 0);
        fs_read_done(&bytes);
    }
    assert_false(ok);
    assert_int_equal(fs_errno(&bfs.err), EIO);
    assert_false(fs_read(bfs.fs, h, 0, 10, &bytes, &env_forever, &bfs.err)); /* nothing any more */
    assert_int_equal(fs_errno(&bfs.err), EIO);
    for (unsigned i = 0; invalidated == 0; i++) {
        assert_true(i < BFS_PATIENCE_MS);
        (void)usleep(1000);
    }
    fs_release(bfs.fs, h);
    bool opened = fs_open(bfs.fs, later, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err);
    assert_false(opened); /* nor for who comes later */
    assert_int_equal(fs_errno(&bfs.err), EIO);
    bfs_end();
}

/* ---- loading ---- */

struct index_reads {
    _Atomic unsigned count;
    _Atomic bool hold, held;
};

static void count_index(void *arg, const char *op, const char *key)
{
    struct index_reads *r = arg;
    if (strcmp(op, "get") != 0 || strstr(key, BACKUP_INDEX_NAME) == NULL)
        return;
    r->count++;
    r->held = true;
    while (r->hold)
        (void)usleep(1000);
}

/* A backup whose index is not loaded yet. */
static void begin_with(struct index_reads *reads)
{
    bfs_begin("label");
    bfs_must_back_up("x");
    bfs_unmount(true);
    fault_set_hook(bfs.env.faults, count_index, reads);
}

static void end_reads(void)
{
    fault_set_hook(bfs.env.faults, NULL, NULL);
    bfs_end();
}

static void *walk_in(void *arg)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    (void)arg;
    uint64_t top = 0, data = 0;
    if (fs_lookup(bfs.fs, bfs.top, NAME, BFS_PID, &e, &env_forever, &err))
        top = e.id;
    if (top != 0 && fs_lookup(bfs.fs, top, "pgdata", BFS_PID, &e, &env_forever, &err))
        data = e.id;
    bool ok = data != 0 && fs_lookup(bfs.fs, data, "PG_VERSION", BFS_PID, &e, &env_forever, &err);
    return ok ? arg : NULL;
}

static void it_is_loaded_once_however_many_ask(void **state)
{
    struct index_reads reads = {.hold = true};
    pthread_t threads[8];
    void *result;
    (void)state;
    begin_with(&reads);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, walk_in, &reads), 0);
    for (unsigned i = 0; !reads.held; i++) {
        assert_true(i < BFS_PATIENCE_MS);
        (void)usleep(1000);
    }
    must_list(NAME, "backup.json pgdata/ tar/ "); /* which needs none */
    reads.hold = false;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &reads);
    }
    assert_int_equal(reads.count, 1);
    end_reads();
}

/* Who waits for an index can be interrupted; the others go on. */
static void who_waits_for_it_can_be_interrupted(void **state)
{
    struct index_reads reads = {.hold = true};
    pthread_t thread;
    struct cancel cancel;
    struct fs_entry e;
    void *result;
    (void)state;
    begin_with(&reads);
    uint64_t data = bfs_walk(bfs.top, NAME "/pgdata"); /* looking does not wait for it for long */
    assert_int_not_equal(data, 0);
    assert_int_equal(pthread_create(&thread, NULL, walk_in, &reads), 0);
    cancel_init(&cancel);
    cancel_fire(&cancel);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    assert_false(fs_lookup(bfs.fs, data, "PG_VERSION", BFS_PID, &e, &call, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EINTR);
    cancel_destroy(&cancel);
    reads.hold = false;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &reads);
    end_reads();
}

/* A failure of the moment is not remembered. */
static void what_could_not_be_loaded_is_asked_for_again(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 6; nth++) {
        bfs_begin("label");
        bfs_must_back_up("x");
        bfs_unmount(true);
        fault_at(bfs.env.faults, nth, FAULT_BEFORE);
        uint64_t id = bfs_walk(bfs.top, NAME "/pgdata/PG_VERSION");
        if (id == 0)
            assert_int_not_equal(fs_errno(&bfs.err), ENOENT);
        fault_at(bfs.env.faults, 0, FAULT_BEFORE);
        bfs_must_be_the_cluster(NAME "/pgdata");
        bfs_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_it),
        cmocka_unit_test(the_manifest_is_where_it_is_looked_for),
        cmocka_unit_test(backup_json_says_what_is_known),
        cmocka_unit_test(the_partitions_are_the_tree),
        cmocka_unit_test(any_range_is_read),
        cmocka_unit_test(damage_is_never_served),
        cmocka_unit_test(it_is_loaded_once_however_many_ask),
        cmocka_unit_test(who_waits_for_it_can_be_interrupted),
        cmocka_unit_test(what_could_not_be_loaded_is_asked_for_again),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
