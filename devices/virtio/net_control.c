/* net_control.c: a network card's control queue and what it filters (virtio 1.2, 5.1.6.5). */
#include <endian.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <string.h>
#include "devices/virtio/net_own.h"
#include "vmm/core/state.h"

enum {
	COMMAND_MAX = 64 * 1024,	/* longer than any */
	CONTROL_BUDGET = 8,		/* for some the host's kernel takes a millisecond */
};

/* --- filters -------------------------------------------------------------------------------- */

static const u8 everybody[ETH_ALEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static bool in_table(const struct filter *f, const u8 *mac)
{
	for (unsigned i = 0; i < f->nr_macs; i++)
		if (!memcmp(f->mac[i], mac, ETH_ALEN))
			return true;
	return false;
}

bool net_wanted(const struct virtio_net *n, const u8 *head, size_t len)
{
	const struct filter *f = &n->filter;

	if (f->promisc)
		return true;
	if (len < ETH_HLEN)
		return false;
	if (len >= ETH_HLEN + 4 && head[12] == ETH_P_8021Q >> 8 && head[13] == (ETH_P_8021Q & 0xff)) {
		unsigned id = (head[14] & 0xf) << 8 | head[15];

		if (virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) && !(f->vlan[id / 8] >> id % 8 & 1))
			return false;
	}
	if (!memcmp(head, everybody, ETH_ALEN))
		return !f->no_bcast;
	if (*head & 1)
		return !f->no_multi && (f->all_multi || f->too_many_multi || in_table(f, head));
	return !f->no_uni && (f->all_uni || f->too_many_uni ||
			      !memcmp(n->config.mac, head, ETH_ALEN) || in_table(f, head));
}

static bool is_group(const u8 *mac)
{
	return *mac & 1;
}

static void let_in(struct net_filter *to, const u8 *mac)
{
	memcpy(to->mac[to->nr++], mac, ETH_ALEN);
}

void net_filter_on_host(struct virtio_net *n)
{
	static const u8 nobody[ETH_ALEN];
	const struct filter *f = &n->filter;
	struct net_filter to = { .all_groups = !f->no_multi && (f->all_multi || f->too_many_multi) };
	struct net *net = n->pair[0]->net;

	if (!n->pair[0]->vhost || !net->ops->set_filter)
		return;
	if (n->filters_on_host && !f->promisc && (f->no_uni || !(f->all_uni || f->too_many_uni))) {
		if (!f->no_uni)
			let_in(&to, n->config.mac);
		for (unsigned i = 0; i < f->nr_macs; i++)
			if (!is_group(f->mac[i]) && !f->no_uni)
				let_in(&to, f->mac[i]);
		if (!f->no_bcast)
			let_in(&to, everybody);
		for (unsigned i = 0; i < f->nr_macs; i++)
			if (is_group(f->mac[i]) && !f->no_multi)
				let_in(&to, f->mac[i]);
		if (!to.nr)
			let_in(&to, nobody);
	}
	net->ops->set_filter(net, &to);
}

/* --- saved and reset ------------------------------------------------------------------------ */

static bool rss_valid(const struct virtio_net *n, const struct net_rss *r)
{
	bool valid = virtio_has(&n->v, VIRTIO_NET_F_RSS) && !(r->hash_types & ~NET_HASH_TYPES) &&
		     r->mask < NET_RSS_TABLE_LEN && !(r->mask & (r->mask + 1)) &&
		     r->unclassified < n->nr_pairs;

	for (unsigned i = 0; i <= r->mask && valid; i++)
		valid = r->table[i] < n->nr_pairs;
	return valid;
}

static void rss_state(struct virtio_net *n, struct state *s)
{
	struct net_rss *r = &n->rss;

	n->by_hash = state_if(s, "rss", n->by_hash);
	if (!n->by_hash)
		return;
	state_u32(s, "hash-types", &r->hash_types);
	state_u16(s, "mask", &r->mask);
	state_u16(s, "unclassified", &r->unclassified);
	state_bytes(s, "table", r->table, sizeof(r->table));
	state_bytes(s, "key", r->key, sizeof(r->key));
	if (state_loading(s) && !rss_valid(n, r)) {
		state_fail(s, "receive-side scaling by hashes %#x, a table of %u, pairs of %u",
			   r->hash_types, r->mask + 1U, n->nr_pairs);
		net_control_reset(n);
	}
	state_leave(s);
}

