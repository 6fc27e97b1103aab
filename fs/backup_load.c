#include "fs/backup_load.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/fnv.h"
#include "core/index_stored.h"
#include "core/log.h"
#include "core/pipe.h"
#include "core/spool.h"
#include "core/sum.h"
#include "fs/index_cache.h"

#define SCAN_PIPE_BYTES (1u << 20)

struct loading {
    const struct backup_set_options *opt;
    const char *name;
    const struct backup_info *info;
    const struct call *call;
};

static struct index_place place_of(const struct loading *l)
{
    return (struct index_place){.store = l->opt->store, .pgp = l->opt->pgp, .dir = l->opt->dir};
}

/* ---- the index that is stored ---- */

/* True unless the store cannot be asked now; *INDEX stays NULL when one must be made. */
static bool try_stored(const struct loading *l, const struct backup_objects *objects,
                       struct backup_index **index, struct err *err)
{
    char key[STORE_KEY_MAX];
    struct err why = ERR_INIT;
    const struct index_place place = place_of(l);
    index_stored_key(l->name, key);
    if (!index_stored_has(objects, l->name))
        return true;
    struct backup_index *found = index_fetch(&place, l->name, l->call, &why);
    if (found != NULL && index_fits(found, objects)) {
        *index = found;
        return true;
    }
    size_t indexed = found == NULL ? 0 : found->partition_count;
    bool stale = found != NULL;
    backup_index_free(found);
    if (indexed > objects->partition_count)
        return err_set(err, ERR_CORRUPT,
                       "%s: its index is of %zu partitions, and %zu are there (if that is right, "
                       "delete %s)",
                       l->name, indexed, objects->partition_count, key);
    if (!stale && why.code != ERR_CORRUPT && why.code != ERR_UNSUPPORTED &&
        why.code != ERR_ABSENT) {
        *err = why;
        return false;
    }
    log_warn("%s: the index in the archive is not used: %s", l->name,
             !stale ? why.text : "it is not of the partitions that are there");
    return true;
}

/* ---- making it ---- */

struct decoding {
    const struct loading *l;
    const char *key;
    struct pipe *pipe;
    struct codec_facts facts;
    struct store_info info;
    char sum[SUM_HEX];
    struct err err;
    bool ok;
};

static void *decode_thread(void *arg)
{
    struct decoding *d = arg;
    struct store *store = d->l->opt->store;
    struct sink *out = sum_sink(pipe_sink(d->pipe, d->l->call), d->sum, &d->err);
    struct source *body =
        out == NULL ? NULL
                    : store->ops->get(store, d->key, 0, UINT64_MAX, &d->info, d->l->call, &d->err);
    d->ok = body != NULL && codec_decode(d->l->opt->pgp, body, out, OPENPGP_BACKGROUND, &d->facts,
                                         d->l->call, &d->err);
    source_close(body);
    sink_close(out);
    return NULL;
}

/* Reads one partition to its end, decoding and scanning side by side. SUM is what its plain SHA-256
 * must be, NULL when that is not known. */
static bool scan_partition(const struct loading *l, struct backup_index *index,
                           const struct backup_object *object, const char *sum, struct err *err)
{
    struct decoding d = {.l = l, .key = object->key, .err = ERR_INIT};
    struct index_partition p = {.number = object->number, .stored_size = object->size};
    struct err scan_err = ERR_INIT;
    pthread_t thread;
    (void)snprintf(p.etag, sizeof(p.etag), "%s", object->etag);
    if (!backup_index_add_partition(index, &p, err))
        return false;
    d.pipe = pipe_new(SCAN_PIPE_BYTES, err);
    if (d.pipe == NULL)
        return false;
    struct source *plain = pipe_source(d.pipe, l->call);
    int rc = pthread_create(&thread, NULL, decode_thread, &d);
    if (rc != 0) {
        sink_close(pipe_sink(d.pipe, l->call));
        source_close(plain);
        return err_sys(err, rc, "cannot start a thread");
    }
    bool ok = backup_index_scan(index, plain, object->key, &scan_err);
    source_close(plain);
    pthread_join(thread, NULL);
    struct index_partition *added = &index->partitions[index->partition_count - 1];
    added->map = d.facts.map;
    added->encrypted = d.facts.encrypted;
    if (ok && d.ok && strcmp(d.info.etag, object->etag) != 0)
        return err_set(err, ERR_STALE, "%s: it was replaced meanwhile", object->key);
    if (ok && d.ok && sum != NULL && strcmp(d.sum, sum) != 0)
        return err_set(err, ERR_CORRUPT,
                       "%s: this partition is not what the backup was written with: its SHA-256 "
                       "differs from the sentinel's",
                       object->key);
    if (ok && d.ok)
        return true;
    /* when the reader has given up, that is why the decoder failed too */
    *err = d.ok || d.err.code == ERR_CANCELLED ? scan_err : d.err;
    return err_context(err, "%s", object->key);
}

