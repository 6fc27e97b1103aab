/* core/s3_sweep.c against a scripted server: what is aborted, what is left alone, where it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/s3.h"
#include "tests/unit/store_env.h"

#define BEFORE 1600000000 /* 2020-09-13 */
#define LIST \
    "{'expect': 'GET /bucket\\?prefix=p%2F&uploads=?', 'text': '<ListMultipartUploadsResult>"
#define LIST_FROM(marker)                          \
    "{'expect': 'GET /bucket\\?key-marker=" marker \
    "&prefix=p%2F&upload-id-marker=m&uploads=?', 'text': '<ListMultipartUploadsResult>"
#define UPLOAD(key, id, year)                                               \
    "<Upload><Key>" key "</Key><UploadId>" id "</UploadId><Initiated>" year \
    "-01-01T00:00:00.000Z</Initiated></Upload>"
#define GOES_ON(marker)                                     \
    "<IsTruncated>true</IsTruncated><NextKeyMarker>" marker \
    "</NextKeyMarker><NextUploadIdMarker>m</NextUploadIdMarker>"
#define END "</ListMultipartUploadsResult>'}"
#define ABORT(key, id) "{'expect': 'DELETE /bucket/p/" key "\\?uploadId=" id "', 'status': 204}"

static bool sweep(const char *steps, size_t *aborted, struct err *err)
{
    struct script script;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 3);
    bool ok = s3_sweep((struct s3 *)s, BEFORE, aborted, &env_forever, err);
    s->ops->free(s);
    script_end(&script);
    return ok;
}

static void sweeps(const char *steps, size_t wanted)
{
    struct err err = ERR_INIT;
    size_t aborted = 99;
    if (!sweep(steps, &aborted, &err))
        fail_msg("%s: %s", steps, err.text);
    assert_int_equal(aborted, wanted);
}

static void only_what_is_old_is_aborted(void **state)
{
    (void)state;
    sweeps("[" LIST END "]", 0);
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2021") UPLOAD("p/c", "3", "2020")
               END ", " ABORT("a", "1") ", " ABORT("c", "3") "]",
           2);
    /* of an age that is not told nothing is known */
    sweeps("[" LIST UPLOAD("p/a", "1", "never") "<Upload><Key>p/b</Key><UploadId>2</UploadId>"
                                                "</Upload>" END "]",
           0);
}

/* A store that does not heed the prefix. */
static void what_is_others_is_left_alone(void **state)
{
    (void)state;
    sweeps("[" LIST UPLOAD("other/a", "1", "2019") UPLOAD("p/", "2", "2019")
               UPLOAD("p", "3", "2019") END "]",
           0);
}

static void an_upload_without_its_fields_is_passed_over(void **state)
{
    (void)state;
    sweeps("[" LIST "<Upload><Key>p/a</Key></Upload>" END "]", 0);
    sweeps("[" LIST
           "<Upload><UploadId>1</UploadId></Upload><Initiator><Key>p/x</Key></Initiator>" END "]",
           0);
}

static void all_pages_are_read(void **state)
{
    (void)state;
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") GOES_ON("p/a") END
           ", " ABORT("a", "1") ", " LIST_FROM("p%2Fa") UPLOAD("p/b", "2", "2019") GOES_ON("p/b")
               END ", " ABORT("b", "2") ", " LIST_FROM("p%2Fb") UPLOAD("p/c", "3", "2019") END
           ", " ABORT("c", "3") "]",
           3);
    /* it goes on, and does not say where */
    sweeps("[" LIST "<IsTruncated>true</IsTruncated>" END "]", 0);
}

/* A store that answers every page with the first one. */
static void a_list_that_does_not_go_on_ends(void **state)
{
    (void)state;
    sweeps("[" LIST GOES_ON("p/a") END ", " LIST_FROM("p%2Fa") GOES_ON("p/a") END "]", 0);
}

static void somebody_else_may_be_faster(void **state)
{
    (void)state;
    sweeps(
        "[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") END
        ", {'expect': 'DELETE .*', 'status': 404, 'error': 'NoSuchUpload'}, " ABORT("b", "2") "]",
        2);
}

static void what_fails_ends_it(void **state)
{
    static const struct {
        const char *steps;
        enum err_code code;
    } cases[] = {
        {"[{'status': 403, 'error': 'AccessDenied'}]", ERR_FORBIDDEN},
        {"[{'text': '<html>', 'times': 2}]", ERR_UNAVAILABLE},
        {"[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") END
         ", {'expect': 'DELETE .*', 'status': 403, 'error': 'AccessDenied'}]",
         ERR_FORBIDDEN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        size_t aborted = 99;
        assert_false(sweep(cases[i].steps, &aborted, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(aborted, 0);
    }
}

static void checked(const char *steps, enum store_check how)
{
    struct script script;
    struct err err = ERR_INIT;
    bool weak;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 3);
    assert_ok(s->ops->check(s, how, &weak, &env_forever, &err), &err);
    s->ops->free(s);
    script_end(&script);
}

/* A mount that can write sweeps what is older than a day; one that cannot asks for nothing. */
static void mounting_sweeps_what_is_older_than_a_day(void **state)
{
#define LOOK                                               \
    "{'expect': 'GET /bucket\\?.*list-type=2.*', 'text': " \
    "'<ListBucketResult></ListBucketResult>'}, "           \
    "{'expect': 'GET /bucket/p/wal_005/walefs_absent', 'status': 404, 'error': 'NoSuchKey'}"
#define PROBES                                                                                 \
    "{'expect': 'PUT /bucket/p/walefs_probe', 'status': 412, 'error': 'PreconditionFailed'}, " \
    "{'expect': 'PUT /bucket/p/walefs_probe', 'status': 400, "                                 \
    "'error': 'XAmzContentSHA256Mismatch'}"
    static const int age_h[2] = {25, 23};
    char when[2][32], steps[4096];
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tm tm;
        time_t t = time(NULL) - age_h[i] * 3600;
        assert_true(strftime(when[i], sizeof(when[i]), "%FT%TZ", gmtime_r(&t, &tm)) > 0);
    }
    (void)snprintf(
        steps, sizeof(steps), "%s%s%s%s%s",
        "[" LOOK ", " PROBES ", " LIST "<Upload><Key>p/old</Key><UploadId>1</UploadId><Initiated>",
        when[0], "</Initiated></Upload><Upload><Key>p/young</Key><UploadId>2</UploadId><Initiated>",
        when[1], "</Initiated></Upload>" END ", " ABORT("old", "1") "]");
    checked(steps, STORE_CHECK_MOUNT);
    checked("[" LOOK "]", STORE_CHECK_READ);
}

int main(void)
{
    log_setup(LOG_TO_STDERR, 0, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_old_is_aborted),
        cmocka_unit_test(what_is_others_is_left_alone),
        cmocka_unit_test(an_upload_without_its_fields_is_passed_over),
        cmocka_unit_test(all_pages_are_read),
        cmocka_unit_test(a_list_that_does_not_go_on_ends),
        cmocka_unit_test(somebody_else_may_be_faster),
        cmocka_unit_test(what_fails_ends_it),
        cmocka_unit_test(mounting_sweeps_what_is_older_than_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
