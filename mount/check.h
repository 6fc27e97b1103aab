/* walefs check: looks at an archive without mounting it. */
#ifndef WALEFS_MOUNT_CHECK_H
#define WALEFS_MOUNT_CHECK_H

/* The command, with its own arguments (ARGV[0] is "check"). Returns the exit status, as monitoring
 * plugins have it: 0 all well, 1 warnings, 2 failures, 3 something could not be found out. */
int check_main(int argc, char **argv);

#endif
