/* What the mount is told: options (-o), an envdir, the environment, in this order of precedence, as
 * text with its origin. Meaning is given to it in config.c. */
#ifndef WALEFS_MOUNT_SETTINGS_H
#define WALEFS_MOUNT_SETTINGS_H

#include "core/aws_cred.h"

enum setting_id {
    SET_ENVDIR,
    SET_S3_PREFIX,
    SET_FILE_PREFIX,
    SET_REGION,
    SET_ENDPOINT,
    SET_URL_STYLE,
    SET_CAFILE,
    SET_ACCESS_KEY,
    SET_PROFILE,
    SET_INSTANCE_PROFILE,
    SET_CREDENTIALS_FILE,
    SET_CONFIG_FILE,
    SET_ROLE_ARN,
    SET_ROLE_SESSION_NAME,
    SET_WEB_IDENTITY_FILE,
    SET_STS_ENDPOINT,
    SET_CONTAINER_RELATIVE_URI,
    SET_CONTAINER_FULL_URI,
    SET_CONTAINER_TOKEN_FILE,
    SET_IMDS_ENDPOINT,
    SET_IMDS_MODE,
    SET_IMDS_DISABLED,
    SET_IMDS_TIMEOUT,
    SET_IMDS_ATTEMPTS,
    SET_STORAGE_CLASS,
    SET_SSE,
    SET_GPG_KEY,
    SET_GPG_HOME,
    SET_PASSPHRASE_FILE,
    SET_ALLOW_EXPIRED,
    SET_RO,
    SET_SOFT,
    SET_SOFT_TIMEOUT,
    SET_CONNECT_TIMEOUT,
    SET_STALL_TIMEOUT,
    SET_REQUEST_TIMEOUT,
    SET_WRITE_TIMEOUT,
    SET_CACHE_SIZE,
    SET_CACHE_DIR,
    SET_PREFETCH,
    SET_PARTITION_SIZE,
    SET_ALLOW_DELETE,
    SET_ALLOW_OTHER,
    SET_DEFAULT_PERMISSIONS,
    SET_NOEXEC,
    SET_USER,
    SET_UID,
    SET_GID,
    SET_LOG_DESTINATION,
    SET_SYSLOG_FACILITY,
    SET_DEBUG,
    SET_COUNT
};

/* ORIGIN_CREDENTIAL: a file in $CREDENTIALS_DIRECTORY. */
enum setting_origin {
    ORIGIN_DEFAULT,
    ORIGIN_ENVIRONMENT,
    ORIGIN_CREDENTIAL,
    ORIGIN_ENVDIR,
    ORIGIN_OPTION
};

struct setting {
    char *value; /* NULL: unset; "" for a flag that is set */
    enum setting_origin origin;
};

struct settings {
    struct setting of[SET_COUNT];
    bool sloppy; /* unknown options are ignored: mount(8)'s -s; set before options are added */
    struct secret secret_key, session_token; /* never an option: those stand in ps */
    struct secret container_token;           /* AWS_CONTAINER_AUTHORIZATION_TOKEN */
};

/* Takes one -o argument: a comma-separated list, "\," for a comma. Options that mount(8) and fstab
 * use for themselves are ignored; an unknown one is ERR_INVALID, and so is "remount". */
bool settings_add_options(struct settings *s, const char *list, struct err *err);

/* Fills in from the envdir, if one is set, secrets then from a unit's credentials, and from the
 * environment what no option has set. Removes the secrets from this process's environment, which
 * gpg would inherit. */
bool settings_complete(struct settings *s, struct err *err);

/* Where systemd puts a unit's credentials (LoadCredential=), which stay as they are while it runs;
 * NULL outside of such a unit. */
const char *settings_credentials_dir(void);

/* What a setting is called: the option, else the variable. */
const char *setting_name(enum setting_id id);
bool setting_is_flag(enum setting_id id);
/* Is the value better not shown to others? */
bool setting_is_secret(enum setting_id id);
/* AWS_ACCESS_KEY_ID and what belongs to it, where settings_complete has found it, the envdir's
 * files read anew where they may be read still; *FOUND false when there is none. For
 * aws_chain_options; ARG is the settings. */
bool settings_read_keys(void *arg, struct aws_keys *out, bool *found, struct err *err);

/* The value or NULL. */
const char *setting_get(const struct settings *s, enum setting_id id);

/* The name under which the value was given, for messages: "-o region", "AWS_REGION". */
const char *setting_label(const struct settings *s, enum setting_id id);

void settings_free(struct settings *s);

#endif
