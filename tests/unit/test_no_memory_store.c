/* Stores, and what is written to them, with each allocation failing once: an operation that had no
 * memory says so, and has stored all or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup_env.h"
#include "core/catalog.h"
#include "core/log.h"
#include "core/object_write.h"
#include "core/wal_name.h"
#include "fs/node.h"
#include "fs/wal_delete.h"
#include "mem_fs_env.h"
#include "no_memory.h"

#define MIB (1u << 20)

static struct store *s; /* of the running test */
static char *data;      /* 20 MiB */

/* ---- every operation ---- */

static bool put(struct err *err)
{
    static const struct store_meta meta[] = {{"walefs-x", "1"}};
    const struct store_put p = {.body = {.mem = "hello", .size = 5}, .meta = meta, .meta_count = 1};
    return no_memory_over(s->ops->put(s, "key", &p, NULL, &env_forever, err));
}

static bool get(struct err *err)
{
    struct store_info info;
    char out[8];
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, err);
    ssize_t n = src == NULL ? -1 : source_read_full(src, out, sizeof(out), err);
    source_close(src);
    if (no_memory_over(n >= 0)) {
        assert_int_equal(n, 5); /* what cannot be read for want of memory is no short object */
        assert_memory_equal(out, "hello", 5);
    }
    return n >= 0;
}

static bool head(struct err *err)
{
    struct store_info info;
    return no_memory_over(s->ops->head(s, "key", &info, &env_forever, err));
}

static bool count_page(void *arg, const struct store_page *page, struct err *err)
{
    (void)err;
    *(size_t *)arg += page->count;
    return true;
}

static bool list(struct err *err)
{
    const struct store_list what = {.prefix = "", .delimiter = "/", .start_after = "a"};
    size_t n = 0;
    bool ok = store_list_each(s, &what, count_page, &n, &env_forever, err);
    if (no_memory_over(ok))
        assert_int_equal(n, 1); /* nor is a list without what had no room in memory a list */
    return ok;
}

static bool copy(struct err *err)
{
    return no_memory_over(s->ops->copy(s, "key", "copy", NULL, NULL, &env_forever, err));
}

static bool remove_two(struct err *err)
{
    const char *keys[] = {"copy", "absent"};
    return no_memory_over(s->ops->remove(s, keys, 2, &env_forever, err));
}

static bool upload(struct err *err)
{
    const struct store_put p = {.only_if_absent = false};
    const struct store_body body = {.mem = "hello", .size = 5};
    struct store_upload *up = s->ops->upload_begin(s, "key", &p, &env_forever, err);
    if (up == NULL)
        return no_memory_over(false);
    bool ok = s->ops->upload_part(up, 1, &body, &env_forever, err);
    if (ok)
        ok = s->ops->upload_complete(up, NULL, &env_forever, err);
    else
        s->ops->upload_abort(up, &env_forever);
    return no_memory_over(ok);
}

static bool check(struct err *err)
{
    bool weak;
    return no_memory_over(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, err));
}

static void every_operation_in_a_directory(void **state)
{
    (void)state;
    struct store_env env;
    store_env_begin(&env, STORE_DIRECTORY);
    s = env.store;
    no_memory_each("put", put);
    no_memory_each("get", get);
    no_memory_each("list", list);
    no_memory_each("copy", copy);
    no_memory_each("upload", upload);
    no_memory_each("check", check);
    env_assert_content(s, "key", "hello", 5);
    env_assert_list(s, (struct store_list){.prefix = ""}, ENV_LIST("copy", "key", "walefs_probe"));
    store_env_end(&env);
}

/* One operation against a server that answers STEP as often as it is asked. */
static void against_s3(const char *name, no_memory_work *work, const char *step)
{
    struct script script;
    char steps[2048];
    (void)snprintf(steps, sizeof(steps), "[{'times': 5000, %s}]", step);
    script_begin(&script, steps);
    s = script_store(&script, 2);
    struct err err = ERR_INIT;
    assert_ok(work(&err), &err); /* so that there are credentials: their lack is remembered */
    no_memory_each(name, work);
    s->ops->free(s);
    script_drop(&script);
}

