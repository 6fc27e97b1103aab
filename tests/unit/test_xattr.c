/* fs/xattr*.c over a store in memory, through fs/fs.h. */
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

#include "core/log.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "mem_fs_env.h"

#define SEGMENT "000000010000000000000001"
#define KEY "wal_005/" SEGMENT ".lzo"
#define BACKUP "base_000000010000000000000011_00000040"
#define MIB (1u << 20)

static const struct call endless = CALL_INIT;

static int begin(void **state)
{
    (void)state;
    mem_fs_begin((struct fs_options){
        .soft_timeout_ms = 2000, .write_timeout_ms = 2000, .cache_bytes = 8 * MIB});
    return 0;
}

static int end(void **state)
{
    (void)state;
    mem_fs_end();
    return 0;
}

/* NULL when there is no such attribute; in static memory. */
static const char *get(uint64_t id, const char *name)
{
    static char value[2048];
    struct buf out = BUF_INIT(65536);
    struct err err = ERR_INIT;
    char full[64];
    (void)snprintf(full, sizeof(full), "user.walefs.%s", name);
    bool ok = fs_getxattr(fs, id, full, &out, &endless, &err);
    if (!ok)
        assert_int_equal(err.code, ERR_NO_ATTRIBUTE);
    (void)snprintf(value, sizeof(value), "%s", buf_str(&out));
    buf_free(&out);
    return ok ? value : NULL;
}

static void assert_attribute(uint64_t id, const char *name, const char *wanted)
{
    const char *value = get(id, name);
    if (value == NULL || strcmp(value, wanted) != 0)
        fail_msg("%s: %s, wanted %s", name, value == NULL ? "(none)" : value, wanted);
}

/* How many names are listed; each can be got. */
static unsigned count(uint64_t id)
{
    struct buf names = BUF_INIT(65536);
    struct err err = ERR_INIT;
    unsigned n = 0;
    if (!fs_listxattr(fs, id, &names, &endless, &err))
        fail_msg("%s", err.text);
    for (size_t at = 0; at < names.len; at += strlen(names.data + at) + 1, n++) {
        assert_int_equal(strncmp(names.data + at, "user.walefs.", 12), 0);
        assert_non_null(get(id, names.data + at + 12));
    }
    buf_free(&names);
    return n;
}

static void an_archived_segment(void **state)
{
    (void)state;
    static const struct store_meta meta[] = {{"walefs-size", "1048576"},
                                             {"walefs-digest", "sha256:a:b"}};
    size_t n;
    char text[32];
    mem_archive_segment(mem, SEGMENT, MIB, 1);
    void *object = mem_copy(mem, KEY, &n);
    mem_set(mem, KEY, object, n, meta, 2);
    free(object);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), SEGMENT);
    (void)snprintf(text, sizeof(text), "%zu", n);
    unsigned calls = mem_calls(mem, MEM_ANY);
    assert_attribute(id, "key", KEY);
    assert_attribute(id, "stored_size", text);
    assert_attribute(id, "encrypted", "no");
    assert_attribute(id, "codec", "lzop");
    assert_attribute(id, "checksum", "sha256:a:b");
    assert_attribute(id, "size", "1048576");
    assert_non_null(get(id, "etag"));
    assert_null(get(id, "recipients"));
    assert_null(get(id, "nothing"));
    assert_in_range(count(id), 7, 8);
    assert_int_equal(mem_calls(mem, MEM_ANY), calls + 1); /* asked once for all */
}

static void an_encrypted_segment(void **state)
{
    (void)state;
    static const char message[] = "\x84\x0c\x03\x01\x23\x45\x67\x89\xab\xcd\xef\x01xx\xd2\xedxxxx";
    mem_set(mem, KEY, message, sizeof(message) - 1, NULL, 0);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), SEGMENT);
    assert_attribute(id, "encrypted", "yes");
    assert_attribute(id, "codec", "openpgp+lzop");
    assert_attribute(id, "recipients", "0123456789ABCDEF");
    assert_null(get(id, "checksum"));
}

