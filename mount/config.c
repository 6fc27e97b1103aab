#include "mount/config.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "core/backup_write.h"
#include "core/store_file.h"

#define MAX_CONNECTIONS 32u
/* Per request; above that fs/ decides whether to wait on (reads) or give up (writes). */
#define MAX_ATTEMPTS 3u
#define GPG_STALL_MS 60000u

static char *copy_range(const char *begin, size_t n, struct err *err)
{
    char *copy = strndup(begin, n);
    if (copy == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    return copy;
}

/* ---- numbers ---- */

static bool seconds(const struct settings *s, enum setting_id id, int64_t default_s,
                    int64_t *out_ms, struct err *err)
{
    const char *text = setting_get(s, id);
    *out_ms = default_s * 1000;
    if (text == NULL)
        return true;
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || *end != '\0' || !(value > 0 && value <= 86400))
        return err_set(err, ERR_INVALID, "%s=%s: not a number of seconds between 0 and 86400",
                       setting_label(s, id), text);
    *out_ms = (int64_t)(value * 1000);
    if (*out_ms == 0)
        *out_ms = 1;
    return true;
}

static bool bytes(const struct settings *s, enum setting_id id, uint64_t default_bytes,
                  uint64_t *out, struct err *err)
{
    const char *text = setting_get(s, id);
    *out = default_bytes;
    if (text == NULL)
        return true;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    end += shift != 0;
    if (errno != 0 || !isdigit((unsigned char)*text) || *end != '\0' ||
        value > (UINT64_C(1) << 60) >> shift)
        return err_set(err, ERR_INVALID, "%s=%s: not a size such as 512M or 2G",
                       setting_label(s, id), text);
    *out = (uint64_t)value << shift;
    return true;
}

static bool number(const struct settings *s, enum setting_id id, unsigned long max,
                   unsigned long *out, struct err *err)
{
    const char *text = setting_get(s, id);
    char *end;
    errno = 0;
    *out = strtoul(text, &end, 10);
    if (errno != 0 || !isdigit((unsigned char)*text) || *end != '\0' || *out > max)
        return err_set(err, ERR_INVALID, "%s=%s: not a number from 0 to %lu", setting_label(s, id),
                       text, max);
    return true;
}

/* ---- owner ---- */

static bool owner(struct config *c, const struct settings *s, struct err *err)
{
    unsigned long n;
    c->uid = getuid(); /* of the user, even while root is in reserve (identity.h) */
    c->gid = getgid();
    const char *user = setting_get(s, SET_UID), *group = setting_get(s, SET_GID);
    if (user != NULL && !isdigit((unsigned char)*user)) {
        const struct passwd *pw = getpwnam(user);
        if (pw == NULL)
            return err_set(err, ERR_INVALID, "uid=%s: no such user", user);
        c->uid = pw->pw_uid;
    } else if (user != NULL) {
        if (!number(s, SET_UID, UINT32_MAX - 1, &n, err))
            return false;
        c->uid = (uid_t)n;
    }
    if (group != NULL && !isdigit((unsigned char)*group)) {
        const struct group *gr = getgrnam(group);
        if (gr == NULL)
            return err_set(err, ERR_INVALID, "gid=%s: no such group", group);
        c->gid = gr->gr_gid;
    } else if (group != NULL) {
        if (!number(s, SET_GID, UINT32_MAX - 1, &n, err))
            return false;
        c->gid = (gid_t)n;
    }
    return true;
}

/* ---- the source ---- */

static bool bucket_ok(const char *bucket)
{
    size_t n = strlen(bucket);
    return n >= 3 && n <= 255 &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == n;
}

static bool parse_s3(struct config *c, const char *url, struct err *err)
{
    const char *bucket = url + strlen("s3://");
    size_t n = strcspn(bucket, "/");
    c->bucket = copy_range(bucket, n, err);
    if (c->bucket == NULL)
        return false;
    if (!bucket_ok(c->bucket))
        return err_set(err, ERR_INVALID,
                       "%s: \"%s\" is not a bucket name; expected "
                       "s3://bucket/any/prefix",
                       url, c->bucket);
    const char *prefix = bucket + n;
    prefix += strspn(prefix, "/");
    c->prefix = copy_range(prefix, strlen(prefix), err);
    return c->prefix != NULL;
}

static bool parse_file(struct config *c, const char *url, struct err *err)
{
    const char *path = url + strlen("file://");
    if (strncmp(path, "localhost/", 10) == 0)
        path += strlen("localhost");
    if (*path != '/')
        return err_set(err, ERR_INVALID, "%s: expected file://localhost/directory", url);
    c->is_file = true;
    c->directory = copy_range(path, strlen(path), err);
    return c->directory != NULL;
}

