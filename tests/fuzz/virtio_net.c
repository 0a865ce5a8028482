/*
 * virtio_net.c: a hostile driver of a network card, and a wire that is full, empty or
 * out of order as the input says.  Every frame that is sent arrives once, whole and in
 * order; what comes from the wire reaches the buffers whole, with the header it came
 * with, or not at all; no other byte of the guest changes.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include "devices/virtio/net_own.h"
#include "tests/fuzz/lib/hostile.h"

enum { RX, TX, NR_QUEUES };
enum { MOST_FRAMES = 64, TURNS = 3 };

struct frame {
	u32 len;
	u8 seed;
	u64 sum;			/* of those to the wire */
};

/* The frames between the two: those before `done` are where they belong. */
struct line {
	struct frame frame[MOST_FRAMES];
	unsigned nr, done;
};

static struct {
	struct net net;
	struct hostile *h;
	struct virtio *v;
	bool started, merge;
	bool pending, was_pending;	/* the card has taken one, and not delivered it; before this round */
	size_t in_place, in_place_before;	/* of that one: so much is in the buffers ahead */
	u64 offload;
	struct line in, out;		/* out: as the rings say it must be */
	unsigned room;			/* frames until the wire is full */
	bool lossy;
	bool quiet;			/* no more frames in this round */
} w;

static u8 byte_of(const struct frame *f, size_t i)
{
	return f->seed + 3 * i;
}

static u64 add_up(u64 sum, const u8 *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum = (sum ^ data[i]) * 0x100000001b3;
	return sum;
}

/* --- the wire ------------------------------------------------------------------------- */

static int wire_send(struct net *n, const struct iovec *iov, int nr)
{
	struct frame *want = &w.out.frame[w.out.done], got = { 0 };

	(void)n;
	fuzz_check(w.started, "sent to a wire that was stopped");
	if (!w.room)
		return -EAGAIN;
	w.room--;
	for (int i = 0; i < nr; i++) {
		got.len += iov[i].iov_len;
		got.sum = add_up(got.sum, iov[i].iov_base, iov[i].iov_len);
	}
	if (w.h->entangled)
		return 0;
	fuzz_check(w.out.done < w.out.nr, "a frame of %u bytes that nobody sent", got.len);
	fuzz_check(got.len == want->len && got.sum == want->sum,
		   "frame %u came out of %u bytes, not %u", w.out.done, got.len, want->len);
	w.out.done++;
	return w.lossy ? -EIO : 0;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	const struct frame *f = &w.in.frame[w.in.done];
	size_t at = 0;

	(void)n;
	fuzz_check(w.started, "read from a wire that was stopped");
	if (w.in.done == w.in.nr || w.quiet)
		return -EAGAIN;
	w.in.done++;
	w.quiet = f->len < NET_HDR_LEN;
	for (int i = 0; i < nr; i++)
		for (size_t k = 0; k < iov[i].iov_len && at < f->len; k++)
			((u8 *)iov[i].iov_base)[k] = byte_of(f, at++);
	return at;
}

static int wire_start(struct net *n, struct loop *l)
{
	(void)n, (void)l;
	fuzz_check(!w.started, "started twice");
	w.started = true;
	return 0;
}

static void wire_stop(struct net *n)
{
	(void)n;
	w.started = false;
}

static void wire_want(struct net *n, bool rx, bool tx)
{
	(void)n, (void)rx, (void)tx;
	fuzz_check(w.started, "wishes of a card that was stopped");
}

static int wire_offload(struct net *n, u64 features)
{
	(void)n;
	w.offload = features;
	return 0;
}

static const struct net_ops wire_ops = {
	.kind = "wire", .send = wire_send, .recv = wire_recv, .start = wire_start,
	.stop = wire_stop, .want = wire_want, .set_offload = wire_offload,
};

/* --- what must become of the rings ------------------------------------------------------- */

struct used {
	struct hostile_chain chain;
	u32 len;
	unsigned frame;			/* of w.in, and where in it this begins */
	u32 at;
};
static struct used used[NR_QUEUES][VIRTQ_MAX];
static u16 nr_used[NR_QUEUES];

