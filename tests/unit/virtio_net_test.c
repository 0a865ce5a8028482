/* virtio_net_test.c: virtio-net's frames against a wire made of arrays. */
#include <errno.h>
#include "tests/lib/recorder.h"
#include "tests/lib/test.h"
#include "tests/lib/vnet.h"

static void test_config(void **state)
{
	struct vnet *f = *state;

	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_DEVICE_ID), 1);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_CONFIG), 0x01000002);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 4, 2), 0x0302);
	assert_int_equal(bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + 10, 2), 1500);
	assert_true(driver_offered(&f->d) & MRG);
	/* What lies behind it is nobody's to see. */
	for (unsigned at = sizeof(struct virtio_net_config) - 7; at < 0xf8; at++)
		for (unsigned size = 1; size <= 8; size *= 2) {
			u64 value = bus_read(&f->fake.mmio, DRIVER_BASE + VIRTIO_MMIO_CONFIG + at, size);
			unsigned inside = at < sizeof(struct virtio_net_config) ?
					  sizeof(struct virtio_net_config) - at : 0;

			if (inside < size)
				assert_true(!(value >> 8 * inside));
		}
}

static void test_receive_one_buffer(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, 0, 2, 8);
	assert_int_equal(f->wire->nr_starts, 1);
	vnet_offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	assert_true(f->wire->want_rx);
	vnet_arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	assert_int_equal(ring_used(&f->d.ring[RX], 0).len, 112);
	vnet_check_bytes(f, DATA, 0, 112);
	assert_int_equal(vnet_num_buffers(f, DATA), 1);
	assert_int_equal(driver_irqs(&f->d), 1);
}

static void test_receive_merged(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, MRG, 2, 8);
	for (int i = 0; i < 4; i++)
		vnet_offer(f, DATA + 0x1000 * i, 100);
	vnet_arrive(f, 250);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 3);
	assert_int_equal(ring_used(&f->d.ring[RX], 0).len, 100);
	assert_int_equal(ring_used(&f->d.ring[RX], 1).len, 100);
	assert_int_equal(ring_used(&f->d.ring[RX], 2).len, 50);
	assert_int_equal(vnet_num_buffers(f, DATA), 3);
	vnet_check_bytes(f, DATA, 0, 100);
	vnet_check_bytes(f, DATA + 0x1000, 100, 100);
	vnet_check_bytes(f, DATA + 0x2000, 200, 50);
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

static void gather(struct vnet *f, const struct piece *p, u8 *to, size_t len)
{
	for (; len; p++) {
		size_t n = MIN(p->len, len);

		assert_int_equal(mem_read(f->fake.p.mem, GPA(p->addr), to, n), 0);
		to += n;
		len -= n;
	}
}

/* A frame of len bytes whose header is not empty, as with offloads. */
static void arrive_with_header(struct vnet *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f->wire->in[i] = i * 3 + 1;
	f->wire->in[10] = f->wire->in[11] = 0xcc;	/* num_buffers is the card's to write */
	f->wire->in_len = len;
	f->wire->nr_in = 1;
	f->wire->net.readable(&f->wire->net);
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
	struct vnet *f = *state;
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
	struct vnet *f = *state;
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
	struct vnet *f = *state;

	driver_start(&f->d, MRG, 2, 8);
	vnet_offer(f, DATA, 100);
	vnet_arrive(f, 150);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	assert_false(f->wire->want_rx);
	vnet_offer(f, DATA + 0x1000, 100);
	driver_kick(&f->d, RX);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2);
	assert_int_equal(ring_used(&f->d.ring[RX], 1).len, 50);
	assert_int_equal(vnet_num_buffers(f, DATA), 2);
	vnet_check_bytes(f, DATA + 0x1000, 100, 50);
}

static void test_receive_too_small_is_lost(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, 0, 2, 8);
	vnet_offer(f, DATA, 100);
	vnet_arrive(f, 101);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	vnet_arrive(f, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	vnet_check_bytes(f, DATA, 0, 100);
}

static void test_receive_malformed(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, 0, 2, 8);
	ring_offer(&f->d.ring[RX], 500);
	vnet_arrive(f, 100);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	vnet_arrive(f, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	/* The device as a whole does no more, not only its queue. */
	ring_add(&f->d.ring[TX], &(struct piece){ DATA, 72, false }, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 0);
	/* A buffer that is not for writing. */
	driver_start(&f->d, 0, 2, 8);
	ring_add(&f->d.ring[RX], &(struct piece){ DATA, 2048, false }, 1);
	vnet_arrive(f, 100);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
}

