#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"

struct backup_write *backup_write_new(const struct backup_write_options *options, struct err *err)
{
    unsigned char random[16];
    struct backup_write *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->opt = *options;
    w->opt.label = NULL; /* borrowed for this call only */
    w->info.label = strdup(options->label);
    w->info.version = strdup("");
    w->info.base_prefix = strdup("");
    w->info.stop_segment = strdup("");
    w->info.stop_offset = strdup("");
    w->index = backup_index_new(err);
    if (w->index != NULL && w->info.label != NULL && w->info.version != NULL &&
        w->info.base_prefix != NULL && w->info.stop_segment != NULL &&
        w->info.stop_offset != NULL && RAND_bytes(random, sizeof(random)) == 1) {
        for (size_t i = 0; i < sizeof(random); i++)
            (void)snprintf(w->token + 2 * i, 3, "%02x", random[i]);
        w->info.by_walefs = true;
        return w;
    }
    backup_write_free(w);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

void backup_write_free(struct backup_write *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->count; i++) {
        partition_write_free(w->begun[i].writing);
        free(w->begun[i].key);
    }
    for (size_t i = 0; i < w->link_count; i++)
        free(w->links[i]);
    free(w->links);
    free(w->begun);
    free(w->sentinel);
    free(w->crcs);
    backup_index_free(w->index);
    backup_info_free(&w->info);
    free(w);
}

const struct backup_info *backup_write_info(const struct backup_write *w)
{
    return &w->info;
}

const char *backup_write_name(const struct backup_write *w)
{
    return w->info.name;
}

const struct member *backup_write_find(const struct backup_write *w, const char *path)
{
    return backup_index_find(w->index, path);
}

const struct call *backup_write_once(const struct backup_write *w, struct call *once)
{
    int64_t deadline_ms = now_ms() + w->opt.stall_ms;
    *once = *w->opt.call;
    if (w->opt.stall_ms > 0 && deadline_ms < once->deadline_ms)
        once->deadline_ms = deadline_ms;
    return once;
}

/* ---- partitions ---- */

void backup_write_key(const struct backup_write *w, const char *rest, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s%s", w->info.name, rest);
}

void backup_write_partition_key(const struct backup_write *w, size_t i, char out[STORE_KEY_MAX])
{
    char rest[64];
    (void)snprintf(rest, sizeof(rest), "/tar_partitions/part_%08zu.tar.lzo", i);
    backup_write_key(w, rest, out);
}

/* What stands under such a name is no backup, neither for WAL-E nor for walefs. */
static void temporary_key(const struct backup_write *w, size_t i, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX BACKUP_TEMP_PREFIX "%s/part_%08zu.tar.lzo",
                   w->token, i);
}

