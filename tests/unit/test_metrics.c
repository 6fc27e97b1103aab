/* core/metrics.c, and its text as Prometheus reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/metrics_text.h"
#include "core/s3_error.h"
#include "exposition.h"

static char *text_of_metrics(void)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    metrics_print(out);
    fclose(out);
    const char *wrong = exposition_check(text);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    return text;
}

static double value_of(const char *text, const char *series)
{
    double v;
    if (!exposition_value(text, series, &v))
        fail_msg("no series %s", series);
    return v;
}

static void test_work(void **state)
{
    (void)state;
    metrics_work(WORK_OPEN, ERR_NONE, 50);
    metrics_work(WORK_OPEN, ERR_NONE, 100);
    metrics_work(WORK_OPEN, ERR_NO_BUCKET, 101);
    metrics_work(WORK_OPEN, ERR_CORRUPT, 3600000000);
    metrics_work(WORK_OPEN, ERR_NONE, -5); /* a clock that goes back would be no reason to lie */
    char *t = text_of_metrics();
    assert_true(value_of(t, "walefs_requests_total{operation=\"open\",outcome=\"ok\"}") == 3);
    assert_true(value_of(t, "walefs_requests_total{operation=\"open\",outcome=\"no bucket\"}") ==
                1);
    assert_true(value_of(t, "walefs_requests_total{operation=\"open\",outcome=\"corrupt\"}") == 1);
    assert_true(value_of(t, "walefs_requests_total{operation=\"close\",outcome=\"ok\"}") == 0);
#define SECONDS "walefs_request_duration_seconds"
    assert_true(value_of(t, SECONDS "_bucket{operation=\"open\",le=\"0.0001\"}") == 3);
    assert_true(value_of(t, SECONDS "_bucket{operation=\"open\",le=\"0.0005\"}") == 4);
    assert_true(value_of(t, SECONDS "_bucket{operation=\"open\",le=\"60\"}") == 4);
    assert_true(value_of(t, SECONDS "_bucket{operation=\"open\",le=\"+Inf\"}") == 5);
    assert_true(value_of(t, SECONDS "_count{operation=\"open\"}") == 5);
    double sum = value_of(t, SECONDS "_sum{operation=\"open\"}");
    assert_true(sum > 3600.0002 && sum < 3600.0003);
    free(t);
}

/* Every kind of work and count has a name of its own. */
static void test_all_kinds_are_shown(void **state)
{
    (void)state;
    char *before = text_of_metrics();
    for (int w = 0; w < WORK_KINDS; w++)
        for (int code = 0; code < ERR_CODES; code++)
            metrics_work((enum metric_work)w, (enum err_code)code, 1);
    for (int k = 0; k < COUNT_KINDS; k++)
        metrics_add((enum metric_count)k, 1000u + (unsigned)k);
    char *after = text_of_metrics();
    assert_null(strstr(after, "(null)"));
    size_t outcomes = 0;
    for (const char *p = after; (p = strstr(p, "outcome=\"")) != NULL; p++)
        outcomes++;
    assert_int_equal(outcomes, WORK_KINDS * ERR_CODES);
    assert_true(value_of(after, "walefs_archived_bytes_total") ==
                value_of(before, "walefs_archived_bytes_total") + 1000 + COUNT_ARCHIVED_BYTES);
    free(before);
    free(after);
}

static void test_moments(void **state)
{
    (void)state;
    int64_t now = time(NULL);
    char *t = text_of_metrics();
    assert_true(value_of(t, "walefs_last_archive_timestamp_seconds") == 0);
    free(t);
    metrics_mark(MOMENT_ARCHIVED);
    assert_in_range(metrics_moment(MOMENT_ARCHIVED), now, now + 60);
    t = text_of_metrics();
    assert_true(value_of(t, "walefs_last_archive_timestamp_seconds") >= (double)now);
    assert_true(value_of(t, "walefs_last_archive_failure_timestamp_seconds") == 0);
    free(t);
}

