/* backup_label, tablespace_map, pg_control and backup_manifest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backup_facts.h"
#include "core/spool.h"

#define MIB (1u << 20)

static struct err err;

/* ---- backup_label ---- */

static bool label(const char *text, struct backup_position *start, uint32_t *size, char out[32])
{
    return backup_label_parse(text, strlen(text), start, size, out, 32, &err);
}

static void a_label_is_read(void **state)
{
    struct backup_position start;
    uint32_t size;
    char name[32];
    (void)state;
    assert_true(label("START WAL LOCATION: 1/4B000028 (file 00000002000000010000004B)\n"
                      "CHECKPOINT LOCATION: 1/4B000060\nBACKUP METHOD: streamed\n"
                      "BACKUP FROM: primary\nSTART TIME: 2026-11-22 10:00:00 UTC\n"
                      "LABEL: every night, and this is cut off\nSTART TIMELINE: 2\n",
                      &start, &size, name));
    assert_int_equal(start.tli, 2);
    assert_int_equal(start.lsn, 0x14B000028);
    assert_int_equal(size, 16 * MIB);
    assert_string_equal(name, "every night, and this is cut of");
    assert_true(label("START WAL LOCATION: 1/4B000028 (file 0000000200000001000004B0)\n", &start,
                      &size, name));
    assert_int_equal(size, 1 * MIB);
    assert_string_equal(name, "");
    assert_true(label("START WAL LOCATION: 1/40000028 (file 000000020000000100000001)\n", &start,
                      &size, NULL));
    assert_int_equal(size, 1024 * MIB);
    /* in the first segment of a log file any size fits */
    assert_true(
        label("START WAL LOCATION: 1/28 (file 000000020000000100000000)\n", &start, &size, name));
    assert_int_equal(size, 0);
}

static void what_is_no_label_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "\n\n",
        "LABEL: x\n",
        "START WAL LOCATION: 1/4B000028\n",
        "START WAL LOCATION: x/4B000028 (file 00000002000000010000004B)\n",
        "START WAL LOCATION: 1/4B000028 (file 000000020000)\n",
        "START WAL LOCATION: 1/4B000028 (file 00000000000000010000004B)\n",
        " START WAL LOCATION: 1/4B000028 (file 00000002000000010000004B)\n",
    };
    struct backup_position start;
    uint32_t size;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (label(bad[i], &start, &size, NULL))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.code, ERR_INVALID);
    }
}

/* ---- tablespace_map ---- */

static void a_map_is_read(void **state)
{
    static const char text[] = "16384 /srv/ts one\n16385 /a\\\\b\\\nc\\\r\n16386 /last";
    struct backup_info info = {.name = ""};
    (void)state;
    assert_true(tablespace_map_parse(text, strlen(text), &info, &err));
    assert_int_equal(info.tablespace_count, 3);
    assert_string_equal(info.tablespaces[0].oid, "16384");
    assert_string_equal(info.tablespaces[0].location, "/srv/ts one");
    assert_string_equal(info.tablespaces[1].location, "/a\\b\nc\r");
    assert_string_equal(info.tablespaces[2].location, "/last");
    assert_true(tablespace_map_parse("", 0, &info, &err));
    assert_int_equal(info.tablespace_count, 3);
    backup_info_free(&info);
}

static void what_is_no_map_is_refused(void **state)
{
    static const char *const bad[] = {"16384\n", "x /a\n", " /a\n", "16384 /a\n\n", "1x /a\n"};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct backup_info info = {.name = ""};
        if (tablespace_map_parse(bad[i], strlen(bad[i]), &info, &err))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(err.code, ERR_INVALID);
        backup_info_free(&info);
    }
}

/* ---- pg_control ---- */

