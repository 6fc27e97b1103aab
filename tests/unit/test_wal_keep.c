/* fs/wal_keep.c and fs/backup_start.c: from where on WAL must stay (promise 8), whatever names and
 * sentinels say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup_fs_env.h"
#include "core/log.h"
#include "fs/backup_start.h"
#include "fs/wal_keep.h"

/* As WAL-E can have named it: another position than the backup's own files tell. */
#define WRONG "base_000000010000000000000009_00000000"
#define OWN_LSN 0x2000028u

static bool keep_from(struct backup_position *from)
{
    bfs.err = (struct err)ERR_INIT;
    struct catalog *c = backup_set_catalog(bfs.fs->backup_set, 0, &env_forever, &bfs.err);
    assert_non_null(c);
    bool ok = wal_keep_from(bfs.fs, c, from, &env_forever, &bfs.err);
    catalog_unref(c);
    return ok;
}

static void must_keep_from(uint32_t tli, uint64_t lsn)
{
    struct backup_position from;
    assert_ok(keep_from(&from), &bfs.err);
    assert_int_equal(from.tli, tli);
    assert_int_equal(from.lsn, lsn);
}

static void must_not_know(enum err_code code, const char *text)
{
    struct backup_position from;
    assert_false(keep_from(&from));
    env_assert_error(&bfs.err, code, text);
}

/* A backup as by WAL-E: without index, sentinel or name that could be trusted. */
static void begin_wal_e(const char *words)
{
    bfs_begin(words);
    bfs_must_back_up("x");
    bfs_unmount(false);
    backup_env_run(&bfs.env,
                   "cd '%s'/" BACKUP_PREFIX " && mv " BACKUP_NAME " " WRONG " && rm " WRONG
                   "/tar_partitions/walefs-index.lzo " BACKUP_NAME BACKUP_SENTINEL_SUFFIX
                   " && echo {} >" WRONG BACKUP_SENTINEL_SUFFIX,
                   bfs.env.files.dir);
    bfs_mount(true, true);
}

static void without_backups_nothing_is_needed(void **state)
{
    (void)state;
    bfs_begin("label");
    must_keep_from(0, 0);
    bfs_end();
}

static void what_walefs_wrote_says_it_itself(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    must_keep_from(1, OWN_LSN);
    bfs_end();
}

static void the_label_is_believed_not_the_name(void **state)
{
    (void)state;
    begin_wal_e("label");
    must_keep_from(1, OWN_LSN);
    bfs_end();
}

static void without_a_label_the_control_file_tells(void **state)
{
    (void)state;
    begin_wal_e("");
    must_keep_from(1, OWN_LSN);
    bfs_end();
}

/* What cannot be read keeps everything: never "nothing is needed". */
static void what_cannot_be_read_is_not_known(void **state)
{
    static const char *const damage[] = {
        "rm part_*",
        "for p in part_*; do : >$p; done",
        ("for p in part_*; do lzop -dc $p >t && "
         "sed -i 's/START WAL LOCATION/START WAX LOCATION/' t && lzop -c <t >$p && rm t; done"),
    };
    struct backup_position start;
    (void)state;
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        begin_wal_e("label");
        backup_env_run(&bfs.env, "cd '%s'/" BACKUP_PREFIX WRONG "/tar_partitions && %s",
                       bfs.env.files.dir, damage[i]);
        struct backup_position from;
        assert_false(keep_from(&from));
        assert_non_null(strstr(bfs.err.text, "where " WRONG " begins is not known"));
        bfs_end();
    }
    bfs_begin("label");
    assert_false(backup_start(bfs.fs, WRONG, &start, &env_forever, &bfs.err));
    env_assert_error(&bfs.err, ERR_ABSENT, WRONG);
    bfs_end();
}

/* An object of an incomplete backup, AGE_S old. */
static void put_part(const char *name, int64_t age_s)
{
    backup_env_run(&bfs.env,
                   "d='%s'/" BACKUP_PREFIX "%s/tar_partitions && mkdir -p $d && "
                   "echo x >$d/part_00000000.tar.lzo && touch -d @%lld $d/part_00000000.tar.lzo",
                   bfs.env.files.dir, name, (long long)(time(NULL) - age_s));
}

/* Another host may be writing it: its name tells where it begins, until it has been idle for a
 * day. */
static void an_incomplete_one_counts_for_a_day(void **state)
{
    (void)state;
    bfs_begin("label");
    put_part("base_000000010000000000000001_00000040", 100000);
    must_keep_from(0, 0);
    put_part("base_000000010000000000000001_00000040", 80000);
    bfs.fs->segment_size = 16u << 20;
    must_keep_from(1, 0x1000028);
    bfs.fs->segment_size = 0; /* not known yet: the smallest, with which it begins earliest */
    must_keep_from(1, 0x100028);
    bfs_must_back_up("x");
    must_keep_from(1, 0x100028); /* the oldest of both */
    bfs_end();
}

/* A stream's partitions are stored before its position is known. */
static void one_without_a_position_keeps_all(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    put_part("walefs-tmp-0123456789abcdef0123456789abcdef", 10);
    must_not_know(ERR_BUSY, "being written");
    put_part("walefs-tmp-0123456789abcdef0123456789abcdef", 100000);
    must_keep_from(1, OWN_LSN);
    bfs_end();
}

static void a_damaged_sentinel_keeps_all(void **state)
{
    (void)state;
    bfs_begin("label");
    bfs_must_back_up("x");
    put_part(WRONG, 100000); /* even if nobody writes it any more */
    backup_env_run(&bfs.env, "echo '{' >'%s'/" BACKUP_PREFIX WRONG BACKUP_SENTINEL_SUFFIX,
                   bfs.env.files.dir);
    must_not_know(ERR_DENIED, WRONG);
    bfs_end();
}

static void one_that_is_written_here_is_named(void **state)
{
    char label[INODE_NAME_MAX + 1] = "";
    (void)state;
    bfs_begin("label");
    assert_false(wal_keep_writing(bfs.fs, label));
    uint64_t top = bfs_make_dir(bfs.top, "night.partial");
    assert_true(wal_keep_writing(bfs.fs, label));
    assert_string_equal(label, "night");
    struct fs_entry e; /* what is refused fails it, and a failed one needs nothing */
    assert_false(
        fs_symlink(bfs.fs, bfs_make_dir(top, "pg_tblspc"), "1", "/x", &e, &env_forever, &bfs.err));
    assert_false(wal_keep_writing(bfs.fs, label));
    bfs_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_backups_nothing_is_needed),
        cmocka_unit_test(what_walefs_wrote_says_it_itself),
        cmocka_unit_test(the_label_is_believed_not_the_name),
        cmocka_unit_test(without_a_label_the_control_file_tells),
        cmocka_unit_test(what_cannot_be_read_is_not_known),
        cmocka_unit_test(an_incomplete_one_counts_for_a_day),
        cmocka_unit_test(one_without_a_position_keeps_all),
        cmocka_unit_test(a_damaged_sentinel_keeps_all),
        cmocka_unit_test(one_that_is_written_here_is_named),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
