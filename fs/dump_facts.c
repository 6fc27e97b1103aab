/* The facts kept beside the objects of dumps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_index.h"
#include "core/buf.h"
#include "core/log.h"
#include "core/lzop.h"
#include "fs/dumps.h"

#define BODY_MAX (64u << 20)
#define META_SIZE "walefs-size"

/* ---- the body: the map, in the text form of an index of one partition ---- */

struct buf_sink {
    struct sink base;
    struct buf buf;
};

static bool append(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct buf_sink *b = (struct buf_sink *)self;
    return buf_append(&b->buf, data, n) || err_set(err, ERR_NO_MEMORY, "facts of %zu bytes", n);
}

static bool finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void no_close(struct sink *self)
{
    (void)self;
}

static struct buf_sink buf_sink(void)
{
    return (struct buf_sink){.base = {.write = append, .finish = finish, .close = no_close},
                             .buf = BUF_INIT(BODY_MAX)};
}

static bool copy_map(struct lzop_map *to, const struct lzop_map *from, struct err *err)
{
    *to = *from;
    to->offsets = malloc((from->count + 1) * sizeof(*to->offsets));
    if (to->offsets == NULL) {
        *to = (struct lzop_map)LZOP_MAP_INIT;
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    }
    if (from->count > 0)
        memcpy(to->offsets, from->offsets, from->count * sizeof(*to->offsets));
    return true;
}

static bool write_body(const struct dump_facts *facts, const struct lzop_map *map,
                       struct buf_sink *out, struct err *err)
{
    struct index_partition part = {.number = 1, .encrypted = facts->encrypted};
    struct backup_index *index = backup_index_new(err);
    struct source *text = NULL;
    memcpy(part.etag, facts->etag, sizeof(part.etag));
    bool ok = index != NULL && copy_map(&part.map, map, err) &&
              backup_index_add_partition(index, &part, err) && backup_index_seal(index, err);
    if (ok)
        text = backup_index_write(index, err);
    if (text != NULL)
        text = lzop_encoder(text, NULL, err);
    ok = ok && text != NULL && stream_copy(text, &out->base, err);
    source_close(text);
    lzop_map_free(&part.map);
    backup_index_free(index);
    return ok;
}

void dump_facts_put(struct fs *fs, const char *key, const struct dump_facts *facts,
                    const struct lzop_map *map, const char *digest, const struct call *call)
{
    char facts_key[STORE_KEY_MAX];
    struct err err = ERR_INIT;
    struct buf_sink body = buf_sink();
    struct store_meta meta[2] = {{.name = META_SIZE}, {.name = DUMP_META_DIGEST}};
    if (fs->opt.read_only || !dump_facts_key(key, facts, facts_key))
        return;
    /* a map that does not fit is left out: the object is then read from its start */
    if (map != NULL && map->regular && map->count > 1 && !write_body(facts, map, &body, &err)) {
        log_warn("%s: no block map is kept: %s", key, err.text);
        body.buf.len = 0;
    }
    (void)snprintf(meta[0].value, sizeof(meta[0].value), "%" PRIu64, facts->size);
    if (digest != NULL)
        (void)snprintf(meta[1].value, sizeof(meta[1].value), "%s", digest);
    const struct store_put put = {.body = {.mem = buf_str(&body.buf), .size = body.buf.len},
                                  .meta = meta,
                                  .meta_count = digest == NULL ? 1 : 2};
    if (!fs->opt.store->ops->put(fs->opt.store, facts_key, &put, NULL, call, &err))
        log_warn("%s: its size is not kept, so that whoever lists it reads it once: %s", key,
                 err.text);
    buf_free(&body.buf);
}

bool dump_facts_digest(struct fs *fs, const char *key, const struct dump_facts *facts,
                       char out[DIGEST_TEXT_MAX], const struct call *call)
{
    char facts_key[STORE_KEY_MAX];
    struct store_info info;
    struct err ignored = ERR_INIT; /* it is a fact more, and the file is what it is without it */
    if (!dump_facts_key(key, facts, facts_key) ||
        !fs->opt.store->ops->head(fs->opt.store, facts_key, &info, call, &ignored))
        return false;
    const char *digest = store_meta_get(&info, DUMP_META_DIGEST);
    if (digest == NULL || strlen(digest) >= DIGEST_TEXT_MAX)
        return false;
    strcpy(out, digest);
    return true;
}

