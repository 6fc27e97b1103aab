#include "core/dump_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX ".lzo"
#define MARK '!'

bool dump_name_ok(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > DUMP_NAME_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (const char *p = name; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == '/')
            return false;
    return true;
}

static bool path_ok(const char *path)
{
    char name[DUMP_NAME_MAX + 1];
    if (strlen(path) > DUMP_PATH_MAX)
        return false;
    for (;;) {
        size_t n = strcspn(path, "/");
        if (n > DUMP_NAME_MAX)
            return false;
        memcpy(name, path, n);
        name[n] = '\0';
        if (!dump_name_ok(name))
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
    }
}

static bool refuse(const char *path, struct err *err)
{
    return err_set(
        err, ERR_INVALID,
        "dumps/%.100s cannot be a dump's name: at most %u bytes, each part at most %u, no "
        "control characters",
        path, DUMP_PATH_MAX, DUMP_NAME_MAX);
}

bool dump_key(const char *path, char key[STORE_KEY_MAX], struct err *err)
{
    if (!path_ok(path))
        return refuse(path, err);
    (void)snprintf(key, STORE_KEY_MAX, DUMP_PREFIX "%s" SUFFIX, path);
    return true;
}

bool dump_dir_prefix(const char *path, char prefix[STORE_KEY_MAX], struct err *err)
{
    if (path[0] != '\0' && !path_ok(path))
        return refuse(path, err);
    (void)snprintf(prefix, STORE_KEY_MAX, DUMP_PREFIX "%s%s", path, path[0] == '\0' ? "" : "/");
    return true;
}

bool dump_name_of_key(const char *prefix, const char *key, bool is_dir,
                      char name[DUMP_NAME_MAX + 1])
{
    size_t skip = strlen(prefix), len = strlen(key);
    size_t end = is_dir ? 1 : strlen(SUFFIX);
    if (len <= skip + end || strncmp(key, prefix, skip) != 0 || len - skip - end > DUMP_NAME_MAX ||
        strcmp(key + len - end, is_dir ? "/" : SUFFIX) != 0)
        return false;
    memcpy(name, key + skip, len - skip - end);
    name[len - skip - end] = '\0';
    return dump_name_ok(name);
}

/* ---- facts ---- */

static bool etag_ok(const char *etag)
{
    static const char usual[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.";
    size_t len = strlen(etag);
    return len > 0 && len < sizeof(((struct dump_facts *)NULL)->etag) && strspn(etag, usual) == len;
}

bool dump_facts_prefix(const char *key, char out[STORE_KEY_MAX])
{
    size_t skip = strlen(DUMP_PREFIX);
    if (strncmp(key, DUMP_PREFIX, skip) != 0)
        return false;
    int n = snprintf(out, STORE_KEY_MAX, DUMP_FACTS_PREFIX "%s%c", key + skip, MARK);
    return n > 0 && n < STORE_KEY_MAX;
}

bool dump_facts_key(const char *key, const struct dump_facts *facts, char out[STORE_KEY_MAX])
{
    if (!etag_ok(facts->etag) || !dump_facts_prefix(key, out))
        return false;
    size_t used = strlen(out);
    int n = snprintf(out + used, STORE_KEY_MAX - used, "%" PRIu64 "%c%c%c%s", facts->size, MARK,
                     facts->encrypted ? 'e' : 'p', MARK, facts->etag);
    return n > 0 && (size_t)n < STORE_KEY_MAX - used;
}

bool dump_facts_parse(const char *facts_key, char of[STORE_KEY_MAX], struct dump_facts *out)
{
    size_t skip = strlen(DUMP_FACTS_PREFIX);
    if (strncmp(facts_key, DUMP_FACTS_PREFIX, skip) != 0)
        return false;
    const char *path = facts_key + skip;
    /* the path may have marks of its own: the three last ones count */
    const char *etag = strrchr(path, MARK);
    if (etag == NULL || etag - path < 4 || etag[-2] != MARK || (etag[-1] != 'e' && etag[-1] != 'p'))
        return false;
    const char *size = etag - 2;
    while (size > path && size[-1] >= '0' && size[-1] <= '9')
        size--;
    if (size == etag - 2 || etag - 2 - size > 19 || size == path || size[-1] != MARK ||
        !etag_ok(etag + 1))
        return false;
    size_t len = (size_t)(size - 1 - path);
    if (len == 0 || len + strlen(DUMP_PREFIX) >= STORE_KEY_MAX)
        return false;
    if (of != NULL)
        (void)snprintf(of, STORE_KEY_MAX, DUMP_PREFIX "%.*s", (int)len, path);
    out->size = strtoull(size, NULL, 10);
    out->encrypted = etag[-1] == 'e';
    strcpy(out->etag, etag + 1);
    return out->size <= INT64_MAX;
}
