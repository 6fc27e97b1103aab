#include "fs/staged.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/spool.h"

struct staged *staged_new(const char *dir, struct err *err)
{
    struct staged *s = malloc(sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    atomic_store(&s->refs, 1);
    s->fd = spool_open(dir, err);
    if (s->fd >= 0)
        return s;
    free(s);
    return NULL;
}

struct staged *staged_ref(struct staged *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void staged_unref(struct staged *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    close(s->fd);
    free(s);
}
