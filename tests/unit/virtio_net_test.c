/* virtio_net_test.c: virtio-net against a wire made of arrays. */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include "devices/net/net.h"
#include "tests/lib/driver.h"
#include "tests/lib/test.h"

enum { RX, TX, DATA = 0x100000, MRG = 1 << VIRTIO_NET_F_MRG_RXBUF };

struct fixture {
	struct fake fake;
	struct driver d;
	struct device *dev;
	struct net net;
	u8 in[4096], out[4096];
	size_t in_len, out_len;		/* in_len 0: nothing comes */
	int nr_sent, nr_starts, nr_stops, send_result;
	bool want_rx, want_tx;
	u64 offload;
};

static struct fixture *of(struct net *n) { return container_of(n, struct fixture, net); }

static int wire_send(struct net *n, const struct iovec *iov, int nr)
{
	struct fixture *f = of(n);

	if (f->send_result)
		return f->send_result;
	f->out_len = 0;
	for (int i = 0; i < nr; i++) {
		memcpy(f->out + f->out_len, iov[i].iov_base, iov[i].iov_len);
		f->out_len += iov[i].iov_len;
	}
	f->nr_sent++;
	return 0;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct fixture *f = of(n);
	size_t len = f->in_len;

	assert_int_equal(nr, 1);
	if (!len)
		return -EAGAIN;
	memcpy(iov->iov_base, f->in, len);
	f->in_len = 0;
	return len;
}

static int wire_start(struct net *n, struct loop *l) { (void)l; of(n)->nr_starts++; return 0; }
static void wire_stop(struct net *n)
{
	of(n)->nr_stops++;
	of(n)->want_rx = of(n)->want_tx = false;
}

static void wire_want(struct net *n, bool rx, bool tx) { of(n)->want_rx = rx; of(n)->want_tx = tx; }
static int wire_offload(struct net *n, u64 features) { of(n)->offload = features; return 0; }

static const struct net_ops wire_ops = {
	.kind = "wire", .send = wire_send, .recv = wire_recv, .start = wire_start,
	.stop = wire_stop, .want = wire_want, .set_offload = wire_offload,
};

static int setup(void **state)
{
	static const u8 mac[6] = { 2, 0, 0, 1, 2, 3 };
	struct fixture *f = calloc(1, sizeof(*f));
	struct virtio *v;

	assert_non_null(f);
	fake_init(&f->fake, 8 * MIB, -1);
	f->net.ops = &wire_ops;
	f->net.mtu = 1500;
	assert_int_equal(virtio_net_new(&f->fake.p, "net0", &f->net, mac, &v, NULL), 0);
	assert_int_equal(virtio_mmio_new(v, DRIVER_BASE, DRIVER_GSI, &f->dev, NULL), 0);
	f->d.fake = &f->fake;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	device_destroy(f->dev);
	assert_int_equal(f->nr_starts, f->nr_stops);
	fake_fini(&f->fake);
	free(f);
	return 0;
}

static void arrive(struct fixture *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f->in[i] = i < NET_HDR_LEN ? 0 : i * 3 + 1;
	f->in_len = len;
	f->net.readable(&f->net);
}

static void offer(struct fixture *f, u64 addr, u32 len)
{
	struct piece p = { addr, len, true };

	ring_add(&f->d.ring[RX], &p, 1);
}

static void check_bytes(struct fixture *f, u64 addr, size_t from, size_t len)
{
	u8 got[4096];

	assert_int_equal(mem_read(f->fake.p.mem, GPA(addr), got, len), 0);
	for (size_t i = 0; i < len; i++)
		if (from + i >= NET_HDR_LEN)
			assert_int_equal(got[i], (u8)((from + i) * 3 + 1));
}

static u16 num_buffers(struct fixture *f, u64 addr)
{
	u16 n;

	assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(addr + 10), &n), 0);
	return n;
}

static void test_config(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_ID), 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG), 0x01000002);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 4, 2), 0x0302);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 10, 2), 1500);
	assert_true(driver_offered(&f->d) & MRG);
}

static void test_receive_one_buffer(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, 0, 2, 8);
	assert_int_equal(f->nr_starts, 1);
	offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	assert_true(f->want_rx);
	arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	assert_int_equal(ring_used(&f->d.ring[RX], 0).len, 112);
	check_bytes(f, DATA, 0, 112);
	assert_int_equal(num_buffers(f, DATA), 1);
	assert_int_equal(driver_irqs(&f->d), 1);
}