static const char *from_settings(struct config *c, const struct settings *s)
{
    enum setting_id id = setting_get(s, SET_S3_PREFIX) != NULL ? SET_S3_PREFIX : SET_FILE_PREFIX;
    c->source_origin = s->of[id].origin;
    return setting_get(s, id);
}

static bool source(struct config *c, const struct settings *s, const char *text, struct err *err)
{
    if (text == NULL || strcmp(text, "-") == 0)
        text = from_settings(c, s);
    else
        c->source_origin = ORIGIN_OPTION;
    if (text == NULL)
        return err_set(err, ERR_INVALID,
                       "no archive is named: give s3://bucket/prefix or "
                       "file://localhost/directory, or set WALE_S3_PREFIX");
    if (strncmp(text, "s3://", 5) == 0)
        return parse_s3(c, text, err);
    if (strncmp(text, "file://", 7) == 0)
        return parse_file(c, text, err);
    return err_set(err, ERR_INVALID,
                   "%s: not an archive; expected s3://bucket/prefix or "
                   "file://localhost/directory",
                   text);
}

/* ---- S3 ---- */

/* "http+path://host:port" is WAL-E's; plain http:// and https:// mean path style, which every
 * S3 work-alike has. */
static bool endpoint(struct config *c, const struct settings *s, struct err *err)
{
    static const struct {
        const char *scheme, *plain;
        bool path_style;
    } forms[] = {{"http+path://", "http://", true},
                 {"https+path://", "https://", true},
                 {"http+virtualhost://", "http://", false},
                 {"https+virtualhost://", "https://", false},
                 {"http+subdomain://", "http://", false},
                 {"https+subdomain://", "https://", false},
                 {"http://", "http://", true},
                 {"https://", "https://", true}};
    const char *text = setting_get(s, SET_ENDPOINT);
    const char *style = setting_get(s, SET_URL_STYLE);
    for (size_t i = 0; text != NULL && i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t n = strlen(forms[i].scheme);
        if (strncmp(text, forms[i].scheme, n) != 0)
            continue;
        size_t host = strlen(text + n);
        while (host > 0 && text[n + host - 1] == '/')
            host--;
        if (host == 0 || text[n] == ':' || strcspn(text + n, "/ \t?#@") < host)
            break;
        if (asprintf(&c->endpoint, "%s%.*s", forms[i].plain, (int)host, text + n) < 0) {
            c->endpoint = NULL;
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        }
        c->path_style = forms[i].path_style;
        break;
    }
    if (text != NULL && c->endpoint == NULL)
        return err_set(err, ERR_INVALID,
                       "%s=%s: expected https://host[:port], or WAL-E's form "
                       "https+path://host[:port]",
                       setting_label(s, SET_ENDPOINT), text);
    if (style == NULL)
        return true;
    if (strcmp(style, "path") != 0 && strcmp(style, "virtual") != 0)
        return err_set(err, ERR_INVALID, "url_style=%s: expected path or virtual", style);
    c->path_style = strcmp(style, "path") == 0;
    return true;
}

static bool server_side_encryption(struct config *c, const struct settings *s, struct err *err)
{
    const char *text = setting_get(s, SET_SSE);
    if (text == NULL)
        return true;
    if (strcmp(text, "AES256") == 0) {
        c->sse = S3_SSE_AES256;
        return true;
    }
    if (strcmp(text, "aws:kms") == 0 || strncmp(text, "aws:kms:", 8) == 0) {
        c->sse = S3_SSE_KMS;
        if (text[7] == '\0')
            return true;
        if (text[8] == '\0')
            return err_set(err, ERR_INVALID, "sse=%s names no key", text);
        c->sse_kms_key = copy_range(text + 8, strlen(text + 8), err);
        return c->sse_kms_key != NULL;
    }
    return err_set(err, ERR_INVALID, "sse=%s: expected AES256, aws:kms or aws:kms:KEY", text);
}

static bool s3_access(struct config *c, const struct settings *s, struct err *err)
{
    const char *ca = setting_get(s, SET_CAFILE);
    if (ca != NULL && (c->ca_file = realpath(ca, NULL)) == NULL)
        return err_sys(err, errno, "%s=%s", setting_label(s, SET_CAFILE), ca);
    int64_t timeout_ms;
    unsigned long attempts = 0;
    if (!config_aws(c, s, err) || !seconds(s, SET_IMDS_TIMEOUT, 1, &timeout_ms, err) ||
        (setting_get(s, SET_IMDS_ATTEMPTS) != NULL &&
         !number(s, SET_IMDS_ATTEMPTS, 100, &attempts, err)))
        return false;
    c->aws.imds_timeout_ms = (uint32_t)timeout_ms;
    c->aws.imds_attempts = (unsigned)attempts;
    return true;
}

