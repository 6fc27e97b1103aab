/* core/codec.c with real gpg keys and the tools that WAL-E's users have at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "core/codec.h"
#include "core/lzop.h"
#include "gpg_home.h"

#define MAX_BYTES ((size_t)64 << 20)

static struct test_home home;        /* with a secret key */
static struct test_home public_home; /* with its public part only */
static struct openpgp *encrypting, *reading, *keyless;
static const struct call endless = CALL_INIT;

static struct openpgp *open_pgp(const struct test_home *where, const char *recipient)
{
    struct err err = ERR_INIT;
    struct openpgp_options options = test_options(where);
    options.recipients = &recipient;
    options.recipient_count = recipient == NULL ? 0 : 1;
    options.max_processes = 1; /* so that a place that is not given back is missed */
    options.writable = recipient != NULL;
    struct openpgp *pgp = openpgp_new(&options, &err);
    if (pgp == NULL)
        print_error("%s\n", err.text);
    return pgp;
}

static int set_up(void **state)
{
    (void)state;
    if (system("lzop --version > /dev/null") != 0) {
        print_error("the lzop tool is needed: apt install lzop\n");
        return -1;
    }
    test_home_make(&home);
    test_home_make(&public_home);
    test_key(&home, "Carol <carol@example.org>", "");
    test_copy_public(&home, &public_home, "carol@example.org");
    encrypting = open_pgp(&home, "carol@example.org");
    reading = open_pgp(&home, NULL);
    keyless = open_pgp(&public_home, NULL);
    return encrypting == NULL || reading == NULL || keyless == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    openpgp_free(encrypting);
    openpgp_free(reading);
    openpgp_free(keyless);
    test_home_remove(&home);
    test_home_remove(&public_home);
    return 0;
}

/* ---- streams that count and fail ---- */

struct end_sink {
    struct sink base;
    struct buf got;
    size_t fail_after;
    bool fail_finish;
    int finished, closed;
};

static bool end_sink_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct end_sink *s = (struct end_sink *)self;
    if (n > s->fail_after || s->got.len > s->fail_after - n)
        return err_set(err, ERR_NO_SPACE, "test sink is full");
    assert_true(buf_append(&s->got, data, n));
    return true;
}

static bool end_sink_finish(struct sink *self, struct err *err)
{
    struct end_sink *s = (struct end_sink *)self;
    s->finished++;
    return !s->fail_finish || err_set(err, ERR_LOCAL, "test sink cannot finish");
}

static void end_sink_close(struct sink *self)
{
    ((struct end_sink *)self)->closed++;
}

static struct end_sink new_sink(void)
{
    return (struct end_sink){
        .base = {.write = end_sink_write, .finish = end_sink_finish, .close = end_sink_close},
        .got = BUF_INIT(MAX_BYTES),
        .fail_after = SIZE_MAX,
    };
}

struct end_source {
    struct source base;
    const struct buf *data;
    size_t pos, fail_at;
    int closed;
};

static ssize_t end_source_read(struct source *self, void *data, size_t n, struct err *err)
{
    struct end_source *s = (struct end_source *)self;
    if (s->pos >= s->fail_at) {
        err_set(err, ERR_UNAVAILABLE, "test source breaks");
        return -1;
    }
    size_t left = s->data->len - s->pos;
    n = n < left ? n : left;
    n = n < 5000 ? n : 5000;
    if (n > 0)
        memcpy(data, s->data->data + s->pos, n);
    s->pos += n;
    return (ssize_t)n;
}

static void end_source_close(struct source *self)
{
    ((struct end_source *)self)->closed++;
}

static struct end_source new_source(const struct buf *data)
{
    return (struct end_source){
        .base = {.read = end_source_read, .close = end_source_close},
        .data = data,
        .fail_at = SIZE_MAX,
    };
}

/* ---- operations on memory ---- */

struct outcome {
    bool ok;
    struct err err;
    struct buf got;
};

struct faults {
    size_t source_fails_at, sink_fails_after; /* 0: never */
    bool finish_fails, live;
    const struct call *call; /* NULL: endless */
};

static struct outcome run(struct openpgp *pgp, const struct buf *in, bool encode,
                          const struct faults *faults)
{
    struct outcome o = {.err = ERR_INIT};
    struct end_source src = new_source(in);
    struct end_sink sink = new_sink();
    const struct call *call = faults->call != NULL ? faults->call : &endless;
    if (faults->source_fails_at > 0)
        src.fail_at = faults->source_fails_at;
    if (faults->sink_fails_after > 0)
        sink.fail_after = faults->sink_fails_after;
    sink.fail_finish = faults->finish_fails;
    o.ok = encode
               ? codec_encode(pgp, &src.base, &sink.base, faults->live, NULL, call, &o.err)
               : codec_decode(pgp, &src.base, &sink.base, OPENPGP_FOREGROUND, NULL, call, &o.err);
    assert_int_equal(sink.finished, o.ok || faults->finish_fails ? 1 : 0);
    assert_int_equal(src.closed, 0);
    assert_int_equal(sink.closed, 0);
    assert_true(o.ok == (o.err.code == ERR_NONE));
    o.got = sink.got;
    return o;
}

