/* net_show.c: 'vmm net list' and 'show': networks, and what is on them. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "vmm/commands.h"
#include "vmm/core/log.h"
#include "vmm/net.h"
#include "vmm/net_services.h"

/* --- looking ----------------------------------------------------------------------------------- */

/* Who may change networks also tidies up, and sees the VMs' names. */
static int look(struct net_host *h, struct err *err)
{
	int rc;

	if (network_may_change())
		return net_host_open(h, err);
	pthread_sigmask(SIG_BLOCK, NULL, &h->signals);
	rc = net_state_open(&h->state, false, err);
	if (rc)
		return rc;
	rc = netlink_open(&h->nl, err);
	if (rc)
		net_state_close(h->state);
	return rc;
}

struct port {
	char name[IFNAMSIZ], vm[NETWORK_VM_LEN + 1];
	int index, pid;			/* pid 0: not a VM's, as far as can be seen */
};

struct view {
	struct net_host *host;
	struct network network;
	bool is_ours;			/* else a bridge that somebody else made */
	struct link bridge;
	struct net_users users;
	struct port *port;
	struct neighbour *mac, *address;
	struct net_lease *lease;
	unsigned nr_ports, nr_macs, nr_addresses, nr_leases;
	bool failed;			/* no memory */
};

/* The table with room for one more, at *nr. */
static void *grow(struct view *v, void *table, unsigned nr, size_t size)
{
	void *more = reallocarray(table, nr + 1, size);

	v->failed |= !more;
	return more;
}

/* A tap of vmm is named by its process. */
static void name_port(const struct view *v, struct port *p)
{
	char path[32];
	int pid;
	FILE *f;

	for (unsigned i = 0; i < v->users.nr; i++)
		if (!strcmp(v->users.user[i].tap, p->name)) {
			p->pid = v->users.user[i].pid;
			memcpy(p->vm, v->users.user[i].vm, sizeof(p->vm));
			return;
		}
	if (sscanf(p->name, "vmm%d-", &pid) != 1 || pid <= 0)
		return;
	p->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%15s", p->vm) != 1)
		*p->vm = 0;
	mask_controls(p->vm);
	if (f)
		fclose(f);
}

static void see_link(const struct link *l, void *arg)
{
	struct view *v = arg;
	struct port *more;

	if (!l)
		v->nr_ports = 0;
	if (!l || l->master != v->bridge.index)
		return;
	more = grow(v, v->port, v->nr_ports, sizeof(*more));
	if (!more)
		return;
	v->port = more;
	more += v->nr_ports++;
	*more = (struct port){ .index = l->index };
	memcpy(more->name, l->name, sizeof(more->name));
	name_port(v, more);
}

static void see_mac(const struct neighbour *n, void *arg)
{
	struct view *v = arg;
	struct neighbour *more;

	if (!n)
		v->nr_macs = 0;
	if (!n || n->bridge != v->bridge.index || n->is_own || !n->has_mac)
		return;
	more = grow(v, v->mac, v->nr_macs, sizeof(*more));
	if (!more)
		return;
	v->mac = more;
	more[v->nr_macs++] = *n;
}

static void see_address(const struct neighbour *n, void *arg)
{
	struct view *v = arg;
	struct neighbour *more;

	/* Two tables come one after the other: what has come stays, but for what is twice. */
	if (!n || n->link != v->bridge.index || !n->has_mac || n->is_own)
		return;
	for (unsigned i = 0; i < v->nr_addresses; i++)
		if (!memcmp(&v->address[i].at, &n->at, sizeof(n->at)))
			return;
	more = grow(v, v->address, v->nr_addresses, sizeof(*more));
	if (!more)
		return;
	v->address = more;
	more[v->nr_addresses++] = *n;
}

static void view_close(struct view *v)
{
	free(v->users.user);
	free(v->port);
	free(v->mac);
	free(v->address);
	free(v->lease);
}

/* network is filled in, or bridge of one that is not ours. */
static int see(struct view *v, struct err *err)
{
	int rc = 0;

	if (v->is_ours) {
		rc = link_find(v->host->nl, 0, v->network.bridge, &v->bridge);
		if (rc)
			return err_set(err, rc, "network %s: its bridge %s: %s; the next VM on it, or "
				       "deleting it, mends that", v->network.name,
				       v->network.bridge, strerror(-rc));
		if (network_may_change())
			rc = net_host_users(v->host, &v->network, &v->users, err);
		if (!rc)
			rc = net_names_leases(v->host->state, &v->network, &v->lease, &v->nr_leases,
					      err);
		if (rc)
			return rc;
	}
	rc = link_each(v->host->nl, see_link, v);
	if (!rc)
		rc = link_each_neighbour(v->host->nl, AF_BRIDGE, see_mac, v);
	if (!rc)
		rc = link_each_neighbour(v->host->nl, AF_INET, see_address, v);
	if (!rc)
		rc = link_each_neighbour(v->host->nl, AF_INET6, see_address, v);
	if (!rc && v->failed)
		rc = -ENOMEM;
	return rc ? err_set(err, rc, "the bridge %s: %s", v->bridge.name, strerror(-rc)) : 0;
}

