/* net_host.c: networks on the host: a bridge, its addresses, and what serves them. */
#include "vmm/net_host.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "vmm/core/log.h"
#include "vmm/net_services.h"

#define FORWARD4	"ipv4/ip_forward"
#define FORWARD6	"ipv6/conf/all/forwarding"

/* --- what is chosen ---------------------------------------------------------------------------- */

static int choose_subnet(struct net_host *h, struct network *n, struct err *err)
{
	const struct subnet *given = n->subnet.len ? &n->subnet : NULL;
	struct subnet_list used;
	int rc = subnets_in_use(h->nl, given, &used, err);

	if (rc)
		return rc;
	if (!given)
		rc = subnet_choose(n->name, &used, &n->subnet, err);
	else if (used.nr)
		rc = err_set(err, -EADDRINUSE, "subnet %s overlaps %s, which this host has an address in "
			     "or a route to; 'ip route' shows them", subnet_text(given).text,
			     subnet_text(&used.at[0]).text);
	subnets_free(&used);
	return rc;
}

struct way_out {
	struct net_host *host;
	bool is_there;
};

/*
 * A host that forwards IPv6 no longer listens to routers itself (accept_ra 1):
 * one that has its own way out from them must not be made to.
 */
static void find_way_out(const struct route *r, void *arg)
{
	struct way_out *w = arg;
	char name[IF_NAMESIZE], path[64];

	if (!r) {
		w->is_there = false;
		return;
	}
	if (r->to.len || r->protocol == RTPROT_KERNEL || !r->link || !if_indextoname(r->link, name))
		return;
	snprintf(path, sizeof(path), "ipv6/conf/%s/accept_ra", name);
	if (r->protocol != RTPROT_RA || net_switch_get(path, NULL) != 1)
		w->is_there = true;
}

/* RFC 4193: fd, and 40 random bits. */
static void choose_prefix6(struct net_host *h, struct network *n)
{
	struct way_out w = { .host = h };
	u8 bytes[16] = { 0xfd };

	if (net_switch_get("ipv6/conf/default/disable_ipv6", NULL) ||
	    getrandom(bytes + 1, 5, 0) != 5)
		return;
	inet_ntop(AF_INET6, bytes, n->prefix6, sizeof(n->prefix6));
	if (n->type != NETWORK_NAT)
		return;
	n->routes6 = net_switch_get(FORWARD6, NULL) > 0 ||
		     (!link_each_route(h->nl, AF_INET6, find_way_out, &w) && w.is_there);
}

/* --- the bridge ---------------------------------------------------------------------------------- */

/*
 * The same for the same name.  Guests know their gateway again by it, and vmm its
 * own bridges, from the instant that they are there.
 */
static void derive_mac(const char *bridge, u8 mac[6])
{
	u64 hash = 0xcbf29ce484222325;		/* FNV-1a */

	for (const char *s = bridge; *s; s++)
		hash = (hash ^ (u8)*s) * 0x100000001b3;
	mac[0] = 0x06;
	for (int i = 1; i < 6; i++)
		mac[i] = hash >> 8 * i;
}

static bool is_ours(const struct link *l)
{
	u8 mac[6];

	derive_mac(l->name, mac);
	return l->is_bridge && !strncmp(l->name, "vmm-", 4) && !memcmp(l->mac, mac, sizeof(mac));
}

static int set_switch(const struct network *n, const char *family, const char *name, int value,
		      struct err *err)
{
	char path[96];
	int rc;

	snprintf(path, sizeof(path), "%s/conf/%s/%s", family, n->bridge, name);
	rc = net_switch_set(path, value, err);
	return rc == -ENOENT ? 0 : rc;
}

/* Guests are not to tell the host where its routes go, nor to speak in others' names. */
static int set_switches(const struct network *n, struct err *err)
{
	int rc;

	if (n->type == NETWORK_BRIDGE)
		return set_switch(n, "ipv6", "disable_ipv6", 1, err);
	rc = set_switch(n, "ipv6", "accept_ra", 0, err);
	if (!rc)
		rc = set_switch(n, "ipv6", "accept_redirects", 0, err);
	if (!rc)
		rc = set_switch(n, "ipv4", "accept_redirects", 0, err);
	return rc ? rc : set_switch(n, "ipv4", "rp_filter", 1, err);
}

static int add_addresses(struct net_host *h, const struct network *n, int index)
{
	struct prefix four = { AF_INET, n->subnet.len, { 0 } }, six = { AF_INET6, 64, { 0 } };
	u32 first = htonl(n->subnet.addr + 1);
	int rc = 0;

	if (!n->subnet.len)
		return 0;
	memcpy(four.addr, &first, 4);
	if (*n->prefix6) {
		inet_pton(AF_INET6, n->prefix6, six.addr);
		six.addr[15] = 1;
		rc = link_add_address(h->nl, index, &six);
	}
	return rc ? rc : link_add_address(h->nl, index, &four);
}

