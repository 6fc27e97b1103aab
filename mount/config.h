/* The settings, understood: typed, checked, with defaults. */
#ifndef WALEFS_MOUNT_CONFIG_H
#define WALEFS_MOUNT_CONFIG_H

#include <sys/types.h>

#include "core/aws_chain.h"
#include "core/log.h"
#include "core/openpgp.h"
#include "core/store_s3.h"
#include "mount/settings.h"

#define CONFIG_MAX_RECIPIENTS 32u

struct config {
    bool is_file; /* file:// rather than s3:// */
    enum setting_origin source_origin;
    char *directory;
    char *bucket, *prefix;
    char *endpoint; /* NULL: AWS */
    bool path_style;
    enum s3_sse sse;
    char *sse_kms_key;
    struct aws_chain_options aws; /* where credentials are looked for */
    char *aws_file[4];            /* owns the files that it names */
    struct secret region;         /* unset: not known */

    char *recipients_text; /* owns what recipients point to */
    const char *recipients[CONFIG_MAX_RECIPIENTS];
    size_t recipient_count;
    struct secret passphrase;
    bool allow_expired;

    bool read_only, hard, allow_other, no_exec, debug;
    int64_t soft_timeout_ms, connect_timeout_ms, stall_timeout_ms, request_timeout_ms,
        write_timeout_ms;
    uint64_t cache_bytes;
    char *cache_dir;
    char *ca_file; /* NULL: the system's */
    unsigned prefetch;
    uint64_t partition_bytes;
    bool allow_delete;
    uid_t uid;
    gid_t gid;

    unsigned log_targets; /* LOG_TO_... */
    int log_facility;
};

/* SOURCE is what the command line says, NULL or "-" for the environment's. SETTINGS must outlive
 * the config. ERR_INVALID names the setting and says what it should be. */
bool config_make(struct config *c, const struct settings *settings, const char *source,
                 bool foreground, struct err *err);
void config_free(struct config *c);

/* For config.c: sets c->aws and c->region. */
bool config_aws(struct config *c, const struct settings *settings, struct err *err);

/* S3's credentials, not looked for yet. Borrows the config and its settings. */
struct aws_cred *config_make_cred(const struct config *c, struct err *err);

/* Not mounted yet, nothing asked of the network: the store that the configuration names. CRED
 * (NULL for a directory) is borrowed. */
struct store *config_make_store(const struct config *c, const struct settings *s,
                                struct aws_cred *cred, struct err *err);

/* Finds and checks keys; see openpgp_new. */
struct openpgp *config_make_openpgp(const struct config *c, const struct settings *s,
                                    struct err *err);

#endif
