/* Time-outs, cancel, failing streams and parallel use. No test depends on speed; the upper bounds
 * only tell "came back" from "hung". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gpgme.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/openpgp_internal.h"
#include "gpg_home.h"

#define ALICE "alice@example.org"
#define SIZE ((size_t)1 << 20)
#define HUNG_MS 10000

static const struct call endless = CALL_INIT;
static struct test_home home;
static struct openpgp *pgp;
static char *plain;
static struct buf coded;
static char *real_gpg;
static size_t fds_before;

static int set_up(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    test_home_make(&home);
    test_key(&home, "Alice <" ALICE ">", "");
    pgp = test_openpgp(&home, ALICE, NULL, &err);
    plain = test_bytes(SIZE, 11);
    real_gpg = strdup(gpgme_get_dirinfo("gpg-name"));
    return pgp == NULL || !test_encrypt(pgp, plain, SIZE, &coded, &err);
}

static int tear_down(void **state)
{
    (void)state;
    openpgp_free(pgp);
    free(plain);
    free(real_gpg);
    buf_free(&coded);
    test_home_remove(&home);
    return 0;
}

static int before_each(void **state)
{
    (void)state;
    fds_before = test_open_fds();
    return 0;
}

/* Whatever happened, nothing is left behind and the next operation works. */
static int after_each(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct buf back;
    if (gpgme_set_engine_info(GPGME_PROTOCOL_OpenPGP, real_gpg, NULL) != 0 ||
        test_open_fds() != fds_before || test_gpg_count_settled(home.path) != 0)
        return -1;
    bool ok = test_decrypt(pgp, coded.data, coded.len, &back, &err) && back.len == SIZE;
    if (!ok)
        print_error("%s\n", err.text);
    buf_free(&back);
    return ok ? 0 : -1;
}

/* ---- a source that does something in the middle ---- */

struct odd_source {
    struct source base;
    const char *data;
    size_t size, pos, step;
    size_t event_at; /* before the read at or behind this position ... */
    void (*event)(struct odd_source *);
    struct cancel *cancel;
    bool fail;
};

static ssize_t odd_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct odd_source *s = (struct odd_source *)self;
    if (s->event != NULL && s->pos >= s->event_at) {
        void (*event)(struct odd_source *) = s->event;
        s->event = NULL;
        event(s);
    }
    if (s->fail) {
        err_set(err, ERR_FROZEN, "source broke");
        return -1;
    }
    if (n > s->step)
        n = s->step;
    if (n > s->size - s->pos)
        n = s->size - s->pos;
    memcpy(buf, s->data + s->pos, n);
    s->pos += n;
    return (ssize_t)n;
}

static struct odd_source odd(const void *data, size_t size, size_t event_at,
                             void (*event)(struct odd_source *))
{
    return (struct odd_source){.base = {.read = odd_read},
                               .data = data,
                               .size = size,
                               .step = 64 * 1024,
                               .event_at = event_at,
                               .event = event};
}

static bool encrypt(struct openpgp *with, struct source *src, struct test_sink *sink,
                    const struct call *call, struct err *err)
{
    assert_true(openpgp_reserve(with, OPENPGP_BACKGROUND, &endless, err));
    bool ok = openpgp_encrypt(with, src, &sink->base, call, err);
    openpgp_release(with);
    return ok;
}

static bool decrypt(struct openpgp *with, struct source *src, struct test_sink *sink,
                    const struct call *call, struct err *err)
{
    assert_true(openpgp_reserve(with, OPENPGP_FOREGROUND, &endless, err));
    bool ok = openpgp_decrypt(with, src, &sink->base, call, err);
    openpgp_release(with);
    return ok;
}

static struct openpgp *with_stall(uint32_t stall_timeout_ms, bool writable)
{
    struct err err = ERR_INIT;
    static const char *const names[] = {ALICE};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = writable ? 1 : 0;
    options.writable = writable;
    struct openpgp *made = openpgp_new(&options, &err);
    if (made == NULL)
        fail_msg("%s", err.text);
    made->stall_timeout_ms = stall_timeout_ms; /* the preflight may take longer */
    return made;
}

/* ---- failing streams ---- */

static void break_source(struct odd_source *s)
{
    s->fail = true;
}

