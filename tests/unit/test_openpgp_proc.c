/* core/openpgp_proc.c: which processes are ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/openpgp_internal.h"

struct writer {
    int read_end;
    ino_t pipe;
    pid_t pid;
};

/* A process that holds the write end of a pipe of its own: another program, or this one, as between
 * fork and exec. */
static struct writer start(bool other_program)
{
    int ends[2];
    struct stat st;
    char byte;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fstat(ends[0], &st), 0);
    struct writer w = {.read_end = ends[0], .pipe = st.st_ino, .pid = fork()};
    assert_true(w.pid >= 0);
    if (w.pid == 0) {
        if (other_program && dup2(ends[1], 1) == 1 && close(ends[1]) == 0)
            (void)execl("/bin/sh", "sh", "-c", "echo; exec sleep 100", (char *)NULL);
        else if (!other_program && write(ends[1], "", 1) == 1)
            (void)pause();
        _exit(1);
    }
    (void)close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1); /* it has come so far */
    return w;
}

static int status_of(const struct writer *w)
{
    int status;
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    (void)close(w->read_end);
    return status;
}

static void a_gpg_is_ended(void **state)
{
    (void)state;
    struct writer w = start(true);
    gpg_signal_writers(w.pipe, SIGKILL);
    int status = status_of(&w);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* It may be another thread's, and holds what it inherited only until its exec. */
static void one_that_is_being_started_is_left_alone(void **state)
{
    int status;
    (void)state;
    struct writer w = start(false);
    gpg_signal_writers(w.pipe, SIGKILL);
    cancel_sleep_ms(NULL, 100);
    assert_int_equal(waitpid(w.pid, &status, WNOHANG), 0);
    assert_int_equal(kill(w.pid, SIGTERM), 0);
    status = status_of(&w);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpg_is_ended),
        cmocka_unit_test(one_that_is_being_started_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
