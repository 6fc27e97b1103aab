#include "core/sentinel.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/wal_name.h"

#define NAME_PREFIX "base_"
#define DEFAULT_SEGMENT_SIZE (16u << 20)
#define TABLESPACES_MAX 10000u
#define PARTITIONS_MAX 1000000u
/* What our own members stand under, and the version of their meaning. */
#define OURS "walefs"
#define OURS_VERSION 1

/* ---- names ---- */

static bool hex_field(const char *s, size_t n, uint32_t *value)
{
    *value = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t digit;
        if (s[i] >= '0' && s[i] <= '9')
            digit = (uint32_t)(s[i] - '0');
        else if (s[i] >= 'A' && s[i] <= 'F')
            digit = (uint32_t)(s[i] - 'A') + 10;
        else
            return false;
        *value = *value << 4 | digit;
    }
    return true;
}

/* The LSN of a segment's first byte. */
static uint64_t segment_lsn(uint32_t log, uint32_t seg, uint32_t segment_size)
{
    return (uint64_t)log << 32 | (uint64_t)seg * segment_size;
}

bool backup_name_parse(const char *name, uint32_t segment_size, struct backup_position *pos)
{
    uint32_t tli, log, seg, ignored;
    const char *segment = name + strlen(NAME_PREFIX);
    if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 ||
        strlen(name) != strlen(NAME_PREFIX) + 24 + 1 + 8)
        return false;
    const char *offset = segment + 25;
    if (!hex_field(segment, 8, &tli) || !hex_field(segment + 8, 8, &log) ||
        !hex_field(segment + 16, 8, &seg) || segment[24] != '_' || !hex_field(offset, 8, &ignored))
        return false;
    if (pos == NULL)
        return true;
    if (segment_size == 0)
        segment_size = DEFAULT_SEGMENT_SIZE;
    *pos = (struct backup_position){
        .tli = tli, .lsn = segment_lsn(log, seg, segment_size) + strtoul(offset, NULL, 10)};
    return true;
}

bool backup_name_is_temporary(const char *name)
{
    size_t n = strlen(BACKUP_TEMP_PREFIX);
    return strncmp(name, BACKUP_TEMP_PREFIX, n) == 0 && strlen(name) == n + 32 &&
           strspn(name + n, "0123456789abcdef") == 32;
}

bool backup_name_format(const struct backup_position *start, uint32_t segment_size,
                        char out[BACKUP_NAME_MAX])
{
    if (start->tli == 0 || !wal_segment_size_valid(segment_size) ||
        start->lsn % segment_size > 99999999)
        return false;
    uint64_t per_log = UINT64_C(0x100000000) / segment_size;
    uint64_t segment = start->lsn / segment_size;
    (void)snprintf(out, BACKUP_NAME_MAX,
                   NAME_PREFIX "%08" PRIX32 "%08" PRIX64 "%08" PRIX64 "_%08" PRIu64, start->tli,
                   segment / per_log, segment % per_log, start->lsn % segment_size);
    return true;
}

/* The segment that holds POS, and the offset in it, as the sentinel writes them. */
static void position_fields(const struct backup_position *pos, uint32_t segment_size,
                            char segment[25], char offset[16])
{
    if (segment_size == 0)
        segment_size = DEFAULT_SEGMENT_SIZE;
    uint64_t per_log = UINT64_C(0x100000000) / segment_size;
    uint64_t number = pos->lsn / segment_size;
    (void)snprintf(segment, 25, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32, pos->tli,
                   (uint32_t)(number / per_log), (uint32_t)(number % per_log));
    (void)snprintf(offset, 16, "%08" PRIu64, pos->lsn % segment_size);
}

/* ---- reading ---- */

/* A string member, "" when there is none. NULL only without memory. */
static char *copy_string(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return strdup(s == NULL ? "" : s);
}

static uint64_t number_member(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (json_is_integer(v) && json_integer_value(v) > 0)
        return (uint64_t)json_integer_value(v);
    const char *s = json_string_value(v);
    return s == NULL ? 0 : strtoull(s, NULL, 10);
}

static bool lsn_member(const json_t *object, const char *name, uint64_t *lsn)
{
    const char *s = json_string_value(json_object_get(object, name));
    unsigned high, low;
    char rest;
    if (s == NULL || s[strspn(s, "0123456789ABCDEF/")] != '\0' || /* sscanf takes signs and 0x */
        sscanf(s, "%8X/%8X%c", &high, &low, &rest) != 2)
        return false;
    *lsn = (uint64_t)high << 32 | low;
    return true;
}

static bool is_utf8(const char *s)
{
    json_t *v = json_string(s);
    json_decref(v);
    return v != NULL;
}

