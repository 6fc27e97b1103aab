/* fs/new_backup*.c: base backups that pg_basebackup writes as tar streams, through fs/fs.h; those
 * that are copied in as a tree are in test_backup_fs.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup_fs_env.h"
#include "core/catalog.h"
#include "core/log.h"
#include "fs/errno.h"
#include "fs/inode.h"
#include "victim.h"

#define NAME BACKUP_NAME
#define MANIFEST_TIME 1704067200

static uint64_t top; /* basebackups/nightly/ */

/* ---- what pg_basebackup does ---- */

/* Makes base.tar, 16384.tar, manifest, and `want`, which is what must come of them. */
static void begin(const char *words)
{
    bfs_begin(words);
    backup_env_run(
        &bfs.env,
        "touch cluster/backup_manifest && mv cluster/backup_manifest manifest && tar -C cluster "
        "--format=pax -cf base.tar . && "
        "if [ -d cluster.16384 ]; then tar -C cluster.16384 --format=pax -cf 16384.tar .; fi && "
        "cp -a cluster want && cp manifest want/backup_manifest && "
        "chmod 600 want/backup_manifest && touch -d @%d want/backup_manifest && "
        "if [ -d cluster.16384 ]; then rm want/pg_tblspc/16384 && "
        "cp -a cluster.16384 want/pg_tblspc/16384; fi && "
        "touch -r cluster/pg_tblspc want/pg_tblspc && touch -r cluster want",
        MANIFEST_TIME);
    top = bfs_make_dir(bfs.top, "nightly");
}

static struct handle *create_as(const char *name, pid_t pid)
{
    struct fs_entry e;
    struct handle *h;
    bfs.err = (struct err)ERR_INIT;
    return fs_create(bfs.fs, top, name, O_WRONLY, 0600, pid, &e, &h, &env_forever, &bfs.err) ? h
                                                                                             : NULL;
}

static struct handle *create(const char *name)
{
    struct handle *h = create_as(name, BFS_PID);
    if (h == NULL)
        fail_msg("%s: %s", name, bfs.err.text);
    return h;
}

static bool write_at(struct handle *h, const void *data, size_t n, uint64_t at)
{
    return fs_write(bfs.fs, h, data, n, at, &env_forever, &bfs.err);
}

/* The first MOST bytes of the file NAME, 8 KiB at a time; *N: how many there were. */
static bool write_file(struct handle *h, const char *name, uint64_t most, uint64_t *n)
{
    char path[128], data[8192];
    bool ok = true;
    ssize_t got = 1;
    (void)snprintf(path, sizeof(path), "%s/%s", bfs.env.dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (*n = 0; ok && got > 0 && *n < most; *n += (uint64_t)got) {
        size_t size = most - *n < sizeof(data) ? (size_t)(most - *n) : sizeof(data);
        got = read(fd, data, size);
        assert_true(got >= 0);
        ok = got == 0 || write_at(h, data, (size_t)got, *n);
    }
    close(fd);
    return ok;
}

static bool flush(struct handle *h)
{
    return fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err);
}

/* FILE on disk under NAME: written, closed. */
static bool put(const char *name, const char *file)
{
    uint64_t n;
    struct handle *h = create_as(name, BFS_PID);
    if (h == NULL)
        return false;
    bool ok = write_file(h, file, UINT64_MAX, &n);
    ok = flush(h) && ok;
    fs_release(bfs.fs, h);
    return ok;
}

static bool sync_file(const char *name)
{
    struct handle *h;
    uint64_t id = bfs_look_up(top, name);
    if (id == 0 || !fs_open(bfs.fs, id, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err))
        return false;
    bool ok = fs_fsync(bfs.fs, h, &env_forever, &bfs.err);
    fs_release(bfs.fs, h);
    return ok;
}

static bool put_manifest(const char *file)
{
    struct fs_entry e;
    const struct fs_setattr then = {.set_mtime = true, .mtime_s = MANIFEST_TIME};
    return put("backup_manifest.tmp", file) &&
           fs_setattr(bfs.fs, bfs_look_up(top, "backup_manifest.tmp"), &then, NULL, &e,
                      &env_forever, &bfs.err);
}

static bool commit(void)
{
    return fs_rename(bfs.fs, top, "backup_manifest.tmp", top, "backup_manifest", false,
                     &env_forever, &bfs.err);
}

