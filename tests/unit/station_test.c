/* station_test.c: what stands between a card and its far end: what goes through, and what does not. */
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include "devices/net/frame.h"
#include "devices/net/station.h"
#include "tests/lib/fetch.h"
#include "tests/lib/test.h"
#include "tests/lib/wire.h"
#include "vmm/api/metadata.h"

enum { PAIRS = 3, SYN = 2, PSH = 8, ACK = 16, FIN = 1 };

/* --- a far end that writes down what it is told -------------------------------------------------- */

struct far {
	struct net net;
	struct net_ops ops;
	bool started, closed, attached, link, has_rss, has_filter, rx, tx;
	int rc;				/* of the next send */
	u64 features;
	const struct iovec *iov;	/* as send got it */
	int nr_sent;
	u8 sent[NET_FRAME_MAX];
	size_t sent_len;
	const u8 *next;			/* to be received; NULL: none */
	size_t next_len;
};
static struct far far[PAIRS];

static struct far *of(struct net *n)
{
	return container_of(n, struct far, net);
}

static int far_send(struct net *n, const struct iovec *iov, int nr)
{
	struct far *f = of(n);
	int rc = f->rc;

	f->rc = 0;
	f->iov = iov;
	f->nr_sent++;
	f->sent_len = 0;
	for (int i = 0; i < nr; i++) {
		memcpy(f->sent + f->sent_len, iov[i].iov_base, iov[i].iov_len);
		f->sent_len += iov[i].iov_len;
	}
	return rc;
}

static ssize_t far_recv(struct net *n, const struct iovec *iov, int nr)
{
	struct far *f = of(n);
	const u8 *next = f->next;

	f->next = NULL;
	return next ? frame_give(iov, nr, VIRTIO_NET_HDR_F_DATA_VALID, next, f->next_len) : -EAGAIN;
}

static int far_start(struct net *n, struct loop *l) { (void)l; of(n)->started = true; return 0; }
static void far_stop(struct net *n) { of(n)->started = false; }
static void far_want(struct net *n, bool rx, bool tx) { of(n)->rx = rx; of(n)->tx = tx; }
static int far_offload(struct net *n, u64 f) { of(n)->features = f; return 0; }
static int far_attach(struct net *n, bool on) { of(n)->attached = on; return 0; }
static void far_link(struct net *n, bool up) { of(n)->link = up; }
static int far_rss(struct net *n, const struct net_rss *r) { of(n)->has_rss = r; return 0; }
static void far_filter(struct net *n, const struct net_filter *f) { of(n)->has_filter = f; }
static int far_vhost(struct net *n) { (void)n; return 1; }
static void far_close(struct net *n) { of(n)->closed = true; }

static struct station *station;
static struct net *queue[PAIRS];
static struct metadata *m;
static struct wire wire;
static struct err err;

static char *answer(void *arg, const char *request, size_t len, bool too_long, size_t *answer_len)
{
	(void)arg;
	return metadata_answer(m, request, len, too_long, 1, answer_len);
}

static int setup(void **state)
{
	struct responder_options o = { .port = 80, .answer = answer };
	json_t *root = json_pack("{s:s}", "a", "what was left for it");

	(void)state;
	memset(far, 0, sizeof(far));
	for (int i = 0; i < PAIRS; i++) {
		far[i].ops = (struct net_ops){
			.kind = "far", .send = far_send, .recv = far_recv, .start = far_start,
			.stop = far_stop, .want = far_want, .set_offload = far_offload,
			.attach = far_attach, .set_link = far_link, .set_rss = far_rss,
			.set_filter = far_filter, .vhost_fd = far_vhost, .close = far_close,
		};
		far[i].net = (struct net){ .ops = &far[i].ops, .offload = 0x1234, .mtu = 1400,
					   .host_mac = { 2, 3 }, .calls_again = true };
		queue[i] = &far[i].net;
	}
	o.address.s_addr = htonl(MMDS_ADDRESS);
	assert_int_equal(metadata_new(&m, 1000, &err), 0);
	assert_int_equal(metadata_put(m, root, &err), 0);
	json_decref(root);
	assert_int_equal(station_new(&station, queue, PAIRS, &o, &err), 0);
	wire_init(&wire, queue[0], 77);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wire_fini(&wire);
	for (int i = 1; i < PAIRS; i++)
		net_close(queue[i]);
	for (int i = 0; i < PAIRS; i++)
		assert_true(far[i].closed);
	metadata_free(m);
	return 0;
}

