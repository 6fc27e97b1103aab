#include "fs/backup_load.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/log.h"
#include "core/pipe.h"
#include "core/spool.h"

#define SCAN_PIPE_BYTES (1u << 20)
#define INDEX_MAX_BYTES (UINT64_C(4) << 30)

struct loading {
    const struct backup_set_options *opt;
    const char *name;
    const struct call *call;
};

static void index_key(const char *name, char out[STORE_KEY_MAX])
{
    (void)snprintf(out, STORE_KEY_MAX, BACKUP_PREFIX "%s/tar_partitions/" BACKUP_INDEX_NAME, name);
}

/* ---- the index that is stored ---- */

/* The objects are those that were indexed, all of them and unchanged. */
static bool fits(const struct backup_index *index, const struct backup_objects *objects)
{
    if (index->partition_count != objects->partition_count)
        return false;
    for (size_t i = 0; i < index->partition_count; i++) {
        const struct index_partition *p = &index->partitions[i];
        const struct backup_object *o = &objects->objects[i];
        if (p->number != o->number || p->stored_size != o->size || strcmp(p->etag, o->etag) != 0)
            return false;
    }
    return true;
}

/* Decodes the index object completely, verified, before anything is read from it. */
static struct backup_index *fetch_index(const struct loading *l, const char *key, struct err *err)
{
    struct store_info info;
    struct spool_result result;
    struct source *body = NULL, *text = NULL;
    struct sink *out = NULL;
    struct backup_index *index = NULL;
    int fd = spool_open(l->opt->dir, err);
    if (fd < 0)
        return NULL;
    body = l->opt->store->ops->get(l->opt->store, key, 0, UINT64_MAX, &info, l->call, err);
    out = body == NULL ? NULL : spool_sink(fd, INDEX_MAX_BYTES, false, &result, err);
    if (out != NULL && codec_decode(l->opt->pgp, body, out, OPENPGP_FOREGROUND, NULL, l->call, err))
        text = source_fd(fd, 0, result.size, err);
    if (text != NULL)
        index = backup_index_read(text, err);
    source_close(text);
    sink_close(out);
    source_close(body);
    close(fd);
    return index;
}

static bool has_index(const struct backup_objects *objects, const char *key)
{
    for (size_t i = objects->partition_count; i < objects->count; i++)
        if (strcmp(objects->objects[i].key, key) == 0)
            return true;
    return false;
}

/* True unless the store cannot be asked now; *INDEX stays NULL when one must be made. */
static bool try_stored(const struct loading *l, const struct backup_objects *objects,
                       struct backup_index **index, struct err *err)
{
    char key[STORE_KEY_MAX];
    struct err why = ERR_INIT;
    index_key(l->name, key);
    if (!has_index(objects, key))
        return true;
    struct backup_index *found = fetch_index(l, key, &why);
    if (found != NULL && fits(found, objects)) {
        *index = found;
        return true;
    }
    backup_index_free(found);
    if (found == NULL && why.code != ERR_CORRUPT && why.code != ERR_UNSUPPORTED &&
        why.code != ERR_ABSENT) {
        *err = why;
        return false;
    }
    log_warn("%s: the index is made anew: %s", l->name,
             found == NULL ? why.text : "it is not of the partitions that are there");
    return true;
}

/* ---- making it ---- */

struct decoding {
    const struct loading *l;
    const char *key;
    struct pipe *pipe;
    struct codec_facts facts;
    struct store_info info;
    struct err err;
    bool ok;
};

static void *decode_thread(void *arg)
{
    struct decoding *d = arg;
    struct store *store = d->l->opt->store;
    struct sink *out = pipe_sink(d->pipe, d->l->call);
    struct source *body =
        store->ops->get(store, d->key, 0, UINT64_MAX, &d->info, d->l->call, &d->err);
    d->ok = body != NULL && codec_decode(d->l->opt->pgp, body, out, OPENPGP_BACKGROUND, &d->facts,
                                         d->l->call, &d->err);
    source_close(body);
    sink_close(out);
    return NULL;
}

/* Reads one partition to its end, decoding and scanning side by side. */
static bool scan_partition(const struct loading *l, struct backup_index *index,
                           const struct backup_object *object, struct err *err)
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
        log_info("%s has no index: its %zu partitions are read once to make it", l->name,
                 objects->partition_count);
    for (size_t i = 0; ok && i < objects->partition_count; i++)
        ok = scan_partition(l, index, &objects->objects[i], err);
    if (ok && backup_index_seal(index, err))
        return index;
    backup_index_free(index);
    return NULL;
}

static bool store_index(const struct loading *l, const struct backup_index *index, struct err *err)
{
    char key[STORE_KEY_MAX];
    struct spool_result result;
    bool ok = false;
    index_key(l->name, key);
    struct source *text = backup_index_write(index, err);
    if (text == NULL)
        return false;
    int fd = spool_open(l->opt->dir, err);
    struct sink *out = fd < 0 ? NULL : spool_sink(fd, UINT64_MAX, true, &result, err);
    if (out != NULL && codec_encode(l->opt->pgp, text, out, false, NULL, l->call, err)) {
        const struct store_put put = {
            .body = {.fd = fd, .size = result.size, .sha256 = result.sha256}};
        ok = l->opt->store->ops->put(l->opt->store, key, &put, NULL, l->call, err);
    }
    sink_close(out);
    source_close(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* ---- */

static struct backup_index *get_index(const struct loading *l, const struct backup_objects *objects,
                                      struct err *err)
{
    struct backup_index *index = NULL;
    struct err not_stored = ERR_INIT;
    if (!try_stored(l, objects, &index, err) || index != NULL)
        return index;
    index = make_index(l, objects, err);
    if (index != NULL && l->opt->writable && !store_index(l, index, &not_stored))
        log_warn("%s: its index cannot be stored, and will be made again at the next mount: %s",
                 l->name, not_stored.text);
    return index;
}

struct backup_content *backup_load(const struct backup_set_options *options, const char *name,
                                   const struct call *call, struct err *err)
{
    const struct loading l = {.opt = options, .name = name, .call = call};
    struct backup_content *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    if (backup_objects_load(options->store, name, &c->objects, call, err))
        c->index = get_index(&l, &c->objects, err);
    if (c->index != NULL)
        c->tree = backup_tree_new(c->index, err);
    if (c->tree != NULL)
        return c;
    backup_content_free(c);
    return NULL;
}

void backup_content_free(struct backup_content *c)
{
    if (c == NULL)
        return;
    backup_tree_free(c->tree);
    backup_index_free(c->index);
    backup_objects_free(&c->objects);
    free(c);
}
