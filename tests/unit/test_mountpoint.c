/* mount/mountpoint.c. Mounts are made in a mount namespace of this program's own; where that is not
 * allowed, those tests are skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "mount/mountpoint.h"

static char base[32], real_base[PATH_MAX];
static bool may_mount;

static int set_up(void **state)
{
    (void)state;
    strcpy(base, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(base) == NULL || realpath(base, real_base) == NULL || chdir(base) != 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof(command), "rm -rf --one-file-system %s", base);
    return chdir("/") == 0 ? system(command) : -1;
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void good(const char *path, const char *name)
{
    struct err err = ERR_INIT;
    char expected[2 * PATH_MAX];
    char *full = mountpoint_prepare(path, &err);
    if (full == NULL)
        fail_msg("%s: %s", path, err.text);
    (void)snprintf(expected, sizeof(expected), "%s/%s", real_base, name);
    assert_string_equal(full, expected);
    free(full);
}

static void bad(const char *path, const char *hint)
{
    struct err err = ERR_INIT;
    char *full = mountpoint_prepare(path, &err);
    if (full != NULL)
        fail_msg("accepted: %s", path);
    assert_int_not_equal(err.code, ERR_NONE);
    if (strstr(err.text, hint) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, hint);
    assert_null(strchr(err.text, '\n'));
}

static void test_good(void **state)
{
    (void)state;
    char path[PATH_MAX];
    assert_int_equal(mkdir("m", 0700), 0);
    good("m", "m");
    good("m/", "m");
    good("./m///", "m");
    good("m/../m", "m");
    (void)snprintf(path, sizeof(path), "%s/m", base);
    good(path, "m");
    assert_int_equal(symlink("m", "link"), 0);
    good("link", "m");
    assert_int_equal(chdir("m"), 0);
    good(".", "m");
    good("../m", "m");
    assert_int_equal(chdir(base), 0);
    assert_int_equal(mkdir("with blank\\and\ttab", 0700), 0);
    good("with blank\\and\ttab", "with blank\\and\ttab");
}

static void test_wrong(void **state)
{
    (void)state;
    bad("missing", "mkdir");
    bad("missing", "missing");
    bad("missing/below", "missing/below");
    bad("", "mount point");
    make_file("file");
    bad("file", "not a directory");
    bad("file/", "file");
    bad("file/below", "file");
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    bad("dangling", "dangling");
    assert_int_equal(symlink("loop", "loop"), 0);
    bad("loop", "loop");
    char long_path[PATH_MAX + 100];
    memset(long_path, 'x', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = '\0';
    bad(long_path, "mount point");
}

static void test_not_empty(void **state)
{
    (void)state;
    assert_int_equal(mkdir("m", 0700), 0);
    make_file("m/.hidden");
    bad("m", "not empty");
    assert_int_equal(unlink("m/.hidden"), 0);
    good("m", "m");
    assert_int_equal(mkdir("m/sub", 0700), 0);
    bad("m", "not empty");
    bad("/", "");
}

/* ---- what is mounted there already ---- */

static void test_other_mounts(void **state)
{
    (void)state;
    if (!may_mount)
        skip();
    assert_int_equal(mkdir("m", 0700), 0);
    assert_int_equal(mount("none", "m", "tmpfs", 0, NULL), 0);
    bad("m", "tmpfs");
    assert_int_equal(access("m", F_OK), 0);
    assert_int_equal(umount("m"), 0);
    good("m", "m");
    /* below it is none of our business */
    assert_int_equal(mkdir("parent", 0700), 0);
    assert_int_equal(mount("none", "parent", "tmpfs", 0, NULL), 0);
    assert_int_equal(mkdir("parent/m", 0700), 0);
    good("parent/m", "parent/m");
    assert_int_equal(umount("parent"), 0);
}

