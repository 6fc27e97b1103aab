#include "fs/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* include/linux/sched.h */
#define PF_EXITING 0x00000004ul
#define PF_SIGNALED 0x00000400ul

/* The file's text, NUL-terminated and possibly cut; false when it cannot be read. */
static bool read_proc(pid_t pid, const char *file, char *out, size_t cap)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, cap - 1);
    close(fd);
    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

pid_t process_of_thread(pid_t tid)
{
    char text[2048];
    if (tid <= 0 || !read_proc(tid, "status", text, sizeof(text)))
        return 0;
    const char *p = strstr(text, "\nTgid:");
    return p == NULL ? 0 : (pid_t)strtol(p + 6, NULL, 10);
}

static unsigned long long status_mask(const char *text, const char *field)
{
    const char *p = strstr(text, field);
    return p == NULL ? 0 : strtoull(p + strlen(field), NULL, 16);
}

/* Signals whose default is to be ignored or to stop the process. */
static unsigned long long not_fatal(void)
{
    static const int numbers[] = {SIGCHLD, SIGCONT, SIGURG,  SIGWINCH,
                                  SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    unsigned long long mask = 0;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        mask |= 1ull << (numbers[i] - 1);
    return mask;
}

bool process_is_dying(pid_t tid)
{
    char text[4096];
    if (tid <= 0 || !read_proc(tid, "status", text, sizeof(text)))
        return true;
    unsigned long long pending = status_mask(text, "\nSigPnd:") | status_mask(text, "\nShdPnd:");
    unsigned long long harmless = status_mask(text, "\nSigCgt:") | status_mask(text, "\nSigIgn:") |
                                  status_mask(text, "\nSigBlk:") | not_fatal();
    return (pending & ~harmless) != 0;
}

bool process_has_open(pid_t pid, const char *path_end, bool unseen)
{
    char dir[64], target[4096];
    (void)snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
    DIR *d = pid <= 0 ? NULL : opendir(dir);
    if (d == NULL)
        return unseen;
    bool found = false;
    size_t want = strlen(path_end);
    for (const struct dirent *e; !found && (e = readdir(d)) != NULL;) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        if (n < 0 || (size_t)n < want)
            continue;
        target[n] = '\0';
        found = strcmp(target + n - want, path_end) == 0;
    }
    closedir(d);
    return found;
}

bool process_others_have_open(pid_t pid, const char *path_end)
{
    DIR *d = opendir("/proc");
    bool found = false;
    for (const struct dirent *e; d != NULL && !found && (e = readdir(d)) != NULL;) {
        pid_t other = (pid_t)atoi(e->d_name); /* 0 for what is no process */
        found = other > 0 && other != pid && process_has_open(other, path_end, false);
    }
    if (d != NULL)
        closedir(d);
    return found;
}

/* Reading the exe link needs the same rights as seeing open files and the exit code; a process that
 * has dropped its memory already answers ENOENT to those who have them, as does one that is not
 * there. */
bool process_is_visible(pid_t pid)
{
    char path[64], target[8];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (pid <= 0 || access(path, F_OK) != 0)
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    return readlink(path, target, sizeof(target)) >= 0 || errno == ENOENT;
}

enum process_state process_state(pid_t pid)
{
    char text[1024];
    if (pid <= 0 || !read_proc(pid, "stat", text, sizeof(text)))
        return PROCESS_RUNNING;
    char *p = strrchr(text, ')'); /* the name before it may hold anything */
    if (p == NULL)
        return PROCESS_RUNNING;
    unsigned long flags = 0;
    long exit_code = 0;
    unsigned field = 2;
    for (char *save = NULL, *word = strtok_r(p + 1, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save)) {
        field++;
        if (field == 9)
            flags = strtoul(word, NULL, 10);
        if (field == 52)
            exit_code = strtol(word, NULL, 10);
    }
    if ((flags & PF_EXITING) == 0)
        return PROCESS_RUNNING;
    if (exit_code != 0)
        return PROCESS_FAILED;
    if (process_is_visible(pid)) /* when one thread exits with 0, a signal ends the others */
        return PROCESS_EXITED_WELL;
    return (flags & PF_SIGNALED) != 0 ? PROCESS_FAILED : PROCESS_EXITED_UNSEEN;
}