static void test_transmit(void **state)
{
	struct vnet *f = *state;
	struct piece p[] = { { DATA, 12, false }, { DATA + 0x1000, 60, false } };

	driver_start(&f->d, 0, 2, 8);
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(DATA + 0x1000), 0x77, 60), 0);
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 1);
	assert_int_equal(f->wire->out_len, 72);
	assert_int_equal(f->wire->out[11], 0);
	assert_int_equal(f->wire->out[12], 0x77);
	assert_int_equal(f->wire->out[71], 0x77);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_int_equal(ring_used(&f->d.ring[TX], 0).len, 0);
	assert_false(f->wire->want_tx);
}

static void test_transmit_split_header(void **state)
{
	static const u32 more[][16] = { { 72 }, { 13, 59 }, { 6, 6, 1, 1, 58 }, { 5, 67 } };
	struct vnet *f = *state;
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
		assert_int_equal(f->wire->nr_sent, i + 1);
		assert_int_equal(f->wire->out_len, total);
		assert_memory_equal(f->wire->out, sent, total);
		assert_int_equal(ring_used_idx(&f->d.ring[TX]), i + 1);
		assert_int_equal(ring_used(&f->d.ring[TX], i).len, 0);
	}
}

/* Pieces that make up less than a header are no frame. */
static void test_transmit_split_and_short(void **state)
{
	static const u32 len[] = { 1, 4, 6, 0 };
	struct vnet *f = *state;
	struct piece p[16];

	driver_start(&f->d, 0, 2, 32);
	ring_add(&f->d.ring[TX], p, cut(len, DATA, false, p));
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(f->wire->nr_sent, 0);
}

static void test_transmit_full_wire(void **state)
{
	struct vnet *f = *state;
	struct piece p = { DATA, 72, false };

	driver_start(&f->d, 0, 2, 8);
	f->wire->send_result = -EAGAIN;
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 0);
	assert_true(f->wire->want_tx);
	f->wire->send_result = 0;
	f->wire->net.writable(&f->wire->net);
	assert_int_equal(f->wire->nr_sent, 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_false(f->wire->want_tx);
	/* Any other failure: the frame is lost, the buffer comes back. */
	f->wire->send_result = -EIO;
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 2);
}

static void test_transmit_malformed(void **state)
{
	struct vnet *f = *state;
	struct piece small = { DATA, 11, false }, writable = { DATA, 72, true };
	struct piece both[] = { { DATA, 72, false }, { DATA + 0x1000, 1, true } };

	driver_start(&f->d, 0, 2, 8);
	ring_add(&f->d.ring[TX], &small, 1);
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_start(&f->d, 0, 2, 8);
	assert_false(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	ring_add(&f->d.ring[TX], &writable, 1);
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_start(&f->d, 0, 2, 8);
	ring_add(&f->d.ring[TX], both, 2);
	driver_kick(&f->d, TX);
	assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(f->wire->nr_sent, 0);
}

static void disable(struct vnet *f, int queue)
{
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_SEL, queue);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_READY, 0);
	assert_int_equal(driver_get(&f->d, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void send_one(struct vnet *f)
{
	struct piece p = { DATA + 0x10000, 72, false };
	u16 used = ring_used_idx(&f->d.ring[TX]);
	int sent = f->wire->nr_sent;

	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, sent + 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), used + 1);
}

static void receive_one(struct vnet *f)
{
	u16 used = ring_used_idx(&f->d.ring[RX]);

	vnet_offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	assert_true(f->wire->want_rx);
	vnet_arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), used + 1);
	vnet_check_bytes(f, DATA, 0, 112);
}

/* A queue taken back: its rings are the driver's again, and the other goes on. */
static void test_disable_receive(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	vnet_offer(f, DATA, 2048);
	disable(f, RX);
	assert_int_equal(f->wire->nr_starts, f->wire->nr_stops + 1);	/* there is still who sends */
	assert_int_equal(mem_fill(f->fake.p.mem, GPA(f->d.ring[RX].desc), 0xff, 0x8000), 0);
	vnet_arrive(f, 112);
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
	f->wire->nr_in = 0;
	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	assert_int_equal(f->wire->nr_starts, f->wire->nr_stops + 1);
}

