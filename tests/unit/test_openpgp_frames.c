/* core/openpgp_frames.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/openpgp_frames.h"

enum verdict { SOUND, BROKEN, UNDECIDED };

/* In pieces of every size the verdict is the same. */
static void check(const char *bytes, size_t n, enum verdict want)
{
    for (size_t piece = 1; piece <= n; piece++) {
        struct openpgp_frames f = {0};
        for (size_t at = 0; at < n; at += piece)
            openpgp_frames_feed(&f, bytes + at, n - at < piece ? n - at : piece);
        assert_int_equal(f.data, want == SOUND);
        assert_int_equal(f.broken, want == BROKEN);
    }
}
#define CHECK(bytes, want) check(bytes, sizeof(bytes) - 1, want)

static void session_keys_lead_to_data(void **state)
{
    (void)state;
    CHECK("\xd2\x03xyz", SOUND);                                    /* data at once */
    CHECK("\xa4\x03xyz", SOUND);                                    /* of the oldest kind */
    CHECK("\xd4\x03xyz", SOUND);                                    /* AEAD */
    CHECK("\x84\x02xy\xd2\xed", SOUND);                             /* old format, one byte */
    CHECK("\x85\x00\x02xy\xd2\xed", SOUND);                         /* two */
    CHECK("\x86\x00\x00\x00\x02xy\xd2\xed", SOUND);                 /* four */
    CHECK("\xc1\x02xy\xd2\xed", SOUND);                             /* new format, one byte */
    CHECK("\xc1\xff\x00\x00\x00\x02xy\xd2\xed", SOUND);             /* five */
    CHECK("\xc1\x02xy\xc3\x03xyz\x8c\x01x\xca\x03PGP\xd2x", SOUND); /* all kinds in a row */
    char two[3 + 192 + 256 + 1] = "\xc1\xc1\x00";                   /* two: 448 bytes */
    two[3 + 448] = '\xd2';
    check(two, 3 + 448 + 1, SOUND);
}

static void anything_else_in_front_is_damage(void **state)
{
    (void)state;
    CHECK("\x04", BROKEN);               /* no packet */
    CHECK("\x84\x02xyz\x80", BROKEN);    /* a length that leads astray */
    CHECK("\x84\x02xy\xcb", BROKEN);     /* literal data, in the clear */
    CHECK("\x84\x02xy\xff", BROKEN);     /* unknown: gpg would skip it */
    CHECK("\x87", BROKEN);               /* a session key without a length */
    CHECK("\xc1\xe0", BROKEN);           /* one in parts */
    CHECK("\xc1\x02xy\xc1\xfe", BROKEN); /* the second one */
}

static void the_end_in_front_of_the_data_is_not_judged(void **state)
{
    (void)state;
    CHECK("\x84", UNDECIDED);
    CHECK("\x84\x02x", UNDECIDED);
    CHECK("\x84\x02xy", UNDECIDED);
    CHECK("\x86\xff\xff\xff\xffxxxxxxx", UNDECIDED);
}

static void what_follows_the_data_is_not_looked_at(void **state)
{
    (void)state;
    CHECK("\xd2\x01x\x00\x00\x00\x00", SOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session_keys_lead_to_data),
        cmocka_unit_test(anything_else_in_front_is_damage),
        cmocka_unit_test(the_end_in_front_of_the_data_is_not_judged),
        cmocka_unit_test(what_follows_the_data_is_not_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