static void s3_fails(const char *code)
{
    struct s3_error e = {.status = 503, .readable = code != NULL};
    struct err err = ERR_INIT;
    bool again;
    if (code != NULL)
        strcpy(e.code, code);
    strcpy(e.request_id, "tx42");
    assert_false(s3_error_to_err(&e, "put x", "", &err, &again));
    assert_string_equal(err.remote, code == NULL ? "" : code);
    assert_string_equal(err.request, code == NULL ? "" : "tx42");
}

static void test_s3_errors(void **state)
{
    (void)state;
    s3_fails("SlowDown");
    s3_fails("SlowDown");
    s3_fails("Bad\"Name\\"); /* not a code of ours: never a label */
    s3_fails(NULL);
    char *t = text_of_metrics();
    assert_true(value_of(t, "walefs_s3_errors_total{code=\"SlowDown\"}") == 2);
    assert_true(value_of(t, "walefs_s3_errors_total{code=\"other\"}") == 1);
    assert_true(value_of(t, "walefs_s3_errors_total{code=\"none\"}") == 1);
    assert_null(strstr(t, "Bad"));
    assert_null(strstr(t, "AccessDenied"));
    free(t);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    metrics_family(out, "a", "gauge", "h");
    fputs("a{b=", out);
    metrics_label(out, "x\"y\\z\nw");
    fputs("} 1\n", out);
    fclose(out);
    assert_non_null(strstr(text, "a{b=\"x\\\"y\\\\z\\nw\"} 1\n"));
    assert_null(exposition_check(text));
    free(text);
}

/* The reader that the tests rely on finds what is wrong. */
static void test_the_reader_is_strict(void **state)
{
    (void)state;
#define HEAD "# HELP a h\n# TYPE a gauge\n"
#define HISTOGRAM "# HELP a h\n# TYPE a histogram\n"
    static const char *const bad[] = {
        "",
        "a 1\n",
        HEAD "a 1",
        HEAD "a 1\na 2\n",
        HEAD "a x\n",
        HEAD "a  1\n",
        HEAD "a{b=\"c\"d=\"e\"} 1\n",
        HEAD "a{b=\"\\x\"} 1\n",
        HEAD "a{1b=\"c\"} 1\n",
        HEAD "b 1\n",
        HEAD HEAD,
        "# TYPE a gauge\na 1\n",
        "# HELP a h\na 1\n",
        "# HELP a h\n# TYPE a counter\na 1\n",
        "# HELP a_total h\n# TYPE a_total gauge\na_total 1\n",
        HISTOGRAM "a_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
        HISTOGRAM "a_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        HISTOGRAM "a_bucket{le=\"+Inf\"} 1\na_count 1\n",
        HISTOGRAM "a_bucket{le=\"2\"} 1\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_sum 1\n"
                  "a_count 1\n",
        HISTOGRAM "a_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        HEAD "a 1\n# HELP b h\n# TYPE b gauge\nb 1\na{x=\"y\"} 2\n",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (exposition_check(bad[i]) == NULL)
            fail_msg("accepted: %s", bad[i]);
    assert_null(exposition_check(HISTOGRAM
                                 "a_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count "
                                 "1\n"));
}

#define THREADS 8
#define EACH 10000

static void *count_much(void *arg)
{
    (void)arg;
    for (int i = 0; i < EACH; i++) {
        metrics_add(COUNT_CACHE_HITS, 1);
        metrics_work(WORK_READ, ERR_NONE, 1);
    }
    return NULL;
}

static void test_nothing_is_lost_between_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    uint64_t hits = metrics_count(COUNT_CACHE_HITS);
    uint64_t reads = metrics_work_count(WORK_READ, ERR_NONE);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(metrics_count(COUNT_CACHE_HITS) - hits, THREADS * EACH);
    assert_int_equal(metrics_work_count(WORK_READ, ERR_NONE) - reads, THREADS * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_s3_errors),
        cmocka_unit_test(test_all_kinds_are_shown),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_the_reader_is_strict),
        cmocka_unit_test(test_nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
