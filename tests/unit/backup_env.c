#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backup_env.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/catalog.h"
#include "core/codec.h"

void backup_env_run(const struct backup_env *e, const char *fmt, ...)
{
    char command[2048];
    int n = snprintf(command, sizeof(command), "cd '%s' && ", e->dir);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, args);
    va_end(args);
    int status = system(command);
    if (status != 0)
        fail_msg("%s: status %d", command, status);
}

void backup_env_begin(struct backup_env *e, const char *words, const struct test_home *home,
                      const char *recipient, unsigned max_processes)
{
    struct err err = ERR_INIT;
    char here[512];
    memset(e, 0, sizeof(*e));
    store_env_begin(&e->files, STORE_DIRECTORY);
    e->faults = fault_store_new(e->files.store);
    e->store = fault_base(e->faults);
    e->pool = pool_new(32, 1000, &err);
    assert_ok(e->pool != NULL, &err);
    struct openpgp_options options = {.stall_timeout_ms = 60000, .max_processes = max_processes};
    if (home != NULL) {
        options = test_options(home);
        options.recipients = &recipient;
        options.recipient_count = 1;
        options.max_processes = max_processes;
    }
    e->pgp = openpgp_new(&options, &err);
    assert_ok(e->pgp != NULL, &err);
    e->home = home;
    (void)snprintf(e->dir, sizeof(e->dir), "/tmp/walefs-backup-XXXXXX");
    assert_non_null(mkdtemp(e->dir));
    assert_non_null(getcwd(here, sizeof(here)));
    backup_env_run(e, "python3 '%s/tests/lib/make_cluster.py' cluster %s", here, words);
    e->opt = (struct backup_write_options){.store = e->store,
                                           .pgp = e->pgp,
                                           .pool = e->pool,
                                           .label = "nightly",
                                           .partition_bytes = PARTITION_DEFAULT_BYTES,
                                           .stall_ms = 20000,
                                           .call = &env_forever};
}

void backup_env_begin_tars(struct backup_env *e)
{
    backup_env_begin(e, "label", NULL, NULL, 2);
    backup_env_run(e, "tar -C cluster -cf label.tar . && "
                      "tar -C cluster --exclude ./backup_label -cf stopped.tar .");
}

void backup_env_end(struct backup_env *e)
{
    assert_int_equal(fault_uploads_open(e->faults), 0);
    pool_free(e->pool);
    openpgp_free(e->pgp);
    fault_store_free(e->faults);
    store_env_end(&e->files);
    env_remove_tree(e->dir);
}

struct source *backup_env_open(const struct backup_env *e, const char *name, int *fd)
{
    char path[4400];
    struct stat st;
    struct err err = ERR_INIT;
    (void)snprintf(path, sizeof(path), "%s/%s", e->dir, name);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(*fd >= 0 && fstat(*fd, &st) == 0);
    struct source *src =
        st.st_size == 0 ? source_mem("", 0, &err) : source_fd(*fd, 0, (uint64_t)st.st_size, &err);
    assert_ok(src != NULL, &err);
    return src;
}

struct backup_write *backup_env_writer(const struct backup_env *e)
{
    struct err err = ERR_INIT;
    struct backup_write *w = backup_write_new(&e->opt, &err);
    assert_ok(w != NULL, &err);
    return w;
}

bool backup_env_tar(const struct backup_env *e, struct backup_write *w, const char *name,
                    const char *prefix, struct err *err)
{
    int fd;
    struct source *tar = backup_env_open(e, name, &fd);
    bool ok = backup_write_tar(w, tar, prefix, err);
    source_close(tar);
    close(fd);
    return ok;
}

static bool tree_member(const struct backup_env *e, struct backup_write *w, const char *top,
                        const char *rest, struct err *err)
{
    char path[4300], name[4200], link[BACKUP_PATH_MAX] = "";
    struct stat st;
    int fd = -1;
    (void)snprintf(name, sizeof(name), "%s%s%s", top, rest[0] == '\0' ? "" : "/", rest);
    (void)snprintf(path, sizeof(path), "%s/%s", e->dir, name);
    assert_int_equal(lstat(path, &st), 0);
    if (S_ISLNK(st.st_mode))
        assert_true(readlink(path, link, sizeof(link) - 1) > 0);
    const struct member m = {.path = rest,
                             .link = link,
                             .type = S_ISDIR(st.st_mode)   ? MEMBER_DIR
                                     : S_ISLNK(st.st_mode) ? MEMBER_SYMLINK
                                                           : MEMBER_FILE,
                             .size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
                             .mode = st.st_mode & 07777,
                             .uid = st.st_uid,
                             .gid = st.st_gid,
                             .mtime_s = st.st_mtim.tv_sec,
                             .mtime_ns = (uint32_t)st.st_mtim.tv_nsec};
    struct source *data = S_ISREG(st.st_mode) ? backup_env_open(e, name, &fd) : NULL;
    bool ok = backup_write_member(w, &m, data, err);
    source_close(data);
    if (fd >= 0)
        close(fd);
    return ok;
}

