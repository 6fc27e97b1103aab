#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/aws_env.h"
#include "tests/unit/store_env.h"

char aws_dir[64], aws_url[64];
struct aws_chain_options aws_options;

static pid_t server;
static struct aws_source source;
static bool kept;

static void path_of(const char *name, char path[256])
{
    (void)snprintf(path, 256, "%s/%s", aws_dir, name);
}

void aws_file(const char *name, const char *text)
{
    char path[256];
    path_of(name, path);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

const char *aws_text(const char *name)
{
    static char text[4096];
    char path[256];
    path_of(name, path);
    FILE *f = fopen(path, "re");
    size_t n = f == NULL ? 0 : fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    if (f != NULL)
        fclose(f);
    return text;
}

int aws_set_up(void **state)
{
    char path[256];
    (void)state;
    (void)strcpy(aws_dir, "/tmp/walefs-aws-XXXXXX");
    if (mkdtemp(aws_dir) == NULL)
        return -1;
    path_of("aws", path);
    (void)mkdir(path, 0700);
    path_of(".aws", path);
    (void)mkdir(path, 0700);
    kept = false;
    server = 0;
    source = (struct aws_source){.arg = NULL};
    aws_options = (struct aws_chain_options){
        .home = aws_dir, .imds_disabled = true, .imds_timeout_ms = 20000, .region = "eu-x-1"};
    return 0;
}

int aws_set_up_server(void **state)
{
    char path[256];
    if (aws_set_up(state) != 0)
        return -1;
    path_of("aws", path);
    aws_file("aws/keys", "ID1 secret1 1000 token1");
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test must not leave it behind */
        execlp("python3", "python3", "tests/lib/aws_server.py", path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 3000 && *aws_text("aws/port") == '\0'; i++)
        cancel_sleep_ms(NULL, 10);
    (void)snprintf(aws_url, sizeof(aws_url), "http://127.0.0.1:%d", atoi(aws_text("aws/port")));
    return *aws_text("aws/port") == '\0' ? -1 : 0;
}

static void drop_chain(void)
{
    if (source.arg != NULL)
        source.free(source.arg);
    source.arg = NULL;
}

int aws_tear_down(void **state)
{
    (void)state;
    drop_chain();
    if (server > 0) {
        kill(server, SIGTERM);
        while (waitpid(server, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    env_remove_tree(aws_dir);
    return 0;
}

void aws_keep_chain(void)
{
    kept = true;
}

bool aws_fetch_keys(struct aws_keys *keys, struct err *err)
{
    if (!kept)
        drop_chain();
    if (source.arg == NULL)
        assert_ok(aws_chain_source(&aws_options, &source, err), err);
    *keys = (struct aws_keys){.expires_s = 0};
    return source.fetch(source.arg, &env_forever, keys, err);
}

void aws_gives(const char *id, const char *secret, const char *token)
{
    struct err err = ERR_INIT;
    struct aws_keys keys;
    assert_ok(aws_fetch_keys(&keys, &err), &err);
    assert_string_equal(keys.id.value, id);
    assert_string_equal(keys.secret.value, secret);
    assert_int_equal(secret_is_set(&keys.token), token != NULL);
    if (token != NULL)
        assert_string_equal(keys.token.value, token);
    aws_keys_free(&keys);
}

void aws_refuses(const char *text, ...)
{
    struct err err = ERR_INIT;
    struct aws_keys keys;
    va_list ap;
    if (aws_fetch_keys(&keys, &err))
        fail_msg("gave %s instead of: %s", keys.id.value, text);
    assert_false(secret_is_set(&keys.secret));
    va_start(ap, text);
    for (; text != NULL; text = va_arg(ap, const char *)) {
        if (strstr(err.text, text) == NULL)
            fail_msg("\"%s\" is not in: %s", text, err.text);
    }
    va_end(ap);
    static const char *const secrets[] = {"secret1", "token1", "{secret", "of-web", "of-container"};
    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
        assert_null(strstr(err.text, secrets[i]));
    assert_null(strchr(err.text, '\n'));
}
