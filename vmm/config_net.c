/* config_net.c: what --net says. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/net/net.h"
#include "vmm/config_own.h"
#include "vmm/net_state.h"

int config_parse_mac(const char *text, u8 mac[6])
{
	unsigned b[6];
	int end = 0;

	/* %x alone would take signs and blanks. */
	if (strspn(text, "0123456789abcdefABCDEF:") != strlen(text))
		return -EINVAL;
	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != 6 || text[end] || end != 17)
		return -EINVAL;
	for (int i = 0; i < 6; i++)
		mac[i] = b[i];
	return mac[0] & 1 || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]) ? -EINVAL : 0;
}

bool config_mmds_address_valid(struct in_addr a)
{
	u32 host = ntohl(a.s_addr);

	/* RFC 3927, 2.1: the first and the last 256 are not for anybody. */
	return host >> 16 == 0xa9fe && (host >> 8 & 0xff) != 0 && (host >> 8 & 0xff) != 0xff;
}

static int set_net_fd(struct net_config *n, const char *value, struct err *err)
{
	unsigned long fd;

	if (config_parse_number(value, 3, 1 << 20, &fd))
		return err_set(err, -EINVAL, "net: fd '%s' is not the number of an open descriptor, 3 or "
			       "more", value);
	n->fd = fd;
	return 0;
}

/* A port published on any address of the host is taken on each. */
static bool ports_clash(const struct net_forward *a, const struct net_forward *b)
{
	return a->udp == b->udp && a->host_port == b->host_port &&
	       (!a->host.s_addr || !b->host.s_addr || a->host.s_addr == b->host.s_addr);
}

static int add_forward(struct net_config *n, const char *value, struct err *err)
{
	struct net_forward f, *all;
	int rc = forward_parse(&f, value, err);

	if (rc)
		return err_prefix(err, "net: "), rc;
	/* Else it would be said to be another program's. */
	for (unsigned i = 0; i < n->nr_forwards; i++)
		if (ports_clash(&n->forward[i], &f))
			return err_set(err, -EINVAL, "net: hostfwd '%s': port %u is published twice", value,
				       f.host_port);
	if (n->nr_forwards == CONFIG_MAX_FORWARDS)
		return err_set(err, -EINVAL, "net: more than %d hostfwd", CONFIG_MAX_FORWARDS);
	all = reallocarray(n->forward, n->nr_forwards + 1, sizeof(f));
	if (!all)
		return err_set(err, -ENOMEM, "out of memory");
	n->forward = all;
	n->forward[n->nr_forwards++] = f;
	return 0;
}

/* "192.168.7.0/24", with room for what libslirp puts at .2 to .30. */
static int set_network(struct net_config *n, const char *value, struct err *err)
{
	const char *slash = strchr(value, '/');
	char addr[INET_ADDRSTRLEN];
	unsigned long len;
	u32 network;

	snprintf(addr, sizeof(addr), "%.*s", slash ? (int)(slash - value) : 0, value);
	if (!slash || slash - value >= (int)sizeof(addr) ||
	    inet_pton(AF_INET, addr, &n->network) != 1 || config_parse_number(slash + 1, 8, 27, &len))
		goto bad;
	network = ntohl(n->network.s_addr);
	n->prefix_len = len;
	if (network << len || !(network >> 24) || network >> 24 == 127 || network >> 28 >= 14)
		goto bad;
	return 0;
bad:
	return err_set(err, -EINVAL, "net: net '%s' is not a network of IPv4 like 192.168.7.0/24, of 8 to "
		       "27 bits", value);
}

/* In the order of enum net_mode. */
static const char *const net_kinds[] = {
	"user", "passt", "tap", "fd", "bridge", "nat", "hostonly",
};

/* Without a name, as in "nat" or {"nat": true}, there is one for all. */
static int set_host_network(struct net_config *n, enum net_mode mode, const char *value,
			    struct err *err)
{
	if (!strcmp(value, "false"))
		return err_set(err, -EINVAL, "net: '%s=false': leave it out", net_kinds[mode - NET_USER]);
	if (!strcmp(value, "true"))
		value = mode == NET_NAT ? "default" : "hostonly";
	return config_set_text(&n->host_network, value, err);
}

