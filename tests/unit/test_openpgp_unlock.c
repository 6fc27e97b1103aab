/* A passphrase is given: the private home. */
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
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/openpgp_internal.h"
#include "gpg_home.h"

#define PASS "correct horse battery"
#define ALICE "alice@example.org"
#define WAL_E "tests/fixtures/wal-e"

static struct test_home home;

static int set_up(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Alice <" ALICE ">", PASS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

static void check_works(struct openpgp *pgp)
{
    struct err err = ERR_INIT;
    struct buf coded, back;
    if (!test_encrypt(pgp, "text", 4, &coded, &err) ||
        !test_decrypt(pgp, coded.data, coded.len, &back, &err))
        fail_msg("%s", err.text);
    assert_string_equal(buf_str(&back), "text");
    buf_free(&coded);
    buf_free(&back);
}

static bool agent_runs(const char *path)
{
    char command[256];
    (void)snprintf(command, sizeof(command), "pgrep -f '^gpg-agent --homedir %s ' >/dev/null",
                   path);
    return system(command) == 0;
}

/* Nothing of it may stay: no directory, no agent. */
static void check_free_cleans(struct openpgp *pgp)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s", gpg_home_path(pgp->unlocked));
    assert_true(agent_runs(path));
    openpgp_free(pgp);
    assert_int_equal(access(path, F_OK), -1);
    assert_false(agent_runs(path));
    assert_int_equal(test_gpg_count(path), 0);
}

