/* Making an index of a tar stream, with libarchive. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_index.h"
#include "core/log.h"

#define CHUNK (256u << 10)
#define TAR_BLOCK 512u

struct scan {
    struct source *plain;
    char *chunk;
    struct err err; /* of the source, when it has failed */
    bool failed, ended;
    uint64_t total;       /* bytes read */
    uint64_t members_end; /* where the last member seen ends */
    uint64_t zeros;       /* at the end of what was read so far */
};

static void count_zeros(struct scan *s, const char *p, size_t n)
{
    size_t tail = 0;
    while (tail < n && p[n - 1 - tail] == '\0')
        tail++;
    s->zeros = tail == n ? s->zeros + n : tail;
}

static ssize_t scan_read(struct archive *a, void *arg, const void **data)
{
    struct scan *s = arg;
    ssize_t n = s->plain->read(s->plain, s->chunk, CHUNK, &s->err);
    if (n < 0) {
        s->failed = true;
        archive_set_error(a, EIO, "reading failed");
        return ARCHIVE_FATAL;
    }
    s->ended = n == 0;
    s->total += (uint64_t)n;
    count_zeros(s, s->chunk, (size_t)n);
    *data = s->chunk;
    return n;
}

/* False for what has no place in a tree. */
static bool describe(struct archive_entry *e, struct member *m)
{
    const char *path = archive_entry_pathname(e);
    const char *hard = archive_entry_hardlink(e), *soft = archive_entry_symlink(e);
    m->path = path == NULL ? "" : path;
    m->link = hard != NULL ? hard : soft != NULL ? soft : "";
    m->mode = (uint32_t)archive_entry_perm(e);
    m->uid = (uint32_t)archive_entry_uid(e);
    m->gid = (uint32_t)archive_entry_gid(e);
    m->mtime_s = archive_entry_mtime(e);
    m->mtime_ns = (uint32_t)archive_entry_mtime_nsec(e);
    m->size = 0;
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

/* Steps over the member's data; its place follows from where that ends. */
static bool step_over(struct scan *s, struct archive *a, struct archive_entry *e, struct member *m,
                      const char *what, struct err *err)
{
    uint64_t padded = (m->size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    if (archive_entry_sparse_count(e) > 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: %.200s is sparse, which is not supported", what,
                       m->path);
    if (archive_read_data_skip(a) != ARCHIVE_OK)
        return err_set(err, ERR_CORRUPT, "%s: not a sound tar stream: %s", what,
                       archive_error_string(a));
    int64_t end = archive_filter_bytes(a, 0);
    if (end < 0 || (uint64_t)end < padded)
        return err_set(err, ERR_CORRUPT, "%s: a member is not where it must be", what);
    m->offset = (uint64_t)end - padded;
    s->members_end = (uint64_t)end;
    return true;
}

static bool scan_members(struct scan *s, struct backup_index *index, struct archive *a,
                         const char *what, struct err *err)
{
    for (;;) {
        struct archive_entry *e;
        struct member m = {.partition = (uint32_t)(index->partition_count - 1)};
        int rc = archive_read_next_header(a, &e);
        if (rc == ARCHIVE_EOF)
            return true;
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
            return err_set(err, ERR_CORRUPT, "%s: not a sound tar stream: %s", what,
                           archive_error_string(a));
        bool known = describe(e, &m);
        struct err refused = ERR_INIT;
        if (!step_over(s, a, e, &m, what, err))
            return false;
        if (!known)
            log_warn("%s: %.200s is neither a file, a directory nor a link: left out", what,
                     m.path);
        else if (!backup_index_add(index, &m, &refused) && refused.code == ERR_INVALID)
            log_warn("%s: a member is left out: %s", what, refused.text);
        else if (refused.code != ERR_NONE) {
            *err = refused;
            return false;
        }
    }
}

/* libarchive stops at the first zero block; a sound stream has nothing but zeros behind it. */
static bool drain(struct scan *s, const char *what, struct err *err)
{
    while (!s->ended) {
        const uint64_t zeros = s->zeros;
        ssize_t n = s->plain->read(s->plain, s->chunk, CHUNK, err);
        if (n < 0)
            return false;
        s->ended = n == 0;
        s->total += (uint64_t)n;
        count_zeros(s, s->chunk, (size_t)n);
        if (n > 0 && s->zeros != zeros + (uint64_t)n)
            return err_set(err, ERR_CORRUPT, "%s: something follows the end of the tar stream",
                           what);
    }
    return (s->zeros >= 2 * (uint64_t)TAR_BLOCK &&
            s->total >= s->members_end + 2 * (uint64_t)TAR_BLOCK) ||
           err_set(err, ERR_CORRUPT, "%s: the tar stream breaks off", what);
}

bool backup_index_scan(struct backup_index *index, struct source *plain, const char *what,
                       struct err *err)
{
    struct scan s = {.plain = plain, .chunk = malloc(CHUNK), .err = ERR_INIT};
    struct archive *a = archive_read_new();
    bool ok = s.chunk != NULL && a != NULL;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    if (ok && (archive_read_support_format_tar(a) != ARCHIVE_OK ||
               archive_read_open(a, &s, NULL, scan_read, NULL) != ARCHIVE_OK)) {
        ok = err_set(err, ERR_CORRUPT, "%s: not a tar stream: %s", what, archive_error_string(a));
    }
    ok = ok && scan_members(&s, index, a, what, err) && drain(&s, what, err);
    if (!ok && s.failed)
        *err = s.err;
    archive_read_free(a);
    free(s.chunk);
    return ok;
}
