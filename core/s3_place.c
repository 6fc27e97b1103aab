/* Where the bucket is: host and region. A region that was not given is us-east-1, until the store
 * names another one (Amazon S3 User Guide, "Making requests to a bucket in another Region"). Places
 * that were left stay until the store is freed: requests under way use them. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/log.h"
#include "core/s3.h"

#define DEFAULT_REGION "us-east-1"
#define PLACES_MAX 8 /* a store that sends us around in circles is not followed for ever */

/* "AZ09-" and so on; what may stand in a bucket's name or region without being encoded. */
static bool only_chars(const char *text, const char *allowed_more)
{
    static const char common[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    for (; *text != '\0'; text++) {
        if (strchr(common, *text) == NULL && strchr(allowed_more, *text) == NULL)
            return false;
    }
    return true;
}

bool s3_bucket_ok(const char *bucket)
{
    return bucket != NULL && strlen(bucket) >= 3 && strlen(bucket) <= 63 &&
           only_chars(bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZ._") && bucket[0] != '.';
}

/* Learned ones come from the network and become part of a host name. */
static bool region_ok(const char *region)
{
    return region[0] != '\0' && strlen(region) < S3_REGION && only_chars(region, "_");
}

/* Virtual hosts need a bucket name that is a host name; with TLS also one that the wildcard of the
 * server's certificate covers; and an endpoint that is a name. */
static bool needs_path_style(const char *bucket, const char *host, bool tls)
{
    char name[256];
    struct in_addr ignored;
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(host, ":"), host);
    return !only_chars(bucket, ".") || (tls && strchr(bucket, '.') != NULL) || host[0] == '[' ||
           inet_pton(AF_INET, name, &ignored) == 1;
}

struct endpoint {
    bool tls;
    char host[280]; /* with the port unless it is the scheme's own */
};

static bool parse_endpoint(const char *url, struct endpoint *e, struct err *err)
{
    const char *rest = NULL;
    if (strncasecmp(url, "https://", 8) == 0)
        rest = url + 8;
    else if (strncasecmp(url, "http://", 7) == 0)
        rest = url + 7;
    if (rest == NULL)
        return err_set(err, ERR_INVALID, "endpoint %.200s: must begin with http:// or https://",
                       url);
    e->tls = (url[4] | 0x20) == 's';
    size_t n = strcspn(rest, "/?#");
    const char *tail = rest + n;
    bool ok = n > 0 && n < 256 && memchr(rest, '@', n) == NULL &&
              (tail[0] == '\0' || strcmp(tail, "/") == 0);
    memcpy(e->host, rest, ok ? n : 0);
    e->host[ok ? n : 0] = '\0';
    for (char *c = e->host; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c | 0x20);
        ok = ok && (only_chars((char[]){*c, '\0'}, "._:[]%"));
    }
    char *colon = strrchr(e->host, ':');
    if (colon != NULL && strchr(colon, ']') == NULL) {
        char *end;
        long port = strtol(colon + 1, &end, 10);
        ok = ok && *end == '\0' && port > 0 && port < 65536;
        if (port == (e->tls ? 443 : 80))
            *colon = '\0';
    }
    return ok || err_set(err, ERR_INVALID, "endpoint %.200s: must be http(s)://host[:port]", url);
}

static void aws_endpoint(const char *region, struct endpoint *e)
{
    e->tls = true;
    (void)snprintf(e->host, sizeof(e->host), "s3.%s.amazonaws.com%s", region,
                   strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static void place_free(struct s3_place *p)
{
    if (p == NULL)
        return;
    free(p->host);
    free(p->origin);
    free(p);
}

static struct s3_place *place_new(const struct s3 *s3, const char *region, struct err *err)
{
    struct endpoint e = {.tls = false};
    if (s3->endpoint == NULL)
        aws_endpoint(region, &e);
    else if (!parse_endpoint(s3->endpoint, &e, err))
        return NULL;
    struct s3_place *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    p->path_style = s3->path_style || needs_path_style(s3->bucket, e.host, e.tls);
    (void)snprintf(p->region, sizeof(p->region), "%s", region);
    if (asprintf(&p->host, "%s%s%s", p->path_style ? "" : s3->bucket, p->path_style ? "" : ".",
                 e.host) < 0)
        p->host = NULL;
    if (p->host == NULL || asprintf(&p->origin, "%s://%s", e.tls ? "https" : "http", p->host) < 0)
        p->origin = NULL;
    if (p->origin != NULL)
        return p;
    place_free(p);
    err_set(err, ERR_NO_MEMORY, "out of memory");
    return NULL;
}

bool s3_place_begin(struct s3 *s3, const char *region, struct err *err)
{
    s3->region_given = region != NULL && region[0] != '\0';
    if (s3->region_given && !region_ok(region))
        return err_set(err, ERR_INVALID, "\"%.100s\" is not a region", region);
    struct s3_place *p = place_new(s3, s3->region_given ? region : DEFAULT_REGION, err);
    atomic_store(&s3->place, p);
    return p != NULL;
}

void s3_place_end(struct s3 *s3)
{
    struct s3_place *p = atomic_load(&s3->place);
    while (p != NULL) {
        struct s3_place *older = p->older;
        place_free(p);
        p = older;
    }
}

bool s3_place_follow(struct s3 *s3, struct s3_place *used, const struct s3_error *e)
{
    struct err err = ERR_INIT;
    if (s3->region_given || !s3_error_moved(e) || strcmp(e->region, used->region) == 0 ||
        !region_ok(e->region) || used->number == PLACES_MAX)
        return false;
    if (atomic_load(&s3->place) != used)
        return true; /* another request has followed already */
    struct s3_place *next = place_new(s3, e->region, &err);
    if (next == NULL)
        return false;
    next->older = used;
    next->number = used->number + 1;
    struct s3_place *expected = used;
    if (atomic_compare_exchange_strong(&s3->place, &expected, next))
        log_info("bucket %s is in region %s", s3->bucket, next->region);
    else
        place_free(next);
    return true;
}