static int make_bridge(struct net_host *h, const struct network *n, struct err *err)
{
	struct link_change up = { .mtu = n->mtu, .up = true };
	struct link l = { .vlan_filtering = n->vlan_filtering };
	int rc;

	memcpy(l.name, n->bridge, sizeof(l.name));
	derive_mac(n->bridge, l.mac);
	rc = link_new_bridge(h->nl, &l);
	if (rc == -EOPNOTSUPP)
		return err_set(err, rc, "this kernel cannot make a bridge%s", n->vlan_filtering ?
			       " that keeps VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING)" : "; load the "
			       "module with 'modprobe bridge'");
	if (!rc)
		rc = link_find(h->nl, 0, n->bridge, &l);
	if (!rc && set_switches(n, err))
		return err->code;
	if (!rc)
		rc = add_addresses(h, n, l.index);
	if (!rc)
		rc = link_change(h->nl, l.index, &up);
	return rc ? err_set(err, rc, "the bridge %s: %s", n->bridge, strerror(-rc)) : 0;
}

/* -ENODEV without a message: there is none.  -EEXIST: it is not this network's. */
static int find_bridge(struct net_host *h, const struct network *n, struct link *l, struct err *err)
{
	int rc = link_find(h->nl, 0, n->bridge, l);

	if (rc == -ENODEV)
		return rc;
	if (rc)
		return err_set(err, rc, "the bridge %s: %s", n->bridge, strerror(-rc));
	if (!is_ours(l))
		return err_set(err, -EEXIST, "there is an interface %s that vmm did not make; remove it "
			       "with 'ip link del %s', or take another name", n->bridge, n->bridge);
	return 0;
}

/*
 * Somebody deleted the bridge under VMs that run, and there is another now.  Their VLANs
 * went with their ports: without them they are not to be among others.
 */
static void put_ports_back(struct net_host *h, const struct network *n)
{
	struct link_change join = { .mtu = n->mtu };
	struct network_user *user;
	struct link bridge, tap;
	unsigned nr;

	if (link_find(h->nl, 0, n->bridge, &bridge) ||
	    net_state_users(h->state, n->name, &user, &nr, NULL))
		return;
	join.master = bridge.index;
	for (unsigned i = 0; i < nr; i++) {
		if (n->vlan_filtering)
			log_warn("network %s: %s has lost its bridge, and its VLANs with it; start it "
				 "anew", n->name, network_user_text(&user[i]).text);
		else if (!link_find(h->nl, 0, user[i].tap, &tap) && !tap.master)
			(void)!link_change(h->nl, tap.index, &join);
	}
	free(user);
}

/* --- all of it -------------------------------------------------------------------------------------- */

int net_host_mend(struct net_host *h, const struct network *n, struct err *err)
{
	struct link l;
	int rc = find_bridge(h, n, &l, err);

	if (rc == -ENODEV) {
		rc = make_bridge(h, n, err);
		if (!rc)
			put_ports_back(h, n);
	}
	if (rc || n->type == NETWORK_BRIDGE)
		return rc;
	/* Before packets can be forwarded, the filter knows which. */
	rc = net_filter_start(n, err);
	if (!rc && n->type == NETWORK_NAT)
		rc = net_forward_start(h->state, "ipv4", FORWARD4, err);
	if (!rc && n->routes6)
		rc = net_forward_start(h->state, "ipv6", FORWARD6, err);
	return rc ? rc : net_names_start(h->state, n, err);
}

int net_host_make(struct net_host *h, struct network *n, struct err *err)
{
	bool is_kept = n->is_kept;
	struct link l;
	int rc;

	snprintf(n->bridge, sizeof(n->bridge), "vmm-%s", n->name);
	rc = find_bridge(h, n, &l, err);
	/* One of ours without a record: of a runtime directory that is gone. */
	if (!rc)
		rc = net_host_remove(h, n, err);
	if (rc && rc != -ENODEV)
		goto out;
	if (n->type != NETWORK_BRIDGE) {
		rc = choose_subnet(h, n, err);
		if (rc)
			goto out;
		choose_prefix6(h, n);
	}
	/* Not kept until it is whole: whoever comes after our death removes it. */
	n->is_kept = false;
	rc = net_state_save(h->state, n, err);
	if (rc) {
		net_state_remove(h->state, n->name);
		goto out;
	}
	rc = net_host_mend(h, n, err);
	n->is_kept = is_kept;
	if (!rc && is_kept)
		rc = net_state_save(h->state, n, err);
	if (rc)
		(void)!net_host_remove(h, n, NULL);
	else
		net_filter_warn(n);
out:
	return rc ? err_prefix(err, "network %s: ", n->name), rc : 0;
}

/* Other programs' bridges are other programs' networks, which may need it by now. */
static void find_others_bridge(const struct link *l, void *arg)
{
	bool *found = arg;

	*found = l && (*found || (l->is_bridge && !is_ours(l)));
}

