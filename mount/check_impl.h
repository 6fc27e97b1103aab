/* What the parts of check*.c share. Nobody else includes this.
 *
 *   check.c           the command: arguments, signals, order of the checks
 *   check_report.c    lines on stdout, and the exit status
 *   check_access.c    store and keys
 *   check_wal.c       WAL: listing it, reading the newest segment, gaps
 *   check_backups.c   base backups: are they complete, and is the WAL there that they need
 *   check_dumps.c     logical dumps: listing them, verifying one
 *   check_deep.c      decoding and verifying everything
 *   check_object.c    one object of that
 *   check_progress.c  how far that is */
#ifndef WALEFS_MOUNT_CHECK_IMPL_H
#define WALEFS_MOUNT_CHECK_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "core/backup_wal.h"
#include "core/buf.h"
#include "core/catalog.h"
#include "core/dump_name.h"
#include "core/human.h"
#include "core/openpgp.h"
#include "mount/config.h"

/* The greater, the worse. */
enum check_result { CHECK_OK, CHECK_WARN, CHECK_UNKNOWN, CHECK_FAIL };

/* One name below wal/. */
struct check_file {
    char name[44];
    uint64_t stored_bytes;
};

struct check_wal {
    struct check_file *files; /* in byte order */
    size_t count, capacity;
    struct wal_census *census;
    struct wal_ranges reported; /* missing ones that a line was written about */
};

struct check_dump {
    char *key;
    uint64_t stored_bytes;
    struct dump_facts facts; /* of what was listed; only the ETag unless known */
    bool known;
};

struct check_dumps {
    struct check_dump *files; /* in byte order of their keys */
    size_t count, capacity;
};

struct check {
    struct settings settings;
    struct config config;
    const char *source;
    bool quiet, deep;
    enum check_result worst;
    FILE *out;
    struct cancel cancel;  /* fired by a signal */
    struct call call;      /* of everything that waits */
    struct aws_cred *cred; /* NULL for a directory */
    struct store *store;
    struct openpgp *pgp;
    bool reads; /* what is written here can be decrypted here, as far as is known */
    struct check_wal wal;
    struct check_dumps dumps;
    struct catalog *catalog; /* NULL: not known */
};

/* ---- report (check_report.c) ---- */

/* One line: "RESULT CHECK TEXT". With --quiet, what is well is not said. */
void check_say(struct check *c, enum check_result result, const char *check, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Says why something failed; unknown rather than failed when ERR says nothing of the archive, a
 * warning when the object lies in an archive storage class. */
void check_say_err(struct check *c, const char *check, const struct err *err);
bool check_is_unknown(const struct err *err);

int check_exit_status(const struct check *c);

/* ---- access (check_access.c) ---- */

/* False when there is no going on. */
bool check_store(struct check *c);
bool check_key(struct check *c);

/* ---- WAL (check_wal.c) ---- */

/* Lists wal/, reads the newest segment and the histories. False when there is no going on. */
bool check_wal_load(struct check *c);
/* One line for each timeline; after check_backups, which says what is needed. */
void check_wal_timelines(struct check *c);
void check_wal_free(struct check_wal *w);

/* "NAME", or "NAME to NAME (N segments)". */
void check_range_text(const struct check *c, const struct wal_range *r, char out[160]);

/* ---- backups (check_backups.c) ---- */

void check_backups(struct check *c);

/* ---- everything (check_deep.c, check_object.c) ---- */

enum check_kind {
    CHECK_SEGMENT,
    CHECK_HISTORY,
    CHECK_LABEL,
    CHECK_PARTITION,
    CHECK_INDEX,
    CHECK_DUMP
};

struct check_object {
    enum check_kind kind;
    char *key;
    char name[WAL_NAME_MAX]; /* of a WAL file */
    bool newest;             /* segment of its timeline */
    uint64_t stored_bytes;
    const char *sha256; /* of a partition's plain content, hexadecimal; NULL: not known. Borrowed */
    const struct dump_facts *dump; /* of a dump; NULL: not known. Borrowed */
};

/* A sink for a history or label file; the caller frees the text. */
struct check_text {
    struct sink base;
    struct buf text;
};
void check_text_init(struct check_text *t);

/* Fetches, decodes and verifies one object; adds the stored bytes that came to *PROGRESS. */
bool check_object(struct store *store, struct openpgp *pgp, const struct check_object *o,
                  _Atomic uint64_t *progress, const struct call *call, struct err *err);

/* Decodes it into OUT, which is finished, not closed. */
bool check_decode(struct store *store, struct openpgp *pgp, const struct check_object *o,
                  struct sink *out, _Atomic uint64_t *progress, const struct call *call,
                  struct err *err);

void check_deep(struct check *c);

/* ---- dumps (check_dumps.c) ---- */

/* Lists them, with their facts; one line if there are any. */
void check_dumps(struct check *c);
void check_dumps_free(struct check_dumps *d);
/* As check_object; also the size and the checksum, where they are known. */
bool check_dump(struct store *store, struct openpgp *pgp, const struct check_object *o,
                _Atomic uint64_t *progress, const struct call *call, struct err *err);

/* ---- progress (check_progress.c) ---- */

struct check_progress {
    FILE *out; /* NULL: says nothing */
    bool tty;
    int64_t begun_ms, said_ms;
    uint64_t total;
};

void check_progress_init(struct check_progress *p, FILE *out, bool tty, uint64_t total);
/* Say where it is, if it is time to. On a terminal a line that is written over, else a line now and
 * then. */
void check_progress_say(struct check_progress *p, uint64_t done, uint64_t objects, int64_t now_ms);
/* Takes the line away. */
void check_progress_end(struct check_progress *p);

#endif
