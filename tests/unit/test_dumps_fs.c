/* dumps/ as the kernel's side uses it: writing, reading, listing, directories, renaming. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/dump_name.h"
#include "dumps_env.h"
#include "fs/errno.h"
#include "fs/inode.h"

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
            assert_ok(do_put(the_dumps, name, data + again, lengths[i]), &the_err);
            assert_holds(the_dumps, name, data + again, lengths[i]);
        }
    }
    do_unmount();
    do_mount(false, false);
    for (size_t i = 0; i < 5; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "f%zu", i);
        assert_holds(the_dumps, name, data + 1, lengths[i]);
    }
    free(data);
}

static void a_stream_goes_forward_only(void **state)
{
    (void)state;
    struct handle *h = do_create(the_dumps, "x", O_WRONLY);
    assert_non_null(h);
    assert_true(fs_handle_stream(h));
    assert_ok(fs_write(the_fs, h, "hello", 5, 0, &endless, &the_err), &the_err);
    assert_false(fs_write(the_fs, h, "J", 1, 0, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EINVAL);
    /* a program that goes on has a dump with a hole: it is not published */
    assert_false(fs_write(the_fs, h, " world", 6, 5, &endless, &the_err));
    assert_false(fs_flush(the_fs, h, ME, &endless, &the_err));
    fs_release(the_fs, h);
    assert_gone(the_dumps, "x");

    h = do_create(the_dumps, "y", O_WRONLY);
    assert_ok(fs_write(the_fs, h, "hello", 5, 0, &endless, &the_err), &the_err);
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    assert_false(fs_write(the_fs, h, "!", 1, 5, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    fs_release(the_fs, h);
    assert_text(the_dumps, "y", "hello");
}

static void staged_files_are_written_anywhere(void **state)
{
    (void)state;
    char got[16];
    size_t n;
    struct handle *h = do_create(the_dumps, "x", O_RDWR);
    assert_non_null(h);
    assert_false(fs_handle_stream(h));
    assert_ok(fs_write(the_fs, h, "world", 5, 6, &endless, &the_err), &the_err);
    assert_ok(fs_write(the_fs, h, "hello ", 6, 0, &endless, &the_err), &the_err);
    assert_ok(do_read(h, 3, 5, got, &n), &the_err);
    assert_memory_equal(got, "lo wo", 5);
    assert_ok(fs_fsync(the_fs, h, &endless, &the_err), &the_err);
    assert_text(the_dumps, "x", "hello world");
    struct fs_entry e;
    const struct fs_setattr shorter = {.set_size = true, .size = 5};
    assert_ok(fs_setattr(the_fs, do_look_up(the_dumps, "x"), &shorter, h, &e, &endless, &the_err),
              &the_err);
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    fs_release(the_fs, h);
    assert_text(the_dumps, "x", "hello");
}

static void one_writer_at_a_time(void **state)
{
    (void)state;
    struct fs_entry e;
    struct handle *h = do_create(the_dumps, "x", O_WRONLY), *other;
    assert_ok(fs_write(the_fs, h, "abc", 3, 0, &endless, &the_err), &the_err);
    uint64_t id = do_look_up(the_dumps, "x");
    assert_ok(fs_getattr(the_fs, id, NULL, &e, &endless, &the_err), &the_err);
    assert_int_equal(e.attr.st_size, 3);
    assert_string_equal(do_list(the_dumps).text, "x ");
    assert_false(fs_open(the_fs, id, O_WRONLY | O_TRUNC, ME, &other, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    assert_false(fs_open(the_fs, id, O_RDONLY, ME, &other, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    assert_false(do_move(the_dumps, "x", the_dumps, "y"));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    /* who deletes it loses what is written */
    assert_ok(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err), &the_err);
    assert_ok(fs_flush(the_fs, h, ME, &endless, &the_err), &the_err);
    fs_release(the_fs, h);
    assert_gone(the_dumps, "x");
}

#define UNSEEN ((pid_t)0) /* what the kernel says of a thread in another pid namespace */

/* Who may have been killed for all that walefs can see publishes nothing, and is told at once. */
static void writers_that_are_not_seen(void **state)
{
    struct fs_entry e;
    struct handle *h;
    (void)state;
    assert_false(
        fs_create(the_fs, the_dumps, "x", O_WRONLY, 0600, UNSEEN, &e, &h, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EPERM);
    assert_gone(the_dumps, "x");
    /* it was handed on to somebody who is not: that one's close is not its opener's */
    h = do_create(the_dumps, "x", O_WRONLY);
    assert_ok(fs_write(the_fs, h, "hello", 5, 0, &endless, &the_err), &the_err);
    assert_ok(fs_flush(the_fs, h, UNSEEN, &endless, &the_err), &the_err);
    env_assert_absent(the_files.store, "dumps_005/x.lzo");
    fs_release(the_fs, h);
    assert_gone(the_dumps, "x");
    assert_ok(do_put_text(the_dumps, "x", "hello"), &the_err);
    uint64_t id = do_look_up(the_dumps, "x");
    assert_ok(fs_open(the_fs, id, O_RDONLY, UNSEEN, &h, &endless, &the_err), &the_err);
    fs_release(the_fs, h);
    assert_false(fs_open(the_fs, id, O_WRONLY | O_TRUNC, UNSEEN, &h, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EPERM);
    assert_text(the_dumps, "x", "hello");
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
            fault_at(the_faults, 0, FAULT_BEFORE);
            if (kind == 0 && do_look_up(the_dumps, "x") != 0)
                assert_ok(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err), &the_err);
            else if (kind > 0)
                assert_ok(do_put_text(the_dumps, "x", "before"), &the_err);
            struct handle *h = do_create(the_dumps, "x", O_WRONLY);
            assert_non_null(h);
            fault_at(the_faults, ++nth, FAULT_BEFORE);
            bool ok = true;
            for (size_t pos = 0; ok && pos < n; pos += MIB)
                ok = fs_write(the_fs, h, data + pos, n - pos < MIB ? n - pos : MIB, pos, &endless,
                              &the_err);
            ok = fs_flush(the_fs, h, ME, &endless, &the_err) && ok;
            fs_release(the_fs, h);
            happened = fault_happened(the_faults);
            fault_at(the_faults, 0, FAULT_BEFORE);
            assert_int_equal(fault_uploads_open(the_faults), 0);
            if (ok)
                assert_holds(the_dumps, "x", data, n);
            else if (kind == 0)
                assert_gone(the_dumps, "x");
            else
                assert_text(the_dumps, "x", "before");
        } while (happened);
    }
    free(data);
}

static void nothing_is_overwritten_without_the_right(void **state)
{
    struct handle *h;
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "first"), &the_err);
    do_unmount();
    do_mount(true, false);
    assert_false(do_put_text(the_dumps, "x", "second"));
    assert_int_equal(fs_errno(&the_err), EEXIST);
    uint64_t id = do_look_up(the_dumps, "x");
    assert_false(fs_open(the_fs, id, O_WRONLY | O_APPEND, ME, &h, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EPERM);
    assert_ok(fs_open(the_fs, id, O_RDWR, ME, &h, &endless, &the_err), &the_err); /* to sync it */
    assert_ok(fs_fsync(the_fs, h, &endless, &the_err), &the_err);
    assert_false(fs_write(the_fs, h, "x", 1, 0, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EPERM);
    fs_release(the_fs, h);
    assert_false(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EPERM);
    /* another host was first: the writer is told when it closes */
    h = do_create(the_dumps, "race", O_WRONLY);
    assert_ok(fs_write(the_fs, h, "ours", 4, 0, &endless, &the_err), &the_err);
    env_put(the_files.store, "dumps_005/race.lzo", "theirs", 6);
    assert_false(fs_flush(the_fs, h, ME, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EEXIST);
    fs_release(the_fs, h);
    env_assert_content(the_files.store, "dumps_005/race.lzo", "theirs", 6);
    do_unmount();
    do_mount(false, true);
    assert_false(do_put_text(the_dumps, "y", "z"));
    assert_int_equal(fs_errno(&the_err), EPERM);
    assert_false(fs_unlink(the_fs, the_dumps, "x", &endless, &the_err));
    assert_false(do_move(the_dumps, "x", the_dumps, "y"));
    assert_text(the_dumps, "x", "first");
}

/* ---- the store is away ---- */

static void store_is_away(bool away)
{
    char gone[sizeof(the_files.dir) + 8];
    (void)snprintf(gone, sizeof(gone), "%s.gone", the_files.dir);
    assert_int_equal(away ? rename(the_files.dir, gone) : rename(gone, the_files.dir), 0);
}

/* Who makes a file looks for its name first, and the kernel does not say what for. So on a mount
 * that can write looking has the writers' deadline, also where readers wait for ever. */
static void opening_a_new_one_has_a_deadline(void **state)
{
    struct fs_entry e;
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "content"), &the_err);
    do_unmount();
    the_options.hard = true;
    the_options.write_timeout_ms = 500;
    do_mount(true, true);
    struct handle *h;
    assert_ok(fs_open(the_fs, do_look_up(the_dumps, "x"), O_RDONLY, ME, &h, &endless, &the_err),
              &the_err);
    store_is_away(true);
    assert_int_equal(do_look_up(the_dumps, "y"), 0);
    assert_int_equal(fs_errno(&the_err), EIO);
    /* what is open is waited for, and so is everything where nobody can write */
    struct fs_bytes bytes;
    const int64_t until_ms = now_ms() + 2000;
    const struct call patient = {.deadline_ms = until_ms};
    assert_false(fs_read(the_fs, h, 0, 7, &bytes, &patient, &the_err));
    assert_true(now_ms() >= until_ms);
    fs_release(the_fs, h);
    do_unmount();
    do_mount(false, false);
    const struct call again = {.deadline_ms = now_ms() + 2000};
    assert_false(fs_lookup(the_fs, the_dumps, "x", ME, &e, &again, &the_err));
    assert_true(now_ms() >= again.deadline_ms);
    store_is_away(false);
    assert_text(the_dumps, "x", "content");
}

/* ---- reading ---- */

static void any_offset(void **state)
{
    char *data = env_bytes(40 * MIB, 3), *got = malloc(MIB);
    struct handle *h;
    size_t n;
    unsigned seed = 5;
    (void)state;
    assert_ok(do_put(the_dumps, "x", data, 40 * MIB), &the_err);
    assert_ok(fs_open(the_fs, do_look_up(the_dumps, "x"), O_RDONLY, ME, &h, &endless, &the_err),
              &the_err);
    for (int i = 0; i < 60; i++) {
        seed = seed * 1103515245u + 12345u;
        uint64_t offset = seed % (40 * MIB);
        size_t want = 1 + (seed >> 8) % MIB, left = 40 * MIB - offset;
        assert_ok(do_read(h, offset, want, got, &n), &the_err);
        assert_int_equal(n, want < left ? want : left);
        assert_memory_equal(got, data + offset, n);
    }
    assert_ok(do_read(h, 40 * MIB, 10, got, &n), &the_err);
    assert_int_equal(n, 0);
    fs_release(the_fs, h);
    free(data);
    free(got);
}

/* The kernel may cache what a node has, so another content is another node. */
static void what_another_host_replaced_is_another_node(void **state)
{
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "first"), &the_err);
    assert_ok(do_put_text(the_dumps, "y", "second"), &the_err);
    uint64_t id = do_look_up(the_dumps, "x");
    size_t n;
    char *coded = env_get(the_files.store, "dumps_005/y.lzo", &n);
    env_put(the_files.store, "dumps_005/x.lzo", coded, n);
    free(coded);
    assert_int_not_equal(do_look_up(the_dumps, "x"), id);
    assert_text(the_dumps, "x", "second");
    struct handle *h;
    assert_false(fs_open(the_fs, id, O_RDONLY, ME, &h, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), ESTALE); /* the kernel looks again */
}

