/* A bounded stream of bytes between two threads: what one pushes, the other pulls. */
#ifndef WALEFS_CORE_PIPE_H
#define WALEFS_CORE_PIPE_H

#include "core/call.h"
#include "core/stream.h"

struct pipe;

/* Holds at most CAPACITY bytes. NULL without memory. */
struct pipe *pipe_new(size_t capacity, struct err *err);

/* A read waits until there is what it asks for, a quarter of CAPACITY, or the end.
 *
 * The two ends; each is closed once, by its own thread, and the pipe goes with the second. CALL is
 * borrowed: waiting for room or for bytes ends with it. finish on the sink is the end of the
 * stream; closing it without finish makes the reader fail with ERR_CANCELLED ("given up"), and
 * closing the source makes the writer's next write fail with READER_ERR's content if that was set
 * by pipe_fail. */
struct sink *pipe_sink(struct pipe *p, const struct call *call);
struct source *pipe_source(struct pipe *p, const struct call *call);

/* The reader's reason, for the writer to find. Before the source is closed. */
void pipe_fail(struct pipe *p, const struct err *reason);

/* For the reader: waits until BYTES are there (at most CAPACITY), or as many as will ever come, or
 * CALL has ended. True when no more will come. */
bool pipe_await(struct pipe *p, size_t bytes, const struct call *call);

#endif
