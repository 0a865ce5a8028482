/* net.c: 'vmm net': its commands and their options; making and removing networks. */
#include "vmm/net.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/commands.h"
#include "vmm/config.h"
#include "vmm/core/log.h"

enum { MTU_MIN = 1280, MTU_MAX = 65521 };	/* IPv6's, a tap's */

static const struct subcommand_option options[NET_NR_OPTIONS] = {
	[NET_TYPE] = { "type", "T",
		"nat (default); hostonly: no way out; bridge: no host on it" },
	[NET_SUBNET] = { "subnet", "CIDR",
		"like 10.5.0.0/24; without, a private one that is free" },
	[NET_VLAN_FILTERING] = { "vlan-filtering", NULL, "keep VLANs apart" },
	[NET_MTU] = { "mtu", "N", "1280 to 65521 (default 1500)" },
	[NET_JSON] = { "json", NULL, "for programs" },
};

#define O(name) (1u << NET_##name)

static const struct subcommand commands[] = {
	{ "list", "", 0, 0, O(JSON), "the networks of this host that vmm made", net_list },
	{ "create", "NAME", 1, 1, O(TYPE) | O(SUBNET) | O(VLAN_FILTERING) | O(MTU),
	  "make a network that stays until it is deleted", net_create },
	{ "delete", "NAME", 1, 1, 0, "remove a network that no VM uses", net_delete },
	{ "show", "NAME", 1, 1, O(JSON), "a network's VMs, leases and MAC table; also a bridge's",
	  net_show },
};

int command_net(int argc, char **argv)
{
	static const struct subcommands net = {
		"net", "vmm net makes, shows and removes networks of this host, which VMs join with\n"
		"--net nat=NAME, --net hostonly=NAME or --net bridge=vmm-NAME.",
		options, ARRAY_SIZE(options), commands, ARRAY_SIZE(commands),
	};

	return subcommand_run(&net, argc, argv);
}

int net_failed(const struct err *err)
{
	static const int users[] = {	/* by what was asked, not by what happened */
		EINVAL, ENOENT, ENODEV, EEXIST, EBUSY, EADDRINUSE, EADDRNOTAVAIL, EPERM, EACCES,
	};

	log_err("net: %s", err->msg);
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++)
		if (err->code == -users[i])
			return EXIT_USAGE;
	return EXIT_RUNTIME;
}

static int check_right(const struct subcommand_args *a)
{
	return network_may_change() ? EXIT_OK :
		subcommand_misused(a, "this needs root (CAP_NET_ADMIN); run it with sudo");
}

/* --- create --------------------------------------------------------------------------------- */

static int read_type(const struct subcommand_args *a, struct network *n)
{
	const char *text = a->value[NET_TYPE] ?: "nat";

	for (unsigned i = 0; i < NETWORK_NR_TYPES; i++)
		if (!strcmp(text, network_types[i])) {
			n->type = i;
			return EXIT_OK;
		}
	return subcommand_misused(a, "type '%s' is none of nat, hostonly, bridge", text);
}

static int read_options(const struct subcommand_args *a, struct network *n)
{
	const char *mtu = a->value[NET_MTU] ?: "1500", *subnet = a->value[NET_SUBNET];
	struct err err;
	char *end;
	int status;

	if (network_check_name(a->word[0], &err))
		return subcommand_misused(a, "%s", err.msg);
	memcpy(n->name, a->word[0], strlen(a->word[0]) + 1);
	status = read_type(a, n);
	if (status)
		return status;
	/* No sign and no blank before it, which strtoul would take. */
	n->mtu = isdigit((unsigned char)*mtu) && strspn(mtu, "0123456789") < 6 ?
		 strtoul(mtu, &end, 10) : 0;
	if (n->mtu < MTU_MIN || n->mtu > MTU_MAX || *end)
		return subcommand_misused(a, "mtu '%s' is not a number from %d to %d", mtu, MTU_MIN,
					  MTU_MAX);
	if (subnet && n->type == NETWORK_BRIDGE)
		return subcommand_misused(a, "--subnet is for nat and hostonly: the host has no address "
					  "on a bridge");
	if (subnet && subnet_parse(subnet, &n->subnet, &err))
		return subcommand_misused(a, "%s", err.msg);
	n->vlan_filtering = a->value[NET_VLAN_FILTERING];
	n->is_kept = true;
	return EXIT_OK;
}

int net_create(const struct subcommand_args *a)
{
	struct network n = { 0 }, there;
	struct net_host h;
	struct err err;
	int rc, status = read_options(a, &n);

	if (!status)
		status = check_right(a);
	if (status)
		return status;
	if (net_host_open(&h, &err))
		return net_failed(&err);
	rc = net_state_load(h.state, n.name, &there, &err);
	if (!rc)
		rc = there.is_kept ?
			err_set(&err, -EEXIST, "network %s: is there already; 'vmm net show %s' shows it",
				n.name, n.name) :
			err_set(&err, -EEXIST, "network %s: is there already, and ends with its last VM; "
				"stop that first", n.name);
	else if (rc == -ENOENT)
		rc = net_host_make(&h, &n, &err);
	net_host_close(&h);
	return rc ? net_failed(&err) : EXIT_OK;
}

/* --- delete ----------------------------------------------------------------------------------- */

static int refuse_used(struct net_host *h, const struct network *n, struct err *err)
{
	struct net_users u;
	int rc = net_host_users(h, n, &u, err);

	if (rc)
		return rc;
	if (u.nr)
		rc = err_set(err, -EBUSY, "network %s: in use by %s%s; stop it first", n->name,
			     network_user_text(&u.user[0]).text, u.nr > 1 ? " and others" : "");
	else if (*u.port)
		rc = err_set(err, -EBUSY, "network %s: its bridge %s has the port %s; remove that first",
			     n->name, n->bridge, u.port);
	free(u.user);
	return rc;
}

int net_delete(const struct subcommand_args *a)
{
	struct net_host h;
	struct network n;
	struct err err;
	int rc, status = check_right(a);

	if (status)
		return status;
	if (network_check_name(a->word[0], &err) || net_host_open(&h, &err))
		return net_failed(&err);
	rc = net_state_load(h.state, a->word[0], &n, &err);
	if (rc == -ENOENT)
		err_set(&err, rc, "there is no network %s; 'vmm net list' shows them", a->word[0]);
	/* Its record is damaged: what it is called is enough. */
	if (rc == -EUCLEAN) {
		n.type = NETWORK_NAT;
		memcpy(n.bridge, "vmm-", 4);
		memcpy(n.bridge + 4, n.name, sizeof(n.name));
		rc = 0;
	}
	if (!rc)
		rc = refuse_used(&h, &n, &err);
	if (!rc)
		rc = net_host_remove(&h, &n, &err);
	net_host_close(&h);
	return rc ? net_failed(&err) : EXIT_OK;
}