static void failing_source(void **state)
{
    (void)state;
    static const size_t at[] = {0, 100000, SIZE};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, at[i], break_source);
        struct test_sink sink;
        test_sink_init(&sink);
        assert_false(encrypt(pgp, &src.base, &sink, &endless, &err));
        assert_int_equal(err.code, ERR_FROZEN);
        assert_string_equal(err.text, "source broke");
        src = odd(coded.data, coded.len, at[i], break_source);
        err = (struct err)ERR_INIT;
        assert_false(decrypt(pgp, &src.base, &sink, &endless, &err));
        assert_int_equal(err.code, ERR_FROZEN);
        assert_string_equal(err.text, "source broke");
        buf_free(&sink.got);
    }
}

static void failing_sink(void **state)
{
    (void)state;
    static const size_t at[] = {1, 100000};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, 0, NULL);
        struct test_sink sink;
        test_sink_init(&sink);
        sink.fail_at = at[i];
        assert_false(encrypt(pgp, &src.base, &sink, &endless, &err));
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_string_equal(err.text, "sink broke");
        buf_free(&sink.got);
        test_sink_init(&sink);
        sink.fail_at = at[i];
        src = odd(coded.data, coded.len, 0, NULL);
        assert_false(decrypt(pgp, &src.base, &sink, &endless, &err));
        assert_int_equal(err.code, ERR_NO_SPACE);
        buf_free(&sink.got);
    }
}

/* ---- slow is not stalled ---- */

static void sleep_long(struct odd_source *s)
{
    (void)s;
    cancel_sleep_ms(NULL, 2500);
}

static void slow_source(void **state)
{
    (void)state;
    struct openpgp *impatient = with_stall(2000, true);
    struct err err = ERR_INIT;
    struct odd_source src = odd(plain, SIZE, 300000, sleep_long);
    struct test_sink sink;
    test_sink_init(&sink);
    if (!encrypt(impatient, &src.base, &sink, &endless, &err))
        fail_msg("%s", err.text);
    buf_free(&sink.got);
    src = odd(plain, SIZE, 0, sleep_long);
    test_sink_init(&sink);
    if (!encrypt(impatient, &src.base, &sink, &endless, &err))
        fail_msg("%s", err.text);
    openpgp_free(impatient);
    buf_free(&sink.got);
}

static void small_steps(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct odd_source src = odd(plain, 3000, 0, NULL);
    struct test_sink sink;
    struct buf back;
    src.step = 1;
    test_sink_init(&sink);
    assert_true(encrypt(pgp, &src.base, &sink, &endless, &err));
    assert_true(test_decrypt(pgp, sink.got.data, sink.got.len, &back, &err));
    assert_int_equal(back.len, 3000);
    assert_memory_equal(back.data, plain, 3000);
    buf_free(&sink.got);
    buf_free(&back);
}

/* ---- a gpg that hangs ---- */

/* Answers --version (gpgme asks), else runs SCRIPT. */
static void use_fake_gpg(const char *script)
{
    char text[1024], path[128];
    int n =
        snprintf(text, sizeof(text), "#!/bin/sh\n[ \"$1\" = --version ] && exec %s --version\n%s\n",
                 real_gpg, script);
    test_write_file(&home, "fake-gpg", text, (size_t)n);
    (void)snprintf(path, sizeof(path), "%s/fake-gpg", home.path);
    assert_int_equal(gpgme_set_engine_info(GPGME_PROTOCOL_OpenPGP, path, NULL), 0);
    /* contexts that are kept remember the real one */
    gpg_contexts_destroy(&pgp->decrypting);
    gpg_contexts_init(&pgp->decrypting);
}

static void check_stall(const char *script)
{
    struct openpgp *impatient = with_stall(300, true);
    use_fake_gpg(script);
    for (int encrypting = 0; encrypting < 2; encrypting++) {
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, 0, NULL);
        struct test_sink sink;
        test_sink_init(&sink);
        int64_t start = now_ms();
        assert_false(encrypting ? encrypt(impatient, &src.base, &sink, &endless, &err)
                                : decrypt(impatient, &src.base, &sink, &endless, &err));
        assert_true(now_ms() - start >= 300);
        assert_true(now_ms() - start < HUNG_MS);
        if (err.code != ERR_TIMEOUT)
            fail_msg("%s", err.text);
        /* before it returned, not some time later */
        assert_int_equal(test_gpg_count(home.path), 0);
        buf_free(&sink.got);
    }
    openpgp_free(impatient);
}

static void stalled_gpg(void **state)
{
    (void)state;
    check_stall("exec sleep 1000");
}

static void stubborn_gpg(void **state)
{
    (void)state;
    check_stall("trap '' TERM PIPE HUP\nwhile :; do sleep 1000; done");
}

