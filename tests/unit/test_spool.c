/* core/spool.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool.h"
#include "gpg_home.h"

static char dir[] = "/tmp/walefs-test.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/walefs-test.XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir); /* nothing has a name there */
}

static void test_file(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    mode_t old = umask(0);
    int fd = spool_open(dir, &err);
    (void)umask(old);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_nlink, 0); /* it vanishes with the process */
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    DIR *d = opendir(dir);
    assert_non_null(d);
    int entries = 0;
    while (readdir(d) != NULL)
        entries++;
    closedir(d);
    assert_int_equal(entries, 2);
    close(fd);
}

static void test_no_directory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t fds = test_open_fds();
    assert_int_equal(spool_open("/nonexistent/dir", &err), -1);
    assert_int_equal(err.code, ERR_LOCAL);
    assert_non_null(strstr(err.text, "/nonexistent/dir"));
    assert_int_equal(spool_open("/dev/null", &err), -1);
    assert_int_equal(spool_open("/proc", &err), -1); /* no O_TMPFILE, and no other way */
    assert_int_equal(test_open_fds(), fds);
}

static void test_read_and_write(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t n = 3u << 20;
    char *data = test_bytes(n, 1), *got = malloc(n + 10);
    assert_non_null(got);
    int fd = spool_open(dir, &err);
    assert_true(spool_write(fd, data, n, 0, &err));
    assert_int_equal(spool_read(fd, got, n + 10, 0, &err), n); /* short at the end only */
    assert_memory_equal(got, data, n);
    assert_int_equal(spool_read(fd, got, 100, n - 7, &err), 7);
    assert_int_equal(spool_read(fd, got, 100, n, &err), 0);
    assert_int_equal(spool_read(fd, got, 100, n + 12345, &err), 0);
    assert_int_equal(spool_read(fd, got, 0, 0, &err), 0);
    assert_true(spool_write(fd, "x", 0, 0, &err));
    assert_true(spool_write(fd, "tail", 4, n + 6, &err));
    assert_int_equal(spool_read(fd, got, 10, n, &err), 10);
    assert_memory_equal(got, "\0\0\0\0\0\0tail", 10);
    close(fd);
    assert_false(spool_write(fd, "x", 1, 0, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    err = (struct err)ERR_INIT;
    assert_int_equal(spool_read(fd, got, 1, 0, &err), -1);
    assert_int_equal(err.code, ERR_LOCAL);
    free(data);
    free(got);
}

/* What does not fit is an error, not a short file. */
static void test_limit_of_the_file_system(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct err err = ERR_INIT;
    char *data = test_bytes(100000, 2);
    int fd = spool_open(dir, &err);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 50000, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool ok = spool_write(fd, data, 100000, 0, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_false(ok);
    assert_int_equal(err.code, ERR_LOCAL);
    close(fd);
    fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        assert_false(spool_write(fd, data, 10, 0, &err));
        assert_int_equal(err.code, ERR_NO_SPACE);
        close(fd);
    }
    free(data);
}

static void test_sink(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t n = 1000000;
    char *data = test_bytes(n, 3), *got = malloc(n);
    assert_non_null(got);
    int fd = spool_open(dir, &err);
    struct spool_result result = {.size = 0};
    struct sink *s = spool_sink(fd, n, true, &result, &err);
    assert_non_null(s);
    for (size_t at = 0; at < n; at += 70001)
        assert_true(s->write(s, data + at, n - at < 70001 ? n - at : 70001, &err));
    assert_int_equal(result.size, 0); /* filled by finish */
    assert_true(s->finish(s, &err));
    sink_close(s);
    assert_int_equal(result.size, n);
    unsigned char sum[32];
    SHA256((unsigned char *)data, n, sum);
    assert_memory_equal(result.sha256, sum, 32);
    assert_int_equal(spool_read(fd, got, n, 0, &err), n); /* the file stays open */
    assert_memory_equal(got, data, n);
    close(fd);
    free(data);
    free(got);
}

static void test_sink_has_a_limit(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct spool_result result;
    int fd = spool_open(dir, &err);
    struct sink *s = spool_sink(fd, 10, false, &result, &err);
    assert_true(s->write(s, "0123456789", 10, &err));
    assert_true(s->write(s, "", 0, &err));
    assert_false(s->write(s, "x", 1, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    sink_close(s);
    s = spool_sink(fd, 10, false, &result, &err);
    assert_false(s->write(s, "0123456789a", 11, &err));
    assert_false(s->write(s, "0123456789", SIZE_MAX, &err));
    sink_close(s);
    s = spool_sink(fd, UINT64_MAX, false, &result, &err);
    assert_true(s->write(s, "0123456789", 10, &err));
    assert_true(s->finish(s, &err));
    assert_int_equal(result.size, 10);
    sink_close(s);
    close(fd);
}

static void test_sink_that_fails(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct spool_result result;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct sink *s = spool_sink(fd, 100, true, &result, &err);
    assert_false(s->write(s, "x", 1, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    sink_close(s);
    close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_file),
        T(test_no_directory),
        T(test_read_and_write),
        T(test_limit_of_the_file_system),
        T(test_sink),
        T(test_sink_has_a_limit),
        T(test_sink_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
