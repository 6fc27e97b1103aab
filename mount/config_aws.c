/* Where S3's credentials and region come from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "mount/config.h"

/* A file that may come later; a daemon changes its directory. */
static bool absolute(const struct settings *s, enum setting_id id, char **owner_of,
                     const char **out, struct err *err)
{
    const char *path = setting_get(s, id);
    if (path == NULL)
        return true;
    char *cwd = path[0] == '/' || path[0] == '~' ? NULL : getcwd(NULL, 0);
    if (asprintf(owner_of, "%s%s%s", cwd == NULL ? "" : cwd, cwd == NULL ? "" : "/", path) < 0)
        *owner_of = NULL;
    free(cwd);
    *out = *owner_of;
    return *out != NULL || err_set(err, ERR_NO_MEMORY, "out of memory");
}

static bool metadata_service(struct aws_chain_options *o, const struct settings *s, struct err *err)
{
    const char *mode = setting_get(s, SET_IMDS_MODE);
    const char *disabled = setting_get(s, SET_IMDS_DISABLED);
    o->instance_profile = setting_get(s, SET_INSTANCE_PROFILE) != NULL;
    o->imds_endpoint = setting_get(s, SET_IMDS_ENDPOINT);
    o->imds_disabled = disabled != NULL && strcasecmp(disabled, "true") == 0;
    o->imds_ipv6 = mode != NULL && strcasecmp(mode, "IPv6") == 0;
    if (mode != NULL && !o->imds_ipv6 && strcasecmp(mode, "IPv4") != 0)
        return err_set(err, ERR_INVALID, "%s=%s: expected IPv4 or IPv6",
                       setting_label(s, SET_IMDS_MODE), mode);
    return true;
}

bool config_aws(struct config *c, const struct settings *s, struct err *err)
{
    c->aws = (struct aws_chain_options){
        .read_static = settings_read_keys,
        .static_arg = (void *)(uintptr_t)s,
        .profile = setting_get(s, SET_PROFILE),
        .profile_only = s->of[SET_PROFILE].origin == ORIGIN_OPTION,
        .home = getenv("HOME"),
        .role_arn = setting_get(s, SET_ROLE_ARN),
        .role_session_name = setting_get(s, SET_ROLE_SESSION_NAME),
        .container_relative_uri = setting_get(s, SET_CONTAINER_RELATIVE_URI),
        .container_full_uri = setting_get(s, SET_CONTAINER_FULL_URI),
        .container_token = &s->container_token,
        .sts_endpoint = setting_get(s, SET_STS_ENDPOINT),
        .ca_file = c->ca_file,
    };
    struct aws_chain_options *o = &c->aws;
    if (!absolute(s, SET_CREDENTIALS_FILE, &c->aws_file[0], &o->credentials_file, err) ||
        !absolute(s, SET_CONFIG_FILE, &c->aws_file[1], &o->config_file, err) ||
        !absolute(s, SET_WEB_IDENTITY_FILE, &c->aws_file[2], &o->web_identity_token_file, err) ||
        !absolute(s, SET_CONTAINER_TOKEN_FILE, &c->aws_file[3], &o->container_token_file, err) ||
        !metadata_service(o, s, err))
        return false;
    if (o->profile_only && o->instance_profile)
        return err_set(err, ERR_INVALID, "profile and aws_instance_profile exclude each other");
    const char *region = setting_get(s, SET_REGION);
    struct err ignored = ERR_INIT; /* who needs these files will say that they cannot be read */
    if (region == NULL)
        (void)aws_chain_region(o, &c->region, &ignored);
    else if (!secret_set(&c->region, region, strlen(region), err))
        return false;
    o->region = c->region.value;
    return true;
}

struct aws_cred *config_make_cred(const struct config *c, struct err *err)
{
    struct aws_source source;
    if (!aws_chain_source(&c->aws, &source, err))
        return NULL;
    struct aws_cred *cred = aws_cred_new(&source, err);
    if (cred == NULL)
        source.free(source.arg);
    return cred;
}