static void test_receive_merged(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, MRG, 2, 8);
	for (int i = 0; i < 4; i++)
		offer(f, DATA + 0x1000 * i, 100);
	arrive(f, 250);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 3);
	assert_int_equal(ring_used(&f->d.ring[RX], 0).len, 100);
	assert_int_equal(ring_used(&f->d.ring[RX], 1).len, 100);
	assert_int_equal(ring_used(&f->d.ring[RX], 2).len, 50);
	assert_int_equal(num_buffers(f, DATA), 3);
	check_bytes(f, DATA, 0, 100);
	check_bytes(f, DATA + 0x1000, 100, 100);
	check_bytes(f, DATA + 0x2000, 200, 50);
	assert_int_equal(driver_irqs(&f->d), 1);
}

/* Where a driver may cut what begins with a header; 0 ends. */
static const u32 cuts[][16] = {
	{ 12, 2000 }, { 11, 2000 }, { 10, 2, 2000 }, { 10, 1, 1, 2000 }, { 10, 1, 2000 },
	{ 4, 4, 4, 2000 }, { 3, 9, 2000 }, { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2000 },
	{ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2000 }, { 5, 6, 7, 2000 },
};

/* The pieces lie apart, each on a page of its own. */
static int cut(const u32 *len, u64 addr, bool in, struct piece *p)
{
	int nr = 0;

	for (; len[nr]; nr++)
		p[nr] = (struct piece){ addr + 0x1000 * nr, len[nr], in };
	return nr;
}

static void gather(struct fixture *f, const struct piece *p, u8 *to, size_t len)
{
	for (; len; p++) {
		size_t n = MIN(p->len, len);

		assert_int_equal(mem_read(f->fake.p.mem, GPA(p->addr), to, n), 0);
		to += n;
		len -= n;
	}
}

/* A frame of len bytes whose header is not empty, as with offloads. */
static void arrive_with_header(struct fixture *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f->in[i] = i * 3 + 1;
	f->in[10] = f->in[11] = 0xcc;		/* num_buffers is the card's to write */
	f->in_len = len;
	f->net.readable(&f->net);
}

static void check_frame(const u8 *got, size_t len, u16 nr_buffers)
{
	for (size_t i = 0; i < len; i++)
		if (i != 10 && i != 11)
			assert_int_equal(got[i], (u8)(i * 3 + 1));
	assert_int_equal(got[10] | got[11] << 8, nr_buffers);
}

static void test_receive_split_header(void **state)
{
	struct fixture *f = *state;
	struct piece p[16];
	u8 got[500];

	for (int merge = 0; merge <= 1; merge++) {
		driver_start(&f->d, merge ? MRG : 0, 2, 32);
		for (unsigned i = 0; i < ARRAY_SIZE(cuts); i++) {
			int nr = cut(cuts[i], DATA, true, p);

			assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), 0xff, 0x10000), 0);
			ring_add(&f->d.ring[RX], p, nr);
			arrive_with_header(f, 500);
			assert_int_equal(ring_used_idx(&f->d.ring[RX]), i + 1);
			assert_int_equal(ring_used(&f->d.ring[RX], i).len, 500);
			gather(f, p, got, 500);
			check_frame(got, 500, 1);
			for (int k = 0; k + 1 < nr; k++) {	/* not a byte beyond a piece */
				u8 next;

				assert_int_equal(mem_read_obj(f->fake.p.mem,
							      GPA(p[k].addr + p[k].len), &next), 0);
				assert_int_equal(next, 0xff);
			}
		}
	}
}

/* Header in pieces and frame in several buffers: the count stands in the first alone. */
static void test_receive_split_header_merged(void **state)
{
	static const u32 first[] = { 4, 4, 3, 1, 88, 0 };
	struct fixture *f = *state;
	struct piece p[16];
	u8 got[250];

	driver_start(&f->d, MRG, 2, 32);
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA), 0xff, 0x10000), 0);
	ring_add(&f->d.ring[RX], p, cut(first, DATA, true, p));
	p[5] = (struct piece){ DATA + 0x8000, 100, true };
	p[6] = (struct piece){ DATA + 0x9000, 100, true };
	ring_add(&f->d.ring[RX], &p[5], 1);
	arrive_with_header(f, 250);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	ring_add(&f->d.ring[RX], &p[6], 1);
	driver_kick(&f->d, RX);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 3);
	assert_int_equal(ring_used(&f->d.ring[RX], 2).len, 50);
	gather(f, p, got, 250);
	check_frame(got, 250, 3);
}

