/* The tree wal/ over a store in memory, through fs/fs.h as the kernel's side calls it: the promises
 * of the design that concern wal/. */
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
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"
#include "core/wal_name.h"
#include "fs/errno.h"
#include "fs/fs.h"
#include "gpg_home.h"
#include "mem_fs_env.h"
#include "victim.h"

#define MIB (1u << 20)
#define SEG "000000010000000000000002"
#define SEG_KEY "wal_005/" SEG ".lzo"
#define SEG2 "000000010000000000000003"
#define SEG2_KEY "wal_005/" SEG2 ".lzo"
#define PARTIAL SEG ".partial"
#define PARTIAL_KEY "wal_005/" PARTIAL ".lzo"
#define HISTORY "00000002.history"
#define HISTORY_KEY "wal_005/" HISTORY ".lzo"
#define LABEL SEG ".00000028.backup"
#define LABEL_KEY "wal_005/" LABEL ".lzo"
#define TEMP "archtemp." SEG ".17.42"

static const char history_text[] = "1\t0/3000000\tno recovery target specified\n";
static const char label_text[] = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";

/* ---- a file system and its store ---- */

static uint64_t wal;
static const struct call endless = CALL_INIT;

static struct fs_options default_options(void)
{
    return (struct fs_options){.uid = 1000,
                               .gid = 1001,
                               .hard = true,
                               .soft_timeout_ms = 300,
                               .write_timeout_ms = 2000,
                               .cache_bytes = 64 * MIB,
                               .prefetch = 0};
}

static void start(struct fs_options options)
{
    mem_fs_begin(options);
    wal = mem_fs_look_up(INODE_ROOT, "wal");
}

static int set_up(void **state)
{
    (void)state;
    start(default_options());
    return 0;
}

static int set_up_soft(void **state)
{
    (void)state;
    struct fs_options o = default_options();
    o.hard = false;
    o.soft_timeout_ms = 100;
    start(o);
    return 0;
}

static int set_up_read_only(void **state)
{
    (void)state;
    struct fs_options o = default_options();
    o.read_only = true;
    start(o);
    return 0;
}

static int set_up_no_cache(void **state)
{
    (void)state;
    struct fs_options o = default_options();
    o.cache_bytes = 0;
    start(o);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mem_fs_end();
    return 0;
}

/* ---- what a kernel would ask; all return an errno ---- */

static int result(bool ok, const struct err *err)
{
    return ok ? 0 : fs_errno(err);
}

static int look_call(const char *name, struct fs_entry *out, const struct call *call)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    int rc = result(fs_lookup(fs, wal, name, 0, &e, call, &err), &err);
    if (rc == 0) {
        assert_true(S_ISREG(e.attr.st_mode));
        fs_forget(fs, e.id, 1);
        if (out != NULL)
            *out = e;
    }
    return rc;
}

static int look(const char *name, struct fs_entry *out)
{
    return look_call(name, out, &endless);
}

/* As open(2): looks up, then opens or makes. */
static int open_as(const char *name, int flags, pid_t pid, struct handle **h)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    bool ok = fs_lookup(fs, wal, name, 0, &e, &endless, &err);
    if (ok && (flags & O_EXCL) != 0) {
        fs_forget(fs, e.id, 1);
        return EEXIST;
    }
    if (ok)
        ok = fs_open(fs, e.id, flags & ~O_CREAT, pid, h, &endless, &err);
    else if (err.code == ERR_ABSENT && (flags & O_CREAT) != 0)
        ok = fs_create(fs, wal, name, flags, 0600, pid, &e, h, &endless, &err);
    else
        return fs_errno(&err);
    if (ok || (flags & O_CREAT) == 0)
        fs_forget(fs, e.id, 1);
    return result(ok, &err);
}

static int open_new(const char *name, struct handle **h)
{
    return open_as(name, O_WRONLY | O_CREAT | O_TRUNC, getpid(), h);
}

static int write_at(struct handle *h, const void *data, size_t n, uint64_t offset)
{
    struct err err = ERR_INIT;
    const char *p = data;
    for (size_t done = 0; done < n;) {
        size_t part = n - done < 128 * 1024 ? n - done : 128 * 1024;
        if (!fs_write(fs, h, p + done, part, offset + done, &endless, &err))
            return fs_errno(&err);
        done += part;
    }
    return 0;
}

static int flush_as(struct handle *h, pid_t pid)
{
    struct err err = ERR_INIT;
    return result(fs_flush(fs, h, pid, &endless, &err), &err);
}

static int flush(struct handle *h)
{
    return flush_as(h, getpid());
}

static int fsync_handle(struct handle *h)
{
    struct err err = ERR_INIT;
    return result(fs_fsync(fs, h, &endless, &err), &err);
}

static int close_handle(struct handle *h)
{
    int rc = flush(h);
    fs_release(fs, h);
    return rc;
}

/* cp onto NAME: the first error, close's included. */
static int cp(const char *name, const void *data, size_t n)
{
    struct handle *h;
    int rc = open_new(name, &h);
    if (rc != 0)
        return rc;
    rc = write_at(h, data, n, 0);
    int closed = close_handle(h);
    return rc != 0 ? rc : closed;
}

static int read_handle(struct handle *h, void *out, size_t cap, size_t *n)
{
    struct err err = ERR_INIT;
    *n = 0;
    for (;;) {
        struct fs_bytes b;
        if (!fs_read(fs, h, *n, cap - *n < 100000 ? cap - *n : 100000, &b, &endless, &err))
            return fs_errno(&err);
        if (b.size == 0)
            return 0;
        ssize_t got = pread(b.fd, (char *)out + *n, b.size, (off_t)b.offset);
        assert_int_equal(got, b.size); /* what is announced is there */
        *n += b.size;
        if (*n == cap)
            return 0;
    }
}

/* An errno, or 0 when the file has exactly this content, or -1 when it has another. */
static int reads_as(const char *name, const void *data, size_t n)
{
    struct handle *h;
    size_t got;
    int rc = open_as(name, O_RDONLY, getpid(), &h);
    if (rc != 0)
        return rc;
    char *out = malloc(n + 1);
    assert_non_null(out);
    rc = read_handle(h, out, n + 1, &got);
    if (rc == 0 && (got != n || memcmp(out, data, n) != 0))
        rc = -1;
    free(out);
    assert_int_equal(close_handle(h), 0);
    return rc;
}

static int rename_file(const char *from, const char *to)
{
    struct err err = ERR_INIT;
    return result(fs_rename(fs, wal, from, wal, to, false, &endless, &err), &err);
}

static int unlink_file(const char *name)
{
    struct err err = ERR_INIT;
    return result(fs_unlink(fs, wal, name, &endless, &err), &err);
}

/* A segment of 1 MiB; freed by the caller. */
static char *segment_of(const char *name, unsigned seed)
{
    char *p = malloc(MIB);
    assert_non_null(p);
    test_segment(p, MIB, name, seed);
    return p;
}

static void name_of(unsigned i, char out[WAL_NAME_MAX])
{
    (void)snprintf(out, WAL_NAME_MAX, "%08X%08X%08X", 1u, i / 4096, i % 4096);
}

static bool holds(const char *name, const void *data, size_t n)
{
    return mem_holds(mem, pgp, name, data, n);
}

/* ---- promise 1 and 2: when a file is published ---- */

static void test_close_publishes(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(look(SEG, NULL), ENOENT);
    assert_int_equal(open_as(SEG, O_WRONLY | O_CREAT | O_EXCL, getpid(), &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(flush(h), 0);
    assert_true(holds(SEG, seg, MIB));
    fs_release(fs, h);
    assert_int_equal(mem_calls(mem, MEM_PUT), 1);
    assert_int_equal(mem_count(mem), 1);

    struct store_meta meta;
    assert_true(mem_meta(mem, SEG_KEY, "walefs-size", &meta));
    assert_string_equal(meta.value, "1048576");
    assert_true(mem_meta(mem, SEG_KEY, "walefs-digest", &meta));
    assert_int_equal(strncmp(meta.value, "sha256:", 7), 0);

    struct fs_entry e;
    assert_int_equal(look(SEG, &e), 0);
    assert_int_equal(e.attr.st_size, MIB);
    assert_int_equal(e.attr.st_uid, 1000);
    assert_int_equal(e.attr.st_gid, 1001);
    assert_int_equal(e.attr.st_mode & 07777, 0600);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
}

static void test_small_files_are_published(void **state)
{
    (void)state;
    struct fs_entry e;
    assert_int_equal(cp(HISTORY, history_text, sizeof(history_text) - 1), 0);
    assert_int_equal(cp(LABEL, label_text, sizeof(label_text) - 1), 0);
    assert_true(holds(HISTORY, history_text, sizeof(history_text) - 1));
    assert_true(holds(LABEL, label_text, sizeof(label_text) - 1));
    assert_int_equal(look(LABEL, &e), 0);
    assert_int_equal(e.attr.st_size, sizeof(label_text) - 1);
}

static void test_fsync_publishes(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB / 2, 0), 0);
    assert_int_equal(fsync_handle(h), EINVAL); /* half a segment is none */
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(write_at(h, seg + MIB / 2, MIB / 2, MIB / 2), 0);
    assert_int_equal(fsync_handle(h), 0);
    assert_true(holds(SEG, seg, MIB));
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(mem_calls(mem, MEM_PUT), 1);
    free(seg);
}

static void test_error_is_the_closes(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        int number;
    } cases[] = {{ERR_FORBIDDEN, EACCES}, {ERR_UNAVAILABLE, EIO}, {ERR_NO_SPACE, ENOSPC},
                 {ERR_THROTTLED, EIO},    {ERR_TIMEOUT, EIO},     {ERR_NO_BUCKET, EIO},
                 {ERR_NO_MEMORY, ENOMEM}, {ERR_CORRUPT, EIO},     {ERR_KEY, EACCES},
                 {ERR_CANCELLED, EINTR},  {ERR_LOCAL, EIO},       {ERR_UNSUPPORTED, EOPNOTSUPP},
                 {ERR_INVALID, EINVAL},   {ERR_NONE, EIO},        {ERR_FROZEN, EIO},
                 {ERR_DENIED, EPERM}};
    char *seg = segment_of(SEG, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mem_fail(mem, MEM_PUT, 1, 1000, cases[i].code);
        assert_int_equal(cp(SEG, seg, MIB), cases[i].number);
        mem_heal(mem);
        assert_int_equal(mem_count(mem), 0);
        assert_int_equal(look(SEG, NULL), ENOENT);
    }
    free(seg);
}

static void test_failed_close_then_release_publishes_nothing(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    mem_fail(mem, MEM_PUT, 1, 1, ERR_UNAVAILABLE);
    assert_int_equal(flush(h), EIO);
    mem_heal(mem);
    fs_release(fs, h);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(look(SEG, NULL), ENOENT);
    assert_int_equal(cp(SEG, seg, MIB), 0); /* PostgreSQL tries again */
    free(seg);
}

/* A descriptor of this process whose path looks as one of the mount's, as /proc shows it. */
struct descriptor {
    char dir[32], sub[48], path[128];
    int fd;
};

