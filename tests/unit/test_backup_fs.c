/* basebackups/ as the kernel's side uses it, over a directory store whose calls can fail: what cp
 * and tar do, without a kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup_env.h"
#include "core/catalog.h"
#include "core/log.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/inode.h"

#define MIB (1u << 20)
#define NAME BACKUP_NAME
#define PATIENCE_MS 20000
#define ME ((pid_t)1)

static struct backup_env env;
static struct fs *fs;
static uint64_t backups;
static struct err err;
static const struct call endless = CALL_INIT;

static uint64_t look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    err = (struct err)ERR_INIT;
    return fs_lookup(fs, dir, name, ME, &e, &endless, &err) ? e.id : 0;
}

/* PATH below DIR. */
static uint64_t walk(uint64_t dir, const char *path)
{
    char name[256];
    while (dir != 0 && *path != '\0') {
        size_t n = strcspn(path, "/");
        memcpy(name, path, n);
        name[n] = '\0';
        dir = look_up(dir, name);
        path += n + (path[n] == '/');
    }
    return dir;
}

static void mount_fs(bool writable, bool allow_delete)
{
    const struct fs_options options = {.store = env.store,
                                       .pgp = env.pgp,
                                       .pool = env.pool,
                                       .uid = getuid(),
                                       .gid = getgid(),
                                       .true_owners = true,
                                       .read_only = !writable,
                                       .allow_delete = allow_delete,
                                       .write_timeout_ms = 5000,
                                       .soft_timeout_ms = 1000,
                                       .cache_dir = env.dir,
                                       .cache_bytes = 64u * MIB,
                                       .partition_bytes = 5u * MIB};
    fs = fs_new(&options, &err);
    assert_non_null(fs);
    backups = look_up(INODE_ROOT, "basebackups");
    assert_int_not_equal(backups, 0);
}

/* The pool goes with it. */
static void unmount_fs(bool again)
{
    fs_stop(fs);
    pool_free(env.pool);
    fs_free(fs);
    env.pool = pool_new(32, 1000, &err);
    assert_non_null(env.pool);
    if (again)
        mount_fs(true, true);
}

static void begin(const char *words)
{
    backup_env_begin(&env, words, NULL, NULL, 2);
    mount_fs(true, true);
}

static void end(void)
{
    unmount_fs(false);
    backup_env_end(&env);
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
    return fs_setattr(fs, id, &set, h, &e, &endless, &err);
}

static bool put_file(uint64_t dir, const char *name, const char *path, const struct stat *st)
{
    char buf[65536];
    struct fs_entry e;
    struct handle *h;
    if (!fs_create(fs, dir, name, O_WRONLY | O_EXCL, 0600, ME, &e, &h, &endless, &err))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t at = 0;
    ssize_t n;
    bool ok = fd >= 0;
    while (ok && (n = read(fd, buf, sizeof(buf))) > 0) {
        ok = fs_write(fs, h, buf, (size_t)n, at, &endless, &err);
        at += (uint64_t)n;
    }
    ok = ok && set_facts(e.id, st, h);
    ok = fs_flush(fs, h, ME, &endless, &err) && ok;
    fs_release(fs, h);
    (void)close(fd);
    return ok;
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
            ok = fs_mkdir(fs, to, entry->d_name, 0700, &e, &endless, &err) &&
                 put_tree(e.id, path) && set_facts(e.id, &st, NULL);
        else
            ok = put_file(to, entry->d_name, path, &st);
    }
    (void)closedir(d);
    return ok;
}

/* mkdir LABEL.partial, cp -a cluster/. into it. */
static bool copy_in(const char *label)
{
    char name[64], from[128];
    struct stat st;
    struct fs_entry e;
    (void)snprintf(name, sizeof(name), "%s.partial", label);
    (void)snprintf(from, sizeof(from), "%s/cluster", env.dir);
    err = (struct err)ERR_INIT;
    assert_int_equal(stat(from, &st), 0);
    return fs_mkdir(fs, backups, name, 0700, &e, &endless, &err) && put_tree(e.id, from) &&
           set_facts(e.id, &st, NULL);
}

