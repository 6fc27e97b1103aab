/* The end of writing a backup: all or nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/catalog.h"
#include "core/codec.h"
#include "core/log.h"
#include "core/object_copy.h"

#define COPY_MAX_BYTES (UINT64_C(5) << 30) /* of S3's CopyObject */

/* ---- is it a backup? ---- */

static bool has_below(const struct backup_index *index, const char *oid)
{
    char dir[64];
    int n = snprintf(dir, sizeof(dir), "pg_tblspc/%.40s/", oid);
    for (size_t i = 0; i < index->count; i++)
        if (strncmp(index->members[i].path, dir, (size_t)n) == 0)
            return true;
    return false;
}

/* Both those that came as links, and those that tablespace_map names: each has its directory, if it
 * is empty, with the server's version for a name. */
static bool check_tablespaces(const struct backup_write *w, struct err *err)
{
    for (size_t i = 0; i < w->link_count; i++)
        if (!has_below(w->index, w->links[i]))
            return err_set(err, ERR_INVALID,
                           "pg_tblspc/%s is a symlink, and what it leads to was not copied: copy "
                           "with links followed (cp -aL, rsync -aL), or use pg_basebackup -Ft",
                           w->links[i]);
    for (size_t i = 0; i < w->info.tablespace_count; i++)
        if (!has_below(w->index, w->info.tablespaces[i].oid))
            return err_set(err, ERR_INVALID,
                           "the tablespace %s (%.200s) is missing: tablespace_map names it, and "
                           "neither %s.tar nor pg_tblspc/%s/ has been written",
                           w->info.tablespaces[i].oid, w->info.tablespaces[i].location,
                           w->info.tablespaces[i].oid, w->info.tablespaces[i].oid);
    return true;
}

/* A link is no copy of what it leads to. Without a backup_label recovery begins with the WAL that
 * the cluster itself has; with one, the archive has it. */
static bool check_links(const struct backup_write *w, struct err *err)
{
    static const struct {
        const char *name;
        bool wal;
    } dirs[] = {{"base", false},         {"pg_xact", false}, {"pg_clog", false},
                {"pg_multixact", false}, {"pg_wal", true},   {"pg_xlog", true}};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        const struct member *m = backup_index_find(w->index, dirs[i].name);
        if (m != NULL && m->type == MEMBER_SYMLINK && !(dirs[i].wal && w->has_label))
            return err_set(err, ERR_INVALID,
                           "%s is a symlink, and what it leads to was not copied, without which "
                           "%s cannot start: copy with links followed (cp -aL, rsync -aL)",
                           dirs[i].name,
                           dirs[i].wal ? "a cluster that has no backup_label" : "no cluster");
    }
    return true;
}

bool backup_write_check_cluster(const struct backup_write *w, struct err *err)
{
    if (!w->has_version)
        return err_set(err, ERR_INVALID, "this is no data directory: it has no PG_VERSION");
    if (!w->has_control)
        return err_set(err, ERR_INVALID, "this is no data directory: it has no global/pg_control");
    if (w->has_pid)
        return err_set(err, ERR_INVALID,
                       "it has a postmaster.pid: stop the server before copying its files, or take "
                       "a snapshot without that file");
    return check_links(w, err) && check_tablespaces(w, err);
}

/* ---- storing what remains ---- */

static bool put_text(struct backup_write *w, const char *rest, const char *text, bool if_absent,
                     struct err *err)
{
    struct call once;
    char key[STORE_KEY_MAX];
    backup_write_key(w, rest, key);
    const struct store_put put = {.body = {.mem = text, .size = strlen(text)},
                                  .only_if_absent = if_absent};
    return w->opt.store->ops->put(w->opt.store, key, &put, NULL, backup_write_once(w, &once), err);
}

/* PART is what was written to FROM. */
static bool copy_object(struct backup_write *w, const char *from,
                        const struct index_partition *part, const char *to, struct store_info *info,
                        struct err *err)
{
    uint64_t most = w->opt.copy_max_bytes == 0 ? COPY_MAX_BYTES : w->opt.copy_max_bytes;
    const struct object_copy copy = {.store = w->opt.store,
                                     .pool = w->opt.pool,
                                     .from = from,
                                     .to = to,
                                     .etag = part->etag,
                                     .size = part->stored_size,
                                     .store_max = most,
                                     .stall_ms = w->opt.stall_ms,
                                     .call = w->opt.call};
    return object_copy(&copy, info, err);
}

/* What was begun before the name was known. The originals stay until the backup is complete. */
static bool copy_temporaries(struct backup_write *w, struct err *err)
{
    for (size_t i = 0; i < w->count; i++) {
        char key[STORE_KEY_MAX];
        struct store_info info;
        struct index_partition *part = &w->index->partitions[i];
        if (!w->begun[i].temporary)
            continue;
        backup_write_partition_key(w, i, key);
        if (!copy_object(w, w->begun[i].key, part, key, &info, err))
            return false;
        if (info.size != part->stored_size)
            return err_set(err, ERR_CORRUPT, "%s: the store's copy has another size", key);
        strcpy(part->etag, info.etag);
    }
    return true;
}

/* The index is small beside the partitions: it is coded into memory. */
struct memory_sink {
    struct sink base;
    char *data;
    size_t len, cap;
};

