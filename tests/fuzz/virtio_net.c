/*
 * virtio_net.c: a hostile driver of a network card of two pairs of queues, and wires that are full,
 * empty or out of order as the input says.  Every frame that is sent arrives once, whole and in
 * order; what comes from the wire reaches the buffers whole, with the header it came
 * with, or not at all; no other byte of the guest changes.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include "devices/virtio/net_own.h"
#include "tests/fuzz/lib/hostile.h"

enum { RX, TX, PAIRS = 2 };
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

struct used {
	struct hostile_chain chain;
	u32 len;
	unsigned frame;			/* of in, and where in it this begins */
	u32 at;
};

/* Two queues and their wire, and what must become of them. */
static struct end {
	struct net net;
	int rx, tx;			/* the queues' numbers */
	bool started;
	bool pending, was_pending;	/* the card has taken one, and not delivered it; before this round */
	size_t in_place, in_place_before;	/* of that one: so much is in the buffers ahead */
	struct line in, out;		/* out: as the rings say it must be */
	unsigned room;			/* frames until the wire is full */
	bool lossy;
	bool quiet;			/* no more frames in this round */
	struct used used[2][VIRTQ_MAX];
	u16 nr_used[2];
	/* The buffers that the card has taken from the ring before it knows what for. */
	struct {
		struct hostile_chain chain[AHEAD_BUFFERS];	/* in a circle */
		unsigned first, nr;
		int pieces;
		u64 len;
		size_t expected;	/* as long as frames were lately */
	} ahead;
} end[PAIRS];

static struct {
	struct hostile *h;
	struct virtio *v;
	unsigned nr_pairs;		/* that the driver knows of */
	bool merge;
	u64 offload;
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
	struct end *e = container_of(n, struct end, net);
	struct frame *want = &e->out.frame[e->out.done], got = { 0 };

	fuzz_check(e->started, "sent to a wire that was stopped");
	if (!e->room)
		return -EAGAIN;
	e->room--;
	for (int i = 0; i < nr; i++) {
		got.len += iov[i].iov_len;
		got.sum = add_up(got.sum, iov[i].iov_base, iov[i].iov_len);
	}
	if (w.h->entangled)
		return 0;
	fuzz_check(e->out.done < e->out.nr, "a frame of %u bytes that nobody sent", got.len);
	fuzz_check(got.len == want->len && got.sum == want->sum,
		   "frame %u came out of %u bytes, not %u", e->out.done, got.len, want->len);
	e->out.done++;
	return e->lossy ? -EIO : 0;
}

static ssize_t wire_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct end *e = container_of(n, struct end, net);
	const struct frame *f = &e->in.frame[e->in.done];
	size_t at = 0;

	fuzz_check(e->started, "read from a wire that was stopped");
	if (e->in.done == e->in.nr || e->quiet)
		return -EAGAIN;
	e->in.done++;
	e->quiet = f->len < NET_HDR_LEN;
	for (int i = 0; i < nr; i++)
		for (size_t k = 0; k < iov[i].iov_len && at < f->len; k++)
			((u8 *)iov[i].iov_base)[k] = byte_of(f, at++);
	return at;
}

static int wire_start(struct net *n, struct loop *l)
{
	struct end *e = container_of(n, struct end, net);

	(void)l;
	fuzz_check(!e->started, "started twice");
	e->started = true;
	return 0;
}

static void wire_stop(struct net *n)
{
	container_of(n, struct end, net)->started = false;
}

