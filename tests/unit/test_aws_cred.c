/* Renewal: who waits, who asks, and what happens when it fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/aws_cred.h"
#include "core/log.h"
#include "tests/unit/store_env.h"

#define THREADS 24

/* A source that gives "id<GENERATION>", and counts. */
struct fake {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned asked;      /* lock */
    unsigned inside;     /* lock */
    bool held;           /* lock: fetches wait */
    unsigned generation; /* lock */
    const char *prefix;  /* lock: of the id */
    int64_t expires_s;   /* lock */
    const char *failure; /* lock; NULL: none */
    bool broken;         /* lock: gives a token that is no header */
};

static struct fake fake;
static struct aws_cred *cred;

static void wake(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&fake.lock);
    fake.held = false;
    pthread_cond_broadcast(&fake.moved);
    pthread_mutex_unlock(&fake.lock);
}

static bool fetch(void *arg, const struct call *call, struct aws_keys *out, struct err *err)
{
    char id[32];
    bool ok = true;
    struct cancel_watch watch;
    (void)arg;
    pthread_mutex_lock(&fake.lock);
    fake.asked++;
    assert_int_equal(fake.inside++, 0);
    pthread_cond_broadcast(&fake.moved);
    pthread_mutex_unlock(&fake.lock);
    cancel_watch(call->cancel, &watch, wake, NULL);
    pthread_mutex_lock(&fake.lock);
    while (fake.held)
        pthread_cond_wait(&fake.moved, &fake.lock);
    pthread_mutex_unlock(&fake.lock);
    cancel_unwatch(call->cancel, &watch);
    pthread_mutex_lock(&fake.lock);
    fake.inside--;
    if (fake.failure != NULL)
        ok = err_set(err, ERR_UNAVAILABLE, "%s", fake.failure);
    int n = snprintf(id, sizeof(id), "%sid%u", fake.prefix, fake.generation);
    out->expires_s = fake.expires_s;
    bool broken = fake.broken;
    pthread_mutex_unlock(&fake.lock);
    return ok && secret_set(&out->id, id, (size_t)n, err) &&
           secret_set(&out->secret, "secret", 6, err) &&
           (!broken || secret_set(&out->token, "a\r\nb: c", 7, err));
}

static int set_up(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    fake = (struct fake){.generation = 1, .prefix = ""};
    pthread_mutex_init(&fake.lock, NULL);
    pthread_cond_init(&fake.moved, NULL);
    const struct aws_source source = {.fetch = fetch};
    cred = aws_cred_new(&source, &err);
    return cred == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    aws_cred_free(cred);
    pthread_cond_destroy(&fake.moved);
    pthread_mutex_destroy(&fake.lock);
    return 0;
}

#define SET(field, value)                 \
    do {                                  \
        pthread_mutex_lock(&fake.lock);   \
        fake.field = (value);             \
        pthread_mutex_unlock(&fake.lock); \
    } while (0)