static void damage_is_told(void **state)
{
    (void)state;
    char *data = env_bytes(20 * MIB, 4);
    size_t n;
    assert_ok(do_put(the_dumps, "x", data, 20 * MIB), &the_err);
    assert_ok(do_put(the_dumps, "y", data, MIB), &the_err);
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? "dumps_005/x.lzo" : "dumps_005/y.lzo";
        char *coded = env_get(the_files.store, key, &n);
        coded[n - 1000] ^= 1;
        env_put(the_files.store, key, coded, n);
        free(coded);
        assert_null(do_get(the_dumps, i == 0 ? "x" : "y", &n));
        assert_int_equal(fs_errno(&the_err), EIO);
    }
    free(data);
}

/* Of the stored bytes of KEY one is changed, as a bad disk does: time and ETag stay. */
static void spoil(const char *key)
{
    char path[512];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", the_files.dir, key);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    unsigned char byte;
    assert_int_equal(pread(fd, &byte, 1, st.st_size - 1000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 1000), 1);
    const struct timespec times[] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t id;
} forgotten = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void forget(void *arg, uint64_t id)
{
    (void)arg;
    pthread_mutex_lock(&forgotten.lock);
    forgotten.id = id;
    pthread_cond_broadcast(&forgotten.changed);
    pthread_mutex_unlock(&forgotten.lock);
}