/* What has no value, or is a switch in JSON. */
static bool names_nothing(const char *value)
{
	return !strcmp(value, "true") || !strcmp(value, "false");
}

static int set_net_mode(struct net_config *n, enum net_mode mode, const char *key,
			const char *value, struct err *err)
{
	if (n->mode)
		return err_set(err, -EINVAL, "net: '%s' says again what kind of network it is; use one "
			       "--net for each card", key);
	n->mode = mode;
	if (mode == NET_FD)
		return set_net_fd(n, value, err);
	if ((mode == NET_BRIDGE || mode == NET_TAP) && names_nothing(value))
		return err_set(err, -EINVAL, "net: '%s' does not say which; write %s=NAME", key, key);
	if (mode == NET_BRIDGE)
		return config_set_text(&n->bridge, value, err);
	if (mode == NET_NAT || mode == NET_HOSTONLY)
		return set_host_network(n, mode, value, err);
	if (mode != NET_TAP)
		return strcmp(value, "true") ?
			err_set(err, -EINVAL, "net: '%s' has no value; leave '=%s' out", key, value) : 0;
	if (!*value || strlen(value) > 15)
		return err_set(err, -EINVAL, "net: tap name '%s' does not have 1 to 15 characters", value);
	return config_set_text(&n->tap, value, err);
}

unsigned config_net_pairs(const struct net_config *n)
{
	return MAX(n->queues, 1U);
}

const char *config_net_kind(const struct net_config *n)
{
	return net_kinds[n->mode - NET_USER];
}

const char *config_net_name(const struct net_config *n)
{
	return n->tap ?: n->bridge ?: n->host_network;
}

bool config_net_is_tap(const struct net_config *n)
{
	return n->mode >= NET_TAP;
}

static int set_vhost(struct net_config *n, const char *value, struct err *err)
{
	bool on;

	if (!strcmp(value, "auto"))
		n->vhost = NET_VHOST_AUTO;
	else if (config_parse_switch(value, &on))
		return err_set(err, -EINVAL, "net: vhost is on, off or auto, not '%s'", value);
	else
		n->vhost = on ? NET_VHOST_ON : NET_VHOST_OFF;
	return 0;
}

/* Bytes or frames a second, one way. */
static const char *const net_rates[] = { "bw_rx", "bw_tx", "pps_rx", "pps_tx" };

static struct limit_rate *nth_rate(struct net_config *n, unsigned i)
{
	struct limit_config *way = i % 2 ? &n->tx : &n->rx;

	return i / 2 ? &way->ops : &way->bytes;
}

/* Of a rate, or of its burst; NULL: there is no such. */
static struct limit_rate *net_rate(struct net_config *n, const char *key)
{
	for (unsigned i = 0; i < ARRAY_SIZE(net_rates); i++) {
		size_t len = strlen(net_rates[i]);

		if (!strncmp(key, net_rates[i], len) && (!key[len] || !strcmp(key + len, "_burst")))
			return nth_rate(n, i);
	}
	return NULL;
}

static int net_number(struct net_config *n, const char *key, const char *value, struct err *err)
{
	unsigned long min = 1, max = CONFIG_MAX_PAIRS, number;

	if (*key == 'm') {
		min = NET_MTU_LEAST;
		max = NET_MTU_MOST;
	}
	if (config_parse_number(value, min, max, &number))
		return err_set(err, -EINVAL, "net: %s '%s' is not a number from %lu to %lu", key, value,
			       min, max);
	if (*key == 'm')
		n->mtu = number;
	else
		*(*key == 'q' ? &n->queues : &n->iothreads) = number;
	return 0;
}

