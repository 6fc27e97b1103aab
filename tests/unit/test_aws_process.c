/* Running a credential_process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

static void writes(const char *command, const char *text)
{
    struct err err = ERR_INIT;
    struct buf out;
    assert_ok(aws_process_run(command, &env_forever, &out, &err), &err);
    assert_string_equal(buf_str(&out), text);
    buf_free(&out);
}

static void fails(const char *command, const char *text)
{
    struct err err = ERR_INIT;
    struct buf out;
    assert_false(aws_process_run(command, &env_forever, &out, &err));
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, err.text);
    buf_free(&out);
}

static void test_words(void **state)
{
    (void)state;
    writes("printf <%s> a", "<a>");
    writes("  printf   <%s>\ta  'b c'  ", "<a><b c>");
    writes("printf <%s> \"b c\" 'd\"e' \"f'g\" h\\ i \"j\\\"k\\\\l\\m\"",
           "<b c><d\"e><f'g><h i><j\"k\\l\\m>");
    writes("printf <%s> '' a'b'c\"d\"", "<><abcd>");
    /* no shell */
    writes("printf <%s> $HOME * ;", "<$HOME><*><;>");
    fails("printf 'a", "quote");
    fails("   ", "no program");
    char many[512] = "printf";
    for (int i = 0; i < 70; i++)
        strcat(many, " a");
    fails(many, "more than");
}

static void test_failures(void **state)
{
    (void)state;
    fails("/nonexistent/program", "No such file");
    fails("/bin/sh -c 'exit 3'", "exit status 3");
    fails("/bin/sh -c 'echo hidden; echo the vault >&2; echo is sealed >&2; exit 1'",
          "exit status 1: the vault is sealed");
    fails("/bin/sh -c 'kill -9 $$'", "signal 9");
    fails("head -c 100000 /dev/zero", "too much");
    /* the last words of many */
    fails("/bin/sh -c 'head -c 300000 /dev/zero | tr \"\\\\0\" x >&2; exit 1'",
          "exit status 1: xxx");
}

/* It reads nothing, gets none of our descriptors, and has the signals that programs expect. */
static void test_surroundings(void **state)
{
    (void)state;
    writes("cat", "");
    int fd = fcntl(STDIN_FILENO, F_DUPFD, 9); // NOLINT(android-cloexec-fcntl)
    assert_int_equal(fd, 9);
    writes("/bin/sh -c 'test -e /proc/$$/fd/9 && echo open || echo closed'", "closed\n");
    close(fd);
    signal(SIGPIPE, SIG_IGN);
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    fails("/bin/sh -c 'kill -TERM $$; echo survived'", "signal 15");
}

static void *fire_when_started(void *arg)
{
    while (*aws_text("pid") == '\0')
        cancel_sleep_ms(NULL, 5);
    cancel_fire(arg);
    return NULL;
}

/* Ended with all that it has started. */
static void test_cancelled(void **state)
{
    (void)state;
    pthread_t thread;
    char command[300];
    struct err err = ERR_INIT;
    struct buf out;
    struct cancel cancel;
    cancel_init(&cancel);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    (void)snprintf(command, sizeof(command),
                   "/bin/sh -c 'sleep 1000 & echo $! >%s/pid.new; mv %s/pid.new %s/pid; wait'",
                   aws_dir, aws_dir, aws_dir);
    assert_int_equal(pthread_create(&thread, NULL, fire_when_started, &cancel), 0);
    assert_false(aws_process_run(command, &call, &out, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    buf_free(&out);
    assert_int_equal(pthread_join(thread, NULL), 0);
    cancel_destroy(&cancel);
    pid_t pid = (pid_t)atoi(aws_text("pid"));
    char state_of[96];
    (void)snprintf(state_of, sizeof(state_of),
                   "case $(ps -o stat= -p %d) in ''|Z*) ;; *) exit 1 ;; esac", (int)pid);
    bool gone = false;
    for (int i = 0; i < 2000 && !gone; i++) {
        gone = system(state_of) == 0;
        cancel_sleep_ms(NULL, gone ? 0 : 10);
    }
    assert_true(gone);
}

static void test_deadline(void **state)
{
    (void)state;
    static const char *const commands[] = {"sleep 1000", "/bin/sh -c 'exec sleep 1000 >&- 2>&-'"};
    for (size_t i = 0; i < 2; i++) {
        struct err err = ERR_INIT;
        struct buf out;
        const struct call call = {.deadline_ms = now_ms() + 500};
        assert_false(aws_process_run(commands[i], &call, &out, &err));
        env_assert_error(&err, ERR_TIMEOUT, "it does not end");
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        AWS_T(test_words),
        AWS_T(test_failures),
        AWS_T(test_cancelled),
        AWS_T(test_deadline),
        cmocka_unit_test(test_surroundings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
