/* wal/ against a model of it: random operations, other hosts' and failing ones included, and after
 * each of them the tree and the store must be what the model says.
 *
 * WALEFS_SEED repeats a run; WALEFS_STEPS sets its length. */
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
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/wal_name.h"
#include "fs/errno.h"
#include "fs/node.h"
#include "gpg_home.h"
#include "mem_fs_env.h"

#define MIB (1u << 20)

/* ---- the small world of names and contents ---- */

enum { SEG_A, SEG_B, PARTIAL, HISTORY, LABEL, FINALS, TEMP_1 = FINALS, TEMP_2, TEMP_3, NAMES };

static const char *const names[NAMES] = {[SEG_A] = "000000020000000000000002",
                                         [SEG_B] = "000000020000000000000003",
                                         [PARTIAL] = "000000020000000000000002.partial",
                                         [HISTORY] = "00000002.history",
                                         [LABEL] = "000000020000000000000002.00000028.backup",
                                         [TEMP_1] = "archtemp.000000020000000000000002.17.42",
                                         [TEMP_2] = ".000000020000000000000003.Ab3xYz",
                                         [TEMP_3] = "editor~"};

static char keys[FINALS][STORE_KEY_MAX];

/* A content: variant VARIANT of what belongs under TARGET, or only its first part. */
enum { EMPTY, PART, WHOLE };

struct content {
    int target; /* SEG_A, SEG_B, HISTORY or LABEL; -1: no content at all, no file */
    int variant;
    int extent;
};

static const struct content nothing = {.target = -1};

enum { VARIANTS = 3 };
static char *bytes[FINALS][VARIANTS];
static size_t sizes[FINALS][VARIANTS];

static size_t size_of(struct content c)
{
    if (c.target < 0 || c.extent == EMPTY)
        return 0;
    size_t whole = sizes[c.target][c.variant];
    return c.extent == WHOLE ? whole : whole > 4096 ? whole / 2 : 1;
}

static const char *bytes_of(struct content c)
{
    return c.target < 0 ? "" : bytes[c.target][c.variant];
}

static bool same(struct content a, struct content b)
{
    if ((a.target < 0) != (b.target < 0))
        return false;
    return size_of(a) == size_of(b) && memcmp(bytes_of(a), bytes_of(b), size_of(a)) == 0;
}

static bool belongs(struct content c, int name)
{
    if (name == PARTIAL)
        return true;
    return c.extent == WHOLE && c.target == name;
}

static void make_contents(void)
{
    for (int v = 0; v < VARIANTS; v++) {
        for (int name = SEG_A; name <= SEG_B; name++) {
            bytes[name][v] = malloc(MIB);
            assert_non_null(bytes[name][v]);
            sizes[name][v] = MIB;
            test_segment(bytes[name][v], MIB, names[name], (unsigned)v + 1);
        }
        assert_true(asprintf(&bytes[HISTORY][v], "1\t0/%d000000\treason\n", v + 3) > 0);
        assert_true(asprintf(&bytes[LABEL][v], "START WAL LOCATION: 0/200002%d\n", v) > 0);
        sizes[HISTORY][v] = strlen(bytes[HISTORY][v]);
        sizes[LABEL][v] = strlen(bytes[LABEL][v]);
    }
    for (int i = 0; i < FINALS; i++)
        assert_true(wal_key_of_name(names[i], keys[i], sizeof(keys[i])));
}

static void free_contents(void)
{
    for (int v = 0; v < VARIANTS; v++)
        for (int name = 0; name < FINALS; name++)
            free(bytes[name][v]);
}

/* ---- the model ---- */

struct writer {
    struct handle *handle; /* NULL: free */
    int name;
    struct content content; /* what this handle's file holds */
    bool dirty, refused, written;
};

enum { WRITERS = 4 };

static struct {
    struct content stored[FINALS];
    struct content temps[NAMES];
    int temp_writer[NAMES]; /* whose writes the temporary shows; -1: nobody's */
    struct content kept;    /* the .partial that this host has written last */
    struct writer writers[WRITERS];
} model;

/* ---- the system ---- */

