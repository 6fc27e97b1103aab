/* dumps/ as the kernel's side uses it, over a directory store whose calls can fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/spool.h"
#include "fault_store.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "gpg_home.h"
#include "store_env.h"

#define MIB (1u << 20)
#define ME ((pid_t)1)

static struct store_env files;
static struct fault_store *faults;
static struct pool *pool;
static struct openpgp *pgp;
static char scratch[64];
static struct fs *fs;
static uint64_t dumps;
static struct err err;
static const struct call endless = CALL_INIT;

static uint64_t look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    err = (struct err)ERR_INIT;
    return fs_lookup(fs, dir, name, ME, &e, &endless, &err) ? e.id : 0;
}

static void mount_fs(bool writable, bool allow_delete)
{
    const struct fs_options options = {.store = fault_base(faults),
                                       .pgp = pgp,
                                       .pool = pool,
                                       .read_only = !writable,
                                       .allow_delete = allow_delete,
                                       .write_timeout_ms = 5000,
                                       .soft_timeout_ms = 300,
                                       .cache_dir = scratch,
                                       .cache_bytes = 4u * MIB,
                                       .partition_bytes = 5u * MIB};
    fs = fs_new(&options, &err);
    assert_ok(fs != NULL, &err);
    dumps = look_up(INODE_ROOT, "dumps");
    assert_int_not_equal(dumps, 0);
}

static void unmount_fs(void)
{
    fs_stop(fs);
    pool_free(pool);
    fs_free(fs);
    pool = pool_new(32, 1000, &err);
    assert_non_null(pool);
}

static int begin(void **state)
{
    const struct openpgp_options options = {.stall_timeout_ms = 60000, .max_processes = 2};
    (void)state;
    store_env_begin(&files, STORE_DIRECTORY);
    faults = fault_store_new(files.store);
    fault_at(faults, 0, FAULT_BEFORE);
    pool = pool_new(32, 1000, &err);
    pgp = openpgp_new(&options, &err);
    assert_ok(pool != NULL && pgp != NULL, &err);
    strcpy(scratch, "/tmp/walefs-dumps-XXXXXX");
    assert_non_null(mkdtemp(scratch));
    mount_fs(true, true);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unmount_fs();
    assert_int_equal(fault_uploads_open(faults), 0);
    pool_free(pool);
    openpgp_free(pgp);
    fault_store_free(faults);
    store_env_end(&files);
    env_remove_tree(scratch);
    return 0;
}

/* ---- what a program does ---- */

static struct handle *create(uint64_t dir, const char *name, int flags)
{
    struct fs_entry e;
    struct handle *h;
    err = (struct err)ERR_INIT;
    uint64_t id = look_up(dir, name);
    if (id != 0)
        return fs_open(fs, id, flags | O_TRUNC, ME, &h, &endless, &err) ? h : NULL;
    return fs_create(fs, dir, name, flags | O_CREAT, 0600, ME, &e, &h, &endless, &err) ? h : NULL;
}

/* open, write, close; what close said. */
static bool put(uint64_t dir, const char *name, const char *data, size_t n)
{
    struct handle *h = create(dir, name, O_WRONLY);
    if (h == NULL)
        return false;
    bool ok = true;
    for (size_t pos = 0; ok && pos < n; pos += MIB)
        ok = fs_write(fs, h, data + pos, n - pos < MIB ? n - pos : MIB, pos, &endless, &err);
    struct err ignored = ERR_INIT;
    bool closed = fs_flush(fs, h, ME, &endless, ok ? &err : &ignored);
    assert_true(ok || !closed);
    fs_release(fs, h);
    return ok && closed;
}

static bool put_text(uint64_t dir, const char *name, const char *text)
{
    return put(dir, name, text, strlen(text));
}

static bool read_at(struct handle *h, uint64_t offset, size_t n, char *out, size_t *got)
{
    struct fs_bytes b;
    if (!fs_read(fs, h, offset, n, &b, &endless, &err))
        return false;
    *got = b.size;
    bool ok = b.size == 0 || spool_read(b.fd, out, b.size, b.offset, &err) == (ssize_t)b.size;
    fs_read_done(&b);
    return ok;
}

