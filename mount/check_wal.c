/* WAL: what there is, whether the newest of it can be read, and what is missing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/codec.h"
#include "core/wal_pages.h"
#include "mount/check_impl.h"

/* ---- listing ---- */

static bool add_file(struct check_wal *w, const struct store_entry *e, struct err *err)
{
    char name[WAL_NAME_MAX];
    if (!wal_name_of_key(e->key, name) || strlen(name) >= sizeof(w->files->name))
        return true;
    if (w->count == w->capacity) {
        size_t wanted = w->capacity == 0 ? 1024 : w->capacity * 2;
        struct check_file *grown = reallocarray(w->files, wanted, sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        w->files = grown;
        w->capacity = wanted;
    }
    struct check_file *f = &w->files[w->count++];
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    f->stored_bytes = e->size;
    return true;
}

static bool add_page(void *arg, const struct store_page *page, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < page->count; i++)
        ok = add_file(arg, &page->entries[i], err);
    return ok;
}

static bool list_files(struct check *c, struct err *err)
{
    const struct store_list what = {.prefix = WAL_KEY_PREFIX};
    return store_list_each(c->store, &what, add_page, &c->wal, &c->call, err);
}

/* ---- the newest segment ---- */

static const struct check_file *newest_segment(const struct check_wal *w)
{
    for (size_t i = w->count; i > 0; i--)
        if (wal_name_parse(w->files[i - 1].name).kind == WAL_SEGMENT)
            return &w->files[i - 1];
    return NULL;
}

static bool decode(struct check *c, const char *name, struct sink *out, bool *encrypted,
                   struct err *err)
{
    char key[WAL_NAME_MAX + 16];
    struct store_info info;
    struct codec_facts facts = {.encrypted = false};
    (void)wal_key_of_name(name, key, sizeof(key));
    struct source *src = c->store->ops->get(c->store, key, 0, UINT64_MAX, &info, &c->call, err);
    bool ok =
        src != NULL && codec_decode(c->pgp, src, out, OPENPGP_FOREGROUND, &facts, &c->call, err);
    source_close(src);
    lzop_map_free(&facts.map);
    *encrypted = facts.encrypted;
    return ok;
}

/* The segment size, if that much can be read of it; 0 else. */
static uint32_t read_newest(struct check *c, const struct check_file *f)
{
    uint32_t size = 0;
    struct err err = ERR_INIT;
    bool encrypted = false;
    struct wal_pages *pages = malloc(sizeof(*pages));
    if (pages == NULL) {
        check_say(c, CHECK_UNKNOWN, "read", "out of memory");
        return size;
    }
    wal_pages_init(pages, f->name, true);
    bool ok = decode(c, f->name, &pages->base, &encrypted, &err);
    size = pages->header.segment_size;
    if (ok)
        check_say(c, CHECK_OK, "read", "wal/%s, the newest segment%s%s", f->name,
                  encrypted ? ", encrypted" : "",
                  pages->ends_at != UINT64_MAX ? "; it was archived before it was full" : "");
    else if (err.code == ERR_KEY && !c->reads)
        check_say(c, CHECK_OK, "read", "wal/%s is there, but no secret key to decrypt it", f->name);
    else {
        err_context(&err, "wal/%s", f->name);
        check_say_err(c, "read", &err);
    }
    free(pages);
    return size;
}

/* ---- histories ---- */

static bool read_history(struct check *c, const char *name, struct err *err)
{
    struct check_text t;
    bool encrypted;
    struct wal_history history = {.tli = 0};
    check_text_init(&t);
    bool ok = decode(c, name, &t.base, &encrypted, err) &&
              wal_history_parse(name, buf_str(&t.text), t.text.len, &history, err);
    buf_free(&t.text);
    ok = ok && wal_census_take_history(c->wal.census, &history, err);
    wal_history_free(&history);
    return ok;
}

static void read_histories(struct check *c)
{
    for (size_t i = 0; i < c->wal.count && !cancel_fired(&c->cancel); i++) {
        const char *name = c->wal.files[i].name;
        struct err err = ERR_INIT;
        if (wal_name_parse(name).kind != WAL_HISTORY || read_history(c, name, &err))
            continue;
        err_context(&err, "wal/%s", name);
        if (err.code == ERR_KEY && !c->reads)
            check_say(c, CHECK_WARN, "wal",
                      "wal/%s cannot be decrypted here: WAL is not followed onto its timeline",
                      name);
        else
            check_say_err(c, "wal", &err);
    }
}

/* ---- */

static bool count_files(const struct check_wal *w, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < w->count; i++) {
        struct wal_name n = wal_name_parse(w->files[i].name);
        ok = wal_census_add(w->census, &n, w->files[i].stored_bytes, 0, err);
    }
    return ok;
}