/* mv LABEL.partial LABEL */
static bool complete(const char *label)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.partial", label);
    return fs_rename(fs, backups, name, backups, label, true, &endless, &err);
}

static void must_back_up(const char *label)
{
    if (!copy_in(label) || !complete(label))
        fail_msg("%s", err.text);
}

/* A file that is written and closed. */
static bool put_text(uint64_t dir, const char *name, const char *text)
{
    struct fs_entry e;
    struct handle *h;
    if (!fs_create(fs, dir, name, O_WRONLY | O_EXCL, 0600, ME, &e, &h, &endless, &err))
        return false;
    bool ok = fs_write(fs, h, text, strlen(text), 0, &endless, &err);
    ok = fs_flush(fs, h, ME, &endless, &err) && ok;
    fs_release(fs, h);
    return ok;
}

/* So many files are closed that the oldest are archived. */
static void put_many(uint64_t dir)
{
    for (unsigned i = 0; i < 300; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "many%u", i);
        if (!put_text(dir, name, name))
            fail_msg("%s", err.text);
    }
}

static uint64_t make_dir(uint64_t dir, const char *name)
{
    struct fs_entry e;
    assert_ok(fs_mkdir(fs, dir, name, 0700, &e, &endless, &err), &err);
    return e.id;
}

/* ---- reading it back ---- */

/* All of the file ID, to be freed. */
static char *read_file(uint64_t id, size_t size)
{
    struct handle *h;
    char *data = malloc(size + 1);
    size_t at = 0;
    if (!fs_open(fs, id, O_RDONLY, ME, &h, &endless, &err))
        fail_msg("%s", err.text);
    for (bool more = true; more;) {
        struct fs_bytes bytes;
        if (!fs_read(fs, h, at, 100000, &bytes, &endless, &err))
            fail_msg("%s", err.text);
        assert_true(at + bytes.size <= size);
        if (bytes.size > 0)
            assert_int_equal(pread(bytes.fd, data + at, bytes.size, (off_t)bytes.offset),
                             bytes.size);
        at += bytes.size;
        more = bytes.size > 0;
        fs_read_done(&bytes);
    }
    assert_int_equal(at, size);
    fs_release(fs, h);
    return data;
}