/* The kernel is told to forget what it keeps of a file that turns out to be damaged. */
static void what_was_read_of_a_damaged_one_is_taken_back(void **state)
{
    (void)state;
    char *data = env_bytes(40 * MIB, 4), got[100];
    size_t n;
    struct handle *h, *other;
    assert_ok(do_put(the_dumps, "x", data, 40 * MIB), &the_err);
    assert_ok(do_put(the_dumps, "y", data, 40 * MIB), &the_err);
    free(data);
    spoil("dumps_005/x.lzo");
    fs_set_invalidate(the_fs, forget, NULL);
    uint64_t id = do_look_up(the_dumps, "x"), sound = do_look_up(the_dumps, "y");
    assert_ok(fs_open(the_fs, sound, O_RDONLY, ME, &other, &endless, &the_err), &the_err);
    assert_ok(fs_open(the_fs, id, O_RDONLY, ME, &h, &endless, &the_err), &the_err);
    assert_ok(do_read(other, 0, 100, got, &n) && do_read(h, 0, 100, got, &n), &the_err);
    assert_false(do_read(h, 40 * MIB - 100, 100, got, &n));
    assert_int_equal(fs_errno(&the_err), EIO);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&forgotten.lock);
    while (forgotten.id == 0 &&
           pthread_cond_timedwait(&forgotten.changed, &forgotten.lock, &until) == 0) {
    }
    assert_int_equal(forgotten.id, id);
    pthread_mutex_unlock(&forgotten.lock);
    assert_false(do_read(h, 0, 100, got, &n)); /* what was good before is not served either */
    assert_int_equal(fs_errno(&the_err), EIO);
    assert_ok(do_read(other, 0, 100, got, &n), &the_err);
    fs_release(the_fs, other);
    fs_release(the_fs, h);
}