static void test_disable_transmit(void **state)
{
	struct vnet *f = *state;
	struct piece p = { DATA + 0x10000, 72, false };

	driver_start(&f->d, 0, 2, 8);
	receive_one(f);
	send_one(f);
	f->wire->send_result = -EAGAIN;		/* one waits for the wire */
	ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_true(f->wire->want_tx);
	vnet_offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	disable(f, TX);
	f->wire->send_result = 0;
	assert_false(f->wire->want_tx);
	f->wire->net.writable(&f->wire->net);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	/* The buffer from before is filled without a further kick. */
	assert_true(f->wire->want_rx);
	vnet_arrive(f, 112);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2);
	receive_one(f);
	assert_int_equal(f->dev->guest_errors, 0);
	driver_start(&f->d, 0, 2, 8);
	send_one(f);
	receive_one(f);
	assert_int_equal(f->wire->nr_starts, f->wire->nr_stops + 1);
}

/* --- receiving, further -------------------------------------------------------------------- */

static void offer_some(struct vnet *f, int nr, u32 len)
{
	for (int i = 0; i < nr; i++)
		vnet_offer(f, DATA + 0x1000 * i, len);
}

static void check_some(struct vnet *f, u32 len, size_t total)
{
	for (size_t at = 0; at < total; at += len)
		vnet_check_bytes(f, DATA + 0x1000 * (at / len), at, MIN(len, total - at));
}

/*
 * Straight into the guest's memory, however the buffers are cut, when frames are as long
 * as they were lately; the end of one that is longer by way of the card's own.
 */
static void test_receive_in_place(void **state)
{
	struct vnet *f = *state;
	struct vnet_wire *w = f->wire;

	driver_start(&f->d, MRG | LARGE, 2, 16);
	offer_some(f, 2, 800);
	vnet_arrive(f, 1500);
	assert_true(w->in_place);
	check_some(f, 800, 1500);
	for (int i = 1; i <= 2; i++) {
		offer_some(f, 4, 1000);
		vnet_arrive(f, 3500);
		assert_int_equal(w->in_place, i == 2);
		assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2 + 4 * i);
		assert_int_equal(vnet_num_buffers(f, DATA), 4);
		check_some(f, 1000, 3500);
	}
	vnet_offer(f, DATA, 1000);
	vnet_arrive(f, 1900);
	assert_false(w->in_place);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 10);
	vnet_offer(f, DATA + 0x1000, 400);
	driver_kick(&f->d, RX);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 10);
	vnet_offer(f, DATA + 0x2000, 2000);
	driver_kick(&f->d, RX);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 13);
	assert_int_equal(ring_used(&f->d.ring[RX], 12).len, 500);
	assert_int_equal(vnet_num_buffers(f, DATA), 3);
	vnet_check_bytes(f, DATA, 0, 1000);
	vnet_check_bytes(f, DATA + 0x1000, 1000, 400);
	vnet_check_bytes(f, DATA + 0x2000, 1400, 500);
	assert_int_equal(f->dev->guest_errors, 0);
}

/* The longest there is, in buffers of a page; and in ones that are too small ever. */
static void test_receive_longest(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, MRG | LARGE, 2, 64);
	for (int i = 1; i <= 2; i++) {
		offer_some(f, 17, 4096);
		vnet_arrive(f, NET_FRAME_MAX);
		assert_int_equal(f->wire->in_place, i == 2);
		assert_int_equal(ring_used_idx(&f->d.ring[RX]), 17 * i);
		assert_int_equal(vnet_num_buffers(f, DATA), 17);
		check_some(f, 4096, NET_FRAME_MAX);
	}
	driver_start(&f->d, MRG | LARGE, 2, 128);
	offer_some(f, 100, 600);
	vnet_arrive(f, AHEAD_BUFFERS * 600 + 1);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	vnet_arrive(f, AHEAD_BUFFERS * 600);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), AHEAD_BUFFERS);
	check_some(f, 600, AHEAD_BUFFERS * 600);
	assert_int_equal(f->dev->guest_errors, 1);
}

