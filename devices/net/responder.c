/* responder.c: ARP, IPv4 and as much of TCP as one question and its answer take. */
#include "devices/net/responder.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "devices/net/frame.h"
#include "vmm/core/metrics.h"

enum {
	ETH = 14, ARP = 28, IP = 20, TCP = 20,
	ARP_REQUEST = 1, ARP_REPLY = 2,
	FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16,
	MSS_USUAL = 536, MSS_LEAST = 28, MSS_MOST = RESPONDER_FRAME_MAX - ETH - IP - TCP,
	/* Answers that need no connection; of more the guest hears nothing. */
	REFUSALS = 8,
	TRIES = 6,
};

#define SECOND	1000000000ULL
#define QUIET	(60 * SECOND)		/* a connection on which nothing happens */

/* Firecracker's, which guests may have learned. */
static const u8 own_mac[6] = { 0x06, 0x01, 0x23, 0x45, 0x67, 0x01 };

struct peer {
	u8 mac[6];
	u8 address[4];
	u16 port;
};

enum stage { FREE, SYN_SENT, OPEN, ANSWERING };

struct connection {
	enum stage stage;		/* SYN_SENT: with the ACK of the guest's */
	struct peer peer;
	u16 mss;
	u32 window;			/* that the guest has */
	u32 expected;			/* the guest's next byte */
	/* Ours, SYN and FIN a number each: base is the answer's first; acked <= sent <= most; sent
	 * goes back when nothing is heard of the rest. */
	u32 base, acked, sent, most;
	bool heard_end;			/* the guest sends no more */
	bool must_ack;
	unsigned tries;
	u64 due, heard;			/* due: to be sent again, or given up */
	size_t request_len, answer_len;
	char *answer;
	char request[RESPONDER_REQUEST_MAX];
};

/* A frame without data that belongs to no connection. */
struct refusal {
	struct peer peer;
	u16 own_port;
	u32 seq, ack;
	u8 flags;
};

struct responder {
	struct responder_options o;
	u8 address[4];
	struct responder_counters counters;
	bool must_tell;			/* by ARP, asker */
	struct peer asker;
	struct refusal refusal[REFUSALS];
	unsigned nr_refusals;
	unsigned turn;			/* whose it is to send */
	struct connection connection[RESPONDER_CONNECTIONS];
};

/* --- bytes ------------------------------------------------------------------------------------- */

static u16 get16(const u8 *p)
{
	return p[0] << 8 | p[1];
}

static u32 get32(const u8 *p)
{
	return (u32)get16(p) << 16 | get16(p + 2);
}

static void put16(u8 *p, u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put32(u8 *p, u32 v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* 0 of what has a right one in it (RFC 1071). */
static u16 ip_sum(const u8 *ip, size_t len)
{
	return ~frame_add(0, ip, len);
}

static u16 tcp_sum(const u8 *ip, const u8 *tcp, size_t len)
{
	u16 rest[] = { htons(IPPROTO_TCP), htons(len) };

	return ~frame_add(frame_add(frame_add(0, ip + 12, 8), rest, sizeof(rest)), tcp, len);
}

/* a is before b, of numbers that go round. */
static bool before(u32 a, u32 b)
{
	return (int32_t)(a - b) < 0;
}

/* --- connections --------------------------------------------------------------------------------- */

static void drop(struct responder *r, struct connection *c)
{
	free(c->answer);
	c->answer = NULL;
	c->stage = FREE;
	counter_add(&r->counters.closed, 1);
}

static struct connection *find(struct responder *r, const struct peer *p)
{
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++) {
		struct connection *c = &r->connection[i];

		if (c->stage && c->peer.port == p->port && !memcmp(c->peer.address, p->address, 4))
			return c;
	}
	return NULL;
}

static void refuse(struct responder *r, const struct refusal *what)
{
	if (r->nr_refusals == REFUSALS)
		counter_add(&r->counters.tx_errors, 1);
	else
		r->refusal[r->nr_refusals++] = *what;
}

static void reset(struct responder *r, struct connection *c)
{
	refuse(r, &(struct refusal){ .peer = c->peer, .own_port = r->o.port, .seq = c->sent,
				     .ack = c->expected, .flags = RST | ACK });
	drop(r, c);
}

/* Whoever loses his hears of it: he may be waiting for an answer, and never send again. */
static struct connection *take_place(struct responder *r)
{
	struct connection *quiet = NULL;

	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++) {
		struct connection *c = &r->connection[i];

		if (!c->stage)
			return c;
		if (!quiet || c->heard < quiet->heard)
			quiet = c;
	}
	reset(r, quiet);
	return quiet;
}

