/* walefs: the command. Parses, checks, mounts, serves, cleans up. */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/metrics.h"
#include "fs/fuse.h"
#include "mount/check.h"
#include "mount/config.h"
#include "mount/config_text.h"
#include "mount/daemon.h"
#include "mount/help.h"
#include "mount/identity.h"
#include "mount/mountpoint.h"
#include "mount/notify.h"
#include "mount/watchdog.h"

/* Enough that readers waiting for a hung store do not keep others from being served. */
#define REQUEST_THREADS 512u
/* And for what needs no store, when all of those wait. */
#define LOCAL_THREADS 16u
/* Fetching and coding. Requests may wait for this work, never the other way round. */
#define WORK_THREADS 64u
/* Dumps that are written at once: each is coded in one. They wait for work, which must not wait for
 * them. */
#define CODER_THREADS 256u
#define IDLE_THREAD_MS 5000u
#define FILES_WANTED 65536u
#define PREFLIGHT_MS 30000
/* What is being archived when the mount is told to end may finish for so long. */
#define GRACE_MS 10000

struct walefs {
    bool foreground;
    bool helper; /* called by mount(8), as mount.walefs */
    bool fake;   /* by mount -f: check everything, mount nothing */
    const char *source;
    const char *mountpoint_arg;
    struct settings settings;
    struct config config;
    char *mountpoint;
    char *about[2]; /* config, keys; see config_text.h */
    struct aws_cred *cred;
    struct store *store;
    struct openpgp *pgp;
    struct pool *requests, *local, *coders, *work;
    struct fs *fs;
    struct fuse_server *server;
    struct notify notify;
    struct watchdog *watchdog;
    _Atomic bool ended; /* the mount is over, whoever ended it */
};

/* ---- command line ---- */

enum parsed { PARSED_RUN, PARSED_DONE, PARSED_WRONG };

/* mount(8) calls mount.TYPE SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE]. */
static bool is_helper_name(const char *program)
{
    const char *slash = strrchr(program, '/');
    return strncmp(slash == NULL ? program : slash + 1, "mount.", 6) == 0;
}

static bool take_helper_flags(struct walefs *w, const char *flags)
{
    if (!w->helper || flags[strspn(flags, "sfnv")] != '\0')
        return false;
    w->fake = w->fake || strchr(flags, 'f') != NULL;
    w->settings.sloppy = w->settings.sloppy || strchr(flags, 's') != NULL;
    return true;
}

/* mount(8): 1 is a wrong command line, 32 a mount that failed. */
static int helper_status(int status)
{
    return status == 0 ? 0 : status == 2 ? 1 : 32;
}

static enum parsed parse(struct walefs *w, int argc, char **argv, struct err *err)
{
    const char *names[2] = {NULL, NULL};
    int count = 0;
    bool only_names = false;
    w->helper = argc > 0 && is_helper_name(argv[0]);
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_names || arg[0] != '-' || arg[1] == '\0') {
            if (count == 2) {
                err_set(err, ERR_INVALID, "too many arguments: %s", arg);
                return PARSED_WRONG;
            }
            names[count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_names = true;
        } else if (take_helper_flags(w, arg + 1)) {
        } else if (w->helper && strcmp(arg, "-t") == 0) {
            i += i + 1 < argc;
        } else if (strcmp(arg, "-f") == 0) {
            w->foreground = true;
        } else if (strncmp(arg, "-o", 2) == 0) {
            const char *list = arg[2] != '\0' ? arg + 2 : i + 1 < argc ? argv[++i] : NULL;
            if (list == NULL) {
                err_set(err, ERR_INVALID, "-o needs a list of options");
                return PARSED_WRONG;
            }
            if (!settings_add_options(&w->settings, list, err))
                return PARSED_WRONG;
        } else if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
            help_print();
            return PARSED_DONE;
        } else if (strcmp(arg, "-V") == 0 || strcmp(arg, "--version") == 0) {
            puts("walefs " WALEFS_VERSION);
            return PARSED_DONE;
        } else {
            err_set(err, ERR_INVALID, "unknown argument %s; see walefs --help", arg);
            return PARSED_WRONG;
        }
    }
    if (count == 0) {
        err_set(err, ERR_INVALID, "no mount point is given; usage: " HELP_USAGE);
        return PARSED_WRONG;
    }
    w->source = count == 2 ? names[0] : NULL;
    w->mountpoint_arg = names[count - 1];
    return PARSED_RUN;
}

/* sudo may leave another user's HOME, and gpg would look for keys there. */
static void correct_home(void)
{
    struct stat st;
    const char *home = getenv("HOME");
    const struct passwd *pw = getpwuid(geteuid());
    bool ours = home != NULL && stat(home, &st) == 0 && st.st_uid == geteuid();
    if (!ours && pw != NULL)
        (void)setenv("HOME", pw->pw_dir, 1);
}

/* What mount(8) starts may have no environment at all. */
static bool become_user(const struct walefs *w, struct err *err)
{
    const char *user = setting_get(&w->settings, SET_USER);
    (void)setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    if (user != NULL)
        return identity_take(user, err);
    correct_home();
    return true;
}

