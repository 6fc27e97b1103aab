/* Keys that expire or have expired (core/openpgp_expiry.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/openpgp_internal.h"
#include "gpg_home.h"

#define DAY_S (24 * 60 * 60)
#define IN_2020 "--passphrase '' --faked-system-time 20200101T000000!"

static struct test_home home;

static int set_up(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Ever <ever@example.org>", "");
    test_key_ext(&home, "Old <old@example.org>", IN_2020, "future-default", "1d");
    test_key_ext(&home, "Older <older@example.org>",
                 "--passphrase '' --faked-system-time 20180101T000000!", "future-default", "1d");
    test_key_ext(&home, "Soon <soon@example.org>", "--passphrase ''", "future-default", "10d");
    test_key_ext(&home, "Later <later@example.org>", "--passphrase ''", "future-default", "60d");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

/* ---- what is logged ---- */

static int kept_stderr;

static void catch_log(void)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/log", home.path);
    (void)fflush(stderr);
    kept_stderr = dup(2);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(kept_stderr >= 0 && fd >= 0 && dup2(fd, 2) == 2);
    close(fd);
}

static void check_log(const char *wanted)
{
    struct buf log = BUF_INIT(1 << 20);
    (void)fflush(stderr);
    assert_int_equal(dup2(kept_stderr, 2), 2);
    close(kept_stderr);
    test_read_file(&home, "log", &log);
    if (wanted == NULL ? strstr(buf_str(&log), "expire") != NULL
                       : strstr(buf_str(&log), wanted) == NULL)
        fail_msg("logged: %s", buf_str(&log));
    buf_free(&log);
}

/* ---- */

static struct openpgp *going_on(const char *const *names, size_t count)
{
    struct err err = ERR_INIT;
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = count;
    options.allow_expired = true;
    struct openpgp *pgp = openpgp_new(&options, &err);
    if (pgp == NULL)
        fail_msg("%s", err.text);
    return pgp;
}

/* The id of the last subkey. */
static void subkey_id(const char *user_id, char out[64])
{
    char command[512];
    (void)snprintf(command, sizeof(command),
                   "gpg --homedir %s --with-colons -k %s 2>/dev/null | awk -F: '/^sub/{s=$5} "
                   "END{print s}'",
                   home.path, user_id);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%63s", out), 1);
    pclose(f);
}

/* gpg itself reads it in the usual home, which has the secret keys; it is to the last
 * subkey of each user, or to the subkey that is named. */
static void check_gpg_reads(struct openpgp *pgp, const char *const *names, size_t count)
{
    struct err err = ERR_INIT;
    char id[64];
    struct buf coded, back = BUF_INIT(100), log = BUF_INIT(1 << 16);
    if (!test_encrypt(pgp, "text", 4, &coded, &err))
        fail_msg("%s", err.text);
    test_write_file(&home, "x.gpg", coded.data, coded.len);
    assert_int_equal(test_gpg(&home, "-v -o %s/x -d %s/x.gpg", home.path, home.path), 0);
    test_read_file(&home, "x", &back);
    assert_string_equal(buf_str(&back), "text");
    test_read_file(&home, "gpg.log", &log);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(id, sizeof(id), "%s", names[i]);
        if (strchr(names[i], '@') != NULL)
            subkey_id(names[i], id);
        if (strstr(buf_str(&log), id) == NULL)
            fail_msg("not encrypted to %s: %s", id, buf_str(&log));
    }
    buf_free(&coded);
    buf_free(&back);
    buf_free(&log);
}

static void expired_key(void **state)
{
    (void)state;
    static const char *const names[] = {"old@example.org"};
    size_t fds = test_open_fds();
    catch_log();
    struct openpgp *pgp = going_on(names, 1);
    check_log("expired on 2020-01-02, and is encrypted to all the same");
    assert_int_equal(openpgp_expires_s(pgp), 1577923200); /* 2020-01-02 00:00 UTC */
    check_gpg_reads(pgp, names, 1);
    check_gpg_reads(pgp, names, 1);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s", gpg_home_path(pgp->earlier));
    openpgp_free(pgp);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(test_open_fds(), fds);
}

/* Keys of which one was made long after the other one's end. */
static void with_others(void **state)
{
    (void)state;
    static const char *const names[] = {"ever@example.org", "old@example.org", "soon@example.org",
                                        "older@example.org"};
    struct openpgp *pgp = going_on(names, 4);
    check_gpg_reads(pgp, names, 4);
    openpgp_free(pgp);
}

