/*
 * virtio_vsock.c: a hostile driver of a vsock device, and programs at the sockets' other ends. What a program gets is
 * what the guest sent to it, from the beginning and in order, and the other way round; the guest gets no more than it
 * said that it has room for, and of connections only that there are; each packet is answered once; no other byte of
 * the guest changes; when the device is gone, so are all of its sockets; after a reset it works.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "devices/virtio/vsock_own.h"
#include "tests/fuzz/lib/hostile.h"

enum { RX, TX, EVENT, NR_QUEUES, CID = 9 };
enum { SLOT = 0x700, SENT = HOSTILE_DATA, BUFFERS = HOSTILE_DATA + 16 * SLOT, PACKET = 44 };
enum { STREAMS = 24, GUEST_PORTS = 3, HOST_PORTS = 4, NOBODY = 3, ASKED_PORT = 100 };

struct stream {
	bool used;
	int fd;				/* of the program; -1: it went */
	u32 guest_port, host_port;
	bool by_host, known;		/* known: to the guest, by its port on the host */
	bool open, answered;		/* in the guest's eyes */
	bool greeted;			/* the program has read its OK */
	u32 seed;
	u32 sent, read;			/* by the guest; of that, by the program */
	u32 written, got;		/* by the program; of that, by the guest */
	u32 alloc, fwd, old_alloc, old_fwd;	/* what the guest said last, and before */
};

static struct {
	struct hostile *h;
	struct device *dev;
	struct stream stream[STREAMS];
	unsigned nr;
	struct virtio_vsock_hdr asking;	/* the packet that the guest sent last */
	struct hostile_chain buffer[16];	/* that the device has; in a circle */
	unsigned first, nr_buffers;
	bool unanswered;		/* the packet that was sent last */
	bool paused;
} g;

/* --- the host --------------------------------------------------------------------------- */

static int listener = -1;

static void listen_once(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (listener >= 0)
		return;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	fuzz_check(listener >= 0 && !bind(listener, (struct sockaddr *)&a, sizeof(a.sun_family)) &&
		   !listen(listener, STREAMS), "a listener: %s", strerror(errno));
}

int vsock_host_listener(const struct vsock_host *h)
{
	(void)h;
	return listener;
}

static struct stream *new_stream(int fd)
{
	struct stream *s = &g.stream[g.nr];

	*s = (struct stream){ .used = true, .fd = fd, .seed = ++g.nr };
	return s;
}

/* In the device's turn, for the packet that was sent last. */
int vsock_host_connect(const struct vsock_host *h, u32 port)
{
	struct stream *s;
	int fd[2], small = 1;		/* so that a few packets fill it */

	(void)h;
	if (port % HOST_PORTS == NOBODY || g.nr == STREAMS)
		return -ECONNREFUSED;
	fuzz_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), "a pair of sockets");
	setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (unsigned i = 0; i < g.nr; i++)
		if (g.stream[i].guest_port == g.asking.src_port && g.stream[i].host_port == port)
			g.stream[i].open = g.stream[i].known = false;
	s = new_stream(fd[0]);
	s->guest_port = g.asking.src_port;
	s->host_port = port;
	s->alloc = s->old_alloc = g.asking.buf_alloc;
	s->fwd = s->old_fwd = g.asking.fwd_cnt;
	s->open = s->known = s->greeted = true;
	return fd[1];
}

static u8 byte_of(const struct stream *s, u32 at, bool to_guest)
{
	return (at + (at >> 8)) * 5 + s->seed + 128 * to_guest;
}

