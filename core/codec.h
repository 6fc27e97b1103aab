/* How an object's bytes are coded: lzop, then OpenPGP when recipients are configured. Decoding goes
 * by the first bytes of the object, never by the configuration. */
#ifndef WALEFS_CORE_CODEC_H
#define WALEFS_CORE_CODEC_H

#include "core/call.h"
#include "core/lzop_map.h"
#include "core/openpgp.h"
#include "core/stream.h"

/* What is learnt of an object while it is coded or decoded; the map is freed with lzop_map_free. */
struct codec_facts {
    struct lzop_map map;
    bool encrypted;
};

/* Codes all of PLAIN into OUT and finishes OUT. LIVE: PLAIN is still being written by somebody, so
 * this uses a gpg place only if one is free and returns ERR_THROTTLED at once if none is. FACTS may
 * be NULL. Closes neither. Blocks; any thread. */
bool codec_encode(struct openpgp *pgp, struct source *plain, struct sink *out, bool live,
                  struct codec_facts *facts, const struct call *call, struct err *err);

/* Decodes all of CODED into OUT and finishes OUT, which then holds verified bytes. ERR_CORRUPT when
 * the object is neither OpenPGP nor lzop, or damaged, or empty; ERR_UNSUPPORTED as lzop_decoder;
 * ERR_KEY as openpgp_decrypt. Closes neither. Blocks; any thread. */
bool codec_decode(struct openpgp *pgp, struct source *coded, struct sink *out,
                  enum openpgp_priority priority, struct codec_facts *facts,
                  const struct call *call, struct err *err);

/* Decodes COUNT blocks of an object that is not encrypted, from block FIRST of MAP on; CODED begins
 * there. Finishes OUT. Errors as of codec_decode, and of lzop_block_decoder. Closes neither. */
bool codec_decode_blocks(struct source *coded, const struct lzop_map *map, size_t first,
                         size_t count, struct sink *out, const struct call *call, struct err *err);

#endif
