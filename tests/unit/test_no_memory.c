/* What reads, codes and keeps in memory, with each allocation failing once: it says so, leaks
 * nothing, and what it was given stays as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backup_facts.h"
#include "core/backup_index.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/lzop.h"
#include "core/pipe.h"
#include "core/pool.h"
#include "core/secret.h"
#include "core/spool.h"
#include "core/sum.h"
#include "core/wal_census.h"
#include "no_memory.h"
#include "store_env.h"

#define DATA_BYTES 600000u
static char *data;
static char coded[2 * DATA_BYTES]; /* the same as an lzop stream */
static size_t coded_bytes;
static struct lzop_map map; /* of it */

static int set_up(void **state)
{
    struct err err = ERR_INIT;
    (void)state;
    data = env_bytes(DATA_BYTES, 1);
    struct source *s = lzop_encoder(source_mem(data, DATA_BYTES, &err), &map, &err);
    coded_bytes = (size_t)source_read_full(s, coded, sizeof(coded), &err);
    source_close(s);
    return map.count == 3 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lzop_map_free(&map);
    free(data);
    return 0;
}

/* ---- streams ---- */

/* data -> lzop -> sum -> lzop's decoder -> a file without a name. */
static bool code_and_decode(struct err *err)
{
    struct lzop_map made = {0}, seen = {0};
    struct spool_result result = {.size = 0};
    struct sink *in = NULL;
    struct source *stream = NULL;
    char sum[SUM_HEX];
    int fd = spool_open("/tmp", err);
    struct source *plain = fd < 0 ? NULL : source_mem(data + 8, DATA_BYTES - 8, err);
    struct source *whole = plain == NULL ? NULL : source_prepend(data, 8, plain, err);
    if (whole != NULL)
        stream = lzop_encoder(whole, &made, err);
    if (stream != NULL)
        in = spool_sink(fd, DATA_BYTES, true, &result, err);
    if (in != NULL)
        in = lzop_decoder(in, &seen, err);
    if (in != NULL)
        in = sum_sink(in, sum, err);
    bool ok = in != NULL && stream_copy(stream, in, err) && in->finish(in, err);
    source_close(stream);
    sink_close(in);
    if (no_memory_over(ok)) {
        assert_int_equal(result.size, DATA_BYTES);
        /* without memory for its map a stream is still a stream, which cannot be entered midway */
        assert_true(!made.regular || made.count == 3);
        assert_true(!seen.regular || seen.count == 3);
    }
    lzop_map_free(&made);
    lzop_map_free(&seen);
    close(fd);
    return ok;
}

static bool blocks_from_the_middle(struct err *err)
{
    struct spool_result result = {.size = 0};
    size_t from = (size_t)map.offsets[1];
    int fd = spool_open("/tmp", err);
    struct sink *out = spool_sink(fd, DATA_BYTES, false, &result, err);
    if (out != NULL)
        out = lzop_block_decoder(out, &map, 1, 2, err);
    bool ok = out != NULL && out->write(out, coded + from, coded_bytes - from, err) &&
              out->finish(out, err);
    sink_close(out);
    if (no_memory_over(ok))
        assert_int_equal(result.size, DATA_BYTES - LZOP_BLOCK_SIZE);
    close(fd);
    return ok;
}

static bool a_pipe(struct err *err)
{
    struct pipe *p = pipe_new(100, err);
    if (p == NULL)
        return no_memory_over(false);
    struct sink *in = pipe_sink(p, &env_forever);
    struct source *out = pipe_source(p, &env_forever);
    char text[8];
    bool ok = in->write(in, "text", 4, err) && in->finish(in, err) &&
              source_read_full(out, text, sizeof(text), err) == 4;
    source_close(out);
    sink_close(in);
    return no_memory_over(ok);
}

static void count_job(void *arg)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

/* A job that was taken is done. */
static bool jobs(struct err *err)
{
    _Atomic unsigned taken = 0, done = 0;
    struct pool *pool = pool_new(3, 10, err);
    bool ok = pool != NULL;
    for (int i = 0; ok && i < 10; i++) {
        ok = pool_submit(pool, count_job, &done, err);
        taken += ok;
    }
    pool_free(pool);
    assert_int_equal(atomic_load(&taken), atomic_load(&done));
    return no_memory_over(ok);
}

static bool a_digest(struct err *err)
{
    char text[DIGEST_TEXT_MAX], again[DIGEST_TEXT_MAX];
    int fd = spool_open("/tmp", err);
    bool ok = spool_write(fd, data, 1000, 0, err) && digest_fd(fd, 1000, NULL, text, err) &&
              digest_fd(fd, 1000, text, again, err);
    close(fd);
    if (no_memory_over(ok))
        assert_string_equal(text, again);
    return ok;
}

/* Where there is no memory for a new one, none is left that is half of both. */
static bool a_secret(struct err *err)
{
    struct secret s = SECRET_INIT;
    bool ok = secret_set(&s, "first", 5, err) && secret_set(&s, "second", 6, err);
    if (no_memory_over(ok))
        assert_string_equal(s.value, "second");
    secret_free(&s);
    return ok;
}

/* ---- facts ---- */