/* The buffers that the card has taken from the ring before it knows what for. */
static struct {
	struct hostile_chain chain[AHEAD_BUFFERS];	/* in a circle */
	unsigned first, nr;
	int pieces;
	u64 len;
	size_t expected;		/* as long as frames were lately */
} ahead;

static struct hostile_chain *nth_ahead(unsigned n)
{
	return &ahead.chain[(ahead.first + n) % AHEAD_BUFFERS];
}

static void expect_sent(struct hostile *h)
{
	static u8 data[NET_FRAME_MAX];
	unsigned room = w.room;

	w.out.nr = w.out.done = 0;
	for (;;) {
		u16 before = h->q[TX].next_avail;
		struct used *u = &used[TX][nr_used[TX]];
		struct frame *f = &w.out.frame[w.out.nr];

		if (w.out.nr == MOST_FRAMES)
			w.room = MIN(w.room, MOST_FRAMES);
		if (hostile_next(h, TX, &u->chain) <= 0)
			return;
		if (u->chain.out < NET_HDR_LEN || u->chain.in) {
			h->q[TX].broken = true;
			return;
		}
		if (u->chain.out <= NET_FRAME_MAX) {
			if (w.out.nr == room) {
				h->q[TX].next_avail = before;
				return;
			}
			hostile_reads(h, &u->chain, u->chain.out);
			f->len = hostile_gather(h, &u->chain, false, data, sizeof(data));
			f->sum = add_up(0, data, f->len);
			w.out.nr++;
		}
		u->len = 0;
		nr_used[TX]++;
	}
}

/* Buffers for len bytes, as far as there are any.  False: no more can ever be taken. */
static bool look_ahead(struct hostile *h, u64 len)
{
	unsigned most = w.merge ? AHEAD_BUFFERS : 1;

	while (ahead.len < len) {
		struct hostile_chain *c = nth_ahead(ahead.nr);
		u16 before = h->q[RX].next_avail;
		int pieces = 0, rc;

		if (ahead.nr == most)
			return false;
		rc = hostile_next(h, RX, c);
		h->q[RX].broken |= rc > 0 && !c->in;
		if (rc <= 0 || !c->in)
			return true;
		for (int i = 0; i < c->nr; i++)
			pieces += c->piece[i].in;
		if (ahead.pieces + pieces > AHEAD_PIECES) {
			h->q[RX].next_avail = before;
			return false;
		}
		ahead.pieces += pieces;
		ahead.len += c->in;
		ahead.nr++;
	}
	return true;
}

/* The card reads a frame: straight into the buffers ahead, as far as it goes. */
static void expect_read(struct hostile *h, size_t len)
{
	size_t left = len;

	for (unsigned i = 0; i < ahead.nr && left; i++) {
		u64 k = MIN(left, nth_ahead(i)->in);

		hostile_allow(h, nth_ahead(i), k);
		left -= k;
	}
}

static void drop_first_ahead(void)
{
	const struct hostile_chain *c = nth_ahead(0);

	ahead.len -= c->in;
	for (int i = 0; i < c->nr; i++)
		ahead.pieces -= c->piece[i].in;
	ahead.first++;
	ahead.nr--;
}

static bool is_broken(const struct hostile *h)
{
	return h->q[RX].broken || h->q[TX].broken;
}

/* False: it has to wait, or a queue is broken. */
static bool expect_delivered(struct hostile *h, unsigned frame)
{
	u32 len = w.in.frame[frame].len;

	while (ahead.len < len) {
		unsigned from = ahead.nr;
		u64 done = ahead.len;

		if (!look_ahead(h, len))
			return true;		/* lost: the driver's buffers are too small */
		if (ahead.nr == from || is_broken(h))
			return false;
		for (unsigned i = from; i < ahead.nr; done += nth_ahead(i++)->in)
			hostile_allow(h, nth_ahead(i), MIN(nth_ahead(i)->in, len - done));
		w.in_place = MIN(len, ahead.len);
	}
	if (w.was_pending && frame == w.in.done - 1)
		expect_read(h, NET_HDR_LEN);		/* the count, to the rest from before */
	for (u32 done = 0; done < len; ) {
		struct used *u = &used[RX][nr_used[RX]++];

		*u = (struct used){ *nth_ahead(0), MIN(nth_ahead(0)->in, len - done), frame, done };
		done += u->len;
		drop_first_ahead();
	}
	return true;
}

