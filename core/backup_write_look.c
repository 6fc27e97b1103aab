/* What the members of a backup tell of it, noted while they pass. */
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"

/* Members of which more than their place is looked at are no larger. */
#define LOOKED_AT_MAX (1u << 20)
#define TABLESPACES "pg_tblspc/"
#define OID_DIGITS_MAX 10u
#define VERSION_MAX 16u
#define INCREMENTAL_LINE "\nINCREMENTAL FROM "

/* The name is made with the size, so that it must not change. */
static bool take_segment_size(struct backup_write *w, uint32_t size, struct err *err)
{
    if (size == 0)
        return true;
    if (w->info.segment_size != 0 && w->info.segment_size != size)
        return err_set(err, ERR_INVALID,
                       "backup_label and global/pg_control belong to different clusters: WAL "
                       "segments of %u and %u bytes",
                       w->info.segment_size, size);
    w->info.segment_size = size;
    return true;
}

/* Only pg_combinebackup makes a cluster of it, together with those it builds on. */
bool backup_write_is_incremental(const char *why, struct err *err)
{
    return err_set(
        err, ERR_INVALID,
        "this is an incremental backup (%.200s), of which alone nothing can be restored: "
        "only full ones are kept here; pg_combinebackup makes one out of several",
        why);
}

static bool on_label(struct backup_write *w, const char *text, size_t n, struct err *err)
{
    uint32_t segment_size;
    if (memmem(text, n, INCREMENTAL_LINE, strlen(INCREMENTAL_LINE)) != NULL)
        return backup_write_is_incremental("backup_label says so", err);
    if (!backup_label_parse(text, n, &w->info.start, &segment_size, NULL, 0, err) ||
        !take_segment_size(w, segment_size, err))
        return false;
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
    if (!take_segment_size(w, c.segment_size, err))
        return false;
    w->has_control = true;
    w->info.system_id = c.system_id;
    w->checkpoint = (struct backup_position){.tli = c.redo.tli, .lsn = c.checkpoint};
    if (w->has_label)
        return w->guarded || backup_write_take_name(w, err);
    w->info.start = c.redo; /* unless a backup_label comes: see the commit */
    w->info.start_sure = true;
    return true;
}

static bool on_version(struct backup_write *w, const char *text, size_t n, struct err *err)
{
    char version[VERSION_MAX + 1];
    size_t len = n < VERSION_MAX ? n : VERSION_MAX;
    memcpy(version, text, len);
    version[len] = '\0';
    version[strcspn(version, "\r\n")] = '\0';
    if (version[0] == '\0' || version[strspn(version, "0123456789.")] != '\0')
        return err_set(err, ERR_INVALID, "PG_VERSION does not hold a version");
    char *copy = strdup(version);
    if (copy == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    free(w->info.version);
    w->info.version = copy;
    w->has_version = true;
    return true;
}

bool backup_write_is_looked_at(const struct member *m)
{
    return m->type == MEMBER_FILE &&
           (strcmp(m->path, "backup_label") == 0 || strcmp(m->path, "tablespace_map") == 0 ||
            strcmp(m->path, "PG_VERSION") == 0 || strcmp(m->path, "global/pg_control") == 0);
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

bool backup_write_look(struct backup_write *w, const struct member *m, struct source *data,
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
    ok = again != NULL && backup_write_put(w, m, again, err);
    source_close(again);
    free(text);
    return ok;
}

/* Any other link is a link like those elsewhere. */
bool backup_write_is_tablespace_link(const struct member *m)
{
    if (m->type != MEMBER_SYMLINK || strncmp(m->path, TABLESPACES, strlen(TABLESPACES)) != 0)
        return false;
    const char *oid = m->path + strlen(TABLESPACES);
    size_t digits = strspn(oid, "0123456789");
    return digits > 0 && digits <= OID_DIGITS_MAX && oid[digits] == '\0';
}

bool backup_write_note_link(struct backup_write *w, const struct member *m, struct err *err)
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
