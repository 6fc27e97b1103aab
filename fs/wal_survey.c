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
    char newest[WAL_NAME_MAX]; /* segment; "" when there is none */
    uint32_t *histories;       /* timelines that have one, rising */
    size_t history_count, history_capacity;
};

/* ---- the segment size ---- */

static uint32_t size_by_backups(struct survey_state *s, uint32_t newest)
{
    struct err err = ERR_INIT;
    struct catalog *c =
        newest != 0 ? NULL : backup_set_catalog(s->fs->backup_set, SIZE_PATIENCE_MS, s->call, &err);
    uint32_t size = archive_segment_size(newest, c);
    catalog_unref(c);
    return size;
}

/* Which it is turns out at the end of the listing, and it must be known from the beginning: what
 * was counted with before, or what the first segment has. */
static void guess_size(struct survey_state *s, const char *first)
{
    struct wal_stat st;
    struct err err = ERR_INIT;
    struct call patient = *s->call;
    s->asked_size = true;
    patient.deadline_ms = now_ms() + SIZE_PATIENCE_MS;
    s->census->segment_size = s->fs->counted_size;
    if (s->census->segment_size == 0 && s->fs->segment_size == 0)
        (void)wal_stat(s->fs, first, &st, &patient, &err);
    if (s->census->segment_size == 0)
        s->census->segment_size = size_by_backups(s, s->fs->segment_size);
}

/* As its metadata says; WAL-E's, which has none, is fetched by the first who counts. What was
 * counted with before stays while nothing else is known. */
static uint32_t size_of_newest(struct survey_state *s)
{
    char key[STORE_KEY_MAX];
    struct store *store = s->fs->opt.store;
    struct store_info info;
    struct err err = ERR_INIT;
    uint32_t before = s->fs->counted_size;
    uint64_t size = before;
    if (s->newest[0] == '\0')
        return 0;
    if (!wal_key_of_name(s->newest, key, sizeof(key)) ||
        !store->ops->head(store, key, &info, s->call, &err))
        return before;
    if (!wal_size_of_meta(&info, &size) && before == 0) {
        struct plain *p = fetcher_get(s->fs->fetcher, s->newest, s->call, &err);
        size = p == NULL ? 0 : p->size;
        plain_unref(p);
    }
    return wal_segment_size_valid(size) ? (uint32_t)size : before;
}

/* ---- counting ---- */

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
            guess_size(s, name);
        if (n.kind == WAL_SEGMENT)
            (void)snprintf(s->newest, sizeof(s->newest), "%s", name);
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

/* Counts anew when the guess was wrong: an archive that has segments of two sizes. */
static bool count_right(struct survey_state *s, struct err *err)
{
    s->census = wal_census_new(0, err);
    if (s->census == NULL || !count_all(s, err))
        return false;
    uint32_t size = size_by_backups(s, size_of_newest(s));
    s->fs->counted_size = size;
    if (size == s->census->segment_size)
        return true;
    wal_census_free(s->census);
    s->history_count = 0;
    s->asked_size = true;
    s->census = wal_census_new(size, err);
    return s->census != NULL && count_all(s, err);
}

struct wal_count *wal_survey(struct fs *fs, const struct call *call, struct err *err)
{
    struct survey_state s = {.fs = fs, .call = call};
    int64_t begun_ms = now_ms();
    struct wal_count *count = calloc(1, sizeof(*count));
    if (count == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    bool ok = count_right(&s, err);
    count->census = s.census;
    if (ok) {
        read_histories(&s);
        inside_judge(fs, s.census, begun_ms, &count->inside, call);
    }
    free(s.histories);
    if (ok)
        return count;
    wal_count_free(count);
    return NULL;
}

void wal_count_free(struct wal_count *count)
{
    if (count == NULL)
        return;
    wal_census_free(count->census);
    inside_verdicts_free(&count->inside);
    free(count);
}
