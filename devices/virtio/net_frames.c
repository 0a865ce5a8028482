/* net_frames.c: the frames of a virtio network card, both ways (virtio 1.2, 5.1.6). */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "devices/net/pcap.h"
#include "devices/virtio/net_own.h"

enum {
	/* Frames, before others on the loop have their turn. */
	RX_BUDGET = 64, TX_BUDGET = 64,
	/* Answers, before the driver sees any of them. */
	PUBLISH_EVERY = 16,
	/* Sent frames that the driver need not hear about at once. */
	QUIET_FRAMES = 8, QUIET_BYTES = 4096,
	TRY_MORE_AFTER = 8,		/* single frames */
	ETH_HEAD = 18,			/* with a VLAN tag */
	COUNT_AT = offsetof(struct virtio_net_hdr_v1, num_buffers),
};

#define QUIET_NS	500000ULL

static void update_wants(struct pair *p)
{
	p->net->ops->want(p->net, p->want_rx, p->want_tx);
}

/* The limit says not yet: a timer asks again.  The header is free. */
static bool limited(struct pair *p, struct limit *l, struct limited *way, size_t len)
{
	u64 wait;

	if (!l || !load_once(&l->on))
		return false;
	wait = limit_take_turn(l, &way->turn, len - NET_HDR_LEN, now_ns());
	if (!wait)
		return false;
	counter_add(way == &p->rx_limited ? &p->counters->rx_throttled : &p->counters->tx_throttled, 1);
	timer_start(&way->timer, p->kick->io.loop, wait);
	return true;
}

/* Who does not wait is in nobody's way. */
static void leave_limit(struct limit *l, struct limited *way)
{
	if (l && !way->timer.loop)
		limit_leave(l, &way->turn);
}

/* --- to the guest --------------------------------------------------------------------------- */

static bool merges(const struct pair *p)
{
	return virtio_has(&p->card->v, VIRTIO_NET_F_MRG_RXBUF);
}

/* Longest that may come, as long as the far end keeps to what it was told. */
static size_t longest(const struct pair *p)
{
	u64 large = 1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6 |
		    1ULL << VIRTIO_NET_F_GUEST_UFO | 1ULL << NET_F_GUEST_USO4 |
		    1ULL << NET_F_GUEST_USO6;

	return p->card->v.accepted & large || !p->net->mtu ? NET_FRAME_MAX :
							     NET_HDR_LEN + ETH_HEAD + p->net->mtu;
}

/* Buffers for len bytes, if the driver has so many.  False: no more will ever fit here. */
static bool look_ahead(struct pair *p, size_t len)
{
	unsigned most = merges(p) ? AHEAD_BUFFERS : 1;
	struct ahead *a = &p->ahead;

	while (a->len < len) {
		struct chain c;
		int rc;

		if (a->nr == most)
			return false;
		rc = virtq_pop(p->rx, &c);
		if (rc < 0 || (rc > 0 && !c.in.len)) {
			virtio_broken(&p->card->v, "receive queue: malformed chain");
			return true;
		}
		if (!rc)
			return true;
		if (a->nr_iov + c.in.nr > AHEAD_PIECES) {
			virtq_unpop(p->rx);
			return false;
		}
		memcpy(a->iov + a->nr_iov, c.in.iov, c.in.nr * sizeof(a->iov[0]));
		a->buffer[a->nr].head = c.head;
		a->buffer[a->nr].nr_iov = c.in.nr;
		a->buffer[a->nr++].len = c.in.len;
		a->nr_iov += c.in.nr;
		a->len += c.in.len;
	}
	return true;
}

/* The first nr buffers were used. */
static void drop_ahead(struct ahead *a, unsigned nr)
{
	unsigned nr_iov = 0;

	for (unsigned i = 0; i < nr; i++) {
		nr_iov += a->buffer[i].nr_iov;
		a->len -= a->buffer[i].len;
	}
	a->nr -= nr;
	a->nr_iov -= nr_iov;
	memmove(a->buffer, a->buffer + nr, a->nr * sizeof(a->buffer[0]));
	memmove(a->iov, a->iov + nr_iov, a->nr_iov * sizeof(a->iov[0]));
}

