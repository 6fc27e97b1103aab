#include "core/s3_xml.h"

#include <expat.h>
#include <string.h>

#include "core/buf.h"

#define TEXT_MAX (16 * 1024)
#define DEPTH_MAX 8

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

bool s3_xml_parse(const char *data, size_t n, s3_xml_fn *fn, void *arg)
{
    struct walk w = {.fn = fn, .arg = arg, .text = BUF_INIT(TEXT_MAX)};
    if (n == 0 || n > INT32_MAX)
        return false;
    w.parser = XML_ParserCreate(NULL);
    if (w.parser == NULL)
        return false;
    XML_SetUserData(w.parser, &w);
    XML_SetElementHandler(w.parser, on_start, on_end);
    XML_SetCharacterDataHandler(w.parser, on_text);
    XML_SetStartDoctypeDeclHandler(w.parser, on_doctype);
    bool ok = XML_Parse(w.parser, data, (int)n, XML_TRUE) == XML_STATUS_OK && !w.failed;
    XML_ParserFree(w.parser);
    buf_free(&w.text);
    return ok;
}

/* Length of the well-formed UTF-8 sequence at S that XML 1.0 allows, 0 when there is none. */
static size_t xml_char(const unsigned char *s)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 || s[0] == '\t' || s[0] == '\n' || s[0] == '\r';
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    unsigned long c = s[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    bool overlong = (n == 3 && c < 0x800) || (n == 4 && c < 0x10000);
    bool excluded = (c >= 0xd800 && c <= 0xdfff) || c == 0xfffe || c == 0xffff || c > 0x10ffff;
    return overlong || excluded ? 0 : n;
}

bool s3_xml_escape(struct buf *out, const char *text)
{
    while (*text != '\0') {
        size_t n = xml_char((const unsigned char *)text);
        if (n == 0)
            return false;
        bool markup = n == 1 && (strchr("&<>\"'", *text) != NULL || *text < ' ' || *text == 0x7f);
        if (markup ? !buf_printf(out, "&#%d;", *text) : !buf_append(out, text, n))
            return false;
        text += n;
    }
    return true;
}