/* --- what goes through ------------------------------------------------------------------------------ */

static void test_passed_on(void **state)
{
	struct net_filter filter = { 0 };
	struct net_rss rss = { 0 };

	(void)state;
	assert_string_equal(queue[0]->ops->kind, "far");
	assert_int_equal(queue[0]->offload, 0x1234);
	assert_int_equal(queue[0]->mtu, 1400);
	assert_int_equal(queue[0]->host_mac[1], 3);
	assert_true(queue[0]->calls_again);
	assert_null(queue[0]->ops->vhost_fd);
	assert_true(far[0].started);
	assert_int_equal(far[0].features, 77);
	assert_int_equal(queue[1]->ops->attach(queue[1], true), 0);
	assert_true(far[1].attached && !far[0].attached);
	queue[0]->ops->set_link(queue[0], true);
	assert_true(far[0].link);
	assert_int_equal(queue[0]->ops->set_rss(queue[0], &rss), 0);
	assert_true(far[0].has_rss);
	queue[0]->ops->set_filter(queue[0], &filter);
	assert_true(far[0].has_filter);
	queue[0]->ops->want(queue[0], true, true);
	assert_true(far[0].rx && far[0].tx);
	far[0].net.writable(&far[0].net);
	assert_int_equal(wire.nr_writable, 1);
	far[0].net.lost(&far[0].net);
	assert_int_equal(wire.nr_lost, 1);
	queue[0]->ops->stop(queue[0]);
	assert_false(far[0].started);
	assert_int_equal(queue[0]->ops->start(queue[0], wire.fake.p.io_loop), 0);
	assert_true(far[0].started);
}

/* What a far end cannot do, this cannot either. */
static void test_plain_far_end(void **state)
{
	struct far plain = { .ops = { .kind = "plain", .close = far_close } };
	struct responder_options o = { .port = 80, .answer = answer };
	struct net *one = &plain.net;
	struct station *s;

	(void)state;
	plain.net.ops = &plain.ops;
	assert_int_equal(station_new(&s, &one, 1, &o, &err), 0);
	assert_null(one->ops->attach);
	assert_null(one->ops->set_link);
	assert_null(one->ops->set_rss);
	assert_null(one->ops->set_filter);
	net_close(one);
	assert_true(plain.closed);
}

/* All that is not for the address, short or odd: the driver's pieces themselves. */
static void test_other_frames(void **state)
{
	static u8 buf[NET_FRAME_MAX];
	struct iovec iov[3] = { { buf, 5 }, { buf + 5, 20 }, { buf + 25, 0 } };

	(void)state;
	for (size_t len = 25; len < 200; len++) {
		for (size_t i = 0; i < len; i++)
			buf[i] = i * len;
		iov[2].iov_len = len - 25;
		far[0].rc = len % 2 ? -EAGAIN : 0;
		assert_int_equal(queue[0]->ops->send(queue[0], iov, 3), len % 2 ? -EAGAIN : 0);
		assert_ptr_equal(far[0].iov, iov);
		assert_int_equal(far[0].sent_len, len);
		assert_memory_equal(far[0].sent, buf, len);
	}
	assert_int_equal(far[0].nr_sent, 175);
	assert_int_equal(station_counters(station)->rx_frames, 0);
}

static bool any(const u8 *f, size_t len, void *arg)
{
	(void)f;
	(void)len;
	(void)arg;
	return true;
}

