/* basebackups/ as the kernel's side uses it, over a directory store whose calls can fail: what cp
 * and tar do, without a kernel. */
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

#define MIB (1u << 20)
#define NAME BACKUP_NAME

/* So many files are closed that the oldest are archived. */
static void put_many(uint64_t dir)
{
    for (unsigned i = 0; i < 300; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "many%u", i);
        if (!bfs_put_text(dir, name, name))
            fail_msg("%s", bfs.err.text);
    }
}

/* ---- the tests ---- */

static void what_was_copied_in_is_a_backup(void **state)
{
    char target[256];
    (void)state;
    bfs_begin("label bulk=12000000");
    assert_true(bfs_copy_in("nightly"));
    assert_int_equal(bfs_look_up(bfs.top, NAME), 0);
    assert_int_equal(bfs_look_up(bfs.top, "LATEST"), 0);
    assert_ok(bfs_complete("nightly"), &bfs.err);
    backup_env_check(&bfs.env, "cluster");
    bfs_must_be_the_cluster(NAME "/pgdata");
    assert_ok(fs_readlink(bfs.fs, bfs_look_up(bfs.top, "nightly"), target, sizeof(target),
                          &env_forever, &bfs.err),
              &bfs.err);
    assert_string_equal(target, NAME);
    assert_ok(fs_readlink(bfs.fs, bfs_look_up(bfs.top, "LATEST"), target, sizeof(target),
                          &env_forever, &bfs.err),
              &bfs.err);
    assert_string_equal(target, NAME);
    bfs_unmount(true); /* another mount sees the same */
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

/* Whatever call of the store fails: an error and nothing that looks complete, or a whole backup. */
static void no_failure_makes_a_broken_backup(void **state)
{
    (void)state;
    bfs_begin("label");
    unsigned nth = 0, refused = 0;
    bool happened = true;
    while (happened) {
        for (int after = 0; after < 2; after++) {
            fault_at(bfs.env.faults, ++nth / 2 + 1, after ? FAULT_AFTER : FAULT_BEFORE);
            bool ok = bfs_copy_in("nightly") && bfs_complete("nightly");
            happened = fault_happened(bfs.env.faults);
            fault_at(bfs.env.faults, 0, FAULT_BEFORE);
            bfs_unmount(true);
            if (ok) {
                bfs_must_be_the_cluster(NAME "/pgdata");
                if (!happened) /* else the guard may have stayed behind */
                    backup_env_check(&bfs.env, "cluster");
            } else {
                refused++;
                assert_int_equal(bfs_look_up(bfs.top, "nightly"), 0);
                assert_false(backup_env_has(&bfs.env, BACKUP_DIR BACKUP_SENTINEL_SUFFIX));
            }
            struct backup_objects o;
            assert_true(backup_delete(bfs.env.files.store, NAME, &env_forever, &bfs.err));
            assert_true(backup_objects_load(bfs.env.files.store, NAME, &o, &env_forever, &bfs.err));
            assert_int_equal(o.count, 0);
            backup_objects_free(&o);
            backup_env_run(&bfs.env, "rm -rf '%s'/basebackups_005", bfs.env.files.dir);
            bfs_unmount(true);
        }
    }
    assert_in_range(refused, 3, nth);
    bfs_end();
}

/* Whoever has been told where the bytes lie finds them there, though the file is archived, and its
 * descriptor would be another's, before he has taken them. */
static void what_is_read_is_not_taken_away(void **state)
{
    struct handle *h;
    struct fs_bytes bytes;
    char got[8];
    (void)state;
    bfs_begin("label");
    uint64_t top = bfs_make_dir(bfs.top, "x");
    assert_true(bfs_put_text(top, "first", "first!"));
    assert_ok(
        fs_open(bfs.fs, bfs_look_up(top, "first"), O_RDONLY, BFS_PID, &h, &env_forever, &bfs.err),
        &bfs.err);
    assert_ok(fs_read(bfs.fs, h, 0, 100, &bytes, &env_forever, &bfs.err), &bfs.err);
    put_many(top);
    assert_int_equal(pread(bytes.fd, got, sizeof(got), (off_t)bytes.offset), 6);
    assert_memory_equal(got, "first!", 6);
    fs_read_done(&bytes);
    assert_false(fs_read(bfs.fs, h, 0, 100, &bytes, &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EOPNOTSUPP);
    fs_release(bfs.fs, h);
    bfs_end();
}

static void must_be_text(uint64_t id, const char *text)
{
    if (id == 0)
        fail_msg("%s", bfs.err.text);
    char *got = bfs_read_file(id, strlen(text));
    assert_memory_equal(got, text, strlen(text));
    free(got);
}

/* What somebody is just writing would be cut: the rename waits for its author, not for us. */
static void an_open_writer_keeps_it_from_being_completed(void **state)
{
    struct fs_entry e;
    struct handle *h;
    (void)state;
    bfs_begin("label");
    assert_true(bfs_copy_in("x"));
    uint64_t top = bfs_look_up(bfs.top, "x.partial");
    assert_ok(
        fs_create(bfs.fs, top, "half", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever, &bfs.err),
        &bfs.err);
    assert_ok(fs_write(bfs.fs, h, "first ", 6, 0, &env_forever, &bfs.err), &bfs.err);
    assert_false(bfs_complete("x"));
    assert_int_equal(fs_errno(&bfs.err), EBUSY);
    assert_non_null(strstr(bfs.err.text, "half"));
    assert_ok(fs_write(bfs.fs, h, "second", 6, 6, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err), &bfs.err);
    fs_release(bfs.fs, h);
    assert_ok(
        fs_open(bfs.fs, bfs_look_up(top, "half"), O_RDWR, BFS_PID, &h, &env_forever, &bfs.err),
        &bfs.err);
    assert_false(bfs_complete("x")); /* opened is enough */
    assert_int_equal(fs_errno(&bfs.err), EBUSY);
    assert_true(bfs_put_text(top, "later", "also this"));
    assert_ok(fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err), &bfs.err);
    fs_release(bfs.fs, h);
    if (!bfs_complete("x"))
        fail_msg("%s", bfs.err.text);
    must_be_text(bfs_walk(bfs.top, NAME "/pgdata/half"), "first second");
    must_be_text(bfs_walk(bfs.top, NAME "/pgdata/later"), "also this");
    bfs_end();
}

/* cp over a file that is there, and a shell's ">", truncate by their open. */
static void an_open_that_truncates_leaves_nothing_of_the_old_content(void **state)
{
    struct handle *h;
    (void)state;
    bfs_begin("label");
    assert_true(bfs_copy_in("x"));
    uint64_t top = bfs_look_up(bfs.top, "x.partial");
    assert_true(bfs_put_text(top, "file", "the content of the first copy"));
    assert_true(bfs_put_text(top, "none", "something"));
    uint64_t file = bfs_look_up(top, "file"), none = bfs_look_up(top, "none");
    assert_ok(fs_open(bfs.fs, file, O_WRONLY | O_TRUNC, BFS_PID, &h, &env_forever, &bfs.err),
              &bfs.err);
    assert_ok(fs_write(bfs.fs, h, "second", 6, 0, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err), &bfs.err);
    fs_release(bfs.fs, h);
    assert_ok(fs_open(bfs.fs, none, O_WRONLY | O_TRUNC, BFS_PID, &h, &env_forever, &bfs.err),
              &bfs.err);
    assert_ok(fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err), &bfs.err);
    fs_release(bfs.fs, h);
    if (!bfs_complete("x"))
        fail_msg("%s", bfs.err.text);
    must_be_text(bfs_walk(bfs.top, NAME "/pgdata/file"), "second");
    must_be_text(bfs_walk(bfs.top, NAME "/pgdata/none"), "");
    bfs_end();
    bfs_begin("label"); /* of what is archived already nothing can be cut off */
    assert_true(bfs_copy_in("x"));
    top = bfs_look_up(bfs.top, "x.partial");
    put_many(top);
    assert_false(fs_open(bfs.fs, bfs_look_up(top, "many0"), O_WRONLY | O_TRUNC, BFS_PID, &h,
                         &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EBUSY);
    assert_false(bfs_complete("x"));
    bfs_end();
}

static void *release_later(void *handle)
{
    (void)usleep(100000);
    fs_release(bfs.fs, handle);
    return NULL;
}

/* The kernel sends a release after close() has returned: it may come after the rename. */
static void a_close_whose_release_is_on_its_way_is_waited_for(void **state)
{
    struct fs_entry e;
    struct handle *h;
    pthread_t thread;
    (void)state;
    bfs_begin("label");
    assert_true(bfs_copy_in("x"));
    uint64_t top = bfs_look_up(bfs.top, "x.partial");
    assert_ok(
        fs_create(bfs.fs, top, "file", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever, &bfs.err),
        &bfs.err);
    assert_ok(fs_write(bfs.fs, h, "whole", 5, 0, &env_forever, &bfs.err), &bfs.err);
    assert_ok(fs_flush(bfs.fs, h, BFS_PID, &env_forever, &bfs.err), &bfs.err);
    assert_int_equal(pthread_create(&thread, NULL, release_later, h), 0);
    bool ok = bfs_complete("x");
    pthread_join(thread, NULL);
    if (!ok)
        fail_msg("%s", bfs.err.text);
    must_be_text(bfs_walk(bfs.top, NAME "/pgdata/file"), "whole");
    bfs_end();
}

struct late {
    uint64_t top, file;
    unsigned tries, refused;
};

static void count(struct late *l, bool ok, const struct err *why)
{
    l->tries++;
    l->refused += !ok && fs_errno(why) == EBUSY;
}

/* Tries to change the backup while its commit is in the middle of storing. */
static void change_it(void *arg, const char *op, const char *key)
{
    struct late *l = arg;
    struct fs_entry e;
    struct handle *h;
    struct err why = ERR_INIT;
    const struct fs_setattr cut = {.set_size = true, .size = 0};
    const struct fs_setattr mode = {.set_mode = true, .mode = 0640};
    if (strcmp(op, "put") != 0 || strstr(key, "extended_version") == NULL)
        return;
    count(l, fs_create(bfs.fs, l->top, "new", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever, &why),
          &why);
    count(l, fs_open(bfs.fs, l->file, O_WRONLY, BFS_PID, &h, &env_forever, &why), &why);
    count(l, fs_mkdir(bfs.fs, l->top, "newdir", 0700, &e, &env_forever, &why), &why);
    count(l, fs_symlink(bfs.fs, l->top, "newlink", "x", &e, &env_forever, &why), &why);
    count(l, fs_setattr(bfs.fs, l->file, &cut, NULL, &e, &env_forever, &why), &why);
    count(l, fs_setattr(bfs.fs, l->file, &mode, NULL, &e, &env_forever, &why), &why);
    count(l, fs_unlink(bfs.fs, l->top, "PG_VERSION", &env_forever, &why), &why);
    count(l, fs_rmdir(bfs.fs, l->top, "pg_replslot", &env_forever, &why), &why);
    count(l, fs_rename(bfs.fs, l->top, "PG_VERSION", l->top, "x", false, &env_forever, &why), &why);
}

/* Whatever a call that succeeded has made is in the backup, since after its commit has begun none
 * succeeds. */
static void nothing_changes_while_it_is_completed(void **state)
{
    (void)state;
    bfs_begin("label");
    assert_true(bfs_copy_in("x"));
    struct late late = {.top = bfs_look_up(bfs.top, "x.partial")};
    late.file = bfs_look_up(late.top, "PG_VERSION");
    fault_set_hook(bfs.env.faults, change_it, &late);
    if (!bfs_complete("x"))
        fail_msg("%s", bfs.err.text);
    fault_set_hook(bfs.env.faults, NULL, NULL);
    assert_int_equal(late.tries, 9);
    assert_int_equal(late.refused, 9);
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

/* cp says what it could not do, and goes on: what it could not do must not be missed later. */
static void what_cannot_be_made_fails_the_backup(void **state)
{
    struct fs_entry e;
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bfs_begin("label");
        assert_true(bfs_copy_in("x"));
        uint64_t top = bfs_look_up(bfs.top, "x.partial");
        struct handle *h;
        bool ok = true;
        if (i == 0) { /* no place to stage it */
            backup_env_run(&bfs.env, "mkdir other && mv cluster other/");
            char dir[80];
            (void)snprintf(dir, sizeof(dir), "%s.away", bfs.env.dir);
            assert_int_equal(rename(bfs.env.dir, dir), 0);
            ok = bfs_put_text(top, "new", "text");
            assert_int_equal(rename(dir, bfs.env.dir), 0);
        } else if (i == 1) {
            ok = fs_link(bfs.fs, top, "hard", &bfs.err);
        } else if (i == 2) { /* archived already, and then other content */
            put_many(top);
            assert_ok(fs_open(bfs.fs, bfs_look_up(top, "many0"), O_WRONLY, BFS_PID, &h,
                              &env_forever, &bfs.err),
                      &bfs.err);
            ok = fs_write(bfs.fs, h, "other", 5, 0, &env_forever, &bfs.err);
            assert_int_equal(fs_errno(&bfs.err), EBUSY);
            fs_release(bfs.fs, h);
        } else { /* archived already, and then replaced, which is what rsync does */
            put_many(top);
            assert_true(bfs_put_text(top, ".many0.x", "other"));
            ok = fs_rename(bfs.fs, top, ".many0.x", top, "many0", false, &env_forever, &bfs.err);
            assert_int_equal(fs_errno(&bfs.err), EBUSY);
        }
        assert_false(ok);
        assert_false(bfs_complete("x"));
        assert_int_equal(bfs_look_up(bfs.top, "x"), 0);
        bfs_end();
    }
    bfs_begin("label"); /* names that are taken are no loss */
    assert_true(bfs_copy_in("x"));
    uint64_t top = bfs_look_up(bfs.top, "x.partial");
    assert_false(fs_mkdir(bfs.fs, top, "global", 0700, &e, &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EEXIST);
    assert_false(fs_rmdir(bfs.fs, top, "global", &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), ENOTEMPTY);
    assert_false(fs_unlink(bfs.fs, top, "nothing", &env_forever, &bfs.err));
    assert_ok(bfs_complete("x"), &bfs.err);
    bfs_end();
}

/* A change that a tar header can no longer take is an error, and what would change nothing none. */
static void facts_are_kept_or_refused(void **state)
{
    struct fs_entry e;
    (void)state;
    bfs_begin("label");
    assert_true(bfs_copy_in("x"));
    uint64_t top = bfs_look_up(bfs.top, "x.partial");
    assert_true(bfs_put_text(top, ".first.AbC123", "first"));
    put_many(top);
    uint64_t old = bfs_look_up(top, "many0"), last = bfs_look_up(top, "many299");
    const struct fs_setattr sets[] = {
        {.set_owner = true, .uid = 4321, .gid = (gid_t)-1},
        {.set_owner = true, .uid = (uid_t)-1, .gid = 4322},
        {.set_mtime = true, .mtime_s = 1000000000, .mtime_ns = 5},
        {.set_mode = true, .mode = 0640},
    };
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        assert_false(fs_setattr(bfs.fs, old, &sets[i], NULL, &e, &env_forever, &bfs.err));
        assert_int_equal(fs_errno(&bfs.err), EBUSY);
        assert_ok(fs_setattr(bfs.fs, last, &sets[i], NULL, &e, &env_forever, &bfs.err), &bfs.err);
        /* rsync names its file when it is closed, however late */
        assert_ok(fs_setattr(bfs.fs, bfs_look_up(top, ".first.AbC123"), &sets[i], NULL, &e,
                             &env_forever, &bfs.err),
                  &bfs.err);
    }
    assert_ok(fs_rename(bfs.fs, top, ".first.AbC123", top, "first", false, &env_forever, &bfs.err),
              &bfs.err);
    assert_ok(fs_getattr(bfs.fs, old, NULL, &e, &env_forever, &bfs.err), &bfs.err);
    const struct fs_setattr same = {.set_owner = true,
                                    .set_mode = true,
                                    .set_mtime = true,
                                    .uid = e.attr.st_uid,
                                    .gid = e.attr.st_gid,
                                    .mode = e.attr.st_mode & 07777,
                                    .mtime_s = e.attr.st_mtim.tv_sec,
                                    .mtime_ns = (uint32_t)e.attr.st_mtim.tv_nsec};
    assert_ok(fs_setattr(bfs.fs, old, &same, NULL, &e, &env_forever, &bfs.err), &bfs.err);
    assert_ok(bfs_complete("x"), &bfs.err);
    static const char *const changed[] = {"first", "many299"};
    for (size_t i = 0; i < 2; i++) {
        uint64_t id = bfs_look_up(bfs_walk(bfs.top, NAME "/pgdata"), changed[i]);
        assert_ok(fs_getattr(bfs.fs, id, NULL, &e, &env_forever, &bfs.err), &bfs.err);
        assert_int_equal(e.attr.st_uid, 4321);
        assert_int_equal(e.attr.st_gid, 4322);
        assert_int_equal(e.attr.st_mode, S_IFREG | 0640);
        assert_int_equal(e.attr.st_mtim.tv_sec, 1000000000);
        assert_int_equal(e.attr.st_mtim.tv_nsec, 5);
    }
    bfs_end();
}

/* Where a plain pg_basebackup puts a tablespace, and the link to it, are refused when they come. */
static void tablespaces_elsewhere_are_refused_at_once(void **state)
{
    struct fs_entry e;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        bfs_begin("label");
        uint64_t top = bfs_make_dir(bfs.top, i == 1 ? "x.partial" : "x");
        uint64_t spaces = bfs_make_dir(top, "pg_tblspc"), in_place = bfs_make_dir(spaces, "16384");
        (void)bfs_make_dir(in_place, "PG_15_202209061"); /* allow_in_place_tablespaces */
        (void)bfs_make_dir(top, "PG_is_no_version_1");
        assert_ok(fs_symlink(bfs.fs, spaces, "other", "/x", &e, &env_forever, &bfs.err), &bfs.err);
        bool ok = i < 2 ? fs_symlink(bfs.fs, spaces, "16385", "/srv/ts", &e, &env_forever, &bfs.err)
                        : fs_mkdir(bfs.fs, bfs_make_dir(top, "ts"), "PG_9.6_201608131", 0700, &e,
                                   &env_forever, &bfs.err);
        assert_false(ok);
        assert_int_equal(fs_errno(&bfs.err), EINVAL);
        assert_non_null(strstr(bfs.err.text, "pg_basebackup -Ft"));
        struct handle *h; /* and nothing more is taken */
        assert_false(
            fs_create(bfs.fs, top, "f", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever, &bfs.err));
        bfs_end();
    }
    bfs_begin("label"); /* in a copy a directory may have any name */
    (void)bfs_make_dir(bfs_make_dir(bfs_make_dir(bfs.top, "x.partial"), "ts"), "PG_9.6_201608131");
    bfs_end();
}

