/* Decoded partitions: what is read is right, costs no more than it must, and nothing that failed
 * its verification is handed out. */
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

#include "core/codec.h"
#include "core/log.h"
#include "fs/partition.h"
#include "gpg_home.h"
#include "mem_store.h"

#define MIB (1u << 20)
#define PLAIN (40u * MIB + 12345)
#define HELD_FROM (PLAIN - 3u * MIB) /* the last byte of the last member, say */
#define USER "partition@example.org"

static struct test_home home;
static struct err err;
static const struct call endless = CALL_INIT;

/* One partition in a store, twice: as it is and encrypted. */
static char *plain;
static struct buf coded[2];
static struct codec_facts facts[2];

struct env {
    struct mem_store *mem;
    struct openpgp *pgp;
    struct pool *pool;
    struct partition_cache *cache;
};

static _Atomic(const struct partition *) damaged;
static _Atomic unsigned damage_calls;

static void on_damage(void *arg, const struct partition *p)
{
    (void)arg;
    damaged = p;
    damage_calls++;
}

static int make_objects(void **state)
{
    char fpr[64];
    (void)state;
    test_home_make(&home);
    test_key(&home, USER, "");
    test_fpr(&home, USER, fpr);
    plain = test_bytes(PLAIN, 9);
    for (size_t i = MIB; i < PLAIN; i++) /* half of it compresses */
        if (i / 100000 % 2 == 0)
            plain[i] = (char)(i / 77);
    for (int i = 0; i < 2; i++) {
        struct test_sink out;
        struct openpgp *pgp = i == 0 ? test_plain_pgp() : test_openpgp(&home, fpr, NULL, &err);
        test_sink_init(&out);
        struct source *src = source_mem(plain, PLAIN, &err);
        if (!codec_encode(pgp, src, &out.base, false, &facts[i], &endless, &err))
            fail_msg("%s", err.text);
        source_close(src);
        coded[i] = out.got;
        openpgp_free(pgp);
    }
    return 0;
}

static int drop_objects(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        buf_free(&coded[i]);
        lzop_map_free(&facts[i].map);
    }
    free(plain);
    test_home_remove(&home);
    return 0;
}

static struct env begin(uint64_t cache_bytes)
{
    struct env e = {.mem = mem_store_new(), .pool = pool_new(16, 50, &err)};
    e.pgp = test_openpgp(&home, NULL, NULL, &err);
    const struct partition_cache_options options = {.store = mem_base(e.mem),
                                                    .pgp = e.pgp,
                                                    .pool = e.pool,
                                                    .dir = "/var/tmp",
                                                    .cache_bytes = cache_bytes,
                                                    .damaged = on_damage};
    damage_calls = 0;
    damaged = NULL;
    e.cache = partition_cache_new(&options, &err);
    assert_non_null(e.cache);
    for (int i = 0; i < 2; i++)
        for (int n = 1; n <= 2; n++) {
            char key[16];
            (void)snprintf(key, sizeof(key), "%s%d", i == 0 ? "plain" : "gpg", n);
            mem_set(e.mem, key, coded[i].data, coded[i].len, NULL, 0);
        }
    err = (struct err)ERR_INIT;
    return e;
}

static void end(struct env *e)
{
    partition_cache_stop(e->cache);
    pool_free(e->pool);
    partition_cache_free(e->cache);
    openpgp_free(e->pgp);
    assert_int_equal(mem_open_bodies(e->mem), 0);
    mem_base(e->mem)->ops->free(mem_base(e->mem));
}

/* What the index would say of KEY's object as it is now. */
static struct index_partition index_of(struct env *e, const char *key, int kind)
{
    struct index_partition p = {.encrypted = kind == 1, .map = facts[kind].map};
    struct store_info info;
    struct store *store = mem_base(e->mem);
    assert_true(store->ops->head(store, key, &info, &endless, &err));
    strcpy(p.etag, info.etag);
    p.stored_size = info.size;
    return p;
}

static struct partition *open_alone(struct env *e, int kind, const struct index_partition *index)
{
    const struct partition_source source = {
        .object = {.key = kind == 0 ? "plain1" : "gpg1", .index = index, .held_from = HELD_FROM}};
    struct partition *part = partition_open(e->cache, &source, &err);
    assert_non_null(part);
    return part;
}

