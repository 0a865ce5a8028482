/* sandbox.h: what the process of a VM can still do once its guest runs. */
#pragma once
#include <sys/types.h>
#include "vmm/config.h"

/*
 * On the control thread, with all files open and before any other thread: from here
 * on no program is executed, no privilege gained, no core dumped, and each thread
 * makes the system calls in sandbox_rules.c only.  One that makes another ends the
 * process with a line in the log; with SANDBOX_LOG it is in the kernel's log, and goes
 * on.  has_api: the control thread may be told of files that are not known yet.
 * child: the processes that this one has made and ends itself; 0: none.
 * failed(arg): from a new thread that could not enter, which has said so in the log; the
 * guest must not run.  Once: further calls, at a reboot, do nothing.
 */
int sandbox_enter(const struct config *, bool has_api, const pid_t child[CONFIG_MAX_NETS],
		  void (*failed)(void *arg), void *arg, struct err *) must_check;
/* Can this kernel filter system calls? */
bool sandbox_has_filters(void);
bool sandbox_is_entered(void);
bool sandbox_has_user_net(void);	/* entered, and it lets libslirp work */
