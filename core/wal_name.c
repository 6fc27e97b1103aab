#include "core/wal_name.h"

#include <stdio.h>
#include <string.h>

/* N upper-case hex digits at S into *OUT. */
static bool hex_field(const char *s, size_t n, uint32_t *out)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return false;
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

struct wal_name wal_name_parse(const char *name)
{
    struct wal_name none = {.kind = WAL_OTHER};
    struct wal_name n = none;
    size_t len = strnlen(name, WAL_NAME_MAX);
    if (len < 8 || !hex_field(name, 8, &n.tli))
        return none;
    if (strcmp(name + 8, ".history") == 0) {
        n.kind = WAL_HISTORY;
        return n;
    }
    if (len < 24 || !hex_field(name + 8, 8, &n.log) || !hex_field(name + 16, 8, &n.seg))
        return none;
    uint32_t offset;
    const char *rest = name + 24;
    if (*rest == '\0')
        n.kind = WAL_SEGMENT;
    else if (strcmp(rest, ".partial") == 0)
        n.kind = WAL_PARTIAL;
    else if (len == 24 + 16 && rest[0] == '.' && hex_field(rest + 1, 8, &offset) &&
             strcmp(rest + 9, ".backup") == 0)
        n.kind = WAL_LABEL;
    else
        return none;
    return n;
}

bool wal_segment_size_valid(uint64_t size)
{
    return size >= WAL_SEGMENT_MIN && size <= WAL_SEGMENT_MAX && (size & (size - 1)) == 0;
}

bool wal_name_next(const struct wal_name *name, uint32_t segment_size, char out[WAL_NAME_MAX])
{
    uint32_t per_log = (uint32_t)((UINT64_C(1) << 32) / segment_size);
    if (name->seg >= per_log)
        return false;
    uint32_t log = name->log, seg = name->seg + 1;
    if (seg == per_log) {
        if (log == UINT32_MAX)
            return false;
        log++;
        seg = 0;
    }
    (void)snprintf(out, WAL_NAME_MAX, "%08X%08X%08X", name->tli, log, seg);
    return true;
}

bool wal_key_of_name(const char *name, char *out, size_t cap)
{
    int n = snprintf(out, cap, WAL_KEY_PREFIX "%s.lzo", name);
    return n > 0 && (size_t)n < cap;
}

bool wal_name_of_key(const char *key, char out[WAL_NAME_MAX])
{
    size_t prefix = strlen(WAL_KEY_PREFIX);
    size_t len = strlen(key);
    if (strncmp(key, WAL_KEY_PREFIX, prefix) != 0 || len < prefix + 4 ||
        strcmp(key + len - 4, ".lzo") != 0)
        return false;
    size_t name_len = len - prefix - 4;
    if (name_len >= WAL_NAME_MAX)
        return false;
    memcpy(out, key + prefix, name_len);
    out[name_len] = '\0';
    return wal_name_parse(out).kind != WAL_OTHER;
}
