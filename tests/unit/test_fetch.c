/* fs/fetch.c over a store in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/metrics.h"
#include "core/spool.h"
#include "core/wal_check.h"
#include "core/wal_name.h"
#include "fs/fetch.h"
#include "gpg_home.h"
#include "mem_store.h"
#include "wait_for.h"

#define MIB (1u << 20)

static struct mem_store *mem;
static struct openpgp *pgp;
static struct pool *pool;
static struct fetcher *fetcher;
static size_t fds_before;
static const struct call endless = CALL_INIT;

/* The monotonic clock of this program can be put forward, to see copies grow old. */
static _Atomic int64_t clock_ahead_s;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    long rc = syscall(SYS_clock_gettime, id, ts);
    if (id == CLOCK_MONOTONIC)
        ts->tv_sec += clock_ahead_s;
    return (int)rc;
}

static void start(uint64_t cache_bytes, unsigned prefetch, unsigned threads)
{
    struct err err = ERR_INIT;
    fds_before = test_open_fds();
    mem = mem_store_new();
    pgp = test_plain_pgp();
    pool = pool_new(threads, 100, &err);
    assert_non_null(pool);
    const struct fetch_options options = {.store = mem_base(mem),
                                          .pgp = pgp,
                                          .pool = pool,
                                          .dir = "/var/tmp",
                                          .cache_bytes = cache_bytes,
                                          .prefetch = prefetch};
    fetcher = fetcher_new(&options, &err);
    assert_non_null(fetcher);
}

static int set_up(void **state)
{
    (void)state;
    start(64 * MIB, 8, 64);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fetcher_stop(fetcher);
    mem_heal(mem);
    pool_free(pool);
    fetcher_free(fetcher);
    openpgp_free(pgp);
    mem_base(mem)->ops->free(mem_base(mem));
    assert_int_equal(test_open_fds(), fds_before);
    clock_ahead_s = 0;
    return 0;
}

static const char *name_of(unsigned i)
{
    static _Thread_local char names[4][WAL_NAME_MAX];
    static _Thread_local unsigned next;
    char *out = names[next++ % 4];
    (void)snprintf(out, WAL_NAME_MAX, "%08X%08X%08X", 1u, i / 4096, i % 4096);
    return out;
}

static const char *key_of(unsigned i)
{
    static _Thread_local char key[STORE_KEY_MAX];
    assert_true(wal_key_of_name(name_of(i), key, sizeof(key)));
    return key;
}

static void archive(unsigned from, unsigned to)
{
    for (unsigned i = from; i <= to; i++)
        mem_archive_segment(mem, name_of(i), MIB, 1);
}

static enum err_code get_code(const char *name)
{
    struct err err = ERR_INIT;
    struct plain *p = fetcher_get(fetcher, name, &endless, &err);
    enum err_code code = p != NULL ? ERR_NONE : err.code;
    assert_true(p != NULL || err.code != ERR_NONE);
    plain_unref(p);
    return code;
}

static bool is_cached(unsigned i)
{
    struct plain *p = fetcher_peek(fetcher, name_of(i));
    bool cached = p != NULL;
    plain_unref(p);
    return cached;
}

/* ---- one fetch ---- */

static void test_content(void **state)
{
    (void)state;
    char *seg = malloc(MIB), *got = malloc(MIB + 1);
    struct err err = ERR_INIT;
    assert_non_null(seg);
    assert_non_null(got);
    test_segment(seg, MIB, name_of(2), 7);
    mem_archive(mem, name_of(2), seg, MIB);
    assert_false(is_cached(2));
    struct plain *p = fetcher_get(fetcher, name_of(2), &endless, &err);
    assert_non_null(p);
    assert_int_equal(p->size, MIB);
    assert_int_equal(spool_read(p->fd, got, MIB + 1, 0, &err), MIB);
    assert_memory_equal(got, seg, MIB);
    assert_string_not_equal(p->info.etag, "");
    assert_true(is_cached(2));
    struct plain *again = fetcher_get(fetcher, name_of(2), &endless, &err);
    assert_ptr_equal(again, p);
    assert_int_equal(mem_calls(mem, MEM_GET), 1);
    plain_unref(again);
    /* what a reader holds stays, whatever happens to the cache */
    fetcher_drop(fetcher, name_of(2));
    assert_false(is_cached(2));
    assert_int_equal(spool_read(p->fd, got, MIB, 0, &err), MIB);
    assert_memory_equal(got, seg, MIB);
    plain_unref(p);
    plain_unref(NULL);
    free(seg);
    free(got);
}