/* After the last network that needed it. */
static void stop_forwarding(struct net_host *h)
{
	bool needed = false, needed6 = false, is_others = false;
	struct network n;
	char **names;
	unsigned nr;

	if (!net_state_has_mark(h->state, "ipv4") && !net_state_has_mark(h->state, "ipv6"))
		return;
	if (net_state_names(h->state, &names, &nr, NULL))
		return;
	for (unsigned i = 0; i < nr; i++) {
		int rc = net_state_load(h->state, names[i], &n, NULL);

		/* Of one that cannot be read: it may be. */
		needed |= rc ? rc != -ENOENT : n.type == NETWORK_NAT;
		needed6 |= rc ? rc != -ENOENT : n.routes6;
		free(names[i]);
	}
	free(names);
	(void)!link_each(h->nl, find_others_bridge, &is_others);
	if (!needed)
		net_forward_stop(h->state, "ipv4", FORWARD4, is_others);
	if (!needed6)
		net_forward_stop(h->state, "ipv6", FORWARD6, is_others);
}

/* If there is one, and it is this network's. */
static int remove_bridge(struct net_host *h, const struct network *n, struct err *err)
{
	struct link l;
	int rc = find_bridge(h, n, &l, err);

	if (rc)
		return rc == -ENODEV || rc == -EEXIST ? 0 : rc;
	rc = link_delete(h->nl, l.index);
	return rc ? err_set(err, rc, "the bridge %s: %s", n->bridge, strerror(-rc)) : 0;
}

int net_host_remove(struct net_host *h, const struct network *n, struct err *err)
{
	struct network doomed = *n;
	int rc = 0;

	/* Whoever comes after our death goes on with it; on a full disk nobody does. */
	doomed.is_kept = false;
	if (n->is_kept)
		(void)!net_state_save(h->state, &doomed, NULL);
	if (n->type != NETWORK_BRIDGE)
		rc = net_names_stop(h->state, n, err);
	if (!rc)
		rc = remove_bridge(h, n, err);
	if (!rc && n->type != NETWORK_BRIDGE)
		rc = net_filter_stop(n, err);
	if (rc && rc != -ENOPKG)
		return rc;
	net_state_remove(h->state, n->name);
	stop_forwarding(h);
	return rc;
}

/* --- who uses it -------------------------------------------------------------------------------------- */

struct port_search {
	struct net_users *users;
	int bridge;
};

static void find_port(const struct link *l, void *arg)
{
	struct port_search *s = arg;

	if (!l) {
		*s->users->port = 0;
		return;
	}
	if (l->master != s->bridge)
		return;
	for (unsigned i = 0; i < s->users->nr; i++)
		if (!strcmp(s->users->user[i].tap, l->name))
			return;
	memcpy(s->users->port, l->name, sizeof(l->name));
}

int net_host_users(struct net_host *h, const struct network *n, struct net_users *u, struct err *err)
{
	struct port_search s = { .users = u };
	struct link l;
	int rc;

	*u = (struct net_users){ 0 };
	rc = net_state_users(h->state, n->name, &u->user, &u->nr, err);
	if (rc || find_bridge(h, n, &l, NULL))
		return rc;
	s.bridge = l.index;
	rc = link_each(h->nl, find_port, &s);
	if (rc) {
		free(u->user);
		u->user = NULL;
		err_set(err, rc, "the ports of %s: %s", n->bridge, strerror(-rc));
	}
	return rc;
}

static void tidy_one(struct net_host *h, const char *name)
{
	struct net_users u;
	struct network n;
	struct err err;
	int rc = net_state_load(h->state, name, &n, &err);

	/* Killed before it was recorded, or after its record went. */
	if (rc == -ENOENT) {
		net_state_remove(h->state, name);
		return;
	}
	if (!rc)
		rc = net_host_users(h, &n, &u, &err);
	if (!rc) {
		if (!u.nr && !*u.port && !n.is_kept)
			rc = net_host_remove(h, &n, &err);
		free(u.user);
	}
	/* Of a damaged record hears who asks for it. */
	if (rc && rc != -EUCLEAN)
		log_warn("network %s: %s", name, err.msg);
}

void net_host_tidy(struct net_host *h)
{
	struct err err;
	char **names;
	unsigned nr;

	if (net_state_names(h->state, &names, &nr, &err)) {
		log_debug("networks: %s", err.msg);	/* what was asked for says so itself */
		return;
	}
	for (unsigned i = 0; i < nr; i++) {
		tidy_one(h, names[i]);
		free(names[i]);
	}
	free(names);
	stop_forwarding(h);
}

int net_host_open(struct net_host *h, struct err *err)
{
	sigset_t all;
	int rc = net_state_open(&h->state, true, err);

	if (rc)
		return rc;
	rc = netlink_open(&h->nl, err);
	if (rc) {
		net_state_close(h->state);
		return rc;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &h->signals);
	net_host_tidy(h);
	return 0;
}

void net_host_close(struct net_host *h)
{
	netlink_close(h->nl);
	net_state_close(h->state);
	pthread_sigmask(SIG_SETMASK, &h->signals, NULL);
}
