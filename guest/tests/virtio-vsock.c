/*
 * virtio-vsock.c: promise: programs of the host reach the guest by a vsock device, and it them, over either
 * transport (transport=pci|mmio). What comes to port 52 is sent back; until the other end sends no more, and
 * then it closes. connect=PORT: it connects to that port of the host, and says "hello from CID"; when it hears
 * that its connections are gone, it says "reset", and does so again. 'q' on the console is the end.
 *
 * Spec: virtio 1.2, 5.10.
 */
#include "guest/lib/apic.h"
#include "guest/lib/start.h"
#include "guest/lib/string.h"
#include "guest/lib/user.h"
#include "guest/lib/virtq.h"

enum {
	RX, TX, EVENT, HOST = 2, STREAM = 1, PORT = 52, OUR_PORT = 1000,
	REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST,
	NO_MORE = 2, BOTH = 3,
	CONNECTIONS = 64, ROOM = 32768, BUFFERS = 8, BUFFER = 4096,
};

struct header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

struct packet {
	struct header h;
	u8 data[BUFFER];
} __attribute__((packed));

struct connection {
	bool used, ended;
	u32 ours, theirs;		/* ports */
	u32 peer_alloc, peer_forwarded, sent, forwarded;
	u32 at, len;			/* of what is to be sent back */
	u8 data[ROOM];
};

static struct virtio v;
static struct virtq rx, tx, event;
static struct packet in[BUFFERS], out;
static struct connection connection[CONNECTIONS] NOINIT;
static u32 event_id;
static u64 cid;

static void send_to(u32 ours, u32 theirs, const struct connection *c, u16 op, u32 len, u32 flags)
{
	struct virtq_buf b = { &out, (u32)sizeof(out.h) + len, false };
	u32 used;

	out.h = (struct header){
		.src_cid = cid, .dst_cid = HOST, .src_port = ours, .dst_port = theirs, .len = len,
		.type = STREAM, .op = op, .flags = flags, .buf_alloc = ROOM, .fwd_cnt = c ? c->forwarded : 0,
	};
	if (!virtq_do(&tx, &b, 1, NULL, &used)) {
		say("not ok - a packet was not taken\n");
		guest_exit(1);
	}
}

static void send(struct connection *c, u16 op, u32 len, u32 flags)
{
	send_to(c->ours, c->theirs, c, op, len, flags);
}

static struct connection *find(u32 ours, u32 theirs)
{
	u32 i;

	for (i = 0; i < CONNECTIONS; i++)
		if (connection[i].used && connection[i].ours == ours && connection[i].theirs == theirs)
			return &connection[i];
	return NULL;
}

static struct connection *begin(u32 ours, u32 theirs)
{
	u32 i;

	for (i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &connection[i];

		if (c->used)
			continue;
		c->used = true;
		c->ended = false;
		c->ours = ours;
		c->theirs = theirs;
		c->sent = c->forwarded = c->at = c->len = 0;
		return c;
	}
	return NULL;
}

/* As much as the other end has room for. */
static void send_back(struct connection *c)
{
	u32 room = c->peer_alloc - (c->sent - c->peer_forwarded), len, i;

	while (c->len && room) {
		len = c->len < room ? c->len : room;
		len = len < BUFFER ? len : BUFFER;
		for (i = 0; i < len; i++)
			out.data[i] = c->data[(c->at + i) % ROOM];
		c->at = (c->at + len) % ROOM;
		c->len -= len;
		c->sent += len;
		c->forwarded += len;
		room -= len;
		send(c, RW, len, 0);
	}
	if (c->ended && !c->len) {
		c->ended = false;
		send(c, SHUTDOWN, 0, BOTH);
	}
}

static void greet(struct connection *c)
{
	static const char hello[] = "hello from ";

	memcpy(out.data, hello, sizeof(hello) - 1);
	out.data[sizeof(hello) - 1] = (u8)('0' + cid);
	out.data[sizeof(hello)] = '\n';
	c->sent += sizeof(hello) + 1;
	send(c, RW, sizeof(hello) + 1, 0);
}

