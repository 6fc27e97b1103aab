/* Publishing: from a staged file to an object, with promises 1 to 3. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/metrics.h"
#include "core/wal_check.h"
#include "fs/wal.h"
#include "fs/wal_delete.h"

#define COMPARE_CHUNK (256u * 1024u)

static bool check_text(const char *name, enum wal_kind kind, int fd, uint64_t size, struct err *err)
{
    if (size > WAL_TEXT_MAX)
        return err_set(err, ERR_INVALID, "%s: too large to be what its name says", name);
    char *text = malloc((size_t)size + 1);
    if (text == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    ssize_t n = spool_read(fd, text, (size_t)size, 0, err);
    bool ok = n >= 0 && (kind == WAL_HISTORY ? wal_history_check(name, text, (size_t)n, err)
                                             : wal_label_check(name, text, (size_t)n, err));
    free(text);
    return ok;
}

/* Does the content belong under its name? *SEGMENT_SIZE is set for a segment. */
static bool check(const char *name, int fd, uint64_t size, uint32_t *segment_size, struct err *err)
{
    enum wal_kind kind = wal_name_parse(name).kind;
    *segment_size = 0;
    if (kind == WAL_PARTIAL)
        return size <= WAL_SEGMENT_MAX ||
               err_set(err, ERR_INVALID, "%s: larger than any segment", name);
    if (kind != WAL_SEGMENT)
        return check_text(name, kind, fd, size, err);
    unsigned char head[WAL_HEADER_BYTES];
    struct wal_header header;
    ssize_t n = spool_read(fd, head, sizeof(head), 0, err);
    if (n < 0)
        return false;
    if (!wal_header_parse(head, (size_t)n, &header, err))
        return err_context(err, "%s", name);
    *segment_size = header.segment_size;
    return wal_segment_check(name, &header, size, err);
}

