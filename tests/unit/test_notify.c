/* mount/notify.c and mount/watchdog.c, with a socket in the place of the service manager's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "mount/notify.h"
#include "mount/watchdog.h"

static char dir[32];
static int listener = -1;

static int set_up(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    strcpy(dir, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    if (listener >= 0)
        close(listener);
    listener = -1;
    (void)snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

/* NAME begins with "@" or is made in the test's directory. Left in NOTIFY_SOCKET. */
static void listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[100];
    bool abstract = name[0] == '@';
    (void)snprintf(path, sizeof(path), "%s%s%s", abstract ? "@" : dir, abstract ? "" : "/",
                   abstract ? dir + 1 : name);
    memcpy(address.sun_path, path, strlen(path));
    if (abstract)
        address.sun_path[0] = '\0';
    listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    size_t len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + !abstract;
    assert_int_equal(bind(listener, (struct sockaddr *)&address, (socklen_t)len), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
}

static void wait_at_most(int seconds)
{
    const struct timeval limit = {.tv_sec = seconds, .tv_usec = seconds == 0 ? 1000 : 0};
    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
}

static void expect(const char *message)
{
    char text[4096];
    wait_at_most(20);
    ssize_t n = recv(listener, text, sizeof(text) - 1, 0);
    if (n < 0)
        fail_msg("nothing came instead of %s", message);
    text[n] = '\0';
    assert_string_equal(text, message);
}

static void expect_nothing(void)
{
    char text[64];
    wait_at_most(0);
    assert_int_equal(recv(listener, text, sizeof(text), 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static void test_messages(void **state)
{
    (void)state;
    static const char *const names[] = {"socket", "@"};
    for (size_t i = 0; i < 2; i++) {
        struct notify n;
        listen_at(names[i]);
        notify_open(&n);
        assert_true(n.fd >= 0);
        assert_null(getenv("NOTIFY_SOCKET"));
        assert_int_equal(n.watchdog_ms, 0);
        notify_send(&n, "READY", "1");
        expect("READY=1");
        /* a value cannot smuggle in another message */
        notify_send(&n, "STATUS", "cannot reach s3://x\nREADY=1");
        expect("STATUS=cannot reach s3://x");
        char text[3000];
        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = '\0';
        notify_send(&n, "STATUS", text);
        memcpy(text, "STATUS=", 7);
        text[1023] = '\0';
        expect(text);
        close(listener);
        listener = -1;
        notify_send(&n, "STOPPING", "1"); /* nobody listens any more */
        notify_close(&n);
        notify_close(&n);
        notify_send(&n, "STOPPING", "1");
    }
}

static void test_no_manager(void **state)
{
    (void)state;
    char longest[200];
    memset(longest, 'x', sizeof(longest));
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    const char *const wrong[] = {NULL, "", "@", "/", "relative", "vsock:2:1", longest};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct notify n;
        if (wrong[i] != NULL)
            assert_int_equal(setenv("NOTIFY_SOCKET", wrong[i], 1), 0);
        assert_int_equal(setenv("WATCHDOG_USEC", "1000000", 1), 0);
        notify_open(&n);
        assert_int_equal(n.fd, -1);
        assert_int_equal(n.watchdog_ms, 0);
        assert_null(getenv("NOTIFY_SOCKET"));
        assert_null(getenv("WATCHDOG_USEC"));
        notify_send(&n, "READY", "1");
        notify_close(&n);
    }
}

static int64_t watchdog_of(const char *usec, long pid)
{
    struct notify n;
    char text[24];
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/socket", dir);
    (void)snprintf(text, sizeof(text), "%ld", pid);
    setenv("NOTIFY_SOCKET", path, 1);
    setenv("WATCHDOG_USEC", usec, 1);
    if (pid != 0)
        setenv("WATCHDOG_PID", text, 1);
    notify_open(&n);
    assert_null(getenv("WATCHDOG_PID"));
    notify_close(&n);
    return n.watchdog_ms;
}

static void test_watchdog_variables(void **state)
{
    (void)state;
    listen_at("socket");
    assert_int_equal(watchdog_of("30000000", (long)getpid()), 30001);
    assert_int_equal(watchdog_of("30000000", 0), 30001);
    assert_int_equal(watchdog_of("30000000", (long)getppid()), 0);
    assert_int_equal(watchdog_of("0", 0), 0);
    assert_int_equal(watchdog_of("-1", 0), 0);
    assert_int_equal(watchdog_of("", 0), 0);
    assert_int_equal(watchdog_of("1s", 0), 0);
    assert_int_equal(watchdog_of("99999999999999999999", 0), 0);
}

/* What is no FUSE mount never answers; tests/mount/mounting.sh has one that does. */
static void test_watchdog_without_mount(void **state)
{
    (void)state;
    struct notify n;
    struct err err = ERR_INIT;
    listen_at("socket");
    setenv("WATCHDOG_USEC", "3000", 1);
    notify_open(&n);
    struct watchdog *w = watchdog_new(&n, dir, &err);
    assert_non_null(w);
    usleep(20000);
    expect_nothing();
    watchdog_free(w);
    w = watchdog_new(&n, "/nowhere", &err);
    watchdog_free(w);
    watchdog_free(NULL);
    expect_nothing();
    notify_close(&n);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_messages), T(test_no_manager),
                                       T(test_watchdog_variables), T(test_watchdog_without_mount)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