static bool back_up(bool tablespace)
{
    return (!tablespace || put("16384.tar", "16384.tar")) && put("base.tar", "base.tar") &&
           put_manifest("manifest") && sync_file("base.tar") && sync_file("backup_manifest.tmp") &&
           commit();
}

static void end(void)
{
    bfs_end();
}

static void must_be_incomplete(void)
{
    assert_int_equal(bfs_walk(bfs.top, NAME "/pgdata"), 0);
    assert_int_equal(bfs_look_up(bfs.top, "LATEST"), 0);
    assert_false(backup_env_has(&bfs.env, BACKUP_DIR BACKUP_SENTINEL_SUFFIX));
}

/* It has failed for good: each later step says why, and nothing of it is left in the archive. */
static void must_have_failed(int errnum, const char *text)
{
    struct handle *h;
    struct fs_entry e;
    if (fs_errno(&bfs.err) != errnum || strstr(bfs.err.text, text) == NULL)
        fail_msg("not %d with '%s': %d %s", errnum, text, fs_errno(&bfs.err), bfs.err.text);
    assert_false(fs_create(bfs.fs, top, "more.tar", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever,
                           &bfs.err));
    assert_false(commit());
    must_be_incomplete();
    bfs_wait_empty();
    end();
}

/* ---- what goes well ---- */

static void must_link(const char *name)
{
    char target[256];
    uint64_t id = bfs_look_up(bfs.top, name);
    assert_ok(fs_readlink(bfs.fs, id, target, sizeof(target), &env_forever, &bfs.err), &bfs.err);
    assert_string_equal(target, NAME);
}

static void tars_become_a_backup(void **state)
{
    (void)state;
    begin("label tablespace manifest bulk=7000000");
    assert_ok(put("16384.tar", "16384.tar"), &bfs.err);
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_ok(sync_file("base.tar"), &bfs.err);
    must_be_incomplete(); /* before the rename */
    assert_ok(commit(), &bfs.err);
    must_link("nightly"); /* so pg_basebackup's last fsync by the old path finds something */
    must_link("LATEST");
    assert_int_not_equal(bfs_walk(bfs.top, NAME "/backup_manifest"), 0);
    bfs_must_be(NAME "/pgdata", "want");
    assert_true(backup_env_check(&bfs.env, "want") >= 2);
    bfs_unmount(true);
    must_link("nightly");
    end();
}

static void the_wal_beside_it_is_in_it(void **state)
{
    (void)state;
    begin("label manifest");
    backup_env_run(&bfs.env, "mkdir w && echo wal >w/000000010000000000000002 && "
                             "tar -C w -cf pg_wal.tar .");
    assert_ok(put("pg_wal.tar", "pg_wal.tar"), &bfs.err);
    assert_ok(back_up(false), &bfs.err);
    char *data =
        bfs_read_file(bfs_walk(bfs.top, NAME "/pgdata/pg_wal/000000010000000000000002"), 4);
    assert_memory_equal(data, "wal\n", 4);
    free(data);
    end();
}

/* While it is written: listed under its label; a stream cannot be read back, other files can. */
static bool note_name(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                      uint64_t next)
{
    char *names = arg;
    (void)entry;
    (void)next;
    size_t n = strlen(names);
    (void)snprintf(names + n, 256 - n, "%s%s ", type == S_IFDIR ? "/" : "", name);
    return true;
}

