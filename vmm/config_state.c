/* config_state.c: what a machine was made by, saved with it and loaded again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/config.h"
#include "vmm/core/state.h"

static void limit_rate_state(struct state *s, const char *name, struct limit_rate *r)
{
	if (!state_if(s, name, r->rate))
		return;
	state_u64(s, "rate", &r->rate);
	state_u64(s, "burst", &r->burst);
	state_u64(s, "extra", &r->extra);
	state_leave(s);
}

static void disk_state(struct state *s, struct disk_config *d)
{
	size_t len = strlen(d->serial);

	state_string(s, "path", &d->path);
	state_string(s, "format", &d->format);
	state_some_bytes(s, "serial", d->serial, &len, sizeof(d->serial) - 1);
	d->serial[len] = 0;
	state_bool(s, "read-only", &d->read_only);
	state_bool(s, "backing-anywhere", &d->backing_anywhere);
	state_bool(s, "direct", &d->direct);
	state_bool(s, "write-through", &d->write_through);
	state_bool(s, "no-discard", &d->no_discard);
	state_bool(s, "no-write-zeroes", &d->no_write_zeroes);
	state_bool(s, "stop-on-error", &d->stop_on_error);
	state_u32(s, "queues", &d->queues);
	state_u32(s, "iothreads", &d->iothreads);
	state_string(s, "id", &d->id);
	state_string(s, "partuuid", &d->partuuid);
	state_bool(s, "is-root", &d->is_root);
	state_bool(s, "is-base", &d->is_base);
	state_bool(s, "no-flush", &d->no_flush);
	state_bool(s, "async", &d->async);
	limit_rate_state(s, "bytes-limit", &d->limit.bytes);
	limit_rate_state(s, "ops-limit", &d->limit.ops);
	if (state_if(s, "guessed", d->guessed)) {
		d->guessed = true;
		state_leave(s);
	}
	if (state_loading(s) && !state_failed(s) && !d->path)
		state_fail(s, "path is missing");
	if (state_loading(s) && !state_failed(s) && d->is_base && !d->format)
		state_fail(s, "format is missing");
	if (d->queues > CONFIG_MAX_QUEUES || d->iothreads > CONFIG_MAX_QUEUES)
		state_fail(s, "%u queues, %u threads", d->queues, d->iothreads);
}

static void number(struct state *s, const char *name, unsigned *value, unsigned max)
{
	state_u32(s, name, value);
	if (*value > max) {
		state_fail(s, "%s is %u, more than %u", name, *value, max);
		*value = 0;
	}
}

static void forward_state(struct state *s, struct net_forward *f)
{
	state_bool(s, "udp", &f->udp);
	state_u32(s, "host", &f->host.s_addr);
	state_u16(s, "host-port", &f->host_port);
	state_u32(s, "guest", &f->guest.s_addr);
	state_u16(s, "guest-port", &f->guest_port);
	if (state_loading(s) && !state_failed(s) && (!f->host_port || !f->guest_port))
		state_fail(s, "port is 0");
}

/* What a tap does not have. */
static void net_kind_state(struct state *s, struct net_config *n)
{
	u32 mode = n->mode, fd = n->fd, nr_forwards = n->nr_forwards;

	if (!state_if(s, "kind", n->mode != NET_TAP)) {
		n->mode = NET_TAP;
		return;
	}
	state_u32(s, "mode", &mode);
	state_u32(s, "fd", &fd);
	state_bool(s, "restricted", &n->restricted);
	state_u32(s, "network", &n->network.s_addr);
	state_u8(s, "prefix-len", &n->prefix_len);
	state_u32(s, "dns", &n->dns.s_addr);
	state_string(s, "bridge", &n->bridge);
	state_string(s, "vlan", &n->vlan);
	state_string(s, "host-network", &n->host_network);
	number(s, "nr-forwards", &nr_forwards, CONFIG_MAX_FORWARDS);
	if (mode == NET_NONE || mode > NET_HOSTONLY || fd > INT32_MAX ||
	    (n->network.s_addr && (n->prefix_len < 8 || n->prefix_len > 27)))
		state_fail(s, "kind %u, descriptor %u, network of %u bits", mode, fd, n->prefix_len);
	n->mode = mode;
	n->fd = fd;
	if (state_loading(s) && !state_failed(s)) {
		n->forward = calloc(nr_forwards, sizeof(*n->forward));
		n->nr_forwards = n->forward ? nr_forwards : 0;
		if (n->nr_forwards != nr_forwards)
			state_error(s, -ENOMEM, NULL);
	}
	for (unsigned i = 0; i < n->nr_forwards; i++) {
		state_enter(s, "forward", i);
		forward_state(s, &n->forward[i]);
		state_leave(s);
	}
	state_leave(s);
}

