#include "mount/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mount/identity.h"

/* The report: "+" or the text of the error. */
static _Noreturn void wait_for_report(int fd, const char *mountpoint, int failure_status)
{
    char text[2048];
    size_t n = 0;
    ssize_t got;
    while ((got = read(fd, text + n, sizeof(text) - 1 - n)) > 0 || (got < 0 && errno == EINTR))
        n += got > 0 ? (size_t)got : 0;
    text[n] = '\0';
    struct statvfs st;
    struct err err = ERR_INIT;
    if (strcmp(text, "+") == 0) {
        /* as the mount's owner: root itself is refused there, and the owner perhaps on the way */
        if (identity_settle(&err) && (statvfs(mountpoint, &st) == 0 || errno == EACCES))
            _exit(0);
        (void)snprintf(text, sizeof(text), "%s was mounted but does not answer: %s", mountpoint,
                       strerror(errno));
    }
    (void)fprintf(stderr, "walefs: %s\n", n == 0 ? "died while starting" : text);
    _exit(failure_status);
}

int daemon_fork(const char *mountpoint, int failure_status, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        err_sys(err, errno, "cannot make a pipe");
        return -1;
    }
    pid_t pid = fork();
    if (pid < 0) {
        err_sys(err, errno, "cannot fork");
        close(fds[0]);
        close(fds[1]);
        return -1;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_report(fds[0], mountpoint, failure_status);
    }
    close(fds[0]);
    return fds[1];
}

bool daemon_report(int fd, const char *failure)
{
    const char *text = failure == NULL ? "+" : failure;
    if (failure == NULL) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
            dup2(null, STDIN_FILENO);
            dup2(null, STDOUT_FILENO);
            dup2(null, STDERR_FILENO);
            if (null > STDERR_FILENO)
                close(null);
        }
        (void)!chdir("/");
        (void)setsid();
    }
    bool told = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return told;
}
