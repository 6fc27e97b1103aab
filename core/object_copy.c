#include "core/object_copy.h"

#include <string.h>

#include "core/part_sink.h"

#define PART_BYTES (8u << 20)
#define PARTS_AT_ONCE 2u

/* The stored bytes, as they are. */
static bool copy_through(const struct object_copy *c, struct store_info *info, struct err *err)
{
    struct store_info of_from;
    const struct part_sink_options options = {.store = c->store,
                                              .pool = c->pool,
                                              .key = c->to,
                                              .part_bytes = PART_BYTES,
                                              .parallel = PARTS_AT_ONCE,
                                              .stall_ms = c->stall_ms,
                                              .call = c->call,
                                              .info = info};
    struct source *body =
        c->store->ops->get(c->store, c->from, 0, UINT64_MAX, &of_from, c->call, err);
    bool same = body != NULL && (strcmp(of_from.etag, c->etag) == 0 ||
                                 err_set(err, ERR_STALE, "%s was replaced meanwhile", c->from));
    struct sink *out = same ? part_sink_new(&options, err) : NULL;
    bool ok = out != NULL && stream_copy(body, out, err) && out->finish(out, err);
    sink_close(out);
    source_close(body);
    return ok;
}

bool object_copy(const struct object_copy *c, struct store_info *info, struct err *err)
{
    if (c->size > c->store_max)
        return copy_through(c, info, err);
    if (c->store->ops->copy(c->store, c->from, c->to, c->etag, info, c->call, err))
        return true;
    /* Ceph makes no copies where it encrypts */
    return err->code == ERR_UNSUPPORTED && copy_through(c, info, err);
}
