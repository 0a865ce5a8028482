/* sandbox_rules.h: which thread may make which system call, and why. */
#pragma once
#include "vmm/config.h"
#include "vmm/core/bpf.h"
#include "vmm/core/thread.h"

/* What this VM has that others may not have. */
enum sandbox_needs {
	NEEDS_API = 1 << 0,
	NEEDS_USER_NET = 1 << 1,		/* libslirp, on an I/O thread that is no disk's */
	NEEDS_PASST = 1 << 2,
	NEEDS_HOST_NET = 1 << 3,		/* a network of this host that vmm may remove */
	NEEDS_VHOST = 1 << 4,
	NEEDS_VSOCK = 1 << 5,
	NEEDS_LOG = 1 << 6,			/* to be told of nothing that sandbox.c does in a call's place */
};

struct sandbox_rule {
	struct bpf_rule bpf;
	const char *name;			/* of the call */
	u8 threads;				/* a bit for each enum thread_kind */
	u8 needs;				/* one of these at least; 0: every VM */
	const char *why;
};

extern const struct sandbox_rule sandbox_rules[];
extern const unsigned sandbox_nr_rules;
/* To be set before any is used: signals go to this process alone. */
extern u32 sandbox_own_pid;
/* Likewise: of its children those that it ends itself; in the place of one that is not there, its own. */
extern u32 sandbox_child[CONFIG_MAX_NETS];

/*
 * The rows for one kind of thread, in the order of their calls' numbers.  The control thread has those of all: a thread
 * cannot do what the one that made it cannot.  How many; -E2BIG if there is no room.
 */
int sandbox_select(enum thread_kind, unsigned needs, struct bpf_rule *, unsigned room) must_check;
/* Of a call that some thread may make, or that one is worth a name for; NULL: of none. */
const char *sandbox_call_name(unsigned nr);
