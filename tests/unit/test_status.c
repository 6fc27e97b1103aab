/* status/ over a store in memory, through fs/fs.h as the kernel's side calls it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/log_ring.h"
#include "exposition.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "index_env.h"
#include "mem_fs_env.h"

#define DEAD "base_000000010000000000000002_00000040"
#define TEMP "walefs-tmp-0123456789abcdef0123456789abcdef"
#define DONE "base_000000010000000000000003_00000040"

static const struct call endless = CALL_INIT;

static void put(const char *key, const char *text)
{
    mem_set(mem, key, text, strlen(text), NULL, 0);
}

static char who[32] = "somebody";

static char *identity(void *arg)
{
    return strdup(arg);
}

static int begin(void **state)
{
    (void)state;
    mem_fs_begin((struct fs_options){
        .hard = true,
        .write_timeout_ms = 2000,
        .about = {.config = "option\tvalue\torigin\n", .identity = identity, .identity_arg = who},
        .partition_bytes = 1u << 20,
        .cache_bytes = 1u << 20});
    return 0;
}

static int end(void **state)
{
    (void)state;
    mem_fs_end();
    return 0;
}

static char *read_status(const char *name)
{
    static char text[1 << 18];
    struct handle *h;
    struct err err = ERR_INIT;
    struct fs_bytes bytes;
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "status"), name);
    assert_true(fs_open(fs, id, O_RDONLY, 1, &h, &endless, &err));
    assert_true(fs_read(fs, h, 0, sizeof(text) - 1, &bytes, &endless, &err));
    assert_true(bytes.fd >= 0);
    assert_int_equal(pread(bytes.fd, text, bytes.size, (off_t)bytes.offset), bytes.size);
    text[bytes.size] = '\0';
    fs_read_done(&bytes);
    fs_release(fs, h);
    return text;
}

static const char *after_lines(const char *text, unsigned n)
{
    while (n-- > 0) {
        text = strchr(text, '\n');
        assert_non_null(text);
        text++;
    }
    return text;
}

static void incomplete_backups_are_named_with_size_and_age(void **state)
{
    (void)state;
    put("basebackups_005/" DEAD "/tar_partitions/part_00000000.tar.lzo", "0123456789");
    put("basebackups_005/" DEAD "/tar_partitions/part_00000001.tar.lzo", "01234");
    put("basebackups_005/" TEMP "/part_00000000.tar.lzo", "0123");
    put("basebackups_005/" DONE "/tar_partitions/part_00000000.tar.lzo", "0");
    put("basebackups_005/" DONE "_backup_stop_sentinel.json", "{}");
    put("basebackups_005/walefs-tmp-x/part_00000000.tar.lzo", "foreign");
    mem_set_time(mem, "basebackups_005/" DEAD "/tar_partitions/part_00000000.tar.lzo",
                 time(NULL) - 5000);
    mem_set_time(mem, "basebackups_005/" DEAD "/tar_partitions/part_00000001.tar.lzo",
                 time(NULL) - 2000);
    const char *text = read_status("incomplete");
    assert_int_equal(strncmp(text, "# as of 2", 9), 0);
    assert_null(strstr(text, DONE));
    assert_null(strstr(text, "walefs-tmp-x"));
    char name[2][64];
    unsigned objects[2], bytes[2];
    int age_s, idle_s;
    assert_int_equal(sscanf(after_lines(text, 2), "%63s %u %u %*s %d %d %*s %63s %u %u", name[0],
                            &objects[0], &bytes[0], &age_s, &idle_s, name[1], &objects[1],
                            &bytes[1]),
                     8);
    assert_in_range(age_s, 5000, 5060);
    assert_in_range(idle_s, 2000, 2060);
    assert_string_equal(name[0], DEAD);
    assert_int_equal(objects[0], 2);
    assert_int_equal(bytes[0], 15);
    assert_string_equal(name[1], TEMP);
    assert_int_equal(objects[1], 1);
    assert_int_equal(bytes[1], 4);
}

/* It was complete once: what stands there may be all there is, and nobody must take it for a rest.
 */
