/* config.c: the table of options, and how each value is read and judged. */
#include "vmm/config.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/net/net.h"
#include "vmm/gdb.h"
#include "vmm/net_state.h"

enum { NAME_MAX_LEN = 64 };

/* --- values ------------------------------------------------------------------------------ */

static int set_string(char **field, const char *value, struct err *err)
{
	char *copy = strdup(value);

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	free(*field);
	*field = copy;
	return 0;
}

int config_set_text(char **field, const char *value, struct err *err)
{
	if (value)
		return set_string(field, value, err);
	free(*field);
	*field = NULL;
	return 0;
}

static int parse_number(const char *text, unsigned long min, unsigned long max,
			unsigned long *value)
{
	char *end;

	errno = 0;
	*value = strtoul(text, &end, 10);
	return !isdigit((unsigned char)*text) || *end || errno || *value < min || *value > max ?
		-EINVAL : 0;
}

static int parse_bool(const char *text, bool *value)
{
	static const char *const yes[] = { "true", "on", "yes", "1" };
	static const char *const no[] = { "false", "off", "no", "0" };

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		*value = !strcmp(text, yes[i]);
		if (*value || !strcmp(text, no[i]))
			return 0;
	}
	return -EINVAL;
}

int config_parse_size(const char *text, u64 unit, u64 *size, struct err *err)
{
	static const char suffix[] = "KMGT";
	unsigned long long n;
	const char *s;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || errno)
		goto bad;
	if (*end) {
		s = strchr(suffix, toupper((unsigned char)*end));
		if (!s)
			goto bad;
		unit = KIB << 10 * (s - suffix);
		end++;
		if (*end == 'i')
			end++;
		if (*end == 'B')
			end++;
	}
	if (!*end && n && !mul_overflows(n, unit, size))
		return 0;
bad:
	return err_set(err, -EINVAL, "'%s' is not a size; write a number and K, M, G or T, like 512M",
		       text);
}

/* --- key=value lists -------------------------------------------------------------------------- */

/* Cut the next piece off a list with commas (",," is one in a value), in place. */
static char *next_piece(char **list)
{
	char *piece = *list, *to = piece, *from = piece;

	if (!piece)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		if (*from == ',')
			from++;
		*to++ = *from++;
	}
	*list = *from ? from + 1 : NULL;
	*to = 0;
	return piece;
}

/* "key=value", or "key" for a switch: the value, or "true". */
static const char *split_pair(char *piece)
{
	char *eq = strchr(piece, '=');

	if (!eq)
		return "true";
	*eq = 0;
	return eq + 1;
}

static int unknown_key(const char *what, const char *key, const char *const *known, unsigned nr,
		       struct err *err)
{
	const char *near = config_nearest(key, known, nr);
	char list[256] = "";

	for (unsigned i = 0; i < nr && !near; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 known[i]);
	if (near)
		return err_set(err, -EINVAL, "%s: unknown option '%s'; did you mean '%s'?", what, key,
			       near);
	return err_set(err, -EINVAL, "%s: unknown option '%s'; known: %s", what, key, list);
}

/* --- disks ---------------------------------------------------------------------------------------- */

#define DISK(d)		struct disk_config *d, const char *key, const char *value, struct err *err

static int disk_serial(DISK(d))
{
	(void)key;
	if (strlen(value) > CONFIG_SERIAL_LEN)
		return err_set(err, -EINVAL, "disk: serial '%s' is longer than %d characters",
			       value, CONFIG_SERIAL_LEN);
	snprintf(d->serial, sizeof(d->serial), "%s", value);
	return 0;
}

static int disk_format(DISK(d))
{
	(void)key;
	if (strcmp(value, "raw") && strcmp(value, "qcow2"))
		return err_set(err, -EINVAL, "disk: format '%s' is not known; known: raw, qcow2",
			       value);
	return set_string(&d->format, value, err);
}

/* One of two words: is it the second? */
static int disk_choice(const char *key, const char *value, const char *a, const char *b,
		       bool *second, struct err *err)
{
	*second = !strcmp(value, b);
	return *second || !strcmp(value, a) ? 0 :
		err_set(err, -EINVAL, "disk: %s is %s or %s, not '%s'", key, a, b, value);
}

static int disk_backing(DISK(d))
{
	return disk_choice(key, value, "beside", "anywhere", &d->backing_anywhere, err);
}

static int disk_cache(DISK(d))
{
	return disk_choice(key, value, "writeback", "writethrough", &d->write_through, err);
}

static int disk_on_error(DISK(d))
{
	return disk_choice(key, value, "report", "stop", &d->stop_on_error, err);
}

static int disk_switch(DISK(d))
{
	bool on;

	if (parse_bool(value, &on))
		return err_set(err, -EINVAL, "disk: %s is on or off, not '%s'", key, value);
	if (!strcmp(key, "readonly"))
		d->read_only = on;
	else if (!strcmp(key, "direct"))
		d->direct = on;
	else if (!strcmp(key, "discard"))
		d->no_discard = !on;
	else
		d->no_write_zeroes = !on;
	return 0;
}