static bool begin_partition(struct backup_write *w, struct err *err)
{
    char key[STORE_KEY_MAX];
    if (w->count == w->cap) {
        size_t cap = w->cap == 0 ? 16 : w->cap * 2;
        struct begun *begun = realloc(w->begun, cap * sizeof(*begun));
        if (begun == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        w->begun = begun;
        w->cap = cap;
    }
    if (w->guarded)
        backup_write_partition_key(w, w->count, key);
    else
        temporary_key(w, w->count, key);
    struct index_partition part = {.number = (unsigned)w->count};
    const struct partition_write_options options = {.store = w->opt.store,
                                                    .pgp = w->opt.pgp,
                                                    .pool = w->opt.pool,
                                                    .key = key,
                                                    .stall_ms = w->opt.stall_ms,
                                                    .call = w->opt.call};
    struct begun b = {.key = strdup(key), .temporary = !w->guarded};
    if (b.key == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (backup_index_add_partition(w->index, &part, err))
        b.writing = partition_write_new(&options, err);
    if (b.writing == NULL) {
        free(b.key);
        return false;
    }
    w->begun[w->count++] = b;
    w->open = true;
    w->open_bytes = w->open_members = 0;
    return true;
}

/* Waits for the partition at I, and takes over what has become of it. */
static bool take_result(struct backup_write *w, size_t i, struct err *err)
{
    struct partition_written out;
    struct begun *b = &w->begun[i];
    struct index_partition *part = &w->index->partitions[i];
    if (!partition_write_wait(b->writing, &out, err))
        return false;
    partition_write_free(b->writing);
    b->writing = NULL;
    strcpy(b->sha256, out.sha256);
    strcpy(part->etag, out.info.etag);
    part->stored_size = out.info.size;
    part->encrypted = out.facts.encrypted;
    part->map = out.facts.map;
    return true;
}

bool backup_write_settle(struct backup_write *w, bool end_open, size_t left, struct err *err)
{
    if (w->open && end_open) {
        if (!partition_write_end(w->begun[w->count - 1].writing, err))
            return false;
        w->open = false;
    }
    size_t running = 0;
    for (size_t i = 0; i < w->count; i++)
        running += w->begun[i].writing != NULL;
    for (size_t i = 0; i < w->count && running > left; i++) {
        if (w->begun[i].writing == NULL)
            continue;
        if (!take_result(w, i, err))
            return false;
        running--;
    }
    return true;
}

/* A partition with room for a member of SIZE bytes. */
static bool make_room(struct backup_write *w, uint64_t size, struct err *err)
{
    uint64_t most =
        w->opt.partition_bytes < PARTITION_MAX_BYTES ? w->opt.partition_bytes : PARTITION_MAX_BYTES;
    bool fits = w->open_members == 0 ||
                (w->open_bytes + size <= most && w->open_members < PARTITION_MAX_MEMBERS);
    if (w->open && fits)
        return true;
    return backup_write_settle(w, true, RUNNING_MAX - 1, err) && begin_partition(w, err);
}

/* ---- members ---- */

bool backup_write_usable(const struct backup_write *w, struct err *err)
{
    if (w->committed)
        return err_set(err, ERR_DENIED, "the backup %s is complete", w->info.name);
    if (w->why.code == ERR_NONE)
        return true;
    *err = w->why;
    return false;
}

bool backup_write_note(struct backup_write *w, bool ok, const struct err *err)
{
    if (!ok && w->why.code == ERR_NONE)
        w->why = *err;
    return ok;
}

/* Partitions are restored in any order, so of two files of one name either might win. */
static bool comes_once(const struct backup_write *w, const struct member *m, struct err *err)
{
    const struct member *there = backup_index_find(w->index, m->path);
    return there == NULL || (there->type == MEMBER_DIR && m->type == MEMBER_DIR) ||
           err_set(err, ERR_INVALID, "%.200s comes twice", m->path);
}

bool backup_write_put_raw(struct backup_write *w, const struct member *m, struct source *data,
                          struct err *err)
{
    struct member copy = *m;
    if (!comes_once(w, m, err) || !make_room(w, m->size, err))
        return false;
    copy.partition = (uint32_t)(w->count - 1);
    if (!partition_write_member(w->begun[w->count - 1].writing, m, data, &copy.offset, err) ||
        !backup_index_add(w->index, &copy, err))
        return false;
    w->open_bytes += m->size;
    w->open_members++;
    w->info.expanded_size += m->size;
    return true;
}

/* The changed blocks of a relation, as PostgreSQL 17 sends them: where relations are,
 * INCREMENTAL.NUMBER instead of NUMBER. */
static bool is_incremental_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && strncmp(slash, "/INCREMENTAL.", 13) == 0 && slash[13] >= '0' &&
           slash[13] <= '9' &&
           (strncmp(path, "base/", 5) == 0 || strncmp(path, "global/", 7) == 0 ||
            strncmp(path, "pg_tblspc/", 10) == 0);
}

static bool write_member(struct backup_write *w, const struct member *m, struct source *data,
                         struct err *err)
{
    char path[BACKUP_PATH_MAX];
    struct member copy = *m;
    if (!backup_path_normalise(m->path, path, err))
        return false;
    copy.path = path;
    if (m->type == MEMBER_HARDLINK)
        return err_set(err, ERR_INVALID, "%.200s is a hard link: PostgreSQL has none", path);
    if (backup_write_is_tablespace_link(&copy))
        return backup_write_note_link(w, &copy, err);
    if (m->type == MEMBER_FILE && is_incremental_file(path))
        return backup_write_is_incremental(path, err);
    if (strcmp(path, "postmaster.pid") == 0)
        w->has_pid = true;
    if (backup_write_is_looked_at(&copy))
        return backup_write_look(w, &copy, data, err);
    return backup_write_put(w, &copy, data, err);
}

bool backup_write_member(struct backup_write *w, const struct member *m, struct source *data,
                         struct err *err)
{
    return backup_write_usable(w, err) && backup_write_note(w, write_member(w, m, data, err), err);
}