/* One past the last number of ours: SYN, answer, FIN. */
static u32 last(const struct connection *c)
{
	return c->stage == ANSWERING ? c->base + (u32)c->answer_len + 1 : c->base;
}

/* Is there something that the guest has not acknowledged, or has no room for? */
static bool waits_for_guest(const struct connection *c)
{
	return c->acked != c->sent || (c->stage == ANSWERING && c->sent != last(c));
}

static void set_due(struct connection *c, u64 now)
{
	c->due = now + (waits_for_guest(c) ? SECOND << c->tries : QUIET);
}

/* --- a segment from the guest ------------------------------------------------------------------- */

struct segment {
	struct peer peer;
	u16 own_port;
	u32 seq, ack;
	u16 window, mss;		/* mss 0: it does not say */
	u8 flags;
	const u8 *data;
	size_t len;
};

/* RFC 9293, 3.5.2: to what belongs nowhere. */
static void refuse_segment(struct responder *r, const struct segment *s)
{
	struct refusal no = { .peer = s->peer, .own_port = s->own_port };

	if (s->flags & RST)
		return;
	if (s->flags & ACK) {
		no.seq = s->ack;
		no.flags = RST;
	} else {
		no.ack = s->seq + s->len + !!(s->flags & SYN) + !!(s->flags & FIN);
		no.flags = RST | ACK;
	}
	refuse(r, &no);
}

/* Data that comes with it comes again. */
static void open_connection(struct responder *r, const struct segment *s, u64 now)
{
	struct connection *c;
	u32 number;

	if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != sizeof(number))
		number = now;
	c = take_place(r);
	c->stage = SYN_SENT;
	c->peer = s->peer;
	c->mss = MAX(MIN(s->mss ?: MSS_USUAL, MSS_MOST), MSS_LEAST);
	c->window = s->window;
	c->expected = s->seq + 1;
	c->acked = c->sent = c->most = number;
	c->base = number + 1;
	c->heard_end = c->must_ack = false;
	c->tries = 0;
	c->heard = now;
	c->request_len = 0;
	set_due(c, now);
	counter_add(&r->counters.connections, 1);
}

/* Of the request from was looked at before. */
static void look_for_end(struct responder *r, struct connection *c, size_t from)
{
	size_t at = from > 3 ? from - 3 : 0;
	bool whole = memmem(c->request + at, c->request_len - at, "\r\n\r\n", 4);

	if (!whole && c->request_len < sizeof(c->request))
		return;
	c->answer = r->o.answer(r->o.arg, c->request, c->request_len, !whole, &c->answer_len);
	if (!c->answer) {
		reset(r, c);
		return;
	}
	c->stage = ANSWERING;
}

/* Of what is behind the request nothing is kept. */
static void take_data(struct responder *r, struct connection *c, const struct segment *s)
{
	size_t skip = c->expected - s->seq, n;

	if (!s->len && !(s->flags & FIN))
		return;
	c->must_ack = true;
	/* Sent again, or a part of it; or what is missing before it was lost. */
	if (before(c->expected, s->seq) || skip > s->len || c->heard_end) {
		counter_add(&r->counters.rx_unusual, 1);
		return;
	}
	counter_add(&r->counters.rx_unusual, !!skip);
	n = s->len - skip;
	if (c->stage == OPEN) {
		n = MIN(n, sizeof(c->request) - c->request_len);
		memcpy(c->request + c->request_len, s->data + skip, n);
		c->request_len += n;
	}
	c->expected += n;
	if (s->flags & FIN && n == s->len - skip) {
		c->expected++;
		c->heard_end = true;
	}
	if (c->stage == OPEN && n)
		look_for_end(r, c, c->request_len - n);
}