static int disk_number(DISK(d))
{
	bool queues = !strcmp(key, "queues");
	unsigned long n, max = CONFIG_MAX_QUEUES;

	if (parse_number(value, 1, max, &n))
		return err_set(err, -EINVAL, "disk: %s '%s' is not a number from 1 to %lu", key, value,
			       max);
	*(queues ? &d->queues : &d->iothreads) = n;
	return 0;
}

/* Bytes or operations a second. */
static int disk_limit(DISK(d))
{
	struct limit_rate *r = *key == 'b' ? &d->limit.bytes : &d->limit.ops;
	u64 *field = strstr(key, "_burst") ? &r->burst : &r->rate;

	return config_parse_size(value, 1, field, err) ? err_prefix(err, "disk: %s: ", key) : 0;
}

static const struct disk_key {
	const char *name;
	int (*set)(struct disk_config *, const char *key, const char *value, struct err *);
} disk_keys[] = {
	{ "readonly", disk_switch }, { "serial", disk_serial }, { "format", disk_format },
	{ "backing", disk_backing }, { "cache", disk_cache }, { "direct", disk_switch },
	{ "discard", disk_switch }, { "write_zeroes", disk_switch }, { "on_error", disk_on_error },
	{ "queues", disk_number }, { "iothreads", disk_number },
	{ "bw", disk_limit }, { "bw_burst", disk_limit },
	{ "iops", disk_limit }, { "iops_burst", disk_limit },
};

static int set_disk_key(struct disk_config *d, const char *key, const char *value, struct err *err)
{
	const char *known[ARRAY_SIZE(disk_keys)];

	for (unsigned i = 0; i < ARRAY_SIZE(disk_keys); i++) {
		if (!strcmp(key, disk_keys[i].name))
			return disk_keys[i].set(d, key, value, err);
		known[i] = disk_keys[i].name;
	}
	return unknown_key("disk", key, known, ARRAY_SIZE(known), err);
}

static int check_disk(const struct disk_config *d, struct err *err)
{
	if ((d->limit.bytes.burst && !d->limit.bytes.rate) ||
	    (d->limit.ops.burst && !d->limit.ops.rate))
		return err_set(err, -EINVAL, "disk %s: a burst without a limit; add %s=", d->path,
			       d->limit.bytes.burst && !d->limit.bytes.rate ? "bw" : "iops");
	return 0;
}

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

static int set_net_fd(struct net_config *n, const char *value, struct err *err)
{
	unsigned long fd;

	if (parse_number(value, 3, 1 << 20, &fd))
		return err_set(err, -EINVAL, "net: fd '%s' is not the number of an open descriptor, 3 or "
			       "more", value);
	n->fd = fd;
	return 0;
}

static int add_forward(struct net_config *n, const char *value, struct err *err)
{
	struct net_forward f, *all;
	int rc = forward_parse(&f, value, err);

	if (rc)
		return err_prefix(err, "net: "), rc;
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
	    inet_pton(AF_INET, addr, &n->network) != 1 || parse_number(slash + 1, 8, 27, &len))
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
	return set_string(&n->host_network, value, err);
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
	if (mode == NET_BRIDGE)
		return set_string(&n->bridge, value, err);
	if (mode == NET_NAT || mode == NET_HOSTONLY)
		return set_host_network(n, mode, value, err);
	if (mode != NET_TAP)
		return strcmp(value, "true") ?
			err_set(err, -EINVAL, "net: '%s' has no value; leave '=%s' out", key, value) : 0;
	if (!*value || strlen(value) > 15)
		return err_set(err, -EINVAL, "net: tap name '%s' does not have 1 to 15 characters", value);
	return set_string(&n->tap, value, err);
}

const char *config_net_kind(const struct net_config *n)
{
	return net_kinds[n->mode - NET_USER];
}

