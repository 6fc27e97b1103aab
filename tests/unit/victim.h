/* Processes that end in some way when they are told, and stay zombies until they are reaped. */
#ifndef WALEFS_TESTS_VICTIM_H
#define WALEFS_TESTS_VICTIM_H

#include <sys/types.h>

struct victim {
    pid_t pid;
    int go; /* closing it ends the process */
};

enum { END_WELL, END_ERROR, END_KILLED };

struct victim victim_start(int how);
void victim_end(struct victim *v);
void victim_reap(struct victim *v);

#endif