/* Buffers in as many pieces as are looked at in advance. */
static void test_receive_in_many_pieces(void **state)
{
	struct vnet *f = *state;
	struct piece p[16];

	driver_start(&f->d, MRG, 2, 256);
	for (int i = 0; i < 16; i++)
		p[i] = (struct piece){ DATA + 0x1000 * i, 3, true };
	for (int i = 0; i < 16; i++)
		ring_add(&f->d.ring[RX], p, 16);
	vnet_arrive(f, 16 * 48);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 16);
	assert_int_equal(vnet_num_buffers(f, DATA + 0x3000 + 1 - 10), 16);	/* the fourth piece */
	assert_int_equal(f->dev->guest_errors, 0);
}

/* A chain's worth of pieces is all that is taken ahead: a frame that needs more of them is lost. */
static void test_receive_too_many_pieces(void **state)
{
	enum { TABLE = 0x80000, PIECES = 200 };
	struct vnet *f = *state;
	struct ring *r = &f->d.ring[RX];

	driver_start(&f->d, MRG | 1ULL << VIRTIO_RING_F_INDIRECT_DESC, 2, 8);
	for (u16 i = 0; i < PIECES; i++)
		ring_desc_at(f->fake.p.mem, TABLE, i, DATA + i, 1,
			     VRING_DESC_F_WRITE | (i + 1 < PIECES ? VRING_DESC_F_NEXT : 0), i + 1);
	for (u16 i = 0; i < 4; i++) {
		ring_desc(r, i, TABLE, 16 * PIECES, VRING_DESC_F_INDIRECT, 0);
		ring_offer(r, i);
	}
	vnet_arrive(f, 3 * PIECES);
	assert_int_equal(ring_used_idx(r), 0);
	assert_int_equal(f->dev->guest_errors, 1);
	vnet_arrive(f, PIECES);
	assert_int_equal(ring_used_idx(r), 1);
	assert_int_equal(vnet_num_buffers(f, DATA), 1);
	vnet_check_bytes(f, DATA, 0, PIECES);
	assert_false(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* A wire that never falls silent gets a turn and no more; nothing is read for nobody. */
static void test_receive_is_bounded(void **state)
{
	struct vnet *f = *state;
	struct vnet_wire *w = f->wire;

	driver_start(&f->d, 0, 2, 128);
	for (int i = 0; i < 100; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	vnet_bring(w, 100, VNET_ENDLESS);
	w->net.readable(&w->net);
	assert_int_equal(w->nr_recv, 64);
	assert_true(w->want_rx);
	w->net.readable(&w->net);
	assert_int_equal(w->nr_recv, 100);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 100);
	assert_false(w->want_rx);
	w->net.readable(&w->net);
	assert_int_equal(w->nr_recv, 100);
}

/* With a far end that calls again, one frame is one call; a row of them is soon read as one. */
static void test_receive_asks_little(void **state)
{
	struct vnet *f = *state;
	struct vnet_wire *w = f->wire;
	int before;

	driver_start(&f->d, 0, 2, 256);
	w->net.calls_again = true;
	for (int i = 0; i < 255; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	vnet_arrive(f, 100);
	before = w->nr_recv;
	for (int i = 0; i < 7; i++)
		vnet_arrive(f, 100);
	assert_int_equal(w->nr_recv - before, 7);
	vnet_bring(w, 100, 150);
	for (before = 0; w->nr_in; before++)
		w->net.readable(&w->net);
	assert_in_range(before, 2, 16);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 158);
}

/* What was taken off the queue in advance goes back when it stops. */
static void test_receive_goes_on_after_quiesce(void **state)
{
	struct vnet *f = *state;

	driver_start(&f->d, MRG, 2, 16);
	for (int i = 0; i < 8; i++)
		vnet_offer(f, DATA + 0x1000 * i, 500);
	vnet_arrive(f, 700);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 2);
	device_quiesce(f->dev);
	assert_int_equal(f->v->vq[RX].next_avail, 2);
	device_resume(f->dev);
	vnet_arrive(f, 1200);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(ring_used(&f->d.ring[RX], i).id, i);
	vnet_check_bytes(f, DATA + 0x4000, 1000, 200);
}

/* Frames and buffers of any size, against what was sent. */
static void test_receive_any_sizes(void **state)
{
	struct vnet *f = *state;
	struct { u64 addr; u32 len; } buffer[64];
	u64 seed = 7;

	for (int round = 0; round < 100; round++) {
		u16 done = 0, added = 0;
		bool under_way = false;

		driver_start(&f->d, MRG | LARGE, 2, 256);
		f->wire->nr_in = 0;
		while (done < 40) {
			u32 len = 14 + draw(&seed) % 5000;
			u16 want;

			while (added < done + 1 + draw(&seed) % 40) {
				struct piece p[3];
				int nr = 1 + draw(&seed) % 3;
				u64 at = DATA + 0x8000 * (added % 64);

				buffer[added % 64].addr = at;
				buffer[added % 64].len = 0;
				for (int i = 0; i < nr; i++) {
					u32 k = (i ? 1 : NET_HDR_LEN) + draw(&seed) % 900;

					p[i] = (struct piece){ at, k, true };
					at += k;
					buffer[added % 64].len += k;
				}
				ring_add(&f->d.ring[RX], p, nr);
				added++;
			}
			driver_kick(&f->d, RX);
			if (!under_way) {
				under_way = true;
				vnet_bring(f->wire, NET_HDR_LEN + len, 1);
				if (f->wire->want_rx)
					f->wire->net.readable(&f->wire->net);
			}
			want = ring_used_idx(&f->d.ring[RX]);
			if (want == done)
				continue;
			under_way = false;
			assert_int_equal(vnet_num_buffers(f, buffer[done % 64].addr) , want - done);
			for (size_t at = 0; done != want; done++) {
				u32 used = ring_used(&f->d.ring[RX], done).len;

				assert_in_range(used, 1, buffer[done % 64].len);
				if (done + 1 != want)
					assert_int_equal(used, buffer[done % 64].len);
				vnet_check_bytes(f, buffer[done % 64].addr, at, used);
				at += used;
				if (done + 1 == want)
					assert_int_equal(at, f->wire->in_len);
			}
		}
	}
	assert_int_equal(f->dev->guest_errors, 0);
}

/* --- sending, further ----------------------------------------------------------------------- */

static void test_transmit_many(void **state)
{
	struct vnet *f = *state;
	struct piece p = { DATA, 72, false };

	driver_start(&f->d, 0, 2, 256);
	for (int i = 0; i < 200; i++)
		ring_add(&f->d.ring[TX], &p, 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, TX);
	fake_turn(&f->fake);
	assert_in_range(f->wire->nr_sent, 1, 64);
	fake_settle(&f->fake);
	assert_int_equal(f->wire->nr_sent, 200);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 200);
}