const char *config_net_name(const struct net_config *n)
{
	return n->tap ?: n->bridge ?: n->host_network;
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
	if (parse_number(value, min, max, &number))
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
		"pps_tx", "pps_tx_burst", "dump", "hostfwd", "restrict", "net", "dns",
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
			return unknown_key("net", key, known, ARRAY_SIZE(known), err);
		if (config_parse_size(value, 1, strstr(key, "_burst") ? &rate->burst : &rate->rate, err))
			return err_prefix(err, "net: %s: ", key);
	} else if (!strcmp(key, "dump")) {
		return *value ? set_string(&n->dump, value, err) :
				err_set(err, -EINVAL, "net: dump names no file");
	} else if (!strcmp(key, "mtu") || !strcmp(key, "queues") || !strcmp(key, "iothreads")) {
		return net_number(n, key, value, err);
	} else if (!strcmp(key, "vlan")) {
		return set_string(&n->vlan, value, err);
	} else if (!strcmp(key, "hostfwd")) {
		*for_nat = "hostfwd";
		return add_forward(n, value, err);
	} else if (!strcmp(key, "restrict")) {
		*for_user = "restrict";
		if (parse_bool(value, &n->restricted))
			return err_set(err, -EINVAL, "net: restrict is on or off, not '%s'", value);
	} else if (!strcmp(key, "net")) {
		*for_user = "net";
		return set_network(n, value, err);
	} else if (!strcmp(key, "dns")) {
		*for_user = "dns";
		if (inet_pton(AF_INET, value, &n->dns) != 1 || !n->dns.s_addr)
			return err_set(err, -EINVAL, "net: dns '%s' is not an IPv4 address", value);
	} else {
		return unknown_key("net", key, known, ARRAY_SIZE(known), err);
	}
	return 0;
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
	for (unsigned i = 0; n->mode == NET_PASST && i < n->nr_forwards; i++)
		if (n->forward[i].guest.s_addr)
			return err_set(err, -EINVAL, "net: hostfwd: passt knows one address of the guest; "
				       "write only the port after '-:'");
	if (n->queues > 1 && n->mode != NET_TAP)
		return err_set(err, -EINVAL, "net: several queues are for tap=NAME only");
	if (n->iothreads > MAX(n->queues, 1U))
		return err_set(err, -EINVAL, "net: %u iothreads for %u queues; at most one each",
			       n->iothreads, MAX(n->queues, 1U));
	for (unsigned i = 0; i < ARRAY_SIZE(net_rates); i++)
		if (nth_rate(n, i)->burst && !nth_rate(n, i)->rate)
			return err_set(err, -EINVAL, "net: a burst without a limit; add %s=", net_rates[i]);
	return check_host_net(n, err);
}

static int parse_disk(struct config *c, const char *value, struct err *err)
{
	char *copy = strdup(value), *list = copy, *piece;
	struct disk_config *d = &c->disk[c->nr_disks];
	int rc = 0;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	if (c->nr_disks == CONFIG_MAX_DISKS) {
		rc = err_set(err, -EINVAL, "disk: more than %d", CONFIG_MAX_DISKS);
		goto out;
	}
	*d = (struct disk_config){ 0 };
	c->nr_disks++;
	piece = next_piece(&list);
	if (!*piece)
		rc = err_set(err, -EINVAL, "disk: '%s' begins with no path", value);
	else
		rc = set_string(&d->path, piece, err);
	while (!rc && (piece = next_piece(&list))) {
		const char *v = split_pair(piece);

		rc = set_disk_key(d, piece, v, err);
	}
	if (!rc)
		rc = check_disk(d, err);
out:
	free(copy);
	return rc;
}

static int parse_net(struct config *c, const char *value, struct err *err)
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
	while (!rc && (piece = next_piece(&list))) {
		const char *v = split_pair(piece);

		rc = set_net_key(n, piece, v, &for_nat, &for_user, err);
	}
	if (!rc)
		rc = check_net(n, value, for_nat, for_user, err);
out:
	free(copy);
	return rc;
}

/* --- the options ---------------------------------------------------------------------------------- */

#define STRING_OPTION(field, text) \
	static int set_##field(struct config *c, const char *v, struct err *err) \
	{ \
		return *v ? set_string(&c->field, v, err) : \
			    err_set(err, -EINVAL, text ": the value is empty"); \
	}
STRING_OPTION(kernel, "kernel")
STRING_OPTION(initrd, "initrd")
STRING_OPTION(pidfile, "pidfile")
STRING_OPTION(api_sock, "api-sock")
STRING_OPTION(chroot, "chroot")
STRING_OPTION(cgroup, "cgroup")
STRING_OPTION(netns, "netns")

#define SWITCH_OPTION(field, text) \
	static int set_##field(struct config *c, const char *v, struct err *err) \
	{ \
		return parse_bool(v, &c->field) ? \
			err_set(err, -EINVAL, text ": '%s' is neither on nor off", v) : 0; \
	}
SWITCH_OPTION(hugepages, "hugepages")
SWITCH_OPTION(no_reboot, "no-reboot")
SWITCH_OPTION(track_dirty_pages, "track-dirty-pages")

static int set_cmdline(struct config *c, const char *v, struct err *err)
{
	return set_string(&c->cmdline, v, err);
}

