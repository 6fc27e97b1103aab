/* Where AWS credentials are looked for, in the order of AWS's own tools (AWS SDKs and Tools
 * Reference Guide, "Standardized credential providers"): keys given to the mount, a web identity
 * in the environment, the profile's files, the container's endpoint, the instance metadata service.
 * The first place that is set up decides, and is the only one asked from then on: another identity
 * is never taken on silently. */
#ifndef WALEFS_CORE_AWS_CHAIN_H
#define WALEFS_CORE_AWS_CHAIN_H

#include "core/aws_cred.h"

/* All is borrowed until the source is freed. What is named like a variable is that variable's
 * value, NULL when it is not set. */
struct aws_chain_options {
    /* Keys given to the mount, read anew each time. False with ERR; *FOUND false: none. */
    bool (*read_static)(void *arg, struct aws_keys *out, bool *found, struct err *err);
    void *static_arg;

    const char *profile;   /* AWS_PROFILE; NULL: "default", which need not exist */
    bool profile_only;     /* the profile was asked for: no other place is looked at */
    bool instance_profile; /* no place but the instance metadata service */
    const char *home;      /* for ~/.aws; NULL: none */
    const char *credentials_file, *config_file; /* AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE */

    const char *role_arn, *role_session_name, *web_identity_token_file; /* AWS_... */

    const char *container_relative_uri, *container_full_uri; /* AWS_CONTAINER_CREDENTIALS_... */
    const char *container_token_file;     /* AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE */
    const struct secret *container_token; /* AWS_CONTAINER_AUTHORIZATION_TOKEN; NULL or unset: none
                                           */

    const char *imds_endpoint; /* AWS_EC2_METADATA_SERVICE_ENDPOINT */
    bool imds_ipv6;            /* AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6 */
    bool imds_disabled;        /* AWS_EC2_METADATA_DISABLED=true */
    uint32_t imds_timeout_ms;  /* AWS_METADATA_SERVICE_TIMEOUT; 0: one second */
    unsigned imds_attempts;    /* AWS_METADATA_SERVICE_NUM_ATTEMPTS; 0: one, once found three */

    const char *sts_endpoint; /* AWS_ENDPOINT_URL_STS */
    const char *region;       /* whose STS is asked; NULL: the profile's, else us-east-1 */
    const char *ca_file;      /* NULL: the system's */
};

/* Touches neither files nor network. */
bool aws_chain_source(const struct aws_chain_options *options, struct aws_source *source,
                      struct err *err);

/* The region that the profile names; *REGION stays unset when there is none. */
bool aws_chain_region(const struct aws_chain_options *options, struct secret *region,
                      struct err *err);

#endif