/* What nobody has asked the store for must not wait for it: the kernel asks with every file. */
static void foreign_names_are_answered_without_the_store(void **state)
{
    (void)state;
    static const char *const names[] = {"security.capability", "system.posix_acl_access",
                                        "security.selinux", "trusted.x"};
    mem_archive_segment(mem, SEGMENT, MIB, 1);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), SEGMENT);
    struct buf out = BUF_INIT(100);
    struct err err = ERR_INIT;
    mem_hang(mem, MEM_ANY);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_false(fs_getxattr(fs, id, names[i], &out, &endless, &err));
        assert_int_equal(err.code, ERR_UNSUPPORTED);
    }
    assert_false(fs_getxattr(fs, id, "user.mime_type", &out, &endless, &err));
    assert_int_equal(err.code, ERR_NO_ATTRIBUTE);
    mem_heal(mem);
}

static void a_store_that_does_not_answer_is_an_error(void **state)
{
    (void)state;
    mem_archive_segment(mem, SEGMENT, MIB, 1);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), SEGMENT);
    struct buf out = BUF_INIT(100);
    struct err err = ERR_INIT;
    mem_fail(mem, MEM_GET, 1, 1000, ERR_UNAVAILABLE);
    assert_false(fs_getxattr(fs, id, "user.walefs.key", &out, &endless, &err)); /* soft */
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_false(fs_listxattr(fs, id, &out, &endless, &err));
    mem_heal(mem);
    assert_attribute(id, "key", KEY); /* a failure is not kept */
    buf_free(&out);
}

/* In an archive class: what a listing says. */
static void a_frozen_object(void **state)
{
    (void)state;
    mem_archive_segment(mem, SEGMENT, MIB, 1);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "wal"), SEGMENT);
    mem_fail(mem, MEM_GET, 1, 1000, ERR_FROZEN);
    assert_attribute(id, "key", KEY);
    assert_non_null(get(id, "stored_size"));
    assert_null(get(id, "encrypted"));
    mem_heal(mem);
}

static void what_is_only_staged_has_none(void **state)
{
    struct fs_entry e;
    struct handle *h;
    struct err err = ERR_INIT;
    (void)state;
    uint64_t wal = mem_fs_look_up(INODE_ROOT, "wal");
    assert_true(fs_create(fs, wal, ".temporary", O_WRONLY, 0600, 1, &e, &h, &endless, &err));
    assert_true(fs_write(fs, h, "12345", 5, 0, &endless, &err));
    assert_int_equal(count(e.id), 0);
    assert_null(get(e.id, "key"));
    fs_release(fs, h);
    assert_int_equal(count(wal), 0);
    assert_int_equal(count(INODE_ROOT), 0);
    assert_false(fs_listxattr(fs, 4711, NULL, &endless, &err));
    assert_int_equal(err.code, ERR_STALE);
}

static void backup_json_tells_of_the_sentinel(void **state)
{
    (void)state;
    static const char key[] = "basebackups_005/" BACKUP "_backup_stop_sentinel.json";
    mem_set(mem, key, "{}", 2, NULL, 0);
    uint64_t id = mem_fs_look_up(mem_fs_look_up(mem_fs_look_up(INODE_ROOT, "basebackups"), BACKUP),
                                 "backup.json");
    assert_attribute(id, "key", key);
    assert_attribute(id, "stored_size", "2");
    assert_attribute(id, "codec", "none");
    assert_attribute(id, "encrypted", "no");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_archived_segment, begin, end),
        cmocka_unit_test_setup_teardown(an_encrypted_segment, begin, end),
        cmocka_unit_test_setup_teardown(foreign_names_are_answered_without_the_store, begin, end),
        cmocka_unit_test_setup_teardown(a_store_that_does_not_answer_is_an_error, begin, end),
        cmocka_unit_test_setup_teardown(a_frozen_object, begin, end),
        cmocka_unit_test_setup_teardown(what_is_only_staged_has_none, begin, end),
        cmocka_unit_test_setup_teardown(backup_json_tells_of_the_sentinel, begin, end),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
