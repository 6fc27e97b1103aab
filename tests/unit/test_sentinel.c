/* Names of backups, and sentinels both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/sentinel.h"

#define NAME "base_000000010000000000000040_00000040"
#define MIB (1u << 20)

static struct err err;

static void names_are_told_from_others(void **state)
{
    (void)state;
    static const char *const good[] = {NAME, "base_0000000A000000FF000000FF_16777215",
                                       "base_000000010000000000000040_0000000A"};
    static const char *const bad[] = {"",
                                      "base_",
                                      "base_000000010000000000000040",
                                      "base_000000010000000000000040_0000004",
                                      "base_000000010000000000000040_000000400",
                                      "base_00000001000000000000004g_00000040",
                                      "base_0000000a0000000000000040_00000040",
                                      "base-000000010000000000000040_00000040",
                                      "BASE_000000010000000000000040_00000040",
                                      "base_000000010000000000000040-00000040",
                                      NAME "/",
                                      NAME "_backup_stop_sentinel.json"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(backup_name_parse(good[i], 0, NULL));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (backup_name_parse(bad[i], 0, NULL))
            fail_msg("taken: %s", bad[i]);
    assert_true(backup_name_is_temporary("walefs-tmp-0123456789abcdef0123456789abcdef"));
    assert_false(backup_name_is_temporary("walefs-tmp-0123456789abcdef0123456789abcde"));
    assert_false(backup_name_is_temporary("walefs-tmp-0123456789abcdef0123456789abcdefa"));
    assert_false(backup_name_is_temporary("walefs-tmp-0123456789ABCDEF0123456789abcdef"));
}

static void names_and_positions_go_both_ways(void **state)
{
    (void)state;
    static const struct {
        uint32_t tli;
        uint64_t lsn;
        uint32_t size;
        const char *name;
    } cases[] = {
        {1, 0x40000028, 16 * MIB, "base_000000010000000000000040_00000040"},
        {1, 0x100000000, 16 * MIB, "base_000000010000000100000000_00000000"},
        {0xA, 0xffffff1234, 16 * MIB, "base_0000000A000000FF000000FF_16716340"},
        {2, 0x40000028, 1 * MIB, "base_000000020000000000000400_00000040"},
        {2, 0x140000028, 1024 * MIB, "base_000000020000000100000001_00000040"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[BACKUP_NAME_MAX];
        struct backup_position pos = {.tli = cases[i].tli, .lsn = cases[i].lsn}, back;
        assert_true(backup_name_format(&pos, cases[i].size, name));
        assert_string_equal(name, cases[i].name);
        assert_true(backup_name_parse(name, cases[i].size, &back));
        assert_int_equal(back.tli, pos.tli);
        assert_int_equal(back.lsn, pos.lsn);
    }
    char name[BACKUP_NAME_MAX];
    assert_false(backup_name_format(&(struct backup_position){0, 40}, 16 * MIB, name));
    assert_false(backup_name_format(&(struct backup_position){1, 40}, 12345, name));
    /* an offset of nine digits is none that WAL-E could read */
    assert_false(backup_name_format(&(struct backup_position){1, 100000000}, 1024 * MIB, name));
}

static struct backup_info parse(const char *json)
{
    struct backup_info info;
    if (!sentinel_parse(NAME, json, strlen(json), &info, &err))
        fail_msg("%s: %s", json, err.text);
    return info;
}

static void wal_e_s_is_read(void **state)
{
    (void)state;
    struct backup_info info =
        parse("{\"wal_segment_backup_stop\": \"000000010000000000000041\", "
              "\"wal_segment_offset_backup_stop\": \"00000296\", \"expanded_size_bytes\": 23694943,"
              " \"spec\": {\"base_prefix\": \"/var/lib/pg/\", \"tablespaces\": [\"16384\"],"
              " \"16384\": {\"loc\": \"/srv/ts1/\", \"link\": \"pg_tblspc/16384\"}}}");
    assert_string_equal(info.name, NAME);
    assert_string_equal(info.label, "");
    assert_false(info.by_walefs);
    assert_false(info.start_sure);
    assert_int_equal(info.start.tli, 1);
    assert_int_equal(info.start.lsn, 0x40000028);
    assert_int_equal(info.stop.tli, 1);
    assert_int_equal(info.stop.lsn, 0x41000000 + 296);
    assert_string_equal(info.stop_segment, "000000010000000000000041");
    assert_string_equal(info.stop_offset, "00000296");
    assert_int_equal(info.expanded_size, 23694943);
    assert_string_equal(info.base_prefix, "/var/lib/pg/");
    assert_int_equal(info.tablespace_count, 1);
    assert_string_equal(info.tablespaces[0].oid, "16384");
    assert_string_equal(info.tablespaces[0].location, "/srv/ts1/");
    backup_info_free(&info);
}

