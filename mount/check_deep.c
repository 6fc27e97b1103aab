/* Everything: each object is decoded and verified, several at once. What is damaged is said as it
 * is found; what says nothing of the archive (the store went away, a key is missing) ends it. What
 * lies in an archive storage class is counted and said in one line: there a lifecycle rule may have
 * put all but the newest of a large archive. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/waiter.h"
#include "mount/check_impl.h"

#define THREADS_MAX 8
#define TICK_MS 200

struct deep {
    struct check *c;
    struct check_object *objects;
    size_t count, capacity;
    uint64_t bytes;
    _Atomic uint64_t done_bytes;
    _Atomic size_t next, done;
    pthread_mutex_t lock; /* also of the report */
    pthread_cond_t changed;
    unsigned running; /* lock */
    size_t damaged;   /* lock */
    size_t frozen;    /* lock: in an archive storage class, so that nothing is known of them */
    struct err cold;  /* lock: of the first of these */
    bool given_up;    /* lock */
};

/* ---- what there is ---- */

static bool add(struct deep *d, const struct check_object *o, struct err *err)
{
    if (d->count == d->capacity) {
        size_t wanted = d->capacity == 0 ? 1024 : d->capacity * 2;
        struct check_object *grown = reallocarray(d->objects, wanted, sizeof(*grown));
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "out of memory");
        d->objects = grown;
        d->capacity = wanted;
    }
    struct check_object *to = &d->objects[d->count];
    *to = *o;
    to->key = strdup(o->key);
    if (to->key == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    d->count++;
    d->bytes += o->stored_bytes;
    return true;
}

static bool is_newest(const struct wal_census *c, const char *name)
{
    struct wal_name n = wal_name_parse(name);
    const struct wal_timeline *t = wal_census_find(c, n.tli);
    uint64_t number;
    return t != NULL && wal_census_number(c, &n, &number) && number == t->last;
}

static bool add_wal(struct deep *d, struct err *err)
{
    const struct check_wal *w = &d->c->wal;
    bool ok = true;
    for (size_t i = 0; ok && i < w->count; i++) {
        char key[WAL_NAME_MAX + 16];
        enum wal_kind kind = wal_name_parse(w->files[i].name).kind;
        struct check_object o = {.kind = kind == WAL_HISTORY ? CHECK_HISTORY
                                         : kind == WAL_LABEL ? CHECK_LABEL
                                                             : CHECK_SEGMENT,
                                 .key = key,
                                 .stored_bytes = w->files[i].stored_bytes};
        o.newest = kind == WAL_SEGMENT && is_newest(w->census, w->files[i].name);
        (void)snprintf(o.name, sizeof(o.name), "%s", w->files[i].name);
        (void)wal_key_of_name(o.name, key, sizeof(key));
        ok = add(d, &o, err);
    }
    return ok;
}

/* INFO is NULL when its sentinel cannot be read. */
static bool add_backup(struct deep *d, const char *name, const struct backup_info *info,
                       struct err *err)
{
    struct backup_objects objects;
    if (!backup_objects_load(d->c->store, name, &objects, &d->c->call, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < objects.count; i++) {
        const struct backup_object *from = &objects.objects[i];
        bool part = i < objects.partition_count;
        if (!part && strstr(from->key, "/" BACKUP_INDEX_NAME) == NULL)
            continue;
        bool known = part && info != NULL && objects.partition_count == info->partition_count;
        const char *sha256 = known ? info->partition_sha256[i] : "";
        const struct check_object o = {.kind = part ? CHECK_PARTITION : CHECK_INDEX,
                                       .key = from->key,
                                       .stored_bytes = from->size,
                                       .sha256 = *sha256 == '\0' ? NULL : sha256};
        ok = add(d, &o, err);
    }
    backup_objects_free(&objects);
    return ok;
}

static bool add_dumps(struct deep *d, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < d->c->dumps.count; i++) {
        const struct check_dump *f = &d->c->dumps.files[i];
        const struct check_object o = {.kind = CHECK_DUMP,
                                       .key = f->key,
                                       .stored_bytes = f->stored_bytes,
                                       .dump = f->known ? &f->facts : NULL};
        ok = add(d, &o, err);
    }
    return ok;
}

static bool collect(struct deep *d, struct err *err)
{
    const struct catalog *catalog = d->c->catalog;
    bool ok = add_wal(d, err);
    for (size_t i = 0; ok && catalog != NULL && i < catalog->count; i++)
        ok = add_backup(d, catalog->backups[i].info.name, &catalog->backups[i].info, err);
    for (size_t i = 0; ok && catalog != NULL && i < catalog->incomplete_count; i++)
        ok = !catalog->incomplete[i].damaged ||
             add_backup(d, catalog->incomplete[i].name, NULL, err);
    return ok && add_dumps(d, err);
}

