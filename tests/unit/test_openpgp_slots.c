/* The places among max_processes: no gpg runs here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "core/openpgp_internal.h"

static const struct call endless = CALL_INIT;

static struct openpgp *with_places(unsigned count)
{
    struct err err = ERR_INIT;
    struct openpgp_options options = {.max_processes = count};
    struct openpgp *pgp = openpgp_new(&options, &err);
    assert_non_null(pgp);
    return pgp;
}

static void counts(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct openpgp *pgp = with_places(3);
    assert_true(openpgp_try_reserve(pgp));
    assert_true(openpgp_reserve(pgp, OPENPGP_BACKGROUND, &endless, &err));
    assert_false(openpgp_try_reserve(pgp)); /* the last one is not for those who only try */
    openpgp_release(pgp);
    assert_true(openpgp_try_reserve(pgp));
    openpgp_release(pgp);
    openpgp_release(pgp);
    openpgp_free(pgp);
    pgp = with_places(0); /* nothing at all would only hang */
    assert_true(openpgp_try_reserve(pgp));
    assert_false(openpgp_try_reserve(pgp));
    openpgp_release(pgp);
    openpgp_free(pgp);
}

static void deadline(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct openpgp *pgp = with_places(1);
    assert_true(openpgp_try_reserve(pgp));
    struct call call = {.cancel = NULL, .deadline_ms = now_ms() + 50};
    assert_false(openpgp_reserve(pgp, OPENPGP_FOREGROUND, &call, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_true(now_ms() >= call.deadline_ms);
    /* already passed: not even with a free place */
    openpgp_release(pgp);
    assert_false(openpgp_reserve(pgp, OPENPGP_FOREGROUND, &call, &err));
    assert_true(openpgp_try_reserve(pgp));
    openpgp_release(pgp);
    openpgp_free(pgp);
}

struct waiter {
    pthread_t thread;
    struct openpgp *pgp;
    enum openpgp_priority priority;
    struct cancel *cancel;
    unsigned position; /* in which it got its place; 0: it did not */
    enum err_code code;
};

static _Atomic unsigned served;

static void *wait_for_place(void *arg)
{
    struct waiter *w = arg;
    struct err err = ERR_INIT;
    struct call call = {.cancel = w->cancel, .deadline_ms = DEADLINE_NONE};
    if (openpgp_reserve(w->pgp, w->priority, &call, &err)) {
        w->position = atomic_fetch_add(&served, 1) + 1;
        openpgp_release(w->pgp);
    }
    w->code = err.code;
    return NULL;
}

static size_t waiting(struct openpgp *pgp)
{
    size_t n = 0;
    pthread_mutex_lock(&pgp->slots.lock);
    for (size_t i = 0; i < 2; i++) {
        /* the tail points at the last waiter's link */
        n += pgp->slots.queues[i].tail != &pgp->slots.queues[i].first;
    }
    pthread_mutex_unlock(&pgp->slots.lock);
    return n;
}

/* Starts a waiter and returns once it stands in its queue. */
static void start(struct waiter *w)
{
    struct slot_queue *queue = &w->pgp->slots.queues[w->priority];
    pthread_mutex_lock(&w->pgp->slots.lock);
    struct slot_waiter **tail = queue->tail;
    pthread_mutex_unlock(&w->pgp->slots.lock);
    assert_int_equal(pthread_create(&w->thread, NULL, wait_for_place, w), 0);
    for (;;) {
        pthread_mutex_lock(&w->pgp->slots.lock);
        bool queued = queue->tail != tail;
        pthread_mutex_unlock(&w->pgp->slots.lock);
        if (queued)
            return;
        cancel_sleep_ms(NULL, 1);
    }
}

static void foreground_first_and_in_order(void **state)
{
    (void)state;
    struct openpgp *pgp = with_places(1);
    struct waiter w[6];
    static const unsigned expected[6] = {4, 1, 5, 2, 3, 6};
    served = 0;
    assert_true(openpgp_try_reserve(pgp));
    for (size_t i = 0; i < 6; i++) {
        w[i] = (struct waiter){
            .pgp = pgp, .priority = expected[i] <= 3 ? OPENPGP_FOREGROUND : OPENPGP_BACKGROUND};
        start(&w[i]);
    }
    assert_int_equal(waiting(pgp), 2);
    openpgp_release(pgp);
    for (size_t i = 0; i < 6; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].position, expected[i]);
    }
    assert_int_equal(waiting(pgp), 0);
    openpgp_free(pgp);
}

static void cancelled(void **state)
{
    (void)state;
    struct openpgp *pgp = with_places(1);
    struct cancel cancel;
    cancel_init(&cancel);
    assert_true(openpgp_try_reserve(pgp));
    served = 0;
    /* the first, the middle and the last of a queue leave it */
    struct waiter w[5];
    for (size_t i = 0; i < 5; i++) {
        w[i] = (struct waiter){
            .pgp = pgp, .priority = OPENPGP_FOREGROUND, .cancel = i % 2 == 0 ? &cancel : NULL};
        start(&w[i]);
    }
    cancel_fire(&cancel);
    for (size_t i = 0; i < 5; i += 2) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].code, ERR_CANCELLED);
        assert_int_equal(w[i].position, 0);
    }
    openpgp_release(pgp);
    pthread_join(w[1].thread, NULL);
    pthread_join(w[3].thread, NULL);
    assert_int_equal(w[1].position, 1);
    assert_int_equal(w[3].position, 2);
    struct err err = ERR_INIT;
    struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    assert_false(openpgp_reserve(pgp, OPENPGP_FOREGROUND, &call, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_true(openpgp_try_reserve(pgp));
    openpgp_release(pgp);
    openpgp_free(pgp);
    cancel_destroy(&cancel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(deadline),
        cmocka_unit_test(foreground_first_and_in_order),
        cmocka_unit_test(cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
