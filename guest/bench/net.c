/*
 * net.c: one TCP stream out of the guest, as fast as the host takes it, by code at CPL 3, which
 * runs at full speed also where a host's KVM interprets CPL 0: count=BYTES from 10.9.0.2 to
 * 10.9.0.1, port 7003, whose Ethernet address is peer=0xMAC; no more than window=BYTES unanswered;
 * with fill, every 8 bytes are their place in the stream. Says "net: N WAITS".
 *
 * Segments are as large as offload allows, and checksums are the device's affair. Nothing is sent
 * twice: that a frame was lost ends it.
 *
 * Spec: virtio 1.2, 2.7, 5.1; RFC 9293 (TCP), RFC 7323 (window scale), RFC 5681 (duplicate ACKs).
 */
#include "guest/lib/apic.h"
#include "guest/lib/mem.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/user.h"
#include "guest/lib/virtq.h"

enum {
	F_CSUM = 0, F_GUEST_CSUM = 1, F_HOST_TSO4 = 11, F_MRG_RXBUF = 15,
	NEEDS_CSUM = 1, GSO_NONE = 0, GSO_TCPV4 = 1,

	ENTRIES = 256, FRAMES = ENTRIES / 2, BUFFER = 2048,
	MSS = 1460, SEGMENT = 44 * MSS,		/* with its headers less than 64 KiB */
	IP = 14, TCP = IP + 20, TCP_CSUM = 16, HEADS = TCP + 20, OPTIONS = 8,
	IPV4 = 0x0800, IP_TCP = 6, DONT_FRAGMENT = 0x4000, ANY_TTL = 64,
	FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16,
	OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_SCALE = 3,
	OUR_PORT = 40000, PEER_PORT = 7003, LOST_AFTER = 3, ANSWERS = 40,
};
#define OUR_IP	0x0a090002u
#define PEER_IP	0x0a090001u

struct net_hdr {
	u8 flags, gso_type;
	u16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
} __attribute__((packed));

struct frame {
	struct net_hdr hdr;
	u8 mac[2][6];
	u16 type;
	u8 version, tos;
	u16 len, id, fragment;
	u8 ttl, protocol;
	u16 ip_csum;
	u32 from, to;
	u16 from_port, to_port;
	u32 seq, ack;
	u8 data_at, flags;
	u16 window, csum, urgent;
	u8 option[OPTIONS];
} __attribute__((packed));
_Static_assert(sizeof(struct frame) == sizeof(struct net_hdr) + HEADS + OPTIONS, "a frame");

struct ring {
	struct virtq_desc desc[ENTRIES] __attribute__((aligned(16)));
	volatile struct { u16 flags, idx, ring[ENTRIES], used_event; } avail;
	volatile struct {
		u16 flags, idx;
		struct { u32 id, len; } ring[ENTRIES];
		u16 avail_event;
	} used __attribute__((aligned(4)));
	u16 seen, kicked;
	u64 bell;
};

static struct virtio v;
static struct ring rx, tx;
static struct frame frame[FRAMES];
static u8 buffer[ENTRIES][BUFFER] NOINIT;
static u64 data[FRAMES][SEGMENT / 8 + 1] NOINIT __attribute__((aligned(4096)));
static u16 idle[FRAMES];
static unsigned nr_idle;

static u64 count, most, waits;
static bool fill;
static u8 mac[6], peer[6];

static struct {
	u32 next, answered;		/* of ours */
	u32 theirs;			/* what they send next */
	u32 window;
	u8 scale, repeated;
	bool open, closed;
} tcp;

static void fail(const char *why)
{
	say("not ok - %s\n", why);
	guest_exit(1);
}

static u16 be16(u16 x)
{
	return (u16)(x << 8 | x >> 8);
}

static u32 be32(u32 x)
{
	return __builtin_bswap32(x);
}

/* Words are in the order of the wire; so is the sum. */
static u16 sum(const void *p, unsigned len, u32 start)
{
	const u16 *word = p;

	for (; len; len -= 2)
		start += *word++;
	start = (start & 0xffff) + (start >> 16);
	return (u16)(start + (start >> 16));
}

/* --- the rings -------------------------------------------------------------------------- */

static void offer(struct ring *r, u16 head)
{
	r->avail.ring[r->avail.idx % ENTRIES] = head;
	barrier();
	r->avail.idx++;
}

static void kick(struct ring *r)
{
	u16 before = r->kicked;

	r->kicked = r->avail.idx;
	barrier_full();
	if ((u16)(r->kicked - r->used.avail_event - 1) >= (u16)(r->kicked - before))
		return;
	if (v.notify_port)
		outw((u16)r->bell, r == &tx);
	else
		mmio_write16(r->bell, r == &tx);
}

