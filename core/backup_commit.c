/* The end of writing a backup: all or nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/codec.h"
#include "core/log.h"
#include "core/part_sink.h"

#define COPY_PART_BYTES (8u << 20)

static void object_key(const struct backup_write *w, const char *rest, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s%s", w->info.name, rest);
}

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

static bool check_tablespaces(const struct backup_write *w, struct err *err)
{
    for (size_t i = 0; i < w->link_count; i++)
        if (!has_below(w->index, w->links[i]))
            return err_set(err, ERR_INVALID,
                           "pg_tblspc/%s is a symlink, and what it leads to was not copied: copy "
                           "with links followed (cp -aL, rsync -aL), or use pg_basebackup -Ft",
                           w->links[i]);
    return true;
}

static bool check_cluster(const struct backup_write *w, struct err *err)
{
    if (!w->has_version)
        return err_set(err, ERR_INVALID, "this is no data directory: it has no PG_VERSION");
    if (!w->has_control)
        return err_set(err, ERR_INVALID, "this is no data directory: it has no global/pg_control");
    if (w->has_pid)
        return err_set(err, ERR_INVALID,
                       "it has a postmaster.pid: stop the server before copying its files, or take "
                       "a snapshot without that file");
    return check_tablespaces(w, err);
}

/* ---- storing what remains ---- */

static bool put_text(struct backup_write *w, const char *rest, const char *text, bool if_absent,
                     struct err *err)
{
    char key[STORE_KEY_MAX];
    object_key(w, rest, key);
    const struct store_put put = {.body = {.mem = text, .size = strlen(text)},
                                  .only_if_absent = if_absent};
    return w->opt.store->ops->put(w->opt.store, key, &put, NULL, w->opt.call, err);
}

/* Copies through this host, for stores that cannot copy (Ceph does not where it encrypts). */
static bool copy_through(struct backup_write *w, const char *from, const char *to,
                         struct store_info *info, struct err *err)
{
    struct store *store = w->opt.store;
    struct store_info of_from;
    struct sink *out = NULL;
    const struct part_sink_options options = {.store = store,
                                              .pool = w->opt.pool,
                                              .key = to,
                                              .part_bytes = COPY_PART_BYTES,
                                              .parallel = 2,
                                              .stall_ms = w->opt.stall_ms,
                                              .call = w->opt.call,
                                              .info = info};
    struct source *body = store->ops->get(store, from, 0, UINT64_MAX, &of_from, w->opt.call, err);
    if (body != NULL)
        out = part_sink_new(&options, err);
    bool ok = out != NULL && stream_copy(body, out, err) && out->finish(out, err);
    sink_close(out);
    source_close(body);
    return ok;
}

static bool copy_object(struct backup_write *w, const char *from, const char *to,
                        struct store_info *info, struct err *err)
{
    if (w->opt.store->ops->copy(w->opt.store, from, to, info, w->opt.call, err))
        return true;
    return err->code == ERR_UNSUPPORTED && copy_through(w, from, to, info, err);
}

