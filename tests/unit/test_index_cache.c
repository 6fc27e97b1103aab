/* Indexes that are kept on this host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool.h"
#include "fs/index_cache.h"
#include "store_env.h"

#define NAME "base_000000010000000000000002_00000040"

static char dir[64];
static struct err err;

static int begin(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/walefs-index-XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int end(void **state)
{
    (void)state;
    env_remove_tree(dir);
    return 0;
}

static struct backup_object parts[3] = {{.number = 1, .size = 100, .etag = "a"},
                                        {.number = 2, .size = 200, .etag = "b"},
                                        {.number = UINT32_MAX, .size = 5, .etag = "c"}};
static const struct backup_objects objects = {.objects = parts, .count = 3, .partition_count = 2};

static void keep(const char *text)
{
    int fd = spool_open("/tmp", &err);
    assert_true(fd >= 0 && spool_write(fd, text, strlen(text), 0, &err));
    assert_ok(index_cache_keep(dir, NAME, &objects, fd, strlen(text), &err), &err);
    (void)close(fd);
}

/* What is kept for these objects, "" for nothing. */
static const char *kept(const char *name, const struct backup_objects *o)
{
    static char text[100];
    int fd = index_cache_open(dir, name, o);
    text[0] = '\0';
    if (fd < 0)
        return text;
    ssize_t n = spool_read(fd, text, sizeof(text) - 1, 0, &err);
    assert_true(n >= 0);
    text[n] = '\0';
    (void)close(fd);
    return text;
}

/* The one file in the directory. */
static const char *only_file(void)
{
    static char path[400];
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
            n++;
        }
    (void)closedir(d);
    assert_int_equal(n, 1);
    return path;
}

static void what_is_kept_is_found(void **state)
{
    struct stat st;
    (void)state;
    assert_string_equal(kept(NAME, &objects), "");
    keep("first");
    assert_string_equal(kept(NAME, &objects), "first");
    keep("2nd");
    assert_string_equal(kept(NAME, &objects), "2nd");
    assert_int_equal(stat(only_file(), &st), 0); /* and no temporary file beside it */
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void only_for_exactly_these_objects(void **state)
{
    (void)state;
    keep("index");
    assert_string_equal(kept("base_000000010000000000000003_00000040", &objects), "");
    const struct backup_object was = parts[1];
    parts[1].size++;
    assert_string_equal(kept(NAME, &objects), "");
    parts[1] = was;
    strcpy(parts[1].etag, "B");
    assert_string_equal(kept(NAME, &objects), "");
    parts[1] = was;
    parts[1].number = 3;
    assert_string_equal(kept(NAME, &objects), "");
    parts[1] = was;
    const struct backup_objects fewer = {.objects = parts, .count = 1, .partition_count = 1};
    assert_string_equal(kept(NAME, &fewer), "");
    strcpy(parts[2].etag, "other"); /* no partition: the index stored in the archive, say */
    assert_string_equal(kept(NAME, &objects), "index");
}

/* In a directory that others can write to. */
static void what_others_could_have_written_is_not_read(void **state)
{
    char target[100], path[400];
    (void)state;
    keep("index");
    strcpy(path, only_file());
    assert_int_equal(chmod(path, 0620), 0);
    assert_string_equal(kept(NAME, &objects), "");
    assert_int_equal(chmod(path, 0600), 0);
    assert_string_equal(kept(NAME, &objects), "index");
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_string_equal(kept(NAME, &objects), "");
        assert_int_equal(chown(path, 0, 0), 0);
    }
    (void)snprintf(target, sizeof(target), "%s/.elsewhere", dir);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(target, path), 0);
    assert_string_equal(kept(NAME, &objects), "");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* opening it must not hang */
    assert_string_equal(kept(NAME, &objects), "");
}

static void a_directory_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    int fd = spool_open("/tmp", &err);
    assert_false(index_cache_keep("/nonexistent/dir", NAME, &objects, fd, 0, &err));
    assert_int_equal(index_cache_open("/nonexistent/dir", NAME, &objects), -1);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept_is_found, begin, end),
        cmocka_unit_test_setup_teardown(only_for_exactly_these_objects, begin, end),
        cmocka_unit_test_setup_teardown(what_others_could_have_written_is_not_read, begin, end),
        cmocka_unit_test_setup_teardown(a_directory_that_is_not_there_is_an_error, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
