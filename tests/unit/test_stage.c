/* fs/stage.c: what is coded is what was written, whoever writes when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "fs/stage.h"
#include "gpg_home.h"
#include "mem_store.h"
#include "wait_for.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static struct pool *pool;
static struct openpgp *plain_pgp;
static struct cancel stop;
static struct stage_env env;
static size_t fds_before;
static const struct call endless = CALL_INIT;

static int set_up(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    plain_pgp = test_plain_pgp();
    fds_before = test_open_fds();
    pool = pool_new(32, 100, &err);
    assert_non_null(pool);
    cancel_init(&stop);
    env = (struct stage_env){.pgp = plain_pgp, .pool = pool, .dir = "/var/tmp", .stop = &stop};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cancel_fire(&stop);
    pool_free(pool);
    cancel_destroy(&stop);
    assert_int_equal(test_open_fds(), fds_before);
    openpgp_free(plain_pgp);
    return 0;
}

static struct stage *new_stage(bool live)
{
    struct err err = ERR_INIT;
    struct stage *s = stage_new(&env, live, &err);
    assert_non_null(s);
    return s;
}

static void write_at(struct stage *s, const void *data, size_t n, uint64_t offset)
{
    struct err err = ERR_INIT;
    assert_true(stage_write(s, data, n, offset, &err));
}

static void write_all(struct stage *s, const char *data, size_t n)
{
    for (size_t at = 0; at < n; at += 128 * KIB)
        write_at(s, data + at, n - at < 128 * KIB ? n - at : 128 * KIB, at);
}

struct memory_sink {
    struct sink base;
    char *data;
    size_t n, cap;
};

static bool memory_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    (void)err;
    struct memory_sink *s = (struct memory_sink *)self;
    if (n > s->cap - s->n)
        return err_set(err, ERR_CORRUPT, "more than was expected");
    memcpy(s->data + s->n, data, n);
    s->n += n;
    return true;
}

static bool memory_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

/* Do these coded bytes decode to exactly DATA, and are their hashes right? */
static bool is_code_of(struct openpgp *pgp, const struct coded *coded, const char *data, size_t n)
{
    struct err err = ERR_INIT;
    struct memory_sink out = {.base = {.write = memory_write, .finish = memory_finish},
                              .data = malloc(n + 1),
                              .cap = n + 1};
    struct source *src = source_fd(coded->fd, 0, coded->spool.size, &err);
    assert_non_null(out.data);
    assert_non_null(src);
    bool same = codec_decode(pgp, src, &out.base, OPENPGP_FOREGROUND, NULL, &endless, &err) &&
                out.n == n && memcmp(out.data, data, n) == 0 && coded->plain_size == n;
    source_close(src);
    free(out.data);

    char digest[DIGEST_TEXT_MAX];
    struct digest *d = digest_new(coded->digest, &err);
    assert_non_null(d);
    assert_true(digest_update(d, data, n, &err));
    assert_true(digest_final(d, digest, &err));
    digest_free(d);
    return same && strcmp(digest, coded->digest) == 0;
}

static void check_code(struct stage *s, const char *data, size_t n)
{
    struct err err = ERR_INIT;
    uint64_t version;
    struct coded *c = stage_code(s, &version, &endless, &err);
    assert_non_null(c);
    assert_int_equal(version, stage_version(s));
    assert_true(is_code_of(plain_pgp, c, data, n));
    coded_unref(c);
}

/* A stage has one descriptor, its live coder has another. */
static void wait_for_fds(size_t n)
{
    WAIT_FOR(test_open_fds() == fds_before + n);
}

/* ---- coding ---- */

