/* A store around another one, for what must hold whatever a store does: it counts all calls, fails
 * one of them before or after it was done, and can hold uploads up. */
#ifndef WALEFS_TESTS_FAULT_STORE_H
#define WALEFS_TESTS_FAULT_STORE_H

#include "core/store.h"

enum fault {
    FAULT_BEFORE, /* the call is not done */
    FAULT_AFTER,  /* it is done, and the answer is lost */
    FAULT_RETRY   /* the same for a conditional put that is then tried again: ERR_EXISTS */
};

/* Called before an operation whose key is KEY; OP is its name in struct store_ops. */
typedef void fault_hook(void *arg, const char *op, const char *key);

struct fault_store;

/* Borrows INNER. */
struct fault_store *fault_store_new(struct store *inner);
struct store *fault_base(struct fault_store *f);
void fault_store_free(struct fault_store *f);

/* Call number NTH from now on (from 1; 0: none) fails with ERR_UNAVAILABLE, or as FAULT_RETRY says.
 * Every operation is a call, aborting an upload is not. */
void fault_at(struct fault_store *f, unsigned nth, enum fault fault);
unsigned fault_calls(struct fault_store *f); /* since fault_at */
bool fault_happened(struct fault_store *f);

void fault_set_hook(struct fault_store *f, fault_hook *hook, void *arg);

/* From now on this is a store that does not copy. */
void fault_no_copies(struct fault_store *f);

/* Reading a key that has PART in it fails as one in an archive storage class; NULL: none. */
void fault_freeze(struct fault_store *f, const char *part);

/* Parts of uploads do not go on before this is false again, or their call is cancelled. */
void fault_hold(struct fault_store *f, bool hold);
/* The same for the beginning of uploads. */
void fault_hold_begin(struct fault_store *f, bool hold);
unsigned fault_held(struct fault_store *f);         /* parts that are held up now */
unsigned fault_uploads_open(struct fault_store *f); /* begun, neither completed nor aborted */

#endif
