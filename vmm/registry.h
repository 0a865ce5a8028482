/* registry.h: the VMs that run under a name, for all commands to find. */
#pragma once
#include <limits.h>
#include <sys/types.h>
#include "vmm/core/err.h"

/*
 * A directory each, DIR/NAME, where DIR is runtime_dir's part vm.  In it are pid, a
 * locked pid file, and api.sock.  What a killed VM left is removed by the next look.
 */
struct registry {
	char dir[PATH_MAX];		/* DIR/NAME */
	int fd;				/* of the pid file; -1: not entered */
};

/* -EBUSY: a VM of that name runs; else it could not be written down, which harms nobody. */
int  registry_enter(struct registry *, const char *name, struct err *) must_check;
void registry_leave(struct registry *);		/* idempotent */
/* Where its socket is, or is to be; one elsewhere is linked to. */
void registry_socket(const struct registry *, char path[PATH_MAX]);
void registry_link_socket(const struct registry *, const char *path);

struct registered {
	char name[NAME_MAX + 1];
	pid_t pid;
	char socket[PATH_MAX];
};
/* All that run, by name, from malloc. */
int  registry_list(struct registered **, unsigned *nr, struct err *) must_check;
/* -ENOENT with a message: no VM of that name runs. */
int  registry_find(struct registered *, const char *name, struct err *) must_check;