static void given_up_it_leaves_nothing(void **state)
{
    (void)state;
    bfs_begin("label bulk=12000000");
    assert_true(bfs_copy_in("nightly"));
    bfs_unmount(true); /* as if walefs had ended in the middle */
    assert_int_equal(bfs_look_up(bfs.top, "nightly"), 0);
    assert_int_equal(bfs_look_up(bfs.top, "nightly.partial"), 0);
    assert_int_equal(bfs_look_up(bfs.top, NAME), 0);
    bfs_wait_empty();
    bfs_end();
}

static void what_is_no_cluster_is_refused(void **state)
{
    static const char *const needed[] = {"PG_VERSION", "global/pg_control"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bfs_begin("label");
        backup_env_run(&bfs.env, "rm cluster/%s", needed[i]);
        assert_true(bfs_copy_in("x"));
        assert_false(bfs_complete("x"));
        assert_int_equal(fs_errno(&bfs.err), EPERM);
        assert_non_null(strstr(bfs.err.text, needed[i]));
        assert_int_equal(bfs_look_up(bfs.top, "x"), 0);
        bfs_end();
    }
    bfs_begin("label pid");
    assert_true(bfs_copy_in("x"));
    assert_false(bfs_complete("x"));
    assert_non_null(strstr(bfs.err.text, "postmaster.pid"));
    bfs_end();
}