/* Whoever made it is not to be trusted. */
void net_control_state(struct virtio *v, struct state *s)
{
	struct virtio_net *n = container_of(v, struct virtio_net, v);
	struct filter *f = &n->filter;
	bool announce = le16toh(n->config.status) & VIRTIO_NET_S_ANNOUNCE;

	state_bytes(s, "mac", n->config.mac, sizeof(n->config.mac));
	/* A copy's far end is another: that ours is gone says nothing of it. */
	state_bool(s, "link", &n->plugged);
	state_bool(s, "announce", &announce);
	state_u32(s, "active-pairs", &n->active);
	state_u64(s, "offload-off", &n->offload_off);
	state_bool(s, "promiscuous", &f->promisc);
	state_bool(s, "all-multicast", &f->all_multi);
	state_bool(s, "all-unicast", &f->all_uni);
	state_bool(s, "no-multicast", &f->no_multi);
	state_bool(s, "no-unicast", &f->no_uni);
	state_bool(s, "no-broadcast", &f->no_bcast);
	state_bool(s, "too-many-unicast", &f->too_many_uni);
	state_bool(s, "too-many-multicast", &f->too_many_multi);
	state_u32(s, "nr-macs", &f->nr_macs);
	state_bytes(s, "macs", f->mac, sizeof(f->mac));
	state_bytes(s, "vlans", f->vlan, sizeof(f->vlan));
	rss_state(n, s);
	if (!state_loading(s))
		return;
	if (n->config.mac[0] & 1 || f->nr_macs > MACS_MAX || !n->active || n->active > n->nr_pairs) {
		state_fail(s, "address %02x:..., %u addresses, %u pairs of %u", n->config.mac[0],
			   f->nr_macs, n->active, n->nr_pairs);
		net_control_reset(n);
	}
	store_once(&n->link, n->plugged);
	net_set_status(n, VIRTIO_NET_S_LINK_UP, n->plugged);
	net_set_status(n, VIRTIO_NET_S_ANNOUNCE, announce);
	net_apply_link(n);
}

void net_control_reset(struct virtio_net *n)
{
	/* Drivers that know of no filters see everything. */
	n->filter = (struct filter){ .promisc = true };
	memcpy(n->config.mac, n->mac, sizeof(n->mac));
	n->offload_off = 0;
	n->active = 1;
	n->by_hash = false;
	net_set_status(n, VIRTIO_NET_S_ANNOUNCE, false);
}

/* --- commands: true: done ------------------------------------------------------------------- */

static bool get(struct sg *data, void *to, size_t len)
{
	return sg_read(data, to, len) == len;
}

static bool set_rx_mode(struct virtio_net *n, u8 cmd, struct sg *data)
{
	bool *const mode[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &n->filter.promisc,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &n->filter.all_multi,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &n->filter.all_uni,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &n->filter.no_multi,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &n->filter.no_uni,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &n->filter.no_bcast,
	};
	unsigned needs = cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX :
							      VIRTIO_NET_F_CTRL_RX_EXTRA;
	u8 on;

	if (cmd >= ARRAY_SIZE(mode) || !virtio_has(&n->v, needs) || !get(data, &on, 1) || data->len)
		return false;
	*mode[cmd] = on;
	return true;
}

/* One list of the table; what has no room is not an error, but lets all of its kind in. */
static bool get_macs(struct filter *f, struct sg *data, bool *too_many)
{
	u32 nr;

	if (!get(data, &nr, sizeof(nr)))
		return false;
	nr = le32toh(nr);
	if (nr > data->len / ETH_ALEN)
		return false;
	*too_many = false;
	while (nr--) {
		u8 mac[ETH_ALEN];

		if (!get(data, mac, sizeof(mac)))
			return false;
		if (f->nr_macs == MACS_MAX)
			*too_many = true;
		else
			memcpy(f->mac[f->nr_macs++], mac, sizeof(mac));
	}
	return true;
}

static bool set_macs(struct virtio_net *n, struct sg *data)
{
	struct filter f = n->filter;

	f.nr_macs = 0;
	if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX) || !get_macs(&f, data, &f.too_many_uni) ||
	    !get_macs(&f, data, &f.too_many_multi) || data->len)
		return false;
	n->filter = f;
	return true;
}

static bool set_own_mac(struct virtio_net *n, struct sg *data)
{
	u8 mac[ETH_ALEN];

	if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) || !get(data, mac, sizeof(mac)) ||
	    data->len || mac[0] & 1)
		return false;
	memcpy(n->config.mac, mac, sizeof(mac));
	return true;
}

static bool set_vlan(struct virtio_net *n, bool on, struct sg *data)
{
	u16 id;

	if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) || !get(data, &id, sizeof(id)) || data->len)
		return false;
	id = le16toh(id);
	if (id >= VLANS)
		return false;
	if (on)
		n->filter.vlan[id / 8] |= 1 << id % 8;
	else
		n->filter.vlan[id / 8] &= ~(1 << id % 8);
	return true;
}

/* rss NULL: as the host thinks best. */
static bool steer(struct virtio_net *n, unsigned active, const struct net_rss *rss)
{
	struct net_rss old_rss = n->rss;
	unsigned old_active = n->active;
	bool old_by_hash = n->by_hash;

	n->active = active;
	n->by_hash = rss;
	if (rss)
		n->rss = *rss;
	if (!net_steer(n))
		return true;
	n->active = old_active;
	n->by_hash = old_by_hash;
	n->rss = old_rss;
	(void)!net_steer(n);
	return false;
}