static size_t longest(struct hostile *h)
{
	u64 large = 1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6 |
		    1ULL << VIRTIO_NET_F_GUEST_UFO;

	return h->features & large ? NET_FRAME_MAX : NET_SHORT_FRAME;
}

static void expect_received(struct hostile *h)
{
	unsigned at = w.in.done - w.pending;

	w.was_pending = w.pending;
	w.in_place_before = w.in_place;
	for (;; w.pending = false) {
		u32 len;

		if (!w.pending) {
			look_ahead(h, MIN(ahead.expected, longest(h)));
			if (!ahead.nr || is_broken(h) || at == w.in.nr)
				return;
			len = w.in.frame[at].len;
			expect_read(h, len);
			if (len < NET_HDR_LEN)		/* that ends the round: see wire_recv */
				return;
			ahead.expected = MAX(len, ahead.expected - ahead.expected / 64);
			w.in_place = MIN(len, ahead.len);
			w.pending = true;
		}
		if (!expect_delivered(h, at))
			return;
		at++;
	}
}

/* A driver may not cut the header in two: then its count of buffers is anything. */
static bool whole_header(const struct used *u)
{
	return (u == used[RX] || u[-1].frame != u->frame) && u->len >= NET_HDR_LEN;
}

static void check_received(struct hostile *h, const struct used *u, u16 nr_buffers)
{
	static u8 got[NET_FRAME_MAX];
	const struct frame *f = &w.in.frame[u->frame];

	hostile_gather(h, &u->chain, true, got, u->len);
	for (u32 i = 0; i < u->len; i++) {
		u32 at = u->at + i;
		u8 want = at == 10 ? nr_buffers : at == 11 ? nr_buffers >> 8 : byte_of(f, at);

		if (at / 2 == 5 && !whole_header(u))
			continue;
		/* The driver may have written there since. */
		if (w.was_pending && u->frame == used[RX][0].frame && at < w.in_place_before &&
		    at / 2 != 5)
			continue;
		fuzz_check(got[i] == want, "byte %u of frame %u came as %#x, not %#x", at,
			   u->frame, got[i], want);
	}
}

static u16 buffers_of(unsigned frame)
{
	u16 n = 0;

	for (u16 i = 0; i < nr_used[RX]; i++)
		n += used[RX][i].frame == frame;
	return n;
}

static void check_answers(struct hostile *h, int queue)
{
	u32 len;
	u16 head;

	for (u16 i = 0; i < nr_used[queue]; i++) {
		struct used *u = &used[queue][i];

		fuzz_check(hostile_answer(h, queue, &head, &len), "queue %d: %u answers of %u",
			   queue, i, nr_used[queue]);
		/* Heads offered twice: more answers at once than the ring holds. */
		if (nr_used[queue] - i > h->q[queue].size)
			continue;
		fuzz_check(head == u->chain.head && len == u->len,
			   "queue %d: answer %u: %u of %u bytes, not %u of %u", queue, i, head, len,
			   u->chain.head, u->len);
		if (queue == RX && !h->overlap)
			check_received(h, u, buffers_of(u->frame));
	}
	fuzz_check(!hostile_answer(h, queue, &head, &len), "queue %d: an answer to nothing: %u",
		   queue, head);
}

enum { KICK_RX, KICK_TX, READABLE, WRITABLE };

/* Answers for which a timer will interrupt, if need be. */
static bool tx_is_late(void)
{
	const struct virtq *q = &w.v->vq[TX];

	return q->signalled != q->next_used;
}

