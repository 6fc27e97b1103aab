/* core/backup_write*.c and core/partition_write.c: what is written can be read back by everybody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup_env.h"

static struct test_home home;

static int set_up(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, "Carol <carol@example.org>", "");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

static void begin(struct backup_env *e, const char *words, bool encrypted, unsigned places)
{
    backup_env_begin(e, words, encrypted ? &home : NULL, "carol@example.org", places);
}

static void commit(struct backup_write *w)
{
    struct err err = ERR_INIT;
    assert_ok(backup_env_commit(w, &err), &err);
    assert_string_equal(backup_write_name(w), BACKUP_NAME);
    backup_write_abort(w, &env_forever); /* of a complete one: nothing */
    backup_write_free(w);
}

/* Every format that tar writers use, plain and encrypted. */
static void tar_round_trip(const char *words, const char *format, bool encrypted)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    begin(&e, words, encrypted, 2);
    backup_env_run(&e, "tar -C cluster --format=%s -cf base.tar .", format);
    struct backup_write *w = backup_env_writer(&e);
    assert_string_equal(backup_write_name(w), "");
    assert_ok(backup_env_tar(&e, w, "base.tar", "", &err), &err);
    assert_string_equal(backup_write_name(w), BACKUP_NAME);
    assert_non_null(backup_write_find(w, "base/1/1255"));
    assert_int_equal(backup_write_info(w)->system_id, 7777777777777777777);
    commit(w);
    assert_true(backup_env_check(&e, "cluster") >= 1);
    backup_env_end(&e);
}

static void test_tar_gnu(void **state)
{
    (void)state;
    tar_round_trip("label odd", "gnu", false);
}

static void test_tar_pax(void **state)
{
    (void)state;
    tar_round_trip("label odd", "pax", true);
}

static void test_tar_ustar(void **state)
{
    (void)state;
    tar_round_trip("label", "ustar", false);
}

static void test_tar_python(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label", false, 2);
    backup_env_run(&e, "python3 -c \"import tarfile; t = tarfile.open('base.tar', 'w'); "
                       "t.add('cluster', arcname=''); t.close()\"");
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tar(&e, w, "base.tar", "", &err), &err);
    commit(w);
    backup_env_check(&e, "cluster");
    backup_env_end(&e);
}

/* As cp and rsync bring it; names, owners and times of every kind. */
static void test_tree(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label odd", true, 2);
    backup_env_run(&e, "touch -d '2024-02-03 04:05:06.789012345' cluster/base/5/odd_size");
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    commit(w);
    backup_env_check(&e, "cluster");
    backup_env_end(&e);
}

/* A stopped cluster has no backup_label: everything is stored before the name is known. */
static void test_tree_without_label(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "bulk=3000000", false, 2);
    e.opt.partition_bytes = 1 << 20;
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    assert_string_equal(backup_write_name(w), "");
    assert_false(backup_env_has(&e, BACKUP_DIR "/tar_partitions/part_00000000.tar.lzo"));
    commit(w);
    assert_true(backup_env_check(&e, "cluster") >= 3);
    backup_env_end(&e);
}

/* As pg_basebackup -Ft does it: a tablespace comes first, under temporary keys; a single gpg place
 * is enough, and is free when a stream has ended. */
static void test_tablespace_and_one_place(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label tablespace bulk=6000000", true, 1);
    e.opt.partition_bytes = 1 << 20;
    backup_env_run(&e, "tar -C cluster.16384 -cf 16384.tar . && tar -C cluster -cf base.tar . && "
                       "cp -a cluster want && rm want/pg_tblspc/16384 && "
                       "cp -a cluster.16384 want/pg_tblspc/16384");
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tar(&e, w, "16384.tar", "pg_tblspc/16384", &err), &err);
    assert_ok(backup_env_tar(&e, w, "base.tar", "", &err), &err);
    const struct call soon = {.deadline_ms = now_ms() + 10000};
    assert_ok(openpgp_reserve(e.pgp, OPENPGP_FOREGROUND, &soon, &err), &err);
    openpgp_release(e.pgp);
    const struct backup_info *info = backup_write_info(w);
    assert_int_equal(info->tablespace_count, 1);
    assert_string_equal(info->tablespaces[0].oid, "16384");
    assert_string_equal(info->tablespaces[0].location, "/srv/old place/ts1");
    commit(w);
    assert_true(backup_env_check(&e, "want") >= 6);
    backup_env_end(&e);
}