/* ---- listing ---- */

static void sizes_cost_no_request_each(void **state)
{
    (void)state;
    uint64_t d = do_mkdir(the_dumps, "d");
    for (int i = 0; i < 60; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "f%02d", i);
        assert_ok(do_put(d, name, name, (size_t)i % 3), &the_err);
    }
    do_unmount();
    do_mount(true, true);
    d = do_look_up(the_dumps, "d");
    fault_at(the_faults, 0, FAULT_BEFORE);
    struct listing l = do_list(d);
    assert_int_equal(l.count, 60);
    assert_int_equal(l.sized, 60);
    assert_in_range(fault_calls(the_faults), 2, 4);
}

static void objects_of_others_are_read_once(void **state)
{
    size_t n;
    (void)state;
    assert_ok(do_put_text(the_dumps, "x", "content"), &the_err);
    char *coded = env_get(the_files.store, "dumps_005/x.lzo", &n);
    env_put(the_files.store, "dumps_005/theirs.lzo", coded, n);
    env_put(the_files.store, "dumps_005/..lzo", coded, n);
    env_put(the_files.store, "dumps_005/no.suffix", coded, n);
    env_put(the_files.store, "dumps_005/bad.lzo", "damaged", 7);
    free(coded);
    assert_text(the_dumps, "theirs", "content");
    struct listing l = do_list(the_dumps);
    assert_string_equal(l.text, "bad theirs x ");
    assert_int_equal(l.sized, 2);
    struct fs_entry e;
    assert_ok(fs_lookup(the_fs, the_dumps, "bad", ME, &e, &endless, &the_err), &the_err);
    assert_int_equal(e.attr.st_size, 7); /* it is there, and cannot be read */
    do_unmount();
    do_mount(false, false);
    fault_at(the_faults, 0, FAULT_BEFORE);
    assert_int_not_equal(do_look_up(the_dumps, "theirs"), 0);
    assert_int_equal(fault_calls(the_faults), 2); /* the object, and its facts */
}

