/* link.h: interfaces of the host: bridges, their ports, addresses, what they learned. */
#pragma once
#include <net/if.h>
#include "devices/net/netlink.h"
#include "devices/net/vlan.h"

struct link {
	int index, master;		/* master 0: none */
	char name[IFNAMSIZ];
	u32 mtu;
	u8 mac[6];
	bool up, is_bridge, vlan_filtering;
	u16 default_pvid;		/* of a bridge: what a new port gets; 0: none */
	unsigned queues;		/* of a tap made for several: that programs have, in use or not */
};

/* Could an interface have this name? */
bool link_name_valid(const char *name);

/* -ENODEV if there is none.  index 0: by name. */
int  link_find(struct netlink *, int index, const char *name, struct link *) must_check;
/* fn(NULL): begins, maybe anew. */
int  link_each(struct netlink *, void (*fn)(const struct link *, void *), void *arg) must_check;
int  link_delete(struct netlink *, int index) must_check;

/* Down, without STP, of 1500 bytes: an MTU from its making would go with its first port. */
int  link_new_bridge(struct netlink *, const struct link *what) must_check;
int  link_filter_vlans(struct netlink *, int bridge) must_check;
/* Each 0: leave it. */
struct link_change { u32 mtu; int master; const u8 *mac; bool up; };
int  link_change(struct netlink *, int index, const struct link_change *) must_check;
/* A port's VLANs: pvid, which it had from the bridge, is replaced; 0: it had none. */
int  link_join_vlans(struct netlink *, int port, const struct vlans *, u16 pvid) must_check;
/* No IPv6 address by itself: what a port or a bare bridge is to have. */
void link_no_address(struct netlink *, int index);

/* Of family AF_INET or AF_INET6, in network order. */
struct prefix { int family; unsigned len; u8 addr[16]; };
int  link_add_address(struct netlink *, int index, const struct prefix *) must_check;

struct route {
	struct prefix to;
	int link;			/* 0: none, or several */
	u8 protocol;			/* RTPROT_* */
};
/* Of all tables; fn(NULL): begins, maybe anew. */
int  link_each_route(struct netlink *, int family, void (*fn)(const struct route *, void *),
		     void *arg) must_check;

struct neighbour {
	int link;			/* the port; of AF_INET*: the interface */
	int bridge;			/* AF_BRIDGE: whose table */
	u8 mac[6];
	bool has_mac, is_own;		/* is_own: the host's, not learned */
	u16 vlan;			/* 0: none */
	unsigned age_s;			/* since it was last heard */
	struct prefix at;		/* AF_INET* */
};
/* AF_BRIDGE: what bridges learned; AF_INET*: ARP's and NDP's tables. */
int  link_each_neighbour(struct netlink *, int family,
			 void (*fn)(const struct neighbour *, void *), void *arg) must_check;