static void every_operation_in_s3(void **state)
{
    (void)state;
    against_s3("put", put, "'etag': '5d41402abc4b2a76b9719d911017c592'");
    against_s3("get", get, "'text': 'hello', 'etag': 'e'");
    against_s3("head", head, "'status': 206, 'text': 'h', 'etag': 'e', 'range': '0-0/5'");
    against_s3("list", list,
               "'text': '<ListBucketResult><Contents><Key>p/key</Key></Contents>"
               "</ListBucketResult>'");
    against_s3("copy", copy, "'text': '<CopyObjectResult><ETag>e</ETag></CopyObjectResult>'");
    against_s3("remove", remove_two, "'text': '<DeleteResult></DeleteResult>'");
}

/* ---- what is written ---- */

static struct backup_env env;

static int set_up(void **state)
{
    (void)state;
    backup_env_begin_tars(&env);
    s = env.files.store;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backup_env_end(&env);
    return 0;
}

#define KEY "dumps_005/x.lzo"

static bool object(struct err *err)
{
    const struct object_write_options options = {.store = s,
                                                 .pgp = env.pgp,
                                                 .pool = env.pool,
                                                 .key = KEY,
                                                 .stall_ms = 20000,
                                                 .call = &env_forever};
    struct object_written out;
    struct object_write *w = object_write_new(&options, err);
    bool ok = w != NULL && object_write_push(w, data, 20 * MIB, err) && object_write_end(w, err) &&
              object_write_wait(w, &out, err);
    object_write_free(w);
    if (!no_memory_over(ok)) {
        env_assert_absent(s, KEY);
        return false;
    }
    lzop_map_free(&out.facts.map);
    const char *keys[] = {KEY};
    return s->ops->remove(s, keys, 1, &env_forever, err);
}

static void an_object_while_it_is_written(void **state)
{
    (void)state;
    no_memory_each("object", object);
}

static char *tar;
static size_t tar_bytes;

static bool backup(struct err *err)
{
    struct backup_write *w = NULL;
    struct source *in = source_mem(tar, tar_bytes, err);
    if (in != NULL)
        w = backup_write_new(&env.opt, err);
    bool ok = w != NULL && backup_write_tar(w, in, "", err) && backup_env_commit(w, err);
    (void)no_memory_over(ok);
    source_close(in);
    if (w != NULL)
        backup_write_abort(w, &env_forever);
    backup_write_free(w);
    if (ok) { /* its temporary objects may have stayed behind: that does no harm */
        assert_true(backup_env_has(&env, BACKUP_DIR BACKUP_SENTINEL_SUFFIX));
        assert_ok(env_empty(s, err), err);
    }
    env_assert_list(s, (struct store_list){.prefix = ""}, ENV_LIST(NULL));
    return ok;
}

static void read_tar(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", env.dir, name);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    tar = malloc(4 * MIB);
    assert_non_null(tar);
    tar_bytes = fread(tar, 1, 4 * MIB, f);
    assert_int_equal(fclose(f), 0);
}

static void a_backup_while_it_is_written(void **state)
{
    static const char *const names[] = {"label.tar", "stopped.tar"};
    (void)state;
    env.opt.store = s;
    for (size_t i = 0; i < 2; i++) {
        read_tar(names[i]);
        no_memory_each(names[i], backup);
        free(tar);
    }
}

/* ---- what is read of backups ---- */

static struct catalog *known;

/* What is not read for want of memory is not damaged, and not gone. */
static bool catalog(struct err *err)
{
    struct catalog *c = catalog_load(s, known, NULL, &env_forever, err);
    bool ok = no_memory_over(c != NULL);
    if (ok) {
        assert_int_equal(c->count, 2);
        assert_int_equal(c->incomplete_count, 1);
    }
    catalog_unref(c);
    return ok;
}

static bool objects(struct err *err)
{
    struct backup_objects o;
    bool ok =
        backup_objects_load(s, "base_000000010000000000000009_00000040", &o, &env_forever, err);
    if (no_memory_over(ok)) {
        assert_int_equal(o.count, 5);
        assert_int_equal(o.partition_count, 4);
        backup_objects_free(&o);
    }
    return ok;
}

