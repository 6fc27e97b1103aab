/* Shared by the places where AWS credentials are looked for (aws_*.c) and by nothing else. */
#ifndef WALEFS_CORE_AWS_IMPL_H
#define WALEFS_CORE_AWS_IMPL_H

#include "core/aws_chain.h"
#include "core/buf.h"
#include "core/http.h"

#define AWS_ANSWER_MAX (64 * 1024)
#define AWS_STS_TIMEOUT_MS 15000u

struct aws_chain {
    struct aws_chain_options opt;
    struct http *http;   /* for STS */
    struct http *direct; /* past any proxy, for what is next to this host */
    int chosen;          /* the place that has given credentials, -1 before */
};

enum aws_found {
    AWS_FOUND,
    AWS_NOT_THERE, /* not set up; ERR's text names what was looked at */
    AWS_FAILED     /* set up, and ERR says why it gives none */
};

typedef enum aws_found aws_find_fn(const struct aws_chain *chain, const struct call *call,
                                   struct aws_keys *out, struct err *err);

aws_find_fn aws_find_static;       /* aws_chain.c */
aws_find_fn aws_find_web_identity; /* aws_sts.c */
aws_find_fn aws_find_profile;      /* aws_role.c */
aws_find_fn aws_find_container;    /* aws_container.c */
aws_find_fn aws_find_imds;         /* aws_imds.c */

/* err_set for a place that was not set up. */
enum aws_found aws_not_there(struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- aws_http.c ---- */

struct aws_fetch {
    const char *method, *url;
    const char *const *headers; /* "name: value" */
    size_t header_count;
    const char *body; /* NULL: none */
    uint32_t timeout_ms;
    unsigned tries;
};

struct aws_answer {
    int status;
    struct buf body;
};

/* True with any answer but 429 and 5xx, which are tried again. ANSWER is to be freed. */
bool aws_http(struct http *http, const struct aws_fetch *fetch, const struct call *call,
              struct aws_answer *answer, struct err *err);
void aws_answer_free(struct aws_answer *answer); /* wipes it */

/* ---- aws_json.c ---- */

/* {"AccessKeyId", "SecretAccessKey", TOKEN_NAME, "Expiration"} with a string each, the last two
 * not needed; VERSION (0: none) is what "Version" must be. WHO is the one who answered. */
struct aws_json {
    const char *who, *token_name;
    int version;
};
bool aws_json_keys(const struct aws_json *form, const char *text, size_t n, struct aws_keys *out,
                   struct err *err);
/* The field NAME ("message") of an error answer as one harmless line; "" when there is none. */
void aws_json_field(const char *text, size_t n, const char *name, char out[200]);

/* Seconds since 1970 of ISO 8601 with Z or an offset; 0 when it is none. */
int64_t aws_time(const char *text);

/* ---- aws_sts.c ---- */

struct aws_role {
    const char *arn;
    const char *session_name; /* NULL: one of our own */
    const char *external_id;  /* NULL: none */
    const char *duration_s;   /* NULL: STS's default */
    const char *region;       /* whose STS is asked */
};

bool aws_sts_web_identity(const struct aws_chain *chain, const struct aws_role *role,
                          const char *token_file, const struct call *call, struct aws_keys *out,
                          struct err *err);
/* AssumeRole, signed with WITH. */
bool aws_sts_assume(const struct aws_chain *chain, const struct aws_role *role,
                    const struct aws_keys *with, const struct call *call, struct aws_keys *out,
                    struct err *err);

/* ---- aws_profile.c ---- */

enum aws_profile_key {
    AWS_P_ID,
    AWS_P_SECRET,
    AWS_P_TOKEN,
    AWS_P_PROCESS,
    AWS_P_ROLE,
    AWS_P_SOURCE_PROFILE,
    AWS_P_CREDENTIAL_SOURCE,
    AWS_P_TOKEN_FILE,
    AWS_P_SESSION_NAME,
    AWS_P_EXTERNAL_ID,
    AWS_P_DURATION,
    AWS_P_MFA,
    AWS_P_SSO_SESSION,
    AWS_P_SSO_URL,
    AWS_P_REGION,
    AWS_P_COUNT
};

enum { AWS_FILE_CREDENTIALS, AWS_FILE_CONFIG, AWS_FILES };

struct aws_profile {
    char *path[AWS_FILES]; /* what was looked at; NULL without a home directory */
    bool in[AWS_FILES];    /* has a section for the profile */
    struct secret of[AWS_FILES][AWS_P_COUNT];
};

/* Reads section NAME of both files; a missing file is an empty one. PROFILE is to be freed. */
bool aws_profile_load(const struct aws_chain_options *opt, const char *name,
                      struct aws_profile *profile, struct err *err);
void aws_profile_free(struct aws_profile *profile);
/* The value, from the credentials file first, or NULL. */
const char *aws_profile_get(const struct aws_profile *profile, enum aws_profile_key key);

/* ---- aws_process.c ---- */

/* Runs COMMAND without a shell (words split at blanks; quotes and backslashes as sh has them) and
 * returns what it writes, which is to be wiped. Kills it when the call ends. */
bool aws_process_run(const char *command, const struct call *call, struct buf *out,
                     struct err *err);

/* ---- aws_container.c ---- */

/* May credentials be asked for at URL? Only with TLS, on this host, or at AWS's own addresses. */
bool aws_container_url_ok(const char *url);

#endif