static uint64_t wal;
static const struct call endless = CALL_INIT;
static unsigned seed;
static uint64_t random_state;
static long step;
static char doing[200];

static unsigned pick(unsigned n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % n;
}

#define CHECK(condition)                                                           \
    do {                                                                           \
        if (!(condition))                                                          \
            fail_msg("seed %u, step %ld, %s: not " #condition, seed, step, doing); \
    } while (0)

static int result(bool ok, const struct err *err)
{
    return ok ? 0 : fs_errno(err);
}

static int look(int name, struct fs_entry *e)
{
    struct err err = ERR_INIT;
    int rc = result(fs_lookup(fs, wal, names[name], 0, e, &endless, &err), &err);
    if (rc == 0)
        fs_forget(fs, e->id, 1);
    return rc;
}

static int open_writer(int name, struct handle **h)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    bool ok;
    if (fs_lookup(fs, wal, names[name], 0, &e, &endless, &err))
        ok = fs_open(fs, e.id, O_WRONLY | O_TRUNC, getpid(), h, &endless, &err);
    else if (err.code != ERR_ABSENT || !fs_create(fs, wal, names[name], O_WRONLY | O_CREAT, 0600,
                                                  getpid(), &e, h, &endless, &err))
        return fs_errno(&err);
    else
        ok = true;
    fs_forget(fs, e.id, 1);
    return result(ok, &err);
}

static int read_file(int name, struct content expected, bool *equal)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    struct handle *h;
    struct fs_bytes b;
    if (!fs_lookup(fs, wal, names[name], 0, &e, &endless, &err))
        return fs_errno(&err);
    bool ok = fs_open(fs, e.id, O_RDONLY, getpid(), &h, &endless, &err);
    fs_forget(fs, e.id, 1);
    if (!ok)
        return fs_errno(&err);
    assert_true(fs_read(fs, h, 0, 2 * MIB, &b, &endless, &err));
    char *got = malloc(b.size + 1);
    assert_non_null(got);
    assert_int_equal(pread(b.fd, got, b.size, 0), b.size);
    *equal = b.size == size_of(expected) && memcmp(got, bytes_of(expected), b.size) == 0;
    free(got);
    fs_release(fs, h);
    return 0;
}

/* ---- the store, and what is in it ---- */

static struct content store_content(int name)
{
    static uint64_t seen[FINALS];
    static struct content known[FINALS];
    uint64_t generation = mem_generation(mem, keys[name]);
    if (generation == 0)
        return nothing;
    if (seen[name] == generation)
        return known[name];
    for (int target = 0; target < FINALS; target++)
        for (int v = 0; v < VARIANTS && target != PARTIAL; v++)
            for (int extent = EMPTY; extent <= WHOLE; extent++) {
                struct content c = {.target = target, .variant = v, .extent = extent};
                if (!mem_holds(mem, pgp, names[name], bytes_of(c), size_of(c)))
                    continue;
                seen[name] = generation;
                known[name] = c;
                return c;
            }
    fail_msg("seed %u, step %ld, %s: %s holds what nobody wrote", seed, step, doing, names[name]);
    return nothing;
}

static void check_store(void)
{
    for (int name = 0; name < FINALS; name++) {
        struct content c = store_content(name);
        CHECK(same(c, model.stored[name]));
        CHECK(c.target < 0 || belongs(c, name)); /* nothing partial, ever */
    }
}

/* A failing step has changed NAME to what it was to become, or not at all. */
static void adopt(int name, struct content intended)
{
    struct content c = store_content(name);
    CHECK(same(c, model.stored[name]) || same(c, intended));
    model.stored[name] = c;
}

/* ---- faults ---- */

static bool faulty; /* in this step */

