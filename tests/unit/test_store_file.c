/* What only the directory store has: files, modes, leftovers, links. The contract: test_store.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/store_file.h"
#include "tests/unit/store_env.h"

static struct store_env env;

static int setup(void **state)
{
    store_env_begin(&env, STORE_DIRECTORY);
    *state = env.store;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_env_end(&env);
    return 0;
}

static const char *path_of(const char *key)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", env.dir, key);
    return path;
}

static void write_file(const char *key, const char *text)
{
    FILE *f = fopen(path_of(key), "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static size_t count_names(const char *key)
{
    DIR *dir = opendir(path_of(key));
    assert_non_null(dir);
    size_t n = 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

static void test_options(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_null(store_file_new("relative/dir", &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(store_file_new("", &err));
    struct store *s = store_file_new("/some//where//", &err);
    assert_non_null(s);
    assert_string_equal(s->url, "file://localhost/some//where");
    s->ops->free(s);
}

static void test_modes(void **state)
{
    struct stat st;
    env_put(*state, "a/b/c", "x", 1);
    assert_int_equal(stat(path_of("a/b/c"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(path_of("a/b"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(count_names("a/b"), 1); /* no temporary is left */
}

/* Files that WAL-E's file:// wrote are objects as they are. */
static void test_foreign_files(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    write_file("plain", "text");
    assert_true(s->ops->head(s, "plain", &info, &env_forever, &err));
    assert_int_equal(info.size, 4);
    assert_int_equal(info.meta_count, 0);
}

