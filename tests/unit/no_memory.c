#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "no_memory.h"

static _Atomic unsigned countdown; /* the allocation that fails, 1 being the next; 0: none */
static _Atomic bool happened;
static void (*_Atomic meanwhile)(void); /* called once, before an allocation fails */

/* The linker's --wrap makes these pairs; in other programs there are none, and no calls. */
extern void *__real_malloc(size_t n) __attribute__((weak));
extern void *__real_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__real_realloc(void *p, size_t n) __attribute__((weak));
extern void *__real_reallocarray(void *p, size_t n, size_t size) __attribute__((weak));
extern char *__real_strdup(const char *text) __attribute__((weak));
extern char *__real_strndup(const char *text, size_t n) __attribute__((weak));
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);
int __wrap_asprintf(char **out, const char *fmt, ...);

static bool fails(void)
{
    unsigned left = atomic_load(&countdown);
    while (left > 0 && !atomic_compare_exchange_weak(&countdown, &left, left - 1)) {
    }
    if (left != 1)
        return false;
    atomic_store(&happened, true);
    void (*act)(void) = atomic_exchange(&meanwhile, NULL);
    if (act != NULL)
        act();
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
    return fails() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t n)
{
    return fails() ? NULL : __real_strndup(text, n);
}

int __wrap_asprintf(char **out, const char *fmt, ...)
{
    va_list args;
    if (fails())
        return -1;
    va_start(args, fmt);
    int n = vasprintf(out, fmt, args);
    va_end(args);
    return n;
}

bool no_memory_over(bool ok)
{
    atomic_store(&countdown, 0);
    atomic_store(&meanwhile, NULL);
    return ok;
}

void no_memory_next(void (*act)(void))
{
    atomic_store(&meanwhile, act);
    atomic_store(&countdown, 1);
}

void no_memory_each(const char *name, no_memory_work *work)
{
    bool more = true;
    unsigned nth = 0;
    while (more) {
        struct err err = ERR_INIT;
        nth++;
        atomic_store(&happened, false);
        atomic_store(&countdown, nth);
        bool ok = work(&err);
        more = atomic_load(&happened);
        (void)no_memory_over(true);
        if (!more && !ok)
            fail_msg("%s: %s", name, err.text);
        if (!ok && !err_transient(err.code))
            fail_msg("%s, allocation %u: %s: %s", name, nth, err_name(err.code), err.text);
    }
    assert_true(nth > 1);
    print_message("%s: %u allocations\n", name, nth - 1);
}
