#include "core/partition_write.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/object_write.h"

#define CHUNK (128u << 10)

struct partition_write {
    struct archive *archive;
    struct object_write *object;
    EVP_MD_CTX *sum;
    uint64_t written; /* plain bytes */
    struct err err;   /* of the object, when it has failed */
    bool failed;
    bool in_header; /* a failure is kept from libarchive, which would not free all it holds (3.6) */
    char *chunk;
    char sha256[65];
};

/* ---- the tar stream ---- */

static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t n)
{
    struct partition_write *w = arg;
    w->failed = w->failed || !object_write_push(w->object, data, n, &w->err) ||
                EVP_DigestUpdate(w->sum, data, n) != 1;
    if (!w->failed)
        w->written += n;
    if (!w->failed || w->in_header)
        return (la_ssize_t)n;
    archive_set_error(a, EIO, "the partition cannot be stored");
    return -1;
}

static bool tar_failed(struct partition_write *w, const char *path, struct err *err)
{
    if (w->failed && w->err.code != ERR_NONE) {
        *err = w->err;
        return false;
    }
    const char *why = archive_error_string(w->archive);
    return err_set(err, ERR_INVALID, "%.200s does not fit a tar file: %s", path,
                   why == NULL ? "?" : why);
}

struct partition_write *partition_write_new(const struct partition_write_options *options,
                                            struct err *err)
{
    const struct object_write_options object = {.store = options->store,
                                                .pgp = options->pgp,
                                                .pool = options->pool,
                                                .key = options->key,
                                                .stall_ms = options->stall_ms,
                                                .call = options->call};
    struct partition_write *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    w->sum = EVP_MD_CTX_new();
    w->chunk = malloc(CHUNK);
    w->archive = archive_write_new();
    if (w->sum == NULL || w->chunk == NULL || w->archive == NULL ||
        EVP_DigestInit_ex(w->sum, EVP_sha256(), NULL) != 1) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        goto fail;
    }
    w->object = object_write_new(&object, err);
    if (w->object == NULL)
        goto fail;
    /* nothing is held back: what was written tells where the next byte stands */
    if (archive_write_set_format_pax(w->archive) == ARCHIVE_OK &&
        archive_write_set_bytes_per_block(w->archive, 0) == ARCHIVE_OK &&
        archive_write_open(w->archive, w, NULL, on_write, NULL) == ARCHIVE_OK)
        return w;
    tar_failed(w, options->key, err);
fail:
    partition_write_free(w);
    return NULL;
}

static struct archive_entry *entry_of(const struct member *m)
{
    struct archive_entry *e = archive_entry_new();
    if (e == NULL)
        return NULL;
    archive_entry_copy_pathname(e, m->path[0] == '\0' ? "." : m->path);
    archive_entry_set_filetype(e, m->type == MEMBER_DIR       ? AE_IFDIR
                                  : m->type == MEMBER_SYMLINK ? AE_IFLNK
                                                              : AE_IFREG);
    if (m->type == MEMBER_SYMLINK)
        archive_entry_copy_symlink(e, m->link);
    archive_entry_set_perm(e, m->mode);
    archive_entry_set_uid(e, m->uid);
    archive_entry_set_gid(e, m->gid);
    archive_entry_set_mtime(e, m->mtime_s, m->mtime_ns);
    archive_entry_set_size(e, m->type == MEMBER_FILE ? (int64_t)m->size : 0);
    return e;
}

static bool write_data(struct partition_write *w, const struct member *m, struct source *data,
                       struct err *err)
{
    for (uint64_t left = m->size; left > 0;) {
        ssize_t n = data->read(data, w->chunk, left < CHUNK ? (size_t)left : CHUNK, err);
        if (n == 0)
            err_set(err, ERR_INVALID, "%.200s is shorter than it was announced", m->path);
        if (n <= 0)
            return false;
        for (la_ssize_t done = 0; done < n;) {
            la_ssize_t put = archive_write_data(w->archive, w->chunk + done, (size_t)(n - done));
            if (put <= 0)
                return tar_failed(w, m->path, err);
            done += put;
        }
        left -= (uint64_t)n;
    }
    return true;
}

bool partition_write_member(struct partition_write *w, const struct member *m, struct source *data,
                            uint64_t *offset, struct err *err)
{
    struct archive_entry *e = entry_of(m);
    if (e == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    w->in_header = true;
    int rc = archive_write_header(w->archive, e);
    w->in_header = false;
    archive_entry_free(e);
    if (w->failed || (rc != ARCHIVE_OK && rc != ARCHIVE_WARN))
        return tar_failed(w, m->path, err);
    *offset = w->written;
    return (m->type != MEMBER_FILE || m->size == 0 || write_data(w, m, data, err)) &&
           (archive_write_finish_entry(w->archive) == ARCHIVE_OK || tar_failed(w, m->path, err));
}

/* ---- its end ---- */

bool partition_write_end(struct partition_write *w, struct err *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (archive_write_close(w->archive) != ARCHIVE_OK)
        return tar_failed(w, "the end", err);
    if (EVP_DigestFinal_ex(w->sum, sum, NULL) != 1)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(w->sha256 + 2 * i, 3, "%02x", sum[i]);
    return object_write_end(w->object, err);
}

bool partition_write_wait(struct partition_write *w, struct partition_written *out, struct err *err)
{
    struct object_written object;
    if (!object_write_wait(w->object, &object, err))
        return false;
    *out = (struct partition_written){.info = object.info, .facts = object.facts};
    memcpy(out->sha256, w->sha256, sizeof(out->sha256));
    return true;
}

void partition_write_free(struct partition_write *w)
{
    if (w == NULL)
        return;
    if (w->archive != NULL) {
        w->failed = true; /* freeing writes the end of the tar, which is of no use then */
        archive_write_free(w->archive);
    }
    object_write_free(w->object);
    EVP_MD_CTX_free(w->sum);
    free(w->chunk);
    free(w);
}
