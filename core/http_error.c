/* What libcurl's result codes mean to the one who mounted, and whether another try may help. */
#include <stdio.h>
#include <string.h>

#include "core/http_impl.h"

static bool plain_url(const struct http_exchange *x)
{
    return strncmp(x->url_shown, "http:", 5) == 0;
}

static bool unavailable(const struct http_exchange *x, struct err *err, const char *hint)
{
    return err_set(err, ERR_UNAVAILABLE, "%s: %s%s%s", x->url_shown,
                   x->reason[0] != '\0' ? x->reason : curl_easy_strerror(x->result),
                   hint[0] != '\0' ? "; " : "", hint);
}

static bool tls_failed(const struct http_exchange *x, struct err *err, bool *again)
{
    /* OpenSSL's words for bytes that are no TLS record at all */
    bool not_tls = strstr(x->reason, "wrong version number") != NULL ||
                   strstr(x->reason, "packet length too long") != NULL;
    *again = !not_tls;
    return unavailable(x, err,
                       not_tls ? "the port does not speak TLS: use an http:// endpoint" : "");
}

/* "HOST port PORT " of the endpoint, as libcurl writes it. */
static void endpoint_text(const struct http_exchange *x, char *out, size_t cap)
{
    const char *host = strstr(x->url_shown, "://");
    host = host == NULL ? x->url_shown : host + 3;
    size_t n = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    const char *port = host + n;
    if (host[0] == '[') {
        port += *port == ']';
        host++;
        n--;
    }
    (void)snprintf(out, cap, "%.*s port %s ", (int)n, host,
                   *port == ':'   ? port + 1
                   : plain_url(x) ? "80"
                                  : "443");
}

/* Where libcurl says that it could not connect to something else than the endpoint, that is the
 * proxy, which it takes from the environment by rules of its own (no_proxy). */
static bool proxy_failed(const struct http_exchange *x, const char *why, enum err_code code,
                         struct err *err)
{
    static const char begins[] = "Failed to connect to ";
    char endpoint[sizeof(x->url_shown) + 16];
    const char *tried = x->reason + sizeof(begins) - 1;
    endpoint_text(x, endpoint, sizeof(endpoint));
    if (strncmp(x->reason, begins, sizeof(begins) - 1) != 0 ||
        strncmp(tried, endpoint, strlen(endpoint)) == 0)
        return false;
    const char *end = strstr(tried, " after ");
    int n = end == NULL ? (int)strlen(tried) : (int)(end - tried);
    err_set(err, code,
            "%s: cannot connect to the proxy %.*s: %s; check the proxy in the environment, or name "
            "the store's host in no_proxy",
            x->url_shown, n, tried, why);
    return true;
}

static bool not_connected(const struct http_exchange *x, struct err *err)
{
    long sys_errno = 0;
    char reason[128];
    curl_easy_getinfo(x->handle->easy, CURLINFO_OS_ERRNO, &sys_errno);
    const char *why = sys_errno == 0 ? curl_easy_strerror(x->result)
                                     : strerror_r((int)sys_errno, reason, sizeof(reason));
    if (proxy_failed(x, why, ERR_UNAVAILABLE, err))
        return false;
    if (sys_errno == 0)
        return unavailable(x, err, "check the endpoint, and that it is running");
    return err_set(err, ERR_UNAVAILABLE,
                   "%s: cannot connect: %s; check the endpoint, and that it is running",
                   x->url_shown, why);
}

/* Before there is a connection nobody has answered, so that is what can be looked at. */
static bool timed_out(const struct http_exchange *x, struct err *err)
{
    static const char *const begins[] = {"Failed to connect to ", "Connection timed out ",
                                         "Resolving timed out "};
    const char *hint = "";
    if (proxy_failed(x, curl_easy_strerror(x->result), ERR_TIMEOUT, err))
        return false;
    for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
        if (strncmp(x->reason, begins[i], strlen(begins[i])) == 0)
            hint = "; check the endpoint, and that no firewall is in the way";
    return err_set(err, ERR_TIMEOUT, "%s: %s%s", x->url_shown, x->reason, hint);
}

bool http_fail(const struct http_exchange *x, struct err *err, bool *again)
{
    *again = true;
    switch ((int)x->result) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return unavailable(x, err, "check the endpoint's name and the name servers");
    case CURLE_COULDNT_RESOLVE_PROXY:
        return unavailable(x, err, "check the proxy in the environment");
    case CURLE_COULDNT_CONNECT:
        return not_connected(x, err);
    case CURLE_OPERATION_TIMEDOUT:
        return timed_out(x, err);
    case CURLE_PEER_FAILED_VERIFICATION:
        *again = false;
        return unavailable(x, err,
                           "its certificate is not trusted: name the CA with the option cafile");
    case CURLE_SSL_CONNECT_ERROR:
        return tls_failed(x, err, again);
    case CURLE_SSL_CACERT_BADFILE:
        *again = false;
        return unavailable(x, err, "the CA file (option cafile) cannot be used");
    case CURLE_GOT_NOTHING:
        return unavailable(x, err,
                           plain_url(x) ? "if the port speaks TLS, use an https:// endpoint" : "");
    case CURLE_UNSUPPORTED_PROTOCOL: /* "Received HTTP/0.9 when not allowed" */
    case CURLE_WEIRD_SERVER_REPLY:
        *again = false;
        return unavailable(x, err,
                           plain_url(x) ? "no HTTP there: if the port speaks TLS, use an https:// "
                                          "endpoint"
                                        : "no HTTP there: check the endpoint");
    case CURLE_URL_MALFORMAT:
        *again = false;
        return err_set(err, ERR_INVALID, "%s: not a URL", x->url_shown);
    case CURLE_OUT_OF_MEMORY:
        *again = false;
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    case CURLE_READ_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:
        if (x->body_err.code == ERR_NONE)
            return unavailable(x, err, "");
        *again = false;
        *err = x->body_err;
        return false;
    case CURLE_WRITE_ERROR:
        if (x->headers_too_long)
            return err_set(err, ERR_UNAVAILABLE, "%s: answers with more than %d bytes of headers",
                           x->url_shown, HTTP_HEADERS_MAX);
        *again = false;
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    default: /* reset, closed, cut short: the network */
        return unavailable(x, err, "");
    }
}