static void net_state(struct state *s, struct net_config *n)
{
	state_string(s, "tap", &n->tap);
	state_bool(s, "has-mac", &n->has_mac);
	state_bytes(s, "mac", n->mac, sizeof(n->mac));
	state_u16(s, "mtu", &n->mtu);
	state_string(s, "id", &n->id);
	limit_rate_state(s, "rx-bytes-limit", &n->rx.bytes);
	limit_rate_state(s, "rx-ops-limit", &n->rx.ops);
	limit_rate_state(s, "tx-bytes-limit", &n->tx.bytes);
	limit_rate_state(s, "tx-ops-limit", &n->tx.ops);
	if (state_if(s, "control-queue", !n->plain))
		state_leave(s);
	else
		n->plain = true;
	if (state_if(s, "queues", n->queues || n->iothreads)) {
		number(s, "nr", &n->queues, CONFIG_MAX_PAIRS);
		number(s, "threads", &n->iothreads, config_net_pairs(n));
		state_leave(s);
	}
	if (state_if(s, "vhost", n->vhost)) {
		unsigned vhost = n->vhost;

		number(s, "mode", &vhost, NET_VHOST_ON);
		n->vhost = vhost;
		state_leave(s);
	}
	net_kind_state(s, n);
	if (state_loading(s) && !state_failed(s) && n->mode == NET_TAP && !n->tap)
		state_fail(s, "tap is missing");
	if (n->mode != NET_TAP && n->queues > 1)
		state_fail(s, "%u queues, and no tap", n->queues);
}

static void mmds_state(struct state *s, struct mmds_config *m, unsigned nr_nets)
{
	if (!state_if(s, "mmds", m->cards))
		return;
	state_u32(s, "cards", &m->cards);
	state_bool(s, "v2", &m->v2);
	state_bool(s, "imds-compat", &m->imds_compat);
	state_u32(s, "address", &m->address.s_addr);
	if (m->cards >> nr_nets || !config_mmds_address_valid(m->address))
		state_fail(s, "cards %#x of %u, or an address that is not link-local", m->cards, nr_nets);
	state_leave(s);
}

void config_state(struct config *c, struct state *s)
{
	unsigned transport = c->transport;

	state_enter(s, "config", 0);
	state_string(s, "kernel", &c->kernel);
	state_string(s, "initrd", &c->initrd);
	state_string(s, "append", &c->append);
	state_string(s, "cmdline", &c->cmdline);
	state_string(s, "name", &c->name);
	state_u64(s, "mem", &c->mem);
	number(s, "cpus", &c->cpus, CONFIG_MAX_CPUS);
	number(s, "transport", &transport, TRANSPORT_MMIO);
	c->transport = transport;
	number(s, "nr-disks", &c->nr_disks, CONFIG_MAX_DISKS);
	number(s, "nr-nets", &c->nr_nets, CONFIG_MAX_NETS);
	for (unsigned i = 0; i < c->nr_disks; i++) {
		state_enter(s, "disk", i);
		disk_state(s, &c->disk[i]);
		state_leave(s);
	}
	for (unsigned i = 0; i < c->nr_nets; i++) {
		state_enter(s, "net", i);
		net_state(s, &c->net[i]);
		state_leave(s);
	}
	limit_rate_state(s, "entropy-bytes-limit", &c->entropy.bytes);
	limit_rate_state(s, "entropy-ops-limit", &c->entropy.ops);
	if (state_if(s, "vsock", c->vsock.path)) {
		state_string(s, "path", &c->vsock.path);
		state_u32(s, "cid", &c->vsock.cid);
		if (state_loading(s) && !state_failed(s) && !c->vsock.path)
			state_fail(s, "path is missing");
		state_leave(s);
	}
	if (state_if(s, "smt", c->smt)) {
		c->smt = true;
		state_leave(s);
	}
	mmds_state(s, &c->mmds, c->nr_nets);
	state_leave(s);
}