static struct partition *open_it(struct env *e, int kind)
{
    const char *key = kind == 0 ? "plain1" : "gpg1", *next_key = kind == 0 ? "plain2" : "gpg2";
    const struct index_partition p = index_of(e, key, kind), next = index_of(e, next_key, kind);
    const struct partition_source source = {
        .object = {.key = key, .index = &p, .held_from = HELD_FROM},
        .next = {.key = next_key, .index = &next, .held_from = HELD_FROM}};
    struct partition *part = partition_open(e->cache, &source, &err);
    assert_non_null(part);
    return part;
}

/* Reads SIZE bytes at OFFSET and compares; false with err. */
static bool check(struct partition *p, uint64_t offset, size_t size)
{
    struct partition_pin *pin;
    int fd;
    size_t got;
    if (!partition_read(p, offset, size, &fd, &got, &pin, &endless, &err))
        return false;
    size_t want = offset >= PLAIN ? 0 : size < PLAIN - offset ? size : (size_t)(PLAIN - offset);
    assert_int_equal(got, want);
    char *buf = malloc(got + 1);
    assert_int_equal(pread(fd, buf, got, (off_t)offset), got);
    partition_done(pin);
    assert_true(memcmp(buf, plain + offset, got) == 0);
    free(buf);
    return true;
}

static void must_check(struct partition *p, uint64_t offset, size_t size)
{
    if (!check(p, offset, size))
        fail_msg("%zu bytes at %llu: %s", size, (unsigned long long)offset, err.text);
}

static unsigned opened(struct env *e)
{
    return mem_calls(e->mem, MEM_GET);
}

static void front_to_back_is_fetched_once(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct env e = begin(512u * MIB);
        struct partition *p = open_it(&e, kind);
        size_t step = 128u << 10;
        for (uint64_t at = 0; at < PLAIN; at += step)
            must_check(p, at, step);
        must_check(p, PLAIN, 100);
        must_check(p, PLAIN + 12345, 100);
        /* An encrypted one is one body; a plain one comes in pieces, which never overlap. The next
         * partition is on its way by now. */
        unsigned first = opened(&e);
        assert_in_range(first, 1, kind == 0 ? 12 : 2);
        for (uint64_t at = 0; at < PLAIN; at += 5 * MIB)
            must_check(p, at, step);
        assert_in_range(opened(&e), 1, first + 1);
        partition_close(p);
        end(&e);
    }
}

static _Atomic unsigned gets_of_next;

static void count_next(void *arg, enum mem_op op, const char *key)
{
    (void)arg;
    if (op == MEM_GET && (strcmp(key, "plain2") == 0 || strcmp(key, "gpg2") == 0))
        gets_of_next++;
}

/* Not for who looks into one only; and who has read it to its end finds the next one under way. */
static void the_next_one_comes_before_the_end(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct env e = begin(512u * MIB);
        struct partition *p = open_it(&e, kind);
        gets_of_next = 0;
        mem_set_hook(e.mem, count_next, NULL);
        must_check(p, 0, MIB);
        must_check(p, 4u * MIB, MIB);
        (void)usleep(100000);
        assert_int_equal(gets_of_next, 0);
        for (uint64_t at = 0; at < PLAIN - 2 * MIB; at += MIB)
            must_check(p, at, MIB);
        for (unsigned n = 0; gets_of_next == 0; n++) {
            assert_true(n < 10000);
            (void)usleep(1000);
        }
        mem_set_hook(e.mem, NULL, NULL);
        partition_close(p);
        end(&e);
    }
}

static void the_middle_of_a_plain_one_is_read_by_range(void **state)
{
    (void)state;
    struct env e = begin(512u * MIB);
    struct partition *p = open_it(&e, 0);
    must_check(p, 3u * MIB + 17, 1000);
    (void)usleep(200000); /* whatever a stream fetches ahead */
    assert_in_range(mem_calls(e.mem, MEM_READ), 1, 200);
    assert_int_equal(opened(&e), 1);
    partition_close(p);
    end(&e);
}

