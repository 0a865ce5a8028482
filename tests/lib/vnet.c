/* vnet.c: see vnet.h. */
#include "tests/lib/vnet.h"
#include "devices/net/pcap.h"
#include "tests/lib/test.h"

const u8 vnet_mac[6] = { 2, 0, 0, 1, 2, 3 };

static struct vnet_wire *of(struct net *n) { return container_of(n, struct vnet_wire, net); }

static int wire_send(struct net *n, const struct iovec *iov, int nr)
{
	struct vnet_wire *w = of(n);

	if (w->send_result)
		return w->send_result;
	w->out_len = 0;
	for (int i = 0; i < nr; i++) {
		memcpy(w->out + w->out_len, iov[i].iov_base, iov[i].iov_len);
		w->out_len += iov[i].iov_len;
	}
	w->nr_sent++;
	return 0;
}

static bool in_guest(struct vnet_wire *w, const struct iovec *iov)
{
	struct mem_region r = mem_region(w->f->fake.p.mem, 0);
	u8 *base = r.host, *at = iov->iov_base;

	return at >= base && at + iov->iov_len <= base + r.size;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct vnet_wire *w = of(n);
	size_t done = 0;

	w->nr_recv++;
	if (!w->nr_in)
		return -EAGAIN;
	w->nr_in -= w->nr_in != VNET_ENDLESS;
	w->in_place = true;
	for (int i = 0; i < nr && done < w->in_len; i++) {
		size_t k = MIN(iov[i].iov_len, w->in_len - done);

		memcpy(iov[i].iov_base, w->in + done, k);
		w->in_place &= in_guest(w, &iov[i]);
		done += k;
	}
	assert_int_equal(done, w->in_len);
	return done;
}

static int wire_start(struct net *n, struct loop *l) { (void)l; of(n)->nr_starts++; return 0; }
static void wire_stop(struct net *n)
{
	of(n)->nr_stops++;
	of(n)->want_rx = of(n)->want_tx = false;
}

static void wire_want(struct net *n, bool rx, bool tx) { of(n)->want_rx = rx; of(n)->want_tx = tx; }
static int wire_offload(struct net *n, u64 features) { of(n)->offload = features; return of(n)->offload_result; }
static int wire_attach(struct net *n, bool on) { of(n)->attached = on; return 0; }
static void wire_set_link(struct net *n, bool up) { of(n)->link = up; }
static int wire_vhost_fd(struct net *n) { return VNET_FD + (of(n) - of(n)->f->wire); }
static void wire_set_filter(struct net *n, const struct net_filter *f)
{
	of(n)->filter = *f;
	of(n)->nr_filters++;
}

static int wire_set_rss(struct net *n, const struct net_rss *r)
{
	struct vnet_wire *w = of(n);

	w->nr_rss++;
	if (w->rss_result)
		return w->rss_result;
	w->by_hash = r;
	if (r)
		w->rss = *r;
	return 0;
}

static const struct net_ops wire_ops = {
	.kind = "wire", .send = wire_send, .recv = wire_recv, .start = wire_start,
	.stop = wire_stop, .want = wire_want, .set_offload = wire_offload,
	.attach = wire_attach, .set_link = wire_set_link, .vhost_fd = wire_vhost_fd,
	.set_filter = wire_set_filter, .set_rss = wire_set_rss,
};

void vnet_wires(struct vnet *f)
{
	for (unsigned i = 0; i < VNET_PAIRS; i++) {
		struct vnet_wire *w = &f->wire[i];

		w->net.ops = &wire_ops;
		w->net.mtu = 1500;
		w->net.offload = F(VIRTIO_NET_F_CSUM) | NET_GUEST_OFFLOADS;
		w->f = f;
		w->attached = w->link = true;
	}
}

void vnet_plug(struct vnet *f, struct virtio_net_options o, unsigned nr_pairs)
{
	struct net *net[VNET_PAIRS];

	vnet_wires(f);
	for (unsigned i = 0; i < VNET_PAIRS; i++)
		net[i] = &f->wire[i].net;
	if (nr_pairs > 1 && !f->no_rss)
		net[0]->offload |= F(VIRTIO_NET_F_RSS);
	limit_init(&f->rx_limit, &(struct limit_config){ 0 });
	limit_init(&f->tx_limit, &(struct limit_config){ 0 });
	o.rx_limit = &f->rx_limit;
	o.tx_limit = &f->tx_limit;
	o.mac = vnet_mac;
	o.net = net;
	o.nr_pairs = nr_pairs;
	assert_int_equal(virtio_net_new(&f->fake.p, "net0", &o, &f->v, NULL), 0);
	assert_int_equal(virtio_mmio_new(f->v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
	f->d.fake = &f->fake;
}

static int set_up(void **state, unsigned nr_pairs, bool dump)
{
	struct vnet *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fake_init(&f->fake, 16 * MIB, -1);
	if (dump) {
		strcpy(f->path, "/tmp/vmm-net-test-XXXXXX");
		close(mkstemp(f->path));
		assert_int_equal(pcap_open(&f->dump, f->path, NULL), 0);
	}
	vnet_plug(f, (struct virtio_net_options){ .dump = f->dump }, nr_pairs);
	*state = f;
	return 0;
}

int vnet_setup(void **state)
{
	return set_up(state, 1, false);
}

int vnet_setup_pairs(void **state)
{
	return set_up(state, VNET_PAIRS, false);
}

int vnet_setup_dump(void **state)
{
	return set_up(state, 1, true);
}

int vnet_teardown(void **state)
{
	struct vnet *f = *state;

	device_destroy(f->dev);
	for (unsigned i = 0; i < VNET_PAIRS; i++)
		assert_int_equal(f->wire[i].nr_starts, f->wire[i].nr_stops);
	pcap_close(f->dump);
	if (*f->path)
		unlink(f->path);
	fake_fini(&f->fake);
	free(f);
	return 0;
}

void vnet_bring(struct vnet_wire *w, size_t len, int times)
{
	for (size_t i = 0; i < len; i++)
		w->in[i] = i < NET_HDR_LEN ? 0 : i * 3 + 1;
	w->in_len = len;
	w->nr_in = times;
}

void vnet_arrive(struct vnet *f, size_t len)
{
	vnet_bring(f->wire, len, 1);
	f->wire->net.readable(&f->wire->net);
}

void vnet_offer(struct vnet *f, u64 addr, u32 len)
{
	struct piece p = { addr, len, true };

	ring_add(&f->d.ring[RX], &p, 1);
}

void vnet_check_bytes(struct vnet *f, u64 addr, size_t from, size_t len)
{
	u8 got[4096];

	assert_int_equal(mem_read(f->fake.p.mem, GPA(addr), got, len), 0);
	for (size_t i = 0; i < len; i++)
		if (from + i >= NET_HDR_LEN)
			assert_int_equal(got[i], (u8)((from + i) * 3 + 1));
}

u16 vnet_num_buffers(struct vnet *f, u64 addr)
{
	u16 n;

	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(addr + 10), &n), 0);
	return n;
}