static void must_list(uint64_t id, const char *wanted)
{
    char names[256] = "";
    struct dir *dir;
    assert_ok(fs_opendir(bfs.fs, id, &dir, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_readdir(bfs.fs, dir, 0, false, note_name, names, &env_forever, &bfs.err),
              &bfs.err);
    fs_releasedir(bfs.fs, dir);
    assert_string_equal(names, wanted);
}

static void what_it_looks_like_meanwhile(void **state)
{
    struct handle *h;
    struct fs_bytes bytes;
    struct fs_entry e;
    char got[8];
    (void)state;
    begin("label manifest");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(bfs_put_text(top, "backup_manifest.tmp", "hello"), &bfs.err);
    must_list(bfs.top, "/. /.. /nightly ");
    must_list(top, "/. /.. base.tar backup_manifest.tmp ");
    uint64_t id = bfs_look_up(top, "base.tar");
    struct stat st;
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/base.tar", bfs.env.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_ok(fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err), &bfs.err);
    assert_int_equal(e.attr.st_size, st.st_size);
    assert_ok(fs_open(bfs.fs, id, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err), &bfs.err);
    assert_false(fs_read(bfs.fs, h, 0, 8, &bytes, &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EOPNOTSUPP);
    fs_release(bfs.fs, h);
    id = bfs_look_up(top, "backup_manifest.tmp");
    assert_ok(fs_open(bfs.fs, id, O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_read(bfs.fs, h, 1, 100, &bytes, &env_forever, &bfs.err), &bfs.err);
    assert_int_equal(bytes.size, 4);
    assert_int_equal(pread(bytes.fd, got, 4, (off_t)bytes.offset), 4);
    assert_memory_equal(got, "ello", 4);
    fs_read_done(&bytes);
    fs_release(bfs.fs, h);
    end();
}

/* ---- streams that are not whole ---- */

static void a_stream_is_written_from_front_to_back(void **state)
{
    static const char x[512] = {0};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t n;
        begin("label manifest");
        struct handle *h = create("base.tar");
        if (i == 0) { /* not from its start */
            n = 512;
        } else {
            assert_ok(write_file(h, "base.tar", i == 3 ? UINT64_MAX : 10240, &n), &bfs.err);
            if (i == 1)
                n += 512; /* a hole */
            else if (i == 2)
                n = 0; /* once more */
            else
                assert_ok(flush(h), &bfs.err); /* behind its close */
        }
        assert_false(write_at(h, x, sizeof(x), n));
        fs_release(bfs.fs, h);
        must_have_failed(EINVAL, i == 0 ? "from its start" : "from front to back");
    }
}

static void a_stream_that_breaks_off_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t n;
        begin("label manifest");
        backup_env_run(&bfs.env, "head -c 100000 /dev/urandom >garbage");
        struct handle *h = create("base.tar");
        /* in the middle of a member; not even one; nothing like it */
        bool wrote = write_file(h, i == 2 ? "garbage" : "base.tar", i == 0 ? 20000 : 300, &n);
        bool closed = flush(h);
        assert_false(wrote && closed);
        fs_release(bfs.fs, h);
        must_have_failed(EINVAL, "not a sound tar stream");
    }
}

/* cp's and pg_basebackup's processes are there until they have closed; this one never did. */
static void a_stream_that_nobody_closed_fails_it(void **state)
{
    uint64_t n;
    (void)state;
    begin("label manifest");
    struct handle *h = create("base.tar");
    assert_ok(write_file(h, "base.tar", UINT64_MAX, &n), &bfs.err);
    fs_release(bfs.fs, h);
    (void)put_manifest("manifest");
    assert_false(commit());
    must_have_failed(EINVAL, "never finished");
}

static void a_writer_that_dies_fails_it(void **state)
{
    uint64_t n;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin("label manifest");
        struct victim v = victim_start(i == 0 ? END_WELL : END_ERROR);
        struct handle *h = create_as("base.tar", v.pid);
        assert_non_null(h);
        assert_ok(write_file(h, "base.tar", UINT64_MAX, &n), &bfs.err);
        victim_end(&v);
        bool ok = fs_flush(bfs.fs, h, v.pid, &env_forever, &bfs.err);
        assert_int_equal(ok, i == 0);
        fs_release(bfs.fs, h);
        victim_reap(&v);
        if (i == 1) {
            must_have_failed(EIO, "failed or was killed");
            continue;
        }
        assert_ok(put_manifest("manifest"), &bfs.err);
        assert_ok(commit(), &bfs.err);
        end();
    }
}