static void test_live_coder_follows(void **state)
{
    (void)state;
    char *data = test_bytes(3 * MIB + 17, 1);
    struct stage *s = new_stage(true);
    assert_int_equal(test_open_fds(), fds_before + 1);
    write_at(s, data, 1, 0);
    wait_for_fds(2); /* it has begun */
    for (size_t at = 1; at < 3 * MIB + 17; at += 100000)
        write_at(s, data + at, 3 * MIB + 17 - at < 100000 ? 3 * MIB + 17 - at : 100000, at);
    assert_int_equal(stage_size(s), 3 * MIB + 17);
    struct err err = ERR_INIT;
    uint64_t version;
    struct coded *c = stage_code(s, &version, &endless, &err);
    assert_non_null(c);
    assert_int_equal(test_open_fds(), fds_before + 2); /* the coder's own result, no second one */
    assert_true(is_code_of(plain_pgp, c, data, 3 * MIB + 17));
    struct coded *again = stage_code(s, &version, &endless, &err);
    assert_ptr_equal(again, c);
    coded_unref(again);
    coded_unref(c);
    stage_saved(s, version);
    assert_int_equal(test_open_fds(), fds_before + 1); /* the coded copy is given up */
    stage_unref(s);
    free(data);
}

static void test_not_live(void **state)
{
    (void)state;
    char *data = test_bytes(MIB, 2);
    struct stage *s = new_stage(false);
    write_all(s, data, MIB);
    assert_int_equal(test_open_fds(), fds_before + 1);
    check_code(s, data, MIB);
    check_code(s, data, MIB);
    stage_unref(s);
    free(data);
}

static void test_rewriting_abandons(void **state)
{
    (void)state;
    char *data = test_bytes(MIB, 3);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    wait_for_fds(2);
    data[5] ^= 1;
    write_at(s, data + 5, 1, 5);
    wait_for_fds(1); /* its work is given up at once */
    check_code(s, data, MIB);
    /* as pg_receivewal does: zeros first */
    struct stage *t = new_stage(true);
    char *zeros = calloc(1, MIB);
    assert_non_null(zeros);
    write_all(t, zeros, MIB);
    write_all(t, data, MIB);
    check_code(t, data, MIB);
    stage_unref(s);
    stage_unref(t);
    free(zeros);
    free(data);
}

static void test_hole_is_zeros(void **state)
{
    (void)state;
    char *data = calloc(1, MIB);
    assert_non_null(data);
    memset(data, 'a', 1000);
    memset(data + 500000, 'b', 1000);
    struct stage *s = new_stage(true);
    write_at(s, data, 1000, 0);
    write_at(s, data + 500000, 1000, 500000);
    check_code(s, data, 501000);
    stage_unref(s);
    free(data);
}

static void test_change_after_coding(void **state)
{
    (void)state;
    char *data = test_bytes(2 * MIB, 4);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    check_code(s, data, MIB);
    write_at(s, data + MIB, MIB, MIB); /* an append, but the coder has been told the end */
    check_code(s, data, 2 * MIB);
    data[0] ^= 1;
    write_at(s, data, 1, 0);
    check_code(s, data, 2 * MIB);
    stage_unref(s);
    free(data);
}

static void test_truncating(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char *data = test_bytes(MIB, 5);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    uint64_t version = stage_version(s);
    assert_true(stage_truncate(s, MIB, &err)); /* no change */
    assert_int_equal(stage_version(s), version);
    assert_true(stage_truncate(s, 1000, &err));
    assert_int_not_equal(stage_version(s), version);
    assert_int_equal(stage_size(s), 1000);
    check_code(s, data, 1000);
    assert_true(stage_truncate(s, 5000, &err));
    memset(data + 1000, 0, 4000);
    check_code(s, data, 5000);
    assert_true(stage_truncate(s, 0, &err));
    check_code(s, data, 0);
    assert_false(stage_truncate(s, UINT64_MAX, &err));
    assert_int_equal(stage_size(s), 0);
    stage_unref(s);

    s = new_stage(true); /* preallocated, then written */
    assert_true(stage_truncate(s, MIB, &err));
    assert_true(stage_dirty(s));
    free(data);
    data = test_bytes(MIB, 6);
    write_all(s, data, MIB);
    check_code(s, data, MIB);
    stage_unref(s);
    free(data);
}

static void test_empty(void **state)
{
    (void)state;
    struct stage *s = new_stage(true);
    assert_false(stage_dirty(s));
    assert_int_equal(stage_size(s), 0);
    check_code(s, "", 0);
    stage_unref(s);
    stage_unref(NULL);
    coded_unref(NULL);
}

