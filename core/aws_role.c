/* The credentials that a profile describes: keys, a program, or a role that is assumed with those
 * of another profile or place (AWS SDKs and Tools Reference Guide, "Assume role credential
 * provider").
 */
#include <string.h>

#include "core/aws_impl.h"

#define DEPTH_MAX 5 /* profiles that get their credentials from the next one */

struct wanted {
    const char *name;
    bool named;     /* by an option, a variable or another profile: it has to exist */
    bool must_give; /* and to give credentials */
    int depth;
};

static enum aws_found resolve(const struct aws_chain *chain, const struct wanted *w,
                              const struct call *call, struct aws_keys *out, struct err *err);

static const char *path_of(const struct aws_profile *p, int file)
{
    return p->path[file] != NULL ? p->path[file] : "(no home directory)";
}

/* Moves the keys that one of the files has. */
static enum aws_found keys_of(struct aws_profile *p, int file, struct aws_keys *out,
                              struct err *err)
{
    struct secret *of = p->of[file];
    bool id = secret_is_set(&of[AWS_P_ID]), secret = secret_is_set(&of[AWS_P_SECRET]);
    if (!id && !secret)
        return AWS_NOT_THERE;
    if (!id || !secret) {
        err_set(err, ERR_FORBIDDEN, "%s has no %s", path_of(p, file),
                id ? "aws_secret_access_key" : "aws_access_key_id");
        return AWS_FAILED;
    }
    *out =
        (struct aws_keys){.id = of[AWS_P_ID], .secret = of[AWS_P_SECRET], .token = of[AWS_P_TOKEN]};
    of[AWS_P_ID] = of[AWS_P_SECRET] = of[AWS_P_TOKEN] = (struct secret)SECRET_INIT;
    return AWS_FOUND;
}

static enum aws_found run(const char *command, const struct call *call, struct aws_keys *out,
                          struct err *err)
{
    const struct aws_json form = {
        .who = "what it writes", .token_name = "SessionToken", .version = 1};
    struct buf text = BUF_SECRET_INIT(0);
    bool ok = aws_process_run(command, call, &text, err) &&
              aws_json_keys(&form, buf_str(&text), text.len, out, err);
    buf_free(&text);
    /* the program's name only: its arguments may be secret */
    int n = (int)strcspn(command, " \t");
    if (!ok)
        err_context(err, "credential_process %.*s", n < 120 ? n : 120, command);
    return ok ? AWS_FOUND : AWS_FAILED;
}

/* What the role is assumed with. */
static enum aws_found base(const struct aws_chain *chain, const struct wanted *w,
                           struct aws_profile *p, const struct call *call, struct aws_keys *out,
                           struct err *err)
{
    const char *other = aws_profile_get(p, AWS_P_SOURCE_PROFILE);
    const char *place = aws_profile_get(p, AWS_P_CREDENTIAL_SOURCE);
    if (other != NULL && strcmp(other, w->name) == 0) {
        err_set(err, ERR_FORBIDDEN, "it names itself as source_profile, and has no keys");
        enum aws_found found = keys_of(p, AWS_FILE_CREDENTIALS, out, err);
        return found != AWS_NOT_THERE ? found : keys_of(p, AWS_FILE_CONFIG, out, err);
    }
    if (other != NULL) {
        const struct wanted next = {
            .name = other, .named = true, .must_give = true, .depth = w->depth + 1};
        return resolve(chain, &next, call, out, err);
    }
    if (place != NULL && strcmp(place, "Environment") == 0)
        return aws_find_static(chain, call, out, err);
    if (place != NULL && strcmp(place, "EcsContainer") == 0)
        return aws_find_container(chain, call, out, err);
    if (place != NULL && strcmp(place, "Ec2InstanceMetadata") == 0)
        return aws_find_imds(chain, call, out, err);
    err_set(
        err, ERR_FORBIDDEN,
        "role_arn needs source_profile, web_identity_token_file, or a credential_source that is "
        "Environment, EcsContainer or Ec2InstanceMetadata");
    return AWS_FAILED;
}

