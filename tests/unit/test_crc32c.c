#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/crc32c.h"

static uint32_t bit_by_bit(const unsigned char *p, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (UINT32_C(0x82f63b78) & (0u - (crc & 1)));
    }
    return ~crc;
}

typedef uint32_t sum_fn(uint32_t crc, const void *data, size_t n);
static sum_fn *const ways[] = {crc32c, crc32c_by_table};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* The values of RFC 3720, B.4. */
static void known_values(void **state)
{
    (void)state;
    for (size_t way = 0; way < WAYS; way++) {
        unsigned char bytes[32] = {0};
        assert_int_equal(ways[way](0, "123456789", 9), 0xe3069283);
        assert_int_equal(ways[way](0, bytes, sizeof(bytes)), 0x8a9136aa);
        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (unsigned char)i;
        assert_int_equal(ways[way](0, bytes, sizeof(bytes)), 0x46dd794e);
        assert_int_equal(ways[way](0, NULL, 0), 0);
    }
}

/* Begun one way, it can be ended the other: a file's sum does not depend on the machine. */
static void any_length_in_any_pieces(void **state)
{
    unsigned char bytes[120];
    (void)state;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof(bytes); n++)
        for (size_t cut = 0; cut <= n; cut++)
            for (size_t way = 0; way < WAYS; way++)
                assert_int_equal(ways[way](crc32c(0, bytes, cut), bytes + cut, n - cut),
                                 bit_by_bit(bytes, n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(any_length_in_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
