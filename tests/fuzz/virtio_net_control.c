/*
 * virtio_net_control.c: a hostile driver at the control queue of a network card of two pairs.  Every command
 * is answered once, by a byte that says done or refused, or the card needs a reset; no
 * other byte of the guest changes; the card's address stays a station's; what frames are
 * steered by is in order.
 */
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <string.h>
#include "devices/virtio/net_own.h"
#include "tests/fuzz/lib/hostile.h"

enum { PAIRS = 2 };

static u16 head[VIRTQ_MAX];
static struct hostile_chain chain[VIRTQ_MAX];
static struct net wire[PAIRS];
static bool attached[PAIRS];
static int control;		/* the queue's number: it is after those that the driver knows of */

/* --- a wire on which nothing comes and all is lost ------------------------------------- */

static int wire_send(struct net *n, const struct iovec *iov, int nr)
{
	(void)n, (void)iov, (void)nr;
	return -EIO;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	(void)n, (void)iov, (void)nr;
	return -EAGAIN;
}

static int wire_start(struct net *n, struct loop *l)
{
	(void)n, (void)l;
	return 0;
}

static void wire_stop(struct net *n)
{
	(void)n;
}

static void wire_want(struct net *n, bool rx, bool tx)
{
	(void)n, (void)rx, (void)tx;
}

static int wire_offload(struct net *n, u64 features)
{
	fuzz_check(!(features & NET_GUEST_OFFLOADS & ~n->offload), "offloads %#llx",
		   (unsigned long long)features);
	return 0;
}

static int wire_attach(struct net *n, bool on)
{
	attached[n - wire] = on;
	return 0;
}

static int wire_rss(struct net *n, const struct net_rss *r)
{
	fuzz_check(n == wire, "not the first pair");
	if (!r)
		return 0;
	fuzz_check(!(r->hash_types & ~NET_HASH_TYPES), "hashes %#x", r->hash_types);
	fuzz_check(r->mask < NET_RSS_TABLE_LEN && !(r->mask & (r->mask + 1)), "mask %#x", r->mask);
	fuzz_check(r->unclassified < PAIRS, "pair %u", r->unclassified);
	for (unsigned i = 0; i <= r->mask; i++)
		fuzz_check(r->table[i] < PAIRS, "pair %u", r->table[i]);
	return 0;
}

static const struct net_ops wire_ops = {
	.kind = "wire", .send = wire_send, .recv = wire_recv, .start = wire_start,
	.stop = wire_stop, .want = wire_want, .set_offload = wire_offload, .set_rss = wire_rss,
	.attach = wire_attach,
};

/* --- what must become of the ring -------------------------------------------------------- */

static u16 expect(struct hostile *h)
{
	u16 nr = 0;

	while (hostile_next(h, control, &chain[nr]) > 0) {
		struct hostile_chain *c = &chain[nr];

		if (!c->in || c->out < sizeof(struct virtio_net_ctrl_hdr)) {
			h->q[control].broken = true;
			break;
		}
		hostile_reads(h, c, c->out);
		hostile_allow(h, c, 1);
		head[nr++] = c->head;
	}
	return nr;
}

static void round_of(struct hostile *h)
{
	u16 nr, got;
	u32 len;
	u8 answer;

	hostile_look(h, true);
	nr = expect(h);
	hostile_before(h, false);
	hostile_kick(h, control);
	fake_settle(&h->fake);
	hostile_after(h);
	fuzz_check(!(hostile_get(h, VIRTIO_MMIO_CONFIG) & 1), "the address of a group");
	/* Frames go to the first pairs, as many as the driver said. */
	fuzz_check(!h->running || !h->sound || attached[0], "no frames to the first pair");
	fuzz_check(control == 2 * PAIRS || !attached[1], "frames to a pair that the driver does not know of");
	if (h->entangled) {
		hostile_reset(h);
		return;
	}
	for (u16 i = 0; i < nr; i++) {
		fuzz_check(hostile_answer(h, control, &got, &len), "%u answers of %u", i, nr);
		fuzz_check(got == head[i] && len == 1, "answer %u: %u of %u bytes", i, got, len);
		hostile_gather(h, &chain[i], true, &answer, 1);
		fuzz_check(answer == VIRTIO_NET_OK || answer == VIRTIO_NET_ERR, "answer %u", answer);
	}
	fuzz_check(!hostile_answer(h, control, &got, &len), "an answer to nothing: %u", got);
	if (!h->q[control].broken)
		hostile_check_armed(h, control);
}

/* The other queues stay empty. */
static void start(struct hostile *h, u64 features)
{
	control = features & (1ULL << VIRTIO_NET_F_MQ | 1ULL << VIRTIO_NET_F_RSS) ? 2 * PAIRS : 2;
	hostile_start(h, features, control + 1, true);
	round_of(h);
}