static bool attribute(uint64_t id, const char *name, char out[256])
{
    struct buf value = BUF_INIT(255);
    bfs.err = (struct err)ERR_INIT;
    bool ok = fs_getxattr(bfs.fs, id, name, &value, &env_forever, &bfs.err);
    (void)snprintf(out, 256, "%s", buf_str(&value));
    buf_free(&value);
    return ok;
}

/* Partitions list theirs; files of the tree have some, but list none, since a restored cluster is
 * not to carry them. */
static void attributes_of_files(void **state)
{
    char tar[256], file[256], sum[256];
    struct buf names = BUF_INIT(4096);
    (void)state;
    bfs_begin("");
    bfs_must_back_up("labelled");
    uint64_t part = bfs_walk(bfs.top, NAME "/tar/part_00000000.tar");
    uint64_t version = bfs_walk(bfs.top, NAME "/pgdata/PG_VERSION");
    assert_true(part != 0 && version != 0);
    assert_true(attribute(part, "user.walefs.key", tar));
    assert_string_equal(tar, BACKUP_DIR "/tar_partitions/part_00000000.tar.lzo");
    assert_true(attribute(part, "user.walefs.checksum", sum));
    assert_int_equal(strncmp(sum, "sha256:", 7), 0);
    assert_int_equal(strlen(sum), 7 + 64);
    assert_true(fs_listxattr(bfs.fs, part, &names, &env_forever, &bfs.err));
    assert_true(names.len > 0);
    names.len = 0;
    assert_true(attribute(version, "user.walefs.key", file));
    assert_int_equal(strncmp(file, BACKUP_DIR "/tar_partitions/part_", 40), 0);
    assert_true(attribute(version, "user.walefs.offset", file));
    assert_true(fs_listxattr(bfs.fs, version, &names, &env_forever, &bfs.err));
    assert_int_equal(names.len, 0);
    assert_true(
        fs_listxattr(bfs.fs, bfs_walk(bfs.top, NAME "/pgdata"), &names, &env_forever, &bfs.err));
    assert_int_equal(names.len, 0);
    buf_free(&names);
    bfs_end();
}

