/* What /proc tells of the processes that use the mount. All of it is about the moment of asking.
 *
 * Not everything shows: nothing of a process in another pid namespace, or of another user's where
 * /proc is mounted with hidepid; and of another user's only that it is there, not its open files
 * and exit status, unless walefs has CAP_SYS_PTRACE (root has). What is not seen is not known to
 * have failed. WAL, which is checked for being whole, is then taken; a dump, of which only its
 * writer can tell whether it is whole, may only be written by a process of which
 * process_is_visible. */
#ifndef WALEFS_FS_PROCESS_H
#define WALEFS_FS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

enum process_state {
    PROCESS_RUNNING,       /* or unknown: not visible at all */
    PROCESS_EXITED_WELL,   /* ending with status 0 */
    PROCESS_FAILED,        /* ending with another status, or killed by a signal */
    PROCESS_EXITED_UNSEEN, /* ending, but its status is not ours to see */
};

/* The process (thread group) that thread TID belongs to; 0 when it cannot be found. */
pid_t process_of_thread(pid_t tid);

/* Are its open files and its exit status ours to see? */
bool process_is_visible(pid_t pid);

/* Is a signal pending for thread TID that will end its process? One that has a handler or is
 * blocked will not. */
bool process_is_dying(pid_t tid);

/* Has the process a descriptor of a file whose path ends in PATH_END? UNSEEN when that is not ours
 * to see. */
bool process_has_open(pid_t pid, const char *path_end, bool unseen);

/* Has any process but PID, of those that are ours to see, a descriptor of such a file? One that PID
 * has left behind as another user (sudo) is not, without CAP_SYS_PTRACE. */
bool process_others_have_open(pid_t pid, const char *path_end);

/* Whether the process is on its way out, and how. Source: proc(5), fields flags and exit_code of
 * /proc/PID/stat; the kernel shows exit_code as 0 to those without ptrace rights. */
enum process_state process_state(pid_t pid);

#endif
