#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dumps_env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/spool.h"
#include "fs/errno.h"
#include "fs/inode.h"
#include "gpg_home.h"

struct store_env the_files;
struct fault_store *the_faults;
struct fs_options the_options;
struct fs *the_fs;
uint64_t the_dumps;
struct err the_err;
const struct call endless = CALL_INIT;

static struct pool *pool;
static struct openpgp *pgp;
static char scratch[64];

uint64_t do_look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    the_err = (struct err)ERR_INIT;
    return fs_lookup(the_fs, dir, name, ME, &e, &endless, &the_err) ? e.id : 0;
}

void do_mount(bool writable, bool allow_delete)
{
    the_options.read_only = !writable;
    the_options.allow_delete = allow_delete;
    the_options.pool = pool;
    the_fs = fs_new(&the_options, &the_err);
    assert_ok(the_fs != NULL, &the_err);
    the_dumps = do_look_up(INODE_ROOT, "dumps");
    assert_int_not_equal(the_dumps, 0);
}

void do_unmount(void)
{
    fs_stop(the_fs);
    pool_free(pool);
    fs_free(the_fs);
    pool = pool_new(32, 1000, &the_err);
    assert_non_null(pool);
}

int dumps_begin(void **state)
{
    const struct openpgp_options options = {.stall_timeout_ms = 60000, .max_processes = 2};
    (void)state;
    store_env_begin(&the_files, STORE_DIRECTORY);
    the_faults = fault_store_new(the_files.store);
    fault_at(the_faults, 0, FAULT_BEFORE);
    pool = pool_new(32, 1000, &the_err);
    pgp = openpgp_new(&options, &the_err);
    assert_ok(pool != NULL && pgp != NULL, &the_err);
    strcpy(scratch, "/tmp/walefs-dumps-XXXXXX");
    assert_non_null(mkdtemp(scratch));
    the_options = (struct fs_options){.store = fault_base(the_faults),
                                      .pgp = pgp,
                                      .write_timeout_ms = 5000,
                                      .soft_timeout_ms = 300,
                                      .cache_dir = scratch,
                                      .cache_bytes = 4u * MIB,
                                      .partition_bytes = 5u * MIB};
    do_mount(true, true);
    return 0;
}

int dumps_end(void **state)
{
    (void)state;
    do_unmount();
    assert_int_equal(fault_uploads_open(the_faults), 0);
    pool_free(pool);
    openpgp_free(pgp);
    fault_store_free(the_faults);
    store_env_end(&the_files);
    env_remove_tree(scratch);
    return 0;
}

/* ---- what a program does ---- */

struct handle *do_create(uint64_t dir, const char *name, int flags)
{
    struct fs_entry e;
    struct handle *h;
    the_err = (struct err)ERR_INIT;
    uint64_t id = do_look_up(dir, name);
    if (id != 0)
        return fs_open(the_fs, id, flags | O_TRUNC, ME, &h, &endless, &the_err) ? h : NULL;
    return fs_create(the_fs, dir, name, flags | O_CREAT, 0600, ME, &e, &h, &endless, &the_err)
               ? h
               : NULL;
}

bool do_put(uint64_t dir, const char *name, const char *data, size_t n)
{
    struct handle *h = do_create(dir, name, O_WRONLY);
    if (h == NULL)
        return false;
    bool ok = true;
    for (size_t pos = 0; ok && pos < n; pos += MIB)
        ok =
            fs_write(the_fs, h, data + pos, n - pos < MIB ? n - pos : MIB, pos, &endless, &the_err);
    struct err ignored = ERR_INIT;
    bool closed = fs_flush(the_fs, h, ME, &endless, ok ? &the_err : &ignored);
    assert_true(ok || !closed);
    fs_release(the_fs, h);
    return ok && closed;
}

bool do_put_text(uint64_t dir, const char *name, const char *text)
{
    return do_put(dir, name, text, strlen(text));
}

bool do_read(struct handle *h, uint64_t offset, size_t n, char *out, size_t *got)
{
    struct fs_bytes b;
    if (!fs_read(the_fs, h, offset, n, &b, &endless, &the_err))
        return false;
    *got = b.size;
    bool ok = b.size == 0 || spool_read(b.fd, out, b.size, b.offset, &the_err) == (ssize_t)b.size;
    fs_read_done(&b);
    return ok;
}

char *do_get(uint64_t dir, const char *name, size_t *n)
{
    struct fs_entry e;
    struct handle *h;
    uint64_t id = do_look_up(dir, name);
    if (id == 0 || !fs_getattr(the_fs, id, NULL, &e, &endless, &the_err) ||
        !fs_open(the_fs, id, O_RDONLY, ME, &h, &endless, &the_err))
        return NULL;
    char *data = malloc((size_t)e.attr.st_size + 1);
    assert_non_null(data);
    size_t got = 1;
    bool ok = true;
    for (*n = 0; ok && got > 0; *n += got)
        ok = do_read(h, *n, MIB, data + *n, &got);
    fs_release(the_fs, h);
    if (ok && *n == (size_t)e.attr.st_size) {
        data[*n] = '\0';
        return data;
    }
    free(data);
    return NULL;
}

void assert_holds(uint64_t dir, const char *name, const char *data, size_t n)
{
    size_t got;
    char *have = do_get(dir, name, &got);
    if (have == NULL)
        fail_msg("%s: %s", name, the_err.text);
    assert_int_equal(got, n);
    assert_memory_equal(have, data, n);
    free(have);
}

void assert_text(uint64_t dir, const char *name, const char *text)
{
    assert_holds(dir, name, text, strlen(text));
}

void assert_gone(uint64_t dir, const char *name)
{
    assert_int_equal(do_look_up(dir, name), 0);
    assert_int_equal(fs_errno(&the_err), ENOENT);
}

bool do_move(uint64_t dir, const char *name, uint64_t to, const char *new_name)
{
    the_err = (struct err)ERR_INIT;
    return fs_rename(the_fs, dir, name, to, new_name, false, &endless, &the_err);
}

uint64_t do_mkdir(uint64_t dir, const char *name)
{
    struct fs_entry e;
    assert_ok(fs_mkdir(the_fs, dir, name, 0700, &e, &endless, &the_err), &the_err);
    return e.id;
}

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
        fs_forget(the_fs, entry->id, 1);
    return true;
}

struct listing do_list(uint64_t dir)
{
    struct listing l = {.text = ""};
    struct dir *d;
    size_t before;
    assert_ok(fs_opendir(the_fs, dir, &d, &endless, &the_err), &the_err);
    uint64_t offset = 0;
    do {
        before = l.count;
        assert_ok(fs_readdir(the_fs, d, offset, true, emit, &l, &endless, &the_err), &the_err);
        offset = l.count + 2;
    } while (l.count > before);
    fs_releasedir(the_fs, d);
    return l;
}
