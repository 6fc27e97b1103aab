/* fs/fuse_ops.c through a real mount: what programs get for what fs/ says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/node.h"
#include "fuse_env.h"

#define MIB (1u << 20)
#define SEG "000000010000000000000002"
#define SEG2 "000000010000000000000003"
#define KEY "wal_005/" SEG ".lzo"
#define TEMP "archtemp." SEG ".17"
#define BACKUP "base_000000010000000000000002_00000040"
#define SENTINEL "basebackups_005/" BACKUP "_backup_stop_sentinel.json"

static int begin_soft(void **state)
{
    struct fuse_env_config config = fuse_env_defaults();
    config.fs.hard = false;
    (void)fuse_store_only(state);
    fuse_env_mount(&env, &config);
    return 0;
}

/* A user that has a segment of that name and seed in its hands. */
static struct use *with_segment(const char *path, const char *name, unsigned seed)
{
    struct use *u = use_new(&env, path, NULL);
    test_segment(u->data, MIB, name, seed);
    u->size = MIB;
    return u;
}

static int cp(const char *name, unsigned seed)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "wal/%s", name);
    struct use *u = with_segment(path, SEG, seed);
    use_start(u, use_write);
    return use_wait(u);
}

static struct use *list(const char *path)
{
    struct use *u = use_new(&env, path, NULL);
    use_start(u, use_list);
    assert_int_equal(use_wait(u), 0);
    return u;
}

/* ---- looking ---- */

static void the_tree_is_listed(void **state)
{
    (void)state;
    struct stat *st;
    assert_string_equal(list("")->data, "d .\nd ..\nd basebackups\nd dumps\nd status\nd wal\n");
    mem_archive_segment(env.mem, SEG, MIB, 1);
    mem_archive_segment(env.mem, SEG2, MIB, 1);
    assert_string_equal(list("wal")->data, "d .\nd ..\n- " SEG "\n- " SEG2 "\n");
    struct use *u = use_new(&env, "wal/" SEG, NULL);
    use_start(u, use_stat);
    assert_int_equal(use_wait(u), 0);
    st = &u->st;
    assert_int_equal(st->st_mode, S_IFREG | 0600);
    assert_int_equal(st->st_size, MIB);
    assert_int_equal(st->st_uid, getuid());
    assert_int_equal(st->st_nlink, 1);
    assert_int_equal(use_run("wal/" SEG "x", use_stat), ENOENT);
    assert_int_equal(use_run("nothing", use_stat), ENOENT);
    assert_int_equal(use_run("wal/" SEG, use_list), ENOTDIR);
}

/* More than one reply of the kernel's size holds, and more than one page of the store; each name
 * comes once. */
static void long_listings_are_whole(void **state)
{
    (void)state;
    char line[32], *at;
    mem_page_size(env.mem, 400);
    for (unsigned i = 0; i < 3000; i++) {
        char key[64];
        (void)snprintf(key, sizeof(key), "wal_005/00000001%08X%08X.lzo", i / 256, i % 256);
        mem_set(env.mem, key, "x", 1, NULL, 0);
    }
    at = list("wal")->data;
    assert_int_equal(strncmp(at, "d .\nd ..\n", 9), 0);
    at += 9;
    for (unsigned i = 0; i < 3000; i++) {
        int n = snprintf(line, sizeof(line), "- 00000001%08X%08X\n", i / 256, i % 256);
        assert_int_equal(strncmp(at, line, (size_t)n), 0);
        at += n;
    }
    assert_string_equal(at, "");
}

static void what_is_archived_is_read(void **state)
{
    (void)state;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    for (unsigned i = 0; i < 2; i++) {
        struct use *u = use_new(&env, "wal/" SEG, NULL);
        char *want = malloc(MIB);
        assert_non_null(want);
        test_segment(want, MIB, SEG, 1);
        u->data[0] = (char)~want[0];
        use_start(u, use_read);
        assert_int_equal(use_wait(u), 0);
        assert_int_equal(u->size, MIB);
        assert_memory_equal(u->data, want, MIB);
        free(want);
    }
    assert_int_equal(mem_calls(env.mem, MEM_GET), 1);
}