/* A close by another process that has inherited the descriptor says nothing. */
static void a_close_of_another_process_is_none(void **state)
{
    uint64_t n, m;
    (void)state;
    begin("label manifest");
    struct handle *h = create_as("base.tar", getpid());
    assert_ok(write_file(h, "base.tar", 5000, &n), &bfs.err);
    assert_ok(fs_flush(bfs.fs, h, 1, &env_forever, &bfs.err), &bfs.err);
    char path[128], *rest = malloc(4u << 20);
    assert_non_null(rest);
    (void)snprintf(path, sizeof(path), "%s/base.tar", bfs.env.dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = pread(fd, rest, 4u << 20, (off_t)n);
    assert_true(got > 0 && got < 4 << 20);
    close(fd);
    m = (uint64_t)got;
    assert_ok(write_at(h, rest, m, n), &bfs.err);
    free(rest);
    assert_ok(fs_flush(bfs.fs, h, getpid(), &env_forever, &bfs.err), &bfs.err);
    fs_release(bfs.fs, h);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_ok(commit(), &bfs.err);
    end();
}

/* ---- what does not belong together ---- */

static void other_files_beside_tars_are_refused(void **state)
{
    static const char *const names[] = {"base.tar.gz", "16384.tar.zst", "PG_VERSION"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        begin("label manifest");
        if (i > 0)
            assert_ok(put("base.tar", "base.tar"), &bfs.err);
        assert_null(create_as(names[i], BFS_PID));
        must_have_failed(EINVAL, i < 2 ? "without -z" : "does not belong");
    }
}

/* In a tree a name like a tar's is a file like others. */
static void a_tar_in_a_tree_is_a_file(void **state)
{
    (void)state;
    bfs_begin("label");
    backup_env_run(&bfs.env, "echo x >cluster/base.tar && echo y >cluster/base/16384.tar");
    bfs_must_back_up("x");
    bfs_must_be_the_cluster(NAME "/pgdata");
    end();
}

static void without_a_manifest_its_fsync_fails(void **state)
{
    (void)state;
    begin("label manifest");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_false(sync_file("base.tar"));
    must_have_failed(EINVAL, "--no-manifest");
    begin("label manifest"); /* LABEL.partial is completed by its own rename */
    top = bfs_make_dir(bfs.top, "night.partial");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(sync_file("base.tar"), &bfs.err);
    assert_ok(bfs_complete("night"), &bfs.err);
    must_link("night");
    bfs_must_be(NAME "/pgdata", "cluster");
    end();
}

/* pg_basebackup renames its manifest last: who finds it under its first name finds what was killed.
 * A cluster that once came so and has run since is one like others. */
static void what_pg_basebackup_has_not_ended_is_refused(void **state)
{
    (void)state;
    begin("label manifest");
    top = bfs_make_dir(bfs.top, "night.partial");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_false(bfs_complete("night"));
    must_have_failed(EPERM, "backup_manifest.tmp");
    for (unsigned i = 0; i < 2; i++) {
        bfs_begin(i == 0 ? "label" : "");
        backup_env_run(&bfs.env, "touch cluster/backup_manifest.tmp");
        assert_true(bfs_copy_in("night"));
        assert_int_equal(bfs_complete("night"), i == 1);
        if (i == 1)
            bfs_must_be_the_cluster(NAME "/pgdata");
        else
            assert_non_null(strstr(bfs.err.text, "backup_manifest.tmp"));
        end();
    }
}

/* The manifest is compared before anything is complete. */
static void a_manifest_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        const char *change, *text;
    } cases[] = {
        {"head -c 300 manifest >m && mv m manifest", "backup_manifest"},
        {"sed -i 's/\"Size\": 24576/\"Size\": 24577/' manifest", "backup_manifest"},
        {": >manifest", "backup_manifest"},
        {"sed -i '/base\\/1\\/1255/d' manifest", "backup_manifest"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin("label manifest");
        backup_env_run(&bfs.env, "%s", cases[i].change);
        assert_ok(put("base.tar", "base.tar"), &bfs.err);
        assert_ok(put_manifest("manifest"), &bfs.err);
        assert_false(commit());
        must_have_failed(EINVAL, cases[i].text);
    }
    begin("label manifest"); /* a sound one, of a cluster that had other files */
    backup_env_run(&bfs.env,
                   "echo more >>cluster/base/1/1255 && tar -C cluster --format=pax -cf base.tar .");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_false(commit());
    must_have_failed(EINVAL, "base/1/1255");
    begin("manifest"); /* and without backup_label nothing says where it begins */
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_false(commit());
    must_have_failed(EINVAL, "not of the same backup");
}

static void a_stream_that_was_never_begun_is_missed(void **state)
{
    (void)state;
    begin("label manifest");
    struct handle *h = create("16384.tar");
    assert_ok(flush(h), &bfs.err);
    fs_release(bfs.fs, h);
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_false(commit());
    must_have_failed(EINVAL, "nothing was written");
}

/* ---- two at once, and the end ---- */

