/* configs.c: see configs.h. */
#include "tests/fuzz/lib/configs.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_one_of(const char *text, const char *const *list)
{
	while (*list && strcmp(*list, text))
		list++;
	return *list;
}

static void check_text(const char *name, const char *text)
{
	fuzz_check(!text || *text, "%s is empty", name);
}

static void check_disk(const struct disk_config *d)
{
	static const char *const formats[] = { "raw", "qcow2", NULL };

	fuzz_check(d->path && *d->path, "a disk without a path");
	fuzz_check(!d->format || is_one_of(d->format, formats), "format '%s'", d->format);
	fuzz_check(strnlen(d->serial, sizeof(d->serial)) <= CONFIG_SERIAL_LEN, "serial without end");
	fuzz_check(d->queues <= CONFIG_MAX_QUEUES && d->iothreads <= CONFIG_MAX_QUEUES,
		   "%u queues, %u threads", d->queues, d->iothreads);
	fuzz_check((!d->limit.bytes.burst || d->limit.bytes.rate) &&
		   (!d->limit.ops.burst || d->limit.ops.rate), "a burst without a rate");
}

/* Numbers from 1 to 4094, with + and - between them. */
static bool is_vlan_list(const char *s)
{
	bool after_minus = false;

	for (;; s++) {
		unsigned n = 0;

		for (; *s >= '0' && *s <= '9' && n < 4095; s++)
			n = 10 * n + *s - '0';
		if (n < 1 || n > 4094 || (*s == '-' && after_minus) || !*s)
			return n >= 1 && n <= 4094 && !*s;
		if (*s != '-' && *s != '+')
			return false;
		after_minus = *s == '-';
	}
}

static void check_host_net(const struct net_config *n)
{
	const char *name = n->bridge ?: n->host_network ?: "x";

	fuzz_check(!!n->bridge == (n->mode == NET_BRIDGE) &&
		   !!n->host_network == (n->mode == NET_NAT || n->mode == NET_HOSTONLY),
		   "names of another kind of network");
	fuzz_check(*name && strlen(name) < (n->host_network ? 12 : 16) &&
		   !strpbrk(name, "/ \t\n:%\x7f"), "name '%s'", name);
	fuzz_check(!n->vlan || (n->bridge && is_vlan_list(n->vlan)), "vlan '%s'", n->vlan);
}

static void check_net(const struct net_config *n)
{
	bool is_user = n->mode == NET_USER, forwards = is_user || n->mode == NET_PASST;

	fuzz_check(n->mode >= NET_USER && n->mode <= NET_HOSTONLY, "a network of no kind");
	fuzz_check(n->mode != NET_TAP || (n->tap && *n->tap && strlen(n->tap) < 16), "tap '%s'",
		   n->tap);
	fuzz_check(n->mode == NET_TAP || !n->tap, "tap '%s' of a network that has none", n->tap);
	fuzz_check(n->mode != NET_FD || n->fd > 2, "fd %d", n->fd);
	fuzz_check(is_user || (!n->restricted && !n->network.s_addr && !n->dns.s_addr),
		   "options of another kind of network");
	fuzz_check(!n->network.s_addr || (n->prefix_len >= 8 && n->prefix_len <= 27 &&
		   !(ntohl(n->network.s_addr) << n->prefix_len)), "a network of %u bits",
		   n->prefix_len);
	fuzz_check(forwards || !n->nr_forwards, "ports that nobody publishes");
	for (unsigned i = 0; i < n->nr_forwards; i++)
		fuzz_check(n->forward[i].host_port && n->forward[i].guest_port &&
			   (is_user || !n->forward[i].guest.s_addr), "hostfwd %u", i);
	check_host_net(n);
	fuzz_check(!n->has_mac || (!(n->mac[0] & 1) && (n->mac[0] | n->mac[1] | n->mac[2] |
		   n->mac[3] | n->mac[4] | n->mac[5])), "an address that is none");
}

static void check_sound(const struct config *c)
{
	check_text("kernel", c->kernel);
	check_text("api-sock", c->api_sock);
	check_text("gdb", c->gdb);
	fuzz_check(c->kernel || c->api_sock, "no kernel, and nobody to name one");
	check_text("initrd", c->initrd);
	check_text("pidfile", c->pidfile);
	check_text("name", c->name);
	check_text("serial", c->serial);
	fuzz_check(!c->name || !strpbrk(c->name, "/\n \"'"), "name '%s'", c->name);
	fuzz_check(!c->append || !c->cmdline, "both append and cmdline");
	fuzz_check(c->mem >= 16 * MIB && c->mem <= 1023 * GIB && c->mem % MIB == 0, "mem %#llx",
		   (unsigned long long)c->mem);
	fuzz_check(!c->hugepages || c->mem % (2 * MIB) == 0, "mem %#llx of huge pages",
		   (unsigned long long)c->mem);
	fuzz_check(c->cpus >= 1 && c->cpus <= CONFIG_MAX_CPUS, "cpus %u", c->cpus);
	fuzz_check(c->transport <= TRANSPORT_MMIO && c->aio <= AIO_THREADS &&
		   c->log_level <= LOG_DEBUG, "an enum out of its range");
	fuzz_check(c->nr_disks + c->nr_nets <= (c->transport == TRANSPORT_PCI ? 30 : 16),
		   "%u disks, %u networks", c->nr_disks, c->nr_nets);
	for (unsigned i = 0; i < c->nr_disks; i++)
		check_disk(&c->disk[i]);
	for (unsigned i = 0; i < c->nr_nets; i++)
		check_net(&c->net[i]);
}