static void wire_want(struct net *n, bool rx, bool tx)
{
	(void)rx, (void)tx;
	fuzz_check(container_of(n, struct end, net)->started, "wishes of a card that was stopped");
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

static struct hostile_chain *nth_ahead(struct end *e, unsigned n)
{
	return &e->ahead.chain[(e->ahead.first + n) % AHEAD_BUFFERS];
}

static void expect_sent(struct hostile *h, struct end *e)
{
	static u8 data[NET_FRAME_MAX];
	unsigned room = e->room;

	e->out.nr = e->out.done = 0;
	for (;;) {
		u16 before = h->q[e->tx].next_avail;
		struct used *u = &e->used[TX][e->nr_used[TX]];
		struct frame *f = &e->out.frame[e->out.nr];

		if (e->out.nr == MOST_FRAMES)
			e->room = MIN(e->room, MOST_FRAMES);
		if (hostile_next(h, e->tx, &u->chain) <= 0)
			return;
		if (u->chain.out < NET_HDR_LEN || u->chain.in) {
			h->q[e->tx].broken = true;
			return;
		}
		if (u->chain.out <= NET_FRAME_MAX) {
			if (e->out.nr == room) {
				h->q[e->tx].next_avail = before;
				return;
			}
			hostile_reads(h, &u->chain, u->chain.out);
			f->len = hostile_gather(h, &u->chain, false, data, sizeof(data));
			f->sum = add_up(0, data, f->len);
			e->out.nr++;
		}
		u->len = 0;
		e->nr_used[TX]++;
	}
}

/* Buffers for len bytes, as far as there are any.  False: no more can ever be taken. */
static bool look_ahead(struct hostile *h, struct end *e, u64 len)
{
	unsigned most = w.merge ? AHEAD_BUFFERS : 1;

	while (e->ahead.len < len) {
		struct hostile_chain *c = nth_ahead(e, e->ahead.nr);
		u16 before = h->q[e->rx].next_avail;
		int pieces = 0, rc;

		if (e->ahead.nr == most)
			return false;
		rc = hostile_next(h, e->rx, c);
		h->q[e->rx].broken |= rc > 0 && !c->in;
		if (rc <= 0 || !c->in)
			return true;
		for (int i = 0; i < c->nr; i++)
			pieces += c->piece[i].in;
		if (e->ahead.pieces + pieces > AHEAD_PIECES) {
			h->q[e->rx].next_avail = before;
			return false;
		}
		e->ahead.pieces += pieces;
		e->ahead.len += c->in;
		e->ahead.nr++;
	}
	return true;
}

/* The card reads a frame: straight into the buffers ahead, as far as it goes. */
static void expect_read(struct hostile *h, struct end *e, size_t len)
{
	size_t left = len;

	for (unsigned i = 0; i < e->ahead.nr && left; i++) {
		u64 k = MIN(left, nth_ahead(e, i)->in);

		hostile_allow(h, nth_ahead(e, i), k);
		left -= k;
	}
}

static void drop_first_ahead(struct end *e)
{
	const struct hostile_chain *c = nth_ahead(e, 0);

	e->ahead.len -= c->in;
	for (int i = 0; i < c->nr; i++)
		e->ahead.pieces -= c->piece[i].in;
	e->ahead.first++;
	e->ahead.nr--;
}

static bool is_broken(const struct hostile *h)
{
	bool broken = false;

	for (int i = 0; i < 2 * PAIRS; i++)
		broken |= h->q[i].broken;
	return broken;
}

/* False: it has to wait, or a queue is broken. */
static bool expect_delivered(struct hostile *h, struct end *e, unsigned frame)
{
	u32 len = e->in.frame[frame].len;

	while (e->ahead.len < len) {
		unsigned from = e->ahead.nr;
		u64 done = e->ahead.len;

		if (!look_ahead(h, e, len))
			return true;		/* lost: the driver's buffers are too small */
		if (e->ahead.nr == from || is_broken(h))
			return false;
		for (unsigned i = from; i < e->ahead.nr; done += nth_ahead(e, i++)->in)
			hostile_allow(h, nth_ahead(e, i), MIN(nth_ahead(e, i)->in, len - done));
		e->in_place = MIN(len, e->ahead.len);
	}
	if (e->was_pending && frame == e->in.done - 1)
		expect_read(h, e, NET_HDR_LEN);		/* the count, to the rest from before */
	for (u32 done = 0; done < len; ) {
		struct used *u = &e->used[RX][e->nr_used[RX]++];

		*u = (struct used){ *nth_ahead(e, 0), MIN(nth_ahead(e, 0)->in, len - done), frame, done };
		done += u->len;
		drop_first_ahead(e);
	}
	return true;
}

static size_t longest(struct hostile *h)
{
	u64 large = 1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6 |
		    1ULL << VIRTIO_NET_F_GUEST_UFO;

	return h->features & large ? NET_FRAME_MAX : NET_SHORT_FRAME;
}

static void expect_received(struct hostile *h, struct end *e)
{
	unsigned at = e->in.done - e->pending;

	e->was_pending = e->pending;
	e->in_place_before = e->in_place;
	for (;; e->pending = false) {
		u32 len;

		if (!e->pending) {
			look_ahead(h, e, MIN(e->ahead.expected, longest(h)));
			if (!e->ahead.nr || is_broken(h) || at == e->in.nr)
				return;
			len = e->in.frame[at].len;
			expect_read(h, e, len);
			if (len < NET_HDR_LEN)		/* that ends the round: see wire_recv */
				return;
			e->ahead.expected = MAX(len, e->ahead.expected - e->ahead.expected / 64);
			e->in_place = MIN(len, e->ahead.len);
			e->pending = true;
		}
		if (!expect_delivered(h, e, at))
			return;
		at++;
	}
}

/* A driver may not cut the header in two: then its count of buffers is anything. */
static bool whole_header(const struct end *e, const struct used *u)
{
	return (u == e->used[RX] || u[-1].frame != u->frame) && u->len >= NET_HDR_LEN;
}

static void check_received(struct hostile *h, struct end *e, const struct used *u, u16 nr_buffers)
{
	static u8 got[NET_FRAME_MAX];
	const struct frame *f = &e->in.frame[u->frame];

	hostile_gather(h, &u->chain, true, got, u->len);
	for (u32 i = 0; i < u->len; i++) {
		u32 at = u->at + i;
		u8 want = at == 10 ? nr_buffers : at == 11 ? nr_buffers >> 8 : byte_of(f, at);

		if (at / 2 == 5 && !whole_header(e, u))
			continue;
		/* The driver may have written there since. */
		if (e->was_pending && u->frame == e->used[RX][0].frame && at < e->in_place_before &&
		    at / 2 != 5)
			continue;
		fuzz_check(got[i] == want, "byte %u of frame %u came as %#x, not %#x", at,
			   u->frame, got[i], want);
	}
}

static u16 buffers_of(const struct end *e, unsigned frame)
{
	u16 n = 0;

	for (u16 i = 0; i < e->nr_used[RX]; i++)
		n += e->used[RX][i].frame == frame;
	return n;
}

static void check_answers(struct hostile *h, struct end *e, int which)
{
	int queue = which == RX ? e->rx : e->tx;
	u32 len;
	u16 head;

	for (u16 i = 0; i < e->nr_used[which]; i++) {
		struct used *u = &e->used[which][i];

		fuzz_check(hostile_answer(h, queue, &head, &len), "queue %d: %u answers of %u",
			   queue, i, e->nr_used[which]);
		/* Heads offered twice: more answers at once than the ring holds. */
		if (e->nr_used[which] - i > h->q[queue].size)
			continue;
		fuzz_check(head == u->chain.head && len == u->len,
			   "queue %d: answer %u: %u of %u bytes, not %u of %u", queue, i, head, len,
			   u->chain.head, u->len);
		if (which == RX && !h->overlap)
			check_received(h, e, u, buffers_of(e, u->frame));
	}
	fuzz_check(!hostile_answer(h, queue, &head, &len), "queue %d: an answer to nothing: %u",
		   queue, head);
}

enum { KICK_RX, KICK_TX, READABLE, WRITABLE };

/* Answers for which a timer will interrupt, if need be. */
static bool is_late(int queue)
{
	const struct virtq *q = &w.v->vq[queue];

	return q->signalled != q->next_used;
}

static void expect(struct hostile *h, struct end *e, bool rx, bool tx)
{
	e->nr_used[RX] = e->nr_used[TX] = e->out.nr = e->out.done = 0;
	e->was_pending = e->quiet = false;
	/* READABLE and WRITABLE are the wire's: they come whatever state a queue is in. */
	if (rx && h->running && h->sound)
		expect_received(h, e);
	if (tx)
		expect_sent(h, e);
}

static void do_it(struct hostile *h, struct end *e, int what)
{
	if (what == KICK_RX || what == KICK_TX)
		hostile_kick(h, what == KICK_RX ? e->rx : e->tx);
	else
		(what == READABLE ? e->net.readable : e->net.writable)(&e->net);
	for (int i = 0; i < TURNS; i++)
		fake_turn(&h->fake);
}

static bool small_rings(const struct hostile *h)
{
	bool small = true;

	for (int i = 0; i < 2 * PAIRS; i++)
		small &= h->q[i].size <= 64;
	return small;
}

static void check(struct hostile *h, const bool was_late[PAIRS])
{
	u16 answers[HOSTILE_QUEUES] = { 0 };
	bool late = false;

	for (unsigned i = 0; i < PAIRS; i++) {
		struct end *e = &end[i];
		bool tx_late = was_late[i] || is_late(e->tx);

		check_answers(h, e, RX);
		check_answers(h, e, TX);
		fuzz_check(e->out.done == e->out.nr, "%u frames of %u were sent", e->out.done, e->out.nr);
		answers[e->rx] = e->nr_used[RX];
		answers[e->tx] = tx_late ? 0 : e->nr_used[TX];
		late |= tx_late;
	}
	if (h->sound && !is_broken(h))
		hostile_check_interrupts(h, answers, late);
}

static void round_of(struct hostile *h, struct end *e, int what, bool scribble)
{
	bool starts = h->prepared, tx = starts || what == KICK_TX || what == WRITABLE, late[PAIRS];

	if (starts)
		what = KICK_RX;
	if (!starts && (what == READABLE || what == WRITABLE) && !e->started)
		return;
	hostile_look(h, true);
	/* With DRIVER_OK all queues are looked at, in their order. */
	for (unsigned i = 0; i < PAIRS; i++) {
		bool does = (starts && i < w.nr_pairs) || e == &end[i];

		late[i] = is_late(end[i].tx);
		expect(h, &end[i], does && (starts || !tx), does && tx);
	}
	hostile_before(h, scribble && small_rings(h));
	do_it(h, e, what);
	hostile_after(h);
	if (h->entangled) {
		hostile_reset(h);
		return;
	}
	check(h, late);
	for (unsigned i = 0; i < w.nr_pairs && tx; i++)
		if (starts || e == &end[i])
			hostile_check_armed(h, end[i].tx);
}

/* A pair that the driver does not know of is not set up. */
static void start(struct hostile *h, u64 features, bool well)
{
	w.nr_pairs = features >> VIRTIO_NET_F_MQ & 1 ? PAIRS : 1;
	hostile_start(h, features, 2 * w.nr_pairs, well);
	w.merge = h->features >> VIRTIO_NET_F_MRG_RXBUF & 1;
	for (unsigned i = 0; i < PAIRS; i++) {
		end[i].pending = false;
		end[i].ahead.nr = end[i].ahead.pieces = end[i].ahead.len = 0;
		end[i].ahead.expected = NET_SHORT_FRAME;
	}
}

static void new_frame(struct fuzz *f, struct line *in)
{
	static const u32 len[] = { 0, 11, 12, 13, 60, 100, 300, 1526, 4000, 65549 };
	u8 b = fuzz_u8(f);

	if (in->nr < MOST_FRAMES)
		in->frame[in->nr++] = (struct frame){ .len = len[b % ARRAY_SIZE(len)], .seed = b };
}

static void works(struct hostile *h)
{
	start(h, 1ULL << VIRTIO_NET_F_MQ, true);
	for (unsigned i = 0; i < PAIRS; i++) {
		u64 at = HOSTILE_DATA + i * 512ULL;
		struct hostile_piece in = { at, 200, true }, out = { at + 256, 80, false };
		struct end *e = &end[i];

		e->in.nr = e->in.done = 0;
		e->in.frame[e->in.nr++] = (struct frame){ .len = 100, .seed = 7 };
		e->room = 1;
		e->lossy = false;
		hostile_chain(h, e->rx, &in, 1);
		hostile_chain(h, e->tx, &out, 1);
	}
	round_of(h, &end[0], KICK_RX, false);
	for (int i = 0; i < 2 * PAIRS; i++)
		fuzz_check(h->q[i].next_used == 1, "no traffic after a reset: queue %d", i);
}

void fuzz_one(struct fuzz *f)
{
	static const u8 mac[6] = { 2, 0, 0, 1, 2, 3 };
	struct hostile *h = hostile_begin(f);
	struct net *wire[PAIRS];
	struct device *dev;

	memset(&w, 0, sizeof(w));
	w.h = h;
	for (int i = 0; i < PAIRS; i++) {
		struct end *e = &end[i];

		e->rx = 2 * i;
		e->tx = 2 * i + 1;
		e->started = e->lossy = false;
		e->room = e->in.nr = e->in.done = 0;
		e->net = (struct net){ .ops = &wire_ops, .mtu = 1500, .offload = 0x7f83 };
		wire[i] = &e->net;
	}
	fuzz_check(!virtio_net_new(&h->fake.p, "net0", &(struct virtio_net_options){
		    .mac = mac, .net = wire, .nr_pairs = PAIRS }, &w.v, NULL), "virtio_net_new");
	dev = hostile_plug(w.v);
	start(h, ~0ULL, true);
	while (f->left) {
		u8 step = fuzz_u8(f), queue = step >> 6 & 1, more = 0;
		struct end *e;

		/* The second pair's turns are told by a byte ahead of them. */
		if (step == 0xff && f->left > 1) {
			more = 1;
			step = fuzz_u8(f);
			queue = step >> 6 & 1;
		}
		e = &end[more];
		queue += 2 * more;
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
			e->room = step >> 4;
			e->lossy = step & 0x80;
			break;
		case 4: case 5:
			new_frame(f, &e->in);
			break;
		case 6: case 7: case 8: case 9: case 10:
			hostile_offer(h, queue);
			break;
		default:
			round_of(h, e, step >> 4 & 3, step & 0x80);
		}
	}
	works(h);
	hostile_end(h, dev);
	for (int i = 0; i < PAIRS; i++)
		fuzz_check(!end[i].started, "the wire was not stopped");
}
