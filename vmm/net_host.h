/* net_host.h: makes, mends and removes networks on this host. */
#pragma once
#include <signal.h>
#include "vmm/net_state.h"

/* While it is open, this process alone changes the host's networks, and no signal ends it. */
struct net_host {
	struct net_state *state;
	struct netlink *nl;
	sigset_t signals;		/* the caller's mask */
};

/* Also removes what VMs that died left behind. */
int  net_host_open(struct net_host *, struct err *) must_check;
void net_host_close(struct net_host *);

/*
 * Make the network, or nothing: name, type and mtu must be set, bridge is; a
 * subnet of length 0 is chosen, and set.
 */
int  net_host_make(struct net_host *, struct network *, struct err *) must_check;
/* See that all of it is there: somebody may have removed a part. */
int  net_host_mend(struct net_host *, const struct network *, struct err *) must_check;
/* All of it, or what is there of it.  -ENOPKG: but for its packet filter. */
int  net_host_remove(struct net_host *, const struct network *, struct err *) must_check;

/* A network is in use by VMs that have a lock, and by ports that somebody else made. */
struct net_users {
	struct network_user *user;
	unsigned nr;
	char port[IFNAMSIZ];		/* one that no user here has; "": there is none */
};
int  net_host_users(struct net_host *, const struct network *, struct net_users *,
		    struct err *) must_check;
/* Remove those networks that are not kept and that nobody uses. */
void net_host_tidy(struct net_host *);
