#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backup_fs_env.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/inode.h"

#define MIB (1u << 20)

struct backup_fs bfs;

uint64_t bfs_look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    bfs.err = (struct err)ERR_INIT;
    return fs_lookup(bfs.fs, dir, name, BFS_PID, &e, &env_forever, &bfs.err) ? e.id : 0;
}

/* PATH below DIR. */
uint64_t bfs_walk(uint64_t dir, const char *path)
{
    char name[256];
    while (dir != 0 && *path != '\0') {
        size_t n = strcspn(path, "/");
        memcpy(name, path, n);
        name[n] = '\0';
        dir = bfs_look_up(dir, name);
        path += n + (path[n] == '/');
    }
    return dir;
}

void bfs_mount(bool writable, bool allow_delete)
{
    const struct fs_options options = {
        .store = bfs.env.store,
        .pgp = bfs.env.pgp,
        .pool = bfs.env.pool,
        .uid = getuid(),
        .gid = getgid(),
        .true_owners = true,
        .read_only = !writable,
        .allow_delete = allow_delete,
        .write_timeout_ms = 5000,
        .soft_timeout_ms = 1000,
        .cache_dir = bfs.env.dir,
        .cache_bytes = 64u * MIB,
        .partition_bytes = bfs.partition_bytes != 0 ? bfs.partition_bytes : 5u * MIB};
    bfs.fs = fs_new(&options, &bfs.err);
    assert_non_null(bfs.fs);
    bfs.top = bfs_look_up(INODE_ROOT, "basebackups");
    assert_int_not_equal(bfs.top, 0);
}

/* The pool goes with it. */
void bfs_unmount(bool again)
{
    fs_stop(bfs.fs);
    pool_free(bfs.env.pool);
    fs_free(bfs.fs);
    bfs.env.pool = pool_new(32, 1000, &bfs.err);
    assert_non_null(bfs.env.pool);
    if (again)
        bfs_mount(true, true);
}

void bfs_begin(const char *words)
{
    backup_env_begin(&bfs.env, words, NULL, NULL, 2);
    bfs_mount(true, true);
}

void bfs_end(void)
{
    bfs_unmount(false);
    backup_env_end(&bfs.env);
}

/* ---- cp -a into it ---- */

static bool set_facts(uint64_t id, const struct stat *st, struct handle *h)
{
    struct fs_entry e;
    const struct fs_setattr set = {.set_mode = true,
                                   .set_mtime = true,
                                   .set_owner = true,
                                   .mode = st->st_mode & 07777,
                                   .mtime_s = st->st_mtim.tv_sec,
                                   .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
                                   .uid = st->st_uid,
                                   .gid = st->st_gid};
    return fs_setattr(bfs.fs, id, &set, h, &e, &env_forever, &bfs.err);
}

bool bfs_put_file(uint64_t dir, const char *name, const char *path, const struct stat *st)
{
    char buf[65536];
    struct fs_entry e;
    struct handle *h;
    if (!fs_create(bfs.fs, dir, name, O_WRONLY | O_EXCL, 0600, BFS_PID, &e, &h, &env_forever,
                   &bfs.err))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t at = 0;
    ssize_t n;
    bool ok = fd >= 0;
    while (ok && (n = read(fd, buf, sizeof(buf))) > 0) {
        ok = fs_write(bfs.fs, h, buf, (size_t)n, at, &env_forever, &bfs.err);
        at += (uint64_t)n;
    }
    ok = ok && set_facts(e.id, st, h);
    ok = fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err) && ok;
    fs_release(bfs.fs, h);
    (void)close(fd);
    return ok;
}

static bool put_link(uint64_t dir, const char *name, const char *path)
{
    char target[256];
    struct fs_entry e;
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    assert_true(n > 0);
    target[n] = '\0';
    return fs_symlink(bfs.fs, dir, name, target, &e, &env_forever, &bfs.err);
}

static bool put_tree(uint64_t to, const char *from)
{
    bool ok = true;
    DIR *d = opendir(from);
    assert_non_null(d);
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;) {
        char path[4096];
        struct stat st;
        struct fs_entry e;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", from, entry->d_name);
        assert_int_equal(lstat(path, &st), 0);
        if (S_ISDIR(st.st_mode))
            ok = fs_mkdir(bfs.fs, to, entry->d_name, 0700, &e, &env_forever, &bfs.err) &&
                 put_tree(e.id, path) && set_facts(e.id, &st, NULL);
        else if (S_ISLNK(st.st_mode))
            ok = put_link(to, entry->d_name, path);
        else
            ok = bfs_put_file(to, entry->d_name, path, &st);
    }
    (void)closedir(d);
    return ok;
}