struct copies {
    _Atomic unsigned inside, through;
};

static void count_copies(void *arg, const char *op, const char *key)
{
    struct copies *c = arg;
    c->inside += strcmp(op, "copy") == 0;
    c->through += strcmp(op, "get") == 0 && strstr(key, BACKUP_TEMP_PREFIX) != NULL;
}

/* What is larger than the store can copy goes through this host. */
static void test_large_copies(void **state)
{
    static const uint64_t most[] = {0, 1 << 20};
    struct err err = ERR_INIT;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct backup_env e;
        struct copies copies = {0, 0};
        begin(&e, "bulk=6000000", false, 2); /* without a label all is temporary */
        e.opt.partition_bytes = 3 << 20;
        e.opt.copy_max_bytes = most[i];
        struct backup_write *w = backup_env_writer(&e);
        assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
        fault_set_hook(e.faults, count_copies, &copies);
        commit(w);
        fault_set_hook(e.faults, NULL, NULL);
        assert_true(i == 0 ? copies.inside >= 2 : copies.through >= 2);
        assert_true(i == 0 ? copies.through == 0 : copies.inside < 2);
        backup_env_check(&e, "cluster");
        backup_env_end(&e);
    }
}

/* Somebody puts other bytes, as many, in the place of what is about to be copied. */
static void replace(void *arg, const char *op, const char *key)
{
    struct backup_env *e = arg;
    struct store *store = e->files.store;
    struct store_page page = {0};
    struct err err = ERR_INIT;
    const struct store_list list = {.prefix = BACKUP_PREFIX BACKUP_TEMP_PREFIX};
    if (strcmp(op, "copy") != 0 &&
        (strcmp(op, "get") != 0 || strstr(key, BACKUP_TEMP_PREFIX) == NULL))
        return;
    fault_set_hook(e->faults, NULL, NULL);
    assert_ok(store->ops->list(store, &list, &page, &env_forever, &err), &err);
    assert_true(page.count > 0);
    for (size_t i = 0; i < page.count; i++) {
        char *other = test_bytes(page.entries[i].size, 77);
        const struct store_put put = {.body = {.mem = other, .size = page.entries[i].size}};
        assert_ok(store->ops->put(store, page.entries[i].key, &put, NULL, &env_forever, &err),
                  &err);
        free(other);
    }
    store_page_free(&page);
}

/* What was stored under a temporary key is what becomes a partition, or there is no backup. */
static void test_replaced_before_it_is_copied(void **state)
{
    static const uint64_t most[] = {0, 1};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct backup_env e;
        struct err err = ERR_INIT;
        begin(&e, "bulk=2000000", false, 2);
        e.opt.copy_max_bytes = most[i];
        struct backup_write *w = backup_env_writer(&e);
        assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
        fault_set_hook(e.faults, replace, &e);
        assert_false(backup_env_commit(w, &err));
        env_assert_error(&err, ERR_STALE, "replaced");
        backup_write_abort(w, &env_forever);
        backup_write_free(w);
        assert_int_equal(backup_env_count(&e), 0);
        backup_env_end(&e);
    }
}

/* Members and bytes of a partition are limited; a larger member goes alone. */
static void test_partitions(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label", false, 2);
    e.opt.partition_bytes = 100000;
    backup_env_run(&e, "head -c 300000 /dev/urandom > cluster/base/1/large && "
                       "mkdir cluster/many && cd cluster/many && seq -f %%07g 6200 | xargs touch");
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    const struct member *large = backup_write_find(w, "base/1/large");
    assert_non_null(large);
    uint32_t alone = large->partition;
    commit(w);
    size_t n = backup_env_check(&e, "cluster");
    assert_true(n >= 3 && n < 6);
    backup_env_run(&e, "test $(tar -tf plain%u | grep -c -v '/$') = 1", alone);
    for (size_t i = 0; i < n; i++)
        backup_env_run(&e, "test $(tar -tf plain%zu | wc -l) -le 6144", i);
    backup_env_end(&e);
}

/* ---- what is refused ---- */

