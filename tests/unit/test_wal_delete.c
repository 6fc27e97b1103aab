/* Promise 8 over a store in memory: what may go from wal/, what must stay, and what happens when
 * the store is slow about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "fault_store.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "fs/node.h"
#include "fs/wal_delete.h"
#include "mem_fs_env.h"

#define MIB (1u << 20)
#define PATIENCE_MS 20000

static struct fault_store *counted;
static uint64_t wal;
static struct err err;
static const struct call endless = CALL_INIT;

static uint64_t look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    return fs_lookup(fs, dir, name, 1, &e, &endless, &err) ? e.id : 0;
}

static void begin(bool allow_delete, bool read_only)
{
    mem_fs_store();
    counted = fault_store_new(mem_base(mem));
    mem_fs_mount((struct fs_options){.store = fault_base(counted),
                                     .hard = true,
                                     .write_timeout_ms = 2000,
                                     .allow_delete = allow_delete,
                                     .read_only = read_only,
                                     .cache_bytes = MIB});
    wal = mem_fs_look_up(INODE_ROOT, "wal");
}

static void end(void)
{
    mem_fs_end();
    fault_store_free(counted);
}

/* Segment N of timeline 1. */
static const char *segment(unsigned n)
{
    static char name[4][32];
    static unsigned turn;
    char *s = name[turn++ % 4];
    (void)snprintf(s, 32, "0000000100000000%08X", n);
    return s;
}

static void archive(const char *name)
{
    mem_archive_segment(mem, name, MIB, 1);
}

static bool stored(const char *name)
{
    char key[64];
    (void)snprintf(key, sizeof(key), "wal_005/%s.lzo", name);
    return mem_has(mem, key);
}

static void backup(const char *name, const char *json)
{
    char key[128];
    (void)snprintf(key, sizeof(key), "basebackups_005/%s_backup_stop_sentinel.json", name);
    mem_set(mem, key, json, strlen(json), NULL, 0);
}

static bool rm(const char *name)
{
    err = (struct err)ERR_INIT;
    return fs_unlink(fs, wal, name, &endless, &err);
}

static void must_rm(const char *name)
{
    if (!rm(name))
        fail_msg("%s: %s", name, err.text);
}

static void must_keep(const char *name, const char *why)
{
    if (rm(name))
        fail_msg("%s was removed", name);
    assert_int_equal(fs_errno(&err), EPERM);
    if (strstr(err.text, why) == NULL)
        fail_msg("%s: %s", name, err.text);
    assert_int_not_equal(look_up(wal, name), 0);
    assert_true(stored(name));
}