bool backup_label_ok(const char *label)
{
    size_t n = strlen(label);
    if (n == 0 || n > 255 || strcmp(label, ".") == 0 || strcmp(label, "..") == 0 ||
        strcmp(label, "LATEST") == 0 || strncmp(label, NAME_PREFIX, strlen(NAME_PREFIX)) == 0)
        return false;
    for (const unsigned char *p = (const unsigned char *)label; *p != '\0'; p++)
        if (*p < ' ' || *p == '/' || *p == 0x7f)
            return false;
    return is_utf8(label);
}

bool backup_info_set_tablespace(struct backup_info *info, const char *oid, const char *location)
{
    for (size_t i = 0; i < info->tablespace_count; i++) {
        struct backup_tablespace *known = &info->tablespaces[i];
        if (strcmp(known->oid, oid) != 0)
            continue;
        char *copy = strdup(location);
        if (copy == NULL)
            return false;
        free(known->location);
        known->location = copy;
        return true;
    }
    struct backup_tablespace *all =
        realloc(info->tablespaces, (info->tablespace_count + 1) * sizeof(*all));
    if (all == NULL)
        return false;
    info->tablespaces = all;
    struct backup_tablespace t = {.oid = strdup(oid), .location = strdup(location)};
    if (t.oid == NULL || t.location == NULL) {
        free(t.oid);
        free(t.location);
        return false;
    }
    all[info->tablespace_count++] = t;
    return true;
}

static bool oid_ok(const char *oid)
{
    size_t n = strlen(oid);
    return n > 0 && n <= 10 && strspn(oid, "0123456789") == n;
}

static bool read_spec(const json_t *spec, struct backup_info *info)
{
    const json_t *names = json_object_get(spec, "tablespaces");
    size_t n = json_array_size(names);
    for (size_t i = 0; i < n && i < TABLESPACES_MAX; i++) {
        const char *oid = json_string_value(json_array_get(names, i));
        if (oid == NULL || !oid_ok(oid))
            continue;
        const char *loc = json_string_value(json_object_get(json_object_get(spec, oid), "loc"));
        if (!backup_info_set_tablespace(info, oid, loc == NULL ? "" : loc))
            return false;
    }
    return true;
}

static bool read_checksums(const json_t *ours, struct backup_info *info)
{
    const json_t *sums = json_object_get(ours, "partition_sha256");
    size_t n = json_array_size(sums);
    if (n == 0 || n > PARTITIONS_MAX)
        return true;
    info->partition_sha256 = calloc(n, sizeof(*info->partition_sha256));
    if (info->partition_sha256 == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *s = json_string_value(json_array_get(sums, i));
        char *copy = strdup(s == NULL ? "" : s);
        if (copy == NULL)
            return false;
        info->partition_sha256[info->partition_count++] = copy;
    }
    return true;
}

/* What walefs wrote itself. */
static void read_ours(const json_t *ours, struct backup_info *info)
{
    uint64_t size = number_member(ours, "segment_size");
    info->by_walefs = true;
    if (wal_segment_size_valid(size))
        info->segment_size = (uint32_t)size;
    info->system_id = number_member(ours, "system_identifier");
    uint64_t tli = number_member(ours, "timeline");
    if (tli > 0 && tli <= UINT32_MAX && lsn_member(ours, "start_lsn", &info->start.lsn)) {
        info->start.tli = (uint32_t)tli;
        info->start_sure = true;
    }
    tli = number_member(ours, "stop_timeline");
    if (tli > 0 && tli <= UINT32_MAX && lsn_member(ours, "stop_lsn", &info->stop.lsn))
        info->stop.tli = (uint32_t)tli;
}

static void read_stop_fields(struct backup_info *info)
{
    char name[80];
    (void)snprintf(name, sizeof(name), NAME_PREFIX "%.24s_%.8s", info->stop_segment,
                   info->stop_offset);
    if (info->stop.tli == 0 && !backup_name_parse(name, info->segment_size, &info->stop))
        info->stop = (struct backup_position){0};
}

static bool fill(const char *name, const json_t *root, struct backup_info *info)
{
    const json_t *ours = json_object_get(root, OURS), *spec = json_object_get(root, "spec");
    info->label = copy_string(ours, "label");
    if (info->label != NULL && !backup_label_ok(info->label))
        info->label[0] = '\0';
    info->version = copy_string(ours, "version");
    info->base_prefix = copy_string(spec, "base_prefix");
    info->stop_segment = copy_string(root, "wal_segment_backup_stop");
    info->stop_offset = copy_string(root, "wal_segment_offset_backup_stop");
    info->expanded_size = number_member(root, "expanded_size_bytes");
    if (info->label == NULL || info->version == NULL || info->base_prefix == NULL ||
        info->stop_segment == NULL || info->stop_offset == NULL || !read_spec(spec, info) ||
        !read_checksums(ours, info))
        return false;
    if (json_is_object(ours))
        read_ours(ours, info);
    if (info->start.tli == 0)
        (void)backup_name_parse(name, info->segment_size, &info->start);
    read_stop_fields(info);
    return true;
}

