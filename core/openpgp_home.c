/* A private gpg home: a directory of ours on tmpfs in which gpg-agent derives keys cheaply (the
 * smallest s2k-count instead of one calibrated to 0.1 s; see openpgp.h). That is no weaker than
 * the passphrase in our own memory: whoever can read the directory can read that, too, and
 * nothing of it reaches a disk (but for swap).
 *
 * The owner holds a lock (flock) on the directory for as long as it lives, also across the fork
 * of a daemon; a directory that can be locked belongs to nobody any more and is removed by
 * whoever comes next. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/openpgp_internal.h"

#define NAME_PREFIX "walefs-gpg."
#define BASES 5
#define REMOVE_DEPTH_MAX 4

/* sockaddr_un's limit; gpg-agent puts its sockets into the home if there is no /run/user/UID */
#define SOCKET_PATH_MAX 107
#define LONGEST_SOCKET "/S.gpg-agent.browser"

struct gpg_home {
    char path[SOCKET_PATH_MAX + 1];
    int fd; /* holds the lock */
};

static const char agent_conf[] = "s2k-count 65536\n"
                                 "allow-loopback-pinentry\n"
                                 "no-allow-external-cache\n"
                                 "auto-expand-secmem 0x400000\n"
                                 "disable-scdaemon\n";

/* Locks are for changes to the keyring, and each costs a file; the keyring changes only before the
 * home is used. */
static const char gpg_conf[] = "batch\n"
                               "no-tty\n"
                               "lock-never\n"
                               "no-random-seed-file\n"
                               "no-auto-check-trustdb\n"
                               "trust-model always\n";

/* ---- removing ---- */

/* Removes what is in DIR_FD (which this closes) without following any link out of it. */
static void remove_content(int dir_fd, int depth)
{
    DIR *dir = fdopendir(dir_fd);
    if (dir == NULL) {
        close(dir_fd);
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            unlinkat(dirfd(dir), name, 0) == 0 || depth == 0)
            continue;
        int sub = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0)
            remove_content(sub, depth - 1);
        (void)unlinkat(dirfd(dir), name, AT_REMOVEDIR);
    }
    closedir(dir);
}

