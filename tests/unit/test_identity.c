/* mount/identity.c: who the process, its threads and its children are. What changes the ids of a
 * process is done in a child of the test. As another user than root only the refusals are seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount/identity.h"

#define USER "nobody"
static uid_t user_id;
static gid_t group_id;

static void in_child(void (*body)(void))
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* In the child: assertions of cmocka would go on in the parent's tests. */
#define CHECK(condition)                                             \
    do {                                                             \
        if (!(condition)) {                                          \
            (void)fprintf(stderr, "%d: %s\n", __LINE__, #condition); \
            _exit(1);                                                \
        }                                                            \
    } while (0)

/* The line of /proc/.../status that begins with KEY. */
static void status_line(const char *key, char line[128])
{
    FILE *f = fopen("/proc/thread-self/status", "re");
    CHECK(f != NULL);
    while (fgets(line, 128, f) != NULL && strncmp(line, key, strlen(key)) != 0)
        ;
    (void)fclose(f);
}

/* Of this thread. */
static void expect_ids(uid_t real, uid_t effective, uid_t saved)
{
    char line[128], expected[128];
    status_line("Uid:", line);
    (void)snprintf(expected, sizeof(expected), "Uid:\t%u\t%u\t%u\t%u\n", real, effective, saved,
                   effective);
    CHECK(strcmp(line, expected) == 0);
}

/* A program that is started has no way back. */
static bool child_is_user(void)
{
    char command[256];
    (void)snprintf(
        command, sizeof(command),
        "grep -Eq '^Uid:[[:space:]]+%u[[:space:]]+%u[[:space:]]+%u' /proc/self/status && "
        "grep -q '^CapPrm:.0*$' /proc/self/status",
        user_id, user_id, user_id);
    return system(command) == 0;
}

static void whole_way(void)
{
    struct err err = ERR_INIT;
    const struct passwd *pw = getpwnam(USER);
    char line[128], expected[64];
    CHECK(setenv("XDG_RUNTIME_DIR", "/run/user/0", 1) == 0);
    CHECK(identity_take(USER, &err));
    expect_ids(user_id, 0, 0);
    CHECK(getgid() == group_id && getegid() == group_id);
    CHECK(getgroups(0, NULL) >= 1);
    CHECK(strcmp(getenv("HOME"), pw->pw_dir) == 0);
    CHECK(strcmp(getenv("USER"), USER) == 0 && strcmp(getenv("LOGNAME"), USER) == 0);
    CHECK(getenv("XDG_RUNTIME_DIR") == NULL);
    CHECK(access("/root", W_OK) != 0); /* which asks for the real user, */
    CHECK(faccessat(AT_FDCWD, "/root", W_OK, AT_EACCESS) == 0);

    CHECK(identity_lower(&err));
    expect_ids(user_id, user_id, 0);
    CHECK(child_is_user());
    CHECK(identity_raise(&err));
    expect_ids(user_id, 0, 0);
    CHECK(identity_lower(&err));
    CHECK(identity_raise(&err));
    CHECK(identity_settle(&err));
    expect_ids(user_id, user_id, user_id);
    CHECK(setuid(0) != 0 && seteuid(0) != 0 && setresuid(0, 0, 0) != 0 && setgid(0) != 0);
    status_line("CapPrm:", line);
    CHECK(strspn(line + 8, "0") == 16);
    (void)snprintf(expected, sizeof(expected), "Gid:\t%u\t%u\t%u\t%u\n", group_id, group_id,
                   group_id, group_id);
    status_line("Gid:", line);
    CHECK(strcmp(line, expected) == 0);
    CHECK(child_is_user());
    /* from here on there is nothing to do */
    CHECK(identity_raise(&err) && identity_lower(&err) && identity_settle(&err));
    expect_ids(user_id, user_id, user_id);
    CHECK(err.code == ERR_NONE);
}

static pthread_barrier_t barrier;

static void *through_the_settling(void *arg)
{
    (void)arg;
    expect_ids(user_id, user_id, 0);
    (void)pthread_barrier_wait(&barrier); /* the main thread raises */
    (void)pthread_barrier_wait(&barrier);
    expect_ids(user_id, user_id, 0);
    (void)pthread_barrier_wait(&barrier); /* and settles */
    (void)pthread_barrier_wait(&barrier);
    expect_ids(user_id, user_id, user_id);
    return NULL;
}

static void with_a_thread(void)
{
    struct err err = ERR_INIT;
    pthread_t t;
    CHECK(identity_take(USER, &err) && identity_lower(&err));
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&t, NULL, through_the_settling, NULL) == 0);
    (void)pthread_barrier_wait(&barrier);
    CHECK(identity_raise(&err));
    (void)pthread_barrier_wait(&barrier);
    (void)pthread_barrier_wait(&barrier);
    CHECK(identity_settle(&err));
    (void)pthread_barrier_wait(&barrier);
    CHECK(pthread_join(t, NULL) == 0);
}

static void by_number(void)
{
    char number[16];
    struct err err = ERR_INIT;
    (void)snprintf(number, sizeof(number), "%u", user_id);
    CHECK(identity_take(number, &err));
    CHECK(getuid() == user_id);
}

static void oneself(void)
{
    struct err err = ERR_INIT;
    CHECK(setenv("HOME", "/nowhere", 1) == 0);
    CHECK(identity_take("root", &err) && identity_settle(&err));
    CHECK(getuid() == 0 && strcmp(getenv("HOME"), "/nowhere") != 0);
    CHECK(seteuid(user_id) == 0);
    CHECK(identity_take(USER, &err));
    CHECK(!identity_take("root", &err) && err.code == ERR_INVALID);
    CHECK(strstr(err.text, "only root") != NULL);
}

static void test_whole_way(void **state)
{
    (void)state;
    if (geteuid() == 0)
        in_child(whole_way);
}

static void test_threads(void **state)
{
    (void)state;
    if (geteuid() == 0)
        in_child(with_a_thread);
}

static void test_other_ways(void **state)
{
    (void)state;
    if (geteuid() != 0)
        return;
    in_child(by_number);
    in_child(oneself);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"no-such-user", "",   "4294967295",
                                        "12x",          "-1", "4294967296"};
    uid_t before = geteuid();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct err err = ERR_INIT;
        assert_false(identity_take(names[i], &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.text, "no such user"));
    }
    struct err err = ERR_INIT;
    assert_true(identity_raise(&err) && identity_lower(&err) && identity_settle(&err));
    assert_int_equal(geteuid(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_way),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_other_ways),
        cmocka_unit_test(test_refused),
    };
    const struct passwd *pw = getpwnam(USER);
    if (pw == NULL)
        return 1;
    user_id = pw->pw_uid;
    group_id = pw->pw_gid;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