static void any_place_in_any_order(void **state)
{
    (void)state;
    unsigned x = 4711;
    struct env e = begin(512u * MIB);
    struct partition *p = open_it(&e, 0);
    for (int i = 0; i < 200; i++) {
        x = x * 1103515245u + 12345u;
        uint64_t at = (uint64_t)x % (PLAIN + 1000);
        must_check(p, at, x % 300000);
    }
    partition_close(p);
    end(&e);
}

/* Room for less than what a reader wants ahead: slower, but right, and it ends. */
static void a_small_cache_is_enough(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct env e = begin(2u * MIB);
        struct partition *p = open_it(&e, kind);
        for (uint64_t at = 0; at < PLAIN; at += MIB)
            must_check(p, at, MIB);
        /* what the stream's head start costs of so small a cache depends on who is faster; but not
         * each read begins anew */
        assert_in_range(opened(&e), 1, kind == 0 ? 60 : PLAIN / MIB / 2);
        must_check(p, 0, MIB); /* which is gone, and comes again */
        partition_close(p);
        end(&e);
    }
}

/* Until its streams wait for a reader. */
static void let_it_rest(struct env *e)
{
    for (unsigned seen = 0; seen != mem_calls(e->mem, MEM_READ); (void)usleep(50000))
        seen = mem_calls(e->mem, MEM_READ);
}

/* Who begins far inside an encrypted one finds the cache full of what lies before: that goes, and
 * not the block that is half read, for which all would be decoded again. */
static void what_is_being_read_stays(void **state)
{
    (void)state;
    struct env e = begin(3u * MIB);
    struct partition *p = open_it(&e, 1);
    const uint64_t half = 128u << 10;
    must_check(p, 5u * MIB, half);
    let_it_rest(&e);
    for (uint64_t at = 5u * MIB; at < 7u * MIB; at += half) {
        must_check(p, at, half);
        let_it_rest(&e);
    }
    assert_int_equal(opened(&e), 1);
    partition_close(p);
    end(&e);
}

static void *read_all(void *arg)
{
    struct partition *p = arg;
    for (uint64_t at = 0; at < PLAIN; at += 512u << 10)
        must_check(p, at, 512u << 10);
    return NULL;
}

static void several_readers_share_one_stream(void **state)
{
    (void)state;
    struct env e = begin(512u * MIB);
    struct partition *p = open_it(&e, 1);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, p), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(opened(&e), 1, 2);
    partition_close(p);
    end(&e);
}

struct wanderer {
    struct partition *p;
    uint64_t from;
};

/* From somewhere to the end, and then what lies before. */
static void *read_from(void *arg)
{
    const struct wanderer *w = arg;
    for (uint64_t at = w->from; at < PLAIN; at += 256u << 10)
        must_check(w->p, at, 256u << 10);
    for (uint64_t at = 0; at < w->from; at += 256u << 10)
        must_check(w->p, at, 256u << 10);
    return NULL;
}

/* Whoever begins where, of a partition that has random access no part comes twice. */
static void what_is_there_is_not_fetched_again(void **state)
{
    static const uint64_t from[4] = {17u * MIB, 0, 25u * MIB, 9u * MIB};
    unsigned reads[6];
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct env e = begin(512u * MIB);
        struct wanderer w[4];
        pthread_t threads[4];
        struct partition *p = open_it(&e, 0);
        w[0] = (struct wanderer){p, 0};
        if (i == 1) /* what lies in the middle first */
            for (uint64_t at = 17u * MIB; at < 30u * MIB; at += MIB)
                must_check(p, at, MIB);
        if (i < 2)
            read_from(&w[0]);
        for (int k = 0; i >= 2 && k < 4; k++) {
            w[k] = (struct wanderer){p, from[k]};
            assert_int_equal(pthread_create(&threads[k], NULL, read_from, &w[k]), 0);
        }
        for (int k = 0; i >= 2 && k < 4; k++)
            pthread_join(threads[k], NULL);
        let_it_rest(&e); /* the next one is on its way as well */
        reads[i] = mem_calls(e.mem, MEM_READ);
        if (reads[i] > reads[0] + reads[0] / 10)
            fail_msg("%u reads instead of %u in run %d", reads[i], reads[0], i);
        partition_close(p);
        end(&e);
    }
}