static struct descriptor descriptor_of(const char *name)
{
    struct descriptor d;
    strcpy(d.dir, "/tmp/walefs-test.XXXXXX");
    assert_non_null(mkdtemp(d.dir));
    (void)snprintf(d.sub, sizeof(d.sub), "%s/wal", d.dir);
    (void)snprintf(d.path, sizeof(d.path), "%s/%s", d.sub, name);
    assert_int_equal(mkdir(d.sub, 0700), 0);
    d.fd = open(d.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(d.fd >= 0);
    return d;
}

static void descriptor_close(struct descriptor *d)
{
    assert_int_equal(close(d->fd), 0);
    assert_int_equal(unlink(d->path), 0);
    assert_int_equal(rmdir(d->sub), 0);
    assert_int_equal(rmdir(d->dir), 0);
}

/* The shell closes its copy after dup2; a child ends with what it inherited. */
static void test_closes_of_others_change_nothing(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct victim child = victim_start(END_KILLED);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    struct descriptor second = descriptor_of(SEG);
    assert_int_equal(flush(h), 0); /* nothing is written yet */
    descriptor_close(&second);
    assert_int_equal(write_at(h, seg, 1000, 0), 0);
    assert_int_equal(flush_as(h, child.pid), 0);
    victim_end(&child);
    assert_int_equal(flush_as(h, child.pid), 0);
    assert_int_equal(write_at(h, seg + 1000, MIB - 1000, 1000), 0);
    assert_int_equal(flush_as(h, child.pid), 0);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(SEG, seg, MIB));
    victim_reap(&child);
    free(seg);
}

/* The opener has gone in order before; the last descriptor was a child's. */
static void test_release_publishes_what_nobody_closed(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct victim child = victim_start(END_WELL);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(flush_as(h, child.pid), 0);
    assert_int_equal(mem_count(mem), 0);
    fs_release(fs, h);
    assert_true(holds(SEG, seg, MIB));
    victim_end(&child);
    victim_reap(&child);
    free(seg);
}

static void *thread_id(void *arg)
{
    int *gate = arg;
    pid_t id = (pid_t)syscall(SYS_gettid);
    char c;
    assert_int_equal(write(gate[3], &id, sizeof(id)), sizeof(id));
    assert_int_equal(read(gate[0], &c, 1), 1);
    return NULL;
}

static void test_any_thread_of_the_opener_closes(void **state)
{
    (void)state;
    int gate[4];
    pid_t tid;
    pthread_t thread;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    assert_int_equal(pipe2(gate + 2, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&thread, NULL, thread_id, gate), 0);
    assert_int_equal(read(gate[2], &tid, sizeof(tid)), sizeof(tid));
    assert_int_not_equal(tid, getpid());
    assert_int_equal(open_as(SEG, O_WRONLY | O_CREAT, tid, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(flush_as(h, getpid()), 0);
    assert_true(holds(SEG, seg, MIB));
    fs_release(fs, h);
    assert_int_equal(open_as(SEG2, O_WRONLY | O_CREAT, getpid(), &h), 0);
    test_segment(seg, MIB, SEG2, 1);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(flush_as(h, tid), 0);
    assert_true(holds(SEG2, seg, MIB));
    fs_release(fs, h);
    assert_int_equal(write(gate[1], "", 1), 1);
    pthread_join(thread, NULL);
    for (int i = 0; i < 4; i++)
        close(gate[i]);
    free(seg);
}

/* The flush comes from the dying process; then release, which nobody waits for. */
static void check_dying_writer(int how, bool published)
{
    char *seg = segment_of(SEG, 1);
    struct victim v = victim_start(how);
    struct handle *h;
    assert_int_equal(open_as(SEG, O_WRONLY | O_CREAT, v.pid, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0); /* even a whole segment */
    victim_end(&v);
    assert_int_equal(flush_as(h, v.pid), 0);
    fs_release(fs, h);
    victim_reap(&v);
    assert_int_equal(holds(SEG, seg, MIB), published);
    assert_int_equal(look(SEG, NULL), published ? 0 : ENOENT);
    free(seg);
}

static void test_killed_writer_publishes_nothing(void **state)
{
    (void)state;
    check_dying_writer(END_KILLED, false);
}

static void test_failed_writer_publishes_nothing(void **state)
{
    (void)state;
    check_dying_writer(END_ERROR, false);
}

static void test_exit_without_close_publishes(void **state)
{
    (void)state;
    check_dying_writer(END_WELL, true);
}

/* Another process has the candidate open too, without having written to it. */
static void test_killed_writer_beside_another_handle(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct victim v = victim_start(END_KILLED);
    struct handle *h, *other;
    assert_int_equal(open_as(SEG, O_WRONLY | O_CREAT, v.pid, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &other), 0);
    victim_end(&v);
    assert_int_equal(flush_as(h, v.pid), 0);
    fs_release(fs, h);
    victim_reap(&v);
    (void)close_handle(other);
    assert_int_equal(mem_count(mem), 0);
    free(seg);
}

/* Somebody else's fsync must not publish what the writer has not finished; that of pg_receivewal's
 * second descriptor does. */
static void test_fsync_by_another_handle(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h, *other;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &other), 0);
    assert_int_equal(fsync_handle(other), EINVAL);
    assert_int_equal(close_handle(other), 0);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
}

/* Whose last descriptor goes last must not matter to what was written. */
static void test_release_beside_another_handle(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct victim child = victim_start(END_WELL);
    struct handle *h, *other;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &other), 0);
    assert_int_equal(flush_as(h, child.pid), 0);
    fs_release(fs, h);
    assert_int_equal(close_handle(other), 0);
    assert_true(holds(SEG, seg, MIB));
    victim_end(&child);
    victim_reap(&child);
    free(seg);
}

/* No WAL file is empty, so the close of one is an error; unless the same process has another
 * descriptor of it, as a shell has after dup2. */
static void test_empty_file(void **state)
{
    (void)state;
    struct handle *h;
    assert_int_equal(cp(SEG, "", 0), EINVAL);
    assert_int_equal(cp(HISTORY, "", 0), EINVAL);
    assert_int_equal(cp(PARTIAL, "", 0), EINVAL);
    assert_int_equal(cp(TEMP, "", 0), 0);
    struct descriptor second = descriptor_of(SEG);
    assert_int_equal(cp(SEG, "", 0), 0);
    descriptor_close(&second);
    struct victim v = victim_start(END_KILLED); /* before its first byte */
    assert_int_equal(open_as(SEG, O_WRONLY | O_CREAT, v.pid, &h), 0);
    victim_end(&v);
    assert_int_equal(flush_as(h, v.pid), 0);
    fs_release(fs, h);
    victim_reap(&v);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(look(SEG, NULL), ENOENT);
}

static void refuse(const char *name, const void *data, size_t n)
{
    assert_int_equal(cp(name, data, n), EINVAL);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(look(name, NULL), ENOENT);
}

static void test_wrong_content_is_refused(void **state)
{
    (void)state;
    char *seg = malloc(2 * MIB);
    assert_non_null(seg);
    memset(seg, 0, 2 * MIB);
    refuse(SEG, seg, MIB); /* preallocated, not written */
    refuse(SEG, "x", 1);
    test_segment(seg, MIB, SEG, 1);
    refuse(SEG, seg, MIB - 1);
    refuse(SEG, seg, MIB + 1);
    refuse(SEG, seg, 2 * MIB);
    refuse(SEG, seg, 39);
    refuse(SEG2, seg, MIB); /* another segment's page address */
    refuse("000000010000000100000002", seg, MIB);
    refuse("000000010000000000001000", seg, MIB); /* no such number with 1 MiB */
    test_segment(seg, MIB, "000000020000000000000002", 1);
    refuse(SEG, seg, MIB); /* a younger timeline's */
    test_segment(seg, MIB, SEG, 1);
    seg[2] = 0; /* not the long header */
    refuse(SEG, seg, MIB);

    refuse(HISTORY, "2\t0/3000000\tx\n", 13);
    refuse(HISTORY, "nonsense\n", 9);
    refuse(HISTORY, "# only a comment\n", 17);
    refuse(LABEL, "STOP WAL", 8);
    memset(seg, '#', 2 * MIB);
    refuse(HISTORY, seg, MIB + 1);
    memcpy(seg, label_text, sizeof(label_text) - 1);
    refuse(LABEL, seg, MIB + 1);
    free(seg);
}

static void test_older_timeline_in_a_copied_segment(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1); /* copied at a timeline switch */
    assert_int_equal(cp("000000020000000000000002", seg, MIB), 0);
    free(seg);
}

/* The content changes between the check and the second try of the put. */
struct changer {
    struct handle *h;
    int calls;
};

static void change_at_head(void *arg, enum mem_op op, const char *key)
{
    struct changer *c = arg;
    struct err err = ERR_INIT;
    if (op != MEM_HEAD || c->h == NULL || c->calls++ > 0)
        return;
    mem_delete(mem, key);
    assert_true(fs_write(fs, c->h, "x", 1, MIB, &endless, &err));
}

static void test_changed_while_it_is_published(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct changer c = {.calls = 0};
    assert_int_equal(open_new(SEG, &c.h), 0);
    mem_archive_segment(mem, SEG, MIB, 9);
    assert_int_equal(write_at(c.h, seg, MIB, 0), 0);
    mem_set_hook(mem, change_at_head, &c);
    assert_int_equal(flush(c.h), EINVAL);
    mem_set_hook(mem, NULL, NULL);
    assert_int_equal(c.calls, 1);
    assert_int_equal(mem_count(mem), 0); /* not a segment of 1 MiB and one byte */
    fs_release(fs, c.h);
    assert_int_equal(mem_count(mem), 0);
    free(seg);
}

/* ---- promise 3: what is archived is not overwritten ---- */

static void test_other_content_is_refused(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    uint64_t generation = mem_generation(mem, SEG_KEY);
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    assert_int_equal(mem_generation(mem, SEG_KEY), generation);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);

    assert_int_equal(cp(HISTORY, history_text, sizeof(history_text) - 1), 0);
    assert_int_equal(cp(HISTORY, "1\t0/4000000\tanother\n", 20), EEXIST);
    assert_int_equal(reads_as(HISTORY, history_text, sizeof(history_text) - 1), 0);
    free(seg);
    free(other);
}

static void test_same_content_again(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    uint64_t generation = mem_generation(mem, SEG_KEY);
    unsigned gets = mem_calls(mem, MEM_GET);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(mem_generation(mem, SEG_KEY), generation);
    assert_int_equal(mem_calls(mem, MEM_GET), gets); /* by its digest, without fetching it */
    free(seg);
}

static void test_same_content_as_wal_e_wrote(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    mem_archive(mem, SEG, seg, MIB);
    uint64_t generation = mem_generation(mem, SEG_KEY);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    other[MIB - 1] = (char)(seg[MIB - 1] ^ 1);
    memcpy(other, seg, MIB - 1); /* differs in the last bit only */
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    assert_int_equal(mem_generation(mem, SEG_KEY), generation);
    free(seg);
    free(other);
}

/* Metadata that is not ours, or damaged, must not turn the same content into another. */
static void test_strange_metadata(void **state)
{
    (void)state;
    static const char *const digests[] = {
        "", "sha256:", "md5:00112233445566778899aabbccddeeff:00",
        "sha256: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1:"
        "0000000000000000000000000000000000000000000000000000000000000000",
        "sha256:00112233445566778899AABBCCDDEEFF:"
        "zzzz000000000000000000000000000000000000000000000000000000000000"};
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    mem_archive(mem, SEG, seg, MIB);
    size_t n;
    void *coded = mem_copy(mem, SEG_KEY, &n);
    for (size_t i = 0; i < sizeof(digests) / sizeof(digests[0]); i++) {
        struct store_meta meta = {.name = "walefs-digest"};
        (void)snprintf(meta.value, sizeof(meta.value), "%s", digests[i]);
        mem_set(mem, SEG_KEY, coded, n, &meta, 1);
        assert_int_equal(cp(SEG, seg, MIB), 0);
        assert_int_equal(cp(SEG, other, MIB), EEXIST);
    }
    static const char *const sizes[] = {"", "x", "-1", "99999999999999999999999", " 7"};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct store_meta meta = {.name = "walefs-size"};
        struct fs_entry e;
        (void)snprintf(meta.value, sizeof(meta.value), "%s", sizes[i]);
        mem_set(mem, SEG_KEY, coded, n, &meta, 1);
        assert_int_equal(cp(SEG, seg, MIB), 0);
        assert_int_equal(look(SEG, &e), 0);
        assert_int_equal(e.attr.st_size, MIB);
    }
    free(coded);
    free(seg);
    free(other);
}

