/* How an object's bytes are coded: lzop, then OpenPGP when recipients are configured. Decoding goes
 * by the first bytes of the object, never by the configuration. */
#ifndef WALEFS_CORE_CODEC_H
#define WALEFS_CORE_CODEC_H

#include "core/call.h"
#include "core/openpgp.h"
#include "core/stream.h"

/* Codes all of PLAIN into OUT and finishes OUT. LIVE: PLAIN is still being written by somebody, so
 * this uses a gpg place only if one is free and returns ERR_THROTTLED at once if none is. Closes
 * neither. Blocks; any thread. */
bool codec_encode(struct openpgp *pgp, struct source *plain, struct sink *out, bool live,
                  const struct call *call, struct err *err);

/* Decodes all of CODED into OUT and finishes OUT, which then holds verified bytes. ERR_CORRUPT when
 * the object is neither OpenPGP nor lzop, or damaged, or empty; ERR_UNSUPPORTED as lzop_decoder;
 * ERR_KEY as openpgp_decrypt. Closes neither. Blocks; any thread. */
bool codec_decode(struct openpgp *pgp, struct source *coded, struct sink *out,
                  enum openpgp_priority priority, const struct call *call, struct err *err);

#endif