/* Too few buffers: none is used, and the frame comes when there are more. */
static void test_receive_waits_for_buffers(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, MRG, 2, 8);
	offer(f, DATA, 100);
	arrive(f, 150);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	assert_false(f->want_rx);
	offer(f, DATA + 0x1000, 100);
	driver_kick(&f->d, RX);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2);
	assert_int_equal(ring_used(&f->d.ring[RX], 1).len, 50);
	assert_int_equal(num_buffers(f, DATA), 2);
	check_bytes(f, DATA + 0x1000, 100, 50);
}

static void test_receive_too_small_is_lost(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, 0, 2, 8);
	offer(f, DATA, 100);
	arrive(f, 101);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	arrive(f, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	check_bytes(f, DATA, 0, 100);
}

static void test_receive_malformed(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, 0, 2, 8);
	ring_offer(&f->d.ring[RX], 500);
	arrive(f, 100);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	arrive(f, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
}

static void test_transmit(void **state)
{
	struct fixture *f = *state;
	struct piece p[] = { { DATA, 12, false }, { DATA + 0x1000, 60, false } };

	driver_start(&f->d, 0, 2, 8);
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA + 0x1000), 0x77, 60), 0);
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_int_equal(f->nr_sent, 1);
	assert_int_equal(f->out_len, 72);
	assert_int_equal(f->out[11], 0);
	assert_int_equal(f->out[12], 0x77);
	assert_int_equal(f->out[71], 0x77);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_int_equal(ring_used(&f->d.ring[TX], 0).len, 0);
	assert_false(f->want_tx);
}

static void test_transmit_split_header(void **state)
{
	static const u32 more[][16] = { { 72 }, { 13, 59 }, { 6, 6, 1, 1, 58 }, { 5, 67 } };
	struct fixture *f = *state;
	struct piece p[16];
	u8 sent[2100];

	driver_start(&f->d, 0, 2, 32);
	for (unsigned i = 0; i < ARRAY_SIZE(cuts) + ARRAY_SIZE(more); i++) {
		const u32 *len = i < ARRAY_SIZE(cuts) ? cuts[i] : more[i - ARRAY_SIZE(cuts)];
		int nr = cut(len, DATA, false, p);
		size_t total = 0;

		for (int k = 0; k < nr; k++)
			for (u32 b = 0; b < len[k]; b++, total++) {
				sent[total] = total * 7 + i;
				assert_int_equal(mem_write_obj(f->fake.p.mem, GPA(p[k].addr + b),
							       &sent[total]), 0);
			}
		ring_add(&f->d.ring[TX], p, nr);
		driver_kick(&f->d, TX);
		assert_int_equal(f->nr_sent, i + 1);
		assert_int_equal(f->out_len, total);
		assert_memory_equal(f->out, sent, total);
		assert_int_equal(ring_used_idx(&f->d.ring[TX]), i + 1);
		assert_int_equal(ring_used(&f->d.ring[TX], i).len, 0);
	}
}

/* Pieces that make up less than a header are no frame. */
static void test_transmit_split_and_short(void **state)
{
	static const u32 len[] = { 1, 4, 6, 0 };
	struct fixture *f = *state;
	struct piece p[16];

	driver_start(&f->d, 0, 2, 32);
	ring_add(&f->d.ring[TX], p, cut(len, DATA, false, p));
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(f->nr_sent, 0);
}

static void test_transmit_full_wire(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA, 72, false };

	driver_start(&f->d, 0, 2, 8);
	f->send_result = -EAGAIN;
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 0);
	assert_true(f->want_tx);
	f->send_result = 0;
	f->net.writable(&f->net);
	assert_int_equal(f->nr_sent, 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_false(f->want_tx);
	/* Any other failure: the frame is lost, the buffer comes back. */
	f->send_result = -EIO;
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 2);
}