static void take_ack(struct connection *c, const struct segment *s, u64 now)
{
	if (before(c->acked, s->ack)) {
		c->acked = s->ack;
		if (before(c->sent, c->acked))
			c->sent = c->acked;
		c->tries = 0;
		set_due(c, now);
	}
	/* It has room again, and what asked for that was thrown away. */
	if (!c->window && s->window && s->ack == c->acked && c->sent != c->acked) {
		c->sent = c->acked;
		c->tries = 0;
		set_due(c, now);
	}
	c->window = s->window;
	if (c->stage == SYN_SENT && c->acked == c->base)
		c->stage = OPEN;
}

static void take_segment(struct responder *r, struct connection *c, const struct segment *s, u64 now)
{
	c->heard = now;
	if (s->flags & RST) {
		/* Only of who knows where it is (RFC 9293, 3.10.7.4). */
		if (s->seq == c->expected)
			drop(r, c);
		else
			c->must_ack = true;
		return;
	}
	/* Ours was lost, or somebody begins anew where he was before. */
	if (s->flags & SYN) {
		if (c->stage == SYN_SENT && s->seq + 1 == c->expected)
			c->sent = c->acked;
		else
			c->must_ack = true;
		return;
	}
	if (!(s->flags & ACK))
		return;
	if (before(c->most, s->ack) || (c->stage == SYN_SENT && s->ack != c->base)) {
		refuse_segment(r, s);
		return;
	}
	take_ack(c, s, now);
	take_data(r, c, s);
	if (!c->stage)
		return;
	if (c->acked == c->sent)
		set_due(c, now);
	/* It will never ask. */
	if (c->stage == OPEN && c->heard_end)
		reset(r, c);
	/* Both have said all, and know it: its last is acknowledged to a port that listens. */
	else if (c->stage == ANSWERING && c->heard_end && c->acked == last(c) && !c->must_ack)
		drop(r, c);
}

/* --- what a frame holds ---------------------------------------------------------------------------- */

static void take_options(struct segment *s, const u8 *p, size_t len)
{
	while (len >= 1 && *p) {
		size_t n = *p == 1 ? 1 : len >= 2 ? p[1] : 0;

		if (!n || n > len || (n < 2 && *p != 1))
			return;
		if (*p == 2 && n == 4)
			s->mss = get16(p + 2);
		p += n;
		len -= n;
	}
}

/* False: nothing of this is right. */
static bool read_segment(const u8 *frame, size_t len, bool summed, struct segment *s)
{
	const u8 *ip = frame + ETH, *tcp;
	size_t head = (ip[0] & 15) * 4UL, whole = get16(ip + 2), offset;

	if (ip[0] >> 4 != 4 || head < IP || whole < head || whole > len - ETH)
		return false;
	if (!summed && ip_sum(ip, head))
		return false;
	/* Of fragments there is none: a request is short. */
	if (get16(ip + 6) & 0x3fff || ip[9] != IPPROTO_TCP || whole - head < TCP)
		return false;
	tcp = ip + head;
	len = whole - head;
	offset = (tcp[12] >> 4) * 4UL;
	if (offset < TCP || offset > len || (!summed && tcp_sum(ip, tcp, len)))
		return false;
	memcpy(s->peer.mac, frame + 6, 6);
	memcpy(s->peer.address, ip + 12, 4);
	s->peer.port = get16(tcp);
	s->own_port = get16(tcp + 2);
	s->seq = get32(tcp + 4);
	s->ack = get32(tcp + 8);
	s->flags = tcp[13];
	s->window = get16(tcp + 14);
	s->data = tcp + offset;
	s->len = len - offset;
	if (s->flags & SYN)
		take_options(s, tcp + TCP, offset - TCP);
	return true;
}

static void take_arp(struct responder *r, const u8 *frame)
{
	const u8 *arp = frame + ETH;

	memcpy(r->asker.mac, arp + 8, 6);
	memcpy(r->asker.address, arp + 14, 4);
	r->must_tell = true;
}

