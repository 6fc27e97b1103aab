/* mount/check_wal.c and mount/check_backups.c: what is there, and what is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "check_env.h"
#include "index_env.h"

static struct check_env e;

#define SEG(n) "0000000100000000000000" n
#define SEG2(n) "0000000200000000000000" n
#define B2 "base_" SEG("02") "_00000040"

static int set_up(void **state)
{
    (void)state;
    check_env_begin(&e);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    check_env_end(&e);
    return 0;
}

static void empty(void **state)
{
    (void)state;
    check_env_look(&e, false);
    check_env_says(&e, "warn", "read", "no WAL has been archived yet");
    check_env_says(&e, "warn", "backups", "no complete base backup");
    assert_int_equal(e.c.worst, CHECK_WARN);
}

static void sound(void **state)
{
    (void)state;
    check_env_run(&e, "seg " SEG("02") "; seg " SEG("03") "; backup " B2 " " SEG("03"));
    check_env_look(&e, false);
    assert_int_equal(e.c.worst, CHECK_OK);
    assert_int_equal(e.c.wal.census->segment_size, 1 << 20);
    check_env_says(&e, "ok", "read", SEG("03"));
    check_env_says(&e, "ok", "backups", "1 complete, the newest " B2);
    check_env_says(&e, "ok", "backups", "1 without an index");
    check_env_says(&e, "ok", "wal", SEG("02") " to " SEG("03") " (2 segments), 2 there");
}

/* Between start and stop it is the backup that is lost, behind that what follows. Each is said
 * once. */
static void gaps(void **state)
{
    (void)state;
    check_env_run(&e, "for n in 02 04 05 07 08; do seg " SEG("$n") "; done; backup " B2 " " SEG(
                          "03") "; backup base_" SEG("05") "_00000040 " SEG("05"));
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap", SEG("03") " is missing: " B2 " cannot be restored");
    check_env_says(&e, "FAIL", "gap", SEG("06") " is missing: recovery of ");
    assert_int_equal(e.c.wal.reported.count, 2);
    check_env_says(&e, "ok", "wal", "5 there");
    assert_int_equal(e.c.worst, CHECK_FAIL);
}

static void stop_is_not_archived_yet(void **state)
{
    (void)state;
    check_env_run(&e, "seg " SEG("02") "; backup " B2 " " SEG("04"));
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap",
                   SEG("03") " to " SEG("04") " (2 segments) is missing: " B2 " cannot");
}

/* pg_basebackup -X stream; the index that tells is asked for only when it is needed. */
static void wal_inside_a_backup(void **state)
{
    (void)state;
    check_env_run(&e, "seg " SEG("02") "; backup " B2 " " SEG("04"));
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap",
                   " cannot be restored without it, unless it has its WAL inside, which could not "
                   "be looked up: it has no index");
    index_env_put(e.c.store, e.c.pgp, B2, "pg_wal/" SEG("02") " pg_wal/" SEG("03"), 1u << 20);
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap", SEG("04") " is missing: " B2);
    assert_non_null(strstr(e.said, "without it\n"));
    index_env_put(e.c.store, e.c.pgp, B2, "pg_wal/" SEG("03") " pg_wal/" SEG("04"), 1u << 20);
    check_env_look(&e, false);
    check_env_says_no(&e, "FAIL");
    check_env_run(&e, "cd basebackups_005/" B2 "/tar_partitions; echo >>part_00000000.tar.lzo");
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap", "be looked up: its index is not of the partitions");
    check_env_run(&e, "seg " SEG("03") "; seg " SEG("04"));
    check_env_look(&e, false);
    check_env_says_no(&e, "FAIL");
}

/* A backup that went on behind the switch stays on its own timeline. */
static void timelines(void **state)
{
    (void)state;
    check_env_run(
        &e, "for n in 02 03 06; do seg " SEG("$n") "; done; seg " SEG2("04") "; seg " SEG2(
                "05") "; text 00000002.history '1\\t0/400500\\tx\\n'; backup " B2 " " SEG("03"));
    check_env_look(&e, false);
    check_env_says_no(&e, "FAIL");
    check_env_says(&e, "ok", "wal", "missing are 2 that no backup needs");
    check_env_run(&e, "backup base_" SEG("03") "_00000040 " SEG("06"));
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "gap", SEG("04") " to " SEG("05"));
}

/* Of the segment in which 1 was left, 2 has a copy. */
static void backup_that_ends_where_a_timeline_was_left(void **state)
{
    (void)state;
    check_env_run(&e, "for n in 02 03; do seg " SEG("$n") "; done; seg " SEG2("04") "; seg " SEG2(
                          "05") "; text 00000002.history '1\\t0/400500\\tx\\n'; backup " B2
                                " " SEG("04"));
    check_env_look(&e, false);
    check_env_says_no(&e, "FAIL");
}