static struct backup_index *read_body(struct source *coded, struct err *err)
{
    struct buf_sink plain = buf_sink();
    struct backup_index *index = NULL;
    struct sink *lzop = lzop_decoder(&plain.base, NULL, err);
    if (lzop != NULL && stream_copy(coded, lzop, err) && lzop->finish(lzop, err)) {
        struct source *text = source_mem(buf_str(&plain.buf), plain.buf.len, err);
        index = text == NULL ? NULL : backup_index_read(text, err);
        source_close(text);
    }
    sink_close(lzop);
    buf_free(&plain.buf);
    return index;
}

bool dump_facts_map(struct fs *fs, const char *key, const struct dump_facts *facts,
                    struct lzop_map *map, const struct call *call)
{
    char facts_key[STORE_KEY_MAX];
    struct store_info info;
    struct err err = ERR_INIT;
    bool ok = false;
    if (facts->encrypted || !dump_facts_key(key, facts, facts_key))
        return false;
    struct store *store = fs->opt.store;
    struct source *body = store->ops->get(store, facts_key, 0, UINT64_MAX, &info, call, &err);
    struct backup_index *index = body == NULL || info.size == 0 ? NULL : read_body(body, &err);
    source_close(body);
    if (index != NULL && index->partition_count == 1 &&
        strcmp(index->partitions[0].etag, facts->etag) == 0 &&
        index->partitions[0].map.plain_size == facts->size) {
        *map = index->partitions[0].map;
        index->partitions[0].map = (struct lzop_map)LZOP_MAP_INIT;
        ok = true;
    } else if (err.code != ERR_NONE && err.code != ERR_ABSENT) {
        log_warn("%s: its block map is not used: %s", key, err.text);
    }
    backup_index_free(index);
    return ok;
}

/* ---- listing ---- */

/* Called for each of the facts that PREFIX begins and that come after AFTER (NULL: all); false ends
 * the listing. */
typedef bool on_facts(void *arg, const char *facts_key, const char *of,
                      const struct dump_facts *facts);

struct each {
    on_facts *fn;
    void *arg;
    bool enough;
};

static bool each_of_page(void *arg, const struct store_page *page, struct err *err)
{
    struct each *e = arg;
    (void)err;
    for (size_t i = 0; i < page->count && !e->enough; i++) {
        const struct store_entry *entry = &page->entries[i];
        char of[STORE_KEY_MAX];
        struct dump_facts facts;
        if (!entry->is_prefix && dump_facts_parse(entry->key, of, &facts))
            e->enough = !e->fn(e->arg, entry->key, of, &facts);
    }
    return !e->enough;
}

static bool each(struct fs *fs, const struct store_list *list, on_facts *fn, void *arg,
                 const struct call *call, struct err *err)
{
    struct each e = {.fn = fn, .arg = arg};
    return store_list_each(fs->opt.store, list, each_of_page, &e, call, err) || e.enough;
}

struct search {
    const char *key, *etag;
    struct dump_facts *out;
    bool found;
};

static bool on_search(void *arg, const char *facts_key, const char *of,
                      const struct dump_facts *facts)
{
    struct search *s = arg;
    (void)facts_key;
    s->found = strcmp(of, s->key) == 0 && strcmp(facts->etag, s->etag) == 0;
    if (s->found)
        *s->out = *facts;
    return !s->found;
}

bool dump_facts_find(struct fs *fs, const char *key, const char *etag, struct dump_facts *out,
                     bool *found, const struct call *call, struct err *err)
{
    char prefix[STORE_KEY_MAX];
    struct search s = {.key = key, .etag = etag, .out = out};
    *found = false;
    if (!dump_facts_prefix(key, prefix))
        return true;
    const struct store_list list = {.prefix = prefix};
    if (!each(fs, &list, on_search, &s, call, err))
        return false;
    *found = s.found;
    return true;
}

struct dropping {
    struct fs *fs;
    const char *key, *etag;
    const struct call *call;
};

