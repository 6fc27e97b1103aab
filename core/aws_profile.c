/* The files that AWS's tools share (AWS SDKs and Tools Reference Guide, "Shared config and
 * credentials files"). In the credentials file a profile's section is [NAME], in the config file
 * [profile NAME] or [default]. Lines that begin with a blank belong to a nested setting. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/aws_impl.h"

#define FILE_MAX (1024 * 1024)
#define FIRST_CHUNK (64 * 1024)

static const char *const names[AWS_P_COUNT] = {
    [AWS_P_ID] = "aws_access_key_id",
    [AWS_P_SECRET] = "aws_secret_access_key",
    [AWS_P_TOKEN] = "aws_session_token",
    [AWS_P_PROCESS] = "credential_process",
    [AWS_P_ROLE] = "role_arn",
    [AWS_P_SOURCE_PROFILE] = "source_profile",
    [AWS_P_CREDENTIAL_SOURCE] = "credential_source",
    [AWS_P_TOKEN_FILE] = "web_identity_token_file",
    [AWS_P_SESSION_NAME] = "role_session_name",
    [AWS_P_EXTERNAL_ID] = "external_id",
    [AWS_P_DURATION] = "duration_seconds",
    [AWS_P_MFA] = "mfa_serial",
    [AWS_P_SSO_SESSION] = "sso_session",
    [AWS_P_SSO_URL] = "sso_start_url",
    [AWS_P_REGION] = "region",
};

/* ---- text ---- */

/* [*BEGIN, *END) without the blanks around it. */
static void trim(const char **begin, const char **end)
{
    while (*begin < *end && strchr(" \t\r", **begin) != NULL)
        ++*begin;
    while (*end > *begin && strchr(" \t\r", (*end)[-1]) != NULL)
        --*end;
}

/* Is what stands between the brackets the section of profile NAME? */
static bool is_section(const char *begin, const char *end, const char *name, int file)
{
    static const char word[] = "profile";
    size_t n = sizeof(word) - 1;
    trim(&begin, &end);
    bool prefixed = (size_t)(end - begin) > n && memcmp(begin, word, n) == 0 &&
                    (begin[n] == ' ' || begin[n] == '\t');
    if (file == AWS_FILE_CONFIG && prefixed)
        begin += n;
    else if (file == AWS_FILE_CONFIG && strcmp(name, "default") != 0)
        return false;
    trim(&begin, &end);
    if (end - begin >= 2 && (*begin == '"' || *begin == '\'') && end[-1] == *begin) {
        begin++;
        end--;
    }
    size_t len = (size_t)(end - begin);
    return len == strlen(name) && memcmp(begin, name, len) == 0;
}

static bool take_line(struct aws_profile *p, int file, const char *begin, const char *end,
                      struct err *err)
{
    const char *eq = memchr(begin, '=', (size_t)(end - begin));
    if (eq == NULL)
        return true;
    const char *name = begin, *name_end = eq, *value = eq + 1;
    trim(&name, &name_end);
    trim(&value, &end);
    size_t n = (size_t)(name_end - name);
    for (int key = 0; key < AWS_P_COUNT; key++) {
        if (strlen(names[key]) != n || strncasecmp(name, names[key], n) != 0)
            continue;
        if (end == value || memchr(value, '\0', (size_t)(end - value)) != NULL)
            return true;
        return secret_set(&p->of[file][key], value, (size_t)(end - value), err);
    }
    return true;
}

static bool parse(struct aws_profile *p, int file, const struct buf *text, const char *name,
                  struct err *err)
{
    bool inside = false, ok = true;
    const char *at = buf_str(text), *all_end = at + text->len;
    while (ok && at < all_end) {
        const char *end = memchr(at, '\n', (size_t)(all_end - at));
        const char *line = at, *line_end = end == NULL ? all_end : end;
        at = line_end + 1;
        if (line < line_end && *line == '[') {
            const char *bracket = memchr(line, ']', (size_t)(line_end - line));
            inside = bracket != NULL && is_section(line + 1, bracket, name, file);
            p->in[file] = p->in[file] || inside;
        } else if (inside && line < line_end && strchr(" \t#;", *line) == NULL) {
            ok = take_line(p, file, line, line_end, err);
        }
    }
    return ok;
}

/* ---- files ---- */

/* A missing file leaves TEXT empty. */
static bool read_file(const char *path, struct buf *text, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ||
               err_sys(err, errno, "cannot read AWS credentials from %s", path);
    bool ok = true;
    ssize_t n = 1;
    while (ok && n != 0) {
        if (!buf_reserve(text, FIRST_CHUNK)) {
            ok = err_set(err, ERR_FORBIDDEN, "%s is too long", path);
            break;
        }
        n = read(fd, text->data + text->len, FIRST_CHUNK);
        if (n > 0)
            text->len += (size_t)n;
        else if (n < 0 && errno != EINTR)
            ok = err_sys(err, errno, "cannot read AWS credentials from %s", path);
    }
    close(fd);
    return ok;
}

/* GIVEN with "~/" resolved, else HOME/.aws/NAME. */
static bool find_path(const char *given, const char *home, const char *name, char **path,
                      struct err *err)
{
    int n = 0;
    *path = NULL;
    if (given != NULL && strncmp(given, "~/", 2) == 0 && home != NULL)
        n = asprintf(path, "%s/%s", home, given + 2);
    else if (given != NULL)
        n = asprintf(path, "%s", given);
    else if (home != NULL)
        n = asprintf(path, "%s/.aws/%s", home, name);
    if (n < 0)
        *path = NULL;
    return n >= 0 || err_set(err, ERR_NO_MEMORY, "out of memory");
}

bool aws_profile_load(const struct aws_chain_options *o, const char *name, struct aws_profile *p,
                      struct err *err)
{
    *p = (struct aws_profile){.path = {NULL}};
    bool ok = find_path(o->credentials_file, o->home, "credentials", &p->path[AWS_FILE_CREDENTIALS],
                        err) &&
              find_path(o->config_file, o->home, "config", &p->path[AWS_FILE_CONFIG], err);
    for (int file = 0; ok && file < AWS_FILES; file++) {
        struct buf text = BUF_SECRET_INIT(FILE_MAX);
        ok = p->path[file] == NULL ||
             (read_file(p->path[file], &text, err) && parse(p, file, &text, name, err));
        buf_free(&text);
    }
    return ok;
}

void aws_profile_free(struct aws_profile *p)
{
    for (int file = 0; file < AWS_FILES; file++) {
        free(p->path[file]);
        for (int key = 0; key < AWS_P_COUNT; key++)
            secret_free(&p->of[file][key]);
    }
    *p = (struct aws_profile){.path = {NULL}};
}

const char *aws_profile_get(const struct aws_profile *p, enum aws_profile_key key)
{
    for (int file = 0; file < AWS_FILES; file++) {
        if (secret_is_set(&p->of[file][key]))
            return p->of[file][key].value;
    }
    return NULL;
}

bool aws_chain_region(const struct aws_chain_options *o, struct secret *region, struct err *err)
{
    struct aws_profile p;
    bool ok = aws_profile_load(o, o->profile != NULL ? o->profile : "default", &p, err);
    const char *found = ok ? aws_profile_get(&p, AWS_P_REGION) : NULL;
    if (found != NULL)
        ok = secret_set(region, found, strlen(found), err);
    aws_profile_free(&p);
    return ok;
}