/* The bytes from at on, of what lies in the pieces. */
static size_t peek(const struct iovec *iov, int nr, size_t at, u8 *to, size_t len)
{
	size_t done = 0;

	for (; nr && done < len; iov++, nr--) {
		size_t k;

		if (at >= iov->iov_len) {
			at -= iov->iov_len;
			continue;
		}
		k = MIN(iov->iov_len - at, len - done);
		memcpy(to + done, (u8 *)iov->iov_base + at, k);
		done += k;
		at = 0;
	}
	return done;
}

/* The driver may change the frame while it is judged: that is its own affair. */
static bool wanted(struct pair *p, size_t len)
{
	struct virtio_net *n = p->card;
	u8 head[ETH_HEAD];
	bool yes;

	len = peek(p->ahead.iov, p->ahead.nr_iov + 1, NET_HDR_LEN, head,
		   MIN(sizeof(head), len - NET_HDR_LEN));
	pthread_rwlock_rdlock(&n->lock);
	yes = net_wanted(n, head, len);
	pthread_rwlock_unlock(&n->lock);
	return yes;
}

/* Where it goes the host cannot know; it is in the first bytes, wherever they are. */
static void put_count(struct ahead *a, u16 count)
{
	size_t at = COUNT_AT;
	u8 le[2] = { count & 0xff, count >> 8 };

	for (unsigned i = 0, done = 0; done < 2; i++) {
		for (; at < a->iov[i].iov_len && done < 2; at++)
			((u8 *)a->iov[i].iov_base)[at] = le[done++];
		at -= a->iov[i].iov_len;
	}
}

/* What did not fit when it came, into buffers from iov[from] on. */
static void put_spill(struct pair *p, unsigned from)
{
	struct ahead *a = &p->ahead;

	for (unsigned i = from; i < a->nr_iov && p->spill_at < p->spill_len; i++) {
		size_t k = MIN(a->iov[i].iov_len, p->spill_len - p->spill_at);

		memcpy(a->iov[i].iov_base, p->spill + p->spill_at, k);
		p->spill_at += k;
	}
}

/* The pending frame is in as many buffers as it takes (one, unless they may be merged:
 * 5.1.6.4).  False: it waits for more of them. */
static bool deliver(struct pair *p)
{
	struct ahead *a = &p->ahead;
	size_t left = p->pending;
	unsigned nr = 0;

	while (p->pending > a->len) {
		unsigned from = a->nr_iov;

		if (!look_ahead(p, p->pending)) {
			/* The driver's buffers are smaller than the frames it may get: lost. */
			device_guest_error(&p->card->v.dev, "no room for a frame of %zu bytes",
					   p->pending);
			counter_add(&p->counters->rx_dropped, 1);
			p->pending = 0;
			return true;
		}
		if (a->nr_iov == from || load_once(&p->rx->broken))
			return false;
		put_spill(p, from);
	}
	for (; left; nr++) {
		u32 used = MIN(left, a->buffer[nr].len);

		virtq_push(p->rx, a->buffer[nr].head, used);
		left -= used;
	}
	put_count(a, nr);
	drop_ahead(a, nr);
	counter_add(&p->counters->rx_frames, 1);
	counter_add(&p->counters->rx_bytes, p->pending - NET_HDR_LEN);
	p->pending = 0;
	return true;
}

