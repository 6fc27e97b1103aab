/* The endpoint that ECS and EKS Pod Identity put next to a container (AWS SDKs and Tools Reference
 * Guide, "Container credential provider"). */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/aws_impl.h"

#define ECS "http://169.254.170.2"
#define TIMEOUT_MS 5000u
#define TRIES 3u

static bool own_address(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6, eks6;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "169.254.170.2") == 0 ||
        strcmp(host, "169.254.170.23") == 0)
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && inet_pton(AF_INET6, "fd00:ec2::23", &eks6) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&v6) || memcmp(&v6, &eks6, sizeof(v6)) == 0);
}

bool aws_container_url_ok(const char *url)
{
    if (strncasecmp(url, "https://", 8) == 0)
        return url[8] != '\0';
    if (strncasecmp(url, "http://", 7) != 0)
        return false;
    const char *host = url + 7;
    size_t n = strcspn(host, "/?#");
    if (memchr(host, '@', n) != NULL)
        return false;
    if (*host == '[') {
        host++;
        n = strcspn(host, "]/?#");
    } else {
        n = strcspn(host, ":/?#");
    }
    char name[64];
    return n < sizeof(name) && snprintf(name, sizeof(name), "%.*s", (int)n, host) > 0 &&
           own_address(name);
}

static bool printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~')
            return false;
    }
    return true;
}

/* "authorization: TOKEN", from the file if there is one: EKS renews it. */
static bool authorization(const struct aws_chain_options *o, struct secret *header, struct err *err)
{
    struct secret token = SECRET_INIT;
    char *line = NULL;
    bool ok = true;
    if (o->container_token_file != NULL)
        ok = secret_read_file(&token, o->container_token_file,
                              "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", err);
    else if (secret_is_set(o->container_token))
        ok = secret_set(&token, o->container_token->value, o->container_token->len, err);
    for (const char *c = token.value; ok && c != NULL && *c != '\0'; c++) {
        if (*c < ' ' || *c > '~')
            ok = err_set(err, ERR_FORBIDDEN, "the authorization token has control bytes");
    }
    if (ok && secret_is_set(&token)) {
        int n = asprintf(&line, "authorization: %s", token.value);
        ok = n < 0 ? err_set(err, ERR_NO_MEMORY, "out of memory")
                   : secret_set(header, line, (size_t)n, err);
        if (n >= 0) {
            explicit_bzero(line, (size_t)n);
            free(line);
        }
    }
    secret_free(&token);
    return ok;
}

static bool ask(const struct aws_chain *chain, const char *url, const struct secret *header,
                const struct call *call, struct aws_keys *out, struct err *err)
{
    const struct aws_json form = {.who = "the answer", .token_name = "Token"};
    const char *const headers[] = {"accept: application/json", header->value};
    struct aws_answer answer;
    const struct aws_fetch fetch = {.method = "GET",
                                    .url = url,
                                    .headers = headers,
                                    .header_count = secret_is_set(header) ? 2 : 1,
                                    .timeout_ms = TIMEOUT_MS,
                                    .tries = TRIES};
    bool ok = aws_http(chain->direct, &fetch, call, &answer, err);
    if (ok && answer.status != 200) {
        char message[200];
        aws_json_field(buf_str(&answer.body), answer.body.len, "message", message);
        ok = err_set(err, ERR_FORBIDDEN, "HTTP %d%s%s", answer.status,
                     message[0] != '\0' ? ": " : "", message);
    }
    ok = ok && aws_json_keys(&form, buf_str(&answer.body), answer.body.len, out, err);
    aws_answer_free(&answer);
    return ok;
}

enum aws_found aws_find_container(const struct aws_chain *chain, const struct call *call,
                                  struct aws_keys *out, struct err *err)
{
    const struct aws_chain_options *o = &chain->opt;
    const char *uri = o->container_relative_uri;
    char url[2048];
    if (uri == NULL && o->container_full_uri == NULL)
        return aws_not_there(err, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI");
    int n = snprintf(url, sizeof(url), "%s%s%s", uri == NULL ? "" : ECS,
                     uri == NULL || uri[0] == '/' ? "" : "/",
                     uri == NULL ? o->container_full_uri : uri);
    bool ok = n > 0 && (size_t)n < sizeof(url) && printable(url);
    struct secret header = SECRET_INIT;
    if (!ok)
        err_set(err, ERR_FORBIDDEN, "not a URL");
    else if (!aws_container_url_ok(url))
        ok = err_set(err, ERR_FORBIDDEN,
                     "%.200s is not asked for credentials: it must be https://, or http:// at a "
                     "loopback address, 169.254.170.2, 169.254.170.23 or fd00:ec2::23",
                     url);
    ok = ok && authorization(o, &header, err) && ask(chain, url, &header, call, out, err);
    secret_free(&header);
    if (ok)
        return AWS_FOUND;
    err_context(err, "the container's credentials (AWS_CONTAINER_CREDENTIALS_%s)",
                uri == NULL ? "FULL_URI" : "RELATIVE_URI");
    return AWS_FAILED;
}