/* Whoever can write to the bucket can write anything here. */
static void nothing_in_it_is_trusted(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "{}",
        "{\"spec\": 7, \"walefs\": [], \"expanded_size_bytes\": {}}",
        "{\"spec\": {\"tablespaces\": \"16384\"}}",
        "{\"spec\": {\"tablespaces\": [7, null, \"\", \"../..\", \"1/2\", \"12345678901\"]}}",
        "{\"expanded_size_bytes\": -7}",
        "{\"wal_segment_backup_stop\": 7, \"wal_segment_offset_backup_stop\": \"x\"}",
        "{\"walefs\": {\"label\": \"a/b\"}}",
        "{\"walefs\": {\"label\": \"..\"}}",
        "{\"walefs\": {\"label\": \"LATEST\"}}",
        "{\"walefs\": {\"label\": \"base_x\"}}",
        "{\"walefs\": {\"label\": \"a\\nb\"}}",
        "{\"walefs\": {\"label\": 7, \"timeline\": -1, \"start_lsn\": \"x\"}}",
        "{\"walefs\": {\"timeline\": 4294967296, \"start_lsn\": \"0/0\"}}",
        "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"0/0x\"}}",
        "{\"walefs\": {\"timeline\": 1, \"start_lsn\": \"-1/0\"}}",
        "{\"walefs\": {\"segment_size\": 12345}}",
        "{\"walefs\": {\"partition_sha256\": \"abc\"}}",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct backup_info info = parse(odd[i]);
        if (info.label[0] != '\0' || info.tablespace_count != 0 || info.expanded_size != 0 ||
            info.stop.tli != 0 || info.start_sure || info.start.lsn != 0x40000028 ||
            info.segment_size != 0 || info.partition_count != 0)
            fail_msg("believed: %s", odd[i]);
        backup_info_free(&info);
    }
}

static void what_is_no_object_is_damage(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "x",
                                      "[]",   "7",
                                      "{",    "{\"a\": 1",
                                      "null", "{\"a\": 1, \"a\": 2}",
                                      "{}x",  "{\"a\": \"\xff\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct backup_info info;
        if (sentinel_parse(NAME, bad[i], strlen(bad[i]), &info, &err))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.text, NAME));
    }
}

static struct backup_info ours(void)
{
    static char *sums[] = {"aa", "bb"};
    struct backup_info info = {.name = NAME,
                               .label = "nightly \xc3\xa9 \"x\"",
                               .start = {3, 0x140000028},
                               .stop = {4, 0x141000100},
                               .start_sure = true,
                               .segment_size = 64 * MIB,
                               .system_id = UINT64_C(0xfedcba9876543210),
                               .version = "17",
                               .expanded_size = UINT64_C(5000000000000),
                               .base_prefix = "/data",
                               .stored_s = 86400,
                               .by_walefs = true,
                               .partition_sha256 = sums,
                               .partition_count = 2};
    assert_true(backup_info_set_tablespace(&info, "16384", "/old"));
    assert_true(backup_info_set_tablespace(&info, "16385", "/b"));
    assert_true(backup_info_set_tablespace(&info, "16384", "/a b"));
    return info;
}

