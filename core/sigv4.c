#include "core/sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANONICAL_MAX (64 * 1024)
#define QUERY_MAX 16
#define SHA256_BYTES 32

static bool unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

bool sigv4_encode(struct buf *out, const char *in, size_t n, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)in[i];
        char esc[3] = {'%', hex[c >> 4], hex[c & 15]};
        bool plain = unreserved(in[i]) || (keep_slash && c == '/');
        if (!buf_append(out, plain ? in + i : esc, plain ? 1 : 3))
            return false;
    }
    return true;
}

/* No name or value that we send sorts differently before and after encoding, except by bytes above
 * '~', which stay above; so comparing before encoding is enough. */
static int by_name(const void *a, const void *b)
{
    const struct sigv4_field *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static bool sort(const struct sigv4_field *in, size_t n, const struct sigv4_field **out, size_t max)
{
    if (n > max)
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = &in[i];
    if (n > 1)
        qsort(out, n, sizeof(*out), by_name);
    return true;
}

bool sigv4_query(struct buf *out, const struct sigv4_field *query, size_t n, bool canonical)
{
    const struct sigv4_field *sorted[QUERY_MAX];
    if (!sort(query, n, sorted, QUERY_MAX))
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *value = sorted[i]->value;
        if ((i > 0 && !buf_puts(out, "&")) ||
            !sigv4_encode(out, sorted[i]->name, strlen(sorted[i]->name), false))
            return false;
        if ((value != NULL || canonical) && !buf_puts(out, "="))
            return false;
        if (value != NULL && !sigv4_encode(out, value, strlen(value), false))
            return false;
    }
    return true;
}

void sigv4_date(time_t now, char out[SIGV4_DATE])
{
    struct tm tm;
    gmtime_r(&now, &tm);
    (void)strftime(out, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &tm);
}

void sigv4_hex(const uint8_t *in, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = hex[in[i] >> 4];
        out[2 * i + 1] = hex[in[i] & 15];
    }
    out[2 * n] = '\0';
}

bool sigv4_sha256_hex(const void *data, size_t n, char out[SIGV4_HEX])
{
    uint8_t sum[SHA256_BYTES];
    if (EVP_Digest(data, n, sum, NULL, EVP_sha256(), NULL) != 1)
        return false;
    sigv4_hex(sum, sizeof(sum), out);
    return true;
}

static bool hmac(const void *key, size_t key_len, const char *text, uint8_t out[SHA256_BYTES])
{
    return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), out,
                NULL) != NULL;
}

static const char *service(const struct sigv4_key *key)
{
    return key->service != NULL ? key->service : "s3";
}

/* "AWS4" + secret, folded with date, region, service and a constant. */
static bool signing_key(const struct sigv4_key *key, const char *day, uint8_t out[SHA256_BYTES])
{
    size_t cap = key->secret->len + 5;
    char *seed = malloc(cap);
    if (seed == NULL)
        return false;
    memcpy(seed, "AWS4", 4);
    memcpy(seed + 4, key->secret->value, key->secret->len);
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
    bool ok = hmac(seed, cap - 1, day, a) && hmac(a, sizeof(a), key->region, b) &&
              hmac(b, sizeof(b), service(key), a) && hmac(a, sizeof(a), "aws4_request", out);
    OPENSSL_cleanse(seed, cap);
    OPENSSL_cleanse(a, sizeof(a));
    OPENSSL_cleanse(b, sizeof(b));
    free(seed);
    return ok;
}

/* Values lose surrounding blanks, and runs of blanks become one. */
static bool put_value(struct buf *out, const char *value)
{
    bool blank = false, any = false;
    for (; *value != '\0'; value++) {
        if (*value == ' ' || *value == '\t') {
            blank = any;
            continue;
        }
        if ((blank && !buf_puts(out, " ")) || !buf_append(out, value, 1))
            return false;
        blank = false;
        any = true;
    }
    return true;
}

static bool canonical(const struct sigv4_request *req, const struct sigv4_field *const *headers,
                      const char *names, struct buf *out)
{
    if (!buf_printf(out, "%s\n%s\n", req->method, req->path) ||
        !sigv4_query(out, req->query, req->query_count, true) || !buf_puts(out, "\n"))
        return false;
    for (size_t i = 0; i < req->header_count; i++) {
        if (!buf_printf(out, "%s:", headers[i]->name) || !put_value(out, headers[i]->value) ||
            !buf_puts(out, "\n"))
            return false;
    }
    return buf_printf(out, "\n%s\n%s", names, req->payload_hex);
}

bool sigv4_authorize(const struct sigv4_key *key, const struct sigv4_request *req, struct buf *out,
                     struct err *err)
{
    const struct sigv4_field *headers[SIGV4_MAX_HEADERS];
    struct buf names = BUF_INIT(4096);
    struct buf text = BUF_SECRET_INIT(CANONICAL_MAX); /* the session token is in it */
    uint8_t k[SHA256_BYTES], signature[SHA256_BYTES];
    char request_hex[SIGV4_HEX], signature_hex[SIGV4_HEX], scope[128];
    bool fits = sort(req->headers, req->header_count, headers, SIGV4_MAX_HEADERS);
    for (size_t i = 0; fits && i < req->header_count; i++)
        fits = buf_printf(&names, "%s%s", i > 0 ? ";" : "", headers[i]->name);
    fits = fits && canonical(req, headers, buf_str(&names), &text);
    bool ok = fits && sigv4_sha256_hex(text.data, text.len, request_hex);
    (void)snprintf(scope, sizeof(scope), "%.8s/%.80s/%.20s/aws4_request", req->date, key->region,
                   service(key));
    text.len = 0;
    char day[9];
    (void)snprintf(day, sizeof(day), "%.8s", req->date);
    ok = ok && buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", req->date, scope, request_hex) &&
         signing_key(key, day, k) && hmac(k, sizeof(k), buf_str(&text), signature);
    OPENSSL_cleanse(k, sizeof(k));
    if (ok) {
        sigv4_hex(signature, sizeof(signature), signature_hex);
        ok = fits =
            buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s",
                       key->access_key_id, scope, buf_str(&names), signature_hex);
    }
    const struct buf *last = names.no_memory ? &names : text.no_memory ? &text : out;
    if (!fits)
        (void)buf_refused(last, "the request cannot be signed: it is too long", err);
    else if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    buf_free(&names);
    buf_free(&text);
    return ok;
}