static void test_errors_are_kept_apart_and_forgotten(void **state)
{
    (void)state;
    static const enum err_code codes[] = {
        ERR_FORBIDDEN, ERR_NO_BUCKET, ERR_THROTTLED, ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_CORRUPT,
        ERR_KEY,       ERR_NO_SPACE,  ERR_NO_MEMORY, ERR_LOCAL,       ERR_FROZEN,  ERR_INVALID};
    archive(1, 1);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        mem_fail(mem, i % 2 == 0 ? MEM_GET : MEM_READ, 1, 100, codes[i]);
        assert_int_equal(get_code(name_of(1)), codes[i]);
        assert_false(is_cached(1));
        mem_heal(mem);
        assert_int_equal(get_code(name_of(1)), ERR_NONE);
        fetcher_drop(fetcher, name_of(1));
    }
    assert_int_equal(mem_open_bodies(mem), 0);
}

static void test_damage_is_found_twice(void **state)
{
    (void)state;
    archive(1, 1);
    mem_fail(mem, MEM_READ, 1, 1, ERR_CORRUPT);
    assert_int_equal(get_code(name_of(1)), ERR_NONE);
    fetcher_drop(fetcher, name_of(1));
    mem_fail(mem, MEM_GET, 1, 2, ERR_CORRUPT);
    assert_int_equal(get_code(name_of(1)), ERR_CORRUPT);
}

static void test_absence_is_never_cached(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(get_code(name_of(1)), ERR_ABSENT);
    assert_int_equal(mem_calls(mem, MEM_GET), 3);
    archive(1, 1);
    assert_int_equal(get_code(name_of(1)), ERR_NONE);
}

static void test_no_thread_no_hang(void **state)
{
    (void)state;
    tear_down(NULL);
    start(MIB, 8, 0);
    archive(1, 3);
    assert_int_not_equal(get_code(name_of(1)), ERR_NONE);
    fetcher_ahead(fetcher, name_of(1), MIB);
    assert_int_equal(mem_calls(mem, MEM_GET), 0);
}

/* ---- verification ---- */

static void check_corrupt(const char *name, const void *data, size_t n)
{
    char key[STORE_KEY_MAX];
    assert_true(wal_key_of_name(name, key, sizeof(key)));
    mem_set(mem, key, data, n, NULL, 0);
    assert_int_equal(get_code(name), ERR_CORRUPT);
}

static void test_truncation(void **state)
{
    (void)state;
    size_t n;
    archive(1, 1);
    char *coded = mem_copy(mem, key_of(1), &n);
    for (size_t cut = 0; cut < n; cut += cut < 80 ? 1 : n / 50)
        check_corrupt(name_of(1), coded, cut);
    check_corrupt(name_of(1), coded, n - 1);
    coded = realloc(coded, n + 1);
    assert_non_null(coded);
    coded[n] = 'x';
    check_corrupt(name_of(1), coded, n + 1);
    free(coded);
}