static const struct faults no_faults;

static struct buf encode(struct openpgp *pgp, const struct buf *plain)
{
    struct outcome o = run(pgp, plain, true, &no_faults);
    if (!o.ok)
        fail_msg("%s", o.err.text);
    return o.got;
}

static void assert_decodes(struct openpgp *pgp, const struct buf *coded, const struct buf *plain)
{
    struct outcome o = run(pgp, coded, false, &no_faults);
    if (!o.ok)
        fail_msg("%s", o.err.text);
    assert_int_equal(o.got.len, plain->len);
    assert_memory_equal(buf_str(&o.got), buf_str(plain), plain->len);
    buf_free(&o.got);
}

static void place_is_free(struct openpgp *pgp)
{
    assert_true(openpgp_try_reserve(pgp));
    openpgp_release(pgp);
}

static void assert_fails(struct openpgp *pgp, const struct buf *in, bool encoding,
                         const struct faults *faults, enum err_code code)
{
    struct outcome o = run(pgp, in, encoding, faults);
    if (o.err.code != code)
        fail_msg("%s (%s) instead of %s", err_name(o.err.code), o.err.text, err_name(code));
    buf_free(&o.got);
    place_is_free(pgp);
}

/* Half noise, half text, so that there are stored and compressed blocks. */
static struct buf make_plain(size_t n)
{
    struct buf b = BUF_INIT(MAX_BYTES);
    char *noise = test_bytes(n, 7);
    assert_true(buf_append(&b, noise, n));
    for (size_t i = n / 2; i < n; i++)
        b.data[i] = "WAL record "[i % 11];
    free(noise);
    return b;
}

static void sh_in_home(const char *command)
{
    char line[1024];
    (void)snprintf(line, sizeof(line), "cd '%s' && { %s; } 2>sh.log", home.path, command);
    int status = system(line);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: status %d", command, status);
}

static struct buf read_home_file(const char *name)
{
    struct buf b = BUF_INIT(MAX_BYTES);
    test_read_file(&home, name, &b);
    return b;
}

#define GPG "gpg --homedir . --batch --yes -q --trust-model always "

/* ---- good paths ---- */

static const size_t sizes[] = {0, 1, 5000, 256 * 1024, 256 * 1024 + 1, 5 << 20};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

static void test_without_a_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        struct buf plain = make_plain(sizes[i]), coded = encode(reading, &plain);
        assert_true(lzop_is_magic(coded.data, coded.len));
        assert_decodes(reading, &coded, &plain);
        assert_decodes(encrypting, &coded, &plain);
        assert_decodes(keyless, &coded, &plain);
        buf_free(&plain);
        buf_free(&coded);
    }
}

static void test_with_a_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        struct buf plain = make_plain(sizes[i]), coded = encode(encrypting, &plain);
        assert_false(lzop_is_magic(coded.data, coded.len));
        assert_true(openpgp_is_message(coded.data, coded.len));
        assert_decodes(encrypting, &coded, &plain);
        assert_decodes(reading, &coded, &plain);
        buf_free(&plain);
        buf_free(&coded);
    }
}

static void test_tools_read_ours(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        struct buf plain = make_plain(sizes[i]);
        struct buf open = encode(reading, &plain), sealed = encode(encrypting, &plain);
        test_write_file(&home, "plain", buf_str(&plain), plain.len);
        test_write_file(&home, "open", open.data, open.len);
        test_write_file(&home, "sealed", sealed.data, sealed.len);
        sh_in_home("lzop -dc < open | cmp - plain");
        sh_in_home(GPG "-d < sealed | lzop -dc | cmp - plain");
        buf_free(&plain);
        buf_free(&open);
        buf_free(&sealed);
    }
}

static void test_tools_output_is_read(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "lzop -c plain > coded",
        "lzop -9 --crc32 < plain > coded",
        "lzop -c plain | " GPG "-e -z 0 -r carol@example.org > coded", /* WAL-E's */
        "lzop -c plain | " GPG "-e -r carol@example.org > coded",
        "lzop < plain > x && " GPG "-e -z 0 -r carol@example.org -o coded x",
    };
    struct buf plain = make_plain(1000000);
    test_write_file(&home, "plain", plain.data, plain.len);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        sh_in_home(commands[i]);
        struct buf coded = read_home_file("coded");
        assert_decodes(encrypting, &coded, &plain);
        assert_decodes(reading, &coded, &plain);
        buf_free(&coded);
    }
    buf_free(&plain);
}