/* Another host has deleted the segment and archived another under its name; what is cached here of
 * the first one proves nothing. */
static void test_comparison_does_not_trust_the_cache(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    mem_archive(mem, SEG, seg, MIB);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    mem_archive_segment(mem, SEG, MIB, 2);
    assert_int_equal(cp(SEG, seg, MIB), EEXIST);
    free(seg);
}

/* Comparing needs the object; what cannot be read is not the same. */
static void test_comparison_with_what_cannot_be_read(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    mem_set(mem, SEG_KEY, "garbage that is not lzop", 24, NULL, 0);
    assert_int_equal(cp(SEG, seg, MIB), EIO);
    size_t n;
    char *left = mem_copy(mem, SEG_KEY, &n);
    assert_int_equal(n, 24);
    free(left);
    mem_archive(mem, SEG, seg, MIB);
    mem_fail(mem, MEM_GET, 1, 1000, ERR_FORBIDDEN);
    assert_int_equal(cp(SEG, seg, MIB), EACCES);
    mem_heal(mem);
    mem_fail(mem, MEM_HEAD, 2, 1000, ERR_UNAVAILABLE); /* the first is the lookup's */
    assert_int_equal(cp(SEG, seg, MIB), EIO);
    free(seg);
}

static void test_truncating_open_leaves_the_archive_alone(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    struct handle *h;
    struct fs_entry e;
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    assert_int_equal(write_at(h, other, 5000, 0), 0);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    assert_int_equal(look(SEG, &e), 0);
    assert_int_equal(e.attr.st_size, MIB);
    assert_int_equal(write_at(h, other, MIB, 0), 0);
    assert_int_equal(flush(h), EEXIST);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    fs_release(fs, h);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
    free(other);
}

static void test_changing_an_archived_file(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(cp(SEG, seg, MIB), 0);
    uint64_t generation = mem_generation(mem, SEG_KEY);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &h), 0);
    assert_int_equal(fsync_handle(h), 0); /* durable_rename does this */
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &h), 0);
    assert_int_equal(write_at(h, "x", 1, 70000), 0);
    assert_int_equal(close_handle(h), EEXIST);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &h), 0);
    assert_int_equal(write_at(h, seg + 70000, 1, 70000), 0); /* no change of content */
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(mem_generation(mem, SEG_KEY), generation);
    free(seg);
}

static void test_lost_answer_of_a_put(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    /* the store's own retry finds the object that it has made */
    mem_lose_answers(mem, 1, ERR_EXISTS);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_true(holds(SEG, seg, MIB));
    mem_delete(mem, SEG_KEY);
    /* without a retry: close fails, and PostgreSQL archives once more */
    mem_lose_answers(mem, 1, ERR_UNAVAILABLE);
    assert_int_equal(cp(SEG, seg, MIB), EIO);
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
    free(other);
}

struct rival {
    const char *content;
    size_t size;
    int rc;
    pthread_barrier_t *barrier;
};

static void *rival_main(void *arg)
{
    struct rival *r = arg;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    assert_true(
        fs_create(fs, wal, SEG, O_WRONLY | O_CREAT, 0600, getpid(), &e, &h, &endless, &err));
    fs_forget(fs, e.id, 1);
    assert_int_equal(write_at(h, r->content, r->size, 0), 0);
    pthread_barrier_wait(r->barrier);
    r->rc = close_handle(h);
    return NULL;
}

static void race(const char *a, const char *b, int *rc_a, int *rc_b)
{
    pthread_barrier_t barrier;
    pthread_t threads[2];
    struct rival rivals[2] = {{.content = a, .size = MIB, .barrier = &barrier},
                              {.content = b, .size = MIB, .barrier = &barrier}};
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, rival_main, &rivals[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    *rc_a = rivals[0].rc;
    *rc_b = rivals[1].rc;
}

static void test_two_writers_race(void **state)
{
    (void)state;
    char *a = segment_of(SEG, 1), *b = segment_of(SEG, 2);
    for (int i = 0; i < 20; i++) {
        int rc_a, rc_b;
        race(a, b, &rc_a, &rc_b);
        assert_true((rc_a == 0 && rc_b == EEXIST) || (rc_a == EEXIST && rc_b == 0));
        assert_true(holds(SEG, rc_a == 0 ? a : b, MIB));
        mem_delete(mem, SEG_KEY);
        race(a, a, &rc_a, &rc_b);
        assert_int_equal(rc_a, 0);
        assert_int_equal(rc_b, 0);
        assert_true(holds(SEG, a, MIB));
        mem_delete(mem, SEG_KEY);
    }
    free(a);
    free(b);
}

/* Another host is faster by the time between our lookup and our put. */
static void rival_host(void *arg, enum mem_op op, const char *key)
{
    int *seed = arg;
    if (op == MEM_PUT && *seed != 0 && strcmp(key, SEG_KEY) == 0) {
        mem_archive_segment(mem, SEG, MIB, (unsigned)*seed);
        *seed = 0;
    }
}

static void test_another_host_is_faster(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *theirs = segment_of(SEG, 2);
    int seed = 2;
    mem_set_hook(mem, rival_host, &seed);
    assert_int_equal(cp(SEG, seg, MIB), EEXIST);
    assert_true(holds(SEG, theirs, MIB));
    mem_delete(mem, SEG_KEY);
    seed = 1;
    assert_int_equal(cp(SEG, seg, MIB), 0);
    mem_set_hook(mem, NULL, NULL);
    free(seg);
    free(theirs);
}

static void test_weak_guard(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    mem_weak_guard(mem);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(cp(SEG, other, MIB), EEXIST);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
    free(other);
}

/* ---- writing on after a publish ---- */

static void test_writing_on_after_a_publish(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(open_new(PARTIAL, &h), 0);
    assert_int_equal(write_at(h, seg, 1000, 0), 0);
    assert_int_equal(flush(h), 0);
    assert_true(holds(PARTIAL, seg, 1000));
    assert_int_equal(flush(h), 0); /* not dirty: not again */
    assert_int_equal(mem_calls(mem, MEM_PUT), 1);
    assert_int_equal(write_at(h, seg + 1000, 1000, 1000), 0);
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(PARTIAL, seg, 2000));

    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(flush(h), 0);
    assert_int_equal(write_at(h, "x", 1, 5000), 0);
    assert_int_equal(close_handle(h), EEXIST);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
}

/* ---- .partial ---- */

/* What pg_receivewal does; notes/writers.md. */
static void test_receivewal(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *zeros = calloc(1, MIB);
    struct handle *h, *second;
    assert_non_null(zeros);
    assert_int_equal(look(PARTIAL, NULL), ENOENT);
    assert_int_equal(open_as(PARTIAL, O_WRONLY | O_CREAT, getpid(), &h), 0);
    for (size_t at = 0; at < MIB; at += 8192)
        assert_int_equal(write_at(h, zeros, 8192, at), 0);
    assert_int_equal(open_as(PARTIAL, O_RDWR, getpid(), &second), 0);
    assert_int_equal(fsync_handle(second), 0);
    assert_true(holds(PARTIAL, zeros, MIB));
    assert_int_equal(close_handle(second), 0);
    for (size_t at = 0; at < MIB; at += 131072)
        assert_int_equal(write_at(h, seg + at, 131072, at), 0);
    assert_int_equal(fsync_handle(h), 0);
    assert_true(holds(PARTIAL, seg, MIB));
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(look(SEG, NULL), ENOENT);
    assert_int_equal(rename_file(PARTIAL, SEG), 0);
    assert_true(holds(SEG, seg, MIB));
    assert_false(mem_has(mem, PARTIAL_KEY));
    assert_int_equal(look(PARTIAL, NULL), ENOENT);
    assert_int_equal(open_as(SEG, O_RDWR, getpid(), &h), 0);
    assert_int_equal(fsync_handle(h), 0);
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
    free(zeros);
}

static void test_partial_is_replaceable(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    assert_int_equal(cp(PARTIAL, seg, 70000), 0);
    assert_int_equal(cp(PARTIAL, other, 80000), 0);
    assert_int_equal(reads_as(PARTIAL, other, 80000), 0);
    struct fs_entry e;
    assert_int_equal(look(PARTIAL, &e), 0);
    assert_int_equal(e.attr.st_size, 80000);
    mem_archive(mem, PARTIAL, seg, 1234); /* by another host */
    assert_int_equal(reads_as(PARTIAL, seg, 1234), 0);
    free(seg);
    free(other);
}

/* What a .partial held before it was renamed over is not held for ever. */
static void test_replaced_partials_leave_nothing(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    size_t before = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(open_new(PARTIAL, &h), 0);
        assert_int_equal(write_at(h, seg, 1000, 0), 0);
        if (i % 2 == 0)
            assert_int_equal(flush(h), 0);
        assert_int_equal(cp(TEMP, seg, 2000), 0);
        assert_int_equal(rename_file(TEMP, PARTIAL), 0);
        assert_int_equal(close_handle(h), 0);
        if (i == 3)
            before = test_open_fds();
    }
    assert_true(test_open_fds() <= before + 2);
    free(seg);
}

/* The one that was closed last is what is archived, and what a rename takes. */
static void test_two_writers_of_a_partial(void **state)
{
    (void)state;
    char *first = segment_of(SEG, 1), *second = segment_of(SEG, 2);
    struct handle *h;
    assert_int_equal(open_new(PARTIAL, &h), 0);
    assert_int_equal(cp(PARTIAL, second, MIB), 0);
    assert_int_equal(write_at(h, first, MIB, 0), 0);
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(reads_as(PARTIAL, first, MIB), 0);
    assert_int_equal(rename_file(PARTIAL, SEG), 0);
    assert_true(holds(SEG, first, MIB));
    free(first);
    free(second);
}

/* After a restart of the mount nothing is staged here. */
static void test_rename_of_a_partial_in_the_store(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    mem_archive(mem, PARTIAL, seg, MIB);
    struct fs_entry e;
    struct err err = ERR_INIT;
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err)); /* as the kernel does */
    assert_int_equal(rename_file(PARTIAL, SEG), 0);
    fs_forget(fs, e.id, 1);
    assert_true(holds(SEG, seg, MIB));
    assert_false(mem_has(mem, PARTIAL_KEY));
    free(seg);
}

/* An errno, else *SIZE. H may be NULL. */
static int stat_open(uint64_t id, const struct handle *h, int64_t *size)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    bool ok = fs_getattr(fs, id, h, &e, &endless, &err);
    if (ok)
        *size = e.attr.st_size;
    return result(ok, &err);
}