static void gone(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* All that there is.  False: and no more will come. */
static bool program_reads(struct stream *s, u32 most)
{
	u8 data[512];

	while (s->fd >= 0 && most) {
		ssize_t n = recv(s->fd, data, MIN(most, sizeof(data)), MSG_DONTWAIT), at = 0;

		if (n <= 0)
			return n && errno == EAGAIN;
		most -= n;
		while (at < n && !s->greeted)
			s->greeted = data[at++] == '\n';
		for (; at < n; at++, s->read++)
			fuzz_check(s->read < s->sent && data[at] == byte_of(s, s->read, false),
				   "byte %u of %u to a program is %#x", s->read, s->sent, data[at]);
	}
	return s->fd >= 0;
}

static void program_writes(struct stream *s, u32 len)
{
	u8 data[4096];
	ssize_t n;

	for (u32 i = 0; i < len; i++)
		data[i] = byte_of(s, s->written + i, true);
	n = s->fd < 0 ? -1 : send(s->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	s->written += n > 0 ? n : 0;
}

static void knock(struct fuzz *f)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);
	char line[64];
	struct stream *s;
	int fd, n;
	u8 how = fuzz_u8(f);

	if (g.nr == STREAMS)
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	fuzz_check(!getsockname(listener, (struct sockaddr *)&a, &len) && !connect(fd, (struct sockaddr *)&a, len),
		   "connect: %s", strerror(errno));
	s = new_stream(fd);
	s->by_host = true;
	s->guest_port = ASKED_PORT + g.nr;
	if (how & 1)
		n = snprintf(line, sizeof(line), "CONNECT %u\n", s->guest_port);
	else {
		fuzz_text(f, line, sizeof(line) - 1);
		n = strlen(line);
	}
	(void)!send(fd, line, n, MSG_NOSIGNAL);
	/* What was not the line's is the guest's, but what that is nobody knows. */
	s->open = false;
	if (how & 1)
		program_writes(s, how >> 4);
	else
		s->guest_port = 0;
}

static void program(struct fuzz *f)
{
	u8 how = fuzz_u8(f);
	struct stream *s = g.nr ? &g.stream[fuzz_below(f, g.nr)] : NULL;

	if (!s || s->fd < 0)
		return;
	switch (how % 8) {
	case 0:
		gone(s);
		break;
	case 1:
		shutdown(s->fd, how & 0x80 ? SHUT_WR : SHUT_RD);
		break;
	case 2: case 3: case 4:
		program_reads(s, fuzz_u16(f));
		break;
	default:
		if (s->guest_port || !s->by_host)
			program_writes(s, fuzz_u16(f) % 4096);
	}
}

/* --- what the guest gets ---------------------------------------------------------------- */

static struct stream *find(u32 guest_port, u32 host_port)
{
	for (unsigned i = g.nr; i-- > 0; )
		if (g.stream[i].known && g.stream[i].guest_port == guest_port && g.stream[i].host_port == host_port)
			return &g.stream[i];
	return NULL;
}

static void asked(const struct virtio_vsock_hdr *h)
{
	fuzz_check(h->src_port >= 1 << 30, "port %u of the host's", h->src_port);
	for (unsigned i = 0; i < g.nr; i++) {
		struct stream *s = &g.stream[i];

		/* Whoever said what he wanted in his own words has port 0 here. */
		if (s->by_host && !s->known && s->guest_port == h->dst_port) {
			s->known = true;
			s->host_port = h->src_port;
			return;
		}
	}
}

static bool within(const struct stream *s, u32 alloc, u32 fwd)
{
	return s->got - fwd <= alloc;
}

static void got_data(struct stream *s, const u8 *data, u32 len)
{
	for (u32 i = 0; i < len; i++, s->got++)
		fuzz_check(s->got < s->written && data[i] == byte_of(s, s->got, true),
			   "byte %u of %u to the guest is %#x", s->got, s->written, data[i]);
	fuzz_check(within(s, s->alloc, s->fwd) || within(s, s->old_alloc, s->old_fwd),
		   "%u bytes to a guest that has room for %u after %u", s->got, s->alloc, s->fwd);
}