/* The whole of it, malloc'ed and ended with a NUL; NULL when that fails. */
static char *get(uint64_t dir, const char *name, size_t *n)
{
    struct fs_entry e;
    struct handle *h;
    uint64_t id = look_up(dir, name);
    if (id == 0 || !fs_getattr(fs, id, &e, &endless, &err) ||
        !fs_open(fs, id, O_RDONLY, ME, &h, &endless, &err))
        return NULL;
    char *data = malloc((size_t)e.attr.st_size + 1);
    assert_non_null(data);
    size_t got = 1;
    bool ok = true;
    for (*n = 0; ok && got > 0; *n += got)
        ok = read_at(h, *n, MIB, data + *n, &got);
    fs_release(fs, h);
    if (ok && *n == (size_t)e.attr.st_size) {
        data[*n] = '\0';
        return data;
    }
    free(data);
    return NULL;
}

static void assert_holds(uint64_t dir, const char *name, const char *data, size_t n)
{
    size_t got;
    char *have = get(dir, name, &got);
    if (have == NULL)
        fail_msg("%s: %s", name, err.text);
    assert_int_equal(got, n);
    assert_memory_equal(have, data, n);
    free(have);
}

static void assert_text(uint64_t dir, const char *name, const char *text)
{
    assert_holds(dir, name, text, strlen(text));
}

static void assert_gone(uint64_t dir, const char *name)
{
    assert_int_equal(look_up(dir, name), 0);
    assert_int_equal(fs_errno(&err), ENOENT);
}

static bool move(uint64_t dir, const char *name, uint64_t to, const char *new_name)
{
    err = (struct err)ERR_INIT;
    return fs_rename(fs, dir, name, to, new_name, false, &endless, &err);
}

static uint64_t make_dir(uint64_t dir, const char *name)
{
    struct fs_entry e;
    assert_ok(fs_mkdir(fs, dir, name, 0700, &e, &endless, &err), &err);
    return e.id;
}

struct listing {
    char text[4096];
    size_t count, sized;
};

static bool emit(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                 uint64_t next)
{
    struct listing *l = arg;
    (void)next;
    if (name[0] == '.')
        return true;
    size_t used = strlen(l->text);
    (void)snprintf(l->text + used, sizeof(l->text) - used, "%s%s ", name,
                   type == S_IFDIR ? "/" : "");
    l->count++;
    l->sized += entry != NULL;
    if (entry != NULL)
        fs_forget(fs, entry->id, 1);
    return true;
}

static struct listing list(uint64_t dir)
{
    struct listing l = {.text = ""};
    struct dir *d;
    size_t before;
    assert_ok(fs_opendir(fs, dir, &d, &endless, &err), &err);
    uint64_t offset = 0;
    do {
        before = l.count;
        assert_ok(fs_readdir(fs, d, offset, true, emit, &l, &endless, &err), &err);
        offset = l.count + 2;
    } while (l.count > before);
    fs_releasedir(fs, d);
    return l;
}

/* ---- writing ---- */

static void streams_of_any_length(void **state)
{
    static const size_t lengths[] = {0, 1, 300000, 16 * MIB, 30 * MIB + 7};
    char *data = env_bytes(lengths[4], 1);
    (void)state;
    for (int again = 0; again < 2; again++) { /* new, then over what is there */
        for (size_t i = 0; i < 5; i++) {
            char name[16];
            (void)snprintf(name, sizeof(name), "f%zu", i);
            assert_ok(put(dumps, name, data + again, lengths[i]), &err);
            assert_holds(dumps, name, data + again, lengths[i]);
        }
    }
    unmount_fs();
    mount_fs(false, false);
    for (size_t i = 0; i < 5; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "f%zu", i);
        assert_holds(dumps, name, data + 1, lengths[i]);
    }
    free(data);
}

