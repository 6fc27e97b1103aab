/* The right to a backup's name. Two writers whose backups begin at the same place in the WAL would
 * write the same keys; so whoever comes to know its name first creates a small object there, the
 * guard, and nobody writes below a name that has one or has anything else. It lies in
 * tar_partitions/, where WAL-E's fetch passes it over and its delete removes it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backup_write_impl.h"
#include "core/catalog.h"
#include "core/log.h"

void backup_write_guard_text(const struct backup_write *w, char out[GUARD_TEXT_MAX])
{
    (void)snprintf(out, GUARD_TEXT_MAX, "This backup is being written by walefs: %s\n", w->token);
}

enum holder backup_write_holder(const struct backup_write *w, const char *key, const char *text,
                                const struct call *call, struct err *err)
{
    struct store_info info;
    size_t n = strlen(text);
    char *have = malloc(n + 1);
    if (have == NULL) {
        err_set(err, ERR_NO_MEMORY, "out of memory");
        return HOLDER_UNKNOWN;
    }
    struct err why = ERR_INIT;
    struct source *body =
        w->opt.store->ops->get(w->opt.store, key, 0, UINT64_MAX, &info, call, &why);
    enum holder holder = why.code == ERR_ABSENT ? HOLDER_NONE : HOLDER_UNKNOWN;
    ssize_t got = body == NULL ? -1 : source_read_full(body, have, n + 1, &why);
    if (got >= 0)
        holder = got == (ssize_t)n && memcmp(have, text, n) == 0 ? HOLDER_US : HOLDER_OTHER;
    if (holder == HOLDER_UNKNOWN)
        *err = why;
    source_close(body);
    free(have);
    return holder;
}

static bool has_sentinel(struct backup_write *w, bool *has, struct err *err)
{
    struct call once;
    char key[STORE_KEY_MAX];
    struct store_info info;
    struct err why = ERR_INIT;
    backup_write_key(w, BACKUP_SENTINEL_SUFFIX, key);
    *has = w->opt.store->ops->head(w->opt.store, key, &info, backup_write_once(w, &once), &why);
    if (*has || why.code == ERR_ABSENT)
        return true;
    *err = why;
    return false;
}

/* Nothing is stored under the name, but for a guard. */
static bool name_is_free(struct backup_write *w, const char *guard, struct err *err)
{
    struct call once;
    struct backup_objects objects;
    bool complete;
    if (!has_sentinel(w, &complete, err))
        return false;
    if (complete)
        return err_set(
            err, ERR_EXISTS,
            "there is a complete backup %s, which begins at the same place in the WAL: "
            "wait until WAL has moved on (or SELECT pg_switch_wal()), or delete that one",
            w->info.name);
    if (!backup_objects_load(w->opt.store, w->info.name, &objects, backup_write_once(w, &once),
                             err))
        return false;
    bool empty =
        objects.count == 0 || (objects.count == 1 && strcmp(objects.objects[0].key, guard) == 0);
    backup_objects_free(&objects);
    return empty || err_set(err, ERR_EXISTS,
                            "there is an incomplete backup of the same name, %s: remove it with "
                            "rmdir (and -o allow_delete), or wait for its writer",
                            w->info.name);
}

/* True when the guard is stored, and is ours. */
static bool put_guard(struct backup_write *w, const char *guard, struct err *err)
{
    struct call once;
    char text[GUARD_TEXT_MAX];
    backup_write_guard_text(w, text);
    const struct store_put put = {.body = {.mem = text, .size = strlen(text)},
                                  .only_if_absent = true};
    w->guard_tried = true;
    if (w->opt.store->ops->put(w->opt.store, guard, &put, NULL, backup_write_once(w, &once), err))
        return true;
    if (err->code != ERR_EXISTS)
        return false;
    enum holder holder = backup_write_holder(w, guard, text, backup_write_once(w, &once), err);
    if (holder == HOLDER_US) /* the first answer was lost */
        return true;
    if (holder == HOLDER_UNKNOWN)
        return false;
    w->guard_tried = false;
    return err_set(err, ERR_EXISTS,
                   "an incomplete backup of the same name, %s, is being written; if its writer has "
                   "died, remove it with rmdir (and -o allow_delete)",
                   w->info.name);
}

bool backup_write_take_name(struct backup_write *w, struct err *err)
{
    char guard[STORE_KEY_MAX];
    if (!backup_name_format(&w->info.start, w->info.segment_size, w->info.name))
        return err_set(err, ERR_INVALID, "the backup's start position gives no name");
    backup_write_key(w, GUARD_REST, guard);
    /* Looked at before, so that a guard does not even touch another backup; and after, because a
     * rival may have come to its end in between. */
    w->guarded =
        name_is_free(w, guard, err) && put_guard(w, guard, err) && name_is_free(w, guard, err);
    return w->guarded;
}