bool backup_env_tree(const struct backup_env *e, struct backup_write *w, const char *name,
                     struct err *err)
{
    char list[128], *line = NULL;
    size_t cap = 0;
    bool ok = true;
    backup_env_run(e, "find '%s' -printf '%%P\\0' > list", name);
    (void)snprintf(list, sizeof(list), "%s/list", e->dir);
    FILE *f = fopen(list, "r");
    assert_non_null(f);
    while (ok && getdelim(&line, &cap, '\0', f) > 0)
        ok = tree_member(e, w, name, line, err);
    free(line);
    (void)fclose(f);
    return ok;
}

bool backup_env_member(struct backup_write *w, const char *path, enum member_type type,
                       const char *content, struct err *err)
{
    bool file = type == MEMBER_FILE;
    const struct member m = {.path = path,
                             .link = file ? "" : content,
                             .type = type,
                             .size = file ? strlen(content) : 0,
                             .mode = 0600};
    struct source *data = file ? source_mem(content, strlen(content), err) : NULL;
    bool ok = backup_write_member(w, &m, data, err);
    source_close(data);
    return ok;
}

bool backup_env_commit(struct backup_write *w, struct err *err)
{
    const struct backup_position stop = {.tli = 1, .lsn = 0x2000138};
    return backup_write_commit(w, &stop, err);
}

size_t backup_env_count(const struct backup_env *e)
{
    struct store_page page;
    struct err err = ERR_INIT;
    const struct store_list what = {.prefix = BACKUP_PREFIX};
    assert_ok(e->files.store->ops->list(e->files.store, &what, &page, &env_forever, &err), &err);
    size_t n = page.count;
    store_page_free(&page);
    return n;
}

bool backup_env_has(const struct backup_env *e, const char *key)
{
    struct store_info info;
    struct err err = ERR_INIT;
    bool has = e->files.store->ops->head(e->files.store, key, &info, &env_forever, &err);
    assert_true(has || err.code == ERR_ABSENT);
    return has;
}

/* ---- reading back ---- */

static void decode(const struct backup_env *e, const char *key, const char *to)
{
    char gpg[256] = "cat";
    if (e->home != NULL)
        (void)snprintf(gpg, sizeof(gpg), "gpg --homedir '%s' --batch -q -d", e->home->path);
    backup_env_run(e, "%s '%s/%s' > coded && lzop -d < coded > '%s'", gpg[0] == 'c' ? "cat" : gpg,
                   e->files.dir, key, to);
}

static struct backup_index *load_index(const struct backup_env *e)
{
    int fd;
    struct err err = ERR_INIT;
    decode(e, BACKUP_DIR "/tar_partitions/" BACKUP_INDEX_NAME, "index");
    struct source *text = backup_env_open(e, "index", &fd);
    struct backup_index *index = backup_index_read(text, &err);
    assert_ok(index != NULL, &err);
    source_close(text);
    close(fd);
    return index;
}

static char *slurp(const struct backup_env *e, const char *name, size_t *n)
{
    char path[4400];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", e->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    *n = (size_t)st.st_size;
    char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(read(fd, data, *n), *n);
    close(fd);
    return data;
}

static void check_members(const struct backup_env *e, const struct backup_index *index,
                          uint32_t partition, const char *plain, size_t n)
{
    for (size_t i = 0; i < index->count; i++) {
        const struct member *m = &index->members[i];
        char name[4300];
        size_t size;
        if (m->partition != partition || m->type != MEMBER_FILE)
            continue;
        (void)snprintf(name, sizeof(name), "out/%s", m->path);
        char *want = slurp(e, name, &size);
        assert_int_equal(m->size, size);
        assert_true(m->offset + m->size <= n);
        if (memcmp(plain + m->offset, want, size) != 0)
            fail_msg("%s is not where the index says", m->path);
        free(want);
    }
}