bool sentinel_parse(const char *name, const char *json, size_t n, struct backup_info *info,
                    struct err *err)
{
    json_error_t why;
    memset(info, 0, sizeof(*info));
    if (strlen(name) >= sizeof(info->name))
        return err_set(err, ERR_INVALID, "%.80s: not a backup's name", name);
    strcpy(info->name, name);
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_CORRUPT, "%s: its sentinel is no JSON object: %s", name,
                       root == NULL ? why.text : "something else");
    }
    bool ok = fill(name, root, info);
    json_decref(root);
    if (ok)
        return true;
    backup_info_free(info);
    return err_set(err, ERR_NO_MEMORY, "out of memory");
}

void backup_info_free(struct backup_info *info)
{
    for (size_t i = 0; i < info->tablespace_count; i++) {
        free(info->tablespaces[i].oid);
        free(info->tablespaces[i].location);
    }
    for (size_t i = 0; i < info->partition_count; i++)
        free(info->partition_sha256[i]);
    free(info->tablespaces);
    free(info->partition_sha256);
    free(info->label);
    free(info->version);
    free(info->base_prefix);
    free(info->stop_segment);
    free(info->stop_offset);
    memset(info, 0, sizeof(*info));
}

static bool copy_strings(const struct backup_info *from, struct backup_info *to)
{
    to->label = strdup(from->label);
    to->version = strdup(from->version);
    to->base_prefix = strdup(from->base_prefix);
    to->stop_segment = strdup(from->stop_segment);
    to->stop_offset = strdup(from->stop_offset);
    bool ok = to->label != NULL && to->version != NULL && to->base_prefix != NULL &&
              to->stop_segment != NULL && to->stop_offset != NULL;
    for (size_t i = 0; ok && i < from->tablespace_count; i++)
        ok =
            backup_info_set_tablespace(to, from->tablespaces[i].oid, from->tablespaces[i].location);
    if (ok && from->partition_count > 0) {
        to->partition_sha256 = calloc(from->partition_count, sizeof(char *));
        ok = to->partition_sha256 != NULL;
    }
    for (size_t i = 0; ok && i < from->partition_count; i++) {
        to->partition_sha256[i] = strdup(from->partition_sha256[i]);
        ok = to->partition_sha256[i] != NULL;
        to->partition_count += ok;
    }
    return ok;
}

bool backup_info_copy(const struct backup_info *from, struct backup_info *to, struct err *err)
{
    *to = *from;
    to->label = to->version = to->base_prefix = to->stop_segment = to->stop_offset = NULL;
    to->tablespaces = NULL;
    to->partition_sha256 = NULL;
    to->tablespace_count = to->partition_count = 0;
    if (copy_strings(from, to))
        return true;
    backup_info_free(to);
    return err_set(err, ERR_NO_MEMORY, "out of memory");
}

/* ---- writing ---- */

/* Names and paths are bytes; JSON takes UTF-8 only. */
static json_t *text(const char *s)
{
    json_t *v = json_string(s == NULL ? "" : s);
    return v != NULL ? v : json_string("");
}

static json_t *text_or_null(const char *s)
{
    return s == NULL || *s == '\0' ? json_null() : text(s);
}

static json_t *lsn_text(const struct backup_position *pos)
{
    return pos->tli == 0 ? json_null()
                         : json_sprintf("%X/%X", (unsigned)(pos->lsn >> 32), (unsigned)pos->lsn);
}

static json_t *checksums(const struct backup_info *info)
{
    json_t *sums = json_array();
    for (size_t i = 0; i < info->partition_count; i++)
        json_array_append_new(sums, text(info->partition_sha256[i]));
    return sums;
}

static json_t *spec_of(const struct backup_info *info)
{
    json_t *spec = json_object(), *names = json_array();
    for (size_t i = 0; i < info->tablespace_count; i++) {
        const struct backup_tablespace *t = &info->tablespaces[i];
        json_array_append_new(names, text(t->oid));
        json_object_set_new(spec, t->oid,
                            json_pack("{s:o, s:o}", "loc", text(t->location), "link",
                                      json_sprintf("pg_tblspc/%s", t->oid)));
    }
    json_object_set_new(spec, "base_prefix", text(info->base_prefix));
    json_object_set_new(spec, "tablespaces", names);
    return spec;
}