static unsigned asked(void)
{
    pthread_mutex_lock(&fake.lock);
    unsigned n = fake.asked;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

static void wait_for_asked(unsigned n)
{
    pthread_mutex_lock(&fake.lock);
    while (fake.asked < n)
        pthread_cond_wait(&fake.moved, &fake.lock);
    pthread_mutex_unlock(&fake.lock);
}

static struct aws_credentials *get(const char *id)
{
    struct err err = ERR_INIT;
    struct aws_credentials *c = aws_cred_get(cred, &env_forever, &err);
    if (c == NULL)
        fail_msg("%s", err.text);
    assert_string_equal(c->keys.id.value, id);
    return c;
}

static void get_and_drop(const char *id)
{
    aws_credentials_unref(get(id));
}

static void get_fails(const char *text)
{
    struct err err = ERR_INIT;
    assert_null(aws_cred_get(cred, &env_forever, &err));
    env_assert_error(&err, ERR_FORBIDDEN, text);
}

static void test_without_expiry(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        get_and_drop("id1");
    assert_int_equal(asked(), 1);
}

/* For people: of the key that is in use now. */
static void test_end_of_the_id(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char end[AWS_ID_END] = "none";
    aws_cred_id_end(cred, end);
    assert_string_equal(end, ""); /* none yet */
    struct aws_credentials *old = get("id1");
    aws_cred_id_end(cred, end);
    assert_string_equal(end, ""); /* too short to show so much of it */
    SET(generation, 123456789);
    SET(prefix, "AKIA");
    assert_true(aws_cred_renew(cred, old, &env_forever, &err));
    aws_cred_id_end(cred, end);
    assert_string_equal(end, "6789");
    aws_credentials_unref(old);
}

/* A snapshot stays what it was. */
static void test_snapshot(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_credentials *old = get("id1");
    SET(generation, 2);
    assert_true(aws_cred_renew(cred, old, &env_forever, &err));
    get_and_drop("id2");
    assert_string_equal(old->keys.id.value, "id1");
    /* who comes late with the old ones does not cause another round */
    SET(generation, 3);
    assert_true(aws_cred_renew(cred, old, &env_forever, &err));
    get_and_drop("id2");
    assert_int_equal(asked(), 2);
    aws_credentials_unref(old);
}

/* The first refresh fails, which is told at once, and not asked again at once. */
static void test_failure(void **state)
{
    (void)state;
    SET(failure, "the vault is sealed");
    get_fails("the vault is sealed");
    get_fails("the vault is sealed");
    assert_int_equal(asked(), 1);
    SET(failure, NULL);
    struct err err = ERR_INIT;
    struct aws_credentials *c;
    while ((c = aws_cred_get(cred, &env_forever, &err)) == NULL)
        cancel_sleep_ms(NULL, 20);
    assert_string_equal(c->keys.id.value, "id1");
    aws_credentials_unref(c);
    assert_int_equal(asked(), 2);
}

static void test_unusable(void **state)
{
    (void)state;
    SET(broken, true);
    get_fails("session token has blanks or control bytes");
}

static void test_given_too_late(void **state)
{
    (void)state;
    SET(expires_s, (int64_t)time(NULL) - 100);
    get_fails("clock");
}

/* Makes the current credentials end in so many seconds. */
static void end_in(int64_t seconds)
{
    struct err err = ERR_INIT;
    struct aws_credentials *c = aws_cred_get(cred, &env_forever, &err);
    assert_non_null(c);
    c->keys.expires_s = (int64_t)time(NULL) + seconds;
    aws_credentials_unref(c);
}

/* Minutes before the end a refresh begins, and requests go on with the old ones. */
static void test_early_refresh(void **state)
{
    (void)state;
    SET(expires_s, (int64_t)time(NULL) + 4000);
    get_and_drop("id1");
    get_and_drop("id1");
    assert_int_equal(asked(), 1);
    SET(held, true);
    SET(generation, 2);
    end_in(290);
    get_and_drop("id1");
    wait_for_asked(2);
    get_and_drop("id1");
    wake(NULL);
    struct err err = ERR_INIT;
    struct aws_credentials *c;
    bool renewed = false;
    while (!renewed) {
        c = aws_cred_get(cred, &env_forever, &err);
        assert_non_null(c);
        renewed = strcmp(c->keys.id.value, "id2") == 0;
        aws_credentials_unref(c);
    }
    assert_int_equal(asked(), 2);
}

/* Shortly before the end they wait for it. */
static void test_late_refresh(void **state)
{
    (void)state;
    SET(expires_s, (int64_t)time(NULL) + 4000);
    get_and_drop("id1");
    SET(generation, 2);
    end_in(50);
    get_and_drop("id2");
    assert_int_equal(asked(), 2);
}

/* What is still valid is used when the refresh fails; after its end the reason is told. */
static void test_failing_refresh(void **state)
{
    (void)state;
    SET(expires_s, (int64_t)time(NULL) + 4000);
    get_and_drop("id1");
    SET(failure, "nobody answers");
    end_in(50);
    get_and_drop("id1");
    get_and_drop("id1");
    assert_int_equal(asked(), 2);
    end_in(-1);
    get_fails("nobody answers");
    SET(failure, NULL);
    struct err err = ERR_INIT;
    struct aws_credentials *c;
    while ((c = aws_cred_get(cred, &env_forever, &err)) == NULL)
        cancel_sleep_ms(NULL, 20);
    assert_string_equal(c->keys.id.value, "id1");
    assert_true(c->keys.expires_s > time(NULL));
    aws_credentials_unref(c);
}

/* A short life has its quarter. */
static void test_short_life(void **state)
{
    (void)state;
    SET(expires_s, (int64_t)time(NULL) + 100);
    get_and_drop("id1");
    get_and_drop("id1");
    assert_int_equal(asked(), 1);
    end_in(4);
    SET(generation, 2);
    get_and_drop("id2");
}

/* Refused, and the source has nothing newer: a reason, and a pause. */
static void test_nothing_newer(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct aws_credentials *c = get("id1");
    assert_false(aws_cred_renew(cred, c, &env_forever, &err));
    env_assert_error(&err, ERR_FORBIDDEN, "no newer ones");
    assert_false(aws_cred_renew(cred, c, &env_forever, &err));
    assert_int_equal(asked(), 2);
    get_and_drop("id1"); /* they are still handed out: the store decides */
    SET(generation, 2);
    while (!aws_cred_renew(cred, c, &env_forever, &err))
        cancel_sleep_ms(NULL, 20);
    get_and_drop("id2");
    assert_int_equal(asked(), 3);
    aws_credentials_unref(c);
}

static void *renew_thread(void *arg)
{
    struct err err = ERR_INIT;
    if (!aws_cred_renew(cred, arg, &env_forever, &err))
        return NULL;
    return aws_cred_get(cred, &env_forever, &err);
}

static void test_single_flight(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    struct aws_credentials *old = get("id1");
    SET(generation, 2);
    SET(held, true);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, renew_thread, old), 0);
    wait_for_asked(2);
    wake(NULL);
    for (int i = 0; i < THREADS; i++) {
        void *got;
        assert_int_equal(pthread_join(threads[i], &got), 0);
        assert_non_null(got);
        assert_string_equal(((struct aws_credentials *)got)->keys.id.value, "id2");
        aws_credentials_unref(got);
    }
    assert_int_equal(asked(), 2);
    aws_credentials_unref(old);
}