/* By its name it has gone, and who has it open still sees what he reads. */
static void stat_of_a_reader(const char *name, const char *key)
{
    struct err err = ERR_INIT;
    struct fs_entry e, held;
    struct handle *h;
    int64_t size;
    size_t n;
    char *seg = segment_of(SEG, 1), *data = malloc(MIB);
    assert_non_null(data);
    mem_archive(mem, name, seg, MIB);
    mem_set_time(mem, key, 1234567);
    assert_true(fs_lookup(fs, wal, name, 0, &e, &endless, &err));
    assert_true(fs_open(fs, e.id, O_RDONLY, getpid(), &h, &endless, &err));
    mem_delete(mem, key);         /* by another host */
    while (look(name, NULL) == 0) /* its fetch, which has an end, keeps a copy until then */
        usleep(1000);
    assert_int_equal(look(name, NULL), ENOENT);
    assert_true(fs_getattr(fs, e.id, h, &held, &endless, &err));
    assert_int_equal(held.attr.st_size, MIB);
    assert_int_equal(held.attr.st_mtim.tv_sec, 1234567);
    assert_true(held.valid_s <= 0); /* else its name would have this for as long */
    assert_true(fs_getattr(fs, e.id, NULL, &held, &endless, &err));
    assert_int_equal(held.attr.st_size, MIB);
    assert_true(held.valid_s <= 0);
    assert_int_equal(read_handle(h, data, MIB, &n), 0);
    assert_int_equal(n, MIB);
    assert_memory_equal(data, seg, MIB);
    fs_release(fs, h);
    assert_int_equal(stat_open(e.id, NULL, &size), ENOENT);
    fs_forget(fs, e.id, 1);
    free(data);
    free(seg);
}

static void test_stat_of_an_open_partial(void **state)
{
    (void)state;
    stat_of_a_reader(PARTIAL, PARTIAL_KEY);
}

/* Of what is cached nobody asks the store. */
static void test_stat_of_an_open_segment(void **state)
{
    (void)state;
    stat_of_a_reader(SEG, SEG_KEY);
}

/* What another host has put there instead has its name; the handle has what it reads. */
static void test_stat_of_a_replaced_partial(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h, *later;
    int64_t size = 0;
    char *seg = segment_of(SEG, 1);
    mem_archive(mem, PARTIAL, seg, 1234);
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err));
    assert_true(fs_open(fs, e.id, O_RDONLY, getpid(), &h, &endless, &err));
    mem_archive(mem, PARTIAL, seg, 5000);
    unsigned asked = mem_calls(mem, MEM_HEAD);
    assert_int_equal(stat_open(e.id, h, &size), 0);
    assert_int_equal(size, 1234);
    assert_int_equal(mem_calls(mem, MEM_HEAD), asked);
    assert_int_equal(stat_open(e.id, NULL, &size), 0);
    assert_int_equal(size, 5000);
    assert_true(fs_open(fs, e.id, O_RDONLY, getpid(), &later, &endless, &err));
    mem_delete(mem, PARTIAL_KEY);
    assert_int_equal(stat_open(e.id, NULL, &size), 0);
    assert_int_equal(size, 5000); /* of the one that was opened last */
    fs_release(fs, later);
    assert_int_equal(stat_open(e.id, NULL, &size), 0);
    assert_int_equal(size, 1234);
    /* a refusal says nothing of what is there: it is told */
    mem_fail(mem, MEM_HEAD, 1, 1000000, ERR_DENIED);
    assert_int_not_equal(stat_open(e.id, NULL, &size), 0);
    assert_int_equal(stat_open(e.id, h, &size), 0);
    mem_heal(mem);
    fs_release(fs, h);
    fs_forget(fs, e.id, 1);
    free(seg);
}

/* Nor is it changed in what it was when somebody read it before. */
static void test_change_of_a_replaced_partial(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    char *first = segment_of(SEG, 1), *second = segment_of(SEG, 2);
    mem_archive(mem, PARTIAL, first, MIB);
    assert_int_equal(reads_as(PARTIAL, first, MIB), 0); /* and is kept decoded */
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err));
    assert_true(fs_open(fs, e.id, O_RDWR, getpid(), &h, &endless, &err));
    mem_archive(mem, PARTIAL, second, MIB);
    memcpy(second + 100000, "changed", 7);
    assert_int_equal(write_at(h, "changed", 7, 100000), 0);
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(PARTIAL, second, MIB));
    fs_forget(fs, e.id, 1);
    free(first);
    free(second);
}

static void test_stat_of_a_writer(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *first, *second;
    int64_t size = 0;
    size_t n;
    char *seg = segment_of(SEG, 1), *data = malloc(MIB);
    assert_non_null(data);
    mem_archive(mem, PARTIAL, seg, 1234);
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err));
    /* it has nothing yet: its name is asked */
    assert_true(fs_open(fs, e.id, O_RDWR, getpid(), &first, &endless, &err));
    assert_int_equal(stat_open(e.id, first, &size), 0);
    assert_int_equal(size, 1234);
    mem_delete(mem, PARTIAL_KEY);
    assert_int_equal(stat_open(e.id, first, &size), ENOENT);
    /* it has what it has read */
    mem_archive(mem, PARTIAL, seg, 5000);
    assert_int_equal(look(PARTIAL, NULL), 0);
    assert_int_equal(read_handle(first, data, MIB, &n), 0);
    mem_delete(mem, PARTIAL_KEY);
    assert_int_equal(stat_open(e.id, NULL, &size), 0);
    assert_int_equal(size, 5000);
    /* it has what it has written, not what another one writes */
    assert_int_equal(write_at(first, seg, 1000, 6000), 0);
    assert_true(fs_open(fs, e.id, O_WRONLY | O_TRUNC, getpid(), &second, &endless, &err));
    assert_int_equal(write_at(second, seg, 20, 0), 0);
    assert_int_equal(stat_open(e.id, first, &size), 0);
    assert_int_equal(size, 7000);
    assert_int_equal(stat_open(e.id, second, &size), 0);
    assert_int_equal(size, 20);
    fs_release(fs, second);
    fs_release(fs, first);
    fs_forget(fs, e.id, 1);
    free(data);
    free(seg);
}

static void test_rename_of_an_incomplete_partial(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(PARTIAL, seg, MIB - 1), 0);
    assert_int_equal(rename_file(PARTIAL, SEG), EINVAL);
    assert_false(mem_has(mem, SEG_KEY));
    assert_true(holds(PARTIAL, seg, MIB - 1));
    assert_int_equal(reads_as(PARTIAL, seg, MIB - 1), 0);
    assert_int_equal(cp(PARTIAL, seg, MIB), 0);
    assert_int_equal(rename_file(PARTIAL, SEG2), EINVAL);
    char *other = segment_of(SEG, 2);
    mem_archive(mem, SEG, other, MIB);
    assert_int_equal(rename_file(PARTIAL, SEG), EEXIST);
    assert_true(holds(SEG, other, MIB));
    assert_true(holds(PARTIAL, seg, MIB));
    free(seg);
    free(other);
}

/* The segment is safe; that the old name's object stays is no reason to fail. */
static void test_rename_whose_removal_fails(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(PARTIAL, seg, MIB), 0);
    mem_fail(mem, MEM_REMOVE, 1, 1, ERR_FORBIDDEN);
    assert_int_equal(rename_file(PARTIAL, SEG), 0);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
}

/* ---- temporaries ---- */

struct listing {
    char names[4096][80];
    uint64_t ids[4096]; /* 0: without attributes */
    uint64_t sizes[4096];
    uint64_t next[4096];
    size_t count, room;
};

static bool list_emit(void *arg, const char *name, mode_t type, const struct fs_entry *e,
                      uint64_t next)
{
    struct listing *l = arg;
    if (l->room == 0)
        return false;
    l->room--;
    assert_true(l->count < 4096);
    assert_true(strlen(name) < 80 && strlen(name) > 0);
    assert_true(type == S_IFREG || type == S_IFDIR);
    strcpy(l->names[l->count], name);
    l->ids[l->count] = e == NULL ? 0 : e->id;
    l->sizes[l->count] = e == NULL ? 0 : (uint64_t)e->attr.st_size;
    l->next[l->count] = next;
    l->count++;
    return true;
}

/* All of wal/, AT_ONCE entries per readdir; an errno. */
static int list(struct listing *l, size_t at_once, bool plus)
{
    struct dir *dir;
    struct err err = ERR_INIT;
    l->count = 0;
    if (!fs_opendir(fs, wal, &dir, &endless, &err))
        return fs_errno(&err);
    int rc = 0;
    uint64_t offset = 0;
    for (;;) {
        size_t before = l->count;
        l->room = at_once;
        if (!fs_readdir(fs, dir, offset, plus, list_emit, l, &endless, &err)) {
            rc = fs_errno(&err);
            break;
        }
        if (l->count == before)
            break;
        offset = l->next[l->count - 1];
    }
    fs_releasedir(fs, dir);
    for (size_t i = 0; i < l->count; i++)
        if (l->ids[i] != 0)
            fs_forget(fs, l->ids[i], 1);
    return rc;
}

static struct listing shared_listing;

static size_t listed(const char *name)
{
    size_t n = 0;
    assert_int_equal(list(&shared_listing, SIZE_MAX, false), 0);
    for (size_t i = 0; i < shared_listing.count; i++)
        n += strcmp(shared_listing.names[i], name) == 0;
    return n;
}