static bool memory_write(struct sink *self, const void *data, size_t n, struct err *err)
{
    struct memory_sink *m = (struct memory_sink *)self;
    if (m->cap - m->len < n) {
        size_t cap = 2 * (m->len + n);
        char *more = realloc(m->data, cap);
        if (more == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        m->data = more;
        m->cap = cap;
    }
    memcpy(m->data + m->len, data, n);
    m->len += n;
    return true;
}

static bool memory_finish(struct sink *self, struct err *err)
{
    (void)self;
    (void)err;
    return true;
}

static bool store_index(struct backup_write *w, struct err *err)
{
    struct call once;
    char key[STORE_KEY_MAX];
    struct memory_sink coded = {.base = {.write = memory_write, .finish = memory_finish}};
    struct source *text = backup_index_write(w->index, err);
    bool ok =
        text != NULL && codec_encode(w->opt.pgp, text, &coded.base, false, NULL, w->opt.call, err);
    source_close(text);
    backup_write_key(w, INDEX_REST, key);
    const struct store_put put = {.body = {.mem = coded.data, .size = coded.len}};
    ok = ok &&
         w->opt.store->ops->put(w->opt.store, key, &put, NULL, backup_write_once(w, &once), err);
    free(coded.data);
    return ok;
}

static bool note_checksums(struct backup_write *w, struct err *err)
{
    struct backup_info *info = &w->info;
    info->partition_sha256 = calloc(w->count + 1, sizeof(char *));
    for (size_t i = 0; info->partition_sha256 != NULL && i < w->count; i++) {
        info->partition_sha256[i] = strdup(w->begun[i].sha256);
        if (info->partition_sha256[i] == NULL)
            break;
        info->partition_count++;
    }
    return (info->partition_sha256 != NULL && info->partition_count == w->count) ||
           err_set(err, ERR_NO_MEMORY, "out of memory");
}

/* Is all of it there, and still ours? Somebody may have taken it for a dead writer's. */
static bool check_stored(struct backup_write *w, struct err *err)
{
    struct call once;
    char key[STORE_KEY_MAX], text[GUARD_TEXT_MAX];
    struct backup_objects objects;
    backup_write_key(w, GUARD_REST, key);
    backup_write_guard_text(w, text);
    enum holder holder = backup_write_holder(w, key, text, backup_write_once(w, &once), err);
    if (holder == HOLDER_UNKNOWN)
        return false;
    bool ok = holder == HOLDER_US ||
              err_set(err, ERR_EXISTS,
                      "%s was removed by somebody, or taken over, while it was being written",
                      w->info.name);
    if (!ok || !backup_objects_load(w->opt.store, w->info.name, &objects,
                                    backup_write_once(w, &once), err))
        return false;
    ok = objects.partition_count == w->count;
    for (size_t i = 0; ok && i < w->count; i++) /* they come first, by number */
        ok = objects.objects[i].number == i &&
             objects.objects[i].size == w->index->partitions[i].stored_size;
    backup_objects_free(&objects);
    return ok ||
           err_set(err, ERR_CORRUPT,
                   "%s: the store does not have all partitions as they were stored", w->info.name);
}

static bool store_sentinel(struct backup_write *w, struct err *err)
{
    struct call once;
    char key[STORE_KEY_MAX];
    w->sentinel = note_checksums(w, err) ? sentinel_format(&w->info, err) : NULL;
    if (w->sentinel == NULL)
        return false;
    if (put_text(w, BACKUP_SENTINEL_SUFFIX, w->sentinel, true, err))
        return true;
    /* the answer to a put can get lost, and its retry then finds the name taken */
    backup_write_key(w, BACKUP_SENTINEL_SUFFIX, key);
    return err->code == ERR_EXISTS &&
           backup_write_holder(w, key, w->sentinel, backup_write_once(w, &once), err) == HOLDER_US;
}

static bool store_version(struct backup_write *w, struct err *err)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "PostgreSQL %.40s\n", w->info.version);
    return put_text(w, VERSION_REST, text, false, err);
}

/* The backup is complete: what else was stored has served. */
static void clean_up(struct backup_write *w)
{
    struct call once;
    char guard[STORE_KEY_MAX];
    const char **keys = calloc(w->count + 1, sizeof(*keys));
    struct err err = {.code = ERR_NO_MEMORY, .text = "out of memory"};
    size_t n = 0;
    backup_write_key(w, GUARD_REST, guard);
    for (size_t i = 0; keys != NULL && i < w->count; i++)
        if (w->begun[i].temporary)
            keys[n++] = w->begun[i].key;
    if (keys != NULL)
        keys[n++] = guard;
    if (keys == NULL ||
        !w->opt.store->ops->remove(w->opt.store, keys, n, backup_write_once(w, &once), &err))
        log_warn("%s is complete; its temporary objects stay behind, which does no harm: %s",
                 w->info.name, err.text);
    free(keys);
}

/* A cluster that was copied whole has its name from pg_control, which is certain only now: a
 * backup_label might still have come. */
static bool name_without_label(struct backup_write *w, struct err *err)
{
    return w->guarded || backup_write_take_name(w, err);
}

static bool commit(struct backup_write *w, struct err *err)
{
    return backup_write_check_cluster(w, err) && name_without_label(w, err) &&
           backup_write_settle(w, true, 0, err) && copy_temporaries(w, err) &&
           backup_index_seal(w->index, err) && store_version(w, err) && store_index(w, err) &&
           check_stored(w, err) && store_sentinel(w, err);
}

bool backup_write_commit(struct backup_write *w, const struct backup_position *stop,
                         struct err *err)
{
    if (!backup_write_usable(w, err))
        return false;
    w->info.stop = stop->tli != 0 ? *stop : w->checkpoint;
    if (!backup_write_note(w, commit(w, err), err))
        return false;
    w->committed = true;
    clean_up(w);
    return true;
}
