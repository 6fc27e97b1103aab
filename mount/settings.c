#include "mount/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One row a setting. FLAG options have no value; CLEARS is a flag's opposite. The variables are
 * WAL-E's, and the ones that AWS's, curl's and OpenSSL's own tools use. */
static const struct {
    const char *option; /* NULL: not an option */
    const char *clears; /* a flag's opposite, or NULL */
    bool flag;
    bool secret; /* only whether it is set may be shown */
    const char *variables[3];
} rows[SET_COUNT] = {
    [SET_ENVDIR] = {.option = "envdir"},
    [SET_S3_PREFIX] = {.variables = {"WALE_S3_PREFIX"}},
    [SET_FILE_PREFIX] = {.variables = {"WALE_FILE_PREFIX"}},
    [SET_REGION] = {.option = "region", .variables = {"AWS_REGION", "AWS_DEFAULT_REGION"}},
    [SET_ENDPOINT] = {.option = "endpoint", .variables = {"WALE_S3_ENDPOINT"}},
    [SET_URL_STYLE] = {.option = "url_style"},
    [SET_CAFILE] = {.option = "cafile",
                    .variables = {"AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}},
    [SET_ACCESS_KEY] = {.secret = true, .variables = {"AWS_ACCESS_KEY_ID"}},
    [SET_PROFILE] = {.option = "profile", .variables = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE"}},
    [SET_INSTANCE_PROFILE] = {.option = "aws_instance_profile", .flag = true},
    [SET_CREDENTIALS_FILE] = {.variables = {"AWS_SHARED_CREDENTIALS_FILE"}},
    [SET_CONFIG_FILE] = {.variables = {"AWS_CONFIG_FILE"}},
    [SET_ROLE_ARN] = {.variables = {"AWS_ROLE_ARN"}},
    [SET_ROLE_SESSION_NAME] = {.variables = {"AWS_ROLE_SESSION_NAME"}},
    [SET_WEB_IDENTITY_FILE] = {.variables = {"AWS_WEB_IDENTITY_TOKEN_FILE"}},
    [SET_STS_ENDPOINT] = {.variables = {"AWS_ENDPOINT_URL_STS"}},
    [SET_CONTAINER_RELATIVE_URI] = {.variables = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"}},
    [SET_CONTAINER_FULL_URI] = {.variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI"}},
    [SET_CONTAINER_TOKEN_FILE] = {.variables = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"}},
    [SET_IMDS_ENDPOINT] = {.variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT"}},
    [SET_IMDS_MODE] = {.variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"}},
    [SET_IMDS_DISABLED] = {.variables = {"AWS_EC2_METADATA_DISABLED"}},
    [SET_IMDS_TIMEOUT] = {.variables = {"AWS_METADATA_SERVICE_TIMEOUT"}},
    [SET_IMDS_ATTEMPTS] = {.variables = {"AWS_METADATA_SERVICE_NUM_ATTEMPTS"}},
    [SET_STORAGE_CLASS] = {.option = "storage_class", .variables = {"WALE_S3_STORAGE_CLASS"}},
    [SET_SSE] = {.option = "sse"},
    [SET_GPG_KEY] = {.option = "gpg_key", .variables = {"WALE_GPG_KEY_ID"}},
    [SET_GPG_HOME] = {.option = "gpg_home", .variables = {"GNUPGHOME"}},
    [SET_PASSPHRASE_FILE] = {.option = "passphrase_file"},
    [SET_ALLOW_EXPIRED] = {.option = "allow_expired", .flag = true},
    [SET_RO] = {.option = "ro", .clears = "rw", .flag = true},
    [SET_SOFT] = {.option = "soft", .clears = "hard", .flag = true},
    [SET_SOFT_TIMEOUT] = {.option = "soft_timeout"},
    [SET_CONNECT_TIMEOUT] = {.option = "connect_timeout"},
    [SET_STALL_TIMEOUT] = {.option = "stall_timeout"},
    [SET_REQUEST_TIMEOUT] = {.option = "request_timeout"},
    [SET_WRITE_TIMEOUT] = {.option = "write_timeout"},
    [SET_CACHE_SIZE] = {.option = "cache_size"},
    [SET_CACHE_DIR] = {.option = "cache_dir"},
    [SET_PREFETCH] = {.option = "prefetch"},
    [SET_PARTITION_SIZE] = {.option = "partition_size"},
    [SET_ALLOW_DELETE] = {.option = "allow_delete", .flag = true},
    [SET_ALLOW_OTHER] = {.option = "allow_other", .flag = true},
    [SET_DEFAULT_PERMISSIONS] = {.option = "default_permissions", .flag = true},
    [SET_NOEXEC] = {.option = "noexec", .clears = "exec", .flag = true},
    [SET_USER] = {.option = "user"},
    [SET_UID] = {.option = "uid"},
    [SET_GID] = {.option = "gid"},
    [SET_LOG_DESTINATION] = {.variables = {"WALE_LOG_DESTINATION"}},
    [SET_SYSLOG_FACILITY] = {.variables = {"WALE_SYSLOG_FACILITY"}},
    [SET_DEBUG] = {.option = "debug", .flag = true},
};

/* Said by mount(8), fstab and systemd for themselves, or true of every mount of ours anyway. */
static const char *const ignored[] = {
    "defaults",    "auto",          "noauto",   "user",       "nouser",   "users",
    "owner",       "group",         "nofail",   "_netdev",    "comment",  "dev",
    "nodev",       "suid",          "nosuid",   "async",      "sync",     "dirsync",
    "atime",       "noatime",       "diratime", "nodiratime", "relatime", "norelatime",
    "strictatime", "nostrictatime", "lazytime", "nolazytime", "mand",     "nomand",
    "iversion",    "noiversion",    "silent",   "loud"};

static const char *const secret_options[] = {
    "secret_key",     "secret_access_key", "aws_secret_access_key", "session_token",
    "security_token", "passphrase",        "access_key_id",         "aws_access_key_id"};

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}
#define IS_ONE_OF(name, list) is_one_of(name, list, sizeof(list) / sizeof((list)[0]))

static bool assign(struct settings *s, enum setting_id id, const char *value,
                   enum setting_origin origin, struct err *err)
{
    char *joined;
    if (id == SET_GPG_KEY && origin == ORIGIN_OPTION && s->of[id].origin == ORIGIN_OPTION) {
        if (asprintf(&joined, "%s:%s", s->of[id].value, value) < 0) /* given several times */
            joined = NULL;
    } else {
        joined = strdup(value);
    }
    if (joined == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    free(s->of[id].value);
    s->of[id] = (struct setting){.value = joined, .origin = origin};
    return true;
}

/* fstab's own words, also with a value: comment=..., x-systemd.idle-timeout=... "user" and "group"
 * without one. */
static bool is_for_others(const char *option, const char *value)
{
    return strncmp(option, "x-", 2) == 0 || strncmp(option, "X-", 2) == 0 ||
           strcmp(option, "comment") == 0 || (value == NULL && IS_ONE_OF(option, ignored));
}

static bool unknown_option(const char *option, bool sloppy, struct err *err)
{
    if (IS_ONE_OF(option, secret_options))
        return err_set(err, ERR_INVALID,
                       "option %s: credentials are not options, since everybody "
                       "sees those with ps; put them into an envdir (-o envdir=DIR) or the "
                       "environment",
                       option);
    return sloppy || err_set(err, ERR_INVALID,
                             "unknown option \"%s\"; walefs --help lists the options", option);
}

static bool add_option(struct settings *s, char *option, struct err *err)
{
    char *value = strchr(option, '=');
    if (value != NULL)
        *value++ = '\0';
    if (is_for_others(option, value))
        return true;
    if (strcmp(option, "setuid") == 0)
        option = "user"; /* as mount.fuse3 calls it */
    for (enum setting_id id = 0; id < SET_COUNT; id++) {
        if (rows[id].clears != NULL && strcmp(option, rows[id].clears) == 0) {
            free(s->of[id].value);
            s->of[id] = (struct setting){.value = NULL};
            return true;
        }
        if (rows[id].option == NULL || strcmp(option, rows[id].option) != 0)
            continue;
        if (rows[id].flag != (value == NULL))
            return err_set(err, ERR_INVALID, "option %s %s", option,
                           rows[id].flag ? "takes no value" : "needs a value: -o NAME=VALUE");
        if (value != NULL && *value == '\0')
            return err_set(err, ERR_INVALID, "option %s has an empty value", option);
        return assign(s, id, value == NULL ? "" : value, ORIGIN_OPTION, err);
    }
    return unknown_option(option, s->sloppy, err);
}

/* Copies one option of LIST, without backslashes, and returns where the next one begins. */
static const char *next_option(const char *list, char *option)
{
    size_t n = 0;
    for (; *list != '\0' && *list != ','; list++) {
        if (*list == '\\' && list[1] != '\0')
            list++;
        option[n++] = *list;
    }
    option[n] = '\0';
    return *list == ',' ? list + 1 : list;
}

bool settings_add_options(struct settings *s, const char *list, struct err *err)
{
    char *option = malloc(strlen(list) + 1);
    if (option == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok = true;
    /* first, since mount(8) adds what it finds in the kernel's list of mounts */
    for (const char *p = list; ok && *p != '\0';) {
        p = next_option(p, option);
        if (strcmp(option, "remount") == 0)
            ok = err_set(err, ERR_INVALID,
                         "the options of a mount cannot be changed: umount it, and mount it again");
    }
    for (const char *p = list; ok && *p != '\0';) {
        p = next_option(p, option);
        ok = *option == '\0' || add_option(s, option, err);
    }
    free(option);
    return ok;
}

/* ---- envdir: one file per variable, its first line without trailing white space ---- */

static bool envdir_read(const char *dir, const char *variable, struct secret *out, bool *found,
                        struct err *err)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, variable);
    struct stat st;
    *found = false;
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(err, ERR_INVALID, "envdir %s: name too long", dir);
    if (stat(path, &st) != 0)
        return errno == ENOENT || err_sys(err, errno, "cannot read %s", path);
    if (st.st_size == 0)
        return true;
    if (!secret_read_file(out, path, variable, err))
        return false;
    while (out->len > 0 && strchr(" \t\r", out->value[out->len - 1]) != NULL)
        out->value[--out->len] = '\0';
    *found = out->len > 0;
    return true;
}

/* envdir(8): an empty file unsets the variable. Before threads start only. */
static bool envdir_take(const char *dir, const char *variable, struct secret *out, bool *found,
                        struct err *err)
{
    char path[4096];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, variable);
    if (stat(path, &st) == 0 && st.st_size == 0)
        (void)unsetenv(variable);
    return envdir_read(dir, variable, out, found, err);
}

static bool environment_read(const char *variable, struct secret *out, bool *found, struct err *err)
{
    const char *value = getenv(variable);
    *found = value != NULL && *value != '\0';
    return !*found || secret_set(out, value, strlen(value), err);
}

/* DIR NULL: the environment. The first of a setting's variables that has a value there. */
static bool complete_one(struct settings *s, enum setting_id id, enum setting_origin origin,
                         const char *dir, bool *found, struct err *err)
{
    *found = false;
    for (size_t i = 0; i < 3 && rows[id].variables[i] != NULL && !*found; i++) {
        struct secret value = SECRET_INIT;
        const char *variable = rows[id].variables[i];
        bool ok = dir != NULL ? envdir_take(dir, variable, &value, found, err)
                              : environment_read(variable, &value, found, err);
        if (ok && *found)
            ok = assign(s, id, value.value, origin, err);
        secret_free(&value);
        if (!ok)
            return false;
    }
    return true;
}

/* AWS_SECURITY_TOKEN is the older name, which WAL-E has. */
static const char *const token_variables[] = {"AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"};

/* What belongs to the key id, from where the key id came from. DIR NULL: the environment. */
static bool read_secrets(const char *dir, struct secret *secret_key, struct secret *token,
                         struct err *err)
{
    bool found;
    bool ok = dir != NULL ? envdir_read(dir, "AWS_SECRET_ACCESS_KEY", secret_key, &found, err)
                          : environment_read("AWS_SECRET_ACCESS_KEY", secret_key, &found, err);
    found = false;
    for (size_t i = 0; i < 2 && ok && !found; i++)
        ok = dir != NULL ? envdir_read(dir, token_variables[i], token, &found, err)
                         : environment_read(token_variables[i], token, &found, err);
    return ok;
}

static bool complete_credentials(struct settings *s, const char *dir, struct err *err)
{
    static const char container[] = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    enum setting_origin origin = s->of[SET_ACCESS_KEY].origin;
    const char *place = origin == ORIGIN_ENVDIR       ? dir
                        : origin == ORIGIN_CREDENTIAL ? settings_credentials_dir()
                                                      : NULL;
    bool found = false;
    bool ok = read_secrets(place, &s->secret_key, &s->session_token, err) &&
              (dir == NULL || envdir_read(dir, container, &s->container_token, &found, err)) &&
              (found || environment_read(container, &s->container_token, &found, err));
    unsetenv("AWS_SECRET_ACCESS_KEY");
    unsetenv(token_variables[0]);
    unsetenv(token_variables[1]);
    unsetenv(container);
    return ok;
}

static bool copy_secret(struct secret *to, const struct secret *from, struct err *err)
{
    return !secret_is_set(from) || secret_set(to, from->value, from->len, err);
}

/* Root's, who has read it before it became another user, for whom what it has read then must do. */
static bool envdir_is_closed(const char *dir)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/AWS_ACCESS_KEY_ID", dir);
    return access(path, R_OK) != 0 && errno == EACCES;
}

bool settings_read_keys(void *arg, struct aws_keys *out, bool *found, struct err *err)
{
    const struct settings *s = arg;
    const struct setting *id = &s->of[SET_ACCESS_KEY];
    *found = id->value != NULL;
    const char *dir = s->of[SET_ENVDIR].value;
    if (*found && id->origin == ORIGIN_ENVDIR && !envdir_is_closed(dir))
        return envdir_read(dir, "AWS_ACCESS_KEY_ID", &out->id, found, err) &&
               read_secrets(dir, &out->secret, &out->token, err);
    return !*found || (secret_set(&out->id, id->value, strlen(id->value), err) &&
                       copy_secret(&out->secret, &s->secret_key, err) &&
                       copy_secret(&out->token, &s->session_token, err));
}

/* The files are read anew later, when a daemon has left the directory it was started in. */
static bool absolute_envdir(struct settings *s, struct err *err)
{
    char **dir = &s->of[SET_ENVDIR].value;
    struct stat st;
    char *path = realpath(*dir, NULL);
    if (path == NULL || stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        free(path);
        return err_set(err, ERR_INVALID, "envdir %s is not a directory that can be read", *dir);
    }
    free(*dir);
    *dir = path;
    return true;
}

const char *settings_credentials_dir(void)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    return dir != NULL && *dir == '/' ? dir : NULL;
}

bool settings_complete(struct settings *s, struct err *err)
{
    if (s->of[SET_ENVDIR].value != NULL && !absolute_envdir(s, err))
        return false;
    const char *dir =
        s->of[SET_ENVDIR].value; /* an option only: stays while the rest is filled in */
    const char *credentials = settings_credentials_dir();
    for (enum setting_id id = 0; id < SET_COUNT; id++) {
        bool found = s->of[id].origin == ORIGIN_OPTION;
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc)
        if (!found && dir != NULL && !complete_one(s, id, ORIGIN_ENVDIR, dir, &found, err))
            return false;
        if (!found && rows[id].secret && credentials != NULL &&
            !complete_one(s, id, ORIGIN_CREDENTIAL, credentials, &found, err))
            return false;
        if (!found && !complete_one(s, id, ORIGIN_ENVIRONMENT, NULL, &found, err))
            return false;
    }
    return complete_credentials(s, dir, err);
}

const char *setting_name(enum setting_id id)
{
    return rows[id].option != NULL ? rows[id].option : rows[id].variables[0];
}

bool setting_is_flag(enum setting_id id)
{
    return rows[id].flag;
}

bool setting_is_secret(enum setting_id id)
{
    return rows[id].secret;
}

const char *setting_get(const struct settings *s, enum setting_id id)
{
    return s->of[id].value;
}

const char *setting_label(const struct settings *s, enum setting_id id)
{
    if (s->of[id].origin == ORIGIN_OPTION || rows[id].variables[0] == NULL)
        return rows[id].option;
    return rows[id].variables[0];
}

void settings_free(struct settings *s)
{
    for (enum setting_id id = 0; id < SET_COUNT; id++)
        free(s->of[id].value);
    secret_free(&s->secret_key);
    secret_free(&s->session_token);
    secret_free(&s->container_token);
    memset(s, 0, sizeof(*s));
}
