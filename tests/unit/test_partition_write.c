/* core/partition_write.c: a tar stream that everybody reads, whose offsets are right, and of which
 * nothing is stored unless it is whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/partition_write.h"
#include "core/tar_read.h"
#include "fault_store.h"
#include "gpg_home.h"
#include "store_env.h"

#define KEY "basebackups_005/base_1/tar_partitions/part_00000000.tar.lzo"

static struct err err;

struct env {
    struct store_env files;
    struct fault_store *faults;
    struct partition_write_options opt;
};

static int set_up(void **state)
{
    struct env *e = calloc(1, sizeof(*e));
    const struct openpgp_options none = {.stall_timeout_ms = 60000, .max_processes = 2};
    store_env_begin(&e->files, STORE_DIRECTORY);
    e->faults = fault_store_new(e->files.store);
    e->opt = (struct partition_write_options){.store = fault_base(e->faults),
                                              .pgp = openpgp_new(&none, &err),
                                              .pool = pool_new(8, 50, &err),
                                              .key = KEY,
                                              .stall_ms = 20000,
                                              .call = &env_forever};
    assert_true(e->opt.pgp != NULL && e->opt.pool != NULL);
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    struct env *e = *state;
    pool_free(e->opt.pool);
    assert_int_equal(fault_uploads_open(e->faults), 0);
    openpgp_free(e->opt.pgp);
    fault_store_free(e->faults);
    store_env_end(&e->files);
    free(e);
    return 0;
}

static struct partition_write *make(const struct env *e)
{
    struct partition_write *w = partition_write_new(&e->opt, &err);
    assert_ok(w != NULL, &err);
    return w;
}

static bool put_file(struct partition_write *w, const char *path, const char *data, size_t n,
                     uint64_t *offset)
{
    const struct member m = {.path = path, .link = "", .size = n, .mode = 0600, .mtime_s = 1};
    struct source *source = source_mem(data, n, &err);
    assert_non_null(source);
    bool ok = partition_write_member(w, &m, source, offset, &err);
    source_close(source);
    return ok;
}

static void finish(struct partition_write *w, struct partition_written *out)
{
    assert_ok(partition_write_end(w, &err), &err);
    assert_ok(partition_write_wait(w, out, &err), &err);
    partition_write_free(w);
}

/* The plain tar stream that is stored. */
static struct buf stored(const struct env *e)
{
    struct test_sink out;
    struct store_info info;
    struct store *s = e->files.store;
    test_sink_init(&out);
    struct source *body = s->ops->get(s, KEY, 0, UINT64_MAX, &info, &env_forever, &err);
    assert_ok(body != NULL, &err);
    assert_ok(
        codec_decode(e->opt.pgp, body, &out.base, OPENPGP_FOREGROUND, NULL, &env_forever, &err),
        &err);
    source_close(body);
    return out.got;
}

/* ---- what is written ---- */

