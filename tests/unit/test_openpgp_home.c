/* core/openpgp_home.c: where private gpg homes are, who may look into them, and who removes which.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "core/openpgp_internal.h"

static char base[64];
static struct err err;

static int set_up(void **state)
{
    (void)state;
    (void)strcpy(base, "/dev/shm/walefs-test.XXXXXX");
    return mkdtemp(base) != NULL && setenv("RUNTIME_DIRECTORY", base, 1) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", base);
    return unsetenv("RUNTIME_DIRECTORY") == 0 && system(command) == 0 ? 0 : -1;
}

/* Runs a shell command in the base. */
static void run(const char *command)
{
    char line[1024];
    (void)snprintf(line, sizeof(line), "cd '%s' && %s", base, command);
    if (system(line) != 0)
        fail_msg("%s", line);
}

static bool there(const char *name)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", base, name);
    return lstat(path, &st) == 0;
}

static size_t names(void)
{
    size_t n = 0;
    DIR *dir = opendir(base);
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

static struct gpg_home *make(void)
{
    struct gpg_home *home = gpg_home_new("no-greeting\n", &err);
    if (home == NULL)
        fail_msg("%s", err.text);
    return home;
}

/* Whatever the umask is. */
static void a_home_is_for_its_owner_alone(void **state)
{
    (void)state;
    mode_t old = umask(0);
    struct gpg_home *home = make();
    (void)umask(old);
    assert_memory_equal(gpg_home_path(home), base, strlen(base));
    run("test $(stat -c %a walefs-gpg.*) = 700");
    run("for f in walefs-gpg.*/*; do test $(stat -c %a $f) = 600 || exit 1; done");
    run("grep -qx s2k-count.65536 walefs-gpg.*/gpg-agent.conf");
    run("test \"$(tail -n 1 walefs-gpg.*/gpg.conf)\" = no-greeting");
    gpg_home_free(home);
    gpg_home_free(NULL);
    assert_int_equal(names(), 0);
}

static void of_several_directories_the_first_is_taken(void **state)
{
    char both[160];
    (void)state;
    (void)snprintf(both, sizeof(both), "%s:/nowhere", base);
    assert_int_equal(setenv("RUNTIME_DIRECTORY", both, 1), 0);
    struct gpg_home *home = make();
    assert_int_equal(names(), 1);
    gpg_home_free(home);
}

/* All that gpg may have made in it, and nothing that a link in it leads to. */
static void what_is_in_it_goes_what_it_links_to_stays(void **state)
{
    (void)state;
    struct gpg_home *home = make();
    run("mkdir kept && echo x > kept/file && cd walefs-gpg.* && "
        "mkdir -p private-keys-v1.d/a/b && touch private-keys-v1.d/a/b/key .hidden && "
        "ln -s ../kept link && ln -s ../../kept/file private-keys-v1.d/link && mkfifo fifo && "
        "chmod 500 private-keys-v1.d/a/b");
    gpg_home_free(home);
    assert_int_equal(names(), 1);
    assert_true(there("kept/file"));
}

static int locked(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", base, name);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    return fd;
}

static void of_the_dead_only_their_homes_are_removed(void **state)
{
    (void)state;
    run("mkdir -p walefs-gpg.dead/private-keys-v1.d walefs-gpg.alive walefs-gpx.other elsewhere && "
        "touch walefs-gpg.dead/private-keys-v1.d/x walefs-gpg.file elsewhere/x && "
        "ln -s elsewhere walefs-gpg.link");
    if (geteuid() == 0)
        run("mkdir walefs-gpg.theirs && chown 65534 walefs-gpg.theirs");
    int alive = locked("walefs-gpg.alive");
    struct gpg_home *home = make();
    assert_false(there("walefs-gpg.dead"));
    assert_true(there("walefs-gpg.alive"));
    assert_true(there("walefs-gpx.other"));
    assert_true(there("walefs-gpg.file"));
    assert_true(there("walefs-gpg.link"));
    assert_true(there("elsewhere/x"));
    assert_int_equal(there("walefs-gpg.theirs"), geteuid() == 0);
    close(alive);
    struct gpg_home *next = make(); /* that one has died meanwhile; the first one has not */
    assert_false(there("walefs-gpg.alive"));
    assert_int_equal(access(gpg_home_path(home), F_OK), 0);
    gpg_home_free(next);
    gpg_home_free(home);
}

/* No directory takes its files: that is said, with what to do, and nothing stays behind. */
static void one_that_cannot_be_written_is_not_left(void **state)
{
    struct rlimit old, none;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    struct gpg_home *home = gpg_home_new("", &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_null(home);
    assert_non_null(strstr(err.text, "RUNTIME_DIRECTORY"));
    assert_int_not_equal(err.code, ERR_NONE);
    assert_int_equal(names(), 0);
}

/* Whoever comes takes what is not locked yet for a dead one's: nobody's home vanishes under him. */
static void many_come_at_once(void **state)
{
    pid_t children[6];
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        children[i] = fork();
        if (children[i] != 0)
            continue;
        for (int k = 0; k < 10; k++) {
            char file[256];
            struct gpg_home *home = gpg_home_new("", &err);
            if (home == NULL)
                _exit(1);
            (void)snprintf(file, sizeof(file), "%s/gpg.conf", gpg_home_path(home));
            if (access(file, F_OK) != 0)
                _exit(2);
            gpg_home_free(home);
        }
        _exit(0);
    }
    for (size_t i = 0; i < 6; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(names(), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        T(a_home_is_for_its_owner_alone),
        T(of_several_directories_the_first_is_taken),
        T(what_is_in_it_goes_what_it_links_to_stays),
        T(of_the_dead_only_their_homes_are_removed),
        T(one_that_cannot_be_written_is_not_left),
        T(many_come_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
