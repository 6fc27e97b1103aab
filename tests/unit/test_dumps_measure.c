/* Objects below dumps_005/ whose size is not known: read to their end, once, for all who ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/waiter.h"
#include "dumps_env.h"
#include "fs/errno.h"
#include "fs/inode.h"

#define KEY "dumps_005/theirs.lzo"
#define PATIENCE_MS 20000

/* The store as these tests see it: whole reads of KEY are held up until the gate opens. */
static struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    unsigned gets;    /* of KEY, whole */
    unsigned asked;   /* how often its facts were looked for */
    unsigned open_at; /* the gate opens when they have been so often */
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* With the lock held: until COUNT is so high, or for NULL until the gate is open; with a bound, for
 * a test that fails. */
static bool await(const unsigned *count, unsigned at_least)
{
    const struct call bounded = {.deadline_ms = now_ms() + PATIENCE_MS};
    struct waiter w;
    waiter_begin(&w, &bounded, &gate.lock, &gate.changed); /* nothing can cancel it */
    bool waiting = true;
    while ((count != NULL ? *count < at_least : !gate.open) && waiting)
        waiting = waiter_wait(&w);
    waiter_end(&w);
    return waiting;
}

static void watch(void *arg, const char *op, const char *key)
{
    (void)arg;
    pthread_mutex_lock(&gate.lock);
    if (strcmp(op, "list") == 0 && strstr(key, "theirs") != NULL) {
        gate.asked++;
        gate.open = gate.open || gate.asked == gate.open_at;
    }
    if (strcmp(op, "get") == 0 && strcmp(key, KEY) == 0) {
        gate.gets++;
        pthread_cond_broadcast(&gate.changed);
        (void)await(NULL, 0);
    }
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static bool is_open(void)
{
    pthread_mutex_lock(&gate.lock);
    bool open = gate.open;
    pthread_mutex_unlock(&gate.lock);
    return open;
}

static unsigned gets(void)
{
    pthread_mutex_lock(&gate.lock);
    unsigned n = gate.gets;
    pthread_mutex_unlock(&gate.lock);
    return n;
}

static void open_gate(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* An object without facts, and the gate before it, which opens by itself at OPEN_AT (0: never). */
static void put_theirs(bool hard, unsigned open_at)
{
    size_t n;
    assert_ok(do_put_text(the_dumps, "x", "content"), &the_err);
    char *coded = env_get(the_files.store, "dumps_005/x.lzo", &n);
    env_put(the_files.store, KEY, coded, n);
    free(coded);
    do_unmount();
    the_options.hard = hard;
    do_mount(true, true);
    gate.open = false;
    gate.gets = gate.asked = 0;
    gate.open_at = open_at;
    fault_set_hook(the_faults, watch, NULL);
}

/* ---- who asks ---- */

struct asking {
    pthread_t thread;
    struct cancel cancel;
    struct err err;
    uint64_t size;
    bool ok;
};

static void *ask(void *arg)
{
    struct asking *a = arg;
    const struct call call = {.cancel = &a->cancel, .deadline_ms = DEADLINE_NONE};
    struct fs_entry e;
    a->ok = fs_lookup(the_fs, the_dumps, "theirs", ME, &e, &call, &a->err);
    a->size = a->ok ? (uint64_t)e.attr.st_size : 0;
    return NULL;
}

static void start(struct asking *a)
{
    *a = (struct asking){.err = ERR_INIT};
    cancel_init(&a->cancel);
    assert_int_equal(pthread_create(&a->thread, NULL, ask, a), 0);
}

static void join(struct asking *a)
{
    assert_int_equal(pthread_join(a->thread, NULL), 0);
    cancel_destroy(&a->cancel);
}

static void await_first_get(void)
{
    pthread_mutex_lock(&gate.lock);
    bool came = await(&gate.gets, 1);
    pthread_mutex_unlock(&gate.lock);
    assert_true(came);
}

/* ---- */

static void all_who_ask_share_one_read(void **state)
{
    struct asking a[8];
    (void)state;
    put_theirs(true, 8);
    for (size_t i = 0; i < 8; i++)
        start(&a[i]);
    for (size_t i = 0; i < 8; i++) {
        join(&a[i]);
        assert_ok(a[i].ok, &a[i].err);
        assert_int_equal(a[i].size, 7);
    }
    assert_int_equal(gets(), 1);
}

static void who_is_interrupted_does_not_end_it_for_others(void **state)
{
    struct asking first, second;
    (void)state;
    put_theirs(true, 0);
    start(&first);
    await_first_get();
    start(&second);
    cancel_fire(&first.cancel);
    join(&first); /* though the store goes on sending */
    assert_false(first.ok);
    assert_int_equal(fs_errno(&first.err), EINTR);
    assert_false(is_open());
    open_gate();
    join(&second);
    assert_ok(second.ok, &second.err);
    assert_int_equal(second.size, 7);
    assert_int_equal(gets(), 1);
}

/* A soft mount answers in time; the size is found out nevertheless. */
static void a_soft_mount_does_not_wait_for_it(void **state)
{
    (void)state;
    put_theirs(false, 0);
    assert_int_equal(do_look_up(the_dumps, "theirs"), 0);
    assert_int_equal(fs_errno(&the_err), EIO);
    assert_false(is_open());
    open_gate();
    while (do_look_up(the_dumps, "theirs") == 0)
        assert_int_equal(fs_errno(&the_err), EIO);
    assert_int_equal(gets(), 1);
}

/* Longer than one attempt of asking the store may take. */
static void what_takes_long_to_read_is_read_once(void **state)
{
    struct asking a;
    (void)state;
    put_theirs(true, 0);
    start(&a);
    await_first_get();
    (void)usleep(3500000);
    open_gate();
    join(&a);
    assert_ok(a.ok, &a.err);
    assert_int_equal(gets(), 1);
}

/* What failed is not remembered, and is told to all who waited. */
static void a_failed_read_is_made_anew(void **state)
{
    struct asking a;
    (void)state;
    put_theirs(true, 1);
    fault_at(the_faults, 3, FAULT_BEFORE); /* head, facts, and then the object */
    start(&a);
    join(&a);
    assert_ok(a.ok, &a.err);
    assert_true(fault_happened(the_faults));
    assert_int_equal(gets(), 2);
}

/* The mount ends while one is under way. */
static void an_unmount_ends_it(void **state)
{
    struct asking a;
    (void)state;
    put_theirs(true, 0);
    start(&a);
    await_first_get();
    cancel_fire(&a.cancel);
    join(&a);
    assert_false(a.ok);
    fs_stop(the_fs);
    open_gate();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DUMPS_TEST(all_who_ask_share_one_read),
        DUMPS_TEST(who_is_interrupted_does_not_end_it_for_others),
        DUMPS_TEST(a_soft_mount_does_not_wait_for_it),
        DUMPS_TEST(what_takes_long_to_read_is_read_once),
        DUMPS_TEST(a_failed_read_is_made_anew),
        DUMPS_TEST(an_unmount_ends_it),
    };
    waiter_cond_init(&gate.changed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