/* gpg's directory for the sockets of this home under /run/user/UID, where that exists. */
static void remove_socket_dir(const char *path)
{
    const char *gpgconf = gpgme_get_dirinfo("gpgconf-name");
    if (gpgconf == NULL)
        return;
    char *argv[] = {(char *)(uintptr_t)gpgconf, (char *)(uintptr_t) "--homedir",
                    (char *)(uintptr_t)path, (char *)(uintptr_t) "--remove-socketdir", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_adddup2(&actions, 0, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    pid_t pid;
    if (posix_spawn(&pid, gpgconf, &actions, NULL, argv, environ) == 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    posix_spawn_file_actions_destroy(&actions);
}

/* FD is the locked directory; it stays open (and locked) until all is gone. */
static void remove_home(const char *path, int fd)
{
    gpg_end_users_of(path);
    remove_socket_dir(path);
    int content = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (content >= 0)
        remove_content(content, REMOVE_DEPTH_MAX);
    if (rmdir(path) != 0 && errno != ENOENT)
        log_warn("cannot remove %s, walefs' private gpg home: %s", path, strerror(errno));
}

static bool lock_dir(int fd, int how)
{
    struct stat st;
    /* no link left: the one who held the lock before us has removed it */
    return flock(fd, how) == 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() && st.st_nlink > 0;
}

static void remove_stale(const char *base)
{
    DIR *dir = opendir(base);
    if (dir == NULL)
        return;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        struct stat st;
        if (strncmp(entry->d_name, NAME_PREFIX, sizeof(NAME_PREFIX) - 1) != 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (lock_dir(fd, LOCK_EX | LOCK_NB) &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", base, entry->d_name) < sizeof(path)) {
            log_info("removing %s, a private gpg home left by a walefs that is gone", path);
            remove_home(path, fd);
        }
        close(fd);
    }
    closedir(dir);
}

/* ---- making ---- */

static bool on_tmpfs(const char *dir)
{
    struct statfs fs;
    return statfs(dir, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Directories that may do, the best first. What belongs to a login session comes last: logind
 * removes /run/user/UID when the user logs out, though a mount may live on. */
static size_t find_bases(char bases[BASES][SOCKET_PATH_MAX + 1])
{
    char of_service[PATH_MAX] = "", of_user[32];
    const char *service = secure_getenv("RUNTIME_DIRECTORY"); /* from systemd, "a:b:..." */
    const char *session = secure_getenv("XDG_RUNTIME_DIR");
    if (service != NULL)
        (void)snprintf(of_service, sizeof(of_service), "%.*s", (int)strcspn(service, ":"), service);
    (void)snprintf(of_user, sizeof(of_user), "/run/user/%lu", (unsigned long)geteuid());
    const char *candidates[BASES] = {of_service, geteuid() == 0 ? "/run" : "", "/dev/shm",
                                     session == NULL ? "" : session, of_user};
    size_t count = 0;
    for (size_t i = 0; i < BASES; i++) {
        size_t n = strlen(candidates[i]);
        bool seen = false;
        for (size_t j = 0; j < count; j++)
            seen = seen || strcmp(bases[j], candidates[i]) == 0;
        if (!seen && candidates[i][0] == '/' && on_tmpfs(candidates[i]) &&
            n + sizeof("/" NAME_PREFIX "XXXXXX" LONGEST_SOCKET) <= SOCKET_PATH_MAX + 1)
            memcpy(bases[count++], candidates[i], n + 1);
    }
    return count;
}

static bool write_conf(int dir_fd, const char *name, const char *text, const char *more)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = dprintf(fd, "%s%s", text, more) == (int)(strlen(text) + strlen(more));
    return close(fd) == 0 && ok;
}

/* False with errno. */
static bool make_in(struct gpg_home *home, const char *base, const char *more_conf)
{
    /* a cleaner may take the new directory for a stale one before it is locked: then once more */
    for (int tries = 0; tries < 10; tries++) {
        int n = snprintf(home->path, sizeof(home->path), "%s/" NAME_PREFIX "XXXXXX", base);
        if (n < 0 || (size_t)n >= sizeof(home->path) || mkdtemp(home->path) == NULL)
            return false;
        home->fd = open(home->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (home->fd >= 0 && lock_dir(home->fd, LOCK_EX))
            break;
        if (home->fd >= 0)
            close(home->fd);
        home->fd = -1;
    }
    if (home->fd < 0)
        return false;
    if (write_conf(home->fd, "gpg.conf", gpg_conf, more_conf) &&
        write_conf(home->fd, "gpg-agent.conf", agent_conf, ""))
        return true;
    int saved = errno;
    remove_home(home->path, home->fd);
    close(home->fd);
    home->fd = -1;
    errno = saved;
    return false;
}

struct gpg_home *gpg_home_new(const char *more_conf, struct err *err)
{
    char bases[BASES][SOCKET_PATH_MAX + 1];
    size_t count = find_bases(bases);
    for (size_t i = 0; i < count; i++)
        remove_stale(bases[i]);
    struct gpg_home *home = calloc(1, sizeof(*home));
    if (home == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    home->fd = -1;
    errno = ENOENT;
    for (size_t i = 0; i < count && home->fd < 0; i++)
        (void)make_in(home, bases[i], more_conf);
    if (home->fd >= 0)
        return home;
    err_sys(err, errno,
            "no directory on a tmpfs for the private gpg home; set RUNTIME_DIRECTORY to one that "
            "is writable");
    free(home);
    return NULL;
}

const char *gpg_home_path(const struct gpg_home *home)
{
    return home->path;
}

void gpg_home_free(struct gpg_home *home)
{
    if (home == NULL)
        return;
    remove_home(home->path, home->fd);
    close(home->fd);
    free(home);
}