/* --- list ------------------------------------------------------------------------------------------ */

static json_t *network_json(const struct network *n)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i, s:b, s:b}", "network", n->name,
			 "type", network_types[n->type], "bridge", n->bridge, "subnet",
			 n->subnet.len ? subnet_text(&n->subnet).text : "", "address",
			 n->subnet.len ? subnet_address(&n->subnet, 1).text : "", "prefix6",
			 n->prefix6, "routes6", n->routes6, "mtu", (int)n->mtu, "vlan-filtering",
			 n->vlan_filtering, "kept", n->is_kept);
}

static int list_one(struct net_host *h, const char *name, json_t *list, struct err *err)
{
	struct view v = { .host = h, .is_ours = true };
	const struct network *n = &v.network;
	int rc = net_state_load(h->state, name, &v.network, err);
	json_t *o;

	/* It has gone since its name was read. */
	if (rc == -ENOENT)
		return 0;
	if (!rc)
		rc = see(&v, err);
	if (!rc && list) {
		o = network_json(n);
		json_object_set_new(o, "ports", json_integer(v.nr_ports));
		json_array_append_new(list, o);
	} else if (!rc) {
		printf("%-12s %-9s %-16s %-19s %5u %5u  %s\n", n->name, network_types[n->type],
		       n->bridge, n->subnet.len ? subnet_text(&n->subnet).text : "-", n->mtu,
		       v.nr_ports, n->is_kept ? "deleted" : "its last VM ends");
	}
	view_close(&v);
	return rc;
}

int net_list(const struct subcommand_args *a)
{
	json_t *list = a->value[NET_JSON] ? json_array() : NULL;
	int status = EXIT_OK;
	struct net_host h;
	struct err err;
	char **names;
	unsigned nr;

	if (look(&h, &err))
		return net_failed(&err);
	if (net_state_names(h.state, &names, &nr, &err)) {
		net_host_close(&h);
		return net_failed(&err);
	}
	if (!list)
		printf("%-12s %-9s %-16s %-19s %5s %5s  %s\n", "NETWORK", "TYPE", "BRIDGE", "SUBNET",
		       "MTU", "PORTS", "UNTIL");
	for (unsigned i = 0; i < nr; i++) {
		/* One that cannot be shown does not hide the others. */
		if (list_one(&h, names[i], list, &err))
			status = net_failed(&err);
		free(names[i]);
	}
	free(names);
	net_host_close(&h);
	if (list)
		subcommand_print_json(list);
	return status;
}

/* --- show ------------------------------------------------------------------------------------------- */

static const struct port *port_of(const struct view *v, int index)
{
	for (unsigned i = 0; i < v->nr_ports; i++)
		if (v->port[i].index == index)
			return &v->port[i];
	return NULL;
}

/* The IP addresses behind a MAC address: leased, or heard of. */
static json_t *addresses_of(const struct view *v, const u8 mac[6])
{
	json_t *list = json_array();
	char text[INET6_ADDRSTRLEN];
	size_t nr;

	for (unsigned i = 0; i < v->nr_leases; i++)
		if (!memcmp(v->lease[i].mac, mac, 6))
			json_array_append_new(list, json_string(v->lease[i].address));
	for (unsigned i = 0; i < v->nr_addresses; i++) {
		const struct prefix *at = &v->address[i].at;

		if (memcmp(v->address[i].mac, mac, 6) ||
		    !inet_ntop(at->family, at->addr, text, sizeof(text)))
			continue;
		for (nr = 0; nr < json_array_size(list); nr++)
			if (!strcmp(json_string_value(json_array_get(list, nr)), text))
				break;
		if (nr == json_array_size(list))
			json_array_append_new(list, json_string(text));
	}
	return list;
}

static json_t *macs_json(const struct view *v)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < v->nr_macs; i++) {
		const struct neighbour *n = &v->mac[i];
		const struct port *p = port_of(v, n->link);

		json_array_append_new(list, json_pack(
			"{s:s, s:s, s:s, s:i, s:i, s:o}", "port", p ? p->name : v->bridge.name, "vm",
			p ? p->vm : "", "mac", network_mac_text(n->mac).text, "vlan", n->vlan, "age",
			n->age_s, "addresses", addresses_of(v, n->mac)));
	}
	return list;
}