static void test_received(void **state)
{
	static const u8 frame[60] = { 1, 2, 3, 4 };
	const u8 *got;
	size_t len;

	(void)state;
	far[0].next = frame;
	far[0].next_len = sizeof(frame);
	far[0].net.readable(&far[0].net);
	got = wire_expect(&wire, any, NULL, &len);
	assert_non_null(got);
	assert_int_equal(len, sizeof(frame));
	assert_memory_equal(got, frame, sizeof(frame));
	assert_int_equal(got[-NET_HDR_LEN], VIRTIO_NET_HDR_F_DATA_VALID);
}

/* --- what does not ------------------------------------------------------------------------------------- */

static void put32(u8 *p, u32 v) { v = htonl(v); memcpy(p, &v, 4); }
static u32 get32(const u8 *p) { u32 v; memcpy(&v, p, 4); return ntohl(v); }

/* Without a sum, as a driver leaves it; large ones, as it leaves their cutting. */
static void send_tcp(unsigned pair, u32 seq, u32 ack, u8 flags, const char *text, u8 gso)
{
	struct wire_ip h = { .from = "10.0.0.2", .to = "169.254.169.254", .protocol = IPPROTO_TCP };
	struct virtio_net_hdr_v1 hdr = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = gso,
					 .gso_size = 100, .csum_offset = 16 };
	u8 tcp[8192] = { 0x9c, 0x40, 0, 80 }, frame[9000];
	struct iovec iov[3];
	u16 start;
	size_t len;

	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = 0x50;
	tcp[13] = flags;
	tcp[14] = 0x70;
	memcpy(tcp + 20, text, strlen(text));
	len = wire_ip(frame, &h, tcp, 20 + strlen(text), 16, &start);
	hdr.csum_start = start;
	iov[0] = (struct iovec){ &hdr, sizeof(hdr) };
	iov[1] = (struct iovec){ frame, 20 };
	iov[2] = (struct iovec){ frame + 20, len - 20 };
	assert_int_equal(queue[pair]->ops->send(queue[pair], iov, 3), 0);
}

static bool is_tcp(const u8 *f, size_t len, void *flags)
{
	assert_true(wire_sum_is_right(f, len));
	return f[23] == IPPROTO_TCP && f[47] == *(u8 *)flags;
}

static const u8 *hear(u8 flags, size_t *len)
{
	const u8 *f = wire_expect(&wire, is_tcp, &flags, len);

	if (!f)
		fail_msg("no segment with flags %x", flags);
	return f + 34;
}

static void test_asked(void **state)
{
	static char request[6000];
	const u8 *tcp;
	size_t len;
	u32 ack;

	(void)state;
	send_tcp(0, 100, 0, SYN, "", 0);
	ack = get32(hear(SYN | ACK, NULL) + 4) + 1;
	snprintf(request, sizeof(request), "GET /a HTTP/1.1\r\nHost: x\r\nCookie: %05000d\r\n\r\n", 1);
	send_tcp(0, 101, ack, ACK | PSH, request, VIRTIO_NET_HDR_GSO_TCPV4);
	tcp = hear(ACK | PSH | FIN, &len);
	assert_int_equal(get32(tcp + 8), 101 + strlen(request));
	assert_true(!memcmp(tcp + 20, "HTTP/1.1 200 OK\r\n", 17));
	assert_true(!memcmp(tcp + len - 34 - 20, "what was left for it", 20));
	assert_int_equal(far[0].nr_sent, 0);
	assert_int_equal(station_counters(station)->connections, 1);
	/* The wire was cut under it, as for a pause: nothing is forgotten. */
	queue[0]->ops->stop(queue[0]);
	assert_int_equal(queue[0]->ops->start(queue[0], wire.fake.p.io_loop), 0);
	wire_listen(&wire, true);
	send_tcp(0, 101 + strlen(request), ack + len - 54 + 1, ACK | FIN, "", 0);
	assert_int_equal(get32(hear(ACK, NULL) + 8), 102 + strlen(request));
	assert_int_equal(station_counters(station)->closed, 1);
	station_restart(station);
	assert_int_equal(station_counters(station)->connections, 0);
}