/* ---- directories and renaming ---- */

static void directories(void **state)
{
    struct fs_entry e;
    (void)state;
    uint64_t a = do_mkdir(the_dumps, "a"), b = do_mkdir(a, "b");
    assert_string_equal(do_list(the_dumps).text, "a/ ");
    assert_ok(do_put_text(b, "x", "1"), &the_err);
    assert_false(fs_rmdir(the_fs, the_dumps, "a", &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), ENOTEMPTY);
    assert_false(fs_mkdir(the_fs, b, "new\nline", 0700, &e, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), EINVAL);
    do_unmount();
    do_mount(true, true); /* now only the keys tell of them */
    a = do_look_up(the_dumps, "a");
    b = do_look_up(a, "b");
    assert_string_equal(do_list(a).text, "b/ ");
    assert_text(b, "x", "1");
    assert_ok(fs_unlink(the_fs, b, "x", &endless, &the_err), &the_err);
    assert_int_not_equal(do_look_up(do_look_up(the_dumps, "a"), "b"),
                         0); /* it has been emptied, and stays */
    assert_ok(fs_rmdir(the_fs, a, "b", &endless, &the_err), &the_err);
    assert_gone(a, "b");
    assert_ok(fs_rmdir(the_fs, the_dumps, "a", &endless, &the_err), &the_err);
    assert_gone(the_dumps, "a");
    env_assert_list(the_files.store, (struct store_list){.prefix = "dumps"}, ENV_LIST(NULL));
}

#define PAGE(dir, entry, token)                                                             \
    "{'expect': 'GET /bucket\\?.*prefix=p%2F" dir "_005%2F.*', 'text': '<ListBucketResult>" \
    "<IsTruncated>true</IsTruncated>" entry "<NextContinuationToken>" token                 \
    "</NextContinuationToken></ListBucketResult>'}"
#define STAYS(dir, first, second) \
    PAGE(dir, first, "1") ", " PAGE(dir, second, "2") ", " PAGE(dir, second, "2")
#define BELOW(name) "<CommonPrefixes><Prefix>p/dumps_005/" name "/</Prefix></CommonPrefixes>"
#define HISTORY(name) "<Contents><Key>p/wal_005/" name ".history.lzo</Key></Contents>"

static bool count(void *arg, const char *name, mode_t type, const struct fs_entry *entry,
                  uint64_t next)
{
    (void)name;
    (void)type;
    (void)entry;
    *(uint64_t *)arg = next;
    return true;
}

/* Listed page by page, of which the third is the second again. */
static void list_what_stays(uint64_t id)
{
    struct dir *d;
    uint64_t next = 0;
    assert_ok(fs_opendir(the_fs, id, &d, &endless, &the_err), &the_err);
    for (uint64_t page = 1; page <= 2; page++) {
        assert_ok(fs_readdir(the_fs, d, next, false, count, &next, &endless, &the_err), &the_err);
        assert_int_equal(next, 2 + page);
    }
    assert_false(fs_readdir(the_fs, d, next, false, count, &next, &endless, &the_err));
    env_assert_error(&the_err, ERR_CORRUPT, "the same page again");
    assert_int_equal(fs_errno(&the_err), EIO);
    fs_releasedir(the_fs, d);
}

/* A store, or a cache before it, that ignores where the listing has come to. */
static void listings_that_stay_fail(void **state)
{
    struct script script;
    (void)state;
    do_unmount();
    script_begin(&script, "[" STAYS("dumps", BELOW("a"), BELOW("b")) ", " STAYS(
                              "wal", HISTORY("00000002"), HISTORY("00000003")) "]");
    struct store *s = script_store(&script, 1);
    the_options.store = s;
    do_mount(true, true);
    list_what_stays(the_dumps);
    list_what_stays(do_look_up(INODE_ROOT, "wal"));
    do_unmount();
    s->ops->free(s);
    script_end(&script);
    the_options.store = fault_base(the_faults);
    do_mount(true, true);
}

