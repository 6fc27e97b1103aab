#include "exposition.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MAX 4096
#define NAME_BYTES 128

struct sample {
    char name[NAME_BYTES];
    char labels[512]; /* without le */
    char le[32];      /* "" without one */
    double value;
};

struct family {
    char name[NAME_BYTES];
    char type[16];
    size_t first; /* of its samples */
};

static struct checker {
    struct sample samples[SERIES_MAX];
    size_t count;
    struct family families[256];
    size_t family_count;
    char help[NAME_BYTES]; /* of the HELP line just read; "" when there is none */
    char wrong[512];
} c;

static bool wrong(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c.wrong, sizeof(c.wrong), fmt, ap);
    va_end(ap);
    return false;
}

/* A name at *P, which moves behind it. */
static bool take_name(const char **p, bool colons, char out[NAME_BYTES])
{
    size_t n = 0;
    while (isalnum((unsigned char)(*p)[n]) || (*p)[n] == '_' || (colons && (*p)[n] == ':'))
        n++;
    if (n == 0 || n >= NAME_BYTES || isdigit((unsigned char)**p))
        return wrong("not a name: %.60s", *p);
    memcpy(out, *p, n);
    out[n] = '\0';
    *p += n;
    return true;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool take_head(const char *line)
{
    char name[NAME_BYTES];
    const char *p = line + strlen("# HELP ");
    bool help = strncmp(line, "# HELP ", 7) == 0;
    if (!help && strncmp(line, "# TYPE ", 7) != 0)
        return wrong("neither HELP nor TYPE: %.60s", line);
    if (!take_name(&p, true, name))
        return false;
    if (*p++ != ' ' || *p == '\0')
        return wrong("nothing behind the name: %.60s", line);
    if (help) {
        if (c.help[0] != '\0')
            return wrong("%s has no TYPE", c.help);
        strcpy(c.help, name);
        return true;
    }
    if (strcmp(c.help, name) != 0)
        return wrong("the TYPE of %s does not follow its HELP", name);
    c.help[0] = '\0';
    if (strcmp(p, "counter") != 0 && strcmp(p, "gauge") != 0 && strcmp(p, "histogram") != 0)
        return wrong("%s: no such type: %s", name, p);
    if ((strcmp(p, "counter") == 0) != ends_with(name, "_total"))
        return wrong("%s: only counters end in _total, and all do", name);
    for (size_t i = 0; i < c.family_count; i++)
        if (strcmp(c.families[i].name, name) == 0)
            return wrong("%s is there twice", name);
    struct family *f = &c.families[c.family_count++];
    strcpy(f->name, name);
    (void)snprintf(f->type, sizeof(f->type), "%s", p);
    f->first = c.count;
    return true;
}

/* name="value" at *P. */
static bool take_label(const char **p, struct sample *s)
{
    char name[NAME_BYTES], value[256];
    size_t n = 0;
    if (!take_name(p, false, name))
        return false;
    if (strncmp(*p, "=\"", 2) != 0)
        return wrong("%s: no value for the label %s", s->name, name);
    for (*p += 2; **p != '"'; (*p)++) {
        if (**p == '\0' || n + 2 >= sizeof(value))
            return wrong("%s: the label %s does not end", s->name, name);
        if (**p == '\\') {
            value[n++] = *(*p)++;
            if (**p != '\\' && **p != '"' && **p != 'n')
                return wrong("%s: an escape that does not exist in %s", s->name, name);
        }
        value[n++] = **p;
    }
    (*p)++;
    value[n] = '\0';
    if (strcmp(name, "le") == 0) {
        (void)snprintf(s->le, sizeof(s->le), "%.31s", value);
        return true;
    }
    n = strlen(s->labels);
    (void)snprintf(s->labels + n, sizeof(s->labels) - n, "%s=\"%s\",", name, value);
    return true;
}

static bool take_value(const char *p, struct sample *s)
{
    char *end;
    if (*p++ != ' ')
        return wrong("%s: no blank before the value", s->name);
    s->value = strtod(p, &end);
    if (end == p || *end != '\0' || isspace((unsigned char)*p))
        return wrong("%s: not a number: %s", s->name, p);
    return true;
}

static bool belongs(const struct family *f, const struct sample *s)
{
    static const char *const parts[] = {"_bucket", "_sum", "_count"};
    size_t n = strlen(f->name);
    if (strcmp(f->type, "histogram") != 0)
        return strcmp(f->name, s->name) == 0 && s->le[0] == '\0';
    if (strncmp(f->name, s->name, n) != 0)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (strcmp(s->name + n, parts[i]) == 0)
            return (i == 0) == (s->le[0] != '\0');
    return false;
}

static bool take_sample(const char *line)
{
    struct sample *s = &c.samples[c.count];
    const char *p = line;
    memset(s, 0, sizeof(*s));
    if (c.count + 1 >= SERIES_MAX)
        return wrong("too many series");
    if (!take_name(&p, true, s->name))
        return false;
    if (*p == '{') {
        do {
            p++;
            if (!take_label(&p, s))
                return false;
        } while (*p == ',');
        if (*p++ != '}')
            return wrong("%s: the labels do not end", s->name);
    }
    if (!take_value(p, s))
        return false;
    if (c.help[0] != '\0')
        return wrong("%s has no TYPE", c.help);
    if (c.family_count == 0 || !belongs(&c.families[c.family_count - 1], s))
        return wrong("%s does not stand below its TYPE", s->name);
    for (size_t i = 0; i < c.count; i++)
        if (strcmp(c.samples[i].name, s->name) == 0 &&
            strcmp(c.samples[i].labels, s->labels) == 0 && strcmp(c.samples[i].le, s->le) == 0)
            return wrong("%s{%s} is there twice", s->name, s->labels);
    c.count++;
    return true;
}

/* ---- histograms ---- */

static const struct sample *find(const char *family, const char *part, const char *labels)
{
    char name[2 * NAME_BYTES];
    (void)snprintf(name, sizeof(name), "%s%s", family, part);
    for (size_t i = 0; i < c.count; i++)
        if (strcmp(c.samples[i].name, name) == 0 && strcmp(c.samples[i].labels, labels) == 0)
            return &c.samples[i];
    return NULL;
}

/* From its first bucket at I on. */
static bool check_buckets(const struct family *f, size_t i)
{
    const struct sample *first = &c.samples[i];
    const struct sample *count = find(f->name, "_count", first->labels);
    double bound = -INFINITY, value = 0;
    if (count == NULL || find(f->name, "_sum", first->labels) == NULL)
        return wrong("%s{%s} has no _sum or no _count", f->name, first->labels);
    for (; i < c.count && strcmp(c.samples[i].name, first->name) == 0 &&
           strcmp(c.samples[i].labels, first->labels) == 0;
         i++) {
        double le = strtod(c.samples[i].le, NULL);
        if (le <= bound || c.samples[i].value < value)
            return wrong("%s{%s}: its buckets do not rise", f->name, first->labels);
        bound = le;
        value = c.samples[i].value;
    }
    if (!isinf(bound) || value != count->value)
        return wrong("%s{%s}: its last bucket is not +Inf with all", f->name, first->labels);
    return true;
}

static bool check_histograms(void)
{
    for (size_t f = 0; f < c.family_count; f++) {
        if (strcmp(c.families[f].type, "histogram") != 0)
            continue;
        size_t end = f + 1 < c.family_count ? c.families[f + 1].first : c.count;
        if (c.families[f].first == end)
            return wrong("%s has no series", c.families[f].name);
        for (size_t i = c.families[f].first; i < end; i++) {
            bool bucket = c.samples[i].le[0] != '\0';
            bool begins = bucket && (i == c.families[f].first || c.samples[i - 1].le[0] == '\0');
            if (begins && !check_buckets(&c.families[f], i))
                return false;
        }
    }
    return true;
}

const char *exposition_check(const char *text)
{
    memset(&c, 0, sizeof(c));
    if (*text == '\0' || text[strlen(text) - 1] != '\n')
        return "it does not end with a line's end";
    while (*text != '\0') {
        char line[1024];
        size_t n = strcspn(text, "\n");
        if (n >= sizeof(line))
            return "a line is too long";
        memcpy(line, text, n);
        line[n] = '\0';
        text += n + 1;
        if (!(line[0] == '#' ? take_head(line) : take_sample(line)))
            return c.wrong;
    }
    if (c.help[0] != '\0')
        (void)wrong("%s has no TYPE", c.help);
    return c.wrong[0] == '\0' && check_histograms() ? NULL : c.wrong;
}

bool exposition_value(const char *text, const char *series, double *value)
{
    size_t n = strlen(series);
    for (const char *p = text; p != NULL && *p != '\0';) {
        if (strncmp(p, series, n) == 0 && p[n] == ' ') {
            *value = strtod(p + n, NULL);
            return true;
        }
        p = strchr(p, '\n');
        p = p == NULL ? NULL : p + 1;
    }
    return false;
}