/* What is for some kinds of network only is remembered: the kind may come last. */
static int set_net_key(struct net_config *n, const char *key, const char *value,
		       const char **for_nat, const char **for_user, struct err *err)
{
	static const char *const known[] = {
		"user", "passt", "tap", "fd", "bridge", "nat", "hostonly", "mac", "vlan", "mtu", "queues",
		"iothreads", "bw_rx", "bw_rx_burst", "bw_tx", "bw_tx_burst", "pps_rx", "pps_rx_burst",
		"pps_tx", "pps_tx_burst", "dump", "vhost", "hostfwd", "restrict", "net", "dns",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(net_kinds); i++)
		if (!strcmp(key, net_kinds[i]))
			return set_net_mode(n, NET_USER + i, key, value, err);
	if (!strcmp(key, "mac")) {
		if (config_parse_mac(value, n->mac))
			return err_set(err, -EINVAL, "net: mac '%s' is not a station's address; write "
				       "six bytes like 02:00:00:12:34:56, the first of them even",
				       value);
		n->has_mac = true;
	} else if (!strncmp(key, "bw_", 3) || !strncmp(key, "pps_", 4)) {
		struct limit_rate *rate = net_rate(n, key);

		if (!rate)
			return config_unknown_key("net", key, known, ARRAY_SIZE(known), err);
		if (config_parse_size(value, 1, strstr(key, "_burst") ? &rate->burst : &rate->rate, err))
			return err_prefix(err, "net: %s: ", key);
	} else if (!strcmp(key, "dump")) {
		return *value && !names_nothing(value) ? config_set_text(&n->dump, value, err) :
			err_set(err, -EINVAL, "net: dump names no file; write dump=FILE.pcap");
	} else if (!strcmp(key, "vhost")) {
		return set_vhost(n, value, err);
	} else if (!strcmp(key, "mtu") || !strcmp(key, "queues") || !strcmp(key, "iothreads")) {
		return net_number(n, key, value, err);
	} else if (!strcmp(key, "vlan")) {
		/* The last alone would put a card meant for a trunk into one VLAN. */
		return n->vlan ? err_set(err, -EINVAL, "net: vlan '%s' beside '%s'; several are written "
					 "%s+%s", value, n->vlan, n->vlan, value) :
				 config_set_text(&n->vlan, value, err);
	} else if (!strcmp(key, "hostfwd")) {
		*for_nat = "hostfwd";
		return add_forward(n, value, err);
	} else if (!strcmp(key, "restrict")) {
		*for_user = "restrict";
		if (config_parse_switch(value, &n->restricted))
			return err_set(err, -EINVAL, "net: restrict is on or off, not '%s'", value);
	} else if (!strcmp(key, "net")) {
		*for_user = "net";
		return set_network(n, value, err);
	} else if (!strcmp(key, "dns")) {
		*for_user = "dns";
		if (inet_pton(AF_INET, value, &n->dns) != 1 || !n->dns.s_addr)
			return err_set(err, -EINVAL, "net: dns '%s' is not an IPv4 address", value);
	} else {
		return config_unknown_key("net", key, known, ARRAY_SIZE(known), err);
	}
	return 0;
}

/* What the host's kernel does is out of our sight. */
static int check_vhost(struct net_config *n, struct err *err)
{
	const char *other = n->dump ? "dump" : NULL;

	if (n->vhost != NET_VHOST_ON)
		return 0;
	if (!config_net_is_tap(n))
		return err_set(err, -EINVAL, "net: vhost=on is for taps; %s has none", config_net_kind(n));
	for (unsigned i = 0; i < ARRAY_SIZE(net_rates); i++)
		if (nth_rate(n, i)->rate)
			other = net_rates[i];
	return other ? err_set(err, -EINVAL, "net: vhost=on, and %s=, which only vmm's own thread can do; "
			       "leave one of them out", other) : 0;
}

/* Also of one that came with a snapshot. */
static int check_host_net(const struct net_config *n, struct err *err)
{
	bool is_named = n->mode == NET_NAT || n->mode == NET_HOSTONLY;
	struct vlans vlans;

	if (n->mode == NET_BRIDGE && !link_name_valid(n->bridge ?: ""))
		return err_set(err, -EINVAL, "net: '%s' is not a bridge's name", n->bridge ?: "");
	if (is_named && network_check_name(n->host_network ?: "", err))
		return err_prefix(err, "net: ");
	if (n->vlan && n->mode != NET_BRIDGE)
		return err_set(err, -EINVAL, "net: vlan is an option of bridge=NAME only");
	return n->vlan && vlans_parse(n->vlan, &vlans, err) ? err_prefix(err, "net: ") : 0;
}