static void right_passphrase(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t fds = test_open_fds();
    struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    struct stat st;
    struct statfs fs;
    assert_int_equal(stat(gpg_home_path(pgp->unlocked), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(statfs(gpg_home_path(pgp->unlocked), &fs), 0);
    assert_int_equal(fs.f_type, 0x01021994); /* TMPFS_MAGIC */
    for (int i = 0; i < 3; i++)
        check_works(pgp);
    check_free_cleans(pgp);
    assert_int_equal(test_open_fds(), fds);
    assert_int_equal(test_gpg_count_settled(home.path), 0);
}

static void read_only_and_no_recipient(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct openpgp *writer = test_openpgp(&home, ALICE, NULL, &err);
    struct openpgp *reader = test_openpgp(&home, NULL, PASS, &err);
    if (writer == NULL || reader == NULL)
        fail_msg("%s", err.text);
    assert_true(test_encrypt(writer, "text", 4, &coded, &err));
    assert_true(test_decrypt(reader, coded.data, coded.len, &back, &err));
    openpgp_free(writer);
    check_free_cleans(reader);
    buf_free(&coded);
    buf_free(&back);
}

static void no_secret_in(const char *text)
{
    assert_null(strstr(text, PASS));
    assert_null(strstr(text, "horse"));
}

static void wrong_passphrase(void **state)
{
    (void)state;
    static const char *const recipients[] = {ALICE, NULL};
    char fpr[64];
    test_fpr(&home, ALICE, fpr);
    for (size_t i = 0; i < 2; i++) {
        struct err err = ERR_INIT;
        assert_null(test_openpgp(&home, recipients[i], "incorrect horse", &err));
        if (err.code != ERR_KEY || strstr(err.text, "wrong passphrase") == NULL ||
            strstr(err.text, fpr) == NULL || strstr(err.text, ALICE) == NULL)
            fail_msg("%s", err.text);
        no_secret_in(err.text);
    }
}

static void no_passphrase(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct openpgp *pgp = test_openpgp(&home, ALICE, NULL, &err);
    assert_non_null(pgp);
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    char command[256];
    (void)snprintf(command, sizeof(command), "gpgconf --homedir %s --kill gpg-agent", home.path);
    assert_int_equal(system(command), 0);
    test_write_file(&home, "gpg-agent.conf", "pinentry-program /bin/false\n", 28);
    assert_false(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    assert_int_equal(err.code, ERR_KEY);
    if (strstr(err.text, "passphrase") == NULL && strstr(err.text, "gpg-agent") == NULL)
        fail_msg("%s", err.text);
    print_message("%s\n", err.text);
    assert_int_equal(system(command), 0);
    test_write_file(&home, "gpg-agent.conf", "s2k-count 65536\n", 16);
    openpgp_free(pgp);
    buf_free(&coded);
    buf_free(&back);
}

static void no_secret_key_at_all(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct test_home public;
    test_home_make(&public);
    test_copy_public(&home, &public, ALICE);
    assert_null(test_openpgp(&public, ALICE, PASS, &err));
    assert_int_equal(err.code, ERR_KEY);
    assert_non_null(strstr(err.text, "passphrase_file is set, but there is no secret key"));
    test_home_remove(&public);
}

static void key_without_passphrase(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct test_home open;
    test_home_make(&open);
    test_key(&open, "Open <open@example.org>", "");
    struct openpgp *pgp = test_openpgp(&open, "open@example.org", PASS, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    check_works(pgp);
    check_free_cleans(pgp);
    test_home_remove(&open);
}

static void two_passphrases(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct test_home two;
    test_home_make(&two);
    test_key(&two, "One <one@example.org>", "first secret");
    test_key(&two, "Two <two@example.org>", "second secret");
    struct openpgp *first = test_openpgp(&two, "one@example.org", "first secret", &err);
    if (first == NULL)
        fail_msg("%s", err.text);
    check_works(first);
    /* the recipient's own key must open */
    assert_null(test_openpgp(&two, "two@example.org", "first secret", &err));
    assert_int_equal(err.code, ERR_KEY);
    assert_non_null(strstr(err.text, "wrong passphrase"));
    assert_non_null(strstr(err.text, "two@example.org"));
    /* an object for the other key */
    struct openpgp *second = test_openpgp(&two, "two@example.org", NULL, &err);
    assert_true(test_encrypt(second, "text", 4, &coded, &err));
    err = (struct err)ERR_INIT;
    assert_false(test_decrypt(first, coded.data, coded.len, &back, &err));
    assert_int_equal(err.code, ERR_KEY);
    if (strstr(err.text, "no secret key") == NULL || strstr(err.text, two.path) == NULL)
        fail_msg("%s", err.text);
    openpgp_free(second);
    check_free_cleans(first);
    buf_free(&coded);
    buf_free(&back);
    test_home_remove(&two);
}

static void same_passphrase_twice(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct test_home two;
    test_home_make(&two);
    test_key(&two, "One <one@example.org>", PASS);
    test_key(&two, "Two <two@example.org>", PASS);
    struct openpgp *both = test_openpgp(&two, "one@example.org", PASS, &err);
    struct openpgp *second = test_openpgp(&two, "two@example.org", NULL, &err);
    if (both == NULL || second == NULL)
        fail_msg("%s", err.text);
    assert_true(test_encrypt(second, "text", 4, &coded, &err));
    assert_true(test_decrypt(both, coded.data, coded.len, &back, &err));
    openpgp_free(second);
    check_free_cleans(both);
    buf_free(&coded);
    buf_free(&back);
    test_home_remove(&two);
}

/* A key that may no longer be encrypted to still has to read what it was used for. */
static void expired_secret_key(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded = BUF_INIT(1 << 16), back;
    struct test_home old;
    test_home_make(&old);
    test_key_ext(&old, "Old <old@example.org>",
                 "--passphrase '" PASS "' --faked-system-time 20200101T000000!", "future-default",
                 "1d");
    test_write_file(&old, "plain", "text", 4);
    assert_int_equal(test_gpg(&old,
                              "--faked-system-time 20200101T000100! -r old@example.org -o "
                              "%s/x.gpg -e %s/plain",
                              old.path, old.path),
                     0);
    test_read_file(&old, "x.gpg", &coded);
    struct openpgp *pgp = test_openpgp(&old, NULL, PASS, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    if (!test_decrypt(pgp, coded.data, coded.len, &back, &err))
        fail_msg("%s", err.text);
    assert_string_equal(buf_str(&back), "text");
    assert_null(test_openpgp(&old, NULL, "wrong", &err));
    assert_non_null(strstr(err.text, "wrong passphrase"));
    check_free_cleans(pgp);
    buf_free(&coded);
    buf_free(&back);
    test_home_remove(&old);
}

/* The encryption subkey was replaced by a new one; the archive holds messages for both. */
static void rotated_subkey(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded = BUF_INIT(1 << 16), back;
    struct test_home old;
    char fpr[64];
    test_home_make(&old);
    test_key_ext(&old, "Rota <rota@example.org>",
                 "--passphrase '" PASS "' --faked-system-time 20200101T000000!", "ed25519",
                 "never");
    test_fpr(&old, "rota@example.org", fpr);
    assert_int_equal(test_gpg(&old,
                              "--passphrase '" PASS "' --faked-system-time 20200101T000001! "
                              "--quick-add-key %s cv25519 encr 1d",
                              fpr),
                     0);
    test_write_file(&old, "plain", "text", 4);
    assert_int_equal(test_gpg(&old,
                              "--faked-system-time 20200101T000100! -r rota@example.org -o "
                              "%s/x.gpg -e %s/plain",
                              old.path, old.path),
                     0);
    assert_int_equal(
        test_gpg(&old, "--passphrase '" PASS "' --quick-add-key %s cv25519 encr never", fpr), 0);
    test_read_file(&old, "x.gpg", &coded);
    struct openpgp *pgp = test_openpgp(&old, "rota@example.org", PASS, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    check_works(pgp);
    if (!test_decrypt(pgp, coded.data, coded.len, &back, &err))
        fail_msg("%s", err.text);
    assert_string_equal(buf_str(&back), "text");
    check_free_cleans(pgp);
    buf_free(&coded);
    buf_free(&back);
    test_home_remove(&old);
}

/* What WAL-E itself wrote, with the key that was used for it. */
static void fixture_key(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct secret pass = SECRET_INIT;
    struct test_home fixture;
    assert_true(secret_read_file(&pass, WAL_E "/keys/passphrase.txt", "passphrase", &err));
    test_home_make(&fixture);
    assert_int_equal(test_gpg(&fixture, "--import " WAL_E "/keys/secret-with-passphrase.asc"), 0);
    struct openpgp *pgp = test_openpgp(&fixture, NULL, pass.value, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    struct buf coded = BUF_INIT(32 << 20), back;
    FILE *f = fopen(WAL_E "/gpg/wal_005/000000010000000000000002.lzo", "rb");
    assert_non_null(f);
    char part[4096];
    size_t n;
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        assert_true(buf_append(&coded, part, n));
    fclose(f);
    assert_true(openpgp_is_message(coded.data, coded.len));
    if (!test_decrypt(pgp, coded.data, coded.len, &back, &err))
        fail_msg("%s", err.text);
    assert_memory_equal(back.data, "\x89LZO\0\r\n\x1a\n", 9);
    buf_free(&back);
    buf_free(&coded);
    check_free_cleans(pgp);
    secret_free(&pass);
    test_home_remove(&fixture);
}

static void agent_killed_between(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(pgp);
    gpg_end_users_of(gpg_home_path(pgp->unlocked));
    assert_false(agent_runs(gpg_home_path(pgp->unlocked)));
    check_works(pgp); /* gpg starts another one */
    check_free_cleans(pgp);
}

/* A stopped agent can neither answer nor be asked to go. */
static void agent_stopped(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded, back;
    struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(pgp);
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    pgp->stall_timeout_ms = 300;
    char command[256];
    (void)snprintf(command, sizeof(command), "pkill -STOP -f '^gpg-agent --homedir %s '",
                   gpg_home_path(pgp->unlocked));
    assert_int_equal(system(command), 0);
    assert_false(test_decrypt(pgp, coded.data, coded.len, &back, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    check_free_cleans(pgp);
    buf_free(&coded);
    buf_free(&back);
}

/* The private agent outlives the gpg that started it, so it must not hold anything of ours: a test
 * or a shell that reads our output to its end would wait for it. */
static void agent_inherits_nothing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int fds[2];
    assert_int_equal(pipe(fds), 0); /* deliberately without O_CLOEXEC */
    struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(pgp);
    check_works(pgp);
    close(fds[1]);
    char c;
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(read(fds[0], &c, 1), 0); /* the end, not EAGAIN */
    close(fds[0]);
    check_free_cleans(pgp);
}

/* A walefs that was killed leaves its home and agent; the next one removes both, and no other. */
static void stale_home_is_removed(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int fds[2];
    char path[128] = "";
    struct openpgp *alive = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(alive);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
        if (pgp != NULL) {
            const char *p = gpg_home_path(pgp->unlocked);
            ssize_t written = write(fds[1], p, strlen(p) + 1);
            (void)written;
        }
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(read(fds[0], path, sizeof(path) - 1) > 0);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(access(path, F_OK), 0);
    assert_true(agent_runs(path));

    struct openpgp *next = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(next);
    assert_int_equal(access(path, F_OK), -1);
    assert_false(agent_runs(path));
    check_works(alive);
    check_works(next);
    check_free_cleans(next);
    check_works(alive);
    check_free_cleans(alive);
}

/* As a daemon does: made before the fork, used and freed by the child. */
static void survives_daemonizing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char path[128];
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t starter = fork();
    if (starter == 0) {
        struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
        if (pgp == NULL || fork() != 0)
            _exit(pgp == NULL);
        /* the starter is gone; another walefs comes and looks for stale homes */
        (void)snprintf(path, sizeof(path), "%s", gpg_home_path(pgp->unlocked));
        cancel_sleep_ms(NULL, 50);
        struct openpgp *other = test_openpgp(&home, ALICE, PASS, &err);
        struct buf coded, back = BUF_INIT(64);
        bool ok = other != NULL && access(path, F_OK) == 0 &&
                  test_encrypt(pgp, "text", 4, &coded, &err) &&
                  test_decrypt(pgp, coded.data, coded.len, &back, &err);
        openpgp_free(other);
        openpgp_free(pgp);
        char answer = ok && access(path, F_OK) != 0 ? 'y' : 'n';
        ssize_t written = write(go[1], &answer, 1);
        _exit(written != 1);
    }
    int status;
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    close(go[1]);
    char answer = 'n';
    assert_int_equal(read(go[0], &answer, 1), 1);
    close(go[0]);
    assert_int_equal(answer, 'y');
}

static void loopback_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct test_home strict;
    test_home_make(&strict);
    test_key(&strict, "Strict <strict@example.org>", PASS);
    char command[256];
    (void)snprintf(command, sizeof(command), "gpgconf --homedir %s --kill gpg-agent", strict.path);
    assert_int_equal(system(command), 0);
    test_write_file(&strict, "gpg-agent.conf", "no-allow-loopback-pinentry\n", 27);
    assert_null(test_openpgp(&strict, "strict@example.org", PASS, &err));
    assert_int_equal(err.code, ERR_KEY);
    if (strstr(err.text, "no-allow-loopback-pinentry") == NULL)
        fail_msg("%s", err.text);
    test_home_remove(&strict);
}

/* Only a tmpfs will do, and only with a path that is short enough for a socket. */
static void unfit_runtime_dir(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_int_equal(setenv("RUNTIME_DIRECTORY", home.path, 1), 0); /* /tmp may be a disk */
    struct openpgp *pgp = test_openpgp(&home, ALICE, PASS, &err);
    struct statfs fs;
    assert_int_equal(statfs(home.path, &fs), 0);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    if (fs.f_type != 0x01021994)
        assert_null(strstr(gpg_home_path(pgp->unlocked), home.path));
    check_works(pgp);
    check_free_cleans(pgp);

    char dir[96] = "/dev/shm/walefs-test.XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(setenv("RUNTIME_DIRECTORY", dir, 1), 0);
    pgp = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(pgp);
    assert_non_null(strstr(gpg_home_path(pgp->unlocked), dir));
    check_free_cleans(pgp);
    char too_long[160];
    (void)snprintf(too_long, sizeof(too_long), "%s/%060d", dir, 0);
    assert_int_equal(mkdir(too_long, 0700), 0);
    assert_int_equal(setenv("RUNTIME_DIRECTORY", too_long, 1), 0);
    pgp = test_openpgp(&home, ALICE, PASS, &err);
    assert_non_null(pgp);
    assert_null(strstr(gpg_home_path(pgp->unlocked), dir));
    check_free_cleans(pgp);
    assert_int_equal(unsetenv("RUNTIME_DIRECTORY"), 0);
    assert_int_equal(rmdir(too_long), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_passphrase),      cmocka_unit_test(read_only_and_no_recipient),
        cmocka_unit_test(wrong_passphrase),      cmocka_unit_test(no_passphrase),
        cmocka_unit_test(no_secret_key_at_all),  cmocka_unit_test(key_without_passphrase),
        cmocka_unit_test(two_passphrases),       cmocka_unit_test(same_passphrase_twice),
        cmocka_unit_test(expired_secret_key),    cmocka_unit_test(rotated_subkey),
        cmocka_unit_test(fixture_key),           cmocka_unit_test(agent_killed_between),
        cmocka_unit_test(agent_stopped),         cmocka_unit_test(agent_inherits_nothing),
        cmocka_unit_test(stale_home_is_removed), cmocka_unit_test(survives_daemonizing),
        cmocka_unit_test(loopback_refused),      cmocka_unit_test(unfit_runtime_dir),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