static void test_transmit_too_long(void **state)
{
	struct vnet *f = *state;
	struct piece longest = { DATA, NET_FRAME_MAX, false }, over = { DATA, NET_FRAME_MAX + 1, false };

	driver_start(&f->d, 0, 2, 8);
	ring_add(&f->d.ring[TX], &over, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 0);
	assert_int_equal(f->dev->guest_errors, 1);
	ring_add(&f->d.ring[TX], &longest, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 1);
	assert_int_equal(f->wire->out_len, NET_FRAME_MAX);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 2);
}

static bool told(void *arg)
{
	struct vnet *f = arg;

	return driver_irqs(&f->d) > 0;
}

/* A small frame's answer is there at once; the interrupt comes later, and only if the
 * driver has not looked meanwhile. */
static void test_transmit_interrupts_late(void **state)
{
	struct vnet *f = *state;
	struct piece small = { DATA, 72, false }, large = { DATA, 9000, false };
	struct ring *r = &f->d.ring[TX];

	driver_start(&f->d, F(VIRTIO_RING_F_EVENT_IDX), 2, 16);
	ring_add(r, &small, 1);
	driver_kick(&f->d, TX);
	assert_int_equal(ring_used_idx(r), 1);
	assert_true(fake_turn_until(&f->fake, told, f));
	assert_int_equal(driver_irqs(&f->d), 1);
	/* It asks for one at the third answer: none for the second, though time passes. */
	ring_set_used_event(r, 2);
	ring_add(r, &small, 1);
	driver_kick(&f->d, TX);
	device_quiesce(f->dev);
	device_resume(f->dev);
	assert_int_equal(driver_irqs(&f->d), 1);
	ring_add(r, &small, 1);
	driver_kick(&f->d, TX);
	device_quiesce(f->dev);		/* nothing is owed to the driver after it */
	assert_int_equal(driver_irqs(&f->d), 2);
	device_resume(f->dev);
	/* Large ones at once. */
	ring_set_used_event(r, 3);
	ring_add(r, &large, 1);
	driver_set(&f->d, VIRTIO_MMIO_QUEUE_NOTIFY, TX);
	fake_turn(&f->fake);
	assert_int_equal(driver_irqs(&f->d), 3);
}