static void round_of(struct hostile *h, int what, bool scribble)
{
	bool starts = h->prepared, rx = starts || what == KICK_RX || what == READABLE;
	bool tx = starts || what == KICK_TX || what == WRITABLE, late = tx_is_late();

	if (!starts && (what == READABLE || what == WRITABLE) && !w.started)
		return;
	hostile_look(h, true);
	nr_used[RX] = nr_used[TX] = w.out.nr = w.out.done = 0;
	w.was_pending = false;
	w.quiet = false;
	/* READABLE and WRITABLE are the wire's: they come whatever state a queue is in. */
	if (rx && h->running && h->sound)
		expect_received(h);
	if (tx)
		expect_sent(h);
	hostile_before(h, scribble && h->q[RX].size <= 64 && h->q[TX].size <= 64);
	if (starts || what == KICK_RX || what == KICK_TX)
		hostile_kick(h, what);
	else
		(what == READABLE ? w.net.readable : w.net.writable)(&w.net);
	for (int i = 0; i < TURNS; i++)
		fake_turn(&h->fake);
	hostile_after(h);
	if (h->entangled) {
		hostile_reset(h);
		return;
	}
	check_answers(h, RX);
	check_answers(h, TX);
	fuzz_check(w.out.done == w.out.nr, "%u frames of %u were sent", w.out.done, w.out.nr);
	late |= tx_is_late();
	if (h->sound && !is_broken(h))
		hostile_check_interrupts(h, (u16[HOSTILE_QUEUES]){ nr_used[RX],
					 late ? 0 : nr_used[TX] }, late);
	if (tx)
		hostile_check_armed(h, TX);
}

static void start(struct hostile *h, u64 features, bool well)
{
	hostile_start(h, features, NR_QUEUES, well);
	w.merge = h->features >> VIRTIO_NET_F_MRG_RXBUF & 1;
	w.pending = false;
	ahead.nr = ahead.pieces = ahead.len = 0;
	ahead.expected = NET_SHORT_FRAME;
}

static void new_frame(struct fuzz *f)
{
	static const u32 len[] = { 0, 11, 12, 13, 60, 100, 300, 1526, 4000, 65549 };
	u8 b = fuzz_u8(f);

	if (w.in.nr < MOST_FRAMES)
		w.in.frame[w.in.nr++] = (struct frame){ .len = len[b % ARRAY_SIZE(len)],
							.seed = b };
}

static void works(struct hostile *h)
{
	struct hostile_piece in = { HOSTILE_DATA, 200, true }, out = { HOSTILE_DATA + 256, 80, false };

	start(h, 0, true);
	w.in.nr = w.in.done = 0;
	w.in.frame[w.in.nr++] = (struct frame){ .len = 100, .seed = 7 };
	w.room = 1;
	w.lossy = false;
	hostile_chain(h, RX, &in, 1);
	hostile_chain(h, TX, &out, 1);
	round_of(h, KICK_RX, false);
	fuzz_check(h->q[RX].next_used == 1 && h->q[TX].next_used == 1, "no traffic after a reset");
}

void fuzz_one(struct fuzz *f)
{
	static const u8 mac[6] = { 2, 0, 0, 1, 2, 3 };
	static struct net *const net = &w.net;
	struct hostile *h = hostile_begin(f);
	struct device *dev;
	struct virtio *v;

	memset(&w, 0, sizeof(w));
	w.h = h;
	w.net = (struct net){ .ops = &wire_ops, .mtu = 1500, .offload = 0x7f83 };
	fuzz_check(!virtio_net_new(&h->fake.p, "net0", &(struct virtio_net_options){
		    .mac = mac, .net = &net, .nr_pairs = 1 }, &v, NULL), "virtio_net_new");
	w.v = v;
	dev = hostile_plug(v);
	start(h, ~0ULL, true);
	while (f->left) {
		u8 step = fuzz_u8(f), queue = step >> 6 & 1;

		switch (step % 16) {
		case 0:
			start(h, fuzz_u64(f), step & 0x80);
			break;
		case 1:
			hostile_poke(h, queue);
			break;
		case 2:
			if (step & 0x80)
				hostile_reset(h);
			break;
		case 3:
			w.room = step >> 4;
			w.lossy = step & 0x80;
			break;
		case 4: case 5:
			new_frame(f);
			break;
		case 6: case 7: case 8: case 9: case 10:
			hostile_offer(h, queue);
			break;
		default:
			round_of(h, step >> 4 & 3, step & 0x80);
		}
	}
	works(h);
	hostile_end(h, dev);
	fuzz_check(!w.started, "the wire was not stopped");
}
