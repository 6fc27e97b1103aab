/* Allocations that fail, each once. Programs whose names begin with test_no_memory are linked so
 * that what walefs' own sources ask malloc and its like for is asked here first (see the Makefile).
 * Libraries' own allocations are not touched. */
#ifndef WALEFS_TESTS_NO_MEMORY_H
#define WALEFS_TESTS_NO_MEMORY_H

#include <stdbool.h>

#include "core/err.h"

/* Does something that allocates; true when that worked. Must leave nothing allocated, whatever
 * happens; ends with no_memory_over before it looks at the result. */
typedef bool no_memory_work(struct err *err);

/* From here on nothing fails any more. Returns OK. */
bool no_memory_over(bool ok);

/* Calls WORK with allocation 1 failing, then with allocation 2..., in any thread, until there are
 * no more. Asserts that it works when none fails; and when it does not work, that its error is one
 * that may pass (err_transient), most often ERR_NO_MEMORY. */
void no_memory_each(const char *name, no_memory_work *work);

/* The next allocation fails, in any thread, but first that thread calls MEANWHILE. */
void no_memory_next(void (*meanwhile)(void));

#endif