/* Writes what COMMAND makes of "cluster" as base.tar; it must fail with CODE and TEXT, nothing may
 * follow, and nothing stays behind. */
static void refused(const char *words, const char *command, enum err_code code, const char *text)
{
    struct backup_env e;
    struct err err = ERR_INIT, again = ERR_INIT;
    begin(&e, words, false, 2);
    backup_env_run(&e, "%s", command);
    struct backup_write *w = backup_env_writer(&e);
    bool ok = backup_env_tar(&e, w, "base.tar", "", &err) && backup_env_commit(w, &err);
    assert_false(ok);
    env_assert_error(&err, code, text);
    assert_false(backup_env_member(w, "late", MEMBER_FILE, "x", &again));
    env_assert_error(&again, code, text);
    assert_false(backup_env_commit(w, &again));
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_int_equal(backup_env_count(&e), 0);
    backup_env_end(&e);
}

#define TAR "tar -C cluster -cf base.tar "

static void test_refused_streams(void **state)
{
    (void)state;
    refused("label", TAR ". && truncate -s -11000 base.tar", ERR_INVALID, "tar stream");
    refused("label", TAR ". && truncate -s 20000 base.tar", ERR_INVALID, NULL);
    refused("label",
            TAR ". && python3 -c \"d=open('base.tar','rb').read().rstrip(bytes(1)); "
                "d+=bytes(-len(d)%512); open('base.tar','wb').write(d)\"",
            ERR_INVALID, "breaks off");
    refused("label", ": > base.tar", ERR_INVALID, NULL);
    refused("label", "head -c 5000 /dev/urandom > base.tar", ERR_INVALID, "tar stream");
    refused("label", TAR ". && echo more >> base.tar", ERR_INVALID, "tar stream");
}

static void test_refused_members(void **state)
{
    (void)state;
    refused("label", "ln cluster/base/1/1255 cluster/zz && " TAR ".", ERR_INVALID, "hard link");
    refused("label", TAR "--transform='s,^./base/1/empty,/etc/x,' -P .", ERR_INVALID, "absolute");
    refused("label", TAR "--transform='s,^./base/1/empty,../x,' -P .", ERR_INVALID, "upwards");
    refused("label", TAR ". ./base/1/1255", ERR_INVALID, NULL);
    refused("label", TAR "--hard-dereference . ./base/1/1255", ERR_INVALID, "twice");
    refused("label", "truncate -s 10M cluster/sparse && " TAR "-S .", ERR_UNSUPPORTED, "sparse");
    refused("label", "printf '\\377\\n' > cluster/PG_VERSION && " TAR ".", ERR_INVALID,
            "PG_VERSION");
    refused("label", "echo x > cluster/backup_label && " TAR ".", ERR_INVALID, "START WAL");
    refused("label", "truncate -s 2M cluster/backup_label && " TAR ".", ERR_INVALID, "too large");
    refused("label",
            "printf x | dd of=cluster/global/pg_control bs=1 seek=5 conv=notrunc 2> n && " TAR ".",
            ERR_INVALID, "checksum");
    refused("label", "sed -i 's/00000002)/00000004)/' cluster/backup_label && " TAR ".",
            ERR_INVALID, "different clusters");
}

static void test_refused_clusters(void **state)
{
    (void)state;
    refused("label pid", TAR ".", ERR_INVALID, "postmaster.pid");
    refused("label", TAR "--exclude ./PG_VERSION .", ERR_INVALID, "PG_VERSION");
    refused("label", TAR "--exclude ./global/pg_control .", ERR_INVALID, "pg_control");
    refused("", TAR "--exclude ./global/pg_control .", ERR_INVALID, "pg_control");
    refused("label tablespace", TAR ".", ERR_INVALID, "links followed");
    refused("odd", TAR ".", ERR_INVALID, "pg_wal is a symlink");
    refused("odd", "mv cluster/pg_wal cluster/pg_xlog && " TAR ".", ERR_INVALID, "pg_xlog is a");
    refused("label", "mv cluster/base elsewhere && ln -s ../elsewhere cluster/base && " TAR ".",
            ERR_INVALID, "base is a symlink");
    /* with -Ft there is no link: tablespace_map names it */
    refused("label tablespace",
            "rm cluster/pg_tblspc/16384 && echo '16384 /srv/ts1' > cluster/tablespace_map && " TAR
            ".",
            ERR_INVALID, "16384.tar");
    refused("label tablespace",
            "rm cluster/pg_tblspc/16384 && mkdir cluster/pg_tblspc/16384 && "
            "echo '16384 /srv/ts1' > cluster/tablespace_map && " TAR ".",
            ERR_INVALID, "16384.tar");
}

