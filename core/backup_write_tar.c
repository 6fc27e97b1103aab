/* Members out of a tar stream that arrives. */
#include <stdio.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/log.h"
#include "core/tar_read.h"

#define PG_WAL "pg_wal"

struct tar_in {
    struct source data; /* the current member's */
    struct tar_reader *reader;
};

/* A stream that is damaged is its writer's mistake: the archive is not what is corrupt. */
static bool bad_stream(struct err *err)
{
    if (err->code == ERR_CORRUPT)
        err->code = ERR_INVALID;
    return false;
}

static ssize_t member_read(struct source *self, void *buf, size_t n, struct err *err)
{
    struct tar_in *in = (struct tar_in *)self;
    ssize_t got = tar_reader_data(in->reader, buf, n, err);
    if (got < 0)
        bad_stream(err);
    return got;
}

static void member_close(struct source *self)
{
    (void)self;
}

/* A tablespace's tar does not have the directory that it is to lie in. */
static bool put_prefix(struct backup_write *w, const struct member *first, const char *prefix,
                       struct err *err)
{
    struct member dir = *first;
    if (prefix[0] == '\0' || backup_write_find(w, prefix) != NULL)
        return true;
    dir.path = prefix;
    dir.link = "";
    dir.type = MEMBER_DIR;
    dir.size = 0;
    dir.mode = 0700;
    return backup_write_member(w, &dir, NULL, err);
}

static bool write_member(struct backup_write *w, struct tar_in *in, struct member *m,
                         const char *prefix, struct err *err)
{
    char path[BACKUP_PATH_MAX];
    if (m->path[0] == '/')
        return err_set(err, ERR_INVALID, "an absolute path: %.200s", m->path);
    int n = snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] == '\0' ? "" : "/", m->path);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(err, ERR_INVALID, "a path that is too long: %.200s", m->path);
    struct member placed = *m;
    placed.path = path;
    const struct member *like = backup_write_find(w, "PG_VERSION");
    if (strcmp(prefix, PG_WAL) == 0 && like != NULL) { /* pg_basebackup makes owners up there */
        placed.uid = like->uid;
        placed.gid = like->gid;
    }
    return put_prefix(w, &placed, prefix, err) && backup_write_member(w, &placed, &in->data, err);
}

static bool write_all(struct backup_write *w, struct tar_in *in, const char *prefix,
                      struct err *err)
{
    const struct member nothing = {.size = 0};
    struct member m;
    uint64_t ignored;
    bool known;
    int rc;
    while ((rc = tar_reader_next(in->reader, &m, &known, err)) > 0) {
        if (!known)
            log_warn("%.200s is neither a file, a directory nor a link: left out", m.path);
        else if (!write_member(w, in, &m, prefix, err))
            return false;
        if (!tar_reader_skip(in->reader, &nothing, &ignored, err))
            return bad_stream(err);
    }
    return (rc == 0 && tar_reader_finish(in->reader, err)) || bad_stream(err);
}

bool backup_write_tar(struct backup_write *w, struct source *tar, const char *prefix,
                      struct err *err)
{
    struct tar_in in = {.data = {.read = member_read, .close = member_close}};
    if (!backup_write_usable(w, err))
        return false;
    in.reader = tar_reader_new(tar, "the tar stream", err);
    bool ok = in.reader == NULL ? bad_stream(err) : write_all(w, &in, prefix, err);
    tar_reader_free(in.reader);
    /* What comes next may be long in coming: pg_basebackup waits for WAL to be archived now, which
     * an open partition must not keep from its gpg place. */
    ok = ok && backup_write_settle(w, true, RUNNING_MAX, err);
    return backup_write_note(w, ok, err);
}