static void names_that_cannot_be_a_label(void **state)
{
    static const char *const bad[] = {"LATEST",
                                      "LATEST.partial",
                                      NAME,
                                      NAME ".partial",
                                      "walefs-tmp-0123456789abcdef0123456789abcdef",
                                      "base_x.partial",
                                      "..partial",
                                      "...partial",
                                      "caf\xe9", /* the sentinel is JSON */
                                      "caf\xe9.partial"};
    struct fs_entry e;
    (void)state;
    bfs_begin("label");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (fs_mkdir(bfs.fs, bfs.top, bad[i], 0700, &e, &env_forever, &bfs.err))
            fail_msg("%s was made", bad[i]);
        assert_int_equal(fs_errno(&bfs.err), EINVAL);
    }
    bfs_must_back_up("caf\xc3\xa9");
    bfs_end();
}

static void a_second_one_at_the_same_place_is_refused(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("one");
    bool ok = bfs_copy_in("two") && bfs_complete("two");
    assert_false(ok);
    bfs_unmount(true);
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

static void complete_ones_do_not_change(void **state)
{
    struct fs_entry e;
    struct handle *h;
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    uint64_t data = bfs_walk(bfs.top, NAME "/pgdata"), file = bfs_look_up(data, "PG_VERSION");
    assert_false(fs_open(bfs.fs, file, O_WRONLY, BFS_PID, &h, &env_forever, &bfs.err));
    assert_ok(fs_open(bfs.fs, file, O_RDWR, BFS_PID, &h, &env_forever, &bfs.err),
              &bfs.err); /* some only look so */
    assert_false(fs_write(bfs.fs, h, "x", 1, 0, &env_forever, &bfs.err));
    fs_release(bfs.fs, h);
    assert_false(
        fs_create(bfs.fs, data, "new", O_WRONLY, 0600, BFS_PID, &e, &h, &env_forever, &bfs.err));
    assert_false(fs_mkdir(bfs.fs, data, "new", 0700, &e, &env_forever, &bfs.err));
    assert_false(fs_unlink(bfs.fs, data, "PG_VERSION", &env_forever, &bfs.err));
    assert_false(fs_rmdir(bfs.fs, data, "pg_replslot", &env_forever, &bfs.err));
    assert_false(fs_rename(bfs.fs, data, "PG_VERSION", data, "x", false, &env_forever, &bfs.err));
    assert_false(fs_symlink(bfs.fs, data, "l", "/", &e, &env_forever, &bfs.err));
    const struct fs_setattr cut = {.set_size = true, .size = 0};
    assert_false(fs_setattr(bfs.fs, file, &cut, NULL, &e, &env_forever, &bfs.err));
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

static void rmdir_deletes_a_backup(void **state)
{
    (void)state;
    bfs_begin("label bulk=12000000");
    bfs_must_back_up("x");
    assert_ok(fs_rmdir(bfs.fs, bfs.top, NAME, &env_forever, &bfs.err), &bfs.err);
    assert_int_equal(bfs_look_up(bfs.top, NAME), 0);
    assert_int_equal(bfs_look_up(bfs.top, "x"), 0);
    assert_int_equal(bfs_look_up(bfs.top, "LATEST"), 0);
    bfs_wait_empty();
    bfs_must_back_up("x"); /* the name and the place are free again */
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

static void rmdir_needs_the_option(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    bfs_unmount(false);
    bfs_mount(true, false);
    assert_false(fs_rmdir(bfs.fs, bfs.top, NAME, &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EPERM);
    assert_non_null(strstr(bfs.err.text, "allow_delete"));
    bfs_must_be_the_cluster(NAME "/pgdata");
    bfs_end();
}

static void in_the_store(const char *format)
{
    char command[512];
    (void)snprintf(command, sizeof(command), format, bfs.env.files.dir);
    assert_int_equal(system(command), 0);
}

/* It was complete once: deleting it like a rest takes away what its sentinel, restored, would make
 * a backup again. */
static void rmdir_refuses_what_has_an_unreadable_sentinel(void **state)
{
#define SENTINEL "%1$s/basebackups_005/" NAME "_backup_stop_sentinel.json"
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    for (int frozen = 0; frozen < 2; frozen++) {
        if (frozen)
            fault_freeze(bfs.env.faults, "sentinel");
        else
            in_the_store("mv " SENTINEL " %1$s/kept && head -c 40 %1$s/kept >" SENTINEL);
        bfs_unmount(true);
        uint64_t top = bfs_look_up(bfs.top, NAME); /* it is there, and cannot be read */
        assert_int_not_equal(top, 0);
        assert_int_equal(bfs_look_up(top, "backup.json"), 0);
        assert_int_equal(fs_errno(&bfs.err), EIO);
        assert_int_equal(bfs.err.code, frozen ? ERR_FROZEN : ERR_CORRUPT);
        assert_int_equal(bfs_look_up(bfs.top, "x"), 0); /* which name it has is not known */
        if (frozen)
            fault_freeze(bfs.env.faults, NULL);
        else
            in_the_store("mv %1$s/kept " SENTINEL);
        bfs_unmount(true);
        bfs_must_be_the_cluster(NAME "/pgdata");
    }
    in_the_store("mv " SENTINEL " %1$s/kept && head -c 40 %1$s/kept >" SENTINEL);
    assert_false(fs_rmdir(bfs.fs, bfs.top, NAME, &env_forever, &bfs.err));
    assert_int_equal(fs_errno(&bfs.err), EPERM);
    assert_non_null(
        strstr(bfs.err.text, "restore basebackups_005/" NAME "_backup_stop_sentinel.json"));
    assert_non_null(strstr(bfs.err.text, "delete that object"));
    in_the_store("mv %1$s/kept " SENTINEL);
    bfs_must_be_the_cluster(NAME "/pgdata");
    in_the_store(": >" SENTINEL);
    assert_false(fs_rmdir(bfs.fs, bfs.top, NAME, &env_forever, &bfs.err));
    in_the_store("rm " SENTINEL); /* the deliberate act */
    assert_ok(fs_rmdir(bfs.fs, bfs.top, NAME, &env_forever, &bfs.err), &bfs.err);
    bfs_wait_empty();
    bfs_end();
#undef SENTINEL
}

/* Without one that fits, the index is made anew, by one pass over the partitions. */
static void an_index_that_does_not_fit_is_not_trusted(void **state)
{
    static const char *const damage[] = {
        "rm '%s'/" BACKUP_DIR "/tar_partitions/walefs-index.lzo",
        ": >'%s'/" BACKUP_DIR "/tar_partitions/walefs-index.lzo",
        "printf x | dd conv=notrunc bs=1 seek=200 status=none of='%s'/" BACKUP_DIR
        "/tar_partitions/walefs-index.lzo",
        /* a partition that was coded again: other blocks, another etag */
        "cd '%s'/" BACKUP_DIR "/tar_partitions && for p in part_*; do lzop -dc $p | lzop -1 -c >n "
        "&& touch n && mv n $p; done"};
    (void)state;
    bfs_begin("label bulk=12000000");
    bfs_must_back_up("x");
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        bfs_unmount(false);
        backup_env_run(&bfs.env, damage[i], bfs.env.files.dir);
        bfs_mount(true, true);
        bfs_must_be_the_cluster(NAME "/pgdata");
        for (unsigned k = 0; i < 3; k++) { /* and stored, whole, in the place of the old one */
            size_t size = 0;
            char path[256];
            struct stat st;
            (void)snprintf(path, sizeof(path), "%s/%s/tar_partitions/walefs-index.lzo",
                           bfs.env.files.dir, BACKUP_DIR);
            if (stat(path, &st) == 0)
                size = (size_t)st.st_size;
            if (size > 100)
                break;
            assert_true(k < BFS_PATIENCE_MS);
            (void)usleep(1000);
        }
    }
    bfs_end();
}

static void a_read_only_mount_stores_nothing(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    bfs_unmount(false);
    backup_env_run(&bfs.env, "rm '%s'/" BACKUP_DIR "/tar_partitions/walefs-index.lzo",
                   bfs.env.files.dir);
    bfs_mount(false, false);
    bfs_must_be_the_cluster(NAME "/pgdata");
    assert_false(backup_env_has(&bfs.env, BACKUP_DIR "/tar_partitions/walefs-index.lzo"));
    struct fs_entry e;
    assert_false(fs_mkdir(bfs.fs, bfs.top, "y.partial", 0700, &e, &env_forever, &bfs.err));
    bfs_end();
}

/* A partition that is lost must not look like a smaller cluster: neither by the sentinel that
 * walefs wrote, nor by a gap, nor by the index. */
static void a_lost_partition_is_an_error(void **state)
{
    static const char *const loss[] = {
        "rm '%s'/" BACKUP_DIR "/tar_partitions/part_00000002.tar.lzo",
        "cd '%s'/" BACKUP_PREFIX " && rm $(ls " NAME "/tar_partitions/part_* | tail -n 1)",
        "cd '%s'/" BACKUP_PREFIX " && rm " NAME
        "/tar_partitions/walefs-index.lzo && echo {} >" NAME BACKUP_SENTINEL_SUFFIX " && rm " NAME
        "/tar_partitions/part_00000001.tar.lzo",
        "cd '%s'/" BACKUP_PREFIX " && echo {} >" NAME BACKUP_SENTINEL_SUFFIX " && rm $(ls " NAME
        "/tar_partitions/part_* | tail -n 1)",
        "rm '%s'/" BACKUP_DIR "/tar_partitions/part_*",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(loss) / sizeof(loss[0]); i++) {
        bfs_begin("label bulk=12000000");
        bfs_must_back_up("x");
        bfs_unmount(false);
        backup_env_run(&bfs.env, loss[i], bfs.env.files.dir);
        bfs_mount(i % 2 == 0, false);
        if (bfs_walk(bfs.top, NAME "/pgdata/PG_VERSION") != 0)
            fail_msg("not noticed: %s", loss[i]);
        assert_int_equal(fs_errno(&bfs.err), EIO);
        assert_non_null(strstr(bfs.err.text, "partition"));
        bfs_end();
    }
}

/* Nor is one that was replaced by another sound partition shown as if it had been written so: the
 * sentinel's checksums tell. */
static void a_replaced_partition_is_an_error(void **state)
{
    static const char *const change[] = {
        /* another one of the same backup */
        "cp part_00000002.tar.lzo part_00000001.tar.lzo",
        "cp part_00000002.tar.lzo part_00000001.tar.lzo && rm walefs-index.lzo",
        /* the same files, with one byte changed */
        ("lzop -dc part_00000001.tar.lzo >t && printf x | dd conv=notrunc bs=1 seek=700000 "
         "status=none of=t && lzop -c <t >part_00000001.tar.lzo && rm t walefs-index.lzo"),
        /* so that it is stored with as many bytes, and the index could be taken for its */
        ("lzop -dc part_00000001.tar.lzo >t && printf x | dd conv=notrunc bs=1 seek=700000 "
         "status=none of=t && cp part_00000001.tar.lzo old && lzop -c <t >part_00000001.tar.lzo && "
         "test $(stat -c %s old) = $(stat -c %s part_00000001.tar.lzo) && rm t old"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
        bfs_begin("label bulk=16000000");
        bfs_must_back_up("x");
        bfs_unmount(false);
        backup_env_run(&bfs.env, "cd '%s'/" BACKUP_DIR "/tar_partitions && %s", bfs.env.files.dir,
                       change[i]);
        bfs_mount(i % 2 == 0, false);
        if (bfs_walk(bfs.top, NAME "/pgdata/PG_VERSION") != 0)
            fail_msg("not noticed: %s", change[i]);
        assert_int_equal(fs_errno(&bfs.err), EIO);
        assert_non_null(strstr(bfs.err.text, "partition"));
        bfs_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_copied_in_is_a_backup),
        cmocka_unit_test(no_failure_makes_a_broken_backup),
        cmocka_unit_test(what_is_read_is_not_taken_away),
        cmocka_unit_test(an_open_writer_keeps_it_from_being_completed),
        cmocka_unit_test(an_open_that_truncates_leaves_nothing_of_the_old_content),
        cmocka_unit_test(a_close_whose_release_is_on_its_way_is_waited_for),
        cmocka_unit_test(nothing_changes_while_it_is_completed),
        cmocka_unit_test(what_cannot_be_made_fails_the_backup),
        cmocka_unit_test(facts_are_kept_or_refused),
        cmocka_unit_test(tablespaces_elsewhere_are_refused_at_once),
        cmocka_unit_test(given_up_it_leaves_nothing),
        cmocka_unit_test(what_is_no_cluster_is_refused),
        cmocka_unit_test(attributes_of_files),
        cmocka_unit_test(names_that_cannot_be_a_label),
        cmocka_unit_test(a_second_one_at_the_same_place_is_refused),
        cmocka_unit_test(complete_ones_do_not_change),
        cmocka_unit_test(rmdir_deletes_a_backup),
        cmocka_unit_test(rmdir_needs_the_option),
        cmocka_unit_test(rmdir_refuses_what_has_an_unreadable_sentinel),
        cmocka_unit_test(an_index_that_does_not_fit_is_not_trusted),
        cmocka_unit_test(a_read_only_mount_stores_nothing),
        cmocka_unit_test(a_lost_partition_is_an_error),
        cmocka_unit_test(a_replaced_partition_is_an_error),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
