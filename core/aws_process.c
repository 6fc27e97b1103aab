/* credential_process: a program that writes credentials (AWS SDKs and Tools Reference Guide,
 * "Process credential provider"). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/aws_impl.h"
#include "core/s3_error.h"

#define WORDS_MAX 64
#define OUT_MAX (64 * 1024)
#define SAID_MAX 65536
#define SHOWN 200
#define RUN_MS 60000
#define END_POLL_MS 10

extern char **environ;

/* The word at *IN, unquoted in place; *IN is then behind it. False when a quote is not closed. */
static bool unquote(char **in, char *out)
{
    char quote = '\0';
    char *at = *in;
    for (; *at != '\0' && (quote != '\0' || (*at != ' ' && *at != '\t')); at++) {
        bool escapes = quote == '\0' || (quote == '"' && (at[1] == '"' || at[1] == '\\'));
        if (quote == '\0' && (*at == '"' || *at == '\''))
            quote = *at;
        else if (quote != '\0' && *at == quote)
            quote = '\0';
        else if (*at == '\\' && at[1] != '\0' && escapes)
            *out++ = *++at;
        else
            *out++ = *at;
    }
    *in = *at == '\0' ? at : at + 1;
    *out = '\0';
    return quote == '\0';
}

/* Splits TEXT in place as sh splits words, without expanding anything. */
static bool split(char *text, char *words[WORDS_MAX + 1], struct err *err)
{
    size_t n = 0;
    for (char *in = text + strspn(text, " \t"); *in != '\0'; in += strspn(in, " \t")) {
        if (n == WORDS_MAX)
            return err_set(err, ERR_FORBIDDEN, "more than %d words", WORDS_MAX);
        words[n++] = in;
        if (!unquote(&in, in))
            return err_set(err, ERR_FORBIDDEN, "a quote is not closed");
    }
    words[n] = NULL;
    if (n > 0)
        return true;
    err_set(err, ERR_FORBIDDEN, "no program is named");
    return false;
}

struct child {
    pid_t pid;
    int fd[2];         /* its stdout and stderr, -1 once closed */
    int wake[2];       /* a byte comes when the call is cancelled */
    struct buf *to[2]; /* what it writes */
};

static void child_close(struct child *c)
{
    const int fds[] = {c->fd[0], c->fd[1], c->wake[0], c->wake[1]};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

/* In a process group of its own, so that what it starts can be ended too; with the signals that a
 * program expects. */
static int spawn(struct child *c, char **words, int out, int err_fd)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, err_fd, STDERR_FILENO);
    /* another thread may be starting a gpg, whose pipes would stay open in this program */
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int rc = posix_spawnp(&c->pid, words[0], &files, &attr, words, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static bool start(struct child *c, char **words, struct err *err)
{
    int out[2] = {-1, -1}, said[2] = {-1, -1};
    bool ok = pipe2(c->wake, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(out, O_CLOEXEC) == 0 &&
              pipe2(said, O_CLOEXEC) == 0;
    if (!ok)
        err_sys(err, errno, "cannot make a pipe");
    int rc = ok ? spawn(c, words, out[1], said[1]) : 0;
    if (rc != 0)
        ok = err_sys(err, rc, "cannot run it");
    if (out[1] >= 0)
        close(out[1]);
    if (said[1] >= 0)
        close(said[1]);
    c->fd[0] = out[0];
    c->fd[1] = said[0];
    return ok;
}

/* What is beyond the limit of stderr is dropped, of stdout is an error. */
static bool take(struct child *c, int i, struct err *err)
{
    char chunk[4096];
    ssize_t n = read(c->fd[i], chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0) {
        int reason = errno;
        close(c->fd[i]);
        c->fd[i] = -1;
        return n == 0 || err_sys(err, reason, "cannot read what it writes");
    }
    bool fits = buf_append(c->to[i], chunk, (size_t)n);
    explicit_bzero(chunk, sizeof(chunk));
    return fits || i == 1 || err_set(err, ERR_FORBIDDEN, "it writes too much");
}

/* Until both ends are closed. */
static bool listen_to(struct child *c, const struct call *call, struct err *err)
{
    while (c->fd[0] >= 0 || c->fd[1] >= 0) {
        struct pollfd p[3] = {{.fd = c->fd[0], .events = POLLIN},
                              {.fd = c->fd[1], .events = POLLIN},
                              {.fd = c->wake[0], .events = POLLIN}};
        if (!call_alive(call, "it does not end", err))
            return false;
        int64_t left = call_left_ms(call);
        if (poll(p, 3, left > 60000 ? 60000 : (int)left + 1) < 0 && errno != EINTR)
            return err_sys(err, errno, "cannot wait for it");
        for (int i = 0; i < 2; i++) {
            if (p[i].revents != 0 && !take(c, i, err))
                return false;
        }
    }
    return true;
}

static void wake(void *arg)
{
    const struct child *c = arg;
    (void)!write(c->wake[1], "", 1);
}

/* The end of what it said on stderr: programs say last why they failed. */
static bool failed(const struct child *c, int status, struct err *err)
{
    char said[SHOWN];
    const struct buf *text = c->to[1];
    size_t skip = text->len >= SHOWN ? text->len - SHOWN + 1 : 0;
    s3_error_field(said, sizeof(said), buf_str(text) + skip, text->len - skip);
    const char *sep = said[0] != '\0' ? ": " : "";
    if (WIFSIGNALED(status))
        return err_set(err, ERR_FORBIDDEN, "ended by signal %d%s%s", WTERMSIG(status), sep, said);
    return err_set(err, ERR_FORBIDDEN, "exit status %d%s%s", WEXITSTATUS(status), sep, said);
}

/* It may have closed its output long before it ends. */
static bool await_end(struct child *c, const struct call *call, struct err *err)
{
    siginfo_t info = {.si_pid = 0};
    while (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0) {
        if (!call_alive(call, "it does not end", err))
            return false;
        cancel_sleep_ms(call->cancel, END_POLL_MS);
    }
    return true;
}

static bool run(struct child *c, char **words, const struct call *call, struct err *err)
{
    struct cancel_watch watch;
    int status = 0;
    if (!start(c, words, err))
        return false;
    cancel_watch(call->cancel, &watch, wake, c);
    bool ok = listen_to(c, call, err);
    cancel_unwatch(call->cancel, &watch);
    ok = ok && await_end(c, call, err);
    if (!ok)
        (void)kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
    }
    return ok && (status == 0 || failed(c, status, err));
}

bool aws_process_run(const char *command, const struct call *call, struct buf *out, struct err *err)
{
    char *copy = strdup(command);
    char *words[WORDS_MAX + 1];
    struct buf said = BUF_INIT(SAID_MAX);
    struct child c = {.fd = {-1, -1}, .wake = {-1, -1}, .to = {out, &said}};
    struct call limited = *call;
    if (limited.deadline_ms > now_ms() + RUN_MS)
        limited.deadline_ms = now_ms() + RUN_MS;
    *out = (struct buf)BUF_SECRET_INIT(OUT_MAX);
    bool ok = copy != NULL && buf_reserve(out, OUT_MAX);
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "out of memory");
    ok = ok && split(copy, words, err) && run(&c, words, &limited, err);
    child_close(&c);
    buf_free(&said);
    free(copy);
    return ok;
}