int configs_parse(struct config *c, int argc, char **argv, struct err *err)
{
	bool help, version;
	int rc;

	memset(err, 0, sizeof(*err));
	config_init(c);
	rc = config_parse(c, argc, argv, &help, &version, err);
	fuzz_check(err->code == rc && !rc == !*err->msg, "%d, and %d says '%s'", rc, err->code,
		   err->msg);
	fuzz_check(!rc || rc == -EINVAL, "%d: %s", rc, err->msg);
	if (!rc && !help && !version)
		check_sound(c);
	return rc;
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool same_disk(const struct disk_config *a, const struct disk_config *b)
{
	return same(a->path, b->path) && same(a->format, b->format) && same(a->serial, b->serial) &&
	       a->read_only == b->read_only && a->backing_anywhere == b->backing_anywhere &&
	       a->direct == b->direct && a->write_through == b->write_through &&
	       a->no_discard == b->no_discard && a->no_write_zeroes == b->no_write_zeroes &&
	       a->stop_on_error == b->stop_on_error && a->queues == b->queues &&
	       a->iothreads == b->iothreads && !memcmp(&a->limit, &b->limit, sizeof(a->limit));
}

static bool same_net(const struct net_config *a, const struct net_config *b)
{
	bool is = a->mode == b->mode && same(a->tap, b->tap) && a->fd == b->fd &&
		  same(a->bridge, b->bridge) && same(a->vlan, b->vlan) &&
		  same(a->host_network, b->host_network) &&
		  a->restricted == b->restricted && a->network.s_addr == b->network.s_addr &&
		  a->prefix_len == b->prefix_len && a->dns.s_addr == b->dns.s_addr &&
		  a->has_mac == b->has_mac && !memcmp(a->mac, b->mac, 6) &&
		  a->nr_forwards == b->nr_forwards;

	for (unsigned i = 0; is && i < a->nr_forwards; i++) {
		const struct net_forward *f = &a->forward[i], *g = &b->forward[i];

		is = f->udp == g->udp && f->host.s_addr == g->host.s_addr &&
		     f->host_port == g->host_port && f->guest.s_addr == g->guest.s_addr &&
		     f->guest_port == g->guest_port;
	}
	return is;
}

bool configs_same(const struct config *a, const struct config *b)
{
	bool is = same(a->kernel, b->kernel) && same(a->initrd, b->initrd) &&
		  same(a->append, b->append) && same(a->cmdline, b->cmdline) &&
		  same(a->serial, b->serial) && same(a->name, b->name) &&
		  same(a->pidfile, b->pidfile) && same(a->api_sock, b->api_sock) && same(a->gdb, b->gdb) &&
		  a->track_dirty_pages == b->track_dirty_pages && a->mem == b->mem && a->cpus == b->cpus &&
		  a->hugepages == b->hugepages && a->no_reboot == b->no_reboot &&
		  a->transport == b->transport && a->aio == b->aio &&
		  a->log_level == b->log_level && a->nr_disks == b->nr_disks &&
		  a->nr_nets == b->nr_nets;

	for (unsigned i = 0; is && i < a->nr_disks; i++)
		is = same_disk(&a->disk[i], &b->disk[i]);
	for (unsigned i = 0; is && i < a->nr_nets; i++)
		is = same_net(&a->net[i], &b->net[i]);
	return is;
}

const struct option *configs_pick(struct fuzz *f, char *value, size_t len)
{
	static const char *const liked[] = {
		"512M", "1G", "15M", "2048", "99999999999999999999", "0x10", "1", "64", "65", "0",
		"disk.qcow2", "a,readonly", "a,serial=x,format=raw", "a,,b,backing=anywhere", ",",
		"user", "passt,hostfwd=tcp::80-:80", "fd=7", "user,restrict=on,net=10.1.0.0/16,dns=9.9.9.9",
		"user,hostfwd=udp:127.0.0.1:53-10.0.2.15:5353,hostfwd=::1-:65535",
		"tap=tap0", "tap=t,mac=02:00:00:00:00:01", "mac=01:00:00:00:00:01,tap=x", "stdio",
		"nat", "nat=lab,mac=02:00:00:00:00:01", "hostonly=h", "bridge=br0,vlan=1+7-4094",
		"file:x", "unix:", "pci", "mmio", "threads", "auto", "true", "off", "vm-1", "-x", "",
		"debug", "a b=c", "a,queues=4,iothreads=3,direct,on_error=stop",
		"a,bw=1M,bw_burst=2M,iops=7,cache=writethrough,discard=off", "a,iops_burst=1",
	};
	const struct option *o = &config_options[fuzz_below(f, config_nr_options)];
	u8 b = fuzz_u8(f);

	if (b < 0x80)
		fuzz_text(f, value, len - 1);
	else
		snprintf(value, len, "%s", liked[b % ARRAY_SIZE(liked)]);
	return o;
}