static bool ring_init(struct ring *r, u16 queue)
{
	struct virtio_rings at = { ENTRIES, mem_addr(r->desc), mem_addr(&r->avail),
				   mem_addr(&r->used) };

	virtio_queue_set(&v, queue, &at);
	r->bell = virtio_pci_bell(&v, queue);
	return virtio_queue_enable(&v, queue);
}

/* --- TCP -------------------------------------------------------------------------------- */

/* What follows the headers is the data of that frame, or of the first: then it is always the
 * same. */
static void send(u8 flags, u32 len)
{
	u16 i = idle[--nr_idle];
	u32 options = flags & SYN ? OPTIONS : 0, tcp_len = HEADS - TCP + options + len;
	struct virtq_desc *d = &tx.desc[2 * i];
	struct frame *f = &frame[i];
	struct { u32 from, to; u16 protocol, len; } pseudo = {
		f->from, f->to, be16(IP_TCP), be16((u16)tcp_len),
	};
	u64 *p = data[fill ? i : 0];

	f->hdr.gso_type = len > MSS ? GSO_TCPV4 : GSO_NONE;
	f->hdr.gso_size = len > MSS ? MSS : 0;
	f->len = be16((u16)(TCP - IP + tcp_len));
	f->ip_csum = 0;
	f->ip_csum = (u16)~sum(&f->version, TCP - IP, 0);
	f->seq = be32(tcp.next);
	f->ack = be32(tcp.theirs);
	f->data_at = (u8)((HEADS - TCP + options) / 4 << 4);
	f->flags = flags;
	f->csum = sum(&pseudo, sizeof(pseudo), 0);
	d[0].len = (u32)sizeof(f->hdr) + HEADS + options;
	d[0].flags = len ? DESC_NEXT : 0;
	d[1].addr = mem_addr(p);
	d[1].len = len;
	tcp.next += len + !!(flags & (SYN | FIN));
	offer(&tx, (u16)(2 * i));
}

static void take_options(const u8 *p, const u8 *end)
{
	while (p < end && *p != OPT_END) {
		if (*p == OPT_SCALE && p + 2 < end)
			tcp.scale = p[2];
		p += *p == OPT_NOP || p + 1 >= end || !p[1] ? 1 : p[1];
	}
}

static void take_frame(const struct frame *f, u32 len)
{
	u32 tcp_len, ack, window, seq;

	if (len < sizeof(*f) - OPTIONS || f->type != be16(IPV4) || f->protocol != IP_TCP ||
	    f->to_port != be16(OUR_PORT))
		return;
	ack = be32(f->ack);
	seq = be32(f->seq);
	window = (u32)be16(f->window) << (f->flags & SYN ? 0 : tcp.scale);
	tcp_len = be16(f->len) - (TCP - IP) - (f->data_at >> 4) * 4u;
	if (f->flags & RST)
		fail("the connection was refused or reset");
	if (f->flags & SYN) {
		tcp.scale = 0;
		take_options(f->option, (const u8 *)&f->from_port + (f->data_at >> 4) * 4);
		tcp.theirs = seq + 1;
		tcp.open = true;
	} else if (tcp_len) {
		fail("the other end sends data");
	} else if (f->flags & FIN && seq == tcp.theirs) {
		tcp.theirs++;
		tcp.closed = true;
	}
	/* What comes behind a gap is answered at once, and always by the same. */
	if (ack != tcp.answered || window != tcp.window)
		tcp.repeated = 0;
	else if (ack != tcp.next && ++tcp.repeated == LOST_AFTER)
		fail("a frame was lost");
	if ((int)(ack - tcp.answered) > 0)
		tcp.answered = ack;
	tcp.window = window;
}

static void receive(void)
{
	u16 i;

	for (; tx.seen != tx.used.idx; tx.seen++)
		idle[nr_idle++] = (u16)(tx.used.ring[tx.seen % ENTRIES].id / 2);
	for (; rx.seen != rx.used.idx; rx.seen++) {
		i = (u16)rx.used.ring[rx.seen % ENTRIES].id;
		take_frame((const void *)buffer[i], rx.used.ring[rx.seen % ENTRIES].len);
		offer(&rx, i);
	}
}

/* Until some answers have come: to be woken is dear where CPL 0 is interpreted. Fewer may be all
 * there are: then until all frames are away, and after that until the next one. */