/* Any place; behind the end there is nothing, and it is no error. */
static int read_places(struct use *u)
{
    int fd = open(u->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    bool ok = pread(fd, u->data, 100, 700001) == 100 &&
              pread(fd, u->data + 100, 200, MIB - 100) == 100 &&
              pread(fd, u->data + 200, 10, MIB) == 0 && pread(fd, u->data + 200, 1, 5) == 1 &&
              pread(fd, u->data, 10, MIB * 100l) == 0;
    return close(fd) == 0 && ok ? 0 : -2;
}

static void any_place_is_read(void **state)
{
    (void)state;
    struct use *u = use_new(&env, "wal/" SEG, NULL);
    char *want = malloc(MIB);
    assert_non_null(want);
    test_segment(want, MIB, SEG, 1);
    mem_archive_segment(env.mem, SEG, MIB, 1);
    use_start(u, read_places);
    assert_int_equal(use_wait(u), 0);
    assert_memory_equal(u->data, want + 700001, 100);
    assert_memory_equal(u->data + 100, want + MIB - 100, 100);
    assert_int_equal(u->data[200], want[5]);
    free(want);
}

static int read_link(struct use *u)
{
    ssize_t n = readlink(u->path, u->data, 256);
    u->data[n < 0 ? 0 : n] = '\0';
    return n < 0 ? errno : 0;
}

static void links_are_read(void **state)
{
    (void)state;
    const char sentinel[] = "{\"wal_segment_backup_stop\": \"" SEG "\", "
                            "\"wal_segment_offset_backup_stop\": \"00000080\", "
                            "\"expanded_size_bytes\": 10}";
    struct use *u = use_new(&env, "basebackups/LATEST", NULL);
    mem_set(env.mem, SENTINEL, sentinel, sizeof(sentinel) - 1, NULL, 0);
    assert_string_equal(list("basebackups")->data, "d .\nd ..\nl LATEST\nd " BACKUP "\n");
    use_start(u, read_link);
    assert_int_equal(use_wait(u), 0);
    assert_string_equal(u->data, BACKUP);
    assert_int_equal(use_run("wal", read_link), EINVAL);
}

/* ---- writing ---- */

static void a_close_publishes(void **state)
{
    (void)state;
    assert_int_equal(cp(SEG, 1), 0);
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
    assert_int_equal(cp(SEG, 1), 0); /* the same again */
    assert_int_equal(cp(SEG, 2), EEXIST);
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
}

static int write_and_sync(struct use *u)
{
    int fd = open(u->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    if (write(fd, u->data, u->size) != (ssize_t)u->size || fsync(fd) != 0)
        return errno;
    use_step(u, 1);
    return close(fd) == 0 ? 0 : errno;
}

static void an_fsync_publishes(void **state)
{
    (void)state;
    struct use *u = with_segment("wal/" SEG, SEG, 1);
    use_start(u, write_and_sync);
    use_await(u, 1); /* before it is closed */
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
    use_allow(u, 1);
    assert_int_equal(use_wait(u), 0);
    u = with_segment("wal/" SEG, SEG, 1);
    use_start(u, write_and_sync);
    assert_int_equal(use_wait(u), EEXIST); /* O_EXCL */
    u = with_segment("wal/" SEG2, SEG, 1); /* another's content */
    use_start(u, write_and_sync);
    assert_int_equal(use_wait(u), EINVAL);
    assert_int_equal(mem_count(env.mem), 1);
}

/* Promise 1: each kind of failure is the close's own, and nothing is archived. */
static void a_failure_is_the_closes(void **state)
{
    (void)state;
    const struct {
        enum err_code code;
        int errnum;
    } cases[] = {{ERR_FORBIDDEN, EACCES}, {ERR_NO_SPACE, ENOSPC}, {ERR_NO_BUCKET, EIO},
                 {ERR_LOCAL, EIO},        {ERR_INVALID, EINVAL},  {ERR_NO_MEMORY, ENOMEM}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mem_fail(env.mem, MEM_PUT, 1, 1000, cases[i].code);
        assert_int_equal(cp(SEG, 1), cases[i].errnum);
        assert_int_equal(mem_count(env.mem), 0);
        mem_heal(env.mem);
    }
    assert_int_equal(cp(SEG, 1), 0);
}

static void a_damaged_object_is_eio(void **state)
{
    (void)state;
    size_t n;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    char *coded = mem_copy(env.mem, KEY, &n);
    assert_non_null(coded);
    coded[n / 2] ^= 1;
    mem_set(env.mem, KEY, coded, n, NULL, 0);
    free(coded);
    assert_int_equal(use_run("wal/" SEG, use_read), EIO);
}

/* Promise 4, soft: no answer is an error, never absence. */
static void no_answer_is_eio_when_soft(void **state)
{
    (void)state;
    static const enum err_code codes[] = {ERR_UNAVAILABLE, ERR_THROTTLED, ERR_TIMEOUT,
                                          ERR_FORBIDDEN};
    mem_archive_segment(env.mem, SEG, MIB, 1);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        mem_fail(env.mem, MEM_ANY, 1, 100000, codes[i]);
        assert_int_equal(use_run("wal/" SEG, use_stat), EIO);
        assert_int_equal(use_run("wal/" SEG, use_read), EIO);
        assert_int_equal(use_run("wal", use_list), EIO);
    }
    mem_heal(env.mem);
    assert_int_equal(use_run("wal/" SEG, use_read), 0);
    assert_int_equal(use_run("wal/" SEG2, use_read), ENOENT);
}

static void a_temporary_is_renamed(void **state)
{
    (void)state;
    assert_int_equal(cp(TEMP, 1), 0);
    assert_int_equal(mem_count(env.mem), 0);
    assert_string_equal(list("wal")->data, "d .\nd ..\n- " TEMP "\n");
    struct use *u = use_new(&env, "wal/" TEMP, "wal/" SEG);
    use_start(u, use_rename);
    assert_int_equal(use_wait(u), 0);
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
    assert_int_equal(use_run("wal/" TEMP, use_stat), ENOENT);
    assert_int_equal(use_run("wal/" SEG, use_read), 0);
    assert_int_equal(cp(TEMP, 2), 0);
    u = use_new(&env, "wal/" TEMP, "wal/" SEG);
    use_start(u, use_rename);
    assert_int_equal(use_wait(u), EEXIST);
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
    assert_int_equal(use_run("wal/" TEMP, use_unlink), 0);
    assert_string_equal(list("wal")->data, "d .\nd ..\n- " SEG "\n");
}

static int rename_flagged(struct use *u)
{
    return syscall(SYS_renameat2, AT_FDCWD, u->path, AT_FDCWD, u->other, u->flags) == 0 ? 0 : errno;
}

static void flags_of_a_rename(void **state)
{
    (void)state;
    static const char *const other = "wal/archtemp.other";
    assert_int_equal(cp(TEMP, 1), 0);
    assert_int_equal(cp("archtemp.other", 2), 0);
    for (unsigned i = 0; i < 4; i++) {
        static const unsigned flags[] = {RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, 0};
        static const int wanted[] = {EEXIST, EINVAL, EINVAL, 0};
        struct use *u = use_new(&env, "wal/" TEMP, other);
        u->flags = (int)flags[i];
        use_start(u, rename_flagged);
        assert_int_equal(use_wait(u), wanted[i]);
    }
    struct use *u = use_new(&env, other, "wal/" SEG);
    u->flags = (int)RENAME_NOREPLACE;
    use_start(u, rename_flagged);
    assert_int_equal(use_wait(u), 0);
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1)); /* it replaced the other */
}

