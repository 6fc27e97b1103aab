/* The role of an EC2 instance, from its metadata service, version 2 only (Amazon EC2 User Guide,
 * "Use the Instance Metadata Service to access instance metadata"). */
#include <stdio.h>
#include <string.h>

#include "core/aws_impl.h"
#include "core/s3_error.h"

#define TIMEOUT_MS 1000u
#define ROLES "/latest/meta-data/iam/security-credentials/"
#define TOKEN_HEADER "x-aws-ec2-metadata-token: "
#define ROLE_MAX 128
#define TOKEN_MAX 512

struct imds {
    const struct aws_chain *chain;
    const struct call *call;
    char endpoint[256];
    uint32_t timeout_ms;
    unsigned tries;
};

static bool ask(const struct imds *s, const char *method, const char *path, const char *header,
                struct aws_answer *answer, struct err *err)
{
    char url[512];
    (void)snprintf(url, sizeof(url), "%s%s", s->endpoint, path);
    const struct aws_fetch fetch = {.method = method,
                                    .url = url,
                                    .headers = &header,
                                    .header_count = 1,
                                    .timeout_ms = s->timeout_ms,
                                    .tries = s->tries};
    return aws_http(s->chain->direct, &fetch, s->call, answer, err);
}

/* One word of printable characters, as it becomes part of a header or a path. */
static bool word(const struct aws_answer *a, char *out, size_t cap)
{
    size_t n = strcspn(buf_str(&a->body), "\r\n");
    if (n == 0 || n >= cap)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (a->body.data[i] <= ' ' || a->body.data[i] > '~' || strchr("?#%", a->body.data[i]))
            return false;
        out[i] = a->body.data[i];
    }
    out[n] = '\0';
    return true;
}

static bool token_header(const struct imds *s, char out[TOKEN_MAX], struct err *err)
{
    struct aws_answer answer;
    bool ok = ask(s, "PUT", "/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: 21600",
                  &answer, err);
    if (!ok && err->code == ERR_TIMEOUT)
        err_context(err,
                    "no session token came; in a container on EC2, raise the hop limit: aws ec2 "
                    "modify-instance-metadata-options --http-put-response-hop-limit 2 "
                    "--instance-id ID");
    else if (ok && answer.status != 200)
        ok = err_set(err, ERR_FORBIDDEN, "HTTP %d for a session token%s", answer.status,
                     answer.status == 403 ? "; the service is switched off for this instance" : "");
    memcpy(out, TOKEN_HEADER, sizeof(TOKEN_HEADER));
    if (ok && !word(&answer, out + strlen(TOKEN_HEADER), TOKEN_MAX - strlen(TOKEN_HEADER)))
        ok = err_set(err, ERR_FORBIDDEN, "what came is no session token");
    aws_answer_free(&answer);
    return ok;
}

static bool role_path(const struct imds *s, const char *header, char *path, size_t cap,
                      struct err *err)
{
    struct aws_answer answer;
    char role[ROLE_MAX];
    bool ok = ask(s, "GET", ROLES, header, &answer, err);
    if (ok && answer.status == 404)
        ok = err_set(err, ERR_FORBIDDEN,
                     "this instance has no IAM role: attach an instance "
                     "profile to it");
    else if (ok && answer.status != 200)
        ok = err_set(err, ERR_FORBIDDEN, "HTTP %d for the name of the role", answer.status);
    else if (ok && !word(&answer, role, sizeof(role)))
        ok = err_set(err, ERR_FORBIDDEN, "what came is no name of a role");
    if (ok)
        (void)snprintf(path, cap, "%s%s", ROLES, role);
    aws_answer_free(&answer);
    return ok;
}

static bool credentials(const struct imds *s, const char *header, const char *path,
                        struct aws_keys *out, struct err *err)
{
    const struct aws_json form = {.who = "the answer", .token_name = "Token"};
    struct aws_answer answer;
    char code[200] = "", message[200];
    bool ok = ask(s, "GET", path, header, &answer, err);
    if (ok && answer.status == 200)
        aws_json_field(buf_str(&answer.body), answer.body.len, "Code", code);
    if (ok && (answer.status != 200 || (code[0] != '\0' && strcmp(code, "Success") != 0))) {
        aws_json_field(buf_str(&answer.body), answer.body.len, "Message", message);
        ok = err_set(err, ERR_FORBIDDEN, "%.60s: HTTP %d %s%s%s", path + strlen(ROLES),
                     answer.status, code, message[0] != '\0' ? ": " : "", message);
    }
    ok = ok && aws_json_keys(&form, buf_str(&answer.body), answer.body.len, out, err);
    aws_answer_free(&answer);
    return ok;
}

static bool set_up(struct imds *s, struct err *err)
{
    const struct aws_chain_options *o = &s->chain->opt;
    const char *endpoint = o->imds_endpoint != NULL ? o->imds_endpoint
                           : o->imds_ipv6           ? "http://[fd00:ec2::254]"
                                                    : "http://169.254.169.254";
    size_t n = strlen(endpoint);
    while (n > 0 && endpoint[n - 1] == '/')
        n--;
    bool ok = n < sizeof(s->endpoint) &&
              (strncmp(endpoint, "http://", 7) == 0 || strncmp(endpoint, "https://", 8) == 0);
    for (size_t i = 0; ok && i < n; i++)
        ok = endpoint[i] > ' ' && endpoint[i] <= '~';
    if (!ok)
        return err_set(err, ERR_FORBIDDEN,
                       "AWS_EC2_METADATA_SERVICE_ENDPOINT=%.200s: expected http://host[:port]",
                       endpoint);
    (void)snprintf(s->endpoint, sizeof(s->endpoint), "%.*s", (int)n, endpoint);
    bool sure = o->instance_profile || s->chain->chosen >= 0;
    s->timeout_ms = o->imds_timeout_ms > 0 ? o->imds_timeout_ms : TIMEOUT_MS;
    s->tries = o->imds_attempts > 0 ? o->imds_attempts : sure ? 3 : 1;
    return true;
}

enum aws_found aws_find_imds(const struct aws_chain *chain, const struct call *call,
                             struct aws_keys *out, struct err *err)
{
    struct imds s = {.chain = chain, .call = call};
    char header[TOKEN_MAX], path[ROLE_MAX + sizeof(ROLES)];
    if (chain->opt.imds_disabled) {
        aws_not_there(err, "the instance metadata service (AWS_EC2_METADATA_DISABLED is set)");
        return chain->opt.instance_profile ? AWS_FAILED : AWS_NOT_THERE;
    }
    bool ok = set_up(&s, err) && token_header(&s, header, err) &&
              role_path(&s, header, path, sizeof(path), err) &&
              credentials(&s, header, path, out, err);
    explicit_bzero(header, sizeof(header));
    if (ok)
        return AWS_FOUND;
    err_context(err, "the instance metadata service");
    return AWS_FAILED;
}