/* One connection's frames by several pairs: all of them know it. */
static void test_pairs(void **state)
{
	u32 ack;

	(void)state;
	queue[1]->card = queue[0]->card;
	queue[1]->readable = queue[0]->readable;
	assert_int_equal(queue[1]->ops->start(queue[1], wire.fake.p.io_loop), 0);
	send_tcp(1, 100, 0, SYN, "", 0);
	ack = get32(hear(SYN | ACK, NULL) + 4) + 1;
	send_tcp(0, 101, ack, ACK, "GET /a HTT", 0);
	hear(ACK, NULL);
	send_tcp(0, 111, ack, ACK, "P/1.0\r\n\r\n", 0);
	hear(ACK | PSH | FIN, NULL);
	assert_int_equal(far[0].nr_sent + far[1].nr_sent, 0);
	/* To what is attached, as the far end's frames. */
	wire_listen(&wire, false);
	send_tcp(1, 200, 0, SYN, "", 0);
	assert_int_equal(queue[0]->ops->attach(queue[0], false), 0);
	wire_listen(&wire, true);
	assert_int_equal(wire_turn(&wire, 5), 0);
	assert_int_equal(queue[0]->ops->attach(queue[0], true), 0);
	hear(ACK, NULL);
	queue[1]->ops->stop(queue[1]);
}

/* A card without buffers is not called; what it has missed is there later. */
static void test_no_buffers(void **state)
{
	(void)state;
	wire_listen(&wire, false);
	send_tcp(0, 100, 0, SYN, "", 0);
	assert_int_equal(wire_turn(&wire, 5), 0);
	wire_listen(&wire, true);
	hear(SYN | ACK, NULL);
}

/* Another processor of the guest's changes it after each read, in turn: what is no longer for us by then is nobody's. */
static void test_frame_changes(void **state)
{
	static u8 page[4096] __attribute__((aligned(4096)));
	struct wire_ip h = { .from = "10.0.0.2", .to = "169.254.169.254", .protocol = IPPROTO_TCP };
	u8 tcp[20] = { 0x9c, 0x40, 0, 80, [12] = 0x50, [13] = SYN }, *frame = page + NET_HDR_LEN;
	unsigned after = 0, reads, refused = 0;
	u16 start;

	(void)state;
	do {
		struct iovec iov = { page, NET_HDR_LEN };
		int rc;

		iov.iov_len += wire_ip(frame, &h, tcp, sizeof(tcp), 16, &start);
		fetch_begin(frame + 12, "\x88\xb5", 2, ++after);
		rc = queue[0]->ops->send(queue[0], &iov, 1);
		reads = fetch_end();
		assert_true(!rc || rc == -EPROTO);
		refused += !!rc;
	} while (after < reads);
	assert_true(refused > 0);
}

/* What is too long for any frame, or has an end before its head. */
static void test_wrong_length(void **state)
{
	static u8 buf[NET_FRAME_MAX + 1];
	struct iovec iov = { buf, sizeof(buf) };

	(void)state;
	buf[NET_HDR_LEN + 12] = 8;
	put32(buf + NET_HDR_LEN + 30, MMDS_ADDRESS);
	assert_int_equal(queue[0]->ops->send(queue[0], &iov, 1), -EPROTO);
	assert_int_equal(far[0].nr_sent, 0);
	iov.iov_len = NET_HDR_LEN + 34;
	assert_int_equal(queue[0]->ops->send(queue[0], &iov, 1), 0);
	assert_int_equal(station_counters(station)->rx_bad, 1);
	iov.iov_len = NET_HDR_LEN + 33;
	assert_int_equal(queue[0]->ops->send(queue[0], &iov, 1), 0);
	assert_int_equal(far[0].nr_sent, 1);
}

int main(void)
{
#define T(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_passed_on), T(test_plain_far_end), T(test_other_frames), T(test_received),
		T(test_asked), T(test_pairs), T(test_no_buffers), T(test_wrong_length), T(test_frame_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
