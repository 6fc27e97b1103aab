#include "mount/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mount/check_impl.h"

#define STATUS_UNKNOWN 3

static const char usage[] =
    "Usage: walefs check [-o options] [--deep] [--quiet] [SOURCE]\n"
    "\n"
    "Looks at an archive without mounting it, as a mount with the same options would use it: a "
    "line\n"
    "for each check, which begins with ok, warn, FAIL or unknown.\n"
    "\n"
    "  -o OPTION,...   as for a mount; with ro nothing is written, else one small object\n"
    "  --deep          decode and verify every object\n"
    "  -q, --quiet     say only what is not ok\n"
    "  -h, --help      this text\n"
    "\n"
    "Exit status: 0 all well, 1 warnings, 2 failures, 3 something could not be found out.\n";

/* ---- arguments ---- */

enum parsed { PARSED_RUN, PARSED_DONE, PARSED_WRONG };

static enum parsed parse(struct check *c, int argc, char **argv, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || arg[1] == '\0') {
            if (c->source != NULL) {
                err_set(err, ERR_INVALID, "too many arguments: %s", arg);
                return PARSED_WRONG;
            }
            c->source = arg;
        } else if (strncmp(arg, "-o", 2) == 0) {
            const char *list = arg[2] != '\0' ? arg + 2 : i + 1 < argc ? argv[++i] : "";
            if (!settings_add_options(&c->settings, list, err))
                return PARSED_WRONG;
        } else if (strcmp(arg, "--deep") == 0) {
            c->deep = true;
        } else if (strcmp(arg, "--quiet") == 0 || strcmp(arg, "-q") == 0) {
            c->quiet = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            (void)fputs(usage, stdout);
            return PARSED_DONE;
        } else {
            err_set(err, ERR_INVALID, "unknown argument %s; see walefs check --help", arg);
            return PARSED_WRONG;
        }
    }
    return PARSED_RUN;
}

/* ---- signals: the private gpg home must not be left behind ---- */

struct signals {
    pthread_t thread;
    struct cancel *cancel;
    sigset_t set;
    _Atomic bool ended;
};

static void *wait_for_signal(void *arg)
{
    struct signals *s = arg;
    int number;
    if (sigwait(&s->set, &number) == 0 && !s->ended)
        cancel_fire(s->cancel);
    return NULL;
}

static bool signals_begin(struct signals *s, struct cancel *cancel, struct err *err)
{
    s->cancel = cancel;
    s->ended = false;
    sigemptyset(&s->set);
    sigaddset(&s->set, SIGINT);
    sigaddset(&s->set, SIGTERM);
    sigaddset(&s->set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &s->set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    int rc = pthread_create(&s->thread, NULL, wait_for_signal, s);
    return rc == 0 || err_sys(err, rc, "cannot start a thread");
}

static void signals_end(struct signals *s)
{
    s->ended = true;
    (void)pthread_kill(s->thread, SIGTERM); // NOLINT(bugprone-bad-signal-to-kill-thread)
    (void)pthread_join(s->thread, NULL);
}

/* ---- the checks ---- */

static void load_catalog(struct check *c)
{
    struct err err = ERR_INIT;
    c->catalog = catalog_load(c->store, NULL, NULL, &c->call, &err);
    if (c->catalog == NULL)
        check_say_err(c, "backups", &err);
}

static void run(struct check *c)
{
    bool store = check_store(c);
    bool on = !cancel_fired(&c->cancel) && check_key(c) && store;
    if (!on)
        return;
    load_catalog(c); /* first: it may say how large segments are */
    if (!check_wal_load(c))
        return;
    check_backups(c);
    check_wal_timelines(c);
    if (!cancel_fired(&c->cancel))
        check_dumps(c);
    if (c->deep && !cancel_fired(&c->cancel))
        check_deep(c);
}

static void check_free(struct check *c)
{
    check_wal_free(&c->wal);
    check_dumps_free(&c->dumps);
    catalog_unref(c->catalog);
    openpgp_free(c->pgp);
    if (c->store != NULL)
        c->store->ops->free(c->store);
    aws_cred_free(c->cred);
    config_free(&c->config);
    settings_free(&c->settings);
    cancel_destroy(&c->cancel);
}

int check_main(int argc, char **argv)
{
    struct check c = {.out = stdout, .reads = true};
    struct signals signals;
    struct err err = ERR_INIT;
    int status = STATUS_UNKNOWN;
    cancel_init(&c.cancel);
    c.call = (struct call){.cancel = &c.cancel, .deadline_ms = DEADLINE_NONE};
    enum parsed parsed = parse(&c, argc, argv, &err);
    if (parsed == PARSED_DONE) {
        status = 0;
    } else if (parsed == PARSED_RUN && settings_complete(&c.settings, &err) &&
               config_make(&c.config, &c.settings, c.source, true, &err) &&
               signals_begin(&signals, &c.cancel, &err)) {
        /* what matters of the log is said in lines */
        log_setup(LOG_TO_STDERR, 0, c.config.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
        run(&c);
        signals_end(&signals);
        if (cancel_fired(&c.cancel))
            (void)fputs("walefs check: interrupted\n", stderr);
        status = cancel_fired(&c.cancel) ? STATUS_UNKNOWN : check_exit_status(&c);
    }
    if (err.code != ERR_NONE)
        (void)fprintf(stderr, "walefs check: %s\n", err.text);
    check_free(&c);
    return status;
}