static void wait(void)
{
	u16 away = (u16)(tx.avail.idx - tx.seen), answers = away ? ANSWERS : 0;

	tx.avail.used_event = (u16)(tx.seen + away - 1);
	rx.avail.used_event = (u16)(rx.seen + answers);
	kick(&tx);
	kick(&rx);
	barrier_full();
	if ((u16)(rx.used.idx - rx.seen) <= answers && (!away || tx.used.idx != tx.avail.idx)) {
		waits++;
		user_sleep();
	}
	receive();
}

/* How much may be sent now: no small pieces while others are under way. */
static u32 room(u64 left)
{
	u32 away = tcp.next - tcp.answered, limit = tcp.window < most ? tcp.window : (u32)most;
	u32 len = left < SEGMENT ? (u32)left : SEGMENT;

	if (!nr_idle || away >= limit)
		return 0;
	return len <= limit - away ? len : away ? 0 : limit;
}

static void fill_data(u64 at, u32 len)
{
	u64 *p = data[idle[nr_idle - 1]];
	u32 i, k = at % 8;

	/* The first word may have begun in the frame before. */
	for (i = 0; i * 8 < len + k; i++)
		p[i] = at / 8 + i;
	if (k)
		memcpy(p, (const u8 *)p + k, len);
}

/* At CPL 3. */
static void stream(void)
{
	u64 sent = 0;
	u32 len;

	send(SYN, 0);
	while (!tcp.open)
		wait();
	send(ACK, 0);
	while (sent < count) {
		for (; (len = room(count - sent)); sent += len) {
			if (fill)
				fill_data(sent, len);
			send(ACK | PSH, len);
		}
		wait();
	}
	while (!nr_idle)
		wait();
	send(FIN | ACK, 0);
	while (!tcp.closed || tcp.answered != tcp.next)
		wait();
	send(ACK, 0);
	kick(&tx);
	while (tx.used.idx != tx.avail.idx)
		;
	say("net: %llu %llu\n", count, waits);
	guest_exit(0);
}

/* --- start ------------------------------------------------------------------------------ */

static void make_frames(void)
{
	static const u8 option[OPTIONS] = { OPT_MSS, 4, MSS >> 8, MSS & 0xff, OPT_SCALE, 3, 0 };
	u16 i;

	for (i = 0; i < FRAMES; i++) {
		struct frame *f = &frame[i];

		*f = (struct frame) {
			.hdr = { .flags = NEEDS_CSUM, .hdr_len = HEADS, .csum_start = TCP,
				 .csum_offset = TCP_CSUM },
			.type = be16(IPV4), .version = 0x45, .fragment = be16(DONT_FRAGMENT),
			.ttl = ANY_TTL, .protocol = IP_TCP, .from = be32(OUR_IP),
			.to = be32(PEER_IP), .from_port = be16(OUR_PORT),
			.to_port = be16(PEER_PORT), .window = 0xffff,
		};
		memcpy(f->mac[0], peer, 6);
		memcpy(f->mac[1], mac, 6);
		memcpy(f->option, option, OPTIONS);
		tx.desc[2 * i].addr = mem_addr(f);
		tx.desc[2 * i].next = (u16)(2 * i + 1);
		idle[nr_idle++] = i;
	}
	for (i = 0; i < ENTRIES; i++) {
		rx.desc[i] = (struct virtq_desc) { mem_addr(buffer[i]), BUFFER, DESC_WRITE, 0 };
		offer(&rx, i);
	}
}

static bool start(void)
{
	const u64 needed = FEATURE(F_CSUM) | FEATURE(F_HOST_TSO4) | FEATURE(F_MRG_RXBUF) |
			   FEATURE(F_EVENT_IDX);
	u64 to = arg_u64("peer", 0);
	u32 i;

	if (!virtio_find(&v, VIRTIO_NET, 0) ||
	    !virtio_negotiate(&v, needed | FEATURE(F_GUEST_CSUM)) ||
	    (v.features & needed) != needed)
		return false;
	for (i = 0; i < 6; i++) {
		mac[i] = (u8)virtio_config(&v, i, 1);
		peer[i] = (u8)(to >> (40 - 8 * i));
	}
	apic_init();
	virtio_enable_interrupts(&v);
	make_frames();
	if (!ring_init(&rx, 0) || !ring_init(&tx, 1))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	kick(&rx);
	return true;
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	count = arg_u64("count", 1 << 30);
	most = arg_u64("window", 6 << 20);
	fill = arg_find("fill");
	if (!check(start(), "the card starts"))
		return 1;
	user_enter(stream);
	return 1;
}
