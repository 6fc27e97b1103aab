#include "core/s3_xml.h"

#include <expat.h>
#include <string.h>

#include "core/buf.h"

#define TEXT_MAX (16 * 1024)
#define DEPTH_MAX 8
#define DOCUMENT_MAX (64 * 1024 * 1024)

struct walk {
    XML_Parser parser;
    s3_xml_fn *fn;
    void *arg;
    char path[S3_XML_PATH_MAX];
    unsigned depth;
    struct buf text; /* of the innermost open element since its last child */
    bool failed;
};

static void stop(struct walk *w)
{
    w->failed = true;
    XML_StopParser(w->parser, XML_FALSE);
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    struct walk *w = arg;
    const char *colon = strrchr(name, ':');
    const char *local = colon == NULL ? name : colon + 1;
    size_t have = strlen(w->path), n = strlen(local);
    w->text.len = 0;
    if (++w->depth > DEPTH_MAX || have + n + 2 > sizeof(w->path)) {
        stop(w);
        return;
    }
    if (have > 0)
        w->path[have++] = '/';
    memcpy(w->path + have, local, n + 1);
}

static void on_end(void *arg, const XML_Char *name)
{
    (void)name;
    struct walk *w = arg;
    w->depth--;
    if (w->failed)
        return;
    if (!buf_append(&w->text, "", 0) || !w->fn(w->arg, w->path, buf_str(&w->text), w->text.len)) {
        stop(w);
        return;
    }
    w->text.len = 0;
    char *slash = strrchr(w->path, '/');
    *(slash == NULL ? w->path : slash) = '\0';
}

static void on_text(void *arg, const XML_Char *text, int n)
{
    struct walk *w = arg;
    if (!buf_append(&w->text, text, (size_t)n))
        stop(w);
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid,
                       const XML_Char *pubid, int internal)
{
    (void)name;
    (void)sysid;
    (void)pubid;
    (void)internal;
    stop(arg);
}

/* A character that XML 1.0 allows. */
static bool allowed(unsigned long c)
{
    if (c < 0x20)
        return c == '\t' || c == '\n' || c == '\r';
    return !(c >= 0xd800 && c <= 0xdfff) && c != 0xfffe && c != 0xffff && c <= 0x10ffff;
}

/* Length of the well-formed UTF-8 sequence of an allowed character at S, 0 when there is none. */
static size_t xml_char(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return allowed(s[0]) ? 1 : 0;
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
        return 0;
    unsigned long c = s[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    bool overlong = (n == 3 && c < 0x800) || (n == 4 && c < 0x10000);
    return overlong || !allowed(c) ? 0 : n;
}

/* Length of a reference to a character that is not allowed ("&#x01;") at S, else 0. */
static size_t bad_reference(const char *s, size_t left)
{
    if (left < 4 || s[0] != '&' || s[1] != '#')
        return 0;
    bool hex = s[2] == 'x';
    size_t i = hex ? 3 : 2;
    unsigned long c = 0;
    for (; i < left && i < 12 && s[i] != ';'; i++) {
        bool digit = s[i] >= '0' && s[i] <= '9';
        char letter = (char)(s[i] | 0x20);
        if (!digit && !(hex && letter >= 'a' && letter <= 'f'))
            return 0;
        c = c * (hex ? 16 : 10) + (unsigned long)(digit ? s[i] - '0' : letter - 'a' + 10);
    }
    return i < left && s[i] == ';' && !allowed(c) ? i + 1 : 0;
}

/* Copies a document, U+FFFD in place of what XML 1.0 does not allow: stores put names into their
 * answers as they are, and one odd name must not make a whole list unreadable. */
static bool clean(const char *data, size_t n, struct buf *out)
{
    if (!buf_reserve(out, n))
        return false;
    for (size_t i = 0; i < n;) {
        size_t bad = bad_reference(data + i, n - i);
        size_t good = bad > 0 ? 0 : xml_char((const unsigned char *)data + i, n - i);
        if (!buf_append(out, good > 0 ? data + i : S3_XML_REPLACED, good > 0 ? good : 3))
            return false;
        i += good > 0 ? good : bad > 0 ? bad : 1;
    }
    return true;
}

bool s3_xml_parse(const char *data, size_t n, s3_xml_fn *fn, void *arg)
{
    struct walk w = {.fn = fn, .arg = arg, .text = BUF_INIT(TEXT_MAX)};
    struct buf text = BUF_INIT(DOCUMENT_MAX);
    bool ok = n > 0 && clean(data, n, &text);
    w.parser = ok ? XML_ParserCreate("UTF-8") : NULL;
    if (w.parser != NULL) {
        XML_SetUserData(w.parser, &w);
        XML_SetElementHandler(w.parser, on_start, on_end);
        XML_SetCharacterDataHandler(w.parser, on_text);
        XML_SetStartDoctypeDeclHandler(w.parser, on_doctype);
        ok = XML_Parse(w.parser, text.data, (int)text.len, XML_TRUE) == XML_STATUS_OK && !w.failed;
        XML_ParserFree(w.parser);
    } else {
        ok = false;
    }
    buf_free(&text);
    buf_free(&w.text);
    return ok;
}

bool s3_xml_escape(struct buf *out, const char *text)
{
    for (size_t left = strlen(text), n; left > 0; text += n, left -= n) {
        n = xml_char((const unsigned char *)text, left);
        if (n == 0)
            return false;
        bool markup = n == 1 && (strchr("&<>\"'", *text) != NULL || *text < ' ' || *text == 0x7f);
        if (markup ? !buf_printf(out, "&#%d;", *text) : !buf_append(out, text, n))
            return false;
    }
    return true;
}