static void got_packet(const u8 *p, u32 len)
{
	struct virtio_vsock_hdr h;
	struct stream *s;

	memcpy(&h, p, sizeof(h));
	fuzz_check(h.src_cid == 2 && h.dst_cid == CID && h.len == len - PACKET && h.op >= VIRTIO_VSOCK_OP_REQUEST &&
		   h.op <= VIRTIO_VSOCK_OP_CREDIT_REQUEST && !h.len == (h.op != VIRTIO_VSOCK_OP_RW),
		   "a packet %u of %u + %u bytes", h.op, PACKET, h.len);
	if (h.op != VIRTIO_VSOCK_OP_RST)
		fuzz_check(h.type == VIRTIO_VSOCK_TYPE_STREAM && h.buf_alloc == VSOCK_ROOM, "type %u, room %u", h.type,
			   h.buf_alloc);
	if (h.op == VIRTIO_VSOCK_OP_REQUEST) {
		asked(&h);
		return;
	}
	s = find(h.dst_port, h.src_port);
	if (h.op == VIRTIO_VSOCK_OP_RST) {
		/* One before the answer may be of the one before. */
		if (s && s->answered && h.type == VIRTIO_VSOCK_TYPE_STREAM)
			s->open = false;
		return;
	}
	if (!s && h.dst_port >= GUEST_PORTS)
		return;			/* see asked() */
	fuzz_check(s && s->open, "a packet %u of no connection: %u, %u", h.op, h.dst_port, h.src_port);
	if (h.op == VIRTIO_VSOCK_OP_RESPONSE) {
		fuzz_check(!s->by_host && !s->answered, "answered twice");
		s->answered = true;
	}
	if (h.op == VIRTIO_VSOCK_OP_RW)
		got_data(s, p + PACKET, h.len);
	if (h.fwd_cnt)
		fuzz_check(h.fwd_cnt <= s->sent, "%u bytes given on, of %u", h.fwd_cnt, s->sent);
}

/* --- rounds ----------------------------------------------------------------------------- */

static void collect(void)
{
	static u8 data[SLOT];
	u16 head, answers[HOSTILE_QUEUES] = { 0 };
	u32 len;

	while (hostile_answer(g.h, RX, &head, &len)) {
		const struct hostile_chain *c = &g.buffer[g.first];

		fuzz_check(g.nr_buffers && head == c->head && len >= PACKET && len <= c->in, "buffer %u, %u bytes", head,
			   len);
		hostile_gather(g.h, c, true, data, len);
		got_packet(data, len);
		g.first = (g.first + 1) % ARRAY_SIZE(g.buffer);
		g.nr_buffers--;
		answers[RX]++;
	}
	while (hostile_answer(g.h, TX, &head, &len)) {
		fuzz_check(g.unanswered && !len, "an answer of %u bytes", len);
		g.unanswered = false;
		answers[TX]++;
	}
	fuzz_check(!hostile_answer(g.h, EVENT, &head, &len), "an event");
	if (!g.paused)
		hostile_check_interrupts(g.h, answers, true);
}

/* What is there now to be done, by the device. */
static void round_of(int kick, bool scribble)
{
	struct hostile_chain c;

	hostile_look(g.h, kick >= 0);
	for (unsigned i = 0; i < g.nr_buffers; i++)
		hostile_allow(g.h, &g.buffer[(g.first + i) % ARRAY_SIZE(g.buffer)], UINT64_MAX);
	while (hostile_next(g.h, RX, &c) > 0) {
		g.buffer[(g.first + g.nr_buffers++) % ARRAY_SIZE(g.buffer)] = c;
		hostile_allow(g.h, &c, UINT64_MAX);
	}
	while (hostile_next(g.h, TX, &c) > 0)
		;
	hostile_before(g.h, scribble);
	if (kick >= 0)
		hostile_kick(g.h, kick);
	fake_settle(&g.h->fake);
	hostile_after(g.h);
	collect();
}