/* mkdir LABEL.partial, cp -a cluster/. into it. */
bool bfs_copy_in(const char *label)
{
    char name[64], from[128];
    struct stat st;
    struct fs_entry e;
    (void)snprintf(name, sizeof(name), "%s.partial", label);
    (void)snprintf(from, sizeof(from), "%s/cluster", bfs.env.dir);
    bfs.err = (struct err)ERR_INIT;
    assert_int_equal(stat(from, &st), 0);
    return fs_mkdir(bfs.fs, bfs.top, name, 0700, &e, &env_forever, &bfs.err) &&
           put_tree(e.id, from) && set_facts(e.id, &st, NULL);
}

/* mv LABEL.partial LABEL */
bool bfs_complete(const char *label)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.partial", label);
    return fs_rename(bfs.fs, bfs.top, name, bfs.top, label, true, &env_forever, &bfs.err);
}

void bfs_must_back_up(const char *label)
{
    if (!bfs_copy_in(label) || !bfs_complete(label))
        fail_msg("%s", bfs.err.text);
}

/* A file that is written and closed. */
bool bfs_put_text(uint64_t dir, const char *name, const char *text)
{
    struct fs_entry e;
    struct handle *h;
    if (!fs_create(bfs.fs, dir, name, O_WRONLY | O_EXCL, 0600, BFS_PID, &e, &h, &env_forever,
                   &bfs.err))
        return false;
    bool ok = fs_write(bfs.fs, h, text, strlen(text), 0, &env_forever, &bfs.err);
    ok = fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err) && ok;
    fs_release(bfs.fs, h);
    return ok;
}

uint64_t bfs_make_dir(uint64_t dir, const char *name)
{
    struct fs_entry e;
    assert_ok(fs_mkdir(bfs.fs, dir, name, 0700, &e, &env_forever, &bfs.err), &bfs.err);
    return e.id;
}

/* ---- reading it back ---- */

/* All of the file ID, to be freed. */
char *bfs_read_file(uint64_t id, size_t size)
{
    struct handle *h;
    char *data = malloc(size + 1);
    size_t at = 0;
    if (!fs_open(bfs.fs, id, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err))
        fail_msg("%s", bfs.err.text);
    for (bool more = true; more;) {
        struct fs_bytes bytes;
        if (!fs_read(bfs.fs, h, at, 100000, &bytes, &env_forever, &bfs.err))
            fail_msg("%s", bfs.err.text);
        assert_true(at + bytes.size <= size);
        if (bytes.size > 0)
            assert_int_equal(pread(bytes.fd, data + at, bytes.size, (off_t)bytes.offset),
                             bytes.size);
        at += bytes.size;
        more = bytes.size > 0;
        fs_read_done(&bytes);
    }
    assert_int_equal(at, size);
    fs_release(bfs.fs, h);
    return data;
}

/* FROM on disk is the same as ID in the tree. The number of names. */
static unsigned compare(uint64_t id, const char *from)
{
    struct stat st;
    struct fs_entry e;
    assert_int_equal(lstat(from, &st), 0);
    if (id == 0)
        fail_msg("%s is not there: %s", from, bfs.err.text);
    assert_true(fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err));
    if (e.attr.st_mode != st.st_mode || e.attr.st_mtim.tv_nsec != st.st_mtim.tv_nsec)
        fail_msg("%s: mode %o, not %o, or mtime %ld, not %ld ns", from, e.attr.st_mode, st.st_mode,
                 e.attr.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
    assert_int_equal(e.attr.st_mtim.tv_sec, st.st_mtim.tv_sec);
    if (S_ISREG(st.st_mode)) {
        assert_int_equal(e.attr.st_size, st.st_size);
        char *data = bfs_read_file(id, (size_t)st.st_size), *want = malloc((size_t)st.st_size + 1);
        int fd = open(from, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, want, (size_t)st.st_size), st.st_size);
        (void)close(fd);
        assert_true(memcmp(data, want, (size_t)st.st_size) == 0);
        free(data);
        free(want);
        return 1;
    }
    unsigned n = 1;
    DIR *d = opendir(from);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        char path[4096];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", from, entry->d_name);
        n += compare(bfs_look_up(id, entry->d_name), path);
    }
    (void)closedir(d);
    return n;
}

void bfs_must_be(const char *path, const char *wanted)
{
    char from[128];
    (void)snprintf(from, sizeof(from), "%s/%s", bfs.env.dir, wanted);
    assert_in_range(compare(bfs_walk(bfs.top, path), from), 8, 100000);
}

void bfs_must_be_the_cluster(const char *path)
{
    bfs_must_be(path, "cluster");
}

void bfs_wait_empty(void)
{
    for (unsigned i = 0; backup_env_count(&bfs.env) != 0; i++) {
        assert_true(i < BFS_PATIENCE_MS);
        (void)usleep(1000);
    }
}