/* A frame into the buffers ahead.  False: there is none, or nowhere to put it. */
static bool take_in(struct pair *p)
{
	bool link = load_once(&p->card->link);
	struct ahead *a = &p->ahead;
	ssize_t len;

	look_ahead(p, MIN(p->expected, longest(p)));
	if ((!a->nr && link) || load_once(&p->rx->broken)) {
		p->want_rx = false;		/* the driver's kick says when */
		return false;
	}
	a->iov[a->nr_iov] = (struct iovec){ p->spill, sizeof(p->spill) };
	len = p->net->ops->recv(p->net, a->iov, a->nr_iov + 1);
	if (len < NET_HDR_LEN) {
		counter_add(&p->counters->rx_errors, len != -EAGAIN);
		return false;
	}
	if (!link || !wanted(p, len))
		return true;
	if (p->card->dump)
		pcap_frame(p->card->dump, a->iov, a->nr_iov + 1, len);
	p->expected = MAX((size_t)len, p->expected - p->expected / 64);
	p->pending = len;
	p->spill_at = 0;
	p->spill_len = (size_t)len > a->len ? len - a->len : 0;
	return true;
}

/*
 * Where the far end calls again while there is more, and a frame is mostly all there is,
 * asking for the next is a system call for nothing.
 */
static void set_burst(struct pair *p, unsigned got)
{
	if (got < p->burst) {
		p->burst = MAX(got, 1U);
		p->full_bursts = 0;
	} else if (p->burst > 1 || ++p->full_bursts == TRY_MORE_AFTER) {
		p->burst = MIN(2 * p->burst, (unsigned)RX_BUDGET);
		p->full_bursts = 0;
	}
}

void net_receive(struct pair *p)
{
	unsigned i;

	p->rx->budget = UINT16_MAX;		/* that of frames bounds it */
	/* The timer knows when; what is read earlier is frames too many. */
	p->want_rx = !p->rx_limited.timer.loop && !load_once(&p->rx->broken);
	for (i = 0; i < p->burst && p->want_rx; i++) {
		if (!p->pending) {
			if (!take_in(p))
				break;
			if (p->pending && limited(p, p->card->rx_limit, &p->rx_limited, p->pending)) {
				p->want_rx = false;
				break;
			}
		}
		if (p->pending && !deliver(p)) {
			counter_add(&p->counters->rx_waits, 1);
			p->want_rx = false;
			break;
		}
		if (i % PUBLISH_EVERY == PUBLISH_EVERY - 1)
			virtq_flush(p->rx);
	}
	virtq_flush(p->rx);
	leave_limit(p->card->rx_limit, &p->rx_limited);
	if (p->net->calls_again)
		set_burst(p, i);
	update_wants(p);
}

static void rx_allowed(struct timer *t)
{
	struct pair *p = container_of(t, struct pair, rx_limited.timer);

	counter_add(&p->counters->rx_released, 1);
	if (!limited(p, p->card->rx_limit, &p->rx_limited, p->pending))
		net_receive(p);
}

/* --- to the wire ---------------------------------------------------------------------------- */

/* False: not now. */
static bool send_frame(struct pair *p, const struct chain *c)
{
	struct net_counters *n = p->counters;
	int rc = -EMSGSIZE;
	u64 since;

	if (c->out.len > NET_FRAME_MAX) {
		device_guest_error(&p->card->v.dev, "a frame of %zu bytes", c->out.len);
		counter_add(&n->tx_malformed, 1);
	} else if (!load_once(&p->card->link)) {
		rc = -ENETDOWN;
	} else {
		since = ticks_now();
		rc = p->net->ops->send(p->net, c->out.iov, c->out.nr);
		ticks_add(&n->send, since);
		counter_add(&n->tx_errors, rc && rc != -EAGAIN);
	}
	if (!rc && p->card->dump)
		pcap_frame(p->card->dump, c->out.iov, c->out.nr, c->out.len);
	counter_add(rc == -EAGAIN ? &n->tx_waits : rc ? &n->tx_dropped : &n->tx_frames, 1);
	counter_add(&n->tx_bytes, rc ? 0 : c->out.len - NET_HDR_LEN);
	return rc != -EAGAIN;
}