bool responder_takes(const struct responder *r, const u8 *head, size_t len)
{
	const u8 *arp = head + ETH;

	if (len < ETH + IP)
		return false;
	if (get16(head + 12) == ETHERTYPE_IP)
		return !memcmp(head + ETH + 16, r->address, 4);
	return get16(head + 12) == ETHERTYPE_ARP && len >= ETH + ARP && get16(arp) == 1 &&
	       get16(arp + 2) == ETHERTYPE_IP && arp[4] == 6 && arp[5] == 4 &&
	       get16(arp + 6) == ARP_REQUEST && !memcmp(arp + 24, r->address, 4);
}

void responder_input(struct responder *r, const u8 *frame, size_t len, bool summed, u64 now)
{
	struct segment s = { 0 };
	struct connection *c;

	counter_add(&r->counters.rx_frames, 1);
	if (get16(frame + 12) == ETHERTYPE_ARP) {
		take_arp(r, frame);
		return;
	}
	if (!read_segment(frame, len, summed, &s)) {
		counter_add(&r->counters.rx_bad, 1);
		return;
	}
	c = s.own_port == r->o.port ? find(r, &s.peer) : NULL;
	if (c)
		take_segment(r, c, &s, now);
	else if (s.own_port == r->o.port && (s.flags & (SYN | ACK | RST | FIN)) == SYN)
		open_connection(r, &s, now);
	else
		refuse_segment(r, &s);
}

/* --- frames for the guest ------------------------------------------------------------------------- */

static void put_head(u8 *frame, const struct peer *to, u16 type)
{
	memcpy(frame, to->mac, 6);
	memcpy(frame + 6, own_mac, 6);
	put16(frame + 12, type);
}

static size_t tell(struct responder *r, u8 *frame)
{
	u8 *arp = frame + ETH;

	put_head(frame, &r->asker, ETHERTYPE_ARP);
	put16(arp, 1);
	put16(arp + 2, ETHERTYPE_IP);
	arp[4] = 6;
	arp[5] = 4;
	put16(arp + 6, ARP_REPLY);
	memcpy(arp + 8, own_mac, 6);
	memcpy(arp + 14, r->address, 4);
	memcpy(arp + 18, r->asker.mac, 6);
	memcpy(arp + 24, r->asker.address, 4);
	r->must_tell = false;
	return ETH + ARP;
}

/* Options, in words of the header, and data lie in their places. */
static size_t put_segment(const struct responder *r, u8 *frame, const struct refusal *h, u16 window,
			  size_t options, size_t len)
{
	u8 *ip = frame + ETH, *tcp = ip + IP;
	u16 sum;

	put_head(frame, &h->peer, ETHERTYPE_IP);
	memset(ip, 0, IP);
	ip[0] = 0x45;
	put16(ip + 2, IP + TCP + options + len);
	put16(ip + 6, 0x4000);		/* not to be cut */
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	memcpy(ip + 12, r->address, 4);
	memcpy(ip + 16, h->peer.address, 4);
	sum = ip_sum(ip, IP);
	memcpy(ip + 10, &sum, sizeof(sum));
	memset(tcp, 0, TCP);
	put16(tcp, h->own_port);
	put16(tcp + 2, h->peer.port);
	put32(tcp + 4, h->seq);
	put32(tcp + 8, h->ack);
	tcp[12] = (TCP + options) / 4 << 4;
	tcp[13] = h->flags;
	put16(tcp + 14, window);
	sum = tcp_sum(ip, tcp, TCP + options + len);
	memcpy(tcp + 16, &sum, sizeof(sum));
	return ETH + IP + TCP + options + len;
}

static bool fits(const struct connection *c)
{
	u32 on_its_way = c->sent - c->acked;

	/* A guest without room is asked with one byte whether it has some: when it is late. */
	return on_its_way < MAX(c->window, c->tries ? 1U : 0U);
}

static bool has_output(const struct connection *c)
{
	switch (c->stage) {
	case FREE:
		return false;
	case SYN_SENT:
		return c->sent == c->acked;
	default:
		return c->must_ack || (c->sent != last(c) && fits(c));
	}
}

