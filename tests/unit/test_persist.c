/* fs/persist.c: what waits, what does not, and how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/log_ring.h"
#include "fs/persist.h"

struct script {
    unsigned calls;
    unsigned fail_first; /* so many calls fail */
    enum err_code code;
    int64_t latest_deadline_ms;
    struct cancel *fire; /* during the first call */
};

static bool attempt(void *arg, const struct call *call, struct err *err)
{
    struct script *s = arg;
    s->calls++;
    s->latest_deadline_ms = call->deadline_ms;
    if (s->fire != NULL)
        cancel_fire(s->fire);
    return s->calls > s->fail_first || err_set(err, s->code, "attempt %u", s->calls);
}

static const struct persistence hard = {.hard = true};
static const struct call endless = CALL_INIT;

static const enum err_code waits[] = {ERR_FORBIDDEN,   ERR_NO_BUCKET, ERR_THROTTLED,
                                      ERR_UNAVAILABLE, ERR_TIMEOUT,   ERR_KEY,
                                      ERR_NO_SPACE,    ERR_NO_MEMORY, ERR_LOCAL};
static const enum err_code answers[] = {ERR_ABSENT,      ERR_EXISTS,  ERR_CANCELLED,
                                        ERR_CORRUPT,     ERR_INVALID, ERR_DENIED,
                                        ERR_UNSUPPORTED, ERR_FROZEN,  ERR_NONE};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void test_success_at_once(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct script s = {.fail_first = 0};
    assert_true(persist(&hard, "x", &endless, attempt, &s, &err));
    assert_int_equal(s.calls, 1);
    assert_int_equal(err.code, ERR_NONE);
}

static void test_what_waiting_does_not_change(void **state)
{
    (void)state;
    const struct persistence soft = {.soft_timeout_ms = 10000};
    for (size_t i = 0; i < COUNT(answers); i++) {
        struct err err = ERR_INIT;
        struct script s = {.fail_first = 1000, .code = answers[i]};
        assert_false(persist(&hard, "x", &endless, attempt, &s, &err));
        assert_int_equal(s.calls, 1);
        assert_int_equal(err.code, answers[i]);
        s.calls = 0;
        assert_false(persist(&soft, "x", &endless, attempt, &s, &err));
        assert_int_equal(s.calls, 1);
        assert_int_equal(err.code, answers[i]);
    }
}

static void test_hard_waits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(waits); i++) {
        struct err err = ERR_INIT;
        struct script s = {.fail_first = 1, .code = waits[i]};
        assert_true(persist(&hard, "x", &endless, attempt, &s, &err));
        assert_int_equal(s.calls, 2);
    }
    struct err err = ERR_INIT;
    struct script s = {.fail_first = 4, .code = ERR_FORBIDDEN};
    assert_true(persist(&hard, "x", &endless, attempt, &s, &err));
    assert_int_equal(s.calls, 5);
}

static void test_soft_gives_up(void **state)
{
    (void)state;
    const struct persistence soft = {.soft_timeout_ms = 300};
    for (size_t i = 0; i < COUNT(waits); i++) {
        struct err err = ERR_INIT;
        struct script s = {.fail_first = 1000000, .code = waits[i]};
        int64_t t0 = now_ms();
        assert_false(persist(&soft, "wal/X", &endless, attempt, &s, &err));
        assert_true(now_ms() - t0 >= 300);
        assert_int_equal(err.code, ERR_TIMEOUT); /* EIO, whatever it waited for */
        assert_true(s.calls >= 2);
        assert_true(s.latest_deadline_ms <= t0 + 300 + 30000);
    }
}

