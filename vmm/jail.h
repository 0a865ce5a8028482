/* jail.h: limits, and another user, directory and network, before anything of a VM is opened. */
#pragma once
#include "vmm/config.h"

/*
 * With --chroot: close what whoever started us left open, but for the standard files and the cards of --net fd=N.  By a
 * directory's descriptor there would be a way out.
 */
void jail_close_files(const struct config *);
/*
 * What --netns, --chroot, --uid, --gid and the options of cgroup.h say.  Below
 * the directory /dev/kvm, /dev/net/tun, /dev/urandom, /dev/userfaultfd where the host has it,
 * and, for vhost=, /dev/vhost-net are made, which the user may open, and /run, which is the
 * user's; every path is one in there from now on.
 * All of it takes root.  After a failure the process is good for nothing but to say why.
 */
int jail_enter(const struct config *, struct err *) must_check;
/* Of that the user, and the group, alone: of who has more to do in there first, and calls that without has_uid. */
int jail_become(const struct config *, struct err *) must_check;
/* Say that it takes root, if that is what such a code means; returns it. */
int jail_refused(int code, struct err *);