/* What lies below gets ".lzo" and facts: a little less than a file system's 255 bytes is left. */
static void long_names(void **state)
{
    char name[256];
    struct fs_entry e;
    (void)state;
    memset(name, 'n', sizeof(name));
    name[DUMP_NAME_MAX] = '\0';
    uint64_t dir = do_mkdir(the_dumps, name);
    assert_int_not_equal(dir, 0);
    assert_true(do_put_text(dir, name, "long"));
    name[DUMP_NAME_MAX] = 'n';
    name[DUMP_NAME_MAX + 1] = '\0';
    assert_null(do_create(the_dumps, name, O_WRONLY));
    assert_int_equal(fs_errno(&the_err), ENAMETOOLONG);
    assert_false(fs_mkdir(the_fs, dir, name, 0700, &e, &endless, &the_err));
    assert_int_equal(fs_errno(&the_err), ENAMETOOLONG);
    name[DUMP_NAME_MAX] = '\0';
    dir = do_mkdir(do_mkdir(dir, "second"), name);
    dir = do_mkdir(dir, name);
    assert_null(do_create(dir, name, O_WRONLY)); /* the path as a whole */
    assert_int_equal(fs_errno(&the_err), ENAMETOOLONG);
    assert_null(do_create(the_dumps, "a\nb", O_WRONLY));
    assert_int_equal(fs_errno(&the_err), EINVAL);
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
            fault_at(the_faults, 0, FAULT_BEFORE);
            if (do_look_up(the_dumps, "y") != 0)
                assert_ok(fs_unlink(the_fs, the_dumps, "y", &endless, &the_err), &the_err);
            assert_ok(do_put_text(the_dumps, "x", "moved"), &the_err);
            if (kind == 1)
                assert_ok(do_put_text(the_dumps, "y", "replaced"), &the_err);
            assert_int_not_equal(do_look_up(the_dumps, "x"), 0);
            nth++;
            fault_at(the_faults, nth, nth % 2 == 0 ? FAULT_AFTER : FAULT_BEFORE);
            bool ok = do_move(the_dumps, "x", the_dumps, "y");
            happened = fault_happened(the_faults);
            fault_at(the_faults, 0, FAULT_BEFORE);
            char *at_x = do_get(the_dumps, "x", &n), *at_y = do_get(the_dumps, "y", &n);
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
    uint64_t id = do_look_up(dir, name), sub = id == 0 ? 0 : do_look_up(id, "sub");
    char *one = id == 0 ? NULL : do_get(id, "1", &n), *two = sub == 0 ? NULL : do_get(sub, "2", &n);
    bool whole = one != NULL && two != NULL && strcmp(one, "one") == 0 && strcmp(two, "two") == 0;
    free(one);
    free(two);
    return whole;
}

static void remove_files(uint64_t dir, const char *name)
{
    uint64_t id = do_look_up(dir, name), sub = id == 0 ? 0 : do_look_up(id, "sub");
    if (id == 0)
        return;
    if (do_look_up(id, "1") != 0)
        assert_ok(fs_unlink(the_fs, id, "1", &endless, &the_err), &the_err);
    if (sub != 0 && do_look_up(sub, "2") != 0)
        assert_ok(fs_unlink(the_fs, sub, "2", &endless, &the_err), &the_err);
    if (sub != 0)
        assert_ok(fs_rmdir(the_fs, id, "sub", &endless, &the_err), &the_err);
    if (do_look_up(dir, name) != 0)
        assert_ok(fs_rmdir(the_fs, dir, name, &endless, &the_err), &the_err);
}

