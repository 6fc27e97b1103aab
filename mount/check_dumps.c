/* Logical dumps: what there is, and the facts that walefs kept of it. */
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"
#include "core/digest.h"
#include "mount/check_impl.h"

#define SUFFIX ".lzo"

/* ---- listing ---- */

static bool add_dump(struct check_dumps *d, const struct store_entry *e, struct err *err)
{
    size_t len = strlen(e->key), n = strlen(SUFFIX);
    if (len <= strlen(DUMP_PREFIX) + n || strcmp(e->key + len - n, SUFFIX) != 0)
        return true; /* not shown in a mount either */
    if (d->count == d->capacity) {
        size_t wanted = d->capacity == 0 ? 64 : d->capacity * 2;
        struct check_dump *grown = reallocarray(d->files, wanted, sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        d->files = grown;
        d->capacity = wanted;
    }
    struct check_dump *f = &d->files[d->count];
    *f = (struct check_dump){.key = strdup(e->key), .stored_bytes = e->size};
    if (f->key == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    memcpy(f->facts.etag, e->etag, sizeof(f->facts.etag));
    d->count++;
    return true;
}

static int by_key(const void *key, const void *dump)
{
    return strcmp(key, ((const struct check_dump *)dump)->key);
}

/* Facts of another content than the one that is there now count for nothing. */
static void add_facts(struct check_dumps *d, const struct store_entry *e)
{
    char of[STORE_KEY_MAX];
    struct dump_facts facts;
    if (d->count == 0 || !dump_facts_parse(e->key, of, &facts))
        return;
    struct check_dump *f = bsearch(of, d->files, d->count, sizeof(*d->files), by_key);
    if (f != NULL && strcmp(f->facts.etag, facts.etag) == 0) {
        f->facts = facts;
        f->known = true;
    }
}

static bool add_dumps(void *arg, const struct store_page *page, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < page->count; i++)
        ok = add_dump(arg, &page->entries[i], err);
    return ok;
}

static bool add_facts_page(void *arg, const struct store_page *page, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < page->count; i++)
        add_facts(arg, &page->entries[i]);
    return true;
}

static bool list(struct check *c, const char *prefix, store_page_fn *fn, struct err *err)
{
    const struct store_list what = {.prefix = prefix};
    return store_list_each(c->store, &what, fn, &c->dumps, &c->call, err);
}

void check_dumps(struct check *c)
{
    struct err err = ERR_INIT;
    uint64_t stored = 0;
    size_t unknown = 0;
    char bytes[32], more[120] = "; not read: that is what --deep does";
    if (!list(c, DUMP_PREFIX, add_dumps, &err) ||
        !list(c, DUMP_FACTS_PREFIX, add_facts_page, &err)) {
        check_say_err(c, "dumps", &err);
        return;
    }
    for (size_t i = 0; i < c->dumps.count; i++) {
        stored += c->dumps.files[i].stored_bytes;
        unknown += !c->dumps.files[i].known;
    }
    if (c->dumps.count == 0)
        return;
    human_bytes(stored, bytes);
    if (c->deep)
        (void)snprintf(more, sizeof(more),
                       "; of %zu no size and checksum are known: these are decoded only", unknown);
    check_say(c, CHECK_OK, "dumps", "%zu files, %s%s", c->dumps.count, bytes,
              c->deep && unknown == 0 ? "" : more);
}

void check_dumps_free(struct check_dumps *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->files[i].key);
    free(d->files);
}

/* ---- one dump ---- */

struct measured {
    struct sink base;
    struct digest *digest; /* NULL: not compared */
    uint64_t size;
};

static bool measured_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct measured *m = (struct measured *)self;
    m->size += n;
    return m->digest == NULL || digest_update(m->digest, data, n, err);
}

static bool measured_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void measured_close(struct sink *self)
{
    (void)self;
}

/* WANTED is "" when none was kept. */
static bool load_digest(struct store *store, const struct check_object *o,
                        char wanted[DIGEST_TEXT_MAX], const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX];
    struct store_info info;
    wanted[0] = '\0';
    if (o->dump == NULL || !dump_facts_key(o->key, o->dump, key))
        return true;
    if (!store->ops->head(store, key, &info, call, err)) {
        if (err->code != ERR_ABSENT)
            return false;
        *err = (struct err)ERR_INIT;
        return true;
    }
    const char *digest = store_meta_get(&info, DUMP_META_DIGEST);
    if (digest != NULL && strlen(digest) < DIGEST_TEXT_MAX)
        strcpy(wanted, digest);
    return true;
}

static bool compare(const struct check_object *o, struct measured *m, const char *wanted,
                    struct err *err)
{
    char got[DIGEST_TEXT_MAX];
    if (o->dump != NULL && m->size != o->dump->size)
        return err_set(err, ERR_CORRUPT, "%s: it has %llu bytes, and was written with %llu", o->key,
                       (unsigned long long)m->size, (unsigned long long)o->dump->size);
    if (m->digest == NULL)
        return true;
    return digest_final(m->digest, got, err) &&
           (strcmp(got, wanted) == 0 ||
            err_set(err, ERR_CORRUPT, "%s: its content has another checksum than what was written",
                    o->key));
}

/* Was it replaced since it was listed? Then the facts are not those of what was read. */
static bool was_replaced(struct store *store, const struct check_object *o, const struct call *call)
{
    struct store_info info;
    struct err ignored = ERR_INIT;
    return o->dump != NULL && store->ops->head(store, o->key, &info, call, &ignored) &&
           strcmp(info.etag, o->dump->etag) != 0;
}

bool check_dump(struct store *store, struct openpgp *pgp, const struct check_object *o,
                _Atomic uint64_t *progress, const struct call *call, struct err *err)
{
    char wanted[DIGEST_TEXT_MAX];
    struct measured m = {
        .base = {.write = measured_write, .finish = measured_finish, .close = measured_close}};
    if (!load_digest(store, o, wanted, call, err))
        return false;
    if (wanted[0] != '\0' && (m.digest = digest_new(wanted, err)) == NULL)
        return err_context(err, "%s: the checksum kept of it", o->key);
    bool ok = check_decode(store, pgp, o, &m.base, progress, call, err);
    if (ok && !compare(o, &m, wanted, err))
        ok = was_replaced(store, o, call);
    digest_free(m.digest);
    return ok;
}