static void damage_is_never_handed_out(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        for (int where = 0; where < 3; where++) {
            struct env e = begin(512u * MIB);
            const char *key = kind == 0 ? "plain1" : "gpg1";
            char *bad = malloc(coded[kind].len);
            memcpy(bad, coded[kind].data, coded[kind].len);
            size_t at = where == 0   ? coded[kind].len / 2
                        : where == 1 ? coded[kind].len - 30
                                     : coded[kind].len * 9 / 10;
            bad[at] ^= 4;
            mem_set(e.mem, key, bad, coded[kind].len, NULL, 0);
            struct partition *p = open_it(&e, kind);
            bool failed = false;
            for (uint64_t pos = 0; !failed && pos < PLAIN; pos += MIB)
                failed = !check(p, pos, MIB); /* what is read before that is right */
            assert_true(failed);
            assert_int_equal(err.code, ERR_CORRUPT);
            assert_false(check(p, 0, 100)); /* nor is anything else of it believed */
            assert_int_equal(err.code, ERR_CORRUPT);
            partition_close(p);
            free(bad);
            end(&e);
        }
    }
}

/* Where the cache makes the difference: of a large partition the end is held back, of a small one
 * all. */
#define LARGE_CACHE (1024u * MIB)
#define SMALL_CACHE (256u * MIB)

/* The last bytes of an encrypted object are its integrity check. Whoever reads what is held back
 * never has it from an object that fails, be the verdict as late as it may. */