static void put32(unsigned char *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void put64(unsigned char *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint32_t crc32c(const unsigned char *p, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

/* As PostgreSQL VERSION lays it out, as far as it matters. */
static void make_control(unsigned char p[PG_CONTROL_SIZE], uint32_t version, uint32_t segment_size)
{
    const size_t copy = version >= 1100 ? 40 : 48, number = version >= 1100 ? 208 : 216;
    const double float_format = 1234567.0;
    memset(p, 0, PG_CONTROL_SIZE);
    put64(p, UINT64_C(0xfedcba9876543210));
    put32(p + 8, version);
    put32(p + 16, 1);
    put64(p + 32, 0x14B000060);
    put64(p + copy, 0x14B000028);
    put32(p + copy + 8, 2);
    memcpy(p + number, &float_format, sizeof(float_format));
    put32(p + number + 8, 8192);
    put32(p + number + 12, 131072);
    put32(p + number + 16, 8192);
    put32(p + number + 20, segment_size);
    put32(p + number + 64, crc32c(p, number + 64));
}

static void control_files_are_read(void **state)
{
    static const uint32_t versions[] = {960, 1002, 1100, 1300, 1800};
    unsigned char p[PG_CONTROL_SIZE];
    struct control_facts c;
    (void)state;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        make_control(p, versions[i], 64 * MIB);
        assert_true(control_parse(p, sizeof(p), &c, &err));
        assert_true(c.system_id == UINT64_C(0xfedcba9876543210));
        assert_int_equal(c.version, versions[i]);
        assert_int_equal(c.redo.tli, 2);
        assert_int_equal(c.redo.lsn, 0x14B000028);
        assert_int_equal(c.checkpoint, 0x14B000060);
        assert_int_equal(c.state, 1);
        assert_int_equal(c.segment_size, 64 * MIB);
        assert_true(c.crc_ok);
        for (size_t at = 0; at < 240; at += 3) { /* any damage that still parses shows */
            p[at] ^= 0x10;
            if (control_parse(p, sizeof(p), &c, &err))
                assert_false(c.crc_ok);
            p[at] ^= 0x10;
        }
    }
}

static void what_is_no_control_file_is_refused(void **state)
{
    unsigned char p[PG_CONTROL_SIZE];
    struct control_facts c;
    (void)state;
    make_control(p, 1300, 16 * MIB);
    assert_false(control_parse(p, 100, &c, &err));
    assert_int_equal(err.code, ERR_INVALID);
    make_control(p, 0x14050000, 16 * MIB); /* 1300 of the other byte order */
    assert_false(control_parse(p, sizeof(p), &c, &err));
    assert_non_null(strstr(err.text, "byte order"));
    make_control(p, 1300, 12345);
    assert_false(control_parse(p, sizeof(p), &c, &err));
    assert_non_null(strstr(err.text, "segment size"));
    memset(p + 64, 0, sizeof(p) - 64);
    assert_false(control_parse(p, sizeof(p), &c, &err));
    memset(p, 0, sizeof(p));
    assert_false(control_parse(p, sizeof(p), &c, &err));
}

/* ---- backup_manifest ---- */

/* FILES entries, and the ranges; the right checksum unless WRONG. */
static int manifest(unsigned files, const char *ranges, bool wrong, uint64_t *size)
{
    char *text = malloc(200 + files * 120 + strlen(ranges)), *at = text;
    unsigned char sum[SHA256_DIGEST_LENGTH];
    at += sprintf(at, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [");
    for (unsigned i = 0; i < files; i++)
        at += sprintf(at, "%s\n{ \"Path\": \"base/5/%u\", \"Size\": 8192, \"Checksum\": \"77\" }",
                      i == 0 ? "" : ",", i);
    at += sprintf(at, "\n],\n\"WAL-Ranges\": %s,\n", ranges);
    SHA256((unsigned char *)text, (size_t)(at - text), sum);
    at += sprintf(at, "\"Manifest-Checksum\": \"");
    sum[0] ^= wrong;
    for (size_t i = 0; i < sizeof(sum); i++)
        at += sprintf(at, "%02x", sum[i]);
    at += sprintf(at, "\"}\n");
    *size = (uint64_t)(at - text);
    int fd = spool_open("/tmp", &err);
    assert_true(fd >= 0 && spool_write(fd, text, *size, 0, &err));
    free(text);
    return fd;
}

#define RANGE(tli, end) \
    "{ \"Timeline\": " tli ", \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"" end "\" }"

static void manifests_of_any_length_are_checked(void **state)
{
    static const unsigned files[] = {0, 3, 1000, 20000};
    struct manifest_range range;
    uint64_t size;
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        int fd = manifest(files[i], "[\n" RANGE("1", "0/2000100") "\n]", false, &size);
        if (!manifest_check(fd, size, &range, &err))
            fail_msg("%u files: %s", files[i], err.text);
        assert_int_equal(range.stop.tli, 1);
        assert_int_equal(range.stop.lsn, 0x2000100);
        assert_int_equal(range.start.tli, 1);
        assert_int_equal(range.start.lsn, 0x2000028);
        (void)close(fd);
    }
}

static void the_newest_timeline_is_where_it_stops(void **state)
{
    struct manifest_range range;
    uint64_t size;
    (void)state;
    int fd =
        manifest(1, "[" RANGE("3", "1/AB0000C8") ", " RANGE("2", "0/2000100") "]", false, &size);
    assert_true(manifest_check(fd, size, &range, &err));
    assert_int_equal(range.stop.tli, 3);
    assert_int_equal(range.stop.lsn, 0x1AB0000C8);
    assert_int_equal(range.start.tli, 2);
    (void)close(fd);
}

static bool count_file(void *arg, const struct manifest_file *f, struct err *e)
{
    unsigned *n = arg;
    char path[32];
    (void)e;
    (void)snprintf(path, sizeof(path), "base/5/%u", (*n)++);
    assert_string_equal(f->path, path);
    assert_int_equal(f->size, 8192);
    assert_false(f->has_crc);
    return true;
}

static int text_file(const char *text, uint64_t *size)
{
    *size = strlen(text);
    int fd = spool_open("/tmp", &err);
    assert_true(fd >= 0 && spool_write(fd, text, *size, 0, &err));
    return fd;
}

static bool take_file(void *arg, const struct manifest_file *f, struct err *e)
{
    char *all = arg;
    (void)e;
    (void)sprintf(all + strlen(all), "%s %llu %d %x;", f->path, (unsigned long long)f->size,
                  f->has_crc, f->crc);
    return true;
}

static void each_file_is_visited(void **state)
{
    static const unsigned files[] = {0, 3, 20000};
    char all[512] = "";
    uint64_t size;
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        unsigned n = 0;
        int fd = manifest(files[i], "[" RANGE("1", "0/2000100") "]", false, &size);
        if (!manifest_each(fd, size, count_file, &n, &err))
            fail_msg("%u files: %s", files[i], err.text);
        assert_int_equal(n, files[i]);
        (void)close(fd);
    }
    int fd = text_file("{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n"
                       "\"Files\": [\n{ \"Path\": \"a\\u00e9\\nb\", \"Size\": 5 },\n"
                       "{ \"Encoded-Path\": \"61e9\", \"Size\": 9, \"Last-Modified\": \"x\", "
                       "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"01020304\" },\n"
                       "{ \"Path\": \"c\", \"Size\": 0, \"Checksum-Algorithm\": \"SHA256\", "
                       "\"Checksum\": \"01\" }\n],\n",
                       &size);
    if (!manifest_each(fd, size, take_file, all, &err))
        fail_msg("%s", err.text);
    assert_string_equal(all, "a\xc3\xa9\nb 5 0 0;a\xe9 9 1 4030201;c 0 0 0;");
    (void)close(fd);
}

#define SHORT_SUM                                                          \
    "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", " \
    "\"Checksum\": \"1\" }\n]\n"

static void lines_that_are_not_understood_are_refused(void **state)
{
    static const char *const lines[] = {
        "{ \"Path\": \"a\" }\n]\n",
        "{ \"Size\": 1 }\n]\n",
        "{ \"Path\": \"\", \"Size\": 1 }\n]\n",
        "{ \"Path\": \"a\", \"Size\": -1 }\n]\n",
        "{ \"Path\": \"a\", \"Size\": \"1\" }\n]\n",
        "{ \"Encoded-Path\": \"6\", \"Size\": 1 }\n]\n",
        "{ \"Encoded-Path\": \"6100\", \"Size\": 1 }\n]\n",
        "{ \"Encoded-Path\": \"61-1\", \"Size\": 1 }\n]\n",
        SHORT_SUM,
        "nonsense\n]\n",
        "{ \"Path\": \"a\", \"Size\": 1 }\n",
        "{ \"Path\": \"a\", \"Size\": 1 }",
        "",
    };
    char text[512], all[512];
    uint64_t size;
    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        all[0] = '\0';
        (void)snprintf(text, sizeof(text), "\"Files\": [\n%s", lines[i]);
        int fd = text_file(text, &size);
        if (manifest_each(fd, size, take_file, all, &err))
            fail_msg("accepted: %s", lines[i]);
        assert_int_equal(err.code, ERR_INVALID);
        (void)close(fd);
    }
}

static void damage_is_noticed(void **state)
{
    struct manifest_range range;
    uint64_t size;
    (void)state;
    int fd = manifest(1000, "[" RANGE("1", "0/2000100") "]", true, &size);
    assert_false(manifest_check(fd, size, &range, &err));
    assert_non_null(strstr(err.text, "checksum"));
    (void)close(fd);
    fd = manifest(1000, "[" RANGE("1", "0/2000100") "]", false, &size);
    assert_true(spool_write(fd, "X", 1, 1000, &err));
    assert_false(manifest_check(fd, size, &range, &err));
    assert_false(manifest_check(fd, size / 2, &range, &err)); /* what is behind is not asked */
    (void)close(fd);
    fd = manifest(2, "[]", false, &size);
    assert_false(manifest_check(fd, size, &range, &err));
    assert_non_null(strstr(err.text, "WAL range"));
    (void)close(fd);
    fd = manifest(2, "[" RANGE("0", "0/1") ", " RANGE("1", "x") "]", false, &size);
    assert_false(manifest_check(fd, size, &range, &err));
    (void)close(fd);
    fd = spool_open("/tmp", &err);
    assert_false(manifest_check(fd, 0, &range, &err));
    assert_int_equal(err.code, ERR_INVALID);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_label_is_read),
        cmocka_unit_test(what_is_no_label_is_refused),
        cmocka_unit_test(a_map_is_read),
        cmocka_unit_test(what_is_no_map_is_refused),
        cmocka_unit_test(control_files_are_read),
        cmocka_unit_test(what_is_no_control_file_is_refused),
        cmocka_unit_test(manifests_of_any_length_are_checked),
        cmocka_unit_test(each_file_is_visited),
        cmocka_unit_test(lines_that_are_not_understood_are_refused),
        cmocka_unit_test(the_newest_timeline_is_where_it_stops),
        cmocka_unit_test(damage_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
