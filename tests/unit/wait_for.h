#ifndef WALEFS_TESTS_WAIT_FOR_H
#define WALEFS_TESTS_WAIT_FOR_H

#include "core/call.h"

#define LIMIT_MS 60000

/* Fails the test when CONDITION does not come true within LIMIT_MS. */
#define WAIT_FOR(condition)                            \
    do {                                               \
        int64_t begun_ = now_ms();                     \
        while (!(condition)) {                         \
            assert_true(now_ms() - begun_ < LIMIT_MS); \
            cancel_sleep_ms(NULL, 2);                  \
        }                                              \
    } while (0)

#endif