static void the_end_is_never_served_before_the_verdict(void **state)
{
    (void)state;
    char *bad = malloc(coded[1].len);
    memcpy(bad, coded[1].data, coded[1].len);
    bad[coded[1].len - 1] ^= 1;
    for (int i = 0; i < 12; i++) {
        struct env e = begin(i % 2 == 0 ? SMALL_CACHE : LARGE_CACHE);
        mem_set(e.mem, "gpg1", bad, coded[1].len, NULL, 0);
        struct partition *p = open_it(&e, 1);
        assert_true(partition_check(p, &err));
        if (i % 2 == 0) /* what comes before it is served as it comes */
            for (uint64_t pos = 0; pos < HELD_FROM - MIB && check(p, pos, MIB); pos += MIB) {
            }
        assert_false(check(p, HELD_FROM, 1));
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_false(check(p, 0, 1));
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_false(partition_check(p, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        for (unsigned n = 0; damage_calls == 0; n++) {
            assert_true(n < 10000);
            (void)usleep(1000);
        }
        assert_ptr_equal(damaged, p);
        partition_close(p);
        end(&e);
        assert_int_equal(damage_calls, 1);
    }
    free(bad);
}

struct last_read {
    _Atomic unsigned reads, stop_at;
    _Atomic bool stopped;
};

static void on_read(void *arg, enum mem_op op, const char *key)
{
    struct last_read *l = arg;
    if (op != MEM_READ || strcmp(key, "gpg1") != 0)
        return;
    if (++l->reads != l->stop_at)
        return;
    l->stopped = true;
    while (l->stopped)
        (void)usleep(1000);
}

/* The object's last bytes have not come yet. */
static void what_is_held_back_waits(void **state)
{
    (void)state;
    struct last_read l = {0};
    for (int i = 0; i < 3; i++) {
        struct env e = begin(i < 2 ? SMALL_CACHE : LARGE_CACHE);
        struct partition *p = open_it(&e, 1);
        struct partition_pin *pin;
        int fd;
        size_t got;
        l.stop_at = i == 0 ? 0 : l.reads; /* how many there are is counted first */
        l.reads = 0;
        mem_set_hook(e.mem, on_read, &l);
        if (i < 2)
            for (uint64_t pos = 0; pos < HELD_FROM - MIB; pos += MIB)
                must_check(p, pos, MIB);
        if (i > 0) {
            bool stopped = false; /* it is asked for once more when all but the end is decoded */
            for (unsigned n = 0; n < 2; n += stopped) {
                const struct call soon = {.deadline_ms = now_ms() + 200};
                stopped = l.stopped;
                assert_false(
                    partition_read(p, i == 1 ? HELD_FROM : 0, 1, &fd, &got, &pin, &soon, &err));
                assert_int_equal(err.code, ERR_TIMEOUT);
            }
            l.stopped = false;
        }
        must_check(p, HELD_FROM, MIB);
        must_check(p, PLAIN - 1, 1);
        must_check(p, 0, 1);
        assert_true(partition_verified(p));
        mem_set_hook(e.mem, NULL, NULL);
        partition_close(p);
        end(&e);
        assert_int_equal(damage_calls, 0);
    }
}

static void rest_before_last(void *arg, enum mem_op op, const char *key)
{
    struct last_read *l = arg;
    (void)key;
    if (op == MEM_READ && ++l->reads == l->stop_at)
        (void)usleep(300000); /* all that came before is decoded by then */
}

/* A stream that decoded the end and did not come to the verdict: its blocks are nobody's, and what
 * comes next decides. */
static void the_end_of_a_stream_that_failed_is_not_served(void **state)
{
    (void)state;
    unsigned last = 0;
    char *bad = malloc(coded[1].len);
    memcpy(bad, coded[1].data, coded[1].len);
    bad[coded[1].len - 1] ^= 1;
    for (int i = 0; i < 3; i++) {
        struct env e = begin(LARGE_CACHE);
        if (i == 2)
            mem_set(e.mem, "gpg1", bad, coded[1].len, NULL, 0);
        const struct index_partition index = index_of(&e, "gpg1", 1);
        struct partition *p = open_alone(&e, 1, &index);
        if (i == 0) { /* how many reads there are is counted first */
            must_check(p, HELD_FROM, MIB);
            last = mem_calls(e.mem, MEM_READ);
        } else {
            struct last_read l = {.stop_at = last};
            mem_set_hook(e.mem, rest_before_last, &l);
            mem_fail(e.mem, MEM_READ, last, 1, ERR_UNAVAILABLE);
            assert_false(check(p, HELD_FROM, MIB));
            assert_int_equal(err.code, ERR_UNAVAILABLE);
            assert_int_equal(check(p, HELD_FROM, MIB), i == 1);
            assert_int_equal(err.code, i == 1 ? ERR_UNAVAILABLE : ERR_CORRUPT);
            assert_int_equal(opened(&e), 2);
            mem_set_hook(e.mem, NULL, NULL);
        }
        partition_close(p);
        end(&e);
    }
    free(bad);
}

/* A reader that holds what it was given keeps it; DAMAGED is told when it has let go. */
static void readers_are_done_before_damage_is_told(void **state)
{
    (void)state;
    struct env e = begin(SMALL_CACHE);
    struct partition_pin *pin;
    int fd;
    size_t got;
    char *bad = malloc(coded[1].len), first[100];
    memcpy(bad, coded[1].data, coded[1].len);
    bad[coded[1].len - 1] ^= 1;
    mem_set(e.mem, "gpg1", bad, coded[1].len, NULL, 0);
    struct partition *p = open_it(&e, 1);
    assert_true(partition_read(p, 0, sizeof(first), &fd, &got, &pin, &endless, &err));
    assert_false(check(p, PLAIN - 1, 1));
    (void)usleep(100000);
    assert_int_equal(damage_calls, 0);
    assert_int_equal(pread(fd, first, got, 0), sizeof(first));
    assert_memory_equal(first, plain, sizeof(first));
    partition_done(pin);
    for (unsigned n = 0; damage_calls == 0; n++) {
        assert_true(n < 10000);
        (void)usleep(1000);
    }
    partition_close(p);
    free(bad);
    end(&e);
}

/* The kernel may keep what is known to be sound. */
static void verified_when_the_end_has_come(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct env e = begin(512u * MIB);
        struct partition *p = open_it(&e, kind);
        must_check(p, 0, 100);
        assert_int_equal(partition_verified(p), kind == 0);
        for (uint64_t at = 0; at < PLAIN; at += MIB)
            must_check(p, at, MIB);
        for (unsigned i = 0; !partition_verified(p); i++) {
            assert_true(i < 10000);
            (void)usleep(1000);
        }
        partition_close(p);
        end(&e);
    }
}

/* Its end is not there, or is not the end. Of a plain one each block stands for itself, and may
 * have been read before that is found; of an encrypted one nothing. */
static void another_length_than_the_index_says(void **state)
{
    static const int more[] = {100, 3 << 20, -100, -(3 << 20)};
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct env e = begin(LARGE_CACHE);
        int kind = i / 4;
        bool shorter = more[i % 4] > 0;
        struct index_partition index = index_of(&e, kind == 0 ? "plain1" : "gpg1", kind);
        struct partition_pin *pin = NULL;
        int fd;
        size_t got;
        const struct call soon = {.deadline_ms = now_ms() + 60000};
        index.map.regular = false; /* such as is only decoded from its start */
        index.map.plain_size = (uint64_t)((int64_t)PLAIN + more[i % 4]);
        struct partition *p = open_alone(&e, kind, &index);
        if (partition_read(p, index.map.plain_size - 1, 1, &fd, &got, &pin, &soon, &err)) {
            assert_true(kind == 0 && !shorter);
            partition_done(pin);
        }
        for (unsigned n = 0; partition_check(p, &err); n++) {
            assert_true(n < 10000);
            (void)usleep(1000);
        }
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.text, shorter ? "is shorter than its" : "is longer than its"));
        assert_false(partition_verified(p));
        assert_false(check(p, 0, 1));
        partition_close(p);
        end(&e);
    }
}