static void test_live_encode(void **state)
{
    (void)state;
    const struct faults live = {.live = true};
    struct buf plain = make_plain(300000);
    struct outcome o = run(encrypting, &plain, true, &live);
    assert_true(o.ok);
    assert_decodes(encrypting, &o.got, &plain);
    buf_free(&o.got);
    buf_free(&plain);
}

/* ---- what is no object of ours ---- */

static void assert_bytes_corrupt(const void *bytes, size_t n)
{
    struct buf coded = BUF_INIT(MAX_BYTES);
    assert_true(buf_append(&coded, bytes, n));
    assert_fails(reading, &coded, false, &no_faults, ERR_CORRUPT);
    buf_free(&coded);
}

static void test_neither_openpgp_nor_lzop(void **state)
{
    (void)state;
    static const char xml[] = "<?xml version=\"1.0\"?><Error/>";
    static const char lzop[] = "\x89LZO\0\r\n\x1a\n";
    assert_bytes_corrupt("", 0);
    assert_bytes_corrupt(xml, sizeof(xml) - 1);
    assert_bytes_corrupt("x", 1);
    assert_bytes_corrupt("\0\0\0\0\0\0\0\0\0\0", 10);
    assert_bytes_corrupt("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
    for (size_t n = 1; n <= LZOP_MAGIC_SIZE; n++)
        assert_bytes_corrupt(lzop, n);
    struct buf plain = make_plain(1000);
    assert_bytes_corrupt(plain.data, plain.len);
    buf_free(&plain);
}

static void test_something_else_inside_openpgp(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "printf '' | " GPG "-e -z 0 -r carol@example.org > coded",
        "printf 'no lzop at all, just text' | " GPG "-e -z 0 -r carol@example.org > coded",
        "{ lzop -c plain; echo more; } | " GPG "-e -z 0 -r carol@example.org > coded",
        "lzop -c plain | head -c 5000 | " GPG "-e -z 0 -r carol@example.org > coded",
        "lzop -c plain | " GPG "-e -z 0 -r carol@example.org | " GPG
        "-e -z 0 -r carol@example.org > coded",
    };
    struct buf plain = make_plain(100000);
    test_write_file(&home, "plain", plain.data, plain.len);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        sh_in_home(commands[i]);
        struct buf coded = read_home_file("coded");
        assert_fails(reading, &coded, false, &no_faults, ERR_CORRUPT);
        buf_free(&coded);
    }
    buf_free(&plain);
}

/* ---- damage ---- */

static void test_truncated(void **state)
{
    (void)state;
    struct buf plain = make_plain(20000);
    struct buf open = encode(reading, &plain), sealed = encode(encrypting, &plain);
    size_t whole = open.len;
    for (size_t n = 0; n < whole; n += n < 100 || n > whole - 100 ? 1 : 97) {
        open.len = n;
        assert_fails(reading, &open, false, &no_faults, ERR_CORRUPT);
    }
    whole = sealed.len;
    for (size_t n = 300; n<whole; n += n> whole - 30 ? 7 : 2003) {
        sealed.len = n;
        assert_fails(reading, &sealed, false, &no_faults, ERR_CORRUPT);
    }
    /* what breaks off inside the first packets may look like a key problem, but never whole */
    for (size_t n = 1; n < 300; n += 41) {
        sealed.len = n;
        struct outcome o = run(reading, &sealed, false, &no_faults);
        assert_false(o.ok);
        buf_free(&o.got);
    }
    place_is_free(reading);
    buf_free(&plain);
    buf_free(&open);
    buf_free(&sealed);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    struct buf plain = make_plain(20000), sealed = encode(encrypting, &plain);
    for (size_t i = 0; i < sealed.len; i += i < 400 ? 37 : 1511) {
        sealed.data[i] = (char)(sealed.data[i] ^ 4);
        struct outcome o = run(reading, &sealed, false, &no_faults);
        if (o.ok)
            fail_msg("a flipped bit at %zu went unseen", i);
        if (i >= 400)
            assert_int_equal(o.err.code, ERR_CORRUPT);
        buf_free(&o.got);
        sealed.data[i] = (char)(sealed.data[i] ^ 4);
    }
    place_is_free(reading);
    assert_decodes(reading, &sealed, &plain);
    buf_free(&plain);
    buf_free(&sealed);
}

static void test_no_secret_key(void **state)
{
    (void)state;
    struct buf plain = make_plain(1000), sealed = encode(encrypting, &plain);
    assert_fails(keyless, &sealed, false, &no_faults, ERR_KEY);
    buf_free(&plain);
    buf_free(&sealed);
}