static void an_unreadable_sentinel_is_no_rest(void **state)
{
    (void)state;
    put("basebackups_005/" DEAD "/tar_partitions/part_00000000.tar.lzo", "0123456789");
    put("basebackups_005/" DONE "/tar_partitions/part_00000000.tar.lzo", "0");
    put("basebackups_005/" DONE "_backup_stop_sentinel.json", "{\"spec\"");
    const char *text = read_status("incomplete");
    assert_non_null(strstr(text, "\tnone\n" DONE "\t1\t1\t"));
    assert_non_null(strstr(text, "\tunreadable\n"));
    text = read_status("summary");
    assert_non_null(strstr(text,
                           "backups:          0 complete, 1 incomplete, 1 with a sentinel that "
                           "cannot be read, as of "));
    assert_non_null(strstr(text,
                           "  " DONE "  its sentinel cannot be read; restore basebackups_005/" DONE
                           "_backup_stop_sentinel.json"));
    text = read_status("metrics");
    assert_non_null(strstr(text, "\nwalefs_backups_incomplete 1\n"));
    assert_non_null(strstr(text, "\nwalefs_backups_unreadable 1\n"));
    mem_delete(mem, "basebackups_005/" DONE "/tar_partitions/part_00000000.tar.lzo");
    assert_non_null(strstr(read_status("incomplete"), "\n" DONE "\t0\t0\t-\t-\t-\tunreadable\n"));
}

static void no_incomplete_backup_is_a_heading_only(void **state)
{
    (void)state;
    assert_string_equal(after_lines(read_status("incomplete"), 1),
                        "backup\tobjects\tbytes\tbegun\tage_s\tidle_s\tsentinel\n");
}

static void a_hung_store_does_not_hold_status_up(void **state)
{
    (void)state;
    put("basebackups_005/" DEAD "/tar_partitions/part_00000000.tar.lzo", "0123456789");
    assert_non_null(strstr(read_status("incomplete"), DEAD));
    mem_hang(mem, MEM_LIST);
    const char *text = read_status("incomplete");
    assert_non_null(strstr(text, " s ago: "));
    assert_non_null(strstr(text, DEAD));
    mem_heal(mem);
    assert_null(strstr(read_status("incomplete"), " s ago: "));
}

static void what_was_never_known_is_said_to_be_unknown(void **state)
{
    (void)state;
    mem_fail(mem, MEM_LIST, 1, 1000, ERR_UNAVAILABLE);
    assert_int_equal(strncmp(read_status("incomplete"), "# not known yet: ", 17), 0);
}

static void it_is_read_only(void **state)
{
    struct fs_entry e;
    struct handle *h;
    struct err err = ERR_INIT;
    (void)state;
    uint64_t dir = mem_fs_look_up(INODE_ROOT, "status");
    assert_false(fs_create(fs, dir, "x", O_WRONLY, 0600, 1, &e, &h, &endless, &err));
    assert_int_equal(err.code, ERR_DENIED);
    assert_false(fs_open(fs, mem_fs_look_up(dir, "incomplete"), O_WRONLY, 1, &h, &endless, &err));
    assert_int_equal(err.code, ERR_DENIED);
    assert_false(fs_lookup(fs, dir, "nothing", 1, &e, &endless, &err));
    assert_int_equal(err.code, ERR_ABSENT);
}

static bool note_name(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                      uint64_t next)
{
    char *names = arg;
    (void)type;
    (void)entry;
    (void)next;
    strcat(names, name);
    strcat(names, " ");
    return true;
}

static void listing(uint64_t id, char names[256])
{
    struct dir *dir;
    struct err err = ERR_INIT;
    names[0] = '\0';
    assert_true(fs_opendir(fs, id, &dir, &endless, &err));
    assert_true(fs_readdir(fs, dir, 0, false, note_name, names, &endless, &err));
    fs_releasedir(fs, dir);
}

static void it_is_listed_without_the_store(void **state)
{
    char names[256];
    (void)state;
    unsigned calls = mem_calls(mem, MEM_ANY);
    listing(INODE_ROOT, names);
    assert_non_null(strstr(names, "status "));
    listing(mem_fs_look_up(INODE_ROOT, "status"), names);
    assert_non_null(strstr(names, "incomplete "));
    assert_int_equal(mem_calls(mem, MEM_ANY), calls);
}

/* ---- WAL ---- */

#define MIB (1u << 20)
#define A "base_000000010000000000000011_00000040"
#define B "base_000000010000000000000014_00000040"

