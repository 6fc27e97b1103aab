#include "mem_store.h"

#include <assert.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/codec.h"
#include "core/lzop.h"
#include "core/store_key.h"
#include "core/waiter.h"
#include "core/wal_check.h"
#include "core/wal_name.h"

#define OBJECT_MAX ((size_t)1 << 31)

struct object {
    char *key;
    char *data;
    size_t size;
    uint64_t generation;
    int64_t mtime_s;
    struct store_meta meta[STORE_META_MAX];
    size_t meta_count;
};

struct mem_store {
    struct store base;
    pthread_mutex_t lock; /* guards all of it */
    pthread_cond_t healed;
    struct object *objects; /* sorted by key */
    size_t count, cap;
    uint64_t generation;
    unsigned calls[MEM_OPS];
    unsigned hanging, bodies;

    enum mem_op fail_op;
    unsigned fail_first, fail_count, fail_seen;
    enum err_code fail_code;
    unsigned lose_count;
    enum err_code lose_code;
    bool hang[MEM_OPS];
    char hang_key[MEM_OPS][STORE_KEY_MAX];
    bool weak;
    size_t page_size;
    mem_hook *hook;
    void *hook_arg;
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "mem_store: %s\n", what);
    abort();
}

/* ---- objects; all of it with the lock held ---- */