/* A FUSE mount whose process has died. */
static bool mount_dead(const char *path, const char *type)
{
    char options[128];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    bool ok = mount("test", path, type, MS_NOSUID | MS_NODEV, options) == 0;
    close(fd);
    return ok;
}

static void test_dead_mounts(void **state)
{
    (void)state;
    assert_int_equal(mkdir("m", 0700), 0);
    if (!may_mount || !mount_dead("m", "fuse.walefs"))
        skip();
    struct stat st;
    assert_int_not_equal(stat("m", &st), 0);
    good("m", "m");
    assert_int_equal(stat("m", &st), 0); /* it has been taken away */
    assert_true(mount_dead("m", "fuse.walefs"));
    assert_true(mount_dead("m", "fuse.walefs")); /* one upon the other */
    good("m/", "m");
    assert_int_equal(stat("m", &st), 0);
    assert_int_equal(mkdir("odd \\ name", 0700), 0);
    assert_true(mount_dead("odd \\ name", "fuse.walefs"));
    good("odd \\ name", "odd \\ name");
    assert_int_equal(stat("odd \\ name", &st), 0);
}

/* Whose user is not root: root, or root in the name of yet another, gets no true answer there. */
static void test_dead_mount_of_another_user(void **state)
{
    (void)state;
    char options[128];
    struct stat st;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    assert_int_equal(mkdir("m", 0700), 0);
    if (!may_mount || fd < 0)
        skip();
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=4321,group_id=1234", fd);
    assert_int_equal(mount("test", "m", "fuse.walefs", MS_NOSUID | MS_NODEV, options), 0);
    close(fd);
    good("m", "m");
    assert_int_equal(stat("m", &st), 0);
}

static void bad_descriptor(const char *path)
{
    bad(path, "mount.fuse3");
}

static void test_descriptors(void **state)
{
    (void)state;
    char path[64];
    struct err err = ERR_INIT;
    bad_descriptor("/dev/fd/");
    bad_descriptor("/dev/fd/x");
    bad_descriptor("/dev/fd/-1");
    bad_descriptor("/dev/fd/99");
    bad_descriptor("/dev/fd/4294967296");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/dev/fd/%d", null);
    bad_descriptor(path);
    close(null);
    assert_false(mountpoint_is_descriptor("/dev/fdx"));
    assert_false(mountpoint_is_descriptor("/mnt/dev/fd/1"));
    assert_true(mountpoint_is_descriptor("/dev/fd/1"));

    int fd = open("/dev/fuse", O_RDWR); // NOLINT(android-cloexec-open)
    if (fd < 0)
        skip();
    (void)snprintf(path, sizeof(path), "/dev/fd/%dx", fd);
    bad_descriptor(path);
    path[strlen(path) - 1] = '\0';
    char *taken = mountpoint_prepare(path, &err);
    assert_non_null(taken);
    assert_string_equal(taken, path);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    free(taken);
    close(fd);
}

/* Another program's dead mount is not ours to remove. */
static void test_dead_mount_of_another(void **state)
{
    (void)state;
    assert_int_equal(mkdir("m", 0700), 0);
    if (!may_mount || !mount_dead("m", "fuse.other"))
        skip();
    bad("m", "fuse.other");
    struct stat st;
    assert_int_not_equal(stat("m", &st), 0);
    assert_int_equal(umount2("m", MNT_DETACH), 0);
}

/* What lies under a dead mount shows when it has gone. */
static void test_not_empty_below_a_dead_mount(void **state)
{
    (void)state;
    assert_int_equal(mkdir("m", 0700), 0);
    make_file("m/file");
    if (!may_mount || !mount_dead("m", "fuse.walefs"))
        skip();
    bad("m", "not empty");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_good),
        T(test_wrong),
        T(test_not_empty),
        T(test_other_mounts),
        T(test_dead_mounts),
        T(test_dead_mount_of_another_user),
        T(test_descriptors),
        T(test_dead_mount_of_another),
        T(test_not_empty_below_a_dead_mount),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    may_mount = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
