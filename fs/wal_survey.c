#include "fs/wal_survey.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/spool.h"
#include "core/wal_check.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

/* Finding out the segment size may mean to fetch and decode a segment. */
#define SIZE_PATIENCE_MS 30000

struct survey_state {
    struct fs *fs;
    const struct call *call;
    struct wal_census *census;
    bool asked_size;
    uint32_t *histories; /* timelines that have one, rising */
    size_t history_count, history_capacity;
};

/* From SEGMENT (NULL: there is none), else from a backup. Gaps cannot be told without. */
static void learn_size(struct survey_state *s, const char *segment)
{
    struct wal_stat st;
    struct err err = ERR_INIT;
    struct call patient = *s->call;
    s->asked_size = true;
    patient.deadline_ms = now_ms() + SIZE_PATIENCE_MS;
    if (s->fs->segment_size == 0 && segment != NULL)
        (void)wal_stat(s->fs, segment, &st, &patient, &err);
    s->census->segment_size = s->fs->segment_size;
    if (s->census->segment_size != 0)
        return;
    struct catalog *c = backup_set_catalog(s->fs->backup_set, SIZE_PATIENCE_MS, s->call, &err);
    if (c != NULL)
        s->census->segment_size = catalog_segment_size(c);
    catalog_unref(c);
}

static bool note_history(struct survey_state *s, uint32_t tli, struct err *err)
{
    if (s->history_count == s->history_capacity) {
        size_t wanted = s->history_capacity == 0 ? 16 : s->history_capacity * 2;
        uint32_t *grown = reallocarray(s->histories, wanted, sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        s->histories = grown;
        s->history_capacity = wanted;
    }
    s->histories[s->history_count++] = tli;
    return true;
}

static bool count_page(void *arg, const struct store_page *page, struct err *err)
{
    struct survey_state *s = arg;
    bool ok = true;
    for (size_t i = 0; ok && i < page->count; i++) {
        char name[WAL_NAME_MAX];
        const struct store_entry *e = &page->entries[i];
        if (e->is_prefix || !wal_name_of_key(e->key, name) ||
            wal_delete_has(s->fs->wal_delete, name))
            continue;
        struct wal_name n = wal_name_parse(name);
        if (n.kind == WAL_SEGMENT && !s->asked_size)
            learn_size(s, name);
        if (n.kind == WAL_HISTORY)
            ok = note_history(s, n.tli, err);
        ok = ok && wal_census_add(s->census, &n, e->size, e->mtime_s, err);
    }
    return ok;
}

static bool count_all(struct survey_state *s, struct err *err)
{
    const struct store_list what = {.prefix = WAL_KEY_PREFIX, .delimiter = "/"};
    return store_list_each(s->fs->opt.store, &what, count_page, s, s->call, err);
}

/* Not an error when it cannot be read: then that timeline counts as one without ancestors. */
static void read_history(struct survey_state *s, uint32_t tli)
{
    char name[WAL_NAME_MAX];
    struct err err = ERR_INIT;
    struct wal_history h = {.tli = tli};
    (void)snprintf(name, sizeof(name), "%08X.history", (unsigned)tli);
    struct plain *p = fetcher_get(s->fs->fetcher, name, s->call, &err);
    if (p == NULL)
        return;
    char *text = p->size > WAL_TEXT_MAX ? NULL : malloc((size_t)p->size + 1);
    ssize_t n = text == NULL ? -1 : spool_read(p->fd, text, (size_t)p->size, 0, &err);
    if (n > 0 && wal_history_parse(name, text, (size_t)n, &h, &err))
        (void)wal_census_take_history(s->census, &h, &err);
    wal_history_free(&h);
    free(text);
    plain_unref(p);
}

/* The newest first: one tells what the histories of its ancestors do, so that those of dead ends
 * are all that is read besides. */
static void read_histories(struct survey_state *s)
{
    for (size_t i = s->history_count; i > 0; i--)
        if (!wal_census_has_ancestor(s->census, s->histories[i - 1]))
            read_history(s, s->histories[i - 1]);
}

struct wal_census *wal_survey(struct fs *fs, const struct call *call, struct err *err)
{
    struct survey_state s = {.fs = fs, .call = call, .census = wal_census_new(0, err)};
    bool ok = s.census != NULL && count_all(&s, err);
    if (ok && !s.asked_size)
        learn_size(&s, NULL);
    if (ok)
        read_histories(&s);
    free(s.histories);
    if (ok)
        return s.census;
    wal_census_free(s.census);
    return NULL;
}
