/* What --help prints. */
#ifndef WALEFS_MOUNT_HELP_H
#define WALEFS_MOUNT_HELP_H

#define HELP_USAGE "walefs [-f] [-o OPTION,...] [SOURCE] MOUNTPOINT"

void help_print(void);

#endif
