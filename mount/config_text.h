/* The configuration in words, for status/. */
#ifndef WALEFS_MOUNT_CONFIG_TEXT_H
#define WALEFS_MOUNT_CONFIG_TEXT_H

#include "mount/config.h"

/* One line a setting: name, value in effect, origin (option, envdir, credential, environment,
 * default), with tabs between. Of a secret only whether it is set. The caller frees it. */
char *config_text(const struct config *c, const struct settings *s, struct err *err);

/* As whom the store is asked, without what could be used to do so. ID_END: of the access key id in
 * use, or "" (aws_cred_id_end). The caller frees it. */
char *config_identity(const struct config *c, const struct settings *s, const char *id_end,
                      struct err *err);

/* The keys that new objects are encrypted to; "" for none. The caller frees it. */
char *config_keys(const struct config *c, struct err *err);

#endif