static int set_append(struct config *c, const char *v, struct err *err)
{
	char *both = NULL;

	if (!c->append)
		return set_string(&c->append, v, err);
	if (asprintf(&both, "%s %s", c->append, v) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	free(c->append);
	c->append = both;
	return 0;
}

static int set_mem(struct config *c, const char *v, struct err *err)
{
	u64 size;
	int rc = config_parse_size(v, MIB, &size, err);

	if (rc)
		return err_prefix(err, "mem: ");
	if (size % MIB || size / MIB < CONFIG_MEM_MIN_MIB || size / MIB > CONFIG_MEM_MAX_MIB)
		return err_set(err, -EINVAL, "mem: '%s' is not between %dM and %lluG in whole MiB", v,
			       CONFIG_MEM_MIN_MIB, CONFIG_MEM_MAX_MIB >> 10);
	c->mem = size;
	return 0;
}

static int set_cpus(struct config *c, const char *v, struct err *err)
{
	unsigned long n;

	if (parse_number(v, 1, CONFIG_MAX_CPUS, &n))
		return err_set(err, -EINVAL, "cpus: '%s' is not a number from 1 to %d", v,
			       CONFIG_MAX_CPUS);
	c->cpus = n;
	return 0;
}

static int set_serial(struct config *c, const char *v, struct err *err)
{
	bool ok = !strcmp(v, "stdio") || !strcmp(v, "pty") || !strcmp(v, "none") ||
		  (!strncmp(v, "file:", 5) && v[5]) || (!strncmp(v, "unix:", 5) && v[5]);

	return ok ? set_string(&c->serial, v, err) :
		    err_set(err, -EINVAL, "serial: '%s' is none of stdio, pty, file:PATH, unix:PATH, "
			    "none", v);
}

static int set_transport(struct config *c, const char *v, struct err *err)
{
	if (strcmp(v, "pci") && strcmp(v, "mmio"))
		return err_set(err, -EINVAL, "transport: '%s' is neither pci nor mmio", v);
	c->transport = strcmp(v, "pci") ? TRANSPORT_MMIO : TRANSPORT_PCI;
	return 0;
}

static int set_aio(struct config *c, const char *v, struct err *err)
{
	static const char *const name[] = { "auto", "io_uring", "threads" };

	for (unsigned i = 0; i < ARRAY_SIZE(name); i++)
		if (!strcmp(v, name[i])) {
			c->aio = i;
			return 0;
		}
	return err_set(err, -EINVAL, "aio: '%s' is none of auto, io_uring, threads", v);
}

static int set_sandbox(struct config *c, const char *v, struct err *err)
{
	static const char *const name[] = { "on", "log", "off" };

	for (unsigned i = 0; i < ARRAY_SIZE(name); i++)
		if (!strcmp(v, name[i])) {
			c->sandbox = i;
			return 0;
		}
	return err_set(err, -EINVAL, "sandbox: '%s' is none of on, log, off", v);
}

static int set_id(const char *what, const char *v, bool *has, u32 *id, struct err *err)
{
	unsigned long n;

	if (parse_number(v, 0, UINT32_MAX - 1, &n))
		return err_set(err, -EINVAL, "%s: '%s' is not a number", what, v);
	*has = true;
	*id = n;
	return 0;
}

static int set_cpu_quota(struct config *c, const char *v, struct err *err)
{
	unsigned long n;

	if (parse_number(v, 1, 100UL * CONFIG_MAX_HOST_CPUS, &n))
		return err_set(err, -EINVAL, "cpu-quota: '%s' is not a number of percent of one processor, like "
			       "150", v);
	c->cpu_quota = n;
	return 0;
}

static int set_mem_limit(struct config *c, const char *v, struct err *err)
{
	return config_parse_size(v, MIB, &c->mem_limit, err) ? err_prefix(err, "mem-limit: ") : 0;
}

static int set_uid(struct config *c, const char *v, struct err *err)
{
	return set_id("uid", v, &c->has_uid, &c->uid, err);
}

static int set_gid(struct config *c, const char *v, struct err *err)
{
	return set_id("gid", v, &c->has_gid, &c->gid, err);
}

/* "0-3,8" */
static int set_affinity(struct config *c, const char *v, struct err *err)
{
	const char *s = v;

	memset(c->affinity, 0, sizeof(c->affinity));
	do {
		unsigned long from, to;
		char *end;

		if (!isdigit((unsigned char)*s))
			goto bad;
		from = to = strtoul(s, &end, 10);
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				goto bad;
			to = strtoul(end + 1, &end, 10);
		}
		if (from > to || to >= CONFIG_MAX_HOST_CPUS || (*end && *end != ','))
			goto bad;
		for (unsigned long i = from; i <= to; i++)
			c->affinity[i / 64] |= 1ULL << i % 64;
		s = end;
	} while (*s++);
	c->has_affinity = true;
	return 0;
bad:
	return err_set(err, -EINVAL, "cpu-affinity: '%s' is not a list of processors like 0-3,8", v);
}

static int set_name(struct config *c, const char *v, struct err *err)
{
	size_t len = strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (!len || v[len] || len > NAME_MAX_LEN || *v == '.' || *v == '-')
		return err_set(err, -EINVAL, "name: '%s' is not 1 to %d letters, digits, '.', '_' or "
			       "'-', the first a letter or digit", v, NAME_MAX_LEN);
	return set_string(&c->name, v, err);
}

static int set_gdb(struct config *c, const char *v, struct err *err)
{
	int rc = gdb_check_where(v, err);

	return rc ? rc : set_string(&c->gdb, v, err);
}

static int set_log_level(struct config *c, const char *v, struct err *err)
{
	return log_level_by_name(v, &c->log_level) ? 0 :
		err_set(err, -EINVAL, "log-level: '%s' is none of err, warn, info, debug", v);
}

static int set_log_format(struct config *c, const char *v, struct err *err)
{
	return log_format_by_name(v, &c->log_format) ? 0 :
		err_set(err, -EINVAL, "log-format: '%s' is neither text nor json", v);
}

static int set_log_file(struct config *c, const char *v, struct err *err)
{
	return *v ? set_string(&c->log_file, v, err) :
		    err_set(err, -EINVAL, "log-file: no name of a file");
}