static void test_incremental_backups_are_refused(void **state)
{
    (void)state;
    refused("label",
            "printf 'INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n' "
            ">> cluster/backup_label && " TAR ".",
            ERR_INVALID, "pg_combinebackup");
    refused("label", "mv cluster/base/1/1255 cluster/base/1/INCREMENTAL.1255 && " TAR ".",
            ERR_INVALID, "pg_combinebackup");
}

/* A cluster with a manifest is changed by COMMAND, and then compared. TEXT: why it is refused. */
static void verify(const char *command, const char *text)
{
    struct backup_env e;
    struct stat st;
    struct err err = ERR_INIT;
    int fd;
    begin(&e, "label odd tablespace manifest", false, 2);
    backup_env_run(&e, "rm cluster/pg_tblspc/16384 && cp -a cluster.16384 cluster/pg_tblspc/16384");
    backup_env_run(&e, "%s", command);
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    struct source *unused = backup_env_open(&e, "cluster/backup_manifest", &fd);
    assert_int_equal(fstat(fd, &st), 0);
    bool ok = backup_write_verify(w, fd, (uint64_t)st.st_size, &err);
    if (ok != (text == NULL))
        fail_msg("%s: %s", command, ok ? "accepted" : err.text);
    if (ok) {
        commit(w);
    } else {
        env_assert_error(&err, ERR_INVALID, text);
        assert_false(backup_env_commit(w, &err));
        backup_write_abort(w, &env_forever);
        backup_write_free(w);
    }
    source_close(unused);
    close(fd);
    backup_env_end(&e);
}

static void test_what_the_manifest_says_is_there(void **state)
{
    (void)state;
    verify("true", NULL);
    verify("mkdir cluster/pg_wal.d && echo x > cluster/standby.signal", NULL);
    verify("rm cluster/pg_wal && mkdir cluster/pg_wal && echo x > cluster/pg_wal/1", NULL);
    verify("echo x > cluster/postgresql.auto.conf", NULL);
    verify("rm cluster/base/1/1255", "base/1/1255 is in backup_manifest, and has not");
    verify("rm cluster/base/1/latin1-*", "is in backup_manifest, and has not");
    verify("rm cluster/pg_tblspc/16384/*/5/16385", "pg_tblspc/16384/PG_15_202209061/5/16385 is in");
    verify("truncate -s -1 cluster/base/1/1255", "has 24575 bytes, and 24576");
    verify("printf X | dd conv=notrunc bs=1 seek=5000 status=none of=cluster/base/1/1255",
           "base/1/1255 is not what backup_manifest has");
    verify("sed -i 's/LABEL: test/LABEL: tesT/' cluster/backup_label", "backup_label is not what");
    verify("echo more > cluster/base/1/1256", "base/1/1256 has been written, and is not in");
    verify("rm -r cluster/base/1/empty && mkdir cluster/base/1/empty", "base/1/empty is in");
    verify("rm -r cluster/pg_tblspc/16384/PG*; rm -f cluster/base/1/1255; "
           "echo '16384 /srv/ts1' > cluster/tablespace_map",
           "16384.tar");
}

/* A member that has less data than it says; nothing of it is padded and kept. */
static void test_short_member(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label", false, 2);
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    const struct member m = {.path = "short", .link = "", .type = MEMBER_FILE, .size = 100};
    struct source *data = source_mem("only this", 9, &err);
    assert_false(backup_write_member(w, &m, data, &err));
    env_assert_error(&err, ERR_INVALID, "shorter");
    source_close(data);
    assert_false(backup_env_commit(w, &err));
    env_assert_error(&err, ERR_INVALID, "shorter");
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_int_equal(backup_env_count(&e), 0);
    backup_env_end(&e);
}

/* ---- a store that does not move ---- */

static struct cancel given_up;