/* ---- keys ---- */

/* A name without a slash is looked for among systemd's credentials first, and without the option
 * "passphrase" is: nothing has to be said of a unit's LoadCredential=passphrase:FILE. */
static bool passphrase(struct config *c, const struct settings *s, struct err *err)
{
    const char *file = setting_get(s, SET_PASSPHRASE_FILE);
    const char *credentials = settings_credentials_dir();
    char *path = NULL;
    if (credentials != NULL && (file == NULL || strchr(file, '/') == NULL)) {
        if (asprintf(&path, "%s/%s", credentials, file == NULL ? "passphrase" : file) < 0)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        struct stat st;
        if (stat(path, &st) == 0 || errno != ENOENT) /* not access(2): root has given its id up */
            file = path;
    }
    bool ok = file == NULL || secret_read_file(&c->passphrase, file, "passphrase", err);
    free(path);
    return ok;
}

static bool keys(struct config *c, const struct settings *s, struct err *err)
{
    const char *text = setting_get(s, SET_GPG_KEY);
    c->allow_expired = setting_get(s, SET_ALLOW_EXPIRED) != NULL;
    if (!passphrase(c, s, err))
        return false;
    if (text == NULL)
        return true;
    c->recipients_text = copy_range(text, strlen(text), err);
    if (c->recipients_text == NULL)
        return false;
    char *save = NULL;
    for (char *id = strtok_r(c->recipients_text, ":", &save); id != NULL;
         id = strtok_r(NULL, ":", &save)) {
        if (c->recipient_count == CONFIG_MAX_RECIPIENTS)
            return err_set(err, ERR_INVALID, "more than %u gpg keys", CONFIG_MAX_RECIPIENTS);
        c->recipients[c->recipient_count++] = id;
    }
    if (c->recipient_count == 0)
        return err_set(err, ERR_INVALID, "%s=%s names no key", setting_label(s, SET_GPG_KEY), text);
    return true;
}

/* ---- logging ---- */

static int facility_of(const char *name)
{
    static const struct {
        const char *name;
        int facility;
    } names[] = {{"user", LOG_USER},     {"daemon", LOG_DAEMON}, {"local0", LOG_LOCAL0},
                 {"local1", LOG_LOCAL1}, {"local2", LOG_LOCAL2}, {"local3", LOG_LOCAL3},
                 {"local4", LOG_LOCAL4}, {"local5", LOG_LOCAL5}, {"local6", LOG_LOCAL6},
                 {"local7", LOG_LOCAL7}};
    if (strncasecmp(name, "LOG_", 4) == 0)
        name += 4;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(name, names[i].name) == 0)
            return names[i].facility;
    return -1;
}

/* WAL-E's words, and "journal"; separated by commas. */
static bool log_targets(const char *text, bool foreground, unsigned *out)
{
    static const char separators[] = ", \t";
    *out = 0;
    while (*(text += strspn(text, separators)) != '\0') {
        size_t n = strcspn(text, separators);
        if (n == 6 && strncasecmp(text, "stderr", n) == 0)
            *out |= foreground ? LOG_TO_STDERR : LOG_TO_SYSLOG; /* which a daemon has not */
        else if (n == 6 && strncasecmp(text, "syslog", n) == 0)
            *out |= LOG_TO_SYSLOG;
        else if (n == 7 && strncasecmp(text, "journal", n) == 0) /* reads syslog's socket as well */
            *out |= foreground && log_stderr_is_journal() ? LOG_TO_JOURNAL : LOG_TO_SYSLOG;
        else
            return false;
        text += n;
    }
    if ((*out & LOG_TO_STDERR) != 0 && log_stderr_is_journal())
        *out = (*out & ~(unsigned)LOG_TO_STDERR) | LOG_TO_JOURNAL;
    return *out != 0;
}

static bool logging(struct config *c, const struct settings *s, bool foreground, struct err *err)
{
    const char *destination = setting_get(s, SET_LOG_DESTINATION);
    const char *facility = setting_get(s, SET_SYSLOG_FACILITY);
    if (!log_targets(destination == NULL ? "stderr" : destination, foreground, &c->log_targets))
        return err_set(err, ERR_INVALID,
                       "WALE_LOG_DESTINATION=%s: expected stderr, syslog or journal, or several of "
                       "them with commas between",
                       destination);
    c->log_facility = facility == NULL ? LOG_USER : facility_of(facility);
    if (c->log_facility < 0)
        return err_set(err, ERR_INVALID,
                       "WALE_SYSLOG_FACILITY=%s: expected user, daemon or local0 "
                       "to local7",
                       facility);
    return true;
}

/* ---- all of it ---- */