const struct option config_options[] = {
	{ "kernel", "FILE", "the kernel: a bzImage (vmlinuz), or an ELF file with a PVH entry", false,
	  set_kernel },
	{ "initrd", "FILE", "its initial RAM disk; without this option one beside the kernel is\n"
	  "taken (vmlinuz-V: initrd.img-V, initramfs-V.img; any K: K.initrd);\n"
	  "'none': do not", false, set_initrd },
	{ "append", "TEXT", "add TEXT to the default kernel command line", false, set_append },
	{ "cmdline", "TEXT", "the whole kernel command line, instead of the default", false,
	  set_cmdline },
	{ "mem", "SIZE", "memory, like 512M or 2G (default 512M)", false, set_mem },
	{ "hugepages", NULL, "take it from the host's reserved huge pages", false, set_hugepages },
	{ "cpus", "N", "processors, 1 to 64 (default 1)", false, set_cpus },
	{ "disk", "PATH[,OPT...]", "a disk: an image or a block device; several: vda, vdb, ...\n"
	  "options: readonly, serial=TEXT, format=raw|qcow2, backing=anywhere,\n"
	  "cache=writeback|writethrough, direct, discard=off, write_zeroes=off,\n"
	  "queues=N, iothreads=N, bw=BYTES, bw_burst=BYTES, iops=N, iops_burst=N,\n"
	  "on_error=report|stop; see vmm(1)", true, parse_disk },
	{ "net", "KIND[,OPT...]", "a network card; KIND is one of\n"
	  "  user            NAT, DHCP and DNS by libslirp, without privileges\n"
	  "  passt           the like by the program passt\n"
	  "  nat[=NET]       a network of this host's with NAT, DHCP and DNS, made if\n"
	  "                  need be ('vmm net --help')\n"
	  "  hostonly[=NET]  the like with no way out\n"
	  "  bridge=NAME     a bridge; vlan=N: in VLAN N; vlan=N+N: in these, tagged\n"
	  "  tap=NAME        the tap NAME, which is made if need be\n"
	  "  fd=N            an open tap, or a connected socket\n"
	  "options: mac=02:00:00:12:34:56, mtu=N, iothreads=N, bw_rx=BYTES, bw_tx=BYTES,\n"
	  "pps_rx=N, pps_tx=N, a _burst= for each of these, dump=FILE.pcap;\n"
	  "of tap also queues=N;\n"
	  "of user and passt also\n"
	  "hostfwd=tcp:127.0.0.1:8080-:80 (publish a port; repeatable);\n"
	  "of user also restrict=on, net=10.0.2.0/24, dns=ADDRESS", true, parse_net },
	{ "serial", "WHERE", "the console: stdio (default), pty, file:PATH, unix:PATH, none", false,
	  set_serial },
	{ "transport", "T", "how disks and networks are attached: pci (default) or mmio", false,
	  set_transport },
	{ "aio", "ENGINE", "disk I/O by io_uring, by threads, or auto (default)", false, set_aio },
	{ "name", "NAME", "the VM's name; network addresses are derived from it", false, set_name },
	{ "api-sock", "PATH", "answer the HTTP API on this unix socket; without --kernel, it\n"
	  "starts the VM", false, set_api_sock },
	{ "gdb", "WHERE", "let GDB debug the guest: PORT of this host, tcp:[ADDRESS]:PORT, or\n"
	  "unix:PATH; with ',wait' behind it, wait for it first", false, set_gdb },
	{ "pidfile", "FILE", "write the process id there, and remove it at the end", false,
	  set_pidfile },
	{ "no-reboot", NULL, "when the guest reboots, exit with status 0", false, set_no_reboot },
	{ "track-dirty-pages", NULL, "remember what the guest writes to, for diff snapshots", false,
	  set_track_dirty_pages },
	{ "sandbox", "MODE", "on (default): once the guest runs, vmm can do only what it needs;\n"
	  "log: the host's kernel logs what else it does; off", false, set_sandbox },
	{ "cpu-affinity", "LIST", "run on these of the host's processors only, like 0-3,8", false,
	  set_affinity },
	{ "cpu-quota", "PERCENT", "use no more of the host than this, of one processor, like 150", false,
	  set_cpu_quota },
	{ "mem-limit", "SIZE", "and no more memory than this, for guest and vmm", false, set_mem_limit },
	{ "cgroup", "GROUP", "the control group of these limits, made if it is not there (default\n"
	  "vmm/PID)", false, set_cgroup },
	{ "uid", "N", "become this user, and --gid this group, before anything is opened", false,
	  set_uid },
	{ "gid", "N", "by default the group of the same number", false, set_gid },
	{ "chroot", "DIR", "in this directory, where all paths are from then on; needs --uid", false,
	  set_chroot },
	{ "netns", "NAME", "in this network namespace, a name of ip-netns(8) or a path", false,
	  set_netns },
	{ "log-level", "LEVEL", "err, warn, info (default) or debug", false, set_log_level },
	{ "log-file", "PATH", "the log goes there, not to standard error", false, set_log_file },
	{ "log-format", "FORMAT", "text (default), or json: an object a line", false,
	  set_log_format },
};
const unsigned config_nr_options = ARRAY_SIZE(config_options);