static void unknown_segment_size(void **state)
{
    (void)state;
    check_env_run(&e, "text " SEG("02") " nonsense; text " SEG("05") " nonsense");
    check_env_look(&e, false);
    check_env_says(&e, "warn", "wal", "the segment size is not known");
    assert_null(strstr(e.said, "missing"));
}

static void damaged_history(void **state)
{
    (void)state;
    check_env_run(&e, "seg " SEG("02") "; text 00000002.history nonsense");
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "wal", "00000002.history");
}

/* WAL-E's: the name is all that is known, so it is a warning. */
static void start_from_the_name(void **state)
{
    (void)state;
    check_env_run(
        &e,
        "seg " SEG("02") "; backup base_" SEG("40") "_00000040 " SEG(
            "40") "; printf '{\"wal_segment_backup_stop\": \"" SEG("40") "\", "
                                                                         "\"wal_segment_offset_"
                                                                         "backup_stop\": "
                                                                         "\"00000040\"}' "
                                                                         ">basebackups_005/"
                                                                         "base_" SEG("40") "_000000"
                                                                                           "40_"
                                                                                           "backup_"
                                                                                           "stop_"
                                                                                           "sentine"
                                                                                           "l."
                                                                                           "json");
    check_env_look(&e, false);
    check_env_says(&e, "warn", "gap", SEG("40") " is missing");
    check_env_says_no(&e, "FAIL");
}

static void lost_partitions(void **state)
{
    (void)state;
    static const char partitions[] = "basebackups_005/" B2 "/tar_partitions";
    char command[256];
    check_env_run(&e, "seg " SEG("02") "; backup " B2 " " SEG("02"));
    (void)snprintf(command, sizeof(command),
                   "cd %s; cp part_00000000.tar.lzo part_00000002.tar.lzo", partitions);
    check_env_run(&e, command);
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "backups", B2 " has no partition 1");
    check_env_run(&e, "sed -i 's/\"start_lsn/\"partition_sha256\": [\"x\", \"y\"], &/' "
                      "basebackups_005/*.json");
    (void)snprintf(command, sizeof(command), "rm %s/part_00000002.tar.lzo", partitions);
    check_env_run(&e, command);
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "backups",
                   B2 " has 1 partitions, and was written with 2: it cannot be restored");
    (void)snprintf(command, sizeof(command),
                   "cd %s; cp part_00000000.tar.lzo part_00000001.tar.lzo", partitions);
    check_env_run(&e, command);
    check_env_look(&e, false);
    check_env_says_no(&e, "FAIL");
    (void)snprintf(command, sizeof(command), "rm %s/part*", partitions);
    check_env_run(&e, command);
    check_env_look(&e, false);
    check_env_says(&e, "FAIL", "backups", B2 " has no partitions");
}

static void incomplete(void **state)
{
    (void)state;
    check_env_run(&e, "backup " B2 " " SEG("02") "; rm basebackups_005/*.json; seg " SEG("02"));
    check_env_look(&e, false);
    check_env_says(&e, "ok", "backups", B2 " is not complete");
}

static void foreign_names(void **state)
{
    (void)state;
    check_env_run(
        &e, "seg " SEG("02") "; cp wal_005/" SEG("02") ".lzo wal_005/000000010000000000001000.lzo"
                                                       "; seg 000000020000000000000001");
    check_env_look(&e, false);
    check_env_says(&e, "warn", "wal", "1 names are no segments");
}

/* As status/ has it: unit.test_status. */
static void the_newest_segment_tells_the_size(void **state)
{
    (void)state;
    check_env_run(
        &e, "seg " SEG("02") "; for n in 0000000100000001000000FD 0000000100000001000000FF; do "
                             "python3 \"$ROOT/tests/lib/walseg.py\" $n 16 x; lzop -c x "
                             ">wal_005/$n.lzo; rm x; done");
    check_env_look(&e, false);
    assert_int_equal(e.c.wal.census->segment_size, 16 << 20);
    check_env_says(&e, "warn", "wal",
                   SEG("02") " to 0000000100000001000000FF (510 segments), 3 there");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(empty),
        T(sound),
        T(gaps),
        T(stop_is_not_archived_yet),
        T(wal_inside_a_backup),
        T(timelines),
        T(backup_that_ends_where_a_timeline_was_left),
        T(unknown_segment_size),
        T(damaged_history),
        T(start_from_the_name),
        T(lost_partitions),
        T(incomplete),
        T(foreign_names),
        T(the_newest_segment_tells_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