/* FROM on disk is the same as ID in the tree. The number of names. */
static unsigned compare(uint64_t id, const char *from)
{
    struct stat st;
    struct fs_entry e;
    assert_int_equal(lstat(from, &st), 0);
    if (id == 0)
        fail_msg("%s is not there: %s", from, err.text);
    assert_true(fs_getattr(fs, id, &e, &endless, &err));
    if (e.attr.st_mode != st.st_mode || e.attr.st_mtim.tv_nsec != st.st_mtim.tv_nsec)
        fail_msg("%s: mode %o, not %o, or mtime %ld, not %ld ns", from, e.attr.st_mode, st.st_mode,
                 e.attr.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
    assert_int_equal(e.attr.st_mtim.tv_sec, st.st_mtim.tv_sec);
    if (S_ISREG(st.st_mode)) {
        assert_int_equal(e.attr.st_size, st.st_size);
        char *data = read_file(id, (size_t)st.st_size), *want = malloc((size_t)st.st_size + 1);
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
        n += compare(look_up(id, entry->d_name), path);
    }
    (void)closedir(d);
    return n;
}

static void must_be_the_cluster(const char *path)
{
    char from[128];
    (void)snprintf(from, sizeof(from), "%s/cluster", env.dir);
    assert_in_range(compare(walk(backups, path), from), 8, 100000);
}

static void wait_empty(void)
{
    for (unsigned i = 0; backup_env_count(&env) != 0; i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
}

/* ---- the tests ---- */

static void what_was_copied_in_is_a_backup(void **state)
{
    char target[256];
    (void)state;
    begin("label bulk=12000000");
    assert_true(copy_in("nightly"));
    assert_int_equal(look_up(backups, NAME), 0);
    assert_int_equal(look_up(backups, "LATEST"), 0);
    assert_ok(complete("nightly"), &err);
    backup_env_check(&env, "cluster");
    must_be_the_cluster(NAME "/pgdata");
    assert_ok(fs_readlink(fs, look_up(backups, "nightly"), target, sizeof(target), &endless, &err),
              &err);
    assert_string_equal(target, NAME);
    assert_ok(fs_readlink(fs, look_up(backups, "LATEST"), target, sizeof(target), &endless, &err),
              &err);
    assert_string_equal(target, NAME);
    unmount_fs(true); /* another mount sees the same */
    must_be_the_cluster(NAME "/pgdata");
    end();
}

/* Whatever call of the store fails: an error and nothing that looks complete, or a whole backup. */
static void no_failure_makes_a_broken_backup(void **state)
{
    (void)state;
    begin("label");
    unsigned nth = 0, refused = 0;
    bool happened = true;
    while (happened) {
        for (int after = 0; after < 2; after++) {
            fault_at(env.faults, ++nth / 2 + 1, after ? FAULT_AFTER : FAULT_BEFORE);
            bool ok = copy_in("nightly") && complete("nightly");
            happened = fault_happened(env.faults);
            fault_at(env.faults, 0, FAULT_BEFORE);
            unmount_fs(true);
            if (ok) {
                must_be_the_cluster(NAME "/pgdata");
                if (!happened) /* else the guard may have stayed behind */
                    backup_env_check(&env, "cluster");
            } else {
                refused++;
                assert_int_equal(look_up(backups, "nightly"), 0);
                assert_false(backup_env_has(&env, BACKUP_DIR BACKUP_SENTINEL_SUFFIX));
            }
            struct backup_objects o;
            assert_true(backup_delete(env.files.store, NAME, &endless, &err));
            assert_true(backup_objects_load(env.files.store, NAME, &o, &endless, &err));
            assert_int_equal(o.count, 0);
            backup_objects_free(&o);
            backup_env_run(&env, "rm -rf '%s'/basebackups_005", env.files.dir);
            unmount_fs(true);
        }
    }
    assert_in_range(refused, 3, nth);
    end();
}

/* Whoever has been told where the bytes lie finds them there, though the file is archived, and its
 * descriptor would be another's, before he has taken them. */
static void what_is_read_is_not_taken_away(void **state)
{
    struct handle *h;
    struct fs_bytes bytes;
    char got[8];
    (void)state;
    begin("label");
    uint64_t top = make_dir(backups, "x");
    assert_true(put_text(top, "first", "first!"));
    assert_ok(fs_open(fs, look_up(top, "first"), O_RDONLY, ME, &h, &endless, &err), &err);
    assert_ok(fs_read(fs, h, 0, 100, &bytes, &endless, &err), &err);
    put_many(top);
    assert_int_equal(pread(bytes.fd, got, sizeof(got), (off_t)bytes.offset), 6);
    assert_memory_equal(got, "first!", 6);
    fs_read_done(&bytes);
    assert_false(fs_read(fs, h, 0, 100, &bytes, &endless, &err));
    assert_int_equal(fs_errno(&err), EOPNOTSUPP);
    fs_release(fs, h);
    end();
}

static void must_be_text(uint64_t id, const char *text)
{
    if (id == 0)
        fail_msg("%s", err.text);
    char *got = read_file(id, strlen(text));
    assert_memory_equal(got, text, strlen(text));
    free(got);
}

/* What somebody is just writing would be cut: the rename waits for its author, not for us. */
static void an_open_writer_keeps_it_from_being_completed(void **state)
{
    struct fs_entry e;
    struct handle *h;
    (void)state;
    begin("label");
    assert_true(copy_in("x"));
    uint64_t top = look_up(backups, "x.partial");
    assert_ok(fs_create(fs, top, "half", O_WRONLY, 0600, ME, &e, &h, &endless, &err), &err);
    assert_ok(fs_write(fs, h, "first ", 6, 0, &endless, &err), &err);
    assert_false(complete("x"));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_non_null(strstr(err.text, "half"));
    assert_ok(fs_write(fs, h, "second", 6, 6, &endless, &err), &err);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    fs_release(fs, h);
    assert_ok(fs_open(fs, look_up(top, "half"), O_RDWR, ME, &h, &endless, &err), &err);
    assert_false(complete("x")); /* opened is enough */
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_true(put_text(top, "later", "also this"));
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    fs_release(fs, h);
    if (!complete("x"))
        fail_msg("%s", err.text);
    must_be_text(walk(backups, NAME "/pgdata/half"), "first second");
    must_be_text(walk(backups, NAME "/pgdata/later"), "also this");
    end();
}

static void *release_later(void *handle)
{
    (void)usleep(100000);
    fs_release(fs, handle);
    return NULL;
}

/* The kernel sends a release after close() has returned: it may come after the rename. */
static void a_close_whose_release_is_on_its_way_is_waited_for(void **state)
{
    struct fs_entry e;
    struct handle *h;
    pthread_t thread;
    (void)state;
    begin("label");
    assert_true(copy_in("x"));
    uint64_t top = look_up(backups, "x.partial");
    assert_ok(fs_create(fs, top, "file", O_WRONLY, 0600, ME, &e, &h, &endless, &err), &err);
    assert_ok(fs_write(fs, h, "whole", 5, 0, &endless, &err), &err);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    assert_int_equal(pthread_create(&thread, NULL, release_later, h), 0);
    bool ok = complete("x");
    pthread_join(thread, NULL);
    if (!ok)
        fail_msg("%s", err.text);
    must_be_text(walk(backups, NAME "/pgdata/file"), "whole");
    end();
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
    count(l, fs_create(fs, l->top, "new", O_WRONLY, 0600, ME, &e, &h, &endless, &why), &why);
    count(l, fs_open(fs, l->file, O_WRONLY, ME, &h, &endless, &why), &why);
    count(l, fs_mkdir(fs, l->top, "newdir", 0700, &e, &endless, &why), &why);
    count(l, fs_symlink(fs, l->top, "newlink", "x", &e, &endless, &why), &why);
    count(l, fs_setattr(fs, l->file, &cut, NULL, &e, &endless, &why), &why);
    count(l, fs_setattr(fs, l->file, &mode, NULL, &e, &endless, &why), &why);
    count(l, fs_unlink(fs, l->top, "PG_VERSION", &endless, &why), &why);
    count(l, fs_rmdir(fs, l->top, "pg_replslot", &endless, &why), &why);
    count(l, fs_rename(fs, l->top, "PG_VERSION", l->top, "x", false, &endless, &why), &why);
}

/* Whatever a call that succeeded has made is in the backup, since after its commit has begun none
 * succeeds. */
static void nothing_changes_while_it_is_completed(void **state)
{
    (void)state;
    begin("label");
    assert_true(copy_in("x"));
    struct late late = {.top = look_up(backups, "x.partial")};
    late.file = look_up(late.top, "PG_VERSION");
    fault_set_hook(env.faults, change_it, &late);
    if (!complete("x"))
        fail_msg("%s", err.text);
    fault_set_hook(env.faults, NULL, NULL);
    assert_int_equal(late.tries, 9);
    assert_int_equal(late.refused, 9);
    must_be_the_cluster(NAME "/pgdata");
    end();
}

/* cp says what it could not do, and goes on: what it could not do must not be missed later. */
static void what_cannot_be_made_fails_the_backup(void **state)
{
    struct fs_entry e;
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        begin("label");
        assert_true(copy_in("x"));
        uint64_t top = look_up(backups, "x.partial");
        struct handle *h;
        bool ok = true;
        if (i == 0) { /* no place to stage it */
            backup_env_run(&env, "mkdir other && mv cluster other/");
            char dir[80];
            (void)snprintf(dir, sizeof(dir), "%s.away", env.dir);
            assert_int_equal(rename(env.dir, dir), 0);
            ok = put_text(top, "new", "text");
            assert_int_equal(rename(dir, env.dir), 0);
        } else if (i == 1) {
            ok = fs_link(fs, top, "hard", &err);
        } else if (i == 2) { /* archived already, and then other content */
            put_many(top);
            assert_ok(fs_open(fs, look_up(top, "many0"), O_WRONLY, ME, &h, &endless, &err), &err);
            ok = fs_write(fs, h, "other", 5, 0, &endless, &err);
            assert_int_equal(fs_errno(&err), EBUSY);
            fs_release(fs, h);
        } else { /* archived already, and then replaced, which is what rsync does */
            put_many(top);
            assert_true(put_text(top, ".many0.x", "other"));
            ok = fs_rename(fs, top, ".many0.x", top, "many0", false, &endless, &err);
            assert_int_equal(fs_errno(&err), EBUSY);
        }
        assert_false(ok);
        assert_false(complete("x"));
        assert_int_equal(look_up(backups, "x"), 0);
        end();
    }
    begin("label"); /* names that are taken are no loss */
    assert_true(copy_in("x"));
    uint64_t top = look_up(backups, "x.partial");
    assert_false(fs_mkdir(fs, top, "global", 0700, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), EEXIST);
    assert_false(fs_rmdir(fs, top, "global", &endless, &err));
    assert_int_equal(fs_errno(&err), ENOTEMPTY);
    assert_false(fs_unlink(fs, top, "nothing", &endless, &err));
    assert_ok(complete("x"), &err);
    end();
}

/* A change that a tar header can no longer take is an error, and what would change nothing none. */
static void facts_are_kept_or_refused(void **state)
{
    struct fs_entry e;
    (void)state;
    begin("label");
    assert_true(copy_in("x"));
    uint64_t top = look_up(backups, "x.partial");
    assert_true(put_text(top, ".first.AbC123", "first"));
    put_many(top);
    uint64_t old = look_up(top, "many0"), last = look_up(top, "many299");
    const struct fs_setattr sets[] = {
        {.set_owner = true, .uid = 4321, .gid = (gid_t)-1},
        {.set_owner = true, .uid = (uid_t)-1, .gid = 4322},
        {.set_mtime = true, .mtime_s = 1000000000, .mtime_ns = 5},
        {.set_mode = true, .mode = 0640},
    };
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        assert_false(fs_setattr(fs, old, &sets[i], NULL, &e, &endless, &err));
        assert_int_equal(fs_errno(&err), EBUSY);
        assert_ok(fs_setattr(fs, last, &sets[i], NULL, &e, &endless, &err), &err);
        /* rsync names its file when it is closed, however late */
        assert_ok(fs_setattr(fs, look_up(top, ".first.AbC123"), &sets[i], NULL, &e, &endless, &err),
                  &err);
    }
    assert_ok(fs_rename(fs, top, ".first.AbC123", top, "first", false, &endless, &err), &err);
    assert_ok(fs_getattr(fs, old, &e, &endless, &err), &err);
    const struct fs_setattr same = {.set_owner = true,
                                    .set_mode = true,
                                    .set_mtime = true,
                                    .uid = e.attr.st_uid,
                                    .gid = e.attr.st_gid,
                                    .mode = e.attr.st_mode & 07777,
                                    .mtime_s = e.attr.st_mtim.tv_sec,
                                    .mtime_ns = (uint32_t)e.attr.st_mtim.tv_nsec};
    assert_ok(fs_setattr(fs, old, &same, NULL, &e, &endless, &err), &err);
    assert_ok(complete("x"), &err);
    static const char *const changed[] = {"first", "many299"};
    for (size_t i = 0; i < 2; i++) {
        uint64_t id = look_up(walk(backups, NAME "/pgdata"), changed[i]);
        assert_ok(fs_getattr(fs, id, &e, &endless, &err), &err);
        assert_int_equal(e.attr.st_uid, 4321);
        assert_int_equal(e.attr.st_gid, 4322);
        assert_int_equal(e.attr.st_mode, S_IFREG | 0640);
        assert_int_equal(e.attr.st_mtim.tv_sec, 1000000000);
        assert_int_equal(e.attr.st_mtim.tv_nsec, 5);
    }
    end();
}