static struct backup_index *make_index(const struct loading *l,
                                       const struct backup_objects *objects, struct err *err)
{
    struct backup_index *index = backup_index_new(err);
    bool ok = index != NULL;
    if (ok)
        log_info("%s: its %zu partitions are read once to make its index", l->name,
                 objects->partition_count);
    for (size_t i = 0; ok && i < objects->partition_count; i++)
        ok =
            scan_partition(l, index, &objects->objects[i],
                           l->info->partition_count > 0 ? l->info->partition_sha256[i] : NULL, err);
    if (ok && backup_index_seal(index, err))
        return index;
    backup_index_free(index);
    return NULL;
}

/* ---- keeping it ---- */

/* The one that an earlier mount kept on this host, NULL when there is none that can be used. */
static struct backup_index *kept_index(const struct loading *l,
                                       const struct backup_objects *objects)
{
    struct err err = ERR_INIT;
    struct stat st;
    const struct index_place place = place_of(l);
    int fd = index_cache_open(l->opt->dir, l->name, objects);
    struct source *coded =
        fd >= 0 && fstat(fd, &st) == 0 ? source_fd(fd, 0, (uint64_t)st.st_size, &err) : NULL;
    struct backup_index *index = coded == NULL ? NULL : index_decode(&place, coded, l->call, &err);
    if (index != NULL && !index_fits(index, objects)) {
        backup_index_free(index);
        index = NULL;
    }
    source_close(coded);
    if (fd >= 0)
        close(fd);
    return index;
}

static bool has_encrypted(const struct backup_index *index)
{
    for (size_t i = 0; i < index->partition_count; i++)
        if (index->partitions[i].encrypted)
            return true;
    return false;
}

/* On this host; a log line tells when that does not succeed. */
static void keep_index(const struct loading *l, const struct backup_objects *objects, int fd,
                       uint64_t size)
{
    struct err err = ERR_INIT;
    if (!index_cache_keep(l->opt->dir, l->name, objects, fd, size, &err))
        log_warn("%s: its index cannot be kept, and will be made again at the next mount: %s",
                 l->name, err.text);
}

/* Into the archive if that may be written, else on this host: but never in the clear what the
 * archive has encrypted. */
static void store_index(const struct loading *l, const struct backup_objects *objects,
                        const struct backup_index *index)
{
    char key[STORE_KEY_MAX];
    struct spool_result result = {0};
    struct err err = ERR_INIT;
    if (has_encrypted(index) && !openpgp_encrypts(l->opt->pgp)) {
        log_info("%s: its index is not kept, since the backup is encrypted and no key is "
                 "configured to encrypt for: it will be made again at the next mount",
                 l->name);
        return;
    }
    index_stored_key(l->name, key);
    struct source *text = backup_index_write(index, &err);
    int fd = text == NULL ? -1 : spool_open(l->opt->dir, &err);
    struct sink *out = fd < 0 ? NULL : spool_sink(fd, UINT64_MAX, true, &result, &err);
    bool coded = out != NULL && codec_encode(l->opt->pgp, text, out, false, NULL, l->call, &err);
    const struct store_put put = {.body = {.fd = fd, .size = result.size, .sha256 = result.sha256}};
    bool stored = coded && l->opt->writable &&
                  l->opt->store->ops->put(l->opt->store, key, &put, NULL, l->call, &err);
    if (!coded || (!stored && l->opt->writable))
        log_warn("%s: its index cannot be stored: %s", l->name, err.text);
    if (coded && !stored)
        keep_index(l, objects, fd, result.size);
    sink_close(out);
    source_close(text);
    if (fd >= 0)
        close(fd);
}

