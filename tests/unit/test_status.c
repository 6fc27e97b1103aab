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
#include <unistd.h>

#include "core/log.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "mem_store.h"

#define DEAD "base_000000010000000000000002_00000040"
#define TEMP "walefs-tmp-0123456789abcdef0123456789abcdef"
#define DONE "base_000000010000000000000003_00000040"

static struct mem_store *mem;
static struct openpgp *pgp;
static struct pool *pool;
static struct fs *fs;
static const struct call endless = CALL_INIT;

static void put(const char *key, const char *text)
{
    mem_set(mem, key, text, strlen(text), NULL, 0);
}

static int begin(void **state)
{
    struct err err = ERR_INIT;
    (void)state;
    mem = mem_store_new();
    pgp = test_plain_pgp();
    pool = pool_new(16, 50, &err);
    const struct fs_options options = {.store = mem_base(mem),
                                       .pgp = pgp,
                                       .pool = pool,
                                       .hard = true,
                                       .write_timeout_ms = 2000,
                                       .cache_dir = "/var/tmp",
                                       .cache_bytes = 1u << 20};
    fs = fs_new(&options, &err);
    return fs == NULL ? -1 : 0;
}

static int end(void **state)
{
    (void)state;
    fs_stop(fs);
    pool_free(pool);
    fs_free(fs);
    openpgp_free(pgp);
    mem_base(mem)->ops->free(mem_base(mem));
    return 0;
}

static uint64_t look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    struct err err = ERR_INIT;
    if (!fs_lookup(fs, dir, name, 1, &e, &endless, &err))
        fail_msg("%s: %s", name, err.text);
    return e.id;
}

static char *read_status(const char *name)
{
    static char text[4096];
    struct handle *h;
    struct err err = ERR_INIT;
    struct fs_bytes bytes;
    uint64_t id = look_up(look_up(INODE_ROOT, "status"), name);
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
    const char *text = read_status("incomplete");
    assert_int_equal(strncmp(text, "# as of 2", 9), 0);
    assert_null(strstr(text, DONE));
    assert_null(strstr(text, "walefs-tmp-x"));
    char name[2][64];
    unsigned objects[2], bytes[2];
    assert_int_equal(sscanf(after_lines(text, 2), "%63s %u %u %*s %*d %*d %63s %u %u", name[0],
                            &objects[0], &bytes[0], name[1], &objects[1], &bytes[1]),
                     6);
    assert_string_equal(name[0], DEAD);
    assert_int_equal(objects[0], 2);
    assert_int_equal(bytes[0], 15);
    assert_string_equal(name[1], TEMP);
    assert_int_equal(objects[1], 1);
    assert_int_equal(bytes[1], 4);
}

static void no_incomplete_backup_is_a_heading_only(void **state)
{
    (void)state;
    assert_string_equal(after_lines(read_status("incomplete"), 1),
                        "backup\tobjects\tbytes\tbegun\tage_s\tidle_s\n");
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
    uint64_t dir = look_up(INODE_ROOT, "status");
    assert_false(fs_create(fs, dir, "x", O_WRONLY, 0600, 1, &e, &h, &endless, &err));
    assert_int_equal(err.code, ERR_DENIED);
    assert_false(fs_open(fs, look_up(dir, "incomplete"), O_WRONLY, 1, &h, &endless, &err));
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
    listing(look_up(INODE_ROOT, "status"), names);
    assert_non_null(strstr(names, "incomplete "));
    assert_int_equal(mem_calls(mem, MEM_ANY), calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(incomplete_backups_are_named_with_size_and_age, begin, end),
        cmocka_unit_test_setup_teardown(no_incomplete_backup_is_a_heading_only, begin, end),
        cmocka_unit_test_setup_teardown(a_hung_store_does_not_hold_status_up, begin, end),
        cmocka_unit_test_setup_teardown(what_was_never_known_is_said_to_be_unknown, begin, end),
        cmocka_unit_test_setup_teardown(it_is_read_only, begin, end),
        cmocka_unit_test_setup_teardown(it_is_listed_without_the_store, begin, end),
    };
    log_setup(LOG_TARGET_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