static bool on_drop(void *arg, const char *facts_key, const char *of,
                    const struct dump_facts *facts)
{
    struct dropping *d = arg;
    struct err err = ERR_INIT;
    struct store *store = d->fs->opt.store;
    if (strcmp(of, d->key) == 0 && (d->etag == NULL || strcmp(facts->etag, d->etag) != 0) &&
        !store->ops->remove(store, &facts_key, 1, d->call, &err))
        log_warn("old facts stay in the archive, where they do no harm: %s", err.text);
    return true;
}

void dump_facts_drop(struct fs *fs, const char *key, const char *etag, const struct call *call)
{
    char prefix[STORE_KEY_MAX];
    struct err err = ERR_INIT;
    struct dropping d = {.fs = fs, .key = key, .etag = etag, .call = call};
    if (!dump_facts_prefix(key, prefix))
        return;
    const struct store_list list = {.prefix = prefix};
    if (!each(fs, &list, on_drop, &d, call, &err))
        log_warn("old facts stay in the archive, where they do no harm: %s", err.text);
}

/* ---- for a page of a listing ---- */

struct collecting {
    struct dump_facts_page *out;
    const char *last; /* the page's last key */
    bool no_memory;
};

static bool on_collect(void *arg, const char *facts_key, const char *of,
                       const struct dump_facts *facts)
{
    struct collecting *c = arg;
    struct dump_facts_page *p = c->out;
    (void)facts_key;
    if (strcmp(of, c->last) > 0)
        return false;
    if (p->count == p->cap) {
        size_t cap = p->cap == 0 ? 64 : p->cap * 2;
        char **keys = realloc(p->keys, cap * sizeof(*keys));
        if (keys != NULL)
            p->keys = keys;
        struct dump_facts *all = realloc(p->facts, cap * sizeof(*all));
        if (all != NULL)
            p->facts = all;
        c->no_memory = keys == NULL || all == NULL;
        if (c->no_memory)
            return false;
        p->cap = cap;
    }
    p->keys[p->count] = strdup(of);
    c->no_memory = p->keys[p->count] == NULL;
    if (c->no_memory)
        return false;
    p->facts[p->count++] = *facts;
    return true;
}

bool dump_facts_list(struct fs *fs, const char *dir_prefix, const struct store_page *page,
                     struct dump_facts_page *out, const struct call *call, struct err *err)
{
    char prefix[STORE_KEY_MAX], after[STORE_KEY_MAX];
    const char *first = NULL, *last = NULL;
    size_t skip = strlen(DUMP_PREFIX);
    for (size_t i = 0; i < page->count; i++)
        if (!page->entries[i].is_prefix && strlen(page->entries[i].key) > skip) {
            first = first == NULL ? page->entries[i].key : first;
            last = page->entries[i].key;
        }
    if (first == NULL)
        return true;
    /* a key and a mark come after the key itself, and mostly in the order of the keys */
    (void)snprintf(prefix, sizeof(prefix), DUMP_FACTS_PREFIX "%s", dir_prefix + skip);
    if (snprintf(after, sizeof(after), DUMP_FACTS_PREFIX "%s", first + skip) >= (int)sizeof(after))
        return true;
    const struct store_list list = {.prefix = prefix, .delimiter = "/", .start_after = after};
    struct collecting c = {.out = out, .last = last};
    if (!each(fs, &list, on_collect, &c, call, err))
        return false;
    return !c.no_memory || err_set(err, ERR_NO_MEMORY, "out of memory");
}

const struct dump_facts *dump_facts_on_page(const struct dump_facts_page *page, const char *key,
                                            const char *etag)
{
    /* by key they are almost sorted: what a search misses is looked up on its own */
    size_t low = 0, high = page->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(page->keys[middle], key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < page->count && strcmp(page->keys[low], key) == 0; low++)
        if (strcmp(page->facts[low].etag, etag) == 0)
            return &page->facts[low];
    return NULL;
}

void dump_facts_page_free(struct dump_facts_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->keys[i]);
    free(page->keys);
    free(page->facts);
    *page = (struct dump_facts_page){.count = 0};
}