/* passt knows one guest, libslirp those of its network. */
static int check_forwards(const struct net_config *n, struct err *err)
{
	bool own = n->network.s_addr;
	u32 network = own ? ntohl(n->network.s_addr) : USER_NETWORK;
	unsigned len = own ? n->prefix_len : USER_PREFIX_LEN;

	for (unsigned i = 0; i < n->nr_forwards; i++) {
		u32 guest = ntohl(n->forward[i].guest.s_addr);
		char text[INET_ADDRSTRLEN];

		if (guest && n->mode == NET_PASST)
			return err_set(err, -EINVAL, "net: hostfwd: passt knows one address of the guest; "
				       "write only the port after '-:'");
		if (guest && n->mode == NET_USER && (guest ^ network) >> (32 - len))
			return err_set(err, -EINVAL, "net: hostfwd: %s is not in the guest's network, %s/%u",
				       inet_ntop(AF_INET, &n->forward[i].guest, text, sizeof(text)),
				       own ? inet_ntoa(n->network) : "10.0.2.0", len);
	}
	return 0;
}

static int check_net(struct net_config *n, const char *text, const char *for_nat,
		     const char *for_user, struct err *err)
{
	if (!n->mode)
		return err_set(err, -EINVAL, "net: '%s' does not say what kind of network it is; begin "
			       "with user, passt, nat, hostonly, bridge=NAME, tap=NAME or fd=N", text);
	if (for_user && n->mode != NET_USER)
		return err_set(err, -EINVAL, "net: %s is an option of user only", for_user);
	if (for_nat && n->mode != NET_USER && n->mode != NET_PASST)
		return err_set(err, -EINVAL, "net: %s is an option of user and passt only", for_nat);
	if (n->queues > 1 && n->mode != NET_TAP && n->mode != NET_BRIDGE && n->mode != NET_NAT &&
	    n->mode != NET_HOSTONLY)
		return err_set(err, -EINVAL, "net: several queues are for tap=, bridge=, nat and hostonly");
	if (n->iothreads > config_net_pairs(n))
		return err_set(err, -EINVAL, "net: %u iothreads for %u queues; at most one each",
			       n->iothreads, config_net_pairs(n));
	for (unsigned i = 0; i < ARRAY_SIZE(net_rates); i++)
		if (nth_rate(n, i)->burst && !nth_rate(n, i)->rate)
			return err_set(err, -EINVAL, "net: a burst without a limit; add %s=", net_rates[i]);
	return check_forwards(n, err) ?: check_vhost(n, err) ?: check_host_net(n, err);
}

int config_parse_net(struct config *c, const char *value, struct err *err)
{
	char *copy = strdup(value), *list = copy, *piece;
	struct net_config *n = &c->net[c->nr_nets];
	const char *for_nat = NULL, *for_user = NULL;
	int rc = 0;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	if (c->nr_nets == CONFIG_MAX_NETS) {
		rc = err_set(err, -EINVAL, "net: more than %d", CONFIG_MAX_NETS);
		goto out;
	}
	*n = (struct net_config){ 0 };
	c->nr_nets++;
	while (!rc && (piece = config_next_piece(&list))) {
		const char *v = config_split_pair(piece);

		rc = set_net_key(n, piece, v, &for_nat, &for_user, err);
	}
	if (!rc)
		rc = check_net(n, value, for_nat, for_user, err);
out:
	free(copy);
	return rc;
}

void config_drop_net(struct net_config *n)
{
	free(n->tap);
	free(n->bridge);
	free(n->vlan);
	free(n->host_network);
	free(n->forward);
	free(n->id);
	free(n->dump);
	*n = (struct net_config){ 0 };
}

int config_use_tap(struct net_config *n, const char *tap, struct err *err)
{
	char **others[] = { &n->bridge, &n->vlan, &n->host_network };

	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		free(*others[i]);
		*others[i] = NULL;
	}
	n->mode = NET_TAP;
	return config_set_text(&n->tap, tap, err);
}