static int change_attributes(struct use *u)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    const struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    int fd = open(u->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    bool ok = write(fd, "0123456789", 10) == 10 && ftruncate(fd, 4) == 0 &&
              posix_fallocate(fd, 0, 100) == 0 && posix_fallocate(fd, 0, 50) == 0 &&
              fstat(fd, &u->st) == 0 && u->st.st_size == 100 && pread(fd, u->data, 200, 0) == 100 &&
              futimens(fd, times) == 0 && futimens(fd, now) == 0 && fchmod(fd, 0640) == 0 &&
              fchown(fd, getuid(), (gid_t)-1) == 0 && truncate(u->path, 6) == 0 &&
              fstat(fd, &u->st) == 0 && u->st.st_size == 6;
    int result = ok ? 0 : errno != 0 ? errno : -2;
    if (ok && (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2) == 0 ||
               errno != EOPNOTSUPP))
        result = -3;
    (void)close(fd);
    return result;
}

static void sizes_and_attributes_are_changed(void **state)
{
    (void)state;
    struct use *u = use_new(&env, "wal/" TEMP, NULL);
    use_start(u, change_attributes);
    assert_int_equal(use_wait(u), 0);
    assert_memory_equal(u->data, "0123\0\0\0\0\0\0", 10);
}

/* ---- refused ---- */

