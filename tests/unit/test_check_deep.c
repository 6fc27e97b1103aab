/* mount/check_deep.c and mount/check_object.c: every object, sound and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "check_env.h"

static struct check_env e;

#define SEG(n) "0000000100000000000000" n
#define B2 "base_" SEG("02") "_00000040"
#define PART "basebackups_005/" B2 "/tar_partitions/part_00000000.tar.lzo"
#define LABEL SEG("02") ".00000028.backup"

static int set_up(void **state)
{
    (void)state;
    check_env_begin(&e);
    check_env_run(&e, "seg " SEG("02") "; seg " SEG("03") "; backup " B2 " " SEG(
                          "03") "; text 00000002.history '1\\t0/400500\\tx\\n'; text " LABEL
                                " 'START WAL LOCATION: 0/200028\\n'; cp wal_005/" SEG(
                                    "03") ".lzo wal_005/" SEG("03") ".partial.lzo");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    check_env_end(&e);
    return 0;
}

static void found(const char *damage, const char *key)
{
    check_env_run(&e, damage);
    check_env_look(&e, true);
    check_env_says(&e, "FAIL", "deep", key);
    check_env_says(&e, "FAIL", "deep", "1 of them damaged");
    assert_int_equal(e.c.worst, CHECK_FAIL);
}

static void sound(void **state)
{
    (void)state;
    check_env_look(&e, true);
    check_env_says(&e, "ok", "deep", "6 objects decoded and verified");
    assert_int_equal(e.c.worst, CHECK_OK);
}

static void segment(void **state)
{
    (void)state;
    found("head -c 100000 wal_005/" SEG("02") ".lzo >x; mv x wal_005/" SEG("02") ".lzo",
          "wal_005/" SEG("02") ".lzo");
}

static void segment_under_another_name(void **state)
{
    (void)state;
    found("cp wal_005/" SEG("03") ".lzo wal_005/" SEG("02") ".lzo", "another segment");
}

static void history(void **state)
{
    (void)state;
    check_env_run(&e, "text 00000002.history x");
    check_env_look(&e, true);
    check_env_says(&e, "FAIL", "deep", "00000002.history");
}

static void label(void **state)
{
    (void)state;
    found("text " LABEL " 'STOP'", LABEL);
}

static void long_label(void **state)
{
    (void)state;
    found("yes 'START WAL LOCATION: ' | head -c 2000000 | lzop -c >wal_005/" LABEL ".lzo",
          "longer than such a file can be");
}

static void partition_that_breaks_off(void **state)
{
    (void)state;
    found("lzop -dc " PART " | head -c 700 | lzop -c >x; mv x " PART, PART);
}

static void partition_with_more_behind_its_end(void **state)
{
    (void)state;
    found("(lzop -dc " PART "; echo more) | lzop -c >x; mv x " PART, PART);
}

static void an_index_that_is_none(void **state)
{
    (void)state;
    found("echo x | lzop -c >basebackups_005/" B2 "/tar_partitions/walefs-index.lzo",
          "walefs-index.lzo");
}

static void empty_object(void **state)
{
    (void)state;
    found(": >wal_005/" SEG("02") ".lzo", "empty");
}

/* Retention deletes while everything is looked at. */
static void gone_meanwhile(void **state)
{
    (void)state;
    const struct check_object o = {.kind = CHECK_SEGMENT,
                                   .key = (char *)(uintptr_t) "wal_005/" SEG("04") ".lzo"};
    struct err err = ERR_INIT;
    _Atomic uint64_t progress = 0;
    assert_false(check_object(e.c.store, e.c.pgp, &o, &progress, &e.c.call, &err));
    assert_int_equal(err.code, ERR_ABSENT);
}

static void checksum_of_the_sentinel(void **state)
{
    (void)state;
    struct check_object o = {.kind = CHECK_PARTITION, .key = (char *)(uintptr_t)PART};
    struct err err = ERR_INIT;
    _Atomic uint64_t progress = 0;
    assert_true(check_object(e.c.store, e.c.pgp, &o, &progress, &e.c.call, &err));
    assert_true(progress > 100);
    o.sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_false(check_object(e.c.store, e.c.pgp, &o, &progress, &e.c.call, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "checksum"));
}

/* In Glacier: a warning of its own, and nothing is said to be damaged. */
static void in_an_archive_class(void **state)
{
    (void)state;
    fault_freeze(e.faults, "wal_005/" SEG("02"));
    check_env_look(&e, true);
    check_env_says(&e, "warn", "deep", "2 objects were not looked into");
    check_env_says(&e, "warn", "deep", "the first: wal_005/" SEG("02"));
    check_env_says(&e, "ok", "deep", "4 objects decoded and verified");
    assert_int_equal(e.c.worst, CHECK_WARN);
}

static void frozen_and_damaged(void **state)
{
    (void)state;
    fault_freeze(e.faults, PART);
    found("head -c 100000 wal_005/" SEG("02") ".lzo >x; mv x wal_005/" SEG("02") ".lzo",
          "wal_005/" SEG("02") ".lzo");
    check_env_says(&e, "warn", "deep", "1 objects were not looked into");
}

/* What can be rescued of it, if its sentinel is: that is what somebody wants to know. */
static void sentinel_that_cannot_be_read(void **state)
{
    (void)state;
    check_env_run(&e, "echo '{' >basebackups_005/" B2 "_backup_stop_sentinel.json");
    check_env_look(&e, true);
    check_env_says(&e, "ok", "deep", "6 objects decoded and verified");
    found("lzop -dc " PART " | head -c 700 | lzop -c >x; mv x " PART, PART);
}

static void cancelled(void **state)
{
    (void)state;
    check_env_look(&e, false);
    cancel_fire(&e.c.cancel);
    check_deep(&e.c);
    check_env_says_no(&e, "FAIL");
    assert_null(strstr(e.said, "deep"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(sound),
        T(segment),
        T(segment_under_another_name),
        T(history),
        T(label),
        T(long_label),
        T(partition_that_breaks_off),
        T(partition_with_more_behind_its_end),
        T(an_index_that_is_none),
        T(empty_object),
        T(gone_meanwhile),
        T(checksum_of_the_sentinel),
        T(in_an_archive_class),
        T(frozen_and_damaged),
        T(sentinel_that_cannot_be_read),
        T(cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