static void what_is_told_of_it_is_true(void **state)
{
    struct env *e = *state;
    static const size_t sizes[] = {0, 1, 511, 512, 513, 300000};
    struct partition_written out;
    struct store_info info;
    uint64_t offsets[6];
    unsigned char hash[32];
    char *data = env_bytes(300000, 3), name[16], hex[65];
    struct partition_write *w = make(e);
    for (size_t i = 0; i < 6; i++) {
        (void)snprintf(name, sizeof(name), "base/1/%zu", i);
        assert_ok(put_file(w, name, data + i, sizes[i] == 300000 ? 299995 : sizes[i], &offsets[i]),
                  &err);
    }
    finish(w, &out);
    struct buf tar = stored(e);
    for (size_t i = 0; i < 6; i++) {
        size_t n = sizes[i] == 300000 ? 299995 : sizes[i];
        assert_true(offsets[i] % 512 == 0 && offsets[i] + n <= tar.len);
        assert_memory_equal(tar.data + offsets[i], data + i, n);
    }
    SHA256((unsigned char *)tar.data, tar.len, hash);
    for (size_t i = 0; i < sizeof(hash); i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    assert_string_equal(out.sha256, hex);
    assert_ok(e->files.store->ops->head(e->files.store, KEY, &info, &env_forever, &err), &err);
    assert_int_equal(out.info.size, info.size);
    assert_string_equal(out.info.etag, info.etag);
    assert_false(out.facts.encrypted);
    assert_int_equal(out.facts.map.plain_size, tar.len);
    lzop_map_free(&out.facts.map);
    buf_free(&tar);
    free(data);
}

/* Names and numbers that a plain tar header has no room for. */
static void facts_that_fit_no_header_are_kept(void **state)
{
    struct env *e = *state;
    char long_name[700] = "base/", latin1[] = "caf\xe9", link[300];
    memset(long_name + 5, 'n', 200);
    (void)snprintf(long_name + 205, sizeof(long_name) - 205, "/%0200d/%0200d", 1, 2);
    memset(link, 'l', sizeof(link) - 1);
    link[sizeof(link) - 1] = '\0';
    const struct member wanted[] = {
        {.path = "", .link = "", .type = MEMBER_DIR, .mode = 0700, .mtime_s = 1},
        {.path = long_name,
         .link = "",
         .mode = 0600,
         .uid = 4000000000u,
         .gid = 3000000000u,
         .mtime_s = 1700000000,
         .mtime_ns = 123456789},
        {.path = latin1, .link = "", .mode = 04755, .mtime_s = -5},
        {.path = "pg_wal", .link = link, .type = MEMBER_SYMLINK, .mode = 0777, .mtime_s = 1},
        {.path = "far", .link = "", .mode = 0600, .mtime_s = INT64_C(9999999999999)},
    };
    const size_t n = sizeof(wanted) / sizeof(wanted[0]);
    struct partition_written out;
    struct partition_write *w = make(e);
    uint64_t offset;
    bool known;
    for (size_t i = 0; i < n; i++)
        assert_ok(partition_write_member(w, &wanted[i], NULL, &offset, &err), &err);
    finish(w, &out);
    lzop_map_free(&out.facts.map);
    struct buf tar = stored(e);
    struct source *plain = source_mem(tar.data, tar.len, &err);
    struct tar_reader *r = tar_reader_new(plain, "it", &err);
    for (size_t i = 0; i < n; i++) {
        struct member m;
        const struct member *want = &wanted[i];
        assert_ok(tar_reader_next(r, &m, &known, &err) == 1, &err);
        assert_true(known);
        if (want->path[0] != '\0')
            assert_string_equal(m.path, want->path);
        assert_string_equal(m.link, want->link);
        assert_int_equal(m.type, want->type);
        assert_int_equal(m.mode, want->mode);
        assert_int_equal(m.uid, want->uid);
        assert_int_equal(m.gid, want->gid);
        assert_int_equal(m.mtime_s, want->mtime_s);
        assert_int_equal(m.mtime_ns, want->mtime_ns);
        assert_ok(tar_reader_skip(r, &m, &offset, &err), &err);
    }
    tar_reader_free(r);
    source_close(plain);
    buf_free(&tar);
}

/* ---- what comes to nothing ---- */

static void assert_nothing(const struct env *e)
{
    env_assert_list(e->files.store, (struct store_list){.prefix = ""}, ENV_LIST(NULL));
}

static void what_is_given_up_is_not_stored(void **state)
{
    struct env *e = *state;
    char *data = env_bytes(100000, 4);
    uint64_t offset;
    partition_write_free(make(e)); /* at once */
    struct partition_write *w = make(e);
    assert_ok(put_file(w, "a", data, 100000, &offset), &err);
    partition_write_free(w);
    w = make(e);
    assert_ok(put_file(w, "a", data, 100000, &offset), &err);
    const struct member m = {.path = "b", .link = "", .size = 200000, .mode = 0600};
    struct source *brief = source_mem(data, 1000, &err);
    assert_false(partition_write_member(w, &m, brief, &offset, &err));
    env_assert_error(&err, ERR_INVALID, "b is shorter");
    source_close(brief);
    partition_write_free(w); /* not padded to the size that was announced */
    partition_write_free(NULL);
    w = make(e);
    const struct member endless = {.path = "c", .link = "", .size = INT64_MAX / 2, .mode = 0600};
    brief = source_mem(data, 1000, &err);
    assert_false(partition_write_member(w, &endless, brief, &offset, &err));
    source_close(brief);
    partition_write_free(w); /* whatever was announced, this ends */
    free(data);
    assert_nothing(e);
}

/* Bytes of which the last piece cannot be read. */
static ssize_t broken_read(struct source *self, void *buf, size_t n, struct err *e)
{
    (void)self;
    (void)buf;
    (void)n;
    err_set(e, ERR_CANCELLED, "the reader was interrupted");
    return -1;
}

static void a_reader_that_fails_is_the_reason(void **state)
{
    struct env *e = *state;
    struct source broken = {.read = broken_read};
    const struct member m = {.path = "b", .link = "", .size = 10, .mode = 0600};
    uint64_t offset;
    struct partition_write *w = make(e);
    assert_false(partition_write_member(w, &m, &broken, &offset, &err));
    env_assert_error(&err, ERR_CANCELLED, "was interrupted");
    partition_write_free(w);
    assert_nothing(e);
}

/* What the store says reaches the writer, whatever libarchive makes of it, at whatever call. */
static void a_store_that_fails_is_the_reason(void **state)
{
    struct env *e = *state;
    char *data = env_bytes(20 << 20, 5);
    unsigned failures = 0;
    for (unsigned nth = 1; nth < 20; nth++) {
        struct partition_written out;
        uint64_t offset;
        bool ok = true;
        fault_at(e->faults, nth, FAULT_BEFORE);
        struct partition_write *w = make(e);
        for (int i = 0; ok && i < 20; i++)
            ok = put_file(w, "file", data + ((size_t)i << 20), 1 << 20, &offset);
        ok = ok && partition_write_end(w, &err) && partition_write_wait(w, &out, &err);
        partition_write_free(w);
        if (ok) {
            assert_false(fault_happened(e->faults));
            lzop_map_free(&out.facts.map);
            break;
        }
        assert_true(fault_happened(e->faults));
        env_assert_error(&err, ERR_UNAVAILABLE, "asked for");
        assert_nothing(e);
        failures++;
    }
    assert_true(failures >= 4); /* the upload's begin, its end, and parts */
    free(data);
}

static void a_cancel_ends_it(void **state)
{
    struct env *e = *state;
    struct cancel cancel;
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    struct partition_written out;
    char *data = env_bytes(1 << 20, 6);
    uint64_t offset;
    bool ok = true;
    cancel_init(&cancel);
    e->opt.call = &call;
    struct partition_write *w = make(e);
    assert_ok(put_file(w, "a", data, 1000, &offset), &err);
    cancel_fire(&cancel);
    for (int i = 0; ok && i < 200; i++)
        ok = put_file(w, "b", data, 1 << 20, &offset);
    ok = ok && partition_write_end(w, &err) && partition_write_wait(w, &out, &err);
    assert_false(ok);
    assert_int_equal(err.code, ERR_CANCELLED);
    partition_write_free(w);
    cancel_destroy(&cancel);
    free(data);
    assert_nothing(e);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_told_of_it_is_true),       T(facts_that_fit_no_header_are_kept),
        T(what_is_given_up_is_not_stored),   T(a_reader_that_fails_is_the_reason),
        T(a_store_that_fails_is_the_reason), T(a_cancel_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