static int make_dir(struct use *u)
{
    return mkdir(u->path, 0700) == 0 ? 0 : errno;
}

static int remove_dir(struct use *u)
{
    return rmdir(u->path) == 0 ? 0 : errno;
}

static int make_fifo(struct use *u)
{
    return mkfifo(u->path, 0600) == 0 ? 0 : errno;
}

static int make_link(struct use *u)
{
    return symlink("x", u->path) == 0 ? 0 : errno;
}

static int make_hard_link(struct use *u)
{
    return link(u->path, u->other) == 0 ? 0 : errno;
}

static void what_this_tree_has_not_is_refused(void **state)
{
    (void)state;
    char longest[300] = "wal/";
    memset(longest + 4, 'x', 256);
    mem_archive_segment(env.mem, SEG, MIB, 1);
    assert_int_equal(use_run("wal/" SEG, use_unlink), EPERM); /* promise 8 */
    assert_true(mem_holds_segment(env.mem, env.pgp, SEG, MIB, 1));
    assert_int_equal(use_run("wal/" SEG2, use_unlink), ENOENT);
    assert_int_equal(use_run("wal", remove_dir), EPERM);
    assert_int_equal(use_run("wal/new", make_dir), EPERM);
    assert_int_equal(use_run("wal/new", make_fifo), EPERM);
    assert_int_equal(use_run("wal/new", make_link), EPERM);
    assert_int_equal(use_run("new", make_dir), EPERM);
    assert_int_equal(use_run("new", use_write), EPERM);
    assert_int_equal(use_run("status/summary", use_write), EPERM);
    assert_int_equal(use_run("status/summary", use_unlink), EPERM);
    assert_int_equal(use_run(longest, use_stat), ENAMETOOLONG);
    struct use *u = use_new(&env, "wal/" SEG, "wal/" SEG2);
    use_start(u, make_hard_link);
    assert_int_equal(use_wait(u), EPERM);
    u = use_new(&env, "wal/" SEG, "wal/" SEG2);
    use_start(u, use_rename);
    assert_int_equal(use_wait(u), EPERM);
    assert_int_equal(mem_count(env.mem), 1);
}

/* An errno that must come, or -2. */
static int only(bool ok, int wanted)
{
    return !ok && errno == wanted ? 0 : -2;
}

static int make_and_remove_dirs(struct use *u)
{
    if (mkdir(u->path, 0700) != 0 || symlink("there", u->other) != 0 ||
        readlink(u->other, u->data, 99) != 5)
        return errno;
    if (only(mkdir(u->path, 0700) == 0, EEXIST) != 0)
        return -3;
    if (rmdir(u->path) != 0)
        return errno;
    return only(rmdir(u->path) == 0, ENOENT);
}

static void directories_and_links_of_a_backup(void **state)
{
    (void)state;
    assert_int_equal(use_run("basebackups/night.partial", make_dir), 0);
    struct use *u = use_new(&env, "basebackups/night.partial/a", "basebackups/night.partial/link");
    use_start(u, make_and_remove_dirs);
    assert_int_equal(use_wait(u), 0);
    assert_memory_equal(u->data, "there", 5);
    assert_int_equal(mem_count(env.mem), 0);
}

/* ---- the rest ---- */

static int use_xattrs(struct use *u)
{
    static const char key[] = "user.walefs.key";
    char small[2], value[256];
    const char *path = u->path;
    ssize_t size = getxattr(path, key, NULL, 0), n = getxattr(path, key, value, sizeof(value));
    if (n <= 0 || n != size)
        return -1000;
    u->size = (size_t)n;
    memcpy(u->data, value, u->size);
    int wrong = only(getxattr(path, key, small, 2) >= 0, ERANGE) +
                only(getxattr(path, "user.none", value, 9) >= 0, ENODATA) +
                only(getxattr(path, "security.capability", value, 9) >= 0, EOPNOTSUPP) +
                only(listxattr(path, small, 2) >= 0, ERANGE) +
                only(setxattr(path, "user.mine", "x", 1, 0) == 0, EOPNOTSUPP) +
                only(removexattr(path, "user.mine") == 0, EOPNOTSUPP);
    if (wrong != 0)
        return wrong;
    /* rsync -X and cp -a bring facts back, and take them away: they stay as they are */
    if (listxattr(path, NULL, 0) <= 0 || setxattr(path, key, "x", 1, 0) != 0 ||
        removexattr(path, key) != 0 || getxattr(path, key, value, sizeof(value)) != n)
        return errno;
    return memcmp(u->data, value, (size_t)n) == 0 ? 0 : -1001;
}

