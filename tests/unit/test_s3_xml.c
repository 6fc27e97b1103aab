/* XML of S3, and what pretends to be it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/buf.h"
#include "core/s3_xml.h"

/* All elements as "path=text;". STOP_AT: the walk is ended there. */
struct seen {
    struct buf text;
    const char *stop_at;
};

static bool on_element(void *arg, const char *path, const char *text, size_t len)
{
    struct seen *s = arg;
    assert_int_equal(strlen(text), len);
    assert_true(buf_printf(&s->text, "%s=%s;", path, text));
    return s->stop_at == NULL || strcmp(path, s->stop_at) != 0;
}

static bool parse(const char *xml, struct seen *s)
{
    *s = (struct seen){.text = BUF_INIT(1 << 20), .stop_at = s->stop_at};
    return s3_xml_parse(xml, strlen(xml), on_element, s);
}

static void good(const char *xml, const char *wanted)
{
    struct seen s = {.stop_at = NULL};
    if (!parse(xml, &s))
        fail_msg("refused: %s", xml);
    assert_string_equal(buf_str(&s.text), wanted);
    buf_free(&s.text);
}

static void bad(const char *xml)
{
    struct seen s = {.stop_at = NULL};
    if (parse(xml, &s))
        fail_msg("taken: %s", xml);
    buf_free(&s.text);
}

static void test_documents(void **state)
{
    (void)state;
    good("<a/>", "a=;");
    good("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a xmlns=\"urn:x\" y=\"z\">t</a>", "a=t;");
    good("<a><b>1</b><b>2</b><c><d>3</d></c></a>", "a/b=1;a/b=2;a/c/d=3;a/c=;a=;");
    good("<x:a><x:b>&lt;&amp;&#65;&#x42;&quot;<![CDATA[<c>]]></x:b></x:a>", "a/b=<&AB\"<c>;a=;");
    good("<a>\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98</a>", "a=\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98;");
}

static void test_refused(void **state)
{
    (void)state;
    bad("");
    bad("text");
    bad("<a>");
    bad("<a></b>");
    bad("<a/><b/>");
    bad("<a>&nbsp;</a>");
    bad("<a><b></a>");
    bad("{\"json\": true}");
    bad("<!DOCTYPE a><a/>");
    bad("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>");
    bad("<a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a>"); /* too deep */
}

/* A store that puts a name into its answer as it is must not make the answer unreadable. */
static void test_cleaned(void **state)
{
    (void)state;
    good("<a>x&#x01;y&#1;z&#xD800;&#xffff;</a>",
         "a=x" S3_XML_REPLACED "y" S3_XML_REPLACED "z" S3_XML_REPLACED S3_XML_REPLACED ";");
    good("<a>x\x01y</a>", "a=x" S3_XML_REPLACED "y;");
    good("<a>\xff\xc3</a>", "a=" S3_XML_REPLACED S3_XML_REPLACED ";");
    good("<a>\xc0\xaf</a>", "a=" S3_XML_REPLACED S3_XML_REPLACED ";"); /* overlong '/' */
    good("<?xml version='1.0' encoding='latin1'?><a>\xe4</a>", "a=" S3_XML_REPLACED ";");
    struct seen s = {.text = BUF_INIT(100)};
    assert_true(s3_xml_parse("<a>x\0y</a>", 10, on_element, &s));
    assert_string_equal(buf_str(&s.text), "a=x" S3_XML_REPLACED "y;");
    buf_free(&s.text);
}

static void test_limits(void **state)
{
    (void)state;
    struct buf xml = BUF_INIT(1 << 20);
    struct seen s = {.stop_at = NULL};
    assert_true(buf_puts(&xml, "<a>"));
    for (int i = 0; i < 17 * 1024; i++)
        assert_true(buf_puts(&xml, "x"));
    assert_true(buf_puts(&xml, "</a>"));
    assert_false(parse(xml.data, &s));
    buf_free(&s.text);
    xml.len = 0;
    assert_true(buf_puts(&xml, "<"));
    for (int i = 0; i < 300; i++)
        assert_true(buf_puts(&xml, "x"));
    assert_true(buf_puts(&xml, "/>"));
    assert_false(parse(xml.data, &s));
    buf_free(&s.text);
    buf_free(&xml);
}

static void test_stop(void **state)
{
    (void)state;
    struct seen s = {.stop_at = "a/b"};
    assert_false(parse("<a><b>1</b><c>2</c></a>", &s));
    assert_string_equal(buf_str(&s.text), "a/b=1;");
    buf_free(&s.text);
}

/* Every cut of a document is refused or, at its end, taken whole. */
static void test_truncated(void **state)
{
    (void)state;
    static const char doc[] = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>";
    for (size_t n = 0; n < sizeof(doc) - 1; n++) {
        struct seen s = {.text = BUF_INIT(1000)};
        assert_false(s3_xml_parse(doc, n, on_element, &s));
        buf_free(&s.text);
    }
}

static void test_escape(void **state)
{
    (void)state;
    static const char text[] = "a<b>&\"'\t\n\r\x7f\xc3\xa4\xf0\x9f\x90\x98";
    struct buf xml = BUF_INIT(1000);
    assert_true(buf_puts(&xml, "<a>"));
    assert_true(s3_xml_escape(&xml, text));
    assert_true(buf_puts(&xml, "</a>"));
    struct seen s = {.stop_at = NULL};
    assert_true(parse(xml.data, &s));
    assert_int_equal(s.text.len, 2 + strlen(text) + 1);
    assert_memory_equal(s.text.data + 2, text, strlen(text));
    buf_free(&s.text);
    const char *const impossible[] = {
        "\x01",        "a\x1f", "\xff", "\xc3", "\xed\xa0\x80", "\xef\xbf\xbf", "\xf4\x90\x80\x80",
        "\xe0\x80\xaf"};
    for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++)
        assert_false(s3_xml_escape(&xml, impossible[i]));
    buf_free(&xml);
    struct buf small = BUF_INIT(3);
    assert_false(s3_xml_escape(&small, "<"));
    buf_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cleaned),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_stop),      cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
