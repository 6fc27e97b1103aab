#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/catalog.h"
#include "core/log.h"
#include "core/tar_read.h"

/* Members of which more than their place is looked at are no larger. */
#define LOOKED_AT_MAX (1u << 20)
#define TABLESPACES "pg_tblspc/"

struct backup_write *backup_write_new(const struct backup_write_options *options, struct err *err)
{
    unsigned char random[16];
    struct backup_write *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->opt = *options;
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

/* ---- partitions ---- */

static void partition_key(const struct backup_write *w, unsigned number, char out[STORE_KEY_MAX])
{
    if (w->guarded)
        (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s/tar_partitions/part_%08u.tar.lzo",
                       w->info.name, number);
    else
        (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "walefs-tmp-%s/part_%08u.tar.lzo",
                       w->token, number);
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
    partition_key(w, (unsigned)w->count, key);
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

static bool put_member(struct backup_write *w, const struct member *m, struct source *data,
                       struct err *err)
{
    struct member copy = *m;
    if (!make_room(w, m->size, err))
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

/* ---- what members tell ---- */

void backup_write_guard_key(const struct backup_write *w, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s/tar_partitions/walefs-writing.lzo",
                   w->info.name);
}

static bool name_is_free(struct backup_write *w, const char *guard, struct err *err)
{
    char sentinel[STORE_KEY_MAX];
    struct store_info info;
    struct err absent = ERR_INIT;
    struct store *store = w->opt.store;
    struct backup_objects objects;
    (void)snprintf(sentinel, sizeof(sentinel), BACKUP_PREFIX "%s" BACKUP_SENTINEL_SUFFIX,
                   w->info.name);
    if (store->ops->head(store, sentinel, &info, w->opt.call, &absent))
        return err_set(err, ERR_EXISTS,
                       "the archive has a complete backup %s, which begins at the same place in "
                       "the WAL: it is this one, or wait until WAL has moved on",
                       w->info.name);
    if (absent.code != ERR_ABSENT) {
        *err = absent;
        return false;
    }
    if (!backup_objects_load(store, w->info.name, &objects, w->opt.call, err))
        return false;
    bool empty =
        objects.count == 0 || (objects.count == 1 && strcmp(objects.objects[0].key, guard) == 0);
    backup_objects_free(&objects);
    return empty || err_set(err, ERR_EXISTS,
                            "the archive has an incomplete backup %s: remove it with rmdir (and "
                            "-o allow_delete), or wait for its writer",
                            w->info.name);
}

bool backup_write_take_name(struct backup_write *w, struct err *err)
{
    static const char text[] = "This backup is being written by walefs.\n";
    char guard[STORE_KEY_MAX];
    if (!backup_name_format(&w->info.start, w->info.segment_size, w->info.name))
        return err_set(err, ERR_INVALID, "the backup's start position gives no name");
    backup_write_guard_key(w, guard);
    const struct store_put put = {.body = {.mem = text, .size = sizeof(text) - 1},
                                  .only_if_absent = true};
    if (!name_is_free(w, guard, err))
        return false;
    if (!w->opt.store->ops->put(w->opt.store, guard, &put, NULL, w->opt.call, err)) {
        if (err->code == ERR_EXISTS)
            err_set(err, ERR_EXISTS,
                    "%s is being written already; if that writer has died, remove what it left "
                    "with rmdir (and -o allow_delete)",
                    w->info.name);
        w->info.name[0] = '\0';
        return false;
    }
    w->guarded = true;
    return true;
}

static bool on_label(struct backup_write *w, const char *text, size_t n, struct err *err)
{
    uint32_t segment_size;
    if (!backup_label_parse(text, n, &w->info.start, &segment_size, NULL, 0, err))
        return false;
    if (w->info.segment_size == 0)
        w->info.segment_size = segment_size;
    w->has_label = w->info.start_sure = true;
    return w->info.segment_size == 0 || w->guarded || backup_write_take_name(w, err);
}

static bool on_control(struct backup_write *w, const char *data, size_t n, struct err *err)
{
    struct control_facts c;
    if (!control_parse(data, n, &c, err))
        return false;
    if (!c.crc_ok)
        return err_set(err, ERR_INVALID, "global/pg_control fails its checksum");
    w->has_control = true;
    w->info.system_id = c.system_id;
    w->info.segment_size = c.segment_size;
    w->checkpoint = (struct backup_position){.tli = c.redo.tli, .lsn = c.checkpoint};
    if (w->has_label)
        return w->guarded || backup_write_take_name(w, err);
    w->info.start = c.redo;
    w->info.start_sure = true;
    return true;
}

static bool on_version(struct backup_write *w, const char *text, size_t n, struct err *err)
{
    char *copy = strndup(text, n < 32 ? n : 32);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    copy[strcspn(copy, "\r\n")] = '\0';
    free(w->info.version);
    w->info.version = copy;
    w->has_version = true;
    return true;
}

static bool is_looked_at(const char *path)
{
    return strcmp(path, "backup_label") == 0 || strcmp(path, "tablespace_map") == 0 ||
           strcmp(path, "PG_VERSION") == 0 || strcmp(path, "global/pg_control") == 0;
}

static bool look_at(struct backup_write *w, const char *path, const char *data, size_t n,
                    struct err *err)
{
    if (strcmp(path, "backup_label") == 0)
        return on_label(w, data, n, err);
    if (strcmp(path, "tablespace_map") == 0)
        return tablespace_map_parse(data, n, &w->info, err);
    if (strcmp(path, "PG_VERSION") == 0)
        return on_version(w, data, n, err);
    return on_control(w, data, n, err);
}

/* Reads it before a partition is chosen: it may be what names the backup. */
static bool put_looked_at(struct backup_write *w, const struct member *m, struct source *data,
                          struct err *err)
{
    if (m->size > LOOKED_AT_MAX)
        return err_set(err, ERR_INVALID, "%s is too large to be what its name says", m->path);
    char *text = malloc((size_t)m->size + 1);
    if (text == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    ssize_t n = m->size == 0 ? 0 : source_read_full(data, text, (size_t)m->size, err);
    bool ok = n >= 0;
    if (ok && (uint64_t)n != m->size)
        ok = err_set(err, ERR_INVALID, "%s breaks off", m->path);
    struct source *again =
        ok && look_at(w, m->path, text, (size_t)n, err) ? source_mem(text, (size_t)n, err) : NULL;
    ok = again != NULL && put_member(w, m, again, err);
    source_close(again);
    free(text);
    return ok;
}

/* A tablespace's link is not a member: the sentinel tells where it led. */
static bool note_link(struct backup_write *w, const struct member *m, struct err *err)
{
    const char *oid = m->path + strlen(TABLESPACES);
    char **links = realloc(w->links, (w->link_count + 1) * sizeof(*links));
    if (links != NULL)
        w->links = links;
    char *copy = links == NULL ? NULL : strdup(oid);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    links[w->link_count++] = copy;
    for (size_t i = 0; i < w->info.tablespace_count; i++)
        if (strcmp(w->info.tablespaces[i].oid, oid) == 0)
            return true; /* tablespace_map knows better: links are rewritten on the way */
    return backup_info_set_tablespace(&w->info, oid, m->link) ||
           err_set(err, ERR_NO_MEMORY, "out of memory");
}

static bool is_tablespace_link(const struct member *m)
{
    return m->type == MEMBER_SYMLINK && strncmp(m->path, TABLESPACES, strlen(TABLESPACES)) == 0 &&
           strchr(m->path + strlen(TABLESPACES), '/') == NULL;
}

bool backup_write_member(struct backup_write *w, const struct member *m, struct source *data,
                         struct err *err)
{
    char path[BACKUP_PATH_MAX];
    struct member copy = *m;
    if (!backup_path_normalise(m->path, path, err))
        return false;
    copy.path = path;
    if (m->type == MEMBER_HARDLINK)
        return err_set(err, ERR_INVALID, "%.200s is a hard link: PostgreSQL has none", path);
    if (is_tablespace_link(&copy))
        return note_link(w, &copy, err);
    if (strcmp(path, "postmaster.pid") == 0)
        w->has_pid = true;
    if (copy.type == MEMBER_FILE && is_looked_at(path))
        return put_looked_at(w, &copy, data, err);
    return put_member(w, &copy, data, err);
}

/* ---- tar streams ---- */

struct member_data {
    struct source base;
    struct tar_reader *tar;
};

static ssize_t member_read(struct source *self, void *buf, size_t n, struct err *err)
{
    return tar_reader_data(((struct member_data *)self)->tar, buf, n, err);
}

static void member_close(struct source *self)
{
    (void)self;
}

static bool tar_member(struct backup_write *w, struct tar_reader *tar, struct member *m,
                       const char *prefix, struct err *err)
{
    struct member_data data = {.base = {.read = member_read, .close = member_close}, .tar = tar};
    char path[BACKUP_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] == '\0' ? "" : "/", m->path);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(err, ERR_INVALID, "a path that is too long: %.200s", m->path);
    m->path = path;
    return backup_write_member(w, m, &data.base, err);
}

bool backup_write_tar(struct backup_write *w, struct source *tar, const char *prefix,
                      struct err *err)
{
    struct member m;
    bool known;
    int rc = -1;
    struct tar_reader *r = tar_reader_new(tar, "the tar stream", err);
    while (r != NULL && (rc = tar_reader_next(r, &m, &known, err)) > 0) {
        if (!known)
            log_warn("%.200s is neither a file, a directory nor a link: left out", m.path);
        else if (!tar_member(w, r, &m, prefix, err)) {
            rc = -1;
            break;
        }
        struct member skipped = {.size = 0};
        uint64_t ignored;
        if (!tar_reader_skip(r, &skipped, &ignored, err)) {
            rc = -1;
            break;
        }
    }
    bool ok = rc == 0 && tar_reader_finish(r, err);
    tar_reader_free(r);
    if (!ok && err->code == ERR_CORRUPT) /* it is the writer's, not the archive's */
        err->code = ERR_INVALID;
    return ok;
}
