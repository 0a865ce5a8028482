/* net_services.h: what a network has beside its bridge: packet filter, DHCP and DNS, forwarding. */
#pragma once
#include "vmm/net_state.h"

/* The nftables table "inet vmm-NAME", whole or not at all; replaced if it is there. */
int  net_filter_start(const struct network *, struct err *) must_check;
/* -ENOPKG: there is no nft, and a table that there was is still there. */
int  net_filter_stop(const struct network *, struct err *) must_check;
/* The text of it; tests look at it.  False: no room. */
bool net_filter_text(const struct network *, char *text, size_t room);
/* Say it, once a network is made, if another table drops what would be forwarded. */
void net_filter_warn(const struct network *);

/* dnsmasq, unless it runs already. */
int  net_names_start(struct net_state *, const struct network *, struct err *) must_check;
/* Waits for its end; 0 also if none runs. */
int  net_names_stop(struct net_state *, const struct network *, struct err *) must_check;

struct net_lease { u64 expires_s; u8 mac[6]; char address[46], host[64]; };
/* Of the lease file; free it. */
int  net_names_leases(struct net_state *, const struct network *, struct net_lease **,
		      unsigned *nr, struct err *) must_check;

/* A number of /proc/sys/net. -ENOENT: there is none, as without IPv6. */
int  net_switch_get(const char *path, struct err *) must_check;
int  net_switch_set(const char *path, int value, struct err *) must_check;
/* The host forwards; remembered, if it did not. */
int  net_forward_start(struct net_state *, const char *mark, const char *path,
		       struct err *) must_check;
/* As it was before, where vmm changed it.  leave_on: somebody else needs it by now. */
void net_forward_stop(struct net_state *, const char *mark, const char *path, bool leave_on);