static void test_bit_flips(void **state)
{
    (void)state;
    size_t n;
    char *seg = malloc(MIB), *got = malloc(MIB);
    assert_non_null(seg);
    assert_non_null(got);
    test_segment(seg, MIB, name_of(1), 1);
    archive(1, 1);
    unsigned char *coded = mem_copy(mem, key_of(1), &n);
    for (size_t bit = 0; bit < 8 * n; bit += bit < 8 * 60 ? 1 : n / 20 + 1) {
        struct err err = ERR_INIT;
        coded[bit / 8] ^= (unsigned char)(1u << bit % 8);
        mem_set(mem, key_of(1), coded, n, NULL, 0);
        struct plain *p = fetcher_get(fetcher, name_of(1), &endless, &err);
        if (p == NULL) {
            /* with another first byte it may look like a message without a key */
            assert_true(err.code == ERR_CORRUPT || (bit < 8 && err.code == ERR_KEY));
        } else { /* a bit without meaning: then the content is right */
            assert_int_equal(p->size, MIB);
            assert_int_equal(spool_read(p->fd, got, MIB, 0, &err), MIB);
            assert_memory_equal(got, seg, MIB);
        }
        plain_unref(p);
        fetcher_drop(fetcher, name_of(1));
        coded[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(coded);
    free(seg);
    free(got);
}

static void test_segment_must_be_what_its_header_says(void **state)
{
    (void)state;
    char *seg = malloc(2 * MIB);
    assert_non_null(seg);
    memset(seg, 0, 2 * MIB);
    test_segment(seg, MIB, name_of(1), 1);
    static const size_t sizes[] = {MIB - 1, MIB + 1, 2 * MIB, 40, 39, 1, 0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        mem_archive(mem, name_of(1), seg, sizes[i]);
        assert_int_equal(get_code(name_of(1)), ERR_CORRUPT);
    }
    mem_archive(mem, name_of(1), seg, MIB);
    assert_int_equal(get_code(name_of(1)), ERR_NONE);
    mem_archive(mem, name_of(2), seg, MIB); /* another one's content */
    assert_int_equal(get_code(name_of(2)), ERR_CORRUPT);
    memset(seg, 0, MIB);
    mem_archive(mem, name_of(3), seg, MIB);
    assert_int_equal(get_code(name_of(3)), ERR_CORRUPT);
    /* a .partial and the small files have no such header */
    mem_archive(mem, "000000010000000000000001.partial", seg, 17);
    assert_int_equal(get_code("000000010000000000000001.partial"), ERR_NONE);
    mem_archive(mem, "00000002.history", seg, WAL_TEXT_MAX);
    assert_int_equal(get_code("00000002.history"), ERR_NONE);
    mem_archive(mem, "00000003.history", seg, WAL_TEXT_MAX + 1);
    assert_int_equal(get_code("00000003.history"), ERR_CORRUPT);
    mem_archive(mem, "000000010000000000000001.00000028.backup", seg, WAL_TEXT_MAX + 1);
    assert_int_equal(get_code("000000010000000000000001.00000028.backup"), ERR_CORRUPT);
    check_corrupt(name_of(4), "", 0);
    check_corrupt(name_of(4), "not lzop at all, nor OpenPGP", 28);
    free(seg);
}

static void test_corrupt_error_names_the_object(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    mem_set(mem, key_of(1), "garbage", 7, NULL, 0);
    assert_null(fetcher_get(fetcher, name_of(1), &endless, &err));
    assert_non_null(strstr(err.text, key_of(1)));
}

/* ---- many readers ---- */

struct reader {
    pthread_t thread;
    unsigned index;
    struct cancel cancel;
    struct call call;
    struct plain *plain;
    struct err err;
    _Atomic bool done;
};

static void *read_main(void *arg)
{
    struct reader *r = arg;
    r->plain = fetcher_get(fetcher, name_of(r->index), &r->call, &r->err);
    r->done = true;
    return NULL;
}

static void reader_start(struct reader *r, unsigned index)
{
    *r = (struct reader){.index = index};
    cancel_init(&r->cancel);
    r->call = (struct call){.cancel = &r->cancel, .deadline_ms = DEADLINE_NONE};
    assert_int_equal(pthread_create(&r->thread, NULL, read_main, r), 0);
}

static void reader_join(struct reader *r)
{
    pthread_join(r->thread, NULL);
    cancel_destroy(&r->cancel);
}

enum { MANY = 32 };

static void test_one_fetch_for_all(void **state)
{
    (void)state;
    struct reader r[MANY];
    archive(1, 1);
    mem_hang(mem, MEM_GET);
    for (int i = 0; i < MANY; i++)
        reader_start(&r[i], 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    cancel_sleep_ms(NULL, 50);
    for (int i = 0; i < MANY; i++)
        assert_false(r[i].done);
    mem_heal(mem);
    for (int i = 0; i < MANY; i++) {
        reader_join(&r[i]);
        assert_non_null(r[i].plain);
        assert_ptr_equal(r[i].plain, r[0].plain);
    }
    assert_int_equal(mem_calls(mem, MEM_GET), 1);
    for (int i = 0; i < MANY; i++)
        plain_unref(r[i].plain);
}

static void test_one_failure_for_all(void **state)
{
    (void)state;
    struct reader r[MANY];
    mem_hang(mem, MEM_GET);
    for (int i = 0; i < MANY; i++)
        reader_start(&r[i], 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    mem_heal(mem);
    for (int i = 0; i < MANY; i++) {
        reader_join(&r[i]);
        assert_null(r[i].plain);
        assert_int_equal(r[i].err.code, ERR_ABSENT);
    }
}

static void test_interrupted_reader(void **state)
{
    (void)state;
    struct reader a, b;
    archive(1, 1);
    mem_hang(mem, MEM_GET);
    reader_start(&a, 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    reader_start(&b, 1);
    cancel_fire(&a.cancel);
    reader_join(&a);
    assert_null(a.plain);
    assert_int_equal(a.err.code, ERR_CANCELLED);
    assert_false(b.done);
    mem_heal(mem);
    reader_join(&b);
    assert_non_null(b.plain);
    plain_unref(b.plain);
    assert_int_equal(mem_calls(mem, MEM_GET), 1); /* the fetch has gone on */
}

static void test_fetch_goes_on_without_its_reader(void **state)
{
    (void)state;
    struct reader a;
    archive(1, 1);
    mem_hang(mem, MEM_GET);
    reader_start(&a, 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    cancel_fire(&a.cancel);
    reader_join(&a);
    mem_heal(mem);
    WAIT_FOR(is_cached(1));
}

static void test_deadline(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    archive(1, 1);
    mem_hang(mem, MEM_GET);
    const struct call call = {.deadline_ms = now_ms() + 50};
    assert_null(fetcher_get(fetcher, name_of(1), &call, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
}

static void test_stop_cancels(void **state)
{
    (void)state;
    struct reader a;
    archive(1, 1);
    mem_hang(mem, MEM_READ);
    reader_start(&a, 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    fetcher_stop(fetcher);
    reader_join(&a);
    assert_null(a.plain);
    assert_int_equal(a.err.code, ERR_CANCELLED);
}

static void test_drop_while_fetching(void **state)
{
    (void)state;
    struct reader a;
    struct err err = ERR_INIT;
    archive(1, 1);
    mem_hang(mem, MEM_READ); /* the body is the old one */
    reader_start(&a, 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    fetcher_drop(fetcher, name_of(1));
    mem_archive_segment(mem, name_of(1), MIB, 2);
    mem_heal(mem);
    struct plain *p = fetcher_get(fetcher, name_of(1), &endless, &err);
    assert_non_null(p);
    reader_join(&a);
    assert_non_null(a.plain);
    assert_ptr_not_equal(a.plain, p); /* who asked after the drop gets the new one */
    assert_string_not_equal(a.plain->info.etag, p->info.etag);
    plain_unref(a.plain);
    plain_unref(p);
    assert_int_equal(mem_calls(mem, MEM_GET), 2);
}

/* Promised: how long another host's deletion goes unseen is bounded, also for what is read often.
 */
static void test_copies_grow_old(void **state)
{
    (void)state;
    archive(1, 1);
    assert_int_equal(get_code(name_of(1)), ERR_NONE);
    mem_delete(mem, key_of(1));
    for (int i = 0; i < 10; i++) {
        clock_ahead_s += 60;
        (void)get_code(name_of(1));
    }
    assert_int_equal(get_code(name_of(1)), ERR_ABSENT);
    assert_false(is_cached(1));
}

/* ---- reading ahead ---- */

static void test_reads_ahead(void **state)
{
    (void)state;
    archive(0, 20);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(is_cached(8));
    for (unsigned i = 1; i <= 8; i++)
        WAIT_FOR(is_cached(i));
    cancel_sleep_ms(NULL, 50);
    assert_false(is_cached(9));
    assert_int_equal(mem_calls(mem, MEM_GET), 8);
    fetcher_ahead(fetcher, name_of(1), MIB); /* the reader moves on */
    WAIT_FOR(is_cached(9));
    assert_int_equal(mem_calls(mem, MEM_GET), 9);
}

/* What is read ahead leaves the store, and gpg, to those who wait. */
static void test_few_are_read_ahead_at_once(void **state)
{
    (void)state;
    archive(0, 9);
    mem_hang(mem, MEM_READ);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(mem_hanging(mem) == 3);
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(mem_hanging(mem), 3);
    assert_int_equal(mem_calls(mem, MEM_GET), 3);
    mem_heal(mem);
    for (unsigned i = 1; i <= 8; i++)
        WAIT_FOR(is_cached(i));
}

static _Atomic unsigned beyond_gap;
static char gap_key[STORE_KEY_MAX];

static void watch_gap(void *arg, enum mem_op op, const char *key)
{
    (void)arg;
    if (op == MEM_GET && strcmp(key, gap_key) > 0)
        beyond_gap++;
}

static void watch_for_gap_at(unsigned i)
{
    beyond_gap = 0;
    strcpy(gap_key, key_of(i));
    mem_set_hook(mem, watch_gap, NULL);
}

static void test_stops_at_the_first_gap(void **state)
{
    (void)state;
    archive(0, 3);
    archive(5, 9);
    watch_for_gap_at(4);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(mem_calls(mem, MEM_GET) == 4);
    for (int i = 0; i < 20; i++)
        fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(is_cached(3));
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(beyond_gap, 0);
    mem_set_hook(mem, NULL, NULL);
    archive(4, 4); /* the gap is not remembered */
    assert_int_equal(get_code(name_of(4)), ERR_NONE);
}

/* Whether the next segment exists is not known while the store is being asked for it. */
static void test_does_not_pass_what_is_not_known_yet(void **state)
{
    (void)state;
    archive(2, 9);
    watch_for_gap_at(1);
    mem_hang_key(mem, MEM_GET, gap_key);
    for (int i = 0; i < 5; i++)
        fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(mem_hanging(mem) == 1);
    fetcher_ahead(fetcher, name_of(0), MIB);
    cancel_sleep_ms(NULL, 100);
    assert_int_equal(mem_calls(mem, MEM_GET), 1);
    mem_heal(mem);
    cancel_sleep_ms(NULL, 100);
    assert_int_equal(beyond_gap, 0);
    mem_set_hook(mem, NULL, NULL);
    /* when it turns out to exist, reading ahead goes on behind it */
    archive(1, 1);
    mem_hang_key(mem, MEM_GET, gap_key);
    fetcher_ahead(fetcher, name_of(0), MIB);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(mem_hanging(mem) == 1);
    mem_heal(mem);
    WAIT_FOR(is_cached(8));
}

/* A reader is ahead of the reading ahead: its fetch leads on. */
static void test_goes_on_behind_a_readers_fetch(void **state)
{
    (void)state;
    struct reader a;
    archive(0, 9);
    mem_hang_key(mem, MEM_GET, key_of(1));
    reader_start(&a, 1);
    WAIT_FOR(mem_hanging(mem) == 1);
    fetcher_ahead(fetcher, name_of(0), MIB);
    mem_heal(mem);
    reader_join(&a);
    assert_non_null(a.plain);
    plain_unref(a.plain);
    WAIT_FOR(is_cached(8));
}

static void test_ahead_is_bounded_by_the_cache(void **state)
{
    (void)state;
    tear_down(NULL);
    start(6 * MIB, 8, 16);
    archive(0, 20);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(is_cached(3));
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(mem_calls(mem, MEM_GET), 3);
    fetcher_ahead(fetcher, name_of(10), 16 * MIB); /* no room for one such */
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(mem_calls(mem, MEM_GET), 3);
}

static void test_prefetch_can_be_off(void **state)
{
    (void)state;
    tear_down(NULL);
    start(64 * MIB, 0, 16);
    archive(0, 3);
    fetcher_ahead(fetcher, name_of(0), MIB);
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(mem_calls(mem, MEM_GET), 0);
}

static void test_ahead_ends_with_the_last_name(void **state)
{
    (void)state;
    fetcher_ahead(fetcher, "00000001FFFFFFFF00000FFF", MIB);
    cancel_sleep_ms(NULL, 50);
    assert_int_equal(mem_calls(mem, MEM_GET), 0);
}

static void archive_at_second_get(void *arg, enum mem_op op, const char *key)
{
    unsigned *gets = arg;
    if (op == MEM_GET && strcmp(key, gap_key) == 0 && ++*gets == 2)
        mem_archive_segment(mem, name_of(1), MIB, 1);
}

/* The reading ahead asked too early; the reader who joined it must not be told "absent". */
static void test_failed_prefetch_is_invisible(void **state)
{
    (void)state;
    struct reader a;
    unsigned gets = 0;
    strcpy(gap_key, key_of(1));
    mem_set_hook(mem, archive_at_second_get, &gets);
    mem_hang_key(mem, MEM_GET, gap_key);
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(mem_hanging(mem) == 1);
    reader_start(&a, 1);
    cancel_sleep_ms(NULL, 50); /* most likely it waits for the other's fetch by now */
    mem_heal(mem);
    reader_join(&a);
    mem_set_hook(mem, NULL, NULL);
    assert_non_null(a.plain);
    plain_unref(a.plain);
}

/* ---- the cache's size ---- */

static void test_evicts_what_was_read_first(void **state)
{
    (void)state;
    tear_down(NULL);
    start(4 * MIB, 2, 16);
    archive(0, 20);
    fetcher_ahead(fetcher, name_of(10), MIB); /* 11 and 12: not read yet */
    WAIT_FOR(is_cached(12));
    WAIT_FOR(is_cached(11));
    uint64_t evictions = metrics_count(COUNT_CACHE_EVICTIONS);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(get_code(name_of(i)), ERR_NONE);
        cancel_sleep_ms(NULL, 5); /* the order is kept in milliseconds */
    }
    WAIT_FOR(!is_cached(3)); /* the job evicts after its readers have been woken */
    assert_true(is_cached(11));
    assert_true(is_cached(12));
    assert_true(is_cached(5));
    assert_false(is_cached(1));
    assert_false(is_cached(2));
    assert_int_equal(metrics_count(COUNT_CACHE_EVICTIONS) - evictions, 3);
}

static size_t cached_count(unsigned to)
{
    size_t n = 0;
    for (unsigned i = 0; i <= to; i++)
        n += is_cached(i);
    return n;
}

static void test_cache_stays_within_its_size(void **state)
{
    (void)state;
    tear_down(NULL);
    start(3 * MIB + MIB / 2, 0, 16);
    archive(0, 9);
    for (unsigned i = 0; i <= 9; i++)
        assert_int_equal(get_code(name_of(i)), ERR_NONE);
    WAIT_FOR(cached_count(9) == 3);
}

static void test_no_cache_at_all(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    tear_down(NULL);
    start(0, 8, 16);
    archive(0, 3);
    struct plain *p = fetcher_get(fetcher, name_of(0), &endless, &err);
    assert_non_null(p); /* it is too large for the cache, but served */
    fetcher_ahead(fetcher, name_of(0), MIB);
    WAIT_FOR(!is_cached(0));
    plain_unref(p);
}

/* ---- all at once ---- */

struct stress {
    pthread_t thread;
    unsigned seed;
};

static void *stress_main(void *arg)
{
    struct stress *s = arg;
    unsigned x = s->seed;
    for (int i = 0; i < 150; i++) {
        x = x * 1103515245u + 12345u;
        unsigned what = (x >> 16) % 20, index = (x >> 8) % 12;
        struct err err = ERR_INIT;
        const struct call call = {.deadline_ms = what == 0 ? now_ms() : DEADLINE_NONE};
        struct plain *p;
        if (what == 1) {
            fetcher_drop(fetcher, name_of(index));
        } else if (what == 2) {
            fetcher_ahead(fetcher, name_of(index), MIB);
        } else if (what == 3) {
            mem_fail(mem, MEM_GET, 1, 1, ERR_UNAVAILABLE);
        } else {
            p = fetcher_get(fetcher, name_of(index), &call, &err);
            if (p != NULL) {
                unsigned char head[WAL_HEADER_BYTES];
                struct wal_header h;
                bool right = spool_read(p->fd, head, sizeof(head), 0, &err) == sizeof(head) &&
                             wal_header_parse(head, sizeof(head), &h, &err) &&
                             wal_segment_check(name_of(index), &h, p->size, &err);
                plain_unref(p);
                if (!right)
                    return "wrong content";
            } else if (err.code != ERR_UNAVAILABLE && err.code != ERR_ABSENT &&
                       err.code != ERR_TIMEOUT) {
                return "wrong error";
            } else if (err.code == ERR_ABSENT && index < 10) {
                return "absent, but it is there";
            }
        }
    }
    return NULL;
}

static void test_stress(void **state)
{
    (void)state;
    tear_down(NULL);
    start(5 * MIB, 4, 32);
    archive(0, 9); /* 10 and 11 are not there */
    struct stress s[8];
    for (unsigned i = 0; i < 8; i++) {
        s[i].seed = i * 977 + 1;
        assert_int_equal(pthread_create(&s[i].thread, NULL, stress_main, &s[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        void *complaint;
        pthread_join(s[i].thread, &complaint);
        if (complaint != NULL)
            fail_msg("%s", (const char *)complaint);
    }
    mem_heal(mem);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(get_code(name_of(i)), ERR_NONE);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_content),
        T(test_errors_are_kept_apart_and_forgotten),
        T(test_damage_is_found_twice),
        T(test_absence_is_never_cached),
        T(test_no_thread_no_hang),
        T(test_truncation),
        T(test_bit_flips),
        T(test_segment_must_be_what_its_header_says),
        T(test_corrupt_error_names_the_object),
        T(test_one_fetch_for_all),
        T(test_one_failure_for_all),
        T(test_interrupted_reader),
        T(test_fetch_goes_on_without_its_reader),
        T(test_deadline),
        T(test_stop_cancels),
        T(test_drop_while_fetching),
        T(test_copies_grow_old),
        T(test_reads_ahead),
        T(test_few_are_read_ahead_at_once),
        T(test_stops_at_the_first_gap),
        T(test_does_not_pass_what_is_not_known_yet),
        T(test_goes_on_behind_a_readers_fetch),
        T(test_ahead_is_bounded_by_the_cache),
        T(test_prefetch_can_be_off),
        T(test_ahead_ends_with_the_last_name),
        T(test_failed_prefetch_is_invisible),
        T(test_evicts_what_was_read_first),
        T(test_cache_stays_within_its_size),
        T(test_no_cache_at_all),
        T(test_stress),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
