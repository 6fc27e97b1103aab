#include "core/aws_chain.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/aws_impl.h"
#include "core/log.h"

#define CONNECT_MS 5000u

enum aws_found aws_not_there(struct err *err, const char *fmt, ...)
{
    char text[sizeof(err->text)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_set(err, ERR_FORBIDDEN, "%s", text);
    return AWS_NOT_THERE;
}

enum aws_found aws_find_static(const struct aws_chain *chain, const struct call *call,
                               struct aws_keys *out, struct err *err)
{
    bool found = false;
    (void)call;
    if (chain->opt.read_static != NULL &&
        !chain->opt.read_static(chain->opt.static_arg, out, &found, err))
        return AWS_FAILED;
    if (!found)
        return aws_not_there(
            err, "AWS_ACCESS_KEY_ID in the envdir, the unit's credentials or the environment");
    if (secret_is_set(&out->secret))
        return AWS_FOUND;
    err_set(err, ERR_FORBIDDEN,
            "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not set in "
            "the same place");
    return AWS_FAILED;
}

static const struct place {
    const char *name; /* "from ...", in the log */
    aws_find_fn *find;
} places[] = {
    {"the keys given to the mount", aws_find_static},
    {"a web identity", aws_find_web_identity},
    {"the profile", aws_find_profile},
    {"the container's endpoint", aws_find_container},
    {"the instance metadata service", aws_find_imds},
};
#define PLACES ((int)(sizeof(places) / sizeof(places[0])))

static bool allowed(const struct aws_chain *chain, int i)
{
    if (chain->chosen >= 0)
        return i == chain->chosen;
    if (chain->opt.instance_profile)
        return places[i].find == aws_find_imds;
    return !chain->opt.profile_only || places[i].find == aws_find_profile;
}

/* The last place is IMDS, which is always set up; that it is not there is one more thing that was
 * looked at. */
static bool nothing(const struct aws_chain *chain, const char *looked_at, struct err *err)
{
    if (chain->chosen >= 0)
        return err_set(err, ERR_FORBIDDEN, "%s gave AWS credentials, and is gone: %s",
                       places[chain->chosen].name, looked_at);
    return err_set(err, ERR_FORBIDDEN, "no AWS credentials; looked at: %s", looked_at);
}

static bool chain_fetch(void *arg, const struct call *call, struct aws_keys *out, struct err *err)
{
    struct aws_chain *chain = arg;
    char looked_at[sizeof(err->text)] = "";
    for (int i = 0; i < PLACES; i++) {
        if (!allowed(chain, i))
            continue;
        enum aws_found found = places[i].find(chain, call, out, err);
        if (found == AWS_FOUND && chain->chosen < 0)
            log_info("AWS credentials come from %s", places[i].name);
        if (found == AWS_FOUND) {
            chain->chosen = i;
            return true;
        }
        aws_keys_free(out);
        bool last = i == PLACES - 1 && chain->chosen < 0 && !chain->opt.instance_profile;
        if (found == AWS_FAILED && (!last || err->code == ERR_CANCELLED))
            return err_context(err, "no AWS credentials");
        size_t len = strlen(looked_at);
        (void)snprintf(looked_at + len, sizeof(looked_at) - len, "%s%.400s", len > 0 ? "; " : "",
                       err->text);
    }
    return nothing(chain, looked_at, err);
}

static void chain_free(void *arg)
{
    struct aws_chain *chain = arg;
    http_free(chain->http);
    http_free(chain->direct);
    free(chain);
}

bool aws_chain_source(const struct aws_chain_options *options, struct aws_source *source,
                      struct err *err)
{
    struct aws_chain *chain = calloc(1, sizeof(*chain));
    if (chain == NULL)
        return err_set(err, ERR_NO_MEMORY, "out of memory");
    chain->opt = *options;
    chain->chosen = -1;
    struct http_options http = {.ca_file = options->ca_file,
                                .connect_timeout_ms = CONNECT_MS,
                                .stall_timeout_ms = AWS_STS_TIMEOUT_MS,
                                .max_connections = 1};
    chain->http = http_new(&http, err);
    http.no_proxy = true;
    chain->direct = chain->http == NULL ? NULL : http_new(&http, err);
    if (chain->direct == NULL) {
        chain_free(chain);
        return false;
    }
    *source = (struct aws_source){.fetch = chain_fetch, .free = chain_free, .arg = chain};
    return true;
}