static size_t lower_bound(const struct mem_store *m, const char *key)
{
    size_t lo = 0, hi = m->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(m->objects[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct object *find(const struct mem_store *m, const char *key)
{
    size_t i = lower_bound(m, key);
    return i < m->count && strcmp(m->objects[i].key, key) == 0 ? &m->objects[i] : NULL;
}

static void remove_object(struct mem_store *m, const char *key)
{
    struct object *o = find(m, key);
    if (o == NULL)
        return;
    free(o->key);
    free(o->data);
    m->count--;
    memmove(o, o + 1, (size_t)(m->objects + m->count - o) * sizeof(*o));
}

/* Takes over DATA. */
static struct object *set_object(struct mem_store *m, const char *key, char *data, size_t n,
                                 const struct store_meta *meta, size_t meta_count)
{
    remove_object(m, key);
    if (m->count == m->cap) {
        m->cap = m->cap == 0 ? 64 : m->cap * 2;
        m->objects = realloc(m->objects, m->cap * sizeof(*m->objects));
        must(m->objects != NULL, "memory");
    }
    size_t i = lower_bound(m, key);
    memmove(m->objects + i + 1, m->objects + i, (m->count - i) * sizeof(*m->objects));
    m->count++;
    m->objects[i] = (struct object){.key = strdup(key),
                                    .data = data,
                                    .size = n,
                                    .generation = ++m->generation,
                                    .mtime_s = 1700000000 + (int64_t)m->generation,
                                    .meta_count = meta_count};
    if (meta_count > 0)
        memcpy(m->objects[i].meta, meta, meta_count * sizeof(*meta));
    must(m->objects[i].key != NULL, "memory");
    return &m->objects[i];
}

static void fill_etag(const struct object *o, char etag[128])
{
    (void)snprintf(etag, 128, "g%llu", (unsigned long long)o->generation);
}

static void fill_info(const struct object *o, struct store_info *info)
{
    if (info == NULL)
        return;
    *info =
        (struct store_info){.size = o->size, .mtime_s = o->mtime_s, .meta_count = o->meta_count};
    fill_etag(o, info->etag);
    memcpy(info->meta, o->meta, sizeof(o->meta));
}

static char *copy_bytes(const void *data, size_t n)
{
    char *copy = malloc(n + 1);
    must(copy != NULL, "memory");
    if (n > 0)
        memcpy(copy, data, n);
    return copy;
}

/* ---- faults ---- */

static bool hangs(const struct mem_store *m, enum mem_op op, const char *key)
{
    return m->hang[op] || (m->hang_key[op][0] != '\0' && strcmp(m->hang_key[op], key) == 0);
}

/* Enters an operation: leaves with the lock held when true. */
static bool enter(struct mem_store *m, enum mem_op op, const char *key, const struct call *call,
                  struct err *err)
{
    pthread_mutex_lock(&m->lock);
    mem_hook *hook = m->hook;
    void *arg = m->hook_arg;
    m->calls[op]++;
    bool fails = false;
    if (m->fail_op == op || (m->fail_op == MEM_ANY && op != MEM_READ)) {
        m->fail_seen++;
        fails = m->fail_seen >= m->fail_first && m->fail_seen - m->fail_first < m->fail_count;
    }
    enum err_code code = m->fail_code;
    pthread_mutex_unlock(&m->lock);
    if (hook != NULL)
        hook(arg, op, key);
    if (fails)
        return err_set(err, code, "mem: %s: a fault that was asked for", key);

    struct waiter w;
    waiter_begin(&w, call, &m->lock, &m->healed);
    pthread_mutex_lock(&m->lock);
    bool given_up = hangs(m, op, key);
    if (given_up) {
        m->hanging++;
        while (hangs(m, op, key) && waiter_wait(&w)) {
        }
        m->hanging--;
        given_up = hangs(m, op, key);
    }
    pthread_mutex_unlock(&m->lock);
    waiter_end(&w);
    if (given_up)
        return call_alive(call, key, err) ? err_set(err, ERR_TIMEOUT, "mem: %s", key) : false;
    pthread_mutex_lock(&m->lock);
    return true;
}

/* ---- the store's operations ---- */

static bool absent(struct mem_store *m, const char *key, struct err *err)
{
    pthread_mutex_unlock(&m->lock);
    return err_set(err, ERR_ABSENT, "mem: no object %s", key);
}

static bool op_head(struct store *s, const char *key, struct store_info *info,
                    const struct call *call, struct err *err)
{
    struct mem_store *m = (struct mem_store *)s;
    if (!enter(m, MEM_HEAD, key, call, err))
        return false;
    const struct object *o = find(m, key);
    if (o == NULL)
        return absent(m, key, err);
    fill_info(o, info);
    pthread_mutex_unlock(&m->lock);
    return true;
}

struct body {
    struct source base;
    struct mem_store *m;
    const struct call *call;
    char *key;
    char *data;
    size_t size, pos;
    bool failed;
};

static ssize_t body_read(struct source *self, void *out, size_t n, struct err *err)
{
    struct body *b = (struct body *)self;
    if (b->failed || !enter(b->m, MEM_READ, b->key, b->call, err)) {
        b->failed = true;
        return -1;
    }
    pthread_mutex_unlock(&b->m->lock);
    if (!call_alive(b->call, b->key, err)) {
        b->failed = true;
        return -1;
    }
    size_t left = b->size - b->pos;
    n = n < left ? n : left;
    n = n < 65536 ? n : 65536;
    memcpy(out, b->data + b->pos, n);
    b->pos += n;
    return (ssize_t)n;
}

static void body_close(struct source *self)
{
    struct body *b = (struct body *)self;
    pthread_mutex_lock(&b->m->lock);
    b->m->bodies--;
    pthread_mutex_unlock(&b->m->lock);
    free(b->key);
    free(b->data);
    free(b);
}

static struct source *op_get(struct store *s, const char *key, uint64_t offset, uint64_t length,
                             struct store_info *info, const struct call *call, struct err *err)
{
    struct mem_store *m = (struct mem_store *)s;
    if (!enter(m, MEM_GET, key, call, err))
        return NULL;
    const struct object *o = find(m, key);
    if (o == NULL) {
        absent(m, key, err);
        return NULL;
    }
    struct body *b = calloc(1, sizeof(*b));
    must(b != NULL && offset <= o->size, "get");
    b->base = (struct source){.read = body_read, .close = body_close};
    b->m = m;
    b->call = call;
    b->size = length < o->size - offset ? (size_t)length : o->size - (size_t)offset;
    b->data = copy_bytes(o->data + offset, b->size);
    b->key = strdup(key);
    m->bodies++;
    fill_info(o, info);
    pthread_mutex_unlock(&m->lock);
    return &b->base;
}

static char *read_body(const struct store_body *body)
{
    char *data = malloc((size_t)body->size + 1);
    must(data != NULL, "memory");
    if (body->mem != NULL)
        memcpy(data, body->mem, (size_t)body->size);
    else
        must(pread(body->fd, data, (size_t)body->size, (off_t)body->offset) == (ssize_t)body->size,
             "the body is shorter than it says");
    unsigned char sum[32];
    SHA256((unsigned char *)data, (size_t)body->size, sum);
    must(body->sha256 == NULL || memcmp(sum, body->sha256, 32) == 0,
         "the body is not what its SHA-256 says");
    return data;
}

static bool op_put(struct store *s, const char *key, const struct store_put *put,
                   struct store_info *info, const struct call *call, struct err *err)
{
    struct mem_store *m = (struct mem_store *)s;
    must(store_meta_check(put->meta, put->meta_count, err), "forbidden metadata");
    if (!enter(m, MEM_PUT, key, call, err))
        return false;
    bool taken = put->only_if_absent && find(m, key) != NULL;
    bool weak = m->weak && put->only_if_absent && !taken;
    mem_hook *hook = m->hook;
    void *arg = m->hook_arg;
    pthread_mutex_unlock(&m->lock);
    if (taken)
        return err_set(err, ERR_EXISTS, "mem: %s exists", key);
    char *data = read_body(&put->body);
    call_progress(call);
    if (weak && hook != NULL)
        hook(arg, MEM_PUT, key);
    pthread_mutex_lock(&m->lock);
    taken = !weak && put->only_if_absent && find(m, key) != NULL;
    if (taken)
        free(data);
    else
        fill_info(set_object(m, key, data, (size_t)put->body.size, put->meta, put->meta_count),
                  info);
    bool lose = !taken && m->lose_count > 0;
    if (lose)
        m->lose_count--;
    enum err_code code = m->lose_code;
    pthread_mutex_unlock(&m->lock);
    if (taken)
        return err_set(err, ERR_EXISTS, "mem: %s exists", key);
    return !lose || err_set(err, code, "mem: %s: the answer is lost", key);
}

static void page_add(struct store_page *page, const char *key, size_t len, const struct object *o)
{
    if ((page->count & (page->count - 1)) == 0) {
        size_t cap = page->count == 0 ? 1 : page->count * 2;
        page->entries = realloc(page->entries, cap * sizeof(*page->entries));
        must(page->entries != NULL, "memory");
    }
    struct store_entry *e = &page->entries[page->count++];
    *e = (struct store_entry){.key = strndup(key, len), .is_prefix = o == NULL};
    if (o != NULL) {
        e->size = o->size;
        e->mtime_s = o->mtime_s;
        fill_etag(o, e->etag);
    }
}

static bool op_list(struct store *s, const struct store_list *what, struct store_page *page,
                    const struct call *call, struct err *err)
{
    struct mem_store *m = (struct mem_store *)s;
    if (!enter(m, MEM_LIST, what->prefix, call, err))
        return false;
    *page = (struct store_page){.entries = NULL};
    const char *after = what->token != NULL ? what->token : what->start_after;
    size_t max = what->max_keys != 0 ? what->max_keys : m->page_size;
    size_t prefix_len = strlen(what->prefix);
    const char *last = NULL;
    for (size_t i = lower_bound(m, what->prefix); i < m->count; i++) {
        const struct object *o = &m->objects[i];
        if (strncmp(o->key, what->prefix, prefix_len) != 0)
            break;
        if (after != NULL && strcmp(o->key, after) <= 0)
            continue;
        const char *slash = what->delimiter == NULL ? NULL : strchr(o->key + prefix_len, '/');
        size_t len = slash == NULL ? strlen(o->key) : (size_t)(slash - o->key) + 1;
        const struct store_entry *prev = page->count == 0 ? NULL : &page->entries[page->count - 1];
        if (slash != NULL && prev != NULL && prev->is_prefix &&
            strncmp(prev->key, o->key, len) == 0)
            last = o->key;
        else if (page->count == max) {
            page->more = true;
            break;
        } else {
            page_add(page, o->key, len, slash == NULL ? o : NULL);
            last = o->key;
        }
    }
    if (page->more)
        page->next = strdup(last);
    pthread_mutex_unlock(&m->lock);
    return true;
}

static bool op_remove(struct store *s, const char *const *keys, size_t n, const struct call *call,
                      struct err *err)
{
    struct mem_store *m = (struct mem_store *)s;
    for (size_t i = 0; i < n; i++) {
        if (!enter(m, MEM_REMOVE, keys[i], call, err))
            return false;
        remove_object(m, keys[i]);
        pthread_mutex_unlock(&m->lock);
    }
    return true;
}

static bool op_space(struct store *s, uint64_t *total_bytes, uint64_t *free_bytes)
{
    (void)s;
    *total_bytes = 4096 * 1000;
    *free_bytes = 4096 * 10;
    return true;
}

static void op_free(struct store *s)
{
    struct mem_store *m = (struct mem_store *)s;
    must(m->bodies == 0, "a body was not closed");
    while (m->count > 0)
        remove_object(m, m->objects[m->count - 1].key);
    free(m->objects);
    pthread_cond_destroy(&m->healed);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct store_ops mem_ops = {.head = op_head,
                                         .get = op_get,
                                         .put = op_put,
                                         .list = op_list,
                                         .remove = op_remove,
                                         .space = op_space,
                                         .free = op_free};

struct mem_store *mem_store_new(void)
{
    static char url[] = "mem://archive";
    struct mem_store *m = calloc(1, sizeof(*m));
    must(m != NULL, "memory");
    m->base = (struct store){.ops = &mem_ops, .url = url};
    m->page_size = 1000;
    pthread_mutex_init(&m->lock, NULL);
    waiter_cond_init(&m->healed);
    return m;
}

struct store *mem_base(struct mem_store *m)
{
    return &m->base;
}

/* ---- other hosts, and the test ---- */

void mem_set(struct mem_store *m, const char *key, const void *data, size_t n,
             const struct store_meta *meta, size_t meta_count)
{
    char *copy = copy_bytes(data, n);
    pthread_mutex_lock(&m->lock);
    (void)set_object(m, key, copy, n, meta, meta_count);
    pthread_mutex_unlock(&m->lock);
}

void mem_delete(struct mem_store *m, const char *key)
{
    pthread_mutex_lock(&m->lock);
    remove_object(m, key);
    pthread_mutex_unlock(&m->lock);
}

size_t mem_count(struct mem_store *m)
{
    pthread_mutex_lock(&m->lock);
    size_t n = m->count;
    pthread_mutex_unlock(&m->lock);
    return n;
}

uint64_t mem_generation(struct mem_store *m, const char *key)
{
    pthread_mutex_lock(&m->lock);
    const struct object *o = find(m, key);
    uint64_t generation = o == NULL ? 0 : o->generation;
    pthread_mutex_unlock(&m->lock);
    return generation;
}

void mem_set_time(struct mem_store *m, const char *key, int64_t when_s)
{
    pthread_mutex_lock(&m->lock);
    find(m, key)->mtime_s = when_s;
    pthread_mutex_unlock(&m->lock);
}

bool mem_has(struct mem_store *m, const char *key)
{
    return mem_generation(m, key) != 0;
}

void *mem_copy(struct mem_store *m, const char *key, size_t *n)
{
    pthread_mutex_lock(&m->lock);
    const struct object *o = find(m, key);
    char *copy = o == NULL ? NULL : copy_bytes(o->data, o->size);
    *n = o == NULL ? 0 : o->size;
    pthread_mutex_unlock(&m->lock);
    return copy;
}

bool mem_meta(struct mem_store *m, const char *key, const char *name, struct store_meta *out)
{
    bool found = false;
    pthread_mutex_lock(&m->lock);
    const struct object *o = find(m, key);
    for (size_t i = 0; o != NULL && i < o->meta_count; i++)
        if (strcmp(o->meta[i].name, name) == 0) {
            *out = o->meta[i];
            found = true;
        }
    pthread_mutex_unlock(&m->lock);
    return found;
}

void mem_fail(struct mem_store *m, enum mem_op op, unsigned first, unsigned count,
              enum err_code code)
{
    pthread_mutex_lock(&m->lock);
    m->fail_op = op;
    m->fail_first = first;
    m->fail_count = count;
    m->fail_code = code;
    m->fail_seen = 0;
    pthread_mutex_unlock(&m->lock);
}

void mem_lose_answers(struct mem_store *m, unsigned count, enum err_code code)
{
    pthread_mutex_lock(&m->lock);
    m->lose_count = count;
    m->lose_code = code;
    pthread_mutex_unlock(&m->lock);
}

void mem_hang(struct mem_store *m, enum mem_op op)
{
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < MEM_OPS; i++)
        if (op == (enum mem_op)i || (op == MEM_ANY && i != MEM_READ))
            m->hang[i] = true;
    pthread_mutex_unlock(&m->lock);
}

void mem_hang_key(struct mem_store *m, enum mem_op op, const char *key)
{
    pthread_mutex_lock(&m->lock);
    (void)snprintf(m->hang_key[op], sizeof(m->hang_key[op]), "%s", key);
    pthread_mutex_unlock(&m->lock);
}

unsigned mem_hanging(struct mem_store *m)
{
    pthread_mutex_lock(&m->lock);
    unsigned n = m->hanging;
    pthread_mutex_unlock(&m->lock);
    return n;
}

void mem_heal(struct mem_store *m)
{
    pthread_mutex_lock(&m->lock);
    m->fail_count = m->lose_count = 0;
    memset(m->hang, 0, sizeof(m->hang));
    for (int i = 0; i < MEM_OPS; i++)
        m->hang_key[i][0] = '\0';
    pthread_cond_broadcast(&m->healed);
    pthread_mutex_unlock(&m->lock);
}

void mem_weak_guard(struct mem_store *m)
{
    m->weak = true;
}

void mem_set_hook(struct mem_store *m, mem_hook *hook, void *arg)
{
    pthread_mutex_lock(&m->lock);
    m->hook = hook;
    m->hook_arg = arg;
    pthread_mutex_unlock(&m->lock);
}

void mem_page_size(struct mem_store *m, size_t keys)
{
    m->page_size = keys;
}

unsigned mem_calls(struct mem_store *m, enum mem_op op)
{
    unsigned n = 0;
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < MEM_OPS; i++)
        if (op == (enum mem_op)i || (op == MEM_ANY && i != MEM_READ))
            n += m->calls[i];
    pthread_mutex_unlock(&m->lock);
    return n;
}

unsigned mem_open_bodies(struct mem_store *m)
{
    pthread_mutex_lock(&m->lock);
    unsigned n = m->bodies;
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* ---- archived WAL ---- */

static void put_le(unsigned char *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

void test_segment(void *out, uint32_t size, const char *name, unsigned seed)
{
    unsigned char *p = out;
    struct wal_name n = wal_name_parse(name);
    uint64_t x = seed * UINT64_C(2654435761) + n.seg + 1;
    for (uint32_t i = 0; i + 8 <= size; i += 8) { /* half of it compresses */
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        put_le(p + i, (i & 4096) != 0 ? x : seed, 8);
    }
    put_le(p, 0xD110, 2);
    put_le(p + 2, 0x0002, 2);
    put_le(p + 4, n.tli, 4);
    put_le(p + 8, ((uint64_t)n.log << 32) + (uint64_t)n.seg * size, 8);
    put_le(p + 16, 0, 8);
    put_le(p + 24, 0x1122334455667788u, 8);
    put_le(p + 32, size, 4);
    put_le(p + 36, 8192, 4);
}

struct collector {
    struct sink base;
    struct buf got;
};

static bool collect(struct sink *self, const void *data, size_t n, struct err *err)
{
    (void)err;
    must(buf_append(&((struct collector *)self)->got, data, n), "memory");
    return true;
}

static bool collect_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

#define COLLECTOR_INIT                                                                    \
    {                                                                                     \
        .base = {.write = collect, .finish = collect_finish}, .got = BUF_INIT(OBJECT_MAX) \
    }

void mem_archive(struct mem_store *m, const char *name, const void *plain, size_t n)
{
    struct err err = ERR_INIT;
    char key[STORE_KEY_MAX];
    struct collector out = COLLECTOR_INIT;
    struct source *src = source_mem(plain, n, &err);
    struct source *lzop = src == NULL ? NULL : lzop_encoder(src, NULL, &err);
    must(lzop != NULL && stream_copy(lzop, &out.base, &err), "coding");
    source_close(lzop);
    must(wal_key_of_name(name, key, sizeof(key)), "the name is too long");
    mem_set(m, key, out.got.data, out.got.len, NULL, 0);
    buf_free(&out.got);
}

void mem_archive_segment(struct mem_store *m, const char *name, uint32_t size, unsigned seed)
{
    void *plain = malloc(size);
    must(plain != NULL, "memory");
    test_segment(plain, size, name, seed);
    mem_archive(m, name, plain, size);
    free(plain);
}

bool mem_holds(struct mem_store *m, struct openpgp *pgp, const char *name, const void *plain,
               size_t n)
{
    static const struct call endless = CALL_INIT;
    struct err err = ERR_INIT;
    char key[STORE_KEY_MAX];
    size_t size;
    must(wal_key_of_name(name, key, sizeof(key)), "the name is too long");
    void *coded = mem_copy(m, key, &size);
    if (coded == NULL)
        return false;
    struct collector out = COLLECTOR_INIT;
    struct source *src = source_mem(coded, size, &err);
    bool same = src != NULL &&
                codec_decode(pgp, src, &out.base, OPENPGP_FOREGROUND, NULL, &endless, &err) &&
                out.got.len == n && (n == 0 || memcmp(out.got.data, plain, n) == 0);
    source_close(src);
    free(coded);
    buf_free(&out.got);
    return same;
}

bool mem_holds_segment(struct mem_store *m, struct openpgp *pgp, const char *name, uint32_t size,
                       unsigned seed)
{
    char *plain = malloc(size);
    must(plain != NULL, "memory");
    test_segment(plain, size, name, seed);
    bool same = mem_holds(m, pgp, name, plain, size);
    free(plain);
    return same;
}

struct openpgp *test_plain_pgp(void)
{
    struct err err = ERR_INIT;
    const struct openpgp_options options = {.stall_timeout_ms = 60000, .max_processes = 4};
    struct openpgp *pgp = openpgp_new(&options, &err);
    must(pgp != NULL, err.text);
    return pgp;
}
