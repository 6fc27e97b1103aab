/* fs/backups_dir.c over a store in memory: which backups are shown, and what the links lead to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "mem_fs_env.h"

#define PATIENCE_MS 20000
#define OLD "base_000000010000000000000002_00000040"
#define NEW "base_000000010000000000000005_00000040"
#define DEAD "base_000000010000000000000007_00000040"
#define EVEN_NEWER "base_000000010000000000000008_00000040"
#define SENTINEL "_backup_stop_sentinel.json"

static uint64_t top;
static struct err err;
static const struct call endless = CALL_INIT;

static int look(const char *name, struct fs_entry *e)
{
    err = (struct err)ERR_INIT;
    return fs_lookup(fs, top, name, 1, e, &endless, &err) ? 0 : fs_errno(&err);
}

static int begin_with(struct fs_options options)
{
    options.write_timeout_ms = 60000;
    options.partition_bytes = 5u << 20;
    options.cache_bytes = 1u << 20;
    mem_fs_begin(options);
    top = mem_fs_look_up(INODE_ROOT, "basebackups");
    return 0;
}

static int begin(void **state)
{
    (void)state;
    return begin_with((struct fs_options){.hard = true, .allow_delete = true});
}

static int begin_soft(void **state)
{
    (void)state;
    return begin_with((struct fs_options){.soft_timeout_ms = 100});
}

static int begin_read_only(void **state)
{
    (void)state;
    return begin_with((struct fs_options){.hard = true, .allow_delete = true, .read_only = true});
}

static int end(void **state)
{
    (void)state;
    mem_fs_end();
    return 0;
}

static void put(const char *key, const char *text)
{
    mem_set(mem, key, text, strlen(text), NULL, 0);
}

static void put_partition(const char *name)
{
    char key[256];
    (void)snprintf(key, sizeof(key), "basebackups_005/%s/tar_partitions/part_00000000.tar.lzo",
                   name);
    put(key, "x");
}

/* Complete at WHEN_S; LABEL may be NULL. */
static void put_backup(const char *name, const char *label, int64_t when_s)
{
    char key[256], text[512] = "{}";
    put_partition(name);
    (void)snprintf(key, sizeof(key), "basebackups_005/%s" SENTINEL, name);
    if (label != NULL)
        (void)snprintf(text, sizeof(text), "{\"walefs\": {\"label\": \"%s\"}}", label);
    put(key, text);
    mem_set_time(mem, key, when_s);
}

static bool note_name(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                      uint64_t next)
{
    char *names = arg;
    size_t n = strlen(names);
    (void)entry;
    (void)next;
    (void)snprintf(names + n, 512 - n, "%s%s ", name, type == S_IFLNK ? "@" : "/");
    return true;
}

static void must_list(const char *wanted)
{
    char names[512] = "";
    struct dir *dir;
    assert_true(fs_opendir(fs, top, &dir, &endless, &err));
    if (!fs_readdir(fs, dir, 2, false, note_name, names, &endless, &err))
        fail_msg("%s", err.text);
    fs_releasedir(fs, dir);
    assert_string_equal(names, wanted);
}

static void must_link(const char *name, const char *wanted)
{
    struct fs_entry e;
    char target[256];
    if (look(name, &e) != 0 || !fs_readlink(fs, e.id, target, sizeof(target), &endless, &err))
        fail_msg("%s: %s", name, err.text);
    assert_true(S_ISLNK(e.attr.st_mode));
    assert_int_equal(e.attr.st_size, strlen(wanted));
    assert_string_equal(target, wanted);
}

static void an_empty_archive_has_nothing(void **state)
{
    struct fs_entry e;
    (void)state;
    must_list("");
    assert_int_equal(look("LATEST", &e), ENOENT);
    assert_int_equal(look(OLD, &e), ENOENT);
}

