#include "core/tar_read.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK (256u << 10)
#define TAR_BLOCK 512u

struct tar_reader {
    struct source *plain;
    const char *what;
    struct archive *archive;
    char *chunk;
    struct err err; /* the source's, when it has failed */
    bool failed, ended;
    uint64_t total;       /* bytes read */
    uint64_t members_end; /* where the last member seen ends */
    uint64_t data_end;    /* behind the last byte read that is no zero */
};

static ssize_t read_chunk(struct tar_reader *r, struct err *err)
{
    ssize_t n = r->plain->read(r->plain, r->chunk, CHUNK, err);
    if (n < 0)
        return -1;
    r->ended = n == 0;
    size_t used = (size_t)n;
    while (used > 0 && r->chunk[used - 1] == '\0')
        used--;
    if (used > 0)
        r->data_end = r->total + used;
    r->total += (uint64_t)n;
    return n;
}

static ssize_t on_read(struct archive *a, void *arg, const void **data)
{
    struct tar_reader *r = arg;
    ssize_t n = read_chunk(r, &r->err);
    if (n < 0) {
        r->failed = true;
        archive_set_error(a, EIO, "reading failed");
        return ARCHIVE_FATAL;
    }
    *data = r->chunk;
    return n;
}

static bool not_sound(struct tar_reader *r, struct err *err)
{
    if (r->failed) {
        *err = r->err;
        return false;
    }
    const char *why = archive_error_string(r->archive);
    return err_set(err, ERR_CORRUPT, "%s: not a sound tar stream: %s", r->what,
                   why == NULL ? "?" : why);
}

struct tar_reader *tar_reader_new(struct source *plain, const char *what, struct err *err)
{
    struct tar_reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    r->plain = plain;
    r->what = what;
    r->chunk = malloc(CHUNK);
    r->archive = archive_read_new();
    if (r->chunk == NULL || r->archive == NULL)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    else if (archive_read_support_format_tar(r->archive) != ARCHIVE_OK ||
             archive_read_open(r->archive, r, NULL, on_read, NULL) != ARCHIVE_OK)
        not_sound(r, err);
    else
        return r;
    tar_reader_free(r);
    return NULL;
}

void tar_reader_free(struct tar_reader *r)
{
    if (r == NULL)
        return;
    archive_read_free(r->archive);
    free(r->chunk);
    free(r);
}

/* False for what has no place in a tree. */
static bool describe(struct archive_entry *e, struct member *m)
{
    const char *path = archive_entry_pathname(e);
    const char *hard = archive_entry_hardlink(e), *soft = archive_entry_symlink(e);
    memset(m, 0, sizeof(*m));
    m->path = path == NULL ? "" : path;
    if (m->path[strspn(m->path, "/")] == '\0')
        m->path = ""; /* WAL-E's root has no name, and as a directory a slash behind it */
    m->link = hard != NULL ? hard : soft != NULL ? soft : "";
    m->mode = (uint32_t)archive_entry_perm(e);
    m->uid = (uint32_t)archive_entry_uid(e);
    m->gid = (uint32_t)archive_entry_gid(e);
    m->mtime_s = archive_entry_mtime(e);
    m->mtime_ns = (uint32_t)archive_entry_mtime_nsec(e);
    if (hard != NULL) {
        m->type = MEMBER_HARDLINK;
    } else if (archive_entry_filetype(e) == AE_IFREG) {
        m->type = MEMBER_FILE;
        m->size = (uint64_t)archive_entry_size(e);
    } else if (archive_entry_filetype(e) == AE_IFDIR) {
        m->type = MEMBER_DIR;
    } else if (archive_entry_filetype(e) == AE_IFLNK) {
        m->type = MEMBER_SYMLINK;
    } else {
        return false;
    }
    return true;
}

int tar_reader_next(struct tar_reader *r, struct member *m, bool *known, struct err *err)
{
    struct archive_entry *e;
    int rc = archive_read_next_header(r->archive, &e);
    if (rc == ARCHIVE_EOF)
        return 0;
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) {
        not_sound(r, err);
        return -1;
    }
    *known = describe(e, m);
    if (archive_entry_sparse_count(e) == 0)
        return 1;
    err_set(err, ERR_UNSUPPORTED, "%s: %.200s is stored as a sparse file, which is not supported",
            r->what, m->path);
    return -1;
}

ssize_t tar_reader_data(struct tar_reader *r, void *buf, size_t n, struct err *err)
{
    la_ssize_t got = archive_read_data(r->archive, buf, n);
    if (got >= 0)
        return (ssize_t)got;
    not_sound(r, err);
    return -1;
}

bool tar_reader_skip(struct tar_reader *r, const struct member *m, uint64_t *offset,
                     struct err *err)
{
    uint64_t padded = (m->size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    if (archive_read_data_skip(r->archive) != ARCHIVE_OK)
        return not_sound(r, err);
    int64_t end = archive_filter_bytes(r->archive, 0);
    if (end < 0 || (uint64_t)end < padded)
        return err_set(err, ERR_CORRUPT, "%s: a member is not where it must be", r->what);
    r->members_end = (uint64_t)end;
    *offset = r->members_end - padded;
    return true;
}

/* libarchive stops at the first zero block; a sound stream has nothing but zeros behind it. */
bool tar_reader_finish(struct tar_reader *r, struct err *err)
{
    while (!r->ended)
        if (read_chunk(r, err) < 0)
            return false;
    if (r->data_end > r->members_end)
        return err_set(err, ERR_CORRUPT, "%s: something follows the end of the tar stream",
                       r->what);
    return r->total >= r->members_end + 2 * (uint64_t)TAR_BLOCK ||
           err_set(err, ERR_CORRUPT, "%s: the tar stream breaks off", r->what);
}