/* ---- */

static struct backup_index *get_index(const struct loading *l, const struct backup_objects *objects,
                                      struct err *err)
{
    struct backup_index *index = NULL;
    if (try_stored(l, objects, &index, err) && index == NULL) {
        index = kept_index(l, objects);
        bool kept = index != NULL;
        if (!kept)
            index = make_index(l, objects, err);
        if (index != NULL && (!kept || l->opt->writable))
            store_index(l, objects, index);
    }
    return index;
}

/* A partition that is lost must not look like a cluster that was smaller. */
static bool check_partitions(const struct backup_info *info, const struct backup_objects *objects,
                             struct err *err)
{
    size_t n = objects->partition_count;
    if (n == 0)
        return err_set(err, ERR_CORRUPT, "%s has no partitions", info->name);
    unsigned first = objects->objects[0].number == 0 ? 0 : 1;
    for (size_t i = 0; i < n; i++)
        if (objects->objects[i].number > first + i)
            return err_set(err, ERR_CORRUPT, "%s: its partition %zu is missing", info->name,
                           first + i);
    return info->partition_count == 0 || info->partition_count == n ||
           err_set(err, ERR_CORRUPT, "%s: it was written as %zu partitions, and %zu are there",
                   info->name, info->partition_count, n);
}

/* What nobody reads of the tree would not tell its readers of damage: see partition.h. */
static bool find_tails(struct backup_content *c, struct err *err)
{
    c->tails = calloc(c->index->partition_count, sizeof(*c->tails));
    if (c->tails == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < backup_tree_count(c->tree); i++) {
        const struct tree_entry *e = backup_tree_at(c->tree, i);
        const struct member *m =
            tree_entry_is_dir(e) ? NULL : backup_index_data_of(c->index, e->facts);
        if (m == NULL || m->size == 0)
            continue;
        uint64_t *tail = &c->tails[m->partition], last = m->offset + m->size - 1;
        *tail = last > *tail ? last : *tail;
    }
    return true;
}

/* Whoever knows a place of the tree finds the same file there as long as this stays the same. Not
 * 0. */
static uint64_t shape_of(const struct backup_content *c)
{
    uint64_t h = FNV_START;
    for (size_t i = 0; i < c->index->partition_count; i++)
        h = fnv(h, c->index->partitions[i].etag, strlen(c->index->partitions[i].etag) + 1);
    for (uint32_t i = 0; i < backup_tree_count(c->tree); i++) {
        const struct tree_entry *e = backup_tree_at(c->tree, i);
        h = fnv(h, e->path, strlen(e->path) + 1);
        const struct member *m = e->facts;
        if (m != NULL)
            h = fnv(fnv(h, &m->offset, sizeof(m->offset)), &m->size, sizeof(m->size));
    }
    return h == 0 ? 1 : h;
}

struct backup_content *backup_load(const struct backup_set_options *options,
                                   const struct backup_info *info, const struct call *call,
                                   struct err *err)
{
    const struct loading l = {.opt = options, .name = info->name, .info = info, .call = call};
    struct backup_content *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    atomic_store(&c->refs, 1);
    if (backup_objects_load(options->store, info->name, &c->objects, call, err) &&
        check_partitions(info, &c->objects, err))
        c->index = get_index(&l, &c->objects, err);
    if (c->index != NULL) {
        c->tree = backup_tree_new(c->index, err);
        if (c->tree != NULL && find_tails(c, err)) {
            c->shape = shape_of(c);
            return c;
        }
    }
    backup_content_free(c);
    return NULL;
}

void backup_content_free(struct backup_content *c)
{
    if (c == NULL)
        return;
    free(c->tails);
    backup_tree_free(c->tree);
    backup_index_free(c->index);
    backup_objects_free(&c->objects);
    free(c);
}