static void stopped_gpg(void **state)
{
    (void)state;
    check_stall("kill -STOP $$");
}

static void stalls_after_reading(void **state)
{
    (void)state;
    check_stall("for a; do :; done\nhead -c 200000 /proc/self/fd/${a#-&} >/dev/null\nsleep 1000");
}

/* Preflight must not hang either. */
static void stalled_preflight(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static const char *const names[] = {ALICE};
    struct openpgp_options options = test_options(&home);
    options.recipients = names;
    options.recipient_count = 1;
    options.stall_timeout_ms = 300;
    use_fake_gpg("exec sleep 1000");
    assert_null(openpgp_new(&options, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
}

/* gpg is killed while it works: an encryption must not look finished, and a decryption must not
 * condemn the object. */
static void kill_gpg(struct odd_source *s)
{
    (void)s;
    char command[256];
    (void)snprintf(command, sizeof(command),
                   "pids=$(pgrep -f '^gpg .*--homedir %s ') && kill -KILL $pids", home.path);
    assert_int_equal(system(command), 0);
}

static void killed_gpg(void **state)
{
    (void)state;
    static const size_t at[] = {0, 500000};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, at[i], kill_gpg);
        struct test_sink sink;
        test_sink_init(&sink);
        assert_false(encrypt(pgp, &src.base, &sink, &endless, &err));
        assert_true(err_transient(err.code));
        assert_non_null(strstr(err.text, "gpg ended"));
        src = odd(coded.data, coded.len, at[i], kill_gpg);
        err = (struct err)ERR_INIT;
        assert_false(decrypt(pgp, &src.base, &sink, &endless, &err));
        if (!err_transient(err.code))
            fail_msg("%s: %s", err_name(err.code), err.text);
        buf_free(&sink.got);
    }
}

/* ---- cancel and deadline ---- */

static void fire(struct odd_source *s)
{
    cancel_fire(s->cancel);
}

static void cancelled_while_working(void **state)
{
    (void)state;
    static const size_t at[] = {0, 500000};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct cancel cancel;
        cancel_init(&cancel);
        struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, at[i], fire);
        src.cancel = &cancel;
        struct test_sink sink;
        test_sink_init(&sink);
        assert_false(encrypt(pgp, &src.base, &sink, &call, &err));
        assert_int_equal(err.code, ERR_CANCELLED);
        /* cancelled before it began */
        err = (struct err)ERR_INIT;
        src = odd(coded.data, coded.len, 0, NULL);
        assert_false(decrypt(pgp, &src.base, &sink, &call, &err));
        assert_int_equal(err.code, ERR_CANCELLED);
        buf_free(&sink.got);
        cancel_destroy(&cancel);
    }
}

static void *fire_later(void *arg)
{
    cancel_sleep_ms(NULL, 100);
    cancel_fire(arg);
    return NULL;
}

static void cancelled_while_gpg_hangs(void **state)
{
    (void)state;
    struct cancel cancel;
    struct err err = ERR_INIT;
    cancel_init(&cancel);
    struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    use_fake_gpg("trap '' TERM PIPE HUP\nwhile :; do sleep 1000; done");
    struct odd_source src = odd(coded.data, coded.len, 0, NULL);
    struct test_sink sink;
    test_sink_init(&sink);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &cancel), 0);
    int64_t start = now_ms();
    assert_false(decrypt(pgp, &src.base, &sink, &call, &err));
    print_message("cancelled a stubborn gpg after 100 ms, back after %lld ms\n",
                  (long long)(now_ms() - start));
    assert_true(now_ms() - start < HUNG_MS);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(test_gpg_count(home.path), 0);
    pthread_join(thread, NULL);
    buf_free(&sink.got);
    cancel_destroy(&cancel);
}

static void *fire_soon(void *arg)
{
    cancel_sleep_ms(NULL, 20);
    cancel_fire(arg);
    return NULL;
}

/* As a source does that watches the same cancel, and in which the cancel finds the operation. */
static void block_until_cancelled(struct odd_source *s)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fire_soon, s->cancel), 0);
    cancel_sleep_ms(s->cancel, 60000);
    s->fail = true;
    pthread_join(thread, NULL);
}