static void *cancel_later(void *arg)
{
    struct fault_store *f = arg;
    for (int i = 0; fault_held(f) < 2 && i < 1000; i++)
        (void)usleep(10000);
    (void)usleep(200000);
    cancel_fire(&given_up);
    return NULL;
}

/* Endless bytes, counted. */
struct counted {
    struct source base;
    uint64_t taken;
};

static ssize_t counted_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct counted *c = (struct counted *)self;
    (void)err;
    uint64_t x = c->taken * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (size_t i = 0; i < n; i++) { /* what does not shrink */
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        ((unsigned char *)buf)[i] = (unsigned char)(x >> 56);
    }
    c->taken += n;
    return (ssize_t)n;
}

/* What the writer may bring before the store takes it is bounded, and a cancel ends it all. */
static void test_bounded_and_cancelled(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    struct counted data = {.base = {.read = counted_read}};
    const struct call call = {.cancel = &given_up, .deadline_ms = DEADLINE_NONE};
    pthread_t thread;
    (void)state;
    begin(&e, "label", false, 2);
    cancel_init(&given_up);
    e.opt.call = &call;
    e.opt.stall_ms = 0;
    fault_hold(e.faults, true);
    struct backup_write *w = backup_env_writer(&e);
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, e.faults), 0);
    const struct member m = {
        .path = "huge", .link = "", .type = MEMBER_FILE, .size = UINT64_C(20) << 30, .mode = 0600};
    assert_false(backup_write_member(w, &m, &data.base, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    pthread_join(thread, NULL);
    assert_true(data.taken > (16u << 20));
    assert_true(data.taken < (30u << 20)); /* three parts, a pipe, and what coders hold */
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    fault_hold(e.faults, false);
    assert_int_equal(backup_env_count(&e), 0);
    cancel_destroy(&given_up);
    backup_env_end(&e);
}

/* An abort does not wait for a store that hangs, although nobody cancelled the writer's call. */
static void test_abort_of_hung_uploads(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label bulk=20000000", false, 2);
    e.opt.stall_ms = 0;
    e.opt.partition_bytes = 12 << 20;
    fault_hold(e.faults, true);
    struct backup_write *w = backup_env_writer(&e);
    assert_ok(backup_env_tree(&e, w, "cluster", &err), &err);
    int64_t began = now_ms();
    backup_write_abort(w, &env_forever);
    assert_true(now_ms() - began < 5000);
    backup_write_free(w);
    fault_hold(e.faults, false);
    assert_int_equal(backup_env_count(&e), 0);
    backup_env_end(&e);
}

/* Without gpg's consent nothing is stored: the job's own reason reaches the writer. */
static void test_reason_of_the_job(void **state)
{
    struct backup_env e;
    struct err err = ERR_INIT;
    (void)state;
    begin(&e, "label bulk=30000000", false, 2);
    fault_at(e.faults, 7, FAULT_BEFORE); /* the guard's five, the upload's beginning, a part */
    struct backup_write *w = backup_env_writer(&e);
    bool ok = backup_env_tree(&e, w, "cluster", &err) && backup_env_commit(w, &err);
    assert_false(ok);
    env_assert_error(&err, ERR_UNAVAILABLE, "asked for");
    fault_at(e.faults, 0, FAULT_BEFORE);
    backup_write_abort(w, &env_forever);
    backup_write_free(w);
    assert_int_equal(backup_env_count(&e), 0);
    backup_env_end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tar_gnu),
        cmocka_unit_test(test_tar_pax),
        cmocka_unit_test(test_tar_ustar),
        cmocka_unit_test(test_tar_python),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_tree_without_label),
        cmocka_unit_test(test_tablespace_and_one_place),
        cmocka_unit_test(test_large_copies),
        cmocka_unit_test(test_replaced_before_it_is_copied),
        cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_refused_streams),
        cmocka_unit_test(test_refused_members),
        cmocka_unit_test(test_refused_clusters),
        cmocka_unit_test(test_incremental_backups_are_refused),
        cmocka_unit_test(test_what_the_manifest_says_is_there),
        cmocka_unit_test(test_short_member),
        cmocka_unit_test(test_bounded_and_cancelled),
        cmocka_unit_test(test_abort_of_hung_uploads),
        cmocka_unit_test(test_reason_of_the_job),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