static void a_stream_goes_forward_only(void **state)
{
    (void)state;
    struct handle *h = create(dumps, "x", O_WRONLY);
    assert_non_null(h);
    assert_true(fs_handle_stream(h));
    assert_ok(fs_write(fs, h, "hello", 5, 0, &endless, &err), &err);
    assert_false(fs_write(fs, h, "J", 1, 0, &endless, &err));
    assert_int_equal(fs_errno(&err), EINVAL);
    /* a program that goes on has a dump with a hole: it is not published */
    assert_false(fs_write(fs, h, " world", 6, 5, &endless, &err));
    assert_false(fs_flush(fs, h, ME, &endless, &err));
    fs_release(fs, h);
    assert_gone(dumps, "x");

    h = create(dumps, "y", O_WRONLY);
    assert_ok(fs_write(fs, h, "hello", 5, 0, &endless, &err), &err);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    assert_false(fs_write(fs, h, "!", 1, 5, &endless, &err));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    fs_release(fs, h);
    assert_text(dumps, "y", "hello");
}

static void staged_files_are_written_anywhere(void **state)
{
    (void)state;
    char got[16];
    size_t n;
    struct handle *h = create(dumps, "x", O_RDWR);
    assert_non_null(h);
    assert_false(fs_handle_stream(h));
    assert_ok(fs_write(fs, h, "world", 5, 6, &endless, &err), &err);
    assert_ok(fs_write(fs, h, "hello ", 6, 0, &endless, &err), &err);
    assert_ok(read_at(h, 3, 5, got, &n), &err);
    assert_memory_equal(got, "lo wo", 5);
    assert_ok(fs_fsync(fs, h, &endless, &err), &err);
    assert_text(dumps, "x", "hello world");
    struct fs_entry e;
    const struct fs_setattr shorter = {.set_size = true, .size = 5};
    assert_ok(fs_setattr(fs, look_up(dumps, "x"), &shorter, h, &e, &endless, &err), &err);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    fs_release(fs, h);
    assert_text(dumps, "x", "hello");
}

static void one_writer_at_a_time(void **state)
{
    (void)state;
    struct fs_entry e;
    struct handle *h = create(dumps, "x", O_WRONLY), *other;
    assert_ok(fs_write(fs, h, "abc", 3, 0, &endless, &err), &err);
    uint64_t id = look_up(dumps, "x");
    assert_ok(fs_getattr(fs, id, &e, &endless, &err), &err);
    assert_int_equal(e.attr.st_size, 3);
    assert_string_equal(list(dumps).text, "x ");
    assert_false(fs_open(fs, id, O_WRONLY | O_TRUNC, ME, &other, &endless, &err));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_false(fs_open(fs, id, O_RDONLY, ME, &other, &endless, &err));
    assert_int_equal(fs_errno(&err), EBUSY);
    assert_false(move(dumps, "x", dumps, "y"));
    assert_int_equal(fs_errno(&err), EBUSY);
    /* who deletes it loses what is written */
    assert_ok(fs_unlink(fs, dumps, "x", &endless, &err), &err);
    assert_ok(fs_flush(fs, h, ME, &endless, &err), &err);
    fs_release(fs, h);
    assert_gone(dumps, "x");
}

/* Whichever call fails: the close says so, the name has what it had, and no upload goes on. What
 * only the facts are lost of is stored, and its size is found out. */
static void every_failure_of_a_write_is_told(void **state)
{
    char *data = env_bytes(20 * MIB, 2);
    (void)state;
    for (int kind = 0; kind < 3; kind++) { /* a new one; over another; small and over another */
        size_t n = kind == 2 ? 1000 : 20 * MIB;
        unsigned nth = 0;
        bool happened;
        do {
            fault_at(faults, 0, FAULT_BEFORE);
            if (kind == 0 && look_up(dumps, "x") != 0)
                assert_ok(fs_unlink(fs, dumps, "x", &endless, &err), &err);
            else if (kind > 0)
                assert_ok(put_text(dumps, "x", "before"), &err);
            struct handle *h = create(dumps, "x", O_WRONLY);
            assert_non_null(h);
            fault_at(faults, ++nth, FAULT_BEFORE);
            bool ok = true;
            for (size_t pos = 0; ok && pos < n; pos += MIB)
                ok =
                    fs_write(fs, h, data + pos, n - pos < MIB ? n - pos : MIB, pos, &endless, &err);
            ok = fs_flush(fs, h, ME, &endless, &err) && ok;
            fs_release(fs, h);
            happened = fault_happened(faults);
            fault_at(faults, 0, FAULT_BEFORE);
            assert_int_equal(fault_uploads_open(faults), 0);
            if (ok)
                assert_holds(dumps, "x", data, n);
            else if (kind == 0)
                assert_gone(dumps, "x");
            else
                assert_text(dumps, "x", "before");
        } while (happened);
    }
    free(data);
}