/* What mount.fuse3 has mounted lets everybody do everything, unless it was told otherwise. */
static bool check_descriptor(const struct walefs *w, struct err *err)
{
    return !mountpoint_is_descriptor(w->mountpoint) || !w->config.allow_other ||
           setting_get(&w->settings, SET_DEFAULT_PERMISSIONS) != NULL ||
           err_set(err, ERR_INVALID,
                   "allow_other without default_permissions would let every user do everything: "
                   "with drop_privileges, give both");
}

/* With root's rights if there are any, since only root may read the secrets, and the mount point
 * may be closed to who will use it. */
static bool prepare(struct walefs *w, struct err *err)
{
    if (!settings_complete(&w->settings, err) || !become_user(w, err) ||
        !config_make(&w->config, &w->settings, w->source, w->foreground, err))
        return false;
    w->mountpoint = mountpoint_prepare(w->mountpoint_arg, err);
    return w->mountpoint != NULL && check_descriptor(w, err) && identity_lower(err);
}

/* ---- start ---- */

static bool check_store(struct walefs *w, struct err *err)
{
    const struct call call = {.deadline_ms = now_ms() + PREFLIGHT_MS};
    bool weak_guard = false;
    if (!w->store->ops->check(w->store, w->config.read_only ? STORE_CHECK_READ : STORE_CHECK_MOUNT,
                              &weak_guard, &call, err))
        return false;
    if (weak_guard)
        log_warn(
            "%s cannot create objects conditionally: a name is looked up before it is written, "
            "which two hosts that archive the same name at once can get past",
            w->store->url);
    return true;
}

static bool describe(struct walefs *w, struct err *err)
{
    w->about[0] = config_text(&w->config, &w->settings, err);
    w->about[1] = config_keys(&w->config, err);
    return w->about[0] != NULL && w->about[1] != NULL;
}

/* With credentials that were renewed it is another one. */
static char *identity(void *arg)
{
    struct walefs *w = arg;
    struct err ignored = ERR_INIT;
    char id_end[AWS_ID_END] = "";
    if (w->cred != NULL)
        aws_cred_id_end(w->cred, id_end);
    return config_identity(&w->config, &w->settings, id_end, &ignored);
}

static bool start(struct walefs *w, struct err *err)
{
    const struct config *c = &w->config;
    metrics_mark(MOMENT_STARTED);
    if (!describe(w, err))
        return false;
    if (!c->is_file && (w->cred = config_make_cred(c, err)) == NULL)
        return false;
    w->store = config_make_store(c, &w->settings, w->cred, err);
    if (w->store == NULL || !check_store(w, err))
        return false;
    w->pgp = config_make_openpgp(c, &w->settings, err);
    w->work = w->pgp == NULL ? NULL : pool_new(WORK_THREADS, IDLE_THREAD_MS, err);
    w->coders = w->work == NULL ? NULL : pool_new(CODER_THREADS, IDLE_THREAD_MS, err);
    w->requests = w->coders == NULL ? NULL : pool_new(REQUEST_THREADS, IDLE_THREAD_MS, err);
    w->local = w->requests == NULL ? NULL : pool_new(LOCAL_THREADS, IDLE_THREAD_MS, err);
    if (w->local == NULL)
        return false;
    const struct fs_options fs_options = {
        .store = w->store,
        .pgp = w->pgp,
        .pool = w->work,
        .coders = w->coders,
        .uid = c->uid,
        .gid = c->gid,
        .true_owners = geteuid() == 0,
        .read_only = c->read_only,
        .hard = c->hard,
        .soft_timeout_ms = c->soft_timeout_ms,
        .write_timeout_ms = c->write_timeout_ms,
        .cache_dir = c->cache_dir,
        .cache_bytes = c->cache_bytes,
        .prefetch = c->prefetch,
        .partition_bytes = c->partition_bytes,
        .allow_delete = c->allow_delete,
        .about = {.config = w->about[0],
                  .identity = identity,
                  .identity_arg = w,
                  .keys = c->recipient_count == 0 ? NULL : w->about[1]}};
    w->fs = fs_new(&fs_options, err);
    if (w->fs == NULL)
        return false;
    const struct fuse_server_options server_options = {.fs = w->fs,
                                                       .pool = w->requests,
                                                       .local_pool = w->local,
                                                       .mountpoint = w->mountpoint,
                                                       .source = w->store->url,
                                                       .read_only = c->read_only,
                                                       .allow_other = c->allow_other,
                                                       .no_exec = c->no_exec,
                                                       .grace_ms = GRACE_MS,
                                                       .debug = c->debug};
    if (!identity_raise(err))
        return false;
    w->server = fuse_server_new(&server_options, err);
    struct err second = ERR_INIT;
    return identity_settle(w->server == NULL ? &second : err) && w->server != NULL;
}