static void start(u64 features)
{
	hostile_start(g.h, features, NR_QUEUES, true);
	g.first = g.nr_buffers = 0;
	g.unanswered = false;
	for (unsigned i = 0; i < g.nr; i++)
		g.stream[i].open = g.stream[i].known = false;
	round_of(RX, false);
}

static void offer(struct fuzz *f)
{
	u8 how = fuzz_u8(f);
	u64 at = BUFFERS + (g.h->q[RX].next_desc % 16) * SLOT;
	u32 len = PACKET + 1 + (how & 0x80 ? fuzz_u16(f) % (SLOT - PACKET - 1) : SLOT - PACKET - 1);
	u32 cut = how % 64 < len ? how % 64 : 0;
	struct hostile_piece p[2] = { { at, cut ?: len, true }, { at + cut, len - cut, true } };
	int nr = cut ? 2 : 1;

	/* A descriptor for each, always. */
	if (g.nr_buffers >= 7 || g.paused)
		return;
	hostile_chain(g.h, RX, p, nr);
	if (nr == 1)
		g.h->q[RX].next_desc++;
	round_of(RX, false);
}

static struct virtio_vsock_hdr header(struct fuzz *f, struct stream *s, u8 how)
{
	static const u8 ops[16] = { 1, 2, 3, 4, 5, 6, 7, 1, 2, 5, 5, 5, 5, 5, 5, 5 };
	struct virtio_vsock_hdr h = {
		.src_cid = CID, .dst_cid = 2, .type = VIRTIO_VSOCK_TYPE_STREAM, .op = ops[fuzz_u8(f) % 16],
		.buf_alloc = 1 << 16, .flags = how >> 6,
	};

	h.src_port = s ? s->guest_port : how % GUEST_PORTS;
	h.dst_port = s ? s->host_port : fuzz_u8(f) % HOST_PORTS;
	h.fwd_cnt = s ? s->got : 0;
	if (how & 8) {
		h.buf_alloc = fuzz_u16(f);
		h.fwd_cnt = fuzz_u8(f) & 1 ? h.fwd_cnt : fuzz_u32(f);
	}
	return h;
}

/* Those that it knows of it has mostly to do with. */
static void guest_sends(struct fuzz *f, bool scribble)
{
	u8 how = fuzz_u8(f);
	struct stream *s = how & 4 && g.nr ? &g.stream[fuzz_below(f, g.nr)] : NULL;
	struct virtio_vsock_hdr h;
	u64 at = SENT + (g.h->q[TX].next_desc % 16) * SLOT;
	struct hostile_piece p[2];
	u8 data[SLOT] = { 0 };
	u32 len, cut;

	if (g.unanswered || g.paused)
		return;
	if (s && !s->known)
		s = NULL;
	h = header(f, s, how);
	s = find(h.src_port, h.dst_port);
	len = h.op == VIRTIO_VSOCK_OP_RW ? fuzz_u16(f) % (SLOT - PACKET) : 0;
	for (u32 i = 0; s && i < len; i++)
		data[PACKET + i] = byte_of(s, s->sent + i, false);
	h.len = len;
	if (how % 64 == 63) {
		switch (fuzz_u8(f) % 5) {
		case 0: h.src_cid = fuzz_u64(f); break;
		case 1: h.dst_cid = fuzz_u64(f); break;
		case 2: h.type = fuzz_u16(f); break;
		case 3: h.op = fuzz_u16(f); break;
		case 4: h.len = fuzz_u32(f); break;
		}
	}
	if (h.src_cid == CID && h.dst_cid == 2 && h.type == VIRTIO_VSOCK_TYPE_STREAM && s) {
		s->old_alloc = s->alloc;
		s->old_fwd = s->fwd;
		s->alloc = h.buf_alloc;
		s->fwd = h.fwd_cnt;
		s->sent += h.op == VIRTIO_VSOCK_OP_RW && h.len <= len ? h.len : 0;
		if (h.op == VIRTIO_VSOCK_OP_RESPONSE && s->by_host)
			s->open = s->answered = true;
		if (h.op == VIRTIO_VSOCK_OP_RST)
			s->open = s->known = false;
	}
	g.asking = h;
	memcpy(data, &h, sizeof(h));
	cut = how & 0x10 ? fuzz_u8(f) % (PACKET + len) : 0;
	p[0] = (struct hostile_piece){ at, cut ?: PACKET + len, false };
	p[1] = (struct hostile_piece){ at + cut, PACKET + len - cut, false };
	hostile_put(g.h, at, data, PACKET + len);
	g.unanswered = true;
	hostile_chain(g.h, TX, p, cut ? 2 : 1);
	round_of(TX, scribble);
}

