/* jail.h: limits, and another user, directory and network, before anything of a VM is opened. */
#pragma once
#include "vmm/config.h"

/*
 * With --chroot, of whoever started us: close what was left open, but for the standard files and the cards of --net fd=N,
 * as by a directory's descriptor there would be a way out; and wipe the environment, tokens perhaps, but for
 * VMM_RUNTIME_DIR.
 */
void jail_forget_starter(const struct config *);
void jail_forget_environment(void);
/*
 * What --netns, --chroot, --uid, --gid and the options of cgroup.h say.  Below
 * the directory /dev/kvm, /dev/net/tun, /dev/urandom, /dev/userfaultfd where the host has it,
 * and, for vhost=, /dev/vhost-net are made, which the user may open, and /run, which is the
 * user's; every path is one in there from now on.  What is mounted on one of these is refused: it is not the jail's.
 * All of it takes root.  After a failure the process is good for nothing but to say why.
 */
int jail_enter(const struct config *, struct err *) must_check;
/* Of that the user, and the group, alone: of who has more to do in there first, and calls that without has_uid. */
int jail_become(const struct config *, struct err *) must_check;
/* Say that it takes root, if that is what such a code means; returns it. */
int jail_refused(int code, struct err *);