/* --- names ------------------------------------------------------------------------------------------ */

/* Edit distance, where two neighbours that changed places count as one. */
static unsigned distance(const char *a, const char *b)
{
	enum { LONGEST = 32 };
	unsigned d[LONGEST + 1][LONGEST + 1], la = strlen(a), lb = strlen(b);

	if (la > LONGEST || lb > LONGEST)
		return ~0U;
	for (unsigned i = 0; i <= la; i++)
		for (unsigned j = 0; j <= lb; j++) {
			d[i][j] = MAX(i, j);
			if (!i || !j)
				continue;
			d[i][j] = MIN(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
				      MIN(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[la][lb];
}

const char *config_nearest(const char *name, const char *const *names, unsigned nr)
{
	unsigned best = MAX(strlen(name) / 3, 1U) + 1;
	const char *near = NULL;

	for (unsigned i = 0; i < nr; i++) {
		unsigned d = distance(name, names[i]);

		if (strlen(name) >= 3 && !strncmp(name, names[i], strlen(name)))
			d = MIN(d, 1U);		/* the beginning of it... */
		if (strlen(names[i]) >= 3 && !strncmp(name, names[i], strlen(names[i])))
			d = MIN(d, 1U);		/* ...or more than all of it */
		if (d < best) {
			best = d;
			near = names[i];
		}
	}
	return near;
}

static const struct option *find_option(const char *name)
{
	for (unsigned i = 0; i < config_nr_options; i++)
		if (!strcmp(config_options[i].name, name))
			return &config_options[i];
	return NULL;
}

static const char *nearest_option(const char *name)
{
	const char *names[ARRAY_SIZE(config_options) + 3];
	unsigned n = 0;

	for (unsigned i = 0; i < config_nr_options; i++)
		names[n++] = config_options[i].name;
	names[n++] = "config";
	names[n++] = "help";
	names[n++] = "version";
	return config_nearest(name, names, n);
}

/* --- JSON --------------------------------------------------------------------------------------------- */

/* text, which is freed, with ",key=value" at its end; without a key only the value. */
static char *append_pair(char *text, const char *key, const json_t *v, struct err *err)
{
	char number[32], *escaped, *more;
	const char *s = json_string_value(v);
	size_t n = 0;
	int rc;

	if (json_is_boolean(v))
		s = json_is_true(v) ? "true" : "false";
	if (json_is_integer(v)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		s = number;
	}
	if (!s) {
		err_set(err, -EINVAL, "'%s' is neither text, a whole number, true nor false",
			key ? key : "path");
		free(text);
		return NULL;
	}
	escaped = malloc(2 * strlen(s) + 1);
	for (; escaped && *s; s++) {
		if (*s == ',')
			escaped[n++] = ',';
		escaped[n++] = *s;
	}
	if (escaped)
		escaped[n] = 0;
	rc = escaped ? asprintf(&more, "%s%s%s%s%s", text, *text ? "," : "", key ? key : "",
				key ? "=" : "", escaped) : -1;
	free(escaped);
	free(text);
	if (rc < 0)
		err_set(err, -ENOMEM, "out of memory");
	return rc < 0 ? NULL : more;
}

/* An object in a list, {"path": "a", "readonly": true}, as "a,readonly=true".  What is
 * itself a list stands several times. */
static char *object_to_list(const json_t *o, struct err *err)
{
	const json_t *first = json_object_get(o, "path");
	char *text = strdup("");
	const char *key;
	json_t *v, *item;
	size_t i;

	if (!text)
		err_set(err, -ENOMEM, "out of memory");
	if (text && first)
		text = append_pair(text, NULL, first, err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		if (text && json_is_array(v)) {
			json_array_foreach(v, i, item)
				if (text)
					text = append_pair(text, key, item, err);
		} else if (text && v != first) {
			text = append_pair(text, key, v, err);
		}
	}
	return text;
}

static int set_json(struct config *c, const struct option *o, const json_t *v, struct err *err)
{
	char number[32], *list;
	int rc;

	if (json_is_string(v) && o->metavar)
		return o->set(c, json_string_value(v), err);
	if (json_is_boolean(v) && !o->metavar)
		return o->set(c, json_is_true(v) ? "true" : "false", err);
	if (json_is_integer(v) && o->metavar && !o->is_list) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		return o->set(c, number, err);
	}
	if (json_is_object(v) && o->is_list) {
		if (o->set == parse_disk && !*(json_string_value(json_object_get(v, "path")) ?: ""))
			return err_set(err, -EINVAL, "disk: an object needs a \"path\"");
		list = object_to_list(v, err);
		if (!list)
			return err_prefix(err, "%s: ", o->name);
		rc = o->set(c, list, err);
		free(list);
		return rc;
	}
	if (json_is_array(v) && o->is_list) {
		json_t *item;
		size_t i;

		json_array_foreach(v, i, item) {
			rc = json_is_array(item) ? -EINVAL : set_json(c, o, item, err);
			if (rc)
				return json_is_array(item) ?
					err_set(err, rc, "%s: a list in a list", o->name) : rc;
		}
		return 0;
	}
	return err_set(err, -EINVAL, "%s: must be %s", o->name, !o->metavar ? "true or false" :
		       o->is_list ? "text, an object, or a list of these" : "text or a whole number");
}

static int parse_file(struct config *c, const char *path, struct err *err)
{
	json_error_t why;
	json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &why), *v;
	const char *key;
	int rc = 0;

	if (!root && why.line > 0)
		return err_set(err, -EINVAL, "config %s: line %d: %s", path, why.line, why.text);
	if (!root)
		return err_set(err, -EINVAL, "config: %s", why.text);
	if (!json_is_object(root))
		rc = err_set(err, -EINVAL, "config %s: must be an object, like {\"mem\": \"1G\"}", path);
	else
		json_object_foreach(root, key, v) {
			const struct option *o = find_option(key);
			const char *near = nearest_option(key);

			/* Options of the command line only. */
			if (near && !find_option(near))
				near = NULL;
			if (o)
				rc = set_json(c, o, v, err);
			else
				rc = err_set(err, -EINVAL, "unknown option '%s'%s%s%s", key,
					     near ? "; did you mean '" : "", near ? near : "",
					     near ? "'?" : "");
			if (rc) {
				err_prefix(err, "config %s: ", path);
				break;
			}
		}
	json_decref(root);
	return rc;
}

/* --- the command line ------------------------------------------------------------------------------------ */

struct argument {
	const char *name, *value;	/* value NULL: none was given */
	int used;			/* of argv */
};

static struct argument next_argument(int argc, char **argv, char *name, size_t room)
{
	char *eq = strchr(argv[0], '=');
	size_t len = eq ? (size_t)(eq - argv[0]) : strlen(argv[0]);

	snprintf(name, room, "%.*s", (int)(len - 2), argv[0] + 2);
	if (eq)
		return (struct argument){ name, eq + 1, 1 };
	return (struct argument){ name, argc > 1 ? argv[1] : NULL, 2 };
}

void config_drop_disk(struct disk_config *d)
{
	free(d->path);
	free(d->format);
	free(d->id);
	free(d->partuuid);
	*d = (struct disk_config){ 0 };
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
	return set_string(&n->tap, tap, err);
}

static void clear_list(struct config *c, const struct option *o)
{
	if (o->set == parse_disk)
		while (c->nr_disks)
			config_drop_disk(&c->disk[--c->nr_disks]);
	else
		while (c->nr_nets)
			config_drop_net(&c->net[--c->nr_nets]);
}

static int unknown_option(const char *arg, const char *name, struct err *err)
{
	const char *near = nearest_option(name);

	return near ? err_set(err, -EINVAL, "unknown option '%s'; did you mean '--%s'?", arg, near) :
		      err_set(err, -EINVAL, "unknown option '%s'; 'vmm --help' lists all", arg);
}

/* One pass over argv: pass 0 takes --config, --help and --version, pass 1 all else. */
static int parse_args(struct config *c, int argc, char **argv, int pass, bool *help, bool *version,
		      struct err *err)
{
	const struct option *cleared[2] = { NULL, NULL };
	bool cmdline_seen = false;
	int rc = 0;

	for (int i = 0, used; i < argc && !rc; i += used) {
		const struct option *o;
		struct argument a;
		char name[40];

		used = 1;
		if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
			*help = true;
			continue;
		}
		if (!strcmp(argv[i], "--version")) {
			*version = true;
			continue;
		}
		if (argv[i][0] == '-' && argv[i][1] && argv[i][1] != '-' && argv[i][2])
			return unknown_option(argv[i], argv[i] + 1, err);
		if (strncmp(argv[i], "--", 2) || !argv[i][2])
			return err_set(err, -EINVAL, "'%s' is not an option; 'vmm --help' lists all",
				       argv[i]);
		a = next_argument(argc - i, argv + i, name, sizeof(name));
		used = a.used;
		o = find_option(a.name);
		if (!o && strcmp(a.name, "config"))
			return unknown_option(argv[i], a.name, err);
		if (o && !o->metavar) {
			if (used == 2)
				a.value = "true";
			used = 1;
		}
		if (!a.value)
			return err_set(err, -EINVAL, "--%s needs a value: --%s %s", a.name, a.name,
				       o ? o->metavar : "FILE.json");
		if (!o) {
			if (pass == 0)
				rc = parse_file(c, a.value, err);
			continue;
		}
		if (pass == 0)
			continue;
		if (o->is_list && cleared[o->set == parse_disk] != o) {
			cleared[o->set == parse_disk] = o;
			clear_list(c, o);
		}
		/* Added text is a list of its own: the file's is replaced, too, also by
		 * the other of these two, which exclude each other. */
		if (!cmdline_seen && (o->set == set_append || o->set == set_cmdline)) {
			free(c->append);
			free(c->cmdline);
			c->append = c->cmdline = NULL;
			cmdline_seen = true;
		}
		rc = o->set(c, a.value, err);
		if (rc)
			err_prefix(err, "--");
	}
	return rc;
}