static void archive(uint32_t tli, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "%08X00000000%08X", (unsigned)tli, i);
        mem_archive_segment(mem, name, MIB, i);
    }
}

static void put_backup(const char *name, const char *stop)
{
    char key[256], text[256];
    (void)snprintf(key, sizeof(key), "basebackups_005/%s_backup_stop_sentinel.json", name);
    (void)snprintf(text, sizeof(text),
                   "{\"wal_segment_backup_stop\": \"%s\", "
                   "\"wal_segment_offset_backup_stop\": \"00000100\", "
                   "\"expanded_size_bytes\": 5000000}",
                   stop);
    put(key, text);
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("no \"%s\" in:\n%s", part, text);
}

static double metric(const char *text, const char *name)
{
    double value;
    if (!exposition_value(text, name, &value))
        fail_msg("no metric %s", name);
    return value;
}

static void wal_is_told_by_timeline(void **state)
{
    (void)state;
    mem_page_size(mem, 3); /* gaps across pages */
    archive(1, 0x10, 0x14);
    archive(1, 0x17, 0x18);
    archive(2, 0x1a, 0x1a);
    const char *text = read_status("wal");
    assert_int_equal(strncmp(text, "# as of 2", 9), 0);
    assert_has(text, "\ntimeline\tfirst\tlast\tsegments\tmissing\tbytes\tlast_archived\tgaps\n");
    assert_has(text, "\n1\t000000010000000000000010\t000000010000000000000018\t7\t2\t");
    assert_has(text, "\t000000010000000000000015-000000010000000000000016\n");
    assert_has(text, "\n2\t00000002000000000000001A\t00000002000000000000001A\t1\t0\t");
    assert_has(text, "\t-\n");
    archive(1, 0x15, 0x16); /* another host has done it; the next look sees it */
    assert_has(read_status("wal"), "\t9\t0\t");
}

static void wal_whose_segment_size_is_not_known_has_unknown_gaps(void **state)
{
    (void)state;
    put("wal_005/000000010000000000000001.lzo", "not to be decoded");
    const char *text = read_status("wal");
    assert_has(text, "# the segment size is not known");
    assert_has(text, "\t1\t?\t");
    assert_has(read_status("summary"), "gaps:             not known");
}

static void backups_are_told_in_wal_es_columns(void **state)
{
    (void)state;
    put_backup(A, "000000010000000000000012");
    assert_has(read_status("backups"),
               "\nname\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t"
               "wal_segment_offset_backup_start\twal_segment_backup_stop\t"
               "wal_segment_offset_backup_stop\n" A "\t");
    assert_has(read_status("backups"), "\t5000000\t000000010000000000000011\t00000040\t"
                                       "000000010000000000000012\t00000100\n");
}

#define DOUBT " (if it begins where its name says, which WAL-E got wrong for offline backups)\n"

static void the_summary_says_what_can_be_recovered(void **state)
{
    (void)state;
    static const char history[] = "1\t0/1800000\tno recovery target\n";
    put_backup(A, "000000010000000000000012");
    put_backup(B, "000000010000000000000014");
    archive(1, 0x10, 0x12); /* 13 is missing: A is cut off */
    archive(1, 0x14, 0x17);
    archive(2, 0x18, 0x20); /* the switch was at the start of 18 */
    mem_archive(mem, "00000002.history", history, sizeof(history) - 1);
    const char *text = read_status("summary");
    assert_has(text, "archive:          mem://");
    assert_has(text, "last segment:     000000020000000000000020, archived 2");
    assert_has(text, "gaps:             1 segments are missing, in 1 places");
    assert_has(text, "backups:          2 complete, 0 incomplete, as of 2");
    assert_has(text, A "  ");
    assert_has(text,
               "; 1 segments after it are missing, the first is 000000010000000000000013" DOUBT);
    assert_has(text, ", beginning with " B "\n");
    mem_delete(mem, "wal_005/000000010000000000000017.lzo"); /* right before the switch */
    text = read_status("summary");
    assert_has(text, "recovery window:  none");
    assert_has(text, "the first is 000000010000000000000017" DOUBT);
}