bool check_wal_load(struct check *c)
{
    struct err err = ERR_INIT;
    struct check_wal *w = &c->wal;
    w->census = wal_census_new(0, &err);
    if (w->census == NULL || !list_files(c, &err)) {
        check_say_err(c, "wal", &err);
        return false;
    }
    const struct check_file *newest = newest_segment(w);
    if (newest == NULL)
        check_say(c, CHECK_WARN, "read", "no WAL has been archived yet");
    w->census->segment_size =
        archive_segment_size(newest == NULL ? 0 : read_newest(c, newest), c->catalog);
    read_histories(c);
    if (!count_files(w, &err)) {
        check_say_err(c, "wal", &err);
        return false;
    }
    return !cancel_fired(&c->cancel);
}

void check_range_text(const struct check *c, const struct wal_range *r, char out[160])
{
    char first[WAL_NAME_MAX], last[WAL_NAME_MAX];
    wal_census_name(c->wal.census, r->tli, r->first, first);
    wal_census_name(c->wal.census, r->tli, r->last, last);
    if (r->first == r->last)
        (void)snprintf(out, 160, "%s", first);
    else
        (void)snprintf(out, 160, "%s to %s (%" PRIu64 " segments)", first, last,
                       r->last - r->first + 1);
}

/* Those of MISSING about which no line was written. */
static uint64_t not_reported(const struct check_wal *w, const struct wal_ranges *missing)
{
    uint64_t segments = wal_ranges_segments(missing);
    for (size_t i = 0; i < w->reported.count; i++)
        for (size_t j = 0; j < missing->count; j++) {
            const struct wal_range *a = &w->reported.of[i], *b = &missing->of[j];
            uint64_t first = a->first > b->first ? a->first : b->first;
            uint64_t last = a->last < b->last ? a->last : b->last;
            if (a->tli == b->tli && first <= last)
                segments -= last - first + 1;
        }
    return segments;
}

/* ---- timelines nobody can reach ---- */

static bool has_history(const struct check_wal *w, uint32_t tli)
{
    for (size_t i = 0; i < w->count; i++) {
        struct wal_name n = wal_name_parse(w->files[i].name);
        if (n.kind == WAL_HISTORY && n.tli == tli)
            return true;
    }
    return false;
}

/* A backup of that timeline is followed without its history. */
static bool is_followed_onto(const struct check *c, uint32_t tli)
{
    if (c->catalog == NULL || c->catalog->count == 0)
        return true;
    for (size_t i = 0; i < c->catalog->count; i++)
        if (c->catalog->backups[i].info.start.tli < tli)
            return true;
    return false;
}

static void say_history(struct check *c, uint32_t tli)
{
    if (tli <= 1 || has_history(&c->wal, tli))
        return;
    if (is_followed_onto(c, tli))
        check_say(c, CHECK_FAIL, "wal",
                  "wal/%08" PRIX32 ".history is missing: recovery would end on the old timeline, "
                  "without what timeline %" PRIu32 " has; archive it again from pg_wal of the "
                  "primary or a standby",
                  tli, tli);
    else
        check_say(c, CHECK_WARN, "wal",
                  "wal/%08" PRIX32 ".history is missing: no backup of an older timeline needs it; "
                  "archive it again from pg_wal",
                  tli);
}

void check_wal_timelines(struct check *c)
{
    const struct check_wal *w = &c->wal;
    const struct wal_census *census = w->census;
    if (census->segment_size == 0 && census->segments > 0)
        check_say(c, CHECK_WARN, "wal",
                  "the segment size is not known (no segment can be read, no backup says it): gaps "
                  "cannot be told");
    for (size_t i = 0; i < census->count; i++) {
        const struct wal_timeline *t = &census->timelines[i];
        const struct wal_range all = {.tli = t->tli, .first = t->first, .last = t->last};
        uint64_t holes = not_reported(w, &t->missing);
        char range[160], bytes[32], more[80] = "";
        bool backups = c->catalog != NULL && c->catalog->count > 0;
        check_range_text(c, &all, range);
        human_bytes(t->stored_bytes, bytes);
        if (holes > 0)
            (void)snprintf(more, sizeof(more), "; missing are %" PRIu64 " that %s", holes,
                           backups ? "no backup needs" : "a backup may have needed");
        check_say(c, holes > 0 && !backups ? CHECK_WARN : CHECK_OK, "wal",
                  "timeline %" PRIu32 ": %s, %" PRIu64 " there, %s%s", t->tli, range, t->count,
                  bytes, more);
        say_history(c, t->tli);
    }
    if (census->strange > 0)
        check_say(c, CHECK_WARN, "wal",
                  "%" PRIu64 " names are no segments of this cluster: its segments have %" PRIu32
                  " MiB",
                  census->strange, census->segment_size >> 20);
}

void check_wal_free(struct check_wal *w)
{
    free(w->files);
    wal_census_free(w->census);
    wal_ranges_free(&w->reported);
}