static void maybe_fault(void)
{
    static const enum err_code quick[] = {ERR_CORRUPT, ERR_CANCELLED, ERR_FROZEN, ERR_UNSUPPORTED};
    static const enum err_code any[] = {ERR_UNAVAILABLE, ERR_FORBIDDEN, ERR_THROTTLED,
                                        ERR_TIMEOUT,     ERR_NO_SPACE,  ERR_CORRUPT};
    faulty = pick(8) == 0;
    if (!faulty)
        return;
    switch (pick(6)) {
    case 0:
        mem_fail(mem, MEM_PUT, 1, 100, any[pick(6)]);
        break;
    case 1:
        mem_lose_answers(mem, 1, pick(2) == 0 ? ERR_UNAVAILABLE : ERR_EXISTS);
        break;
    case 2:
        mem_fail(mem, MEM_REMOVE, 1, 100, any[pick(6)]);
        break;
    case 3: /* those that a mount waits for would only take time */
        mem_fail(mem, MEM_HEAD, 1 + pick(2), 100, quick[pick(4)]);
        break;
    case 4:
        mem_fail(mem, pick(2) == 0 ? MEM_GET : MEM_READ, 1 + pick(2), 100, quick[pick(4)]);
        break;
    default:
        mem_fail(mem, MEM_LIST, 1, 100, quick[pick(4)]);
        break;
    }
}

/* ---- steps ---- */

static int writers_of(int name)
{
    int n = 0;
    for (int i = 0; i < WRITERS; i++)
        n += model.writers[i].handle != NULL && model.writers[i].name == name;
    return n;
}

static struct content random_content(int name)
{
    static const int targets[] = {SEG_A, SEG_B, HISTORY, LABEL};
    int target = name;
    if (name == PARTIAL)
        target = SEG_A;
    else if (name >= FINALS || pick(10) == 0)
        target = targets[pick(4)];
    return (struct content){.target = target, .variant = (int)pick(VARIANTS), .extent = EMPTY};
}

static void show_temp(int name, int writer)
{
    if (name >= FINALS && model.temp_writer[name] == writer)
        model.temps[name] = model.writers[writer].content;
}

static void step_open(void)
{
    int i = (int)pick(WRITERS), name = (int)pick(NAMES);
    struct writer *w = &model.writers[i];
    if (w->handle != NULL)
        return;
    (void)snprintf(doing, sizeof(doing), "open %s as %d", names[name], i);
    maybe_fault();
    struct handle *h;
    int rc = open_writer(name, &h);
    if (rc != 0) {
        CHECK(faulty);
        CHECK(rc != ENOENT);
        return;
    }
    *w = (struct writer){.handle = h, .name = name, .content = random_content(name)};
    if (name >= FINALS) {
        model.temp_writer[name] = i;
        show_temp(name, i);
    }
}

static void write_content(struct writer *w, int extent)
{
    struct err err = ERR_INIT;
    w->content.extent = extent;
    for (size_t at = 0; at < size_of(w->content); at += 128 * 1024) {
        size_t left = size_of(w->content) - at;
        assert_true(fs_write(fs, w->handle, bytes_of(w->content) + at,
                             left < 128 * 1024 ? left : 128 * 1024, at, &endless, &err));
    }
    w->dirty = w->written = true;
    w->refused = false;
}

static void step_write(void)
{
    int i = (int)pick(WRITERS);
    struct writer *w = &model.writers[i];
    if (w->handle == NULL)
        return;
    (void)snprintf(doing, sizeof(doing), "write %s as %d", names[w->name], i);
    if (w->content.extent == WHOLE && pick(2) == 0) { /* over it, from the beginning */
        int variant = (int)pick(VARIANTS);
        if (sizes[w->content.target][variant] != sizes[w->content.target][w->content.variant])
            return;
        w->content.variant = variant;
    }
    write_content(w, w->content.extent == EMPTY && pick(2) == 0 ? PART : WHOLE);
    show_temp(w->name, i);
}

/* What publishing W's content must end in. */
static int expected_publish(const struct writer *w)
{
    if (w->name >= FINALS || !w->dirty)
        return 0;
    if (!belongs(w->content, w->name))
        return EINVAL;
    if (w->name != PARTIAL && model.stored[w->name].target >= 0 &&
        !same(model.stored[w->name], w->content))
        return EEXIST;
    return 0;
}

static void published(struct writer *w, int rc)
{
    if (w->name >= FINALS || !w->dirty)
        return;
    if (rc != 0) {
        if (faulty && belongs(w->content, w->name))
            adopt(w->name, w->content);
        w->refused = true;
        return;
    }
    model.stored[w->name] = w->content;
    w->dirty = false;
    if (w->name == PARTIAL)
        model.kept = w->content;
}

