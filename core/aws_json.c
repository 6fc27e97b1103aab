#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/aws_impl.h"
#include "core/s3_error.h"

int64_t aws_time(const char *text)
{
    struct tm tm = {.tm_isdst = 0};
    int end = 0, hours, minutes;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &end) != 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    const char *zone = text + end;
    if (*zone == '.')
        zone += 1 + strspn(zone + 1, "0123456789");
    int64_t utc = timegm(&tm);
    if (strcmp(zone, "Z") == 0)
        return utc;
    if ((*zone != '+' && *zone != '-') || sscanf(zone + 1, "%2d:%2d", &hours, &minutes) != 2)
        return 0;
    int64_t offset = hours * 3600 + minutes * 60;
    return *zone == '+' ? utc - offset : utc + offset;
}

/* jansson frees what it has parsed as it is. */
static void wipe(json_t *root)
{
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value)
    {
        if (json_is_string(value))
            explicit_bzero((char *)(uintptr_t)json_string_value(value), json_string_length(value));
    }
    json_decref(root);
}

/* False: NAME is there, and is no text. A null or missing one leaves OUT unset. */
static bool take(const json_t *root, const char *name, struct secret *out, struct err *err)
{
    const json_t *value = json_object_get(root, name);
    if (value == NULL || json_is_null(value))
        return true;
    if (!json_is_string(value))
        return err_set(err, ERR_FORBIDDEN, "%s is not a string", name);
    size_t n = json_string_length(value);
    return n == 0 || secret_set(out, json_string_value(value), n, err);
}

static bool fill(const struct aws_json *form, const json_t *root, struct aws_keys *out,
                 struct err *err)
{
    const json_t *version = json_object_get(root, "Version");
    if (form->version != 0 &&
        (!json_is_integer(version) || json_integer_value(version) != form->version))
        return err_set(err, ERR_FORBIDDEN, "\"Version\" is not %d", form->version);
    if (!take(root, "AccessKeyId", &out->id, err) ||
        !take(root, "SecretAccessKey", &out->secret, err) ||
        !take(root, form->token_name, &out->token, err))
        return false;
    if (!secret_is_set(&out->id) || !secret_is_set(&out->secret))
        return err_set(err, ERR_FORBIDDEN, "%s is missing",
                       secret_is_set(&out->id) ? "SecretAccessKey" : "AccessKeyId");
    const json_t *expires = json_object_get(root, "Expiration");
    if (expires == NULL || json_is_null(expires))
        return true;
    out->expires_s = json_is_string(expires) ? aws_time(json_string_value(expires)) : 0;
    return out->expires_s != 0 ||
           err_set(err, ERR_FORBIDDEN, "Expiration is not a time such as 2026-11-24T10:00:00Z");
}

bool aws_json_keys(const struct aws_json *form, const char *text, size_t n, struct aws_keys *out,
                   struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(text, n, 0, &where);
    /* jansson's own words quote the text: only the place is told */
    if (root == NULL)
        return err_set(err, ERR_FORBIDDEN, "%s is not JSON (line %d, column %d)", form->who,
                       where.line, where.column);
    bool ok = json_is_object(root) || err_set(err, ERR_FORBIDDEN, "a JSON object is expected");
    ok = ok && fill(form, root, out, err);
    wipe(root);
    return ok || err_context(err, "%s", form->who);
}

void aws_json_field(const char *text, size_t n, const char *name, char out[200])
{
    out[0] = '\0';
    json_t *root = json_loadb(text, n, 0, NULL);
    const char *value = json_string_value(json_object_get(root, name));
    if (value != NULL)
        s3_error_field(out, 200, value, strlen(value));
    wipe(root);
}
