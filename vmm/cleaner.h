/* cleaner.h: a process that removes what the VM's own, in its sandbox, cannot when it ends. */
#pragma once
#include <sys/types.h>
#include "vmm/core/err.h"

struct cleaner {
	pid_t pid;
	int fd;				/* -1: there is none */
};

/*
 * clean is run in a process of the name, at most 15 characters, which is as this one is
 * now but for open files: by cleaner_finish, or when this one has ended, in whatever
 * way.  Before there are threads.
 */
int cleaner_start(struct cleaner *, const char *name, void (*clean)(void *arg), void *arg,
		  struct err *) must_check;
/* Until it is done; if there is none, nothing. */
void cleaner_finish(struct cleaner *);