static void pause_it(void)
{
	if (g.paused)
		device_resume(g.dev);
	else
		device_quiesce(g.dev);
	g.paused = !g.paused;
	g.h->paused = g.paused;
	round_of(-1, false);
}

/* Whatever was done to it. */
static void works(void)
{
	struct virtio_vsock_hdr h = { .src_cid = CID, .dst_cid = 2, .type = VIRTIO_VSOCK_TYPE_STREAM,
				      .op = VIRTIO_VSOCK_OP_REQUEST, .src_port = 1, .dst_port = 1, .buf_alloc = 100 };
	struct hostile_piece p = { SENT, PACKET, false }, b = { BUFFERS, SLOT, true };
	struct stream *s;

	if (g.paused)
		pause_it();
	for (unsigned i = 0; i < g.nr; i++)
		gone(&g.stream[i]);
	start(0);
	g.nr = 0;
	hostile_chain(g.h, RX, &b, 1);
	hostile_put(g.h, SENT, &h, sizeof(h));
	g.asking = h;
	g.unanswered = true;
	hostile_chain(g.h, TX, &p, 1);
	round_of(TX, false);
	s = find(1, 1);
	fuzz_check(s && s->answered, "no connection after a reset");
	b.addr += SLOT;
	hostile_chain(g.h, RX, &b, 1);
	program_writes(s, h.buf_alloc + 50);
	round_of(RX, false);
	fuzz_check(s->got == h.buf_alloc, "%u bytes after a reset", s->got);
}

static int open_files(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void finish(int before)
{
	int fd;

	hostile_end(g.h, g.dev);
	for (unsigned i = 0; i < g.nr; i++) {
		struct stream *s = &g.stream[i];

		/* Of one that was never taken in, the listener has the other end. */
		if (!s->by_host)
			fuzz_check(!program_reads(s, UINT32_MAX), "a socket that was left");
		gone(s);
	}
	while ((fd = accept(listener, NULL, NULL)) >= 0)
		close(fd);
	fuzz_check(open_files() == before, "%d files are open, not %d", open_files(), before);
}

void fuzz_one(struct fuzz *f)
{
	struct virtio *v;
	int before;

	listen_once();
	memset(&g, 0, sizeof(g));
	g.h = hostile_begin(f);
	before = open_files();
	fuzz_check(!virtio_vsock_new(&g.h->fake.p, "vsock0", CID, NULL, &v, NULL), "virtio_vsock_new");
	g.dev = hostile_plug(v);
	start(~0ULL);
	while (f->left) {
		u8 step = fuzz_u8(f);

		switch (step % 16) {
		case 0:
			if (step == 0 && !g.paused)
				start(fuzz_u64(f));
			break;
		case 1:
			if (step < 0x40)
				pause_it();
			break;
		case 2: case 3: case 4: case 5:
			offer(f);
			break;
		case 6: case 7: case 8:
			program(f);
			round_of(-1, false);
			break;
		case 9:
			knock(f);
			round_of(-1, false);
			break;
		default:
			guest_sends(f, step & 0x80);
		}
	}
	works();
	finish(before);
}
