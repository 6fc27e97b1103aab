/* Shared by dump_writer.c and dump_publish.c. */
#ifndef WALEFS_FS_DUMP_WRITER_IMPL_H
#define WALEFS_FS_DUMP_WRITER_IMPL_H

#include "core/digest.h"
#include "fs/dumps.h"

struct dump_writer {
    struct handle base;
    char *path, *key;
    pid_t opener; /* process id */
    bool replace;
    int fd; /* of what is staged; -1 for a stream */
    struct call call;
    struct digest *digest;   /* busy: of the stream */
    struct object_write *up; /* busy: NULL before the first byte, and when it is over */

    pthread_mutex_t lock;
    pthread_cond_t idle;
    bool busy;          /* lock: somebody writes or publishes */
    bool wrote, dirty;  /* lock */
    bool published;     /* lock: by this handle */
    bool failed;        /* lock: for good */
    bool opener_failed; /* lock */
    bool last_failed;   /* lock: who closed last was killed, or failed, as far as can be seen */
    struct err err;     /* lock: why it failed */
    uint64_t size;      /* lock: of what was written */
};

/* All of it by who is busy. */

/* The next bytes of a stream. */
bool dump_writer_push(struct fs *fs, struct dump_writer *w, const void *data, size_t n,
                      struct err *err);
/* Stores what was written, unless it is stored. True, with nothing stored, when the file has been
 * deleted: as everywhere, who writes it then loses what is written. */
bool dump_writer_publish(struct fs *fs, struct dump_writer *w, struct err *err);
bool dump_writer_is_stored(struct dump_writer *w); /* all that was written */

/* For good: the upload ends, and nothing of it stays. Returns false, with ERR = REASON. */
bool dump_writer_fail(struct dump_writer *w, const struct err *reason, struct err *err);
/* False with the reason when it has failed. */
bool dump_writer_alive(struct dump_writer *w, struct err *err);

#endif