static void an_open_stream_holds_the_rename_up(void **state)
{
    uint64_t n;
    (void)state;
    begin("label manifest");
    struct handle *h = create("base.tar");
    assert_ok(write_file(h, "base.tar", UINT64_MAX, &n), &bfs.err);
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_false(commit());
    assert_int_equal(fs_errno(&bfs.err), EBUSY);
    assert_non_null(strstr(bfs.err.text, "base.tar"));
    assert_ok(flush(h), &bfs.err);
    fs_release(bfs.fs, h);
    assert_ok(commit(), &bfs.err);
    bfs_must_be(NAME "/pgdata", "want");
    end();
}

/* Of two that come to the same place the first keeps it, and is not mixed with the other. */
static void two_writers_do_not_mix(void **state)
{
    (void)state;
    begin("label manifest bulk=5500000");
    uint64_t first = top;
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    top = bfs_make_dir(bfs.top, "other");
    backup_env_run(&bfs.env, "cp -a cluster c2 && head -c 24576 /dev/zero >c2/base/1/1255 && "
                             "tar -C c2 -cf other.tar .");
    bool ok = put("base.tar", "other.tar") && put_manifest("manifest") && commit();
    assert_false(ok);
    assert_non_null(strstr(bfs.err.text, NAME));
    must_be_incomplete();
    top = first;
    assert_ok(put_manifest("manifest"), &bfs.err);
    assert_ok(commit(), &bfs.err);
    must_link("nightly");
    bfs_must_be(NAME "/pgdata", "want");
    end();
}

/* Whatever call of the store fails: an error and nothing, or a whole backup. */
static void no_failure_makes_a_broken_backup(void **state)
{
    unsigned failed = 0;
    bool happened = true;
    (void)state;
    for (unsigned nth = 2; happened; nth++) {
        begin("label manifest");
        fault_at(bfs.env.faults, nth / 2, nth % 2 == 0 ? FAULT_BEFORE : FAULT_AFTER);
        bool ok = back_up(false);
        struct err why = bfs.err;
        happened = fault_happened(bfs.env.faults);
        fault_at(bfs.env.faults, 0, FAULT_BEFORE);
        bfs_unmount(true);
        failed += !ok;
        if (ok) {
            bfs_must_be(NAME "/pgdata", "want");
        } else {
            assert_true(happened);
            assert_int_not_equal(fs_errno(&why), ENOENT);
            must_be_incomplete();
        }
        end();
    }
    assert_true(failed > 5);
}

static void *put_base(void *arg)
{
    *(bool *)arg = put("base.tar", "base.tar");
    return NULL;
}

/* The mount ends while a hung store holds a stream up: the writer is answered, nothing is kept. */
static void the_end_of_the_mount_ends_it(void **state)
{
    bool ok = true;
    pthread_t thread;
    (void)state;
    bfs.partition_bytes = 64u << 20; /* in parts, which wait for each other */
    begin("label bulk=40000000");
    fault_hold(bfs.env.faults, true);
    assert_int_equal(pthread_create(&thread, NULL, put_base, &ok), 0);
    for (unsigned i = 0; fault_held(bfs.env.faults) == 0; i++) {
        assert_true(i < BFS_PATIENCE_MS);
        (void)usleep(1000);
    }
    fs_stop(bfs.fs);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(ok);
    assert_non_null(strstr(bfs.err.text, "the mount ends"));
    fault_hold(bfs.env.faults, false);
    bfs_unmount(true);
    must_be_incomplete();
    bfs_wait_empty();
    end();
    bfs.partition_bytes = 0;
}

struct slow_reader {
    _Atomic bool here, go, gone, stopped, in_order;
};

/* The stream's reader, in its first call of the store. */
static void hold_reader(void *arg, const char *op, const char *key)
{
    struct slow_reader *s = arg;
    (void)op;
    (void)key;
    if (s->here)
        return;
    s->here = true;
    while (!s->go)
        (void)usleep(1000);
    s->in_order = !s->stopped;
    s->gone = true;
}

static void *stop_fs(void *arg)
{
    struct slow_reader *s = arg;
    fs_stop(bfs.fs);
    s->stopped = true;
    return NULL;
}

static void await(const _Atomic bool *what)
{
    for (unsigned i = 0; !*what; i++) {
        assert_true(i < BFS_PATIENCE_MS);
        (void)usleep(1000);
    }
}