/* A command as a driver writes it, for the most part. */
static void command(struct hostile *h, struct fuzz *f)
{
	static const u8 lens[] = { 0, 1, 2, 3, 4, 6, 8, 14, 20, 60 };
	struct hostile_piece p[] = { { HOSTILE_DATA, 2, false }, { HOSTILE_DATA + 2, 0, false },
				     { HOSTILE_DATA + 0x1000, 1, true } };

	h->ram[HOSTILE_DATA] = fuzz_u8(f) % 8;
	h->ram[HOSTILE_DATA + 1] = fuzz_u8(f) % 8;
	p[1].len = lens[fuzz_u8(f) % ARRAY_SIZE(lens)];
	for (u32 i = 0; i < p[1].len; i++)
		h->ram[HOSTILE_DATA + 2 + i] = fuzz_u8(f);
	hostile_chain(h, control, p, ARRAY_SIZE(p));
}

/* The longest one, with a table and a key. */
static void steering(struct hostile *h, struct fuzz *f)
{
	struct hostile_piece p[] = { { HOSTILE_DATA, 0, false }, { HOSTILE_DATA + 0x1000, 1, true } };
	u8 *at = h->ram + HOSTILE_DATA, types = fuzz_u8(f), bits = fuzz_u8(f) % 9;
	u16 mask = (u16)((1 << bits) - 1) ^ (fuzz_u8(f) % 16 ? 0 : fuzz_u8(f));
	u8 pair = fuzz_u8(f), key_len = fuzz_u8(f) % 48, more = fuzz_u8(f);

	memset(at, 0, 700);
	memcpy(at, (u8[]){ VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, types & 0x7f, 0, 0, 0, (u8)mask,
			   mask >> 8, pair % 4, 0 }, 10);
	at += 10;
	at[pair % 16 * 2] = pair >> 6;
	at += 2UL << bits;
	*at = types < 0xfc;
	at[2] = key_len;
	memset(at + 3, types, key_len);
	at += 3 + key_len + (more > 0xf0 ? more & 0xf : 0);
	p[0].len = (u32)(at - (h->ram + HOSTILE_DATA));
	hostile_chain(h, control, p, ARRAY_SIZE(p));
}

static void obeys(struct hostile *h, const void *command, u32 len)
{
	struct hostile_piece p[] = { { HOSTILE_DATA, len, false }, { HOSTILE_DATA + 64, 1, true } };

	memcpy(h->ram + HOSTILE_DATA, command, len);
	h->ram[HOSTILE_DATA + 64] = 0xee;
	hostile_chain(h, control, p, ARRAY_SIZE(p));
	round_of(h);
	fuzz_check(h->ram[HOSTILE_DATA + 64] == VIRTIO_NET_OK, "a plain command was refused");
}

static void works(struct hostile *h)
{
	static const u8 off[] = { VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0 };
	static const u8 steered[] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, 0x3f, 0, 0, 0,
				      1, 0, 1, 0, 0, 0, 1, 0, 2, 0, 2, 0x6d, 0x5a };
	static const u8 both[] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 2, 0 };

	start(h, 1ULL << VIRTIO_NET_F_CTRL_VQ | 1ULL << VIRTIO_NET_F_CTRL_RX | 1ULL << VIRTIO_NET_F_RSS);
	obeys(h, off, sizeof(off));
	obeys(h, steered, sizeof(steered));
	start(h, 1ULL << VIRTIO_NET_F_CTRL_VQ | 1ULL << VIRTIO_NET_F_MQ);
	fuzz_check(!attached[1], "the second pair, after a reset");
	obeys(h, both, sizeof(both));
	fuzz_check(attached[1], "the second pair stays aside");
}

void fuzz_one(struct fuzz *f)
{
	static struct net *const far_end[PAIRS] = { &wire[0], &wire[1] };
	static const u8 mac[6] = { 2, 0, 0, 1, 2, 3 };
	struct hostile *h = hostile_begin(f);
	struct device *dev;
	struct virtio *v;

	for (int i = 0; i < PAIRS; i++) {
		wire[i] = (struct net){ .ops = &wire_ops, .mtu = 1500,
					.offload = 0x7f83 | 1ULL << VIRTIO_NET_F_RSS };
		attached[i] = false;
	}
	fuzz_check(!virtio_net_new(&h->fake.p, "net0", &(struct virtio_net_options){
		   .mac = mac, .net = far_end, .nr_pairs = PAIRS }, &v, NULL), "virtio_net_new");
	dev = hostile_plug(v);
	start(h, ~0ULL);
	while (f->left) {
		switch (fuzz_u8(f) % 9) {
		case 0:
			start(h, fuzz_u64(f));
			break;
		case 1:
			hostile_poke(h, control);
			break;
		case 2:
			hostile_offer(h, control);
			break;
		case 3: case 4: case 5:
			if (h->running && h->q[control].ready)
				command(h, f);
			break;
		case 6:
			if (h->running && h->q[control].ready)
				steering(h, f);
			break;
		default:
			round_of(h);
		}
	}
	works(h);
	hostile_end(h, dev);
}