static void step_flush(void)
{
    int i = (int)pick(WRITERS);
    struct writer *w = &model.writers[i];
    struct err err = ERR_INIT;
    if (w->handle == NULL)
        return;
    (void)snprintf(doing, sizeof(doing), "flush %s as %d", names[w->name], i);
    maybe_fault();
    int rc = result(pick(4) == 0 && w->written ? fs_fsync(fs, w->handle, &endless, &err)
                                               : fs_flush(fs, w->handle, getpid(), &endless, &err),
                    &err);
    if (!w->written) { /* an empty file */
        CHECK(rc == (w->name < FINALS ? EINVAL : 0));
        return;
    }
    int expected = expected_publish(w);
    CHECK(rc == expected || (faulty && rc != 0 && rc != ENOENT && w->name < FINALS && w->dirty));
    published(w, rc);
}

static void step_release(void)
{
    int i = (int)pick(WRITERS);
    struct writer *w = &model.writers[i];
    if (w->handle == NULL)
        return;
    (void)snprintf(doing, sizeof(doing), "release %s as %d", names[w->name], i);
    maybe_fault();
    fs_release(fs, w->handle);
    if (w->dirty && !w->refused && w->name < FINALS) {
        if (faulty)
            adopt(w->name, belongs(w->content, w->name) ? w->content : model.stored[w->name]);
        else
            published(w, expected_publish(w));
    }
    if (w->name == PARTIAL)
        model.kept = w->dirty ? nothing : model.kept;
    w->handle = NULL;
}

static void step_copy(void)
{
    int name = (int)pick(NAMES);
    struct err err = ERR_INIT;
    struct writer w = {.name = name, .content = random_content(name)};
    (void)snprintf(doing, sizeof(doing), "copy to %s", names[name]);
    maybe_fault();
    int rc = open_writer(name, &w.handle);
    if (rc != 0) {
        CHECK(faulty && rc != ENOENT);
        return;
    }
    write_content(&w, WHOLE);
    rc = result(fs_flush(fs, w.handle, getpid(), &endless, &err), &err);
    int expected = expected_publish(&w);
    CHECK(rc == expected || (faulty && rc != 0 && rc != ENOENT));
    published(&w, rc);
    fs_release(fs, w.handle);
    if (name >= FINALS) {
        model.temps[name] = w.content;
        model.temp_writer[name] = -1;
    }
}

static void step_read(void)
{
    int name = (int)pick(NAMES);
    (void)snprintf(doing, sizeof(doing), "read %s", names[name]);
    maybe_fault();
    struct content c = name < FINALS ? model.stored[name] : model.temps[name];
    bool equal = false;
    int rc = read_file(name, c, &equal);
    if (c.target < 0)
        CHECK(rc == ENOENT || (faulty && rc != 0));
    else
        CHECK((rc == 0 && equal) || (faulty && name < FINALS && rc != 0 && rc != ENOENT));
}

static void step_look(void)
{
    int name = (int)pick(NAMES);
    struct fs_entry e;
    (void)snprintf(doing, sizeof(doing), "look up %s", names[name]);
    maybe_fault();
    int rc = look(name, &e);
    struct content c = name < FINALS ? model.stored[name] : model.temps[name];
    bool candidate = writers_of(name) > 0 || name == PARTIAL; /* may be seen while it is written */
    if (c.target < 0)
        CHECK(rc == ENOENT || (rc == 0 && candidate) || (faulty && rc != 0));
    else
        CHECK(rc == 0 || (faulty && name < FINALS && rc != ENOENT));
    if (rc == 0 && c.target >= 0 && !candidate && !faulty)
        CHECK((size_t)e.attr.st_size == size_of(c));
}

struct seen {
    int count[NAMES];
    bool strange;
};