static void whole_directories(void **state)
{
    (void)state;
    uint64_t a = do_mkdir(the_dumps, "a"), sub = do_mkdir(a, "sub"), z = do_mkdir(the_dumps, "z");
    assert_ok(do_put_text(a, "1", "one") && do_put_text(sub, "2", "two"), &the_err);
    uint64_t two = do_look_up(sub, "2");
    assert_false(do_move(the_dumps, "a", sub, "in"));
    assert_int_equal(fs_errno(&the_err), EINVAL);
    assert_ok(do_move(the_dumps, "a", z, "b"), &the_err);
    assert_gone(the_dumps, "a");
    assert_string_equal(do_list(a).text, "sub/ 1 "); /* the same node, by its new name */
    assert_text(a, "1", "one");
    assert_int_equal(do_look_up(sub, "2"), two);
    assert_text(sub, "2", "two");
    assert_string_equal(do_list(z).text, "b/ ");
    /* whatever fails: all is there, under one name or both */
    unsigned nth = 0;
    bool happened;
    do {
        fault_at(the_faults, ++nth, FAULT_BEFORE);
        bool ok = do_move(z, "b", z, "c");
        happened = fault_happened(the_faults);
        fault_at(the_faults, 0, FAULT_BEFORE);
        bool old = is_whole(z, "b"), new = is_whole(z, "c");
        assert_true(old || new);
        assert_true(!ok || (new &&do_look_up(z, "b") == 0));
        if (new) {
            remove_files(z, "b");
            assert_ok(do_move(z, "c", z, "b"), &the_err);
        } else {
            remove_files(z, "c");
        }
    } while (happened);
    assert_true(nth > 12);
    /* a file that is being written is not moved away from under its writer */
    uint64_t w = do_mkdir(the_dumps, "w");
    struct handle *h = do_create(w, "x", O_WRONLY);
    assert_false(do_move(the_dumps, "w", the_dumps, "v"));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    fs_release(the_fs, h);
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
    fault_set_hook(the_faults, NULL, NULL);
    env_put(the_files.store, "dumps_005/a/1.lzo", "of another host", 15);
    assert_false(fs_create(the_fs, a, "3", O_WRONLY | O_CREAT, 0600, ME, &e, &h, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_rename(the_fs, the_dumps, "4", a, "4", false, &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
    assert_false(fs_unlink(the_fs, a, "2", &endless, &why));
    assert_int_equal(fs_errno(&why), EBUSY);
}

static void what_came_meanwhile_is_not_removed(void **state)
{
    size_t n;
    (void)state;
    uint64_t a = do_mkdir(the_dumps, "a");
    assert_ok(do_put_text(a, "1", "one") && do_put_text(a, "2", "two") &&
                  do_put_text(the_dumps, "4", "four"),
              &the_err);
    fault_set_hook(the_faults, interfere, &a);
    assert_false(do_move(the_dumps, "a", the_dumps, "b"));
    assert_int_equal(fs_errno(&the_err), EBUSY);
    char *kept = env_get(the_files.store, "dumps_005/a/1.lzo", &n);
    assert_int_equal(n, 15);
    assert_memory_equal(kept, "of another host", n);
    free(kept);
    assert_text(the_dumps, "4", "four");
    assert_text(do_look_up(the_dumps, "b"), "2", "two");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DUMPS_TEST(streams_of_any_length),
        DUMPS_TEST(a_stream_goes_forward_only),
        DUMPS_TEST(staged_files_are_written_anywhere),
        DUMPS_TEST(one_writer_at_a_time),
        DUMPS_TEST(writers_that_are_not_seen),
        DUMPS_TEST(every_failure_of_a_write_is_told),
        DUMPS_TEST(nothing_is_overwritten_without_the_right),
        DUMPS_TEST(opening_a_new_one_has_a_deadline),
        DUMPS_TEST(any_offset),
        DUMPS_TEST(what_another_host_replaced_is_another_node),
        DUMPS_TEST(damage_is_told),
        DUMPS_TEST(what_was_read_of_a_damaged_one_is_taken_back),
        DUMPS_TEST(sizes_cost_no_request_each),
        DUMPS_TEST(objects_of_others_are_read_once),
        DUMPS_TEST(directories),
        DUMPS_TEST(listings_that_stay_fail),
        DUMPS_TEST(long_names),
        DUMPS_TEST(a_rename_never_loses_anything),
        DUMPS_TEST(whole_directories),
        DUMPS_TEST(what_came_meanwhile_is_not_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