static enum aws_found assume(const struct aws_chain *chain, const struct wanted *w,
                             struct aws_profile *p, const struct call *call, struct aws_keys *out,
                             struct err *err)
{
    const char *region = chain->opt.region;
    const char *token_file = aws_profile_get(p, AWS_P_TOKEN_FILE);
    const struct aws_role role = {.arn = aws_profile_get(p, AWS_P_ROLE),
                                  .session_name = aws_profile_get(p, AWS_P_SESSION_NAME),
                                  .external_id = aws_profile_get(p, AWS_P_EXTERNAL_ID),
                                  .duration_s = aws_profile_get(p, AWS_P_DURATION),
                                  .region =
                                      region != NULL ? region : aws_profile_get(p, AWS_P_REGION)};
    struct aws_keys with = {.expires_s = 0};
    if (aws_profile_get(p, AWS_P_MFA) != NULL) {
        err_set(err, ERR_FORBIDDEN,
                "mfa_serial asks for a code each time, which a mount cannot enter: use a role "
                "without MFA, or credential_process");
        return AWS_FAILED;
    }
    if (token_file != NULL)
        return aws_sts_web_identity(chain, &role, token_file, call, out, err) ? AWS_FOUND
                                                                              : AWS_FAILED;
    enum aws_found found = base(chain, w, p, call, &with, err);
    bool ok = found == AWS_FOUND && aws_sts_assume(chain, &role, &with, call, out, err);
    if (found == AWS_NOT_THERE)
        err_context(err, "there is nothing to assume the role with");
    aws_keys_free(&with);
    return ok ? AWS_FOUND : AWS_FAILED;
}

static enum aws_found none(const struct wanted *w, const struct aws_profile *p, struct err *err)
{
    const char *a = path_of(p, AWS_FILE_CREDENTIALS), *b = path_of(p, AWS_FILE_CONFIG);
    bool exists = p->in[AWS_FILE_CREDENTIALS] || p->in[AWS_FILE_CONFIG];
    if (aws_profile_get(p, AWS_P_SSO_SESSION) != NULL || aws_profile_get(p, AWS_P_SSO_URL) != NULL)
        err_set(
            err, ERR_FORBIDDEN,
            "it signs in with IAM Identity Center, which is left to the AWS CLI: make another "
            "profile with credential_process = aws configure export-credentials --profile %.60s",
            w->name);
    else if (w->named && !exists)
        err_set(err, ERR_FORBIDDEN, "there is no such profile in %.150s or %.150s", a, b);
    else if (w->must_give)
        err_set(err, ERR_FORBIDDEN, "it has no credentials in %.150s or %.150s", a, b);
    else
        return aws_not_there(err, "profile %.60s in %.150s and %.150s", w->name, a, b);
    return AWS_FAILED;
}

static enum aws_found use(const struct aws_chain *chain, const struct wanted *w,
                          struct aws_profile *p, const struct call *call, struct aws_keys *out,
                          struct err *err)
{
    const char *command = aws_profile_get(p, AWS_P_PROCESS);
    if (w->depth > DEPTH_MAX) {
        err_set(err, ERR_FORBIDDEN, "source_profile goes in a circle");
        return AWS_FAILED;
    }
    if (aws_profile_get(p, AWS_P_ROLE) != NULL)
        return assume(chain, w, p, call, out, err);
    enum aws_found found = keys_of(p, AWS_FILE_CREDENTIALS, out, err);
    if (found != AWS_NOT_THERE)
        return found;
    if (command != NULL)
        return run(command, call, out, err);
    found = keys_of(p, AWS_FILE_CONFIG, out, err);
    return found != AWS_NOT_THERE ? found : none(w, p, err);
}

static enum aws_found resolve(const struct aws_chain *chain, const struct wanted *w,
                              const struct call *call, struct aws_keys *out, struct err *err)
{
    struct aws_profile p;
    enum aws_found found = AWS_FAILED;
    if (aws_profile_load(&chain->opt, w->name, &p, err))
        found = use(chain, w, &p, call, out, err);
    aws_profile_free(&p);
    if (found == AWS_FAILED)
        err_context(err, "profile %.60s", w->name);
    return found;
}

enum aws_found aws_find_profile(const struct aws_chain *chain, const struct call *call,
                                struct aws_keys *out, struct err *err)
{
    const struct aws_chain_options *o = &chain->opt;
    const struct wanted w = {.name = o->profile != NULL ? o->profile : "default",
                             .named = o->profile != NULL,
                             .must_give = o->profile_only};
    return resolve(chain, &w, call, out, err);
}