static void free_ours(struct backup_info *info)
{
    for (size_t i = 0; i < info->tablespace_count; i++) {
        free(info->tablespaces[i].oid);
        free(info->tablespaces[i].location);
    }
    free(info->tablespaces);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct backup_info a = ours();
    char *json = sentinel_format(&a, &err);
    assert_non_null(json);
    struct backup_info b = parse(json);
    assert_string_equal(b.label, a.label);
    assert_int_equal(b.start.tli, 3);
    assert_int_equal(b.start.lsn, a.start.lsn);
    assert_true(b.start_sure && b.by_walefs);
    assert_int_equal(b.stop.tli, 4);
    assert_int_equal(b.stop.lsn, a.stop.lsn);
    assert_int_equal(b.segment_size, a.segment_size);
    assert_true(b.system_id == a.system_id);
    assert_string_equal(b.version, "17");
    assert_int_equal(b.expanded_size, a.expanded_size);
    assert_string_equal(b.base_prefix, "/data");
    assert_string_equal(b.stop_segment, "000000040000000100000010");
    assert_string_equal(b.stop_offset, "16777472");
    assert_int_equal(b.tablespace_count, 2);
    assert_string_equal(b.tablespaces[0].location, "/a b");
    assert_string_equal(b.tablespaces[1].oid, "16385");
    assert_int_equal(b.partition_count, 2);
    assert_string_equal(b.partition_sha256[1], "bb");
    backup_info_free(&b);
    free(json);
    free_ours(&a);
}

/* WAL-E takes these five from it and nothing else. */
static void wal_e_reads_what_is_written(void **state)
{
    (void)state;
    struct backup_info a = ours();
    char *json = sentinel_format(&a, &err);
    json_t *root = json_loads(json, 0, NULL), *spec = json_object_get(root, "spec");
    assert_true(json_is_string(json_object_get(root, "wal_segment_backup_stop")));
    assert_true(json_is_string(json_object_get(root, "wal_segment_offset_backup_stop")));
    assert_true(json_is_integer(json_object_get(root, "expanded_size_bytes")));
    assert_string_equal(json_string_value(json_object_get(spec, "base_prefix")), "/data");
    assert_int_equal(json_array_size(json_object_get(spec, "tablespaces")), 2);
    const json_t *t = json_object_get(spec, "16384");
    assert_string_equal(json_string_value(json_object_get(t, "loc")), "/a b");
    assert_string_equal(json_string_value(json_object_get(t, "link")), "pg_tblspc/16384");
    json_decref(root);
    free(json);
    free_ours(&a);
}

static void backup_json_says_what_is_known(void **state)
{
    (void)state;
    struct backup_info a = ours();
    char *text = backup_json_format(&a, 1, 4711, 12, &err);
    json_t *root = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "name")), NAME);
    assert_string_equal(json_string_value(json_object_get(root, "stored_at")),
                        "1970-01-02T00:00:00Z");
    assert_string_equal(json_string_value(json_object_get(root, "start_lsn")), "1/40000028");
    assert_string_equal(json_string_value(json_object_get(root, "start_wal_segment")),
                        "000000030000000100000010");
    assert_true(json_is_true(json_object_get(root, "encrypted")));
    assert_int_equal(json_integer_value(json_object_get(root, "file_count")), 12);
    assert_int_equal(text[strlen(text) - 1], '\n');
    json_decref(root);
    free(text);
    free_ours(&a);

    struct backup_info b = parse("{}");
    text = backup_json_format(&b, -1, -1, 0, &err);
    root = json_loads(text, 0, NULL);
    static const char *const unknown[] = {"label",       "stop_lsn",          "stop_timeline",
                                          "encrypted",   "stored_size_bytes", "file_count",
                                          "base_prefix", "system_identifier", "postgresql_version"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        if (!json_is_null(json_object_get(root, unknown[i])))
            fail_msg("%s is not null: %s", unknown[i], text);
    json_decref(root);
    free(text);
    backup_info_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_told_from_others),
        cmocka_unit_test(names_and_positions_go_both_ways),
        cmocka_unit_test(wal_e_s_is_read),
        cmocka_unit_test(nothing_in_it_is_trusted),
        cmocka_unit_test(what_is_no_object_is_damage),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(wal_e_reads_what_is_written),
        cmocka_unit_test(backup_json_says_what_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