/* Where a plain pg_basebackup puts a tablespace, and the link to it, are refused when they come. */
static void tablespaces_elsewhere_are_refused_at_once(void **state)
{
    struct fs_entry e;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin("label");
        uint64_t top = make_dir(backups, i == 1 ? "x.partial" : "x");
        uint64_t spaces = make_dir(top, "pg_tblspc"), in_place = make_dir(spaces, "16384");
        (void)make_dir(in_place, "PG_15_202209061"); /* allow_in_place_tablespaces */
        (void)make_dir(top, "PG_is_no_version_1");
        assert_ok(fs_symlink(fs, spaces, "other", "/x", &e, &endless, &err), &err);
        bool ok =
            i < 2 ? fs_symlink(fs, spaces, "16385", "/srv/ts", &e, &endless, &err)
                  : fs_mkdir(fs, make_dir(top, "ts"), "PG_9.6_201608131", 0700, &e, &endless, &err);
        assert_false(ok);
        assert_int_equal(fs_errno(&err), EINVAL);
        assert_non_null(strstr(err.text, "pg_basebackup -Ft"));
        struct handle *h; /* and nothing more is taken */
        assert_false(fs_create(fs, top, "f", O_WRONLY, 0600, ME, &e, &h, &endless, &err));
        end();
    }
    begin("label"); /* in a copy a directory may have any name */
    (void)make_dir(make_dir(make_dir(backups, "x.partial"), "ts"), "PG_9.6_201608131");
    end();
}