/* Two cards of one address on a bridge hear each other's frames, or none. */
static int check_pair(const struct net_config *a, const struct net_config *b, struct err *err)
{
	const char *on = config_net_name(a);

	if (a->tap && b->tap && !strcmp(a->tap, b->tap))
		return err_set(err, -EINVAL, "--net: tap '%s' is given twice", a->tap);
	if (a->mode == NET_FD && b->mode == NET_FD && a->fd == b->fd)
		return err_set(err, -EINVAL, "--net: fd %d is given twice", a->fd);
	for (unsigned i = 0; i < a->nr_forwards; i++)
		for (unsigned j = 0; j < b->nr_forwards; j++)
			if (ports_clash(&a->forward[i], &b->forward[j]))
				return err_set(err, -EINVAL, "--net: hostfwd: %s port %u is published twice",
					       a->forward[i].udp ? "udp" : "tcp", a->forward[i].host_port);
	if (on && a->mode == b->mode && !strcmp(on, config_net_name(b)) && a->has_mac && b->has_mac &&
	    !memcmp(a->mac, b->mac, sizeof(a->mac)))
		return err_set(err, -EINVAL, "--net: mac %s is given twice on %s; leave one out, or give "
			       "another", network_mac_text(a->mac).text, on);
	return 0;
}

/* "net0,net1,version=V2" */
int config_parse_mmds(struct config *c, const char *value, struct err *err)
{
	static const char *const known[] = { "net0", "version", "address" };
	struct mmds_config m = { .address.s_addr = htonl(MMDS_ADDRESS) };
	char *copy = strdup(value), *list = copy, *key;
	int rc = copy ? 0 : err_set(err, -ENOMEM, "out of memory");

	while (!rc && (key = config_next_piece(&list))) {
		const char *v = config_split_pair(key);
		unsigned long n;

		if (!strncmp(key, "net", 3) && !config_parse_number(key + 3, 0, CONFIG_MAX_NETS - 1, &n)) {
			m.cards |= 1U << n;
		} else if (!strcmp(key, "version")) {
			m.v2 = !strcmp(v, "V2");
			if (!m.v2 && strcmp(v, "V1"))
				rc = err_set(err, -EINVAL, "mmds: version is V1 or V2, not '%s'", v);
		} else if (!strcmp(key, "address")) {
			if (inet_pton(AF_INET, v, &m.address) != 1 || !config_mmds_address_valid(m.address))
				rc = err_set(err, -EINVAL, "mmds: address '%s' is not one from 169.254.1.0 to "
					     "169.254.254.255", v);
		} else {
			rc = config_unknown_key("mmds", key, known, ARRAY_SIZE(known), err);
		}
	}
	if (!rc && !m.cards)
		rc = err_set(err, -EINVAL, "mmds: no card; the first is net0");
	if (!rc)
		c->mmds = m;
	free(copy);
	return rc;
}

static int check_mmds(const struct config *c, struct err *err)
{
	for (unsigned i = c->nr_nets; i < CONFIG_MAX_NETS; i++)
		if (c->mmds.cards >> i & 1)
			return err_set(err, -EINVAL, "--mmds: there is no card net%u", i);
	for (unsigned i = 0; i < c->nr_nets; i++)
		if (c->mmds.cards >> i & 1 && c->net[i].vhost == NET_VHOST_ON)
			return err_set(err, -EINVAL, "--net: vhost=on is not for net%u: with --mmds vmm itself "
				       "moves its frames", i);
	return c->metadata && !c->mmds.cards ?
		err_set(err, -EINVAL, "--metadata is for --mmds, which says on which cards") : 0;
}

int config_check_nets(const struct config *c, struct err *err)
{
	if (check_mmds(c, err))
		return err->code;
	for (unsigned i = 0; i < c->nr_nets; i++) {
		int rc = check_host_net(&c->net[i], err);

		if (rc)
			return rc;
		if (c->chroot && c->net[i].mode != NET_TAP && c->net[i].mode != NET_FD)
			return err_set(err, -EINVAL, "--net %s: with --chroot there are tap= and fd= only",
				       config_net_kind(&c->net[i]));
		for (unsigned j = 0; j < i && !rc; j++)
			rc = check_pair(&c->net[i], &c->net[j], err);
		if (rc)
			return rc;
	}
	return 0;
}
