/* One object, coded and uploaded while it arrives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/object_write.h"
#include "fault_store.h"
#include "gpg_home.h"
#include "store_env.h"

#define MIB (1u << 20)
#define KEY "dumps_005/x.lzo"
#define USER "object@example.org"

static struct test_home home;
static char fpr[64];
static struct err err;

struct env {
    struct store_env files;
    struct fault_store *faults;
    struct pool *pool;
    struct openpgp *pgp;
    struct object_write_options opt;
};

static void begin(struct env *e, unsigned gpg_processes)
{
    const char *recipient = fpr;
    store_env_begin(&e->files, STORE_DIRECTORY);
    e->faults = fault_store_new(e->files.store);
    e->pool = pool_new(32, 50, &err);
    struct openpgp_options options = test_options(&home);
    options.recipients = &recipient;
    options.recipient_count = gpg_processes > 0;
    options.max_processes = gpg_processes > 0 ? gpg_processes : 1;
    e->pgp = openpgp_new(&options, &err);
    assert_ok(e->pgp != NULL && e->pool != NULL, &err);
    e->opt = (struct object_write_options){.store = fault_base(e->faults),
                                           .pgp = e->pgp,
                                           .pool = e->pool,
                                           .key = KEY,
                                           .slow = true,
                                           .stall_ms = 20000,
                                           .call = &env_forever};
}

static void end(struct env *e)
{
    pool_free(e->pool);
    assert_int_equal(fault_uploads_open(e->faults), 0);
    openpgp_free(e->pgp);
    fault_store_free(e->faults);
    store_env_end(&e->files);
}

static struct object_write *make(struct env *e, const char *key)
{
    e->opt.key = key;
    struct object_write *w = object_write_new(&e->opt, &err);
    assert_ok(w != NULL, &err);
    return w;
}

static void assert_decodes(struct env *e, const char *key, const char *data, size_t n)
{
    struct test_sink out;
    struct store_info info;
    struct store *s = e->files.store;
    test_sink_init(&out);
    struct source *body = s->ops->get(s, key, 0, UINT64_MAX, &info, &env_forever, &err);
    assert_ok(body != NULL, &err);
    assert_ok(codec_decode(e->pgp, body, &out.base, OPENPGP_FOREGROUND, NULL, &env_forever, &err),
              &err);
    source_close(body);
    assert_int_equal(out.got.len, n);
    assert_memory_equal(out.got.data == NULL ? "" : out.got.data, data, n);
    buf_free(&out.got);
}

static void every_length(void **state)
{
    static const size_t lengths[] = {0, 1, MIB / 2, MIB + 1, 21 * MIB};
    struct object_written done;
    (void)state;
    for (unsigned processes = 0; processes <= 2; processes += 2) {
        struct env e;
        begin(&e, processes);
        char *data = env_bytes(lengths[4], 6);
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            struct object_write *w = make(&e, KEY);
            assert_ok(object_write_push(w, data, lengths[i] / 3, &err) &&
                          object_write_push(w, data + lengths[i] / 3, lengths[i] - lengths[i] / 3,
                                            &err) &&
                          object_write_end(w, &err) && object_write_wait(w, &done, &err),
                      &err);
            object_write_free(w);
            assert_int_equal(done.facts.encrypted, processes > 0);
            assert_int_equal(done.facts.map.plain_size, lengths[i]);
            lzop_map_free(&done.facts.map);
            assert_decodes(&e, KEY, data, lengths[i]);
        }
        free(data);
        end(&e);
    }
}

/* A file that is open for long has the only place that slow writers may have; another one of the
 * same writer, which is complete, is stored all the same. */