static void assert_counted(struct vnet *f, const char *name, bool tx, u64 want)
{
	assert_int_equal(metrics_sum(&f->fake.metrics, "net0", name,
				     tx ? "direction=\"tx\"" : "direction=\"rx\""), want);
}

static void test_counters(void **state)
{
	struct vnet *f = *state;
	struct piece p[] = { { DATA, 12, false }, { DATA + 0x1000, 60, false } },
		     writable = { DATA, 72, true };
	u64 empty;

	driver_start(&f->d, MRG, 2, 8);
	vnet_offer(f, DATA, 100);
	vnet_arrive(f, 112);
	assert_counted(f, "net_waits_total", false, 1);
	vnet_offer(f, DATA, 2048);
	driver_kick(&f->d, RX);
	driver_start(&f->d, 0, 2, 8);
	vnet_offer(f, DATA, 100);
	vnet_arrive(f, 101);
	assert_counted(f, "net_frames_total", false, 1);
	assert_counted(f, "net_bytes_total", false, 100);
	assert_counted(f, "net_dropped_total", false, 1);
	for (int i = 0; i < 2; i++)
		ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_frames_total", true, 2);
	assert_counted(f, "net_bytes_total", true, 120);
	f->wire->send_result = -EAGAIN;
	ring_add(&f->d.ring[TX], p, 2);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_waits_total", true, 1);
	f->wire->send_result = -EIO;
	f->wire->net.writable(&f->wire->net);
	assert_counted(f, "net_dropped_total", true, 1);
	assert_counted(f, "net_frames_total", true, 2);
	assert_counted(f, "net_errors_total", false, 0);
	assert_counted(f, "net_errors_total", true, 1);
	assert_counted(f, "net_left_total", true, 1);
	assert_counted(f, "net_malformed_total", true, 0);
	empty = metrics_sum(&f->fake.metrics, "net0", "net_empty_kicks_total", NULL);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_empty_kicks_total", true, empty + 1);
	assert_true(metrics_sum(&f->fake.metrics, "net0", "net_ready_total", NULL) >= 2);
	/* Two that went, one that did not at once, and then failed. */
	assert_int_equal(metrics_ticks(&f->fake.metrics, "net0", "net_send_seconds", NULL).count, 4);
	ring_add(&f->d.ring[TX], &writable, 1);
	driver_kick(&f->d, TX);
	assert_counted(f, "net_malformed_total", true, 1);
}

/* --- limits ------------------------------------------------------------------------------------- */

static bool all_sent(void *arg)
{
	return ((struct vnet *)arg)->wire->nr_sent == 5;
}

static bool all_received(void *arg)
{
	return ring_used_idx(&((struct vnet *)arg)->d.ring[RX]) == 5;
}

static void test_limit_transmit(void **state)
{
	struct limit_config slow = { .bytes = { 1, 1, 0 } }, quick = { .ops = { 1000, 1, 0 } };
	struct vnet *f = *state;
	struct piece p = { DATA, 1012, false };
	u64 began;

	/* A byte a second: the first goes, the second waits for 999 s. */
	limit_set(&f->tx_limit, &slow);
	driver_start(&f->d, 0, 2, 8);
	for (int i = 0; i < 5; i++)
		ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	driver_kick(&f->d, TX);
	assert_int_equal(f->wire->nr_sent, 1);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 1);
	assert_counted(f, "net_throttled_total", true, 1);
	/* The other way it does not count. */
	vnet_offer(f, DATA, 2048);
	vnet_arrive(f, 1000);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	assert_counted(f, "net_throttled_total", false, 0);
	/* A reset forgets what waits; the rest goes as the clock allows. */
	assert_int_equal(f->dev->guest_errors, 0);
	limit_set(&f->tx_limit, &quick);
	driver_start(&f->d, 0, 2, 8);
	f->wire->nr_sent = 0;
	began = now_ns();
	for (int i = 0; i < 5; i++)
		ring_add(&f->d.ring[TX], &p, 1);
	driver_kick(&f->d, TX);
	assert_true(fake_turn_until(&f->fake, all_sent, f));
	assert_true(now_ns() - began >= 3900000);
	assert_int_equal(ring_used_idx(&f->d.ring[TX]), 5);
}

