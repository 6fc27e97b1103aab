/* The stream between two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/pipe.h"

#define CAPACITY 4096u
#define SOON_MS 100

static struct err err;
static const struct call endless = CALL_INIT;

static struct pipe *make(void)
{
    struct pipe *p = pipe_new(CAPACITY, &err);
    assert_non_null(p);
    return p;
}

/* Byte I of the stream. */
static unsigned char at(size_t i)
{
    return (unsigned char)(i * 31 + i / 251);
}

struct writer {
    struct sink *sink;
    size_t total, step;
    useconds_t pause_us;
    bool finish, ok;
    struct err err;
};

static void *write_all(void *arg)
{
    struct writer *w = arg;
    unsigned char buf[3 * CAPACITY];
    w->ok = true;
    for (size_t pos = 0; w->ok && pos < w->total;) {
        size_t n = w->total - pos < w->step ? w->total - pos : w->step;
        for (size_t i = 0; i < n; i++)
            buf[i] = at(pos + i);
        w->ok = w->sink->write(w->sink, buf, n, &w->err);
        pos += n;
        if (w->pause_us > 0)
            (void)usleep(w->pause_us);
    }
    if (w->ok && w->finish)
        w->ok = w->sink->finish(w->sink, &w->err);
    sink_close(w->sink);
    return NULL;
}

static void all_bytes_in_order(void **state)
{
    static const size_t writes[] = {1, 100, CAPACITY / 4, CAPACITY, 3 * CAPACITY};
    static const size_t reads[] = {1, 7, CAPACITY / 4 + 1, CAPACITY, 5 * CAPACITY};
    (void)state;
    for (size_t i = 0; i < 25; i++) {
        struct pipe *p = make();
        struct writer w = {
            .sink = pipe_sink(p, &endless), .total = 50001, .step = writes[i / 5], .finish = true};
        struct source *s = pipe_source(p, &endless);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
        unsigned char buf[5 * CAPACITY];
        size_t pos = 0;
        ssize_t n;
        while ((n = s->read(s, buf, reads[i % 5], &err)) > 0)
            for (ssize_t k = 0; k < n; k++)
                assert_int_equal(buf[k], at(pos++));
        assert_int_equal(n, 0);
        assert_int_equal(pos, w.total);
        assert_int_equal(s->read(s, buf, 1, &err), 0);
        source_close(s);
        pthread_join(thread, NULL);
        assert_true(w.ok);
    }
}

/* A reader that was woken by each of them would cost more than what they carry. */
static void small_writes_come_together(void **state)
{
    (void)state;
    struct pipe *p = make();
    struct writer w = {.sink = pipe_sink(p, &endless),
                       .total = CAPACITY,
                       .step = 16,
                       .pause_us = 50,
                       .finish = true};
    struct source *s = pipe_source(p, &endless);
    pthread_t thread;
    unsigned char buf[CAPACITY];
    assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
    unsigned reads = 0;
    while (s->read(s, buf, sizeof(buf), &err) > 0)
        reads++;
    assert_in_range(reads, 1, 4);
    source_close(s);
    pthread_join(thread, NULL);
}

/* But what was asked for is not held back: the reader of 10 bytes gets them without more. */
static void no_more_is_waited_for_than_was_asked(void **state)
{
    (void)state;
    struct pipe *p = make();
    struct sink *k = pipe_sink(p, &endless);
    struct source *s = pipe_source(p, &endless);
    unsigned char buf[CAPACITY] = "0123456789";
    assert_true(k->write(k, buf, 10, &err));
    assert_int_equal(s->read(s, buf, 10, &err), 10);
    assert_true(k->write(k, buf, 10, &err));
    assert_true(k->finish(k, &err));
    assert_int_equal(s->read(s, buf, sizeof(buf), &err), 10); /* nor at the end */
    assert_int_equal(s->read(s, buf, sizeof(buf), &err), 0);
    sink_close(k);
    source_close(s);
}

