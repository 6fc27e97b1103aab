#include "fs/unmount.h"

#include <errno.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

bool unmount_lazily(const char *mountpoint, struct err *err)
{
    if (geteuid() == 0) {
        if (umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL)
            return true; /* EINVAL: not mounted any more */
        return err_sys(err, errno, "cannot unmount %s", mountpoint);
    }
    char *const argv[] = {"fusermount3", "-u", "-q", "-z", "--", (char *)mountpoint, NULL};
    pid_t pid;
    int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (rc != 0)
        return err_sys(err, rc, "cannot run fusermount3 to unmount %s", mountpoint);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(err, errno, "cannot wait for fusermount3");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    return err_set(err, ERR_LOCAL, "fusermount3 cannot unmount %s", mountpoint);
}
