/* vm.h: one VM from its configuration to its exit status, over reboots, and what the API can do to it. */
#pragma once
#include "vmm/api/api.h"
#include "vmm/config.h"

struct vm_options {
	struct api_options api;
	/* What is asked of the API before any client; NULL: nothing. */
	int (*prepare)(struct api *, void *arg, struct err *);
	void *arg;
	bool named;		/* 'vmm ps' and its kin find it by its name */
	struct snapshot *from;	/* what it goes on from, ours from now on; NULL: it boots */
	/* Above 0: a byte is written there when it runs, and standard error, if that is a pipe
	 * or a socket, becomes what standard output is. */
	int ready;
};

/*
 * The calling thread is the control thread.  With a kernel it starts at once, else
 * when the API says so.  The exit status; a failure is in err, too.
 */
int vm_run(struct config *, const struct vm_options *, struct err *);