/* The sentinel is stored after the last segment, until there is a next one. */
static void the_recovery_window_does_not_end_before_it_begins(void **state)
{
    (void)state;
    put_backup(A, "000000010000000000000012");
    archive(1, 0x11, 0x12);
    mem_set_time(mem, "basebackups_005/" A "_backup_stop_sentinel.json", 1000000001);
    mem_set_time(mem, "wal_005/000000010000000000000012.lzo", 1000000000);
    assert_has(read_status("summary"), "recovery window:  from 2001-09-09T01:46:41Z to "
                                       "2001-09-09T01:46:41Z, beginning with " A "\n");
}

/* pg_resetwal --wal-segsize: what is newer counts, as in walefs check, and not what is listed
 * first. */
static void the_newest_segment_tells_the_size(void **state)
{
    (void)state;
    static const unsigned newer[] = {0xfd, 0xff};
    archive(1, 0x10, 0x12); /* of 1 MiB */
    for (unsigned i = 0; i < 2; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "0000000100000001%08X", newer[i]);
        mem_archive_segment(mem, name, 16 * MIB, i);
    }
    mem_archive_segment(mem, "000000010000000200000000", 16 * MIB, 3);
    for (unsigned i = 0; i < 2; i++) { /* and again, with what is known by then */
        const char *text = read_status("wal");
        /* behind 000000010000000000000012 the rest of its 4 GiB, all before FD, and FE */
        assert_has(text, "\n1\t000000010000000000000010\t000000010000000200000000\t6\t");
        assert_has(text, "\t000000010000000000000013-0000000100000001000000FC "
                         "0000000100000001000000FE\n");
    }
    /* a mount that has looked at an old one, by its size in a listing */
    assert_int_not_equal(
        mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), "000000010000000000000010"), 0);
    assert_has(read_status("wal"), " 0000000100000001000000FE\n");
}

/* Each backup is followed along the newest history that leads on from it. */
static void a_dead_end_has_a_way_of_its_own(void **state)
{
    (void)state;
    static const char dead[] = "1\t0/1800000\tx\n", live[] = "1\t0/1400000\tx\n";
    put_backup(A, "000000010000000000000012");
    put_backup(B, "000000010000000000000014"); /* behind the switch to 3 */
    archive(1, 0x10, 0x17);
    archive(2, 0x18, 0x19);
    archive(2, 0x1b, 0x1c);
    archive(3, 0x14, 0x16);
    mem_archive(mem, "00000002.history", dead, sizeof(dead) - 1);
    mem_archive(mem, "00000003.history", live, sizeof(live) - 1);
    const char *text = read_status("summary");
    assert_has(text, ", beginning with " A "\n");
    assert_has(text,
               "; 1 segments after it are missing, the first is 00000002000000000000001A" DOUBT);
    assert_true(metric(read_status("metrics"), "walefs_backups_with_gaps") == 1);
}

static void a_backup_without_its_own_wal_is_told(void **state)
{
    (void)state;
    put_backup(A, "000000010000000000000012");
    archive(1, 0x12, 0x13);
    assert_has(read_status("summary"), "; it cannot be restored, 1 segments that it needs are "
                                       "missing, the first is 000000010000000000000011" DOUBT);
    assert_has(read_status("summary"),
               "recovery window:  none: no backup has all WAL up to the last "
               "segment, if the names of WAL-E's are where they begin\n");
}

#define B_INDEX "basebackups_005/" B "/tar_partitions/walefs-index.lzo"
#define UNSURE " unless it has its WAL inside, which could not be looked up"

/* Written by walefs, from segment 14 to 15, with one partition. */
static void put_own_backup(void)
{
    put("basebackups_005/" B "/tar_partitions/part_00000000.tar.lzo", "0123");
    put("basebackups_005/" B "_backup_stop_sentinel.json",
        "{\"walefs\": {\"start_lsn\": \"0/1400028\", \"timeline\": 1, \"stop_lsn\": \"0/1500100\", "
        "\"stop_timeline\": 1, \"segment_size\": 1048576}}");
}

