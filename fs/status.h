/* The directory status/: small text files, made when they are opened. Like those of /proc they show
 * a size of 0 until then.
 *
 * What a file tells of the archive is asked for in the background (survey.h), and waited for with
 * little patience: when the store does not answer, or needs longer, the file says so, and shows
 * what was known last and how old that is. */
#ifndef WALEFS_FS_STATUS_H
#define WALEFS_FS_STATUS_H

#include "fs/node.h"

struct status;

struct status *status_new(struct fs *fs, struct err *err);
void status_stop(struct status *s); /* cancels what is being asked; NULL is allowed */
void status_free(struct status *s); /* after pool_free; NULL is allowed */

extern const struct node_template status_dir_template;

#endif