/* ---- the work ---- */

static void failed(struct deep *d, const struct err *err)
{
    bool about_it = !check_is_unknown(err) && err->code != ERR_KEY && err->code != ERR_FORBIDDEN;
    /* an object that has gone since it was listed was deleted, by retention most likely */
    if (err->code == ERR_ABSENT)
        return;
    pthread_mutex_lock(&d->lock);
    if (err->code == ERR_FROZEN) {
        if (d->frozen++ == 0)
            d->cold = *err;
    } else if (about_it) {
        d->damaged++;
        check_say_err(d->c, "deep", err);
    } else if (!d->given_up) {
        d->given_up = true;
        check_say_err(d->c, "deep", err);
    }
    pthread_mutex_unlock(&d->lock);
}

static bool goes_on(struct deep *d)
{
    pthread_mutex_lock(&d->lock);
    bool on = !d->given_up && !cancel_fired(&d->c->cancel);
    pthread_mutex_unlock(&d->lock);
    return on;
}

static void *work(void *arg)
{
    struct deep *d = arg;
    size_t i;
    while (goes_on(d) && (i = d->next++) < d->count) {
        struct err err = ERR_INIT;
        if (!check_object(d->c->store, d->c->pgp, &d->objects[i], &d->done_bytes, &d->c->call,
                          &err))
            failed(d, &err);
        d->done++;
    }
    pthread_mutex_lock(&d->lock);
    d->running--;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static unsigned thread_count(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long wanted = cores < 1 ? 2 : cores * 2;
    return wanted > THREADS_MAX ? THREADS_MAX : (unsigned)wanted;
}

/* Until all have ended; says how far it is. */
static void watch(struct deep *d)
{
    struct check_progress progress;
    bool tty = isatty(STDERR_FILENO) == 1;
    check_progress_init(&progress, d->c->quiet ? NULL : stderr, tty, d->bytes);
    for (bool running = true; running;) {
        const struct call tick = {.deadline_ms = now_ms() + TICK_MS};
        struct waiter w;
        waiter_begin(&w, &tick, &d->lock, &d->changed);
        pthread_mutex_lock(&d->lock);
        while (d->running > 0 && waiter_wait(&w)) {
        }
        running = d->running > 0;
        check_progress_say(&progress, d->done_bytes, d->done, now_ms());
        pthread_mutex_unlock(&d->lock);
        waiter_end(&w);
    }
    check_progress_end(&progress);
}

static void verify_all(struct deep *d)
{
    pthread_t threads[THREADS_MAX];
    unsigned count = 0, wanted = thread_count();
    d->running = wanted;
    while (count < wanted && pthread_create(&threads[count], NULL, work, d) == 0)
        count++;
    pthread_mutex_lock(&d->lock);
    d->running -= wanted - count;
    if (count == 0) {
        d->given_up = true;
        check_say(d->c, CHECK_UNKNOWN, "deep", "cannot start a thread");
    }
    pthread_mutex_unlock(&d->lock);
    watch(d);
    while (count > 0)
        (void)pthread_join(threads[--count], NULL);
}

static void say_sum(const struct deep *d, int64_t took_ms)
{
    char bytes[32], took[32];
    human_bytes(d->done_bytes, bytes);
    human_age(took_ms / 1000, took);
    if (d->frozen > 0)
        check_say(
            d->c, CHECK_WARN, "deep",
            "%zu objects were not looked into and are not known to be damaged: they cannot be "
            "read until they are restored; the first: %s",
            d->frozen, d->cold.text);
    check_say(d->c, d->damaged > 0 ? CHECK_FAIL : CHECK_OK, "deep",
              "%zu objects decoded and verified, %s in %s; %zu of them damaged",
              d->count - d->frozen, bytes, took, d->damaged);
}

void check_deep(struct check *c)
{
    struct deep d = {.c = c, .cold = ERR_INIT};
    struct err err = ERR_INIT;
    int64_t begun_ms = now_ms();
    pthread_mutex_init(&d.lock, NULL);
    waiter_cond_init(&d.changed);
    if (!collect(&d, &err))
        check_say_err(c, "deep", &err);
    else
        verify_all(&d);
    if (err.code == ERR_NONE && !d.given_up && !cancel_fired(&c->cancel))
        say_sum(&d, now_ms() - begun_ms);
    for (size_t i = 0; i < d.count; i++)
        free(d.objects[i].key);
    free(d.objects);
    pthread_cond_destroy(&d.changed);
    pthread_mutex_destroy(&d.lock);
}
