/* Writing a base backup: members become tar partitions of bounded size, coded and uploaded while
 * they arrive; the commit stores the index and, last, the sentinel.
 *
 *     backup_write_new
 *     backup_write_tar / backup_write_member ...      (one thread at a time per backup)
 *     backup_write_commit  or  backup_write_abort
 *     backup_write_free
 *
 * The backup's name comes from its own backup_label (or, without one, global/pg_control), so it may
 * not be known when the first members arrive (a tablespace's tar comes first): partitions that are
 * finished before are stored under a temporary key and copied by the store at the commit.
 *
 * Members are rewritten as pax tar (ustar where that holds them), owner, mode and time kept. What
 * WAL-E leaves out stays in here: a backup is whatever the writer sent, except the symlinks
 * pg_tblspc/OID, which go to the sentinel's spec. */
#ifndef WALEFS_CORE_BACKUP_WRITE_H
#define WALEFS_CORE_BACKUP_WRITE_H

#include "core/backup_index.h"
#include "core/openpgp.h"
#include "core/pool.h"
#include "core/sentinel.h"
#include "core/store.h"

struct backup_write;

struct backup_write_options {
    struct store *store; /* borrowed, like pgp, pool and call */
    struct openpgp *pgp;
    struct pool *pool;
    const char *label;        /* copied */
    uint64_t partition_bytes; /* target size of a partition's members */
    int64_t stall_ms;         /* what does not move for so long fails the backup; 0: no limit */
    uint64_t copy_max_bytes;  /* larger objects the store cannot copy; 0: S3's limit, 5 GiB */
    const struct call *call;  /* for all work; borrowed until free */
};

/* WAL-E's limits on one partition. */
#define PARTITION_MAX_BYTES 1610612736u
#define PARTITION_MAX_MEMBERS 6144u
#define PARTITION_DEFAULT_BYTES (UINT64_C(256) << 20)
#define PARTITION_SMALLEST (1u << 20)

/* A failure of _tar, _member or _commit is final: all that follows fails for the same reason, and
 * the caller aborts. */
struct backup_write *backup_write_new(const struct backup_write_options *options, struct err *err);

/* Reads a whole tar stream, blocking while it arrives, and writes its members with PREFIX
 * ("" or "pg_tblspc/OID") before their names. ERR_INVALID when it is no sound tar, or breaks off.
 * Its end ends the partition: what follows may be long in coming, and a partition that is open
 * holds a gpg place. Does not close TAR. */
bool backup_write_tar(struct backup_write *w, struct source *tar, const char *prefix,
                      struct err *err);

/* One member of a tree; DATA has exactly M->size bytes for a file, else NULL. M's partition and
 * offset are ignored. ERR_EXISTS when it names the backup and the archive has that name already, be
 * it complete or not. ERR_INVALID for a name that must not reach a tree or comes twice, for a hard
 * link, and for a file that cannot be what its name says (backup_label, PG_VERSION...). */
bool backup_write_member(struct backup_write *w, const struct member *m, struct source *data,
                         struct err *err);

/* What the members told so far. Borrowed; owned by W. */
const struct backup_info *backup_write_info(const struct backup_write *w);
/* The member that was written under that path, or NULL. Borrowed until the next member. */
const struct member *backup_write_find(const struct backup_write *w, const char *path);
/* "" until it is known. */
const char *backup_write_name(const struct backup_write *w);

/* Is everything here that the backup_manifest in FD (SIZE bytes, its own checksum known to be
 * right) has, and nothing else? As _commit, after the last member. ERR_INVALID names what is
 * missing, of another size or checksum, or not in the manifest. */
bool backup_write_verify(struct backup_write *w, int fd, uint64_t size, struct err *err);

/* Checks that this is a cluster (PG_VERSION, global/pg_control, no postmaster.pid, start position
 * known, tablespaces whole, no mere link for the WAL that it needs), finishes the partitions,
 * copies what was stored under temporary keys, stores extended_version.txt and the index, checks
 * that the store has it all and that the name is still ours, and last stores the sentinel, only if
 * absent. ERR_EXISTS when the name is somebody else's. STOP as the manifest says it; tli 0:
 * pg_control's checkpoint. */
bool backup_write_commit(struct backup_write *w, const struct backup_position *stop,
                         struct err *err);

/* Ends all uploads; removes what this writer stored, as far as the store can be reached now
 * (bounded by CALL); what it cannot remove is logged, and is at most an incomplete backup. Never
 * touches what belongs to another writer, or to a backup that was committed. */
void backup_write_abort(struct backup_write *w, const struct call *call);

void backup_write_free(struct backup_write *w); /* NULL is allowed; aborts nothing */

#endif