/* What WAL-E reads, and what walefs's own checks compare. */
static void check_sentinel(const struct backup_env *e, struct backup_info *info, size_t partitions)
{
    size_t n;
    struct err err = ERR_INIT;
    char *json = env_get(e->files.store, BACKUP_DIR BACKUP_SENTINEL_SUFFIX, &n);
    assert_ok(sentinel_parse(BACKUP_NAME, json, n, info, &err), &err);
    free(json);
    assert_string_equal(info->label, "nightly");
    assert_int_equal(info->start.lsn, 0x2000028);
    assert_int_equal(info->start.tli, 1);
    assert_string_equal(info->version, "15");
    assert_int_equal(info->partition_count, partitions);
    char *version = env_get(e->files.store, BACKUP_DIR "/extended_version.txt", &n);
    assert_true(n > 10 && memcmp(version, "PostgreSQL 15", 13) == 0);
    free(version);
}

static void check_partition(const struct backup_env *e, const struct backup_index *index, size_t i,
                            const struct backup_object *o, const struct backup_info *info)
{
    char name[64], sum[65];
    unsigned char hash[32];
    size_t n;
    (void)snprintf(name, sizeof(name), "plain%zu", i);
    decode(e, o->key, name);
    backup_env_run(e,
                   "tar -xpf '%s' --same-owner --numeric-owner -C out 2> tar.err; r=$?; "
                   "grep -v hdrcharset tar.err; exit $r",
                   name);
    char *plain = slurp(e, name, &n);
    SHA256((unsigned char *)plain, n, hash);
    for (size_t k = 0; k < 32; k++)
        (void)snprintf(sum + 2 * k, 3, "%02x", hash[k]);
    assert_string_equal(sum, info->partition_sha256[i]);
    const struct index_partition *p = &index->partitions[i];
    assert_int_equal(p->number, i);
    assert_int_equal(o->number, i);
    assert_int_equal(p->stored_size, o->size);
    assert_string_equal(p->etag, o->etag);
    assert_int_equal(p->encrypted, e->home != NULL);
    check_members(e, index, (uint32_t)i, plain, n);
    free(plain);
}

size_t backup_env_check(const struct backup_env *e, const char *wanted)
{
    struct backup_objects objects;
    struct backup_info info;
    struct err err = ERR_INIT;
    assert_ok(backup_objects_load(e->files.store, BACKUP_NAME, &objects, &env_forever, &err), &err);
    size_t n = objects.partition_count;
    assert_int_equal(objects.count, n + 2);           /* the index and the version */
    assert_int_equal(backup_env_count(e), n + 2 + 1); /* and the sentinel */
    check_sentinel(e, &info, n);
    struct backup_index *index = load_index(e);
    assert_int_equal(index->partition_count, n);
    backup_env_run(e, "rm -rf out && mkdir -m 700 out");
    for (size_t i = 0; i < n; i++)
        check_partition(e, index, i, &objects.objects[i], &info);
    backup_env_run(e, "diff -r --no-dereference '%s' out", wanted);
    backup_env_run(
        e,
        "for d in '%s' out; do (cd $d && find . -mindepth 1 \\( -type d -printf "
        "'%%P|%%y|%%m|%%U|%%G\\0' \\) -o -printf '%%P|%%y|%%m|%%U|%%G|%%s|%%T@|%%l\\0') | "
        "sort -z | sed -zE 's/^(.*\\|l\\|.*\\|)[0-9.]+(\\|.*)$/\\1\\2/' > $(basename "
        "$d).facts; done; cmp '%s.facts' out.facts",
        wanted, wanted);
    size_t sizes = 0, members = 0;
    for (size_t i = 0; i < index->count; i++) {
        sizes += index->members[i].size;
        members += index->members[i].path[0] != '\0';
    }
    assert_int_equal(info.expanded_size, sizes);
    char *facts = slurp(e, "out.facts", &n);
    for (size_t i = 0; i < n; i++)
        members -= facts[i] == '\0';
    free(facts);
    assert_int_equal(members, 0);
    n = objects.partition_count;
    backup_index_free(index);
    backup_info_free(&info);
    backup_objects_free(&objects);
    return n;
}