static void latest_is_the_newest_complete_one(void **state)
{
    struct fs_entry e;
    (void)state;
    put_backup(OLD, NULL, 1000);
    put_backup(NEW, NULL, 2000);
    put_partition(DEAD); /* newer, and incomplete */
    must_list("LATEST@ " OLD "/ " NEW "/ ");
    must_link("LATEST", NEW);
    assert_int_equal(look(OLD, &e), 0);
    assert_true(S_ISDIR(e.attr.st_mode));
    assert_int_equal(e.attr.st_mtim.tv_sec, 1000);
}

/* Not listed, so that nobody restores it; but rmdir finds it. */
static void an_incomplete_one_is_hidden_and_empty(void **state)
{
    struct fs_entry e;
    char names[512] = "";
    struct dir *dir;
    (void)state;
    put_partition(DEAD);
    must_list("");
    assert_int_equal(look("LATEST", &e), ENOENT);
    assert_int_equal(look(DEAD, &e), 0);
    assert_int_equal(e.attr.st_mode, S_IFDIR | 0500);
    assert_true(fs_opendir(fs, e.id, &dir, &endless, &err));
    assert_true(fs_readdir(fs, dir, 2, false, note_name, names, &endless, &err));
    fs_releasedir(fs, dir);
    assert_string_equal(names, "");
    assert_true(fs_rmdir(fs, top, DEAD, &endless, &err));
    assert_int_equal(mem_count(mem), 0);
}

/* It becomes complete while its name is known as an incomplete one's, and the other way round. */
static void a_name_changes_with_what_it_stands_for(void **state)
{
    struct fs_entry before, after;
    (void)state;
    put_partition(DEAD);
    assert_int_equal(look(DEAD, &before), 0);
    put_backup(DEAD, NULL, 3000);
    for (unsigned i = 0; look("LATEST", &after) != 0; i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
    assert_int_equal(look(DEAD, &after), 0);
    assert_int_not_equal(after.id, before.id);
    assert_true(fs_lookup(fs, after.id, "backup.json", 1, &after, &endless, &err));
    mem_delete(mem, "basebackups_005/" DEAD SENTINEL); /* by another host */
    for (unsigned i = 0; look("LATEST", &after) == 0; i++) {
        assert_true(i < PATIENCE_MS);
        (void)usleep(1000);
    }
    assert_int_equal(fs_errno(&err), ENOENT);
    assert_int_equal(look(DEAD, &after), 0);
    assert_false(fs_lookup(fs, after.id, "backup.json", 1, &after, &endless, &err));
}

static void a_label_leads_to_the_newest_of_that_label(void **state)
{
    struct fs_entry e;
    (void)state;
    put_backup(OLD, "night", 1000);
    put_backup(NEW, "night", 2000);
    put_backup(EVEN_NEWER, "noon", 1500); /* by its position, whatever the clock said */
    must_link("night", NEW);
    must_link("noon", EVEN_NEWER);
    must_link("LATEST", EVEN_NEWER);
    must_list("LATEST@ " OLD "/ " NEW "/ night@ " EVEN_NEWER "/ noon@ ");
    assert_true(fs_rmdir(fs, top, NEW, &endless, &err));
    must_link("night", OLD); /* at once: it was deleted here */
    assert_int_equal(look(NEW, &e), ENOENT);
}

/* A sentinel is data: its label names nothing outside, and hides nothing. */
static void a_label_that_is_no_name_is_none(void **state)
{
    static const char *const labels[] = {"../x", "a/b", "..", ".", "LATEST", NEW, "base_x"};
    struct fs_entry e;
    (void)state;
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        char wanted[256];
        put_backup(OLD, labels[i], 1000 + (int64_t)i);
        (void)snprintf(wanted, sizeof(wanted), "LATEST@ %s/ ", OLD);
        must_list(wanted);
        must_link("LATEST", OLD);
        assert_int_not_equal(look(NEW, &e), 0);
    }
}

/* ---- promise 4 ---- */