static void test_xattrs(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    char value[64];
    const struct store_meta meta = {.name = "walefs-size", .value = "16777216"};
    const struct store_put put = {.body = {.mem = "x", .size = 1}, .meta = &meta, .meta_count = 1};
    assert_true(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    ssize_t n = getxattr(path_of("key"), "user.walefs-size", value, sizeof(value));
    if (n < 0 && errno == ENOTSUP)
        fail_msg("/tmp has no extended attributes");
    assert_int_equal(n, 8);
    assert_memory_equal(value, "16777216", 8);
    assert_int_equal(setxattr(path_of("key"), "user.other", "y", 1, 0), 0);
    assert_true(s->ops->head(s, "key", &info, &env_forever, &err));
    assert_int_equal(info.meta_count, 1);
}

static bool absent(struct store *s, const char *key)
{
    struct err err = ERR_INIT;
    struct store_info info;
    assert_false(s->ops->head(s, key, &info, &env_forever, &err));
    return err.code == ERR_ABSENT;
}

/* Links, directories and devices are no objects, and links are not followed out of the archive. */
static void test_no_regular_file(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_page page;
    assert_int_equal(symlink("/etc/passwd", path_of("link")), 0);
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    assert_int_equal(mkdir(path_of("dir"), 0700), 0);
    assert_true(absent(s, "link"));
    assert_true(absent(s, "fifo"));
    assert_true(absent(s, "dir"));
    assert_true(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &env_forever, &err));
    assert_int_equal(page.count, 0);
    store_page_free(&page);
    /* a directory without any object is no prefix */
    const struct store_list top = {.prefix = "", .delimiter = "/"};
    assert_true(s->ops->list(s, &top, &page, &env_forever, &err));
    assert_int_equal(page.count, 0);
    store_page_free(&page);
    /* a put replaces the link, not what it points to */
    env_put(s, "link", "mine", 4);
    struct stat st;
    assert_int_equal(lstat(path_of("link"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    struct store_put put = {.body = {.mem = "x", .size = 1}};
    assert_false(s->ops->put(s, "dir", &put, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(s->ops->put(s, "link/below", &put, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_INVALID);
    put.only_if_absent = true;
    assert_false(s->ops->put(s, "dir", &put, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    const char *key = "dir";
    assert_true(s->ops->remove(s, &key, 1, &env_forever, &err));
    assert_int_equal(access(path_of("dir"), F_OK), 0);
}

static void test_keys_without_file(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    char long_name[300];
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    const char *const keys[] = {"a//b", "a/", ".walefs-tmp-1", "a/.walefs-tmp-1/b", long_name};
    const struct store_put put = {.body = {.mem = "x", .size = 1}};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        err.code = ERR_NONE;
        assert_false(s->ops->put(s, keys[i], &put, NULL, &env_forever, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
}

static void test_prune(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    env_put(s, "a/b/c/one", "x", 1);
    env_put(s, "a/b/two", "x", 1);
    const char *keys[] = {"a/b/c/one"};
    assert_true(s->ops->remove(s, keys, 1, &env_forever, &err));
    assert_int_not_equal(access(path_of("a/b/c"), F_OK), 0);
    assert_int_equal(access(path_of("a/b"), F_OK), 0);
    keys[0] = "a/b/two";
    assert_true(s->ops->remove(s, keys, 1, &env_forever, &err));
    assert_int_not_equal(access(path_of("a"), F_OK), 0);
    assert_int_equal(access(env.dir, F_OK), 0);
}

static void make_old(const char *name)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    clock_gettime(CLOCK_REALTIME, &times[1]);
    times[1].tv_sec -= 25 * 60 * 60;
    assert_int_equal(utimensat(AT_FDCWD, path_of(name), times, 0), 0);
}

/* Temporaries are not listed; at a check for writing those of a dead process are removed. */
static void test_stale_temporaries(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_page page;
    bool weak;
    env_put(s, "dir/key", "x", 1);
    write_file("dir/.walefs-tmp-old", "x");
    write_file("dir/.walefs-tmp-new", "x");
    make_old("dir/.walefs-tmp-old");
    assert_true(s->ops->list(s, &(struct store_list){.prefix = ""}, &page, &env_forever, &err));
    assert_int_equal(page.count, 1);
    store_page_free(&page);
    assert_true(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err));
    assert_int_equal(count_names("dir"), 3);
    assert_true(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err));
    assert_int_equal(access(path_of("dir/.walefs-tmp-old"), F_OK), -1);
    assert_int_equal(access(path_of("dir/.walefs-tmp-new"), F_OK), 0);
    assert_int_equal(access(path_of("dir/key"), F_OK), 0);
    assert_int_equal(unlink(path_of("dir/.walefs-tmp-new")), 0);
}

/* The first parts of an upload may be older than a day: as long as it grows they stay. */
static void test_parts_of_days(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    bool weak;
    const struct store_body part = {.mem = "x", .size = 1};
    const struct store_put put = {.body = {.mem = ""}};
    struct store_upload *up = s->ops->upload_begin(s, "dir/key", &put, &env_forever, &err);
    assert_non_null(up);
    for (unsigned i = 1; i <= 3; i++)
        assert_ok(s->ops->upload_part(up, i, &part, &env_forever, &err), &err);
    DIR *dir = opendir(path_of("dir"));
    assert_non_null(dir);
    for (struct dirent *de; (de = readdir(dir)) != NULL;) {
        char name[300];
        (void)snprintf(name, sizeof(name), "dir/%s", de->d_name);
        if (de->d_name[0] != '.' || de->d_name[1] == 'w')
            make_old(name);
    }
    closedir(dir);
    assert_ok(s->ops->upload_part(up, 4, &part, &env_forever, &err), &err);
    assert_true(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err));
    assert_ok(s->ops->upload_complete(up, NULL, &env_forever, &err), &err);
    env_assert_content(s, "dir/key", "xxxx", 4);
}

/* A failed or abandoned put leaves nothing. */
static void test_failed_put(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    uint8_t wrong[32] = {0};
    const struct store_put put = {.body = {.mem = "x", .size = 1, .sha256 = wrong}};
    assert_false(s->ops->put(s, "key", &put, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_int_equal(count_names("."), 0);
}

/* The base goes away under a store in use (an unmounted disk): never "absent". */
static void test_base_vanishes(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    env_put(s, "key", "x", 1);
    env_remove_tree(env.dir);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    assert_int_equal(err.code, ERR_NO_BUCKET);
    assert_int_equal(mkdir(env.dir, 0700), 0);
    assert_true(absent(s, "key"));
}

/* What is left when the file system below it is unmounted: another directory of that path. */
static void test_base_is_another(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    char away[300];
    env_put(s, "key", "0123456789", 10);
    (void)snprintf(away, sizeof(away), "%s.away", env.dir);
    assert_int_equal(rename(env.dir, away), 0);
    assert_int_equal(mkdir(env.dir, 0700), 0);
    assert_false(s->ops->head(s, "key", &info, &env_forever, &err));
    assert_int_equal(err.code, ERR_NO_BUCKET);
    const struct store_put put = {.body = {.mem = "x", .size = 1}};
    assert_false(s->ops->put(s, "key2", &put, NULL, &env_forever, &err));
    assert_int_equal(err.code, ERR_NO_BUCKET);
    assert_int_equal(count_names("."), 0);
    assert_int_equal(rmdir(env.dir), 0);
    assert_int_equal(rename(away, env.dir), 0);
    assert_true(s->ops->head(s, "key", &info, &env_forever, &err));
}

static void test_shrinking_file(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    struct store_info info;
    char out[16];
    env_put(s, "key", "0123456789", 10);
    struct source *src = s->ops->get(s, "key", 0, UINT64_MAX, &info, &env_forever, &err);
    assert_non_null(src);
    assert_int_equal(truncate(path_of("key"), 4), 0);
    assert_int_equal(source_read_full(src, out, sizeof(out), &err), -1);
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_int_equal(src->read(src, out, 1, &err), -1);
    source_close(src);
}

static void test_not_writable(void **state)
{
    struct store *s = *state;
    struct err err = ERR_INIT;
    bool weak;
    if (geteuid() == 0) { /* nothing is forbidden to root; a file where a directory must be is */

        assert_int_equal(mkdir(path_of("walefs_probe"), 0700), 0);
    } else {
        assert_int_equal(chmod(env.dir, 0500), 0);
    }
    assert_true(s->ops->check(s, STORE_CHECK_READ, &weak, &env_forever, &err));
    assert_false(s->ops->check(s, STORE_CHECK_MOUNT, &weak, &env_forever, &err));
    assert_non_null(strstr(err.text, "mount with -o ro"));
    (void)chmod(env.dir, 0700);
}

int main(void)
{
#define T(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        T(test_modes),
        T(test_foreign_files),
        T(test_xattrs),
        T(test_no_regular_file),
        T(test_keys_without_file),
        T(test_prune),
        T(test_stale_temporaries),
        T(test_parts_of_days),
        T(test_failed_put),
        T(test_base_vanishes),
        T(test_base_is_another),
        T(test_shrinking_file),
        T(test_not_writable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