static bool set_pairs(struct virtio_net *n, struct sg *data)
{
	u16 nr;

	if (!virtio_has(&n->v, VIRTIO_NET_F_MQ) || !get(data, &nr, sizeof(nr)) || data->len)
		return false;
	nr = le16toh(nr);
	return nr && nr <= n->nr_pairs && steer(n, nr, NULL);
}

static bool get_queue(struct sg *data, unsigned nr_pairs, u8 *queue)
{
	u16 q;

	if (!get(data, &q, sizeof(q)) || le16toh(q) >= nr_pairs)
		return false;
	*queue = (u8)le16toh(q);
	return true;
}

/* A pair that the driver sends by has to be there, too.  Linux, since 6.12, has a byte more at
 * the end than there should be. */
static bool set_rss(struct virtio_net *n, struct sg *data)
{
	struct virtio_net_rss_config c;
	struct net_rss r = { 0 };
	unsigned active;
	u16 nr_tx;
	u8 key_len;

	if (!get(data, &c, offsetof(struct virtio_net_rss_config, indirection_table)))
		return false;
	r.hash_types = le32toh(c.hash_types);
	r.mask = le16toh(c.indirection_table_mask);
	r.unclassified = le16toh(c.unclassified_queue);
	for (unsigned i = 0; i <= MIN(r.mask, NET_RSS_TABLE_LEN - 1); i++)
		if (!get_queue(data, n->nr_pairs, &r.table[i]))
			return false;
	if (!get(data, &nr_tx, sizeof(nr_tx)) || !get(data, &key_len, 1) || key_len > sizeof(r.key) ||
	    !get(data, r.key, key_len) || !rss_valid(n, &r))
		return false;
	active = le16toh(nr_tx);
	if (!active || active > n->nr_pairs)
		return false;
	active = MAX(active, r.unclassified + 1U);
	for (unsigned i = 0; i <= r.mask; i++)
		active = MAX(active, r.table[i] + 1U);
	return steer(n, active, &r);
}

static bool set_offloads(struct virtio_net *n, struct sg *data)
{
	u64 old = n->offload_off, on;

	if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !get(data, &on, sizeof(on)) ||
	    data->len)
		return false;
	on = le64toh(on);
	if (on & ~(n->v.accepted & NET_GUEST_OFFLOADS))
		return false;
	n->offload_off = ~on;
	if (!net_set_offload(n))
		return true;
	n->offload_off = old;
	return false;
}

static bool command(struct virtio_net *n, const struct virtio_net_ctrl_hdr *hdr, struct sg *data)
{
	switch (hdr->class << 8 | hdr->cmd) {
	case VIRTIO_NET_CTRL_RX << 8 ... VIRTIO_NET_CTRL_RX << 8 | 0xff:
		return set_rx_mode(n, hdr->cmd, data);
	case VIRTIO_NET_CTRL_MAC << 8 | VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return set_macs(n, data);
	case VIRTIO_NET_CTRL_MAC << 8 | VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return set_own_mac(n, data);
	case VIRTIO_NET_CTRL_VLAN << 8 | VIRTIO_NET_CTRL_VLAN_ADD:
	case VIRTIO_NET_CTRL_VLAN << 8 | VIRTIO_NET_CTRL_VLAN_DEL:
		return set_vlan(n, hdr->cmd == VIRTIO_NET_CTRL_VLAN_ADD, data);
	case VIRTIO_NET_CTRL_ANNOUNCE << 8 | VIRTIO_NET_CTRL_ANNOUNCE_ACK:
		if (data->len || !virtio_has(&n->v, VIRTIO_NET_F_GUEST_ANNOUNCE))
			return false;
		net_set_status(n, VIRTIO_NET_S_ANNOUNCE, false);
		return true;
	case VIRTIO_NET_CTRL_MQ << 8 | VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
		return set_pairs(n, data);
	case VIRTIO_NET_CTRL_MQ << 8 | VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
		return set_rss(n, data);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS << 8 | VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET:
		return set_offloads(n, data);
	}
	return false;
}

void net_control(struct virtio_net *n, struct virtq *q)
{
	struct chain c;
	int rc;

	q->budget = MIN(q->budget, CONTROL_BUDGET);
	while ((rc = virtq_pop(q, &c)) > 0) {
		struct virtio_net_ctrl_hdr hdr;
		u8 answer = VIRTIO_NET_ERR;

		if (!c.in.len || !get(&c.out, &hdr, sizeof(hdr))) {
			rc = -EPROTO;
			break;
		}
		if (c.out.len <= COMMAND_MAX) {
			pthread_rwlock_wrlock(&n->lock);
			if (command(n, &hdr, &c.out))
				answer = VIRTIO_NET_OK;
			if (answer == VIRTIO_NET_OK && (hdr.class == VIRTIO_NET_CTRL_RX ||
							hdr.class == VIRTIO_NET_CTRL_MAC))
				net_filter_on_host(n);
			pthread_rwlock_unlock(&n->lock);
		}
		virtq_push(q, c.head, sg_write(&c.in, &answer, 1));
	}
	virtq_flush(q);
	if (rc < 0)
		virtio_broken(&n->v, "control queue: malformed chain");
}
