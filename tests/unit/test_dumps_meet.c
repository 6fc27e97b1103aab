/* dumps/ when two things are done at once to one name: the later one waits, is refused, or wins,
 * and nothing is lost or comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "dumps_env.h"
#include "fs/errno.h"

static bool write_text(struct handle *h, const char *text)
{
    return fs_write(the_fs, h, text, strlen(text), 0, &endless, &the_err);
}

static void assert_nothing_stored(void)
{
    env_assert_list(the_files.store, (struct store_list){.prefix = "dumps"}, ENV_LIST(NULL));
}

/* ---- deleting what is written ---- */

/* Each fsync publishes anew; the delete wins over what comes later. */
static void a_deleted_file_does_not_come_back(void **state)
{
    struct handle *reader;
    (void)state;
    for (int syncs = 0; syncs < 4; syncs++) {
        struct handle *h = do_create(the_dumps, "x", O_RDWR);
        assert_ok(h != NULL && write_text(h, "one"), &the_err);
        for (int i = 0; i < syncs; i++) {
            assert_ok(write_text(h, i % 2 == 0 ? "two" : "six"), &the_err);
            assert_ok(fs_fsync(the_fs, h, &endless, &the_err), &the_err);
        }
        assert_ok(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err), &the_err);
        assert_gone(the_dumps, "x");
        assert_ok(write_text(h, "ten"), &the_err);
        assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
        fs_release(the_fs, h);
        assert_gone(the_dumps, "x");
        assert_nothing_stored();
    }
    assert_ok(do_put_text(the_dumps, "x", "one"), &the_err);
    uint64_t id = do_look_up(the_dumps, "x");
    assert_ok(fs_open(the_fs, id, O_RDONLY, ME, &reader, &endless, &the_err), &the_err);
    assert_ok(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err), &the_err);
    struct fs_bytes bytes;
    assert_false(fs_read(the_fs, reader, 0, 3, &bytes, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), ESTALE); /* and not that it is not there */
    fs_release(the_fs, reader);
}