static bool see(void *arg, const char *name, mode_t type, const struct fs_entry *e, uint64_t next)
{
    struct seen *s = arg;
    (void)type;
    (void)next;
    if (e != NULL)
        fs_forget(fs, e->id, 1);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return true;
    for (int i = 0; i < NAMES; i++)
        if (strcmp(name, names[i]) == 0) {
            s->count[i]++;
            return true;
        }
    s->strange = true;
    return true;
}

static void step_list(void)
{
    struct err err = ERR_INIT;
    struct dir *dir;
    struct seen s = {.strange = false};
    (void)snprintf(doing, sizeof(doing), "list");
    maybe_fault();
    mem_page_size(mem, 1 + pick(10));
    assert_true(fs_opendir(fs, wal, &dir, &endless, &err));
    bool ok = true;
    for (uint64_t at = 0; ok && !(dir->done && at >= dir->first + dir->count + 2);
         at = dir->first + dir->count + 2)
        ok = fs_readdir(fs, dir, at, pick(2) == 0, see, &s, &endless, &err);
    fs_releasedir(fs, dir);
    CHECK(!s.strange);
    if (!ok) {
        CHECK(faulty && fs_errno(&err) != ENOENT);
        return;
    }
    for (int i = 0; i < NAMES; i++) {
        struct content c = i < FINALS ? model.stored[i] : model.temps[i];
        CHECK(s.count[i] == (c.target >= 0 ? 1 : 0));
    }
}

static void rename_temp(int from, int to)
{
    struct err err = ERR_INIT;
    struct content c = model.temps[from];
    int rc = result(fs_rename(fs, wal, names[from], wal, names[to], false, &endless, &err), &err);
    int expected = 0;
    if (c.target < 0)
        expected = ENOENT;
    else if (to < FINALS && !(belongs(c, to) && (c.extent != EMPTY || to == PARTIAL)))
        expected = EINVAL;
    else if (to < FINALS && to != PARTIAL && model.stored[to].target >= 0 &&
             !same(c, model.stored[to]))
        expected = EEXIST;
    CHECK(rc == expected || (faulty && to < FINALS && rc != 0 && rc != ENOENT));
    if (rc != 0) {
        if (faulty && to < FINALS && c.target >= 0 && belongs(c, to))
            adopt(to, c);
        return;
    }
    model.temps[from] = nothing;
    model.temp_writer[from] = -1;
    if (to >= FINALS) {
        model.temps[to] = c;
        model.temp_writer[to] = -1;
    } else {
        model.stored[to] = c;
        if (to == PARTIAL)
            model.kept = c;
    }
}

static void rename_partial(int to)
{
    struct err err = ERR_INIT;
    struct fs_entry e;
    if (!fs_lookup(fs, wal, names[PARTIAL], 0, &e, &endless, &err)) {
        CHECK(faulty || (err.code == ERR_ABSENT && model.stored[PARTIAL].target < 0));
        return;
    }
    int rc =
        result(fs_rename(fs, wal, names[PARTIAL], wal, names[to], false, &endless, &err), &err);
    fs_forget(fs, e.id, 1);
    /* what this host has written last, even if another host has replaced the object since */
    struct content c = model.kept.target >= 0 ? model.kept : model.stored[PARTIAL];
    if (rc == 0) {
        struct content now = store_content(to);
        CHECK(belongs(now, to));
        CHECK(same(now, model.kept) || same(now, model.stored[PARTIAL]));
        CHECK(model.stored[to].target < 0 || same(now, model.stored[to]));
        model.stored[to] = now;
        if (faulty)
            adopt(PARTIAL, nothing);
        else
            model.stored[PARTIAL] = nothing;
        model.kept = nothing;
        return;
    }
    if (faulty) {
        if (belongs(c, to))
            adopt(to, c);
        return;
    }
    CHECK(rc == EINVAL || rc == EEXIST || (rc == ENOENT && model.stored[PARTIAL].target < 0));
    bool sure =
        belongs(model.stored[PARTIAL], to) && (model.kept.target < 0 || belongs(model.kept, to));
    CHECK(!sure || model.stored[to].target >= 0 || model.stored[PARTIAL].target < 0);
}

