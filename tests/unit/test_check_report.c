/* mount/check_report.c, mount/check_progress.c, and the arguments of mount/check.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "mount/check.h"
#include "mount/check_impl.h"

static struct check c;
static char *said;
static size_t said_bytes;

static int set_up(void **state)
{
    (void)state;
    memset(&c, 0, sizeof(c));
    cancel_init(&c.cancel);
    c.out = open_memstream(&said, &said_bytes);
    return c.out == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    (void)fclose(c.out);
    free(said);
    cancel_destroy(&c.cancel);
    return 0;
}

static void lines(void **state)
{
    (void)state;
    check_say(&c, CHECK_OK, "list", "%d", 1);
    check_say(&c, CHECK_FAIL, "gap", "a\nb\x1b");
    assert_string_equal(said, "ok      list        1\nFAIL    gap         a?b?\n");
}

static void quiet(void **state)
{
    (void)state;
    c.quiet = true;
    check_say(&c, CHECK_OK, "list", "x");
    check_say(&c, CHECK_WARN, "key", "y");
    assert_string_equal(said, "warn    key         y\n");
}

/* A failure is worse than what could not be found out, that than a warning. */
static void exit_status(void **state)
{
    (void)state;
    static const struct {
        enum check_result result;
        int status;
    } steps[] = {{CHECK_OK, 0},   {CHECK_WARN, 1}, {CHECK_OK, 1},     {CHECK_UNKNOWN, 3},
                 {CHECK_WARN, 3}, {CHECK_FAIL, 2}, {CHECK_UNKNOWN, 2}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        check_say(&c, steps[i].result, "x", "x");
        assert_int_equal(check_exit_status(&c), steps[i].status);
    }
}

static void errors(void **state)
{
    (void)state;
    struct err err = {.code = ERR_UNAVAILABLE, .text = "away"};
    check_say_err(&c, "list", &err);
    err = (struct err){.code = ERR_CORRUPT, .text = "broken"};
    check_say_err(&c, "read", &err);
    err = (struct err){.code = ERR_FROZEN, .text = "in Glacier"};
    check_say_err(&c, "read", &err);
    assert_string_equal(said, "unknown list        away\nFAIL    read        broken\n"
                              "warn    read        in Glacier\n");
    /* who interrupts it knows why it ended */
    cancel_fire(&c.cancel);
    err = (struct err){.code = ERR_CANCELLED, .text = "cancelled"};
    check_say_err(&c, "read", &err);
    assert_null(strstr(said, "cancelled"));
}

static void progress_on_a_terminal(void **state)
{
    (void)state;
    struct check_progress p;
    check_progress_init(&p, c.out, true, 4096);
    check_progress_say(&p, 1, 1, p.begun_ms + 10); /* too soon */
    (void)fflush(c.out);
    assert_int_equal(said_bytes, 0);
    check_progress_say(&p, 1024, 1, p.begun_ms + 1000);
    assert_non_null(strstr(said, "[######                  ]  25%  1.0 KiB of 4.0 KiB, 1.0 KiB/s, "
                                 "3 seconds left"));
    assert_null(strchr(said, '\n'));
    check_progress_end(&p);
    assert_int_equal(said[said_bytes - 1], 'K'); /* the line is taken away */
}

static void progress_in_a_log(void **state)
{
    (void)state;
    struct check_progress p;
    check_progress_init(&p, c.out, false, 4096);
    check_progress_say(&p, 1024, 1, p.begun_ms + 20000);
    (void)fflush(c.out);
    assert_int_equal(said_bytes, 0);
    check_progress_say(&p, 4096, 7, p.begun_ms + 32000);
    assert_string_equal(said, "walefs check: 7 objects, 4.0 KiB of 4.0 KiB (100%), 128 bytes/s, 0 "
                              "seconds left\n");
    check_progress_say(&p, 0, 0, p.begun_ms + 70000); /* nothing yet, and nothing known */
    assert_non_null(strstr(said, "? left"));
    check_progress_end(&p);
    check_progress_init(&p, NULL, true, 0);
    check_progress_say(&p, 1, 1, p.begun_ms + 1000);
}

static void arguments(void **state)
{
    (void)state;
    static const struct {
        const char *argv[4];
        int status;
    } cases[] = {{{"check", "--help"}, 0},
                 {{"check", "--no-such"}, 3},
                 {{"check", "-o", "no_such_option"}, 3},
                 {{"check", "-o"}, 3},
                 {{"check", "file://localhost/x", "file://localhost/y"}, 3},
                 {{"check", "nonsense"}, 3}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *argv[4];
        int argc = 0;
        for (; argc < 4 && cases[i].argv[argc] != NULL; argc++)
            argv[argc] = (char *)(uintptr_t)cases[i].argv[argc];
        assert_int_equal(check_main(argc, argv), cases[i].status);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(lines),
        T(quiet),
        T(exit_status),
        T(errors),
        T(progress_on_a_terminal),
        T(progress_in_a_log),
        T(arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