int config_check(const struct config *c, struct err *err)
{
	/* PCI: a bus's slots but the host bridge's and the entropy source's. */
	unsigned most = c->transport == TRANSPORT_MMIO ? 16 : 30, threads = 0;

	if (c->cmdline && c->append)
		return err_set(err, -EINVAL, "--cmdline replaces the default that --append adds to; use "
			       "one of them");
	if (c->mem % MIB || c->mem / MIB < CONFIG_MEM_MIN_MIB || c->mem / MIB > CONFIG_MEM_MAX_MIB || !c->cpus)
		return err_set(err, -EINVAL, "%llu bytes of memory and %u processors are no machine",
			       (unsigned long long)c->mem, c->cpus);
	for (unsigned i = 0; i < c->nr_disks; i++)
		threads += c->disk[i].iothreads;
	for (unsigned i = 0; i < c->nr_nets; i++)
		threads += c->net[i].iothreads;
	if (threads > CONFIG_MAX_IOTHREADS)
		return err_set(err, -EINVAL, "iothreads are %u in all; at most %d are possible",
			       threads, CONFIG_MAX_IOTHREADS);
	if (c->nr_disks + c->nr_nets > most)
		return err_set(err, -EINVAL, "%u disks and networks are too many: with --transport %s at "
			       "most %u", c->nr_disks + c->nr_nets,
			       c->transport == TRANSPORT_MMIO ? "mmio" : "pci", most);
	if (c->mem_limit && c->mem_limit < c->mem + 16 * MIB)
		return err_set(err, -EINVAL, "--mem-limit %lluM: with --mem %lluM vmm itself needs at least "
			       "%lluM", (unsigned long long)(c->mem_limit / MIB), (unsigned long long)(c->mem / MIB),
			       (unsigned long long)(c->mem / MIB + 16));
	if (c->has_gid && !c->has_uid)
		return err_set(err, -EINVAL, "--gid is of a user: give --uid, too");
	if (c->chroot && !c->has_uid)
		return err_set(err, -EINVAL, "--chroot holds no root: give --uid, of one who is nobody else");
	if (c->hugepages && c->mem % (2 * MIB))
		return err_set(err, -EINVAL, "--mem: with --hugepages a multiple of 2M, not %lluM",
			       (unsigned long long)(c->mem / MIB));
	for (unsigned i = 0; i < c->nr_nets; i++) {
		int rc = check_host_net(&c->net[i], err);

		if (rc)
			return rc;
		if (c->chroot && c->net[i].mode != NET_TAP && c->net[i].mode != NET_FD)
			return err_set(err, -EINVAL, "--net %s: with --chroot there are tap= and fd= only",
				       config_net_kind(&c->net[i]));
		for (unsigned j = 0; j < i; j++) {
			const struct net_config *a = &c->net[i], *b = &c->net[j];

			if (a->tap && b->tap && !strcmp(a->tap, b->tap))
				return err_set(err, -EINVAL, "--net: tap '%s' is given twice", a->tap);
			if (a->dump && b->dump && !strcmp(a->dump, b->dump))
				return err_set(err, -EINVAL, "--net: dump '%s' is given twice", a->dump);
			if (a->mode == NET_FD && b->mode == NET_FD && a->fd == b->fd)
				return err_set(err, -EINVAL, "--net: fd %d is given twice", a->fd);
		}
	}
	return 0;
}

