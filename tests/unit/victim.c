#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "victim.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct victim victim_start(int how)
{
    int fd[2];
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char c;
        close(fd[1]);
        ssize_t n = read(fd[0], &c, 1);
        if (how == END_KILLED)
            kill(getpid(), SIGKILL);
        _exit(n == 0 && how == END_WELL ? 0 : 3);
    }
    close(fd[0]);
    return (struct victim){.pid = pid, .go = fd[1]};
}

void victim_end(struct victim *v)
{
    siginfo_t info;
    close(v->go);
    assert_int_equal(waitid(P_PID, (id_t)v->pid, &info, WEXITED | WNOWAIT), 0);
}

void victim_reap(struct victim *v)
{
    assert_int_equal(waitpid(v->pid, NULL, 0), v->pid);
}
