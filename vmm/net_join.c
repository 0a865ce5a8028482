/* net_join.c: a card on a tap, on a bridge, or on a network that vmm makes and removes. */
#include "vmm/net_join.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/net/bridge.h"
#include "vmm/cleaner.h"
#include "vmm/core/log.h"
#include "vmm/machine.h"
#include "vmm/net_host.h"

struct joining {
	const struct config *config;
	unsigned i;
	const char *name;		/* of the network */
	struct network network;
	struct network_user user;
	struct vlans vlans;
	int tap;
};

static bool several(const struct joining *j)
{
	return j->config->net[j->i].queues > 1;
}

static int check_type(const struct joining *j, struct err *err)
{
	enum net_mode mode = j->config->net[j->i].mode;
	enum network_type is = j->network.type;

	if (mode == NET_BRIDGE || is == (mode == NET_NAT ? NETWORK_NAT : NETWORK_HOSTONLY))
		return 0;
	if (is == NETWORK_BRIDGE)
		return err_set(err, -EINVAL, "this network is a bridge; use --net bridge=%s",
			       j->network.bridge);
	return err_set(err, -EINVAL, "this network is %s; use --net %s=%s", network_types[is],
		       network_types[is], j->name);
}

/* --- as one who may ------------------------------------------------------------------------- */

static int check_mac(struct net_host *h, const struct joining *j, struct err *err)
{
	struct net_users u;
	int rc = net_host_users(h, &j->network, &u, err);

	for (unsigned i = 0; !rc && i < u.nr; i++)
		if (!memcmp(u.user[i].mac, j->user.mac, 6))
			rc = err_set(err, -EADDRINUSE, "%s has the address %s there already; give one "
				     "of them another --name, or mac=",
				     network_user_text(&u.user[i]).text,
				     network_mac_text(j->user.mac).text);
	free(u.user);
	return rc;
}

static int load_or_make(struct net_host *h, struct joining *j, struct err *err)
{
	enum net_mode mode = j->config->net[j->i].mode;
	int rc = net_state_load(h->state, j->name, &j->network, err);

	if (rc == -ENOENT && mode != NET_BRIDGE) {
		j->network = (struct network){ .mtu = 1500, .type = mode == NET_NAT ? NETWORK_NAT :
								    NETWORK_HOSTONLY };
		snprintf(j->network.name, sizeof(j->network.name), "%s", j->name);
		return net_host_make(h, &j->network, err);
	}
	if (rc == -ENOENT)
		rc = err_set(err, rc, "it has been removed");
	if (!rc)
		rc = check_type(j, err);
	if (!rc)
		rc = net_host_mend(h, &j->network, err);
	return rc ? err_prefix(err, "network %s: ", j->name), rc : 0;
}

static int take_place(struct net_host *h, struct joining *j, int *user, struct err *err)
{
	struct link bridge;
	int rc = check_mac(h, j, err);

	/* A bridge that vmm made may do what a VM on it asks for. */
	if (!rc && j->vlans.nr && !j->network.vlan_filtering) {
		rc = link_find(h->nl, 0, j->network.bridge, &bridge);
		if (!rc)
			rc = link_filter_vlans(h->nl, bridge.index);
		j->network.vlan_filtering = true;
		rc = rc ? err_set(err, rc, "keeping VLANs apart: %s", strerror(-rc)) :
			  net_state_save(h->state, &j->network, err);
	}
	if (rc)
		return rc;
	j->tap = bridge_new_tap(j->network.bridge, &j->vlans, getpid(), several(j), j->user.tap, err);
	if (j->tap < 0)
		return j->tap;
	rc = net_state_add_user(h->state, j->name, &j->user, user, err);
	if (rc)
		close(j->tap);
	return rc;
}

static int join_network(struct joining *j, int *user, struct err *err)
{
	struct net_host h;
	int rc = net_host_open(&h, err);

	if (rc)
		return err_prefix(err, "network %s: ", j->name), rc;
	rc = load_or_make(&h, j, err);
	if (!rc) {
		rc = take_place(&h, j, user, err);
		if (rc)
			err_prefix(err, "network %s: ", j->name);
	}
	if (rc)
		net_host_tidy(&h);
	net_host_close(&h);
	return rc;
}

/* --- as a user --------------------------------------------------------------------------------- */

/* -ENOENT: there is no network of that name. */
static int look(struct joining *j, struct err *err)
{
	struct net_state *s;
	int rc = net_state_open(&s, false, err);

	if (!rc) {
		rc = net_state_load(s, j->name, &j->network, err);
		net_state_close(s);
	}
	return rc;
}

