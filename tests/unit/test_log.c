#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/metrics.h"

/* ---- what arrives at the targets ---- */

static int saved_stderr = -1, capture_fd = -1;

static void capture_begin(void)
{
    const char *tmp = getenv("TMPDIR");
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/walefs-log-XXXXXX", tmp != NULL ? tmp : "/tmp");
    capture_fd = mkostemp(path, O_APPEND);
    assert_true(capture_fd >= 0);
    assert_int_equal(unlink(path), 0);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(saved_stderr >= 0);
    assert_int_equal(dup2(capture_fd, STDERR_FILENO), STDERR_FILENO);
}

static struct buf capture_end(void)
{
    struct buf b = BUF_INIT(8 << 20);
    assert_int_equal(dup2(saved_stderr, STDERR_FILENO), STDERR_FILENO);
    close(saved_stderr);
    char piece[4096];
    ssize_t n;
    off_t at = 0;
    while ((n = pread(capture_fd, piece, sizeof(piece), at)) > 0) {
        assert_true(buf_append(&b, piece, (size_t)n));
        at += n;
    }
    close(capture_fd);
    return b;
}

/* Stand in for libc's, so that no system log is needed. */
static char syslog_ident[32], syslog_line[4096];
static int syslog_facility, syslog_priority, syslog_count;

void openlog(const char *ident, int options, int facility)
{
    (void)options;
    (void)snprintf(syslog_ident, sizeof(syslog_ident), "%s", ident);
    syslog_facility = facility;
}

void syslog(int priority, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(syslog_line, sizeof(syslog_line), fmt, ap);
    va_end(ap);
    syslog_priority = priority;
    syslog_count++;
}

/* ---- tests ---- */

static void test_lines(void **state)
{
    (void)state;
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_DEBUG);
    capture_begin();
    log_error("no %s", "way");
    log_warn("%d%%", 99);
    log_info("up");
    log_debug("%s", "");
    struct buf got = capture_end();
    assert_string_equal(buf_str(&got), "walefs: error: no way\n"
                                       "walefs: warning: 99%\n"
                                       "walefs: info: up\n"
                                       "walefs: debug: \n");
    buf_free(&got);
}

static void test_levels(void **state)
{
    (void)state;
    for (int max = LOG_LEVEL_ERROR; max <= LOG_LEVEL_DEBUG; max++) {
        log_setup(LOG_TO_STDERR, 0, (enum log_level)max);
        capture_begin();
        for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++)
            log_write((enum log_level)level, "%d;", level);
        struct buf got = capture_end();
        for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
            char mark[16];
            (void)snprintf(mark, sizeof(mark), ": %d;\n", level);
            assert_int_equal(strstr(buf_str(&got), mark) != NULL, level <= max);
            assert_int_equal(log_enabled((enum log_level)level), level <= max);
        }
        buf_free(&got);
    }
}

static void test_names_cannot_forge_lines(void **state)
{
    (void)state;
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
    capture_begin();
    log_info("%s", "a\nwalefs: error: forged\r\x1b[2J\x7f\tend \xc3\xa9");
    struct buf got = capture_end();
    assert_string_equal(buf_str(&got), "walefs: info: a\\x0awalefs: error: forged\\x0d\\x1b[2J\\x7f"
                                       "\\x09end \xc3\xa9\n");
    buf_free(&got);
}

static void test_long_lines_are_cut(void **state)
{
    (void)state;
    char big[5000];
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
    for (int kind = 0; kind < 2; kind++) {
        memset(big, kind == 0 ? 'x' : '\n', sizeof(big) - 1); /* the second grows by escaping */
        big[sizeof(big) - 1] = '\0';
        capture_begin();
        log_info("%s", big);
        struct buf got = capture_end();
        assert_true(got.len > 1500 && got.len <= 2048 + 64);
        assert_ptr_equal(strchr(got.data, '\n'), got.data + got.len - 1);
        buf_free(&got);
    }
}

#define THREADS 8
#define LINES 300

static void *log_much(void *arg)
{
    int id = *(const int *)arg;
    for (int i = 0; i < LINES; i++)
        log_info("thread %d line %d %0*d end", id, i, 10 + id * 37, id);
    return NULL;
}

