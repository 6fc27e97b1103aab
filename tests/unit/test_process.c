/* fs/process.c with real processes that end in all the ways there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/process.h"

#define NOBODY 65534

struct child {
    pid_t pid;
    int said;  /* what the child tells: its thread ids */
    int order; /* closing it is the order to go on */
};

/* What a child does: tells when it is ready, waits for the order, ends. */
typedef void child_main(int say, int order);

static struct child start(child_main *run)
{
    int out[2], in[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(out[0]);
        close(in[1]);
        alarm(120);
        run(out[1], in[0]);
        _exit(99);
    }
    close(out[1]);
    close(in[0]);
    return (struct child){.pid = pid, .said = out[0], .order = in[1]};
}

static pid_t hear(const struct child *c)
{
    pid_t said = 0;
    assert_int_equal(read(c->said, &said, sizeof(said)), sizeof(said));
    return said;
}

static void go_on(struct child *c)
{
    close(c->order);
    c->order = -1;
}

/* Waits for the end; the child stays a zombie, as a process that flushes its files while it ends
 * has the same marks. */
static void await_end(const struct child *c)
{
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT), 0);
}

static void bury(struct child *c)
{
    if (c->order >= 0)
        close(c->order);
    close(c->said);
    assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
}

static pid_t self(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static void say_ready(int say)
{
    pid_t tid = self();
    if (write(say, &tid, sizeof(tid)) != sizeof(tid))
        _exit(98);
}

static void wait_for_order(int order)
{
    char c;
    if (read(order, &c, 1) != 0)
        _exit(97);
}

/* ---- children ---- */

static void exits_0(int say, int order)
{
    say_ready(say);
    wait_for_order(order);
    _exit(0);
}

static void exits_3(int say, int order)
{
    say_ready(say);
    wait_for_order(order);
    _exit(3);
}

static void odd_name(int say, int order)
{
    prctl(PR_SET_NAME, ") R 1 (x) 9");
    exits_3(say, order);
}

static void segfaults(int say, int order)
{
    say_ready(say);
    wait_for_order(order);
    raise(SIGABRT);
}

struct pipes {
    int say, order;
    int status; /* -1: the thread just ends */
};

static void *thread_main(void *arg)
{
    struct pipes *p = arg;
    say_ready(p->say);
    wait_for_order(p->order);
    if (p->status >= 0)
        _exit(p->status);
    return NULL;
}

static void run_thread(int say, int order, int status, bool leader_ends)
{
    static struct pipes p;
    pthread_t thread;
    p = (struct pipes){.say = say, .order = order, .status = status};
    if (pthread_create(&thread, NULL, thread_main, &p) != 0)
        _exit(96);
    if (leader_ends)
        pthread_exit(NULL);
    pthread_join(thread, NULL);
    for (;;)
        pause();
}

static void thread_exits_0(int say, int order)
{
    run_thread(say, order, 0, false);
}

static void thread_exits_3(int say, int order)
{
    run_thread(say, order, 3, false);
}

static void thread_outlives_leader(int say, int order)
{
    run_thread(say, order, 0, true);
}

static void thread_outlives_leader_and_fails(int say, int order)
{
    run_thread(say, order, 3, true);
}

/* ---- state ---- */

static void check_end(child_main *run, int signal_number, enum process_state expected)
{
    struct child c = start(run);
    pid_t tid = hear(&c);
    assert_int_equal(process_of_thread(tid), c.pid);
    assert_int_equal(process_state(c.pid), PROCESS_RUNNING);
    if (signal_number != 0)
        assert_int_equal(kill(c.pid, signal_number), 0);
    else
        go_on(&c);
    await_end(&c);
    assert_int_equal(process_state(c.pid), expected);
    assert_int_equal(process_of_thread(c.pid), c.pid);
    bury(&c);
    assert_int_equal(process_state(c.pid), PROCESS_RUNNING); /* unknown */
    assert_int_equal(process_of_thread(c.pid), 0);
}

static void test_ends(void **state)
{
    (void)state;
    check_end(exits_0, 0, PROCESS_EXITED_WELL);
    check_end(exits_3, 0, PROCESS_FAILED);
    check_end(odd_name, 0, PROCESS_FAILED);
    check_end(segfaults, 0, PROCESS_FAILED);
    check_end(exits_0, SIGKILL, PROCESS_FAILED);
    check_end(exits_0, SIGTERM, PROCESS_FAILED);
    check_end(exits_0, SIGPIPE, PROCESS_FAILED);
}

static void test_threads(void **state)
{
    (void)state;
    check_end(thread_exits_0, 0, PROCESS_EXITED_WELL);
    check_end(thread_exits_3, 0, PROCESS_FAILED);
    check_end(thread_exits_0, SIGKILL, PROCESS_FAILED);
}

/* The first thread has ended; the process has not. */
static void check_without_leader(child_main *run, int signal_number, enum process_state expected)
{
    struct child c = start(run);
    pid_t tid = hear(&c);
    assert_int_not_equal(tid, c.pid);
    assert_int_equal(process_of_thread(tid), c.pid);
    assert_int_equal(process_state(tid), PROCESS_RUNNING);
    if (signal_number != 0)
        assert_int_equal(kill(c.pid, signal_number), 0);
    else
        go_on(&c);
    await_end(&c);
    assert_int_equal(process_state(c.pid), expected);
    bury(&c);
}

static void test_without_the_first_thread(void **state)
{
    (void)state;
    check_without_leader(thread_outlives_leader, 0, PROCESS_EXITED_WELL);
    check_without_leader(thread_outlives_leader, SIGKILL, PROCESS_FAILED);
    check_without_leader(thread_outlives_leader_and_fails, 0, PROCESS_FAILED);
}

static void test_nobody_there(void **state)
{
    (void)state;
    assert_int_equal(process_of_thread(0), 0);
    assert_int_equal(process_of_thread(-1), 0);
    assert_int_equal(process_state(0), PROCESS_RUNNING);
    assert_int_equal(process_state(-5), PROCESS_RUNNING);
    assert_int_equal(process_state(getpid()), PROCESS_RUNNING);
    assert_int_equal(process_of_thread(getpid()), getpid());
}

/* Runs CHECK as an ordinary user, who has no rights over the child. */
static void as_nobody(void (*check)(pid_t), pid_t pid)
{
    pid_t helper = fork();
    assert_true(helper >= 0);
    if (helper == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(50);
        check(pid);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(helper, &status, 0), helper);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_unseen(pid_t pid)
{
    if (process_state(pid) != PROCESS_EXITED_UNSEEN)
        _exit(51);
}

static void expect_failed(pid_t pid)
{
    if (process_state(pid) != PROCESS_FAILED)
        _exit(52);
}

static void expect_invisible(pid_t pid)
{
    if (process_is_visible(pid) || !process_is_visible(getpid()))
        _exit(54);
}

static void test_visible(void **state)
{
    (void)state;
    assert_true(process_is_visible(getpid()));
    assert_false(process_is_visible(0));
    assert_false(process_is_visible(-1));
    struct child c = start(exits_0);
    (void)hear(&c);
    assert_true(process_is_visible(c.pid));
    if (geteuid() == 0)
        as_nobody(expect_invisible, c.pid);
    go_on(&c);
    await_end(&c);
    assert_true(process_is_visible(c.pid)); /* as long as it is there */
    pid_t pid = c.pid;
    bury(&c);
    assert_false(process_is_visible(pid));
}

static void test_of_another_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct child c = start(exits_0);
    (void)hear(&c);
    go_on(&c);
    await_end(&c);
    as_nobody(expect_unseen, c.pid);
    bury(&c);
    c = start(exits_3); /* never taken for one that ended well */
    (void)hear(&c);
    go_on(&c);
    await_end(&c);
    as_nobody(expect_unseen, c.pid);
    bury(&c);
    c = start(exits_0);
    (void)hear(&c);
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    await_end(&c);
    as_nobody(expect_failed, c.pid);
    bury(&c);
}

/* ---- pending signals ---- */

static void on_signal(int number)
{
    (void)number;
}

static void block(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static void blocks_child(int say, int order)
{
    block(SIGCHLD);
    raise(SIGCHLD);
    exits_0(say, order);
}

static void handles_term(int say, int order)
{
    (void)signal(SIGTERM, on_signal);
    block(SIGTERM);
    raise(SIGTERM);
    exits_0(say, order);
}

static void blocks_term(int say, int order)
{
    block(SIGTERM);
    raise(SIGTERM);
    exits_0(say, order);
}

static bool dying(child_main *run)
{
    struct child c = start(run);
    bool is = process_is_dying(hear(&c));
    go_on(&c);
    bury(&c);
    return is;
}

/* A signal that does not end the process, or not now, is no reason to let an archiving fail. */
static void test_dying(void **state)
{
    (void)state;
    assert_false(dying(exits_0));
    assert_false(dying(handles_term));
    assert_false(dying(blocks_child));
    assert_false(dying(blocks_term));
    assert_true(process_is_dying(0));
    /* stopped under a tracer's or job control's hand, a fatal signal stays pending */
    struct child c = start(exits_0);
    (void)hear(&c);
    siginfo_t info;
    assert_int_equal(kill(c.pid, SIGSTOP), 0);
    assert_int_equal(waitid(P_PID, (id_t)c.pid, &info, WSTOPPED | WNOWAIT), 0);
    assert_false(process_is_dying(c.pid));
    assert_int_equal(kill(c.pid, SIGTERM), 0);
    assert_true(process_is_dying(c.pid));
    assert_int_equal(kill(c.pid, SIGCONT), 0);
    await_end(&c);
    bury(&c);
}

/* ---- open files ---- */

static void expect_open(pid_t pid)
{
    if (!process_has_open(pid, "/no/such/end", true))
        _exit(53);
}

static void test_has_open(void **state)
{
    (void)state;
    char path[] = "/tmp/walefs-test-open.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    const char *end = strrchr(path, '/');
    assert_true(process_has_open(getpid(), end, true));
    assert_true(process_has_open(getpid(), path, true));
    assert_false(process_has_open(getpid(), "/tmp/walefs-test-open.XXXXXY", true));
    int copy = dup(fd);
    close(fd);
    assert_true(process_has_open(getpid(), end, true));
    close(copy);
    assert_false(process_has_open(getpid(), end, true));
    assert_false(process_others_have_open(getpid(), end));
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_false(process_others_have_open(getpid(), end));
    assert_true(process_others_have_open(0, end));
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_true(process_has_open(0, end, true)); /* not known */
    assert_true(process_has_open(-1, end, true));
    assert_false(process_has_open(-1, end, false));
    if (geteuid() == 0) {
        struct child c = start(exits_0);
        (void)hear(&c);
        assert_false(process_has_open(c.pid, "/no/such/end", true));
        as_nobody(expect_open, c.pid);
        bury(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_without_the_first_thread),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_visible),
        cmocka_unit_test(test_of_another_user),
        cmocka_unit_test(test_dying),
        cmocka_unit_test(test_has_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