static void test_transmit_malformed(void **state)
{
	struct fixture *f = *state;
	struct piece small = { DATA, 11, false }, writable = { DATA, 72, true };

	driver_start(&f->d, 0, 2, 8);
	ring_add(&f->d.ring[TX], &small, 1);
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_start(&f->d, 0, 2, 8);
	assert_false(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	ring_add(&f->d.ring[TX], &writable, 1);
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(f->nr_sent, 0);
}

static void disable(struct fixture *f, int queue)
{
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, queue);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void send_one(struct fixture *f)
{
	struct piece p = { DATA + 0x10000, 72, false };
	u16 used = ring_used_idx(&f->d.ring[TX]);
	int sent = f->nr_sent;

	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->nr_sent, sent + 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), used + 1);
}

static void receive_one(struct fixture *f)
{
	u16 used = ring_used_idx(&f->d.ring[RX]);

	offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	assert_true(f->want_rx);
	arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), used + 1);
	check_bytes(f, DATA, 0, 112);
}

/* A queue taken back: its rings are the driver's again, and the other goes on. */
static void test_disable_receive(void **state)
{
	struct fixture *f = *state;

	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	offer(f, DATA, 2048);
	disable(f, RX);
	assert_int_equal(f->nr_starts, f->nr_stops + 1);	/* there is still who sends */
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(f->d.ring[RX].desc), 0xff, 0x8000), 0);
	arrive(f, 112);
	driver_kick(&f->d, RX);
	send_one(f);
	for (u64 at = 0; at < 0x8000; at += 8) {
		u64 word;

		assert_int_equal(mem_read_obj(f->fake.p.mem, GPA(f->d.ring[RX].desc + at), &word),
				 0);
		assert_true(word == ~0ULL);
	}
	assert_int_equal(f->dev->guest_errors, 0);
	disable(f, TX);
	f->in_len = 0;
	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	assert_int_equal(f->nr_starts, f->nr_stops + 1);
}

static void test_disable_transmit(void **state)
{
	struct fixture *f = *state;
	struct piece p = { DATA + 0x10000, 72, false };

	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	f->send_result = -EAGAIN;		/* one waits for the wire */
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_true(f->want_tx);
	offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	disable(f, TX);
	f->send_result = 0;
	assert_false(f->want_tx);
	f->net.writable(&f->net);
	driver_kick(&f->d, TX);
	assert_int_equal(f->nr_sent, 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	/* The buffer from before is filled without a further kick. */
	assert_true(f->want_rx);
	arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2);
	receive_one(f);
	assert_int_equal(f->dev->guest_errors, 0);
	driver_start(&f->d, 0, 2, 8);
	send_one(f);
	receive_one(f);
	assert_int_equal(f->nr_starts, f->nr_stops + 1);
}

static void assert_counted(struct fixture *f, const char *name, bool tx, u64 want)
{
	assert_int_equal(metrics_sum(&f->fake.metrics, "net0", name,
				     tx ? "direction=\"tx\"" : "direction=\"rx\""), want);
}

static void test_counters(void **state)
{
	struct fixture *f = *state;
	struct piece p[] = { { DATA, 12, false }, { DATA + 0x1000, 60, false } };

	driver_start(&f->d, 0, 2, 8);
	arrive(f, 112);
	assert_counted(f, "net_waits_total", false, 1);
	offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	offer(f, DATA, 100);
	arrive(f, 101);
	assert_counted(f, "net_frames_total", false, 1);
	assert_counted(f, "net_bytes_total", false, 100);
	assert_counted(f, "net_dropped_total", false, 1);
	for (int i = 0; i < 2; i++)
		ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_frames_total", true, 2);
	assert_counted(f, "net_bytes_total", true, 120);
	f->send_result = -EAGAIN;
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_waits_total", true, 1);
	f->send_result = -EIO;
	f->net.writable(&f->net);
	assert_counted(f, "net_dropped_total", true, 1);
	assert_counted(f, "net_frames_total", true, 2);
	assert_counted(f, "net_errors_total", false, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config), T(test_receive_one_buffer), T(test_receive_merged),
		T(test_receive_split_header), T(test_receive_split_header_merged),
		T(test_receive_waits_for_buffers), T(test_receive_too_small_is_lost),
		T(test_receive_malformed), T(test_transmit), T(test_transmit_split_header),
		T(test_transmit_split_and_short), T(test_transmit_full_wire),
		T(test_transmit_malformed), T(test_disable_receive), T(test_disable_transmit),
		T(test_counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
