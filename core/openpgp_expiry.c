#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "core/log.h"
#include "core/openpgp_internal.h"

#define DAY_S (24 * 60 * 60)
#define WARN_BEFORE_S (30 * DAY_S)
#define KEY_NAME_MAX 200

static void day_text(int64_t when_s, char out[32])
{
    time_t when = (time_t)when_s;
    struct tm tm;
    if (gmtime_r(&when, &tm) == NULL || strftime(out, 32, "%Y-%m-%d", &tm) == 0)
        (void)snprintf(out, 32, "%" PRId64, when_s);
}

static void warn(const struct openpgp *pgp, gpgme_key_t key, int64_t expires_s, int64_t now_s)
{
    char name[KEY_NAME_MAX], gpg[160], day[32];
    gpg_key_name(key, name, sizeof(name));
    gpg_command(pgp, gpg, sizeof(gpg));
    day_text(expires_s, day);
    if (expires_s <= now_s)
        log_warn("key %s expired on %s, and is encrypted to all the same because of allow_expired; "
                 "extend it (%s --quick-set-expire %s 2y '*') or configure another key",
                 name, day, gpg, key->subkeys->fpr);
    else
        log_warn("key %s expires on %s, in %" PRId64 " days: %s; extend it (%s --quick-set-expire "
                 "%s 2y '*') or configure another key",
                 name, day, (expires_s - now_s) / DAY_S,
                 pgp->allow_expired ? "it will be encrypted to all the same (allow_expired)"
                                    : "from then on nothing can be archived",
                 gpg, key->subkeys->fpr);
}

int64_t openpgp_note_expiry(const struct openpgp *pgp, gpgme_key_t key, const char *exact)
{
    int64_t expires_s = gpg_key_expires(key, exact), now_s = time(NULL);
    if (expires_s != 0 && expires_s - now_s < WARN_BEFORE_S &&
        (expires_s > now_s || pgp->allow_expired))
        warn(pgp, key, expires_s, now_s);
    return expires_s;
}

int64_t openpgp_expires_s(const struct openpgp *pgp)
{
    int64_t expires_s = pgp->expires_s;
    return expires_s == INT64_MAX ? 0 : expires_s;
}

void openpgp_watch_expiry(struct openpgp *pgp, const struct call *call)
{
    int64_t now_s = time(NULL), last_s = pgp->expiry_looked_s;
    if (pgp->expires_s == INT64_MAX || now_s - last_s < DAY_S ||
        !atomic_compare_exchange_strong(&pgp->expiry_looked_s, &last_s, now_s))
        return;
    int64_t first_s = INT64_MAX;
    for (size_t i = 0; i < pgp->recipient_count; i++) {
        int64_t expires_s = pgp->expires_s; /* if it cannot be looked up now */
        struct gpg_run run;
        struct gpg_run_options options = openpgp_run_options(pgp, call);
        struct err why = ERR_INIT;
        if (gpg_run_begin(&run, &options, &why) &&
            gpg_list_keys(&run, pgp->recipients[i].fpr, false, &why) && run.key_count > 0)
            expires_s = openpgp_note_expiry(pgp, run.keys[0], pgp->recipients[i].exact);
        gpg_run_end(&run);
        first_s = expires_s < first_s ? expires_s : first_s;
    }
    pgp->expires_s = first_s;
}

bool openpgp_make_earlier(struct openpgp *pgp, struct err *err)
{
    static const struct call endless = CALL_INIT;
    int64_t now_s = time(NULL), expires_s = pgp->expires_s;
    char conf[160];
    if (!pgp->allow_expired || expires_s == INT64_MAX)
        return true;
    /* a key that was made after another one's end comes from the future, then */
    (void)snprintf(conf, sizeof(conf),
                   "faked-system-time %" PRId64 "!\nignore-valid-from\nignore-time-conflict\n",
                   expires_s <= now_s ? expires_s - 1 : now_s);
    pgp->earlier = gpg_home_new(conf, err);
    bool ok = pgp->earlier != NULL;
    for (size_t i = 0; ok && i < pgp->recipient_count; i++) {
        struct gpg_run_options theirs = openpgp_run_options(pgp, &endless), ours = theirs;
        struct gpg_exported key;
        unsigned agent_error;
        ours.home = gpg_home_path(pgp->earlier);
        if (!gpg_exported_init(&key, err))
            return false;
        ok = gpg_export_key(&theirs, pgp->recipients[i].fpr, 0, &key, &agent_error, err) &&
             gpg_import_key(&ours, &key, err);
        gpg_exported_free(&key);
    }
    return ok;
}