static void nothing_is_overwritten_without_the_right(void **state)
{
    struct handle *h;
    (void)state;
    assert_ok(put_text(dumps, "x", "first"), &err);
    unmount_fs();
    mount_fs(true, false);
    assert_false(put_text(dumps, "x", "second"));
    assert_int_equal(fs_errno(&err), EEXIST);
    uint64_t id = look_up(dumps, "x");
    assert_false(fs_open(fs, id, O_WRONLY | O_APPEND, ME, &h, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_ok(fs_open(fs, id, O_RDWR, ME, &h, &endless, &err), &err); /* to sync it */
    assert_ok(fs_fsync(fs, h, &endless, &err), &err);
    assert_false(fs_write(fs, h, "x", 1, 0, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    fs_release(fs, h);
    assert_false(fs_unlink(fs, dumps, "x", &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    /* another host was first: the writer is told when it closes */
    h = create(dumps, "race", O_WRONLY);
    assert_ok(fs_write(fs, h, "ours", 4, 0, &endless, &err), &err);
    env_put(files.store, "dumps_005/race.lzo", "theirs", 6);
    assert_false(fs_flush(fs, h, ME, &endless, &err));
    assert_int_equal(fs_errno(&err), EEXIST);
    fs_release(fs, h);
    env_assert_content(files.store, "dumps_005/race.lzo", "theirs", 6);
    unmount_fs();
    mount_fs(false, true);
    assert_false(put_text(dumps, "y", "z"));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_false(fs_unlink(fs, dumps, "x", &endless, &err));
    assert_false(move(dumps, "x", dumps, "y"));
    assert_text(dumps, "x", "first");
}

/* ---- reading ---- */

static void any_offset(void **state)
{
    char *data = env_bytes(40 * MIB, 3), *got = malloc(MIB);
    struct handle *h;
    size_t n;
    unsigned seed = 5;
    (void)state;
    assert_ok(put(dumps, "x", data, 40 * MIB), &err);
    assert_ok(fs_open(fs, look_up(dumps, "x"), O_RDONLY, ME, &h, &endless, &err), &err);
    for (int i = 0; i < 60; i++) {
        seed = seed * 1103515245u + 12345u;
        uint64_t offset = seed % (40 * MIB);
        size_t want = 1 + (seed >> 8) % MIB, left = 40 * MIB - offset;
        assert_ok(read_at(h, offset, want, got, &n), &err);
        assert_int_equal(n, want < left ? want : left);
        assert_memory_equal(got, data + offset, n);
    }
    assert_ok(read_at(h, 40 * MIB, 10, got, &n), &err);
    assert_int_equal(n, 0);
    fs_release(fs, h);
    free(data);
    free(got);
}

/* The kernel may cache what a node has, so another content is another node. */
static void what_another_host_replaced_is_another_node(void **state)
{
    (void)state;
    assert_ok(put_text(dumps, "x", "first"), &err);
    assert_ok(put_text(dumps, "y", "second"), &err);
    uint64_t id = look_up(dumps, "x");
    size_t n;
    char *coded = env_get(files.store, "dumps_005/y.lzo", &n);
    env_put(files.store, "dumps_005/x.lzo", coded, n);
    free(coded);
    assert_int_not_equal(look_up(dumps, "x"), id);
    assert_text(dumps, "x", "second");
    struct handle *h;
    assert_false(fs_open(fs, id, O_RDONLY, ME, &h, &endless, &err));
    assert_int_equal(fs_errno(&err), ESTALE); /* the kernel looks again */
}

static void damage_is_told(void **state)
{
    (void)state;
    char *data = env_bytes(20 * MIB, 4);
    size_t n;
    assert_ok(put(dumps, "x", data, 20 * MIB), &err);
    assert_ok(put(dumps, "y", data, MIB), &err);
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? "dumps_005/x.lzo" : "dumps_005/y.lzo";
        char *coded = env_get(files.store, key, &n);
        coded[n - 1000] ^= 1;
        env_put(files.store, key, coded, n);
        free(coded);
        assert_null(get(dumps, i == 0 ? "x" : "y", &n));
        assert_int_equal(fs_errno(&err), EIO);
    }
    free(data);
}

/* ---- listing ---- */

static void sizes_cost_no_request_each(void **state)
{
    (void)state;
    uint64_t d = make_dir(dumps, "d");
    for (int i = 0; i < 60; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "f%02d", i);
        assert_ok(put(d, name, name, (size_t)i % 3), &err);
    }
    unmount_fs();
    mount_fs(true, true);
    d = look_up(dumps, "d");
    fault_at(faults, 0, FAULT_BEFORE);
    struct listing l = list(d);
    assert_int_equal(l.count, 60);
    assert_int_equal(l.sized, 60);
    assert_in_range(fault_calls(faults), 2, 4);
}

static void objects_of_others_are_read_once(void **state)
{
    size_t n;
    (void)state;
    assert_ok(put_text(dumps, "x", "content"), &err);
    char *coded = env_get(files.store, "dumps_005/x.lzo", &n);
    env_put(files.store, "dumps_005/theirs.lzo", coded, n);
    env_put(files.store, "dumps_005/..lzo", coded, n);
    env_put(files.store, "dumps_005/no.suffix", coded, n);
    env_put(files.store, "dumps_005/bad.lzo", "damaged", 7);
    free(coded);
    assert_text(dumps, "theirs", "content");
    struct listing l = list(dumps);
    assert_string_equal(l.text, "bad theirs x ");
    assert_int_equal(l.sized, 2);
    struct fs_entry e;
    assert_ok(fs_lookup(fs, dumps, "bad", ME, &e, &endless, &err), &err);
    assert_int_equal(e.attr.st_size, 7); /* it is there, and cannot be read */
    unmount_fs();
    mount_fs(false, false);
    fault_at(faults, 0, FAULT_BEFORE);
    assert_int_not_equal(look_up(dumps, "theirs"), 0);
    assert_int_equal(fault_calls(faults), 2); /* the object, and its facts */
}

/* ---- directories and renaming ---- */

/* Longer than one attempt of asking the store may take. */
static void slow_get(void *arg, const char *op, const char *key)
{
    if (strcmp(op, "get") == 0 && strcmp(key, "dumps_005/theirs.lzo") == 0 &&
        ++*(_Atomic unsigned *)arg == 1)
        (void)usleep(3500000);
}

static void what_takes_long_to_read_is_read_once(void **state)
{
    size_t n;
    _Atomic unsigned gets = 0;
    (void)state;
    assert_ok(put_text(dumps, "x", "content"), &err);
    char *coded = env_get(files.store, "dumps_005/x.lzo", &n);
    env_put(files.store, "dumps_005/theirs.lzo", coded, n);
    free(coded);
    fault_set_hook(faults, slow_get, (void *)&gets);
    assert_int_not_equal(look_up(dumps, "theirs"), 0);
    assert_int_equal(gets, 1);
    fault_set_hook(faults, NULL, NULL);
}

static void directories(void **state)
{
    struct fs_entry e;
    (void)state;
    uint64_t a = make_dir(dumps, "a"), b = make_dir(a, "b");
    assert_string_equal(list(dumps).text, "a/ ");
    assert_ok(put_text(b, "x", "1"), &err);
    assert_false(fs_rmdir(fs, dumps, "a", &endless, &err));
    assert_int_equal(fs_errno(&err), ENOTEMPTY);
    assert_false(fs_mkdir(fs, b, "new\nline", 0700, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), EINVAL);
    unmount_fs();
    mount_fs(true, true); /* now only the keys tell of them */
    a = look_up(dumps, "a");
    b = look_up(a, "b");
    assert_string_equal(list(a).text, "b/ ");
    assert_text(b, "x", "1");
    assert_ok(fs_unlink(fs, b, "x", &endless, &err), &err);
    assert_int_not_equal(look_up(look_up(dumps, "a"), "b"), 0); /* it has been emptied, and stays */
    assert_ok(fs_rmdir(fs, a, "b", &endless, &err), &err);
    assert_gone(a, "b");
    assert_ok(fs_rmdir(fs, dumps, "a", &endless, &err), &err);
    assert_gone(dumps, "a");
    env_assert_list(files.store, (struct store_list){.prefix = "dumps"}, ENV_LIST(NULL));
}

/* The content is somewhere whatever fails, and both names at most. */
static void a_rename_never_loses_anything(void **state)
{
    size_t n;
    (void)state;
    for (int kind = 0; kind < 2; kind++) { /* to a new name; over another file */
        unsigned nth = 0;
        bool happened;
        do {
            fault_at(faults, 0, FAULT_BEFORE);
            if (look_up(dumps, "y") != 0)
                assert_ok(fs_unlink(fs, dumps, "y", &endless, &err), &err);
            assert_ok(put_text(dumps, "x", "moved"), &err);
            if (kind == 1)
                assert_ok(put_text(dumps, "y", "replaced"), &err);
            assert_int_not_equal(look_up(dumps, "x"), 0);
            nth++;
            fault_at(faults, nth, nth % 2 == 0 ? FAULT_AFTER : FAULT_BEFORE);
            bool ok = move(dumps, "x", dumps, "y");
            happened = fault_happened(faults);
            fault_at(faults, 0, FAULT_BEFORE);
            char *at_x = get(dumps, "x", &n), *at_y = get(dumps, "y", &n);
            assert_true((at_x != NULL && strcmp(at_x, "moved") == 0) ||
                        (at_y != NULL && strcmp(at_y, "moved") == 0));
            if (ok) {
                assert_null(at_x);
                assert_non_null(at_y);
            } else if (kind == 1) {
                assert_non_null(at_y);
                assert_true(strcmp(at_y, "moved") == 0 || strcmp(at_y, "replaced") == 0);
            }
            free(at_x);
            free(at_y);
        } while (happened);
        assert_true(nth > 4);
    }
}

static bool is_whole(uint64_t dir, const char *name)
{
    size_t n;
    uint64_t id = look_up(dir, name), sub = id == 0 ? 0 : look_up(id, "sub");
    char *one = id == 0 ? NULL : get(id, "1", &n), *two = sub == 0 ? NULL : get(sub, "2", &n);
    bool whole = one != NULL && two != NULL && strcmp(one, "one") == 0 && strcmp(two, "two") == 0;
    free(one);
    free(two);
    return whole;
}

static void remove_files(uint64_t dir, const char *name)
{
    uint64_t id = look_up(dir, name), sub = id == 0 ? 0 : look_up(id, "sub");
    if (id == 0)
        return;
    if (look_up(id, "1") != 0)
        assert_ok(fs_unlink(fs, id, "1", &endless, &err), &err);
    if (sub != 0 && look_up(sub, "2") != 0)
        assert_ok(fs_unlink(fs, sub, "2", &endless, &err), &err);
    if (sub != 0)
        assert_ok(fs_rmdir(fs, id, "sub", &endless, &err), &err);
    if (look_up(dir, name) != 0)
        assert_ok(fs_rmdir(fs, dir, name, &endless, &err), &err);
}

static void whole_directories(void **state)
{
    (void)state;
    uint64_t a = make_dir(dumps, "a"), sub = make_dir(a, "sub"), z = make_dir(dumps, "z");
    assert_ok(put_text(a, "1", "one") && put_text(sub, "2", "two"), &err);
    uint64_t two = look_up(sub, "2");
    assert_false(move(dumps, "a", sub, "in"));
    assert_int_equal(fs_errno(&err), EINVAL);
    assert_ok(move(dumps, "a", z, "b"), &err);
    assert_gone(dumps, "a");
    assert_string_equal(list(a).text, "sub/ 1 "); /* the same node, by its new name */
    assert_text(a, "1", "one");
    assert_int_equal(look_up(sub, "2"), two);
    assert_text(sub, "2", "two");
    assert_string_equal(list(z).text, "b/ ");
    /* whatever fails: all is there, under one name or both */
    unsigned nth = 0;
    bool happened;
    do {
        fault_at(faults, ++nth, FAULT_BEFORE);
        bool ok = move(z, "b", z, "c");
        happened = fault_happened(faults);
        fault_at(faults, 0, FAULT_BEFORE);
        bool old = is_whole(z, "b"), new = is_whole(z, "c");
        assert_true(old || new);
        assert_true(!ok || (new &&look_up(z, "b") == 0));
        if (new) {
            remove_files(z, "b");
            assert_ok(move(z, "c", z, "b"), &err);
        } else {
            remove_files(z, "c");
        }
    } while (happened);
    assert_true(nth > 12);
    /* a file that is being written is not moved away from under its writer */
    uint64_t w = make_dir(dumps, "w");
    struct handle *h = create(w, "x", O_WRONLY);
    assert_false(move(dumps, "w", dumps, "v"));
    assert_int_equal(fs_errno(&err), EBUSY);
    fs_release(fs, h);
}

/* When the copies have been made: another host replaces one original, and this one would write. */
static void interfere(void *arg, const char *op, const char *key)
{
    struct fs_entry e;
    struct handle *h;
    struct err why = ERR_INIT;
    uint64_t a = *(const uint64_t *)arg;
    if (strcmp(op, "copy") != 0 || strcmp(key, "dumps_005/b/2.lzo") != 0)
        return;
    fault_set_hook(faults, NULL, NULL);
    env_put(files.store, "dumps_005/a/1.lzo", "of another host", 15);
    assert_false(fs_create(fs, a, "3", O_WRONLY | O_CREAT, 0600, ME, &e, &h, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rename(fs, dumps, "4", a, "4", false, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_unlink(fs, a, "2", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
}

static void what_came_meanwhile_is_not_removed(void **state)
{
    size_t n;
    (void)state;
    uint64_t a = make_dir(dumps, "a");
    assert_ok(put_text(a, "1", "one") && put_text(a, "2", "two") && put_text(dumps, "4", "four"),
              &err);
    fault_set_hook(faults, interfere, &a);
    assert_false(move(dumps, "a", dumps, "b"));
    assert_int_equal(fs_errno(&err), EBUSY);
    char *kept = env_get(files.store, "dumps_005/a/1.lzo", &n);
    assert_int_equal(n, 15);
    assert_memory_equal(kept, "of another host", n);
    free(kept);
    assert_text(dumps, "4", "four");
    assert_text(look_up(dumps, "b"), "2", "two");
}

static void a_deleted_file_does_not_come_back(void **state)
{
    (void)state;
    struct handle *h = create(dumps, "x", O_RDWR), *reader;
    assert_ok(h != NULL && fs_write(fs, h, "one", 3, 0, &endless, &err), &err);
    assert_ok(fs_fsync(fs, h, &endless, &err), &err);
    assert_ok(fs_open(fs, look_up(dumps, "x"), O_RDONLY, ME, &reader, &endless, &err), &err);
    assert_ok(fs_unlink(fs, dumps, "x", &endless, &err), &err);
    assert_ok(fs_write(fs, h, "two", 3, 0, &endless, &err), &err);
    (void)fs_flush(fs, h, ME, &endless, &err);
    fs_release(fs, h);
    assert_gone(dumps, "x");
    struct fs_bytes bytes;
    assert_false(fs_read(fs, reader, 0, 3, &bytes, &endless, &err));
    assert_int_equal(fs_errno(&err), ESTALE); /* and not that it is not there */
    fs_release(fs, reader);
    env_assert_list(files.store, (struct store_list){.prefix = "dumps"}, ENV_LIST(NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(streams_of_any_length),
        T(a_stream_goes_forward_only),
        T(staged_files_are_written_anywhere),
        T(one_writer_at_a_time),
        T(every_failure_of_a_write_is_told),
        T(nothing_is_overwritten_without_the_right),
        T(any_offset),
        T(what_another_host_replaced_is_another_node),
        T(damage_is_told),
        T(sizes_cost_no_request_each),
        T(objects_of_others_are_read_once),
        T(what_takes_long_to_read_is_read_once),
        T(directories),
        T(a_rename_never_loses_anything),
        T(whole_directories),
        T(what_came_meanwhile_is_not_removed),
        T(a_deleted_file_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