static void test_bounds_are_handed_down(void **state)
{
    (void)state;
    const struct persistence soft = {.soft_timeout_ms = 1000000};
    struct err err = ERR_INIT;
    struct script s = {.fail_first = 0};
    struct call call = {.deadline_ms = now_ms() + 50};
    assert_true(persist(&soft, "x", &call, attempt, &s, &err));
    assert_true(s.latest_deadline_ms <= call.deadline_ms);
    s = (struct script){.fail_first = 1000000, .code = ERR_UNAVAILABLE};
    assert_false(persist(&hard, "x", &call, attempt, &s, &err));
    assert_true(err_transient(err.code)); /* the caller sees that it was not an answer */
    assert_true(now_ms() >= call.deadline_ms);
}

static void test_cancel_during_an_attempt(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct cancel c;
    cancel_init(&c);
    const struct call call = {.cancel = &c, .deadline_ms = DEADLINE_NONE};
    struct script s = {.fail_first = 1000000, .code = ERR_UNAVAILABLE, .fire = &c};
    assert_false(persist(&hard, "x", &call, attempt, &s, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(s.calls, 1);
    cancel_destroy(&c);
}

/* How often the log has TEXT. */
static unsigned logged(const char *text)
{
    char *all;
    size_t n;
    unsigned times = 0;
    FILE *out = open_memstream(&all, &n);
    log_ring_print(out);
    fclose(out);
    for (const char *at = all; (at = strstr(at, text)) != NULL; at++)
        times++;
    free(all);
    return times;
}

struct waiting {
    unsigned calls;
    const char *text; /* is in the log from the second call on */
};

static bool attempt_waiting(void *arg, const struct call *call, struct err *err)
{
    struct waiting *w = arg;
    (void)call;
    assert_int_equal(logged(w->text), w->calls > 0);
    return ++w->calls > 2 || err_set(err, ERR_NO_SPACE, "attempt %u", w->calls);
}

static void test_the_log_says_for_what(void **state)
{
    (void)state;
    const struct persistence soft = {.soft_timeout_ms = 100000};
    struct err err = ERR_INIT;
    struct waiting w = {.text = "warning: wal/A: waiting: attempt 1 op=wait path=wal/A"};
    assert_true(persist(&hard, "wal/A", &endless, attempt_waiting, &w, &err));
    assert_int_equal(logged("info: wal/A: answered after waiting "), 1);
    w = (struct waiting){.text = "warning: wal/B: waiting (soft): attempt 1 op=wait path=wal/B"};
    assert_true(persist(&soft, "wal/B", &endless, attempt_waiting, &w, &err));
    assert_int_equal(logged("info: wal/B: answered after waiting "), 1);
    struct script s = {.fail_first = 0};
    assert_true(persist(&hard, "wal/C", &endless, attempt, &s, &err));
    assert_int_equal(logged("wal/C"), 0);
}

static void *fire_later(void *arg)
{
    cancel_sleep_ms(NULL, 1000); /* in one of the longer pauses */
    cancel_fire(arg);
    return NULL;
}

static void test_cancel_during_a_pause(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    pthread_t thread;
    struct cancel c;
    cancel_init(&c);
    const struct call call = {.cancel = &c, .deadline_ms = DEADLINE_NONE};
    struct script s = {.fail_first = 1000000, .code = ERR_THROTTLED};
    assert_int_equal(pthread_create(&thread, NULL, fire_later, &c), 0);
    int64_t t0 = now_ms();
    assert_false(persist(&hard, "x", &call, attempt, &s, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_true(now_ms() - t0 < 30000);
    assert_true(s.calls >= 2);
    pthread_join(thread, NULL);
    cancel_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success_at_once),
        cmocka_unit_test(test_what_waiting_does_not_change),
        cmocka_unit_test(test_hard_waits),
        cmocka_unit_test(test_soft_gives_up),
        cmocka_unit_test(test_the_log_says_for_what),
        cmocka_unit_test(test_bounds_are_handed_down),
        cmocka_unit_test(test_cancel_during_an_attempt),
        cmocka_unit_test(test_cancel_during_a_pause),
    };
    log_setup(0, 0, LOG_LEVEL_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