static bool a_sentinel(struct err *err)
{
    static const char text[] =
        "{\"wal_segment_backup_stop\": \"000000010000000000000002\", "
        "\"wal_segment_offset_backup_stop\": \"00000312\", \"expanded_size_bytes\": \"7\", "
        "\"spec\": {\"base_prefix\": \"/pg\", \"tablespaces\": [\"16384\", \"16385\"], "
        "\"16384\": {\"loc\": \"/a/\", \"link\": \"pg_tblspc/16384\"}, "
        "\"16385\": {\"loc\": \"/b/\", \"link\": \"pg_tblspc/16385\"}}}";
    struct backup_info info = {.name = ""};
    bool ok = sentinel_parse("base_000000010000000000000002_00000040", text, sizeof(text) - 1,
                             &info, err);
    char *again = ok ? sentinel_format(&info, err) : NULL;
    char *json = again != NULL ? backup_json_format(&info, 1, 5, 6, err) : NULL;
    ok = no_memory_over(json != NULL);
    if (ok)
        assert_int_equal(info.tablespace_count, 2);
    free(json);
    free(again);
    backup_info_free(&info);
    return ok;
}

static bool a_tablespace_map(struct err *err)
{
    static const char text[] = "16384 /a\n16385 /b\n16384 /c\n";
    struct backup_info info = {.name = ""};
    bool ok = tablespace_map_parse(text, sizeof(text) - 1, &info, err);
    backup_info_free(&info);
    return no_memory_over(ok);
}

static bool ignore_file(void *arg, const struct manifest_file *f, struct err *err)
{
    (void)f;
    (void)err;
    ++*(unsigned *)arg;
    return true;
}

static bool a_manifest(struct err *err)
{
    static const char text[] = "{ \"Files\": [\n{ \"Path\": \"a\", \"Size\": 1 }\n],\n";
    static const char begin[] = "\"Files\": [\n{ \"Path\": \"a\", \"Size\": 1 }\n],\n";
    struct manifest_range range;
    struct err damaged = ERR_INIT;
    unsigned files = 0;
    int fd = spool_open("/tmp", err);
    bool ok = spool_write(fd, begin, sizeof(begin) - 1, 0, err) &&
              manifest_each(fd, sizeof(begin) - 1, ignore_file, &files, err) &&
              spool_write(fd, text, sizeof(text) - 1, 0, err);
    /* it has no checksum: for want of memory it is not called damaged */
    if (ok && !manifest_check(fd, sizeof(text) - 1, &range, &damaged) &&
        damaged.code != ERR_INVALID) {
        *err = damaged;
        ok = false;
    }
    close(fd);
    return no_memory_over(ok);
}

static bool fill_index(struct backup_index *index, struct err *err)
{
    for (unsigned n = 0; n < 2; n++) {
        struct index_partition p = {.number = n, .map = {.plain_size = 1 << 24}};
        if (!backup_index_add_partition(index, &p, err))
            return false;
        for (unsigned i = 0; i < 3000; i++) {
            char path[32];
            (void)snprintf(path, sizeof(path), "base/%u/%u", n, i);
            const struct member m = {
                .path = path, .link = "", .partition = n, .offset = 512u * i, .size = 1};
            if (!backup_index_add(index, &m, err))
                return false;
        }
    }
    return true;
}

static bool an_index(struct err *err)
{
    struct backup_index *index = backup_index_new(err), *again = NULL;
    bool ok = index != NULL && fill_index(index, err) && backup_index_seal(index, err);
    struct source *text = ok ? backup_index_write(index, err) : NULL;
    if (text != NULL)
        again = backup_index_read(text, err);
    ok = no_memory_over(again != NULL);
    if (ok)
        assert_int_equal(again->count, 6000);
    source_close(text);
    backup_index_free(again);
    backup_index_free(index);
    return ok;
}

static bool take_history(struct wal_census *c, struct err *err)
{
    static const char text[] = "1\t0/5000000\tno recovery target specified\n";
    struct wal_history h = {.tli = 0};
    if (!wal_history_parse("00000002.history", text, sizeof(text) - 1, &h, err))
        return false;
    bool ok = wal_census_take_history(c, &h, err);
    wal_history_free(&h);
    return ok;
}

static bool a_census(struct err *err)
{
    struct wal_census *c = wal_census_new(16u << 20, err);
    struct wal_way way = {.to_tli = 0};
    bool ok = c != NULL && take_history(c, err);
    for (unsigned i = 1; ok && i < 60; i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "%08X00000000%08X", i < 20 ? 1u : 2u, 2 * i);
        const struct wal_name name = wal_name_parse(text);
        ok = wal_census_add(c, &name, 1, 1, err);
    }
    ok = ok && wal_census_way(c, 1, 0x2000028, 0x3000000, &way, err);
    if (no_memory_over(ok))
        assert_true(c->missing > 30);
    wal_way_free(&way);
    wal_census_free(c);
    return ok;
}

#define EACH(work)                        \
    static void test_##work(void **state) \
    {                                     \
        (void)state;                      \
        no_memory_each(#work, work);      \
    }
EACH(code_and_decode)
EACH(blocks_from_the_middle)
EACH(a_pipe)
EACH(jobs)
EACH(a_digest)
EACH(a_secret)
EACH(a_sentinel)
EACH(a_tablespace_map)
EACH(a_manifest)
EACH(an_index)
EACH(a_census)

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_and_decode), cmocka_unit_test(test_blocks_from_the_middle),
        cmocka_unit_test(test_a_pipe),          cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_a_digest),        cmocka_unit_test(test_a_secret),
        cmocka_unit_test(test_a_sentinel),      cmocka_unit_test(test_a_tablespace_map),
        cmocka_unit_test(test_a_manifest),      cmocka_unit_test(test_an_index),
        cmocka_unit_test(test_a_census),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