static char *dump(json_t *root, size_t flags, struct err *err)
{
    char *s = root == NULL ? NULL : json_dumps(root, flags);
    json_decref(root);
    if (s == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return s;
}

char *sentinel_format(const struct backup_info *info, struct err *err)
{
    char segment[25], offset[16];
    position_fields(&info->stop, info->segment_size, segment, offset);
    json_t *ours = json_object();
    json_object_set_new(ours, "format", json_integer(OURS_VERSION));
    json_object_set_new(ours, "label", text(info->label));
    json_object_set_new(ours, "start_lsn", lsn_text(&info->start));
    json_object_set_new(ours, "timeline", json_integer(info->start.tli));
    json_object_set_new(ours, "stop_lsn", lsn_text(&info->stop));
    json_object_set_new(ours, "stop_timeline", json_integer(info->stop.tli));
    json_object_set_new(ours, "segment_size", json_integer(info->segment_size));
    json_object_set_new(ours, "system_identifier", json_sprintf("%" PRIu64, info->system_id));
    json_object_set_new(ours, "version", text(info->version));
    json_object_set_new(ours, "partition_sha256", checksums(info));
    json_t *root = json_object();
    json_object_set_new(root, "wal_segment_backup_stop", text(segment));
    json_object_set_new(root, "wal_segment_offset_backup_stop", text(offset));
    json_object_set_new(root, "expanded_size_bytes", json_integer((json_int_t)info->expanded_size));
    json_object_set_new(root, "spec", spec_of(info));
    json_object_set_new(root, OURS, ours);
    return dump(root, JSON_SORT_KEYS, err);
}

/* The member's name is the first thing on its line, and tablespaces stand one on a line each. */
static json_t *tablespaces_of(const struct backup_info *info)
{
    json_t *all = json_array();
    for (size_t i = 0; i < info->tablespace_count; i++)
        json_array_append_new(all, json_pack("{s:o, s:o}", "location",
                                             text(info->tablespaces[i].location), "oid",
                                             text(info->tablespaces[i].oid)));
    return all;
}

char *backup_json_format(const struct backup_info *info, int encrypted, int64_t stored_size,
                         uint64_t file_count, struct err *err)
{
    char segment[25], offset[16], stored_at[32];
    struct tm tm;
    time_t stored = (time_t)info->stored_s;
    json_t *o = json_object();
    gmtime_r(&stored, &tm);
    (void)strftime(stored_at, sizeof(stored_at), "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_object_set_new(o, "name", text(info->name));
    json_object_set_new(o, "label", text_or_null(info->label));
    json_object_set_new(o, "complete", json_true());
    json_object_set_new(o, "written_by", text(info->by_walefs ? "walefs" : "WAL-E"));
    json_object_set_new(o, "stored_at", text(stored_at));
    json_object_set_new(o, "start_lsn", lsn_text(&info->start));
    json_object_set_new(o, "timeline", json_integer(info->start.tli));
    position_fields(&info->start, info->segment_size, segment, offset);
    json_object_set_new(o, "start_wal_segment", text_or_null(info->start.tli == 0 ? "" : segment));
    json_object_set_new(o, "stop_lsn", lsn_text(&info->stop));
    json_object_set_new(o, "stop_timeline",
                        info->stop.tli == 0 ? json_null() : json_integer(info->stop.tli));
    position_fields(&info->stop, info->segment_size, segment, offset);
    json_object_set_new(o, "stop_wal_segment", text_or_null(info->stop.tli == 0 ? "" : segment));
    json_object_set_new(o, "segment_size",
                        info->segment_size == 0 ? json_null() : json_integer(info->segment_size));
    json_object_set_new(o, "system_identifier",
                        info->system_id == 0 ? json_null()
                                             : json_sprintf("%" PRIu64, info->system_id));
    json_object_set_new(o, "postgresql_version", text_or_null(info->version));
    json_object_set_new(o, "expanded_size_bytes", json_integer((json_int_t)info->expanded_size));
    json_object_set_new(o, "stored_size_bytes",
                        stored_size < 0 ? json_null() : json_integer(stored_size));
    json_object_set_new(o, "file_count",
                        stored_size < 0 ? json_null() : json_integer((json_int_t)file_count));
    json_object_set_new(o, "encrypted", encrypted < 0 ? json_null() : json_boolean(encrypted));
    json_object_set_new(o, "base_prefix", text_or_null(info->base_prefix));
    json_object_set_new(o, "tablespaces", tablespaces_of(info));
    json_object_set_new(o, "partition_sha256", checksums(info));
    char *s = dump(o, JSON_INDENT(2) | JSON_SORT_KEYS, err);
    if (s == NULL)
        return NULL;
    size_t n = strlen(s);
    char *line = realloc(s, n + 2);
    if (line == NULL) {
        free(s);
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    memcpy(line + n, "\n", 2);
    return line;
}