/* pg_basebackup -X stream. Its index is asked for when it is needed, and once. */
static void a_backup_with_its_own_wal_inside_is_whole(void **state)
{
    (void)state;
    archive(1, 0x10, 0x15);
    put_own_backup();
    index_env_put(mem_base(mem), pgp, B,
                  "pg_wal/000000010000000000000014 pg_wal/000000010000000000000015", MIB);
    (void)read_status("summary");
    unsigned gets = mem_calls(mem, MEM_GET);
    assert_null(strstr(read_status("summary"), "cannot be restored"));
    assert_int_equal(mem_calls(mem, MEM_GET), gets);
    mem_delete(mem, "wal_005/000000010000000000000014.lzo");
    mem_delete(mem, "wal_005/000000010000000000000015.lzo");
    for (unsigned i = 0; i < 3; i++) {
        const char *text = read_status("summary");
        assert_has(text, B "  ");
        assert_null(strstr(text, "cannot be restored"));
        assert_int_equal(mem_calls(mem, MEM_GET), gets + 1);
    }
    assert_true(metric(read_status("metrics"), "walefs_backups_with_gaps") == 0);
    /* another backup of that name */
    put_own_backup();
    index_env_put(mem_base(mem), pgp, B, "pg_wal/000000010000000000000014", MIB);
    assert_has(read_status("summary"), "; it cannot be restored, 1 segments that it needs are "
                                       "missing, the first is 000000010000000000000015\n");
    assert_true(metric(read_status("metrics"), "walefs_backups_with_gaps") == 1);
}

static void a_backup_that_cannot_be_looked_into_is_said_to_be_unsure(void **state)
{
    (void)state;
    archive(1, 0x10, 0x12);
    put_own_backup();
    assert_has(read_status("summary"), "; it cannot be restored" UNSURE ", 2 segments that");
    put_backup(A, "000000010000000000000013"); /* WAL-E's never have it inside */
    assert_has(read_status("summary"), "; it cannot be restored, 1 segments that");
    index_env_put(mem_base(mem), pgp, B,
                  "pg_wal/000000010000000000000014 pg_wal/000000010000000000000015", MIB);
    mem_hang_key(mem, MEM_GET, B_INDEX); /* who reads status/ waits no longer than usual */
    assert_has(read_status("summary"), " s ago: ");
    mem_heal(mem);
    const char *text = read_status("summary");
    assert_null(strstr(text, UNSURE));
    assert_has(text, "; it cannot be restored, 1 segments that");
}

static void the_summary_and_the_metrics_need_no_store(void **state)
{
    (void)state;
    archive(1, 1, 2);
    put_backup(A, "000000010000000000000012");
    mem_hang(mem, MEM_ANY);
    const char *text = read_status("summary");
    assert_has(text, "WAL:              not known yet: ");
    assert_has(text, "backups:          not known yet: ");
    assert_has(text, "recovery window:  not known");
    text = read_status("metrics");
    assert_null(exposition_check(text));
    assert_null(strstr(text, "walefs_wal_segments"));
    (void)read_status("config");
    (void)read_status("log");
    mem_heal(mem);
    assert_has(read_status("summary"), "2 segments on 1 timeline,");
    mem_hang(mem, MEM_ANY);
    assert_has(read_status("summary"), " s ago: ");
    mem_heal(mem);
}

static void the_metrics_tell_of_the_archive(void **state)
{
    (void)state;
    put_backup(A, "000000010000000000000012");
    put_backup(B, "000000010000000000000014");
    archive(1, 0x11, 0x12);
    archive(1, 0x14, 0x17);
    (void)read_status("summary"); /* waits; the metrics take what there is */
    const char *text = read_status("metrics");
    assert_null(exposition_check(text));
    assert_true(metric(text, "walefs_wal_segments") == 6);
    assert_true(metric(text, "walefs_wal_gaps") == 1);
    assert_true(metric(text, "walefs_wal_missing_segments") == 1);
    assert_true(metric(text, "walefs_backups") == 2);
    assert_true(metric(text, "walefs_backups_with_gaps") == 1);
    assert_true(metric(text, "walefs_staged_files") == 0);
    assert_true(metric(text, "walefs_wal_deletions_pending") == 0);
}