static void wait_gone(const char *name)
{
    for (unsigned i = 0; stored(name); i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
}

/* A sentinel of walefs: where it begins is sure. */
#define BEGINS(lsn) \
    "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"0/" lsn "\", \"segment_size\": 1048576}}"

static void nothing_goes_without_the_option(void **state)
{
    (void)state;
    begin(false, false);
    archive(segment(5));
    must_keep(segment(5), "allow_delete");
    end();
    begin(true, true);
    archive(segment(5));
    assert_false(rm(segment(5)));
    assert_true(stored(segment(5)));
    end();
}

static void what_a_backup_needs_stays(void **state)
{
    (void)state;
    begin(true, false);
    backup("base_000000010000000000000008_00000040", BEGINS("800028"));
    backup("base_000000010000000000000006_00000040", BEGINS("600028"));
    for (unsigned i = 4; i < 10; i++)
        archive(segment(i));
    (void)look_up(wal, segment(4)); /* which says how large segments are here */
    uint64_t id = look_up(wal, segment(4));
    struct fs_entry e;
    assert_true(fs_getattr(fs, id, NULL, &e, &endless, &err));
    for (unsigned i = 6; i < 10; i++)
        must_keep(segment(i), "needed by a base backup that begins at 0/600028");
    must_rm(segment(4));
    must_rm(segment(5));
    wait_gone(segment(4));
    wait_gone(segment(5));
    for (unsigned i = 6; i < 10; i++)
        assert_true(stored(segment(i)));
    end();
}

/* The second of 64 MiB each has the backup's start; were they of 16 MiB, it would end before. */
static void of_segments_of_an_unknown_size_more_stays(void **state)
{
    (void)state;
    begin(true, false);
    backup("base_000000010000000000000001_01000028",
           "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"0/5000028\"}}");
    archive(segment(1));
    must_keep(segment(1), "needed by a base backup that begins at 0/5000028");
    end();
}

/* As long as nobody can say what it needs, it may need everything. */
static void a_damaged_sentinel_keeps_all(void **state)
{
    (void)state;
    begin(true, false);
    backup("base_000000010000000000000006_00000040", "");
    archive(segment(4));
    must_keep(segment(4), "the sentinel of base_000000010000000000000006_00000040");
    end();
}

static void put_object(const char *key, int64_t when_s)
{
    mem_set(mem, key, "x", 1, NULL, 0);
    mem_set_time(mem, key, when_s);
}

#define DAY_S (24 * 3600)

static void what_another_host_is_writing_is_kept_for(void **state)
{
    (void)state;
    begin(true, false);
    put_object("basebackups_005/base_000000010000000000000004_00000040/tar_partitions/"
               "part_00000000.tar.lzo",
               time(NULL) - 2 * DAY_S); /* its writer is dead */
    put_object("basebackups_005/base_000000010000000000000006_00000040/tar_partitions/"
               "walefs-writing.lzo",
               time(NULL));
    for (unsigned i = 5; i < 8; i++)
        archive(segment(i));
    struct fs_entry e; /* which says how large segments are here */
    assert_true(fs_getattr(fs, look_up(wal, segment(5)), NULL, &e, &endless, &err));
    must_keep(segment(6), "needed by a base backup");
    must_keep(segment(7), "needed by a base backup");
    must_rm(segment(5));
    wait_gone(segment(5));
    end();
}

static void a_backup_whose_start_is_not_known_keeps_all(void **state)
{
    (void)state;
    begin(true, false);
    put_object("basebackups_005/walefs-tmp-0123456789abcdef0123456789abcdef/part_00000000.tar.lzo",
               time(NULL));
    archive(segment(5));
    assert_false(rm(segment(5)));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_true(stored(segment(5)));
    end();
}

static void nothing_goes_while_a_backup_is_written_here(void **state)
{
    (void)state;
    struct fs_entry e;
    begin(true, false);
    archive(segment(5));
    uint64_t backups = look_up(INODE_ROOT, "basebackups");
    assert_true(fs_mkdir(fs, backups, "nightly", 0700, &e, &endless, &err));
    assert_false(rm(segment(5)));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_non_null(strstr(err.text, "basebackups/nightly"));
    assert_true(fs_rmdir(fs, backups, "nightly", &endless, &err));
    must_rm(segment(5));
    wait_gone(segment(5));
    end();
}

static void history_files_stay(void **state)
{
    (void)state;
    begin(true, false);
    mem_archive(mem, "00000002.history", "1\t0/600000\tno reason\n", 21);
    must_keep("00000002.history", "history");
    end();
}

/* Which WAL the backups need cannot be said without the store. */
static void nothing_goes_while_the_backups_are_not_known(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    assert_int_not_equal(look_up(wal, segment(5)), 0);
    mem_fail(mem, MEM_LIST, 1, 1000, ERR_UNAVAILABLE);
    const struct call soon = {.deadline_ms = now_ms() + 300};
    assert_false(fs_unlink(fs, wal, segment(5), &soon, &err));
    mem_heal(mem);
    assert_true(stored(segment(5)));
    end();
}

static bool find_name(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                      uint64_t next)
{
    (void)type;
    (void)entry;
    (void)next;
    if (strncmp(name, "0000", 4) == 0)
        ++*(unsigned *)arg;
    return true;
}

/* How many segments ls shows. */
static unsigned listed(void)
{
    struct dir *dir;
    unsigned n = 0;
    assert_true(fs_opendir(fs, wal, &dir, &endless, &err));
    if (!fs_readdir(fs, dir, 0, false, find_name, &n, &endless, &err))
        fail_msg("%s", err.text);
    fs_releasedir(fs, dir);
    return n;
}

/* pg_archivecleanup looks again: what it has removed must be gone, whatever the store is doing. */
static void what_was_removed_does_not_come_back(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    archive(segment(6));
    mem_hang(mem, MEM_REMOVE);
    must_rm(segment(5));
    while (mem_hanging(mem) == 0)
        (void)usleep(1000);
    assert_true(stored(segment(5)));
    assert_int_equal(look_up(wal, segment(5)), 0);
    assert_int_equal(fs_errno(&err), ENOENT);
    assert_int_equal(listed(), 1);
    assert_false(rm(segment(5)));
    assert_int_equal(fs_errno(&err), ENOENT);
    mem_heal(mem);
    wait_gone(segment(5));
    assert_int_equal(listed(), 1);
    end();
}

/* A page of a listing can be older than the deletion that it is read after. */
static void what_the_store_said_before_is_not_believed(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    must_rm(segment(5));
    wait_gone(segment(5));
    archive(segment(5)); /* what such a page would say */
    assert_int_equal(listed(), 0);
    end();
}

static void a_failed_deletion_is_tried_again(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    mem_fail(mem, MEM_REMOVE, 1, 1, ERR_UNAVAILABLE);
    must_rm(segment(5));
    assert_int_equal(look_up(wal, segment(5)), 0);
    wait_gone(segment(5));
    end();
}

/* The deletion that was promised comes first; but a close must come to its end. */
static void archiving_anew_does_not_wait_for_ever(void **state)
{
    (void)state;
    static unsigned char content[MIB];
    struct fs_entry e;
    struct handle *h;
    begin(true, false);
    archive(segment(5));
    mem_hang(mem, MEM_REMOVE);
    must_rm(segment(5));
    test_segment(content, MIB, segment(5), 1);
    assert_true(
        fs_create(fs, wal, segment(5), O_WRONLY | O_CREAT, 0600, getpid(), &e, &h, &endless, &err));
    assert_true(fs_write(fs, h, content, MIB, 0, &endless, &err));
    assert_false(fs_flush(fs, h, getpid(), &endless, &err));
    assert_int_equal(fs_errno(&err), EIO);
    fs_release(fs, h);
    mem_heal(mem);
    wait_gone(segment(5));
    end();
}

static void many_are_one_request(void **state)
{
    (void)state;
    begin(true, false);
    for (unsigned i = 0; i < 200; i++)
        archive(segment(i));
    fault_at(counted, 0, FAULT_BEFORE); /* counts from here */
    for (unsigned i = 0; i < 200; i++)
        must_rm(segment(i));
    for (unsigned i = 0; i < 200; i++)
        wait_gone(segment(i));
    assert_in_range(fault_calls(counted), 1, 20); /* a listing, and batches */
    end();
}

/* ENOENT means that the store has said so, also of a name that was deleted a moment ago. */
static void another_host_archives_it_again(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    must_rm(segment(5));
    for (unsigned i = 0; wal_delete_pending(fs->wal_delete) > 0; i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
    archive(segment(5));
    assert_int_not_equal(look_up(wal, segment(5)), 0);
    must_rm(segment(5));
    wait_gone(segment(5));
    end();
}

/* status/ and walefs-prune see what the store has not deleted yet. */
static void failing_deletions_are_counted(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    archive(segment(6));
    assert_int_equal(wal_delete_pending(fs->wal_delete), 0);
    mem_fail(mem, MEM_REMOVE, 1, 1000, ERR_UNAVAILABLE);
    must_rm(segment(5));
    must_rm(segment(6));
    assert_int_equal(wal_delete_pending(fs->wal_delete), 2);
    assert_true(stored(segment(5)));
    mem_heal(mem);
    wait_gone(segment(5));
    wait_gone(segment(6));
    for (unsigned i = 0; wal_delete_pending(fs->wal_delete) > 0; i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
    end();
}

/* Unmounting finishes what was promised. */
static void stopping_deletes_first(void **state)
{
    (void)state;
    begin(true, false);
    archive(segment(5));
    must_rm(segment(5));
    mem_fs_stop();
    assert_false(stored(segment(5)));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_goes_without_the_option),
        cmocka_unit_test(what_a_backup_needs_stays),
        cmocka_unit_test(of_segments_of_an_unknown_size_more_stays),
        cmocka_unit_test(a_damaged_sentinel_keeps_all),
        cmocka_unit_test(what_another_host_is_writing_is_kept_for),
        cmocka_unit_test(a_backup_whose_start_is_not_known_keeps_all),
        cmocka_unit_test(nothing_goes_while_a_backup_is_written_here),
        cmocka_unit_test(history_files_stay),
        cmocka_unit_test(nothing_goes_while_the_backups_are_not_known),
        cmocka_unit_test(what_was_removed_does_not_come_back),
        cmocka_unit_test(what_the_store_said_before_is_not_believed),
        cmocka_unit_test(a_failed_deletion_is_tried_again),
        cmocka_unit_test(archiving_anew_does_not_wait_for_ever),
        cmocka_unit_test(many_are_one_request),
        cmocka_unit_test(failing_deletions_are_counted),
        cmocka_unit_test(another_host_archives_it_again),
        cmocka_unit_test(stopping_deletes_first),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
