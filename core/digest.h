/* The salted digest of a file's plain content, kept as object metadata: it tells whether a file
 * that is archived again is the same, without fetching and decoding the object and without telling
 * the store's owner which objects are equal. Text form: "sha256:SALT:DIGEST", both hexadecimal;
 * DIGEST is SHA-256 over the 16 bytes of salt and the content. Not thread-safe. */
#ifndef WALEFS_CORE_DIGEST_H
#define WALEFS_CORE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define DIGEST_SALT_BYTES 16u
#define DIGEST_TEXT_MAX 112u /* with the NUL */

struct digest;

/* Starts with the salt of an existing text form, or with a random one when LIKE is NULL. NULL with
 * ERR_INVALID when LIKE is not of that form. */
struct digest *digest_new(const char *like, struct err *err);
bool digest_update(struct digest *d, const void *data, size_t n, struct err *err);
bool digest_final(struct digest *d, char text[DIGEST_TEXT_MAX], struct err *err);
void digest_free(struct digest *d);

/* The digest of the first SIZE bytes of FD, with LIKE's salt as above. */
bool digest_fd(int fd, uint64_t size, const char *like, char text[DIGEST_TEXT_MAX],
               struct err *err);

#endif
