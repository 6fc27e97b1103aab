/* Making an index of a tar stream. */
#include "core/backup_index.h"
#include "core/log.h"
#include "core/tar_read.h"

static bool scan_members(struct backup_index *index, struct tar_reader *tar, const char *what,
                         struct err *err)
{
    struct member m;
    bool known;
    int rc;
    while ((rc = tar_reader_next(tar, &m, &known, err)) > 0) {
        struct err refused = ERR_INIT;
        m.partition = (uint32_t)(index->partition_count - 1);
        if (!tar_reader_skip(tar, &m, &m.offset, err))
            return false;
        if (!known) {
            log_warn("%s: %.200s is neither a file, a directory nor a link: left out", what,
                     m.path);
        } else if (!backup_index_add(index, &m, &refused)) {
            if (refused.code != ERR_INVALID) {
                *err = refused;
                return false;
            }
            log_warn("%s: a member is left out: %s", what, refused.text);
        }
    }
    return rc == 0;
}

bool backup_index_scan(struct backup_index *index, struct source *plain, const char *what,
                       struct err *err)
{
    struct tar_reader *tar = tar_reader_new(plain, what, err);
    bool ok = tar != NULL && scan_members(index, tar, what, err) && tar_reader_finish(tar, err);
    tar_reader_free(tar);
    return ok;
}