static void given_up_it_leaves_nothing(void **state)
{
    (void)state;
    begin("label bulk=12000000");
    assert_true(copy_in("nightly"));
    unmount_fs(true); /* as if walefs had ended in the middle */
    assert_int_equal(look_up(backups, "nightly"), 0);
    assert_int_equal(look_up(backups, "nightly.partial"), 0);
    assert_int_equal(look_up(backups, NAME), 0);
    wait_empty();
    end();
}

static void what_is_no_cluster_is_refused(void **state)
{
    static const char *const needed[] = {"PG_VERSION", "global/pg_control"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin("label");
        backup_env_run(&env, "rm cluster/%s", needed[i]);
        assert_true(copy_in("x"));
        assert_false(complete("x"));
        assert_int_equal(fs_errno(&err), EPERM);
        assert_non_null(strstr(err.text, needed[i]));
        assert_int_equal(look_up(backups, "x"), 0);
        end();
    }
    begin("label pid");
    assert_true(copy_in("x"));
    assert_false(complete("x"));
    assert_non_null(strstr(err.text, "postmaster.pid"));
    end();
}

static bool attribute(uint64_t id, const char *name, char out[256])
{
    struct buf value = BUF_INIT(255);
    err = (struct err)ERR_INIT;
    bool ok = fs_getxattr(fs, id, name, &value, &endless, &err);
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
    begin("");
    must_back_up("labelled");
    uint64_t part = walk(backups, NAME "/tar/part_00000000.tar");
    uint64_t version = walk(backups, NAME "/pgdata/PG_VERSION");
    assert_true(part != 0 && version != 0);
    assert_true(attribute(part, "user.walefs.key", tar));
    assert_string_equal(tar, BACKUP_DIR "/tar_partitions/part_00000000.tar.lzo");
    assert_true(attribute(part, "user.walefs.checksum", sum));
    assert_int_equal(strncmp(sum, "sha256:", 7), 0);
    assert_int_equal(strlen(sum), 7 + 64);
    assert_true(fs_listxattr(fs, part, &names, &endless, &err));
    assert_true(names.len > 0);
    names.len = 0;
    assert_true(attribute(version, "user.walefs.key", file));
    assert_int_equal(strncmp(file, BACKUP_DIR "/tar_partitions/part_", 40), 0);
    assert_true(attribute(version, "user.walefs.offset", file));
    assert_true(fs_listxattr(fs, version, &names, &endless, &err));
    assert_int_equal(names.len, 0);
    assert_true(fs_listxattr(fs, walk(backups, NAME "/pgdata"), &names, &endless, &err));
    assert_int_equal(names.len, 0);
    buf_free(&names);
    end();
}