/* What the connection has to say next. */
static size_t speak(struct responder *r, struct connection *c, u8 *frame, u64 now)
{
	struct refusal h = { .peer = c->peer, .own_port = r->o.port, .seq = c->sent,
			     .ack = c->expected, .flags = ACK };
	u8 *options = frame + ETH + IP + TCP;
	u16 window = c->stage == OPEN || c->stage == SYN_SENT ?
		     sizeof(c->request) - c->request_len : sizeof(c->request);
	bool was_idle = c->acked == c->sent;
	size_t len = 0, more = 0, at;

	if (c->stage == SYN_SENT) {
		h.flags |= SYN;
		options[0] = 2;
		options[1] = more = 4;
		put16(options + 2, MSS_MOST);
		c->sent = c->base;
	}
	if (c->stage == ANSWERING && c->sent != last(c) && fits(c)) {
		at = c->sent - c->base;
		len = MIN(c->answer_len - at, MIN((size_t)c->mss, MAX(c->window, 1U) - (c->sent - c->acked)));
		memcpy(options, c->answer + at, len);
		c->sent += len;
		/* The end goes with the last of it, beyond any window. */
		if (at + len == c->answer_len) {
			h.flags |= PSH | FIN;
			c->sent++;
		}
	}
	c->must_ack = false;
	if (before(c->most, c->sent))
		c->most = c->sent;
	if (was_idle)
		set_due(c, now);
	len = put_segment(r, frame, &h, window, more, len);
	if (c->stage == ANSWERING && c->heard_end && c->acked == last(c))
		drop(r, c);
	return len;
}

size_t responder_output(struct responder *r, u8 frame[RESPONDER_FRAME_MAX], u64 now)
{
	size_t len = 0;

	if (r->must_tell) {
		len = tell(r, frame);
	} else if (r->nr_refusals) {
		len = put_segment(r, frame, &r->refusal[0], 0, 0, 0);
		memmove(&r->refusal[0], &r->refusal[1], --r->nr_refusals * sizeof(r->refusal[0]));
	}
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS && !len; i++) {
		struct connection *c = &r->connection[r->turn];

		r->turn = (r->turn + 1) % RESPONDER_CONNECTIONS;
		if (has_output(c))
			len = speak(r, c, frame, now);
	}
	counter_add(&r->counters.tx_frames, !!len);
	counter_add(&r->counters.tx_bytes, len);
	return len;
}

bool responder_has_output(const struct responder *r)
{
	if (r->must_tell || r->nr_refusals)
		return true;
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++)
		if (has_output(&r->connection[i]))
			return true;
	return false;
}

/* --- what takes too long ----------------------------------------------------------------------------- */

u64 responder_due(const struct responder *r)
{
	u64 due = 0;

	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++) {
		const struct connection *c = &r->connection[i];

		if (c->stage && (!due || c->due < due))
			due = c->due;
	}
	return due;
}

void responder_late(struct responder *r, u64 now)
{
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++) {
		struct connection *c = &r->connection[i];

		if (!c->stage || c->due > now)
			continue;
		if (!waits_for_guest(c) || ++c->tries == TRIES) {
			counter_add(&r->counters.tx_errors, 1);
			reset(r, c);
			continue;
		}
		c->sent = c->acked;
		set_due(c, now);
	}
}

void responder_goes_on(struct responder *r, u64 now)
{
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++)
		if (r->connection[i].stage)
			set_due(&r->connection[i], now);
}

/* --- its life -------------------------------------------------------------------------------------------- */

struct responder_counters *responder_counters(struct responder *r)
{
	return &r->counters;
}

void responder_reset(struct responder *r)
{
	for (unsigned i = 0; i < RESPONDER_CONNECTIONS; i++)
		if (r->connection[i].stage)
			drop(r, &r->connection[i]);
	r->must_tell = false;
	r->nr_refusals = 0;
}

int responder_new(struct responder **out, const struct responder_options *o, struct err *err)
{
	struct responder *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->o = *o;
	memcpy(r->address, &o->address, sizeof(r->address));
	*out = r;
	return 0;
}

void responder_free(struct responder *r)
{
	if (!r)
		return;
	responder_reset(r);
	free(r);
}
