/* For tests that have malloc, or others of its kind, of their own, which call libc's: whether that
 * is what is called. The compiler knows that libc's functions read no variable of the program: what
 * theirs read is volatile. */
#ifndef WALEFS_TESTS_OWN_MALLOC_H
#define WALEFS_TESTS_OWN_MALLOC_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

static volatile bool own_malloc_called; /* set by the test's malloc, or its free */

/* Not with sanitizers and under valgrind, which have theirs. */
static bool own_malloc_is_used(void)
{
    own_malloc_called = false;
    char *volatile p = strdup("x"); /* libc's call: one from here might be inlined */
    free(p);
    return own_malloc_called;
}

#endif
