#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mem_fs_env.h"

#include "gpg_home.h"
#include "store_env.h"

struct mem_store *mem;
struct openpgp *pgp;
struct fs *fs;

static struct pool *pool;
static size_t fds_before;

void mem_fs_store(void)
{
    fds_before = test_open_fds();
    mem = mem_store_new();
}

void mem_fs_mount(struct fs_options options)
{
    struct err err = ERR_INIT;
    pgp = test_plain_pgp();
    pool = pool_new(64, 200, &err);
    assert_ok(pool != NULL, &err);
    if (options.store == NULL)
        options.store = mem_base(mem);
    options.pgp = pgp;
    options.pool = pool;
    options.cache_dir = "/var/tmp";
    fs = fs_new(&options, &err);
    assert_ok(fs != NULL, &err);
}

void mem_fs_begin(struct fs_options options)
{
    mem_fs_store();
    mem_fs_mount(options);
}

void mem_fs_stop(void)
{
    fs_stop(fs);
    mem_heal(mem);
    pool_free(pool);
    pool = NULL;
}

void mem_fs_end(void)
{
    if (pool != NULL)
        mem_fs_stop();
    fs_free(fs);
    openpgp_free(pgp);
    assert_int_equal(mem_open_bodies(mem), 0);
    mem_base(mem)->ops->free(mem_base(mem));
    assert_int_equal(test_open_fds(), fds_before);
}

uint64_t mem_fs_look_up(uint64_t dir, const char *name)
{
    struct fs_entry e;
    struct err err = ERR_INIT;
    if (!fs_lookup(fs, dir, name, 1, &e, &env_forever, &err))
        fail_msg("%s: %s", name, err.text);
    return e.id;
}
