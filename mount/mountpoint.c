#include "mount/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "fs/unmount.h"

/* Absolute without asking the last component anything, since that may be a dead mount. */
static char *absolute(const char *path, struct err *err)
{
    char *result = realpath(path, NULL);
    if (result != NULL)
        return result;
    char *copy = strdup(path);
    if (copy == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    const char *base = slash == NULL ? copy : slash + 1;
    char parent[PATH_MAX];
    if (*base == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        result = realpath(copy, NULL);
    } else {
        if (slash != NULL)
            *slash = '\0';
        const char *dir = slash == NULL ? "." : slash == copy ? "/" : copy;
        if (realpath(dir, parent) != NULL &&
            asprintf(&result, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, base) < 0)
            result = NULL;
    }
    if (result == NULL)
        err_sys(err, errno, "mount point %s", path);
    free(copy);
    return result;
}

/* mountinfo writes blanks and backslashes in octal. */
static void unescape(char *s)
{
    char *out = s;
    for (; *s != '\0'; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] != '\0' && s[3] != '\0') {
            *out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 3;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
}

struct mounted {
    char type[64]; /* "" : nothing is mounted there */
    uid_t uid;     /* whose FUSE mount it is */
    gid_t gid;
};

/* What is visible at PATH because it is mounted right there. Source: proc_pid_mountinfo(5): after
 * " - " come type, source and the file system's options, and the last mount on a path is the
 * visible one. */
static void find_mounted(const char *path, struct mounted *m)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t cap = 0;
    *m = (struct mounted){.uid = 0};
    while (f != NULL && getline(&line, &cap, f) > 0) {
        char where[PATH_MAX], type[64];
        const char *dash = strstr(line, " - "), *options;
        if (dash == NULL || sscanf(line, "%*s %*s %*s %*s %4095s", where) != 1 ||
            sscanf(dash, " - %63s", type) != 1)
            continue;
        unescape(where);
        if (strcmp(where, path) != 0)
            continue;
        strcpy(m->type, type);
        options = strrchr(dash, ' ');
        const char *uid = strstr(options, "user_id="), *gid = strstr(options, "group_id=");
        m->uid = uid == NULL ? 0 : (uid_t)strtoul(uid + strlen("user_id="), NULL, 10);
        m->gid = gid == NULL ? 0 : (gid_t)strtoul(gid + strlen("group_id="), NULL, 10);
    }
    free(line);
    if (f != NULL)
        fclose(f);
}

static bool check_empty(const char *path, struct err *err)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return err_sys(err, errno, "mount point %s", path);
    bool empty = true;
    for (const struct dirent *e; empty && (e = readdir(d)) != NULL;)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return empty || err_set(err, ERR_INVALID,
                            "mount point %s is not empty: what lies there would be "
                            "hidden; use an empty directory",
                            path);
}

/* statfs, since the kernel may answer a stat from its cache. */
static bool is_disconnected(int fd)
{
    struct statfs st;
    return fstatfs(fd, &st) != 0 && errno == ENOTCONN;
}

/* Who may not use a mount gets no answer of its process, not even root: the owner has to ask. */
static bool owner_finds_disconnected(int fd, const struct mounted *m)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(setresgid(m->gid, m->gid, m->gid) == 0 && setresuid(m->uid, m->uid, m->uid) == 0 &&
                      is_disconnected(fd)
                  ? 0
                  : 1);
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool is_dead(const char *path, const struct mounted *m)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOTCONN;
    bool dead =
        geteuid() == 0 && m->uid != 0 ? owner_finds_disconnected(fd, m) : is_disconnected(fd);
    close(fd);
    return dead;
}

/* Takes away mounts of dead processes, one after the other. An automounter's trigger stays. */
static bool clean_dead(const char *path, bool *trigger, struct err *err)
{
    struct mounted m;
    for (int i = 0; i < 16; i++) {
        find_mounted(path, &m);
        *trigger = strcmp(m.type, "autofs") == 0;
        if (m.type[0] == '\0' || *trigger)
            break;
        bool ours = strcmp(m.type, "fuse.walefs") == 0;
        if (!ours || !is_dead(path, &m))
            return err_set(err, ERR_INVALID, "%s is mounted on already (%s): umount %s first", path,
                           ours ? "walefs" : m.type, path);
        if (!unmount_lazily(path, err))
            return err_context(err, "%s: the mount of a dead walefs is in the way", path);
        log_info("%s: took away the mount of a walefs that has died", path);
    }
    return true;
}

#define DESCRIPTOR_DIR "/dev/fd/"

bool mountpoint_is_descriptor(const char *path)
{
    return strncmp(path, DESCRIPTOR_DIR, strlen(DESCRIPTOR_DIR)) == 0;
}

/* The programs that this one starts do not get it. */
static char *take_descriptor(const char *path, struct err *err)
{
    const dev_t fuse_device = makedev(10, 229); /* Documentation/admin-guide/devices.txt */
    char *end, *copy = NULL;
    struct stat st;
    long fd = strtol(path + strlen(DESCRIPTOR_DIR), &end, 10);
    if (end == path + strlen(DESCRIPTOR_DIR) || *end != '\0' || fd < 0 || fd > INT_MAX ||
        fstat((int)fd, &st) != 0 || !S_ISCHR(st.st_mode) || st.st_rdev != fuse_device)
        err_set(err, ERR_INVALID,
                "mount point %s is not an open /dev/fuse, as mount.fuse3 passes it", path);
    else if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0)
        err_sys(err, errno, "mount point %s", path);
    else if (asprintf(&copy, DESCRIPTOR_DIR "%ld", fd) < 0)
        copy = NULL;
    return copy;
}

char *mountpoint_prepare(const char *path, struct err *err)
{
    struct stat st;
    bool trigger = false;
    if (mountpoint_is_descriptor(path))
        return take_descriptor(path, err);
    char *full = absolute(path, err);
    if (full == NULL)
        return NULL;
    if (!clean_dead(full, &trigger, err)) {
    } else if (stat(full, &st) != 0) {
        err_sys(err, errno, "mount point %s%s", full,
                errno == ENOENT ? " (make it with mkdir)" : "");
    } else if (!S_ISDIR(st.st_mode)) {
        err_set(err, ERR_INVALID, "mount point %s is not a directory", full);
    } else if (trigger || check_empty(full, err)) { /* looking into a trigger would mount */
        return full;
    }
    free(full);
    return NULL;
}
