/* Reading tar streams as the world writes them, and indexing them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/tar_read.h"
#include "store_env.h"

#define DEEP                                                                                  \
    "a_directory_whose_name_is_rather_long_so_that_it_does_not_fit/and_another_one_below_it/" \
    "with_a_file_beyond_one_hundred_bytes"

static char dir[64];
static struct err err;

static void run(const char *command)
{
    char line[4096];
    (void)snprintf(line, sizeof(line), "cd %s && { %s; }", dir, command);
    if (system(line) != 0) // NOLINT(cert-env33-c): the tests' own text
        fail_msg("%s", line);
}

static int begin(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/walefs-tar-XXXXXX");
    assert_non_null(mkdtemp(dir));
    run("mkdir -p t/empty t/base/1 && cd t && head -c 100000 /dev/urandom >base/1/2 && : >base/1/0 "
        "&& printf x >base/1/x && chmod 2751 base && chmod 600 base/1/x && "
        "touch -d '2001-02-03 04:05:06.789' base/1/x && touch -d '1969-12-31 23:59:50' base/1/0 && "
        "ln -s '/a place' link && ln base/1/2 base/1/same && printf '\\303\\251' >'caf\303\251' && "
        "mkdir -p $(dirname " DEEP ") && echo deep >" DEEP);
    return 0;
}

static int end(void **state)
{
    (void)state;
    env_remove_tree(dir);
    return 0;
}

/* The file NAME, whole. */
static char *load(const char *name, size_t *n)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_int_equal(fread(data, 1, *n, f), *n);
    assert_int_equal(fclose(f), 0);
    return data;
}

/* Indexes N bytes as one partition; NULL with err. */
static struct backup_index *scan(const char *data, size_t n)
{
    struct backup_index *x = backup_index_new(&err);
    struct index_partition p = {.number = 1, .etag = "\"e\""};
    p.map.plain_size = n;
    assert_true(backup_index_add_partition(x, &p, &err));
    struct source *s = source_mem(data, n, &err);
    err = (struct err)ERR_INIT;
    bool ok = backup_index_scan(x, s, "part_1", &err) && backup_index_seal(x, &err);
    source_close(s);
    if (ok)
        return x;
    backup_index_free(x);
    return NULL;
}

static struct backup_index *scan_file(const char *name, char **data, size_t *n)
{
    *data = load(name, n);
    struct backup_index *x = scan(*data, *n);
    if (x == NULL)
        fail_msg("%s: %s", name, err.text);
    return x;
}

static const struct member *need(const struct backup_index *x, const char *path,
                                 enum member_type type)
{
    const struct member *m = backup_index_find(x, path);
    if (m == NULL)
        fail_msg("%s is not there", path);
    assert_int_equal(m->type, type);
    return m;
}

/* The member's bytes are where the index says. */
static void assert_data(const struct backup_index *x, const char *path, const char *data)
{
    char name[256];
    size_t n;
    (void)snprintf(name, sizeof(name), "t/%s", path);
    char *want = load(name, &n);
    const struct member *m = backup_index_data_of(x, backup_index_find(x, path));
    assert_non_null(m);
    assert_int_equal(m->size, n);
    assert_memory_equal(data + m->offset, want, n);
    free(want);
}

/* ROOT: whether the stream has a member for it. FINE: it keeps parts of a second. */
static void check_tree(const char *name, bool fine)
{
    char *data;
    size_t n;
    struct backup_index *x = scan_file(name, &data, &n);
    assert_int_equal(need(x, "", MEMBER_DIR)->mode, 0755);
    need(x, "empty", MEMBER_DIR);
    assert_int_equal(need(x, "base", MEMBER_DIR)->mode, 02751);
    assert_int_equal(need(x, "base/1/0", MEMBER_FILE)->size, 0);
    const struct member *m = need(x, "base/1/x", MEMBER_FILE);
    assert_int_equal(m->mode, 0600);
    assert_int_equal(m->uid, getuid());
    assert_int_equal(m->mtime_s, 981173106);
    assert_int_equal(m->mtime_ns, fine ? 789000000 : 0);
    assert_string_equal(need(x, "link", MEMBER_SYMLINK)->link, "/a place");
    assert_data(x, "base/1/2", data);
    assert_data(x, "base/1/same", data);
    assert_data(x, "base/1/x", data);
    assert_data(x, "caf\303\251", data);
    assert_data(x, DEEP, data);
    backup_index_free(x);
    free(data);
}

static void gnu_ustar_and_pax(void **state)
{
    (void)state;
    run("tar -C t --format=gnu -cf gnu.tar .");
    run("tar -C t --format=pax -cf pax.tar .");
    run("touch -d @1 t/base/1/0; tar -C t --format=ustar -cf ustar.tar .");
    check_tree("gnu.tar", false);
    check_tree("ustar.tar", false);
    check_tree("pax.tar", true);
}

