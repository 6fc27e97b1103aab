/* Logical dumps: which file under dumps/ is which object, and where the facts of an object stand
 * that its bytes do not tell.
 *
 *     dumps/PATH               the file
 *     dumps_005/PATH.lzo       its object, coded as everything else
 *     dumps_facts_005/PATH.lzo!SIZE!KIND!ETAG
 *                              a small object whose name is what a listing should show: SIZE is the
 *                              plain size in decimal, KIND "p" (plain lzop) or "e" (encrypted),
 * ETAG that of the object which is meant
 *
 * A dump's size is known when it has been read to its end, but the metadata of a multipart upload
 * are given at its beginning; and a listing shows no metadata. So the facts are an object of their
 * own, found by one listing for a thousand files. They name the ETag, so that they are never taken
 * for another content's; without them the object is read once. */
#ifndef WALEFS_CORE_DUMP_NAME_H
#define WALEFS_CORE_DUMP_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/store.h"

#define DUMP_PREFIX "dumps_005/"
#define DUMP_FACTS_PREFIX "dumps_facts_005/"
#define DUMP_META_DIGEST "walefs-digest" /* metadata of the facts: core/digest.h's text form */
#define DUMP_PATH_MAX 800u /* bytes: leaves room for the facts and for the archive's own prefix */
#define DUMP_NAME_MAX 251u /* of one component, which becomes a file name with ".lzo" */

struct dump_facts {
    uint64_t size; /* plain */
    bool encrypted;
    char etag[128];
};

/* One component of a path: what may reach the tree and the store. */
bool dump_name_ok(const char *name);

/* PATH: components with "/" between them, "" for dumps/ itself. ERR_INVALID when it cannot be a
 * dump's. The prefix of what is in a directory ends in "/". */
bool dump_key(const char *path, char key[STORE_KEY_MAX], struct err *err);
bool dump_dir_prefix(const char *path, char prefix[STORE_KEY_MAX], struct err *err);

/* The name, below the directory whose prefix is PREFIX, of a listed file ("PREFIX/NAME.lzo") or
 * directory ("PREFIX/NAME/"). False for what must not be shown: KEY is data. */
bool dump_name_of_key(const char *prefix, const char *key, bool is_dir,
                      char name[DUMP_NAME_MAX + 1]);

/* The key of the facts of the object KEY ("dumps_005/..."). False when they cannot be kept: too
 * long, or an ETag of unusual form. */
bool dump_facts_key(const char *key, const struct dump_facts *facts, char out[STORE_KEY_MAX]);
/* What all facts of KEY begin with: "dumps_facts_005/PATH.lzo!". */
bool dump_facts_prefix(const char *key, char out[STORE_KEY_MAX]);
/* Takes FACTS_KEY apart; OF (the key that is meant) may be NULL. False when it is none. */
bool dump_facts_parse(const char *facts_key, char of[STORE_KEY_MAX], struct dump_facts *out);

#endif