/* ---- ends of the chain that fail ---- */

static void test_failing_ends(void **state)
{
    (void)state;
    struct buf plain = make_plain(600000);
    struct openpgp *const pgps[] = {reading, encrypting};
    for (size_t i = 0; i < 2; i++) {
        struct buf coded = encode(pgps[i], &plain);
        for (int encoding = 0; encoding < 2; encoding++) {
            const struct buf *in = encoding ? &plain : &coded;
            const struct faults source = {.source_fails_at = 200000};
            const struct faults sink = {.sink_fails_after = 300000};
            const struct faults finish = {.finish_fails = true};
            assert_fails(pgps[i], in, encoding, &source, ERR_UNAVAILABLE);
            assert_fails(pgps[i], in, encoding, &sink, ERR_NO_SPACE);
            assert_fails(pgps[i], in, encoding, &finish, ERR_LOCAL);
        }
        const struct faults at_once = {.source_fails_at = 1};
        assert_fails(pgps[i], &coded, false, &at_once, ERR_UNAVAILABLE);
        buf_free(&coded);
    }
    buf_free(&plain);
}

/* ---- places, deadlines, cancelling ---- */

static void assert_fails_while_busy(const struct buf *in, bool encoding,
                                    const struct faults *faults, enum err_code code)
{
    assert_true(openpgp_try_reserve(encrypting));
    struct outcome o = run(encrypting, in, encoding, faults);
    openpgp_release(encrypting);
    assert_int_equal(o.err.code, code);
    buf_free(&o.got);
    place_is_free(encrypting);
}

static void test_busy(void **state)
{
    (void)state;
    struct buf plain = make_plain(1000);
    struct buf sealed = encode(encrypting, &plain), open = encode(reading, &plain);
    /* without a deadline: waiting would never end */
    assert_fails_while_busy(&plain, true, &(struct faults){.live = true}, ERR_THROTTLED);
    const struct call soon = {.deadline_ms = now_ms() + 100};
    assert_fails_while_busy(&plain, true, &(struct faults){.call = &soon}, ERR_TIMEOUT);
    const struct call later = {.deadline_ms = now_ms() + 100};
    assert_fails_while_busy(&sealed, false, &(struct faults){.call = &later}, ERR_TIMEOUT);

    /* what is not encrypted needs no place */
    assert_true(openpgp_try_reserve(encrypting));
    assert_decodes(encrypting, &open, &plain);
    openpgp_release(encrypting);
    assert_true(openpgp_try_reserve(reading));
    struct outcome o = run(reading, &plain, true, &(struct faults){.live = true});
    assert_true(o.ok);
    openpgp_release(reading);
    buf_free(&o.got);
    buf_free(&plain);
    buf_free(&sealed);
    buf_free(&open);
}

static void test_cancelled(void **state)
{
    (void)state;
    struct cancel cancel;
    cancel_init(&cancel);
    cancel_fire(&cancel);
    const struct call call = {.cancel = &cancel, .deadline_ms = DEADLINE_NONE};
    const struct faults faults = {.call = &call};
    struct buf plain = make_plain(100000);
    struct openpgp *const pgps[] = {reading, encrypting};
    for (size_t i = 0; i < 2; i++) {
        struct buf coded = encode(pgps[i], &plain);
        assert_fails(pgps[i], &plain, true, &faults, ERR_CANCELLED);
        assert_fails(pgps[i], &coded, false, &faults, ERR_CANCELLED);
        buf_free(&coded);
    }
    buf_free(&plain);
    cancel_destroy(&cancel);
}

static void test_moving_bytes_is_progress(void **state)
{
    (void)state;
    struct progress progress = {.limit_ms = 60000};
    progress.last_ms = now_ms() - 50000;
    const struct call call = {.deadline_ms = DEADLINE_NONE, .progress = &progress};
    const struct faults faults = {.call = &call};
    struct buf plain = make_plain(100000);
    struct outcome o = run(reading, &plain, true, &faults);
    assert_true(o.ok);
    assert_true(now_ms() - progress.last_ms < 30000);
    buf_free(&o.got);
    buf_free(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_key),
        cmocka_unit_test(test_with_a_key),
        cmocka_unit_test(test_tools_read_ours),
        cmocka_unit_test(test_tools_output_is_read),
        cmocka_unit_test(test_live_encode),
        cmocka_unit_test(test_neither_openpgp_nor_lzop),
        cmocka_unit_test(test_something_else_inside_openpgp),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_no_secret_key),
        cmocka_unit_test(test_failing_ends),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_moving_bytes_is_progress),
    };
    return cmocka_run_group_tests_name("codec", tests, set_up, tear_down);
}