static void no_answer_is_no_absence(void **state)
{
    static const enum err_code codes[] = {ERR_UNAVAILABLE, ERR_THROTTLED, ERR_FORBIDDEN,
                                          ERR_NO_BUCKET, ERR_TIMEOUT};
    struct fs_entry e;
    struct dir *dir;
    char names[512] = "";
    (void)state;
    put_backup(OLD, "night", 1000);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        mem_fail(mem, MEM_ANY, 1, 100000, codes[i]);
        assert_int_equal(look(OLD, &e), EIO);
        assert_int_equal(look("LATEST", &e), EIO);
        assert_true(fs_opendir(fs, top, &dir, &endless, &err));
        assert_false(fs_readdir(fs, dir, 2, false, note_name, names, &endless, &err));
        assert_int_equal(fs_errno(&err), EIO);
        fs_releasedir(fs, dir);
    }
    mem_heal(mem);
    must_link("night", OLD);
}

struct asked {
    const char *name;
    struct cancel cancel;
    int result;
};

static void *ask(void *arg)
{
    struct asked *a = arg;
    struct fs_entry e;
    struct err why = ERR_INIT;
    const struct call call = {.cancel = &a->cancel, .deadline_ms = DEADLINE_NONE};
    a->result = fs_lookup(fs, top, a->name, 1, &e, &call, &why) ? 0 : fs_errno(&why);
    return NULL;
}

/* Hard: waits, until it is interrupted or answered. */
static void a_lookup_waits_for_a_hung_store(void **state)
{
    static const char *const names[] = {OLD, "LATEST", "night"};
    (void)state;
    put_backup(OLD, "night", 1000);
    for (unsigned i = 0; i < 6; i++) {
        struct asked a = {.name = names[i / 2], .result = -1};
        pthread_t thread;
        cancel_init(&a.cancel);
        backup_set_changed(fs->backup_set); /* what is known is too old */
        mem_hang(mem, MEM_LIST);
        assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
        for (unsigned k = 0; mem_hanging(mem) == 0; k++) {
            assert_true(k < PATIENCE_MS);
            (void)usleep(1000);
        }
        if (i % 2 == 0)
            cancel_fire(&a.cancel);
        else
            mem_heal(mem);
        assert_int_equal(pthread_join(thread, NULL), 0);
        mem_heal(mem);
        assert_int_equal(a.result, i % 2 == 0 ? EINTR : 0);
        cancel_destroy(&a.cancel);
    }
}

static void a_read_only_mount_makes_and_deletes_nothing(void **state)
{
    struct fs_entry e;
    (void)state;
    put_backup(OLD, NULL, 1000);
    put_partition(DEAD);
    assert_false(fs_rmdir(fs, top, OLD, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_false(fs_rmdir(fs, top, DEAD, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_false(fs_mkdir(fs, top, "x", 0700, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_int_equal(mem_count(mem), 3);
}

static void a_link_cannot_be_deleted(void **state)
{
    (void)state;
    put_backup(OLD, "night", 1000);
    assert_false(fs_rmdir(fs, top, "LATEST", &endless, &err));
    assert_false(fs_rmdir(fs, top, "night", &endless, &err));
    assert_false(fs_unlink(fs, top, "LATEST", &endless, &err));
    assert_int_equal(mem_count(mem), 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_empty_archive_has_nothing),
        T(latest_is_the_newest_complete_one),
        T(an_incomplete_one_is_hidden_and_empty),
        T(a_name_changes_with_what_it_stands_for),
        T(a_label_leads_to_the_newest_of_that_label),
        T(a_label_that_is_no_name_is_none),
        cmocka_unit_test_setup_teardown(no_answer_is_no_absence, begin_soft, end),
        T(a_lookup_waits_for_a_hung_store),
        cmocka_unit_test_setup_teardown(a_read_only_mount_makes_and_deletes_nothing,
                                        begin_read_only, end),
        T(a_link_cannot_be_deleted),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