static void what_there_is_of_backups(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 2; i++) {
        char key[128];
        (void)snprintf(key, sizeof(key), BACKUP_PREFIX "base_00000001000000000000000%u_00000040%s",
                       i, BACKUP_SENTINEL_SUFFIX);
        env_put(s, key, "{}", 2);
    }
    for (unsigned i = 0; i < 5; i++) {
        char key[128];
        (void)snprintf(key, sizeof(key),
                       BACKUP_PREFIX "base_000000010000000000000009_00000040/tar_partitions/%s%u%s",
                       i < 4 ? "part_" : "other_", i, ".tar.lzo");
        env_put(s, key, "x", 1);
    }
    no_memory_each("catalog", catalog);
    struct err err = ERR_INIT;
    known = catalog_load(s, NULL, NULL, &env_forever, &err);
    assert_ok(known != NULL, &err);
    no_memory_each("catalog that is known", catalog);
    catalog_unref(known);
    no_memory_each("objects", objects);
}

/* ---- what is deleted ---- */

static char wal_names[2][WAL_NAME_MAX];
static pthread_t other;
static _Atomic bool other_began, other_done, other_ok;

static bool delete_wal(unsigned which, struct err *err)
{
    return wal_delete_add(fs->wal_delete, wal_names[which], &env_forever, err);
}

static void *delete_second(void *arg)
{
    struct err err = ERR_INIT;
    atomic_store(&other_ok, delete_wal(1, &err));
    atomic_store(&other_done, true);
    return arg;
}

/* Goes on when the other one is done, or waits for who has no memory. */
static void another_deletes(void)
{
    atomic_store(&other_began, true);
    assert_int_equal(pthread_create(&other, NULL, delete_second, NULL), 0);
    for (unsigned i = 0; i < 300 && !atomic_load(&other_done); i++)
        (void)usleep(1000);
}

static void archive_two(unsigned turn)
{
    for (unsigned i = 0; i < 2; i++) {
        char key[WAL_NAME_MAX + 16];
        (void)snprintf(wal_names[i], WAL_NAME_MAX, "0000000100000000%08X", 2 * turn + i);
        assert_true(wal_key_of_name(wal_names[i], key, sizeof(key)));
        env_put(s, key, "x", 1);
    }
}

static void are_deleted(void)
{
    for (unsigned i = 0; wal_delete_pending(fs->wal_delete) > 0; i++) {
        assert_true(i < 20000);
        (void)usleep(1000);
    }
}

/* The first, for which there is no memory, stays; the second, of somebody else, goes. */
static bool first_fails(unsigned turn)
{
    struct err err = ERR_INIT;
    archive_two(turn);
    atomic_store(&other_began, false);
    atomic_store(&other_done, false);
    no_memory_next(another_deletes);
    bool ok = no_memory_over(delete_wal(0, &err));
    if (atomic_load(&other_began)) {
        assert_int_equal(pthread_join(other, NULL), 0);
        assert_true(atomic_load(&other_ok));
    }
    if (!ok) {
        assert_int_equal(err.code, ERR_NO_MEMORY);
        assert_false(wal_delete_has(fs->wal_delete, wal_names[0]));
        assert_true(wal_delete_has(fs->wal_delete, wal_names[1]));
    }
    are_deleted();
    return !ok;
}

static void two_deletions_at_once(void **state)
{
    struct store_env files;
    struct err err = ERR_INIT;
    unsigned turn = 1;
    (void)state;
    store_env_begin(&files, STORE_DIRECTORY);
    s = files.store;
    mem_fs_begin((struct fs_options){.store = s, .hard = true, .allow_delete = true});
    archive_two(0);
    assert_ok(delete_wal(0, &err), &err); /* now the backups are known, and the list has room */
    are_deleted();
    while (!first_fails(turn))
        assert_true(turn++ < 50);
    mem_fs_end();
    store_env_end(&files);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_in_a_directory),
        cmocka_unit_test(every_operation_in_s3),
        T(an_object_while_it_is_written),
        T(a_backup_while_it_is_written),
        T(what_there_is_of_backups),
        cmocka_unit_test(two_deletions_at_once),
    };
    data = env_bytes(20 * MIB, 3);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    free(data);
    return failures;
}
