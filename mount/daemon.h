/* Going into the background, so that the parent exits only when it is known how the start went. */
#ifndef WALEFS_MOUNT_DAEMON_H
#define WALEFS_MOUNT_DAEMON_H

#include "core/err.h"

/* Forks. In the child returns a descriptor for daemon_report. In the parent it does not return: it
 * waits for the report and then for MOUNTPOINT to answer, and exits with 0; or it prints an error's
 * text and exits with FAILURE_STATUS. -1 with ERR when it cannot fork. Call before any thread is
 * started. */
int daemon_fork(const char *mountpoint, int failure_status, struct err *err);

/* The child's word: FAILURE is NULL when the start went well. With success, standard input and
 * outputs, the directory and the session are given up: not before, since an automounter lets only
 * its own process group pass to the mount point. False when nobody waits for it any more: whoever
 * started us takes that for a failure. Closes FD. */
bool daemon_report(int fd, const char *failure);

#endif
