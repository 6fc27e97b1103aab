/* Promise 4: what cannot be answered now is asked again, not answered wrongly. */
#ifndef WALEFS_FS_PERSIST_H
#define WALEFS_FS_PERSIST_H

#include "core/call.h"

struct persistence {
    bool hard; /* wait for ever; else until soft_timeout_ms have passed */
    int64_t soft_timeout_ms;
};

typedef bool persist_attempt(void *arg, const struct call *call, struct err *err);

/* Runs ATTEMPT until it succeeds, fails in a way that waiting does not change (absent, corrupt...),
 * is cancelled, or runs into the soft limit or the call's own deadline. Logs what is waited for,
 * and why, now and then. WHAT names it ("wal/0000..."). */
bool persist(const struct persistence *p, const char *what, const struct call *call,
             persist_attempt *attempt, void *arg, struct err *err);

#endif