static void names_that_cannot_be_a_label(void **state)
{
    static const char *const bad[] = {"LATEST",
                                      "LATEST.partial",
                                      NAME,
                                      NAME ".partial",
                                      "walefs-tmp-0123456789abcdef0123456789abcdef",
                                      "base_x.partial"};
    struct fs_entry e;
    (void)state;
    begin("label");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (fs_mkdir(fs, backups, bad[i], 0700, &e, &endless, &err))
            fail_msg("%s was made", bad[i]);
    end();
}

static void a_second_one_at_the_same_place_is_refused(void **state)
{
    (void)state;
    begin("label");
    must_back_up("one");
    bool ok = copy_in("two") && complete("two");
    assert_false(ok);
    unmount_fs(true);
    must_be_the_cluster(NAME "/pgdata");
    end();
}

static void complete_ones_do_not_change(void **state)
{
    struct fs_entry e;
    struct handle *h;
    (void)state;
    begin("label");
    must_back_up("x");
    uint64_t data = walk(backups, NAME "/pgdata"), file = look_up(data, "PG_VERSION");
    assert_false(fs_open(fs, file, O_WRONLY, ME, &h, &endless, &err));
    assert_ok(fs_open(fs, file, O_RDWR, ME, &h, &endless, &err), &err); /* some only look so */
    assert_false(fs_write(fs, h, "x", 1, 0, &endless, &err));
    fs_release(fs, h);
    assert_false(fs_create(fs, data, "new", O_WRONLY, 0600, ME, &e, &h, &endless, &err));
    assert_false(fs_mkdir(fs, data, "new", 0700, &e, &endless, &err));
    assert_false(fs_unlink(fs, data, "PG_VERSION", &endless, &err));
    assert_false(fs_rmdir(fs, data, "pg_replslot", &endless, &err));
    assert_false(fs_rename(fs, data, "PG_VERSION", data, "x", false, &endless, &err));
    assert_false(fs_symlink(fs, data, "l", "/", &e, &endless, &err));
    const struct fs_setattr cut = {.set_size = true, .size = 0};
    assert_false(fs_setattr(fs, file, &cut, NULL, &e, &endless, &err));
    must_be_the_cluster(NAME "/pgdata");
    end();
}