/* Of the subkeys that have expired it is the last one, or the one that is asked for. */
static void expired_subkey(void **state)
{
    (void)state;
    char fpr[64], subs[2][64], command[512], exact[80];
    test_key_ext(&home, "Half <half@example.org>", IN_2020, "ed25519", "never");
    test_fpr(&home, "half@example.org", fpr);
    static const char *const made[] = {"20200101T000001!", "20200601T000000!"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(test_gpg(&home,
                                  "--passphrase '' --faked-system-time %s "
                                  "--quick-add-key %s cv25519 encr 300d",
                                  made[i], fpr),
                         0);
    (void)snprintf(command, sizeof(command),
                   "gpg --homedir %s --with-colons -k half@example.org 2>/dev/null | awk -F: "
                   "'/^sub/{print $5}'",
                   home.path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%63s %63s", subs[0], subs[1]), 2);
    pclose(f);

    const char *name = "half@example.org", *last = subs[1], *first = subs[0];
    struct openpgp *pgp = going_on(&name, 1);
    check_gpg_reads(pgp, &last, 1);
    openpgp_free(pgp);
    (void)snprintf(exact, sizeof(exact), "%s!", subs[0]);
    name = exact;
    pgp = going_on(&name, 1);
    check_gpg_reads(pgp, &first, 1);
    openpgp_free(pgp);
}

/* A mount lives longer than its key: with allow_expired it goes on. */
static void expires_meanwhile(void **state)
{
    (void)state;
    static const char *const names[] = {"brief@example.org"};
    struct err err = ERR_INIT;
    struct buf coded;
    test_key_ext(&home, "Brief <brief@example.org>", "--passphrase ''", "future-default",
                 "seconds=3");
    struct openpgp *strict = test_openpgp(&home, names[0], NULL, &err);
    if (strict == NULL)
        fail_msg("%s", err.text);
    struct openpgp *pgp = going_on(names, 1);
    while (time(NULL) <= openpgp_expires_s(pgp))
        cancel_sleep_ms(NULL, 100);
    check_gpg_reads(pgp, names, 1);
    assert_false(test_encrypt(strict, "text", 4, &coded, &err));
    if (err.code != ERR_KEY || strstr(err.text, "allow_expired") == NULL)
        fail_msg("%s: %s", err_name(err.code), err.text);
    buf_free(&coded);
    openpgp_free(strict);
    openpgp_free(pgp);
}

/* What has no end needs no home of its own, and what cannot be used for another reason is refused.
 */
static void other_keys(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const char *name = "ever@example.org";
    struct openpgp *pgp = going_on(&name, 1);
    assert_null(pgp->earlier);
    assert_int_equal(openpgp_expires_s(pgp), 0);
    openpgp_free(pgp);
    test_key_ext(&home, "Sign <sign@example.org>", "--passphrase ''", "ed25519", "never");
    name = "sign@example.org";
    struct openpgp_options options = test_options(&home);
    options.recipients = &name;
    options.recipient_count = 1;
    options.allow_expired = true;
    assert_null(openpgp_new(&options, &err));
    assert_int_equal(err.code, ERR_KEY);
    assert_non_null(strstr(err.text, "no usable encryption subkey"));
}

/* ---- before it happens ---- */

static void warned_of(const char *name, const char *wanted)
{
    struct err err = ERR_INIT;
    catch_log();
    struct openpgp *pgp = test_openpgp(&home, name, NULL, &err);
    check_log(wanted);
    assert_non_null(pgp);
    openpgp_free(pgp);
}

static void warning_at_start(void **state)
{
    (void)state;
    warned_of("soon@example.org", " days: from then on nothing can be archived");
    warned_of("later@example.org", NULL);
    warned_of("ever@example.org", NULL);
}

static void warning_each_day(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf coded;
    char fpr[64];
    test_key_ext(&home, "Extend <extend@example.org>", "--passphrase ''", "future-default", "10d");
    test_fpr(&home, "extend@example.org", fpr);
    struct openpgp *pgp = test_openpgp(&home, "extend@example.org", NULL, &err);
    assert_non_null(pgp);
    int64_t before_s = openpgp_expires_s(pgp);

    catch_log();
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    check_log(NULL);
    buf_free(&coded);
    pgp->expiry_looked_s -= DAY_S;
    catch_log();
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    check_log("Extend <extend@example.org>) expires on");
    buf_free(&coded);
    catch_log();
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    check_log(NULL); /* once */
    buf_free(&coded);

    /* extended meanwhile */
    assert_int_equal(test_gpg(&home, "--passphrase '' --quick-set-expire %s 1y", fpr), 0);
    assert_int_equal(test_gpg(&home, "--passphrase '' --quick-set-expire %s 1y '*'", fpr), 0);
    pgp->expiry_looked_s -= DAY_S;
    catch_log();
    assert_true(test_encrypt(pgp, "text", 4, &coded, &err));
    check_log(NULL);
    buf_free(&coded);
    assert_true(openpgp_expires_s(pgp) > before_s + (int64_t)300 * DAY_S);
    openpgp_free(pgp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expired_key),      cmocka_unit_test(with_others),
        cmocka_unit_test(expired_subkey),   cmocka_unit_test(expires_meanwhile),
        cmocka_unit_test(other_keys),       cmocka_unit_test(warning_at_start),
        cmocka_unit_test(warning_each_day),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
