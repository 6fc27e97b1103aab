/* fs/unmount.c: as root by a system call, in a mount namespace of this program's own; as another
 * user through fusermount3, here a script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/unmount.h"

#define NOBODY 65534

static char base[32];
static bool may_mount;

static int set_up(void **state)
{
    (void)state;
    strcpy(base, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(base) == NULL || chmod(base, 0755) != 0 || chdir(base) != 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof(command), "rm -rf --one-file-system %s", base);
    return chdir("/") == 0 ? system(command) : -1;
}

static bool is_mounted(const char *path)
{
    struct stat here, above;
    char parent[128];
    (void)snprintf(parent, sizeof(parent), "%s/..", path);
    return stat(path, &here) != 0 || stat(parent, &above) != 0 || here.st_dev != above.st_dev;
}

static void test_unmounts(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    if (!may_mount)
        skip();
    assert_int_equal(mkdir("m", 0700), 0);
    assert_int_equal(mount("none", "m", "tmpfs", 0, NULL), 0);
    assert_true(is_mounted("m"));
    int busy = open("m/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(busy >= 0);
    assert_true(unmount_lazily("m", &err)); /* even while it is in use */
    assert_false(is_mounted("m"));
    assert_int_equal(write(busy, "x", 1), 1);
    close(busy);
    assert_true(unmount_lazily("m", &err)); /* not mounted any more */
}

static void test_missing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    if (geteuid() != 0)
        skip();
    assert_false(unmount_lazily("missing", &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_non_null(strstr(err.text, "missing"));
}

/* A symlink that somebody has put there leads nowhere. */
static void test_symlink(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    if (!may_mount)
        skip();
    assert_int_equal(mkdir("m", 0700), 0);
    assert_int_equal(mount("none", "m", "tmpfs", 0, NULL), 0);
    assert_int_equal(symlink("m", "link"), 0);
    (void)unmount_lazily("link", &err);
    assert_true(is_mounted("m"));
    assert_int_equal(umount("m"), 0);
}

/* ---- as an ordinary user ---- */

static void write_script(const char *body)
{
    int fd = open("fusermount3", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0755), 0);
    assert_int_equal(write(fd, body, strlen(body)), strlen(body));
    close(fd);
}

enum { UNMOUNTED = 10, FAILED_LOCAL, FAILED_OTHER };

static int as_nobody(const char *mountpoint)
{
    struct err err = ERR_INIT;
    char *path = strdup(getenv("PATH"));
    uid_t me = geteuid();
    assert_non_null(path);
    assert_int_equal(setenv("PATH", base, 1), 0);
    assert_int_equal(me != 0 ? 0 : seteuid(NOBODY), 0);
    bool ok = unmount_lazily(mountpoint, &err);
    assert_int_equal(seteuid(me), 0);
    assert_int_equal(setenv("PATH", path, 1), 0);
    free(path);
    if (ok)
        return UNMOUNTED;
    return err.code == ERR_LOCAL && strstr(err.text, "fusermount3") != NULL ? FAILED_LOCAL
                                                                            : FAILED_OTHER;
}

static void test_fusermount(void **state)
{
    (void)state;
    write_script("#!/bin/sh\n[ $# -eq 5 ] && [ \"$1 $2 $3 $4\" = '-u -q -z --' ] && "
                 "[ \"$5\" = '/some where/-x' ]\n");
    assert_int_equal(as_nobody("/some where/-x"), UNMOUNTED);
    assert_int_equal(as_nobody("/elsewhere"), FAILED_LOCAL);
    write_script("#!/bin/sh\nkill -9 $$\n");
    assert_int_equal(as_nobody("/x"), FAILED_LOCAL);
    assert_int_equal(unlink("fusermount3"), 0);
    assert_int_equal(as_nobody("/x"), FAILED_LOCAL); /* not installed */
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_unmounts),
        T(test_missing),
        T(test_symlink),
        T(test_fusermount),
    };
    may_mount = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