static void show_json(const struct view *v)
{
	json_t *root = v->is_ours ? network_json(&v->network) :
		json_pack("{s:s, s:i, s:b}", "bridge", v->bridge.name, "mtu", (int)v->bridge.mtu,
			  "vlan-filtering", v->bridge.vlan_filtering);
	json_t *ports = json_array(), *leases = json_array();

	for (unsigned i = 0; i < v->nr_ports; i++)
		json_array_append_new(ports, json_pack("{s:s, s:s, s:i}", "port", v->port[i].name, "vm",
						       v->port[i].vm, "pid", v->port[i].pid));
	for (unsigned i = 0; i < v->nr_leases; i++)
		json_array_append_new(leases, json_pack(
			"{s:s, s:s, s:s, s:I}", "address", v->lease[i].address, "mac",
			network_mac_text(v->lease[i].mac).text, "host", v->lease[i].host, "expires",
			(json_int_t)v->lease[i].expires_s));
	json_object_set_new(root, "ports", ports);
	json_object_set_new(root, "macs", macs_json(v));
	json_object_set_new(root, "leases", leases);
	subcommand_print_json(root);
}

static void show_network(const struct view *v)
{
	const struct network *n = &v->network;

	if (!v->is_ours) {
		print_row("bridge", "%s, not of vmm's making", v->bridge.name);
	} else {
		print_row("network", "%s", n->name);
		print_row("type", "%s, until %s", network_types[n->type],
			  n->is_kept ? "it is deleted" : "its last VM ends");
		print_row("bridge", "%s", n->bridge);
	}
	print_row("MTU", "%u", v->bridge.mtu);
	print_row("VLANs", "%s", v->bridge.vlan_filtering ? "kept apart" : "not kept apart");
	if (!v->is_ours || !n->subnet.len)
		return;
	print_row("subnet", "%s, the host is %s", subnet_text(&n->subnet).text,
		  subnet_address(&n->subnet, 1).text);
	if (*n->prefix6)
		print_row("IPv6", "%s/64, %s", n->prefix6,
			  n->routes6 ? "the host is the router" : "no way out");
}

static void show_text(const struct view *v)
{
	show_network(v);
	printf("\n%-15s  %-20s %s\n", "PORT", "VM", "PROCESS");
	for (unsigned i = 0; i < v->nr_ports; i++) {
		printf("%-15s  %-20s ", v->port[i].name, *v->port[i].vm ? v->port[i].vm : "-");
		printf(v->port[i].pid ? "%d\n" : "-\n", v->port[i].pid);
	}
	printf("\n%-15s  %-20s %-17s %4s %6s  %s\n", "PORT", "VM", "MAC", "VLAN", "AGE", "ADDRESSES");
	for (unsigned i = 0; i < v->nr_macs; i++) {
		const struct neighbour *n = &v->mac[i];
		const struct port *p = port_of(v, n->link);
		json_t *list = addresses_of(v, n->mac), *one;
		char vlan[8] = "-";
		size_t k;

		if (n->vlan)
			snprintf(vlan, sizeof(vlan), "%u", n->vlan);
		printf("%-15s  %-20s %-17s %4s %5us ", p ? p->name : v->bridge.name,
		       p && *p->vm ? p->vm : "-", network_mac_text(n->mac).text, vlan, n->age_s);
		json_array_foreach(list, k, one)
			printf(" %s", json_string_value(one));
		putchar('\n');
		json_decref(list);
	}
	if (!v->nr_leases)
		return;
	printf("\n%-15s  %-20s %-17s %s\n", "LEASE", "HOST", "MAC", "LEFT");
	for (unsigned i = 0; i < v->nr_leases; i++)
		printf("%-15s  %-20s %-17s %" PRId64 "s\n", v->lease[i].address, v->lease[i].host,
		       network_mac_text(v->lease[i].mac).text,
		       (int64_t)v->lease[i].expires_s - (int64_t)time(NULL));
}

/* A network's name, or a bridge's. */
static int find(struct view *v, const char *name, struct err *err)
{
	const char *network = network_of_bridge(name);
	int rc = network_check_name(name, NULL) ? -ENOENT :
		 net_state_load(v->host->state, name, &v->network, err);

	if (rc == -ENOENT && network)
		rc = net_state_load(v->host->state, network, &v->network, err);
	v->is_ours = !rc;
	if (rc != -ENOENT)
		return rc;
	if (link_name_valid(name) && !link_find(v->host->nl, 0, name, &v->bridge) &&
	    v->bridge.is_bridge)
		return 0;
	return err_set(err, rc, "there is no network and no bridge '%s'; 'vmm net list' shows the "
		       "networks", name);
}

int net_show(const struct subcommand_args *a)
{
	struct net_host h;
	struct view v = { .host = &h };
	struct err err;
	int rc;

	if (look(&h, &err))
		return net_failed(&err);
	rc = find(&v, a->word[0], &err);
	if (!rc)
		rc = see(&v, &err);
	net_host_close(&h);
	if (!rc && a->value[NET_JSON])
		show_json(&v);
	else if (!rc)
		show_text(&v);
	view_close(&v);
	return rc ? net_failed(&err) : EXIT_OK;
}