static void signal_later(struct pair *p)
{
	p->signal_upto = p->tx->next_used;
	timer_start(&p->signal_timer, p->kick->io.loop, QUIET_NS);
}

/*
 * The driver has its buffers back; whether it must hear of that by an interrupt can
 * wait a little when they are few and small.  Often it looks by itself meanwhile, since
 * a frame comes in answer, and no longer wants one.
 */
static void answer(struct pair *p)
{
	if (p->unsignalled > QUIET_FRAMES || p->unsignalled_bytes > QUIET_BYTES) {
		virtq_flush(p->tx);
		p->unsignalled = p->unsignalled_bytes = 0;
		timer_stop(&p->signal_timer);
	} else if (p->unsignalled) {
		virtq_publish(p->tx);
		if (!p->signal_timer.loop)
			signal_later(p);
	}
}

static void signal_due(struct timer *t)
{
	struct pair *p = container_of(t, struct pair, signal_timer);

	virtq_signal(p->tx, p->signal_upto);
	p->unsignalled = p->unsignalled_bytes = 0;
	if (p->tx->next_used != p->signal_upto)
		signal_later(p);
}

void net_transmit(struct pair *p)
{
	struct virtq *q = p->tx;
	struct chain c;
	int rc = 0;

	p->want_tx = false;
	q->budget = TX_BUDGET;
	while (!p->tx_limited.timer.loop && (rc = virtq_pop(q, &c)) > 0) {
		if (c.out.len < NET_HDR_LEN || c.in.len) {
			rc = -EPROTO;
			break;
		}
		if (!p->paid && limited(p, p->card->tx_limit, &p->tx_limited, c.out.len)) {
			virtq_unpop(q);
			counter_add(&p->counters->tx_waiting, virtq_waiting(q));
			break;
		}
		p->paid = true;
		if (!send_frame(p, &c)) {
			virtq_unpop(q);
			counter_add(&p->counters->tx_waiting, virtq_waiting(q));
			p->want_tx = true;
			break;
		}
		p->paid = false;
		virtq_push(q, c.head, 0);
		p->unsignalled_bytes += c.out.len;
		if (++p->unsignalled % PUBLISH_EVERY == 0)
			virtq_publish(q);
	}
	answer(p);
	leave_limit(p->card->tx_limit, &p->tx_limited);
	counter_add(&p->counters->tx_malformed, rc < 0);
	if (rc < 0)
		virtio_broken(&p->card->v, "transmit queue: malformed chain");
	update_wants(p);
}

void net_transmit_more(struct pair *p)
{
	net_transmit(p);
	/* The rest when others had their turn. */
	if (!p->tx->budget)
		virtio_notify(&p->card->v, p->tx->index);
}

static void tx_allowed(struct timer *t)
{
	struct pair *p = container_of(t, struct pair, tx_limited.timer);

	counter_add(&p->counters->tx_released, 1);
	net_transmit_more(p);
}

/* --- start and stop ------------------------------------------------------------------------- */

void net_frames_init(struct pair *p)
{
	p->burst = RX_BUDGET;
	p->expected = NET_SHORT_FRAME;
	p->signal_timer.fire = signal_due;
	p->rx_limited.timer.fire = rx_allowed;
	p->tx_limited.timer.fire = tx_allowed;
}

void net_frames_stop(struct pair *p)
{
	timer_stop(&p->signal_timer);
	timer_stop(&p->rx_limited.timer);
	timer_stop(&p->tx_limited.timer);
	leave_limit(p->card->rx_limit, &p->rx_limited);
	leave_limit(p->card->tx_limit, &p->tx_limited);
	p->paid = false;
	for (; p->ahead.nr; p->ahead.nr--)
		virtq_unpop(p->rx);
	p->ahead.nr_iov = p->ahead.len = 0;
	p->pending = 0;			/* lost, as on any wire */
	p->want_rx = p->want_tx = false;
	p->unsignalled = p->unsignalled_bytes = 0;
	virtq_flush(p->tx);
}
