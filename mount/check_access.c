/* Can the store and the keys be used as they are configured? */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "mount/check_impl.h"

/* S3 refuses requests whose time is further off; what is less may get there. */
#define CLOCK_REFUSED_S (15 * 60)
#define CLOCK_WARN_S 30
#define DAY_S (24 * 60 * 60)
#define EXPIRY_WARN_S (30 * DAY_S)

/* ---- store ---- */

/* One listing answers for three: what failed is told by how it failed. */
static bool check_listing(struct check *c)
{
    struct err err = ERR_INIT;
    bool weak;
    bool ok = c->store->ops->check(c->store, STORE_CHECK_READ, &weak, &c->call, &err);
    const char *what = "list";
    if (err.code == ERR_NO_BUCKET)
        what = "bucket";
    else if (err.code == ERR_FORBIDDEN && strstr(err.text, "AccessDenied") == NULL)
        what = "credentials";
    if (!ok) {
        check_say_err(c, what, &err);
        return false;
    }
    if (!c->config.is_file)
        check_say(c, CHECK_OK, "credentials", "the store takes them");
    check_say(c, CHECK_OK, "bucket", "%s", c->store->url);
    check_say(c, CHECK_OK, "list", "objects can be listed");
    return true;
}

static void check_write(struct check *c)
{
    struct err err = ERR_INIT;
    bool weak = false;
    if (c->config.read_only)
        return;
    if (!c->store->ops->check(c->store, STORE_CHECK_WRITE, &weak, &c->call, &err))
        check_say_err(c, "write", &err);
    else if (weak)
        check_say(c, CHECK_WARN, "write",
                  "objects can be written, but not created conditionally: two hosts that archive "
                  "the same name at once can overwrite each other; let one archive only");
    else
        check_say(c, CHECK_OK, "write", "objects can be written, and created conditionally");
}

static void check_clock(struct check *c)
{
    int64_t ahead_s;
    if (!c->store->ops->clock(c->store, &ahead_s))
        return;
    int64_t off_s = ahead_s < 0 ? -ahead_s : ahead_s;
    enum check_result result = off_s >= CLOCK_REFUSED_S ? CHECK_FAIL
                               : off_s >= CLOCK_WARN_S  ? CHECK_WARN
                                                        : CHECK_OK;
    if (result == CHECK_OK)
        check_say(c, result, "clock", "this host's and the store's are together");
    else
        check_say(c, result, "clock",
                  "this host's is %" PRId64 " seconds %s the store's, and S3 refuses requests from "
                  "15 minutes on: set this host's clock (chrony, systemd-timesyncd)",
                  off_s, ahead_s < 0 ? "ahead of" : "behind");
}

bool check_store(struct check *c)
{
    struct err err = ERR_INIT;
    if (!c->config.is_file && (c->cred = config_make_cred(&c->config, &err)) == NULL) {
        check_say_err(c, "credentials", &err);
        return false;
    }
    c->store = config_make_store(&c->config, &c->settings, c->cred, &err);
    if (c->store == NULL) {
        check_say_err(c, "bucket", &err);
        return false;
    }
    bool ok = check_listing(c);
    if (ok)
        check_write(c);
    check_clock(c); /* also when that is why it failed */
    return ok;
}

/* ---- keys ---- */

/* Objects that are not encrypted can still be looked at. */
static bool without_keys(struct check *c)
{
    struct err err = ERR_INIT;
    struct config none = c->config;
    none.recipient_count = 0;
    none.passphrase = (struct secret)SECRET_INIT;
    c->pgp = config_make_openpgp(&none, &c->settings, &err);
    if (c->pgp == NULL)
        check_say_err(c, "key", &err);
    return c->pgp != NULL;
}

static void check_recipients(struct check *c)
{
    struct err err = ERR_INIT;
    size_t count = c->config.recipient_count;
    int64_t expires_s = openpgp_expires_s(c->pgp), left_s = expires_s - (int64_t)time(NULL);
    char day[32] = "";
    struct tm tm;
    time_t when = (time_t)expires_s;
    if (expires_s != 0 && gmtime_r(&when, &tm) != NULL)
        (void)strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    c->reads = openpgp_trial(c->pgp, &c->call, &err);
    if (expires_s != 0 && left_s <= 0)
        check_say(c, CHECK_WARN, "key",
                  "encrypted to one that expired on %s, because of allow_expired: extend it", day);
    else if (expires_s != 0 && left_s < EXPIRY_WARN_S)
        check_say(c, CHECK_WARN, "key",
                  "one that is encrypted to expires on %s, in %" PRId64 " days: extend it", day,
                  left_s / DAY_S);
    else
        check_say(c, CHECK_OK, "key", "encrypted to %zu key%s%s%s", count, count == 1 ? "" : "s",
                  expires_s != 0 ? ", until " : "", day);
    /* a host that only archives does well not to have the secret key */
    if (c->reads)
        check_say(c, CHECK_OK, "secret-key", "what is written here can be decrypted here");
    else if (check_is_unknown(&err))
        check_say_err(c, "secret-key", &err);
    else
        check_say(c, CHECK_OK, "secret-key",
                  "none that can be used: this host can archive, but not restore (%s)", err.text);
}

bool check_key(struct check *c)
{
    struct err err = ERR_INIT;
    c->reads = true;
    c->pgp = config_make_openpgp(&c->config, &c->settings, &err);
    if (c->pgp == NULL) {
        check_say_err(c, "key", &err);
        return without_keys(c);
    }
    if (c->config.recipient_count > 0 && !c->config.read_only)
        check_recipients(c);
    else if (secret_is_set(&c->config.passphrase))
        check_say(c, CHECK_OK, "secret-key", "the passphrase opens it");
    else if (!c->config.read_only)
        check_say(c, CHECK_OK, "key", "none is set: nothing is encrypted");
    return true;
}