static void step_rename(void)
{
    struct err err = ERR_INIT;
    int from = (int)pick(NAMES), to = (int)pick(NAMES);
    if (from == to || (from >= FINALS && writers_of(from) > 0) ||
        (to >= FINALS && writers_of(to) > 0) ||
        ((from == PARTIAL || to == PARTIAL) && writers_of(PARTIAL) > 0))
        return;
    (void)snprintf(doing, sizeof(doing), "rename %s to %s", names[from], names[to]);
    maybe_fault();
    if (from >= FINALS)
        rename_temp(from, to);
    else if (from == PARTIAL && to < FINALS)
        rename_partial(to);
    else
        CHECK(result(fs_rename(fs, wal, names[from], wal, names[to], false, &endless, &err),
                     &err) == EPERM);
}

static void step_unlink(void)
{
    struct err err = ERR_INIT;
    int name = (int)pick(NAMES);
    if (name >= FINALS && writers_of(name) > 0)
        return;
    (void)snprintf(doing, sizeof(doing), "unlink %s", names[name]);
    int rc = result(fs_unlink(fs, wal, names[name], &endless, &err), &err);
    if (name < FINALS) {
        CHECK(rc == EPERM);
        return;
    }
    CHECK(rc == (model.temps[name].target >= 0 ? 0 : ENOENT));
    model.temps[name] = nothing;
    model.temp_writer[name] = -1;
}

/* Other hosts archive what is absent, replace a .partial, delete what is old. What this host has
 * cached of it may be served for a while, so it is dropped here. */
static void step_other_host(void)
{
    int name = (int)pick(FINALS);
    struct content c = random_content(name);
    if (c.target != name && name != PARTIAL)
        return;
    c.extent = WHOLE;
    if (model.stored[name].target >= 0 && (name != PARTIAL || pick(2) == 0)) {
        (void)snprintf(doing, sizeof(doing), "another host deletes %s", names[name]);
        mem_delete(mem, keys[name]);
        model.stored[name] = nothing;
    } else {
        (void)snprintf(doing, sizeof(doing), "another host archives %s", names[name]);
        mem_archive(mem, names[name], bytes_of(c), size_of(c));
        model.stored[name] = c;
    }
    fetcher_drop(fs->fetcher, names[name]);
}

/* ---- the run ---- */

static int set_up(void **state)
{
    (void)state;
    const char *text = getenv("WALEFS_SEED");
    seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);
    random_state = seed;
    print_message("WALEFS_SEED=%u\n", seed);
    make_contents();
    for (int i = 0; i < NAMES; i++) {
        model.temps[i] = nothing;
        model.temp_writer[i] = -1;
        if (i < FINALS)
            model.stored[i] = nothing;
    }
    model.kept = nothing;
    mem_fs_begin((struct fs_options){.hard = false,
                                     .soft_timeout_ms = 60000,
                                     .write_timeout_ms = 60000,
                                     .cache_bytes = 8 * MIB,
                                     .prefetch = 4});
    wal = mem_fs_look_up(INODE_ROOT, "wal");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mem_fs_end();
    free_contents();
    return 0;
}

static void test_random_operations(void **state)
{
    (void)state;
    static void (*const steps[])(void) = {
        step_open,  step_open,    step_write,  step_write,  step_write,  step_flush,
        step_flush, step_release, step_copy,   step_copy,   step_read,   step_read,
        step_look,  step_list,    step_rename, step_rename, step_unlink, step_other_host};
    const char *text = getenv("WALEFS_STEPS");
    long count = text != NULL ? strtol(text, NULL, 10) : 4000;
    size_t fds = test_open_fds();
    for (step = 0; step < count; step++) {
        faulty = false;
        steps[pick(sizeof(steps) / sizeof(steps[0]))]();
        mem_heal(mem);
        check_store();
    }
    for (int i = 0; i < WRITERS; i++)
        if (model.writers[i].handle != NULL) {
            fs_release(fs, model.writers[i].handle);
            model.writers[i].handle = NULL;
        }
    /* caches, temporaries and a kept .partial hold some */
    assert_true(test_open_fds() < fds + 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_operations, set_up, tear_down),
    };
    log_setup(LOG_TO_STDERR, 0, getenv("WALEFS_TRACE") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
