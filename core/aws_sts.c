/* Roles, from the Security Token Service (AWS STS API Reference, "AssumeRole" and
 * "AssumeRoleWithWebIdentity"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/aws_impl.h"
#include "core/s3_error.h"
#include "core/s3_xml.h"
#include "core/sigv4.h"

#define FORM_MAX (32 * 1024)
#define LINES_MAX (16 * 1024)
#define TRIES 3u

struct answer {
    struct aws_keys *keys;
    struct err *err;
    bool failed;
    char code[64], message[200];
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    struct answer *a = arg;
    bool ok = true;
    if (ends_with(path, "/Credentials/AccessKeyId"))
        ok = secret_set(&a->keys->id, text, n, a->err);
    else if (ends_with(path, "/Credentials/SecretAccessKey"))
        ok = secret_set(&a->keys->secret, text, n, a->err);
    else if (n > 0 && ends_with(path, "/Credentials/SessionToken"))
        ok = secret_set(&a->keys->token, text, n, a->err);
    else if (ends_with(path, "/Credentials/Expiration"))
        a->keys->expires_s = aws_time(text);
    else if (ends_with(path, "/Error/Code"))
        s3_error_field(a->code, sizeof(a->code), text, n);
    else if (ends_with(path, "/Error/Message"))
        s3_error_field(a->message, sizeof(a->message), text, n);
    a->failed = !ok;
    return ok;
}

static bool understand(const struct aws_answer *answer, struct aws_keys *out, struct err *err)
{
    struct answer a = {.keys = out, .err = err};
    bool parsed = s3_xml_parse(buf_str(&answer->body), answer->body.len, on_element, &a);
    if (a.failed)
        return false;
    if (answer->status != 200 && parsed && a.code[0] != '\0')
        return err_set(err, ERR_FORBIDDEN, "%s: %s (HTTP %d)", a.code, a.message, answer->status);
    if (answer->status != 200)
        return err_set(err, ERR_FORBIDDEN,
                       "HTTP %d without an STS error document; is there a proxy in between?",
                       answer->status);
    if (!parsed || !secret_is_set(&out->id) || !secret_is_set(&out->secret) || out->expires_s == 0)
        return err_set(err, ERR_FORBIDDEN, "the answer has no credentials");
    return true;
}

/* ---- the form ---- */

static bool add(struct buf *form, const char *name, const char *value)
{
    return value == NULL ||
           (buf_printf(form, "&%s=", name) && sigv4_encode(form, value, strlen(value), false));
}

/* What all actions begin with; reserved in one piece, since a token may follow. */
static bool begin_form(struct buf *form, const char *action, const struct aws_role *role)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "walefs-%lld", (long long)time(NULL));
    return buf_printf(form, "Action=%s&Version=2011-06-15", action) &&
           add(form, "RoleArn", role->arn) &&
           add(form, "RoleSessionName", role->session_name != NULL ? role->session_name : name) &&
           add(form, "DurationSeconds", role->duration_s);
}

struct place {
    char url[300];
    const char *host; /* in url */
    const char *region;
};