static void keep(struct connection *c, const struct packet *p)
{
	u32 i;

	if (p->h.len > ROOM - c->len) {
		say("not ok - more than there is room for\n");
		guest_exit(1);
	}
	for (i = 0; i < p->h.len; i++)
		c->data[(c->at + c->len + i) % ROOM] = p->data[i];
	c->len += p->h.len;
}

static void take(const struct packet *p)
{
	u32 ours = p->h.dst_port, theirs = p->h.src_port;
	struct connection *c = find(ours, theirs);

	if (p->h.src_cid != HOST || p->h.dst_cid != cid || p->h.type != STREAM) {
		say("not ok - a packet of another's\n");
		guest_exit(1);
	}
	if (!c && p->h.op == REQUEST && ours == PORT)
		c = begin(ours, theirs);
	if (!c) {
		if (p->h.op != RST)
			send_to(ours, theirs, NULL, RST, 0, 0);
		return;
	}
	c->peer_alloc = p->h.buf_alloc;
	c->peer_forwarded = p->h.fwd_cnt;
	if (p->h.op == RST)
		c->used = false;
	else if (p->h.op == REQUEST)
		send(c, RESPONSE, 0, 0);
	else if (p->h.op == RESPONSE)
		greet(c);
	else if (p->h.op == RW)
		keep(c, p);
	else if (p->h.op == SHUTDOWN && p->h.flags & NO_MORE)
		c->ended = true;
	else if (p->h.op == CREDIT_REQUEST)
		send(c, CREDIT_UPDATE, 0, 0);
	if (c->used)
		send_back(c);
}

static void offer(u32 i)
{
	struct virtq_buf b = { &in[i], sizeof(in[i]), true };

	virtq_add(&rx, &b, 1, NULL);
}

static void offer_event(void)
{
	struct virtq_buf b = { &event_id, sizeof(event_id), true };

	event_id = 99;
	virtq_add(&event, &b, 1, NULL);
	virtq_kick(&event);
}

static void connect_out(void)
{
	u32 port = (u32)arg_u64("connect", 0);
	struct connection *c = port ? begin(OUR_PORT, port) : NULL;

	if (c)
		send(c, REQUEST, 0, 0);
}

static void start_again(void)
{
	u32 i;

	check(event_id == 0, "reset");
	cid = virtio_config(&v, 0, 8);
	for (i = 0; i < CONNECTIONS; i++)
		connection[i].used = false;
	offer_event();
	connect_out();
}

static bool start(void)
{
	u32 i;

	if (!virtio_find(&v, VIRTIO_VSOCK, 0) || !virtio_negotiate(&v, 0) || !virtq_init(&rx, &v, RX, BUFFERS) ||
	    !virtq_init(&tx, &v, TX, VIRTQ_SIZE) || !virtq_init(&event, &v, EVENT, VIRTQ_SIZE))
		return false;
	virtio_add_status(&v, STATUS_DRIVER_OK);
	cid = virtio_config(&v, 0, 8);
	for (i = 0; i < CONNECTIONS; i++)
		connection[i].used = false;
	for (i = 0; i < BUFFERS; i++)
		offer(i);
	virtq_kick(&rx);
	offer_event();
	return true;
}

/* At CPL 3, for the sake of speed. Buffers come back in order, so that each has its entry of the ring. */
static void run(void)
{
	u32 id, len;

	connect_out();
	say("ready\n");
	while (serial_read() != 'q') {
		while (virtq_pop(&rx, &id, &len)) {
			take(&in[id]);
			offer(id);
			virtq_kick(&rx);
		}
		if (virtq_pop(&event, &id, &len))
			start_again();
		poll_pause();
	}
	guest_exit(check_result());
}

int main(const struct start_info *info, const char *cmdline)
{
	(void)info;
	(void)cmdline;
	apic_init();
	if (!check(start(), "a device with three queues"))
		return 1;
	user_enter(run);
	return 1;
}