/* Python's tarfile, which WAL-E writes with, calls the root "". */
static void an_empty_name_is_the_root(void **state)
{
    (void)state;
    run("python3 -c 'import tarfile; t = tarfile.open(\"e.tar\", \"w\"); "
        "t.add(\"t\", arcname=\"\", recursive=False); t.add(\"t/empty\", arcname=\"empty\"); "
        "t.close()'");
    char *data;
    size_t n;
    struct backup_index *x = scan_file("e.tar", &data, &n);
    assert_int_equal(x->count, 2);
    need(x, "", MEMBER_DIR);
    need(x, "empty", MEMBER_DIR);
    backup_index_free(x);
    free(data);
}

static void unsafe_names_and_devices_are_left_out(void **state)
{
    (void)state;
    run("echo x >up; cd t && tar -P --format=gnu -cf ../odd.tar ../up /etc/hostname /dev/null "
        "base/1/x; mkfifo ../p; tar -rf ../odd.tar -C .. p");
    char *data;
    size_t n;
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    struct backup_index *x = scan_file("odd.tar", &data, &n);
    assert_int_equal(x->count, 1);
    assert_data(x, "base/1/x", data);
    backup_index_free(x);
    free(data);
}

/* PostgreSQL before 15 ends its streams so, and GNU tar reads them. */
static void what_breaks_off_is_damage(void **state)
{
    (void)state;
    run("tar -C t --format=gnu -cf whole.tar base link");
    size_t n;
    char *data = load("whole.tar", &n);
    size_t used = n;
    while (data[used - 1] == '\0')
        used--;
    used = (used + 511) / 512 * 512;
    struct backup_index *x = scan(data, used + 1024);
    assert_non_null(x);
    backup_index_free(x);
    for (size_t cut = 0; cut < used + 1024; cut += cut % 512 == 0 && cut > 2048 ? 2011 : 77) {
        if (scan(data, cut) != NULL)
            fail_msg("%zu of %zu bytes were taken as a whole stream", cut, n);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.text, "part_1"));
    }
    free(data);
}

static void what_follows_the_end_is_damage(void **state)
{
    (void)state;
    run("tar -C t --format=gnu -cf twice.tar base && cat twice.tar twice.tar >two.tar");
    size_t n;
    char *data = load("two.tar", &n);
    assert_null(scan(data, n));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "follows the end"));
    free(data);
}

static void a_damaged_header_is_damage(void **state)
{
    (void)state;
    run("tar -C t --format=gnu -cf hurt.tar base/1/x base/1/0");
    size_t n;
    char *data = load("hurt.tar", &n);
    data[1024 + 3] ^= 1; /* the second member's name */
    assert_null(scan(data, n));
    assert_int_equal(err.code, ERR_CORRUPT);
    free(data);
}

static void noise_is_no_tar(void **state)
{
    (void)state;
    size_t n = 100000;
    char *data = env_bytes(n, 7);
    assert_null(scan(data, n));
    assert_int_equal(err.code, ERR_CORRUPT);
    free(data);
}

static void a_sparse_file_is_refused_by_name(void **state)
{
    (void)state;
    run("truncate -s 10M t/holes && tar -C t -S --format=gnu -cf s.tar base/1/x holes; rm t/holes");
    size_t n;
    char *data = load("s.tar", &n);
    assert_null(scan(data, n));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "holes"));
    free(data);
}

static ssize_t gone(struct source *self, void *buf, size_t n, struct err *e)
{
    (void)self;
    (void)buf;
    (void)n;
    err_set(e, ERR_UNAVAILABLE, "the store is gone");
    return -1;
}

static void no_end(struct source *self)
{
    (void)self;
}

static void a_source_that_fails_is_no_damage(void **state)
{
    (void)state;
    run("tar -C t --format=gnu -cf half.tar base");
    size_t n;
    char *data = load("half.tar", &n);
    struct source rest = {.read = gone, .close = no_end};
    struct source *s = source_prepend(data, 2000, &rest, &err);
    struct tar_reader *r = tar_reader_new(s, "part_9", &err);
    int rc = r == NULL ? -1 : 1;
    while (rc == 1) {
        struct member m;
        bool known;
        uint64_t offset;
        rc = tar_reader_next(r, &m, &known, &err);
        if (rc == 1 && !tar_reader_skip(r, &m, &offset, &err))
            rc = -1;
    }
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    tar_reader_free(r);
    source_close(s);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gnu_ustar_and_pax, begin, end),
        cmocka_unit_test_setup_teardown(an_empty_name_is_the_root, begin, end),
        cmocka_unit_test_setup_teardown(unsafe_names_and_devices_are_left_out, begin, end),
        cmocka_unit_test_setup_teardown(what_breaks_off_is_damage, begin, end),
        cmocka_unit_test_setup_teardown(what_follows_the_end_is_damage, begin, end),
        cmocka_unit_test_setup_teardown(a_damaged_header_is_damage, begin, end),
        cmocka_unit_test_setup_teardown(noise_is_no_tar, begin, end),
        cmocka_unit_test_setup_teardown(a_sparse_file_is_refused_by_name, begin, end),
        cmocka_unit_test_setup_teardown(a_source_that_fails_is_no_damage, begin, end),
    };
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