static bool find_place(const struct aws_chain *chain, const struct aws_role *role, struct place *p,
                       struct err *err)
{
    p->region = role->region != NULL ? role->region : "us-east-1";
    const char *given = chain->opt.sts_endpoint;
    if (strspn(p->region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(p->region) ||
        strlen(p->region) > 60)
        return err_set(err, ERR_FORBIDDEN, "\"%.100s\" is not a region", p->region);
    if (given == NULL)
        (void)snprintf(p->url, sizeof(p->url), "https://sts.%s.amazonaws.com%s/", p->region,
                       strncmp(p->region, "cn-", 3) == 0 ? ".cn" : "");
    else
        (void)snprintf(p->url, sizeof(p->url), "%.200s%s", given, ends_with(given, "/") ? "" : "/");
    const char *host = strstr(p->url, "://");
    p->host = host == NULL ? "" : host + 3;
    bool ok = strchr(p->host, '/') > p->host && strcspn(p->host, " \t\r\n@?#") == strlen(p->host);
    return ok || err_set(err, ERR_FORBIDDEN, "AWS_ENDPOINT_URL_STS: expected https://host[:port]");
}

/* ---- the request ---- */

#define CONTENT_TYPE "application/x-www-form-urlencoded; charset=utf-8"

/* The header lines of a signed request, each ended by a NUL. */
static bool sign(const struct place *p, const struct buf *form, const struct aws_keys *with,
                 struct buf *lines, struct err *err)
{
    char host[300], payload_hex[SIGV4_HEX];
    (void)snprintf(host, sizeof(host), "%.*s", (int)strcspn(p->host, "/"), p->host);
    struct sigv4_request req = {.method = "POST", .path = "/", .payload_hex = payload_hex};
    if (!sigv4_sha256_hex(form->data, form->len, payload_hex))
        return err_set(err, ERR_NO_MEMORY, "SHA-256 failed");
    sigv4_date(time(NULL), req.date);
    const struct sigv4_field fields[] = {{"content-type", CONTENT_TYPE},
                                         {"host", host},
                                         {"x-amz-date", req.date},
                                         {"x-amz-security-token", with->token.value}};
    req.headers = fields;
    req.header_count = secret_is_set(&with->token) ? 4 : 3;
    const struct sigv4_key key = {.access_key_id = with->id.value,
                                  .secret = &with->secret,
                                  .region = p->region,
                                  .service = "sts"};
    bool ok = buf_puts(lines, "authorization: ");
    if (ok && !sigv4_authorize(&key, &req, lines, err))
        return false;
    ok = ok && buf_append(lines, "", 1);
    for (size_t i = 1; ok && i < req.header_count; i++)
        ok = buf_printf(lines, "%s: %s", fields[i].name, fields[i].value) &&
             buf_append(lines, "", 1);
    return ok || err_set(err, ERR_FORBIDDEN, "the request is too long");
}

/* WITH NULL: unsigned. */
static bool post(const struct aws_chain *chain, const struct place *p, const struct buf *form,
                 const struct aws_keys *with, const struct call *call, struct aws_keys *out,
                 struct err *err)
{
    struct buf lines = BUF_SECRET_INIT(LINES_MAX);
    struct aws_answer answer = {.body = BUF_SECRET_INIT(AWS_ANSWER_MAX)};
    const char *headers[6] = {"content-type: " CONTENT_TYPE, "accept: application/xml"};
    size_t n = 2;
    bool ok = with == NULL || sign(p, form, with, &lines, err);
    for (size_t at = 0; ok && at < lines.len; at += strlen(lines.data + at) + 1)
        headers[n++] = lines.data + at;
    const struct aws_fetch fetch = {.method = "POST",
                                    .url = p->url,
                                    .headers = headers,
                                    .header_count = n,
                                    .body = form->data,
                                    .timeout_ms = AWS_STS_TIMEOUT_MS,
                                    .tries = TRIES};
    ok = ok && aws_http(chain->http, &fetch, call, &answer, err) && understand(&answer, out, err);
    aws_answer_free(&answer);
    buf_free(&lines);
    return ok;
}

bool aws_sts_assume(const struct aws_chain *chain, const struct aws_role *role,
                    const struct aws_keys *with, const struct call *call, struct aws_keys *out,
                    struct err *err)
{
    struct buf form = BUF_SECRET_INIT(FORM_MAX);
    struct place place;
    bool ok = find_place(chain, role, &place, err);
    if (ok &&
        !(begin_form(&form, "AssumeRole", role) && add(&form, "ExternalId", role->external_id)))
        ok = err_set(err, ERR_FORBIDDEN, "the request is too long");
    ok = ok && post(chain, &place, &form, with, call, out, err);
    buf_free(&form);
    return ok || err_context(err, "role %.150s", role->arn);
}

bool aws_sts_web_identity(const struct aws_chain *chain, const struct aws_role *role,
                          const char *token_file, const struct call *call, struct aws_keys *out,
                          struct err *err)
{
    struct buf form = BUF_SECRET_INIT(FORM_MAX);
    struct secret token = SECRET_INIT;
    struct place place;
    bool ok = secret_read_file(&token, token_file, "web identity token", err) &&
              find_place(chain, role, &place, err);
    if (ok && !(begin_form(&form, "AssumeRoleWithWebIdentity", role) &&
                add(&form, "WebIdentityToken", token.value)))
        ok = err_set(err, ERR_FORBIDDEN, "the request is too long");
    secret_free(&token);
    ok = ok && post(chain, &place, &form, NULL, call, out, err);
    buf_free(&form);
    return ok ||
           err_context(err, "role %.150s by the web identity in %.150s", role->arn, token_file);
}

enum aws_found aws_find_web_identity(const struct aws_chain *chain, const struct call *call,
                                     struct aws_keys *out, struct err *err)
{
    const struct aws_chain_options *o = &chain->opt;
    if (o->web_identity_token_file == NULL)
        return aws_not_there(err, "AWS_WEB_IDENTITY_TOKEN_FILE");
    if (o->role_arn == NULL) {
        err_set(err, ERR_FORBIDDEN, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
        return AWS_FAILED;
    }
    const struct aws_role role = {
        .arn = o->role_arn, .session_name = o->role_session_name, .region = o->region};
    bool ok = aws_sts_web_identity(chain, &role, o->web_identity_token_file, call, out, err);
    return ok ? AWS_FOUND : AWS_FAILED;
}
