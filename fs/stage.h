/* A staged file: the bytes of a candidate while somebody writes them.
 *
 * It lives in an anonymous file on this host. While it is written from front to back, a live coder
 * follows the writer, compressing and encrypting into a second anonymous file; when the writer
 * finishes, only the last block is left to do. A write that is not an append, or a change after the
 * coder was told that the end had come, abandons that work, and the file is coded when it is
 * published.
 *
 * Reference-counted; any thread. No lock is held across disk, gpg or network. */
#ifndef WALEFS_FS_STAGE_H
#define WALEFS_FS_STAGE_H

#include "core/codec.h"
#include "core/digest.h"
#include "core/pool.h"
#include "core/spool.h"

struct stage;

/* What staging needs from its surroundings; outlives all stages. */
struct stage_env {
    struct openpgp *pgp;
    struct pool *pool;
    const char *dir;       /* where anonymous files go */
    _Atomic unsigned live; /* live coders at work */
    struct cancel *stop; /* fired when the mount ends: live coders stop waiting for their writers */
};

/* A coded copy of one version of a stage. Reference-counted. */
struct coded {
    _Atomic unsigned refs;
    int fd;
    struct spool_result spool; /* size and SHA-256 of the coded bytes */
    uint64_t plain_size;
    char digest[DIGEST_TEXT_MAX]; /* of the plain bytes */
};

void coded_unref(struct coded *coded);

/* LIVE: code while it is written. NULL on failure. One reference, the caller's. */
struct stage *stage_new(struct stage_env *env, bool live, struct err *err);
struct stage *stage_ref(struct stage *stage);
void stage_unref(struct stage *stage); /* NULL is allowed */

bool stage_write(struct stage *stage, const void *data, size_t n, uint64_t offset, struct err *err);
bool stage_truncate(struct stage *stage, uint64_t size, struct err *err);

/* The anonymous file, for reading; borrowed from the stage. */
int stage_fd(const struct stage *stage);
uint64_t stage_size(struct stage *stage);

/* Counts changes: two equal versions have equal content. */
uint64_t stage_version(struct stage *stage);

/* Changed since the last stage_saved? An untouched new stage is not dirty. */
bool stage_dirty(struct stage *stage);

/* VERSION has been published; its coded copy is given up. */
void stage_saved(struct stage *stage, uint64_t version);

/* Codes the present content, or waits for the live coder to come to its end. *VERSION is what was
 * coded. A reference that the caller drops; NULL on failure. Blocks. */
struct coded *stage_code(struct stage *stage, uint64_t *version, const struct call *call,
                         struct err *err);

/* Its writer is done for now: a live coder may take what there is for the whole and finish. */
void stage_seal(struct stage *stage);

/* Nobody writes any more, and what was written is not wanted: ends a live coder. */
void stage_abandon(struct stage *stage);

#endif