static int join_by_helper(struct joining *j, struct err *err)
{
	int rc = look(j, err);

	if (rc == -ENOENT)
		err_set(err, rc, "there is none, and making one takes root, as does 'vmm net create %s'; "
			"--net user needs neither", j->name);
	if (!rc)
		rc = check_type(j, err);
	if (!rc) {
		j->tap = bridge_ask_helper(j->network.bridge, NULL, several(j), j->user.tap, err);
		rc = MIN(j->tap, 0);
	}
	return rc ? err_prefix(err, "network %s: ", j->name), rc : 0;
}

/* --- bridges -------------------------------------------------------------------------------------- */

static int join_bridge(struct joining *j, int *user, struct err *err)
{
	const struct net_config *c = &j->config->net[j->i];
	struct err why;
	int rc = c->vlan ? vlans_parse(c->vlan, &j->vlans, err) : 0;

	if (rc)
		return rc;
	j->name = network_of_bridge(c->bridge);
	if (j->name && network_may_change() && !look(j, &why))
		return join_network(j, user, err);
	j->tap = bridge_new_tap(c->bridge, &j->vlans, getpid(), several(j), j->user.tap, &why);
	if (j->tap == -EPERM)
		j->tap = bridge_ask_helper(c->bridge, c->vlan, several(j), j->user.tap, &why);
	return j->tap < 0 ? err_set(err, j->tap, "bridge %s: %s", c->bridge, why.msg) : 0;
}

/* The tap is on it. */
static int check_bridge(const struct joining *j, u16 *mtu, struct err *err)
{
	struct netlink *nl;
	struct link tap = { .mtu = 1500 }, bridge = { 0 };

	if (!netlink_open(&nl, NULL)) {
		if (!link_find(nl, 0, j->user.tap, &tap) && tap.master)
			(void)!link_find(nl, tap.master, NULL, &bridge);
		netlink_close(nl);
	}
	*mtu = tap.mtu;
	return memcmp(bridge.mac, j->user.mac, sizeof(bridge.mac)) ? 0 :
		err_set(err, -EADDRINUSE, "net: the bridge %s has the address %s itself; give the card "
			"another mac=", bridge.name, network_mac_text(bridge.mac).text);
}

/* --- leaving ------------------------------------------------------------------------------------ */

/*
 * Removing a network takes privileges and runs programs, and a VM whose guest runs can
 * do neither.
 */
static struct cleaner cleaner = { .fd = -1 };

static void clean(void *arg)
{
	struct net_host h;
	struct err err;

	(void)arg;
	if (net_host_open(&h, &err))
		log_warn("networks: %s", err.msg);
	else
		net_host_close(&h);
}

void net_leave(int *users, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (users[i] >= 0)
			close(users[i]);
		users[i] = -1;
	}
	cleaner_finish(&cleaner);
}

static int open_queues(struct net *queue[], unsigned nr, const struct joining *j, struct err *err)
{
	int rc = net_open_tap_fd(&queue[0], j->tap, err);
	u16 mtu;

	if (rc) {
		close(j->tap);
		return rc;
	}
	rc = check_bridge(j, &mtu, err);
	if (!rc)
		rc = net_open_tap_queues(queue, nr, j->user.tap, err);
	for (unsigned i = 0; i < nr && !rc; i++)
		queue[i]->mtu = mtu;
	return rc;
}

int net_join(const struct config *config, unsigned i, struct net *queue[], int *user,
	     struct err *err)
{
	const struct net_config *c = &config->net[i];
	struct joining j = { .config = config, .i = i, .name = c->host_network, .user.pid = getpid() };
	int rc;

	snprintf(j.user.vm, sizeof(j.user.vm), "%s", config->name ?: "");
	machine_net_mac(config, i, j.user.mac);
	rc = c->mode == NET_BRIDGE ? join_bridge(&j, user, err) :
	     network_may_change() ? join_network(&j, user, err) : join_by_helper(&j, err);
	if (!rc && *user >= 0 && cleaner.fd < 0) {
		rc = cleaner_start(&cleaner, "vmm-net", clean, NULL, err);
		if (rc) {
			close(j.tap);
			close(*user);
			*user = -1;
			clean(NULL);
		}
	}
	if (!rc) {
		log_debug("net%u is the tap %s", i, j.user.tap);
		rc = open_queues(queue, config_net_pairs(c), &j, err);
	} else {
		err_prefix(err, "net: ");
	}
	return rc;
}