static void another_object_under_the_key_is_not_mixed_in(void **state)
{
    (void)state;
    struct env e = begin(512u * MIB);
    struct partition *p = open_it(&e, 0);
    mem_set(e.mem, "plain1", coded[0].data, coded[0].len, NULL, 0);
    assert_false(check(p, 0, 100));
    assert_int_equal(err.code, ERR_STALE);
    partition_close(p);
    end(&e);
}

static void a_failure_of_the_store_is_tried_again(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct env e = begin(512u * MIB);
        struct partition *p = open_it(&e, kind);
        mem_fail(e.mem, MEM_GET, 1, 1, ERR_UNAVAILABLE);
        assert_false(check(p, 0, 100));
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        must_check(p, 0, 100);
        mem_fail(e.mem, MEM_READ, 1, 1, ERR_UNAVAILABLE);
        (void)check(p, 39u * MIB, 100);
        mem_heal(e.mem);
        must_check(p, 39u * MIB, 100);
        partition_close(p);
        end(&e);
    }
}

static void a_reader_can_be_interrupted(void **state)
{
    (void)state;
    struct env e = begin(512u * MIB);
    struct partition *p = open_it(&e, 0);
    struct partition_pin *pin;
    int fd;
    size_t got;
    const struct call soon = {.deadline_ms = now_ms() + 200};
    mem_hang(e.mem, MEM_GET);
    assert_false(partition_read(p, 0, 100, &fd, &got, &pin, &soon, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_string_equal(err.text, "plain1 is still on its way");
    struct cancel cancel;
    cancel_init(&cancel);
    cancel_fire(&cancel);
    const struct call interrupted = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    assert_false(partition_read(p, 0, 100, &fd, &got, &pin, &interrupted, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    cancel_destroy(&cancel);
    mem_heal(e.mem);
    must_check(p, 0, 100);
    partition_close(p);
    end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(front_to_back_is_fetched_once),
        cmocka_unit_test(the_next_one_comes_before_the_end),
        cmocka_unit_test(the_middle_of_a_plain_one_is_read_by_range),
        cmocka_unit_test(any_place_in_any_order),
        cmocka_unit_test(a_small_cache_is_enough),
        cmocka_unit_test(what_is_being_read_stays),
        cmocka_unit_test(several_readers_share_one_stream),
        cmocka_unit_test(what_is_there_is_not_fetched_again),
        cmocka_unit_test(damage_is_never_handed_out),
        cmocka_unit_test(the_end_is_never_served_before_the_verdict),
        cmocka_unit_test(what_is_held_back_waits),
        cmocka_unit_test(the_end_of_a_stream_that_failed_is_not_served),
        cmocka_unit_test(readers_are_done_before_damage_is_told),
        cmocka_unit_test(verified_when_the_end_has_come),
        cmocka_unit_test(another_length_than_the_index_says),
        cmocka_unit_test(another_object_under_the_key_is_not_mixed_in),
        cmocka_unit_test(a_failure_of_the_store_is_tried_again),
        cmocka_unit_test(a_reader_can_be_interrupted),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, make_objects, drop_objects);
}
