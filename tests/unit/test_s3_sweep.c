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
#define PARTS(key, id) \
    "{'expect': 'GET /bucket/p/" key "\\?uploadId=" id "', 'text': '<ListPartsResult>"
#define PARTS_FROM(marker, key, id)                                                  \
    "{'expect': 'GET /bucket/p/" key "\\?part-number-marker=" marker "&uploadId=" id \
    "', 'text': '<ListPartsResult>"
#define PART(number, year)                                         \
    "<Part><PartNumber>" number "</PartNumber><LastModified>" year \
    "-01-01T00:00:00.000Z</LastModified></Part>"
#define PARTS_GO_ON(marker) \
    "<IsTruncated>true</IsTruncated><NextPartNumberMarker>" marker "</NextPartNumberMarker>"
#define PARTS_END "</ListPartsResult>'}"
/* an upload whose parts are old, and then its end */
#define DEAD(key, id) PARTS(key, id) PART("1", "2019") PARTS_END ", " ABORT(key, id)

static bool sweep(const char *steps, struct s3_swept *swept, struct err *err)
{
    struct script script;
    script_begin(&script, steps);
    struct store *s = script_store(&script, 3);
    bool ok = s3_sweep((struct s3 *)s, BEFORE, swept, &env_forever, err);
    s->ops->free(s);
    script_end(&script);
    return ok;
}

static void sweeps_and_leaves(const char *steps, size_t aborted, size_t left)
{
    struct err err = ERR_INIT;
    struct s3_swept swept = {.aborted = 99, .left = 99};
    if (!sweep(steps, &swept, &err))
        fail_msg("%s: %s", steps, err.text);
    assert_int_equal(swept.aborted, aborted);
    assert_int_equal(swept.left, left);
}

static void sweeps(const char *steps, size_t wanted)
{
    sweeps_and_leaves(steps, wanted, 0);
}

static void only_what_is_old_is_aborted(void **state)
{
    (void)state;
    sweeps("[" LIST END "]", 0);
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2021") UPLOAD("p/c", "3", "2020")
               END ", " DEAD("a", "1") ", " DEAD("c", "3") "]",
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
           ", " DEAD("a", "1") ", " LIST_FROM("p%2Fa") UPLOAD("p/b", "2", "2019") GOES_ON("p/b") END
           ", " DEAD("b", "2") ", " LIST_FROM("p%2Fb") UPLOAD("p/c", "3", "2019") END
           ", " DEAD("c", "3") "]",
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
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") UPLOAD("p/c", "3", "2019")
               END ", " PARTS("a", "1") PARTS_END
           ", {'expect': 'DELETE .*', 'status': 404, 'error': 'NoSuchUpload'}, "
           "{'expect': 'GET .*', 'status': 404, 'error': 'NoSuchUpload'}, " DEAD("c", "3") "]",
           2);
}

/* A dump may take longer than a day: it is alive as long as parts of it are stored. */
static void what_grows_is_left_alone(void **state)
{
    (void)state;
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") END ", " PARTS("a", "1")
               PART("1", "2019") PART("2", "2021") PARTS_END ", " DEAD("b", "2") "]",
           1);
    /* that part was put again, so that it is not the last by number */
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") END ", " PARTS("a", "1") PART("1", "2021")
               PART("2", "2019") PARTS_END "]",
           0);
    /* on a later page */
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") END ", " PARTS("a", "1") PART("1", "2019")
               PARTS_GO_ON("1000") PARTS_END ", " PARTS_FROM("1000", "a", "1") PART("1001", "2021")
                   PARTS_GO_ON("2000") PARTS_END "]",
           0);
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") END ", " PARTS("a", "1") PART("1", "2019")
               PARTS_GO_ON("1000") PARTS_END ", " PARTS_FROM("1000", "a", "1") PART("1001", "2019")
                   PARTS_END ", " ABORT("a", "1") "]",
           1);
    /* none was ever stored */
    sweeps("[" LIST UPLOAD("p/a", "1", "2019") END ", " PARTS("a", "1") PARTS_END
           ", " ABORT("a", "1") "]",
           1);
}

/* What may be alive is not aborted. */
static void what_is_not_known_is_left_alone(void **state)
{
    (void)state;
    sweeps_and_leaves("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019")
                          UPLOAD("p/c", "3", "2019") END
                      ", {'expect': 'GET .*uploadId=1', 'status': 403, 'error': 'AccessDenied'}, "
                      "{'expect': 'GET .*uploadId=2', 'status': 501, 'error': 'NotImplemented'}"
                      ", " DEAD("c", "3") "]",
                      1, 2);
    /* a time that cannot be read, and a list that does not go on */
    sweeps_and_leaves("[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") END
                      ", " PARTS("a", "1") PART("1", "lately ") PARTS_END ", " PARTS("b", "2")
                          PART("1", "2019") "<IsTruncated>true</IsTruncated>" PARTS_END "]",
                      0, 2);
    sweeps_and_leaves("[" LIST UPLOAD("p/b", "2", "2019") END ", " PARTS("b", "2")
                          PARTS_GO_ON("1000") PARTS_END ", " PARTS_FROM("1000", "b", "2")
                              PARTS_GO_ON("1000") PARTS_END "]",
                      0, 1);
}

static void what_fails_ends_it(void **state)
{
    static const struct {
        const char *steps;
        enum err_code code;
    } cases[] = {
        {"[{'status': 403, 'error': 'AccessDenied'}]", ERR_FORBIDDEN},
        {"[{'text': '<html>', 'times': 2}]", ERR_UNAVAILABLE},
        {"[" LIST UPLOAD("p/a", "1", "2019") END ", {'text': '<html/>', 'times': 2}]",
         ERR_UNAVAILABLE},
        {"[" LIST UPLOAD("p/a", "1", "2019") UPLOAD("p/b", "2", "2019") END ", " PARTS("a", "1")
             PARTS_END ", {'expect': 'DELETE .*', 'status': 403, 'error': 'AccessDenied'}]",
         ERR_FORBIDDEN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct s3_swept swept = {.aborted = 99};
        assert_false(sweep(cases[i].steps, &swept, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(swept.aborted, 0);
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

/* A mount that can write sweeps what did not grow for a day; one that cannot asks for nothing. */
static void mounting_sweeps_what_did_not_grow_for_a_day(void **state)
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
#define BEGUN(key, id) "<Upload><Key>p/" key "</Key><UploadId>" id "</UploadId><Initiated>"
#define BEGUN_END "</Initiated></Upload>"
#define LAST_PART "<Part><LastModified>"
#define LAST_PART_END "</LastModified></Part>"
    (void)snprintf(steps, sizeof(steps), "%s%s%s%s%s%s%s%s%s%s%s",
                   "[" LOOK ", " PROBES ", " LIST BEGUN("old", "1"), when[0],
                   BEGUN_END BEGUN("young", "2"), when[1], BEGUN_END BEGUN("grows", "3"), when[0],
                   BEGUN_END END ", " PARTS("old", "1") LAST_PART, when[0],
                   LAST_PART_END PARTS_END ", " ABORT("old", "1") ", " PARTS("grows", "3")
                       LAST_PART,
                   when[1], LAST_PART_END PARTS_END "]");
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
        cmocka_unit_test(what_grows_is_left_alone),
        cmocka_unit_test(what_is_not_known_is_left_alone),
        cmocka_unit_test(what_fails_ends_it),
        cmocka_unit_test(mounting_sweeps_what_did_not_grow_for_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
