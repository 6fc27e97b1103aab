#include "mount/config_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"

#define TEXT_MAX (64u * 1024u)

static const char *origin_name(enum setting_origin origin)
{
    switch (origin) {
    case ORIGIN_OPTION:
        return "option";
    case ORIGIN_ENVDIR:
        return "envdir";
    case ORIGIN_CREDENTIAL:
        return "credential";
    case ORIGIN_ENVIRONMENT:
        return "environment";
    case ORIGIN_DEFAULT:
        break;
    }
    return "default";
}

/* What holds when a setting is not set; "-" when that is nothing. */
static void put_default(struct buf *b, const struct config *c, enum setting_id id)
{
    switch (id) {
    case SET_SOFT_TIMEOUT:
        buf_printf(b, "%g", (double)c->soft_timeout_ms / 1000);
        break;
    case SET_CONNECT_TIMEOUT:
        buf_printf(b, "%g", (double)c->connect_timeout_ms / 1000);
        break;
    case SET_STALL_TIMEOUT:
        buf_printf(b, "%g", (double)c->stall_timeout_ms / 1000);
        break;
    case SET_REQUEST_TIMEOUT:
        buf_printf(b, "%g", (double)c->request_timeout_ms / 1000);
        break;
    case SET_WRITE_TIMEOUT:
        buf_printf(b, "%g", (double)c->write_timeout_ms / 1000);
        break;
    case SET_CACHE_SIZE:
        buf_printf(b, "%" PRIu64, c->cache_bytes);
        break;
    case SET_CACHE_DIR:
        buf_puts(b, c->cache_dir);
        break;
    case SET_PREFETCH:
        buf_printf(b, "%u", c->prefetch);
        break;
    case SET_PARTITION_SIZE:
        buf_printf(b, "%" PRIu64, c->partition_bytes);
        break;
    case SET_UID:
        buf_printf(b, "%u", (unsigned)c->uid);
        break;
    case SET_GID:
        buf_printf(b, "%u", (unsigned)c->gid);
        break;
    case SET_LOG_DESTINATION:
        buf_puts(b, "stderr");
        break;
    case SET_SYSLOG_FACILITY:
        buf_puts(b, "user");
        break;
    default:
        buf_puts(b, setting_is_flag(id) ? "no" : "-");
        break;
    }
}

/* A value may come from a file: no byte of it forges a line. */
static void put_value(struct buf *b, const char *value)
{
    for (; *value != '\0'; value++) {
        if ((unsigned char)*value < 0x20 || *value == 0x7f)
            buf_puts(b, "?");
        else
            buf_append(b, value, 1);
    }
}

static void put_setting(struct buf *b, const struct config *c, const struct settings *s,
                        enum setting_id id)
{
    const char *value = setting_get(s, id);
    buf_printf(b, "%s\t", setting_name(id));
    if (value == NULL)
        put_default(b, c, id);
    else if (setting_is_secret(id))
        buf_puts(b, "set");
    else if (setting_is_flag(id))
        buf_puts(b, "yes");
    else
        put_value(b, value);
    buf_printf(b, "\t%s\n", origin_name(value == NULL ? ORIGIN_DEFAULT : s->of[id].origin));
}

static void put_secret(struct buf *b, const char *name, const struct secret *secret,
                       enum setting_origin origin)
{
    bool set = secret_is_set(secret);
    buf_printf(b, "%s\t%s\t%s\n", name, set ? "set" : "-",
               origin_name(set ? origin : ORIGIN_DEFAULT));
}

/* Takes over the text, which is incomplete when memory or the limit has run out. */
static char *give(struct buf *b, struct err *err)
{
    char *text = strdup(buf_str(b));
    buf_free(b);
    if (text == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return text;
}

char *config_text(const struct config *c, const struct settings *s, struct err *err)
{
    struct buf b = BUF_INIT(TEXT_MAX);
    enum setting_origin credentials = s->of[SET_ACCESS_KEY].origin;
    buf_puts(&b, "option\tvalue\torigin\narchive\t");
    if (c->is_file)
        buf_puts(&b, "file://localhost");
    else
        buf_printf(&b, "s3://%s/", c->bucket);
    put_value(&b, c->is_file ? c->directory : c->prefix);
    buf_printf(&b, "\t%s\n", origin_name(c->source_origin));
    for (enum setting_id id = 0; id < SET_COUNT; id++)
        put_setting(&b, c, s, id);
    put_secret(&b, "AWS_SECRET_ACCESS_KEY", &s->secret_key, credentials);
    put_secret(&b, "AWS_SESSION_TOKEN", &s->session_token, credentials);
    put_secret(&b, "passphrase", &c->passphrase, s->of[SET_PASSPHRASE_FILE].origin);
    return give(&b, err);
}

/* Without keys: what tells the place where credentials are looked for. */
static void put_found(struct buf *b, const struct settings *s)
{
    static const struct {
        enum setting_id id;
        const char *what;
    } places[] = {{SET_ROLE_ARN, "role "}, {SET_PROFILE, "profile "}};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = setting_get(s, places[i].id);
        if (value == NULL)
            continue;
        buf_puts(b, places[i].what);
        put_value(b, value);
        return;
    }
    buf_puts(b, setting_get(s, SET_INSTANCE_PROFILE) != NULL ? "the role of the instance"
                                                             : "as AWS's tools find it");
}

char *config_identity(const struct config *c, const struct settings *s, const char *id_end,
                      struct err *err)
{
    struct buf b = BUF_INIT(TEXT_MAX);
    const char *id = setting_get(s, SET_ACCESS_KEY);
    bool given = id != NULL && *id != '\0' && !c->aws.profile_only && !c->aws.instance_profile;
    if (c->is_file) {
        buf_puts(&b, "the directory's owner and modes decide");
        return give(&b, err);
    }
    if (!given)
        put_found(&b, s);
    if (*id_end != '\0')
        buf_printf(&b, "%saccess key ...%s", given ? "" : ", ", id_end);
    else if (given)
        buf_puts(&b, "an access key");
    if (given)
        buf_printf(&b, " (%s)", origin_name(s->of[SET_ACCESS_KEY].origin));
    return give(&b, err);
}

char *config_keys(const struct config *c, struct err *err)
{
    struct buf b = BUF_INIT(TEXT_MAX);
    for (size_t i = 0; i < c->recipient_count; i++) {
        buf_puts(&b, i == 0 ? "" : ", ");
        put_value(&b, c->recipients[i]);
    }
    return give(&b, err);
}