static void test_dirty(void **state)
{
    (void)state;
    struct stage *s = new_stage(true);
    write_at(s, "a", 1, 0);
    assert_true(stage_dirty(s));
    uint64_t first = stage_version(s);
    write_at(s, "b", 1, 1);
    assert_int_not_equal(stage_version(s), first);
    stage_saved(s, first); /* what was published is older */
    assert_true(stage_dirty(s));
    stage_saved(s, stage_version(s));
    assert_false(stage_dirty(s));
    write_at(s, "c", 1, 0);
    assert_true(stage_dirty(s));
    check_code(s, "cb", 2);
    stage_unref(s);
}

/* ---- the end of the coder ---- */

static void test_abandoning(void **state)
{
    (void)state;
    struct stage *s = new_stage(true);
    write_at(s, "abc", 3, 0);
    wait_for_fds(2);
    stage_abandon(s);
    stage_unref(s);
    wait_for_fds(0);
}

static void test_end_of_the_mount(void **state)
{
    (void)state;
    struct stage *s = new_stage(true);
    write_at(s, "abc", 3, 0);
    wait_for_fds(2);
    cancel_fire(&stop);
    wait_for_fds(1);
    stage_unref(s);
}

static void test_without_threads(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char *data = test_bytes(MIB, 7);
    env.pool = pool_new(0, 1, &err);
    assert_non_null(env.pool);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    check_code(s, data, MIB);
    stage_unref(s);
    pool_free(env.pool);
    free(data);
}

