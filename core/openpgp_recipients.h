/* To whom an OpenPGP message is encrypted, as its first packets say (RFC 4880, 5.1; RFC 9580). */
#ifndef WALEFS_CORE_OPENPGP_RECIPIENTS_H
#define WALEFS_CORE_OPENPGP_RECIPIENTS_H

#include <stddef.h>

#include "core/buf.h"

/* Appends the ids of the keys (16 hexadecimal digits; "anonymous" for one that is not told;
 * "passphrase") with blanks between, as far as the first N bytes of the message show them. False
 * when these are no start of a message, or OUT is full. */
bool openpgp_recipients(const void *message, size_t n, struct buf *out);

#endif
