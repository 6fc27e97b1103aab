/* A backup that comes to nothing: what was stored of it is removed, and only that. */
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/log.h"

struct doomed {
    char (*keys)[STORE_KEY_MAX];
    size_t count;
};

static bool remove_keys(struct backup_write *w, const struct doomed *d, const struct call *call)
{
    struct err err = ERR_INIT;
    const char **keys = calloc(d->count + 1, sizeof(*keys));
    bool ok = keys != NULL || err_set(&err, ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; keys != NULL && i < d->count; i++)
        keys[i] = d->keys[i];
    ok = ok &&
         (d->count == 0 || w->opt.store->ops->remove(w->opt.store, keys, d->count, call, &err));
    free(keys);
    if (!ok)
        log_warn("what was stored of the backup %s stays behind as incomplete: %s", w->info.label,
                 err.text);
    return ok;
}

static enum holder guard_holder(struct backup_write *w, const struct call *call, struct err *err)
{
    char key[STORE_KEY_MAX], text[GUARD_TEXT_MAX];
    backup_write_key(w, GUARD_REST, key);
    backup_write_guard_text(w, text);
    return backup_write_holder(w, key, text, call, err);
}

/* A sentinel without its partitions would look like a backup, so it goes first. Where there is one
 * that is not ours, or the guard is not ours any more, all that the name has is somebody else's. */
static bool retract(struct backup_write *w, const struct call *call)
{
    char key[STORE_KEY_MAX];
    const char *keys[] = {key};
    const char *text = w->sentinel == NULL ? "" : w->sentinel;
    struct err err = ERR_INIT;
    backup_write_key(w, BACKUP_SENTINEL_SUFFIX, key);
    enum holder guard = guard_holder(w, call, &err);
    enum holder sentinel =
        guard == HOLDER_US ? backup_write_holder(w, key, text, call, &err) : HOLDER_UNKNOWN;
    if (sentinel == HOLDER_NONE)
        return true;
    if (sentinel == HOLDER_US && w->sentinel != NULL &&
        w->opt.store->ops->remove(w->opt.store, keys, 1, call, &err))
        return true;
    if (err.code != ERR_NONE)
        log_warn("what was stored of the backup %s stays behind%s: %s", w->info.name,
                 w->sentinel == NULL ? " as incomplete" : ", and may be complete", err.text);
    else
        log_warn("%s is somebody else's by now: nothing of it is removed", w->info.name);
    return false;
}

/* Last of all: after it another writer may take the name. */
static void remove_guard(struct backup_write *w, const struct call *call)
{
    char key[STORE_KEY_MAX];
    const char *keys[] = {key};
    struct err err = ERR_INIT;
    backup_write_key(w, GUARD_REST, key);
    enum holder holder = guard_holder(w, call, &err);
    if (holder == HOLDER_NONE || holder == HOLDER_OTHER)
        return;
    if (holder == HOLDER_UNKNOWN || !w->opt.store->ops->remove(w->opt.store, keys, 1, call, &err))
        log_warn("%s stays behind: %s", key, err.text);
}

static void remove_all(struct backup_write *w, const struct call *call)
{
    struct doomed d = {.keys = calloc(2 * w->count + 4, sizeof(*d.keys))};
    bool named = w->guarded && retract(w, call);
    if (d.keys == NULL) {
        log_warn("what was stored of the backup %s stays behind as incomplete: out of memory",
                 w->info.label);
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        if (w->begun[i].temporary)
            strcpy(d.keys[d.count++], w->begun[i].key);
        if (named) /* the copy of a temporary one too */
            backup_write_partition_key(w, i, d.keys[d.count++]);
    }
    if (named) {
        backup_write_key(w, INDEX_REST, d.keys[d.count++]);
        backup_write_key(w, VERSION_REST, d.keys[d.count++]);
        if (w->sentinel != NULL) /* a put that we gave up may have arrived meanwhile */
            backup_write_key(w, BACKUP_SENTINEL_SUFFIX, d.keys[d.count++]);
    }
    bool ok = remove_keys(w, &d, call);
    free(d.keys);
    if (ok && w->guard_tried && (named || !w->guarded))
        remove_guard(w, call);
}

void backup_write_abort(struct backup_write *w, const struct call *call)
{
    for (size_t i = 0; i < w->count; i++) {
        partition_write_free(w->begun[i].writing);
        w->begun[i].writing = NULL;
    }
    w->open = false;
    if (w->committed)
        return;
    struct err aborted = ERR_INIT;
    err_set(&aborted, ERR_CANCELLED, "the backup was given up");
    backup_write_note(w, false, &aborted);
    remove_all(w, call);
}