static void test_basic_archive(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    struct fs_entry e;
    assert_int_equal(look(TEMP, NULL), ENOENT);
    assert_int_equal(open_as(TEMP, O_WRONLY | O_CREAT | O_EXCL, getpid(), &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(fsync_handle(h), 0);
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(mem_calls(mem, MEM_ANY), 0); /* the store has not even been asked */
    assert_int_equal(listed(TEMP), 1);
    assert_int_equal(look(TEMP, &e), 0);
    assert_int_equal(e.attr.st_size, MIB);
    assert_int_equal(reads_as(TEMP, seg, MIB), 0);
    assert_int_equal(rename_file(TEMP, SEG), 0);
    assert_true(holds(SEG, seg, MIB));
    assert_int_equal(mem_count(mem), 1);
    assert_int_equal(look(TEMP, NULL), ENOENT);
    assert_int_equal(listed(TEMP), 0);
    assert_int_equal(listed(SEG), 1);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
}

static void test_renaming_onto_an_archived_name(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    struct err err = ERR_INIT;
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(cp(TEMP, other, MIB), 0);
    assert_int_equal(rename_file(TEMP, SEG), EEXIST);
    assert_true(holds(SEG, seg, MIB));
    assert_int_equal(reads_as(TEMP, other, MIB), 0); /* it is still there */
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    assert_int_equal(cp(TEMP, seg, MIB), 0);
    assert_false(fs_rename(fs, wal, TEMP, wal, SEG, true, &endless, &err));
    assert_int_equal(fs_errno(&err), EEXIST);
    assert_int_equal(rename_file(TEMP, SEG), 0);
    assert_int_equal(look(TEMP, NULL), ENOENT);
    free(seg);
    free(other);
}

static void test_renaming_wrong_content(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(TEMP, seg, MIB - 1), 0);
    assert_int_equal(rename_file(TEMP, SEG), EINVAL);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(reads_as(TEMP, seg, MIB - 1), 0);
    assert_int_equal(rename_file(TEMP, PARTIAL), 0); /* that may be of any size */
    assert_true(holds(PARTIAL, seg, MIB - 1));
    assert_int_equal(listed(PARTIAL), 1);
    free(seg);
}

static void test_renaming_temporaries(void **state)
{
    (void)state;
    assert_int_equal(cp("a.tmp", "aaa", 3), 0);
    assert_int_equal(cp("b.tmp", "bb", 2), 0);
    assert_int_equal(rename_file("a.tmp", "c.tmp"), 0);
    assert_int_equal(look("a.tmp", NULL), ENOENT);
    assert_int_equal(reads_as("c.tmp", "aaa", 3), 0);
    assert_int_equal(rename_file("c.tmp", "b.tmp"), 0);
    assert_int_equal(reads_as("b.tmp", "aaa", 3), 0);
    assert_int_equal(listed("b.tmp"), 1);
    assert_int_equal(listed("c.tmp"), 0);
    assert_int_equal(rename_file("b.tmp", "b.tmp"), 0);
    assert_int_equal(reads_as("b.tmp", "aaa", 3), 0);
    assert_int_equal(rename_file("gone", "b.tmp"), ENOENT);
    struct err err = ERR_INIT;
    assert_int_equal(cp("d.tmp", "d", 1), 0);
    assert_false(fs_rename(fs, wal, "d.tmp", wal, "b.tmp", true, &endless, &err));
    assert_int_equal(fs_errno(&err), EEXIST);
    assert_false(fs_rename(fs, wal, "d.tmp", 1, "d.tmp", false, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
}

static void test_unlinking(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(cp(SEG, seg, MIB), 0);
    assert_int_equal(unlink_file(SEG), EPERM);
    assert_int_equal(unlink_file(SEG2), EPERM);
    assert_true(mem_has(mem, SEG_KEY));
    assert_int_equal(unlink_file("gone"), ENOENT);
    assert_int_equal(cp("a.tmp", "aaa", 3), 0);
    assert_int_equal(unlink_file("a.tmp"), 0);
    assert_int_equal(look("a.tmp", NULL), ENOENT);
    assert_int_equal(listed("a.tmp"), 0);
    /* unlinked while it is open */
    assert_int_equal(open_as("a.tmp", O_RDWR | O_CREAT, getpid(), &h), 0);
    assert_int_equal(write_at(h, "abc", 3, 0), 0);
    assert_int_equal(unlink_file("a.tmp"), 0);
    assert_int_equal(write_at(h, "def", 3, 3), 0);
    char out[8];
    size_t n;
    assert_int_equal(read_handle(h, out, sizeof(out), &n), 0);
    assert_int_equal(n, 6);
    assert_memory_equal(out, "abcdef", 6);
    assert_int_equal(cp("a.tmp", "new", 3), 0);
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(reads_as("a.tmp", "new", 3), 0);
    assert_int_equal(rename_file(SEG, "x.tmp"), EPERM);
    assert_int_equal(rename_file(SEG, SEG2), EPERM);
    assert_int_equal(rename_file(PARTIAL, "x.tmp"), EPERM);
    free(seg);
}

/* rsync and some copies rename before they close. */
static void test_temporary_is_renamed_while_open(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(open_new(TEMP, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(rename_file(TEMP, SEG), 0);
    assert_true(holds(SEG, seg, MIB));
    assert_int_equal(flush(h), 0);
    assert_int_equal(write_at(h, "x", 1, 9000), 0);
    assert_int_equal(close_handle(h), EEXIST);
    assert_true(holds(SEG, seg, MIB));
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
}

/* A close must not succeed because a rename took the name away meanwhile. */
static void test_rename_over_a_name_that_is_written(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *other = segment_of(SEG, 2);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(cp(TEMP, other, MIB), 0);
    assert_int_equal(rename_file(TEMP, SEG), 0);
    assert_int_equal(close_handle(h), EEXIST);
    assert_true(holds(SEG, other, MIB));
    assert_int_equal(reads_as(SEG, other, MIB), 0);
    mem_delete(mem, SEG_KEY);

    test_segment(seg, MIB, SEG2, 1);
    assert_int_equal(open_new(SEG2, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(cp(TEMP, seg, MIB), 0);
    assert_int_equal(rename_file(TEMP, SEG2), 0);
    assert_int_equal(close_handle(h), 0); /* the same content */
    free(seg);
    free(other);
}

/* Names that look like WAL but are not PostgreSQL's are temporaries, never keys. */
static void test_names_like_wal(void **state)
{
    (void)state;
    static const char *const names[] = {"00000001000000000000000a",  /* lower case */
                                        "0000000100000000000000020", /* too long */
                                        "00000001000000000000000",   /* too short */
                                        SEG ".partial.tmp",
                                        SEG ".lzo",
                                        SEG ".gz",
                                        "." SEG ".Ab3xYz",
                                        "00000002.history.tmp",
                                        SEG ".00000028.backup~",
                                        " " SEG,
                                        SEG "\n",
                                        "RECOVERYXLOG"};
    char *seg = segment_of(SEG, 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(cp(names[i], seg, 100), 0);
        assert_int_equal(reads_as(names[i], seg, 100), 0);
    }
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(mem_count(mem), 0);
    free(seg);
}

/* ---- promise 4: ENOENT means that the store said so ---- */

static void test_absence_is_not_remembered(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(look(SEG, NULL), ENOENT);
    assert_int_equal(mem_calls(mem, MEM_ANY), 3); /* one question each: fast */
    mem_archive(mem, SEG, seg, MIB);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(seg);
}

static int look_by(pid_t pid, const char *name)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    int rc = result(fs_lookup(fs, wal, name, pid, &e, &endless, &err), &err);
    if (rc == 0)
        fs_forget(fs, e.id, 1);
    return rc;
}

/* The thread that was told it may be told so once more, without a question, but only right away. */
static void test_absence_is_forgotten_soon(void **state)
{
    (void)state;
    const size_t n = sizeof(history_text) - 1;
    const pid_t mine = 1, other = 2;
    assert_int_equal(look_by(mine, HISTORY), ENOENT);
    mem_archive(mem, HISTORY, history_text, n); /* another host */
    assert_int_equal(look_by(other, HISTORY), 0);
    (void)usleep(100 * 1000);
    assert_int_equal(look_by(mine, HISTORY), 0);
    assert_int_equal(look_by(mine, LABEL), ENOENT);
    mem_archive(mem, LABEL, label_text, sizeof(label_text) - 1);
    (void)look_by(mine, LABEL);
    assert_int_equal(look_by(mine, LABEL), 0);
}

/* Nor for the moment between the look-up of a program that makes a file and its next one, when
 * somebody else has archived that file. */
static void test_absence_ends_with_a_publish(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fs_entry e;
    const size_t n = sizeof(label_text) - 1;
    assert_false(fs_lookup(fs, wal, LABEL, getpid(), &e, &endless, &err));
    assert_int_equal(err.code, ERR_ABSENT);
    assert_int_equal(cp(LABEL, label_text, n), 0);
    assert_true(fs_lookup(fs, wal, LABEL, getpid(), &e, &endless, &err));
    fs_forget(fs, e.id, 1);
}

static const enum err_code all_codes[] = {
    ERR_NONE,     ERR_EXISTS,    ERR_FORBIDDEN, ERR_NO_BUCKET,   ERR_THROTTLED, ERR_UNAVAILABLE,
    ERR_TIMEOUT,  ERR_CANCELLED, ERR_CORRUPT,   ERR_KEY,         ERR_INVALID,   ERR_DENIED,
    ERR_NO_SPACE, ERR_NO_MEMORY, ERR_LOCAL,     ERR_UNSUPPORTED, ERR_FROZEN};

/* On a soft mount, so that all of them end. */
static void test_no_error_but_absence_is_enoent(void **state)
{
    (void)state;
    static const enum mem_op ops[] = {MEM_HEAD, MEM_GET, MEM_READ, MEM_LIST};
    char *seg = segment_of(SEG, 1);
    for (size_t c = 0; c < sizeof(all_codes) / sizeof(all_codes[0]); c++)
        for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
            char name[WAL_NAME_MAX]; /* a new one each time: nothing is cached of it */
            name_of((unsigned)(c * 10 + o), name);
            test_segment(seg, MIB, name, 1);
            mem_archive(mem, name, seg, MIB);
            mem_fail(mem, ops[o], 1, 1000000, all_codes[c]);
            int rc = look(name, NULL);
            assert_int_not_equal(rc, ENOENT);
            if (ops[o] == MEM_HEAD)
                assert_int_not_equal(rc, 0);
            rc = reads_as(name, seg, MIB);
            assert_int_not_equal(rc, ENOENT);
            assert_int_not_equal(rc, -1); /* nor other bytes */
            if (ops[o] != MEM_LIST)
                assert_int_not_equal(rc, 0);
            rc = list(&shared_listing, SIZE_MAX, false);
            assert_int_not_equal(rc, ENOENT);
            if (ops[o] == MEM_LIST)
                assert_int_not_equal(rc, 0);
            mem_heal(mem);
        }
    free(seg);
}

static void test_soft_gives_up_in_time(void **state)
{
    (void)state;
    int64_t t0 = now_ms();
    mem_hang(mem, MEM_ANY);
    assert_int_equal(look(SEG, NULL), EIO);
    assert_int_equal(list(&shared_listing, SIZE_MAX, false), EIO);
    mem_heal(mem);
    mem_fail(mem, MEM_ANY, 1, 1000000, ERR_UNAVAILABLE);
    assert_int_equal(look(SEG, NULL), EIO);
    int64_t took = now_ms() - t0;
    assert_true(took >= 3 * 90);
    assert_true(took < 30000);
}

struct asker {
    const char *name;
    const char *content;
    struct cancel cancel;
    struct call call;
    int rc;
    int kind; /* 0 lookup, 1 read, 2 list */
};

static void *ask(void *arg)
{
    struct asker *a = arg;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct dir *dir;
    struct handle *h;
    if (a->kind == 0) {
        a->rc = look_call(a->name, NULL, &a->call);
    } else if (a->kind == 1) {
        assert_true(fs_lookup(fs, wal, a->name, 0, &e, &endless, &err));
        a->rc = result(fs_open(fs, e.id, O_RDONLY, getpid(), &h, &a->call, &err), &err);
        if (a->rc == 0)
            fs_release(fs, h);
        fs_forget(fs, e.id, 1);
    } else {
        shared_listing.room = SIZE_MAX;
        shared_listing.count = 0;
        assert_true(fs_opendir(fs, wal, &dir, &a->call, &err));
        a->rc =
            result(fs_readdir(fs, dir, 0, false, list_emit, &shared_listing, &a->call, &err), &err);
        fs_releasedir(fs, dir);
    }
    return NULL;
}

static void asker_init(struct asker *a, const char *name, int kind)
{
    *a = (struct asker){.name = name, .kind = kind, .rc = -1};
    cancel_init(&a->cancel);
    a->call = (struct call){.cancel = &a->cancel, .deadline_ms = DEADLINE_NONE};
}

/* Waits for the store to be asked N times since it was made. */
static void wait_for_calls(enum mem_op op, unsigned n)
{
    int64_t t0 = now_ms();
    while (mem_calls(mem, op) < n) {
        assert_true(now_ms() - t0 < 60000);
        cancel_sleep_ms(NULL, 5);
    }
}

static void outage(int kind, enum mem_op op, bool hang)
{
    static unsigned serial; /* nothing is cached of a new name */
    pthread_t thread;
    struct asker a;
    char name[WAL_NAME_MAX], name2[WAL_NAME_MAX];
    name_of(serial++, name);
    name_of(serial++, name2);
    mem_archive_segment(mem, name, MIB, 1);
    asker_init(&a, name, kind);
    unsigned before = mem_calls(mem, op);
    if (hang)
        mem_hang(mem, op);
    else
        mem_fail(mem, op, 1, 1000000, ERR_FORBIDDEN);
    assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
    wait_for_calls(op, before + (hang ? 1 : 2)); /* it asks again and again */
    assert_int_equal(a.rc, -1);
    mem_heal(mem);
    pthread_join(thread, NULL);
    assert_int_equal(a.rc, 0);
    cancel_destroy(&a.cancel);

    mem_archive_segment(mem, name2, MIB, 1);
    asker_init(&a, name2, kind);
    before = mem_calls(mem, op);
    if (hang)
        mem_hang(mem, op);
    else
        mem_fail(mem, op, 1, 1000000, ERR_UNAVAILABLE);
    assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
    wait_for_calls(op, before + 1);
    int64_t t0 = now_ms();
    cancel_fire(&a.cancel);
    pthread_join(thread, NULL);
    assert_true(now_ms() - t0 < 30000);
    assert_int_equal(a.rc, EINTR);
    cancel_destroy(&a.cancel);
    mem_heal(mem);
}

static void test_hard_lookup_waits(void **state)
{
    (void)state; /* read-only: nobody can be archiving */
    outage(0, MEM_HEAD, false);
    outage(0, MEM_HEAD, true);
}

static void test_hard_open_waits(void **state)
{
    (void)state;
    outage(1, MEM_GET, false);
}

static void test_hard_open_waits_for_a_hung_store(void **state)
{
    (void)state;
    outage(1, MEM_GET, true);
}

static void test_hard_listing_waits(void **state)
{
    (void)state;
    outage(2, MEM_LIST, false);
    outage(2, MEM_LIST, true);
}

static void test_cached_reads_during_an_outage(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    mem_archive(mem, SEG, seg, MIB);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    mem_hang(mem, MEM_ANY);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct statvfs st;
    assert_true(fs_getattr(fs, 1, NULL, &e, &endless, &err));
    assert_true(fs_getattr(fs, wal, NULL, &e, &endless, &err));
    fs_statfs(fs, &st);
    mem_heal(mem);
    free(seg);
}

/* An archive_command during an outage: stat says "maybe", and close fails in time. */
static void test_archiving_during_an_outage(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct fs_entry e;
    mem_hang(mem, MEM_ANY);
    int64_t t0 = now_ms();
    assert_int_equal(look(SEG, &e), 0);
    assert_true(e.valid_s == 0);
    int rc = cp(SEG, seg, MIB);
    assert_int_equal(rc, EIO);
    assert_true(now_ms() - t0 < 30000);
    mem_heal(mem);
    assert_int_equal(mem_count(mem), 0);
    mem_fail(mem, MEM_ANY, 1, 1000000, ERR_UNAVAILABLE);
    assert_int_not_equal(cp(SEG, seg, MIB), 0);
    mem_heal(mem);
    assert_int_equal(mem_count(mem), 0);
    assert_int_equal(look(SEG, NULL), ENOENT); /* the maybe is not remembered */
    assert_int_equal(cp(SEG, seg, MIB), 0);
    free(seg);
}

/* The store comes back between stat and close. */
static void test_maybe_becomes_true(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    mem_fail(mem, MEM_HEAD, 1, 1000000, ERR_UNAVAILABLE);
    assert_true(fs_lookup(fs, wal, SEG, 0, &e, &endless, &err));
    assert_true(fs_open(fs, e.id, O_WRONLY | O_TRUNC, getpid(), &h, &endless, &err));
    mem_heal(mem);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(SEG, seg, MIB));
    fs_forget(fs, e.id, 1);
    /* and a reader that was told "maybe" learns the truth when it opens */
    mem_fail(mem, MEM_HEAD, 1, 1000000, ERR_UNAVAILABLE);
    assert_true(fs_lookup(fs, wal, SEG2, 0, &e, &endless, &err));
    mem_heal(mem);
    assert_false(fs_open(fs, e.id, O_RDONLY, getpid(), &h, &endless, &err));
    assert_int_equal(fs_errno(&err), ENOENT);
    assert_false(fs_getattr(fs, e.id, NULL, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), ENOENT);
    fs_forget(fs, e.id, 1);
    free(seg);
}

struct healer {
    pthread_t thread;
    struct cancel cancel; /* heals at once */
    int after_ms;
};

static void *heal_later(void *arg)
{
    struct healer *h = arg;
    (void)cancel_sleep_ms(&h->cancel, h->after_ms);
    mem_heal(mem);
    return NULL;
}

static void healer_start(struct healer *h, int after_ms)
{
    cancel_init(&h->cancel);
    h->after_ms = after_ms;
    assert_int_equal(pthread_create(&h->thread, NULL, heal_later, h), 0);
}

static void healer_end(struct healer *h)
{
    cancel_fire(&h->cancel);
    pthread_join(h->thread, NULL);
    cancel_destroy(&h->cancel);
}

/* What readers waited for during an outage that is over must not shorten a writer's time. */
static void test_waiting_readers_do_not_use_up_a_writers_time(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    uint64_t lookups = 0;
    mem_hang(mem, MEM_HEAD);
    for (int i = 0; i < 5; i++) { /* 5 * 500 ms: more than the write time-out */
        assert_true(fs_lookup(fs, wal, SEG, 0, &e, &endless, &err));
        lookups++;
    }
    mem_heal(mem);
    assert_int_equal(look(SEG, NULL), ENOENT);
    assert_true(
        fs_create(fs, wal, SEG, O_WRONLY | O_CREAT, 0600, getpid(), &e, &h, &endless, &err));
    lookups++;
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    mem_hang(mem, MEM_PUT);
    struct healer healer;
    healer_start(&healer, 1400); /* within the write time-out of 2 s */
    int rc = close_handle(h);
    healer_end(&healer);
    assert_int_equal(rc, 0);
    fs_forget(fs, e.id, lookups);
    free(seg);
}

static void test_writes_give_up_in_time(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct handle *h;
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    mem_hang(mem, MEM_PUT);
    int64_t t0 = now_ms();
    assert_int_equal(flush(h), EIO);
    int64_t took = now_ms() - t0;
    assert_true(took >= 900 && took < 30000);
    mem_heal(mem);
    fs_release(fs, h);
    assert_int_equal(mem_count(mem), 0);
    /* a comparison that hangs */
    mem_archive_segment(mem, SEG, MIB, 2);
    assert_int_equal(open_new(SEG, &h), 0);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    mem_hang(mem, MEM_HEAD);
    t0 = now_ms();
    assert_int_equal(close_handle(h), EIO);
    assert_true(now_ms() - t0 < 30000);
    mem_heal(mem);
    free(seg);
}

/* Renames that hang in the store, in each of the ways they use it. */
static void check_hung_rename(const char *from, enum mem_op op, bool succeeds)
{
    struct healer healer;
    mem_hang(mem, op);
    healer_start(&healer, 20000);
    int64_t t0 = now_ms();
    int rc = rename_file(from, SEG);
    int64_t took = now_ms() - t0;
    healer_end(&healer);
    assert_int_equal(rc, succeeds ? 0 : EIO);
    assert_true(took < 15000);
}

static void test_rename_of_a_temporary_gives_up_in_time(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(TEMP, seg, MIB), 0);
    check_hung_rename(TEMP, MEM_PUT, false);
    free(seg);
}

static void test_rename_of_a_partial_gives_up_in_time(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    const struct store_meta meta = {.name = "walefs-size", .value = "1048576"};
    struct err err = ERR_INIT;
    struct fs_entry e;
    size_t n;
    mem_archive(mem, PARTIAL, seg, MIB);
    char *coded = mem_copy(mem, PARTIAL_KEY, &n);
    mem_set(mem, PARTIAL_KEY, coded, n, &meta, 1);
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err));
    check_hung_rename(PARTIAL, MEM_GET, false);
    fs_forget(fs, e.id, 1);
    free(coded);
    free(seg);
}

static void test_removal_after_a_rename_gives_up_in_time(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(PARTIAL, seg, MIB), 0);
    check_hung_rename(PARTIAL, MEM_REMOVE, true);
    assert_true(holds(SEG, seg, MIB));
    free(seg);
}