static void a_complete_one_needs_no_free_place(void **state)
{
    struct env e;
    struct object_written done;
    (void)state;
    begin(&e, 2);
    char *data = env_bytes(8 * MIB, 7);
    struct object_write *open_for_long = make(&e, "dumps_005/toc.lzo");
    assert_ok(object_write_push(open_for_long, data, 8 * MIB, &err), &err);
    for (int i = 0; i < 3; i++) {
        struct object_write *w = make(&e, KEY);
        assert_ok(object_write_push(w, data, MIB / 4, &err) && object_write_end(w, &err) &&
                      object_write_wait(w, &done, &err),
                  &err);
        object_write_free(w);
        lzop_map_free(&done.facts.map);
        assert_decodes(&e, KEY, data, MIB / 4);
    }
    assert_ok(object_write_end(open_for_long, &err) &&
                  object_write_wait(open_for_long, &done, &err),
              &err);
    object_write_free(open_for_long);
    lzop_map_free(&done.facts.map);
    assert_decodes(&e, "dumps_005/toc.lzo", data, 8 * MIB);
    free(data);
    end(&e);
}

/* Several slow writers share one place: the others' work is not held up for ever, and each is told
 * the truth. The place that must stay free for everybody else stays free meanwhile. */
static void slow_ones_leave_places_to_others(void **state)
{
    struct env e;
    struct object_written done;
    struct object_write *w[3];
    (void)state;
    begin(&e, 2);
    char *data = env_bytes(MIB, 8);
    for (size_t i = 0; i < 3; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "dumps_005/%zu.lzo", i);
        w[i] = make(&e, key);
        assert_ok(object_write_push(w[i], data, MIB * 3 / 4, &err), &err);
    }
    const struct call soon = {.deadline_ms = now_ms() + 20000};
    assert_ok(openpgp_reserve(e.pgp, OPENPGP_FOREGROUND, &soon, &err), &err);
    openpgp_release(e.pgp);
    for (size_t i = 0; i < 3; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "dumps_005/%zu.lzo", i);
        assert_ok(object_write_end(w[i], &err) && object_write_wait(w[i], &done, &err), &err);
        object_write_free(w[i]);
        lzop_map_free(&done.facts.map);
        assert_decodes(&e, key, data, MIB * 3 / 4);
    }
    free(data);
    end(&e);
}

static void without_an_end_nothing_shows(void **state)
{
    static const size_t lengths[] = {0, 100, 30 * MIB};
    struct env e;
    (void)state;
    begin(&e, 0);
    char *data = env_bytes(30 * MIB, 9);
    for (size_t i = 0; i < 3; i++) {
        struct object_write *w = make(&e, KEY);
        assert_ok(object_write_push(w, data, lengths[i], &err), &err);
        object_write_free(w);
        env_assert_absent(e.files.store, KEY);
        assert_int_equal(fault_uploads_open(e.faults), 0);
    }
    free(data);
    end(&e);
}

static void every_failure_is_told(void **state)
{
    struct env e;
    struct object_written done;
    unsigned nth = 0;
    (void)state;
    begin(&e, 0);
    char *data = env_bytes(20 * MIB, 10);
    do {
        struct object_write *w = make(&e, KEY);
        fault_at(e.faults, ++nth, FAULT_BEFORE);
        bool ok = true;
        for (size_t pos = 0; ok && pos < 20 * MIB; pos += MIB)
            ok = object_write_push(w, data + pos, MIB, &err);
        ok = ok && object_write_end(w, &err) && object_write_wait(w, &done, &err);
        object_write_free(w);
        assert_int_equal(ok, !fault_happened(e.faults));
        if (ok)
            lzop_map_free(&done.facts.map);
        else
            assert_int_equal(err.code, ERR_UNAVAILABLE);
        if (!ok)
            env_assert_absent(e.files.store, KEY);
        assert_int_equal(fault_uploads_open(e.faults), 0);
    } while (fault_happened(e.faults));
    assert_true(nth >= 5); /* begin, three parts, complete; and then none */
    fault_at(e.faults, 0, FAULT_BEFORE);
    free(data);
    end(&e);
}

static int make_key(void **state)
{
    (void)state;
    test_home_make(&home);
    test_key(&home, USER, "");
    test_fpr(&home, USER, fpr);
    return 0;
}

static int drop_key(void **state)
{
    (void)state;
    test_home_remove(&home);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length),
        cmocka_unit_test(a_complete_one_needs_no_free_place),
        cmocka_unit_test(slow_ones_leave_places_to_others),
        cmocka_unit_test(without_an_end_nothing_shows),
        cmocka_unit_test(every_failure_is_told),
    };
    return cmocka_run_group_tests(tests, make_key, drop_key);
}
