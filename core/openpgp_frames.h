/* The packets in front of a message's encrypted data, as RFC 4880 (4.2) frames them. gpg passes
 * over what it does not know, in silence: a damaged length there can make it skip the whole message
 * and end without a word, which is what a killed gpg looks like too. */
#ifndef WALEFS_CORE_OPENPGP_FRAMES_H
#define WALEFS_CORE_OPENPGP_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise. */
struct openpgp_frames {
    uint8_t head[6]; /* of the packet that begins */
    unsigned have;
    uint64_t skip; /* bytes of a packet's body still to come */
    bool data;     /* the encrypted data is reached: what follows is gpg's to judge */
    bool aead;     /* that is an AEAD packet */
    bool broken;
};

/* The message's next N bytes. */
void openpgp_frames_feed(struct openpgp_frames *f, const void *data, size_t n);

#endif
