#include "fs/wal_survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/spool.h"
#include "core/wal_check.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

/* Finding out the segment size may mean to fetch and decode a segment. */
#define SIZE_PATIENCE_MS 30000

struct survey_state {
    struct fs *fs;
    struct wal_census *census;
    bool asked_size;
};

/* From a segment, else from a backup. Gaps cannot be told without. */
static void learn_size(struct survey_state *s, const char *segment, const struct call *call)
{
    struct wal_stat st;
    struct err err = ERR_INIT;
    struct call patient = *call;
    patient.deadline_ms = now_ms() + SIZE_PATIENCE_MS;
    if (s->fs->segment_size == 0)
        (void)wal_stat(s->fs, segment, &st, &patient, &err);
    s->census->segment_size = s->fs->segment_size;
    if (s->census->segment_size != 0)
        return;
    struct catalog *c = backup_set_catalog(s->fs->backup_set, SIZE_PATIENCE_MS, call, &err);
    for (size_t i = 0; c != NULL && i < c->count; i++)
        if (wal_segment_size_valid(c->backups[i].info.segment_size))
            s->census->segment_size = c->backups[i].info.segment_size;
    catalog_unref(c);
}

static bool count_page(struct survey_state *s, const struct store_page *page,
                       const struct call *call, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < page->count; i++) {
        char name[WAL_NAME_MAX];
        const struct store_entry *e = &page->entries[i];
        if (e->is_prefix || !wal_name_of_key(e->key, name) ||
            wal_delete_has(s->fs->wal_delete, name))
            continue;
        struct wal_name n = wal_name_parse(name);
        if (n.kind == WAL_SEGMENT && !s->asked_size) {
            s->asked_size = true;
            learn_size(s, name, call);
        }
        ok = wal_census_add(s->census, &n, e->size, e->mtime_s, err);
    }
    return ok;
}

static bool count_all(struct survey_state *s, const struct call *call, struct err *err)
{
    struct store *store = s->fs->opt.store;
    char *token = NULL;
    bool ok = true, more = true;
    while (ok && more) {
        const struct store_list what = {.prefix = WAL_KEY_PREFIX, .delimiter = "/", .token = token};
        struct store_page page = {.count = 0};
        ok = store->ops->list(store, &what, &page, call, err) && count_page(s, &page, call, err);
        free(token);
        token = page.next;
        page.next = NULL;
        more = page.more;
        store_page_free(&page);
    }
    free(token);
    return ok;
}

/* Where the newest timeline comes from. Not an error when that cannot be read: then it counts as
 * one without ancestors. */
static void read_history(struct survey_state *s, const struct call *call)
{
    struct wal_census *c = s->census;
    const struct wal_timeline *newest = wal_census_newest(c);
    char name[WAL_NAME_MAX];
    struct err err = ERR_INIT;
    if (newest == NULL || newest->tli < 2)
        return;
    (void)snprintf(name, sizeof(name), "%08X.history", (unsigned)newest->tli);
    struct plain *p = fetcher_get(s->fs->fetcher, name, call, &err);
    if (p == NULL)
        return;
    char *text = p->size > WAL_TEXT_MAX ? NULL : malloc((size_t)p->size + 1);
    ssize_t n = text == NULL ? -1 : spool_read(p->fd, text, (size_t)p->size, 0, &err);
    c->newest_has_history = true;
    struct wal_history h = {.count = 0};
    if (n > 0 && wal_history_parse(name, text, (size_t)n, &h, &err)) {
        c->ancestor_count = h.count < CENSUS_ANCESTORS ? h.count : CENSUS_ANCESTORS;
        memcpy(c->ancestors, h.of + (h.count - c->ancestor_count),
               c->ancestor_count * sizeof(*h.of));
    }
    wal_history_free(&h);
    free(text);
    plain_unref(p);
}

struct wal_census *wal_survey(struct fs *fs, const struct call *call, struct err *err)
{
    struct survey_state s = {.fs = fs, .census = wal_census_new(0, err)};
    if (s.census == NULL)
        return NULL;
    if (count_all(&s, call, err)) {
        read_history(&s, call);
        return s.census;
    }
    wal_census_free(s.census);
    return NULL;
}
