/* A credential or passphrase: wiped when it is freed, never handed to a log. There is deliberately
 * no function that formats one. */
#ifndef WALEFS_CORE_SECRET_H
#define WALEFS_CORE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct secret {
    char *value; /* NUL-terminated; NULL when unset */
    size_t len;
};

#define SECRET_INIT             \
    {                           \
        .value = NULL, .len = 0 \
    }

/* Copies N bytes (no NUL among them). An earlier value is wiped. */
bool secret_set(struct secret *s, const char *value, size_t n, struct err *err);

/* Reads the first line of a file of at most 64 KiB, without its line end (trailing white space
 * kept: it may belong to a passphrase). WHAT names the thing in the error. */
bool secret_read_file(struct secret *s, const char *path, const char *what, struct err *err);

bool secret_is_set(const struct secret *s);
void secret_free(struct secret *s);

#endif
