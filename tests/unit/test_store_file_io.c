/* core/store_file_io.c on file systems that lack what it would like, or that fail: links, renames
 * that replace nothing, attributes, fsync, room. The system calls are this program's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/store_file.h"
#include "tests/unit/store_env.h"

/* ---- system calls that fail with these, 0: that work ---- */

static int link_errno, rename_errno, xattr_errno, fsync_errno, dir_fsync_errno, write_errno;
static unsigned write_after;     /* so many writes work before */
static unsigned write_most;      /* bytes of one write, 0: all */
static unsigned dir_fsync_after; /* so many fsyncs of directories work before */
static ino_t synced[16];         /* the directories that were fsynced */
static size_t synced_count;
static int stat_errno; /* of the file "unseen" */
static int copy_errno;
static size_t copy_most = SIZE_MAX; /* bytes that copy_file_range takes before it fails */

static int done(long rc)
{
    return (int)rc;
}

static int failed(int why)
{
    errno = why;
    return -1;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return link_errno != 0 ? failed(link_errno)
                           : done(syscall(SYS_linkat, from_fd, from, to_fd, to, flags));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return rename_errno != 0 ? failed(rename_errno)
                             : done(syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    return xattr_errno != 0 ? failed(xattr_errno)
                            : done(syscall(SYS_fsetxattr, fd, name, value, size, flags));
}

int fsync(int fd)
{
    struct stat st;
    bool dir = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    int why = dir ? dir_fsync_errno : fsync_errno;
    if (dir && dir_fsync_after > 0) {
        dir_fsync_after--;
        why = 0;
    }
    if (dir && why == 0)
        synced[synced_count++ % 16] = st.st_ino;
    return why != 0 ? failed(why) : done(syscall(SYS_fsync, fd));
}

int fstatat(int fd, const char *restrict path, struct stat *restrict st, int flags)
{
    if (stat_errno != 0 && strcmp(path, "unseen") == 0)
        return failed(stat_errno);
    return done(syscall(SYS_newfstatat, fd, path, st, flags));
}

ssize_t copy_file_range(int from_fd, off_t *from, int to_fd, off_t *to, size_t n, unsigned flags)
{
    if (copy_most == 0)
        return copy_errno == 0 ? 0 : failed(copy_errno); /* 0: some file systems' way to refuse */
    size_t now = n < copy_most ? n : copy_most;
    copy_most -= now;
    return syscall(SYS_copy_file_range, from_fd, from, to_fd, to, now, flags);
}

ssize_t write(int fd, const void *data, size_t n)
{
    struct stat st;
    bool ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (ours && write_errno != 0 && write_after == 0) {
        int why = write_errno;
        write_errno = why == EINTR ? 0 : why;
        return failed(why);
    }
    if (ours && write_after > 0)
        write_after--;
    return syscall(SYS_write, fd, data, ours && write_most != 0 && n > write_most ? write_most : n);
}

/* ---- */

static struct store_env env;
static struct err err;

static int setup(void **state)
{
    store_env_begin(&env, STORE_DIRECTORY);
    *state = env.store;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    link_errno = rename_errno = xattr_errno = fsync_errno = dir_fsync_errno = write_errno = 0;
    write_after = write_most = dir_fsync_after = 0;
    synced_count = 0;
    stat_errno = 0;
    copy_errno = 0;
    copy_most = SIZE_MAX;
    store_env_end(&env);
    return 0;
}

static size_t names_in(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

static bool put(struct store *s, const char *key, const char *text, bool only_if_absent)
{
    const struct store_put p = {.body = {.mem = text, .size = strlen(text)},
                                .only_if_absent = only_if_absent};
    return s->ops->put(s, key, &p, NULL, &env_forever, &err);
}

/* What is taken stays as it is, and nothing else is left in the directory. */
static void is_kept(struct store *s)
{
    assert_ok(put(s, "key", "first", true), &err);
    assert_false(put(s, "key", "second", true));
    env_assert_error(&err, ERR_EXISTS, "key");
    env_assert_content(s, "key", "first", 5);
    assert_int_equal(names_in(env.dir), 1);
    assert_ok(put(s, "key", "third", false), &err);
    env_assert_content(s, "key", "third", 5);
    assert_int_equal(names_in(env.dir), 1);
}

static bool guard_is_weak(struct store *s)
{
    bool weak = false;
    assert_ok(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err), &err);
    assert_int_equal(names_in(env.dir), 2); /* key and walefs_probe */
    return weak;
}

/* FAT, some FUSE file systems and SMB: renames that replace nothing do. */
static void without_links(void **state)
{
    static const int whys[] = {EPERM, EOPNOTSUPP, ENOSYS, EMLINK};
    struct store *s = *state;
    for (size_t i = 0; i < 4; i++) {
        link_errno = whys[i];
        is_kept(s);
        assert_false(guard_is_weak(s));
        const char *keys[] = {"key", "walefs_probe"};
        assert_ok(s->ops->remove(s, keys, 2, &env_forever, &err), &err);
    }
}

/* Where those do not exist either, the guard is weaker, and whoever mounts is told. */
static void without_links_and_guarded_renames(void **state)
{
    static const int whys[] = {EINVAL, EOPNOTSUPP, ENOSYS};
    link_errno = EPERM;
    for (size_t i = 0; i < 3; i++) {
        struct store *s = *state;
        rename_errno = whys[i];
        is_kept(s);
        assert_true(guard_is_weak(s));
        const char *keys[] = {"key", "walefs_probe"};
        assert_ok(s->ops->remove(s, keys, 2, &env_forever, &err), &err);
    }
}

/* Any other failure is no reason to try a weaker way. */
static void naming_fails(void **state)
{
    struct store *s = *state;
    link_errno = EIO;
    assert_false(put(s, "key", "x", true));
    env_assert_error(&err, ERR_LOCAL, "cannot name");
    link_errno = EPERM;
    rename_errno = EIO;
    assert_false(put(s, "key", "x", true));
    env_assert_error(&err, ERR_LOCAL, "cannot name");
    rename_errno = ENOSPC;
    assert_false(put(s, "key", "x", true));
    assert_int_equal(err.code, ERR_NO_SPACE);
    env_assert_absent(s, "key");
    assert_int_equal(names_in(env.dir), 0);
}

static bool put_with_meta(struct store *s)
{
    static const struct store_meta meta[] = {{"walefs-a", "1"}, {"walefs-b", "2"}};
    const struct store_put p = {
        .body = {.mem = "x", .size = 1}, .meta = meta, .meta_count = 2, .only_if_absent = true};
    return s->ops->put(s, "key", &p, NULL, &env_forever, &err);
}

static void without_attributes(void **state)
{
    struct store *s = *state;
    struct store_info info;
    xattr_errno = ENOSPC; /* they exist, and it has no room for them */
    assert_false(put_with_meta(s));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(names_in(env.dir), 0);
    xattr_errno = ENOTSUP;
    assert_ok(put_with_meta(s), &err);
    assert_ok(s->ops->head(s, "key", &info, &env_forever, &err), &err);
    assert_int_equal(info.meta_count, 0);
    env_assert_content(s, "key", "x", 1);
}

/* What is not known to be durable is not told to be stored. */
static void what_is_not_durable_is_not_stored(void **state)
{
    struct store *s = *state;
    fsync_errno = EIO;
    assert_false(put(s, "key", "x", true));
    env_assert_error(&err, ERR_LOCAL, "fsync");
    env_assert_absent(s, "key");
    assert_int_equal(names_in(env.dir), 0);
    fsync_errno = 0;
    dir_fsync_errno = EIO;
    assert_false(put(s, "key", "x", true));
    env_assert_error(&err, ERR_LOCAL, "directory");
    assert_false(put(s, "key", "x", true)); /* it is there, but still not for sure */
    env_assert_error(&err, ERR_LOCAL, "directory");
    const char *keys[] = {"key"};
    assert_false(s->ops->remove(s, keys, 1, &env_forever, &err)); /* nor is it gone for sure */
    env_assert_error(&err, ERR_LOCAL, "fsync");
    assert_false(put(s, "new/directory/key", "x", true));
    assert_int_equal(err.code, ERR_LOCAL);
    dir_fsync_errno = EINVAL; /* there is no such thing there */
    assert_ok(put(s, "key", "x", false), &err);
    assert_ok(s->ops->remove(s, keys, 1, &env_forever, &err), &err);
}

/* Was PATH, a directory below the store's or "", fsynced since synced_count was 0? */
static bool was_synced(const char *path)
{
    char name[128];
    struct stat st;
    bool was = false;
    (void)snprintf(name, sizeof(name), "%s/%s", env.dir, path);
    assert_int_equal(stat(name, &st), 0);
    for (size_t i = 0; i < synced_count; i++)
        was = was || synced[i] == st.st_ino;
    return was;
}

/* A crash must not take a directory away with a stored object in it: its parent is fsynced, also
 * when that could not be done at first, or another mount has just made it. */
static void new_directories_are_durable(void **state)
{
    struct store *s = *state;
    static const char *const keys[] = {"a/b/key"};
    for (unsigned works = 0; works < 4; works++) {
        if (works < 3) {
            dir_fsync_after = works;
            dir_fsync_errno = EIO;
            assert_false(put(s, keys[0], "x", false));
            env_assert_error(&err, ERR_LOCAL, keys[0]);
        }
        dir_fsync_after = 0;
        dir_fsync_errno = 0;
        assert_ok(put(s, keys[0], "x", false), &err);
        assert_true(was_synced(""));
        assert_true(was_synced("a"));
        assert_true(was_synced("a/b"));
        assert_ok(s->ops->remove(s, keys, 1, &env_forever, &err), &err);
        assert_int_equal(names_in(env.dir), 0);
        synced_count = 0;
    }
    char made[128];
    (void)snprintf(made, sizeof(made), "%s/a", env.dir);
    assert_int_equal(mkdir(made, 0700), 0);
    assert_ok(put(s, "a/key", "x", false), &err);
    assert_true(was_synced(""));
    assert_true(was_synced("a"));
}

/* What cannot be looked at is not taken for gone. */
static void listing_what_cannot_be_looked_at(void **state)
{
    struct store *s = *state;
    struct store_page page;
    const struct store_list list = {.prefix = ""};
    assert_ok(put(s, "seen", "x", false), &err);
    assert_ok(put(s, "unseen", "x", false), &err);
    stat_errno = EIO;
    assert_false(s->ops->list(s, &list, &page, &env_forever, &err));
    env_assert_error(&err, ERR_LOCAL, "unseen");
    stat_errno = ENOENT; /* removed meanwhile */
    assert_ok(s->ops->list(s, &list, &page, &env_forever, &err), &err);
    assert_int_equal(page.count, 1);
    assert_string_equal(page.entries[0].key, "seen");
    store_page_free(&page);
}

static void writes_that_break_off(void **state)
{
    struct store *s = *state;
    char *data = env_bytes(3 << 20, 1);
    const struct store_put p = {.body = {.mem = data, .size = 3 << 20}, .only_if_absent = true};
    write_errno = ENOSPC;
    write_after = 2;
    assert_false(s->ops->put(s, "key", &p, NULL, &env_forever, &err));
    env_assert_error(&err, ERR_NO_SPACE, "key");
    assert_int_equal(names_in(env.dir), 0);
    write_errno = EINTR;
    write_after = 1;
    write_most = 100000; /* and short ones */
    assert_ok(s->ops->put(s, "key", &p, NULL, &env_forever, &err), &err);
    assert_int_equal(write_errno, 0);
    env_assert_content(s, "key", data, 3 << 20);
    free(data);
}

/* What a file system does not copy inside itself is copied through this host, from where it ended.
 */
static void parts_are_joined_without_the_kernel(void **state)
{
    static const int whys[] = {0, EXDEV, EOPNOTSUPP, ENOSYS, EINVAL};
    static const size_t mosts[] = {0, 1000, 1u << 20};
    struct store *s = *state;
    char *data = env_bytes(5 << 20, 2);
    const struct store_put put_parts = {.only_if_absent = false};
    const struct store_body bodies[] = {{.mem = data, .size = 3 << 20},
                                        {.mem = data + (3 << 20), .size = 2 << 20}};
    for (size_t i = 0; i < 15; i++) {
        struct store_info info;
        copy_errno = whys[i % 5];
        copy_most = mosts[i / 5];
        struct store_upload *up = s->ops->upload_begin(s, "key", &put_parts, &env_forever, &err);
        assert_ok(up != NULL, &err);
        assert_ok(s->ops->upload_part(up, 2, &bodies[1], &env_forever, &err), &err);
        assert_ok(s->ops->upload_part(up, 1, &bodies[0], &env_forever, &err), &err);
        assert_false(s->ops->upload_part(up, 0, &bodies[0], &env_forever, &err));
        env_assert_error(&err, ERR_INVALID, "from 1");
        assert_ok(s->ops->upload_complete(up, &info, &env_forever, &err), &err);
        assert_int_equal(info.size, 5 << 20);
        env_assert_content(s, "key", data, 5 << 20);
        assert_int_equal(names_in(env.dir), 1);
    }
    free(data);
}

/* ---- directories that come and go ---- */

struct churn {
    struct store *s;
    const char *key;
};

static void *come_and_go(void *arg)
{
    const struct churn *c = arg;
    const struct store_put p = {.body = {.mem = "x", .size = 1}, .only_if_absent = true};
    const char *keys[] = {c->key};
    struct err why = ERR_INIT;
    for (int i = 0; i < 300; i++)
        if (!c->s->ops->put(c->s, c->key, &p, NULL, &env_forever, &why) ||
            !c->s->ops->remove(c->s, keys, 1, &env_forever, &why)) {
            (void)fprintf(stderr, "%s\n", why.text);
            return arg;
        }
    return NULL;
}

/* A remove prunes the directories that another one is about to store into. */
static void a_directory_goes_under_a_put(void **state)
{
    struct churn both[] = {{*state, "a/b/c/one"}, {*state, "a/b/c/two"}};
    pthread_t other;
    void *result = NULL;
    assert_int_equal(pthread_create(&other, NULL, come_and_go, &both[1]), 0);
    void *mine = come_and_go(&both[0]);
    assert_int_equal(pthread_join(other, &result), 0);
    assert_null(mine);
    assert_null(result);
    assert_int_equal(names_in(env.dir), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(without_links),
        T(without_links_and_guarded_renames),
        T(naming_fails),
        T(without_attributes),
        T(what_is_not_durable_is_not_stored),
        T(new_directories_are_durable),
        T(listing_what_cannot_be_looked_at),
        T(writes_that_break_off),
        T(parts_are_joined_without_the_kernel),
        T(a_directory_goes_under_a_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