static void test_limit_receive(void **state)
{
	struct limit_config slow = { .bytes = { 1, 1, 0 } }, quick = { .ops = { 1000, 1, 0 } };
	struct vnet *f = *state;
	u64 began;

	limit_set(&f->rx_limit, &slow);
	driver_start(&f->d, 0, 2, 16);
	for (int i = 0; i < 8; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	vnet_bring(f->wire, 1012, VNET_ENDLESS);
	f->wire->net.readable(&f->wire->net);
	assert_int_equal(ring_used_idx(&f->d.ring[RX]), 1);
	assert_false(f->wire->want_rx);
	assert_int_equal(f->wire->nr_recv, 2);		/* one waits here, the others outside */
	assert_counted(f, "net_throttled_total", false, 1);
	driver_kick(&f->d, RX);
	f->wire->net.readable(&f->wire->net);
	assert_int_equal(f->wire->nr_recv, 2);
	limit_set(&f->rx_limit, &quick);
	driver_start(&f->d, 0, 2, 16);
	for (int i = 0; i < 8; i++)
		vnet_offer(f, DATA + 0x1000 * i, 2048);
	vnet_bring(f->wire, 1012, 5);
	began = now_ns();
	f->wire->net.readable(&f->wire->net);
	assert_true(fake_turn_until(&f->fake, all_received, f));
	assert_true(now_ns() - began >= 3900000);
	vnet_check_bytes(f, DATA + 0x4000, 0, 1012);
}

/* Descriptors may lie over each other: 256 of 16 MiB are 4 GiB, and the length of no used buffer. */
static void test_receive_no_length(void **state)
{
	enum { TABLE = 0x80000, PIECES = 256, LEN = 16 * MIB };
	struct vnet *f = *state;
	struct ring *r = &f->d.ring[RX];

	for (unsigned merge = 0; merge <= 1; merge++) {
		driver_start(&f->d, 1ULL << VIRTIO_RING_F_INDIRECT_DESC | (merge ? MRG : 0), 2, 8);
		for (unsigned i = 0; i < PIECES; i++)
			ring_desc_at(f->fake.p.mem, TABLE, i, 0, LEN,
				     VRING_DESC_F_WRITE | (i + 1 < PIECES ? VRING_DESC_F_NEXT : 0), i + 1);
		ring_desc(r, 0, TABLE, PIECES * 16, VRING_DESC_F_INDIRECT, 0);
		ring_offer(r, 0);
		vnet_arrive(f, 112);
		assert_int_equal(ring_used_idx(r), 0);
		assert_true(driver_get(&f->d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	}
}

/* A frame that the wire did not take has been paid for. */
static void test_limit_and_full_wire(void **state)
{
	struct limit_config two = { .ops = { 1, 2, 0 } };
	struct vnet *f = *state;
	struct piece p = { DATA, 72, false };

	limit_set(&f->tx_limit, &two);
	driver_start(&f->d, 0, 2, 8);
	for (int i = 0; i < 3; i++)
		ring_add(&f->d.ring[TX], &p, 1);
	f->wire->send_result = -EAGAIN;
	for (int i = 0; i < 5; i++)
		driver_kick(&f->d, TX);
	f->wire->send_result = 0;
	f->wire->net.writable(&f->wire->net);
	assert_int_equal(f->wire->nr_sent, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, vnet_setup, vnet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config), T(test_receive_one_buffer), T(test_receive_merged),
		T(test_receive_split_header), T(test_receive_split_header_merged),
		T(test_receive_waits_for_buffers), T(test_receive_too_small_is_lost),
		T(test_receive_malformed), T(test_receive_no_length), T(test_transmit), T(test_transmit_split_header),
		T(test_transmit_split_and_short), T(test_transmit_full_wire),
		T(test_transmit_malformed), T(test_disable_receive), T(test_disable_transmit),
		T(test_receive_in_place), T(test_receive_longest), T(test_receive_in_many_pieces),
		T(test_receive_too_many_pieces), T(test_receive_is_bounded), T(test_receive_asks_little),
		T(test_receive_goes_on_after_quiesce), T(test_receive_any_sizes),
		T(test_transmit_many), T(test_transmit_too_long),
		T(test_transmit_interrupts_late),
		T(test_counters),
		T(test_limit_transmit), T(test_limit_receive), T(test_limit_and_full_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