/* ---- promise 5 ---- */

static void test_corruption_is_eio(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    size_t n;
    mem_archive(mem, SEG, seg, MIB);
    char *coded = mem_copy(mem, SEG_KEY, &n);
    for (size_t cut = 0; cut < n; cut += n / 37 + 1) {
        mem_set(mem, SEG_KEY, coded, cut, NULL, 0);
        assert_int_equal(reads_as(SEG, seg, MIB), EIO);
    }
    for (size_t at = 0; at < n; at += n / 61 + 1) {
        coded[at] ^= 0x10;
        mem_set(mem, SEG_KEY, coded, n, NULL, 0);
        int rc = reads_as(SEG, seg, MIB);
        assert_true(rc == EIO || rc == 0); /* some header bits mean nothing */
        coded[at] ^= 0x10;
        if (at > 64)
            assert_int_equal(rc, EIO);
    }
    mem_set(mem, SEG_KEY, coded, n, NULL, 0);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    free(coded);
    free(seg);
}

static void test_open_handle_keeps_its_content(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1), *out = malloc(MIB + 1);
    struct handle *h;
    size_t n;
    assert_non_null(out);
    mem_archive(mem, SEG, seg, MIB);
    assert_int_equal(open_as(SEG, O_RDONLY, getpid(), &h), 0);
    mem_delete(mem, SEG_KEY);
    mem_fail(mem, MEM_ANY, 1, 1000000, ERR_UNAVAILABLE);
    assert_int_equal(read_handle(h, out, MIB + 1, &n), 0);
    assert_int_equal(n, MIB);
    assert_memory_equal(out, seg, MIB);
    struct err err = ERR_INIT;
    struct fs_bytes b;
    assert_true(fs_read(fs, h, MIB, 10, &b, &endless, &err));
    assert_int_equal(b.size, 0);
    assert_true(fs_read(fs, h, UINT64_MAX, SIZE_MAX, &b, &endless, &err));
    assert_int_equal(b.size, 0);
    assert_true(fs_read(fs, h, MIB - 1, 10, &b, &endless, &err));
    assert_int_equal(b.size, 1);
    assert_false(fs_write(fs, h, "x", 1, 0, &endless, &err));
    assert_int_equal(close_handle(h), 0);
    free(out);
    free(seg);
}

/* ---- listing and sizes ---- */

static void fill(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[WAL_NAME_MAX], key[STORE_KEY_MAX];
        const struct store_meta meta = {.name = "walefs-size", .value = "1048576"};
        name_of(i, name);
        assert_true(wal_key_of_name(name, key, sizeof(key)));
        mem_set(mem, key, "x", 1, &meta, 1);
    }
}

static void check_full_listing(unsigned count, size_t at_once, bool plus)
{
    struct listing *l = &shared_listing;
    assert_int_equal(list(l, at_once, plus), 0);
    assert_int_equal(l->count, count + 2);
    assert_string_equal(l->names[0], ".");
    assert_string_equal(l->names[1], "..");
    for (unsigned i = 0; i < count; i++) {
        char name[WAL_NAME_MAX];
        name_of(i, name);
        assert_string_equal(l->names[i + 2], name);
        assert_int_equal(l->ids[i + 2] != 0, plus);
        if (plus)
            assert_int_equal(l->sizes[i + 2], MIB);
    }
}

static void test_listing_pages(void **state)
{
    (void)state;
    fill(2500);
    static const size_t pages[] = {1000, 100, 7, 2500, 2501, 2499};
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        mem_page_size(mem, pages[i]);
        check_full_listing(2500, SIZE_MAX, false);
    }
    mem_page_size(mem, 100);
    check_full_listing(2500, 30, false);
    check_full_listing(2500, 1, false);
    check_full_listing(2500, 30, true);
}