/* What was stored before the name was known. */
static bool move_temporaries(struct backup_write *w, struct err *err)
{
    for (size_t i = 0; i < w->count; i++) {
        char rest[64], key[STORE_KEY_MAX];
        struct begun *b = &w->begun[i];
        struct store_info info;
        if (!b->temporary)
            continue;
        (void)snprintf(rest, sizeof(rest), "/tar_partitions/part_%08zu.tar.lzo", i);
        object_key(w, rest, key);
        if (!copy_object(w, b->key, key, &info, err))
            return false;
        struct index_partition *part = &w->index->partitions[i];
        if (info.size != part->stored_size)
            return err_set(err, ERR_CORRUPT, "%s: the store's copy has another size", key);
        strcpy(part->etag, info.etag);
        const char *old[] = {b->key};
        struct err ignored = ERR_INIT;
        if (!w->opt.store->ops->remove(w->opt.store, old, 1, w->opt.call, &ignored))
            log_warn("%s stays behind: %s", b->key, ignored.text);
        char *copy = strdup(key);
        if (copy == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        free(b->key);
        b->key = copy;
        b->temporary = false;
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
    char key[STORE_KEY_MAX];
    struct memory_sink coded = {.base = {.write = memory_write, .finish = memory_finish}};
    struct source *text = backup_index_write(w->index, err);
    bool ok =
        text != NULL && codec_encode(w->opt.pgp, text, &coded.base, false, NULL, w->opt.call, err);
    source_close(text);
    object_key(w, "/tar_partitions/" BACKUP_INDEX_NAME, key);
    const struct store_put put = {.body = {.mem = coded.data, .size = coded.len}};
    ok = ok && w->opt.store->ops->put(w->opt.store, key, &put, NULL, w->opt.call, err);
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

/* Is the sentinel that is there the one that we sent? The answer to a put can get lost. */
static bool is_our_sentinel(struct backup_write *w, const char *text)
{
    char key[STORE_KEY_MAX];
    struct store_info info;
    struct err ignored = ERR_INIT;
    object_key(w, BACKUP_SENTINEL_SUFFIX, key);
    struct source *body =
        w->opt.store->ops->get(w->opt.store, key, 0, UINT64_MAX, &info, w->opt.call, &ignored);
    size_t n = strlen(text);
    char *have = malloc(n + 1);
    ssize_t got = body == NULL || have == NULL ? -1 : source_read_full(body, have, n + 1, &ignored);
    bool same = got == (ssize_t)n && memcmp(have, text, n) == 0;
    source_close(body);
    free(have);
    return same;
}

static bool store_sentinel(struct backup_write *w, struct err *err)
{
    char *text = note_checksums(w, err) ? sentinel_format(&w->info, err) : NULL;
    if (text == NULL)
        return false;
    w->sentinel_tried = true;
    bool ok = put_text(w, BACKUP_SENTINEL_SUFFIX, text, true, err);
    if (!ok && err->code == ERR_EXISTS) {
        ok = is_our_sentinel(w, text);
        w->sentinel_tried = ok;
    }
    free(text);
    return ok;
}

static bool store_version(struct backup_write *w, struct err *err)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "PostgreSQL %.40s\n", w->info.version);
    return put_text(w, "/extended_version.txt", text, false, err);
}

static void drop_guard(struct backup_write *w, const struct call *call)
{
    char key[STORE_KEY_MAX];
    const char *keys[] = {key};
    struct err err = ERR_INIT;
    backup_write_guard_key(w, key);
    if (!w->opt.store->ops->remove(w->opt.store, keys, 1, call, &err))
        log_warn("%s stays behind, which does no harm: %s", key, err.text);
}

/* A cluster that was copied whole has its name from pg_control, which is certain only now: a
 * backup_label might still have come. */
static bool name_without_label(struct backup_write *w, struct err *err)
{
    return w->guarded || backup_write_take_name(w, err);
}

bool backup_write_commit(struct backup_write *w, const struct backup_position *stop,
                         struct err *err)
{
    w->info.stop = stop->tli != 0 ? *stop : w->checkpoint;
    if (!check_cluster(w, err) || !name_without_label(w, err) ||
        !backup_write_settle(w, true, 0, err) || !move_temporaries(w, err) ||
        !backup_index_seal(w->index, err) || !store_version(w, err) || !store_index(w, err) ||
        !store_sentinel(w, err))
        return false;
    w->committed = true;
    drop_guard(w, w->opt.call);
    return true;
}

/* First, as always: a sentinel without its partitions would look like a backup. */
static bool retract_sentinel(struct backup_write *w, const struct call *call)
{
    char key[STORE_KEY_MAX];
    const char *keys[] = {key};
    struct err err = ERR_INIT;
    if (!w->sentinel_tried)
        return true;
    object_key(w, BACKUP_SENTINEL_SUFFIX, key);
    if (w->opt.store->ops->remove(w->opt.store, keys, 1, call, &err))
        return true;
    log_warn("%s may be complete although its writer was told that it is not: %s", w->info.name,
             err.text);
    return false;
}

void backup_write_abort(struct backup_write *w, const struct call *call)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < w->count; i++) {
        partition_write_free(w->begun[i].writing);
        w->begun[i].writing = NULL;
    }
    w->open = false;
    if (w->committed || !retract_sentinel(w, call))
        return;
    const char **keys = calloc(w->count + 4, sizeof(*keys));
    char index[STORE_KEY_MAX], version[STORE_KEY_MAX], guard[STORE_KEY_MAX];
    size_t n = 0;
    for (size_t i = 0; keys != NULL && i < w->count; i++)
        keys[n++] = w->begun[i].key;
    if (keys != NULL && w->guarded) {
        object_key(w, "/tar_partitions/" BACKUP_INDEX_NAME, index);
        object_key(w, "/extended_version.txt", version);
        backup_write_guard_key(w, guard);
        keys[n++] = index;
        keys[n++] = version;
        keys[n++] = guard;
    }
    if (n > 0 && !w->opt.store->ops->remove(w->opt.store, keys, n, call, &err))
        log_warn("what was stored of the backup %s stays behind as incomplete: %s", w->info.label,
                 err.text);
    free(keys);
}