/* One writer at a time for a name, also when it has published. */
static void who_has_synced_is_still_the_writer(void **state)
{
    struct handle *other;
    (void)state;
    struct handle *h = do_create(the_dumps, "x", O_RDWR);
    for (int i = 0; i < 2; i++) {
        assert_ok(write_text(h, i == 0 ? "one" : "two"), &the_err);
        assert_ok(fs_fsync(the_fs, h, &endless, &the_err), &the_err);
    }
    assert_text(the_dumps, "x", "two");
    uint64_t id = do_look_up(the_dumps, "x");
    assert_false(fs_open(the_fs, id, O_WRONLY | O_TRUNC, ME, &other, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    assert_false(do_move(the_dumps, "x", the_dumps, "y"));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    fs_release(the_fs, h);
    assert_text(the_dumps, "x", "two");
    assert_int_not_equal(do_look_up(the_dumps, "x"), id); /* which the kernel may have cached */
}

/* While an object is on its way into the archive its name stays, and while it is being removed
 * nobody writes it. */
static void while_it_is_stored(void *arg, const char *op, const char *key)
{
    struct err why = ERR_INIT;
    if (strcmp(op, "put") != 0 || strcmp(key, "dumps_005/x.lzo") != 0)
        return;
    fault_set_hook(the_faults, NULL, NULL);
    *(bool *)arg = true;
    assert_false(fs_unlink(the_fs, the_dumps, "x", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
}

static void while_it_is_removed(void *arg, const char *op, const char *key)
{
    struct fs_entry e;
    struct handle *h;
    struct err why = ERR_INIT;
    uint64_t id = *(uint64_t *)arg;
    if (strcmp(op, "remove") != 0 || strcmp(key, "dumps_005/x.lzo") != 0)
        return;
    fault_set_hook(the_faults, NULL, NULL);
    *(uint64_t *)arg = 0;
    assert_false(fs_open(the_fs, id, O_WRONLY | O_TRUNC, ME, &h, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_create(the_fs, the_dumps, "x", O_WRONLY, 0600, ME, &e, &h, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rename(the_fs, the_dumps, "x", the_dumps, "z", false, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_unlink(the_fs, the_dumps, "x", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
}

static void storing_and_deleting_exclude_each_other(void **state)
{
    bool stored = false;
    (void)state;
    struct handle *h = do_create(the_dumps, "x", O_WRONLY);
    assert_ok(write_text(h, "one"), &the_err);
    fault_set_hook(the_faults, while_it_is_stored, &stored);
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    assert_true(stored);
    fs_release(the_fs, h);
    uint64_t id = do_look_up(the_dumps, "x");
    fault_set_hook(the_faults, while_it_is_removed, &id);
    assert_ok(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err), &the_err);
    assert_int_equal(id, 0);
    assert_gone(the_dumps, "x");
    assert_nothing_stored();
}

/* ---- renaming ---- */

struct meeting {
    uint64_t from, to; /* directories */
    const char *at;    /* the key that is copied to then */
    int taken;         /* what who makes the new name is told */
    bool happened;
};

/* Both names of a rename are busy while it lasts, and so is what they are in. */
static void while_it_is_copied(void *arg, const char *op, const char *key)
{
    struct meeting *m = arg;
    struct fs_entry e;
    struct handle *h;
    struct err why = ERR_INIT;
    if (strcmp(op, "copy") != 0 || strcmp(key, m->at) != 0)
        return;
    fault_set_hook(the_faults, NULL, NULL);
    m->happened = true;
    assert_false(fs_rmdir(the_fs, the_dumps, "to", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rename(the_fs, the_dumps, "to", the_dumps, "z", false, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_create(the_fs, m->to, "new", O_WRONLY, 0600, ME, &e, &h, &endless, &why));
    assert_int_equal(fs_errno(&why), m->taken);
    assert_false(fs_mkdir(the_fs, m->to, "new", 0700, &e, &endless, &why));
    assert_int_equal(fs_errno(&why), m->taken);
    assert_false(fs_unlink(the_fs, m->to, "new", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rmdir(the_fs, m->to, "new", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rename(the_fs, the_dumps, "other", m->to, "new", false, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rmdir(the_fs, the_dumps, "from", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    /* what is beside them is not */
    assert_ok(do_put_text(m->to, "beside", "free") && do_put_text(m->from, "beside", "free"),
              &the_err);
}

static void both_names_of_a_rename_are_busy(void **state)
{
    struct meeting m = {.at = "dumps_005/to/new.lzo", .taken = EBUSY};
    (void)state;
    m.from = do_mkdir(the_dumps, "from");
    m.to = do_mkdir(the_dumps, "to");
    assert_ok(do_put_text(m.from, "x", "one") && do_put_text(the_dumps, "other", "other"),
              &the_err);
    fault_set_hook(the_faults, while_it_is_copied, &m);
    assert_ok(do_move(m.from, "x", m.to, "new"), &the_err);
    assert_true(m.happened);
    assert_text(m.to, "new", "one");
    assert_text(m.to, "beside", "free");
    assert_text(m.from, "beside", "free");
    assert_text(the_dumps, "other", "other");
    /* a directory, over one that is empty */
    uint64_t in = do_mkdir(m.from, "dir");
    assert_ok(do_put_text(in, "x", "two"), &the_err);
    assert_ok(fs_unlink(the_fs, m.to, "new", &endless, &the_err), &the_err);
    do_mkdir(m.to, "new");
    m.at = "dumps_005/to/new/x.lzo";
    m.taken = EEXIST;
    m.happened = false;
    fault_set_hook(the_faults, while_it_is_copied, &m);
    assert_ok(do_move(m.from, "dir", m.to, "new"), &the_err);
    assert_true(m.happened);
    assert_text(do_look_up(m.to, "new"), "x", "two");
}

/* An empty directory in which somebody begins a file is not replaced. */
static void a_directory_that_is_written_in_is_not_replaced(void **state)
{
    (void)state;
    uint64_t from = do_mkdir(the_dumps, "from"), to = do_mkdir(the_dumps, "to");
    assert_ok(do_put_text(from, "x", "one"), &the_err);
    struct handle *h = do_create(to, "y", O_WRONLY);
    assert_ok(write_text(h, "two"), &the_err);
    assert_false(do_move(the_dumps, "from", the_dumps, "to"));
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    fs_release(the_fs, h);
    assert_text(to, "y", "two");
    assert_text(from, "x", "one");
}

/* ---- another content under the old name, of the same size ---- */

/* Puts what "z" holds under "x", so that the store's sizes do not tell. */
static void replace_x(void)
{
    size_t n;
    char *coded = env_get(the_files.store, "dumps_005/z.lzo", &n);
    env_put(the_files.store, "dumps_005/x.lzo", coded, n);
    free(coded);
}

static void before_it_is_copied(void *arg, const char *op, const char *key)
{
    const char *by = arg;
    if (strcmp(op, by) != 0 || strstr(key, "dumps_005/x.lzo") == NULL)
        return;
    fault_set_hook(the_faults, NULL, NULL);
    replace_x();
}

static void on_copy(void *arg, const char *op, const char *key)
{
    (void)key;
    if (strcmp(op, "copy") == 0)
        before_it_is_copied(arg, "get", "dumps_005/x.lzo");
}

static bool move_of_replaced(fault_hook *hook)
{
    char by[] = "get";
    assert_ok(do_put_text(the_dumps, "x", "ours"), &the_err);
    assert_ok(do_put_text(the_dumps, "z", "them"), &the_err);
    assert_int_not_equal(do_look_up(the_dumps, "x"), 0);
    fault_set_hook(the_faults, hook, by);
    bool ok = do_move(the_dumps, "x", the_dumps, "y");
    fault_set_hook(the_faults, NULL, NULL);
    return ok;
}

/* It is not copied: the facts are of what was looked at. */
static void what_was_replaced_is_not_renamed(void **state)
{
    (void)state;
    assert_false(move_of_replaced(on_copy));
    assert_int_equal(fs_errno(&the_err), ESTALE);
    assert_gone(the_dumps, "y");
    assert_text(the_dumps, "x", "them");
    env_assert_list(the_files.store, (struct store_list){.prefix = "dumps_facts_005/y"},
                    ENV_LIST(NULL));
    /* through this host, where the store does not copy */
    fault_no_copies(the_faults);
    assert_false(move_of_replaced(before_it_is_copied));
    assert_int_equal(fs_errno(&the_err), ESTALE);
    assert_gone(the_dumps, "y");
    assert_text(the_dumps, "x", "them");
    assert_ok(do_move(the_dumps, "x", the_dumps, "y"), &the_err);
    assert_text(the_dumps, "y", "them");
}

/* ---- facts ---- */

static void get_checksum(const char *name, char out[DIGEST_TEXT_MAX])
{
    struct buf value = BUF_INIT(4096);
    uint64_t id = do_look_up(the_dumps, name);
    assert_ok(fs_getxattr(the_fs, id, "user.walefs.checksum", &value, &endless, &the_err),
              &the_err);
    assert_in_range(value.len, 1, DIGEST_TEXT_MAX - 1);
    memcpy(out, buf_str(&value), value.len);
    out[value.len] = '\0';
    buf_free(&value);
}

static void the_digest_is_carried_over_a_rename(void **state)
{
    char written[DIGEST_TEXT_MAX], renamed[DIGEST_TEXT_MAX];
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "content"), &the_err);
    get_checksum("x", written);
    assert_ok(do_move(the_dumps, "x", the_dumps, "y"), &the_err);
    get_checksum("y", renamed);
    assert_string_equal(renamed, written);
    do_unmount();
    do_mount(false, false);
    get_checksum("y", renamed);
    assert_string_equal(renamed, written);
}

/* ---- reading what is renamed ---- */

static void assert_reads(struct handle *h, const char *data, size_t n, uint64_t offset)
{
    char *got = malloc(n + 1);
    size_t have;
    assert_non_null(got);
    assert_ok(do_read(h, offset, n, got, &have), &the_err);
    assert_int_equal(have, n);
    assert_memory_equal(got, data + offset, n);
    free(got);
}

static struct handle *open_to_read(uint64_t dir, const char *name)
{
    struct handle *h;
    uint64_t id = do_look_up(dir, name);
    assert_ok(fs_open(the_fs, id, O_RDONLY, ME, &h, &endless, &the_err), &the_err);
    return h;
}

/* Small and large, read before and not, renamed itself and with its directory, again and again. */
static void who_reads_a_dump_goes_on_when_it_is_renamed(void **state)
{
    static const size_t lengths[] = {1000, 40 * MIB};
    char *data = env_bytes(lengths[1], 7);
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint64_t dir = do_mkdir(the_dumps, i == 0 ? "a" : "b");
        const char *name = i == 0 ? "a" : "b", *moved = i == 0 ? "a2" : "b2";
        assert_ok(do_put(dir, "x", data, lengths[i]), &the_err);
        struct handle *begun = open_to_read(dir, "x"), *fresh = open_to_read(dir, "x");
        assert_reads(begun, data, 100, 0);
        assert_ok(do_move(dir, "x", dir, "y"), &the_err);
        assert_reads(begun, data, 100, lengths[i] - 100);
        assert_reads(fresh, data, 100, 500);
        assert_ok(do_move(the_dumps, name, the_dumps, moved), &the_err);
        assert_ok(do_move(dir, "y", the_dumps, "z"), &the_err);
        assert_reads(begun, data, 100, lengths[i] / 2);
        assert_reads(fresh, data, 100, lengths[i] / 3);
        fs_release(the_fs, begun);
        fs_release(the_fs, fresh);
    }
    free(data);
}

/* The old name has gone, and the new one is not there yet: who reads then waits. */
static void when_the_old_name_has_gone(void *arg, const char *op, const char *key)
{
    struct fs_bytes bytes;
    struct store_info info;
    struct err why = ERR_INIT;
    struct handle **h = arg;
    struct store *s = the_files.store;
    if (strcmp(op, "list") != 0 || strcmp(key, "dumps_facts_005/x.lzo!") != 0 ||
        s->ops->head(s, "dumps_005/x.lzo", &info, &endless, &why))
        return;
    fault_set_hook(the_faults, NULL, NULL);
    assert_false(fs_read(the_fs, *h, 0, 3, &bytes, &endless, &why));
    assert_int_equal(fs_errno(&why), EIO); /* soft: it has waited, and has not been told ESTALE */
    *h = NULL;
}

static void a_read_in_the_midst_of_a_rename_waits(void **state)
{
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "content"), &the_err);
    struct handle *h = open_to_read(the_dumps, "x"), *then = h;
    fault_set_hook(the_faults, when_the_old_name_has_gone, &then);
    assert_ok(do_move(the_dumps, "x", the_dumps, "y"), &the_err);
    assert_null(then);
    assert_reads(h, "content", 7, 0);
    fs_release(the_fs, h);
}

static void assert_stale(struct handle *h)
{
    struct fs_bytes bytes;
    assert_false(fs_read(the_fs, h, 0, 3, &bytes, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), ESTALE);
    fs_release(the_fs, h);
}

/* Only that content is followed, never another one of its name. */
static void another_content_is_not_read_instead(void **state)
{
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "ours") && do_put_text(the_dumps, "z", "them"), &the_err);
    struct handle *h = open_to_read(the_dumps, "z"), *over;
    assert_ok(do_move(the_dumps, "x", the_dumps, "z"), &the_err);
    assert_stale(h); /* renamed over */
    h = open_to_read(the_dumps, "z");
    over = do_create(the_dumps, "z", O_RDWR);
    assert_ok(write_text(over, "more") && fs_fsync(the_fs, over, &endless, &the_err), &the_err);
    assert_stale(h); /* written anew, by a writer that goes on */
    assert_ok(fs_flush(the_fs, over, ME, &endless, &the_err), &the_err);
    fs_release(the_fs, over);
    h = open_to_read(the_dumps, "z");
    assert_ok(do_put_text(the_dumps, "x", "last"), &the_err);
    size_t n;
    char *coded = env_get(the_files.store, "dumps_005/x.lzo", &n);
    env_put(the_files.store, "dumps_005/z.lzo", coded, n);
    free(coded);
    assert_stale(h); /* replaced by another host */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DUMPS_TEST(a_deleted_file_does_not_come_back),
        DUMPS_TEST(who_has_synced_is_still_the_writer),
        DUMPS_TEST(storing_and_deleting_exclude_each_other),
        DUMPS_TEST(both_names_of_a_rename_are_busy),
        DUMPS_TEST(a_directory_that_is_written_in_is_not_replaced),
        DUMPS_TEST(what_was_replaced_is_not_renamed),
        DUMPS_TEST(the_digest_is_carried_over_a_rename),
        DUMPS_TEST(who_reads_a_dump_goes_on_when_it_is_renamed),
        DUMPS_TEST(a_read_in_the_midst_of_a_rename_waits),
        DUMPS_TEST(another_content_is_not_read_instead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