static void *cancel_thread(void *arg)
{
    wait_for_asked(1);
    cancel_fire(arg);
    return NULL;
}

/* A request that ends does not end the refresh that others wait for. */
static void test_ended_calls(void **state)
{
    (void)state;
    pthread_t thread;
    struct err err = ERR_INIT;
    struct cancel cancel;
    cancel_init(&cancel);
    SET(held, true);
    const struct call cancelled = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    assert_int_equal(pthread_create(&thread, NULL, cancel_thread, &cancel), 0);
    assert_null(aws_cred_get(cred, &cancelled, &err));
    env_assert_error(&err, ERR_CANCELLED, NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
    const struct call late = {.deadline_ms = now_ms() + 30};
    assert_null(aws_cred_get(cred, &late, &err));
    env_assert_error(&err, ERR_TIMEOUT, "AWS credentials");
    wake(NULL);
    get_and_drop("id1");
    assert_int_equal(asked(), 1);
    cancel_destroy(&cancel);
}

/* The end of the mount ends a refresh that hangs. */
static void test_freed_while_refreshing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SET(held, true);
    const struct call late = {.deadline_ms = now_ms() + 30};
    assert_null(aws_cred_get(cred, &late, &err));
    wait_for_asked(1);
    aws_cred_free(cred);
    cred = NULL;
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_without_expiry), T(test_end_of_the_id),
        T(test_snapshot),       T(test_failure),
        T(test_unusable),       T(test_given_too_late),
        T(test_early_refresh),  T(test_late_refresh),
        T(test_short_life),     T(test_failing_refresh),
        T(test_nothing_newer),  T(test_single_flight),
        T(test_ended_calls),    T(test_freed_while_refreshing),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