static bool limits(struct config *c, const struct settings *s, struct err *err)
{
    unsigned long prefetch = 8;
    if (!seconds(s, SET_SOFT_TIMEOUT, 60, &c->soft_timeout_ms, err) ||
        !seconds(s, SET_CONNECT_TIMEOUT, 10, &c->connect_timeout_ms, err) ||
        !seconds(s, SET_STALL_TIMEOUT, 20, &c->stall_timeout_ms, err) ||
        !seconds(s, SET_REQUEST_TIMEOUT, 30, &c->request_timeout_ms, err) ||
        !seconds(s, SET_WRITE_TIMEOUT, 60, &c->write_timeout_ms, err) ||
        !bytes(s, SET_CACHE_SIZE, UINT64_C(512) << 20, &c->cache_bytes, err) ||
        !bytes(s, SET_PARTITION_SIZE, PARTITION_DEFAULT_BYTES, &c->partition_bytes, err))
        return false;
    if (c->partition_bytes < PARTITION_SMALLEST || c->partition_bytes >= PARTITION_MAX_BYTES)
        return err_set(err, ERR_INVALID,
                       "partition_size=%s: between 1M and 1535M, as WAL-E's partitions are",
                       setting_get(s, SET_PARTITION_SIZE));
    c->allow_delete = setting_get(s, SET_ALLOW_DELETE) != NULL;
    if (setting_get(s, SET_PREFETCH) != NULL && !number(s, SET_PREFETCH, 64, &prefetch, err))
        return false;
    c->prefetch = (unsigned)prefetch;
    const char *dir = setting_get(s, SET_CACHE_DIR);
    if (dir == NULL)
        dir = "/var/tmp";
    c->cache_dir = realpath(dir, NULL); /* a daemon changes its directory */
    if (c->cache_dir == NULL || access(c->cache_dir, W_OK | X_OK) != 0)
        return err_sys(err, errno, "cache_dir=%s: cannot write there", dir);
    return true;
}

bool config_make(struct config *c, const struct settings *s, const char *source_text,
                 bool foreground, struct err *err)
{
    memset(c, 0, sizeof(*c));
    c->read_only = setting_get(s, SET_RO) != NULL;
    c->hard = setting_get(s, SET_SOFT) == NULL;
    c->allow_other = setting_get(s, SET_ALLOW_OTHER) != NULL;
    c->no_exec = setting_get(s, SET_NOEXEC) != NULL;
    c->debug = setting_get(s, SET_DEBUG) != NULL;
    return logging(c, s, foreground, err) && source(c, s, source_text, err) &&
           endpoint(c, s, err) && server_side_encryption(c, s, err) &&
           (c->is_file || s3_access(c, s, err)) && keys(c, s, err) && limits(c, s, err) &&
           owner(c, s, err);
}

void config_free(struct config *c)
{
    free(c->directory);
    free(c->cache_dir);
    free(c->ca_file);
    free(c->bucket);
    free(c->prefix);
    free(c->endpoint);
    free(c->sse_kms_key);
    free(c->recipients_text);
    secret_free(&c->passphrase);
    secret_free(&c->region);
    for (size_t i = 0; i < sizeof(c->aws_file) / sizeof(c->aws_file[0]); i++)
        free(c->aws_file[i]);
    memset(c, 0, sizeof(*c));
}

struct store *config_make_store(const struct config *c, const struct settings *s,
                                struct aws_cred *cred, struct err *err)
{
    if (c->is_file)
        return store_file_new(c->directory, err);
    const struct store_s3_options options = {
        .bucket = c->bucket,
        .prefix = c->prefix,
        .region = c->region.value,
        .endpoint = c->endpoint,
        .path_style = c->path_style,
        .ca_file = c->ca_file,
        .cred = cred,
        .storage_class = setting_get(s, SET_STORAGE_CLASS),
        .sse = c->sse,
        .sse_kms_key = c->sse_kms_key,
        .connect_timeout_ms = (uint32_t)c->connect_timeout_ms,
        .stall_timeout_ms = (uint32_t)c->stall_timeout_ms,
        .request_timeout_ms = (uint32_t)c->request_timeout_ms,
        .max_attempts = MAX_ATTEMPTS,
        .max_connections = MAX_CONNECTIONS,
    };
    return store_s3_new(&options, err);
}

struct openpgp *config_make_openpgp(const struct config *c, const struct settings *s,
                                    struct err *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const struct openpgp_options options = {
        .home = setting_get(s, SET_GPG_HOME),
        .recipients = c->recipients,
        .recipient_count = c->recipient_count,
        .passphrase = &c->passphrase,
        .stall_timeout_ms = GPG_STALL_MS,
        .max_processes = cores > 2 ? (unsigned)cores + 2 : 4,
        .writable = !c->read_only,
        .allow_expired = c->allow_expired,
    };
    return openpgp_new(&options, err);
}