static bool same_bytes(int a, int b, uint64_t size, bool *same, struct err *err)
{
    char *chunk = malloc(2 * COMPARE_CHUNK);
    if (chunk == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    bool ok = true;
    *same = true;
    for (uint64_t pos = 0; ok && *same && pos < size; pos += COMPARE_CHUNK) {
        ssize_t n = spool_read(a, chunk, COMPARE_CHUNK, pos, err);
        ssize_t m = spool_read(b, chunk + COMPARE_CHUNK, COMPARE_CHUNK, pos, err);
        ok = n >= 0 && m >= 0;
        *same = n == m && (n <= 0 || memcmp(chunk, chunk + COMPARE_CHUNK, (size_t)n) == 0);
    }
    free(chunk);
    return ok;
}

/* The archived object has no digest of ours (WAL-E wrote it): it is read. */
static bool same_as_decoded(struct fs *fs, const char *name, struct stage *stage, bool *same,
                            const struct call *call, struct err *err)
{
    fetcher_drop(fs->fetcher, name); /* a copy may be of an object that is gone by now */
    struct plain *p = fetcher_get(fs->fetcher, name, call, err);
    if (p == NULL) {
        if (err->code == ERR_KEY)
            err_context(err,
                        "%s is archived already, and telling whether its content is the same "
                        "needs the secret key",
                        name);
        return false;
    }
    uint64_t size = stage_size(stage);
    bool ok = true;
    *same = p->size == size;
    if (*same)
        ok = same_bytes(p->fd, stage_fd(stage), size, same, err);
    plain_unref(p);
    return ok;
}

/* NAME is archived: is its content that of STAGE? ERR_ABSENT when it has gone meanwhile. */
static bool compare(struct fs *fs, const char *name, const char *key, struct stage *stage,
                    const struct call *call, struct err *err)
{
    struct store_info info;
    if (!fs->opt.store->ops->head(fs->opt.store, key, &info, call, err))
        return false;
    uint64_t size;
    const char *digest = store_meta_get(&info, WAL_META_DIGEST);
    char ours[DIGEST_TEXT_MAX];
    bool same;
    if (wal_size_of_meta(&info, &size) && size != stage_size(stage))
        same = false;
    else if (digest != NULL && digest_fd(stage_fd(stage), stage_size(stage), digest, ours, err))
        same = strcmp(ours, digest) == 0;
    else if (!same_as_decoded(fs, name, stage, &same, call, err))
        return false;
    if (!same)
        return err_set(err, ERR_EXISTS,
                       "%s is archived already with other content; the archive was not changed. "
                       "Does another server archive under the same prefix?",
                       name);
    return true;
}

/* Only VERSION, which has been checked, is put. */
static bool put(struct fs *fs, const char *name, const char *key, struct stage *stage,
                uint64_t version, const struct call *call, struct err *err)
{
    uint64_t coded_version;
    struct coded *coded = stage_code(stage, &coded_version, call, err);
    if (coded == NULL)
        return false;
    if (coded_version != version) {
        coded_unref(coded);
        return err_set(err, ERR_INVALID, "wal/%s was changed while it was being published", name);
    }
    call_progress(call);
    struct store_meta meta[2] = {{.name = WAL_META_SIZE}, {.name = WAL_META_DIGEST}};
    (void)snprintf(meta[0].value, sizeof(meta[0].value), "%" PRIu64, coded->plain_size);
    (void)snprintf(meta[1].value, sizeof(meta[1].value), "%s", coded->digest);
    const struct store_put what = {
        .body = {.fd = coded->fd, .size = coded->spool.size, .sha256 = coded->spool.sha256},
        .only_if_absent = wal_name_parse(name).kind != WAL_PARTIAL,
        .meta = meta,
        .meta_count = 2};
    bool ok = fs->opt.store->ops->put(fs->opt.store, key, &what, NULL, call, err);
    if (ok) {
        stage_saved(stage, version);
        metrics_add(COUNT_ARCHIVED_BYTES, coded->plain_size);
        metrics_add(COUNT_ARCHIVED_STORED_BYTES, coded->spool.size);
        log_debug("archived wal/%s: %" PRIu64 " bytes stored as %" PRIu64, name, coded->plain_size,
                  coded->spool.size);
    }
    coded_unref(coded);
    return ok;
}

static bool publish(struct fs *fs, const char *name, struct stage *stage, int64_t waited_ms,
                    const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX];
    uint32_t segment_size;
    uint64_t version = stage_version(stage);
    if (fs->opt.read_only)
        return err_set(err, ERR_DENIED, "wal/%s: the mount is read-only", name);
    if (!wal_key_of_name(name, key, sizeof(key)) ||
        !check(name, stage_fd(stage), stage_size(stage), &segment_size, err))
        return err_context(err, "refused");

    int64_t limit_ms = fs->opt.write_timeout_ms - waited_ms;
    struct progress progress = {.limit_ms = limit_ms > 1000 ? limit_ms : 1000, .last_ms = now_ms()};
    struct call bounded = *call;
    bounded.progress = &progress;
    if (!wal_delete_take_back(fs->wal_delete, name, &bounded, err))
        return false;
    /* absent, present, absent again...: only another host's deletions can make it go round */
    bool ok = false;
    for (int round = 0; round < 3 && !ok; round++) {
        if (put(fs, name, key, stage, version, &bounded, err)) {
            ok = true;
        } else if (err->code == ERR_EXISTS) {
            ok = compare(fs, name, key, stage, &bounded, err);
            if (ok)
                stage_saved(stage, version);
            else if (err->code != ERR_ABSENT)
                return false;
        } else {
            return false;
        }
    }
    if (!ok)
        return err_set(err, ERR_UNAVAILABLE, "wal/%s comes and goes in the store", name);
    fetcher_drop(fs->fetcher, name);
    wal_dir_published(fs);
    if (segment_size != 0)
        fs->segment_size = segment_size;
    return true;
}

bool wal_publish(struct fs *fs, const char *name, struct stage *stage, int64_t waited_ms,
                 const struct call *call, struct err *err)
{
    int64_t begun_us = now_us();
    bool ok = publish(fs, name, stage, waited_ms, call, err);
    metrics_work(WORK_ARCHIVE, ok ? ERR_NONE : err->code, now_us() - begun_us);
    metrics_mark(ok ? MOMENT_ARCHIVED : MOMENT_ARCHIVE_FAILED);
    return ok;
}
