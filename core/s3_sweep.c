/* Uploads that their makers have left behind: they cost money and show nowhere.
 *
 * A dump may take days, so that the time at which an upload was begun tells little: one to which a
 * part was added lately is alive, and of one whose parts may not be listed nothing is known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/s3.h"
#include "core/s3_xml.h"

struct found {
    char *key, *id;
    int64_t begun_s;
};

struct page {
    struct found found[1000];
    size_t count;
    struct found now; /* the one that is being read */
    char *next_key, *next_id;
    bool truncated, no_memory;
};

static void page_clear(struct page *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->found[i].key);
        free(p->found[i].id);
    }
    free(p->now.key);
    free(p->now.id);
    free(p->next_key);
    free(p->next_id);
    memset(p, 0, sizeof(*p));
}

static bool set(struct page *p, char **to, const char *text)
{
    free(*to);
    *to = strdup(text);
    p->no_memory = *to == NULL;
    return !p->no_memory;
}

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    static const char root[] = "ListMultipartUploadsResult/";
    struct page *p = arg;
    (void)n;
    if (strncmp(path, root, sizeof(root) - 1) != 0)
        return true;
    path += sizeof(root) - 1;
    if (strcmp(path, "Upload/Key") == 0)
        return set(p, &p->now.key, text);
    if (strcmp(path, "Upload/UploadId") == 0)
        return set(p, &p->now.id, text);
    if (strcmp(path, "NextKeyMarker") == 0)
        return set(p, &p->next_key, text);
    if (strcmp(path, "NextUploadIdMarker") == 0)
        return set(p, &p->next_id, text);
    if (strcmp(path, "Upload/Initiated") == 0)
        p->now.begun_s = s3_parse_time(text);
    else if (strcmp(path, "IsTruncated") == 0)
        p->truncated = strcmp(text, "true") == 0;
    else if (strcmp(path, "Upload") == 0 && p->now.key != NULL && p->now.id != NULL &&
             p->count < sizeof(p->found) / sizeof(p->found[0])) {
        p->found[p->count++] = p->now;
        memset(&p->now, 0, sizeof(p->now));
    }
    return true;
}

static bool accept_page(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct page *p = arg;
    *again = true;
    page_clear(p);
    if (s3_xml_parse(buf_str(&reply->body), reply->body.len, on_element, p))
        return true;
    *again = !p->no_memory;
    return err_set(err, p->no_memory ? ERR_NO_MEMORY : ERR_UNAVAILABLE,
                   "the list of uploads is not readable");
}

/* Asks twice at most: the next mount looks again. */
static bool ask(struct s3 *s3, struct s3_request *req, const struct call *call, struct err *err)
{
    struct s3_reply reply = {.x = NULL};
    req->max_attempts = 2;
    bool ok = s3_perform(s3, req, call, &reply, err);
    s3_reply_free(&reply);
    return ok;
}

static bool get_page(struct s3 *s3, const char *key_marker, const char *id_marker, struct page *p,
                     const struct call *call, struct err *err)
{
    struct s3_request req;
    s3_request_init(&req, s3, "GET", "list uploads", NULL);
    s3_add_query(&req, "uploads", NULL);
    s3_add_query(&req, "prefix", s3->prefix);
    if (key_marker != NULL)
        s3_add_query(&req, "key-marker", key_marker);
    if (id_marker != NULL)
        s3_add_query(&req, "upload-id-marker", id_marker);
    req.accept = accept_page;
    req.accept_arg = p;
    return ask(s3, &req, call, err);
}

enum growth { GREW, STANDS_STILL, NOT_KNOWN };

struct parts {
    int64_t newest_s;
    unsigned long next;
    bool root_seen, truncated, unknown;
};

static bool on_part(void *arg, const char *path, const char *text, size_t n)
{
    struct parts *p = arg;
    (void)n;
    if (strcmp(path, "ListPartsResult") == 0) {
        p->root_seen = true;
    } else if (strcmp(path, "ListPartsResult/Part/LastModified") == 0) {
        int64_t when_s = s3_parse_time(text);
        p->unknown |= when_s == 0;
        p->newest_s = when_s > p->newest_s ? when_s : p->newest_s;
    } else if (strcmp(path, "ListPartsResult/NextPartNumberMarker") == 0) {
        p->next = strtoul(text, NULL, 10);
    } else if (strcmp(path, "ListPartsResult/IsTruncated") == 0) {
        p->truncated = strcmp(text, "true") == 0;
    }
    return true;
}

