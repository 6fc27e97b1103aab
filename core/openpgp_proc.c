/* Ending processes that are not our children.
 *
 * gpgme starts gpg through an intermediate child, so that it need not be waited for, and does not
 * tell its pid; gpg-agent detaches itself. Both are found by what only they can have: the write end
 * of the pipe on which gpg reports to us, or the path of our private home as an argument. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/openpgp_internal.h"

#define CMDLINE_MAX 8192
#define END_POLL_MS 5
#define END_POLITE_MS 300
#define END_FORCED_MS 3000

/* DIR_FD is /proc/PID. */
typedef bool match_fn(int dir_fd, const void *what);

/* Between fork and exec, in which a process has all that this one had open, and is perhaps on its
 * way to become another operation's gpg. */
static bool is_this_program(int dir_fd)
{
    struct stat st, own;
    return fstatat(dir_fd, "exe", &st, 0) == 0 && stat("/proc/self/exe", &own) == 0 &&
           st.st_dev == own.st_dev && st.st_ino == own.st_ino;
}

static bool holds_write_end(int dir_fd, const void *what)
{
    if (is_this_program(dir_fd))
        return false;
    char wanted[48];
    (void)snprintf(wanted, sizeof(wanted), "pipe:[%llu]", (unsigned long long)*(const ino_t *)what);
    int fd = openat(dir_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *fds = fd < 0 ? NULL : fdopendir(fd);
    if (fds == NULL) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    bool found = false;
    const struct dirent *entry;
    while (!found && (entry = readdir(fds)) != NULL) {
        char target[48];
        ssize_t n = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        /* the mode of the link shows the direction */
        struct stat st;
        found = strcmp(target, wanted) == 0 &&
                fstatat(dirfd(fds), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                (st.st_mode & S_IWUSR) != 0;
    }
    closedir(fds);
    return found;
}

static bool has_argument(int dir_fd, const void *what)
{
    char args[CMDLINE_MAX];
    int fd = openat(dir_fd, "cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, args, sizeof(args) - 1);
    close(fd);
    if (n <= 0)
        return false;
    args[n] = '\0';
    for (const char *arg = args; arg < args + n; arg += strlen(arg) + 1) {
        if (strcmp(arg, what) == 0)
            return true;
    }
    return false;
}

/* The pidfd is taken before the process is looked at, so that a pid that is given to another
 * process meanwhile does no harm. A kernel without pidfds (before 5.3) leaves plain kill. */
static bool signal_if(const char *pid_name, match_fn *match, const void *what, int sig)
{
    pid_t pid = (pid_t)strtol(pid_name, NULL, 10);
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/%ld", (long)pid);
    int pid_fd = pidfd_open(pid, 0);
    bool plain = pid_fd < 0 && (errno == ENOSYS || errno == EPERM);
    int dir_fd = pid_fd < 0 && !plain ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    bool matched =
        dir_fd >= 0 && fstat(dir_fd, &st) == 0 && st.st_uid == geteuid() && match(dir_fd, what);
    if (matched && plain)
        (void)kill(pid, sig);
    else if (matched)
        (void)pidfd_send_signal(pid_fd, sig, NULL, 0);
    if (dir_fd >= 0)
        close(dir_fd);
    if (pid_fd >= 0)
        close(pid_fd);
    return matched;
}

/* How many processes matched. SIG may be 0. */
static unsigned signal_all(match_fn *match, const void *what, int sig)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return 0;
    char self[24];
    (void)snprintf(self, sizeof(self), "%ld", (long)getpid());
    unsigned count = 0;
    const struct dirent *entry;
    while ((entry = readdir(proc)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0]) && strcmp(entry->d_name, self) != 0 &&
            signal_if(entry->d_name, match, what, sig))
            count++;
    }
    closedir(proc);
    return count;
}

void gpg_signal_writers(ino_t pipe_ino, int sig)
{
    (void)signal_all(holds_write_end, &pipe_ino, sig);
}

static bool gone_within(const char *home, int64_t wait_ms)
{
    for (int64_t until = now_ms() + wait_ms;;) {
        if (signal_all(has_argument, home, 0) == 0)
            return true;
        if (now_ms() >= until)
            return false;
        cancel_sleep_ms(NULL, END_POLL_MS);
    }
}

void gpg_end_users_of(const char *home)
{
    if (signal_all(has_argument, home, SIGTERM) == 0 || gone_within(home, END_POLITE_MS))
        return;
    (void)signal_all(has_argument, home, SIGKILL);
    (void)gone_within(home, END_FORCED_MS);
}
