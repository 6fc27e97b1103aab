#include "mount/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

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

/* The type of the file system that is visible at PATH because it is mounted right there; "" when
 * none is. Source: proc_pid_mountinfo(5): the type follows " - ", and the last mount on a path is
 * the visible one. */
static void mounted_type(const char *path, char type[64])
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t cap = 0;
    type[0] = '\0';
    while (f != NULL && getline(&line, &cap, f) > 0) {
        char where[PATH_MAX], found[64];
        const char *dash = strstr(line, " - ");
        if (dash == NULL || sscanf(line, "%*s %*s %*s %*s %4095s", where) != 1 ||
            sscanf(dash, " - %63s", found) != 1)
            continue;
        unescape(where);
        if (strcmp(where, path) == 0)
            strcpy(type, found);
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

/* Takes away mounts of dead processes, one after the other; an automounter's trigger may stay. */
static bool clean_dead(const char *path, struct err *err)
{
    char type[64];
    struct statfs st;
    for (int i = 0; i < 16; i++) {
        mounted_type(path, type);
        if (type[0] == '\0' || strcmp(type, "autofs") == 0)
            break;
        bool ours = strcmp(type, "fuse.walefs") == 0;
        /* statfs, since the kernel may answer a stat from its cache */
        if (!ours || statfs(path, &st) == 0 || errno != ENOTCONN)
            return err_set(err, ERR_INVALID, "%s is mounted on already (%s): umount %s first", path,
                           ours ? "walefs" : type, path);
        if (!unmount_lazily(path, err))
            return err_context(err, "%s: the mount of a dead walefs is in the way", path);
        log_info("%s: took away the mount of a walefs that has died", path);
    }
    return true;
}

char *mountpoint_prepare(const char *path, struct err *err)
{
    struct stat st;
    char *full = absolute(path, err);
    if (full == NULL)
        return NULL;
    if (!clean_dead(full, err)) {
    } else if (stat(full, &st) != 0) {
        err_sys(err, errno, "mount point %s%s", full,
                errno == ENOENT ? " (make it with mkdir)" : "");
    } else if (!S_ISDIR(st.st_mode)) {
        err_set(err, ERR_INVALID, "mount point %s is not a directory", full);
    } else if (check_empty(full, err)) {
        return full;
    }
    free(full);
    return NULL;
}