static void test_first_page_comes_first(void **state)
{
    (void)state;
    fill(1000);
    mem_page_size(mem, 10);
    struct err err = ERR_INIT;
    struct dir *dir;
    struct listing *l = &shared_listing;
    l->count = 0;
    l->room = SIZE_MAX;
    assert_true(fs_opendir(fs, wal, &dir, &endless, &err));
    assert_true(fs_readdir(fs, dir, 0, false, list_emit, l, &endless, &err));
    assert_int_equal(l->count, 12);
    assert_int_equal(mem_calls(mem, MEM_LIST), 1);
    fs_releasedir(fs, dir);
}

static void test_seeking_in_a_listing(void **state)
{
    (void)state;
    fill(300);
    mem_page_size(mem, 20);
    static struct listing all;
    assert_int_equal(list(&all, SIZE_MAX, false), 0);
    struct err err = ERR_INIT;
    struct dir *dir;
    assert_true(fs_opendir(fs, wal, &dir, &endless, &err));
    unsigned x = 7;
    for (int i = 0; i < 200; i++) {
        x = x * 1103515245u + 12345u;
        size_t from = (x >> 8) % all.count;
        struct listing *l = &shared_listing;
        l->count = 0;
        l->room = 5;
        uint64_t offset = from == 0 ? 0 : all.next[from - 1];
        assert_true(fs_readdir(fs, dir, offset, false, list_emit, l, &endless, &err));
        assert_true(l->count > 0);
        for (size_t k = 0; k < l->count; k++)
            assert_string_equal(l->names[k], all.names[from + k]);
    }
    /* behind the end */
    shared_listing.count = 0;
    shared_listing.room = 5;
    assert_true(fs_readdir(fs, dir, all.next[all.count - 1], false, list_emit, &shared_listing,
                           &endless, &err));
    assert_int_equal(shared_listing.count, 0);
    fs_releasedir(fs, dir);
}

static void test_foreign_keys_are_not_shown(void **state)
{
    (void)state;
    static const char *const foreign[] = {"wal_005/" SEG ".lz4",
                                          "wal_005/" SEG,
                                          "wal_005/" SEG ".lzo.tmp",
                                          "wal_005/.lzo",
                                          "wal_005/",
                                          "wal_005/x/" SEG ".lzo",
                                          "wal_005/" SEG "/x.lzo",
                                          "wal_005/../" SEG ".lzo",
                                          "wal_005/evil\nname.lzo",
                                          "wal_005/readme.txt",
                                          "wal_005/00000001000000000000000a.lzo",
                                          "wal_005/0000000100000000000000020.lzo",
                                          "wal_005/" SEG ".00000028.backup",
                                          "wal_006/" SEG2 ".lzo",
                                          "wal_005x",
                                          SEG2 ".lzo",
                                          "basebackups_005/x"};
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        mem_set(mem, foreign[i], "x", 1, NULL, 0);
    mem_page_size(mem, 1); /* so that there are pages without anything to show */
    mem_archive_segment(mem, SEG, MIB, 1);
    mem_archive(mem, HISTORY, history_text, sizeof(history_text) - 1);
    mem_archive(mem, LABEL, label_text, sizeof(label_text) - 1);
    mem_archive(mem, PARTIAL, "x", 1);
    size_t before = mem_count(mem);
    assert_int_equal(list(&shared_listing, SIZE_MAX, true), 0);
    assert_int_equal(shared_listing.count, 6);
    assert_int_equal(listed(SEG), 1);
    assert_int_equal(listed(HISTORY), 1);
    assert_int_equal(listed(LABEL), 1);
    assert_int_equal(listed(PARTIAL), 1);
    assert_int_equal(look(SEG ".lz4", NULL), ENOENT);
    assert_int_equal(look("readme.txt", NULL), ENOENT);
    assert_int_equal(look("..", NULL), ENOENT);
    assert_int_equal(mem_count(mem), before); /* and none is touched */
}

/* On a read-only mount, whose lookups wait for as long as decoding takes. */
static void check_learned_size(uint32_t size)
{
    char names[3][WAL_NAME_MAX];
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(names[i], WAL_NAME_MAX, "%08X%08X%08X", 1u, 0u, 2 + i);
        mem_archive_segment(mem, names[i], size, 1);
    }
    struct fs_entry e;
    assert_int_equal(look(names[0], &e), 0);
    assert_int_equal(e.attr.st_size, size);
    assert_int_equal(mem_calls(mem, MEM_GET), 1);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(look(names[i], &e), 0);
        assert_int_equal(e.attr.st_size, size);
    }
    assert_int_equal(list(&shared_listing, SIZE_MAX, true), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(shared_listing.sizes[2 + i], size);
    assert_int_equal(mem_calls(mem, MEM_GET), 1); /* one object tells all sizes */
}

static void test_segment_size_of_1_mib(void **state)
{
    (void)state;
    check_learned_size(MIB);
}

static void test_segment_size_of_16_mib(void **state)
{
    (void)state;
    check_learned_size(16 * MIB);
}

static void test_segment_size_of_64_mib(void **state)
{
    (void)state;
    check_learned_size(64 * MIB);
}

static void test_listing_learns_the_size(void **state)
{
    (void)state;
    mem_archive_segment(mem, SEG, MIB, 1);
    mem_archive_segment(mem, SEG2, MIB, 1);
    assert_int_equal(list(&shared_listing, SIZE_MAX, true), 0);
    assert_int_equal(shared_listing.sizes[2], MIB);
    assert_int_equal(shared_listing.sizes[3], MIB);
    assert_int_equal(mem_calls(mem, MEM_GET), 1);
}

/* Objects that cannot be decoded here: the listing neither fetches them all nor believes them. */
static void test_listing_what_cannot_be_decoded(void **state)
{
    (void)state;
    char *noise = calloc(1, MIB);
    assert_non_null(noise);
    for (unsigned i = 0; i < 50; i++) {
        char name[WAL_NAME_MAX], key[STORE_KEY_MAX];
        name_of(i, name);
        assert_true(wal_key_of_name(name, key, sizeof(key)));
        mem_set(mem, key, noise, MIB, NULL, 0);
    }
    mem_archive_segment(mem, "0000000100000001000007FF", 2 * MIB, 1);
    assert_int_equal(list(&shared_listing, SIZE_MAX, true), 0);
    assert_int_equal(shared_listing.count, 53);
    assert_true(mem_calls(mem, MEM_GET) <= 5);
    struct fs_entry e;
    assert_int_equal(look("0000000100000001000007FF", &e), 0);
    assert_int_equal(e.attr.st_size, 2 * MIB); /* not the stored size of a broken object */
    free(noise);
}

static void test_sizes_of_small_files(void **state)
{
    (void)state;
    struct fs_entry e;
    mem_archive(mem, HISTORY, history_text, sizeof(history_text) - 1);
    assert_int_equal(look(HISTORY, &e), 0);
    assert_int_equal(e.attr.st_size, sizeof(history_text) - 1); /* by decoding */
    const struct store_meta meta = {.name = "walefs-size", .value = "77"};
    mem_set(mem, LABEL_KEY, "x", 1, &meta, 1);
    unsigned gets = mem_calls(mem, MEM_GET);
    assert_int_equal(look(LABEL, &e), 0);
    assert_int_equal(e.attr.st_size, 77);
    assert_int_equal(mem_calls(mem, MEM_GET), gets);
    assert_int_equal(e.attr.st_mtim.tv_sec, 1700000000 + (int64_t)mem_generation(mem, LABEL_KEY));
}

static void test_plus_entries_are_counted(void **state)
{
    (void)state;
    fill(10);
    struct err err = ERR_INIT;
    struct dir *dir;
    struct listing *l = &shared_listing;
    l->count = 0;
    l->room = 5; /* ".", "..", three; the next one does not fit and is not counted */
    assert_true(fs_opendir(fs, wal, &dir, &endless, &err));
    assert_true(fs_readdir(fs, dir, 0, true, list_emit, l, &endless, &err));
    assert_int_equal(l->count, 5);
    fs_releasedir(fs, dir);
    struct fs_entry e;
    for (size_t i = 2; i < 5; i++) {
        assert_true(fs_getattr(fs, l->ids[i], NULL, &e, &endless, &err));
        fs_forget(fs, l->ids[i], 1);
        assert_false(fs_getattr(fs, l->ids[i], NULL, &e, &endless, &err));
    }
    assert_false(fs_getattr(fs, l->ids[4] + 1, NULL, &e, &endless, &err));
}

/* ---- attributes ---- */