static void test_bounds_of_the_call(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint64_t version;
    struct cancel c;
    char *data = test_bytes(MIB, 8);
    cancel_init(&c);
    cancel_fire(&c);
    struct call call = {.cancel = &c, .deadline_ms = DEADLINE_NONE};
    struct stage *s = new_stage(false);
    write_all(s, data, MIB);
    assert_null(stage_code(s, &version, &call, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    call = (struct call){.deadline_ms = now_ms() - 1};
    assert_null(stage_code(s, &version, &call, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    check_code(s, data, MIB); /* nothing is lost by it */
    cancel_destroy(&c);
    stage_unref(s);
    free(data);
}

/* ---- many threads ---- */

struct part {
    pthread_t thread;
    struct stage *stage;
    const char *data;
    size_t from, n;
    pthread_barrier_t *barrier;
    bool ok;
};

static void *write_part(void *arg)
{
    struct part *p = arg;
    struct err err = ERR_INIT;
    p->ok = true;
    if (p->barrier != NULL)
        pthread_barrier_wait(p->barrier);
    for (size_t at = 0; at < p->n; at += 10000)
        p->ok = p->ok && stage_write(p->stage, p->data + p->from + at,
                                     p->n - at < 10000 ? p->n - at : 10000, p->from + at, &err);
    return NULL;
}

static void *code_part(void *arg)
{
    struct part *p = arg;
    struct err err = ERR_INIT;
    uint64_t version;
    struct coded *c = stage_code(p->stage, &version, &endless, &err);
    p->ok = c != NULL && is_code_of(plain_pgp, c, p->data, p->n);
    coded_unref(c);
    return NULL;
}

static void test_concurrent_writers(void **state)
{
    (void)state;
    enum { WRITERS = 8 };
    char *data = test_bytes(WRITERS * 300000, 9);
    struct stage *s = new_stage(true);
    struct part p[WRITERS];
    for (size_t i = 0; i < WRITERS; i++) {
        p[i] = (struct part){.stage = s, .data = data, .from = i * 300000, .n = 300000};
        assert_int_equal(pthread_create(&p[i].thread, NULL, write_part, &p[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(p[i].thread, NULL);
        assert_true(p[i].ok);
    }
    check_code(s, data, WRITERS * 300000);
    stage_unref(s);
    free(data);
}

static void test_concurrent_coders(void **state)
{
    (void)state;
    enum { CODERS = 8 };
    char *data = test_bytes(MIB, 10);
    for (int live = 0; live < 2; live++) {
        struct stage *s = new_stage(live != 0);
        struct part p[CODERS];
        write_all(s, data, MIB);
        for (size_t i = 0; i < CODERS; i++) {
            p[i] = (struct part){.stage = s, .data = data, .n = MIB};
            assert_int_equal(pthread_create(&p[i].thread, NULL, code_part, &p[i]), 0);
        }
        for (size_t i = 0; i < CODERS; i++) {
            pthread_join(p[i].thread, NULL);
            assert_true(p[i].ok);
        }
        stage_unref(s);
    }
    free(data);
}

/* Two threads append at the same place, so one overwrites the other. Whichever that is: what is
 * coded is what the file holds. */
static void test_two_appends_at_one_place(void **state)
{
    (void)state;
    char *a = test_bytes(20000, 11), *b = test_bytes(20000, 12), *there = malloc(20000);
    assert_non_null(there);
    for (int i = 0; i < 2000; i++) {
        pthread_barrier_t barrier;
        struct stage *s = new_stage(true);
        pthread_barrier_init(&barrier, NULL, 2);
        struct part p[2] = {{.stage = s, .data = a, .n = 20000, .barrier = &barrier},
                            {.stage = s, .data = b, .n = 20000, .barrier = &barrier}};
        for (int k = 0; k < 2; k++)
            assert_int_equal(pthread_create(&p[k].thread, NULL, write_part, &p[k]), 0);
        for (int k = 0; k < 2; k++)
            pthread_join(p[k].thread, NULL);
        pthread_barrier_destroy(&barrier);
        struct err err = ERR_INIT;
        assert_int_equal(spool_read(stage_fd(s), there, 20000, 0, &err), 20000);
        check_code(s, there, 20000);
        stage_unref(s);
    }
    free(a);
    free(b);
    free(there);
}

struct late_seal {
    pthread_t thread;
    struct stage *stage;
    uint64_t version; /* after which it seals */
};

static void *seal_late(void *arg)
{
    struct late_seal *l = arg;
    while (stage_version(l->stage) == l->version)
        cancel_sleep_ms(NULL, 1);
    stage_seal(l->stage);
    return NULL;
}

/* A close of another descriptor seals while the last write is still under way: the coder ends
 * before it, and what it has made is not the file. */
static void test_sealed_during_a_write(void **state)
{
    (void)state;
    enum { LAST = 32 * MIB };
    char *data = test_bytes(MIB + LAST, 16);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    wait_for_fds(2);
    struct late_seal l = {.stage = s, .version = stage_version(s)};
    assert_int_equal(pthread_create(&l.thread, NULL, seal_late, &l), 0);
    write_at(s, data + MIB, LAST, MIB);
    pthread_join(l.thread, NULL);
    check_code(s, data, MIB + LAST);
    stage_unref(s);
    free(data);
}

/* ---- a full disk ---- */

static void test_failed_write(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct err err = ERR_INIT;
    char *data = test_bytes(MIB, 13);
    struct stage *s = new_stage(true);
    write_at(s, data, 200000, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 300000, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool ok = stage_write(s, data + 200000, 200000, 200000, &err);
    bool cut = stage_truncate(s, 400000, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_false(ok);
    assert_false(cut);
    assert_int_equal(err.code, ERR_LOCAL);
    assert_int_equal(stage_size(s), 200000);
    check_code(s, data, 200000);
    write_at(s, data + 200000, 200000, 200000); /* there is room again */
    check_code(s, data, 400000);
    stage_unref(s);
    free(data);
}

static void test_no_directory(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint64_t version;
    char dir[] = "/tmp/walefs-test.XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct stage_env gone = {.pgp = plain_pgp, .pool = pool, .dir = dir, .stop = &stop};
    struct stage *s = stage_new(&gone, false, &err);
    assert_non_null(s);
    write_at(s, "abc", 3, 0);
    assert_int_equal(rmdir(dir), 0);
    assert_null(stage_new(&gone, true, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_null(stage_code(s, &version, &endless, &err));
    assert_int_equal(err.code, ERR_LOCAL);
    assert_int_equal(mkdir(dir, 0700), 0);
    check_code(s, "abc", 3); /* nothing is lost by it */
    stage_unref(s);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- with gpg ---- */

static struct test_home home;
static struct openpgp *encrypting;

static int set_up_gpg(void **state)
{
    static const char *const recipient = "dora@example.org";
    struct err err = ERR_INIT;
    test_home_make(&home);
    test_key(&home, "Dora <dora@example.org>", "");
    struct openpgp_options options = test_options(&home);
    options.recipients = &recipient;
    options.recipient_count = 1;
    options.max_processes = 1;
    encrypting = openpgp_new(&options, &err);
    assert_non_null(encrypting);
    (void)set_up(state);
    env.pgp = encrypting;
    return 0;
}

static int tear_down_gpg(void **state)
{
    cancel_fire(&stop);
    pool_free(pool);
    openpgp_free(encrypting);
    test_home_remove(&home);
    cancel_destroy(&stop);
    openpgp_free(plain_pgp);
    (void)state;
    return 0;
}

static void test_encrypted(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint64_t version;
    char *data = test_bytes(MIB, 14);
    for (int live = 0; live < 2; live++) {
        struct stage *s = new_stage(live != 0);
        write_all(s, data, MIB);
        struct coded *c = stage_code(s, &version, &endless, &err);
        assert_non_null(c);
        unsigned char head[4];
        assert_int_equal(spool_read(c->fd, head, 4, 0, &err), 4);
        assert_true(openpgp_is_message(head, 4));
        assert_true(is_code_of(encrypting, c, data, MIB));
        coded_unref(c);
        stage_unref(s);
    }
    free(data);
}

/* A writer that writes one byte and sleeps must not keep the place that others need. */
static void test_sleeping_writer_holds_nothing_for_ever(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint64_t version;
    char *data = test_bytes(MIB, 15);
    struct stage *sleeper = new_stage(true);
    write_at(sleeper, "x", 1, 0);
    WAIT_FOR(test_gpg_count(home.path) > 0);
    struct stage *s = new_stage(true);
    write_all(s, data, MIB);
    const struct call call = {.deadline_ms = now_ms() + 30000};
    struct coded *c = stage_code(s, &version, &call, &err);
    assert_non_null(c);
    assert_true(is_code_of(encrypting, c, data, MIB));
    coded_unref(c);
    stage_unref(s);
    write_at(sleeper, "y", 1, 1);
    c = stage_code(sleeper, &version, &endless, &err);
    assert_non_null(c);
    assert_true(is_code_of(encrypting, c, "xy", 2));
    coded_unref(c);
    stage_unref(sleeper);
    free(data);
}

static void *release_later(void *arg)
{
    (void)cancel_sleep_ms(arg, 20000);
    openpgp_release(encrypting);
    return NULL;
}

/* A close waits without progress for so long and no longer, also for a place among the gpgs. */
static void test_waiting_for_a_place_is_bounded(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint64_t version;
    pthread_t thread;
    struct cancel done;
    struct progress progress = {.limit_ms = 500, .last_ms = now_ms()};
    const struct call call = {.deadline_ms = DEADLINE_NONE, .progress = &progress};
    cancel_init(&done);
    struct stage *s = new_stage(true);
    /* what the test before has given up may still have it for a moment */
    assert_true(openpgp_reserve(encrypting, OPENPGP_FOREGROUND, &endless, &err));
    assert_int_equal(pthread_create(&thread, NULL, release_later, &done), 0);
    write_at(s, "abc", 3, 0);
    int64_t t0 = now_ms();
    struct coded *c = stage_code(s, &version, &call, &err);
    int64_t took = now_ms() - t0;
    cancel_fire(&done);
    pthread_join(thread, NULL);
    cancel_destroy(&done);
    enum err_code code = c == NULL ? err.code : ERR_NONE;
    coded_unref(c);
    stage_unref(s);
    assert_int_equal(code, ERR_TIMEOUT);
    assert_true(took < 15000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define GPG(f) cmocka_unit_test_setup_teardown(f, set_up_gpg, tear_down_gpg)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_live_coder_follows),
        T(test_not_live),
        T(test_rewriting_abandons),
        T(test_hole_is_zeros),
        T(test_change_after_coding),
        T(test_truncating),
        T(test_empty),
        T(test_dirty),
        T(test_abandoning),
        T(test_end_of_the_mount),
        T(test_without_threads),
        T(test_bounds_of_the_call),
        T(test_concurrent_writers),
        T(test_concurrent_coders),
        T(test_two_appends_at_one_place),
        T(test_sealed_during_a_write),
        T(test_failed_write),
        T(test_no_directory),
        GPG(test_encrypted),
        GPG(test_sleeping_writer_holds_nothing_for_ever),
        GPG(test_waiting_for_a_place_is_bounded),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