static void rmdir_deletes_a_backup(void **state)
{
    (void)state;
    begin("label bulk=12000000");
    must_back_up("x");
    assert_ok(fs_rmdir(fs, backups, NAME, &endless, &err), &err);
    assert_int_equal(look_up(backups, NAME), 0);
    assert_int_equal(look_up(backups, "x"), 0);
    assert_int_equal(look_up(backups, "LATEST"), 0);
    wait_empty();
    must_back_up("x"); /* the name and the place are free again */
    must_be_the_cluster(NAME "/pgdata");
    end();
}

static void rmdir_needs_the_option(void **state)
{
    (void)state;
    begin("label");
    must_back_up("x");
    unmount_fs(false);
    mount_fs(true, false);
    assert_false(fs_rmdir(fs, backups, NAME, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_non_null(strstr(err.text, "allow_delete"));
    must_be_the_cluster(NAME "/pgdata");
    end();
}

static void in_the_store(const char *format)
{
    char command[512];
    (void)snprintf(command, sizeof(command), format, env.files.dir);
    assert_int_equal(system(command), 0);
}

/* It was complete once: deleting it like a rest takes away what its sentinel, restored, would make
 * a backup again. */
static void rmdir_refuses_what_has_an_unreadable_sentinel(void **state)
{
#define SENTINEL "%1$s/basebackups_005/" NAME "_backup_stop_sentinel.json"
    (void)state;
    begin("label");
    must_back_up("x");
    in_the_store("mv " SENTINEL " %1$s/kept && head -c 40 %1$s/kept >" SENTINEL);
    assert_false(fs_rmdir(fs, backups, NAME, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_non_null(strstr(err.text, "restore basebackups_005/" NAME "_backup_stop_sentinel.json"));
    assert_non_null(strstr(err.text, "delete that object"));
    in_the_store("mv %1$s/kept " SENTINEL);
    must_be_the_cluster(NAME "/pgdata");
    in_the_store(": >" SENTINEL);
    assert_false(fs_rmdir(fs, backups, NAME, &endless, &err));
    in_the_store("rm " SENTINEL); /* the deliberate act */
    assert_ok(fs_rmdir(fs, backups, NAME, &endless, &err), &err);
    wait_empty();
    end();
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
    begin("label bulk=12000000");
    must_back_up("x");
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        unmount_fs(false);
        backup_env_run(&env, damage[i], env.files.dir);
        mount_fs(true, true);
        must_be_the_cluster(NAME "/pgdata");
        for (unsigned k = 0; i < 3; k++) { /* and stored, whole, in the place of the old one */
            size_t size = 0;
            char path[256];
            struct stat st;
            (void)snprintf(path, sizeof(path), "%s/%s/tar_partitions/walefs-index.lzo",
                           env.files.dir, BACKUP_DIR);
            if (stat(path, &st) == 0)
                size = (size_t)st.st_size;
            if (size > 100)
                break;
            assert_true(k < PATIENCE_MS);
            (void)usleep(1000);
        }
    }
    end();
}

static void a_read_only_mount_stores_nothing(void **state)
{
    (void)state;
    begin("label");
    must_back_up("x");
    unmount_fs(false);
    backup_env_run(&env, "rm '%s'/" BACKUP_DIR "/tar_partitions/walefs-index.lzo", env.files.dir);
    mount_fs(false, false);
    must_be_the_cluster(NAME "/pgdata");
    assert_false(backup_env_has(&env, BACKUP_DIR "/tar_partitions/walefs-index.lzo"));
    struct fs_entry e;
    assert_false(fs_mkdir(fs, backups, "y.partial", 0700, &e, &endless, &err));
    end();
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
        begin("label bulk=12000000");
        must_back_up("x");
        unmount_fs(false);
        backup_env_run(&env, loss[i], env.files.dir);
        mount_fs(i % 2 == 0, false);
        if (walk(backups, NAME "/pgdata/PG_VERSION") != 0)
            fail_msg("not noticed: %s", loss[i]);
        assert_int_equal(fs_errno(&err), EIO);
        assert_non_null(strstr(err.text, "partition"));
        end();
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
    };
    (void)state;
    for (size_t i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
        begin("label bulk=16000000");
        must_back_up("x");
        unmount_fs(false);
        backup_env_run(&env, "cd '%s'/" BACKUP_DIR "/tar_partitions && %s", env.files.dir,
                       change[i]);
        mount_fs(i % 2 == 0, false);
        if (walk(backups, NAME "/pgdata/PG_VERSION") != 0)
            fail_msg("not noticed: %s", change[i]);
        assert_int_equal(fs_errno(&err), EIO);
        assert_non_null(strstr(err.text, "partition"));
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_copied_in_is_a_backup),
        cmocka_unit_test(no_failure_makes_a_broken_backup),
        cmocka_unit_test(what_is_read_is_not_taken_away),
        cmocka_unit_test(an_open_writer_keeps_it_from_being_completed),
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