static bool accept_parts(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct parts *p = arg;
    *again = true;
    *p = (struct parts){.newest_s = 0};
    return (s3_xml_parse(buf_str(&reply->body), reply->body.len, on_part, p) && p->root_seen) ||
           err_set(err, ERR_UNAVAILABLE, "the list of an upload's parts is not readable");
}

static bool get_parts(struct s3 *s3, const struct found *f, unsigned long after, struct parts *p,
                      const struct call *call, struct err *err)
{
    struct s3_request req;
    char marker[24];
    (void)snprintf(marker, sizeof(marker), "%lu", after);
    s3_request_init(&req, s3, "GET", "list parts", f->key + strlen(s3->prefix));
    s3_add_query(&req, "uploadId", f->id);
    if (after > 0)
        s3_add_query(&req, "part-number-marker", marker);
    req.accept = accept_parts;
    req.accept_arg = p;
    return ask(s3, &req, call, err);
}

/* Parts are listed by their numbers, and one that was put again is younger than those behind it:
 * all are looked at, up to the first that is young. */
static bool look_at_parts(struct s3 *s3, const struct found *f, int64_t older_than_s,
                          enum growth *growth, const struct call *call, struct err *err)
{
    struct parts p = {.truncated = true};
    *growth = STANDS_STILL;
    for (unsigned long after = 0; p.truncated && *growth == STANDS_STILL; after = p.next) {
        if (!get_parts(s3, f, after, &p, call, err))
            return false;
        if (p.newest_s >= older_than_s)
            *growth = GREW;
        else if (p.unknown || (p.truncated && p.next <= after))
            *growth = NOT_KNOWN;
    }
    return true;
}

/* Not every store heeds the prefix. */
static bool is_stale(const struct s3 *s3, const struct found *f, int64_t older_than_s)
{
    size_t skip = strlen(s3->prefix);
    return f->begun_s != 0 && f->begun_s < older_than_s && strncmp(f->key, s3->prefix, skip) == 0 &&
           f->key[skip] != '\0';
}

/* Is the failed request's reason that somebody else has ended the upload meanwhile? */
static bool is_gone(const struct err *err)
{
    return strcmp(err->remote, "NoSuchUpload") == 0;
}

static bool abort_one(struct s3 *s3, const struct found *f, const struct call *call,
                      struct err *err)
{
    struct s3_request req;
    s3_request_init(&req, s3, "DELETE", "abort", f->key + strlen(s3->prefix));
    s3_add_query(&req, "uploadId", f->id);
    return ask(s3, &req, call, err) || is_gone(err);
}

static bool sweep_one(struct s3 *s3, const struct found *f, int64_t older_than_s,
                      struct s3_swept *swept, const struct call *call, struct err *err)
{
    enum growth growth;
    if (!look_at_parts(s3, f, older_than_s, &growth, call, err)) {
        if (err->code != ERR_FORBIDDEN && err->code != ERR_UNSUPPORTED)
            return is_gone(err);
        growth = NOT_KNOWN;
    }
    swept->left += growth == NOT_KNOWN;
    if (growth != STANDS_STILL)
        return true;
    if (!abort_one(s3, f, call, err))
        return false;
    swept->aborted++;
    return true;
}

static bool same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Some stores answer with the first page whatever they are asked for. */
static bool goes_on(const struct page *p, const char *key_marker, const char *id_marker)
{
    return p->next_key != NULL && !(same(p->next_key, key_marker) && same(p->next_id, id_marker));
}

bool s3_sweep(struct s3 *s3, int64_t older_than_s, struct s3_swept *swept, const struct call *call,
              struct err *err)
{
    char *key_marker = NULL, *id_marker = NULL;
    bool ok = true, more = true;
    struct page *p = calloc(1, sizeof(*p));
    *swept = (struct s3_swept){.aborted = 0};
    if (p == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    while (ok && more) {
        ok = get_page(s3, key_marker, id_marker, p, call, err);
        for (size_t i = 0; ok && i < p->count; i++) {
            if (is_stale(s3, &p->found[i], older_than_s))
                ok = sweep_one(s3, &p->found[i], older_than_s, swept, call, err);
        }
        more = ok && p->truncated && goes_on(p, key_marker, id_marker);
        free(key_marker);
        free(id_marker);
        key_marker = p->next_key;
        id_marker = p->next_id;
        p->next_key = p->next_id = NULL;
    }
    free(key_marker);
    free(id_marker);
    page_clear(p);
    free(p);
    return ok;
}