/* It is no job of the pool's, but may still give it some: the pool must not go before it. */
static void the_end_of_the_mount_waits_for_its_reader(void **state)
{
    struct slow_reader s = {.here = false};
    bool ok = true;
    pthread_t writer, thread;
    (void)state;
    begin("label manifest");
    fault_set_hook(bfs.env.faults, hold_reader, &s);
    assert_int_equal(pthread_create(&writer, NULL, put_base, &ok), 0);
    await(&s.here);
    assert_int_equal(pthread_create(&thread, NULL, stop_fs, &s), 0);
    for (unsigned i = 0; i < 200 && !s.stopped; i++)
        (void)usleep(1000); /* time to do it wrongly */
    s.go = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_join(writer, NULL), 0);
    await(&s.gone);
    assert_false(ok);
    assert_true(s.in_order);
    fault_set_hook(bfs.env.faults, NULL, NULL);
    end();
}

static void it_is_removed_by_hand(void **state)
{
    (void)state;
    begin("label manifest bulk=5500000");
    assert_ok(put("base.tar", "base.tar"), &bfs.err);
    assert_false(fs_rmdir(bfs.fs, bfs.top, "nightly", &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), ENOTEMPTY);
    assert_ok(fs_unlink(bfs.fs, top, "base.tar", &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_rmdir(bfs.fs, bfs.top, "nightly", &env_forever, &bfs.err), &bfs.err);
    assert_int_equal(bfs_look_up(bfs.top, "nightly"), 0);
    bfs_wait_empty();
    top = bfs_make_dir(bfs.top, "nightly"); /* the name and the place are free */
    assert_ok(back_up(false), &bfs.err);
    bfs_must_be(NAME "/pgdata", "want");
    end();
}

static bool rename_top(const char *from, const char *to)
{
    bfs.err = (struct err)ERR_INIT;
    return fs_rename(bfs.fs, bfs.top, from, bfs.top, to, false, &env_forever, &bfs.err);
}

static void other_renames_are_refused(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("done");
    (void)bfs_make_dir(bfs.top, "a.partial");
    (void)bfs_make_dir(bfs.top, "b");
    (void)bfs_make_dir(bfs.top, "c");
    static const struct {
        const char *from, *to;
        int errnum;
    } cases[] = {{"a.partial", "other", EINVAL}, {"b", "other", EINVAL},
                 {"b", "b.partial", EINVAL},     {"b", "c", EEXIST},
                 {"b", "done", EEXIST},          {"b", NAME, EEXIST},
                 {NAME, "other", EPERM},         {"done", "other", EPERM},
                 {"LATEST", "other", EPERM},     {"a.partial", "a", EPERM}}; /* it is empty */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_false(rename_top(cases[i].from, cases[i].to));
        if (fs_errno(&bfs.err) != cases[i].errnum)
            fail_msg("%s -> %s: %d %s", cases[i].from, cases[i].to, fs_errno(&bfs.err),
                     bfs.err.text);
    }
    bfs_must_be_the_cluster(NAME "/pgdata");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tars_become_a_backup),
        cmocka_unit_test(the_wal_beside_it_is_in_it),
        cmocka_unit_test(what_it_looks_like_meanwhile),
        cmocka_unit_test(a_stream_is_written_from_front_to_back),
        cmocka_unit_test(a_stream_that_breaks_off_is_refused),
        cmocka_unit_test(a_stream_that_nobody_closed_fails_it),
        cmocka_unit_test(a_writer_that_dies_fails_it),
        cmocka_unit_test(a_close_of_another_process_is_none),
        cmocka_unit_test(other_files_beside_tars_are_refused),
        cmocka_unit_test(a_tar_in_a_tree_is_a_file),
        cmocka_unit_test(without_a_manifest_its_fsync_fails),
        cmocka_unit_test(what_pg_basebackup_has_not_ended_is_refused),
        cmocka_unit_test(a_manifest_that_does_not_fit_is_refused),
        cmocka_unit_test(a_stream_that_was_never_begun_is_missed),
        cmocka_unit_test(an_open_stream_holds_the_rename_up),
        cmocka_unit_test(two_writers_do_not_mix),
        cmocka_unit_test(no_failure_makes_a_broken_backup),
        cmocka_unit_test(the_end_of_the_mount_ends_it),
        cmocka_unit_test(the_end_of_the_mount_waits_for_its_reader),
        cmocka_unit_test(it_is_removed_by_hand),
        cmocka_unit_test(other_renames_are_refused),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