static void finish(struct walefs *w)
{
    if (w->fs != NULL)
        fs_stop(w->fs);
    pool_free(w->requests);
    pool_free(w->local);
    pool_free(w->coders);
    pool_free(w->work);
    fuse_server_free(w->server);
    watchdog_free(w->watchdog); /* it may have waited for the server */
    notify_close(&w->notify);
    fs_free(w->fs);
    openpgp_free(w->pgp);
    if (w->store != NULL)
        w->store->ops->free(w->store);
    aws_cred_free(w->cred);
    free(w->mountpoint);
    for (size_t i = 0; i < sizeof(w->about) / sizeof(w->about[0]); i++)
        free(w->about[i]);
    config_free(&w->config);
    settings_free(&w->settings);
}

/* ---- running ---- */

static const int ending_signals[] = {SIGTERM, SIGINT, SIGHUP};

/* Without SIGHUP under nohup: blocked, it would be taken though it is ignored. */
static sigset_t ending_set(void)
{
    sigset_t set;
    struct sigaction now;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(ending_signals) / sizeof(ending_signals[0]); i++)
        sigaddset(&set, ending_signals[i]);
    if (sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
        sigdelset(&set, SIGHUP);
    return set;
}

static void *wait_for_signal(void *arg)
{
    struct walefs *w = arg;
    sigset_t set = ending_set();
    int signal_number;
    if (sigwait(&set, &signal_number) == 0 && !w->ended) {
        log_info("ending on signal %d", signal_number);
        notify_send(&w->notify, "STOPPING", "1");
        fuse_server_stop(w->server);
    }
    return NULL;
}

static bool serve(struct walefs *w, struct err *err)
{
    pthread_t waiter;
    int rc = pthread_create(&waiter, NULL, wait_for_signal, w);
    if (rc != 0)
        return err_sys(err, rc, "cannot start a thread");
    bool ok = fuse_server_run(w->server, err);
    w->ended = true;
    /* ended by umount: the waiter is woken by the signal it waits for */
    (void)pthread_kill(waiter, SIGTERM); // NOLINT(bugprone-bad-signal-to-kill-thread)
    (void)pthread_join(waiter, NULL);
    return ok;
}

/* Nobody who waits for the mount is told before a request to it can be answered: what comes first
 * waits in the kernel until serve() takes it. */
static bool announce(struct walefs *w, struct err *err)
{
    char status[512];
    if (w->notify.watchdog_ms != 0 &&
        (w->watchdog = watchdog_new(&w->notify, w->mountpoint, err)) == NULL)
        return false;
    (void)snprintf(status, sizeof(status), "%s on %s", w->store->url, w->mountpoint);
    notify_send(&w->notify, "STATUS", status);
    notify_send(&w->notify, "READY", "1");
    log_info("%s is mounted on %s", w->store->url, w->mountpoint);
    return true;
}

static int run(struct walefs *w, struct err *err)
{
    int report = -1;
    if (!w->foreground) {
        report = daemon_fork(w->mountpoint, w->helper ? helper_status(1) : 1, err);
        if (report < 0)
            return 1;
    }
    notify_open(&w->notify); /* after the fork: the watchdog's pid is the one that serves */
    /* one policy for all threads: signals go to the one that waits for them */
    sigset_t set = ending_set();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    log_setup(w->config.log_targets, w->config.log_facility,
              w->config.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    bool started = start(w, err) && announce(w, err);
    if (report >= 0 && !daemon_report(report, started ? NULL : err->text) && started) {
        log_error("the program that waited for this mount to start is gone: it is given up");
        return 1;
    }
    if (!started) {
        notify_send(&w->notify, "STATUS", err->text);
        if (report >= 0)
            err->code = ERR_NONE; /* the parent prints it */
        return 1;
    }
    if (!serve(w, err))
        return 1;
    log_info("%s is unmounted", w->mountpoint);
    return 0;
}

/* No core file with keys and plain data in it; room for many open files. */
static void set_limits(void)
{
    const struct rlimit no_core = {0, 0};
    struct rlimit files;
    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FILES_WANTED) {
        files.rlim_cur = files.rlim_max < FILES_WANTED ? files.rlim_max : FILES_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* Who starts us without a stdin, stdout or stderr must not have a pipe or a socket of ours there.
 */
static void open_standard_files(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR); // NOLINT(android-cloexec-open): children get these
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct walefs w = {.notify = {.fd = -1}};
    struct err err = ERR_INIT;
    int status = 1;
    open_standard_files();
    /* many short-lived threads: few arenas, and large buffers go back to the system at once */
    set_limits();
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_MMAP_THRESHOLD, 256 * 1024);

    if (argc > 1 && strcmp(argv[1], "check") == 0) {
        correct_home();
        return check_main(argc - 1, argv + 1);
    }
    switch (parse(&w, argc, argv, &err)) {
    case PARSED_DONE:
        settings_free(&w.settings);
        return 0;
    case PARSED_WRONG:
        status = 2;
        break;
    case PARSED_RUN:
        if (prepare(&w, &err))
            status = w.fake ? 0 : run(&w, &err);
        break;
    }
    if (status != 0 && err.code != ERR_NONE)
        (void)fprintf(stderr, "walefs: %s\n", err.text);
    finish(&w);
    return w.helper ? helper_status(status) : status;
}