static void test_lines_of_threads_are_not_torn(void **state)
{
    (void)state;
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
    capture_begin();
    pthread_t threads[THREADS];
    int ids[THREADS];
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_much, &ids[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct buf got = capture_end();
    int count = 0;
    for (char *line = strtok(got.data, "\n"); line != NULL; line = strtok(NULL, "\n"), count++) {
        int id = -1, i = -1, end = 0;
        assert_int_equal(sscanf(line, "walefs: info: thread %d line %d %*d end%n", &id, &i, &end),
                         2);
        assert_true(id >= 0 && id < THREADS && i >= 0 && i < LINES);
        assert_int_equal(end, strlen(line));
    }
    assert_int_equal(count, THREADS * LINES);
    buf_free(&got);
}

static void test_syslog(void **state)
{
    (void)state;
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    log_setup(LOG_TO_SYSLOG, LOG_LOCAL3, LOG_LEVEL_DEBUG);
    assert_string_equal(syslog_ident, "walefs");
    assert_int_equal(syslog_facility, LOG_LOCAL3);
    capture_begin();
    for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        log_write((enum log_level)level, "100%% of\n%d", level);
        char expected[32];
        (void)snprintf(expected, sizeof(expected), "100%% of\\x0a%d", level);
        assert_string_equal(syslog_line, expected);
        assert_int_equal(syslog_priority, priorities[level]);
    }
    log_info("%s", "%s%n%d"); /* what comes from a name is no format */
    assert_string_equal(syslog_line, "%s%n%d");
    log_setup(LOG_TO_SYSLOG, LOG_LOCAL3, LOG_LEVEL_ERROR);
    int before = syslog_count;
    log_warn("not this");
    assert_int_equal(syslog_count, before);
    struct buf got = capture_end();
    assert_int_equal(got.len, 0);
    buf_free(&got);
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
}

static void test_details(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_THROTTLED, "slow");
    strcpy(err.remote, "SlowDown");
    strcpy(err.request, "tx=1");
    const struct log_details all = {.op = "close", .path = "wal/a \"b\"\n", .err = &err};
    const struct log_details few = {.path = "wal/x"};
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
    capture_begin();
    log_event(LOG_LEVEL_ERROR, &all, "failed: %s", err.text);
    log_event(LOG_LEVEL_INFO, &few, "ok");
    log_event(LOG_LEVEL_DEBUG, &few, "not shown");
    struct buf got = capture_end();
    assert_string_equal(buf_str(&got),
                        "walefs: error: failed: slow op=close path=\"wal/a \\\"b\\\"\\x0a\" "
                        "error=throttled code=SlowDown request=\"tx=1\"\n"
                        "walefs: info: ok path=wal/x\n");
    buf_free(&got);
}

/* As many details as there may be do not make a line longer than it may be. */
static void test_details_are_cut(void **state)
{
    (void)state;
    char path[4096];
    memset(path, '"', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    const struct log_details details = {.op = "x", .path = path};
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_INFO);
    capture_begin();
    log_event(LOG_LEVEL_ERROR, &details, "y");
    struct buf got = capture_end();
    assert_true(got.len < 2200);
    assert_true(buf_str(&got)[got.len - 1] == '\n');
    buf_free(&got);
}

static void test_journal(void **state)
{
    (void)state;
    struct stat st;
    char stream[64];
    capture_begin();
    log_setup(LOG_TO_JOURNAL, 0, LOG_LEVEL_DEBUG);
    log_error("e");
    log_warn("w");
    log_info("i");
    log_debug("d");
    unsetenv("JOURNAL_STREAM");
    bool none = log_stderr_is_journal();
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    bool same = log_stderr_is_journal();
    setenv("JOURNAL_STREAM", "1:1", 1);
    bool other = log_stderr_is_journal();
    unsetenv("JOURNAL_STREAM");
    struct buf got = capture_end();
    assert_string_equal(buf_str(&got), "<3>e\n<4>w\n<6>i\n<7>d\n");
    buf_free(&got);
    assert_true(same);
    assert_false(none || other);
}

static void test_several_targets(void **state)
{
    (void)state;
    int before = syslog_count;
    log_setup(LOG_TO_STDERR | LOG_TO_SYSLOG, LOG_DAEMON, LOG_LEVEL_INFO);
    capture_begin();
    log_warn("both");
    struct buf got = capture_end();
    assert_string_equal(buf_str(&got), "walefs: warning: both\n");
    assert_int_equal(syslog_count, before + 1);
    assert_string_equal(syslog_line, "both");
    buf_free(&got);
}

static void test_errors_and_warnings_are_counted(void **state)
{
    (void)state;
    uint64_t errors = metrics_count(COUNT_LOG_ERRORS), warnings = metrics_count(COUNT_LOG_WARNINGS);
    log_setup(0, 0, LOG_LEVEL_INFO);
    log_error("a");
    log_warn("b");
    log_warn("c");
    log_info("d");
    assert_int_equal(metrics_count(COUNT_LOG_ERRORS), errors + 1);
    assert_int_equal(metrics_count(COUNT_LOG_WARNINGS), warnings + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_names_cannot_forge_lines),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_lines_of_threads_are_not_torn),
        cmocka_unit_test(test_syslog),
        cmocka_unit_test(test_details),
        cmocka_unit_test(test_details_are_cut),
        cmocka_unit_test(test_journal),
        cmocka_unit_test(test_several_targets),
        cmocka_unit_test(test_errors_and_warnings_are_counted),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