int config_parse(struct config *c, int argc, char **argv, bool *help, bool *version,
		 struct err *err)
{
	int rc;

	*help = *version = false;
	rc = parse_args(c, argc, argv, 0, help, version, err);
	if (rc || *help || *version)
		return rc;
	rc = parse_args(c, argc, argv, 1, help, version, err);
	if (!rc && !c->kernel && !c->api_sock)
		rc = err_set(err, -EINVAL, "no kernel: give one with --kernel FILE ('vmm --help' shows "
			     "the options)");
	return rc ? rc : config_check(c, err);
}

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	c->mem = 512 * MIB;
	c->cpus = 1;
	c->log_level = LOG_INFO;
}

void config_forget_machine(struct config *c)
{
	for (unsigned i = 0; i < config_nr_options; i++)
		if (config_options[i].is_list)
			clear_list(c, &config_options[i]);
	free(c->kernel);
	free(c->initrd);
	free(c->append);
	free(c->cmdline);
	c->kernel = c->initrd = c->append = c->cmdline = NULL;
}

void config_fini(struct config *c)
{
	for (unsigned i = 0; i < config_nr_options; i++)
		if (config_options[i].is_list)
			clear_list(c, &config_options[i]);
	free(c->kernel);
	free(c->initrd);
	free(c->append);
	free(c->cmdline);
	free(c->serial);
	free(c->name);
	free(c->pidfile);
	free(c->gdb);
	free(c->api_sock);
	free(c->log_file);
	free(c->cgroup);
	free(c->chroot);
	free(c->netns);
}