static void cancelled_while_source_blocks(void **state)
{
    (void)state;
    struct cancel cancel;
    struct err err = ERR_INIT;
    cancel_init(&cancel);
    struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    struct odd_source src = odd(plain, SIZE, 200000, block_until_cancelled);
    src.cancel = &cancel;
    struct test_sink sink;
    test_sink_init(&sink);
    int64_t start = now_ms();
    assert_false(encrypt(pgp, &src.base, &sink, &call, &err));
    assert_true(now_ms() - start < HUNG_MS);
    assert_string_equal(err.text, "source broke");
    buf_free(&sink.got);
    cancel_destroy(&cancel);
}

static void deadline(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    use_fake_gpg("exec sleep 1000");
    struct odd_source src = odd(coded.data, coded.len, 0, NULL);
    struct test_sink sink;
    test_sink_init(&sink);
    int64_t start = now_ms();
    const struct call call = {.cancel = NULL, .deadline_ms = start + 200};
    assert_false(decrypt(pgp, &src.base, &sink, &call, &err));
    assert_true(now_ms() - start >= 190);
    assert_true(now_ms() - start < HUNG_MS);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_int_equal(test_gpg_count(home.path), 0);
    buf_free(&sink.got);
}

/* ---- parallel ---- */

static _Atomic unsigned inside, most_inside, failures;

static void *worker(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    size_t size = 20000 + seed * 30011;
    char *data = test_bytes(size, seed);
    for (int i = 0; i < 4; i++) {
        struct err err = ERR_INIT;
        struct odd_source src = odd(data, size, 0, NULL);
        struct test_sink coded_sink, back;
        test_sink_init(&coded_sink);
        test_sink_init(&back);
        bool ok = openpgp_reserve(pgp, seed % 2 ? OPENPGP_FOREGROUND : OPENPGP_BACKGROUND, &endless,
                                  &err);
        unsigned now = atomic_fetch_add(&inside, 1) + 1, most = atomic_load(&most_inside);
        while (now > most && !atomic_compare_exchange_weak(&most_inside, &most, now)) {
        }
        ok = ok && openpgp_encrypt(pgp, &src.base, &coded_sink.base, &endless, &err);
        if (ok) {
            src = odd(coded_sink.got.data, coded_sink.got.len, 0, NULL);
            ok = openpgp_decrypt(pgp, &src.base, &back.base, &endless, &err);
        }
        atomic_fetch_sub(&inside, 1);
        openpgp_release(pgp);
        if (!ok || back.got.len != size || memcmp(back.got.data, data, size) != 0) {
            atomic_fetch_add(&failures, 1);
            print_error("%s\n", err.text);
        }
        buf_free(&coded_sink.got);
        buf_free(&back.got);
    }
    free(data);
    return NULL;
}

static void parallel(void **state)
{
    (void)state;
    pthread_t threads[8];
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)i), 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
    assert_true(most_inside >= 1 && most_inside <= 4);
}

/* Some are cancelled while others work: those must not be hit. */
static void *cancelled_worker(void *arg)
{
    for (int i = 0; i < 6; i++) {
        struct cancel cancel;
        cancel_init(&cancel);
        struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
        struct err err = ERR_INIT;
        struct odd_source src = odd(plain, SIZE, 100000, fire);
        src.cancel = &cancel;
        struct test_sink sink;
        test_sink_init(&sink);
        if (openpgp_reserve(pgp, OPENPGP_BACKGROUND, &endless, &err)) {
            if (openpgp_encrypt(pgp, &src.base, &sink.base, &call, &err) ||
                err.code != ERR_CANCELLED)
                atomic_fetch_add(&failures, 1);
            openpgp_release(pgp);
        }
        buf_free(&sink.got);
        cancel_destroy(&cancel);
    }
    return arg;
}

static void parallel_with_cancels(void **state)
{
    (void)state;
    pthread_t threads[6];
    for (uintptr_t i = 0; i < 6; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i % 2 ? cancelled_worker : worker, (void *)i), 0);
    for (size_t i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
}

#define EACH(f) cmocka_unit_test_setup_teardown(f, before_each, after_each)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(failing_source),
        EACH(failing_sink),
        EACH(slow_source),
        EACH(small_steps),
        EACH(stalled_gpg),
        EACH(stubborn_gpg),
        EACH(stopped_gpg),
        EACH(stalls_after_reading),
        EACH(stalled_preflight),
        EACH(killed_gpg),
        EACH(cancelled_while_working),
        EACH(cancelled_while_gpg_hangs),
        EACH(cancelled_while_source_blocks),
        EACH(deadline),
        EACH(parallel),
        EACH(parallel_with_cancels),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