static void what_is_staged_is_the_backlog(void **state)
{
    struct fs_entry e;
    struct handle *h;
    struct err err = ERR_INIT;
    (void)state;
    uint64_t wal = mem_fs_look_up(INODE_ROOT, "wal");
    assert_has(read_status("summary"), "backlog:          no WAL is staged\n");
    assert_true(fs_create(fs, wal, ".temporary", O_WRONLY, 0600, 1, &e, &h, &endless, &err));
    assert_true(fs_write(fs, h, "12345", 5, 0, &endless, &err));
    assert_has(read_status("summary"), "backlog:          1 files in wal/, 5 bytes, staged");
    const char *text = read_status("metrics");
    assert_true(metric(text, "walefs_staged_files") == 1);
    assert_true(metric(text, "walefs_staged_bytes") == 5);
    assert_true(fs_flush(fs, h, 1, &endless, &err));
    fs_release(fs, h); /* a temporary stays */
    assert_has(read_status("summary"), "backlog:          1 files in wal/, 5 bytes, staged");
    assert_true(fs_mkdir(fs, mem_fs_look_up(INODE_ROOT, "basebackups"), "nightly", 0700, &e,
                         &endless, &err));
    assert_has(read_status("summary"), "; the base backup nightly is being written since 2");
}

static void the_log_and_its_errors_are_shown(void **state)
{
    (void)state;
    char last_hour[64];
    uint64_t before = log_ring_last_hour(LOG_CLASS_ERROR, time(NULL));
    log_error("something %s", "went wrong");
    assert_has(read_status("log"), "Z error: something went wrong\n");
    (void)snprintf(last_hour, sizeof(last_hour), "last hour:        %u errors, ",
                   (unsigned)before + 1);
    assert_has(read_status("summary"), last_hour);
}

static void the_configuration_is_shown_as_it_was_given(void **state)
{
    (void)state;
    assert_string_equal(read_status("config"), "option\tvalue\torigin\n");
    assert_has(read_status("summary"), "identity:         somebody\n");
    strcpy(who, "somebody else"); /* credentials were renewed */
    assert_has(read_status("summary"), "identity:         somebody else\n");
    assert_has(read_status("summary"), "encrypted to:     nobody: not encrypted\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(incomplete_backups_are_named_with_size_and_age, begin, end),
        cmocka_unit_test_setup_teardown(an_unreadable_sentinel_is_no_rest, begin, end),
        cmocka_unit_test_setup_teardown(no_incomplete_backup_is_a_heading_only, begin, end),
        cmocka_unit_test_setup_teardown(a_hung_store_does_not_hold_status_up, begin, end),
        cmocka_unit_test_setup_teardown(what_was_never_known_is_said_to_be_unknown, begin, end),
        cmocka_unit_test_setup_teardown(it_is_read_only, begin, end),
        cmocka_unit_test_setup_teardown(wal_is_told_by_timeline, begin, end),
        cmocka_unit_test_setup_teardown(wal_whose_segment_size_is_not_known_has_unknown_gaps, begin,
                                        end),
        cmocka_unit_test_setup_teardown(backups_are_told_in_wal_es_columns, begin, end),
        cmocka_unit_test_setup_teardown(the_summary_says_what_can_be_recovered, begin, end),
        cmocka_unit_test_setup_teardown(the_recovery_window_does_not_end_before_it_begins, begin,
                                        end),
        cmocka_unit_test_setup_teardown(the_newest_segment_tells_the_size, begin, end),
        cmocka_unit_test_setup_teardown(a_dead_end_has_a_way_of_its_own, begin, end),
        cmocka_unit_test_setup_teardown(a_backup_without_its_own_wal_is_told, begin, end),
        cmocka_unit_test_setup_teardown(a_backup_with_its_own_wal_inside_is_whole, begin, end),
        cmocka_unit_test_setup_teardown(a_backup_that_cannot_be_looked_into_is_said_to_be_unsure,
                                        begin, end),
        cmocka_unit_test_setup_teardown(the_summary_and_the_metrics_need_no_store, begin, end),
        cmocka_unit_test_setup_teardown(the_metrics_tell_of_the_archive, begin, end),
        cmocka_unit_test_setup_teardown(what_is_staged_is_the_backlog, begin, end),
        cmocka_unit_test_setup_teardown(the_log_and_its_errors_are_shown, begin, end),
        cmocka_unit_test_setup_teardown(the_configuration_is_shown_as_it_was_given, begin, end),
        cmocka_unit_test_setup_teardown(it_is_listed_without_the_store, begin, end),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