static void test_setattr_does_not_break_writers(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    assert_true(
        fs_create(fs, wal, TEMP, O_WRONLY | O_CREAT, 0600, getpid(), &e, &h, &endless, &err));
    const struct fs_setattr touch = {
        .set_mode = true, .mode = 0644, .set_mtime = true, .mtime_s = 1234567};
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_true(fs_setattr(fs, e.id, &touch, h, &e, &endless, &err));
    assert_int_equal(e.attr.st_mtim.tv_sec, 1234567); /* rsync compares it */
    const struct fs_setattr same = {.set_size = true, .size = MIB};
    assert_true(fs_setattr(fs, e.id, &same, NULL, &e, &endless, &err));
    assert_int_equal(close_handle(h), 0);
    assert_int_equal(rename_file(TEMP, SEG), 0);
    assert_true(fs_setattr(fs, e.id, &touch, NULL, &e, &endless, &err));
    assert_int_not_equal(e.attr.st_mtim.tv_sec, 1234567);
    assert_true(fs_setattr(fs, e.id, &same, NULL, &e, &endless, &err));
    const struct fs_setattr cut = {.set_size = true, .size = 10};
    assert_false(fs_setattr(fs, e.id, &cut, NULL, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    fs_forget(fs, e.id, 1);
    free(seg);
}

/* Preallocation by ftruncate, then cut to size. */
static void test_truncate_while_writing(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    assert_true(
        fs_create(fs, wal, SEG, O_WRONLY | O_CREAT, 0600, getpid(), &e, &h, &endless, &err));
    const struct fs_setattr grow = {.set_size = true, .size = 3 * MIB};
    const struct fs_setattr cut = {.set_size = true, .size = MIB};
    assert_true(fs_setattr(fs, e.id, &grow, h, &e, &endless, &err));
    assert_int_equal(e.attr.st_size, 3 * MIB);
    assert_int_equal(write_at(h, seg, MIB, 0), 0);
    assert_int_equal(flush(h), EINVAL);
    assert_true(fs_setattr(fs, e.id, &cut, h, &e, &endless, &err));
    assert_int_equal(close_handle(h), 0);
    assert_true(holds(SEG, seg, MIB));
    fs_forget(fs, e.id, 1);
    free(seg);
}

static void test_larger_than_any_segment(void **state)
{
    (void)state;
    struct handle *h;
    assert_int_equal(open_new(TEMP, &h), 0);
    assert_int_equal(write_at(h, "x", 1, (UINT64_C(1) << 30) + 1), ENOSPC);
    assert_int_equal(write_at(h, "x", 1, INT64_MAX), ENOSPC);
    assert_int_equal(write_at(h, "x", 1, UINT64_MAX), ENOSPC);
    assert_int_equal(close_handle(h), 0);
}

static void test_names_and_ids(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    char name[300];
    memset(name, 'a', sizeof(name));
    name[256] = '\0';
    assert_false(fs_lookup(fs, wal, name, 0, &e, &endless, &err));
    assert_false(fs_create(fs, wal, name, O_WRONLY, 0600, 0, &e, &h, &endless, &err));
    assert_false(fs_create(fs, wal, "a/b", O_WRONLY, 0600, 0, &e, &h, &endless, &err));
    assert_false(fs_create(fs, wal, "", O_WRONLY, 0600, 0, &e, &h, &endless, &err));
    assert_false(fs_create(fs, 1, "x", O_WRONLY, 0600, 0, &e, &h, &endless, &err));
    assert_int_equal(fs_errno(&err), EPERM);
    name[255] = '\0';
    assert_int_equal(cp(name, "x", 1), 0);
    assert_int_equal(rename_file(name, "a/b"), EINVAL);
    assert_int_equal(unlink_file(name), 0);
    assert_false(fs_lookup(fs, 1, "nothing", 0, &e, &endless, &err));
    assert_int_equal(fs_errno(&err), ENOENT);
    assert_false(fs_getattr(fs, 4711, NULL, &e, &endless, &err));
    assert_false(fs_lookup(fs, 4711, "x", 0, &e, &endless, &err));
    struct dir *dir;
    assert_false(fs_opendir(fs, 4711, &dir, &endless, &err));
    struct statvfs st;
    fs_statfs(fs, &st);
    assert_int_equal(st.f_blocks, 1000);
    assert_int_equal(st.f_bavail, 10);
    char path[64];
    fs_path(fs, wal, path, sizeof(path));
    assert_string_equal(path, "wal");
    fs_path(fs, 1, path, sizeof(path));
    assert_string_equal(path, "/");
}

static void test_read_only(void **state)
{
    (void)state;
    char *seg = segment_of(SEG, 1);
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    mem_archive(mem, SEG, seg, MIB);
    mem_archive(mem, PARTIAL, seg, MIB);
    assert_int_equal(reads_as(SEG, seg, MIB), 0);
    assert_int_equal(open_as(SEG, O_WRONLY, getpid(), &h), EPERM);
    assert_int_equal(open_as(SEG, O_RDWR | O_TRUNC, getpid(), &h), EPERM);
    assert_int_equal(open_as(SEG2, O_WRONLY | O_CREAT, getpid(), &h), EPERM);
    assert_int_equal(open_as("x.tmp", O_WRONLY | O_CREAT, getpid(), &h), EPERM);
    assert_true(fs_lookup(fs, wal, PARTIAL, 0, &e, &endless, &err));
    assert_int_equal(rename_file(PARTIAL, SEG2), EPERM);
    fs_forget(fs, e.id, 1);
    assert_int_equal(mem_calls(mem, MEM_PUT), 0);
    assert_int_equal(mem_calls(mem, MEM_REMOVE), 0);
    free(seg);
}

/* ---- each call of the store fails once ---- */

/* A scenario of all that concerns the store. Each step may fail, but only as it should. */
static void scenario(const char *seg, const char *seg2, bool *done)
{
    int rc[8];
    struct handle *h;
    struct err err = ERR_INIT;
    struct fs_entry e;
    rc[0] = cp(SEG, seg, MIB);
    rc[1] = reads_as(SEG, seg, MIB);
    assert_int_not_equal(rc[1], -1);
    if (rc[0] == 0)
        assert_int_not_equal(rc[1], ENOENT);
    rc[2] = cp(TEMP, seg2, MIB);
    assert_int_equal(rc[2], 0); /* has nothing to do with the store */
    rc[3] = rename_file(TEMP, SEG2);
    if (rc[3] != 0) {
        assert_int_equal(reads_as(TEMP, seg2, MIB), 0);
        assert_int_equal(unlink_file(TEMP), 0);
    }
    assert_int_not_equal(rc[3], ENOENT);
    rc[4] = open_new(PARTIAL, &h);
    if (rc[4] == 0) {
        assert_int_equal(write_at(h, seg, 5000, 0), 0);
        rc[4] = close_handle(h);
    }
    rc[5] = list(&shared_listing, SIZE_MAX, true);
    assert_int_not_equal(rc[5], ENOENT);
    rc[6] = cp(SEG, seg, MIB); /* again */
    rc[7] = fs_lookup(fs, wal, LABEL, 0, &e, &endless, &err) ? 0 : fs_errno(&err);
    if (rc[7] == 0)
        fs_forget(fs, e.id, 1);
    assert_int_not_equal(rc[7], ENOENT); /* another host archived it */
    bool all = true;
    for (int i = 0; i < 8; i++)
        all = all && rc[i] == 0;
    /* what succeeded is there, what is there is whole */
    mem_heal(mem);
    if (rc[0] == 0 || rc[6] == 0)
        assert_true(holds(SEG, seg, MIB));
    if (rc[3] == 0)
        assert_true(holds(SEG2, seg2, MIB));
    if (rc[4] == 0)
        assert_true(holds(PARTIAL, seg, 5000));
    assert_true(!mem_has(mem, SEG_KEY) || holds(SEG, seg, MIB));
    assert_true(!mem_has(mem, SEG2_KEY) || holds(SEG2, seg2, MIB));
    assert_true(!mem_has(mem, PARTIAL_KEY) || holds(PARTIAL, seg, 5000));
    *done = all;
}

static void run_scenario(enum mem_op op, unsigned n, enum err_code code, bool lose, bool *done)
{
    char *seg = segment_of(SEG, 1), *seg2 = segment_of(SEG2, 1);
    struct fs_options o = default_options();
    o.hard = false;
    start(o);
    mem_archive(mem, LABEL, label_text, sizeof(label_text) - 1);
    if (lose)
        mem_lose_answers(mem, n, code);
    else
        mem_fail(mem, op, n, 3, code); /* beyond the soft mount's own second try */
    scenario(seg, seg2, done);
    for (int i = 0; i < 500 && mem_open_bodies(mem) != 0; i++)
        usleep(10000); /* what was read ahead comes to its end */
    assert_int_equal(mem_open_bodies(mem), 0);
    (void)tear_down(NULL);
    free(seg);
    free(seg2);
}

static void test_each_call_fails_once(void **state)
{
    (void)state;
    static const enum err_code codes[] = {ERR_UNAVAILABLE, ERR_CORRUPT, ERR_CANCELLED};
    for (size_t c = 0; c < sizeof(codes) / sizeof(codes[0]); c++) {
        bool done = false;
        unsigned n = 0;
        while (!done) {
            n++;
            assert_true(n < 200);
            run_scenario(MEM_ANY, n, codes[c], false, &done);
        }
        assert_true(n > 8); /* there were calls to fail */
    }
    for (unsigned n = 1; n < 20; n++) {
        bool done;
        run_scenario(MEM_READ, n, ERR_UNAVAILABLE, false, &done);
    }
    for (unsigned n = 1; n < 4; n++) {
        bool done;
        run_scenario(MEM_PUT, n, ERR_UNAVAILABLE, true, &done);
        run_scenario(MEM_PUT, n, ERR_EXISTS, true, &done);
        assert_true(done);
    }
}

/* ---- the end of the mount ---- */

static void test_stop_ends_what_waits(void **state)
{
    (void)state;
    pthread_t thread;
    struct asker a;
    char *seg = segment_of(SEG, 1);
    assert_int_equal(cp(SEG, seg, MIB), 0);
    asker_init(&a, SEG, 1);
    mem_hang(mem, MEM_GET);
    assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
    wait_for_calls(MEM_GET, 1);
    fs_stop(fs);
    pthread_join(thread, NULL);
    assert_int_not_equal(a.rc, 0);
    assert_int_not_equal(a.rc, ENOENT);
    cancel_destroy(&a.cancel);
    free(seg);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define SOFT(f) cmocka_unit_test_setup_teardown(f, set_up_soft, tear_down)
#define RO(f) cmocka_unit_test_setup_teardown(f, set_up_read_only, tear_down)
#define NO_CACHE(f) cmocka_unit_test_setup_teardown(f, set_up_no_cache, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_close_publishes),
        T(test_small_files_are_published),
        T(test_fsync_publishes),
        T(test_error_is_the_closes),
        T(test_failed_close_then_release_publishes_nothing),
        T(test_closes_of_others_change_nothing),
        T(test_release_publishes_what_nobody_closed),
        T(test_any_thread_of_the_opener_closes),
        T(test_killed_writer_publishes_nothing),
        T(test_failed_writer_publishes_nothing),
        T(test_exit_without_close_publishes),
        T(test_killed_writer_beside_another_handle),
        T(test_fsync_by_another_handle),
        T(test_release_beside_another_handle),
        T(test_empty_file),
        T(test_wrong_content_is_refused),
        T(test_older_timeline_in_a_copied_segment),
        T(test_changed_while_it_is_published),
        T(test_other_content_is_refused),
        T(test_same_content_again),
        T(test_same_content_as_wal_e_wrote),
        T(test_strange_metadata),
        T(test_comparison_does_not_trust_the_cache),
        T(test_comparison_with_what_cannot_be_read),
        T(test_truncating_open_leaves_the_archive_alone),
        T(test_changing_an_archived_file),
        T(test_lost_answer_of_a_put),
        T(test_two_writers_race),
        T(test_another_host_is_faster),
        T(test_weak_guard),
        T(test_writing_on_after_a_publish),
        T(test_receivewal),
        T(test_partial_is_replaceable),
        T(test_replaced_partials_leave_nothing),
        T(test_two_writers_of_a_partial),
        T(test_rename_of_a_partial_in_the_store),
        T(test_stat_of_an_open_partial),
        T(test_stat_of_a_replaced_partial),
        T(test_change_of_a_replaced_partial),
        T(test_stat_of_a_writer),
        T(test_rename_of_an_incomplete_partial),
        T(test_rename_whose_removal_fails),
        T(test_basic_archive),
        T(test_renaming_onto_an_archived_name),
        T(test_renaming_wrong_content),
        T(test_renaming_temporaries),
        T(test_unlinking),
        T(test_temporary_is_renamed_while_open),
        T(test_rename_over_a_name_that_is_written),
        T(test_names_like_wal),
        T(test_absence_is_not_remembered),
        T(test_absence_is_forgotten_soon),
        T(test_absence_ends_with_a_publish),
        SOFT(test_no_error_but_absence_is_enoent),
        SOFT(test_soft_gives_up_in_time),
        RO(test_hard_lookup_waits),
        T(test_hard_open_waits),
        T(test_hard_open_waits_for_a_hung_store),
        T(test_hard_listing_waits),
        T(test_cached_reads_during_an_outage),
        T(test_archiving_during_an_outage),
        T(test_maybe_becomes_true),
        T(test_waiting_readers_do_not_use_up_a_writers_time),
        T(test_writes_give_up_in_time),
        T(test_rename_of_a_temporary_gives_up_in_time),
        T(test_rename_of_a_partial_gives_up_in_time),
        T(test_removal_after_a_rename_gives_up_in_time),
        NO_CACHE(test_stat_of_an_open_segment),
        NO_CACHE(test_corruption_is_eio),
        T(test_open_handle_keeps_its_content),
        T(test_listing_pages),
        T(test_first_page_comes_first),
        T(test_seeking_in_a_listing),
        T(test_foreign_keys_are_not_shown),
        RO(test_segment_size_of_1_mib),
        RO(test_segment_size_of_16_mib),
        RO(test_segment_size_of_64_mib),
        T(test_listing_learns_the_size),
        T(test_listing_what_cannot_be_decoded),
        T(test_sizes_of_small_files),
        T(test_plus_entries_are_counted),
        T(test_setattr_does_not_break_writers),
        T(test_truncate_while_writing),
        T(test_larger_than_any_segment),
        T(test_names_and_ids),
        RO(test_read_only),
        cmocka_unit_test(test_each_call_fails_once),
        T(test_stop_ends_what_waits),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
