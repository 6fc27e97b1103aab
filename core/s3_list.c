/* ListObjectsV2. Names are asked for in URL encoding, since XML 1.0 cannot carry every key. That
 * does not cover the continuation token, which radosgw makes from a key: one that does not survive
 * XML is replaced by a start after the page's last key. So page.next is "t" and the store's token,
 * or "k" and a whole key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/s3.h"
#include "core/s3_xml.h"

struct list_parse {
    struct s3 *s3;
    const struct store_list *list;
    const char *what;
    struct store_page *page;
    size_t cap;
    struct store_entry entry; /* being read */
    bool root_seen, truncated, url_encoded;
    bool no_memory;
};

int64_t s3_parse_time(const char *text)
{
    struct tm tm = {.tm_isdst = 0};
    if (sscanf(text, "%d-%d-%dT%d:%d:%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec) != 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return timegm(&tm);
}

static bool set_text(struct list_parse *p, char **out, const char *text)
{
    free(*out);
    *out = strdup(text);
    p->no_memory = *out == NULL;
    return *out != NULL;
}

static bool push(struct list_parse *p)
{
    if (p->entry.key == NULL)
        return true;
    if (p->page->count == p->cap) {
        size_t cap = p->cap == 0 ? 16 : 2 * p->cap;
        struct store_entry *grown = realloc(p->page->entries, cap * sizeof(*grown));
        p->no_memory = grown == NULL;
        if (grown == NULL)
            return false;
        p->page->entries = grown;
        p->cap = cap;
    }
    p->page->entries[p->page->count++] = p->entry;
    p->entry = (struct store_entry){.key = NULL};
    return true;
}

static bool on_contents(struct list_parse *p, const char *field, const char *text, size_t n)
{
    if (strcmp(field, "Key") == 0)
        return set_text(p, &p->entry.key, text);
    if (strcmp(field, "Size") == 0)
        p->entry.size = strtoull(text, NULL, 10);
    else if (strcmp(field, "LastModified") == 0)
        p->entry.mtime_s = s3_parse_time(text);
    else if (strcmp(field, "ETag") == 0)
        s3_copy_etag(text, p->entry.etag);
    else if (strcmp(field, "StorageClass") == 0)
        s3_error_field(p->entry.storage_class, sizeof(p->entry.storage_class), text, n);
    return true;
}

static bool on_element(void *arg, const char *path, const char *text, size_t n)
{
    struct list_parse *p = arg;
    static const char root[] = "ListBucketResult/", contents[] = "Contents/";
    if (strcmp(path, "ListBucketResult") == 0) {
        p->root_seen = true;
        return true;
    }
    if (strncmp(path, root, sizeof(root) - 1) != 0)
        return true;
    const char *field = path + sizeof(root) - 1;
    if (strncmp(field, contents, sizeof(contents) - 1) == 0)
        return on_contents(p, field + sizeof(contents) - 1, text, n);
    if (strcmp(field, "Contents") == 0 || strcmp(field, "CommonPrefixes") == 0)
        return push(p);
    if (strcmp(field, "CommonPrefixes/Prefix") == 0) {
        p->entry.is_prefix = true;
        return set_text(p, &p->entry.key, text);
    }
    if (strcmp(field, "IsTruncated") == 0)
        p->truncated = strcmp(text, "true") == 0;
    else if (strcmp(field, "EncodingType") == 0)
        p->url_encoded = strcmp(text, "url") == 0;
    else if (strcmp(field, "NextContinuationToken") == 0)
        return set_text(p, &p->page->next, text);
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. '+' is a blank: Amazon encodes like a form. False for a NUL or a broken escape. */
static bool url_decode(char *s)
{
    char *out = s;
    for (; *s != '\0'; s++) {
        if (*s != '%') {
            *out++ = *s == '+' ? ' ' : *s;
            continue;
        }
        int high = hex_digit(s[1]), low = high < 0 ? -1 : hex_digit(s[2]);
        if (low < 0 || (high == 0 && low == 0))
            return false;
        *out++ = (char)(high << 4 | low);
        s += 2;
    }
    *out = '\0';
    return true;
}

/* Behind every key that begins with a common prefix. */
#define AFTER_ALL "\xf4\x8f\xbf\xbf"

static bool set_next(struct list_parse *p, struct err *err)
{
    char *token = p->page->next;
    bool usable = strstr(token, S3_XML_REPLACED) == NULL;
    const struct store_entry *last = NULL;
    for (size_t i = 0; !usable && i < p->page->count; i++) {
        if (last == NULL || strcmp(p->page->entries[i].key, last->key) > 0)
            last = &p->page->entries[i];
    }
    char *next = NULL;
    if (!usable && last == NULL)
        return err_set(err, ERR_CORRUPT, "%s: a list that goes on without saying where", p->what);
    int rc = usable ? asprintf(&next, "t%s", token)
                    : asprintf(&next, "k%s%s", last->key, last->is_prefix ? AFTER_ALL : "");
    if (rc < 0)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    free(token);
    p->page->next = next;
    /* what ignores the token answers with its first page for ever */
    return p->list->token == NULL || strcmp(next, p->list->token) != 0 ||
           err_set(err, ERR_CORRUPT, "%s: the store answers with the same page again", p->what);
}

/* Decodes the keys, makes them relative to the prefix and drops what was not asked for. */
static bool finish_keys(struct list_parse *p, struct err *err)
{
    struct store_page *page = p->page;
    size_t prefix_len = strlen(p->s3->prefix), kept = 0;
    for (size_t i = 0; i < page->count; i++) {
        if (!p->url_encoded || url_decode(page->entries[i].key))
            page->entries[kept++] = page->entries[i];
        else
            free(page->entries[i].key);
    }
    page->count = kept;
    if (page->more && !set_next(p, err))
        return false;
    kept = 0;
    bool ok = true;
    for (size_t i = 0; i < page->count; i++) {
        struct store_entry e = page->entries[i];
        if (strncmp(e.key, p->s3->prefix, prefix_len) != 0)
            ok = err_set(err, ERR_CORRUPT, "%s: the store lists a key outside the prefix", p->what);
        else
            memmove(e.key, e.key + prefix_len, strlen(e.key) - prefix_len + 1);
        /* "prefix/" itself, which consoles make; and a common prefix of keys behind start_after
         * that is itself not behind it, about which stores differ */
        if (ok && e.key[0] != '\0' &&
            (p->list->start_after == NULL || strcmp(e.key, p->list->start_after) > 0))
            page->entries[kept++] = e;
        else
            free(e.key);
    }
    page->count = kept;
    return ok;
}

static bool accept_list(void *arg, struct s3_reply *reply, struct err *err, bool *again)
{
    struct list_parse *p = arg;
    store_page_free(p->page);
    p->cap = 0;
    p->root_seen = p->truncated = p->url_encoded = p->no_memory = false;
    bool ok = s3_xml_parse(buf_str(&reply->body), reply->body.len, on_element, p) && p->root_seen;
    free(p->entry.key);
    p->entry = (struct store_entry){.key = NULL};
    *again = !p->no_memory;
    if (p->no_memory)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    if (!ok)
        return err_set(err, ERR_UNAVAILABLE, "%s: the answer is not a list of S3", p->what);
    if (p->truncated && p->page->next == NULL)
        return err_set(err, ERR_UNAVAILABLE, "%s: a list that goes on without saying where",
                       p->what);
    *again = false;
    p->page->more = p->truncated;
    if (!p->truncated) {
        free(p->page->next);
        p->page->next = NULL;
    }
    if (!finish_keys(p, err))
        return false;
    store_page_sort(p->page);
    return true;
}

static char *join(const char *prefix, const char *key)
{
    char *full = NULL;
    return asprintf(&full, "%s%s", prefix, key) < 0 ? NULL : full;
}

bool s3_list_tries(struct s3 *s3, const struct store_list *list, struct store_page *page,
                   unsigned max_attempts, const struct call *call, struct err *err)
{
    struct s3_request req;
    struct s3_reply reply = {.x = NULL};
    char max_keys[16];
    *page = (struct store_page){.entries = NULL};
    char *prefix = join(s3->prefix, list->prefix);
    char *after = list->start_after == NULL ? NULL : join(s3->prefix, list->start_after);
    bool ok = prefix != NULL && (after != NULL || list->start_after == NULL);
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    s3_request_init(&req, s3, "GET", "list", NULL);
    s3_add_query(&req, "list-type", "2");
    s3_add_query(&req, "encoding-type", "url");
    s3_add_query(&req, "prefix", prefix);
    if (list->delimiter != NULL)
        s3_add_query(&req, "delimiter", list->delimiter);
    if (list->token != NULL && list->token[0] == 't')
        s3_add_query(&req, "continuation-token", list->token + 1);
    else if (list->token != NULL)
        s3_add_query(&req, "start-after", list->token + 1);
    else if (after != NULL)
        s3_add_query(&req, "start-after", after);
    (void)snprintf(max_keys, sizeof(max_keys), "%u", list->max_keys);
    if (list->max_keys > 0)
        s3_add_query(&req, "max-keys", max_keys);
    struct list_parse parse = {.s3 = s3, .list = list, .what = req.what, .page = page};
    req.accept = accept_list;
    req.accept_arg = &parse;
    req.max_attempts = max_attempts;
    ok = ok && s3_perform_read(s3, &req, call, &reply, err);
    s3_reply_free(&reply);
    free(prefix);
    free(after);
    if (!ok)
        store_page_free(page);
    return ok;
}

bool s3_list(struct store *store, const struct store_list *list, struct store_page *page,
             const struct call *call, struct err *err)
{
    return s3_list_tries((struct s3 *)store, list, page, 0, call, err);
}