static void a_writer_that_gives_up_is_no_end(void **state)
{
    (void)state;
    struct pipe *p = make();
    struct sink *k = pipe_sink(p, &endless);
    struct source *s = pipe_source(p, &endless);
    char buf[16];
    assert_true(k->write(k, "abc", 3, &err));
    sink_close(k);
    assert_int_equal(s->read(s, buf, sizeof(buf), &err), 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s->read(s, buf, sizeof(buf), &err), -1);
        assert_int_equal(err.code, ERR_CANCELLED);
    }
    source_close(s);
}

static void a_writer_learns_why_its_reader_left(void **state)
{
    (void)state;
    for (int with_reason = 0; with_reason < 2; with_reason++) {
        struct pipe *p = make();
        struct writer w = {
            .sink = pipe_sink(p, &endless), .total = 100 * CAPACITY, .step = CAPACITY};
        struct source *s = pipe_source(p, &endless);
        pthread_t thread;
        char buf[16];
        assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
        assert_true(s->read(s, buf, sizeof(buf), &err) > 0);
        struct err why = ERR_INIT;
        err_set(&why, ERR_FORBIDDEN, "not allowed");
        if (with_reason)
            pipe_fail(p, &why);
        source_close(s);
        pthread_join(thread, NULL);
        assert_false(w.ok);
        assert_int_equal(w.err.code, with_reason ? ERR_FORBIDDEN : ERR_CANCELLED);
    }
}

static void waiting_ends_with_the_call(void **state)
{
    (void)state;
    struct pipe *p = make();
    struct call soon = {.deadline_ms = now_ms() + SOON_MS};
    struct sink *k = pipe_sink(p, &soon);
    struct source *s = pipe_source(p, &soon);
    char buf[2 * CAPACITY];
    memset(buf, 0, sizeof(buf));
    assert_int_equal(s->read(s, buf, 1, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_false(k->write(k, buf, sizeof(buf), &err)); /* more than fits */
    assert_int_equal(err.code, ERR_TIMEOUT);
    sink_close(k);
    source_close(s);
}

static void *fire(void *cancel)
{
    (void)usleep(SOON_MS * 1000);
    cancel_fire(cancel);
    return NULL;
}

static void waiting_ends_when_it_is_cancelled(void **state)
{
    (void)state;
    struct cancel cancel;
    cancel_init(&cancel);
    struct call call = CALL_INIT;
    call.cancel = &cancel;
    struct pipe *p = make();
    struct sink *k = pipe_sink(p, &call);
    struct source *s = pipe_source(p, &call);
    pthread_t thread;
    char buf[2 * CAPACITY];
    memset(buf, 0, sizeof(buf));
    assert_int_equal(pthread_create(&thread, NULL, fire, &cancel), 0);
    assert_false(k->write(k, buf, sizeof(buf), &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    pthread_join(thread, NULL);
    sink_close(k);
    source_close(s);
    cancel_destroy(&cancel);
}

static void *await_half(void *arg)
{
    return pipe_await(arg, CAPACITY / 2, &endless) ? arg : NULL;
}

/* What waits for half of it is told whether there will be more. */
static void waiting_for_enough(void **state)
{
    static const char bytes[CAPACITY];
    (void)state;
    for (int ends = 0; ends < 3; ends++) {
        struct pipe *p = make();
        struct sink *in = pipe_sink(p, &endless);
        struct source *out = pipe_source(p, &endless);
        pthread_t thread;
        void *over;
        assert_int_equal(pthread_create(&thread, NULL, await_half, p), 0);
        assert_true(in->write(in, bytes, CAPACITY / 2 - 1, &err));
        if (ends == 0)
            assert_true(in->write(in, bytes, 1, &err));
        if (ends == 1)
            assert_true(in->finish(in, &err));
        if (ends == 2)
            sink_close(in);
        pthread_join(thread, &over);
        assert_int_equal(over != NULL, ends > 0);
        if (ends < 2)
            sink_close(in);
        source_close(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bytes_in_order),
        cmocka_unit_test(small_writes_come_together),
        cmocka_unit_test(no_more_is_waited_for_than_was_asked),
        cmocka_unit_test(a_writer_that_gives_up_is_no_end),
        cmocka_unit_test(a_writer_learns_why_its_reader_left),
        cmocka_unit_test(waiting_ends_with_the_call),
        cmocka_unit_test(waiting_ends_when_it_is_cancelled),
        cmocka_unit_test(waiting_for_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