static void attributes_tell_of_the_object(void **state)
{
    (void)state;
    mem_archive_segment(env.mem, SEG, MIB, 1);
    struct use *u = use_new(&env, "wal/" SEG, NULL);
    use_start(u, use_xattrs);
    assert_int_equal(use_wait(u), 0);
    u->data[u->size] = '\0';
    assert_string_equal(u->data, KEY);
}

static int stat_fs(struct use *u)
{
    struct statvfs st;
    if (statvfs(u->path, &st) != 0)
        return errno;
    return st.f_bavail > 0 && st.f_namemax == 255 && st.f_bsize > 0 ? 0 : -2;
}

/* Without the store: df must not hang with it. */
static void statfs_needs_no_store(void **state)
{
    (void)state;
    mem_hang(env.mem, MEM_ANY);
    assert_int_equal(use_run("", stat_fs), 0);
    assert_int_equal(use_run("wal", stat_fs), 0);
}

static int sync_dir(struct use *u)
{
    int fd = open(u->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int result = fsync(fd) == 0 ? 0 : errno;
    return close(fd) == 0 ? result : errno;
}

static void directories_are_synced(void **state)
{
    (void)state;
    assert_int_equal(use_run("wal", sync_dir), 0); /* basic_archive does */
    assert_int_equal(use_run("", sync_dir), 0);
}

/* As it would be written, not "//new". */
static void the_log_names_the_path(void **state)
{
    (void)state;
    assert_int_equal(use_run("new", make_dir), EPERM);
    assert_int_equal(use_run("wal/new", make_dir), EPERM);
    struct use *u = use_new(&env, "status/log", NULL);
    use_start(u, use_read);
    assert_int_equal(use_wait(u), 0);
    u->data[u->size] = '\0';
    assert_non_null(strstr(u->data, "make the directory new: "));
    assert_non_null(strstr(u->data, "make the directory wal/new: "));
}

static bool is_known(uint64_t id)
{
    struct node *node = inode_get(env.fs->inodes, id);
    node_unref(env.fs->inodes, node);
    return node != NULL;
}

/* What the kernel forgets, here because the name is gone, is forgotten here. */
static void what_the_kernel_forgets_is_forgotten(void **state)
{
    (void)state;
    uint64_t ids[20];
    for (unsigned i = 0; i < 20; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "wal/archtemp.%u", i);
        struct use *u = use_new(&env, path, NULL);
        u->size = 10;
        use_start(u, use_write);
        assert_int_equal(use_wait(u), 0);
        use_start(u, use_stat);
        assert_int_equal(use_wait(u), 0);
        ids[i] = u->st.st_ino;
        assert_true(is_known(ids[i]));
        assert_int_equal(use_run(path, use_unlink), 0);
    }
    for (unsigned i = 0; i < 20; i++)
        for (unsigned tries = 0; is_known(ids[i]); tries++) {
            assert_true(tries < USE_PATIENCE_MS);
            (void)usleep(1000);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FUSE_TEST(the_tree_is_listed),
        FUSE_TEST(long_listings_are_whole),
        FUSE_TEST(what_is_archived_is_read),
        FUSE_TEST(any_place_is_read),
        FUSE_TEST(links_are_read),
        FUSE_TEST(a_close_publishes),
        FUSE_TEST(an_fsync_publishes),
        FUSE_TEST(a_failure_is_the_closes),
        FUSE_TEST(a_damaged_object_is_eio),
        cmocka_unit_test_setup_teardown(no_answer_is_eio_when_soft, begin_soft, fuse_end),
        FUSE_TEST(a_temporary_is_renamed),
        FUSE_TEST(flags_of_a_rename),
        FUSE_TEST(sizes_and_attributes_are_changed),
        FUSE_TEST(what_this_tree_has_not_is_refused),
        FUSE_TEST(directories_and_links_of_a_backup),
        FUSE_TEST(attributes_tell_of_the_object),
        FUSE_TEST(statfs_needs_no_store),
        FUSE_TEST(directories_are_synced),
        FUSE_TEST(the_log_names_the_path),
        FUSE_TEST(what_the_kernel_forgets_is_forgotten),
    };
    return fuse_env_main(tests, sizeof(tests) / sizeof(tests[0]));
}
